"""Sync of a lost, stale or shared catalog, and with foreign objects in the bucket."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.backends import make_backend
from bakthat.backends.base import Backend, StoredObject
from bakthat.backends.glacier.inventory import VaultRecords
from bakthat.errors import ContainerNotFoundError, CredentialsError, StorageError
from bakthat.helper import KeyValue
from bakthat.operations.backup.store import NewBackup
from bakthat.operations.sync import report as sync_report
from bakthat.session import session, stat
from bakthat.session.session import Session
from tests.support.commandline import CommandLine, untimed
from tests.support.fault_proxy import FaultProxy, refusal
from tests.support.legacy import PASSWORD, Legacy, beefish, tarball, value
from tests.support.profiles import Conf, write_config
from tests.support.servers import S3Server, plain, put, s3_backend

pytestmark = pytest.mark.slow

KEPT_BY_SYNC = ("backend", "backend_hash", "backup_date", "filename", "size", "stored_filename")


@pytest.fixture
def s3(moto_conf: Conf, local: Conf) -> Conf:
    plain(moto_conf).create_bucket(Bucket=moto_conf["s3_bucket"])
    return {**moto_conf, "database": local["database"]}


@pytest.fixture
def tree(tree: Path) -> Path:
    (tree / "sub").mkdir()
    return tree


def lose_catalog(conf: Conf) -> None:
    for path in Path(conf["database"]).parent.glob("catalog.sqlite*"):
        path.unlink()


def rows(conf: Conf) -> dict[str, dict[str, Any]]:
    """Return every row by its stored filename, deleted ones too, read without bakthat."""
    with sqlite3.connect(conf["database"]) as database:
        database.row_factory = sqlite3.Row
        found = {
            row["stored_filename"]: dict(row) for row in database.execute("SELECT * FROM backups")
        }
    database.close()
    for row in found.values():
        row["metadata"] = json.loads(row["metadata"])
    return found


def living(conf: Conf) -> set[str]:
    return {name for name, row in rows(conf).items() if not row["is_deleted"]}


def actions(report: sync_report.SyncReport) -> dict[str, str]:
    return {each.backup.stored_filename: each.action.value for each in report.changes}


def backend_of(conf: Conf) -> Backend:
    made = Session("default", None, conf, None)
    return made.backend(made.destination)


def contents(conf: Conf) -> dict[str, int]:
    return {each.key: each.size for each in backend_of(conf).ls()}


@pytest.fixture
def filled(conf: Conf, tree: Path) -> Conf:
    """Store one backup of each kind, a value, and something foreign."""
    bakthat.backup(tree, conf=conf, password="", tags="daily db")
    bakthat.backup(tree, conf=conf, password="secret", custom_filename="enc")
    bakthat.backup(tree / "a.txt", conf={**conf, "compress": False}, password="")
    bakthat.backup(tree, conf={**conf, "prefix": "weekly/"}, password="", custom_filename="other")
    KeyValue(conf=conf).set_key("mykey", {"some": "data"})
    put(backend_of(conf), "holiday.jpg", b"foreign")
    return conf


def test_a_lost_catalog_comes_back_from_the_storage_alone(filled: Conf, tmp_path: Path) -> None:
    before, stored = rows(filled), contents(filled)
    lose_catalog(filled)
    report = bakthat.sync(conf=filled)
    after = rows(filled)
    assert after.keys() == before.keys()
    for name, row in after.items():
        assert {column: row[column] for column in KEPT_BY_SYNC} == {
            column: before[name][column] for column in KEPT_BY_SYNC
        }
        assert row["tags"] == before[name]["tags"]
        kept = ("client", "is_enc", "kind", "encryption", "compression", "mode", "mtime_ns")
        assert {key: row["metadata"].get(key) for key in kept} == {
            key: before[name]["metadata"].get(key) for key in kept
        }
    assert set(actions(report).values()) == {"adopted"}
    assert [each.foreign for each in report.containers] == [1]
    assert contents(filled) == stored
    for name in ("mydir", "other"):
        bakthat.restore(name, conf=filled, output=tmp_path / name)
        assert (tmp_path / name / "mydir" / "a.txt").read_text() == "hello"
    bakthat.restore("enc", conf=filled, password="secret", output=tmp_path / "enc")
    bakthat.restore("a.txt", conf=filled, output=tmp_path / "file")
    assert (tmp_path / "file" / "a.txt").stat().st_mtime_ns == (
        tmp_path / "mydir" / "mydir" / "a.txt"
    ).stat().st_mtime_ns
    assert KeyValue(conf=filled).get_key("mykey") == {"some": "data"}


def test_a_second_sync_changes_nothing(filled: Conf) -> None:
    lose_catalog(filled)
    for _ in range(2):
        bakthat.sync(conf=filled)
        before = rows(filled)
    report = bakthat.sync(conf=filled)
    assert report.changes == []
    assert [each.unchanged for each in report.containers] == [5]
    assert rows(filled) == before


def test_a_catalog_that_is_right_stays_as_it_is(filled: Conf) -> None:
    before = rows(filled)
    assert bakthat.sync(conf=filled).changes == []
    assert rows(filled) == before


def test_a_dry_run_says_the_same_and_changes_nothing(filled: Conf) -> None:
    lose_catalog(filled)
    promised = bakthat.sync(conf=filled, dry_run=True)
    assert rows(filled) == {}
    assert actions(promised) == actions(bakthat.sync(conf=filled))
    backend_of(filled).delete("mykey.keyvalue")
    before = rows(filled)
    promised = bakthat.sync(conf=filled, dry_run=True)
    assert actions(promised) == {"mykey.keyvalue": "gone"}
    assert rows(filled) == before


def test_a_missing_backup_is_marked_and_a_returned_one_revived(filled: Conf) -> None:
    made = bakthat.ls("mydir", conf=filled)[0]
    backend = backend_of(filled)
    with backend.download(made.stored_filename) as stream:
        content = stream.read()
    backend.delete(made.stored_filename)
    assert actions(bakthat.sync(conf=filled)) == {made.stored_filename: "gone"}
    row = rows(filled)[made.stored_filename]
    assert row["is_deleted"] == 1
    assert row["metadata"].pop("deleted")["why"] == "gone from the storage"
    assert row["metadata"] == made.metadata
    put(backend, made.stored_filename, content)
    assert actions(bakthat.sync(conf=filled)) == {made.stored_filename: "revived"}
    row = rows(filled)[made.stored_filename]
    assert row["is_deleted"] == 0
    assert row["metadata"] == made.metadata


def test_a_deletion_that_failed_half_way_is_found_on_the_storage(
    filled: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bakthat.ls("mydir", conf=filled)[0]
    with monkeypatch.context() as patch:
        patch.setattr(models, "mark_deleted", lambda backup, why: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            bakthat.delete("mydir", conf=filled)
    assert made.stored_filename in living(filled)
    assert actions(bakthat.sync(conf=filled)) == {made.stored_filename: "gone"}


def test_a_container_that_does_not_exist_marks_nothing(filled: Conf) -> None:
    before = rows(filled)
    if filled.get("s3_bucket"):
        client = plain(filled)
        for key in [*contents(filled), *(each.key for each in backend_of(filled).ls(indexes=True))]:
            client.delete_object(Bucket=filled["s3_bucket"], Key=key)
        client.delete_bucket(Bucket=filled["s3_bucket"])
    else:
        shutil.move(filled["local_path"], filled["local_path"] + "-unmounted")
    with pytest.raises(ContainerNotFoundError, match="does not exist"):
        bakthat.sync(conf=filled)
    assert rows(filled) == before


def test_a_disk_that_is_not_mounted_is_pointed_out_and_its_backups_come_back(
    local: Conf, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bakthat.backup(tree, conf=local, password="")
    before = living(local)
    store = Path(local["local_path"])
    store.rename(store.with_name("mounted elsewhere"))
    store.mkdir()
    bakthat.sync(conf=local)
    assert living(local) == set()
    assert "none of the 1 backups" in caplog.text
    store.rmdir()
    store.with_name("mounted elsewhere").rename(store)
    bakthat.sync(conf=local)
    assert living(local) == before


@pytest.fixture
def small_pages(s3: Conf, monkeypatch: pytest.MonkeyPatch) -> Conf:
    def make_small(name: str, profile: Conf, records: VaultRecords | None) -> Backend:
        return s3_backend(profile) if name == "s3" else make_backend(name, profile, records)

    monkeypatch.setattr(session, "make_backend", make_small)
    return s3


def test_a_listing_that_fails_on_a_later_page_marks_nothing(
    small_pages: Conf, moto_proxy: FaultProxy, tree: Path
) -> None:
    conf = {**small_pages, "endpoint_url": moto_proxy.endpoint_url}
    made = bakthat.backup(tree, conf=conf, password="")
    for number in range(9):
        put(backend_of(conf), f"foreign-{number}", b"x")
    moto_proxy.on("GET", "continuation-token", refusal(403, "AccessDenied"))
    with pytest.raises(CredentialsError):
        bakthat.sync(conf=conf)
    assert living(conf) == {made.stored_filename}
    moto_proxy.rules.clear()
    assert bakthat.sync(conf=conf).changes == []


def test_all_pages_are_read(small_pages: Conf, tree: Path) -> None:
    backend = backend_of(small_pages)
    for number in range(20):
        put(backend, f"many.201306041910{number:02}.tgz", b"x" * (number + 1))
    bakthat.sync(conf=small_pages)
    assert len(living(small_pages)) == 20
    assert bakthat.sync(conf=small_pages).changes == []


def test_hundreds_of_objects_are_read_in_parallel_and_reported(s3: Conf) -> None:
    client, bucket = plain(s3), s3["s3_bucket"]
    count = stat.BATCH + 44
    for number in range(count):
        name = f"many.2013060{number // 60 + 1}1910{number % 60:02}.tgz"
        client.put_object(Bucket=bucket, Key=name, Body=b"x", Metadata={"bakthat": "{}"})
    steps: list[tuple[int, int]] = []
    bakthat.sync(conf=s3, progress=lambda done, total: steps.append((done, total)))
    assert len(living(s3)) == count
    assert steps == [(number + 1, count) for number in range(count)]


def test_only_unknown_objects_are_requested(s3: Conf, moto_proxy: FaultProxy, tree: Path) -> None:
    for name in ("one", "two", "three"):
        bakthat.backup(tree, conf=s3, password="", custom_filename=name)
    KeyValue(conf=s3).set_key("mykey", 1)
    put(backend_of(s3), "holiday.jpg", b"foreign")
    proxied = {**s3, "endpoint_url": moto_proxy.endpoint_url}
    bakthat.sync(conf=proxied)
    assert moto_proxy.seen("HEAD") == 0
    lose_catalog(s3)
    bakthat.sync(conf=proxied)
    # Each backup, the index of each, and the value.
    assert moto_proxy.seen("HEAD") == 7


def test_one_object_that_cannot_be_looked_up_stops_no_other(
    s3: Conf, moto_proxy: FaultProxy, tree: Path
) -> None:
    kept = bakthat.backup(tree, conf=s3, password="")
    locked = bakthat.backup(tree, conf=s3, password="", custom_filename="locked")
    lose_catalog(s3)
    proxied = {**s3, "endpoint_url": moto_proxy.endpoint_url}
    moto_proxy.on("HEAD", "/locked.", refusal(400, "InvalidRequest"))
    with pytest.raises(StorageError, match=r"1 objects .* could not be looked up.*locked"):
        bakthat.sync(conf=proxied)
    assert living(s3) == {kept.stored_filename}
    # What the key may not read is listed as far as its name and the listing tell.
    moto_proxy.rules.clear()
    moto_proxy.on("HEAD", "/locked.", refusal(403, "AccessDenied"))
    bakthat.sync(conf=proxied)
    assert living(s3) == {kept.stored_filename, locked.stored_filename}


# Races.


def test_a_backup_stored_during_the_listing_is_not_gone(
    conf: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bakthat.backup(tree, conf=conf, password="")
    backend = backend_of(conf)
    listed = list(backend.ls())
    made: list[str] = []

    def listing(_self: object, _prefix: str = "") -> Iterator[StoredObject]:
        made.append(bakthat.backup(tree, conf=conf, password="").stored_filename)
        yield from listed  # as it was before that

    with monkeypatch.context() as patch:
        patch.setattr(type(backend), "ls", listing)
        report = bakthat.sync(conf=conf)
    assert report.changes == []
    assert living(conf) == {first.stored_filename, *made}


def test_an_object_that_a_stale_listing_lacks_is_not_gone(
    conf: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bakthat.backup(tree, conf=conf, password="")
    with monkeypatch.context() as patch:
        patch.setattr(type(backend_of(conf)), "ls", lambda _self, _prefix="": iter(()))
        assert bakthat.sync(conf=conf).changes == []


def test_an_object_seen_before_it_is_recorded_becomes_the_entry_of_its_backup(
    conf: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = NewBackup._record
    seen: list[str] = []

    def late(self: NewBackup, row: dict[str, Any]) -> models.Backups:
        seen.extend(actions(bakthat.sync(conf=conf)).values())
        return record(self, row)

    monkeypatch.setattr(NewBackup, "_record", late)
    made = bakthat.backup(tree, conf=conf, password="")
    assert seen == ["adopted"]
    assert made.metadata["files"] == 1
    assert [row["metadata"] for row in rows(conf).values()] == [made.metadata]
    assert bakthat.sync(conf=conf).changes == []


def test_a_backup_deleted_while_it_is_looked_up_stays_deleted(
    conf: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bakthat.backup(tree, conf=conf, password="")
    backend_of(conf).delete(made.stored_filename)
    stat = type(backend_of(conf)).stat
    asked: list[str] = []

    def slow(self: Backend, key: str) -> StoredObject:
        asked.append(key)
        if len(asked) == 1:
            bakthat.delete(made.stored_filename, conf=conf)
        return stat(self, key)

    monkeypatch.setattr(type(backend_of(conf)), "stat", slow)
    assert bakthat.sync(conf=conf).changes == []
    assert living(conf) == set()


def test_two_concurrent_syncs_adopt_each_object_once(filled: Conf) -> None:
    lose_catalog(filled)
    reports: list[sync_report.SyncReport] = []
    threads = [
        threading.Thread(target=lambda: reports.append(bakthat.sync(conf=filled))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 4
    adopted = [name for report in reports for name in actions(report)]
    assert sorted(adopted) == sorted(living(filled))
    assert bakthat.sync(conf=filled).changes == []


# Changes.


def test_an_object_of_another_size_is_updated_with_a_warning(
    conf: Conf, tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = bakthat.backup(tree / "a.txt", conf={**conf, "compress": False}, password="")
    upload = backend_of(conf).upload(made.stored_filename, metadata=_described(made), replace=True)
    upload.write(b"hel")
    upload.commit()
    assert actions(bakthat.sync(conf=conf)) == {made.stored_filename: "updated"}
    assert f"{made.stored_filename} has 3 bytes now, but had 5" in caplog.text
    row = rows(conf)[made.stored_filename]
    assert (row["size"], row["metadata"]["sha256"]) == (3, made.metadata["sha256"])
    # The report of the backup still says that it was cut short.
    [checked] = bakthat.check(conf=conf, read_data=True)
    assert checked.verdict.value == "damaged"
    assert bakthat.sync(conf=conf).changes == []


def _described(made: models.Backups) -> dict[str, Any]:
    description = ("set", "date", "host", "kind", "encryption", "compression", "format", "bakthat")
    return {key: made.metadata[key] for key in description}


def test_a_value_that_another_machine_replaced_is_updated(conf: Conf, tmp_path: Path) -> None:
    KeyValue(conf=conf).set_key("mykey", "one")
    there = {**conf, "database": str(tmp_path / "there.sqlite")}
    KeyValue(conf=there).set_key("mykey", "two", password="secret")
    assert actions(bakthat.sync(conf=conf)) == {"mykey.keyvalue": "updated"}
    assert rows(conf)["mykey.keyvalue"]["metadata"]["is_enc"] is True
    assert bakthat.sync(conf=conf).changes == []


# Several containers, prefixes and hosts.


def test_the_same_name_in_two_containers_is_reported_and_no_error(
    s3: Conf, local: Conf, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    both = {**local, **s3, "default_destination": "s3"}
    made = bakthat.backup(tree, conf=both, password="")
    Path(local["local_path"]).mkdir()
    name = made.stored_filename
    put(Session("default", None, both).backend("local"), name, b"another")
    report = bakthat.sync(conf=both)
    assert actions(report) == {name: "name taken"}
    assert f"the first is {name}" in caplog.text
    assert rows(both)[name]["backend"] == "s3"
    # Once the other one is gone, the name is free.
    bakthat.delete(name, conf=both)
    assert actions(bakthat.sync(conf=both)) == {name: "adopted"}
    row = rows(both)[name]
    assert (row["backend"], row["size"], row["is_deleted"]) == ("local", 7, 0)
    assert "sha256" not in row["metadata"]


def test_a_container_that_nobody_uses_is_no_error(s3: Conf, tree: Path) -> None:
    bakthat.backup(tree, conf=s3, password="")
    report = bakthat.sync(conf=s3)
    assert [each.backend for each in report.containers] == ["s3"]
    with pytest.raises(ContainerNotFoundError):
        bakthat.sync("local", conf={**s3, "local_path": "~/nothing"})


def test_one_container_that_fails_stops_no_other(local: Conf, s3: Conf, tree: Path) -> None:
    both = {**s3, "local_path": local["local_path"]}
    bakthat.backup(tree, "local", conf=both, password="")
    lose_catalog(both)
    with pytest.raises(ContainerNotFoundError):
        bakthat.sync(conf={**both, "s3_bucket": "missing-bucket"})
    assert len(living(both)) == 1


def test_every_host_below_a_prefix_with_hosts_is_adopted(
    conf: Conf, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = {**conf, "prefix": "backups/{host}/"}
    for host in ("alpha", "beta"):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        bakthat.backup(tree, conf=conf, password="")
    lose_catalog(conf)
    bakthat.sync(conf=conf)
    monkeypatch.setattr(socket, "gethostname", lambda: "gamma")
    found = bakthat.ls("mydir", conf=conf)
    assert sorted((each.host, each.filename) for each in found) == [
        ("alpha", "mydir"),
        ("beta", "mydir"),
    ]
    bakthat.restore("mydir", conf=conf, host="alpha", output=tmp_path / "out")
    assert (tmp_path / "out" / "mydir" / "a.txt").read_text() == "hello"


@pytest.mark.parametrize("prefix", ["box-", "a/b/", "{host}-"])
def test_a_prefix_without_a_slash_leaves_the_set_its_name(
    conf: Conf, tree: Path, prefix: str, tmp_path: Path
) -> None:
    bakthat.backup(tree, conf={**conf, "prefix": prefix}, password="")
    for other in (prefix, ""):  # also another profile that shares the container
        lose_catalog(conf)
        bakthat.sync(conf={**conf, "prefix": other})
        [found] = bakthat.ls("mydir", conf=conf)
        assert found.filename == "mydir"
        bakthat.restore("mydir", conf=conf, output=tmp_path / "out")


def test_a_changed_prefix_hides_nothing(conf: Conf, tree: Path) -> None:
    made = bakthat.backup(tree, conf={**conf, "prefix": "old/"}, password="")
    report = bakthat.sync(conf={**conf, "prefix": "new/"})
    assert report.changes == []
    assert living(conf) == {made.stored_filename}


def test_internal_files_of_the_local_store_are_not_adopted(local: Conf) -> None:
    store = Path(local["local_path"])
    store.mkdir()
    (store / "mydir.20130604191055.tgz.bakthat.json").write_text("{}")
    (store / f".bakthat-{'0' * 32}.tmp").write_text("half")
    (store / "mydir.20130604191056.tgz").symlink_to("/etc/passwd")
    (store / "mydir.20130604191057.tgz").mkdir()
    report = bakthat.sync(conf=local)
    assert report.changes == []
    assert [each.foreign for each in report.containers] == [0]


# 0.6.0.


@pytest.fixture
def old(moto_endpoint: S3Server, local: Conf) -> Legacy:
    legacy = Legacy(moto_endpoint.conf(), Path(local["database"]))
    enc, clear = {"is_enc": True, "client": "oldhost"}, {"is_enc": False, "client": "oldhost"}
    files = {"a.txt": b"hello"}
    body = beefish(tarball("mydir", files))
    legacy.store("mydir.20130604191055.tgz.enc", "mydir", body, enc, 1370373055)
    legacy.store("www.20130604200000.tgz", "www", tarball("www", files), clear, 1370376000)
    legacy.store("older20130101000000.tgz", "older", tarball("older", files), clear, 1356998400)
    description = {"KeyValue": True, "is_enc": False, "is_gzipped": True}
    legacy.store("mykey", "mykey", value([1]), description, 1370373055)
    return legacy


def test_a_catalog_of_060_is_not_changed(old: Legacy) -> None:
    before = rows(old.conf)
    assert bakthat.sync(conf=old.conf).changes == []
    assert rows(old.conf) == before


def test_backups_of_060_are_adopted_by_their_names(old: Legacy, tmp_path: Path) -> None:
    before = rows(old.conf)
    lose_catalog(old.conf)
    report = bakthat.sync(conf=old.conf)
    after = rows(old.conf)
    # Its values do not say what they are.
    assert [each.foreign for each in report.containers] == [1]
    assert before.keys() - after.keys() == {"mykey"}
    for name, row in after.items():
        assert (row["filename"], row["backup_date"], row["size"]) == (
            before[name]["filename"],
            before[name]["backup_date"],
            before[name]["size"],
        )
    for name in ("mydir", "www", "older"):
        bakthat.restore(name, conf=old.conf, output=tmp_path, password=PASSWORD)
        assert (tmp_path / name / "a.txt").read_text() == "hello"
    assert KeyValue(conf=old.conf).get_key("mykey") == [1]


def test_entries_of_060_are_found_again_after_a_change_of_keys(old: Legacy) -> None:
    rotated = {**old.conf, "access_key": "new-access-key", "secret_key": "new"}
    assert bakthat.ls(conf=rotated) == []
    bakthat.sync(conf=rotated)
    found = bakthat.ls(conf=rotated)
    assert {each.host for each in found} == {"oldhost"}
    assert len(found) == 3
    assert bakthat.sync(conf=rotated).changes == []


def test_objects_of_060_that_are_gone_are_marked(old: Legacy) -> None:
    client = plain(old.conf)
    client.delete_object(Bucket=old.conf["s3_bucket"], Key="mykey")
    client.delete_object(Bucket=old.conf["s3_bucket"], Key="www.20130604200000.tgz")
    assert actions(bakthat.sync(conf=old.conf)) == {
        "mykey": "gone",
        "www.20130604200000.tgz": "gone",
    }


# Strangers.

HOSTILE: dict[str, str] = {
    "no JSON": "{",
    "deep": "[" * 100_000,
    "a list": "[1, 2]",
    "a number": "7",
    "null": "null",
    "wrong types": json.dumps(
        {"set": 7, "date": "now", "host": [], "tags": {}, "kind": 1, "format": "x", "mode": -1}
    ),
    "huge numbers": json.dumps({"set": "my", "date": 10**40, "format": 10**30, "mtime_ns": 10**50}),
    "an infinite date": '{"set": "my", "date": Infinity, "format": 1}',
    "terminal": json.dumps({"set": "\x1b[2Jmy", "host": "\x1b]0;x\x07", "tags": "\x9b31m"}),
    "surrogates": '{"set": "\\ud800", "host": "\\udfff", "tags": "\\ud800"}',
    "a path": json.dumps({"set": "../../etc", "name": "../../etc/passwd", "kind": "file"}),
    "a value": json.dumps({"set": "my", "kind": "keyvalue", "KeyValue": True, "is_gzipped": 1}),
    "sql": json.dumps({"set": "my'; DROP TABLE backups; --", "tags": "$(reboot) `id` ; '"}),
    "a catalog": json.dumps({"is_deleted": 1, "backend": "local", "stored_filename": "x", "id": 1}),
}


@pytest.mark.parametrize("description", HOSTILE)
def test_a_hostile_description_neither_stops_nor_injects(
    local: Conf, isolated_environment: Path, tmp_path: Path, tree: Path, description: str
) -> None:
    good = bakthat.backup(tree, conf=local, password="")
    store = Path(local["local_path"])
    bad = "my.20130604191055.tgz"
    (store / bad).write_bytes(b"x")
    (store / f"{bad}.bakthat.json").write_text(HOSTILE[description])
    (store / "evil.keyvalue").write_bytes(b"x")
    (store / "evil.keyvalue.bakthat.json").write_text(HOSTILE[description])
    lose_catalog(local)
    bakthat.sync(conf=local)
    found = rows(local)
    assert {good.stored_filename, bad} <= set(found) <= {good.stored_filename, bad, "evil.keyvalue"}
    row = found[bad]
    assert (row["filename"], row["backup_date"], row["size"]) == ("my", 1370373055, 1)
    assert (row["backend"], row["is_deleted"]) == ("local", 0)
    assert (row["tags"] + row["metadata"]["client"]).isprintable()
    assert not {"KeyValue", "is_gzipped", "is_deleted", "id"} & set(row["metadata"])
    config = isolated_environment / ".bakthat.yml"
    write_config(config, default=local)
    shown = CommandLine(isolated_environment, tmp_path).run("show")
    assert shown.code == 0
    assert all(char.isprintable() for char in shown.stdout.replace("\n", ""))
    assert bakthat.sync(conf=local).changes == []


@pytest.mark.parametrize(
    "key",
    [
        "\x1b[2J.20130604191055.tgz",
        "a//b.20130604191055.tgz",
        "../my.20130604191055.tgz",
        "photos/my.20130604191055.tgz",
        "my.20130604191055",
        "my.20139904191055.tgz",
        "my.99999999999999.tgz",
        ".20130604191055.tgz",
        "-rf.20130604191055.tgz",
        f"{'n' * 300}.20130604191055.tgz",
    ],
)
def test_keys_that_bakthat_would_not_make_are_left_alone(s3: Conf, key: str) -> None:
    plain(s3).put_object(Bucket=s3["s3_bucket"], Key=key, Body=b"x")
    report = bakthat.sync(conf=s3)
    if key.startswith("-rf"):
        assert living(s3) == {key}  # a name like any other
    else:
        assert living(s3) == set()
        assert [each.foreign for each in report.containers] == [1]


# The command line.


@pytest.fixture
def user(user: CommandLine, tree: Path) -> CommandLine:
    assert tree.parent == user.directory  # where the commands run
    return user


def test_on_a_new_machine_sync_and_restore_are_enough(user: CommandLine, tmp_path: Path) -> None:
    assert user.run("backup", "mydir", "--prompt", "no").code == 0
    for path in user.home.glob(".bakthat.sqlite*"):
        path.unlink()
    before = user.run("sync", "--dry-run")
    assert before.code == 0
    header, row = before.stdout.splitlines()
    assert header.split() == ["WHAT", "DATE", "(UTC)", "WHERE", "HOST", "SIZE", "NAME"]
    assert row.startswith("adopted  20")
    assert "Would sync local" in before.stderr
    done = user.run("sync")
    assert (done.code, done.stdout) == (0, "")
    assert untimed(done.stderr).endswith("/.bakthat_store: 1 adopted, 0 unchanged\n")
    (again,) = user.run("sync", "--json").lines("summary")
    assert (again["pending"], again["containers"][0]["unchanged"]) == (False, 1)
    assert user.run("restore", "mydir", "-o", "out").code == 0
    assert (tmp_path / "out" / "mydir" / "a.txt").read_text() == "hello"


def test_a_terminal_shows_the_progress(user: CommandLine) -> None:
    assert user.run("backup", "mydir", "--prompt", "no").code == 0
    for path in user.home.glob(".bakthat.sqlite*"):
        path.unlink()
    code, screen = user.converse("sync")
    assert code == 0
    assert "Syncing" in screen
    assert "1 adopted" in " ".join(screen.split())


def test_a_missing_container_is_one_line_and_exit_code_1(user: CommandLine) -> None:
    done = user.run("sync")
    assert done.code == 1
    assert "does not exist" in done.stderr.splitlines()[0]


def test_on_error_fires_for_a_sync_that_failed(local: Conf) -> None:
    fired: list[tuple[Any, ...]] = []

    def listener(*arguments: object) -> None:
        fired.append(arguments)

    bakthat.events.on_error += listener
    try:
        with pytest.raises(ContainerNotFoundError):
            bakthat.sync(conf=local)
    finally:
        bakthat.events.on_error -= listener
    assert [each[1] for each in fired] == ["sync"]
