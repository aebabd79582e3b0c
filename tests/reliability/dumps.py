"""Dumps that are cut: by kill -9 of what takes part in them, and by a broken network."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bakthat.system.programs import _supervisor
from tests.reliability.producers import (
    CONNECTION,
    PASSWORD,
    Pipe,
    Producer,
    ServedDatabase,
    is_running,
    mariadb,
    postgresql,
    processes,
)
from tests.reliability.world import PATIENCE, World
from tests.support.commandline import PROJECT
from tests.support.relay import Relay, relay
from tests.support.servers import S3Server, free_ports

SILENCE = 15
"""Seconds after which a silent connection is given up."""
END_SECONDS = 20
"""Seconds after bakthat in which all that it has started ends."""
_RUN = "RELIABILITY_RUN"
"""Set in the environment of bakthat, and so of all that it starts."""

NOBODY = "nobody"


@dataclass
class DumpWorld(World):
    """A user with databases, and no directory to back up."""

    producers: Sequence[Producer] = ()
    typical: dict[tuple[str, bool], float] = field(default_factory=dict)
    """Seconds that a backup takes, by set; and with True, from the start of its dump."""
    ports: dict[str, int] = field(default_factory=dict)
    """Those of the relays, by set: a database at another port would be another database."""

    def restores(self, name: str) -> bool:
        producer = next(each for each in self.producers if name.startswith(f"{each.set_name}."))
        scratch = Path(tempfile.mkdtemp(dir=self.home.parent))
        try:
            return producer.restores(name, self.conf, scratch)
        finally:
            shutil.rmtree(scratch)


@contextmanager
def dump_world(root: Path, server: S3Server, rng: random.Random) -> Iterator[DumpWorld]:
    """Run the databases, and make the world that backs them up into a bucket."""
    with ExitStack() as servers:
        (root / "mariadb").mkdir(parents=True)
        (root / "home").mkdir()
        conf = {
            **server.conf(),
            "default_destination": "s3",
            "database_password": PASSWORD,
        }
        world = DumpWorld.configured(root / "home", conf, rng)
        world.producers = (
            Pipe.make(root / "blob", rng),
            servers.enter_context(postgresql()),
            servers.enter_context(mariadb(root / "mariadb")),
        )
        names = [each.set_name for each in world.producers]
        world.ports = dict(zip(names, free_ports(len(names)), strict=True))
        yield world


def cut(world: DumpWorld, number: int, say: Callable[[str], object]) -> dict[str, int]:
    """Cut *number* backups, in all ways in turn; return how many in which way.

    *say* is told now and then how far it is.
    """
    cases = [(producer, victim) for producer in world.producers for victim in producer.victims]
    done = dict.fromkeys((victim for _, victim in cases), 0)
    for producer in world.producers:
        _cut_once(world, producer, NOBODY)
    while sum(done.values()) < number:
        world.rng.shuffle(cases)
        for producer, victim in cases[: number - sum(done.values())]:
            done[victim] += _cut_once(world, producer, victim)
        say(f"{sum(done.values())} dumps were cut, {len(world.problems)} problems")
    return done


def _cut_once(world: DumpWorld, producer: Producer, victim: str) -> bool:
    """Back up, and kill the victim at a random moment; return whether the backup was cut."""
    stored = world.keys()
    with _Backup.begun(world, producer, silent="silent" in victim) as backup:
        moment = backup.strike(victim)
        code, output = backup.wait()
        left = backup.left()
    if isinstance(producer, ServedDatabase):
        producer.start()
    is_cut = code != 0
    new = world.keys() - stored
    what = f"the backup of {producer.set_name}, victim {victim}, {moment:.3f} seconds"
    problems = _problems_of(world, victim, code, output, new)
    if left:
        problems.append(f"these run on: {left}")
    world.problems += [f"after {what}: {problem}; {output}" for problem in problems]
    world.examine(stored if is_cut else stored | new, what)
    if len(world.keys()) > 2:
        world.tidy(1)
    return is_cut


def _problems_of(world: DumpWorld, victim: str, code: int, output: str, new: set[str]) -> list[str]:
    """Return what is wrong with a backup that has ended, and stored what is *new*."""
    problems = []
    if PASSWORD in output:
        problems.append("the password is shown")
    if code == -signal.SIGKILL and victim == "bakthat":
        return problems
    if code not in (0, 1) or (victim == NOBODY and code) or "Traceback" in output:
        problems.append(f"exit code {code}")
    if output.count("bakthat: error: ") != code:
        problems.append("not one error")
    # Of a storage that answers no more, nobody knows what it has done, until the next sync.
    if not code or "storage" not in victim:
        if len(new) != (0 if code else 1):
            problems.append(f"stored {new}")
        if parts := world.leftovers():
            problems.append(f"left behind: {parts}")
    return problems


class _Backup:
    """A backup that runs, with relays before its servers."""

    def __init__(
        self,
        world: DumpWorld,
        producer: Producer,
        process: subprocess.Popen[bytes],
        output: Path,
        relays: dict[str, Relay],
        tag: str,
    ) -> None:
        self._world = world
        self._producer = producer
        self._process = process
        self._output = output
        self._relays = relays
        self._tag = tag.encode()
        self._began = time.monotonic()
        self._pause = threading.Event()

    @classmethod
    @contextmanager
    def begun(cls, world: DumpWorld, producer: Producer, *, silent: bool) -> Iterator[_Backup]:
        """Start it; what runs of it when the block ends is killed."""
        with ExitStack() as stack:
            port = int(world.conf["endpoint_url"].rpartition(":")[2])
            relays = {"storage": stack.enter_context(relay(port))}
            if producer.port:
                at = world.ports[producer.set_name]
                relays["server"] = stack.enter_context(relay(producer.port, at=at))
            conf: dict[str, Any] = {
                **world.conf,
                "endpoint_url": f"http://127.0.0.1:{relays['storage'].port}",
                "timeout": 3 if silent else 20,
            }
            config = world.home / "relayed.yml"
            config.write_text(yaml.safe_dump({"default": conf}))
            config.chmod(0o600)
            arguments = producer.arguments(relays["server"].port if producer.port else 0)
            limit = [f"--timeout={SILENCE}s"] if silent else []
            tag = uuid.uuid4().hex
            output = world.home / "output"
            with output.open("wb") as file:
                process = subprocess.Popen(
                    [sys.executable, "-m", "bakthat", "backup", *arguments, *limit, "-c", config],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    cwd=PROJECT,
                    env=_environment(world, tag),
                    start_new_session=True,
                )
            backup = cls(world, producer, process, output, relays, tag)
            try:
                yield backup
            finally:
                for pid in backup.left(0):
                    os.kill(pid, signal.SIGKILL)
                process.wait()

    def strike(self, victim: str) -> float:
        """Kill the victim at a random moment; return the seconds that bakthat has run then."""
        typical, name = self._world.typical, self._producer.set_name
        if victim == NOBODY:
            dump_began = self._wait_for_dump()
            self._process.wait(PATIENCE)
            ended = time.monotonic()
            typical[name, False] = ended - self._began
            typical[name, True] = ended - dump_began
            return ended - self._began
        is_of_dump = victim != "bakthat" and "storage" not in victim
        if is_of_dump:
            self._wait_for_dump()
        self._pause.wait(self._world.rng.uniform(0, typical[name, is_of_dump]))
        moment = time.monotonic()
        if self._process.poll() is not None:
            typical[name, is_of_dump] *= 0.9
            return moment - self._began
        self._kill(victim)
        return moment - self._began

    def wait(self) -> tuple[int, str]:
        """Return the exit code, and what was printed."""
        code = self._process.wait(PATIENCE)
        return code, self._output.read_text(errors="replace")

    def left(self, patience: float = END_SECONDS) -> list[int]:
        """Return what still runs of all that bakthat has started, after *patience* seconds."""
        deadline = time.monotonic() + patience
        while (running := self._running()) and time.monotonic() < deadline:
            self._pause.wait(0.02)
        return running

    def _wait_for_dump(self) -> float:
        while self._process.poll() is None and not self._programs():
            self._pause.wait(0.002)
        return time.monotonic()

    def _kill(self, victim: str) -> None:
        producer = self._producer
        if victim.startswith("network"):
            way = self._relays["server" if "server" in victim else "storage"]
            (way.silence if "silent" in victim else way.cut)()
        elif victim == "the server":
            assert isinstance(producer, ServedDatabase)
            producer.kill()
        elif victim == CONNECTION:
            assert isinstance(producer, ServedDatabase)
            producer.kill_connection()
        else:
            found = {
                "bakthat": lambda: [self._process.pid],
                "the supervisor": self._supervisors,
                "a program of the dump": self._programs,
            }[victim]()
            if found:
                os.kill(self._world.rng.choice(found), signal.SIGKILL)

    def _running(self) -> list[int]:
        return [pid for pid in processes() if self._is_ours(pid) and is_running(pid)]

    def _is_ours(self, pid: int) -> bool:
        try:
            return self._tag in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False

    def _supervisors(self) -> list[int]:
        return [pid for pid in self._running() if _is_supervisor(pid)]

    def _programs(self) -> list[int]:
        """Return the dump's programs, the shell of a pipe included."""
        ours = set(self._running()) - {self._process.pid}
        return sorted(pid for pid in ours if not _is_supervisor(pid))


def _is_supervisor(pid: int) -> bool:
    try:
        return os.fsencode(_supervisor.__file__) in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True  # it has ended


def _environment(world: World, tag: str) -> Mapping[str, str]:
    return {
        "HOME": str(world.home),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(PROJECT),
        "AWS_EC2_METADATA_DISABLED": "true",
        "LANG": "C.UTF-8",
        _RUN: tag,
    }
