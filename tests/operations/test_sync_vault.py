"""Sync with a vault, which lists itself hours later and a day behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.session.records import vault_records
from tests.support.commandline import CommandLine
from tests.support.glacier_server import GlacierServer
from tests.support.profiles import Conf, write_config

NOT_READY = 4


@pytest.fixture
def conf(glacier: GlacierServer, tmp_path: Path) -> Conf:
    return {**glacier.conf(), "database": str(tmp_path / "catalog.sqlite")}


@pytest.fixture
def waiting(glacier: GlacierServer) -> Callable[[float], object]:
    """Let the time pass that sync waits."""
    return lambda seconds: glacier.advance(hours=seconds / 3600)


def elsewhere(conf: Conf, name: str = "elsewhere") -> Conf:
    return {**conf, "database": str(Path(conf["database"]).with_name(f"{name}.sqlite"))}


def actions(report: Any) -> dict[str, str]:
    return {each.backup.stored_filename: each.action.value for each in report.changes}


def test_a_lost_catalog_comes_back_from_the_vault_in_two_steps(
    conf: Conf, tree: Path, glacier: GlacierServer, tmp_path: Path
) -> None:
    made = bakthat.backup(tree, conf=conf, password="", tags="daily")
    lost = elsewhere(conf)
    for _ in range(2):  # asked for once, whoever looks again
        assert bakthat.sync(conf=lost).is_pending
        assert bakthat.ls(conf=lost) == []
    assert glacier.asked == ["InventoryRetrieval"]
    glacier.advance(hours=5)
    report = bakthat.sync(conf=lost)
    assert not report.is_pending
    assert actions(report) == {made.stored_filename: "adopted"}
    [found] = bakthat.ls(conf=lost)
    assert (found.size, found.tags, found.host) == (made.size, "daily", made.host)
    again = bakthat.sync(conf=lost)
    assert (again.changes, again.containers[0].unchanged) == ([], 1)
    assert bakthat.restore("mydir", conf=lost) is None
    glacier.advance(hours=6)
    bakthat.restore("mydir", conf=lost, output=tmp_path / "out")
    assert (tmp_path / "out" / "mydir" / "a.txt").read_text() == "hello"


def test_a_dry_run_requests_and_records_nothing(
    conf: Conf, tree: Path, glacier: GlacierServer
) -> None:
    made = bakthat.backup(tree, conf=conf, password="")
    lost = elsewhere(conf)
    assert bakthat.sync(conf=lost, dry_run=True).is_pending
    assert glacier.asked == []
    bakthat.sync(conf=lost)
    glacier.advance(hours=5)
    report = bakthat.sync(conf=lost, dry_run=True)
    assert actions(report) == {made.stored_filename: "adopted"}
    assert bakthat.ls(conf=lost) == []
    assert dict(vault_records(Path(lost["database"])).inventory.items()) == {}


def test_archives_newer_than_the_list_are_not_gone_and_older_ones_are(
    conf: Conf, tree: Path, glacier: GlacierServer, waiting: Callable[[float], object]
) -> None:
    gone = bakthat.backup(tree, conf=conf, password="")
    vault = glacier.vaults[conf["glacier_vault"]]
    vault.archives.clear()
    assert bakthat.sync(conf=conf, wait=waiting).changes == []
    glacier.advance(hours=24 * 5)
    assert actions(bakthat.sync(conf=conf, wait=waiting)) == {gone.stored_filename: "gone"}
    assert bakthat.sync(conf=conf, wait=waiting).changes == []


def test_a_backup_marked_as_gone_is_revived_when_it_is_listed_again(
    conf: Conf, tree: Path, glacier: GlacierServer, waiting: Callable[[float], object]
) -> None:
    made = bakthat.backup(tree, conf=conf, password="")
    vault = glacier.vaults[conf["glacier_vault"]]
    archives = dict(vault.archives)
    vault.archives.clear()
    glacier.advance(hours=24 * 5)
    bakthat.sync(conf=conf, wait=waiting)
    vault.archives.update(archives)
    glacier.advance(hours=48)
    assert actions(bakthat.sync(conf=conf, wait=waiting)) == {made.stored_filename: "revived"}


def test_an_archive_deleted_from_here_is_not_revived_by_an_old_list(
    conf: Conf, tree: Path, glacier: GlacierServer
) -> None:
    made = bakthat.backup(tree, conf=conf, password="")
    bakthat.sync(conf=conf)  # the list is made now
    bakthat.delete(made.stored_filename, conf=conf)
    glacier.advance(hours=5)
    report = bakthat.sync(conf=conf)
    assert report.changes == []
    assert bakthat.ls(conf=conf) == []


def test_archives_of_other_programs_are_ignored(
    conf: Conf, tree: Path, glacier: GlacierServer, waiting: Callable[[float], object]
) -> None:
    bakthat.backup(tree, conf=conf, password="")
    vault = glacier.vaults[conf["glacier_vault"]]
    [archive] = vault.archives.values()
    for number, text in enumerate(
        ("", "holiday.jpg", '{"key": 7}', "[" * 500, '{"key": "\\ud800"}')
    ):
        vault.archives[f"foreign-{number}"] = type(archive)(
            archive.path, text, archive.created, "x"
        )
    lost = elsewhere(conf)
    report = bakthat.sync(conf=lost, wait=waiting)
    assert len(report.changes) == 1
    assert report.containers[0].foreign == 5


def test_archives_of_060_are_adopted_by_their_description(
    conf: Conf, tree: Path, glacier: GlacierServer, waiting: Callable[[float], object]
) -> None:
    bakthat.backup(tree, conf=conf, password="")
    vault = glacier.vaults[conf["glacier_vault"]]
    [archive] = vault.archives.values()
    archive.description = "old.20130604191055.tgz.enc"
    lost = elsewhere(conf)
    bakthat.sync(conf=lost, wait=waiting)
    [found] = bakthat.ls(conf=lost)
    assert (found.filename, found.backup_date, found.is_encrypted) == ("old", 1370373055, True)


@pytest.mark.slow
def test_the_command_exits_with_4_until_the_list_is_there(
    conf: Conf, tree: Path, glacier: GlacierServer, isolated_environment: Path, tmp_path: Path
) -> None:
    config = isolated_environment / ".bakthat.yml"
    write_config(config, default=conf)
    user = CommandLine(isolated_environment, tmp_path)
    assert user.run("backup", "mydir", "--prompt", "no").code == 0
    Path(conf["database"]).unlink()
    first = user.run("sync")
    assert first.code == NOT_READY
    assert "When it is ready, run bakthat sync again" in first.stderr
    assert user.run("sync", "--json").lines("summary")[0]["pending"] is True
    glacier.advance(hours=5)
    done = user.run("sync")
    assert done.code == 0, done.stderr
    assert "1 adopted" in done.stderr
