"""The inventory of a vault: in the catalog, in the bucket, and the vault's own list."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.backends import make_backend
from bakthat.errors import (
    ConfigError,
    ContainerNotFoundError,
    CorruptArchiveError,
    NotFoundError,
    StorageError,
)
from bakthat.session import vault
from bakthat.session.records import vault_records
from bakthat.session.vault import INVENTORY_KEY, parse_inventory
from tests.support.glacier_server import GlacierServer
from tests.support.indexes import forget_cache, lose_indexes
from tests.support.profiles import Conf
from tests.support.servers import S3Server, free_port, plain
from tests.support.trees import fingerprint

pytestmark = pytest.mark.slow


@pytest.fixture
def conf(glacier: GlacierServer, moto_endpoint: S3Server) -> Conf:
    s3 = moto_endpoint.conf()
    # One pair of keys for both services; moto takes any.
    return {**glacier.conf(), "endpoint_url": s3["endpoint_url"], "s3_bucket": s3["s3_bucket"]}


def in_bucket(conf: Conf) -> Any:
    """Return the JSON of the inventory in the bucket, read without bakthat."""
    found = plain(conf).get_object(Bucket=conf["s3_bucket"], Key=INVENTORY_KEY)
    with found["Body"] as body:
        return json.loads(body.read())


def write_to_bucket(conf: Conf, content: bytes) -> None:
    client = plain(conf)
    client.create_bucket(Bucket=conf["s3_bucket"])
    client.put_object(Bucket=conf["s3_bucket"], Key=INVENTORY_KEY, Body=content)


def elsewhere(conf: Conf, tmp_path: Path) -> Conf:
    return {**conf, "database": str(tmp_path / "elsewhere.sqlite")}


def test_each_change_of_the_vault_writes_the_inventory_to_the_bucket(
    conf: Conf, tree: Path
) -> None:
    first = bakthat.backup(tree, conf=conf, password="")
    local = bakthat.show_local_glacier_inventory(conf=conf)
    assert in_bucket(conf) == [
        {"filename": first.stored_filename, "archive_id": local[first.stored_filename]}
    ]
    second = bakthat.backup(tree, conf=conf, password="", custom_filename="other")
    assert [each["filename"] for each in in_bucket(conf)] == [
        first.stored_filename,
        second.stored_filename,
    ]
    bakthat.delete(first.stored_filename, conf=conf)
    assert [each["filename"] for each in in_bucket(conf)] == [second.stored_filename]
    bakthat.delete_older_than("other", "1s", conf=conf)
    bakthat.delete(second.stored_filename, conf=conf)
    assert in_bucket(conf) == []


def test_retention_on_a_vault_writes_the_inventory_too(
    conf: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for moment in (1370373055.0, 1370459455.0):
        with monkeypatch.context() as patch:
            patch.setattr("bakthat.operations.backup.store.time.time", lambda moment=moment: moment)
            bakthat.backup(tree, conf=conf, password="")
    assert len(in_bucket(conf)) == 2
    bakthat.delete_older_than("mydir", "1h", conf=conf)
    assert [each["filename"] for each in in_bucket(conf)] == ["mydir.20130605191055.tgz"]


def test_the_inventory_is_readable_at_once_whatever_class_backups_have(
    conf: Conf, tree: Path
) -> None:
    bakthat.backup(tree, conf={**conf, "storage_class": "DEEP_ARCHIVE"}, password="")
    found = plain(conf).head_object(Bucket=conf["s3_bucket"], Key=INVENTORY_KEY)
    assert found.get("StorageClass", "STANDARD") == "STANDARD"
    assert found["ContentType"] == "application/json"


def test_a_profile_without_a_bucket_keeps_the_inventory_to_itself(
    glacier: GlacierServer, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    conf = glacier.conf()
    made = bakthat.backup(tree, conf=conf, password="")
    bakthat.delete(made.stored_filename, conf=conf)
    assert "inventory" not in caplog.text
    with pytest.raises(ConfigError, match="s3_bucket"):
        bakthat.backup_glacier_inventory(conf=conf)
    with pytest.raises(ConfigError, match="s3_bucket"):
        bakthat.restore_glacier_inventory(conf=conf)


def test_an_inventory_that_cannot_be_written_is_a_warning_and_the_backup_stands(
    conf: Conf, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    unreachable = {**conf, "endpoint_url": nowhere, "attempts": 1}
    made = bakthat.backup(tree, conf=unreachable, password="")
    index, inventory = (each.getMessage() for each in caplog.records if each.levelname == "WARNING")
    assert f"{made.stored_filename}.index could not be stored" in index
    assert "bakthat sync --indexes" in index
    assert "could not be backed up" in inventory
    assert "bakthat backup_glacier_inventory" in inventory
    assert bakthat.ls(conf=unreachable) == [made]
    bakthat.delete(made.stored_filename, conf=unreachable)
    assert bakthat.ls(conf=unreachable) == []


def test_a_deletion_does_not_make_the_bucket(
    conf: Conf, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = bakthat.backup(tree, conf={**conf, "s3_bucket": None}, password="")
    bakthat.delete(made.stored_filename, conf=conf)
    assert "could not be backed up" in caplog.text
    with pytest.raises(ContainerNotFoundError):
        make_backend("s3", conf).stat(INVENTORY_KEY)


def test_machines_that_share_a_bucket_keep_each_others_archives(
    conf: Conf, tree: Path, tmp_path: Path
) -> None:
    mine = bakthat.backup(tree, conf=conf, password="", custom_filename="mine")
    theirs = bakthat.backup(
        tree, conf=elsewhere(conf, tmp_path), password="", custom_filename="theirs"
    )
    both = [mine.stored_filename, theirs.stored_filename]
    assert [each["filename"] for each in in_bucket(conf)] == both
    assert list(bakthat.backup_glacier_inventory(conf=conf)) == both
    assert list(bakthat.show_local_glacier_inventory(conf=conf)) == [mine.stored_filename]


def _catalog_with(path: Path, name: str) -> Path:
    vault_records(path).inventory[name] = f"id of {name}"
    return path


@pytest.mark.parametrize("has_copy", [True, False])
@pytest.mark.parametrize("server", ["moto", "rclone"])
def test_two_machines_that_write_the_inventory_at_once_lose_no_archive(
    glacier: GlacierServer,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: str,
    has_copy: bool,
) -> None:
    s3 = request.getfixturevalue(f"{server}_endpoint").conf()
    conf = {**glacier.conf(), **s3}
    make_backend("s3", conf).create_container()
    names = ["first", "second", "third"]
    confs = [{**conf, "database": str(_catalog_with(tmp_path / name, name))} for name in names]
    if has_copy:
        old = {**conf, "database": str(_catalog_with(tmp_path / "old", "old"))}
        bakthat.backup_glacier_inventory(conf=old)
    write, others = vault._write, confs[1:]

    def write_after_another(*arguments: Any) -> None:
        # Between what the first machine read and what it writes, the others read and write theirs.
        if others:
            bakthat.backup_glacier_inventory(conf=others.pop())
        write(*arguments)

    monkeypatch.setattr(vault, "_write", write_after_another)
    content = bakthat.backup_glacier_inventory(conf=confs[0])
    stored = {each["filename"]: each["archive_id"] for each in in_bucket(conf)}
    assert stored == content
    assert sorted(stored) == sorted([*names, *(["old"] if has_copy else [])])


def test_an_inventory_that_never_holds_still_is_an_error_that_loses_nothing(
    conf: Conf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_to_bucket(conf, b"[]")
    mine = {**conf, "database": str(_catalog_with(tmp_path / "mine", "mine"))}
    write, count = vault._write, itertools.count()

    def write_after_another(*arguments: Any) -> None:
        name = f"other.{next(count)}"
        write_to_bucket(conf, json.dumps([{"filename": name, "archive_id": name}]).encode())
        write(*arguments)

    monkeypatch.setattr(vault, "_write", write_after_another)
    with pytest.raises(StorageError, match="was changed 10 times") as caught:
        bakthat.backup_glacier_inventory(conf=mine)
    assert caught.value.hint == "try again"
    assert [each["filename"] for each in in_bucket(conf)] == ["other.9"]


def test_what_one_machine_stored_another_restores_with_the_inventory_of_the_bucket(
    conf: Conf, tree: Path, tmp_path: Path, glacier: GlacierServer, caplog: pytest.LogCaptureFixture
) -> None:
    glacier.instant = True
    made = bakthat.backup(tree, conf=conf, password="")
    other = elsewhere(conf, tmp_path)
    name, out = made.stored_filename, tmp_path / "out"
    with pytest.raises(NotFoundError):
        bakthat.restore(name, conf=other, output=out)
    assert list(bakthat.restore_glacier_inventory(conf=other)) == [name]
    assert bakthat.restore_glacier_inventory(conf=other) == {}
    assert bakthat.restore(name, conf=other, output=out) is None
    assert bakthat.restore(name, conf=other, output=out) is not None
    assert (out / "mydir" / "a.txt").read_text() == "hello"
    assert [each for each in caplog.records if each.levelname == "WARNING"] == []


def test_an_increment_is_made_though_the_bucket_of_the_indexes_cannot_be_reached(
    conf: Conf, tree: Path
) -> None:
    """Its index is in the cache; only whether the passphrase has changed is not known."""
    (tree / "ballast").write_bytes(os.urandom(100_000))
    conf = {**conf, "incremental": True}
    bakthat.backup(tree, conf=conf, password="secret")
    away = {**conf, "endpoint_url": f"http://127.0.0.1:{free_port()}"}
    made = bakthat.backup(tree, conf=away, password="secret")
    assert made.is_increment


@pytest.mark.parametrize("password", ["", "secret"])
def test_increments_are_restored_on_another_machine_with_the_inventory_of_the_bucket(
    password: str, conf: Conf, tree: Path, tmp_path: Path, glacier: GlacierServer
) -> None:
    """The inventory has no description, so what encrypts them is not known."""
    (tree / "ballast").write_bytes(os.urandom(100_000))
    conf = {**conf, "incremental": True}
    bakthat.backup(tree, conf=conf, password=password)
    (tree / "new").write_text("new")
    made = bakthat.backup(tree, conf=conf, password=password)
    assert made.is_increment
    forget_cache()
    name, other, out = made.stored_filename, elsewhere(conf, tmp_path), tmp_path / "out"
    bakthat.restore_glacier_inventory(conf=other)
    glacier.instant = True
    assert {each.path for each in bakthat.contents(name, conf=other, password=password)} >= {
        "mydir/new"
    }
    assert bakthat.restore(name, conf=other, output=out, password=password) is None
    assert len(glacier.asked) == 2
    assert bakthat.restore(name, conf=other, output=out, password=password) is not None
    assert fingerprint(out / "mydir") == fingerprint(tree)


def test_only_what_is_needed_is_thawed_where_no_description_and_not_all_indexes_are_left(
    conf: Conf, tree: Path, tmp_path: Path, glacier: GlacierServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bakthat")
    (tree / "ballast").write_bytes(os.urandom(100_000))
    conf = {**conf, "incremental": True}
    bakthat.backup(tree, conf=conf, password="")
    full = bakthat.backup(tree, conf=conf, password="", full=True)
    (tree / "new").write_text("new")
    made = bakthat.backup(tree, conf=conf, password="")
    assert made.needs == (full.date,)
    lose_indexes(conf, full.stored_filename)
    forget_cache()
    name, other, out = made.stored_filename, elsewhere(conf, tmp_path), tmp_path / "out"
    bakthat.restore_glacier_inventory(conf=other)
    assert bakthat.restore(name, conf=other, output=out, password="") is None
    assert len(glacier.asked) == 2
    assert "Requesting the thaw of 2 archives, whose size is not known here" in caplog.text
    glacier.advance(hours=5)
    assert bakthat.restore(name, conf=other, output=out, password="") is not None
    assert fingerprint(out / "mydir") == fingerprint(tree)


@pytest.mark.parametrize(
    "content",
    [
        b'[{"filename": "a", "archive_id": "1"}, {"archive_id": "2", "filename": "b"}]',
        b'{"a": "1", "b": "2"}',
        b'[{"filename": "a", "archive_id": "1", "size": 3}, {"filename": "b", "archive_id": "2"}]',
    ],
)
def test_both_forms_of_060_are_read(conf: Conf, content: bytes) -> None:
    write_to_bucket(conf, content)
    assert bakthat.restore_glacier_inventory(conf=conf) == {"a": "1", "b": "2"}
    assert bakthat.show_local_glacier_inventory(conf=conf) == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[",
        b"\xff\xfe",
        b"3",
        b"null",
        b'"text"',
        b"[1]",
        b'[{"filename": "a"}]',
        b'{"a": 1}',
        b'[{"filename": null, "archive_id": "1"}]',
        b'{"": "1"}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_inventory_is_an_error_that_changes_nothing(conf: Conf, content: bytes) -> None:
    write_to_bucket(conf, content)
    with pytest.raises(CorruptArchiveError, match="damaged") as caught:
        bakthat.restore_glacier_inventory(conf=conf)
    assert conf["s3_bucket"] in str(caught.value)
    assert "show_glacier_inventory" in caught.value.hint
    assert bakthat.show_local_glacier_inventory(conf=conf) == {}
    with pytest.raises(CorruptArchiveError):
        bakthat.backup_glacier_inventory(conf=conf)
    found = plain(conf).get_object(Bucket=conf["s3_bucket"], Key=INVENTORY_KEY)
    with found["Body"] as body:
        assert body.read() == content


def test_an_empty_inventory_has_no_archives() -> None:
    assert parse_inventory(b"[]", "bucket") == parse_inventory(b"{}", "bucket") == {}


def test_a_bucket_without_an_inventory_says_what_else_to_try(conf: Conf) -> None:
    with pytest.raises(ContainerNotFoundError):
        bakthat.restore_glacier_inventory(conf=conf)
    make_backend("s3", conf).create_container()
    with pytest.raises(NotFoundError, match=INVENTORY_KEY) as caught:
        bakthat.restore_glacier_inventory(conf=conf)
    assert "show_glacier_inventory" in caught.value.hint
    assert bakthat.backup_glacier_inventory(conf=conf) == {}
    assert in_bucket(conf) == []


def test_local_entries_are_not_replaced_by_the_copy_in_the_bucket(
    conf: Conf, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = bakthat.backup(tree, conf=conf, password="")
    known = bakthat.show_local_glacier_inventory(conf=conf)
    write_to_bucket(conf, json.dumps({made.stored_filename: "another"}).encode())
    assert bakthat.restore_glacier_inventory(conf=conf) == {}
    assert bakthat.show_local_glacier_inventory(conf=conf) == known
    assert "has two archive ids; keeping this machine's" in caplog.text


def test_the_vaults_own_inventory_takes_two_steps_and_fills_an_empty_one(
    conf: Conf, tree: Path, tmp_path: Path, glacier: GlacierServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bakthat")
    made = bakthat.backup(tree, conf=conf, password="secret")
    other = elsewhere({**conf, "s3_bucket": None}, tmp_path)
    assert bakthat.show_glacier_inventory(conf=other) is None
    assert "it takes 3 to 5 hours" in caplog.text
    assert bakthat.show_glacier_inventory(conf=other) is None
    assert "is not ready yet: requested at 2" in caplog.text
    glacier.advance(hours=5)
    archives = bakthat.show_glacier_inventory(conf=other)
    assert archives is not None
    assert [(each.key, each.size) for each in archives] == [(made.stored_filename, made.size)]
    assert glacier.asked == ["InventoryRetrieval"]
    assert bakthat.show_local_glacier_inventory(conf=other) == bakthat.show_local_glacier_inventory(
        conf=conf
    )
    # It knows sizes and descriptions now, also without the catalog of the machine that stored it.
    found = make_backend("glacier", other, vault_records(Path(other["database"])))
    described = found.stat(made.stored_filename)
    assert described.size == made.size
    assert described.metadata is not None
    assert described.metadata["set"] == "mydir"


def test_waiting_for_the_vaults_inventory_polls_until_it_is_ready(
    conf: Conf, tree: Path, glacier: GlacierServer
) -> None:
    bakthat.backup(tree, conf=conf, password="")
    pauses: list[float] = []

    def wait(seconds: float) -> None:
        pauses.append(seconds)
        glacier.advance(hours=1)

    archives = bakthat.show_glacier_inventory(conf=conf, wait=wait)
    assert archives is not None
    assert len(archives) == 1
    assert len(pauses) == 4

    def fail(_seconds: float) -> None:
        glacier.vaults[conf["glacier_vault"]].jobs.clear()

    glacier.advance(hours=30)
    with pytest.raises(StorageError, match="failed or expired"):
        bakthat.show_glacier_inventory(conf=conf, wait=fail)


def test_foreign_and_deleted_archives_are_not_added(
    conf: Conf, tree: Path, glacier: GlacierServer
) -> None:
    kept = bakthat.backup(tree, conf=conf, password="")
    gone = bakthat.backup(tree, conf=conf, password="", custom_filename="gone")
    glacier.instant = True
    # The vault's list is made up before the deletion, as it may be for a day.
    assert bakthat.show_glacier_inventory(conf=conf) is None
    bakthat.delete(gone.stored_filename, conf=conf)
    archives = bakthat.show_glacier_inventory(conf=conf)
    assert archives is not None
    assert len(archives) == 2
    assert list(bakthat.show_local_glacier_inventory(conf=conf)) == [kept.stored_filename]

    vault = glacier.vaults[conf["glacier_vault"]]
    for foreign, description in (("one", "holiday photos"), ("two", ""), ("three", "[]")):
        archive = next(iter(vault.archives.values()))
        vault.archives[foreign] = type(archive)(archive.path, description, 0.0, archive.tree_hash)
    vault.archives["old"] = type(archive)(
        archive.path, "my.20120927120000.tgz.enc", 0.0, archive.tree_hash
    )
    vault.jobs.clear()
    bakthat.show_glacier_inventory(conf=conf)
    bakthat.show_glacier_inventory(conf=conf)
    assert bakthat.show_local_glacier_inventory(conf=conf)["my.20120927120000.tgz.enc"] == "old"
    assert len(bakthat.show_local_glacier_inventory(conf=conf)) == 2


@pytest.mark.parametrize(
    "asked",
    [
        {"Format": "CSV"},
        {"Format": "JSON", "InventoryRetrievalParameters": {"Limit": "1"}},
        {"InventoryRetrievalParameters": {"StartDate": "2020-03-20T17:03:43Z"}},
    ],
)
def test_an_inventory_job_of_another_tool_is_not_used(
    conf: Conf, tree: Path, glacier: GlacierServer, asked: Conf
) -> None:
    glacier.instant = True
    for name in ("one", "two"):
        bakthat.backup(tree, conf=conf, password="", custom_filename=name)
    vault = glacier.vaults[conf["glacier_vault"]]
    glacier.begin_job(vault, json.dumps({"Type": "inventory-retrieval", **asked}).encode())
    assert bakthat.show_glacier_inventory(conf=conf) is None
    archives = bakthat.show_glacier_inventory(conf=conf)
    assert archives is not None
    assert len(archives) == 2
    assert len(glacier.asked) == 2


def test_a_vault_that_has_no_inventory_yet_says_when_to_try_again(
    conf: Conf, tree: Path, glacier: GlacierServer
) -> None:
    bakthat.backup(tree, conf=conf, password="")
    glacier.has_inventory = False
    with pytest.raises(NotFoundError, match="no inventory yet") as caught:
        bakthat.show_glacier_inventory(conf=conf)
    assert "tomorrow" in caught.value.hint


def test_a_truncated_inventory_is_an_error_of_the_storage(
    conf: Conf, tree: Path, glacier: GlacierServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    glacier.instant = True
    bakthat.backup(tree, conf=conf, password="")
    bakthat.show_glacier_inventory(conf=conf)
    job_output = glacier.job_output

    def cut(*arguments: Any) -> Any:
        status, headers, body = job_output(*arguments)
        return status, {**headers, "Content-Length": str(len(body) + 10)}, body

    with monkeypatch.context() as patch:
        patch.setattr(glacier, "job_output", cut)
        with pytest.raises(StorageError, match=conf["glacier_vault"]):
            bakthat.show_glacier_inventory(conf=conf)
    assert bakthat.show_glacier_inventory(conf=conf) is not None


def test_two_archives_with_one_name_both_stay_in_the_bucket(
    conf: Conf,
    tree: Path,
    tmp_path: Path,
    glacier: GlacierServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # A vault has no names, so that nothing but their indexes keeps two machines from the same
    # second; earlier versions made none.
    monkeypatch.setattr("bakthat.operations.backup.store.time.time", lambda: 1370373055.0)
    second = elsewhere(conf, tmp_path)
    name = bakthat.backup(tree, conf=conf, password="").stored_filename
    lose_indexes({**conf, "default_destination": "glacier"}, name)
    assert bakthat.backup(tree, conf=second, password="").stored_filename == name
    ids = {bakthat.show_local_glacier_inventory(conf=each)[name] for each in (conf, second)}
    assert len(ids) == 2
    assert [each["filename"] for each in in_bucket(conf)] == [name, name]
    assert {each["archive_id"] for each in in_bucket(conf)} == ids

    third = {**conf, "database": str(tmp_path / "third.sqlite")}
    added = bakthat.restore_glacier_inventory(conf=third)
    (other,) = ids - set(added.values())
    assert f"not {other}" in caplog.text
    caplog.clear()
    glacier.instant = True
    bakthat.show_glacier_inventory(conf=third)
    bakthat.show_glacier_inventory(conf=third)
    assert f"not {other}" in caplog.text
    bakthat.delete(name, conf=second)
    assert len(in_bucket(conf)) == 1


def test_a_catalog_may_serve_two_vaults(
    conf: Conf, tree: Path, tmp_path: Path, glacier: GlacierServer
) -> None:
    other = {**conf, "glacier_vault": "the-other-one", "s3_bucket": f"{conf['s3_bucket']}-2"}
    first = bakthat.backup(tree, conf=conf, password="").stored_filename
    second = bakthat.backup(tree, conf=other, password="").stored_filename
    assert [each["filename"] for each in in_bucket(conf)] == [first]
    assert [each["filename"] for each in in_bucket(other)] == [second]
    assert list(bakthat.show_local_glacier_inventory(conf=other)) == sorted([first, second])
    backend = make_backend("glacier", other, vault_records(Path("~/.bakthat.sqlite").expanduser()))
    assert [each.key for each in backend.ls()] == [second]
    with pytest.raises(NotFoundError, match="not known here"):
        bakthat.restore(first, conf=other, output=tmp_path / "out")
    backend.delete(first)
    assert len(glacier.archives(conf["glacier_vault"])) == 1
    assert first in bakthat.show_local_glacier_inventory(conf=conf)
    assert glacier.asked == []


def test_a_damaged_copy_is_warned_of_with_what_to_do_about_it(
    conf: Conf, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_to_bucket(conf, b"[{")
    bakthat.backup(tree, conf=conf, password="")
    assert "is damaged" in caplog.text
    assert "move it away" in caplog.text


def test_an_existing_inventory_of_060_is_used_as_it_is(
    conf: Conf, tree: Path, glacier: GlacierServer, tmp_path: Path
) -> None:
    glacier.instant = True
    made = bakthat.backup(tree, conf=conf, password="")
    # 0.6.0 recorded ids only, and wrote the stored name as the description.
    with models.catalog("~/.bakthat.sqlite", write=True):
        models.Config.delete().execute()
    for archive in glacier.archives(conf["glacier_vault"]).values():
        archive.description = made.stored_filename
    assert bakthat.restore("mydir", conf=conf, output=tmp_path / "out") is None
    assert bakthat.restore("mydir", conf=conf, output=tmp_path / "out") is not None
    assert (tmp_path / "out" / "mydir" / "a.txt").read_text() == "hello"


def test_the_index_keeps_two_machines_from_one_name(
    conf: Conf, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bakthat.operations.backup.store.time.time", lambda: 1370373055.0)
    first = bakthat.backup(tree, conf=conf, password="").stored_filename
    other = bakthat.backup(tree, conf=elsewhere(conf, tmp_path), password="").stored_filename
    assert [first, other] == ["mydir.20130604191055.tgz", "mydir.20130604191056.tgz"]
    assert sorted(each["filename"] for each in in_bucket(conf)) == [first, other]
