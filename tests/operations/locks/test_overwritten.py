"""Somebody overwrites or deletes what is locked: the version of the backup is what counts."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import bakthat
from bakthat.backends.lock import Lock
from bakthat.backends.s3.backend import S3Backend
from bakthat.errors import NotFoundError, StorageError
from bakthat.format.names import index_key
from tests.support.profiles import Conf
from tests.support.servers import plain
from tests.support.versions import mark, put_version

DAY = 86400


def back_up(conf: Conf, tree: Path) -> str:
    """Make a backup, and return its name."""
    return str(bakthat.backup(tree, "s3", conf=conf, prompt="no").stored_filename)


def overwrite(conf: Conf, key: str) -> None:
    put_version(conf, key, b"give us money")


def overwrite_and_delete(conf: Conf, key: str) -> None:
    overwrite(conf, key)
    mark(conf, key)


Attack = Callable[[Conf, str], None]


def versions_of(conf: Conf, key: str) -> list[str]:
    """Return the ids of the versions of a key that are not delete markers, the newest first."""
    listed = plain(conf).list_object_versions(Bucket=conf["s3_bucket"], Prefix=key)
    return [each["VersionId"] for each in listed["Versions"] if each["Key"] == key]


def lock_of(conf: Conf, key: str, version_id: str) -> tuple[float, bool]:
    """Return until when a version is locked, 0 for not at all, and whether it is on hold."""
    head = plain(conf).head_object(Bucket=conf["s3_bucket"], Key=key, VersionId=version_id)
    until = head.get("ObjectLockRetainUntilDate")
    return until.timestamp() if until else 0, head.get("ObjectLockLegalHoldStatus") == "ON"


@pytest.mark.parametrize("attack", [overwrite, mark, overwrite_and_delete])
def test_lock_of_the_first_version_is_extended_no_other_is_locked_and_it_is_said(
    attack: Attack, locking_conf: Conf, tree: Path
) -> None:
    name = back_up(locking_conf, tree)
    lock = Lock(time.time() // 1 + 60 * DAY, "governance")
    for key in (name, index_key(name)):
        attack(locking_conf, key)
        *others, first = versions_of(locking_conf, key)
        backend = S3Backend(locking_conf)
        for _ in range(2):  # also when it lasts as long already
            with pytest.raises(StorageError, match=r" was (overwritten|deleted) on 20") as caught:
                backend.extend_lock(key, lock)
            assert isinstance(caught.value, NotFoundError) is (attack is not overwrite)
            assert "bakthat undelete" in caught.value.hint
        assert lock_of(locking_conf, key, first) == (lock.until, False)
        assert all(lock_of(locking_conf, key, each) == (0, False) for each in others)
        assert backend.lock_of(key) == lock


def test_hold_is_of_the_first_version_and_released_there(
    locking_conf: Conf, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = back_up(locking_conf, tree)
    for key in (name, index_key(name)):
        overwrite(locking_conf, key)
    for is_held in (True, False):
        if is_held:
            bakthat.hold(name, reason="audit", conf=locking_conf)
        else:
            bakthat.release(name, conf=locking_conf)
        for key in (name, index_key(name)):
            other, first = versions_of(locking_conf, key)
            assert lock_of(locking_conf, key, first)[1] is is_held
            assert lock_of(locking_conf, key, other) == (0, False)
        assert caplog.text.count("that version is put on hold") == 2 * is_held
        caplog.clear()


@pytest.mark.parametrize("attacked", ["archive", "index"])
def test_rotation_extends_the_lock_of_what_was_overwritten_and_says_so_each_time(
    locking_conf: Conf, tree: Path, caplog: pytest.LogCaptureFixture, attacked: str
) -> None:
    name = back_up(locking_conf, tree)
    key = name if attacked == "archive" else index_key(name)
    overwrite(locking_conf, key)
    rule = {"mode": "governance", "days": 300}
    conf = {**locking_conf, "object_lock": rule, "rotation": {"days": 7}}
    for _ in range(2):
        assert bakthat.rotate_backups("mydir", "s3", conf=conf) == []
        for each in (name, index_key(name)):
            *others, first = versions_of(conf, each)
            assert lock_of(conf, each, first)[0] > time.time() + 299 * DAY
            assert [lock_of(conf, each, other) for other in others] == [(0, False)] * (each == key)
        assert f"{name} is not locked until" in caplog.text
        assert "was overwritten on" in caplog.text
        caplog.clear()


def test_nothing_is_made_from_a_backup_that_was_overwritten(locking_conf: Conf, tree: Path) -> None:
    conf = {
        **locking_conf,
        "incremental": True,
        "object_lock": {"mode": "governance", "days": 2},
    }
    (tree / "large").write_bytes(random.Random(1).randbytes(200_000))
    name = back_up(conf, tree)
    stored = plain(conf).get_object(Bucket=conf["s3_bucket"], Key=name)
    body = bytes(stored["ContentLength"])  # as large, and described as the backup was
    plain(conf).put_object(
        Bucket=conf["s3_bucket"], Key=name, Body=body, Metadata=stored["Metadata"]
    )
    (tree / "new").write_text("new")
    conf["object_lock"] = {"mode": "governance", "days": 9}
    assert ".inc." not in back_up(conf, tree)


def test_key_that_has_only_a_delete_marker_is_not_stored(locking_conf: Conf) -> None:
    backend = S3Backend(locking_conf)
    backend.create_container()
    mark(locking_conf, "p/mydir.20200101000000.tgz")
    for change in (
        lambda key: backend.extend_lock(key, Lock(time.time() + DAY, "governance")),
        lambda key: backend.set_hold(key, is_held=True),
        backend.lock_of,
    ):
        with pytest.raises(NotFoundError):
            change("p/mydir.20200101000000.tgz")


def test_what_was_brought_back_is_locked_and_on_hold_beside_the_first_version(
    locking_conf: Conf, tree: Path
) -> None:
    name = back_up(locking_conf, tree)
    for key in (name, index_key(name)):
        overwrite(locking_conf, key)
    bakthat.undelete(name, conf=locking_conf)
    lock = Lock(time.time() // 1 + 60 * DAY, "governance")
    bakthat.hold(name, reason="audit", conf=locking_conf)
    for key in (name, index_key(name)):
        S3Backend(locking_conf).extend_lock(key, lock)
        copy, other, first = versions_of(locking_conf, key)
        for each in (copy, first):
            assert lock_of(locking_conf, key, each) == (lock.until, True)
        assert lock_of(locking_conf, key, other) == (0, False)


def test_what_was_stored_before_the_backup_is_not_taken_for_it(
    locking_conf: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = S3Backend(locking_conf)
    backend.create_container()
    now = int(time.time()) + 60
    key = "p/mydir." + time.strftime("%Y%m%d%H%M%S", time.gmtime(now)) + ".tgz"
    overwrite_and_delete(locking_conf, key)
    monkeypatch.setattr(time, "time", lambda: float(now))
    assert back_up(locking_conf, tree) == key
    lock = Lock(now + 60 * DAY, "governance")
    backend.extend_lock(key, lock)
    backup, other = versions_of(locking_conf, key)
    assert lock_of(locking_conf, key, backup) == (lock.until, False)
    assert lock_of(locking_conf, key, other) == (0, False)
