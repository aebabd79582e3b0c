"""A backup is locked as soon as it is stored, with its index and all that it needs."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.backends.lock import Lock
from bakthat.backends.s3 import upload as s3_upload
from bakthat.backends.s3.backend import S3Backend
from bakthat.errors import ConfigError, KeyExistsError, StorageError
from bakthat.format.names import index_key
from bakthat.operations.retention.operation import carry_out
from bakthat.operations.retention.plan import plan_rotation
from bakthat.session.session import Session
from tests.operations.locks.conftest import LOCKED
from tests.support.fault_proxy import fault_proxy, refusal
from tests.support.profiles import Conf
from tests.support.servers import S3Server
from tests.support.versions import hold, lock, make_bucket, put_version

DAY = 86400


def backup(tree: Path, conf: Conf, **more: Any) -> Any:
    return bakthat.backup(tree, "s3", conf=conf, prompt="no", **more)


def test_backup_and_its_index_are_locked(locking_conf: Conf, tree: Path) -> None:
    entry = backup(tree, locking_conf)
    backend = S3Backend(locking_conf)
    assert backend.has_locks()
    wanted = Lock(entry.date + 30 * DAY, "governance")
    assert backend.lock_of(entry.stored_filename) == wanted
    assert backend.lock_of(index_key(entry.stored_filename)) == wanted
    assert entry.metadata["lock"] == {"mode": "governance", "until": entry.date + 30 * DAY}
    assert entry.is_complete


def test_upload_in_parts_is_locked_too(
    locking_conf: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # moto ignores a lock that is asked for with an upload in parts; so it is set afterwards.
    monkeypatch.setattr(S3Backend, "settings_of", staticmethod(_small_parts))
    (tree / "large").write_bytes(bytes(range(256)) * 4096 * 12)
    entry = backup(tree, {**locking_conf, "compress": False})
    assert entry.size > 2 * 5 * 1024 * 1024
    assert S3Backend(locking_conf).lock_of(entry.stored_filename).until == entry.date + 30 * DAY


def _small_parts(conf: Conf) -> Any:
    from dataclasses import replace

    from bakthat.backends.s3.client import S3Settings

    return replace(S3Settings.of_profile(conf), part_size=5 * 1024 * 1024)


def test_lock_of_an_increment_covers_what_it_needs(locking_conf: Conf, tree: Path) -> None:
    conf = {**locking_conf, "object_lock": {"mode": "governance", "days": 2}, "incremental": True}
    (tree / "large").write_bytes(random.Random(1).randbytes(200_000))
    full = backup(tree, conf)
    (tree / "new").write_text("new")
    increment = backup(tree, {**conf, "object_lock": {"mode": "governance", "days": 9}})
    assert increment.is_increment
    backend = S3Backend(conf)
    end = increment.date + 9 * DAY
    for key in (full.stored_filename, increment.stored_filename):
        assert backend.lock_of(key).until == end
        assert backend.lock_of(index_key(key)).until == end
    listed = {each.stored_filename: each for each in bakthat.ls(conf=conf)}
    assert listed[full.stored_filename].metadata["lock"]["until"] == end


def test_time_from_the_rotation(locking_conf: Conf, tree: Path) -> None:
    conf = {
        **locking_conf,
        "object_lock": {"mode": "compliance", "days": "retention"},
        "rotation": {"days": 2, "months": 1},
    }
    entry = backup(tree, conf)
    lock = S3Backend(conf).lock_of(entry.stored_filename)
    moment = time.gmtime(lock.until)
    assert lock.mode == "compliance"
    assert (moment.tm_mday, moment.tm_hour) in ((2, 0), (3, 0), (4, 0))


@pytest.mark.parametrize("server", ["moto", "rclone", "seaweedfs"])
def test_bucket_without_object_lock_is_refused_before_anything_is_sent(
    server: str, request: pytest.FixtureRequest, tree: Path
) -> None:
    endpoint: S3Server = request.getfixturevalue(f"{server}_endpoint")
    conf = endpoint.conf(password="")
    S3Backend(conf).create_container()
    with pytest.raises(ConfigError, match="has no object lock"):
        backup(tree, {**conf, **LOCKED})
    backend = S3Backend(conf)
    assert [*backend.ls(), *backend.ls(indexes=True)] == []


def test_lock_is_never_made_shorter(locking_conf: Conf, tree: Path) -> None:
    entry = backup(tree, locking_conf)
    backend = S3Backend(locking_conf)
    before = backend.lock_of(entry.stored_filename)
    backend.extend_lock(entry.stored_filename, Lock(time.time() + DAY, "governance"))
    assert backend.lock_of(entry.stored_filename) == before


def test_hold_stays_when_a_lock_is_extended(locking_conf: Conf, tree: Path) -> None:
    entry = backup(tree, locking_conf)
    backend = S3Backend(locking_conf)
    backend.set_hold(entry.stored_filename, is_held=True)
    later = float(entry.date + 60 * DAY)
    backend.extend_lock(entry.stored_filename, Lock(later, "governance"))
    assert backend.lock_of(entry.stored_filename) == Lock(later, "governance", True)
    backend.set_hold(entry.stored_filename, is_held=False)
    assert backend.lock_of(entry.stored_filename) == Lock(later, "governance")


def test_second_upload_of_a_locked_key_is_refused(locking_conf: Conf, tree: Path) -> None:
    entry = backup(tree, locking_conf)
    upload = S3Backend(locking_conf).upload(entry.stored_filename, metadata={})
    upload.write(b"other")
    with pytest.raises(KeyExistsError):
        upload.commit()
    upload.abort()


def test_lock_that_the_storage_ignores_is_a_warning(
    moto_conf: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_upload, "lock_headers", lambda lock: {})
    monkeypatch.setattr(
        "bakthat.backends.s3.locks.BucketLocks.extend", lambda self, key, lock: None
    )
    entry = backup(tree, {**moto_conf, **LOCKED, "password": ""})
    assert not entry.is_complete
    assert "did not lock it" in entry.metadata["warnings"][0]
    assert "lock" not in entry.metadata


def test_upload_that_takes_longer_than_its_lock_is_stored_and_says_so(
    locking_conf: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A storage refuses a lock that is over; a backup of days must not be lost at its end by that.
    past = Lock(int(time.time()) - 1, "governance")
    monkeypatch.setattr("bakthat.session.locks.retention.lock_of_new", lambda *_: past)
    entry = backup(tree, locking_conf)
    assert not entry.is_complete
    assert entry.metadata["warning_count"] == 1
    assert "lock" not in entry.metadata
    backend = S3Backend(locking_conf)
    for key in (entry.stored_filename, index_key(entry.stored_filename)):
        assert backend.lock_of(key) == Lock()
    bakthat.restore("mydir", conf=locking_conf, prompt="no", output=tree.parent / "restored")


@pytest.mark.parametrize("is_damaged", [False, True])
def test_index_that_is_made_again_is_locked_and_held_as_its_archive(
    locking_conf: Conf, tree: Path, is_damaged: bool
) -> None:
    make_bucket(locking_conf, locks=True)
    entry = backup(tree, {**locking_conf, "object_lock": {}})
    backend = S3Backend(locking_conf)
    key, index = entry.stored_filename, index_key(entry.stored_filename)
    if is_damaged:
        put_version(locking_conf, index, b"damaged")
    else:
        backend.delete(index)
    until = int(time.time()) + 9 * DAY
    lock(locking_conf, key, until)
    hold(locking_conf, key)
    bakthat.sync("s3", conf=locking_conf, indexes=True)
    assert backend.lock_of(index) == backend.lock_of(key) == Lock(until, "governance", True)


@pytest.mark.parametrize("status", [400, 403])
def test_index_is_made_again_where_the_locks_cannot_be_looked_at(
    moto_endpoint: S3Server, tree: Path, status: int
) -> None:
    with fault_proxy(moto_endpoint.endpoint_url) as proxy:
        conf = {**moto_endpoint.conf(password=""), "endpoint_url": proxy.endpoint_url}
        entry = backup(tree, conf)
        backend = S3Backend(conf)
        backend.delete(index_key(entry.stored_filename))
        proxy.on("GET", "object-lock", refusal(status, "AccessDenied"))
        bakthat.sync("s3", conf=conf, indexes=True)
        assert backend.stat(index_key(entry.stored_filename)).size
        assert proxy.seen("GET", "object-lock")


def test_what_it_needs_cannot_be_locked_so_a_full_is_made(
    moto_conf: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    conf = {**moto_conf, **LOCKED, "password": "", "incremental": True}
    (tree / "large").write_bytes(random.Random(1).randbytes(200_000))
    full = backup(tree, conf)
    (tree / "new").write_text("new")
    later = {**conf, "object_lock": {"mode": "governance", "days": 60}}

    def refuse(self: S3Backend, key: str, lock: Lock) -> None:
        raise StorageError(f"{key} refused")

    with monkeypatch.context() as patch, caplog.at_level("INFO", "bakthat"):
        patch.setattr(S3Backend, "extend_lock", refuse)
        second = backup(tree, later)
    assert not second.is_increment
    assert "what it needs cannot be locked for as long" in caplog.text
    assert S3Backend(conf).lock_of(full.stored_filename).until == full.date + 30 * DAY


def test_catalog_keeps_the_stricter_mode_of_a_lock_that_lasts_longer(
    locking_conf: Conf, tree: Path
) -> None:
    strict = {"object_lock": {"mode": "compliance", "days": 2}, "incremental": True}
    (tree / "large").write_bytes(random.Random(1).randbytes(200_000))
    full = backup(tree, {**locking_conf, **strict})
    (tree / "new").write_text("new")
    weaker = {**locking_conf, **strict, "object_lock": {"mode": "governance", "days": 9}}
    assert backup(tree, weaker).is_increment
    assert S3Backend(weaker).lock_of(full.stored_filename).mode == "compliance"
    listed = {each.stored_filename: each for each in bakthat.ls(conf=weaker)}
    assert listed[full.stored_filename].metadata["lock"]["mode"] == "compliance"


@pytest.mark.parametrize("days", [30, 40])
def test_lock_that_cannot_be_made_stricter_lasts_longer_all_the_same(
    locking_conf: Conf, tree: Path, days: int
) -> None:
    # SeaweedFS makes no lock stricter without the right to lift it; moto does.
    conf = {**locking_conf, "rotation": {"days": 7}}
    entry = backup(tree, conf)
    key = entry.stored_filename
    conf["object_lock"] = {"mode": "compliance", "days": days}
    session = Session("default", None, conf, "s3")
    for _ in range(2):
        plan = plan_rotation(session, "mydir")
        carry_out(session, plan)
        assert plan.extensions.problems == []
        found = S3Backend(conf).lock_of(key)
        assert found.until == entry.date + days * DAY
        assert S3Backend(conf).lock_of(index_key(key)) == found
        [listed] = bakthat.ls(conf=conf)
        assert listed.metadata["lock"] == {"mode": found.mode, "until": found.until}
