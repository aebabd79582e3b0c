"""MySQL and MariaDB: dumps by mysqldump or mariadb-dump, and how they are loaded again."""

from __future__ import annotations

import logging
import re
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from bakthat.errors import DatabaseError
from bakthat.operations.sources.databases.base import Access, Database, Load
from bakthat.operations.sources.databases.mysql_client import (
    SYSTEM,
    Client,
    Row,
    quoted,
)
from bakthat.operations.sources.databases.mysql_privileges import unseen
from bakthat.operations.sources.databases.url_parts import DatabaseUrl
from bakthat.system.programs import Program, RunningProgram
from bakthat.system.text import counted, enumerate_some, printable, reason_of

log = logging.getLogger("bakthat")

_CHUNK = 1 << 20
_CLAIM = "bakthat_restore"
"""A table in a database that is being loaded: it is not empty, so nobody else loads into it."""
_TEMPORARY = re.compile(r"bakthat_(drill|restore)_[0-9a-f]{16}")

_DUMP_OPTIONS = (
    # Whatever ~/.my.cnf says: all of the database, and no USE, by which a dump would be loaded into
    # the database that it was made of.
    *("--skip-force", "--skip-databases", "--skip-all-databases", "--skip-no-data"),
    *("--skip-no-create-info", "--skip-compact", "--quote-names", "--set-charset", "--tz-utc"),
    "--opt",
    "--single-transaction",
    "--quick",
    "--routines",
    "--triggers",
    "--events",
    "--hex-blob",
    "--default-character-set=utf8mb4",
    "--max-allowed-packet=1G",
    "--comments",  # the last line, which proves that the dump is whole, is a comment
)
_DUMP_OPTIONS_WHERE_KNOWN = {
    "--no-tablespaces": "--no-tablespaces",  # they need a privilege, and are of one server
    "--set-gtid-purged": "--set-gtid-purged=OFF",
    "--column-statistics": "--column-statistics=0",
    "--dump-history": "--dump-history",  # the past rows of system-versioned tables
}
_LEAVING_OUT = {"where", "ignore-table", "ignore-table-data", "ignore-database", "as-of"}
"""What no option on the command line takes back, and somebody may want."""

# The names in information_schema have a collation to which "Shop" is "shop".
_HERE = "{0} = DATABASE() AND CAST({0} AS BINARY) = CAST(DATABASE() AS BINARY)"

_OBJECTS = " UNION ALL ".join(
    f"SELECT COUNT(*) FROM information_schema.{table} WHERE {_HERE.format(column)}"
    for table, column in {
        "tables": "table_schema",
        "routines": "routine_schema",
        "events": "event_schema",
    }.items()
)
_NOT_TRANSACTIONAL = (
    "SELECT engine, COUNT(*) FROM information_schema.tables"
    " JOIN information_schema.engines USING (engine)"
    f" WHERE {_HERE.format('table_schema')} AND table_type = 'BASE TABLE' AND transactions <> 'YES'"
    " GROUP BY engine ORDER BY engine"
)
_FLOATS = (
    "SELECT COUNT(*) FROM information_schema.columns JOIN information_schema.tables"
    " USING (table_schema, table_name)"
    f" WHERE {_HERE.format('table_schema')} AND data_type = 'float' AND numeric_scale IS NULL"
    " AND table_type <> 'VIEW' AND COALESCE(generation_expression, '') = ''"
)
_EVENTS = f"SELECT event_name FROM information_schema.events WHERE {_HERE.format('event_schema')}"

_HAS_CLAIM = (
    "SELECT 1 FROM information_schema.tables"
    f" WHERE {_HERE.format('table_schema')} AND table_name = '{_CLAIM}'"
)

_UNUSED = (  # the connections of other users are seen with the privilege PROCESS only
    "SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN"
    " (SELECT db FROM information_schema.processlist WHERE db IS NOT NULL) ORDER BY schema_name"
)

_USERS = (
    "SELECT DISTINCT user FROM mysql.user WHERE user NOT IN ('', 'root', 'mysql', 'mariadb.sys')"
    " AND user <> SUBSTRING_INDEX(CURRENT_USER(), '@', 1) ORDER BY user"
)


class MySQLServer:
    """A server of MySQL or MariaDB."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @classmethod
    def from_url(cls, url: DatabaseUrl, access: Access) -> MySQLServer:
        """Return the server that *url* names; its database does not count."""
        return cls(Client(url.of(None), access))

    def databases(self) -> list[Database]:
        """Return each database but the server's own, then for MariaDB its users."""
        rows = self._client.query("SELECT VERSION(); SHOW DATABASES")
        version, *names = [row[0] or "" for row in rows]
        found: list[Database] = []
        for name in names:
            if _TEMPORARY.fullmatch(name):
                log.info("%s is left out: a restore or a drill has made it", name)
            # A directory that is no database, such as lost+found, is listed with this prefix.
            elif name not in SYSTEM and not name.startswith("#mysql50#"):
                found.append(MySQLDatabase(self._client, name))
        if "MariaDB" in version and self._client.knows(self._client.dump, "--system"):
            found.append(self.users())
        else:
            log.warning(
                "the users of %s and their privileges are not included: %s cannot dump them",
                self._client.url.shown,
                self._client.dump,
            )
        return found

    def leftovers(self) -> list[str]:
        """Return the databases that killed restores and drills have left."""
        rows = self._client.query(_UNUSED)
        return [name for (name,) in rows if name and _TEMPORARY.fullmatch(name)]

    def with_login(self, program: Program) -> Program:
        """Return *program*, in which the client finds the password."""
        return self._client.with_login(program)

    def database(self, name: str) -> Database:
        """Return the database *name*, which need not exist."""
        return MySQLDatabase(self._client, name)

    def users(self) -> Database:
        """Return the users of MariaDB, their roles and privileges."""
        return MariaDBUsers(self._client)

    def scratch(self) -> Load:
        """Prepare to load a dump into a new database with a random name."""
        name = f"bakthat_drill_{secrets.token_hex(8)}"
        self._client.query(f"CREATE DATABASE {quoted(name)}")
        return _Load(self._client, name, undo=_dropped(name), is_temporary=True)


class MySQLDatabase:
    """One database of a server."""

    def __init__(self, client: Client, name: str) -> None:
        if not name or "\0" in name:
            raise DatabaseError(f"no database can have the name '{printable(name)}'")
        self._client = client
        self.dump_kind = client.url.kind
        self.name = name
        self.url = client.url.of(name).shown
        self.dump_name = f"{name.replace('/', '_')}.sql"

    def check(self) -> list[str]:
        """Return what a dump may lack; log what it cannot keep consistent.

        Raises DatabaseError unless it can be dumped.
        """
        lacks: list[str] = []
        _ = self._client.dump  # which may be missing
        rows = self._client.query(_NOT_TRANSACTIONAL, self.name)
        if rows:
            log.warning(
                "%s of %s cannot be dumped consistently while in use: %s has no transactions",
                counted(sum(int(row[1] or 0) for row in rows), "table"),
                self.url,
                " or ".join(printable(row[0] or "") for row in rows),
            )
        ((columns,),) = self._client.query(_FLOATS, self.name)
        if columns != "0":
            log.warning(
                "numbers in %s of %s are dumped with 6 digits: the type FLOAT is shown so"
                " (DOUBLE is dumped exactly)",
                counted(int(columns or 0), "column"),
                self.url,
            )
        for option in self._client.settings_of(self._client.dump) & _LEAVING_OUT:
            lacks.append(
                f"the dump of {self.url} may lack something: an option file such as ~/.my.cnf has"
                f" '{option}' for {self._client.dump}"
            )
        grants = [row[0] or "" for row in self._client.query("SHOW GRANTS")]
        for what, privilege in unseen(grants, self.name).items():
            lacks.append(
                f"{what} of {self.url} may be missing in the dump: the user lacks the privilege"
                f" {privilege}"
            )
        return lacks

    def dump(self) -> Program:
        """Return the program that writes a consistent dump to its standard output."""
        return dump_program(self._client, self.name)

    def load(self, *, replace: bool) -> Load:
        """Prepare to load a dump into this database, which is made where it is missing.

        With *replace*, the dump is loaded into a database beside it, and copied from there at
        :meth:`Load.commit`.
        """
        if self.name.lower() in SYSTEM:
            raise DatabaseError(f"{self.url} is a database of the server's own")
        if not self._client.has_database(self.name):
            self._client.query(f"CREATE DATABASE {quoted(self.name)}")
            _claim(self._client, self.name)
            return _Load(self._client, self.name, undo=_dropped(self.name))
        counts = [int(row[0] or 0) for row in self._client.query(_OBJECTS, self.name)]
        if not any(counts):
            # What a failed load leaves is removed; privileges on the database stay.
            again = f"CREATE DATABASE {quoted(self.name)} {_options(self._client, self.name)}"
            undo = f"{_dropped(self.name)}; {again}"
            _claim(self._client, self.name)
            return _Load(self._client, self.name, undo=undo)
        if not replace:
            what = zip(("tables and views", "routines", "events"), counts, strict=True)
            found = ", ".join(f"{noun}: {count}" for noun, count in what if count)
            raise DatabaseError(
                f"{self.url} is not empty ({found})",
                hint="load into another database, or replace what is in it with --replace",
            )
        new = f"bakthat_restore_{secrets.token_hex(8)}"
        self._client.query(f"CREATE DATABASE {quoted(new)}")
        return _Load(self._client, new, undo=_dropped(new), replaces=self.name)


def _claim(client: Client, name: str) -> None:
    """Let nobody else load into the database. Raises DatabaseError when somebody does."""
    try:
        # Some servers want a primary key in each table.
        client.query(f"CREATE TABLE {_CLAIM} (id INT PRIMARY KEY)", name)
    except DatabaseError as exc:
        raise DatabaseError(f"cannot begin to load into {printable(name)}: {exc}") from exc


def _release(client: Client, name: str) -> None:
    """Raise DatabaseError when the database was replaced since :func:`_claim`."""
    try:
        client.query(f"DROP TABLE {_CLAIM}", name)
    except DatabaseError as exc:
        raise DatabaseError(f"somebody else has replaced {printable(name)}: {exc}") from exc


def _dropped(name: str) -> str:
    return f"DROP DATABASE IF EXISTS {quoted(name)}"


def _options(client: Client, name: str) -> str:
    """Return what CREATE DATABASE says besides the name: the character set, a comment."""
    ((_, statement),) = client.query(
        f"SET SESSION sql_mode = '', sql_quote_show_create = 1; SHOW CREATE DATABASE {quoted(name)}"
    )
    # The server may have the name in lower case.
    return re.sub(r"CREATE DATABASE `(?:[^`]|``)*`", "", statement or "", count=1).strip()


def dump_program(client: Client, name: str) -> Program:
    """Return the program that dumps a database so that it fits one of any name."""
    extra = [
        option
        for known, option in _DUMP_OPTIONS_WHERE_KNOWN.items()
        if client.knows(client.dump, known)
    ]
    command = client.command(client.dump, *_DUMP_OPTIONS, *extra, "--", name)
    return _checked_dump(client, f"ALTER DATABASE {_options(client, name)};\n\n", name, command)


def _checked_dump(client: Client, header: str, name: str, command: tuple[str, ...]) -> Program:
    """Return the program that writes *header*, then a dump, and fails unless its end is there.

    *name* is that of the dumped database, whose name is left out, and *command* writes the dump.
    """
    script = Path(__file__).with_name("mysql_dump.py")
    return client.program(
        client.dump, (sys.executable, "-I", "-S", str(script), header, name, *command)
    )


class MariaDBUsers:
    """The users of a server of MariaDB, their roles and privileges."""

    dump_kind = "mariadb-users"
    name = "mariadb-users"
    dump_name = "mariadb-users.sql"

    def __init__(self, client: Client) -> None:
        self._client = client
        self.url = client.url.shown

    def check(self) -> list[str]:
        """Return nothing, since a dump has all. Raise DatabaseError unless it can be made."""
        if not self._client.knows(self._client.dump, "--system"):
            raise DatabaseError(f"{self._client.dump} cannot dump users: it has no option --system")
        self._client.query("SELECT 1 FROM mysql.global_priv LIMIT 1")
        return []

    def dump(self) -> Program:
        """Return the program that writes SQL to make the users again."""
        # Without --insert-ignore no server could load the dump: each has the user root.
        options = ("--system=users", "--insert-ignore", "--comments")
        return _checked_dump(
            self._client, "", "", self._client.command(self._client.dump, *options)
        )

    def load(self, *, replace: bool) -> Load:
        """Prepare to make the users again; passwords and privileges of those there are set anew.

        Raises DatabaseError if there are any besides root, unless *replace*.
        """
        users = [printable(row[0] or "") for row in self._client.query(_USERS)]
        if users and not replace:
            raise DatabaseError(
                f"{self.url} has users: {enumerate_some(users)}",
                hint="use --replace to set the passwords and privileges of those in the dump; other"
                " users stay",
            )
        return _Load(self._client, None)


class _Load:
    """A dump being loaded into a database that is new or empty, or into no database."""

    def __init__(
        self,
        client: Client,
        name: str | None,
        *,
        undo: str = "",
        replaces: str | None = None,
        is_temporary: bool = False,
    ) -> None:
        """Load into the database *name*.

        *undo* is the SQL that removes it. At :meth:`commit` it takes the place of the database
        *replaces*. A temporary one is removed after :meth:`commit`, too.
        """
        self._client = client
        self._name = name
        self._undo = undo
        self._replaces = replaces
        self._is_temporary = is_temporary
        self.program = client.load_program(name)

    def commit(self) -> None:
        """Finish: let what was loaded take its place."""
        if self._is_temporary:
            # The server would run them, beside those of the original.
            names = [row[0] or "" for row in self._client.query(_EVENTS, self._name)]
            if names:
                disable = (f"ALTER EVENT {quoted(name)} DISABLE" for name in names)
                self._client.query("; ".join(disable), self._name)
        elif self._replaces is not None:
            self._replace(self._replaces)
        else:
            if self._name is not None:
                _release(self._client, self._name)
            self._undo = ""

    def _replace(self, target: str) -> None:
        """Copy what was loaded into the place of the database *target*.

        No statement renames a database, and tables with triggers cannot be moved.
        """
        source = self._name or ""
        dump = dump_program(self._client, source)
        undo, self._undo = self._undo, ""  # from here on this is the only whole copy
        try:
            # A table of another database may have a foreign key to one of this, which comes back.
            free = "SET SESSION foreign_key_checks = 0"
            self._client.query(f"{free}; {_dropped(target)}; CREATE DATABASE {quoted(target)}")
            _claim(self._client, target)
            _copy(self._client, dump, self._client.load_program(target))
            _release(self._client, target)
        except BaseException:
            log.warning(
                "%s is not whole; what was loaded is whole in %s",
                self._client.url.of(target).shown,
                self._client.url.of(source).shown,
            )
            raise
        self._name, self._undo = target, undo

    def query(self, text: str) -> Sequence[Row]:
        """Return the rows that SQL gives of what was loaded."""
        return self._client.query(text, self._name, is_limited=False)

    def target(self) -> str:
        """Return the URL of the database that was loaded."""
        return self._client.url.of(self._name).shown

    def close(self) -> None:
        """Remove what is temporary, and what was not committed."""
        undo, self._undo = self._undo, ""
        if not undo:
            return
        try:
            is_claimed = self._replaces is None and not self._is_temporary
            if is_claimed and not self._client.query(_HAS_CLAIM, self._name):
                log.warning("%s is left: somebody else has replaced it", self.target())
                return
            self._client.query(undo)
        except DatabaseError as exc:
            log.warning("cannot remove a database that bakthat has made (%s): %s", undo, exc)


def _copy(client: Client, dump: Program, load: Program) -> None:
    """Load what *dump* writes by *load*. Raises DatabaseError when one of them fails."""
    try:
        with (
            RunningProgram(load, stdin=True) as sink,
            RunningProgram(dump, stdout=True) as source,
        ):
            buffer = memoryview(bytearray(_CHUNK))
            try:
                while size := source.stdout.readinto(buffer):
                    sink.stdin.write(buffer[:size])
                ends = [source.wait()]
                sink.stdin.close()
            except BrokenPipeError:
                ends = []  # the client has stopped reading, and says why
            ends.append(sink.wait())
    except OSError as exc:
        raise DatabaseError(f"cannot copy the database: {reason_of(exc)}") from exc
    for program, ended in zip((dump, load)[-len(ends) :], ends, strict=True):
        if not ended.succeeded:
            raise DatabaseError(f"{program.name} {client.without_password(ended.problem())}")
    if len(ends) == 1:
        raise DatabaseError(f"{load.name} has not read all of the copy")
