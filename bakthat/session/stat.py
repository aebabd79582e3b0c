"""Look many objects up: by one listing, or by a request each, several at once."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from bakthat.backends.base import Backend, StoredObject

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Item = TypeVar("Item")

WORKERS = 8
"""How many requests are sent at once. More would only wait for a connection of the backend."""

BATCH = 256
"""How many objects are submitted to the workers at once, which bounds the memory. Sync records a
batch in one transaction, so an interrupt loses at most one batch."""


def stat_by_listing(backend: Backend, keys: Collection[str]) -> dict[str, StoredObject]:
    """Return those of *keys* that are stored, from one listing below their common prefix.

    A listing may lack the self-description of an object. Raises StorageError.
    """
    wanted = frozenset(keys)
    prefix = os.path.commonprefix(list(wanted))  # noqa: RUF071  # keys are not paths
    return {each.key: each for each in backend.ls(prefix) if each.key in wanted}


@contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of threads for requests; at the end, cancel those that were not sent yet."""
    from concurrent.futures import ThreadPoolExecutor  # a deletion does not need it

    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="bakthat-stat")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Yield *items* in batches for the workers."""
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))
