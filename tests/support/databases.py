"""Database servers, each with its data and its socket in directories of the test."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.commandline import PATIENCE
from tests.support.needs import program
from tests.support.servers import free_port


@contextmanager
def _running(
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
    """Tell whether *command* ends with exit code 0."""
    return subprocess.run(command, capture_output=True).returncode == 0


def output_of(*command: str, stdin: Path | None = None) -> str:
    """Return what *command* prints, which must succeed."""
    with (stdin or Path(os.devnull)).open("rb") as stream:
        done = subprocess.run(command, stdin=stream, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def mariadb_server(home: Path, *, port: int | None = None) -> Iterator[list[str]]:
    """Run MariaDB with a database ``shop``; yield its client's command.

    The server's files, and the client's settings and programs, are in *home*. It listens on
    ``home / "socket"``, and with *port* on the loopback device.
    """
    mariadbd, client_program = program("mariadbd", "mysqld"), program("mariadb")
    # Since MariaDB 11 the old name is in a package of its own.
    (home / "bin").mkdir()
    (home / "bin" / "mysqldump").symlink_to(program("mysqldump", "mariadb-dump"))
    data, socket, init = home / "data", home / "socket", home / "init.sql"
    # A server that starts removes the temporary tables of others from theirs.
    temporary = home / "temporary"
    temporary.mkdir()
    whoami = pwd.getpwuid(os.getuid()).pw_name
    output_of(
        program("mariadb-install-db"),
        "--no-defaults",
        f"--datadir={data}",
        f"--tmpdir={temporary}",
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
        f"--tmpdir={temporary}",
        f"--socket={socket}",
        f"--pid-file={home / 'pid'}",
        f"--user={whoami}",
        f"--init-file={init}",
        *(
            ["--skip-networking"]
            if port is None
            else ["--bind-address=127.0.0.1", f"--port={port}"]
        ),
        "--innodb-buffer-pool-size=16M",
    ]
    answers = [*client, "-e", "SELECT * FROM shop.orders WHERE id = 2"]
    with _running(
        command,
        home / "mariadb.log",
        is_ready=lambda: succeeds(*answers),
        stop=signal.SIGTERM,
        user=None,
    ):
        yield client


@contextmanager
def postgresql_server(password: str = "") -> Iterator[dict[str, str]]:
    """Run PostgreSQL; yield the environment of its clients.

    Nobody needs a password at its socket. With *password*, that of ``postgres``, the server has a
    free port of the loopback address, too, where each role needs its own.
    """
    initdb, postgres, _ = program("initdb"), program("postgres"), program("pg_dump")
    # The server refuses to be root, and another user cannot come into pytest's directories.
    account = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        home = Path(name)
        os.chown(home, account.pw_uid, account.pw_gid)
        home.chmod(0o755)
        other = account.pw_uid if os.getuid() == 0 else None
        done = subprocess.run(
            [initdb, "-D", home / "data", "-U", "postgres", "--auth-local=trust",
             "--auth-host=scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync"],
            user=other, cwd=home, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        port = str(free_port())
        environment = {"PGHOST": name, "PGUSER": "postgres", "PGPORT": port}
        command = [postgres, "-D", str(home / "data"), "-k", name, "-p", port, "-c", "fsync=off"]
        client = ["psql", "-h", name, "-p", port, "-U", "postgres"]
        with _running(
            [*command, "-c", f"listen_addresses={'127.0.0.1' if password else ''}"],
            home / "server.log",
            is_ready=lambda: succeeds(*client, "-c", "SELECT 1"),
            stop=signal.SIGINT,  # the fast way to stop
            user=other,
        ):
            if password:
                quoted = password.replace("'", "''")
                output_of(*client, "-c", f"ALTER ROLE postgres PASSWORD '{quoted}'")
            yield environment


@contextmanager
def postgresql_replica(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """Run a replica of a server of PostgreSQL; yield the environment of its clients."""
    account = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    other = account.pw_uid if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        home = Path(name)
        os.chown(home, account.pw_uid, account.pw_gid)
        home.chmod(0o755)
        done = subprocess.run(
            [program("pg_basebackup"), "-D", home / "data", "-R", "-c", "fast", "--no-sync"],
            user=other, cwd=home, capture_output=True, text=True, env={**os.environ, **environment},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        port = environment["PGPORT"]  # of its socket only, in a directory of its own
        command = [program("postgres"), "-D", str(home / "data"), "-k", name, "-p", port]
        client = ["psql", "-h", name, "-p", port, "-U", "postgres"]
        with _running(
            [*command, "-c", "listen_addresses="],
            home / "server.log",
            is_ready=lambda: succeeds(*client, "-c", "SELECT 1"),
            stop=signal.SIGINT,
            user=other,
        ):
            yield {**environment, "PGHOST": name}


@contextmanager
def redis_server(home: Path, *, password: str = "", settings: str = "") -> Iterator[int]:
    """Run Redis, with *settings* in its configuration; yield its port on loopback.

    Its socket is ``redis.sock`` in *home*.
    """
    server, client, port = program("redis-server"), program("redis-cli"), free_port()
    (home / "redis.conf").write_text(
        f"bind 127.0.0.1\nport {port}\nunixsocket redis.sock\ndir {home}\nsave ''\n"
        "enable-debug-command yes\nrepl-diskless-sync-delay 0\n"
        + (f"requirepass {password}\n" if password else "")
        + settings
    )
    with _running(
        [server, str(home / "redis.conf")],
        home / "redis.log",
        is_ready=lambda: succeeds(client, "-h", "127.0.0.1", "-p", str(port), "PING"),
        stop=signal.SIGTERM,
        user=None,
    ):
        yield port
