"""Database servers with a small database ``shop``, for tests of what is done with databases."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.databases import mariadb_server, postgresql_server
from tests.support.servers import free_port

PASSWORD = "s3:cr\\et-'ü-zq7Kx"
"""Of each server, for those who come over the network."""
ORDERS = "CREATE TABLE orders (id INT PRIMARY KEY, what TEXT);"
ROWS = "INSERT INTO orders VALUES (1, 'tea'), (2, NULL), (3, 'mìlk; it''s');"


@dataclass(frozen=True)
class Shop:
    """A server that runs. Its clients need no password here, and those of :attr:`url` do."""

    kind: str
    url: str
    """Without a database and without the password."""
    client: tuple[str, ...]
    """Reads SQL from standard input; the name of a database follows."""
    environment: Mapping[str, str]

    def of(self, name: str) -> str:
        """Return the URL of a database."""
        return f"{self.url}/{name}"

    def sql(self, text: str, database: str = "") -> list[str]:
        """Run SQL, and return the rows."""
        done = subprocess.run(
            [*self.client, *([database] if database else [])],
            input=text.encode(),
            capture_output=True,
            env={**os.environ, **self.environment},
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().splitlines()

    def make(self, name: str, script: str = ORDERS + ROWS) -> str:
        """Make a database, and return its URL."""
        self.sql(f"CREATE DATABASE {name};")
        self.sql(script, name)
        return self.of(name)

    def drop(self, *names: str) -> None:
        """Remove databases that may exist."""
        for name in names:
            self.sql(f"DROP DATABASE IF EXISTS {name};")

    def names(self) -> set[str]:
        """Return the names of the databases, without those that a server has by itself."""
        if self.kind == "postgresql":
            found = self.sql("SELECT datname FROM pg_database WHERE NOT datistemplate;")
        else:
            found = self.sql("SHOW DATABASES;")
        return {*found} - {"postgres", "information_schema", "mysql", "performance_schema", "sys"}

    def orders(self, name: str) -> list[str]:
        """Return the rows of the table ``orders``."""
        return self.sql("SELECT * FROM orders ORDER BY id;", name)


@contextmanager
def postgresql_shop() -> Iterator[Shop]:
    """Run PostgreSQL until the block ends."""
    with postgresql_server(PASSWORD) as environment:
        client = ("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1")
        url = f"postgresql://postgres@127.0.0.1:{environment['PGPORT']}"
        shop = Shop("postgresql", url, client, {**environment, "PGCLIENTENCODING": "UTF8"})
        shop.make("shop")
        yield shop


@contextmanager
def mariadb_shop(home: Path) -> Iterator[Shop]:
    """Run MariaDB, with its files in *home*, until the block ends."""
    port = free_port()
    with mariadb_server(home, port=port) as client:
        shop = Shop("mariadb", f"mariadb://keeper@127.0.0.1:{port}", tuple(client), {})
        quoted = PASSWORD.replace("\\", "\\\\").replace("'", "''")
        shop.sql(
            f"CREATE USER keeper@'%' IDENTIFIED BY '{quoted}';"
            "GRANT ALL ON *.* TO keeper@'%' WITH GRANT OPTION;"
        )
        shop.drop("shop")
        shop.make("shop")
        yield shop
