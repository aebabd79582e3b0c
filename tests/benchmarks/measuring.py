"""Run a command and watch all of its processes: time, memory, traffic, temporary files."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

INTERVAL = 0.1
"""Seconds between two looks at the processes. What Linux calls the high-water mark of each is
read, so a peak between two looks is not missed, save in the last of them."""
TICKS = os.sysconf("SC_CLK_TCK")
LOOPBACK = Path("/proc/net/dev")


class CommandFailedError(Exception):
    """A command that was measured ended with an error; the text has the end of its output."""


@dataclass(frozen=True)
class Measurement:
    """What one run took."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds, user and system, of all its processes."""
    server_cpu: float
    """Seconds that the server worked for it."""
    memory: int
    """Bytes: the most that the processes alive at one moment had held."""
    traffic: int
    """Bytes over the loopback interface, both ways."""
    scratch: int
    """Bytes: the most that temporary files took, those without a name included."""


def measure(
    script: str,
    *,
    environment: Mapping[str, str],
    directory: Path,
    log: Path,
    scratch: Sequence[Path] = (),
    server: int = 0,
    cores: Iterable[int] | None = None,
    settle: bool = False,
) -> Measurement:
    """Run *script* with bash, a failure anywhere in a pipeline being one; return what it took.

    *scratch* are the directories whose growth is counted, *server* the process that serves it,
    *cores* those that it may run on. Its output goes to *log*. With *settle*, what earlier runs
    left for the disk to write is written first, so that it does not burden this one. Raises
    CommandFailedError.
    """
    if settle:
        os.sync()
    here = os.sched_getaffinity(0)
    traffic, served = loopback_bytes(), cpu_of(server)
    with log.open("wb") as output:
        try:
            if cores is not None:
                os.sched_setaffinity(0, cores)  # of this thread, which the child inherits
            began = time.perf_counter()
            process = subprocess.Popen(
                ["bash", "-o", "pipefail", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=directory,
                start_new_session=True,
            )
        finally:
            os.sched_setaffinity(0, here)
        with Watch(process.pid, scratch) as watch:
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        end = log.read_text(errors="replace").strip()[-600:]
        raise CommandFailedError(f"exit code {process.returncode}: {end}")
    return Measurement(
        wall=wall,
        cpu=usage.ru_utime + usage.ru_stime,
        server_cpu=cpu_of(server) - served,
        memory=watch.memory,
        traffic=loopback_bytes() - traffic,
        scratch=watch.scratch,
    )


@dataclass
class Watch:
    """Looks at the processes of a session, now and then, until the block ends.

    The sessions that these processes begin are watched too.
    """

    session: int
    directories: Sequence[Path]
    memory: int = 0
    scratch: int = 0
    _sessions: set[int] = field(default_factory=set)
    _strangers: set[int] = field(default_factory=set)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Watch:
        self._sessions.add(self.session)
        self._before = sum(tree_bytes(path) for path in self.directories)
        self._thread = threading.Thread(target=self._look_until_the_end)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look_until_the_end(self) -> None:
        # Soon at first, for what ends soon.
        pause = 0.005
        while not self._ended.wait(pause):
            self._look()
            pause = min(INTERVAL, pause * 2)

    def _look(self) -> None:
        memory = unnamed = 0
        for process in self._processes():
            memory += high_water_mark(process)
            unnamed += unnamed_bytes(process)
        self.memory = max(self.memory, memory)
        named = sum(tree_bytes(path) for path in self.directories) - self._before
        self.scratch = max(self.scratch, named + unnamed)

    def _processes(self) -> list[int]:
        found: list[int] = []
        for name in os.listdir("/proc"):
            if not name.isdigit() or (number := int(name)) in self._strangers:
                continue
            try:
                text = Path("/proc", name, "stat").read_text()
            except OSError:
                continue
            _, parent, _, session = text[text.rindex(")") + 2 :].split()[:4]
            if int(session) in self._sessions or int(parent) in found:
                self._sessions.add(int(session))
                found.append(number)
            else:
                self._strangers.add(number)
        return found


def high_water_mark(process: int) -> int:
    """Return the most memory that *process* has held since it began its program, in bytes."""
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # it ended
    return 0


def unnamed_bytes(process: int) -> int:
    """Return the disk space of files that *process* has open and that no directory names."""
    found: dict[tuple[int, int], int] = {}
    directory = f"/proc/{process}/fd"
    for name in _names_in(directory):
        try:
            status = os.stat(f"{directory}/{name}")
        except OSError:
            continue  # it was closed
        if stat.S_ISREG(status.st_mode) and not status.st_nlink:
            found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def _names_in(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []  # the process ended


def tree_bytes(path: Path) -> int:
    """Return the bytes of all files in *path*; what vanishes meanwhile counts nothing."""
    total = 0
    for directory, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_size
            except OSError:
                continue
    return total


def cpu_of(process: int) -> float:
    """Return the seconds of processor time that *process* itself has used; 0 for no process."""
    if not process:
        return 0.0
    text = Path(f"/proc/{process}/stat").read_text()
    user, system = text[text.rindex(")") + 2 :].split()[11:13]
    return (int(user) + int(system)) / TICKS


def loopback_bytes() -> int:
    """Return how many bytes have gone over the loopback interface of this network namespace."""
    for line in LOOPBACK.read_text().splitlines():
        if line.strip().startswith("lo:"):
            return int(line.split(":")[1].split()[8])
    return 0


def pin(process: int, cores: Iterable[int]) -> None:
    """Let all threads of *process* run on *cores* only; threads it starts later inherit that."""
    for thread in os.listdir(f"/proc/{process}/task"):
        os.sched_setaffinity(int(thread), cores)
