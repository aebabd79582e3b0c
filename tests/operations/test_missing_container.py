"""A store that is gone, though the catalog lists backups in it, is not made anew by itself."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.errors import ContainerNotFoundError
from bakthat.helper import BakHelper, KeyValue
from tests.support.commandline import CommandLine
from tests.support.glacier_server import GlacierServer
from tests.support.needs import as_root, mounted
from tests.support.profiles import Conf, write_config
from tests.support.servers import plain


def remove(store: Path) -> None:
    shutil.rmtree(store)


def leave_mount_point(store: Path) -> None:
    remove(store)
    store.mkdir()


def leave_another_disk(store: Path) -> None:
    remove(store)
    (store / "lost+found").mkdir(parents=True)


@pytest.fixture(params=[remove, leave_mount_point, leave_another_disk])
def unmounted(request: pytest.FixtureRequest, local: Conf, tree: Path) -> Conf:
    """Store a backup, then take the disk away; nothing has recorded where it was mounted."""
    bakthat.backup(tree, conf=local, password="")
    with closing(sqlite3.connect(local["database"])) as catalog, catalog:
        catalog.execute("DELETE FROM config")
    request.param(Path(local["local_path"]))
    return local


def stored(conf: Conf) -> list[str]:
    store = Path(conf["local_path"])
    return [path.name for path in store.glob("**/*") if path.is_file()] if store.exists() else []


def test_a_backup_to_a_missing_disk_is_refused_and_leaves_nothing(
    unmounted: Conf, tree: Path
) -> None:
    before = bakthat.ls(conf=unmounted)
    with pytest.raises(ContainerNotFoundError, match="but the catalog lists backups") as caught:
        bakthat.backup(tree, conf=unmounted, password="")
    assert "check that its disk is mounted" in caught.value.hint
    assert "--create" in caught.value.hint
    assert stored(unmounted) == []
    assert bakthat.ls(conf=unmounted) == before


def test_so_are_a_value_and_a_helpers_backup(unmounted: Conf, tree: Path) -> None:
    with pytest.raises(ContainerNotFoundError, match="but the catalog lists backups"):
        KeyValue(conf=unmounted).set_key("mykey", 1)
    with pytest.raises(ContainerNotFoundError, match="but the catalog lists backups"):
        BakHelper("name", conf=unmounted).backup(tree)
    assert stored(unmounted) == []


def test_create_begins_a_new_store(unmounted: Conf, tree: Path) -> None:
    made = bakthat.backup(tree, conf=unmounted, password="", create=True)
    assert made.stored_filename in stored(unmounted)
    # From then on the store is that one.
    bakthat.backup(tree, conf=unmounted, password="")


def test_a_store_without_listed_backups_is_made(local: Conf, tree: Path) -> None:
    made = bakthat.backup(tree, conf=local, password="")
    bakthat.delete(made.stored_filename, conf=local)
    shutil.rmtree(local["local_path"])
    bakthat.backup(tree, conf=local, password="")


def test_backups_in_other_containers_make_no_difference(local: Conf, tree: Path) -> None:
    bakthat.backup(tree, conf=local, password="")
    other = {**local, "local_path": f"{local['local_path']}-2"}
    bakthat.backup(tree, conf=other, password="")


@pytest.mark.parametrize("empty", [remove, leave_mount_point, leave_another_disk])
def test_a_store_that_was_emptied_on_its_own_disk_begins_anew(
    local: Conf, tree: Path, empty: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    bakthat.backup(tree, conf=local, password="")
    empty(Path(local["local_path"]))
    made = bakthat.backup(tree, conf=local, password="")
    assert stored(local)
    assert "begins anew" in caplog.text
    assert made.stored_filename in stored(local)


@as_root
@pytest.mark.slow
def test_a_backup_below_the_mount_point_does_not_hide_that_the_disk_is_missing(
    local: Conf, tree: Path, tmp_path: Path
) -> None:
    """As --create, or an older version, may have left one there."""
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    kept.mkdir()
    conf = {**local, "local_path": str(disk / "store")}
    with mounted(kept, "-t", "tmpfs", "tmpfs"):
        with mounted(disk, "--bind", str(kept)):
            bakthat.backup(tree, conf=conf, password="")
        bakthat.backup(tree, conf=conf, password="", create=True)
        with mounted(disk, "--bind", str(kept)):
            bakthat.backup(tree, conf=conf, password="")
        listed = bakthat.ls(conf=conf)
        for use in (
            lambda: bakthat.backup(tree, conf=conf, password=""),
            lambda: bakthat.rotate_backups("mydir", conf=conf, last=1),
            lambda: bakthat.sync(conf=conf),
            lambda: KeyValue(conf=conf).set_key("mykey", 1),
        ):
            with pytest.raises(ContainerNotFoundError, match="is not mounted on"):
                use()
        assert bakthat.ls(conf=conf) == listed


@as_root
def test_a_copy_does_not_take_the_entries_of_a_store_that_is_not_mounted(
    local: Conf, tree: Path, tmp_path: Path
) -> None:
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    kept.mkdir()
    original = {**local, "local_path": str(disk / "store")}
    copy = {**local, "local_path": str(tmp_path / "copy")}
    with mounted(kept, "-t", "tmpfs", "tmpfs"):
        with mounted(disk, "--bind", str(kept)):
            made = bakthat.backup(tree, conf=original, password="")
            shutil.copytree(original["local_path"], copy["local_path"])
        assert bakthat.ls(conf=copy) == []
        assert bakthat.ls(conf=original) == [made]


@as_root
@pytest.mark.slow
def test_a_real_mount_is_missed_and_found_again(user: CommandLine, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "mydir").mkdir()
    (tmp_path / "mydir" / "file").write_text("hello")
    conf = {"default_destination": "local", "local_path": str(disk)}
    write_config(user.home / ".bakthat.yml", default=conf)
    with mounted(disk, "-t", "tmpfs", "tmpfs"):
        assert user.run("backup", "mydir", "--prompt", "no").code == 0
    missed = user.run("backup", "mydir", "--prompt", "no")
    assert missed.code == 1
    assert "check that its disk is mounted" in missed.stderr
    assert list(disk.iterdir()) == []
    assert user.run("backup", "mydir", "--prompt", "no", "--create").code == 0


@pytest.mark.slow
def test_a_bucket_that_is_gone_is_not_made_anew(moto_conf: Conf, tree: Path) -> None:
    conf: dict[str, Any] = {**moto_conf, "default_destination": "s3"}
    made = bakthat.backup(tree, conf=conf, password="")
    server = plain(conf)
    for key in (made.stored_filename, f"{made.stored_filename}.index"):
        server.delete_object(Bucket=conf["s3_bucket"], Key=key)
    server.delete_bucket(Bucket=conf["s3_bucket"])
    with pytest.raises(ContainerNotFoundError, match="but the catalog lists backups"):
        bakthat.backup(tree, conf=conf, password="")
    assert conf["s3_bucket"] not in {each["Name"] for each in server.list_buckets()["Buckets"]}
    bakthat.backup(tree, conf=conf, password="", create=True)


@pytest.mark.slow
def test_a_vault_that_is_gone_is_not_made_anew(glacier: GlacierServer, tree: Path) -> None:
    conf = glacier.conf()
    bakthat.backup(tree, conf=conf, password="")
    glacier.vaults.clear()
    with pytest.raises(ContainerNotFoundError, match="but the catalog lists backups"):
        bakthat.backup(tree, conf=conf, password="")
    assert not glacier.vaults
    bakthat.backup(tree, conf=conf, password="", create=True)
