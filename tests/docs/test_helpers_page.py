"""The examples of docs/how-to/helpers.rst, run from its text, with real databases."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bakthat
from tests.docs.sessions import DOCS, blocks_of
from tests.support.commandline import CommandLine
from tests.support.databases import (
    mariadb_server,
    output_of,
    postgresql_server,
    succeeds,
)
from tests.support.profiles import write_config

pytestmark = pytest.mark.slow

BLOCKS = {
    block.caption: block.text
    for block in blocks_of(DOCS / "how-to" / "helpers.rst")
    if block.caption
}
DATABASES = {
    "mysql_backup.py",
    "postgresql_backup.py",
    "dump_command.py",
    "dump_with_sh.py",
}


class Author:
    """Somebody who runs the page's scripts, with a bucket."""

    def __init__(self, home: Path, directory: Path, conf: dict[str, Any]) -> None:
        self.user = CommandLine(home, directory)
        self.user.environment["PATH"] = f"{home / 'bin'}:{self.user.environment['PATH']}"
        config = home / ".bakthat.yml"
        write_config(config, default={**conf, "rotation": {"days": 7}})

    def run(self, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a script in the user's directory."""
        script = self.user.directory / "script.py"
        script.write_text(text)
        return subprocess.run(
            [sys.executable, script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=self.user.directory,
            env={**self.user.environment, **environment},
            start_new_session=True,
        )


@pytest.fixture
def author(isolated_environment: Path, tmp_path: Path, moto_conf: dict[str, Any]) -> Author:
    return Author(isolated_environment, tmp_path, moto_conf)


def test_the_examples_of_the_page_do_what_it_says(author: Author) -> None:
    done = {name: author.run(text) for name, text in BLOCKS.items() if name not in DATABASES}
    assert {name: (each.returncode, each.stderr, each.stdout) for name, each in done.items()} == {
        "minimal_backup.py": (0, "", ""),
        "plain_helper.py": (0, "", ""),
        "restoring.py": (0, "", "mydata\n"),
        "threads.py": (0, "", ""),
        "key_value.py": (
            0,
            "",
            "{'some': 'data'}\n['something', 'else']\nnothing\nmyvalue\n",
        ),
    }
    assert sorted(each.filename for each in bakthat.ls()) == [
        "first",
        "my_encrypted_key",
        "my_non_compressed_key",
        "mybackup",
        "myfile.txt",
        "second",
        "third",
    ]


# Databases.


@pytest.fixture
def mariadb(isolated_environment: Path) -> Iterator[list[str]]:
    with mariadb_server(isolated_environment) as client:
        yield client


def test_the_mysql_script_stores_a_dump_that_loads(
    author: Author, mariadb: list[str], tmp_path: Path
) -> None:
    query = ["-e", "SELECT id, what, HEX(photo) FROM shop.orders ORDER BY id"]
    before = output_of(*mariadb, *query)
    assert before == "1\ttea; 'with' mìlk\t00FF1F8B0A\n2\tNULL\t\n"
    done = author.run(BLOCKS["mysql_backup.py"])
    assert done.returncode == 0, done.stderr
    (made,) = bakthat.ls("myhost_mysql")
    assert made.is_encrypted
    assert made.tags == "mysql"

    with (author.user.home / ".my.cnf").open("a") as settings:
        settings.write("user=root\npassword=mypassword\n")
    done = author.run(BLOCKS["dump_command.py"])
    assert done.returncode == 0, done.stderr

    output_of(*mariadb, "-e", "DROP DATABASE shop")
    bakthat.restore("myhost_mysql", password="mypassword", output=tmp_path)
    output_of(*mariadb, stdin=tmp_path / "myhost_mysql" / "dump.sql")
    assert output_of(*mariadb, *query) == before

    output_of(*mariadb, "-e", "DROP TABLE shop.orders")
    bakthat.restore("shop.sql", password="mypassword", output=tmp_path)
    output_of(*mariadb, "shop", stdin=tmp_path / "shop.sql")
    assert output_of(*mariadb, *query) == before


def test_a_dump_that_fails_backs_nothing_up(author: Author, mariadb: list[str]) -> None:
    script = BLOCKS["mysql_backup.py"]
    done = author.run(script.replace('MYSQL_PASSWORD = "my', 'MYSQL_PASSWORD = "not my'))
    assert done.returncode == 1
    assert "Access denied" in done.stderr
    assert bakthat.ls() == []
    assert succeeds(*mariadb, "-e", "SELECT 1")


@pytest.fixture
def postgresql() -> Iterator[dict[str, str]]:
    with postgresql_server() as environment:
        yield environment


def test_the_postgresql_script_stores_a_dump_that_loads(
    author: Author, postgresql: dict[str, str], tmp_path: Path
) -> None:
    server = ["-h", postgresql["PGHOST"], "-p", postgresql["PGPORT"], "-U", "postgres"]

    def psql(database: str, statement: str) -> str:
        return output_of(
            "psql", *server, "-d", database, "-v", "ON_ERROR_STOP=1", "-A", "-t", "-c", statement
        )

    psql("postgres", "CREATE DATABASE shop")
    psql("shop", "CREATE TABLE orders (id int PRIMARY KEY, what text, photo bytea)")
    psql(
        "shop",
        "INSERT INTO orders VALUES (1, 'tea; ''with'' mìlk', '\\x00ff1f8b0a'), (2, NULL, NULL)",
    )
    query = "SELECT * FROM orders ORDER BY id"
    before = psql("shop", query)
    assert before == "1|tea; 'with' mìlk|\\x00ff1f8b0a\n2||\n"
    done = author.run(BLOCKS["postgresql_backup.py"], **postgresql)
    assert done.returncode == 0, done.stderr
    done = author.run(BLOCKS["dump_with_sh.py"], **postgresql)
    assert done.returncode == 0, done.stderr

    bakthat.restore("myhost_postgresql", password="mypassword", output=tmp_path)
    bakthat.restore("shop.dump", password="mypassword", output=tmp_path)
    for dump in (tmp_path / "myhost_postgresql" / "shop.dump", tmp_path / "shop.dump"):
        psql("postgres", "DROP DATABASE shop")
        psql("postgres", "CREATE DATABASE shop")
        output_of("pg_restore", *server, "-d", "shop", "--exit-on-error", str(dump))
        assert psql("shop", query) == before
