"""The catalog on a server of PostgreSQL, MySQL or MariaDB, which several hosts share.

A connection is opened for a block and closed at its end. One process at a time writes, whatever its
host: each transaction that writes takes one lock of the whole catalog first, as SQLite locks its
file, so there is one order of locks and no deadlock.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import peewee
from playhouse import db_url  # type: ignore[import-untyped]  # its stubs are another package

from bakthat.database import tables
from bakthat.database.address import MYSQL, POSTGRESQL, DatabaseAddress
from bakthat.database.base import Prepare, ServerAwayError, locked_error
from bakthat.database.server_errors import lacks_table, server_error
from bakthat.errors import CatalogError

log = logging.getLogger("bakthat")

CONNECT_SECONDS = 10
"""How long a server may take to connect, and how long one that refuses is tried again: it may be
about to start."""
STATEMENT_SECONDS = 60
"""The longest time for a statement, without the time that it waits for other processes."""
IDLE_SECONDS = 120
"""After which the server ends a connection that does nothing: a host that was switched off must not
lock the catalog for the others."""
_TEXTS = ("user", "password", "sslpassword", "ssl_key_password")
"""Options that are any text, which may look like a number."""
_KEEPALIVES = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""Parameters of libpq, by which a host that vanished is noticed within a minute."""
_PAUSE = 0.5
_LOCK = int.from_bytes(b"bakthat", "big")
"""The number of the catalog's advisory lock."""


class _ServerCatalog(peewee.Database, ABC):
    """A connection to a catalog's server, which raises CatalogError."""

    is_read_only = False
    reads_json = False

    def __init__(self, address: DatabaseAddress, timeout: float, options: dict[str, Any]) -> None:
        super().__init__(address.name, **options)
        self.location = address
        self._patience = timeout
        self._version: int | None = None
        self._errors = (peewee.PeeweeException, _driver(address).Error, OSError)

    def connect(self, reuse_if_open: bool = False) -> bool:
        """Connect. Raises CatalogError."""
        try:
            with self._translated():
                connected: bool = super().connect(reuse_if_open)
        except (TypeError, ValueError) as exc:  # an option that pymysql does not know
            raise server_error(self.location, exc) from exc
        return connected

    def execute_sql(self, sql: str, params: Any = None) -> Any:
        """Execute a statement. Raises CatalogError."""
        with self._translated():
            return super().execute_sql(sql, params)  # type: ignore[no-untyped-call]  # no stubs

    def commit(self) -> None:
        """Commit the transaction. Raises CatalogError; then it may be committed all the same."""
        with self._translated():
            super().commit()

    def rollback(self) -> None:
        """Undo the transaction. A server that lost the connection has done so itself."""
        with contextlib.suppress(*self._errors):
            super().rollback()

    def schema_version(self) -> int:
        """Return the version of the tables; 0 where there are none."""
        if self._version is None:
            try:
                found = self.execute_sql(f"SELECT version FROM {tables.SCHEMA}").fetchone()
            except CatalogError as exc:
                if not lacks_table(exc):
                    raise
                found = None
            self._version = 0 if found is None else int(found[0])
        return self._version

    def upgrade(self, _models: Collection[type[peewee.Model]], version: int) -> None:
        """Create the tables, unless another process just did."""
        with self.writing():
            there = set(self.get_tables())
            foreign = sorted(there & set(tables.NAMES))
            if foreign and tables.SCHEMA not in there:
                raise CatalogError(
                    f"the database {self.location} has a table {foreign[0]} that is not bakthat's",
                    hint="name a database that has nothing but the catalog",
                )
            self._check_new()
            self._version = None
            if tables.SCHEMA in there and self.schema_version() == version:
                return
            for statement in tables.statements(self.location.kind, version):
                self.execute_sql(statement)
            self._version = version

    def _check_new(self) -> None:
        """Raise CatalogError where the tables could not hold every name."""

    def writing(self) -> contextlib.AbstractContextManager[Any]:
        """Return a transaction with the lock of the catalog; a nested one is a savepoint."""
        nested: contextlib.AbstractContextManager[Any] = self.atomic()
        return nested if self.in_transaction() else self._locked()

    @abstractmethod
    def _locked(self) -> contextlib.AbstractContextManager[None]:
        """Return a transaction that begins with the lock of the catalog. Raises CatalogError."""

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._errors as exc:
            raise server_error(self.location, exc) from exc


class PostgresqlCatalog(_ServerCatalog, peewee.PostgresqlDatabase):
    """A catalog on PostgreSQL."""

    def begin(self, isolation_level: str | None = None) -> None:
        """Begin a transaction whose statements see what others committed before them."""
        self.execute_sql("BEGIN ISOLATION LEVEL READ COMMITTED")

    def holds(self, column: peewee.Field, text: str) -> Any:
        """Return the condition that *column* contains *text*, compared by bytes."""
        return peewee.fn.STRPOS(column, text) > 0

    def _check_new(self) -> None:
        """Raise CatalogError where the tables could not hold every name."""
        encoding = self.execute_sql("SHOW server_encoding").fetchone()[0]
        if encoding != "UTF8":
            raise CatalogError(
                f"the database {self.location} has the encoding {encoding}, not UTF8",
                hint=f"make another: createdb -E UTF8 -T template0 {self.location.name}",
            )

    def _initialize_connection(self, connection: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(self._limits("SET"))

    def _limits(self, command: str) -> str:
        locks, statements = self._patience, self._patience + STATEMENT_SECONDS
        return (
            f"{command} lock_timeout = {round(max(locks, 0.001) * 1000)};"
            f"{command} statement_timeout = {round(statements * 1000)};"
            f"{command} idle_in_transaction_session_timeout = {IDLE_SECONDS * 1000}"
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self.atomic():
            # A pooler gives the transaction another connection than it gave for the settings.
            self.execute_sql(self._limits("SET LOCAL"))
            self.execute_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            yield


class MySQLCatalog(_ServerCatalog, peewee.MySQLDatabase):
    """A catalog on MySQL or MariaDB."""

    def begin(self, isolation_level: str | None = None) -> None:
        """Begin a transaction. Raises CatalogError."""
        self.execute_sql("BEGIN")

    def holds(self, column: peewee.Field, text: str) -> Any:
        """Return the condition that *column* contains *text*, compared by bytes."""
        return peewee.fn.INSTR(column, text) > 0

    def _initialize_connection(self, connection: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION',"
                f" innodb_lock_wait_timeout = {max(round(self._patience), 1)},"
                f" wait_timeout = {IDLE_SECONDS}"
            )
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # Before the transaction begins, or it would not see what the others wrote meanwhile. A
        # lock of this kind is one of the whole server.
        name = hashlib.sha256(f"bakthat {self.location.name}".encode()).hexdigest()[:32]
        got = self.execute_sql("SELECT GET_LOCK(%s, %s)", (name, self._patience)).fetchone()
        if not got[0]:
            raise locked_error(self.location)
        try:
            with self.atomic():
                yield
        finally:
            with contextlib.suppress(CatalogError):  # the connection was lost, and the lock too
                self.execute_sql("SELECT RELEASE_LOCK(%s)", (name,))


@contextlib.contextmanager
def opened(address: DatabaseAddress, timeout: float, prepare: Prepare) -> Iterator[Any]:
    """Connect to the catalog at *address* during the block; make its tables where they are missing.

    *timeout* is in seconds, for the locks of other processes. Raises CatalogError.
    """
    database = _database(address, timeout)
    _connect(database)
    try:
        prepare(database)
        yield database
    finally:
        with contextlib.suppress(Exception):  # what happened in the block is said already
            database.close()


def _connect(database: _ServerCatalog) -> None:
    until = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            database.connect()
        except ServerAwayError as exc:
            if time.monotonic() > until:
                raise
            log.debug("%s; trying again", exc)
            time.sleep(_PAUSE * (1 + random.random()))
        else:
            return


def _database(address: DatabaseAddress, timeout: float) -> _ServerCatalog:
    _driver(address)
    options = _options_of(address)
    if address.kind == POSTGRESQL:
        return PostgresqlCatalog(
            address,
            timeout,
            {
                "connect_timeout": CONNECT_SECONDS,
                "application_name": "bakthat",
                "prepare_threshold": None,  # a pooler gives each transaction another connection
                **_KEEPALIVES,
                **options,
                "client_encoding": "UTF8",
                "prefer_psycopg3": True,
            },
        )
    patience = round(timeout) + STATEMENT_SECONDS
    return MySQLCatalog(
        address,
        timeout,
        {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": patience,
            "write_timeout": STATEMENT_SECONDS,
            **options,
            "charset": "utf8mb4",  # names are bytes, which must be the same on every host
        },
    )


def _options_of(address: DatabaseAddress) -> dict[str, Any]:
    """Return what an address tells the driver; options such as those of TLS are the driver's."""
    options: dict[str, Any] = db_url.parse(address.url, unquote_password=True, unquote_user=True)
    for name in ("database", "passwd"):  # the latter is deprecated
        options.pop(name, None)
    # The parser makes a number of 0123, true of the word, and a space of a plus.
    for name, text in parse_qsl(urlsplit(address.url).query.replace("+", "%2B")):
        if name in _TEXTS:
            options[name] = text
    if address.password:
        options["password"] = address.password
    if address.kind == MYSQL and "password" in options:
        # The driver would encode it as Latin 1, and the server has it in UTF-8.
        options["password"] = options["password"].encode()
    return options


def _driver(address: DatabaseAddress) -> Any:
    """Return the module of the driver. Raises ConfigError where it is not installed."""
    try:
        return importlib.import_module(address.driver)
    except ImportError as exc:  # or it lacks the library of the server
        raise address.missing_driver() from exc
