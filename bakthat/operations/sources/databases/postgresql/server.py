"""Databases of PostgreSQL, through ``pg_dump``, ``pg_restore`` and ``psql``."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from bakthat.errors import DatabaseError
from bakthat.operations.sources.databases.base import Access, Database, Load
from bakthat.operations.sources.databases.postgresql.client import (
    Client,
    literal,
)
from bakthat.operations.sources.databases.postgresql.load import (
    TEMPORARY,
    DatabaseRestore,
    EmptyDatabaseRestore,
    GlobalsRestore,
    has_objects,
)
from bakthat.operations.sources.databases.url_parts import DatabaseUrl
from bakthat.system.programs import Program
from bakthat.system.text import printable

log = logging.getLogger(__name__)

DUMP_KIND = "postgresql"
GLOBALS_KIND = "postgresql-globals"
LOCK_SECONDS = 600
"""How long a dump waits for a table that a migration has locked, before it fails."""
_NAME_BYTES = 63
"""Of a longer name the server takes the beginning, which may name another database."""
_DUMP = (
    "--format=custom",  # the only format that goes through a pipe and can be read in parts
    "--compress=0",  # bakthat compresses
    "--quote-all-identifiers",  # a later server may have made a keyword of a name
    f"--lock-wait-timeout={LOCK_SECONDS * 1000}",
)
_LIST = """
SELECT datname FROM pg_catalog.pg_database
WHERE NOT datistemplate AND datallowconn AND datconnlimit <> -2
ORDER BY datname COLLATE "C";
"""  # a limit of -2 marks a database that was dropped half
_UNUSED = """
SELECT datname FROM pg_catalog.pg_database d
WHERE NOT EXISTS (
  SELECT FROM pg_catalog.pg_stat_activity a WHERE a.datid = d.oid AND a.usesysid IS NOT NULL
) ORDER BY datname COLLATE "C";
"""  # the server's own processes, such as autovacuum, have no user
_UNLOGGED = """
SELECT count(*) FROM pg_catalog.pg_class
WHERE relpersistence = 'u' AND relkind = 'r' AND pg_catalog.pg_is_in_recovery();
"""
_SUBSCRIPTIONS = """
SELECT count(*) FROM pg_catalog.pg_subscription s
JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
WHERE d.datname = current_database() AND current_setting('is_superuser') <> 'on';
"""


@dataclass(frozen=True, slots=True)
class PostgreSQLServer:
    """A server of PostgreSQL."""

    client: Client

    @classmethod
    def from_url(cls, url: DatabaseUrl, access: Access) -> PostgreSQLServer:
        """Return the server of a URL."""
        return cls(Client(url, access))

    def databases(self) -> list[Database]:
        """Return each database that is no template and allows connections, then the globals.

        ``postgres``, which administration connects to, is returned if it has something of a user.
        """
        names = [str(name) for (name,) in self.client.rows(self.client.maintenance(), _LIST)]
        found: list[Database] = []
        for name in names:
            if TEMPORARY.fullmatch(name):
                log.info("%s is left out: a restore or a drill has made it", name)
            elif name != "postgres" or has_objects(self.client, name):
                found.append(self.database(name))
        return [*found, self.globals()]

    def leftovers(self) -> list[str]:
        """Return the databases that killed restores and drills have left."""
        rows = self.client.rows(self.client.maintenance(), _UNUSED)
        return [name for (name,) in rows if name and TEMPORARY.fullmatch(name)]

    def with_login(self, program: Program) -> Program:
        """Return *program*, in which libpq finds the password."""
        return self.client.with_login(program)

    def database(self, name: str) -> PostgreSQLDatabase:
        """Return the database *name*, which need not exist."""
        return PostgreSQLDatabase(self.client, name)

    def globals(self) -> PostgreSQLGlobals:
        """Return what belongs to no database: roles and tablespaces."""
        return PostgreSQLGlobals(self.client)

    def scratch(self) -> DatabaseRestore:
        """Prepare to load a dump into a new database with a random name."""
        self.client.check_tool("pg_restore")
        return DatabaseRestore(self.client, None)


class PostgreSQLDatabase:
    """A database of PostgreSQL."""

    def __init__(self, client: Client, name: str) -> None:
        if len(name.encode()) > _NAME_BYTES:
            raise DatabaseError(
                f"no database can have the name '{printable(name)}': it has more than"
                f" {_NAME_BYTES} bytes"
            )
        self._client = client
        self.dump_kind = DUMP_KIND
        self.name = name
        self.url = client.shown(name)
        self.dump_name = f"{name.replace('/', '_')}.dump"

    def check(self) -> list[str]:
        """Return what pg_dump leaves out. Raise DatabaseError unless it can be dumped."""
        lacks: list[str] = []
        version = _check_version(self._client, "pg_dump", self.name)
        ((unlogged,),) = self._client.rows(self.name, _UNLOGGED)
        if unlogged != "0":
            lacks.append(
                f"'{self.url}' is dumped without the rows of its unlogged tables ({unlogged}): the"
                " server is a replica, which does not have them"
            )
        if version < 1000:
            return lacks
        ((subscriptions,),) = self._client.rows(self.name, _SUBSCRIPTIONS)
        if subscriptions != "0":
            lacks.append(
                f"'{self.url}' is dumped without its subscriptions ({subscriptions}), which only a"
                " superuser may read"
            )
        return lacks

    def dump(self) -> Program:
        """Return the program that writes all of it, large objects too, as of one moment."""
        return self._client.program("pg_dump", *_DUMP, database=self.name)

    def load(self, *, replace: bool) -> Load:
        """Prepare to load a dump: into a new database, which takes this one's place at the end,
        or into this one if it exists and is empty."""
        self._client.check_tool("pg_restore")
        other = self._client.maintenance(self.name)
        found = self._client.rows(
            other,
            "SELECT datistemplate FROM pg_catalog.pg_database"
            f" WHERE datname = {literal(self.name)};",
        )
        if not found:
            return DatabaseRestore(self._client, self.name)
        if found == [["t"]]:
            raise DatabaseError(
                f"'{printable(self.url)}' is a template, from which the server makes databases",
                hint="restore into another database",
            )
        if not has_objects(self._client, self.name):
            return EmptyDatabaseRestore(self._client, self.name)
        if not replace:
            raise DatabaseError(
                f"the database '{printable(self.url)}' is not empty",
                hint="restore into another one, or replace what is in it with --replace",
            )
        return DatabaseRestore(self._client, self.name, replace=True)


class PostgreSQLGlobals:
    """The roles and tablespaces of a server."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.dump_kind = self.name = GLOBALS_KIND
        self.url = client.shown()
        self.dump_name = f"{GLOBALS_KIND}.sql"

    def check(self) -> list[str]:
        """Return whether they lack passwords. Raise DatabaseError unless they can be dumped."""
        _check_version(self._client, "pg_dumpall", None)
        if self._may_read_passwords():
            return []
        return [
            f"the roles of '{self.url}' are backed up without their passwords, which only a"
            " superuser may read"
        ]

    def dump(self) -> Program:
        """Return the program that writes the SQL that makes them."""
        database = self._client.maintenance()
        options = ["--globals-only", "--quote-all-identifiers"]
        if not self._may_read_passwords():
            options.append("--no-role-passwords")
        return self._client.program("pg_dumpall", *options, database=database)

    def _may_read_passwords(self) -> bool:
        sql = "SELECT pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT');"
        return self._client.rows(self._client.maintenance(), sql) == [["t"]]

    def load(self, *, replace: bool) -> GlobalsRestore:
        """Prepare to load a dump: it changes the roles that exist, and removes none."""
        return GlobalsRestore(self._client, self._client.maintenance())


def _check_version(client: Client, tool: str, database: str | None) -> int:
    """Check that *tool* is there, and can dump what the server has.

    Return the server's version as :meth:`Client.check_tool` does that of a program.
    """
    version = client.check_tool(tool)
    if database is None:
        database = client.maintenance()
    ((number,),) = client.rows(database, "SHOW server_version_num;")
    full = int(number or 0)  # 150002 is 15.2, 90624 is 9.6.24
    server = full // 10000 * 100 + (full // 100 % 100 if full < 100000 else 0)
    if version < server:
        raise DatabaseError(
            f"{tool} {_shown(version)} cannot dump '{client.shown(database)}',"
            f" whose server is PostgreSQL {_shown(server)}",
            hint=f"install the client of PostgreSQL {_shown(server)},"
            f" such as Debian's postgresql-client-{_shown(server)}",
        )
    return server


def _shown(version: int) -> str:
    major, minor = divmod(version, 100)
    return str(major) if major >= 10 else f"{major}.{minor}"
