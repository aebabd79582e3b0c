"""The examples of docs/how-to/helpers.rst, run from its text, with real databases."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import bakthat
from tests.docs.sessions import DOCS, blocks_of
from tests.support.commandline import PATIENCE, CommandLine
from tests.support.needs import program
from tests.support.profiles import write_config

BLOCKS = {
    block.caption: block.text
    for block in blocks_of(DOCS / "how-to" / "helpers.rst")
    if block.caption
}
DATABASES = {"mysql_backup.py", "postgresql_backup.py"}


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


@contextmanager
def server(
    command: list[str], log: Path, *, is_ready: Callable[[], bool], stop: int, user: int | None
) -> Iterator[None]:
    """Run a database server until the block ends, entering it when *is_ready*."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=log.parent,
            user=user,
        )
    try:
        pause, deadline = threading.Event(), time.monotonic() + PATIENCE
        while not is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{command[0]} does not answer:\n{log.read_text()[-3000:]}")
            pause.wait(0.1)
        yield
    finally:
        process.send_signal(stop)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def output_of(*command: str, stdin: Path | None = None) -> str:
    with (stdin or Path(os.devnull)).open("rb") as stream:
        done = subprocess.run(command, stdin=stream, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def mariadb(isolated_environment: Path) -> Iterator[list[str]]:
    """Run MariaDB with a database; yield the client's command."""
    mariadbd, client_program = program("mariadbd", "mysqld"), program("mariadb")
    home = isolated_environment
    # Since MariaDB 11 the old name is in a package of its own.
    (home / "bin").mkdir()
    (home / "bin" / "mysqldump").symlink_to(program("mysqldump", "mariadb-dump"))
    data, socket, init = home / "data", home / "socket", home / "init.sql"
    whoami = pwd.getpwuid(os.getuid()).pw_name
    output_of(
        program("mariadb-install-db"),
        "--no-defaults",
        f"--datadir={data}",
        f"--user={whoami}",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
    )
    init.write_text(
        "ALTER USER root@localhost IDENTIFIED BY 'mypassword';\n"
        "CREATE DATABASE shop CHARACTER SET utf8mb4;\n"
        "CREATE TABLE shop.orders (id INT PRIMARY KEY, what TEXT, photo BLOB);\n"
        "SET NAMES utf8mb4;\n"
        "INSERT INTO shop.orders VALUES (1, 'tea; \\'with\\' mìlk', x'00ff1f8b0a');\n"
        "INSERT INTO shop.orders VALUES (2, NULL, '');\n"
    )
    (home / ".my.cnf").write_text(f"[client]\nsocket={socket}\n")
    client = [client_program, f"--defaults-file={home / '.my.cnf'}", "-uroot", "-pmypassword", "-N"]
    client.append("--default-character-set=utf8mb4")
    command = [
        mariadbd,
        "--no-defaults",
        f"--datadir={data}",
        f"--socket={socket}",
        f"--pid-file={home / 'pid'}",
        f"--user={whoami}",
        f"--init-file={init}",
        "--skip-networking",
        "--innodb-buffer-pool-size=16M",
    ]
    answers = [*client, "-e", "SELECT * FROM shop.orders WHERE id = 2"]
    with server(
        command,
        home / "mariadb.log",
        is_ready=lambda: succeeds(*answers),
        stop=signal.SIGTERM,
        user=None,
    ):
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

    output_of(*mariadb, "-e", "DROP DATABASE shop")
    bakthat.restore("myhost_mysql", password="mypassword", output=tmp_path)
    output_of(*mariadb, stdin=tmp_path / "myhost_mysql" / "dump.sql")
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
    """Run PostgreSQL with a database; yield the environment of its clients."""
    initdb, postgres, _ = program("initdb"), program("postgres"), program("pg_dump")
    # The server refuses to be root, and another user cannot come into pytest's directories.
    account = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        home = Path(name)
        os.chown(home, account.pw_uid, account.pw_gid)
        home.chmod(0o755)
        other = account.pw_uid if os.getuid() == 0 else None
        done = subprocess.run(
            [initdb, "-D", home / "data", "-U", "postgres", "-A", "trust",
             "-E", "UTF8", "--locale=C", "--no-sync"],
            user=other, cwd=home, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        environment = {"PGHOST": name, "PGUSER": "postgres"}
        command = [postgres, "-D", str(home / "data"), "-k", name]
        with server(
            [*command, "-c", "listen_addresses=", "-c", "fsync=off"],
            home / "server.log",
            is_ready=lambda: succeeds("psql", "-h", name, "-U", "postgres", "-c", "SELECT 1"),
            stop=signal.SIGINT,  # the fast way to stop
            user=other,
        ):
            yield environment


def test_the_postgresql_script_stores_a_dump_that_loads(
    author: Author, postgresql: dict[str, str], tmp_path: Path
) -> None:
    def psql(database: str, statement: str) -> str:
        to = ["-h", postgresql["PGHOST"], "-U", "postgres", "-d", database]
        return output_of("psql", *to, "-v", "ON_ERROR_STOP=1", "-A", "-t", "-c", statement)

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

    psql("postgres", "DROP DATABASE shop")
    psql("postgres", "CREATE DATABASE shop")
    bakthat.restore("myhost_postgresql", password="mypassword", output=tmp_path)
    dump = tmp_path / "myhost_postgresql" / "shop.dump"
    to = ["-h", postgresql["PGHOST"], "-U", "postgres", "-d", "shop"]
    output_of("pg_restore", *to, "--exit-on-error", str(dump))
    assert psql("shop", query) == before
