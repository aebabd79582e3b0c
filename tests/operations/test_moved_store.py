"""A store that was moved, a copy of one, and entries of one that is not mounted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import bakthat
from bakthat.errors import ContainerNotFoundError
from bakthat.helper import KeyValue
from tests.support.needs import as_root, mounted
from tests.support.profiles import Conf


@pytest.fixture
def stored(local: Conf, tree: Path) -> Conf:
    """Store two backups in a directory."""
    for _ in range(2):
        bakthat.backup(tree, conf=local, prompt="no")
    return local


def names(conf: Conf) -> list[str]:
    return sorted(each.stored_filename for each in bakthat.ls(conf=conf))


def unmount(store: Path, *, leaves: str) -> Path:
    """Take the disk of a store away; return where it is now."""
    elsewhere = store.with_name("unmounted")
    store.rename(elsewhere)
    if leaves != "nothing":
        store.mkdir()
    if leaves == "lost+found":
        (store / "lost+found").mkdir()
    return elsewhere


# Not mounted


@as_root
def test_no_entry_is_removed_while_the_disk_is_not_mounted(local: Conf, tree: Path) -> None:
    store = Path(local["local_path"])
    store.mkdir()
    with mounted(store, "-t", "tmpfs", "tmpfs"):
        bakthat.backup(tree, conf=local, prompt="no")
        KeyValue(conf=local).set_key("key", 1)
    listed = names(local)
    for attempt in (
        lambda: bakthat.delete("mydir", conf=local),
        lambda: bakthat.sync("local", conf=local),
        lambda: KeyValue(conf=local).delete_key("key"),
    ):
        with pytest.raises(ContainerNotFoundError, match=f"is not mounted on {store}"):
            attempt()
        assert names(local) == listed


# Moved


def moved_to(conf: Conf, place: Path) -> Conf:
    shutil.move(conf["local_path"], place)
    return {**conf, "local_path": str(place)}


@pytest.mark.parametrize("first", ["show", "sync", "restore", "check", "rotate", "backup"])
def test_a_store_that_was_moved_is_recognised(
    stored: Conf, tree: Path, tmp_path: Path, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    listed = names(stored)
    conf = moved_to(stored, tmp_path / "moved")
    caplog.set_level("INFO", "bakthat")
    if first == "sync":
        assert bakthat.sync(conf=conf).changes == []
    elif first == "restore":
        bakthat.restore("mydir", conf=conf, output=tmp_path / "out")
    elif first == "check":
        assert [each.is_good for each in bakthat.check(conf=conf)] == [True, True]
    elif first == "rotate":
        bakthat.rotate_backups("mydir", conf=conf, last=5)
    elif first == "backup":
        listed.append(bakthat.backup(tree, conf=conf, prompt="no").stored_filename)
    assert names(conf) == listed
    assert names(stored) == []
    said = f"2 backups that were in {stored['local_path']} are in {conf['local_path']} now"
    assert caplog.text.count(said) == 1
    back = moved_to(conf, Path(stored["local_path"]))
    assert names(back) == listed


def test_a_dry_run_of_sync_says_it_and_changes_nothing(
    stored: Conf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listed = names(stored)
    conf = moved_to(stored, tmp_path / "moved")
    caplog.set_level("INFO", "bakthat")
    bakthat.sync(conf=conf, dry_run=True)
    assert "2 backups that were in" in caplog.text
    assert names(stored) == listed


def test_what_was_not_moved_stays_listed_where_it_was(stored: Conf, tmp_path: Path) -> None:
    first, second = names(stored)
    (moved := tmp_path / "moved").mkdir()
    for each in Path(stored["local_path"]).glob(f"{second}*"):
        each.rename(moved / each.name)
    conf = {**stored, "local_path": str(moved)}
    assert names(conf) == [second]
    assert names(stored) == [first]


@pytest.mark.parametrize("first", ["show", "sync", "backup"])
def test_a_copy_of_a_store_takes_no_entries_and_says_so(
    stored: Conf, tree: Path, tmp_path: Path, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    listed = names(stored)
    copy = {**stored, "local_path": str(tmp_path / "copy")}
    shutil.copytree(stored["local_path"], copy["local_path"])
    more = []
    if first == "backup":
        more = [bakthat.backup(tree, conf=copy, prompt="no").stored_filename]
    elif first == "sync":
        found = bakthat.sync(conf=copy)
        assert {each.action for each in found.changes} == {"name taken"}
        assert f"the catalog has their names in {stored['local_path']}" in caplog.text
    assert names(copy) == more
    assert names(stored) == listed
    own = {**copy, "database": str(tmp_path / "own.sqlite")}
    bakthat.sync(conf=own)
    assert names(own) == sorted([*listed, *more])


def test_a_store_with_a_second_name_is_one_store(stored: Conf, tmp_path: Path) -> None:
    listed = names(stored)
    (tmp_path / "link").symlink_to(stored["local_path"])
    conf = {**stored, "local_path": str(tmp_path / "link")}
    assert names(conf) == listed
    assert names(stored) == listed
