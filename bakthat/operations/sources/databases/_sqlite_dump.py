"""Write a consistent copy of a SQLite database to standard output.

This is a program of its own, ``_sqlite_dump.py PATH SECONDS``, which loads the standard library
only. The copy is first made in a temporary file without a name: it takes seconds, and standard
output may take hours, for which writers would have to wait.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import quote

BUSY_SECONDS = 60.0
"""How long to wait for a program that has locked the database."""

_CHUNK = 1 << 20
_REFUSED = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY})
"""What SQLite answers where it cannot make the files of a log; which one is the system's choice."""


def connect(path: str, mode: str, seconds: float) -> sqlite3.Connection:
    """Open the file *path*, which must exist. Raises sqlite3.Error.

    *mode* is "rw", or other parameters of SQLite's URIs. Transactions are the caller's.
    """
    return sqlite3.connect(
        f"file://{quote(os.fsencode(path))}?mode={mode}",
        uri=True,
        timeout=seconds,
        isolation_level=None,
    )


@contextmanager
def reading(path: str, seconds: float) -> Iterator[sqlite3.Connection]:
    """Open the database *path* and keep it as it is now until the block ends.

    Raises OSError and sqlite3.Error; also at the end of the block, when what was read is not
    consistent.
    """
    # Nothing here opens the file but SQLite: closing it would end the locks of this process, which
    # may have the database open.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("it is not a file")
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    before = _state_without_log(path)
    try:
        # Not "ro": it could not undo what a killed program has left half done, and leaves the
        # files of a write-ahead log behind. Where the file may only be read, SQLite knows.
        connection = connect(path, "rw", seconds)
        try:
            _begin(connection)
        except BaseException:
            connection.close()
            raise
    except sqlite3.OperationalError as exc:
        # The files of a write-ahead log cannot be made in a directory that one may only read.
        # They are not needed while no program has the database open.
        if before is None or exc.sqlite_errorcode & 0xFF not in _REFUSED:
            raise
        with closing(connect(path, "ro&immutable=1", seconds)) as connection:
            yield connection
        if _state_without_log(path) != before:
            raise OSError("a program changed the database, and its log may only be read") from exc
    else:
        with closing(connection):
            yield connection


def _begin(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA query_only = ON")
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # takes the lock


def _state_without_log(path: str) -> tuple[int, int, int] | None:
    """Return what changes when a database changes; None while it has a log or a journal."""
    if os.path.exists(f"{path}-wal") or os.path.exists(f"{path}-journal"):
        return None
    now = os.stat(path)
    return now.st_ino, now.st_size, now.st_mtime_ns


def reason(error: Exception) -> str:
    """Return what went wrong with a database, for the end of a message."""
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_READONLY_ROLLBACK:
        return "a killed program left a transaction, which only a user who may write can undo"
    if code in {sqlite3.SQLITE_READONLY_DIRECTORY, sqlite3.SQLITE_READONLY_CANTINIT}:
        code = sqlite3.SQLITE_CANTOPEN
    match (code or 0) & 0xFF:
        case sqlite3.SQLITE_NOTADB:
            return "the file is not a SQLite database, or it is encrypted"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return "another program has locked the database"
        case sqlite3.SQLITE_CANTOPEN:
            return "SQLite cannot open the database, or the files of its log beside it"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _copy(path: str, seconds: float) -> int:
    """Copy the database *path* into a file without a name, and return its descriptor."""
    descriptor, name = tempfile.mkstemp(prefix="bakthat-")
    try:
        connection = sqlite3.connect(name, isolation_level=None)
    finally:
        os.unlink(name)  # so that nothing is left, however this process ends
    with closing(connection) as copy, reading(path, seconds) as source:
        # SQLite makes no journal for a file without a name, and the copy needs none.
        copy.execute("PRAGMA journal_mode = OFF")
        copy.execute("PRAGMA synchronous = OFF")
        # In one step: otherwise each change by another program starts the copy again.
        source.backup(copy, pages=-1)
    return descriptor


def main(path: str, seconds: str) -> int:
    """Write the copy, and return the exit code."""
    try:
        descriptor = _copy(path, float(seconds))
        while chunk := os.read(descriptor, _CHUNK):
            view = memoryview(chunk)
            while view:
                view = view[os.write(sys.stdout.fileno(), view) :]
    except (OSError, sqlite3.Error) as exc:
        where = ""
        if getattr(exc, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            where = f" in {tempfile.gettempdir()}, where it is copied first"
        sys.stderr.write(f"{reason(exc)}{where}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
