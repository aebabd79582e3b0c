"""A systemd of its own: number 1 of new namespaces, which runs the units of a test and no others.

What it mounts, starts and limits is real, and ends with it.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.commandline import PATIENCE
from tests.support.needs import program

_CGROUPS = Path("/sys/fs/cgroup")
_TARGETS = ("sysinit", "basic", "timers", "network-online", "time-set", "time-sync", "shutdown")
"""The targets of the system that units of a test refer to; they are empty."""
_START = """\
set -e
mount --make-rprivate /
mount --make-rshared /  # as a container's manager leaves it: systemd mounts credentials from below
mount -t tmpfs tmpfs /run
{cgroups}
mount --bind {boot_id} /proc/sys/kernel/random/boot_id
for each in /usr/lib/systemd/system-generators /usr/lib/systemd/system-environment-generators; do
    [ ! -d "$each" ] || mount --bind {nothing} "$each"
done
mount --bind {targets} "$(realpath /lib/systemd/system)"
mount --bind {units} /etc/systemd/system
mount -t tmpfs tmpfs /opt
# Where timers have their stamps: one that an earlier systemd left would start a job at once.
[ ! -d /var/lib/systemd ] || mount -t tmpfs tmpfs /var/lib/systemd
[ ! -d /var/spool/cron/crontabs ] || mount -t tmpfs tmpfs /var/spool/cron/crontabs
{places}
exec env -i PATH="$PATH" container=test NOTIFY_SOCKET={ready} /lib/systemd/systemd --system \
    --unit=basic.target --show-status=no --log-target=null
"""


class Systemd:
    """A systemd that runs."""

    def __init__(self, process: int, units: Path) -> None:
        self.units = units
        """What is /etc/systemd/system there."""
        namespaces = ("--mount", "--pid", "--uts", "--ipc")
        self.enter = (program("nsenter"), f"--target={process}", *namespaces, "--")
        """Words before a command that see the same files and processes."""

    def systemctl(self, *words: str) -> str:
        """Run ``systemctl``, which must not fail; return what it prints."""
        done = self.run("systemctl", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command beside it."""
        return subprocess.run(
            [*self.enter, *words],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
            cwd="/",
        )

    def property(self, unit: str, name: str) -> str:
        """Return what systemd knows of a unit."""
        return self.systemctl("show", "--value", f"--property={name}", unit).rstrip("\n")


@contextmanager
def running_systemd(places: Mapping[str, Path] | None = None) -> Iterator[Systemd]:
    """Start a systemd; skip where the machine forbids it.

    *places* are directories that it sees elsewhere: in /srv, or below its own /opt.
    """
    program("systemctl")
    if os.geteuid() != 0:
        pytest.skip("only root starts a systemd of the system")
    with ExitStack() as stack:
        # The paths of sockets are short.
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="systemd")))
        for name in ("nothing", "targets", "units"):
            (directory / name).mkdir()
        for name in _TARGETS:
            (directory / "targets" / f"{name}.target").write_text(
                "[Unit]\nDefaultDependencies=no\n"
            )
        boot_id = stack.enter_context(_boot_id())
        (directory / "boot_id").write_text(f"{boot_id}\n")
        ready = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        ready.bind(str(directory / "ready"))
        groups = stack.enter_context(_cgroups(directory.name))
        log = stack.enter_context(open(directory / "log", "wb"))
        script = _START.format(
            cgroups=_mounts_of(groups),
            boot_id=directory / "boot_id",
            nothing=directory / "nothing",
            targets=directory / "targets",
            units=directory / "units",
            ready=directory / "ready",
            places="\n".join(
                f"mkdir -p {inside}; mount --bind {shlex.quote(str(outside))} {inside}"
                for inside, outside in (places or {}).items()
            ),
        )
        join = "".join(f"echo $$ > {shlex.quote(str(each))}/cgroup.procs\n" for each in groups)
        namespaces = "--mount --pid --uts --ipc --cgroup --fork --kill-child --mount-proc"
        unshare = f"exec unshare {namespaces} sh -c {shlex.quote(script)}"
        started = subprocess.Popen(
            ["/bin/sh", "-c", f"{join}{unshare}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        stack.callback(started.wait)
        try:
            number = _wait_until_ready(ready, started, directory / "log")
        except BaseException:
            os.killpg(started.pid, signal.SIGKILL)
            raise
        # Everything in its namespace of processes ends with it.
        stack.callback(os.kill, number, signal.SIGKILL)
        yield Systemd(number, directory / "units")


def _wait_until_ready(ready: socket.socket, started: subprocess.Popen[bytes], log: Path) -> int:
    """Return the number of the systemd, once it has started its target."""
    end = os.pidfd_open(started.pid)
    try:
        while select.select([ready.fileno(), end], [], [], PATIENCE)[0] == [ready.fileno()]:
            if b"READY=1" in ready.recv(4096):
                break
        else:
            pytest.skip(f"no systemd starts here: {log.read_text()}")
    finally:
        os.close(end)
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    (number,) = map(int, children)
    return number


@contextmanager
def _boot_id() -> Iterator[uuid.UUID]:
    """Make a number of a boot, and remove the temporary directories of that boot's services.

    They are in the directories of all, and are left when systemd is killed.
    """
    number = uuid.uuid4()
    try:
        yield number
    finally:
        for place in (Path("/tmp"), Path("/var/tmp")):
            for each in place.glob(f"systemd-private-{number.hex}-*"):
                shutil.rmtree(each)


@contextmanager
def _cgroups(name: str) -> Iterator[list[Path]]:
    """Make a cgroup for systemd, and remove it with those below it."""
    is_unified = (_CGROUPS / "cgroup.controllers").exists()
    roots = [_CGROUPS] if is_unified else [_CGROUPS / "systemd", _CGROUPS / "unified"]
    groups = [each / name for each in roots if each.is_dir()]
    try:
        for each in groups:
            each.mkdir()
    except OSError as exc:
        pytest.skip(f"no cgroups can be made here: {exc}")
    try:
        yield groups
    finally:
        for each in groups:
            for path, _, _ in os.walk(each, topdown=False):
                os.rmdir(path)


def _mounts_of(groups: Sequence[Path]) -> str:
    """Return the commands that mount the cgroups as systemd expects them."""
    lines = [f"umount --recursive {_CGROUPS}"]
    if [each.parent for each in groups] == [_CGROUPS]:
        return "\n".join([*lines, f"mount -t cgroup2 cgroup2 {_CGROUPS}"])
    lines.append(f"mount -t tmpfs tmpfs {_CGROUPS}")
    for each in groups:
        options = (
            "-t cgroup2" if each.parent.name == "unified" else "-t cgroup -o none,name=systemd"
        )
        lines += [f"mkdir {each.parent}", f"mount {options} cgroup {each.parent}"]
    return "\n".join(lines)
