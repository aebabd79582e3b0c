"""Search all backups for files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.backends import LocalBackend
from bakthat.backends.base import StoredObject
from bakthat.errors import StorageError, UnreachableError, UsageError, WrongKeyError
from bakthat.helper import KeyValue
from bakthat.models import Backups
from bakthat.operations.browse import find as find_module
from bakthat.operations.browse.find import FindReport
from bakthat.policy.intervals import parse_since
from bakthat.session.indexes.cache import forget_index
from tests.support.commandline import CommandLine
from tests.support.indexes import forget_cache, lose_indexes
from tests.support.profiles import Conf

DAY = 86400
NOW = 1_780_000_000


@pytest.fixture
def backups(local: Conf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Backups]:
    """Make four backups of a directory, a day apart: ``etc/hosts`` changes before the third."""
    root = tmp_path / "mydir"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "hosts").write_text("one")
    (root / "etc" / "other.conf").write_text("other")
    made = []
    for number in range(4):
        if number == 2:
            (root / "etc" / "hosts").write_text("two, longer")
        with monkeypatch.context() as patch:
            moment = NOW + number * DAY
            patch.setattr(time, "time", lambda moment=moment: moment)
            made.append(bakthat.backup(root, conf=local, password="", tags=f"tag{number % 2}"))
    for each in made:  # as a later command finds them
        list(bakthat.contents(each.stored_filename, conf=local))
    return made


def found(*patterns: str, conf: Conf, **options: Any) -> dict[str, list[list[str]]]:
    """Return the backups of each version of each path, the newest version first."""
    result: dict[str, list[list[str]]] = {}
    for match in bakthat.find(patterns, conf=conf, **options):
        names = [each.stored_filename for each in match.backups]
        result.setdefault(match.entry.path, []).append(names)
    return result


def names(*backups: Backups) -> list[str]:
    return [each.stored_filename for each in backups]


def test_each_version_is_found_with_its_backups(local: Conf, backups: list[Backups]) -> None:
    first, second, third, fourth = backups
    report = bakthat.find("etc/hosts", conf=local)
    assert (report.searched, report.is_complete, len(report)) == (4, True, 2)
    new, old = report
    assert (new.newest.stored_filename, new.oldest.stored_filename) == (
        fourth.stored_filename,
        third.stored_filename,
    )
    assert names(*old.backups) == names(second, first)
    assert old.entry.sha256 == hashlib.sha256(b"one").hexdigest()
    assert (new.entry.size, old.entry.size) == (11, 3)


def test_patterns_are_those_of_gitignore_and_match_themselves(
    local: Conf, backups: list[Backups]
) -> None:
    everywhere = [names(*reversed(backups))]
    assert found("*.conf", conf=local) == {"mydir/etc/other.conf": everywhere}
    assert found("mydir/etc", conf=local) == {"mydir/etc": everywhere}
    assert found("etc/", conf=local) == {"mydir/etc": everywhere}
    assert set(found("*", conf=local)) == {
        "mydir",
        "mydir/etc",
        "mydir/etc/hosts",
        "mydir/etc/other.conf",
    } - {"mydir"}
    assert found("nothing", "*.nothing", conf=local) == {}


def test_the_search_can_be_narrowed(local: Conf, backups: list[Backups], tmp_path: Path) -> None:
    first, second, third, fourth = backups
    hosts = "mydir/etc/hosts"
    assert found("hosts", conf=local, tags="tag1") == {hosts: [names(fourth), names(second)]}
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(third.date))
    assert found("hosts", conf=local, since=since) == {hosts: [names(fourth, third)]}
    assert found("hosts", conf=local, since=fourth.date + 1) == {}
    assert found("hosts", conf=local, set_name="mydir", host=first.host) != {}
    assert found("hosts", conf=local, set_name="myd") == {}
    assert found("hosts", conf=local, set_name="\udcff") == {}
    assert found("hosts", conf=local, host="another") == {}
    assert found("hosts", conf=local, destination="local") != {}


def test_versions_of_different_sets_are_not_mixed(
    local: Conf, backups: list[Backups], tmp_path: Path
) -> None:
    other = bakthat.backup(tmp_path / "mydir", conf=local, password="", custom_filename="other")
    report = bakthat.find("hosts", conf=local, read_archives=True)
    assert sorted((each.newest.filename, len(each.backups)) for each in report) == [
        ("mydir", 2),
        ("mydir", 2),
        ("other", 1),
    ]
    assert other.stored_filename in [each.newest.stored_filename for each in report]


def test_values_are_not_searched(local: Conf, backups: list[Backups]) -> None:
    KeyValue(conf=local).set_key("hosts", "value")
    assert bakthat.find("hosts", conf=local).searched == 4


def test_a_backup_without_an_index_is_left_out_and_said(
    local: Conf, backups: list[Backups], caplog: pytest.LogCaptureFixture
) -> None:
    lose_indexes(local, *names(*backups[:3]))
    for each in backups[3:]:
        list(bakthat.contents(each.stored_filename, conf=local))
    caplog.clear()
    report = bakthat.find("hosts", conf=local)
    assert names(*(each.backup for each in report.unsearched)) == names(*reversed(backups[:3]))
    assert (report.searched, report.is_complete, len(report)) == (1, False, 1)
    (said,) = (each.getMessage() for each in caplog.records if each.levelname == "WARNING")
    assert said == (
        "3 backups have no index and were left out, the first is "
        f"{backups[2].stored_filename}: bakthat sync --indexes makes indexes, "
        "and --read-archives reads such backups"
    )
    report = bakthat.find("hosts", conf=local, read_archives=True)
    assert (report.searched, report.is_complete, len(report)) == (4, True, 2)


def test_one_backup_that_cannot_be_read_does_not_stop_the_others(
    local: Conf, backups: list[Backups], caplog: pytest.LogCaptureFixture
) -> None:
    forget_cache()
    damaged = Path(local["local_path"], backups[1].stored_filename)
    os.truncate(damaged, 100)
    Path(f"{damaged}.index").unlink(missing_ok=True)
    report = bakthat.find("hosts", conf=local, read_archives=True)
    assert (report.searched, len(report)) == (3, 2)
    ((left_out, reason),) = report.unsearched
    assert left_out.stored_filename == backups[1].stored_filename
    assert "truncated" in reason
    assert f"{left_out.stored_filename} was not searched" in caplog.text


@pytest.mark.usefixtures("cheap_passphrases")
def test_if_nothing_can_be_searched_the_first_reason_is_raised(local: Conf, tree: Path) -> None:
    bakthat.backup(tree, conf=local, password="secret")
    forget_cache()
    with pytest.raises(WrongKeyError):
        bakthat.find("a.txt", conf=local, password="wrong", read_archives=True)
    assert len(bakthat.find("a.txt", conf=local, password="secret", read_archives=True)) == 1
    forget_cache()
    shutil.rmtree(local["local_path"])
    with pytest.raises(StorageError):
        bakthat.find("a.txt", conf=local, password="secret", read_archives=True)


def test_from_the_cache_neither_a_key_nor_the_storage_is_needed(
    local: Conf, backups: list[Backups]
) -> None:
    shutil.rmtree(local["local_path"])
    assert len(bakthat.find("hosts", conf=local, prompt="no")) == 2


def test_of_a_storage_that_is_missing_what_is_in_the_cache_is_searched(
    local: Conf, backups: list[Backups], caplog: pytest.LogCaptureFixture
) -> None:
    forget_index([backups[1], backups[3]])
    shutil.rmtree(local["local_path"])
    report = bakthat.find("hosts", conf=local)
    assert names(*(each.backup for each in report.unsearched)) == names(backups[3], backups[1])
    assert (report.searched, len(report)) == (2, 2)
    assert caplog.text.count("was not searched") == 1
    assert f"directory {local['local_path']} does not exist" in caplog.text


def test_a_storage_that_cannot_be_reached_is_asked_once(
    local: Conf,
    backups: list[Backups],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    forget_index([backups[1], backups[3]])
    asked = []

    def fail(_: LocalBackend, key: str, **__: object) -> None:
        asked.append(key)
        raise UnreachableError("no answer")

    for request in ("stat", "download"):
        monkeypatch.setattr(LocalBackend, request, fail)
    report = bakthat.find("hosts", conf=local)
    assert [each.reason for each in report.unsearched] == ["no answer"] * 2
    assert (report.searched, len(report), len(asked)) == (2, 2, 1)
    assert caplog.text.count("was not searched") == 1


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        ("1D", NOW - DAY),
        (5, 5.0),
        ("1970-01-02", DAY),
        ("1970-01-02 01:00", DAY + 3600),
        ("1970-01-02T01:00:01", DAY + 3601),
    ],
)
def test_since_is_an_interval_or_a_date(since: str | float, expected: float) -> None:
    assert parse_since(since, NOW) == expected


@pytest.mark.parametrize("since", ["", "yesterday", "2026-13-01", "2026-01-01 25:00", "2026-1-1"])
def test_another_moment_is_refused(since: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_since(since, NOW)
    assert "2013-06-04" in caught.value.hint


def test_nothing_to_search_for_is_refused(local: Conf) -> None:
    for patterns in ([], [""], "", "../up"):
        with pytest.raises(UsageError):
            bakthat.find(patterns, conf=local)


def test_without_backups_nothing_is_found(local: Conf) -> None:
    report = bakthat.find("hosts", conf=local)
    assert (list(report), report.searched, report.is_complete) == ([], 0, True)
    assert isinstance(report, FindReport)


def test_the_command_prints_one_line_a_version(user: CommandLine, tree: Path) -> None:
    (made,) = user.run("backup", tree, "-d", "local", "--prompt", "no", "--json").lines("backup")
    done = user.run("find", "a.*", "--read-archives")
    header, line = done.stdout.splitlines()
    assert header.split("  ")[0] == "MODIFIED (UTC)"
    assert line.split()[2:4] == ["5", "B"]
    assert hashlib.sha256(b"hello").hexdigest()[:12] in line
    assert line.endswith(f"{made['stored_filename']}  mydir/a.txt")
    assert done.stderr.splitlines()[-1].startswith("Found 1 version in 1 backup, ")
    assert done.code == 0


def test_json_is_one_object_a_line(user: CommandLine, tree: Path) -> None:
    (made,) = user.run("backup", tree, "-d", "local", "--prompt", "no", "--json").lines("backup")
    done = user.run("find", "a.*", "--read-archives", "--json")
    match, summary = map(json.loads, done.stdout.splitlines())
    assert match["message_type"] == "match"
    assert (match["path"], match["count"], match["set"]) == ("mydir/a.txt", 1, "mydir")
    assert match["newest"] == match["oldest"]
    assert match["newest"]["stored_filename"] == made["stored_filename"]
    assert match["backups"] == [made["stored_filename"]]
    assert (summary["message_type"], summary["matches"]) == ("summary", 1)
    assert (summary["searched"], summary["unsearched"]) == (1, [])


def test_the_exit_code_says_whether_something_was_found(user: CommandLine, tree: Path) -> None:
    done = user.run("backup", tree, "-d", "local", "--prompt", "no", "--json")
    name = done.lines("backup")[0]["stored_filename"]
    done = user.run("find", "nothing", "--read-archives")
    assert (done.code, done.stdout) == (1, "")
    assert "bakthat: error: no backup holds 'nothing'" in done.stderr
    (user.home / ".bakthat_store" / f"{name}.index").unlink(missing_ok=True)
    shutil.rmtree(user.home / ".cache")
    done = user.run("find", "a.txt")
    assert (done.code, done.stdout) == (3, "")
    assert "bakthat: error: 1 backup was left out" in done.stderr
    assert user.run("find", "a.txt", "--since", "now").code == 2


def test_for_many_backups_without_an_index_one_listing_is_enough(
    local: Conf, backups: list[Backups], monkeypatch: pytest.MonkeyPatch
) -> None:
    bakthat.sync(conf=local, indexes=True)
    lose_indexes(local, *names(*backups[1:]))
    with models.catalog(local["database"], write=True):  # as an earlier version stored them
        for each in models.Backups.select():
            each.metadata = {k: v for k, v in each.metadata.items() if k != "index_size"}
            each.save()
    monkeypatch.setattr(find_module, "MAX_SINGLE_REQUESTS", 2)
    stat, looked_up = LocalBackend.stat, []

    def counted(self: LocalBackend, key: str) -> StoredObject:
        looked_up.append(key)
        return stat(self, key)

    monkeypatch.setattr(LocalBackend, "stat", counted)
    report = bakthat.find("hosts", conf=local)
    assert looked_up == [f"{backups[0].stored_filename}.index"]
    assert names(*(each.backup for each in report.unsearched)) == names(*reversed(backups[1:]))


def test_a_hard_link_has_the_content_of_the_file(local: Conf, tree: Path) -> None:
    os.link(tree / "a.txt", tree / "z.txt")
    bakthat.backup(tree, conf=local, password="")
    (tree / "a.txt").write_text("hello, again")
    bakthat.backup(tree, conf=local, password="")
    report = bakthat.find("z.txt", conf=local)
    assert [(each.entry.type, each.entry.size, each.entry.sha256) for each in report] == [
        ("hardlink", len(content), hashlib.sha256(content).hexdigest())
        for content in (b"hello, again", b"hello")
    ]
    assert [each.as_dict()["target"] for each in report] == ["mydir/a.txt"] * 2
