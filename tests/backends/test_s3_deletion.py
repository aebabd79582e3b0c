"""S3's batch deletions: the requests, and the answers of storages that refuse them."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from botocore.httpsession import URLLib3Session

from bakthat.backends.s3.backend import S3Backend
from bakthat.errors import CredentialsError, StorageError, UnreachableError
from tests.support.fault_proxy import Answer, FaultProxy, LoseAnswer, Reset, refusal
from tests.support.servers import S3Server, s3_backend

BATCH = "?delete"


@pytest.fixture
def backend(moto_proxy: FaultProxy, moto_endpoint: S3Server) -> S3Backend:
    server = S3Server(moto_proxy.endpoint_url, moto_endpoint.access_key, moto_endpoint.secret_key)
    made = s3_backend(server.conf())
    made.create_container()
    return made


def put(backend: S3Backend, *keys: str) -> list[str]:
    for key in keys:
        upload = backend.upload(key, metadata={})
        upload.write(b"x")
        upload.commit()
    return list(keys)


def keys(backend: S3Backend) -> list[str]:
    return sorted(found.key for found in backend.ls())


def test_a_thousand_keys_take_one_request(backend: S3Backend, moto_proxy: FaultProxy) -> None:
    assert backend.delete_many([f"my.{n}" for n in range(2001)]) == {}
    assert moto_proxy.seen("POST", BATCH) == 3
    assert moto_proxy.seen("DELETE") == 0


def test_each_batch_carries_the_old_checksum_and_the_new(
    backend: S3Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    real = URLLib3Session.send

    def send(session: URLLib3Session, request: Any) -> Any:
        sent.append(request)
        return real(session, request)

    gone = put(backend, "my.1", "my.&<\N{SNOWMAN}")
    monkeypatch.setattr(URLLib3Session, "send", send)
    backend.delete_many(gone)
    asked, request = sent
    assert asked.url.endswith("?versioning")
    digest = base64.b64encode(hashlib.md5(request.body, usedforsecurity=False).digest())
    assert request.headers["Content-MD5"] in (digest, digest.decode())
    assert "x-amz-checksum-crc32" in request.headers
    assert keys(backend) == []


@pytest.mark.parametrize(
    "answer",
    [
        refusal(501, "NotImplemented"),
        refusal(405, "MethodNotAllowed"),
        refusal(400, "MalformedXML"),
        refusal(400, "MissingContentMD5"),
        Answer(200, b"<DeleteResult></DeleteResult>"),
    ],
    ids=["501", "405", "400", "no MD5", "says nothing"],
)
def test_a_storage_without_batches_deletes_key_by_key(
    backend: S3Backend, moto_proxy: FaultProxy, answer: Answer
) -> None:
    gone = put(backend, "my.1", "my.2")
    put(backend, "mysql.1")
    moto_proxy.on("POST", BATCH, answer)
    assert backend.delete_many(gone) == {}
    assert keys(backend) == ["mysql.1"]
    assert moto_proxy.seen("DELETE") == 2


def test_a_key_that_fails_in_a_batch_is_retried_alone_and_then_named(
    backend: S3Backend, moto_proxy: FaultProxy
) -> None:
    put(backend, "my.1", "my.2", "my.3")
    answer = (
        b"<DeleteResult><Deleted><Key>my.1</Key></Deleted>"
        b"<Error><Key>my.2</Key><Code>InternalError</Code><Message>busy</Message></Error>"
        b"<Error><Key>my.3</Key><Code>AccessDenied</Code><Message>locked</Message></Error>"
        b"</DeleteResult>"
    )
    moto_proxy.on("POST", BATCH, Answer(200, answer))
    moto_proxy.on("DELETE", "my.3", refusal(403, "AccessDenied", "locked"))
    failures = backend.delete_many(["my.1", "my.2", "my.3"])
    assert list(failures) == ["my.3"]
    assert isinstance(failures["my.3"], CredentialsError)
    assert "AccessDenied (locked)" in str(failures["my.3"])
    # The answer about my.1 was made up, so the key is still there: answers are believed.
    assert keys(backend) == ["my.1", "my.3"]


def test_a_request_whose_answer_is_lost_is_repeated(
    backend: S3Backend, moto_proxy: FaultProxy
) -> None:
    gone = put(backend, "my.1", "my.2")
    moto_proxy.on("POST", BATCH, LoseAnswer(), times=1)
    assert backend.delete_many(gone) == {}
    assert keys(backend) == []


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Reset(), UnreachableError),
        (refusal(503, "SlowDown"), StorageError),
        (refusal(403, "SignatureDoesNotMatch"), CredentialsError),
    ],
    ids=["reset", "503", "403"],
)
def test_after_a_failure_of_the_storage_no_key_is_tried_alone(
    backend: S3Backend, moto_proxy: FaultProxy, fault: Any, error: type[StorageError]
) -> None:
    kept = put(backend, "my.1", "my.2")
    moto_proxy.on("POST", BATCH, fault)
    with pytest.raises(error):
        backend.delete_many(kept)
    assert moto_proxy.seen("DELETE") == 0
    assert keys(backend) == kept


def test_a_key_that_xml_could_confuse_with_another_is_deleted_alone(
    backend: S3Backend, moto_proxy: FaultProxy
) -> None:
    put(backend, "my.1")
    assert backend.delete_many(["my\r1", "my\x0b1", "my.1"]) == {}
    assert keys(backend) == []
    assert moto_proxy.seen("POST", BATCH) == 1
    assert moto_proxy.seen("DELETE") == 2
