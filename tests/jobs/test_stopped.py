"""Jobs that a signal stops, and what of them still runs."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.hooks import JobResult
from bakthat.jobs import run
from bakthat.jobs.report import JobOutcome, JobReport
from bakthat.system.locks import held
from bakthat.system.signals import REPEAT_SECONDS, HeldBack, held_back
from tests.support.commandline import PATIENCE, CommandLine
from tests.support.nights import Night, messages
from tests.support.processes import own_processes

STOPPED = "finishing job 'nightly'; press Ctrl-C or send the signal again to stop now"


def wait_until(is_so: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Return when *is_so*, while a command runs."""
    pause = threading.Event()
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline
        pause.wait(0.01)


def wait_for_text(text: str, process: subprocess.Popen[bytes]) -> None:
    """Return when a command has logged *text*."""
    assert process.stderr is not None
    seen, deadline = b"", time.monotonic() + PATIENCE
    while text.encode() not in seen:
        assert select.select([process.stderr], [], [], deadline - time.monotonic())[0], seen
        piece = os.read(process.stderr.fileno(), 65536)
        assert piece, seen.decode()
        seen += piece


class Waits:
    """Lines for the shell that wait until the test lets them go on."""

    def __init__(self, directory: Path) -> None:
        self.begun, self.go, self.done = (directory / each for each in ("begun", "go", "done"))
        self.line = (
            f"touch {self.begun}; until [ -e {self.go} ]; do sleep 0.02; done; touch {self.done}; "
            "echo done"
        )


@pytest.fixture
def others() -> set[Path]:
    """Return what runs already below this process, such as a storage of other tests."""
    return set(own_processes())


@pytest.fixture
def waits(tmp_path: Path) -> Waits:
    return Waits(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", ["before", "source"])
def test_after_and_on_error_run_when_a_signal_stops_the_job(
    night: Night,
    user: CommandLine,
    waits: Waits,
    others: set[Path],
    number: signal.Signals,
    moment: str,
) -> None:
    hooks = night.hooks()
    if moment == "before":
        hooks["before"].append(waits.line)
    source = {"command": waits.line if moment == "source" else "echo", "name": "stream"}
    night.write(
        nightly={"sources": [night.source("one"), source, night.source("two")], **hooks},
        later={"sources": [night.source("later")]},
    )
    with user.start("run", "--json") as process:
        wait_until(waits.begun.exists, process)
        process.send_signal(number)
        stdout, stderr = (each.decode() for each in process.communicate())
    assert process.returncode == 128 + number, stderr
    assert night.moments() == ["before", "after", "on_error"]
    for each in ("after", "on_error"):
        (seen,) = night.seen(each)
        assert (seen["RESULT"], seen["SETS"]) == ("failed", "one" if moment == "source" else "")
        assert seen["ERROR"] == "nightly: stopped by a signal before its end"
    assert [each.filename for each in bakthat.ls()] == (["one"] if moment == "source" else [])
    assert '"outcome": "failed"' in stdout
    assert '"job": "later"' not in stdout
    assert not waits.done.exists()
    assert set(own_processes()) <= others
    waits.go.touch()
    assert [each.outcome for each in bakthat.run_jobs()] == [JobOutcome.DONE] * 2


@pytest.mark.parametrize("signals", [2, 3])
def test_a_second_signal_lets_the_commands_run_to_their_end_and_a_third_one_ends_them(
    night: Night,
    user: CommandLine,
    tmp_path: Path,
    waits: Waits,
    others: set[Path],
    signals: int,
) -> None:
    (tmp_path / "after").mkdir()
    after = Waits(tmp_path / "after")
    source = {"command": waits.line, "name": "stream"}
    hooks = night.hooks()
    hooks["after"].insert(0, after.line)
    night.write(nightly={"sources": [source], **hooks})
    with user.start("run") as process:
        wait_until(waits.begun.exists, process)
        process.send_signal(signal.SIGTERM)
        wait_until(after.begun.exists, process)
        process.send_signal(signal.SIGTERM)
        wait_for_text(STOPPED, process)
        if signals == 2:
            after.go.touch()
        else:  # signals within a second are taken for one
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(REPEAT_SECONDS)
            process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 143
    assert after.done.exists() == (signals == 2)
    assert night.moments() == ["before", *(["after", "on_error"] if signals == 2 else [])]
    assert set(own_processes()) <= others


def test_a_signal_while_after_runs_waits_for_its_end(
    night: Night, user: CommandLine, waits: Waits
) -> None:
    night.write(
        nightly={"sources": [night.source("one")], "after": [waits.line]},
        later={"sources": [night.source("later")]},
    )
    with user.start("run") as process:
        wait_until(waits.begun.exists, process)
        process.send_signal(signal.SIGINT)
        wait_for_text(STOPPED, process)
        waits.go.touch()
        process.communicate()
    assert process.returncode == 130
    assert waits.done.exists()
    assert [each.filename for each in bakthat.ls()] == ["one"]


def test_a_signal_right_before_after_does_not_prevent_it(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It arrives when all is stored, and signals are not held back yet."""
    night.write(nightly={"sources": [night.source("one")], **night.hooks()})

    def interrupted(step: str, *, mend: str) -> HeldBack:
        monkeypatch.setattr(run, "held_back", held_back)
        signal.raise_signal(signal.SIGINT)
        return held_back(step, mend=mend)

    monkeypatch.setattr(run, "held_back", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bakthat.run_jobs()
    assert night.moments() == ["before", "after", "on_error"]


def test_a_signal_while_the_end_is_told_does_not_hide_what_has_failed(night: Night) -> None:
    night.write(nightly={"sources": [night.source("one")], **night.hooks(before=3)})
    said: list[JobReport] = []

    def interrupted(_session_id: str, _result: JobResult) -> None:
        signal.raise_signal(signal.SIGINT)

    bakthat.events.on_run += interrupted
    try:
        with pytest.raises(KeyboardInterrupt):
            bakthat.run_jobs(on_job=said.append)
    finally:
        bakthat.events.on_run -= interrupted
    assert [messages(each) for each in said] == [
        ["nightly: the command 'before' ended with exit code 3"]
    ]


@pytest.mark.parametrize("moment", ["before", "source", "after"])
def test_a_job_that_was_killed_needs_no_hand(
    night: Night, user: CommandLine, waits: Waits, moment: str
) -> None:
    hooks = {each: [night.hook(each)] for each in ("before", "after")}
    if moment != "source":
        hooks[moment].insert(0, waits.line)
    source = {"command": waits.line if moment == "source" else "echo", "name": "stream"}
    night.write(nightly={"sources": [night.source("one"), source], **hooks})
    with user.start("run") as process:
        wait_until(waits.begun.exists, process)
        process.kill()
        process.communicate()
    before = len(bakthat.ls())
    assert before == {"before": 0, "source": 1, "after": 2}[moment]
    waits.go.touch()
    report = night.run()
    assert report.outcome == JobOutcome.DONE
    assert len(bakthat.ls()) == before + 2
    assert night.moments()[-1] == "after"


def test_a_run_that_waits_for_a_lock_can_be_stopped(
    night: Night, user: CommandLine, waits: Waits
) -> None:
    source = {"command": waits.line, "name": "stream"}
    night.write(nightly={"sources": [source], **night.hooks()})
    with user.start("run") as first:
        wait_until(waits.begun.exists, first)
        with user.start("run", "--wait") as second:
            wait_for_text("Waiting for another run on the command for stream", second)
            second.send_signal(signal.SIGTERM)
            second.communicate()
        assert second.returncode == 143
        assert night.moments() == ["before", "on_error"]
        with user.start("run", "--wait") as third:
            wait_for_text("Waiting for another run on the command for stream", third)
            waits.go.touch()
            first.communicate()
            third.communicate()
        assert (first.returncode, third.returncode) == (0, 0)
    assert len(bakthat.ls()) == 2


def test_two_runs_that_begin_at_once_do_not_share_a_job(
    night: Night, user: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the first to end would start in after what the other has stopped for its backups."""
    night.write(nightly={"sources": [night.source("one"), night.source("two")], **night.hooks()})
    others: list[subprocess.Popen[bytes]] = []

    @contextmanager
    def held_slowly(path: Path, **options: Any) -> Iterator[None]:
        with held(path, **options):
            if path.name != "begin" and not others:
                others.append(user.start("run"))
                stderr = others[0].stderr
                assert stderr is not None
                assert select.select([stderr], [], [], PATIENCE)[0]  # it waits, or has ended
            yield

    monkeypatch.setattr(run, "held", held_slowly)
    assert night.run().outcome == JobOutcome.DONE
    with others[0] as other:
        _, stderr = other.communicate()
    assert other.returncode in (0, 5), stderr.decode()
    # Where it came to its turn after the end of the first, it is a second night.
    nights = 1 if other.returncode else 2
    assert night.moments().count("before") == nights
    assert sorted(each.filename for each in bakthat.ls()) == sorted(["one", "two"] * nights)
