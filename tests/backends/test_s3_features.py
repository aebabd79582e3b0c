"""Storages that lack, or insist on, what S3 has: headers that they refuse, and object lock."""

from __future__ import annotations

from typing import Any

import pytest

import bakthat
from bakthat.backends.s3.backend import S3Backend
from bakthat.errors import KeyExistsError, LockedObjectError, StorageError
from bakthat.operations.key_values import KeyValue
from tests.support.fault_proxy import Answer, FaultProxy, refusal
from tests.support.profiles import Conf
from tests.support.servers import TWO_PARTS, get, parts_under_way, plain, put, s3_backend

pytestmark = pytest.mark.slow

SIZE = "x-amz-mp-object-size"
CHECKSUM = "x-amz-checksum-crc32"
CREATED_CHECKSUM = "x-amz-checksum-algorithm"
ALGORITHM = "x-amz-sdk-checksum-algorithm"
CONDITION = "if-none-match"
OPTIONAL = (SIZE, CHECKSUM, CREATED_CHECKSUM, ALGORITHM, CONDITION)

REFUSED: dict[str, tuple[str, ...]] = {
    "the size": (SIZE,),
    "checksums": (CHECKSUM, CREATED_CHECKSUM, ALGORITHM),
    "the algorithm": (ALGORITHM,),
    "the condition": (CONDITION,),
    "all of them": OPTIONAL,
}


def _answers(header: str) -> dict[str, Answer]:
    """Return the refusals of *header* that real storages send."""
    s3 = "A header you provided implies functionality that is not implemented"
    named = f"<Error><Code>NotImplemented</Code><Message>{s3}</Message><Header>{header}</Header>"
    return {
        "501 without a name": refusal(501, "NotImplemented", s3),
        "501 with a name": Answer(501, f"{named}</Error>".encode()),
        "501 without a body": Answer(501),
        "400 in the text": refusal(
            400, "InvalidArgument", f"Unsupported header '{header}' received for this API call."
        ),
        "400 without a name": refusal(400, "InvalidArgument", "Invalid argument."),
        "invalid request": refusal(400, "InvalidRequest", f"the header {header} is not supported"),
    }


@pytest.fixture
def backend(proxied_conf: Conf) -> S3Backend:
    return s3_backend(proxied_conf)


def _refuse(proxy: FaultProxy, headers: tuple[str, ...], answer: str) -> None:
    for header in headers:
        for verb in ("PUT", "POST"):
            proxy.on(verb, "tgz", _answers(header)[answer], header=header)


def _sent(proxy: FaultProxy, headers: tuple[str, ...], since: int = 0) -> int:
    """Return how many requests had one of *headers*."""
    return sum(any(each in sent for each in headers) for _, _, sent in proxy.requests[since:])


@pytest.mark.parametrize("data", [b"small", TWO_PARTS], ids=["one request", "parts"])
@pytest.mark.parametrize("answer", _answers(""))
@pytest.mark.parametrize("refused", REFUSED)
def test_a_header_that_the_storage_refuses_is_left_out_from_then_on(
    backend: S3Backend, moto_proxy: FaultProxy, refused: str, answer: str, data: bytes
) -> None:
    _refuse(moto_proxy, REFUSED[refused], answer)
    put(backend, "first.tgz", data)
    assert get(backend, "first.tgz") == data
    since = len(moto_proxy.requests)
    put(backend, "second.tgz", data)
    assert get(backend, "second.tgz") == data
    assert _sent(moto_proxy, REFUSED[refused], since) == 0
    if refused != "all of them":
        assert _sent(moto_proxy, (CONDITION if refused != "the condition" else CHECKSUM,), since)
    with pytest.raises(KeyExistsError):
        put(backend, "second.tgz", b"another")


@pytest.mark.parametrize("refused", REFUSED)
def test_many_objects_are_deleted_where_headers_are_refused(
    backend: S3Backend, moto_proxy: FaultProxy, refused: str
) -> None:
    put(backend, "a.tgz", b"a")
    put(backend, "b.tgz", b"b")
    for header in REFUSED[refused]:
        answer = _answers(header)["501 with a name"]
        moto_proxy.on("POST", "delete", answer, header=header)
    assert backend.delete_many(["a.tgz", "b.tgz"]) == {}
    assert list(backend.ls()) == []
    assert moto_proxy.seen("DELETE") == 0


def test_a_condition_that_is_refused_is_replaced_by_another_look_at_the_key(
    backend: S3Backend, moto_proxy: FaultProxy
) -> None:
    _refuse(moto_proxy, (CONDITION,), "501 with a name")
    put(backend, "set.tgz", b"data")
    verbs = [verb for verb, path, _ in moto_proxy.requests if path.endswith("set.tgz")]
    assert verbs == ["HEAD", "PUT", "HEAD", "PUT", "HEAD"]


@pytest.mark.parametrize(
    "answer",
    [
        refusal(400, "InvalidRequest", "The x-amz-mp-object-size header does not match the size"),
        refusal(400, "InvalidRequest", "Value for x-amz-checksum-crc32 header did not match"),
        refusal(400, "BadDigest", "The CRC32 you specified did not match x-amz-checksum-crc32"),
        refusal(400, "InvalidPart"),
        refusal(403, "AccessDenied", "if-none-match"),
    ],
    ids=lambda answer: answer.body.decode(),
)
def test_a_refusal_of_the_content_is_no_refusal_of_the_header(
    backend: S3Backend, proxied_conf: Conf, moto_proxy: FaultProxy, answer: Answer
) -> None:
    moto_proxy.on("POST", "uploadId=", answer)
    with pytest.raises(StorageError):
        put(backend, "set.tgz", TWO_PARTS)
    assert moto_proxy.seen("POST", "uploadId=") == 1
    assert list(backend.ls()) == []
    assert parts_under_way(proxied_conf) == []


def test_what_is_refused_whatever_is_left_out_is_the_first_error(
    backend: S3Backend, moto_proxy: FaultProxy
) -> None:
    moto_proxy.on("PUT", "set.tgz", refusal(501, "NotImplemented", "no storage class STANDARD_IA"))
    with pytest.raises(StorageError, match="no storage class STANDARD_IA"):
        put(backend, "set.tgz", b"data")
    assert moto_proxy.seen("PUT", "set.tgz") <= 4


# Replacing what was read


def _replace(backend: S3Backend, etag: str, data: bytes) -> None:
    upload = backend.upload("set.tgz", metadata={}, replace=True, replaces=etag)
    try:
        upload.write(data)
        upload.commit()
    finally:
        upload.abort()


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_an_object_that_changed_since_it_was_read_is_not_replaced(
    backend: S3Backend, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    put(backend, "set.tgz", b"old")
    etag = backend.stat("set.tgz").extra["etag"]
    _replace(backend, etag, b"read and changed")
    assert get(backend, "set.tgz") == b"read and changed"
    if change == "deleted":
        backend.delete("set.tgz")
    with pytest.raises(KeyExistsError, match="changed meanwhile"):
        _replace(backend, etag, b"lost")
    # Nor without the look before the request: its condition is enough.
    monkeypatch.setattr("bakthat.backends.s3.upload.S3Upload._check_is_unchanged", lambda _: None)
    with pytest.raises(KeyExistsError, match="changed meanwhile"):
        _replace(backend, etag, b"lost")


def test_a_storage_without_conditions_is_looked_at_again_before_an_object_is_replaced(
    backend: S3Backend, moto_proxy: FaultProxy
) -> None:
    put(backend, "set.tgz", b"old")
    etag = backend.stat("set.tgz").extra["etag"]
    moto_proxy.on("PUT", "tgz", refusal(501, "NotImplemented"), header="if-match")
    _replace(backend, etag, b"new")
    assert get(backend, "set.tgz") == b"new"
    with pytest.raises(KeyExistsError, match="changed meanwhile"):
        _replace(backend, etag, b"lost")


# Object lock


@pytest.fixture
def locked(proxied_conf: Conf) -> Conf:
    """Return a profile whose bucket keeps each object for a day."""
    conf = {**proxied_conf, "s3_bucket": f"{proxied_conf['s3_bucket']}-locked"}
    client = plain(conf)
    client.create_bucket(Bucket=conf["s3_bucket"], ObjectLockEnabledForBucket=True)
    client.put_object_lock_configuration(
        Bucket=conf["s3_bucket"],
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}},
        },
    )
    return conf


@pytest.mark.parametrize("data", [b"small", TWO_PARTS], ids=["one request", "parts"])
def test_a_bucket_with_a_default_retention_takes_objects_and_says_until_when_it_keeps_them(
    locked: Conf, moto_proxy: FaultProxy, data: bytes
) -> None:
    backend = s3_backend(locked)
    put(backend, "set.tgz", data)
    put(backend, "set.2.tgz", b"x", replace=True)
    put(backend, "set.2.tgz", b"y", replace=True)
    assert get(backend, "set.tgz") == data
    with pytest.raises(LockedObjectError, match=r"'set\.2\.tgz' is locked until "):
        backend.delete("set.2.tgz")
    # moto keeps no lock for an upload in parts.
    kept = ["set.2.tgz", "set.tgz"] if data == b"small" else ["set.2.tgz"]
    refused = backend.delete_many(["set.tgz", "set.2.tgz"])
    assert sorted(refused) == kept
    assert all(isinstance(error, LockedObjectError) for error in refused.values())
    assert [entry.key for entry in backend.ls()] == kept
    sent = [sent for verb, path, sent in moto_proxy.requests if verb == "PUT" and "tgz" in path]
    assert all(ALGORITHM in headers or "content-md5" in headers for headers in sent)


def test_backups_and_values_go_to_a_bucket_with_a_default_retention(
    locked: Conf, local: Conf, tmp_path: Any, out: Any
) -> None:
    conf = {**local, **locked, "default_destination": "s3"}
    (tmp_path / "small").write_text("hello")
    bakthat.backup(tmp_path / "small", conf=conf, password="")
    bakthat.restore("small", conf=conf, output=out)
    assert (out / "small").read_text() == "hello"
    values = KeyValue(conf)
    values.set_key("counter", 1, password="")
    values.set_key("counter", 2, password="")
    assert values.get_key("counter") == 2
    with pytest.raises(LockedObjectError, match=r"'counter\.keyvalue' is locked until "):
        values.delete_key("counter")
    assert values.get_key("counter") == 2
    with pytest.raises(LockedObjectError, match="is locked until "):
        bakthat.delete("small", conf=conf)
    bakthat.restore("small", conf=conf, output=out / "again")
    assert (out / "again" / "small").read_text() == "hello"


@pytest.mark.parametrize("data", [b"small", TWO_PARTS], ids=["one request", "parts"])
def test_a_storage_whose_lock_knows_only_the_old_checksum_gets_it(
    backend: S3Backend, moto_proxy: FaultProxy, data: bytes
) -> None:
    message = "Content-MD5 HTTP header is required for Put Object requests with Object Lock"
    answer = refusal(400, "InvalidRequest", message)
    moto_proxy.on("PUT", "set.tgz", answer, without="content-md5")
    put(backend, "set.tgz", data)
    assert get(backend, "set.tgz") == data
    sent = [headers for verb, path, headers in moto_proxy.requests if verb == "PUT"]
    assert "content-md5" in sent[-1]
    assert all(CHECKSUM in headers for headers in sent)
