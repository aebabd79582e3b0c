"""Deletions of backups that are locked or on hold: told apart, left as they are, deleted later."""

from __future__ import annotations

import logging
import random
import time
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.backends.base import StoredObject
from bakthat.backends.s3.backend import S3Backend
from bakthat.backends.s3.upload import S3Upload
from bakthat.errors import CredentialsError, LockedObjectError, StorageError
from bakthat.format.names import index_key
from bakthat.helper import KeyValue
from bakthat.jobs.report import JobOutcome
from tests.support.fault_proxy import Answer, FaultProxy, LoseAnswer, fault_proxy, refusal
from tests.support.profiles import Conf, write_config
from tests.support.servers import S3Server, s3_backend
from tests.support.versions import (
    hold,
    lock,
    make_bucket,
    mark,
    markers_in,
    put_version,
    set_versions,
    versions_in,
)

DAY = 86400


@pytest.fixture(params=["moto", "seaweedfs"])
def conf(request: pytest.FixtureRequest) -> Conf:
    """Return a flat profile of each server that knows locks; its bucket has object lock."""
    server: S3Server = request.getfixturevalue(f"{request.param}_endpoint")
    made: Conf = server.conf(password="", default_destination="s3")
    make_bucket(made, locks=True)
    return made


@pytest.fixture
def moto_locks(moto_endpoint: S3Server) -> Conf:
    made: Conf = moto_endpoint.conf(password="", default_destination="s3")
    make_bucket(made, locks=True)
    return made


def back_up(
    tree: Path, conf: Conf, monkeypatch: pytest.MonkeyPatch, *ages: int, **options: Any
) -> list[models.Backups]:
    """Make a backup of each age, in days."""
    made = []
    for age in ages:
        moment = time.time() - age * DAY
        (tree / "changes").write_text(f"{age}")
        with monkeypatch.context() as patch:
            patch.setattr("bakthat.operations.backup.store.time.time", lambda moment=moment: moment)
            made.append(bakthat.backup(tree, conf=conf, **options))
    return made


def name_of(backup: models.Backups) -> str:
    return str(backup.stored_filename)


def listed(conf: Conf) -> list[str]:
    return sorted(name_of(each) for each in bakthat.ls(conf=conf))


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno == level]


def with_index(*backups: models.Backups) -> dict[str, int]:
    keys = [name_of(each) for each in backups]
    return dict.fromkeys([*keys, *map(index_key, keys)], 1)


def shown(until: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(until))


# One backup


def test_a_deletion_leaves_no_version(conf: Conf, tree: Path) -> None:
    made = bakthat.backup(tree, conf=conf)
    put_version(conf, name_of(made), b"of somebody who has the keys")
    mark(conf, index_key(name_of(made)))
    bakthat.delete("mydir", conf=conf)
    assert versions_in(conf) == {}
    assert listed(conf) == []


@pytest.mark.parametrize("part", ["archive", "index", "archive below a marker"])
@pytest.mark.parametrize("versions", ["delete", "keep"])
def test_a_locked_backup_is_refused_with_the_date(
    conf: Conf, tree: Path, part: str, versions: str
) -> None:
    made = bakthat.backup(tree, conf=conf)
    key, until = name_of(made), int(time.time()) + DAY
    lock(conf, index_key(key) if part == "index" else key, until)
    if "marker" in part:
        mark(conf, key)
    before = versions_in(conf)
    with pytest.raises(LockedObjectError) as caught:
        bakthat.delete("mydir", conf={**conf, "versions": versions})
    assert str(caught.value) == f"{key} is locked until {shown(until)}"
    assert caught.value.until == until
    assert versions_in(conf) == before
    assert listed(conf) == [key]


def test_a_backup_on_hold_is_refused_with_the_reason(conf: Conf, tree: Path) -> None:
    made = bakthat.backup(tree, conf=conf)
    hold(conf, index_key(name_of(made)))
    with pytest.raises(LockedObjectError, match=r"tgz is on hold$") as caught:
        bakthat.delete("mydir", conf=conf)
    assert caught.value.is_held
    with models.catalog("~/.bakthat.sqlite", write=True):
        row = models.Backups.get()
        models.add_metadata(row, {"hold": {"reason": "a lawsuit", "date": 1}})
    with pytest.raises(LockedObjectError, match=r"tgz is on hold \(a lawsuit\)$"):
        bakthat.delete("mydir", conf=conf)
    assert versions_in(conf) == with_index(made)
    hold(conf, index_key(name_of(made)), is_held=False)
    bakthat.delete("mydir", conf=conf)
    assert versions_in(conf) == {}


def test_nothing_is_deleted_of_a_chain_with_a_locked_increment(
    conf: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "large").write_bytes(random.Random(1).randbytes(200_000))
    made = back_up(tree, {**conf, "incremental": True}, monkeypatch, 3, 2, 1)
    assert made[2].is_increment
    lock(conf, name_of(made[1]), time.time() + DAY)
    with pytest.raises(LockedObjectError, match=f"{name_of(made[1])} is locked"):
        bakthat.delete(name_of(made[0]), conf=conf, with_dependents=True)
    assert versions_in(conf) == with_index(*made)
    assert len(listed(conf)) == 3


def test_a_backup_that_is_gone_from_the_storage_is_only_marked(conf: Conf, tree: Path) -> None:
    made = bakthat.backup(tree, conf=conf)
    s3_backend(conf).delete(name_of(made))
    bakthat.delete("mydir", conf=conf)
    assert versions_in(conf) == {}
    assert listed(conf) == []


def test_in_a_bucket_with_versions_a_missing_permission_is_a_warning(
    proxied_conf: Conf, moto_proxy: FaultProxy, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    set_versions(proxied_conf, "Enabled")
    conf = {**proxied_conf, "password": "", "default_destination": "s3"}
    made = bakthat.backup(tree, conf=conf)
    moto_proxy.on("DELETE", "versionId=", refusal(403, "AccessDenied"))
    caplog.clear()
    bakthat.delete("mydir", conf=conf)
    (warning,) = lines(caplog, logging.WARNING)
    assert "allow s3:DeleteObjectVersion" in warning
    assert versions_in(proxied_conf) == dict.fromkeys(with_index(made), 2)
    assert listed(conf) == []


def test_a_backup_that_may_be_locked_is_not_hidden(
    moto_locks: Conf, moto_proxy: FaultProxy, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = {**moto_locks, "endpoint_url": moto_proxy.endpoint_url}
    (made,) = back_up(tree, conf, monkeypatch, 1)
    moto_proxy.on("GET", "versions&", refusal(403, "AccessDenied"))
    with pytest.raises(CredentialsError, match="may be locked"):
        bakthat.delete("mydir", conf=conf)
    newer = back_up(tree, conf, monkeypatch, 0)
    with pytest.raises(StorageError, match=r"^1 of 1 backups .* may be locked"):
        bakthat.rotate_backups("mydir", conf=conf, last=1)
    assert versions_in(moto_locks) == with_index(made, *newer)


# Retention


def test_rotation_tells_apart_what_it_deletes_and_what_stays(
    conf: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = back_up(tree, conf, monkeypatch, 50, 40, 30, 20, 10)
    until = int(time.time()) + 7 * DAY
    lock(conf, name_of(made[0]), until)
    lock(conf, index_key(name_of(made[1])), until, "COMPLIANCE")
    hold(conf, name_of(made[2]))
    caplog.set_level(logging.INFO)
    dry = bakthat.rotate_backups("mydir", conf=conf, last=1, dry_run=True)
    assert [name_of(each) for each in dry] == [name_of(made[3])]
    caplog.clear()
    deleted = bakthat.rotate_backups("mydir", conf=conf, last=1)
    assert [name_of(each) for each in deleted] == [name_of(made[3])]
    said = lines(caplog, logging.INFO)
    assert f"Keeping {name_of(made[0])}: it is locked until {shown(until)}" in said
    assert f"Keeping {name_of(made[1])}: it is locked until {shown(until)}" in said
    assert f"Keeping {name_of(made[2])}: it is on hold" in said
    assert lines(caplog, logging.WARNING) == []
    left = [*made[:3], made[4]]
    assert versions_in(conf) == with_index(*left)
    assert listed(conf) == sorted(map(name_of, left))
    # A later run picks up what is free by then.
    hold(conf, name_of(made[2]), is_held=False)
    deleted = bakthat.delete_older_than("mydir", "15D", conf=conf)
    assert [name_of(each) for each in deleted] == [name_of(made[2])]
    assert versions_in(conf) == with_index(made[0], made[1], made[4])


def test_what_a_locked_increment_needs_stays(
    conf: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tree / "large").write_bytes(random.Random(1).randbytes(200_000))
    chained = {**conf, "incremental": True}
    made = back_up(tree, chained, monkeypatch, 50, 40, 30)
    made += back_up(tree, chained, monkeypatch, 20, full=True)
    assert [each.is_increment for each in made] == [False, True, True, False]
    until = int(time.time()) + DAY
    lock(conf, name_of(made[1]), until)
    caplog.set_level(logging.INFO)
    assert [name_of(each) for each in bakthat.rotate_backups("mydir", conf=conf, last=1)] == [
        name_of(made[2])
    ]
    assert versions_in(conf) == with_index(made[0], made[1], made[3])
    assert (
        f"Keeping {name_of(made[0])}: it is needed by {name_of(made[1])}, which is locked until "
        f"{shown(until)}"
    ) in lines(caplog, logging.INFO)


def test_what_fails_is_told_from_what_is_locked(
    moto_locks: Conf,
    moto_proxy: FaultProxy,
    tree: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    conf = {**moto_locks, "endpoint_url": moto_proxy.endpoint_url, "attempts": 1}
    made = back_up(tree, conf, monkeypatch, 40, 30, 20, 10)
    lock(moto_locks, name_of(made[0]), time.time() + DAY)
    failed = name_of(made[1])
    answer = (
        f"<DeleteResult><Error><Key>{failed}</Key><Code>InternalError</Code></Error></DeleteResult>"
    )
    moto_proxy.on("POST", "?delete", Answer(200, answer.encode()), times=1)
    moto_proxy.on("DELETE", failed, refusal(500, "InternalError"))
    caplog.set_level(logging.INFO)
    with pytest.raises(StorageError) as caught:
        bakthat.rotate_backups("mydir", conf=conf, last=1)
    assert str(caught.value).startswith(
        f"1 of 3 backups could not be deleted, the first is {failed}: "
    )
    assert versions_in(moto_locks) == with_index(made[0], made[1], made[3])
    assert listed(conf) == sorted(name_of(each) for each in (made[0], made[1], made[3]))
    (warning,) = lines(caplog, logging.WARNING)
    assert warning.startswith(f"{failed} was not deleted: ")


def test_a_lock_that_nobody_can_shorten_is_taken_from_the_catalog(
    moto_locks: Conf, moto_proxy: FaultProxy, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = {**moto_locks, "endpoint_url": moto_proxy.endpoint_url}
    for mode in ("compliance", "governance"):
        locking = {**conf, "object_lock": {"mode": mode, "days": 30}}
        back_up(tree, locking, monkeypatch, 5 if mode == "compliance" else 3)
    back_up(tree, conf, monkeypatch, 1)
    moto_proxy.requests.clear()
    assert bakthat.rotate_backups("mydir", conf=conf, last=1) == []
    assert moto_proxy.seen("HEAD") == 2  # the archive and the index of the second
    assert len(listed(conf)) == 3


def test_a_deletion_asks_the_storage_for_the_lock(moto_locks: Conf, tree: Path) -> None:
    """What the catalog says may be of another bucket of that name."""
    locking = {**moto_locks, "object_lock": {"mode": "compliance", "days": 30}}
    made = bakthat.backup(tree, conf=locking)
    with models.catalog("~/.bakthat.sqlite", write=True):
        row = models.Backups.get()
        row.stored_filename = row.stored_filename.replace("mydir", "other")
        row.filename = "other"
        row.save()
    assert "lock" in row.metadata
    assert name_of(bakthat.delete("other", conf=locking)) == row.stored_filename
    assert versions_in(moto_locks) == with_index(made)


def test_locks_that_cannot_be_looked_at_stop_a_rotation_but_no_dry_run(
    moto_locks: Conf,
    moto_proxy: FaultProxy,
    tree: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    conf = {**moto_locks, "endpoint_url": moto_proxy.endpoint_url, "attempts": 1}
    made = back_up(tree, conf, monkeypatch, 20, 10)
    moto_proxy.on("GET", "?versioning", refusal(503, "SlowDown"))
    dry = bakthat.rotate_backups("mydir", conf=conf, last=1, dry_run=True)
    assert [name_of(each) for each in dry] == [name_of(made[0])]
    assert "locks cannot be looked at" in lines(caplog, logging.WARNING)[-1]
    with pytest.raises(StorageError, match="SlowDown"):
        bakthat.rotate_backups("mydir", conf=conf, last=1)
    assert versions_in(moto_locks) == with_index(*made)


def test_a_dry_run_warns_of_minimum_days_of_what_is_deleted_only(
    moto_locks: Conf,
    tree: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    conf = {**moto_locks, "storage_class": "GLACIER_IR"}
    made = back_up(tree, conf, monkeypatch, 30, 20, 10)
    lock(moto_locks, name_of(made[0]), time.time() + DAY)
    caplog.clear()
    bakthat.rotate_backups("mydir", conf=conf, last=1, dry_run=True)
    (warning,) = lines(caplog, logging.WARNING)
    assert warning.startswith(f"{name_of(made[1])} is in GLACIER_IR, which is charged for")


def test_a_rotation_whose_answer_is_lost_leaves_nothing(
    moto_locks: Conf, moto_proxy: FaultProxy, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = {**moto_locks, "endpoint_url": moto_proxy.endpoint_url}
    made = back_up(tree, conf, monkeypatch, 30, 20, 10)
    moto_proxy.on("POST", "?delete", LoseAnswer(), times=1)
    assert len(bakthat.rotate_backups("mydir", conf=conf, last=1)) == 2
    assert versions_in(moto_locks) == with_index(made[2])


# What else deletes


def test_cleanup_leaves_a_locked_index_for_a_later_one(
    conf: Conf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        put_version(
            conf,
            f"mydir.2020010100000{number}.tgz.index",
            until=time.time() + 3 * DAY if number == 1 else None,
        )
    caplog.set_level(logging.INFO)
    later = time.time() + 2 * DAY
    monkeypatch.setattr("bakthat.operations.cleanup.time.time", lambda: later)
    for dry_run in (True, False):
        found = bakthat.cleanup("s3", conf=conf, dry_run=dry_run)
        assert [each.name for each in found] == ["mydir.20200101000002.tgz.index"]
    assert versions_in(conf) == {"mydir.20200101000001.tgz.index": 1}
    assert any(
        each.startswith("Keeping the index mydir.20200101000001.tgz.index: it is locked until")
        for each in lines(caplog, logging.INFO)
    )
    assert lines(caplog, logging.WARNING) == []


def test_an_index_that_was_made_for_what_is_gone_is_said_to_stay(
    conf: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody hides the archive, which is locked, while its index is made again."""
    made = bakthat.backup(tree, conf=conf)
    key, until = name_of(made), int(time.time()) + DAY
    lock(conf, key, until)
    s3_backend(conf).delete(index_key(key))

    real = S3Upload.commit

    def commit_and_hide(upload: S3Upload) -> StoredObject:
        stored = real(upload)
        mark(conf, key)
        return stored

    monkeypatch.setattr(S3Upload, "commit", commit_and_hide)
    changes = bakthat.sync(conf=conf, indexes=True).indexes or []
    assert [each.action.value for each in changes] == ["failed"]
    assert f"has no '{key}'" in changes[0].detail
    (warning,) = [each for each in lines(caplog, logging.WARNING) if "may remain" in each]
    assert f"is locked until {shown(until)}; bakthat cleanup removes it after that" in warning
    assert versions_in(conf) == {key: 2, index_key(key): 1}


def test_the_deletion_of_a_value_removes_its_earlier_ones(conf: Conf) -> None:
    values = KeyValue(conf=conf)
    for number in range(3):
        values.set_key("mykey", number)
    assert versions_in(conf) == {"mykey.keyvalue": 3}
    assert values.delete_key("mykey")
    assert versions_in(conf) == {}
    assert values.get_key("mykey") is None


def test_a_locked_value_is_refused_and_stays(conf: Conf) -> None:
    values = KeyValue(conf=conf)
    values.set_key("mykey", 1)
    lock(conf, "mykey.keyvalue", time.time() + DAY)
    values.set_key("mykey", 2)  # above the locked one
    with pytest.raises(LockedObjectError):
        values.delete_key("mykey")
    assert versions_in(conf) == {"mykey.keyvalue": 2}
    assert values.get_key("mykey") == 2
    assert listed(conf) == ["mykey.keyvalue"]
    assert markers_in(conf) == set()


def test_dry_run_of_a_job_tells_what_stays(
    moto_locks: Conf, tree: Path, isolated_environment: Path
) -> None:
    conf = {**moto_locks, "rotation": {"last": 1}}
    jobs = {"nightly": {"sources": [str(tree)], "rotate": True}}
    write_config(isolated_environment / ".bakthat.yml", default=conf, jobs=jobs)
    made = [bakthat.backup(tree, prompt="no") for _ in range(4)]
    lock(conf, name_of(made[0]), time.time() + DAY)
    hold(conf, index_key(name_of(made[1])))
    (foreseen,) = bakthat.run_jobs(dry_run=True)
    assert [each.stored_filename for each in foreseen.sources[0].rotated] == [name_of(made[2])]
    assert foreseen.outcome is JobOutcome.DONE


def test_dry_run_of_a_job_names_why_its_rotation_would_fail(
    moto_locks: Conf,
    tree: Path,
    isolated_environment: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conf = {**moto_locks, "rotation": {"last": 1}}
    jobs = {"nightly": {"sources": [str(tree)], "rotate": True}}
    write_config(isolated_environment / ".bakthat.yml", default=conf, jobs=jobs)
    for _ in range(2):
        bakthat.backup(tree, prompt="no")

    def away(*_: Any) -> None:
        raise StorageError("the storage is away")

    monkeypatch.setattr(S3Backend, "locked", away)
    (foreseen,) = bakthat.run_jobs(dry_run=True)
    assert [str(each) for each in foreseen.all_problems] == [
        f"nightly: {tree}: the storage is away"
    ]
    assert foreseen.sources[0].rotated == []


@pytest.mark.parametrize("code", ["NoSuchObjectLockConfiguration", "NoSuchConfiguration"])
def test_storage_that_names_missing_locks_by_another_word_deletes(
    moto_endpoint: S3Server, tree: Path, code: str
) -> None:
    with fault_proxy(moto_endpoint.endpoint_url) as proxy:
        conf = moto_endpoint.conf(password="", default_destination="s3")
        make_bucket(conf)
        bakthat.backup(tree, conf=conf)
        proxy.on("GET", "object-lock", refusal(404, code))
        bakthat.delete("mydir", conf={**conf, "endpoint_url": proxy.endpoint_url})
        assert versions_in(conf) == {}
        assert proxy.seen("GET", "object-lock")
