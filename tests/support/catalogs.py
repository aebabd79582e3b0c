"""Catalogs in a file and on servers, for tests that run over each kind."""

from __future__ import annotations

import itertools
import os
import pwd
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.databases import mariadb_server, output_of, postgresql_server
from tests.support.needs import package, program
from tests.support.servers import free_port

PASSWORD = "p@ss/w:rd#%1"
_MARKS = [pytest.mark.slow, pytest.mark.drivers]
ON_SERVERS = [
    pytest.param("postgresql", marks=[*_MARKS, pytest.mark.needs("postgres", "psql")]),
    pytest.param("mariadb", marks=[*_MARKS, pytest.mark.needs("mariadbd", "mariadb")]),
]
EVERYWHERE = ["sqlite", *ON_SERVERS]
"""Parameters of a fixture that makes catalogs."""

NewCatalog = Callable[[], str]
"""Makes an empty database, and returns its address."""


class PostgresqlCatalogs:
    """A server of PostgreSQL, with a database for each catalog."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._numbers = itertools.count()
        self.home = Path(environment["PGHOST"])
        """The directory of its socket and its data."""
        self.port = int(environment["PGPORT"])

    def __call__(self) -> str:
        """Make an empty database, and return its address."""
        name = f"catalog{next(self._numbers)}"
        self.sql("postgres", f"CREATE DATABASE {name}")
        return self.address(name)

    def address(self, database: str, user: str = "postgres", password: str = PASSWORD) -> str:
        """Return the address of a database, for a role."""
        return f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def sql(self, database: str, script: str) -> str:
        """Run SQL as the superuser; return the rows."""
        done = subprocess.run(
            ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database],
            input=script,
            capture_output=True,
            text=True,
            env={**os.environ, **self._environment},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def use_tls(self, certificate: Path, key: Path) -> None:
        """Offer TLS with a certificate and its key."""
        data = self.home / "data"
        owner = data.stat()
        for source, name in ((certificate, "server.crt"), (key, "server.key")):
            place = data / name
            place.write_bytes(source.read_bytes())
            place.chmod(0o600)
            os.chown(place, owner.st_uid, owner.st_gid)
        self.sql("postgres", "ALTER SYSTEM SET ssl = on")
        self.sql("postgres", "SELECT pg_reload_conf()")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: ``fast`` ends all connections, ``immediate`` is a crash."""
        self._control("stop", "-m", mode)

    def start(self) -> None:
        """Start the server again, with its former options."""
        options = shlex.split((self.home / "data" / "postmaster.opts").read_text())[1:]
        self._control("start", "-o", shlex.join(options), "-l", str(self.home / "again.log"))

    def _control(self, *words: str) -> None:
        account = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
        done = subprocess.run(
            [program("pg_ctl"), "-D", str(self.home / "data"), "-w", *words],
            user=account.pw_uid if os.getuid() == 0 else None,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # which the server keeps
            stderr=subprocess.DEVNULL,
        )
        assert done.returncode == 0, words


@contextmanager
def postgresql_catalogs() -> Iterator[PostgresqlCatalogs]:
    """Run a server of PostgreSQL until the block ends."""
    package("psycopg")
    with postgresql_server(PASSWORD) as environment:
        catalogs = PostgresqlCatalogs(environment)
        try:
            yield catalogs
        finally:
            if (Path(environment["PGHOST"]) / "again.log").exists():
                catalogs.stop()


class MariadbCatalogs:
    """A server of MariaDB, with a database for each catalog."""

    def __init__(self, client: list[str], port: int) -> None:
        self._client = client
        self._numbers = itertools.count()
        self.port = port
        self.sql(f"CREATE USER bakthat@'%' IDENTIFIED BY '{PASSWORD}'")

    def __call__(self) -> str:
        """Make an empty database, and return its address."""
        name = f"catalog{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name}; GRANT ALL ON {name}.* TO bakthat@'%'")
        return f"mariadb://bakthat:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{name}"

    def sql(self, script: str) -> str:
        """Run SQL as the superuser; return the rows."""
        return output_of(*self._client, "-e", script)


@contextmanager
def mariadb_catalogs(home: Path) -> Iterator[MariadbCatalogs]:
    """Run a server of MariaDB until the block ends, with its files in *home*."""
    package("pymysql")
    port = free_port()
    with mariadb_server(home, port=port) as client:
        yield MariadbCatalogs(client, port)
