"""What a backup's stream comes from: databases of real servers, and a pipe of programs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import bakthat
from tests.reliability.world import PATIENCE
from tests.support.databases import mariadb_server, output_of, postgresql_server
from tests.support.servers import free_port

PASSWORD = "mypassword"
"""Of every user of a database; no output may have it."""
ROWS = 50_000
"""Of a table, some 500 bytes each: compressed, they take two parts of an upload."""
BYTES = 20_000_000
"""Of the file that a pipe reads; it does not compress."""

VICTIMS = (
    "bakthat",
    "a program of the dump",
    "the supervisor",
    "network to the storage, cut",
    "network to the storage, silent",
)
"""What can be killed of every backup of a stream."""
SERVED = (*VICTIMS, "the server", "network to the server, cut", "network to the server, silent")
CONNECTION = "the server's connection"
"""A process of PostgreSQL; that of MariaDB is a thread."""


def is_running(pid: int) -> bool:
    """Return whether a process runs; one that waits for its parent has ended."""
    return _stat_of(pid)[0] not in "ZX"


def children_of(parent: int) -> list[int]:
    """Return the processes that *parent* has started, and that have not been waited for."""
    return [pid for pid in processes() if _stat_of(pid)[1] == str(parent)]


def processes() -> list[int]:
    """Return the numbers of all processes."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _stat_of(pid: int) -> list[str]:
    """Return the state of a process, and the number of its parent."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ["X", ""]
    return text[text.rindex(")") + 2 :].split()[:2]


class Producer(ABC):
    """Something to back up, as a set of its own."""

    set_name: str
    port: int
    """Of its server; 0 where it has none."""
    victims: Sequence[str]
    """What can be killed."""

    @abstractmethod
    def arguments(self, port: int) -> list[str]:
        """Return those of ``bakthat`` that back it up; its server is reached at *port*."""

    @abstractmethod
    def restores(self, name: str, conf: dict[str, Any], scratch: Path) -> bool:
        """Restore the backup *name*, and return whether all of it comes back."""


@dataclass
class Pipe(Producer):
    """A shell's line of several programs."""

    file: Path
    set_name = "blob"
    port = 0
    victims = VICTIMS

    @classmethod
    def make(cls, file: Path, rng: random.Random) -> Pipe:
        """Make the file that is read."""
        file.write_bytes(rng.randbytes(BYTES))
        return cls(file)

    def arguments(self, port: int) -> list[str]:
        return ["--command", f"cat '{self.file}' | cat | cat", "--name", self.set_name]

    def restores(self, name: str, conf: dict[str, Any], scratch: Path) -> bool:
        bakthat.restore(name, conf=conf, output=scratch)
        found = sha256((scratch / self.set_name).read_bytes()).digest()
        return found == sha256(self.file.read_bytes()).digest()


@dataclass
class ServedDatabase(Producer):
    """A database, with the client of its server, and the process of that."""

    set_name: str
    url: str
    """With "{port}" and "{name}"."""
    port: int
    victims: Sequence[str]
    client: Sequence[str]
    """The command of its client; these come after it: a database, the next field, and SQL."""
    execute: str
    sums: str
    """The SQL that counts and hashes all rows."""
    pid: int
    log: Path

    def __post_init__(self) -> None:
        words = Path(f"/proc/{self.pid}/cmdline").read_bytes().split(b"\0")[:-1]
        # What is done at the first start is done once.
        self._command = [os.fsdecode(each) for each in words if b"--init-file" not in each]
        self._directory = os.readlink(f"/proc/{self.pid}/cwd")
        self._user = Path(f"/proc/{self.pid}").stat().st_uid
        self._process: subprocess.Popen[bytes] | None = None
        self._expected = self._summed(self.set_name)

    def arguments(self, port: int) -> list[str]:
        return [self.url.format(port=port, name=self.set_name)]

    def restores(self, name: str, conf: dict[str, Any], scratch: Path) -> bool:
        copy = f"{self.set_name}_copy"
        url = self.url.format(port=self.port, name=copy)
        bakthat.restore(name, conf=conf, into=url, replace=True)
        return self._summed(copy) == self._expected

    def kill(self) -> None:
        """Kill the server with all of its processes."""
        for pid in (self.pid, *children_of(self.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # PostgreSQL does not start as long as the number of the killed process is taken.
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def kill_connection(self) -> bool:
        """Kill the process of the server that serves the dump; return whether there is one."""
        for pid in children_of(self.pid):
            with suppress(OSError):
                title = Path(f"/proc/{pid}/cmdline").read_bytes()
                if title.startswith(b"postgres: ") and f" {self.set_name} ".encode() in title:
                    os.kill(pid, signal.SIGKILL)
                    return True
        return False

    def start(self) -> None:
        """Start the server that was killed, or wait until it has recovered by itself."""
        pause, deadline = threading.Event(), time.monotonic() + PATIENCE
        while (problem := self._problem()) is not None:
            if time.monotonic() > deadline:
                end = self.log.read_text(errors="replace")[-2000:]
                raise AssertionError(f"{self.set_name} does not answer: {problem}\n{end}")
            if not is_running(self.pid):
                with self.log.open("ab") as log:
                    self._process = subprocess.Popen(
                        self._command,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        cwd=self._directory,
                        user=self._user,
                    )
                self.pid = self._process.pid
            pause.wait(0.1)

    def end(self) -> None:
        """End the server if it was started here."""
        if self._process is not None:
            self.kill()

    def _problem(self) -> str | None:
        """Return why the server does not answer; None when it does."""
        command = [*self.client, self.set_name, self.execute, "SELECT 1"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stderr if done.returncode else None

    def _summed(self, database: str) -> str:
        return output_of(*self.client, database, self.execute, self.sums)


@contextmanager
def mariadb(home: Path) -> Iterator[ServedDatabase]:
    """Run MariaDB with the database ``store``."""
    port = free_port()
    with mariadb_server(home, port=port) as client:
        digits = ",".join(f"SHA2(seq * {factor}, 512)" for factor in (3, 5, 7, 11))
        output_of(
            *client,
            "-e",
            f"CREATE USER keeper@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO keeper@'%';"
            "CREATE DATABASE store;"
            "CREATE TABLE store.orders (id INT PRIMARY KEY, what TEXT) AS"
            f" SELECT seq AS id, CONCAT({digits}) AS what FROM mysql.seq_1_to_{ROWS}",
        )
        made = ServedDatabase(
            "store",
            "mariadb://keeper@127.0.0.1:{port}/{name}",
            port,
            SERVED,
            [*client, "-D"],
            "-e",
            "SELECT COUNT(*), BIT_XOR(CONV(LEFT(MD5(CONCAT(id, what)), 15), 16, 10)) FROM orders",
            int((home / "pid").read_text()),
            home / "mariadb.log",
        )
        try:
            yield made
        finally:
            made.end()


@contextmanager
def postgresql() -> Iterator[ServedDatabase]:
    """Run PostgreSQL with the database ``shop``."""
    with postgresql_server(PASSWORD) as environment:
        psql = ["env", *(f"{name}={value}" for name, value in environment.items()), "psql", "-qAt"]
        digits = " || ".join(
            f"encode(sha512((g * {factor})::text::bytea), 'hex')" for factor in (3, 5, 7, 11)
        )
        output_of(*psql, "-c", "CREATE DATABASE shop")
        output_of(
            *(*psql, "-d", "shop", "-c"),
            f"CREATE TABLE orders AS SELECT g AS id, {digits} AS what"
            f" FROM generate_series(1, {ROWS}) AS g",
        )
        home = Path(environment["PGHOST"])
        pid = (home / "data" / "postmaster.pid").read_text().split()[0]
        made = ServedDatabase(
            "shop",
            "postgresql://postgres@127.0.0.1:{port}/{name}",
            int(environment["PGPORT"]),
            (*SERVED, CONNECTION),
            [*psql, "-d"],
            "-c",
            "SELECT count(*), md5(string_agg(md5(id || what), '' ORDER BY id)) FROM orders",
            int(pid),
            home / "server.log",
        )
        try:
            yield made
        finally:
            made.end()
