"""SQLite: a copy through its backup API, and a new file that takes a database's place."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from stat import S_IMODE

from bakthat.errors import DatabaseError, UsageError
from bakthat.operations.sources.databases import _sqlite_dump
from bakthat.operations.sources.databases._sqlite_dump import BUSY_SECONDS, connect, reading, reason
from bakthat.operations.sources.databases.base import Access
from bakthat.operations.sources.databases.url_parts import DatabaseUrl
from bakthat.system.files import sync_directory
from bakthat.system.programs import Program
from bakthat.system.text import printable

logger = logging.getLogger(__name__)

_BESIDE = ("-wal", "-shm", "-journal")
"""The ends of the names of the files that SQLite keeps beside a database."""
_UNREADABLE = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})


class SQLitePlace:
    """The place of one file of SQLite."""

    def __init__(self, path: str) -> None:
        self._path = path

    @classmethod
    def from_url(cls, url: DatabaseUrl, access: Access) -> SQLitePlace:
        """Return the place that *url* names. Raises UsageError."""
        if access.via:
            raise UsageError(
                "a SQLite database is a file, which no other program has to read for bakthat",
                hint="leave out --via, and give the path that the file has here",
            )
        if not url.name:
            raise UsageError(
                "the URL names no SQLite file",
                hint="name it with its path, for example sqlite:////var/lib/app.db",
            )
        return cls(url.name)

    def databases(self) -> list[SQLiteFile]:
        """Return the one file."""
        return [SQLiteFile(self._path)]

    def leftovers(self) -> list[str]:
        """Return nothing: there is no server to look at."""
        return []

    def with_login(self, program: Program) -> Program:
        """Return *program*: a file needs no password."""
        return program

    def database(self, name: str) -> SQLiteFile:
        """Return the file with the path *name*, which need not exist."""
        return SQLiteFile(name)

    def scratch(self) -> SQLiteLoad:
        """Prepare to load a dump into a file in a new directory beside this one.

        Raises DatabaseError.
        """
        try:
            directory = tempfile.mkdtemp(prefix="bakthat-", dir=os.path.dirname(self._path) or None)
        except OSError as exc:
            raise DatabaseError(f"cannot make a temporary directory: {reason(exc)}") from exc
        return SQLiteLoad(Path(directory, os.path.basename(self._path)), scratch=directory)


class SQLiteFile:
    """A file of SQLite."""

    dump_kind = "sqlite"

    def __init__(self, path: str) -> None:
        self._path = Path(os.path.abspath(path))
        self.name = self.dump_name = self._path.name
        self.url = DatabaseUrl("sqlite", name=str(self._path)).shown

    def check(self) -> Sequence[str]:
        """Return nothing, since a copy has all. Raise DatabaseError unless it can be read now."""
        try:
            with reading(str(self._path), BUSY_SECONDS):
                pass
        except FileNotFoundError as exc:
            raise DatabaseError(
                f"there is no file {self._shown}",
                hint="a URL with four slashes has an absolute path: sqlite:////var/lib/app.db",
            ) from exc
        except (OSError, sqlite3.Error) as exc:
            raise DatabaseError(
                f"cannot read the SQLite database {self._shown}: {reason(exc)}"
            ) from exc
        return ()

    def dump(self) -> Program:
        """Return the program that writes a consistent copy to its standard output."""
        script = _sqlite_dump.__file__
        arguments = (sys.executable, "-I", "-S", script, str(self._path), str(BUSY_SECONDS))
        return Program("the copy of the SQLite database", arguments)

    def load(self, *, replace: bool) -> SQLiteLoad:
        """Prepare to load a dump beside this file, whose place it takes at the end.

        Raises DatabaseError.
        """
        # What a link points to is replaced, not the link.
        target = self._path.resolve()
        with _errors(f"cannot load into {self._shown}"):
            with _opened(target, replace=replace):
                pass  # it may be replaced
            return SQLiteLoad(target, replace=replace)

    @property
    def _shown(self) -> str:
        return printable(self._path)


class SQLiteLoad:
    """A dump being written into a file beside the one that it replaces."""

    def __init__(self, target: Path, *, replace: bool = False, scratch: str = "") -> None:
        """Make the file. *scratch* is a directory that close() removes. Raises OSError."""
        self._target, self._replace, self._scratch = target, replace, scratch
        descriptor, self._new = tempfile.mkstemp(prefix=".bakthat-", dir=target.parent)
        os.close(descriptor)
        # The shell's own redirection: its file is open before cat starts.
        self.program = Program("cat", ("/bin/sh", "-c", 'exec cat > "$0"', self._new))

    def commit(self) -> None:
        """Check the new file and put it in its place. Raises DatabaseError."""
        with _errors(f"cannot load into {printable(self._target)}"):
            self._examine()
            with open(self._new, "rb") as new:
                os.fsync(new.fileno())
            with _excluded(self._target, replace=self._replace):
                self._take_over_mode()
                for end in _BESIDE:  # of a damaged database; SQLite would apply them to the new one
                    Path(f"{self._target}{end}").unlink(missing_ok=True)
                os.replace(self._new, self._target)
            sync_directory(self._target.parent)

    def query(self, text: str) -> Sequence[Sequence[str | None]]:
        """Return the rows of one statement of SQL, which may not write. Raises DatabaseError."""
        try:
            with closing(connect(str(self._target), "rw", BUSY_SECONDS)) as connection:
                connection.text_factory = _text
                connection.execute("PRAGMA query_only = ON")
                return [[_shown(each) for each in row] for row in connection.execute(text)]
        # Until Python 3.12 a second statement is a sqlite3.Warning, which is no sqlite3.Error.
        except (sqlite3.Error, sqlite3.Warning) as exc:
            raise DatabaseError(f"the query failed: {printable(reason(exc))}") from exc

    def target(self) -> str:
        """Return the path of the loaded file."""
        return str(self._target)

    def close(self) -> None:
        """Remove the new file unless it is in its place, and the scratch directory."""
        try:
            Path(self._new).unlink(missing_ok=True)
            if self._scratch and os.path.exists(self._scratch):
                shutil.rmtree(self._scratch)
        except OSError as exc:
            place = printable(self._scratch or self._new)
            logger.warning("cannot remove %s: %s", place, reason(exc))

    def _examine(self) -> None:
        """Raise DatabaseError unless the new file is a whole database."""
        if not os.path.getsize(self._new):  # SQLite takes it for a database without tables
            raise DatabaseError("the dump is empty")
        # immutable: SQLite makes no files beside it, and needs no locks.
        with closing(connect(self._new, "ro&immutable=1", 0)) as connection:
            try:
                found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_ERROR:
                    raise
                # Its program has functions or collations of its own. It is as it was dumped: the
                # hashes were compared before.
                logger.warning("SQLite cannot check all of the database: %s", printable(str(exc)))
                return
        if found != "ok":
            raise DatabaseError(
                f"the dump is a damaged SQLite database: {printable(found)}",
                hint="restore it as a file, and repair that with the command .recover of sqlite3",
            )

    def _take_over_mode(self) -> None:
        """Give the new file the mode and the owner of the one that it replaces."""
        try:
            old = os.stat(self._target)
        except FileNotFoundError:
            return
        with contextlib.suppress(PermissionError):  # only root gives files away
            os.chown(self._new, old.st_uid, old.st_gid)
        os.chmod(self._new, S_IMODE(old.st_mode))


@contextlib.contextmanager
def _excluded(target: Path, *, replace: bool) -> Iterator[None]:
    """Keep other programs from *target* until the block ends; no log is beside it in the block.

    Raises DatabaseError when it may not be replaced, OSError and sqlite3.Error.
    """
    with _opened(target, replace=replace) as connection:
        if connection:
            # Succeeds only when no other program has the database open with a log. What the log
            # has comes into the database.
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("BEGIN EXCLUSIVE")
        yield


@contextlib.contextmanager
def _opened(target: Path, *, replace: bool) -> Iterator[sqlite3.Connection | None]:
    """Open the database *target*; None where there is none, or one that nobody can read.

    Raises DatabaseError when it may not be replaced, OSError and sqlite3.Error.
    """
    if not target.exists():
        _refuse_remains(target, replace=replace)
        yield None
        return
    if not target.is_file():
        raise DatabaseError(f"{printable(target)} is not a file")
    with closing(connect(str(target), "rw", BUSY_SECONDS)) as connection:
        try:
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        except sqlite3.DatabaseError as exc:
            if not replace or exc.sqlite_errorcode & 0xFF not in _UNREADABLE:
                raise
            tables = None
        if tables and not replace:
            raise DatabaseError(
                f"the database {printable(target)} is not empty",
                hint="give another path, or --replace to replace it",
            )
        yield None if tables is None else connection


def _refuse_remains(target: Path, *, replace: bool) -> None:
    found = [f"{target}{end}" for end in _BESIDE if os.path.exists(f"{target}{end}")]
    if found and not replace:
        raise DatabaseError(
            f"{printable(found[0])} belongs to a database that is no longer beside it",
            hint="move it away, or give --replace to remove it",
        )


@contextlib.contextmanager
def _errors(what: str) -> Iterator[None]:
    """Raise the errors of the system and of SQLite as DatabaseError, with *what* before them."""
    try:
        yield
    except (OSError, sqlite3.Error) as exc:
        raise DatabaseError(f"{what}: {printable(reason(exc))}") from exc


def _text(value: bytes) -> str:
    return value.decode(errors="backslashreplace")


def _shown(value: str | bytes | float | None) -> str | None:
    if value is None:
        return None
    return value.hex() if isinstance(value, bytes) else str(value)
