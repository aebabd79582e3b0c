"""Loading dumps of PostgreSQL."""

from __future__ import annotations

import logging
import re
import secrets
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from bakthat.errors import DatabaseError
from bakthat.operations.sources.databases.postgresql import roles
from bakthat.operations.sources.databases.postgresql.archive import DatabaseProperties
from bakthat.operations.sources.databases.postgresql.client import Client, identifier, literal
from bakthat.system.text import printable

log = logging.getLogger(__name__)

TEMPORARY = re.compile(r"bakthat_(?:drill|restore)_[0-9a-f]{16}(?:_old)?")
"""The name of a database while it is loaded, or once it was replaced until it is dropped."""
_WITHOUT_SUBSCRIPTIONS = """
DO $$ DECLARE found name; BEGIN
  IF to_regclass('pg_catalog.pg_subscription') IS NULL THEN RETURN; END IF;
  FOR found IN SELECT subname FROM pg_catalog.pg_subscription s
    JOIN pg_catalog.pg_database d ON d.oid = subdbid WHERE datname = current_database()
  LOOP
    EXECUTE format('ALTER SUBSCRIPTION %I DISABLE', found);
    EXECUTE format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', found);
    EXECUTE format('DROP SUBSCRIPTION %I', found);
  END LOOP;
END $$;
"""
"""Drops the subscriptions of a database, which cannot be dropped with them. What they subscribe to
is not told: its slot is that of the database that was dumped."""
_ATTEMPTS = 5
"""How often the sessions of a database are ended: new ones may come before it is renamed."""
_OF_USERS = "oid >= 16384"
"""What is true of the objects that are not those of every new database."""
_CATALOGS = (
    "am cast collation conversion default_acl event_trigger extension foreign_data_wrapper"
    " foreign_server language opclass operator opfamily proc publication"
    " transform ts_config ts_dict ts_parser ts_template"
)
_HAS_OBJECTS = " OR ".join(
    f"EXISTS (SELECT FROM pg_catalog.pg_{each})"
    for each in (
        # Not the temporary tables of sessions, with their types and schemas.
        f"class WHERE {_OF_USERS} AND relpersistence <> 't'",
        f"type WHERE {_OF_USERS} AND typrelid = 0 AND typelem = 0",
        f"namespace WHERE {_OF_USERS} AND nspname <> 'public' AND nspname !~ '^pg_'",
        "largeobject_metadata",  # their numbers may be lower
        *(f"{catalog} WHERE {_OF_USERS}" for catalog in _CATALOGS.split()),
    )
)


def has_objects(client: Client, database: str) -> bool:
    """Return whether somebody made something in *database*. Raises DatabaseError."""
    return client.rows(database, f"SELECT {_HAS_OBJECTS};") == [["t"]]


class DatabaseRestore:
    """A dump being loaded into a new database, which then takes the place of *name*.

    A failed load cannot change what it was to replace. *name* None: the new database is temporary.
    """

    def __init__(self, client: Client, name: str | None, *, replace: bool = False) -> None:
        self._client = client
        self._name = name
        self._replace = replace
        purpose = "drill" if name is None else "restore"
        self._made = f"bakthat_{purpose}_{secrets.token_hex(8)}"
        self._maintenance = client.maintenance(name)
        self._properties: DatabaseProperties | None = None
        self._is_committed = False
        self._is_made = False
        # Without --single-transaction: it would hold a lock for each table and each large object,
        # and what was loaded by half is dropped as a whole.
        self.program = client.program("pg_restore", "--exit-on-error", database=self._made)
        self._make("")

    def prepare(self, head: bytes) -> None:
        """Make the database as the dump that begins with *head* says: its encoding, its locale.

        Without it, the database is like others that the server makes. Raises DatabaseError.
        """
        self._properties = DatabaseProperties.of(head)
        if self._properties is None:
            log.warning("the dump does not say what its database was like: it gets the defaults")
            return
        wanted = dict(self._properties.options)
        if wanted == self._options():
            return
        self._drop()
        attempts = [wanted, {"ENCODING": wanted.get("ENCODING", "UTF8")}, {}]
        if wanted.get("LOCALE_PROVIDER") == "libc":  # PostgreSQL 14 knows no other, nor the word
            attempts.insert(1, {key: wanted[key] for key in wanted if key != "LOCALE_PROVIDER"})
        for options in attempts:
            try:
                self._make("".join(f" {key} {literal(options[key])}" for key in options))
            except DatabaseError as exc:
                if options is attempts[-1]:
                    raise
                log.info("cannot make the database as it was: %s", exc)
            else:
                break
        if "LC_CTYPE" not in options:
            log.warning(
                "the server cannot make a database with %s: it gets the server's locale",
                ", ".join(f"{key} {printable(value)}" for key, value in wanted.items()),
            )

    def commit(self) -> None:
        """Give the new database the name, and the owner, rights and settings of the dump."""
        if self._name is not None:
            if self._properties is not None:
                self._apply(self._properties)
            self._take_place(self._name)
        self._is_committed = True

    def query(self, text: str) -> Sequence[Sequence[str | None]]:
        """Return what SQL gives of what was loaded. Raises DatabaseError."""
        return self._client.rows(self._database, text, doing="the query", is_limited=False)

    def target(self) -> str:
        """Return the URL, without a password, of the database that was loaded."""
        return self._client.shown(self._database)

    def close(self) -> None:
        """Drop the new database if it took nobody's place."""
        if not self._is_made or (self._is_committed and self._name is not None):
            return
        try:
            self._drop()
        except DatabaseError as exc:
            log.warning("the temporary database '%s' is left: %s", self._made, exc)

    @property
    def _database(self) -> str:
        return self._name if self._is_committed and self._name is not None else self._made

    def _run(self, sql: str) -> list[list[str | None]]:
        return self._client.rows(self._maintenance, sql)

    def _make(self, options: str) -> None:
        self._run(f"CREATE DATABASE {identifier(self._made)} TEMPLATE template0{options};")
        self._is_made = True

    def _drop(self) -> None:
        # What forbids this, if anything, does not forbid to drop the database.
        with suppress(DatabaseError):
            self._client.rows(self._made, _WITHOUT_SUBSCRIPTIONS)
        _drop(self._client, self._maintenance, self._made)
        self._is_made = False

    def _options(self) -> dict[str, str]:
        """Return the encoding and the locale of the new database, as a dump says them."""
        ((encoding, provider, collate, ctype),) = self._run(
            "SELECT pg_catalog.pg_encoding_to_char(encoding),"
            " CASE pg_catalog.to_jsonb(d) ->> 'datlocprovider' WHEN 'c' THEN 'libc' END,"
            " datcollate, datctype"
            f" FROM pg_catalog.pg_database d WHERE datname = {literal(self._made)};"
        )
        named = {
            "ENCODING": encoding,
            "LOCALE_PROVIDER": provider,
            "LC_COLLATE": collate,
            "LC_CTYPE": ctype,
        }
        return {key: value for key, value in named.items() if value is not None}

    def _apply(self, properties: DatabaseProperties) -> None:
        """Give the new database the owner, the rights, the settings and the comment."""
        made = identifier(self._made)
        owner = f"ALTER DATABASE {made} OWNER TO {identifier(properties.owner)};"
        sql = "\n".join([owner, *properties.changes_of(made)])
        # As a literal, since what a dump says must not be a command to psql. In the database, since
        # the server keeps the comment as the bytes of the encoding of who sends it.
        script = f"DO {literal(f'BEGIN EXECUTE {literal(sql)}; END')};"
        try:
            self._client.rows(self._made, script)
        except DatabaseError as exc:
            raise DatabaseError(
                f"the database cannot get its owner, rights and settings from the dump: {exc}",
                hint="restore the globals first and use a superuser, or make the database yourself:"
                " one that is empty keeps its own",
            ) from exc

    def _take_place(self, name: str) -> None:
        """Rename the new database, in one transaction with the one that it replaces."""
        old = f"{self._made}_old"
        made, target = identifier(self._made), identifier(name)
        exists = self._run(f"SELECT 1 FROM pg_catalog.pg_database WHERE datname = {literal(name)};")
        if exists and not self._replace:
            raise DatabaseError(
                f"the database '{self._client.shown(name)}' was made meanwhile",
                hint="restore into another one, or replace what is in it with --replace",
            )
        move = f"ALTER DATABASE {target} RENAME TO {identifier(old)};" if exists else ""
        statements = f"BEGIN; {move} ALTER DATABASE {made} RENAME TO {target}; COMMIT;"
        _without_sessions(self._client, self._maintenance, [name, self._made], statements)
        if exists:
            try:
                _drop(self._client, self._maintenance, old)
            except DatabaseError as exc:
                log.warning("the replaced database is left as '%s': %s", old, exc)


class EmptyDatabaseRestore:
    """A dump being loaded into a database that exists and is empty, in one transaction.

    The database keeps its owner, its rights, its settings and its encoding.
    """

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name
        self._is_committed = False
        self.program = client.program(
            "pg_restore", "--exit-on-error", "--single-transaction", database=name
        )

    def commit(self) -> None:
        """Keep what was loaded."""
        self._is_committed = True

    def query(self, text: str) -> Sequence[Sequence[str | None]]:
        """Return what SQL gives of what was loaded. Raises DatabaseError."""
        return self._client.rows(self._name, text, doing="the query", is_limited=False)

    def target(self) -> str:
        """Return the URL, without a password, of the database that was loaded."""
        return self._client.shown(self._name)

    def close(self) -> None:
        """Say whether there is something in the database if it was not committed.

        A load that failed leaves nothing. What there is came by one that succeeded and was
        interrupted then, or by somebody else meanwhile: so it is not removed.
        """
        if self._is_committed:
            return
        try:
            if has_objects(self._client, self._name):
                log.warning(
                    "'%s' is not empty any more: look at what is in it before you load again",
                    self.target(),
                )
        except DatabaseError as exc:
            log.warning("'%s' may hold what was loaded: %s", self.target(), exc)


class GlobalsRestore:
    """The SQL of ``pg_dumpall --globals-only`` being run.

    A role that exists is changed; any other error ends it, and what was run until then stays.
    """

    def __init__(self, client: Client, database: str) -> None:
        self._client = client
        self._database = database
        client.check_tool("psql")
        program = client.program(
            "psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", database=database
        )
        script = (sys.executable, "-I", "-S", roles.__file__)
        self.program = replace(program, arguments=(*script, *program.arguments))

    def commit(self) -> None:
        """Do nothing: each statement took effect when it was run."""

    def query(self, text: str) -> Sequence[Sequence[str | None]]:
        """Return what SQL gives on the server. Raises DatabaseError."""
        return self._client.rows(self._database, text, doing="the query", is_limited=False)

    def target(self) -> str:
        """Return the server's URL without a password."""
        return self._client.shown()

    def close(self) -> None:
        """Do nothing."""


def _drop(client: Client, maintenance: str, name: str) -> None:
    statement = f"DROP DATABASE IF EXISTS {identifier(name)};"
    _without_sessions(client, maintenance, [name], statement)


def _without_sessions(client: Client, maintenance: str, names: list[str], sql: str) -> None:
    """End the sessions of databases and run *sql*. Raises DatabaseError."""
    listed = ", ".join(literal(name) for name in names)
    end = (
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
        f" WHERE datname IN ({listed});"
    )
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            # The statement locks the database: of sessions, only those that start between the two
            # are in its way, and it waits for the ones that end.
            client.rows(maintenance, f"{end}\n{sql}")
        except DatabaseError as exc:
            if "being accessed by other users" not in str(exc) or attempt == _ATTEMPTS:
                raise
        else:
            return
