"""With object lock, a writer's key locks what it stores, and can undo no lock; nor can another."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import bakthat
from bakthat import models
from bakthat.backends.lock import Lock
from bakthat.backends.s3.backend import S3Backend
from bakthat.errors import CredentialsError, StorageError
from bakthat.format.names import index_key
from tests.support.profiles import Conf
from tests.support.roles import Guarded, guarded_bucket

DAY = 86400


@pytest.fixture
def guarded(versioned_conf: Conf) -> Iterator[Guarded]:
    """Guard a bucket with object lock, in which each host has a prefix of its own."""
    more: Conf = {
        "prefix": "{host}/",
        "host": "web1",
        "object_lock": {"mode": "governance", "days": 30},
    }
    with guarded_bucket(versioned_conf, locks=True, **more) as found:
        yield found


def back_up(tree: Path, conf: Conf, **more: Any) -> models.Backups:
    return bakthat.backup(tree, conf=conf, prompt="no", **more)


def locks(guarded: Guarded, backup: models.Backups) -> list[Lock]:
    """Return the locks of an archive and its index, as one sees them who may see all."""
    backend = S3Backend(guarded.admin)
    key = backup.stored_filename
    return [backend.lock_of(key), backend.lock_of(index_key(key))]


def test_writer_locks_what_it_stores_and_sees_that_it_is_locked(
    guarded: Guarded,
    tree: Path,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    entry = back_up(tree, guarded.conf("writer"))
    wanted = Lock(entry.date + 30 * DAY, "governance")
    assert locks(guarded, entry) == [wanted, wanted]
    assert entry.metadata["lock"] == {"mode": "governance", "until": entry.date + 30 * DAY}
    assert entry.is_complete, caplog.text
    # moto answers 500 to whoever asks for the retention alone, which a writer may do.
    is_seen = "moto" not in request.node.name
    assert ("cannot be looked at" not in caplog.text) == is_seen


def test_writer_extends_the_locks_of_what_an_increment_needs(guarded: Guarded, tree: Path) -> None:
    (tree / "large").write_bytes(random.Random(1).randbytes(200_000))
    short = {"mode": "governance", "days": 2}
    full = back_up(tree, guarded.conf("writer", incremental=True, object_lock=short))
    (tree / "new").write_text("new")
    increment = back_up(tree, guarded.conf("writer", incremental=True))
    assert increment.is_increment
    end = increment.date + 30 * DAY
    assert [each.until for each in (*locks(guarded, full), *locks(guarded, increment))] == [end] * 4


NOW = datetime.now(UTC)
ATTEMPTS: dict[str, Any] = {
    # What somebody with any of the keys would try, by boto3, at a key that has a version.
    "delete the version": lambda s3, at, v: s3.delete_object(**at, VersionId=v),
    "delete it in governance mode": lambda s3, at, v: s3.delete_object(
        **at, VersionId=v, BypassGovernanceRetention=True
    ),
    "end the lock": lambda s3, at, v: s3.put_object_retention(
        **at, Retention={}, BypassGovernanceRetention=True
    ),
    "shorten the lock": lambda s3, at, v: s3.put_object_retention(
        **at,
        Retention={"Mode": "GOVERNANCE", "RetainUntilDate": NOW + timedelta(minutes=1)},
        BypassGovernanceRetention=True,
    ),
    "lock it for a century": lambda s3, at, v: s3.put_object_retention(
        **at, Retention={"Mode": "GOVERNANCE", "RetainUntilDate": NOW + timedelta(days=36000)}
    ),
    "lock it as nobody can undo": lambda s3, at, v: s3.put_object_retention(
        **at, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": NOW + timedelta(days=31)}
    ),
    "upload what is locked for a century": lambda s3, at, v: s3.put_object(
        Bucket=at["Bucket"],
        Key="web1/x.tgz",
        IfNoneMatch="*",
        ObjectLockMode="GOVERNANCE",
        ObjectLockRetainUntilDate=NOW + timedelta(days=36000),
        ChecksumAlgorithm="CRC32",
    ),
    "unlock the bucket": lambda s3, at, v: s3.put_object_lock_configuration(
        Bucket=at["Bucket"], ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"}
    ),
}


@pytest.mark.parametrize("role", ["writer", "reader", "keeper"])
def test_no_role_undoes_a_lock(guarded: Guarded, tree: Path, role: str) -> None:
    entry = back_up(tree, guarded.conf("writer"))
    at = {"Bucket": guarded.bucket, "Key": entry.stored_filename}
    version = guarded.s3.head_object(**at)["VersionId"]
    before = locks(guarded, entry), guarded.versions()
    for what, attempt in ATTEMPTS.items():
        with pytest.raises(ClientError) as refused:
            attempt(guarded.s3_of(role), at, version)
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403, what
    assert (locks(guarded, entry), guarded.versions()) == before


@pytest.mark.parametrize("role", ["writer", "reader", "keeper"])
def test_no_role_deletes_what_is_locked(guarded: Guarded, tree: Path, role: str) -> None:
    conf = guarded.conf("writer")
    entry = back_up(tree, conf)
    before = guarded.versions()
    with pytest.raises(StorageError):
        bakthat.delete(entry.stored_filename, conf=guarded.conf(role))
    assert guarded.versions() == before  # nor is it hidden
    assert bakthat.ls(conf=conf) == [entry]


def test_keeper_lengthens_locks_and_holds(guarded: Guarded, tree: Path) -> None:
    entry = back_up(tree, guarded.conf("writer"))
    keeper = S3Backend(guarded.conf("keeper"))
    longer = Lock(entry.date + 31 * DAY, "governance")
    keeper.extend_lock(entry.stored_filename, longer)
    assert locks(guarded, entry)[0] == longer
    keeper.set_hold(entry.stored_filename, is_held=True)
    assert keeper.lock_of(entry.stored_filename).is_held
    keeper.set_hold(entry.stored_filename, is_held=False)
    assert locks(guarded, entry)[0] == longer


def test_keeper_rotates_and_extends_the_locks_of_what_is_kept(
    guarded: Guarded, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    short = {"mode": "governance", "days": 2}
    entry = back_up(tree, guarded.conf("writer", object_lock=short))
    caplog.clear()
    assert bakthat.rotate_backups("mydir", conf=guarded.conf("keeper", rotation={"days": 7})) == []
    assert [each.until for each in locks(guarded, entry)] == [entry.date + 30 * DAY] * 2
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


def test_only_the_keeper_holds_and_releases(guarded: Guarded, tree: Path) -> None:
    entry = back_up(tree, guarded.conf("writer"))
    name = entry.stored_filename
    for role in ("writer", "reader"):
        with pytest.raises(CredentialsError):
            bakthat.hold(name, reason="audit", conf=guarded.conf(role))
    assert not any(each.is_held for each in locks(guarded, entry))
    bakthat.hold(name, reason="audit", conf=guarded.conf("keeper"))
    assert all(each.is_held for each in locks(guarded, entry))
    for role in ("writer", "reader"):
        with pytest.raises(CredentialsError):
            bakthat.release(name, conf=guarded.conf(role))
    assert all(each.is_held for each in locks(guarded, entry))
    bakthat.release(name, conf=guarded.conf("keeper"))
    assert not any(each.is_held for each in locks(guarded, entry))


def test_reader_sees_locks(guarded: Guarded, tree: Path) -> None:
    entry = back_up(tree, guarded.conf("writer"))
    reader = S3Backend(guarded.conf("reader"))
    assert reader.lock_of(entry.stored_filename) == locks(guarded, entry)[0]
