"""The disk of the catalog is full, and in some tests the store is on it too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import bakthat
from bakthat.backends.local.backend import LocalBackend
from bakthat.errors import CatalogError
from tests.support.commandline import CommandLine
from tests.support.needs import as_root, mounted
from tests.support.profiles import Conf, write_config
from tests.test_database import fill

pytestmark = as_root


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    with mounted(place, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        yield place


def store(local: Conf, disk: Path, tree: Path, *, store_too: bool) -> Conf:
    """Store a backup of 300 kB, then fill the disk of its catalog."""
    conf = {**local, "database": str(disk / "catalog.sqlite")}
    if store_too:
        conf["local_path"] = str(disk / "store")
    (tree / "big").write_bytes(os.urandom(300_000))
    bakthat.backup(tree, conf=conf, prompt="no")
    fill(disk)
    return conf


def test_what_only_reads_works(
    local: Conf, disk: Path, tree: Path, out: Path, isolated_environment: Path, user: CommandLine
) -> None:
    conf = store(local, disk, tree, store_too=False)
    write_config(isolated_environment / ".bakthat.yml", default=conf)
    shown = user.run("show")
    assert shown.code == 0
    assert "mydir." in shown.stdout
    assert user.run("check", "--read-data").code == 0
    assert user.run("restore", "mydir", "-o", str(out)).code == 0
    assert (out / "mydir/a.txt").read_text() == "hello"


def test_a_deletion_that_makes_no_room_there_is_refused_before_it_happens(
    local: Conf, disk: Path, tree: Path
) -> None:
    conf = store(local, disk, tree, store_too=False)
    before = sorted(Path(conf["local_path"]).iterdir())
    with pytest.raises(CatalogError, match="the disk is full") as caught:
        bakthat.delete("mydir", conf=conf)
    assert str(disk) in str(caught.value)
    assert sorted(Path(conf["local_path"]).iterdir()) == before
    assert len(bakthat.ls(conf=conf)) == 1


@pytest.mark.parametrize("by", ["delete", "rotate_backups"])
def test_a_deletion_that_makes_room_there_works(
    local: Conf, disk: Path, tree: Path, by: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.time", lambda: 1_700_000_000.0)
        conf = store(local, disk, tree, store_too=True)
    (disk / "filler").unlink()
    store(local, disk, tree, store_too=True)
    if by == "delete":
        bakthat.delete("mydir", conf=conf)
    else:
        assert len(bakthat.rotate_backups("mydir", conf=conf, last=1)) == 1
    assert len(bakthat.ls(conf=conf)) == 1


def test_a_deletion_that_cannot_be_recorded_says_that_it_happened(
    local: Conf, disk: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = store(local, disk, tree, store_too=True)
    (disk / "filler").unlink()
    (tree / "big").unlink()
    kept = bakthat.backup(tree, conf=conf, prompt="no", custom_filename="kept").stored_filename
    fill(disk)
    delete = LocalBackend.delete

    def delete_and_fill(self: LocalBackend, key: str) -> None:
        delete(self, key)
        fill(disk)

    monkeypatch.setattr(LocalBackend, "delete", delete_and_fill)
    with pytest.raises(
        CatalogError, match=r"deleted mydir\.\S+ from local, but not from"
    ) as caught:
        bakthat.delete("mydir", conf=conf)
    assert "bakthat sync removes the entries" in caught.value.hint
    assert len(bakthat.ls(conf=conf)) == 2
    (disk / "filler").unlink()
    assert [each.action for each in bakthat.sync(conf=conf).changes] == ["gone"]
    assert [each.stored_filename for each in bakthat.ls(conf=conf)] == [kept]
