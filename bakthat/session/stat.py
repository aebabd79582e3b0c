"""Look many objects up: by listings, or by a request each, several at once."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from bakthat.backends.base import Backend, StoredObject, UnreadableError
from bakthat.errors import NotFoundError
from bakthat.format.names import parse_any_name

if TYPE_CHECKING:
    from bakthat.system.threads import ThreadPool

Item = TypeVar("Item")

WORKERS = 8
"""How many requests are sent at once. More would only wait for a connection of the backend."""

BATCH = 256
"""How many objects are submitted to the workers at once, which bounds the memory. Sync records a
batch in one transaction, so an interrupt loses at most one batch."""


def stat_by_listing(backend: Backend, keys: Collection[str]) -> dict[str, StoredObject]:
    """Return those of *keys* that are stored, from listings where they take fewer requests.

    First the container is listed below the common prefix of all keys. The container may hold far
    more than these, so a listing ends once it took as many requests as looking in each set, or for
    each key, would. Then each set is listed, and the keys of a set that has too many other objects
    are requested one by one. So the requests are at most some three for each set or key, however
    many other objects there are.

    A listing may lack the self-description of an object. Raises StorageError.
    """
    wanted = frozenset(keys)
    sets: dict[str, set[str]] = {}
    for key in wanted:
        sets.setdefault(beginning_of(key), set()).add(key)
    found: dict[str, StoredObject] = {}
    if len(sets) > 1 and _list_into(found, backend, wanted, requests=len(sets)):
        return found
    missing = {beginning: group - found.keys() for beginning, group in sets.items()}
    single = [
        key
        for group in missing.values()
        if len(group) == 1 or (group and not _list_into(found, backend, group, len(group)))
        for key in group - found.keys()
    ]
    if single:
        with workers() as pool:
            stored = pool.map(lambda key: _stat_if_stored(backend, key), single)
            found |= {each.key: each for each in stored if each is not None}
    return found


def stat_or_listed(backend: Backend, key: str) -> StoredObject:
    """Return *key* with its self-description or, where it may not be read, as it is listed.

    Raises NotFoundError and other StorageErrors.
    """
    try:
        return backend.stat(key)
    except UnreadableError as exc:
        return exc.stored


def beginning_of(key: str) -> str:
    """Return the part of *key* before the date: the prefix and the name of its set."""
    prefix, slash, name = key.rpartition("/")
    parsed = parse_any_name(name)
    return f"{prefix}{slash}{parsed.stem if parsed is not None else name}"


def _list_into(
    found: dict[str, StoredObject], backend: Backend, keys: Collection[str], requests: int
) -> bool:
    """Add those of *keys* that a listing of about *requests* requests shows to *found*.

    Returns whether the listing came to its end.
    """
    prefix = os.path.commonprefix(list(keys))  # noqa: RUF071  # keys are not paths
    others = 0
    for each in backend.ls(prefix):
        if each.key in keys:
            found[each.key] = each
            continue
        others += 1
        # Half of a page is indexes, which the listing leaves out.
        if backend.page_size and others > requests * backend.page_size // 2:
            return False
    return True


def _stat_if_stored(backend: Backend, key: str) -> StoredObject | None:
    try:
        return stat_or_listed(backend, key)
    except NotFoundError:
        return None


@contextmanager
def workers() -> Iterator[ThreadPool]:
    """Yield a pool of threads for requests; at the end, cancel those that were not sent yet."""
    from bakthat.system.threads import ThreadPool  # a deletion does not need it

    pool = ThreadPool(WORKERS, thread_name_prefix="bakthat-stat")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Yield *items* in batches for the workers."""
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))
