"""What goes wrong in a night: the right sources are stored, the right ones told, and after runs."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.conf import read_configuration
from bakthat.errors import CatalogError, LockedError, StorageError
from bakthat.jobs.backup import lock_path
from bakthat.jobs.hooks import id_of_job
from bakthat.jobs.report import JobOutcome, SourceReport
from bakthat.session.session import Session
from bakthat.system.locks import held
from tests.support.examples import rest_slow
from tests.support.fault_proxy import FaultProxy, Reset
from tests.support.needs import as_root, mounted
from tests.support.nights import PYTHON, Night, messages, sets
from tests.support.profiles import Conf
from tests.support.servers import free_port
from tests.test_database import fill

DAY = 86400


def errors(told: list[tuple[str, str]]) -> list[str]:
    return [text for event, text in told if event == "on_error"]


def lock_of(night: Night, number: int = 0) -> Path:
    """Return the lock of a source of the first job."""
    (loaded, *_) = read_configuration().jobs.values()
    return lock_path(Session("default", None, night.conf), loaded.job.sources[number])


# Storage


def test_a_storage_that_is_down_fails_all_sources_soon(
    night: Night, told: list[tuple[str, str]]
) -> None:
    night.conf.update(
        default_destination="s3",
        s3_bucket="my-bucket",
        access_key="key",
        secret_key="secret",
        endpoint_url=f"http://127.0.0.1:{free_port()}",
        attempts=2,
        timeout=5,
    )
    command = {"command": "echo hello", "name": "stream"}
    sources = [night.source("one"), command, night.source("two")]
    # Neither is tried of a source that was not stored.
    every = {"every": "1s"}
    night.write(nightly={"sources": sources, **night.hooks(), "check": every, "drill": every})
    started = time.monotonic()
    report = night.run()
    assert time.monotonic() - started < 60
    assert report.outcome == JobOutcome.FAILED
    assert [each.outcome.value for each in report.sources] == ["failed"] * 3
    assert all(isinstance(each.problems[0], StorageError) for each in report.sources)
    assert len(errors(told)) == 3
    assert night.moments() == ["before", "after", "on_error"]
    assert len(night.seen("on_error")[0]["FAILED_SOURCES"].split("\n")) == 3
    assert report.check_due == report.drill_due == []


@pytest.mark.slow
def test_a_storage_that_is_down_is_tried_once_for_each_further_source(
    night: Night, moto_proxy: FaultProxy, proxied_conf: Conf
) -> None:
    """Else a silent one would cost minutes for each, and ``after`` would wait for hours."""
    attempts = 4
    night.conf.update({**proxied_conf, "default_destination": "s3", "attempts": attempts})
    night.write(
        first={"sources": [night.source("one"), night.source("two")]},
        second={"sources": [night.source("three")]},
    )
    moto_proxy.on("*", "", Reset())
    counts: list[int] = []
    reports = bakthat.run_jobs(on_source=lambda _: counts.append(len(moto_proxy.requests)))
    assert [each.outcome for each in reports] == [JobOutcome.FAILED] * 2
    assert counts == [attempts, attempts + 1, attempts + 2]


def test_a_storage_that_is_back_is_used_again(
    night: Night, moto_proxy: FaultProxy, proxied_conf: Conf
) -> None:
    night.conf.update({**proxied_conf, "default_destination": "s3", "attempts": 2})
    night.write(nightly={"sources": [night.source(name) for name in ("one", "two", "three")]})
    moto_proxy.on("*", "", Reset())

    def mend(report: SourceReport) -> None:
        if report.source.path.endswith("two"):
            moto_proxy.rules.clear()

    report = night.run(on_source=mend)
    assert [each.outcome.value for each in report.sources] == ["failed", "failed", "done"]


# Disks


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    with mounted(place, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        yield place


@as_root
def test_a_store_without_room_keeps_what_there_is_room_for(
    night: Night, told: list[tuple[str, str]], disk: Path
) -> None:
    night.conf["local_path"] = str(disk / "store")
    large = Path(night.source("large"))
    (large / "random").write_bytes(os.urandom(2_000_000))
    sources = [night.source("one"), str(large), night.source("two")]
    night.write(nightly={"sources": sources, **night.hooks()})
    report = night.run()
    assert (report.outcome, sets(report)) == (JobOutcome.FAILED, ["one", "two"])
    assert "no space left" in messages(report)[0].lower()
    assert len(errors(told)) == 1
    assert night.moments() == ["before", "after", "on_error"]
    left = {each.name.partition(".")[0] for each in (disk / "store").iterdir() if each.is_file()}
    assert left == {"one", "two"}
    large.joinpath("random").unlink()
    assert night.run().outcome == JobOutcome.DONE


@as_root
@pytest.mark.parametrize("has_lock", [False, True])
def test_a_catalog_without_room_fails_all_and_the_next_night_needs_no_hand(
    night: Night, told: list[tuple[str, str]], disk: Path, has_lock: bool
) -> None:
    night.conf["database"] = str(disk / "catalog.sqlite")
    night.write(nightly={"sources": [night.source("one")], **night.hooks()})
    if has_lock:
        assert night.run().outcome == JobOutcome.DONE
    del told[:]
    (disk / "filler").touch()
    fill(disk)
    report = night.run()
    assert (report.outcome, sets(report)) == (JobOutcome.FAILED, [])
    assert len(errors(told)) == 1
    assert night.moments().count("on_error") == 1
    assert night.moments().count("after") == night.moments().count("before")
    (disk / "filler").unlink()
    report = night.run()
    assert (report.outcome, messages(report)) == (JobOutcome.DONE, [])
    assert len(bakthat.ls()) == 1 + has_lock


# Databases


def test_a_database_that_is_missing_does_not_stop_the_other(
    night: Night, told: list[tuple[str, str]]
) -> None:
    there, missing = night.directory / "there.db", night.directory / "missing.db"
    with closing(sqlite3.connect(there)) as database, database:
        database.execute("CREATE TABLE items (name)")
    sources = [f"sqlite:///{missing}", f"sqlite:///{there}"]
    night.write(nightly={"sources": sources, **night.hooks()})
    report = night.run()
    assert (report.outcome, sets(report)) == (JobOutcome.FAILED, ["there.db"])
    assert len(errors(told)) == 1
    assert night.seen("on_error")[0]["FAILED_SOURCES"] == sources[0]


# Rotation


def test_a_profile_without_rotation_fails_after_the_backup_and_says_what_to_write(
    night: Night,
) -> None:
    one = night.source("one")
    path = night.write(nightly={"sources": [one], "rotate": True, **night.hooks()})
    report = night.run()
    assert (report.outcome, sets(report)) == (JobOutcome.FAILED, ["one"])
    assert messages(report) == [
        f"nightly: {one}: {path}: profile 'default': it has no rotation, and 'rotate' of the job "
        "is true"
    ]
    assert report.sources[0].problems[0].hint.startswith("say in the profile what to keep")
    assert night.moments() == ["before", "after", "on_error"]


# Locks


def test_a_source_of_another_run_is_left_to_it(night: Night, told: list[tuple[str, str]]) -> None:
    one, two = night.source("one"), night.source("two")
    night.write(nightly={"sources": [one, two], **night.hooks(), "rotate": True})
    night.conf["rotation"] = {"last": 1}
    night.write(nightly={"sources": [one, two], **night.hooks(), "rotate": True})
    with held(lock_of(night), wait=False, about=one):
        report = night.run()
    assert (report.outcome, sets(report)) == (JobOutcome.LOCKED, ["two"])
    (problem,) = report.sources[0].problems
    assert isinstance(problem, LockedError)
    assert str(problem).startswith(f"nightly: another run is still going on {one}: process ")
    assert len(errors(told)) == 1
    assert night.moments() == ["before", "after", "on_error"]
    assert night.seen("after")[0]["RESULT"] == "locked"
    assert night.seen("on_error")[0]["FAILED_SOURCES"] == one
    assert night.run().outcome == JobOutcome.DONE


def test_a_job_whose_sources_all_belong_to_another_run_stops_and_starts_nothing(
    night: Night,
) -> None:
    """Else ``after`` would start what the other run has stopped for its backup."""
    one = night.source("one")
    night.write(nightly={"sources": [one], **night.hooks()})
    with held(lock_of(night), wait=False, about=one):
        report = night.run()
    assert (report.outcome, sets(report)) == (JobOutcome.LOCKED, [])
    assert night.moments() == ["on_error"]


def test_the_locks_are_held_until_after_has_run(night: Night) -> None:
    one = night.source("one")
    second = f"{PYTHON} -m bakthat run second; echo $? >> {night.directory}/codes"
    night.write(
        first={"sources": [one], "before": [second], "after": [second]}, second={"sources": [one]}
    )
    (report,) = bakthat.run_jobs("first")
    assert report.outcome == JobOutcome.DONE
    assert (night.directory / "codes").read_text() == "5\n5\n"
    assert len(bakthat.ls()) == 1


@pytest.mark.parametrize("moment", ["before", "after", "on_error"])
@pytest.mark.parametrize("other", ["", "other"])
def test_a_job_does_not_run_in_a_command_of_its_own(night: Night, moment: str, other: str) -> None:
    """One whose on_error tries it again would start itself without end."""
    log, missing = night.directory / "log", str(night.directory / "missing")
    again = f"timeout 50 {PYTHON} -m bakthat run --wait {{}} 2>> {log}; echo $? >> {log}"
    night.write(
        nightly={"sources": [missing], moment: [again.format(other or "nightly")]},
        other={"sources": [f"{missing} too"], moment: [again.format("nightly")]},
    )
    (report,) = bakthat.run_jobs("nightly")
    assert report.outcome == JobOutcome.FAILED
    said = f"nightly: a run of this job, process {os.getpid()}, has started this command"
    assert log.read_text().count(said) == 1
    codes = [each for each in log.read_text().splitlines() if each.isdigit()]
    assert codes == ["5", *("1" for _ in other[:1])]


def test_a_job_that_its_own_command_starts_runs_no_command(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    night.write(nightly={"sources": [night.source("one")], **night.hooks()})
    own = id_of_job(read_configuration().job("nightly"))
    monkeypatch.setenv("BAKTHAT_RUN", f"1:other {os.getppid()}:{own}")
    report = night.run(wait=True)
    said = f"nightly: a run of this job, process {os.getppid()}, has started this command"
    assert (report.outcome, messages(report)) == (JobOutcome.LOCKED, [said])
    assert (night.moments(), bakthat.ls()) == ([], [])


def test_what_a_command_of_an_ended_run_has_left_running_may_run_the_job(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that stays keeps the variables of the command which has started it."""
    night.write(nightly={"sources": [night.source("one")], **night.hooks()})
    own = id_of_job(read_configuration().job("nightly"))
    ended = subprocess.Popen("true")
    ended.wait()
    monkeypatch.setenv("BAKTHAT_RUN", f"{10**30}:{own} {ended.pid}:{own}")
    report = night.run()
    assert (report.outcome, messages(report)) == (JobOutcome.DONE, [])
    (seen,) = night.seen("before")
    assert seen["RUN"] == f"{os.getpid()}:{own}"


@pytest.mark.parametrize("nested", ["second", "third"])
def test_a_command_of_a_job_does_not_wait_for_the_end_of_its_own_job(
    night: Night, nested: str
) -> None:
    """Each would wait for the other, for ever: the job for its command, that for the lock."""
    one, log = night.source("one"), night.directory / "log"
    wait = f"timeout 50 {PYTHON} -m bakthat run --wait {{}} 2>> {log}; echo $? >> {log}"
    night.write(
        first={"sources": [one], "before": [wait.format(nested)]},
        second={"sources": [one]},
        third={"sources": [night.source("two")], "before": [wait.format("second")]},
    )
    (report,) = bakthat.run_jobs("first")
    assert report.outcome == JobOutcome.DONE
    said = f"process {os.getpid()}, which has started this command, has not done with {one}\n"
    assert said in log.read_text()
    codes = [each for each in log.read_text().splitlines() if each.isdigit()]
    assert codes == (["5", "0"] if nested == "third" else ["5"])


def test_two_jobs_with_one_source_run_one_after_the_other(night: Night) -> None:
    one = night.source("one")
    night.write(first={"sources": [one]}, second={"sources": [one]})
    assert [each.outcome for each in bakthat.run_jobs()] == [JobOutcome.DONE] * 2
    assert len(bakthat.ls()) == 2


def test_locks_are_of_sets(night: Night) -> None:
    night.write(nightly={"sources": [night.source("one"), {"path": "/etc", "name": "one"}]})
    session = Session("default", None, night.conf)
    elsewhere = Session("default", None, {**night.conf, "local_path": str(night.directory)})
    other = Session("default", None, night.conf, host="other")
    assert len({lock_of(night, 0), lock_of(night, 1)}) == 2
    source = read_configuration().job("nightly").job.sources[0]
    assert len({lock_path(each, source) for each in (session, elsewhere, other)}) == 3


def test_locks_that_cannot_be_made_fail_the_job(night: Night, told: list[tuple[str, str]]) -> None:
    one = night.source("one")
    night.write(nightly={"sources": [one], **night.hooks()})
    Path(f"{night.conf['database']}.locks").write_text("")
    report = night.run()
    assert isinstance(report.sources[0].problems[0], CatalogError)
    assert "cannot open the lock" in messages(report)[0]
    assert (report.outcome, bakthat.ls()) == (JobOutcome.FAILED, [])
    assert len(errors(told)) == 1
    assert night.moments() == ["on_error"]


# Clocks


@pytest.mark.parametrize("jump", rest_slow([-400 * DAY, 400 * DAY, -1, 0], 2))
@pytest.mark.parametrize("moment", ["between nights", "between sources", "and back again"])
def test_a_clock_that_jumps_loses_nothing(
    night: Night, monkeypatch: Any, jump: int, moment: str
) -> None:
    night.conf["rotation"] = {"days": 2}
    one, two = night.source("one"), night.source("two")
    every = {"every": "1W"}
    night.write(nightly={"sources": [one, two], "rotate": True, "check": every, "drill": every})
    clock = time.time
    offset = 0
    monkeypatch.setattr(time, "time", lambda: clock() + offset)

    def jump_now(_report: object = None) -> None:
        nonlocal offset
        offset = jump if offset == 0 or moment == "between nights" else 0

    first = night.run()
    if moment == "between nights":
        jump_now()
        second = night.run()
    else:
        second = night.run(on_source=jump_now)
    if moment == "and back again":
        offset = 0
    third = night.run()
    for report in (first, second, third):
        assert (report.outcome, messages(report)) == (JobOutcome.DONE, [])
    left = {each.stored_filename for each in bakthat.ls()}
    # What was made last is there in any case, and is whole.
    for each in third.backups:
        assert each.stored_filename in left
        with suppress(FileExistsError):
            (night.directory / "out").mkdir()
        bakthat.restore(each.stored_filename, output=night.directory / "out" / each.stored_filename)
    assert all(each.is_good for each in bakthat.check())
