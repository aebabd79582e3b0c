"""The catalog that a block uses: opened for the block, and closed at its end."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peewee

from bakthat.database import sqlite
from bakthat.database.address import Location
from bakthat.database.base import CatalogDatabase, Prepare

_lock = threading.RLock()

current = peewee.DatabaseProxy()
"""The database of the innermost block; only the thread with the lock uses it."""


@contextlib.contextmanager
def opened(location: Location, timeout: float, prepare: Prepare, *, write: bool) -> Iterator[None]:
    """Make :data:`current` the catalog at *location* during the block.

    *prepare* is called with a database that was just opened. With *write*, the block is one
    transaction. *timeout* is in seconds, for the locks of other processes. An inner block uses the
    connection of an outer one for the same catalog. Raises CatalogError.
    """
    with _lock, contextlib.ExitStack() as stack:
        if not _is_open(location, write=write):
            if isinstance(location, Path):
                database: Any = stack.enter_context(
                    sqlite.opened(location, timeout, prepare, write=write)
                )
            else:
                from bakthat.database import server  # a catalog in a file does not need it

                database = stack.enter_context(server.opened(location, timeout, prepare))
            stack.callback(current.initialize, current.obj)
            current.initialize(database)
        if write:
            stack.enter_context(current.writing())
        yield


def _is_open(location: Location, *, write: bool) -> bool:
    """Return whether an outer block of this thread has the catalog open, and open to write it."""
    database: CatalogDatabase | None = current.obj
    if database is None or (write and database.is_read_only):
        return False
    if isinstance(location, Path) and isinstance(database.location, Path):
        return os.path.realpath(database.location) == os.path.realpath(location)
    return database.location == location
