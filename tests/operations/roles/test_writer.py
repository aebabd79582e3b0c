"""A writer's key makes backups from end to end, and is refused all that it must not do."""

from __future__ import annotations

import json
import logging
import random
import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from botocore.exceptions import ClientError

import bakthat
from bakthat import models
from bakthat.backends.s3.backend import S3Backend
from bakthat.backends.s3.client import S3Settings
from bakthat.errors import CredentialsError, StorageError
from bakthat.helper import KeyValue
from bakthat.operations.sync.report import Action
from bakthat.session.indexes.cache import IndexCache
from tests.support.fault_proxy import Judge, LoseAnswer
from tests.support.glacier_server import GlacierServer
from tests.support.profiles import Conf
from tests.support.roles import Guarded
from tests.support.servers import S3_PART

Headers = dict[str, str]
AGE_RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"


def back_up(tree: Path, conf: Conf, **more: Any) -> models.Backups:
    return bakthat.backup(tree, conf=conf, prompt="no", **more)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


def test_backup_is_stored_and_what_was_verified_is_said(
    guarded: Guarded, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    conf = guarded.conf("writer")
    entry = back_up(tree, conf)
    name = entry.stored_filename
    assert guarded.stored() == [name, f"{name}.index"]
    assert name.startswith("backups/web1/mydir.")
    head = guarded.s3.head_object(Bucket=guarded.bucket, Key=name)
    assert entry.size == head["ContentLength"]
    said = [each for each in caplog.messages if "may not read" in each]
    assert said == [f"The access key may not read: of {name}, only the size was verified"]
    assert entry.is_complete
    assert warnings(caplog) == []


def test_increment_is_made_from_the_cache(
    guarded: Guarded, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    conf = guarded.conf("writer", incremental=True, recipients=[AGE_RECIPIENT])
    del conf["password"]
    (tree / "large").write_bytes(random.Random(1).randbytes(200_000))
    full = back_up(tree, conf)
    for number in range(3):
        (tree / f"new {number}").write_text("new")
        increment = back_up(tree, conf)
        assert increment.is_increment
    assert increment.needs[0] == full.date
    assert len(guarded.stored()) == 8
    assert warnings(caplog) == []


def test_without_the_cache_a_full_is_made(
    guarded: Guarded, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    conf = guarded.conf("writer", incremental=True)
    IndexCache().forget([back_up(tree, conf)])
    assert not back_up(tree, conf).is_increment
    assert "Making a full backup: the index of backups/web1/mydir." in caplog.text


def test_full_is_made_where_only_reading_would_tell_the_passphrase(
    guarded: Guarded, tree: Path, caplog: pytest.LogCaptureFixture, cheap_passphrases: None
) -> None:
    caplog.set_level(logging.INFO)
    conf = guarded.conf("writer", incremental=True, password="correct horse")
    back_up(tree, conf)
    assert not back_up(tree, conf).is_increment
    assert "nothing tells whether the passphrase has changed" in caplog.text


def test_increment_is_not_made_when_what_it_needs_is_gone(
    guarded: Guarded, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    conf = guarded.conf("writer", incremental=True)
    (tree / "large").write_bytes(random.Random(1).randbytes(200_000))
    full = back_up(tree, conf)
    guarded.s3.delete_object(Bucket=guarded.bucket, Key=full.stored_filename)
    assert not back_up(tree, conf).is_increment
    assert f"{full.stored_filename} is not stored any more" in caplog.text


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upload in the smallest parts that S3 takes."""

    def settings_of(conf: Conf) -> S3Settings:
        return replace(S3Settings.of_profile(conf), part_size=S3_PART)

    monkeypatch.setattr(S3Backend, "settings_of", staticmethod(settings_of))


def test_upload_in_parts_is_completed_once(
    guarded: Guarded, tree: Path, small_parts: None, caplog: pytest.LogCaptureFixture
) -> None:
    (tree / "large").write_bytes(bytes(range(256)) * 4096 * 12)
    entry = back_up(tree, guarded.conf("writer", compress=False))
    assert entry.size > 2 * S3_PART
    completed = [
        headers
        for method, path, headers in guarded.proxy.requests
        if method == "POST" and "uploadId=" in path
    ]
    assert [each["if-none-match"] for each in completed] == ["*"]
    assert warnings(caplog) == []


def test_upload_that_fails_leaves_no_parts(
    guarded: Guarded, tree: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "large").write_bytes(bytes(range(256)) * 4096 * 12)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bakthat.operations.backup.store.NewBackup._commit", fail)
    with pytest.raises(KeyboardInterrupt):
        back_up(tree, guarded.conf("writer", compress=False))
    uploads = guarded.s3.list_multipart_uploads(Bucket=guarded.bucket).get("Uploads", [])
    assert uploads == []
    assert guarded.stored() == []


def test_stream_is_stored(guarded: Guarded) -> None:
    conf = guarded.conf("writer")
    entry = bakthat.backup(command="printf hello", custom_filename="greeting", conf=conf)
    assert guarded.stored()[0] == entry.stored_filename


def test_name_that_is_taken_is_passed_over(guarded: Guarded, tree: Path, tmp_path: Path) -> None:
    conf = guarded.conf("writer")
    confs = (conf, {**conf, "database": str(tmp_path / "other.sqlite")})
    with mock.patch.object(time, "time", return_value=time.time()):
        trees = [back_up(tree, each).date for each in confs]
        streams = [
            bakthat.backup(command="echo", custom_filename="echo", conf=each).date for each in confs
        ]
    assert trees[1] == trees[0] + 1
    assert streams[1] == streams[0] + 1


def test_object_that_is_listed_with_another_size_is_no_backup(guarded: Guarded, tree: Path) -> None:
    def shorten(status: int, headers: Headers, body: bytes) -> tuple[int, Headers, bytes]:
        body = re.sub(rb"<Size>\d+</Size>", b"<Size>7</Size>", body)
        return status, {**headers, "Content-Length": str(len(body))}, body

    conf = guarded.conf("writer")
    guarded.proxy.on("GET", "list-type", Judge(shorten))
    with pytest.raises(StorageError, match="was stored with 7 bytes instead of"):
        back_up(tree, conf)
    assert bakthat.ls(conf=conf) == []


@pytest.mark.parametrize("after", [0, 1])  # requests: the index, then its archive
def test_lost_answer_costs_a_second_name(
    guarded: Guarded, tree: Path, after: int, caplog: pytest.LogCaptureFixture
) -> None:
    guarded.proxy.on("PUT", ".tgz", LoseAnswer(), times=1, after=after)
    entry = back_up(tree, guarded.conf("writer"))
    stored = guarded.stored()
    assert stored[-2:] == [entry.stored_filename, f"{entry.stored_filename}.index"]
    assert len(stored) == 3 + after
    # Nobody knows any more whose the first ones are, and the key may not remove them.
    assert len(warnings(caplog)) == after


def test_value_is_overwritten_and_not_read(guarded: Guarded) -> None:
    values = KeyValue(conf=guarded.conf("writer"))
    values.set_key("state", {"run": 1})
    values.set_key("state", {"run": 2})
    with pytest.raises(CredentialsError):
        values.get_key("state")
    with pytest.raises(CredentialsError):
        values.get_key("another", default="not known to be missing")
    assert KeyValue(conf=guarded.conf("reader")).get_key("state") == {"run": 2}


def test_sync_lists_what_it_may_and_says_what_it_did_not_read(
    guarded: Guarded, tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    conf = guarded.conf("writer")
    entry = back_up(tree, conf)
    back_up(tree, conf, custom_filename="x")
    guarded.print_policies(host="web2")  # the keys of another host
    other = back_up(tree, guarded.conf("writer", host="web2"))
    guarded.print_policies()

    assert bakthat.sync(conf=conf).changes == []
    lost = {**conf, "database": str(tmp_path / "lost.sqlite")}
    changes = bakthat.sync(conf=lost).changes
    assert {each.action for each in changes} == {Action.ADOPTED}
    found = {each.backup.stored_filename: each.backup for each in changes}
    assert entry.stored_filename in found
    assert other.stored_filename not in found
    assert found[entry.stored_filename].size == entry.size
    assert "Only what is below backups/web1/ is looked at" in caplog.text
    assert "the access key may not read 2 objects" in caplog.text
    assert len(bakthat.sync(conf=lost).changes) == 0

    reader = {**guarded.conf("reader"), "database": lost["database"]}
    changes = bakthat.sync(conf=reader).changes
    assert {each.action for each in changes} == {Action.UPDATED, Action.ADOPTED}
    (described,) = bakthat.ls("mydir", conf=reader | {"host": "web1"})[:1]
    assert "unread" not in described.metadata
    assert bakthat.sync(conf=reader).changes == []


def test_sync_marks_what_is_gone(guarded: Guarded, tree: Path) -> None:
    conf = guarded.conf("writer")
    entry = back_up(tree, conf)
    guarded.s3.delete_object(Bucket=guarded.bucket, Key=entry.stored_filename)
    (change,) = bakthat.sync(conf=conf).changes
    assert change.action is Action.GONE


def test_status_and_check_do_without_reading(guarded: Guarded, tree: Path) -> None:
    conf = guarded.conf("writer")
    back_up(tree, conf)
    (status,) = bakthat.status(conf=conf)
    assert not [each for each in status.findings if each.is_problem]
    (checked,) = bakthat.check(conf=conf)
    assert checked.verdict == "stored"
    assert "only its size was compared" in checked.detail


def test_doctor_finds_only_that_nothing_could_be_restored(guarded: Guarded) -> None:
    before = guarded.versions()
    findings = bakthat.doctor(conf=guarded.conf("writer"))
    assert [each.topic for each in findings if each.is_problem] == ["reading"]
    (listing,) = [each.detail for each in findings if each.topic == "listing"]
    assert listing.endswith("can be listed below the prefix of this host")
    assert guarded.versions() == before


def test_vault_has_its_indexes_and_its_inventory_in_the_bucket(
    guarded: Guarded, glacier: GlacierServer, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    glacier.access_key = guarded.conf("writer")["access_key"]
    vault = glacier.conf()
    of_vault = {key: vault[key] for key in ("glacier_endpoint_url", "glacier_vault")}
    guarded.print_policies(**of_vault)
    conf = guarded.conf("writer", **of_vault)
    first = back_up(tree, conf, destination="glacier")
    second = back_up(tree, conf, destination="glacier")
    within = f"bakthat_glacier_indexes/{conf['glacier_vault']}/"
    indexes = [f"{within}{each.stored_filename}.index" for each in (first, second)]
    assert guarded.stored() == [*indexes, "bakthat_glacier_inventory"]
    copy = guarded.s3.get_object(Bucket=guarded.bucket, Key="bakthat_glacier_inventory")
    names = {each["filename"] for each in json.loads(copy["Body"].read())}
    assert names == {first.stored_filename, second.stored_filename}
    assert warnings(caplog) == []


def test_restore_and_delete_are_refused(guarded: Guarded, tree: Path, out: Path) -> None:
    conf = guarded.conf("writer")
    entry = back_up(tree, conf)
    before = guarded.versions()
    with pytest.raises(CredentialsError) as refused:
        bakthat.restore(entry.stored_filename, conf=conf, output=out)
    assert "s3:GetObject" in refused.value.hint
    with pytest.raises(CredentialsError) as refused:
        bakthat.delete(entry.stored_filename, conf=conf)
    assert refused.value.hint.startswith("allow s3:")
    assert guarded.versions() == before
    assert bakthat.ls(conf=conf) == [entry]


TOMORROW = datetime.now(UTC) + timedelta(days=1)
ENABLED = {"Status": "Enabled"}
RULE = {"ID": "all", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}, **ENABLED}
RULES = {"Rules": [RULE]}
ATTEMPTS: dict[str, Callable[[Any, str, str, str], object]] = {
    # What somebody with the key of a host would try, with boto3, bucket, key and version.
    "read": lambda s3, b, k, v: s3.get_object(Bucket=b, Key=k),
    "look": lambda s3, b, k, v: s3.head_object(Bucket=b, Key=k),
    "read a version": lambda s3, b, k, v: s3.get_object(Bucket=b, Key=k, VersionId=v),
    "overwrite": lambda s3, b, k, v: s3.put_object(Bucket=b, Key=k, Body=b"gone"),
    "overwrite an index": lambda s3, b, k, v: s3.put_object(Bucket=b, Key=f"{k}.index", Body=b""),
    "create without a condition": lambda s3, b, k, v: s3.put_object(Bucket=b, Key=f"{k}.age"),
    "overwrite with a lock": lambda s3, b, k, v: s3.put_object(
        Bucket=b,
        Key=k,
        IfNoneMatch="*",
        ObjectLockMode="COMPLIANCE",
        ObjectLockRetainUntilDate=TOMORROW,
        ChecksumAlgorithm="CRC32",
    ),
    "overwrite as it was": lambda s3, b, k, v: s3.put_object(Bucket=b, Key=k, IfMatch="*"),
    "overwrite in parts": lambda s3, b, k, v: _upload_in_parts(s3, b, k),
    "copy over": lambda s3, b, k, v: s3.copy_object(
        Bucket=b, Key=k, CopySource={"Bucket": b, "Key": f"{k}.index"}
    ),
    "write for another host": lambda s3, b, k, v: s3.put_object(
        Bucket=b, Key="backups/db1/x.tgz", IfNoneMatch="*"
    ),
    "delete": lambda s3, b, k, v: s3.delete_object(Bucket=b, Key=k),
    "delete a version": lambda s3, b, k, v: s3.delete_object(Bucket=b, Key=k, VersionId=v),
    "list versions": lambda s3, b, k, v: s3.list_object_versions(Bucket=b),
    "list all hosts": lambda s3, b, k, v: s3.list_objects_v2(Bucket=b, Prefix="backups/"),
    "list all": lambda s3, b, k, v: s3.list_objects_v2(Bucket=b),
    "list uploads": lambda s3, b, k, v: s3.list_multipart_uploads(Bucket=b),
    "tag": lambda s3, b, k, v: s3.put_object_tagging(Bucket=b, Key=k, Tagging={"TagSet": []}),
    "publish": lambda s3, b, k, v: s3.put_object_acl(Bucket=b, Key=k, ACL="public-read"),
    "hold": lambda s3, b, k, v: s3.put_object_legal_hold(
        Bucket=b, Key=k, LegalHold={"Status": "ON"}
    ),
    "lock": lambda s3, b, k, v: s3.put_object_retention(
        Bucket=b, Key=k, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": TOMORROW}
    ),
    "stop versions": lambda s3, b, k, v: s3.put_bucket_versioning(
        Bucket=b, VersioningConfiguration={"Status": "Suspended"}
    ),
    "let all expire": lambda s3, b, k, v: s3.put_bucket_lifecycle_configuration(
        Bucket=b, LifecycleConfiguration=RULES
    ),
    "change the policy": lambda s3, b, k, v: s3.put_bucket_policy(Bucket=b, Policy="{}"),
    "remove the policy": lambda s3, b, k, v: s3.delete_bucket_policy(Bucket=b),
    "publish all": lambda s3, b, k, v: s3.delete_public_access_block(Bucket=b),
    "delete the bucket": lambda s3, b, k, v: s3.delete_bucket(Bucket=b),
}


def _upload_in_parts(s3: Any, bucket: str, key: str) -> None:
    begun = s3.create_multipart_upload(Bucket=bucket, Key=key)
    upload = {"Bucket": bucket, "Key": key, "UploadId": begun["UploadId"]}
    part = s3.upload_part(PartNumber=1, Body=b"gone", **upload)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    try:
        s3.complete_multipart_upload(MultipartUpload=parts, **upload)
    finally:
        s3.abort_multipart_upload(**upload)


def test_all_else_is_refused(guarded: Guarded, tree: Path) -> None:
    entry = back_up(tree, guarded.conf("writer"))
    key = entry.stored_filename
    stored = guarded.s3.get_object(Bucket=guarded.bucket, Key=key)
    content, version = stored["Body"].read(), stored["VersionId"]
    before, s3 = guarded.versions(), guarded.s3_of("writer")
    for what, attempt in ATTEMPTS.items():
        with pytest.raises(ClientError) as refused:
            attempt(s3, guarded.bucket, key, version)
        answer = refused.value.response
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 403, what
    many = {"Objects": [{"Key": key}, {"Key": key, "VersionId": version}]}
    answer = s3.delete_objects(Bucket=guarded.bucket, Delete=many)
    assert {each["Code"] for each in answer["Errors"]} == {"AccessDenied"}
    with pytest.raises(ClientError) as taken:
        s3.put_object(Bucket=guarded.bucket, Key=key, Body=b"gone", IfNoneMatch="*")
    assert taken.value.response["Error"]["Code"] == "PreconditionFailed"
    assert guarded.versions() == before
    assert guarded.s3.get_object(Bucket=guarded.bucket, Key=key)["Body"].read() == content


def test_connection_without_tls_is_refused(guarded: Guarded, tree: Path) -> None:
    guarded.proxy.is_encrypted = False
    with pytest.raises(CredentialsError):
        back_up(tree, guarded.conf("writer"))
    assert guarded.stored() == []
