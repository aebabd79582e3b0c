"""The catalog in a file of SQLite: open it to write or only to read it, and say what is wrong.

An error of SQLite becomes a CatalogError where it arises, at the cursor. An exception of the block
that uses the database stays what it is.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import random
import sqlite3
import stat
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import peewee

from bakthat.database.base import Prepare, locked_error
from bakthat.errors import CatalogError
from bakthat.system.text import printable, reason_of

log = logging.getLogger("bakthat")

LOCKED = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")
_DAMAGED = ("SQLITE_NOTADB", "SQLITE_CORRUPT")
_NO_WRITING = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")
"""Beginnings of the error codes of a database that cannot be written, and may be readable."""

_LOG_PAUSE = 0.05
"""The longest pause, in seconds, between two attempts to switch to a write-ahead log."""

_IMMUTABLE = "mode=ro&immutable=1"
"""The parameters that make SQLite use no lock and no file but the database itself."""


class _FullError(CatalogError):
    """There is no room for the catalog on its disk."""


class SqliteCatalog(peewee.SqliteDatabase):
    """A connection to the catalog *file*, which raises CatalogError.

    *uri* opens the file in another way than for reading and writing; then ``is_read_only`` is true.
    """

    reads_json = True

    def __init__(self, file: Path, timeout: float, *, uri: str = "") -> None:
        super().__init__(uri or str(file), timeout=timeout, uri=bool(uri))
        self.location = file
        self.is_read_only = bool(uri)
        self.is_immutable = uri.endswith(_IMMUTABLE)
        self._patience = timeout

    def cursor(self, named_cursor: Any = None) -> Any:
        """Return a cursor that raises CatalogError."""
        return self._connection.cursor(functools.partial(_Cursor, file=self.location))

    def rollback(self) -> None:
        """End the transaction, unless SQLite did so itself because of an error."""
        if self._connection.in_transaction:
            super().rollback()

    def schema_version(self) -> int:
        """Return the user_version of the file; 0.6.0 left it at 0."""
        return int(self.pragma("user_version"))

    def upgrade(self, tables: Collection[type[peewee.Model]], version: int) -> None:
        """Create or upgrade the tables to *version*, unless another process just did."""
        _use_log(self, self._patience)
        with self.writing():
            if self.schema_version() < version:
                _migrate(self, tables, version)

    def writing(self) -> contextlib.AbstractContextManager[Any]:
        """Return a transaction that locks the file at once; a nested one is a savepoint."""
        transaction: contextlib.AbstractContextManager[Any] = self.atomic("IMMEDIATE")
        return transaction

    def holds(self, column: peewee.Field, text: str) -> Any:
        """Return the condition that *column* contains *text*, compared by bytes."""
        return peewee.fn.INSTR(column, text) > 0

    @property
    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection = self.connection()  # type: ignore[no-untyped-call]  # no stubs
        return connection

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Keep the connection open during the block."""
        with translated_errors(self.location):
            self.connect()
        try:
            yield
        finally:
            self.close()


class _Cursor(sqlite3.Cursor):
    """A cursor whose errors name the catalog."""

    def __init__(self, connection: sqlite3.Connection, *, file: Path) -> None:
        super().__init__(connection)
        self._file = file

    def execute(self, sql: str, parameters: Any = (), /) -> _Cursor:
        try:
            return super().execute(sql, parameters)
        except sqlite3.Error as exc:
            # The exception refers to it, and SQLite keeps its locks while a statement is open.
            self.close()
            raise catalog_error(self._file, exc) from exc

    def fetchone(self) -> Any:
        try:  # a context manager for each row would take longer than the row
            return super().fetchone()
        except sqlite3.Error as exc:
            raise catalog_error(self._file, exc) from exc

    def fetchmany(self, size: int | None = None) -> list[Any]:
        with translated_errors(self._file):
            return super().fetchmany(self.arraysize if size is None else size)

    def fetchall(self) -> list[Any]:
        with translated_errors(self._file):
            return super().fetchall()


@contextlib.contextmanager
def opened(file: Path, timeout: float, prepare: Prepare, *, write: bool) -> Iterator[SqliteCatalog]:
    """Open the catalog *file* during the block; make it first where it is missing.

    *prepare* is called with a database that can be written. Without *write*, a file that cannot be
    written (the disk is full, the user may not) is still read. Raises CatalogError.
    """
    with contextlib.ExitStack() as stack:
        try:
            database = _open_to_write(stack, file, timeout, prepare, write=write)
        except CatalogError as exc:
            if write or not _is_about_writing(exc):
                raise
            database = _open_to_read(stack, file, timeout, prepare, exc)
        with _unchanged(database):
            yield database


def _migrate(database: SqliteCatalog, tables: Collection[type[peewee.Model]], version: int) -> None:
    with database.bind_ctx(tables, bind_refs=False, bind_backrefs=False):
        for table in tables:
            table.create_table(safe=True)
    # A table of schema 1 lacks the column.
    if "needs" not in {column.name for column in database.get_columns("reservations")}:
        run_sql(database, "ALTER TABLE reservations ADD COLUMN needs TEXT NOT NULL DEFAULT '[]'")
    run_sql(
        database,
        "CREATE INDEX IF NOT EXISTS backups_of_set "
        "ON backups (filename, backend, backend_hash, is_deleted, backup_date)",
    )
    run_sql(database, f"PRAGMA user_version = {version}")


def _use_log(database: SqliteCatalog, timeout: float) -> None:
    """Switch to a write-ahead log. SQLite does not wait for another process that does so too.

    This does, up to *timeout* seconds. Raises CatalogError.
    """
    until = time.monotonic() + timeout
    while True:
        try:
            run_sql(database, "PRAGMA journal_mode = wal")
        except CatalogError as exc:
            if not error_code(exc).startswith(LOCKED) or time.monotonic() > until:
                raise
            time.sleep(_LOG_PAUSE * random.random())
        else:
            return


def run_sql(database: SqliteCatalog, statement: str) -> None:
    """Execute one statement. Raises CatalogError."""
    database.execute_sql(statement)  # type: ignore[no-untyped-call]  # peewee's stubs skip it


def damage_of(file: Path, timeout: float) -> str:
    """Return the first damage that SQLite finds in the catalog *file*; "" for none.

    Raises CatalogError.
    """
    with opened(file, timeout, lambda _: None, write=False) as database:
        cursor = database.execute_sql("PRAGMA quick_check(1)")  # type: ignore[no-untyped-call]  # see above
        found = str(cursor.fetchone()[0])
    return "" if found == "ok" else found


def error_code(error: BaseException) -> str:
    """Return the code of SQLite behind *error*, such as ``SQLITE_FULL``; "" for none."""
    cause: BaseException | None = error
    while cause is not None:
        code: str | None = getattr(cause, "sqlite_errorname", None)
        if code:
            return code
        cause = cause.__cause__ or cause.__context__
    return ""


def is_full(error: CatalogError) -> bool:
    """Return whether *error* says that there is no room for the catalog on its disk."""
    return isinstance(error, _FullError)


def _open_to_write(
    stack: contextlib.ExitStack, file: Path, timeout: float, prepare: Prepare, *, write: bool
) -> SqliteCatalog:
    with translated_errors(file):
        if not write and _may_only_be_read(file):
            # SQLite would open it all the same, and fail at its -wal and -shm files.
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        _create_private(file)
    with contextlib.ExitStack() as attempt:
        database = SqliteCatalog(file, timeout)
        attempt.enter_context(database.connected())
        run_sql(database, "PRAGMA synchronous = full")
        prepare(database)
        stack.push(attempt.pop_all())
    return database


def _open_to_read(
    stack: contextlib.ExitStack,
    file: Path,
    timeout: float,
    prepare: Prepare,
    why: CatalogError,
) -> SqliteCatalog:
    """Open the catalog without writing to its disk; raise *why* where that is impossible."""
    log.debug("the catalog is opened for reading only: %s", why)
    if not os.path.lexists(file) or (os.path.isfile(file) and not os.path.getsize(file)):
        return _empty(stack, file, prepare, why)
    if not file.is_file():
        raise why
    uri = file.absolute().as_uri()
    ways = [(f"{uri}?mode=ro", "")]
    if _has_content(f"{file}-wal"):
        # The index of the log is in a file of its own or, where none can be made, in memory.
        ways.append((uri, "PRAGMA locking_mode = exclusive"))
    elif not _has_content(f"{file}-journal"):  # else only a writer could undo what it began
        ways.append((f"{uri}?{_IMMUTABLE}", ""))
    for way, first in ways:
        with contextlib.ExitStack() as attempt:
            try:
                database = SqliteCatalog(file, timeout, uri=way)
                attempt.enter_context(database.connected())
                for statement in filter(None, (first, "SELECT count(*) FROM sqlite_master")):
                    run_sql(database, statement)
                prepare(database)
            except CatalogError as exc:
                if not _is_about_writing(exc):
                    raise
                continue
            stack.push(attempt.pop_all())
            return database
    raise why


def _empty(
    stack: contextlib.ExitStack, file: Path, prepare: Prepare, why: CatalogError
) -> SqliteCatalog:
    """Return an empty catalog in memory, for a file that does not exist and cannot be made."""
    if not os.path.isdir(file.parent):
        raise why
    _warn_once(f"there is no catalog {printable(file)}, and it cannot be made: {why}")
    database = SqliteCatalog(Path(":memory:"), 0)
    stack.enter_context(database.connected())
    prepare(database)
    database.location, database.is_read_only = file, True
    return database


@functools.cache
def _warn_once(message: str) -> None:
    log.warning("%s", message)


def _is_about_writing(error: CatalogError) -> bool:
    return isinstance(error.__cause__, OSError) or error_code(error).startswith(_NO_WRITING)


def _create_private(file: Path) -> None:
    """Create the file before SQLite does, which would make it readable for others."""
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    else:
        if not stat.S_ISREG(mode):  # SQLite would wait at a pipe for ever
            raise OSError(errno.EINVAL, "not a regular file")


def _may_only_be_read(file: Path) -> bool:
    return file.is_file() and not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK))


def _has_content(path: str) -> bool:
    try:
        return os.stat(path).st_size > 0
    except OSError:
        return False


@contextlib.contextmanager
def _unchanged(database: SqliteCatalog) -> Iterator[None]:
    """Raise CatalogError when a file that was opened as immutable was written during the block.

    No lock protects such a block, so what it read, or the error of a statement, may be wrong. Any
    other exception of the block stays what it is.
    """
    if not database.is_immutable:
        yield
        return
    before = _state(database.location)
    written = CatalogError(
        f"the catalog {printable(database.location)} was written while it was read",
        hint="try again",
    )
    try:
        yield
    except CatalogError as exc:
        if _state(database.location) != before:
            raise written from exc
        raise
    if _state(database.location) != before:
        raise written


def _state(file: Path) -> list[tuple[int, int]]:
    """Return size and time of the catalog and of its log; nothing for one that is missing."""
    found = []
    for path in (str(file), f"{file}-wal"):
        with contextlib.suppress(OSError):
            status = os.stat(path)
            found.append((status.st_size, status.st_mtime_ns))
    return found


@contextlib.contextmanager
def translated_errors(file: Path) -> Iterator[None]:
    """Raise an error of SQLite or of the system as a CatalogError that names *file*."""
    try:
        yield
    except (peewee.PeeweeException, sqlite3.Error, OSError) as exc:
        raise catalog_error(file, exc) from exc


def catalog_error(file: Path, exc: Exception) -> CatalogError:
    """Return the CatalogError for an error in opening, reading or writing the catalog *file*."""
    from bakthat.system import disks  # only needed here

    code, name = error_code(exc), printable(file)
    if code.startswith(LOCKED):
        if not disks.has_locks(file.parent):
            return CatalogError(
                f"cannot use the catalog {name}: its file system has no locks",
                hint="name a catalog on a local disk as database in the profile",
            )
        return locked_error(file)
    if code.startswith(_DAMAGED):
        return CatalogError(
            f"the catalog {name} is damaged, or is not a SQLite database",
            hint="move it away; bakthat sync rebuilds it from the storage",
        )
    is_about_writing = isinstance(exc, OSError) or code.startswith(_NO_WRITING)
    problem = (
        disks.problem_of_file(file) or disks.problem_of_directory(file.parent)
        if is_about_writing
        else None
    )
    if problem is not None:
        kind = _FullError if problem.is_full else CatalogError
        return kind(
            f"cannot write the catalog {name}: {problem.reason}",
            hint=", or ".join(
                filter(None, [problem.hint, "name another catalog as database in the profile"])
            ),
        )
    hint = disks.hint_of(exc) if isinstance(exc, OSError) else ""
    if is_about_writing:
        hint = hint or f"check the space, the owner and the mode of {printable(file.parent)}"
    return CatalogError(f"cannot use the catalog {name}: {reason_of(exc)}", hint=hint)
