"""Jobs that go as they should: what is stored, rotated, checked, drilled, and told."""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.conf import HOOK_VARIABLES, KEYS, Job, read_configuration
from bakthat.conf.environment import FILE_SUFFIX, variable_of
from bakthat.errors import ConfigError
from bakthat.jobs.report import JobOutcome
from bakthat.policy.clock import is_due
from tests.support.nights import PYTHON, Night, messages, sets
from tests.support.profiles import write_config
from tests.support.shops import PASSWORD, postgresql_shop

DAY, WEEK = 86400, 7 * 86400


def make_database(path: Path) -> str:
    """Make a database of SQLite; return its URL."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE items (name)")
        database.execute("INSERT INTO items VALUES ('apple')")
    return f"sqlite:///{path}"


def test_each_source_is_stored_with_its_tags_and_the_name_of_the_job(night: Night) -> None:
    one, two = night.source("one"), night.source("two")
    (night.directory / "exclude").write_text("file\n")
    (Path(two) / "kept").write_text("kept")
    night.write(
        nightly={
            "sources": [
                one,
                {
                    "path": two,
                    "name": "second",
                    "tags": "more",
                    "exclude_file": str(night.directory / "exclude"),
                },
                {"command": "echo hello", "name": "hello.txt"},
            ],
            "tags": ["nightly", "all"],
        }
    )
    report = night.run()
    assert (report.job, report.outcome, messages(report)) == ("nightly", JobOutcome.DONE, [])
    stored = bakthat.ls()
    assert {each.filename: each.tags for each in stored} == {
        "one": "nightly all",
        "second": "nightly all more",
        "hello.txt": "nightly all",
    }
    assert {each.metadata["job"] for each in stored} == {"nightly"}
    assert {each.stored_filename for each in stored} == {
        each.stored_filename for each in report.backups
    }
    bakthat.restore("second", output=night.directory / "out")
    restored = {each.name for each in (night.directory / "out/two").iterdir()}
    assert restored == {"kept"}


def test_the_first_run_makes_the_directory_of_the_catalog(night: Night, tmp_path: Path) -> None:
    catalog = tmp_path / "var" / "lib" / "catalog.sqlite"
    night.conf["database"] = str(catalog)
    night.write(nightly={"sources": [night.source("one")]})
    assert messages(night.run()) == []
    assert catalog.exists()


def test_databases_are_stored_too(night: Night) -> None:
    shop = make_database(night.directory / "shop.db")
    night.write(nightly={"sources": [shop], "drill": {"every": "1M"}})
    report = night.run()
    assert (report.outcome, messages(report)) == (JobOutcome.DONE, [])
    assert sets(report) == ["shop.db"]
    assert [each.filename for each in report.drilled] == ["shop.db"]


def test_jobs_run_in_their_order_or_as_they_are_named(night: Night) -> None:
    sources = {name: night.source(name) for name in ("b", "a", "c")}
    night.write(**{name: {"sources": [path]} for name, path in sources.items()})
    assert [each.job for each in bakthat.run_jobs()] == ["b", "a", "c"]
    assert [each.job for each in bakthat.run_jobs(["c", "b", "c"])] == ["c", "b"]
    assert [each.job for each in bakthat.run_jobs("a")] == ["a"]


def test_hooks_see_what_the_job_does(night: Night) -> None:
    one, two = night.source("one"), night.source("two")
    night.write(nightly={"sources": [one, two], **night.hooks()})
    report = night.run()
    assert night.moments() == ["before", "after"]
    (before,), (after,) = night.seen("before"), night.seen("after")
    run = before["RUN"]
    assert run.startswith(f"{os.getpid()}:")
    assert before == {"JOB": "nightly", "HOOK": "before", "RUN": run, "SOURCES": f"{one}\n{two}"}
    assert after == {
        "RUN": run,
        "JOB": "nightly",
        "HOOK": "after",
        "SOURCES": f"{one}\n{two}",
        "RESULT": "done",
        "ERROR": "",
        "FAILED_SOURCES": "",
        "SETS": "one\ntwo",
        "STORED_FILENAMES": "\n".join(each.stored_filename for each in report.backups),
        "SIZES": "\n".join(str(each.size) for each in report.backups),
    }
    assert {f"BAKTHAT_{each}" for each in after} == HOOK_VARIABLES.keys()


def test_no_variable_of_a_hook_is_one_of_the_configuration() -> None:
    configured = {variable_of(key) for key in KEYS}
    configured |= {f"{each}{FILE_SUFFIX}" for each in configured}
    assert configured & HOOK_VARIABLES.keys() == set()


def test_a_command_of_bakthat_in_a_hook_says_nothing_of_the_variables(night: Night) -> None:
    log = night.directory / "log"
    command = f"{PYTHON} -m bakthat show 2> {log}"
    night.write(nightly={"sources": [night.source("one")], "after": [command]})
    report = night.run()
    assert (report.outcome, messages(report)) == (JobOutcome.DONE, [])
    assert log.read_text() == ""


def test_the_lists_of_a_hook_have_as_many_lines_as_a_variable_can_hold(night: Night) -> None:
    sources = [{"command": "exit 1", "name": f"{'n' * 900}{number}"} for number in range(100)]
    job = {"sources": [night.source("one"), *sources], **night.hooks()}
    night.write(nightly=job)
    night.conf["database"] = str(night.directory / "one" / "file" / "catalog.sqlite")
    night.write(nightly=job)  # so that each of them fails at once, by its lock
    report = night.run()
    assert report.outcome == JobOutcome.FAILED
    (seen,) = night.seen("on_error")
    names = seen["FAILED_SOURCES"].split("\n")
    assert 60 < len(names) < 100
    assert names == [each.source.text for each in report.sources][: len(names)]


# Rotation


def test_each_set_is_rotated_after_its_new_backup(night: Night, monkeypatch: Any) -> None:
    night.conf["rotation"] = {"last": 2}
    one, two = night.source("one"), night.source("two")
    night.write(nightly={"sources": [one, two], "rotate": True})
    now = time.time()
    for day in range(3):
        monkeypatch.setattr(time, "time", lambda day=day: now + day * DAY)
        report = night.run()
        rotated = [len(each.rotated) for each in report.sources]
        assert rotated == ([1, 1] if day == 2 else [0, 0])
    assert sorted(each.filename for each in bakthat.ls()) == ["one", "one", "two", "two"]


def test_a_set_of_that_name_from_elsewhere_is_not_rotated(night: Night) -> None:
    night.conf["rotation"] = {"last": 1}
    (night.directory / "elsewhere").mkdir()
    elsewhere = night.source("elsewhere/one")
    night.write(nightly={"sources": [night.source("one")], "rotate": True})
    for path in (elsewhere, elsewhere):
        bakthat.backup(path, prompt="no")
    bakthat.backup(elsewhere, prompt="no", custom_filename="one")
    for _ in range(2):
        report = night.run()
        assert (report.outcome, messages(report)) == (JobOutcome.DONE, [])
    assert len(bakthat.ls()) == 2 + 1 + 1


def test_what_may_be_worth_nothing_rotates_nothing_away(
    night: Night, caplog: pytest.LogCaptureFixture
) -> None:
    night.conf["rotation"] = {"last": 1}
    one = night.source("one")
    size = night.directory / "size"
    size.write_text("10000")
    stream = {"command": f"head -c $(cat {size}) /dev/zero", "name": "stream"}
    night.write(nightly={"sources": [one, stream], "rotate": True})
    assert night.run().outcome == JobOutcome.DONE
    (Path(one) / "file").unlink()  # as where a disk is not mounted
    size.write_text("10")
    report = night.run()
    assert report.outcome == JobOutcome.INCOMPLETE
    assert [each.rotated for each in report.sources] == [[], []]
    assert "one is not rotated: there is nothing in the new backup" in caplog.text
    assert "stream is not rotated: the size of the new backup is suspicious" in caplog.text
    assert len(bakthat.ls()) == 4


def test_a_file_that_cannot_be_stored_does_not_stop_the_rotation(night: Night) -> None:
    night.conf["rotation"] = {"last": 1}
    one = night.source("one")
    night.write(nightly={"sources": [one], "rotate": True})
    night.run()
    with closing(socket.socket(socket.AF_UNIX)) as unstorable:
        unstorable.bind(f"{one}/socket")
        report = night.run()
    assert report.outcome == JobOutcome.INCOMPLETE
    assert len(report.sources[0].rotated) == 1


# Checks and drills


@pytest.mark.parametrize(
    ("last", "now", "expected"),
    [
        (None, 1000, True),
        (1000, 1000, False),
        (1000, 1000 + WEEK - WEEK // 20 - 1, False),
        (1000, 1000 + WEEK - WEEK // 20, True),
        (1000, 1000 + 10 * WEEK, True),
        (1001, 1000, True),
    ],
)
def test_what_is_due(last: int | None, now: int, expected: bool) -> None:
    assert is_due(last, WEEK, now) is expected


def test_a_drill_is_made_when_it_is_due(night: Night, monkeypatch: Any) -> None:
    night.write(nightly={"sources": [night.source("one")], "drill": {"every": "1W"}})
    now = time.time()
    drilled = []
    for day in (0, 1, 6, 7, 8, 14):
        monkeypatch.setattr(time, "time", lambda day=day: now + day * DAY)
        report = night.run()
        assert (report.outcome, messages(report)) == (JobOutcome.DONE, [])
        drilled += [day for _ in report.drilled]
    assert drilled == [0, 7, 14]


def test_a_drill_in_the_future_is_made_again(night: Night, monkeypatch: Any) -> None:
    night.write(nightly={"sources": [night.source("one")], "drill": {"every": "1W"}})
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 365 * DAY)
    assert len(night.run().drilled) == 1
    monkeypatch.setattr(time, "time", lambda: now)
    assert len(night.run().drilled) == 1
    assert night.run().drilled == []


def test_a_check_is_of_all_backups_of_the_sets(night: Night) -> None:
    night.write(nightly={"sources": [night.source("one")], "check": {"every": "1W"}})
    other = night.source("other")
    bakthat.backup(other, prompt="no")
    report = night.run()
    assert report.check_due == ["one"]
    assert [(each.backup.filename, each.is_good) for each in report.checked] == [("one", True)]


def test_a_check_reads_the_share_that_the_job_says(night: Night) -> None:
    night.write(
        shallow={"sources": [night.source("one")], "check": {"every": "1W"}},
        deep={"sources": [night.source("two")], "check": {"every": "1W", "sample": "100%"}},
    )
    shallow, deep = bakthat.run_jobs()
    assert [each.verdict.value for each in shallow.checked] == ["stored"]
    assert [each.verdict.value for each in deep.checked] == ["read"]


def test_a_drill_takes_what_fits_the_kind_of_the_backup(night: Night) -> None:
    shop = make_database(night.directory / "shop.db")
    drill = {
        "every": "1M",
        "into": "postgresql://localhost",
        "check": "SELECT count(*) FROM items",
        "check_command": f"echo checked >> {night.directory}/checked",
    }
    sources = [shop, night.source("one")]
    night.write(nightly={"sources": sources, "drill": drill})
    report = night.run()
    assert messages(report) == []
    assert len(report.drilled) == 2
    assert (night.directory / "checked").read_text() == "checked\n" * 2


@pytest.mark.slow
def test_a_dump_is_drilled_on_the_server_that_it_is_of_where_no_other_fits(
    night: Night, monkeypatch: Any
) -> None:
    night.conf["database_password"] = PASSWORD
    with postgresql_shop() as shop:
        before, now = shop.names(), int(time.time())
        sources = [night.source("one"), f"{shop.url}/*"]
        via = night.directory / "via"
        via.write_text(f'#!/bin/sh\necho "$1" >> {night.directory}/ran\nexec "$@"\n')
        via.chmod(0o700)
        monkeypatch.setenv("PGPASSWORD", PASSWORD)  # for the programs of via
        for week, more in enumerate(({}, {"into": "redis://localhost"}, {"via": str(via)})):
            monkeypatch.setattr(time, "time", lambda week=week: now + week * WEEK)
            night.write(
                nightly={"sources": sources, "drill": {"every": "1W", "check": "SELECT 1", **more}}
            )
            report = night.run()
            assert messages(report) == []
            checks = {each.filename: each.metadata["drill"]["checks"] for each in report.drilled}
            assert checks == {"one": 0, "postgresql-globals": 0, "shop": 1}
            assert (night.directory / "ran").exists() == ("via" in more)
        assert shop.names() == before


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_check_that_finds_damage_fails_the_job(
    night: Night, damage: str, told: list[tuple[str, str]]
) -> None:
    one = night.source("one")
    first = bakthat.backup(one, conf=night.conf, prompt="no").stored_filename
    stored = Path(night.conf["local_path"]) / first
    if damage == "missing":
        stored.unlink()
    else:
        stored.write_bytes(stored.read_bytes()[:-1])
    night.write(nightly={"sources": [one], "check": {"every": "1W"}, **night.hooks()})
    report = night.run()
    assert (report.outcome, sets(report)) == (JobOutcome.FAILED, ["one"])
    (said,) = messages(report)
    assert said.startswith(
        f"nightly: 1 of 2 backups of one failed the check, the first is {first}: "
    )
    assert report.problems[0].hint == "look at all of them: bakthat check one"
    assert [text for event, text in told if event == "on_error"] == [
        f"check: {said.removeprefix('nightly: ')}"
    ]
    assert night.moments() == ["before", "after", "on_error"]


def test_the_hint_of_a_check_names_the_profile_and_the_configuration(night: Night) -> None:
    one = night.source("one")
    stored = bakthat.backup(one, conf=night.conf, prompt="no").stored_filename
    (Path(night.conf["local_path"]) / stored).unlink()
    job = {"sources": [one], "check": {"every": "1W"}, "profile": "my shop"}
    profiles: dict[str, Any] = {"my shop": night.conf, "jobs": {"nightly": job}}
    config = write_config(night.directory / "a.yml", **profiles)
    (problem,) = night.run(config=config).problems
    assert problem.hint == f"look at all of them: bakthat check one -p 'my shop' -c {config}"


def test_a_drill_that_fails_fails_the_job(night: Night, told: list[tuple[str, str]]) -> None:
    drill = {"every": "1W", "check_command": "exit 1"}
    night.write(nightly={"sources": [night.source("one")], "drill": drill, **night.hooks()})
    report = night.run()
    assert (report.outcome, sets(report), report.drilled) == (JobOutcome.FAILED, ["one"], [])
    assert messages(report) == [
        "nightly: the drill of one: the check command ended with exit code 1"
    ]
    assert len([event for event, _ in told if event == "on_error"]) == 1
    assert night.moments() == ["before", "after", "on_error"]


# Notifications


PLUGIN = """
from bakthat.plugin import Plugin

class Notes(Plugin):
    def activate(self):
        self.on_backup += lambda session_id, backup: self.note("backup", backup.filename)
        self.on_error += lambda session_id, operation, exc: self.note(operation, exc)

    def note(self, what, about):
        with open({path!r}, "a") as file:
            file.write(f"{{type(self).__name__}} {{what}} {{about}}\\n")

class Others(Notes):
    pass
"""


def test_a_job_tells_the_plugins_that_it_names(night: Night, plugins_dir: Path) -> None:
    notes = night.directory / "notes"
    (plugins_dir / "my_notes.py").write_text(PLUGIN.format(path=str(notes)))
    night.conf["plugins"] = ["my_notes.Notes"]
    one, missing = night.source("one"), str(night.directory / "missing")
    night.write(
        first={"sources": [one, missing]},
        second={"sources": [one], "notify": ["my_notes.Others"]},
        third={"sources": [one], "notify": []},
    )
    bakthat.run_jobs()
    assert notes.read_text().splitlines() == [
        "Notes backup one",
        f"Notes backup no such file or directory: '{missing}'",
        "Others backup one",
    ]


# The configuration


def test_a_job_that_is_unknown_stops_all(night: Night) -> None:
    night.write(nightly={"sources": [night.source("one")]})
    with pytest.raises(ConfigError, match="no job 'nightyl'") as caught:
        bakthat.run_jobs(["nightly", "nightyl"])
    assert caught.value.hint == "did you mean nightly?"
    assert bakthat.ls() == []


def test_no_job_at_all_is_an_error(night: Night) -> None:
    night.write()
    with pytest.raises(ConfigError, match="there are no jobs") as caught:
        bakthat.run_jobs()
    assert "sources" in caught.value.hint


def test_jobs_that_are_no_mapping_are_an_error(night: Night) -> None:
    path = night.write()
    path.write_text(path.read_text().replace("jobs: {}", "jobs: [nightly]"))
    with pytest.raises(ConfigError, match="'jobs' must hold jobs by name"):
        bakthat.run_jobs()


def test_a_job_with_a_mistake_does_not_stop_the_others(night: Night) -> None:
    one = night.source("one")
    night.write(
        wrong={"source": [one]},
        right={"sources": [one]},
        lost={"sources": [one], "profile": "lost"},
    )
    wrong, right, lost = bakthat.run_jobs()
    assert [each.outcome for each in (wrong, right, lost)] == [
        JobOutcome.FAILED,
        JobOutcome.DONE,
        JobOutcome.FAILED,
    ]
    assert "unknown key 'source'" in messages(wrong)[0]
    assert "no profile 'lost'" in messages(lost)[0]
    assert sets(right) == ["one"]
    assert [each.job for each in bakthat.run_jobs("right")] == ["right"]


def test_a_configuration_that_is_named_is_used_for_all(night: Night) -> None:
    path = night.write(nightly={"sources": [night.source("one")]})
    path = path.rename(night.directory / "other.yml")
    assert sets(night.run(config=path)) == ["one"]
    assert read_configuration(path).job("nightly").job == Job(
        sources=read_configuration(path).job("nightly").job.sources
    )


@pytest.mark.parametrize("dry_run", [False, True])
def test_the_configuration_is_read_once(night: Night, dry_run: bool) -> None:
    """A pipe can be read once, and a file may be replaced while the first job runs."""
    jobs = {each: {"sources": [night.source(each)]} for each in ("one", "two")}
    reading, writing = os.pipe()
    os.write(writing, night.write(**jobs).read_bytes())
    os.close(writing)
    try:
        reports = bakthat.run_jobs(config=f"/dev/fd/{reading}", dry_run=dry_run)
    finally:
        os.close(reading)
    assert [(each.outcome, messages(each)) for each in reports] == [(JobOutcome.DONE, [])] * 2


# A dry run


def test_a_dry_run_tells_and_does_nothing(
    night: Night, told: list[tuple[str, str]], monkeypatch: Any
) -> None:
    night.conf["rotation"] = {"last": 1}
    one, missing = night.source("one"), str(night.directory / "missing")
    ran = night.directory / "ran"
    night.write(
        nightly={
            "sources": [one, missing, {"command": f"touch {ran}", "name": "stream"}],
            "rotate": True,
            "check": {"every": "1W"},
            "drill": {"every": "1W"},
            **night.hooks(),
        }
    )
    report = night.run(dry_run=True)
    assert [each.outcome.value for each in report.sources] == ["done", "failed", "done"]
    assert messages(report) == [f"nightly: no such file or directory: '{missing}'"]
    assert report.check_due == report.drill_due == ["one", "stream"]
    assert report.commands == {"before": 1, "after": 1, "on_error": 1}
    assert (told, night.moments(), ran.exists()) == ([], [], False)
    assert not Path(night.conf["local_path"]).exists()
    assert not Path(night.conf["database"]).exists()
    for _ in range(2):
        bakthat.backup(one, prompt="no")
    bakthat.drill("one")
    del told[:]
    report = night.run(dry_run=True)
    assert [len(each.rotated) for each in report.sources] == [1, 0, 0]
    assert report.drill_due == ["stream"]
    assert len(bakthat.ls()) == 2
    assert told == []


def test_a_dry_run_names_what_the_run_would_refuse(night: Night) -> None:
    one = night.source("one")
    night.conf |= {"password_file": str(night.directory / "password")}
    night.write(
        nightly={"sources": [one, {"command": "echo", "name": "stream"}], **night.hooks()},
        named={"sources": [{"command": "echo", "name": "a/b"}, {"path": one, "name": "c/d"}]},
        tagged={"sources": [one], "tags": "\x1b"},
        excluding={"sources": [{"path": one, "exclude_file": str(night.directory / "none")}]},
        rotating={"sources": [one], "rotate": True},
    )

    def problems(*, dry_run: bool) -> dict[str, list[str]]:
        reports = bakthat.run_jobs(dry_run=dry_run)
        return {each.job: [str(one) for one in each.all_problems] for each in reports}

    def is_said_of(job: str, text: str) -> bool:
        (of_run, *_), (of_dry_run, *_) = real[job], foreseen[job]
        return text in of_run and of_dry_run == of_run

    foreseen = problems(dry_run=True)
    real = problems(dry_run=False)
    assert is_said_of("nightly", "cannot read the password file")
    assert len(foreseen["nightly"]) == 2
    (night.directory / "password").write_text("secret")
    foreseen, real = problems(dry_run=True), problems(dry_run=False)
    assert foreseen["nightly"] == real["nightly"] == []
    assert is_said_of("named", "cannot hold a slash")
    assert len(foreseen["named"]) == 2
    assert is_said_of("tagged", "a tag must be printable text")
    assert is_said_of("excluding", "cannot read the exclude file")
    assert is_said_of("rotating", "it has no rotation")


def test_a_dry_run_foresees_nothing_of_a_source_that_cannot_be_stored(night: Night) -> None:
    night.conf["rotation"] = {"last": 1}
    path = Path(night.source("one"))
    night.write(nightly={"sources": [str(path)], "rotate": True, "check": {"every": "1s"}})
    for _ in range(2):
        bakthat.backup(path, prompt="no")
    path.rename(night.directory / "gone")
    report = night.run(dry_run=True)
    assert messages(report) == [f"nightly: no such file or directory: '{path}'"]
    assert (report.sources[0].rotated, report.check_due) == ([], [])


def test_a_check_that_reads_is_due_after_checks_that_have_read_nothing(night: Night) -> None:
    sources = [night.source("one")]
    night.write(nightly={"sources": sources, "check": {"every": "1D"}})
    assert [each.verdict.value for each in night.run().checked] == ["stored"]
    assert night.run().checked == []
    check = {"every": "1D", "sample": "100%"}
    night.write(nightly={"sources": sources, "check": check})
    assert "read" in [each.verdict.value for each in night.run().checked]
    assert night.run().checked == []
