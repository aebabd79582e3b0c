"""A server of PostgreSQL for the tests of its dumps."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bakthat.operations.sources.databases.base import HEAD_BYTES, Access, Database, HeadReader, Load
from bakthat.operations.sources.databases.postgresql.server import PostgreSQLServer
from bakthat.operations.sources.databases.url_parts import DatabaseUrl
from bakthat.system.programs import Ended, RunningProgram
from tests.support.databases import postgresql_server

PASSWORD = "s3:cr\\et 'ü"


@dataclass(frozen=True)
class PostgreSQL:
    """A server that runs."""

    environment: dict[str, str]
    """Of its programs, through its socket, where nobody needs a password."""

    @property
    def port(self) -> int:
        return int(self.environment["PGPORT"])

    def server(
        self, user: str = "postgres", password: str | None = PASSWORD, *, port: int | None = None
    ) -> PostgreSQLServer:
        """Return what is tested, for its loopback address."""
        url = DatabaseUrl("postgresql", user, "127.0.0.1", port or self.port)
        return PostgreSQLServer.from_url(url, Access(password))

    def _environment(self, database: str) -> dict[str, str]:
        own = {"PGDATABASE": database, "PGCLIENTENCODING": "UTF8"}
        return {**os.environ, **self.environment, **own}

    def sql(self, database: str, script: str) -> list[str]:
        """Run SQL; return the rows, unaligned."""
        command = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        done = subprocess.run(
            command,
            input=script.encode(),
            capture_output=True,
            env=self._environment(database),
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().splitlines()

    def make(self, database: str, script: str = "", *, options: str = "") -> None:
        """Make a database."""
        quoted = database.replace('"', '""')
        self.sql("postgres", f'CREATE DATABASE "{quoted}" TEMPLATE template0 {options}')
        self.sql(database, script)

    def databases(self) -> set[str]:
        return set(self.sql("postgres", "SELECT datname FROM pg_database"))

    def text(self, database: str) -> list[str]:
        """Return all of a database as SQL: what pg_dump says of it, row by row."""
        done = subprocess.run(
            ["pg_dump", "--format=plain", "--encoding=UTF8"],
            capture_output=True,
            env=self._environment(database),
        )
        assert done.returncode == 0, done.stderr.decode()
        lines = done.stdout.decode().splitlines()
        return [line for line in lines if not line.startswith(("\\restrict", "\\unrestrict"))]


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """Run a server until the block ends."""
    with postgresql_server(PASSWORD) as environment:
        yield PostgreSQL(environment)


def dumped(database: Database) -> bytes:
    """Return a dump, which must succeed."""
    database.check()
    with RunningProgram(database.dump(), stdout=True) as running:
        dump = b"".join(iter(lambda: running.stdout.read(1 << 20), b""))
        ended = running.wait()
    assert ended.succeeded, ended.problem()
    return dump


def loaded(load: Load, dump: bytes) -> Ended:
    """Load a dump as far as the program takes it, and return how the program ended."""
    if isinstance(load, HeadReader):
        load.prepare(dump[:HEAD_BYTES])
    with RunningProgram(load.program, stdin=True) as running:
        try:
            running.stdin.write(dump)
            running.stdin.close()
        except BrokenPipeError:
            pass
        return running.wait()
