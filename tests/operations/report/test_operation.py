"""Making a report: which sets are in it, its period, and the file that is written."""

from __future__ import annotations

import os
import socket
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import bakthat
from bakthat import models
from bakthat.errors import DestinationError, NoMatchError, UsageError
from bakthat.helper import KeyValue
from bakthat.operations.report.facts import Problem
from tests.support.catalogs import PASSWORD
from tests.support.commandline import CommandLine
from tests.support.filled_catalog import DAY, NOW, FilledCatalog, at, using_catalog
from tests.support.profiles import Conf, write_config


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[FilledCatalog]:
    made = FilledCatalog(tmp_path / "catalog.sqlite")
    with using_catalog(made):
        yield made


@pytest.fixture
def umask() -> Iterator[None]:
    """Let others read what is made."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_every_host_of_the_catalog_is_in_it(filled: FilledCatalog) -> None:
    filled.add(NOW - DAY)
    filled.add(NOW - 2 * DAY, host="web", stored="web.tgz", metadata={"client": "web"})
    filled.add(NOW - 3 * DAY, "old", stored="old.tgz", metadata={})
    found = bakthat.report(conf=filled.conf)
    assert [(each.name, each.host) for each in found.sets] == [
        ("my", "box"),
        ("my", "web"),
        ("old", ""),
    ]
    (web,) = bakthat.report(conf=filled.conf, host="web").sets
    assert (web.host, len(web.backups)) == ("web", 1)
    assert [each.name for each in bakthat.report("old", conf=filled.conf).sets] == ["old"]


def test_a_name_that_is_no_set_is_refused(filled: FilledCatalog) -> None:
    with pytest.raises(NoMatchError, match=r"has no backup$"):
        bakthat.report(conf=filled.conf)
    filled.add(NOW - DAY)
    with pytest.raises(NoMatchError, match="there is no set 'mys', and no job makes one") as caught:
        bakthat.report("mys", conf=filled.conf)
    assert caught.value.hint == "did you mean my?"


def test_values_are_no_backups(local: Conf, tree: Path) -> None:
    bakthat.backup(tree, conf=local, password="")
    KeyValue(conf=local).set_key("color", "red")
    (found,) = bakthat.report(conf=local).sets
    assert [each.files for each in found.backups] == [1]
    assert (found.name, found.source, found.container) == ("mydir", str(tree), local["local_path"])


def test_deleted_backups_stay_in_it_and_those_of_long_ago_are_left_out(
    filled: FilledCatalog,
) -> None:
    kept, last = filled.add(NOW - 300 * DAY), filled.add(NOW - DAY)
    early, late = filled.add(NOW - 200 * DAY), filled.add(NOW - 199 * DAY)
    with models.catalog(filled.path, write=True):
        rows = {each.stored_filename: each for each in models.Backups.select()}
        models.mark_deleted(rows[late], "by name")
        models.mark_deleted(rows[early], "older than 100D")
        rows[early].last_updated = NOW - 150 * DAY
        rows[early].save()
    (found,) = bakthat.report(conf=filled.conf, since="20D").sets
    assert [each.stored_filename for each in found.backups] == [last]
    assert [(each.stored_filename, each.deletion) for each in found.deleted] == [
        (late, found.deleted[0].deletion)
    ]
    assert found.deleted[0].deletion is not None
    assert found.deleted[0].deletion.why == "by name"
    assert {each.stored_filename for each in found.known} == {kept, late, last}


def test_what_a_user_does_is_in_it(local: Conf, tree: Path, tmp_path: Path, catalog: str) -> None:
    local["database"] = catalog
    first = bakthat.backup(tree, conf=local, password="")
    bakthat.drill("mydir", conf=local)
    bakthat.backup(tree, conf=local, password="")
    bakthat.delete(first.stored_filename, conf=local)
    local["rotation"] = {"days": 7}
    page = tmp_path / "report.html"
    (found,) = bakthat.report(conf=local, max_age="1D", output=page).sets
    assert [each.stored_filename for each in found.deleted] == [first.stored_filename]
    assert [(each.date, drill.passed) for each, drill in found.drilled] == [(first.date, True)]
    assert (found.rotation, found.problems, len(found.stored)) == ("7 daily", {}, 1)
    assert sum(each.stored for each in found.stored) == found.curve()[-1][1]
    shown = page.read_text()
    assert catalog.rpartition("/")[2] in shown
    assert quote(PASSWORD, safe="") not in shown


def test_the_jobs_say_what_is_expected(
    isolated_environment: Path, local: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(
        isolated_environment / "bakthat.yml",
        default={**local, "password": "", "rotation": {"days": 3}},
        jobs={
            "nightly": {
                "sources": [str(tree), str(tree / "never")],
                "rotate": True,
                "max_age": "26h",
                "check": {"every": "1W"},
            }
        },
    )
    bakthat.backup(tree, config=config)
    never, made = sorted(bakthat.report(config=config).sets, key=lambda each: len(each.backups))
    assert (never.name, list(never.problems)) == ("never", [Problem.NEVER])
    assert (made.jobs, made.expected.max_age, made.is_rotated) == (("nightly",), 26 * 3600, True)
    assert list(made.problems) == [Problem.NOT_CHECKED]
    later = time.time() + 3 * DAY
    monkeypatch.setattr(time, "time", lambda: later)
    assert list(bakthat.report("mydir", config=config).sets[0].problems) == [
        Problem.OVERDUE,
        Problem.NOT_CHECKED,
    ]


def test_the_rotation_is_that_of_the_profile_of_the_job(
    isolated_environment: Path, local: Conf, tree: Path
) -> None:
    config = write_config(
        isolated_environment / "bakthat.yml",
        default={**local, "password": "", "rotation": {"days": 3}},
        long={**local, "password": "", "rotation": {"years": 9}},
        jobs={"nightly": {"profile": "long", "sources": [str(tree)]}},
    )
    bakthat.backup(tree, config=config)
    bakthat.backup(tree, config=config, custom_filename="other")
    found = {each.name: each for each in bakthat.report(config=config).sets}
    assert (found["mydir"].rotation, found["mydir"].is_rotated) == ("9 yearly", False)
    assert found["other"].rotation == "3 daily"


@pytest.mark.parametrize(
    ("options", "begin", "end"),
    [
        ({}, NOW - 90 * DAY, NOW),
        ({"since": "2026-12-01"}, at(2026, 12, 1), NOW),
        ({"since": "2026-07-01", "until": "2026-10-01"}, at(2026, 7, 1), at(2026, 10, 1)),
        ({"since": "2W", "until": "1W"}, NOW - 14 * DAY, NOW - 7 * DAY),
        ({"since": 0, "until": "2030-01-01"}, 0, NOW),  # nothing is known of the future
    ],
)
def test_the_period(filled: FilledCatalog, options: dict[str, Any], begin: int, end: int) -> None:
    filled.add(NOW - DAY)
    period = bakthat.report(conf=filled.conf, **options).period
    assert (period.begin, period.end, period.now) == (begin, end, NOW)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"since": "1W", "until": "2W"}, "--since is not before --until"),
        ({"since": "2030-01-01"}, "--since is not before --until"),
        ({"since": "soon"}, "'soon' is neither a date nor an interval"),
        ({"max_age": "soon"}, "interval 'soon'"),
    ],
)
def test_another_period_is_refused(
    filled: FilledCatalog, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        bakthat.report(conf=filled.conf, **options)


def test_the_page_replaces_a_file_and_others_may_read_it(
    filled: FilledCatalog, tmp_path: Path, umask: None
) -> None:
    filled.add(NOW - DAY)
    target, link = tmp_path / "report.html", tmp_path / "link.html"
    target.write_text("old")
    target.chmod(0o600)
    link.symlink_to(target)
    before = set(tmp_path.iterdir())
    bakthat.report(conf=filled.conf, output=link)
    assert target.read_text().startswith("<!DOCTYPE html>")
    assert target.stat().st_mode & 0o777 == 0o644
    assert link.is_symlink()
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing/report.html", "report.html is in a directory that does not exist"),
        (".", "is no file"),
        ("file/report.html", "report.html: not a directory"),
        ("/proc/report.html", "cannot write the report /proc/report.html"),
    ],
)
def test_a_page_that_cannot_be_written_is_an_error_that_leaves_nothing(
    filled: FilledCatalog, tmp_path: Path, name: str, message: str
) -> None:
    filled.add(NOW - DAY)
    (tmp_path / "file").write_text("old")
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DestinationError) as caught:
        bakthat.report(conf=filled.conf, output=tmp_path / name)
    assert message in str(caught.value)
    assert "-o" in caught.value.hint
    assert set(tmp_path.rglob("*")) == before


def test_the_page_of_many_sets_is_small_and_needs_little_memory(
    filled: FilledCatalog, tmp_path: Path
) -> None:
    names = [f"set-{number}" for number in range(20)]
    rows = [
        {
            "backend": "s3",
            "backend_hash": models.backend_hash("bucket"),
            "backup_date": NOW - number * DAY,
            "filename": name,
            "metadata": {"client": "box", "files": 1200, "bytes": 10**9, "seconds": 30.5},
            "size": 10**8,
            "stored_filename": f"{name}.{number:02}.tgz.age",
            "tags": "",
            "is_deleted": number > 30,
            "last_updated": NOW - max(number - 30, 0) * DAY,
        }
        for name in names
        for number in range(90)
    ]
    with models.catalog(filled.path, write=True):
        for start in range(0, len(rows), 50):
            models.Backups.insert_many(rows[start : start + 50]).execute()
    page = tmp_path / "report.html"
    tracemalloc.start()
    found = bakthat.report(conf=filled.conf, output=page)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.sets) == 20
    assert page.stat().st_size < 600_000  # 30 KB a set, so 6 MB for 200 sets
    assert peak < 25_000_000


def test_the_command_prints_a_table_or_writes_the_page(
    user: CommandLine, local: Conf, tree: Path, isolated_environment: Path
) -> None:
    write_config(isolated_environment / ".bakthat.yml", default={**local, "password": ""})
    bakthat.backup(tree)
    shown = user.run("report", "--max-age", "1D")
    assert shown.code == 0
    header, row = shown.stdout.splitlines()
    assert header.split()[-1] == "VERDICT"
    assert row.split()[0] == "mydir"
    assert row.split()[-1] == "good"
    assert "1 set from " in shown.stderr
    done = user.run("report", "-o", "report.html", "--json")
    (line,) = done.lines("report")
    assert (line["filename"], line["good"], line["host"]) == ("mydir", True, socket.gethostname())
    (summary,) = done.lines("summary")
    assert (summary["sets"], summary["good"], summary["output"]) == (1, 1, "report.html")
    assert (user.directory / "report.html").read_text().endswith("</html>\n")
    assert "Wrote report.html: 1 set" in done.stderr
    failed = user.run("report", "-o", "missing/report.html")
    assert failed.code == 1
    assert "is in a directory that does not exist" in failed.stderr
