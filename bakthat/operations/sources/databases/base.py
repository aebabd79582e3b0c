"""The contract between bakthat and the kinds of databases.

A kind of database knows URLs, the programs of its server, and their options. It knows neither the
catalog nor the storage. Its errors are :class:`~bakthat.errors.DatabaseError`, of one line.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from bakthat.errors import DatabaseError
from bakthat.system.programs import Program

PASSWORD_HINT = (
    "set database_password_file, database_password_command or database_password in the profile"
)
UNREACHABLE_HINT = "check the host and the port, and that the server runs"
HEAD_BYTES = 1 << 16
"""How much of a dump :class:`HeadReader` needs."""


def missing_program(name: str, package: str) -> DatabaseError:
    """Return the error for a program that is not on PATH; *package* is the one of Debian."""
    return DatabaseError(f"{name} is not installed", hint=f"on Debian: apt install {package}")


QUERY_SECONDS = 1800.0
"""The most seconds for a statement of bakthat's own: a database is dropped after a checkpoint."""


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a server, besides its URL."""

    password: str | None = field(default=None, repr=False)
    """None where the server's programs find it themselves, for example in ``~/.pgpass``."""
    via: str = ""
    """The words before each program, such as ``docker exec -i db``; "" to run it here."""
    timeout: float | None = None
    """The seconds that a dump may take, if the user has set a limit."""

    @property
    def query_seconds(self) -> float:
        """The seconds that a statement of bakthat's own may take: the network may fall silent."""
        return min(QUERY_SECONDS, self.timeout or QUERY_SECONDS)

    def command(self, *arguments: str) -> tuple[str, ...]:
        """Return the command line of a program of the server. Raises ValueError for bad quotes."""
        return (*shlex.split(self.via), *arguments)


class Database(Protocol):
    """One database of a server, a file of SQLite, or what a server has besides its databases."""

    dump_kind: str
    """What a dump of it is, in the self-description: the key of the kind in ``url.KINDS``, or
    "postgresql-globals" and "mariadb-users"."""
    name: str
    """The name of its set: ``shop``, or ``app.db``."""
    url: str
    """Its URL without a password and without options, for the catalog and for messages."""
    dump_name: str
    """The name of its dump as a file: ``shop.dump``, ``shop.sql``, ``app.db``, ``0.rdb``."""

    def check(self) -> Sequence[str]:
        """Return what a dump will lack, a sentence each: the backup is then incomplete.

        Raises DatabaseError unless it can be dumped: tool, file, connection, password, name.
        """

    def dump(self) -> Program:
        """Return the program that writes a consistent dump to its standard output."""

    def load(self, *, replace: bool) -> Load:
        """Prepare to load a dump into this database, which is made where it is missing.

        With *replace*, what is in the database is replaced, as late as that is possible. The caller
        calls :meth:`Load.close`. Raises DatabaseError; also when the database is not empty, unless
        *replace*.
        """


class Load(Protocol):
    """A dump being loaded. Where possible, it takes the database's place at :meth:`commit` only."""

    program: Program
    """Reads the dump from its standard input. It is run once."""

    def commit(self) -> None:
        """Finish; call it once, after the whole dump was verified and the program succeeded.

        Raises DatabaseError when what was loaded is not whole.
        """

    def query(self, text: str) -> Sequence[Sequence[str | None]]:
        """Return the rows that a query gives of what was loaded; call it after :meth:`commit`.

        *text* is SQL, or for Redis a command. None is NULL or nil. Raises DatabaseError.
        """

    def target(self) -> str:
        """Return the URL, without a password, or the path of what was loaded, for a program."""

    def close(self) -> None:
        """Remove what was made if it was not committed, and all that is temporary. Never raises;
        what could not be removed is logged. May be called again."""


@runtime_checkable
class HeadReader(Protocol):
    """A :class:`Load` that makes its database as the beginning of the dump says."""

    def prepare(self, head: bytes) -> None:
        """Take the first :data:`HEAD_BYTES` of the dump, or all of a shorter one.

        Called once, before the program reads anything. Raises DatabaseError.
        """


class Server(Protocol):
    """A server with databases, or the place of files of SQLite."""

    def databases(self) -> Sequence[Database]:
        """Return each database of a user, then what the server has besides them; not what restores
        and drills have made for a while. Raises DatabaseError."""

    def leftovers(self) -> Sequence[str]:
        """Return the databases that restores and drills have made and nobody is connected to, which
        ``DROP DATABASE`` removes: those of killed ones, as far as a server can tell.

        Raises DatabaseError.
        """

    def with_login(self, program: Program) -> Program:
        """Return *program* of the user with what the server's own programs, which it may run, read
        to log in to a database that :meth:`scratch` has made. Raises DatabaseError."""

    def database(self, name: str) -> Database:
        """Return the database *name*, which need not exist."""

    def scratch(self) -> Load:
        """Prepare to load a dump into a new database with a random name.

        :meth:`Load.close` removes it, also after :meth:`Load.commit`. Raises DatabaseError.
        """
