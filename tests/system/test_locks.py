"""Locks between processes."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bakthat.errors import CatalogError, LockedError
from bakthat.system import locks
from bakthat.system.locks import held
from tests.support.commandline import PROJECT
from tests.support.needs import as_root, mounted
from tests.test_database import fill

HOLD = """
import sys
from pathlib import Path
from bakthat.system.locks import held
with held(Path(sys.argv[1]), wait=False, about="it"):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    """Return a process that holds the lock until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "locks" / "one"


def test_a_lock_says_who_holds_it(path: Path) -> None:
    with holder(path) as other:
        with pytest.raises(LockedError) as caught, held(path, wait=False, about="/etc"):
            raise AssertionError("two hold it")
        assert str(caught.value).startswith(
            f"another run is still going on /etc: process {other.pid} on "
        )
        assert "since 20" in str(caught.value)
        assert "--wait" in caught.value.hint
        other.communicate()


def test_a_forked_process_that_does_not_end_keeps_no_lock(path: Path) -> None:
    """As the one that reads files from a mount that is dead: it has all that was open."""
    reading, writing = os.pipe()
    with held(path, wait=False, about="/etc"):
        child = os.fork()
        if not child:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    try:
        with held(path, wait=False, about="/etc"):
            assert os.waitpid(child, os.WNOHANG) == (0, 0)
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)


def test_what_would_never_end_is_not_waited_for(path: Path) -> None:
    with holder(path) as other:
        with (
            pytest.raises(LockedError) as caught,
            held(path, wait=True, about="/etc", outer=(1, other.pid)),
        ):
            raise AssertionError("two hold it")
        assert str(caught.value) == (
            f"process {other.pid}, which has started this command, has not done with /etc"
        )
        assert "--wait" in caught.value.hint
        other.communicate()


def test_a_lock_is_free_when_its_holder_was_killed(path: Path) -> None:
    with holder(path) as other:
        other.send_signal(signal.SIGKILL)
    with held(path, wait=False, about="/etc"):
        assert f"process {os.getpid()} on " in path.read_text()
    assert path.exists()


def test_a_run_can_wait(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    is_waiting, is_held = threading.Event(), threading.Event()

    def info(message: str, *arguments: object) -> None:
        said.append(message % arguments)
        is_waiting.set()

    monkeypatch.setattr(locks.log, "info", info)

    def wait() -> None:
        with held(path, wait=True, about="/etc"):
            is_held.set()

    with holder(path) as other:
        waiting = threading.Thread(target=wait)
        waiting.start()
        is_waiting.wait()
        assert said[0].startswith(f"Waiting for another run on /etc: process {other.pid} on ")
        assert not is_held.is_set()
        other.communicate()
    waiting.join()
    assert is_held.is_set()


def test_locks_are_between_threads_too(path: Path) -> None:
    with (
        held(path, wait=False, about="/etc"),
        pytest.raises(LockedError, match=f"process {os.getpid()}"),
        held(path, wait=False, about="/etc"),
    ):
        raise AssertionError("two hold it")


def test_others_cannot_read_who_works(path: Path) -> None:
    with held(path, wait=False, about="/etc"):
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.parametrize("what", ["the directory is a file", "the lock is a directory"])
def test_a_place_where_no_lock_can_be_is_an_error(path: Path, what: str) -> None:
    if what == "the directory is a file":
        path.parent.write_text("")
    else:
        path.mkdir(parents=True)
    with (
        pytest.raises(CatalogError, match=f"cannot open the lock {path}") as caught,
        held(path, wait=False, about="/etc"),
    ):
        raise AssertionError("it is held")
    assert "let this user write there" in caught.value.hint


def test_a_file_system_without_locks_is_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a network, without its lock daemon."""

    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(CatalogError, match=f"cannot lock {path}: no locks available") as caught,
        held(path, wait=False, about="/etc"),
    ):
        raise AssertionError("it is held")
    assert "put the catalog on a file system with locks" in caught.value.hint


@pytest.mark.permissions
def test_a_directory_where_this_user_may_not_write_is_an_error(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    path.parent.mkdir(mode=0o500)
    with (
        pytest.raises(CatalogError, match="permission denied"),
        held(path, wait=False, about="/etc"),
    ):
        raise AssertionError("it is held")


@as_root
def test_a_full_disk_does_not_matter_to_a_lock_that_was_there(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        path = disk / "locks" / "one"
        path.parent.mkdir()
        path.touch()
        fill(disk)
        with (
            held(path, wait=False, about="/etc"),
            pytest.raises(LockedError, match="a process that has not said its number"),
            held(path, wait=False, about="/etc"),
        ):
            raise AssertionError("two hold it")
