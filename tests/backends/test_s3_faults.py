"""The S3 backend when the network or the service fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bakthat.backends.aws.part_plan import MAX_PARTS
from bakthat.backends.s3.backend import S3Backend
from bakthat.errors import (
    ConfigError,
    ContainerNotFoundError,
    CredentialsError,
    KeyExistsError,
    NotReadyError,
    StorageError,
    UnreachableError,
)
from tests.support.fault_proxy import (
    Alter,
    Answer,
    Cut,
    Fault,
    FaultProxy,
    LoseAnswer,
    Reset,
    Stall,
    refusal,
)
from tests.support.own_threads import own_threads
from tests.support.profiles import Conf
from tests.support.servers import (
    METHODS,
    S3_PART,
    TWO_PARTS,
    free_port,
    get,
    parts_under_way,
    plain,
    put,
    s3_backend,
)

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    """Check that no thread of a transfer outlives its test, whatever failed."""
    yield
    assert own_threads() == []


@pytest.fixture
def conf(proxied_conf: Conf) -> Conf:
    return proxied_conf


@pytest.fixture
def backend(conf: dict[str, Any]) -> S3Backend:
    return s3_backend(conf)


FAULTS: dict[str, tuple[Fault, type[StorageError]]] = {
    "refused": (refusal(403, "AccessDenied"), CredentialsError),
    "expired": (refusal(400, "ExpiredToken"), StorageError),
    "broken": (refusal(500, "InternalError"), StorageError),
    "busy": (refusal(503, "SlowDown"), StorageError),
    "nonsense": (Answer(200, b"<html>Welcome to this hotel's network"), StorageError),
    "teapot": (Answer(418, b""), StorageError),
    "reset": (Reset(), UnreachableError),
    "silent": (Stall(), UnreachableError),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_failure_of_every_method_is_an_error_of_bakthat(
    backend: S3Backend, conf: dict[str, Any], moto_proxy: FaultProxy, fault: str
) -> None:
    put(backend, "set.tgz", b"data")
    kind, expected = FAULTS[fault]
    for verb in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        moto_proxy.on(verb, "/", kind)
    impatient = s3_backend(conf, max_attempts=1, read_timeout=0.2)
    for name, method in METHODS.items():
        if fault == "nonsense" and name == "create_container":
            continue  # It expects an answer without a body, and is content with its status.
        if fault == "refused" and name == "create_container":
            continue  # Keys that may not read may still write.
        with pytest.raises(expected) as caught:
            method(impatient)
        assert conf["s3_bucket"] in str(caught.value) or "tgz" in str(caught.value), name
        assert conf["secret_key"] not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_endpoint_where_nothing_listens_is_unreachable(moto_conf: dict[str, Any]) -> None:
    nowhere = {**moto_conf, "endpoint_url": f"http://127.0.0.1:{free_port()}"}
    backend = s3_backend(nowhere, max_attempts=2)
    for method in METHODS.values():
        with pytest.raises(UnreachableError) as caught:
            method(backend)
        assert nowhere["endpoint_url"] in str(caught.value)
        assert caught.value.hint


@pytest.mark.parametrize(
    "fault", [refusal(503, "SlowDown"), Reset(), LoseAnswer()], ids=["busy", "reset", "lost"]
)
@pytest.mark.parametrize("data", [b"small", TWO_PARTS], ids=["one request", "parts"])
def test_a_fault_that_passes_is_retried(
    backend: S3Backend, conf: dict[str, Any], moto_proxy: FaultProxy, fault: Fault, data: bytes
) -> None:
    for verb, part in (("HEAD", ""), ("PUT", ""), ("POST", "uploadId="), ("GET", "set.tgz")):
        moto_proxy.on(verb, part, fault, times=1)
    put(backend, "set.tgz", data)
    assert get(backend, "set.tgz") == data
    assert backend.stat("set.tgz").metadata == {"of": "set.tgz"}
    assert parts_under_way(conf) == []


@pytest.mark.parametrize("data", [b"small", TWO_PARTS], ids=["one request", "parts"])
def test_an_object_whose_confirmation_never_arrived_is_recognised(
    conf: dict[str, Any], moto_proxy: FaultProxy, data: bytes
) -> None:
    backend = s3_backend(conf, max_attempts=2)
    # Every answer is lost, so that the repeated request meets our own object.
    if data == b"small":
        moto_proxy.on("PUT", "set.tgz", LoseAnswer())
    else:
        moto_proxy.on("POST", "uploadId=", LoseAnswer())
    put(backend, "set.tgz", data)
    assert get(backend, "set.tgz") == data


def test_a_completion_that_fails_with_status_200_stores_nothing(
    backend: S3Backend, conf: dict[str, Any], moto_proxy: FaultProxy
) -> None:
    moto_proxy.on("POST", "uploadId=", Answer(200, refusal(0, "InternalError").body))
    with pytest.raises(StorageError, match="InternalError"):
        put(backend, "set.tgz", TWO_PARTS)
    assert list(backend.ls()) == []
    assert parts_under_way(conf) == []


def test_a_completion_that_ends_in_an_unknown_upload_stores_nothing(
    backend: S3Backend, moto_proxy: FaultProxy
) -> None:
    moto_proxy.on("POST", "uploadId=", refusal(404, "NoSuchUpload"))
    with pytest.raises(StorageError, match="NoSuchUpload"):
        put(backend, "set.tgz", TWO_PARTS)
    assert list(backend.ls()) == []


def test_a_part_that_fails_in_the_background_ends_the_upload(
    backend: S3Backend, conf: dict[str, Any], moto_proxy: FaultProxy
) -> None:
    moto_proxy.on("PUT", "partNumber=2", refusal(400, "BadDigest"))
    upload = backend.upload("set.tgz", metadata={})

    def write_and_commit() -> None:
        for _ in range(12):
            upload.write(bytes(S3_PART))
        upload.commit()

    with pytest.raises(StorageError, match="BadDigest"):
        write_and_commit()
    # It stays failed: a commit now would leave a hole.
    with pytest.raises(StorageError, match="BadDigest"):
        upload.write(b"more")
    with pytest.raises(StorageError, match="BadDigest"):
        upload.commit()
    upload.abort()
    assert list(backend.ls()) == []
    assert parts_under_way(conf) == []


def test_an_abort_waits_for_parts_under_way_and_then_removes_them(
    backend: S3Backend, conf: dict[str, Any], moto_proxy: FaultProxy
) -> None:
    upload = backend.upload("set.tgz", metadata={})
    for _ in range(4):
        upload.write(bytes(S3_PART))
    upload.abort()
    assert own_threads() == []
    methods = [(verb, path) for verb, path, _ in moto_proxy.requests if "uploadId" in path]
    assert methods[-1][0] == "DELETE"
    assert parts_under_way(conf) == []


def test_an_abort_that_the_storage_refuses_is_logged_not_raised(
    backend: S3Backend, moto_proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    upload = backend.upload("set.tgz", metadata={})
    upload.write(TWO_PARTS)
    moto_proxy.on("DELETE", "uploadId=", refusal(403, "AccessDenied"))
    upload.abort()
    assert "parts of set.tgz may remain" in caplog.text


def test_retries_end_once_an_upload_was_aborted(
    conf: dict[str, Any], moto_proxy: FaultProxy
) -> None:
    backend = s3_backend(conf, max_attempts=50, upload_workers=1)
    moto_proxy.on("PUT", "partNumber=", Reset())
    upload = backend.upload("set.tgz", metadata={})
    upload.write(TWO_PARTS)
    upload.abort()
    assert moto_proxy.seen("PUT", "partNumber=") < 10


def test_a_replacing_upload_sets_no_condition(backend: S3Backend, moto_proxy: FaultProxy) -> None:
    put(backend, "set.tgz", b"old")
    before = len(moto_proxy.requests)
    put(backend, "set.tgz", b"new", replace=True)
    new = [headers for verb, _, headers in moto_proxy.requests[before:] if verb == "PUT"]
    assert ["if-none-match" in headers for headers in new] == [False]
    assert get(backend, "set.tgz") == b"new"


def test_a_key_that_was_taken_after_the_check_is_refused_by_the_storage(
    backend: S3Backend, moto_proxy: FaultProxy
) -> None:
    upload = backend.upload("set.tgz", metadata={})
    upload.write(b"ours")
    put(backend, "set.tgz", b"theirs")
    # Disable the check before the request; its condition remains.
    moto_proxy.on("HEAD", "set.tgz", refusal(404, ""), times=1)
    with pytest.raises(KeyExistsError):
        upload.commit()
    assert get(backend, "set.tgz") == b"theirs"


def test_an_object_shorter_than_what_was_written_is_an_error_and_removed(
    backend: S3Backend, conf: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = backend.upload("set.tgz", metadata={})
    upload.write(b"data")
    call = backend._client.call

    def lose_the_body(operation: str, **parameters: Any) -> dict[str, Any]:
        if operation == "put_object":
            parameters.update(Body=b"dat")
            del parameters["ChecksumCRC32"]
        return call(operation, **parameters)

    monkeypatch.setattr(backend._client, "call", lose_the_body)
    with pytest.raises(StorageError, match="3 bytes instead of 4"):
        upload.commit()
    assert list(backend.ls()) == []


def test_keys_that_may_only_write_suffice_for_an_upload(
    backend: S3Backend, conf: dict[str, Any], moto_proxy: FaultProxy
) -> None:
    moto_proxy.on("HEAD", "set.tgz", refusal(403, ""))
    put(backend, "set.tgz", TWO_PARTS)
    assert get(backend, "set.tgz") == TWO_PARTS


def test_every_part_carries_its_checksum(backend: S3Backend, moto_proxy: FaultProxy) -> None:
    put(backend, "small.tgz", b"x")
    put(backend, "large.tgz", TWO_PARTS)
    puts = [headers for verb, _, headers in moto_proxy.requests if verb == "PUT"]
    assert len(puts) == 3
    assert all("x-amz-checksum-crc32" in headers for headers in puts)


@pytest.mark.parametrize("after", [0, 1, 100_000, S3_PART - 1])
def test_a_truncated_body_is_requested_again_from_where_it_stopped(
    backend: S3Backend, moto_proxy: FaultProxy, after: int
) -> None:
    put(backend, "set.tgz", TWO_PARTS)
    moto_proxy.on("GET", "set.tgz", Cut(after), times=1)
    assert get(backend, "set.tgz") == TWO_PARTS
    ranges = [headers["range"] for verb, _, headers in moto_proxy.requests if verb == "GET"]
    assert f"bytes={after}-{S3_PART - 1}" in ranges


def test_a_body_that_is_always_cut_is_an_error_and_not_an_end(
    conf: dict[str, Any], moto_proxy: FaultProxy
) -> None:
    backend = s3_backend(conf, max_attempts=2)
    put(backend, "set.tgz", TWO_PARTS)
    moto_proxy.on("GET", "set.tgz", Cut(1000))
    with backend.download("set.tgz") as source:
        with pytest.raises(StorageError, match="bytes early"):
            source.read()
        # Further reads never return bytes from behind the hole.
        with pytest.raises(StorageError, match="bytes early"):
            source.read(1)


def test_an_object_replaced_while_it_is_read_is_an_error(
    backend: S3Backend, moto_proxy: FaultProxy
) -> None:
    put(backend, "set.tgz", TWO_PARTS * 6)
    with backend.download("set.tgz") as source:
        source.read(10)
        put(backend, "set.tgz", bytes(len(TWO_PARTS) * 6), replace=True)
        with pytest.raises(StorageError, match="replaced while it was read"):
            source.read()


def test_an_object_in_cold_storage_is_not_ready(backend: S3Backend, moto_proxy: FaultProxy) -> None:
    put(backend, "set.tgz", b"data")
    moto_proxy.on("GET", "set.tgz", refusal(403, "InvalidObjectState"))
    with pytest.raises(NotReadyError, match=r"set\.tgz") as caught:
        backend.download("set.tgz")
    assert caught.value.hint


def test_a_storage_without_ranges_is_refused(backend: S3Backend, moto_proxy: FaultProxy) -> None:
    moto_proxy.on("GET", "set.tgz", Answer(200, b"all of it"))
    with pytest.raises(StorageError, match=r"did not send the range .* \(Content-Range: missing\)"):
        backend.download("set.tgz", start=3)


@pytest.mark.parametrize(
    ("announced", "problem"),
    [
        ("bytes 0-9/10000000", "sent 'set.tgz' from byte 0, not from 3"),
        ("bytes 3-9999999/10000000", "sent more of 'set.tgz' than the range"),
    ],
)
def test_another_range_than_was_asked_for_is_refused(
    backend: S3Backend, moto_proxy: FaultProxy, announced: str, problem: str
) -> None:
    put(backend, "set.tgz", b"data" * 10)
    moto_proxy.on("GET", "set.tgz", Alter({"content-range": announced}))
    with pytest.raises(StorageError, match=problem) as caught:
        backend.download("set.tgz", start=3)
    assert "endpoint_url" in caught.value.hint


def test_a_later_range_that_is_another_one_is_refused(
    backend: S3Backend, moto_proxy: FaultProxy
) -> None:
    put(backend, "set.tgz", TWO_PARTS * 3)
    moto_proxy.on("GET", "set.tgz", Alter({"content-range": "bytes 0-9/100"}), after=1)
    with (
        backend.download("set.tgz") as source,
        pytest.raises(StorageError, match=r"another range of 'set\.tgz' than requested"),
    ):
        source.read()


def test_an_object_that_is_gone_after_its_upload_is_an_error(
    backend: S3Backend, moto_proxy: FaultProxy
) -> None:
    upload = backend.upload("set.tgz", metadata={})
    upload.write(b"data")
    moto_proxy.on("HEAD", "set.tgz", refusal(404, ""))
    with pytest.raises(StorageError, match="was confirmed by the storage, but does not exist"):
        upload.commit()


def test_an_answer_that_s3_never_gives_is_said_to_be_another_services(
    backend: S3Backend, moto_proxy: FaultProxy
) -> None:
    moto_proxy.on(
        "GET",
        "list-type=2",
        Answer(200, b"<ListBucketResult><MaxKeys>x</MaxKeys></ListBucketResult>"),
    )
    with pytest.raises(StorageError, match="the answer is one that cannot be read, which does"):
        list(backend.ls())
    moto_proxy.rules.clear()
    put(backend, "a.tgz", b"")
    moto_proxy.on("GET", "list-type=2", Answer(200))
    with pytest.raises(StorageError, match="the answer is one without Name, which does not come"):
        list(backend.ls())
    moto_proxy.on("POST", "uploads", Answer(200, b"<InitiateMultipartUploadResult/>"))
    with pytest.raises(StorageError, match="the answer is one without UploadId") as caught:
        put(backend, "set.tgz", TWO_PARTS)
    assert "endpoint_url" in caught.value.hint


@pytest.mark.parametrize(
    ("members", "keys"),
    [
        (
            b"<Contents><Key>a.tgz</Key><Size>1</Size>"
            b"<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>",
            ["a.tgz"],
        ),
        (b"<KeyCount>0</KeyCount>", []),
        (b"<MaxKeys>1000</MaxKeys>", []),
    ],
)
def test_a_listing_may_lack_the_name_of_the_bucket_and_whether_it_goes_on(
    backend: S3Backend, moto_proxy: FaultProxy, members: bytes, keys: list[str]
) -> None:
    listing = b"<ListBucketResult>" + members + b"</ListBucketResult>"
    moto_proxy.on("GET", "list-type=2", Answer(200, listing))
    assert [each.key for each in backend.ls()] == keys


def test_a_download_that_stalls_is_unreachable(
    conf: dict[str, Any], moto_proxy: FaultProxy
) -> None:
    put(s3_backend(conf), "set.tgz", TWO_PARTS)
    moto_proxy.on("GET", "set.tgz", Stall())
    impatient = s3_backend(conf, max_attempts=2, read_timeout=0.2)
    with pytest.raises(UnreachableError):
        impatient.download("set.tgz")


@pytest.mark.parametrize(
    ("code", "status"),
    [("BucketAlreadyOwnedByYou", 409), ("BucketAlreadyExists", 409), ("OperationAborted", 409)],
)
def test_a_bucket_that_another_process_just_made_is_no_error(
    backend: S3Backend, moto_proxy: FaultProxy, code: str, status: int
) -> None:
    moto_proxy.on("PUT", backend.container, refusal(status, code))
    backend.create_container()
    assert moto_proxy.seen("PUT", backend.container) >= 1


def test_a_thaw_whose_answer_was_lost_is_an_error(
    backend: S3Backend, conf: dict[str, Any], moto_proxy: FaultProxy
) -> None:
    plain(conf).put_object(Bucket=backend.container, Key="cold.tgz", StorageClass="GLACIER")
    moto_proxy.on("POST", "restore", Reset())
    with pytest.raises(UnreachableError, match="answer to the thaw request was lost") as caught:
        backend.thaw("cold.tgz", tier="standard", days=1)
    assert caught.value.hint == "try again"
    assert moto_proxy.seen("POST", "restore") == 1  # a second one would be charged again


def test_a_bucket_name_that_s3_refuses_is_an_error_of_the_configuration(
    backend: S3Backend, moto_proxy: FaultProxy
) -> None:
    moto_proxy.on("HEAD", backend.container, refusal(404, ""))
    moto_proxy.on("PUT", backend.container, refusal(400, "InvalidBucketName"))
    with pytest.raises(ConfigError, match=r"^invalid bucket '.*InvalidBucketName") as caught:
        backend.create_container()
    assert "another s3_bucket" in caught.value.hint


def test_a_bucket_name_that_is_someone_elses_is_a_clear_error(
    backend: S3Backend, moto_proxy: FaultProxy
) -> None:
    moto_proxy.on("HEAD", backend.container, refusal(404, ""))
    moto_proxy.on("PUT", backend.container, refusal(409, "BucketAlreadyExists"))
    with pytest.raises(StorageError, match="name is in use") as caught:
        backend.create_container()
    assert "another s3_bucket" in caught.value.hint


def test_a_bucket_that_vanished_before_a_delete_is_named(moto_conf: dict[str, Any]) -> None:
    with pytest.raises(ContainerNotFoundError, match=moto_conf["s3_bucket"]):
        s3_backend(moto_conf).delete("set.tgz")


def test_parts_that_outgrow_their_hint_are_stored_in_order(
    backend: S3Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bakthat.backends.aws.part_plan.FEWEST_EQUAL_PARTS", 1)
    monkeypatch.setattr("bakthat.backends.aws.part_plan.DOUBLINGS", MAX_PARTS)
    data = TWO_PARTS * 3
    put(backend, "set.tgz", data)
    assert get(backend, "set.tgz") == data
    assert (
        plain(dict(backend.conf))
        .head_object(Bucket=backend.container, Key="set.tgz")["ETag"]
        .endswith('-3"')
    )


def test_more_parts_than_s3_takes_are_an_error_that_leaves_nothing(
    backend: S3Backend, conf: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bakthat.backends.aws.part_upload.MAX_PARTS", 1)
    with pytest.raises(StorageError, match="larger than 1 parts"):
        put(backend, "set.tgz", TWO_PARTS)
    assert parts_under_way(conf) == []


def uses(backend: S3Backend) -> list[Callable[[], object]]:
    return [
        backend.create_container,
        lambda: backend.stat("set.tgz"),
        lambda: list(backend.ls()),
        lambda: backend.download("set.tgz"),
        lambda: backend.delete("set.tgz"),
    ]


WRONG_REGION: dict[str, Answer] = {
    # What S3 answers to a request for a bucket in another region.
    "a HEAD": Answer(301, headers={"x-amz-bucket-region": "eu-west-1"}),
    "a bad request": Answer(400, headers={"x-amz-bucket-region": "eu-west-1"}),
    "a body": Answer(
        400,
        b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region 'us-east-1' is "
        b"wrong; expecting 'eu-west-1'</Message><Region>eu-west-1</Region></Error>",
    ),
    "a redirect": Answer(
        301,
        b"<Error><Code>PermanentRedirect</Code><Message>use the endpoint</Message></Error>",
        {"x-amz-bucket-region": "eu-west-1"},
    ),
}


@pytest.mark.parametrize("name", WRONG_REGION)
def test_a_bucket_in_another_region_is_named_with_its_region(
    backend: S3Backend, moto_proxy: FaultProxy, name: str
) -> None:
    moto_proxy.on("*", "", WRONG_REGION[name])
    for use in uses(backend):
        with pytest.raises(StorageError, match="is in the region eu-west-1, not in us-") as caught:
            use()
        assert caught.value.hint == "set region_name: eu-west-1"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirection_elsewhere_is_named_and_not_followed(
    backend: S3Backend, moto_proxy: FaultProxy, status: int
) -> None:
    login = {"location": "http://portal.example.com/login"}
    moto_proxy.on("*", "", Answer(status, b"<html>Please log in</html>", login))
    for use in uses(backend):
        before = len(moto_proxy.requests)
        with pytest.raises(StorageError, match=r"a redirection to http://portal\.") as caught:
            use()
        assert "whether the network asks for a login" in caught.value.hint
        assert len(moto_proxy.requests) == before + 1


@pytest.mark.parametrize("status", [400, 403])
def test_a_head_without_a_reason_is_explained_by_another_request(
    backend: S3Backend, moto_proxy: FaultProxy, status: int
) -> None:
    moto_proxy.on("HEAD", "", Answer(status))
    moto_proxy.on("GET", "list-type", refusal(403, "RequestTimeTooSkewed", "the clock is wrong"))
    with pytest.raises(CredentialsError, match="the clock is wrong") as caught:
        backend.stat("set.tgz")
    assert caught.value.hint == "set the clock of this machine"


@pytest.mark.parametrize(("status", "hint"), [(400, "check "), (403, "allow s3:GetObject on ")])
def test_a_head_that_nothing_explains_names_its_status_once_and_what_to_check(
    backend: S3Backend, moto_proxy: FaultProxy, status: int, hint: str
) -> None:
    put(backend, "set.tgz", b"content")  # otherwise the listing explains it
    moto_proxy.on("HEAD", "", Answer(status))
    with pytest.raises(StorageError) as caught:
        backend.stat("set.tgz")
    # Not in the names of the bucket and the server, which are random.
    _, _, said = str(caught.value).partition(moto_proxy.endpoint_url)
    assert said.count(str(status)) == 1
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("fault", "passes"),
    [
        (refusal(500, "InternalError"), True),
        (refusal(503, "SlowDown"), True),
        (refusal(429, "TooManyRequests"), True),
        (refusal(400, "RequestTimeout"), True),
        (Reset(), True),
        (refusal(403, "AccessDenied"), False),
        (refusal(404, "NoSuchBucket"), False),
        (refusal(400, "InvalidArgument"), False),
        (refusal(501, "NotImplemented"), False),
    ],
    ids=str,
)
def test_a_failure_says_whether_it_passes_by_itself(
    conf: dict[str, Any], moto_proxy: FaultProxy, fault: Fault, passes: bool
) -> None:
    moto_proxy.on("GET", "", fault)
    with pytest.raises(StorageError) as caught:
        list(s3_backend(conf, max_attempts=1).ls())
    assert caught.value.may_pass is passes
