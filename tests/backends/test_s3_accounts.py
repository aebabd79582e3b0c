"""What careful accounts demand of requests to S3: encryption at rest, and the bucket's owner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.backends.s3.client import S3Client
from bakthat.errors import BakthatError, ConfigError, CredentialsError, StorageError
from tests.support.fault_proxy import Alter, FaultProxy, LoseAnswer, refusal
from tests.support.profiles import Conf
from tests.support.servers import TWO_PARTS, get, parts_under_way, plain, put, s3_backend

OWNER = "123456789012"
OWNER_HEADER = "x-amz-expected-bucket-owner"
SSE_HEADER = "x-amz-server-side-encryption"
CONTENTS = {"in one request": b"small", "in parts": TWO_PARTS}


def with_bucket(conf: Conf, **more: Any) -> Conf:
    plain(conf).create_bucket(Bucket=conf["s3_bucket"])
    return {**conf, **more}


def stored(conf: Conf) -> list[str]:
    found = plain(conf).list_objects_v2(Bucket=conf["s3_bucket"]).get("Contents", [])
    return [each["Key"] for each in found]


# Encryption at rest


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("sse", ["AES256", "aws:kms", "aws:kms:dsse"])
def test_uploads_are_encrypted_as_the_profile_says(
    moto_conf: Conf, sse: str, content: bytes
) -> None:
    key_id = "alias/backups" if sse == "aws:kms" else None  # moto tells none for aws:kms:dsse
    conf = with_bucket(moto_conf, sse=sse, sse_kms_key_id=key_id)
    backend = s3_backend(conf)
    put(backend, "set.tgz", content)
    head = plain(conf).head_object(Bucket=conf["s3_bucket"], Key="set.tgz")
    assert head["ServerSideEncryption"] == sse
    assert head.get("SSEKMSKeyId") == key_id
    assert get(backend, "set.tgz") == content


def test_without_sse_no_upload_asks_for_it(moto_proxy: FaultProxy, proxied_conf: Conf) -> None:
    put(s3_backend(proxied_conf), "set.tgz", TWO_PARTS)
    assert not any(SSE_HEADER in headers for _, _, headers in moto_proxy.requests)


def test_a_copy_is_encrypted_as_an_upload_is(moto_conf: Conf) -> None:
    conf = with_bucket(moto_conf, sse="aws:kms", sse_kms_key_id="alias/backups")
    put(s3_backend({**conf, "sse": "AES256", "sse_kms_key_id": None}), "set.tgz", b"small")
    source = {"Bucket": conf["s3_bucket"], "Key": "set.tgz"}
    client = S3Client(s3_backend(conf).settings_of(conf))
    client.call("copy_object", key="again.tgz", CopySource=source)
    head = plain(conf).head_object(Bucket=conf["s3_bucket"], Key="again.tgz")
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "alias/backups")


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize(
    ("name", "sse"), [("rclone", "AES256"), ("rclone", "aws:kms"), ("seaweedfs", "aws:kms:dsse")]
)
def test_a_storage_that_ignores_the_encryption_is_refused(
    request: pytest.FixtureRequest, name: str, sse: str, content: bytes
) -> None:
    conf = with_bucket(request.getfixturevalue(f"{name}_conf"), sse=sse)
    with pytest.raises(StorageError, match=f"the storage does not encrypt it with {sse}") as caught:
        put(s3_backend(conf), "set.tgz", content)
    assert "check sse and sse_kms_key_id" in caught.value.hint
    assert stored(conf) == []
    assert parts_under_way(conf) == []


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("sse", ["AES256", "aws:kms"])
def test_a_storage_without_keys_for_the_encryption_is_a_clear_error(
    seaweedfs_conf: Conf, sse: str, content: bytes
) -> None:
    conf = with_bucket(seaweedfs_conf, sse=sse)
    with pytest.raises(StorageError) as caught:
        put(s3_backend(conf, max_attempts=1), "set.tgz", content)
    assert "check sse and sse_kms_key_id" in caught.value.hint
    assert stored(conf) == []
    if sse != "AES256":  # for which the upload begins, though the answer is 500
        assert parts_under_way(conf) == []


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_weaker_encryption_is_refused(
    moto_proxy: FaultProxy, proxied_conf: Conf, content: bytes
) -> None:
    for verb in ("PUT", "POST"):
        moto_proxy.on(verb, "set.tgz", Alter({SSE_HEADER: "AES256"}))
    with pytest.raises(StorageError, match="does not encrypt it with aws:kms, but with AES256"):
        put(s3_backend({**proxied_conf, "sse": "aws:kms"}), "set.tgz", content)
    assert stored(proxied_conf) == []
    assert parts_under_way(proxied_conf) == []


def test_a_value_that_is_replaced_unencrypted_is_not_lost(rclone_conf: Conf) -> None:
    conf = with_bucket(rclone_conf)
    put(s3_backend(conf), "a.keyvalue", b"old")
    with pytest.raises(StorageError, match="does not encrypt"):
        put(s3_backend({**conf, "sse": "AES256"}), "a.keyvalue", b"new", replace=True)
    assert get(s3_backend(conf), "a.keyvalue") == b"new"


@pytest.mark.parametrize(
    "message",
    [
        "A header you provided implies functionality that is not implemented",
        "Server side encryption specified but KMS is not configured",
        f"{SSE_HEADER} is not supported",
    ],
)
def test_the_encryption_is_never_left_out_of_a_request_that_is_refused(
    moto_proxy: FaultProxy, proxied_conf: Conf, message: str
) -> None:
    moto_proxy.on("PUT", "", refusal(501, "NotImplemented", message), header=SSE_HEADER)
    moto_proxy.on("POST", "", refusal(501, "NotImplemented", message), header=SSE_HEADER)
    conf = {**proxied_conf, "sse": "aws:kms"}
    for content in CONTENTS.values():
        with pytest.raises(StorageError, match="NotImplemented") as caught:
            put(s3_backend(conf), "set.tgz", content)
        assert "check sse and sse_kms_key_id" in caught.value.hint
    assert stored(conf) == []
    if "encryption" in message:  # which says what is refused, so nothing else is tried
        assert moto_proxy.seen("PUT") == 1


def test_an_answer_that_was_lost_is_no_encryption_that_is_missing(
    moto_proxy: FaultProxy, proxied_conf: Conf
) -> None:
    moto_proxy.on("PUT", "set.tgz", LoseAnswer(), times=1)
    put(s3_backend({**proxied_conf, "sse": "aws:kms"}), "set.tgz", b"small")
    assert stored(proxied_conf) == ["set.tgz"]


def test_a_right_on_the_key_that_is_missing_is_named(
    moto_proxy: FaultProxy, proxied_conf: Conf
) -> None:
    message = (
        "User: arn:aws:iam::123456789012:user/backup is not authorized to perform: "
        "kms:GenerateDataKey on resource: arn:aws:kms:us-east-1:123456789012:key/a"
    )
    moto_proxy.on("PUT", "", refusal(403, "AccessDenied", message), header=SSE_HEADER)
    with pytest.raises(CredentialsError) as caught:
        put(s3_backend({**proxied_conf, "sse": "aws:kms"}), "set.tgz", b"small")
    assert caught.value.hint == (
        "allow kms:GenerateDataKey on the key of sse_kms_key_id, or of the bucket, in the policy "
        "of the access keys"
    )


def test_a_key_of_kms_without_kms_is_refused_before_anything_is_sent(moto_conf: Conf) -> None:
    for sse in (None, "AES256"):
        with pytest.raises(ConfigError, match="'sse_kms_key_id' is set, but 'sse' is not"):
            s3_backend({**moto_conf, "sse": sse, "sse_kms_key_id": "alias/backups"})


# The owner of the bucket


def test_every_request_but_the_bucket_s_creation_names_its_owner(
    moto_proxy: FaultProxy, proxied_conf: Conf, local: Conf, tree: Path, out: Path
) -> None:
    (tree / "large").write_bytes(TWO_PARTS * 2)
    conf = {
        **proxied_conf,
        "s3_bucket": f"{proxied_conf['s3_bucket']}-new",
        "database": local["database"],
        "expected_bucket_owner": OWNER,
        "compress": False,
        "password": "",
    }
    bakthat.backup(tree, conf=conf)
    bakthat.backup(tree, conf=conf, incremental=True)
    bakthat.restore("mydir", conf=conf, output=out)
    bakthat.sync(conf=conf)
    bakthat.check(conf=conf, read_data=True)
    bakthat.doctor(conf=conf)
    bakthat.delete("mydir", conf=conf)
    bakthat.cleanup(conf=conf, older_than="1s")
    assert {verb for verb, _, _ in moto_proxy.requests} >= {"GET", "HEAD", "PUT", "POST", "DELETE"}
    without = [
        (verb, path) for verb, path, headers in moto_proxy.requests if OWNER_HEADER not in headers
    ]
    assert [verb for verb, path in without if path.rstrip("/") == f"/{conf['s3_bucket']}"] == [
        "PUT"
    ]
    assert len(without) == 1, without


def test_a_copy_names_the_owner_of_its_source_too(
    moto_proxy: FaultProxy, proxied_conf: Conf
) -> None:
    conf = {**proxied_conf, "expected_bucket_owner": OWNER}
    put(s3_backend(conf), "set.tgz", b"small")
    client = S3Client(s3_backend(conf).settings_of(conf))
    source = {"Bucket": conf["s3_bucket"], "Key": "set.tgz"}
    client.call("copy_object", key="again.tgz", CopySource=source)
    assert moto_proxy.requests[-1][2]["x-amz-source-expected-bucket-owner"] == OWNER


def test_another_owner_is_named_beside_the_missing_right(
    moto_proxy: FaultProxy, proxied_conf: Conf, local: Conf, tree: Path
) -> None:
    conf = {**proxied_conf, "database": local["database"], "password": ""}
    conf["expected_bucket_owner"] = OWNER
    moto_proxy.on("*", "", refusal(403, "AccessDenied", "Access Denied"), header=OWNER_HEADER)
    for operation in (
        lambda: bakthat.backup(tree, conf=conf),
        lambda: bakthat.sync(conf=conf),
        lambda: s3_backend(conf).stat("set.tgz"),
        lambda: put(s3_backend(conf), "set.tgz", TWO_PARTS),
    ):
        with pytest.raises(BakthatError) as caught:
            operation()
        assert isinstance(caught.value, CredentialsError)
        assert caught.value.hint.startswith("allow s3:")
        assert caught.value.hint.endswith(
            f"; or the bucket is not of account {OWNER}: check expected_bucket_owner"
        )
    assert stored(proxied_conf) == []


def test_a_refusal_that_cannot_be_about_the_owner_does_not_name_it(
    moto_proxy: FaultProxy, proxied_conf: Conf
) -> None:
    conf = {**proxied_conf, "expected_bucket_owner": OWNER}
    named = "User: a is not authorized to perform: s3:PutObject on resource: b"
    moto_proxy.on("PUT", "", refusal(403, "AccessDenied", named))
    with pytest.raises(CredentialsError) as caught:
        put(s3_backend(conf), "set.tgz", b"small")
    assert "expected_bucket_owner" not in caught.value.hint
    put(s3_backend({**conf, "endpoint_url": moto_proxy.upstream}), "set.tgz", b"small")
    moto_proxy.on("HEAD", "set.tgz", refusal(403, "AccessDenied"))  # the bucket can be listed
    with pytest.raises(CredentialsError) as caught:
        S3Client(s3_backend(conf).settings_of(conf)).call("head_object", key="set.tgz")
    assert caught.value.hint.startswith("allow s3:GetObject")
    assert "expected_bucket_owner" not in caught.value.hint


def test_a_url_has_no_owner_since_who_opens_it_sends_no_header(moto_conf: Conf) -> None:
    import urllib.request

    conf = with_bucket(moto_conf, expected_bucket_owner=OWNER)
    backend = s3_backend(conf)
    put(backend, "a.txt", b"hello")
    url = backend.url("a.txt", 60)
    assert OWNER not in url
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"hello"
