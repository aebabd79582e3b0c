"""What the catalog knows of locks and holds that it did not ask for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import bakthat
from bakthat.backends.base import StoredObject
from bakthat.backends.lock import Lock
from bakthat.backends.s3.backend import S3Backend
from bakthat.operations.configuration.check import check_configuration
from bakthat.session.locks.holds import hold_of
from tests.operations.locks.conftest import LOCKED
from tests.support.commandline import CommandLine
from tests.support.profiles import Conf, write_config
from tests.support.servers import plain

DAY = 86400


def test_sync_learns_locks_and_holds(locking_conf: Conf, tree: Path, tmp_path: Path) -> None:
    made = [bakthat.backup(tree, "s3", conf=locking_conf, prompt="no") for _ in range(2)]
    bakthat.hold(made[0].stored_filename, conf=locking_conf, reason="audit")
    other = {**locking_conf, "database": str(tmp_path / "other.sqlite")}
    bakthat.sync("s3", conf=other)
    found = {each.stored_filename: each for each in bakthat.ls(conf=other)}
    for each in made:
        learned = found[each.stored_filename]
        assert learned.metadata["lock"] == each.metadata["lock"]
    assert [hold_of(found[each.stored_filename]) is not None for each in made] == [True, False]
    assert found[made[0].stored_filename].metadata["hold"] == {"reason": "", "date": None}
    again = bakthat.sync("s3", conf=other)
    assert [each.changes for each in again.containers] == [[]]
    bakthat.release(made[0].stored_filename, conf=other)
    assert not S3Backend(other).lock_of(made[0].stored_filename).is_held


def test_sync_keeps_the_reason_of_what_is_listed(
    locking_conf: Conf, tree: Path, isolated_environment: Path
) -> None:
    conf = {**locking_conf, "database": str(isolated_environment / "catalog.sqlite")}
    entry = bakthat.backup(tree, "s3", conf=conf, prompt="no")
    bakthat.hold(entry.stored_filename, conf=conf, reason="audit")
    from bakthat import models

    with models.catalog(conf["database"], write=True):
        models.Backups.update(is_deleted=True).execute()
    report = bakthat.sync("s3", conf=conf)
    assert [each.action.value for each in report.containers[0].changes] == ["revived"]
    [listed] = bakthat.ls(conf=conf)
    assert listed.metadata["hold"]["reason"] == "audit"


def test_lock_by_the_default_of_the_bucket_is_recorded(seaweedfs_conf: Conf, tree: Path) -> None:
    conf = {**seaweedfs_conf, "password": ""}
    S3Backend({**conf, **LOCKED}).create_container()
    plain(conf).put_object_lock_configuration(
        Bucket=conf["s3_bucket"],
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 3}},
        },
    )
    entry = bakthat.backup(tree, "s3", conf=conf, prompt="no")
    lock = S3Backend(conf).lock_of(entry.stored_filename)
    assert lock.until is not None
    assert entry.metadata["lock"] == {"mode": "governance", "until": lock.until}
    assert entry.date + 3 * DAY <= lock.until <= entry.date + 3 * DAY + 600
    assert entry.is_complete


def test_lock_by_the_default_of_a_bucket_that_moto_would_have(
    moto_conf: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bakthat.backends.s3 import upload

    describe = upload.describe

    def with_lock(*arguments: object) -> StoredObject:
        found = describe(*arguments)  # type: ignore[arg-type]  # which are passed on
        return dataclasses.replace(found, lock=Lock(2e9, "compliance"))

    monkeypatch.setattr(upload, "describe", with_lock)
    monkeypatch.setattr(upload, "lock_in", lambda found: Lock(2e9, "compliance"))
    entry = bakthat.backup(tree, "s3", conf={**moto_conf, "password": ""}, prompt="no")
    assert entry.metadata["lock"] == {"mode": "compliance", "until": 2e9}


# A time that cannot be derived


@pytest.mark.parametrize(
    ("rotation", "destination", "verdict"),
    [
        ({}, "s3", "problem"),
        ({"last": 3}, "s3", "problem"),
        ({"last": 3}, "local", "advice"),
        ({"days": 3}, "s3", None),
    ],
)
def test_config_check(
    tmp_path: Path, rotation: Conf, destination: str, verdict: str | None
) -> None:
    profile = {
        "s3_bucket": "bucket",
        "default_destination": destination,
        "object_lock": {"mode": "governance", "days": "retention"},
        "rotation": rotation,
    }
    config = write_config(tmp_path / "bakthat.yml", default=profile)
    found = [each for each in check_configuration(config=config).findings if each.hint]
    assert [each.verdict.value for each in found] == [verdict] * (verdict is not None)
    for each in found:
        assert each.detail.startswith(f"{config}:")
        assert "'object_lock' derives its time from the rotation" in each.detail
        assert "days: 7" in each.hint


def test_backup_and_dry_runs_end_before_anything_is_read(user: CommandLine, tree: Path) -> None:
    profile = {
        "s3_bucket": "bucket",
        "endpoint_url": "http://127.0.0.1:9",
        "object_lock": {"mode": "governance", "days": "retention"},
        "rotation": {"last": 3},
    }
    job = {"sources": [str(tree)], "rotate": True}
    write_config(user.home / ".bakthat.yml", default=profile, jobs={"nightly": job})
    for words in (
        ["backup", "mydir", "--prompt", "no"],
        ["backup", "mydir", "--prompt", "no", "--dry-run"],
        ["run", "nightly", "--dry-run"],
    ):
        done = user.run(*words)
        assert done.code == 1
        assert "'object_lock' derives its time from the rotation, and there is" in done.stderr
