"""Deletions in buckets that keep versions, and in those with object lock."""

from __future__ import annotations

import email.utils
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from bakthat.backends.lock import Lock
from bakthat.backends.s3.backend import S3Backend
from bakthat.errors import (
    BakthatError,
    CredentialsError,
    LockedObjectError,
    StorageError,
    UnreachableError,
)
from tests.support.fault_proxy import Alter, Answer, FaultProxy, LoseAnswer, Reset, refusal
from tests.support.profiles import Conf
from tests.support.servers import plain, s3_backend
from tests.support.versions import (
    make_bucket,
    mark,
    markers_in,
    put_version,
    set_versions,
    versions_in,
)

DAY = 86400
VERSIONING, LOCK, LISTING = "?versioning", "?object-lock", "versions&"


@pytest.fixture(params=["moto", "seaweedfs"])
def conf(request: pytest.FixtureRequest) -> Conf:
    """Return a flat profile of each server that knows versions; the bucket is missing."""
    found: Conf = request.getfixturevalue(f"{request.param}_conf")
    return found


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


def error_of(backend: S3Backend, key: str) -> BakthatError:
    """Return the error of deleting *key*, which is the same for one key and for many."""
    with pytest.raises(BakthatError) as caught:
        backend.delete(key)
    (error,) = backend.delete_many([key]).values()
    assert (type(error), str(error)) == (type(caught.value), str(caught.value))
    return error


# Versions


@pytest.mark.parametrize("together", [True, False], ids=["together", "one by one"])
def test_no_version_and_no_marker_is_left(conf: Conf, together: bool) -> None:
    make_bucket(conf)
    for key in ("my.1", "my.2", "my.1.index", "my.10"):
        put_version(conf, key, b"first")
        put_version(conf, key, b"second")
    mark(conf, "my.2")  # as an earlier version of bakthat, or somebody else, has deleted it
    backend = s3_backend(conf)
    if together:
        assert backend.delete_many(["my.1", "my.2", "my.3"]) == {}
    else:
        for key in ("my.1", "my.2", "my.3"):
            backend.delete(key)
    assert versions_in(conf) == {"my.1.index": 2, "my.10": 2}


def test_the_null_version_and_those_of_a_suspended_bucket_go_too(conf: Conf) -> None:
    client = plain(conf)
    client.create_bucket(Bucket=conf["s3_bucket"])
    put_version(conf, "my.1", b"before versions")
    set_versions(conf, "Enabled")
    put_version(conf, "my.1", b"with versions")
    put_version(conf, "my.2", b"with versions")
    set_versions(conf, "Suspended")
    put_version(conf, "my.2", b"suspended")
    backend = s3_backend(conf)
    assert backend.has_versions()
    assert backend.delete_many(["my.1", "my.2"]) == {}
    assert versions_in(conf) == {}


def test_a_key_that_is_not_stored_gets_no_marker(conf: Conf) -> None:
    make_bucket(conf)
    backend = s3_backend(conf)
    backend.delete("my.1")
    assert backend.delete_many(["my.1", "my.2"]) == {}
    assert versions_in(conf) == {}


@pytest.mark.slow
def test_many_keys_take_few_requests(moto_proxy: FaultProxy, moto_conf: Conf) -> None:
    make_bucket(moto_conf)
    keys = [f"my.{number:04}" for number in range(1500)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: put_version(moto_conf, key), [*keys, *keys[::10], "mysql.1"]))
    backend = S3Backend({**moto_conf, "endpoint_url": moto_proxy.endpoint_url})
    assert backend.delete_many(keys) == {}
    assert versions_in(moto_conf) == {"mysql.1": 1}
    assert moto_proxy.seen("GET", LISTING) == 2
    assert moto_proxy.seen("POST", "?delete") == 3  # 150 older versions, and twice the latest
    assert moto_proxy.seen("GET", VERSIONING) == moto_proxy.seen("GET", LOCK) == 1
    assert len(moto_proxy.requests) == 7


def test_few_keys_among_many_are_listed_one_by_one(moto_proxy: FaultProxy, moto_conf: Conf) -> None:
    make_bucket(moto_conf)
    for number in range(100):
        put_version(moto_conf, f"my.{number:03}")
    backend = s3_backend({**moto_conf, "endpoint_url": moto_proxy.endpoint_url})
    assert backend.delete_many(["my.099", "my.000"]) == {}
    assert len(versions_in(moto_conf)) == 98
    # Pages of seven: three below the common prefix, one of the key that they did not show.
    assert moto_proxy.seen("GET", LISTING) <= 5


def test_a_key_that_others_begin_with_is_listed_to_its_end(conf: Conf) -> None:
    make_bucket(conf)
    for number in range(30):
        put_version(conf, f"my.1{number:03}")
        put_version(conf, "my.1")
    s3_backend(conf).delete("my.1")
    assert len(versions_in(conf)) == 30
    assert "my.1" not in versions_in(conf)


def test_a_bucket_without_versions_is_asked_once(moto_proxy: FaultProxy, moto_conf: Conf) -> None:
    backend = s3_backend({**moto_conf, "endpoint_url": moto_proxy.endpoint_url})
    backend.create_container()
    moto_proxy.requests.clear()
    backend.delete("my.1")
    assert backend.delete_many(["my.1", "my.2"]) == {}
    assert backend.locked(["my.1"]) == {}
    methods = [(method, path.partition("?")[2]) for method, path, _ in moto_proxy.requests]
    assert methods == [("GET", "versioning"), ("DELETE", ""), ("POST", "delete")]


def test_rclone_has_no_versions(rclone_conf: Conf) -> None:
    backend = s3_backend(rclone_conf)
    backend.create_container()
    put_version(rclone_conf, "my.1")
    assert not backend.has_versions()
    assert backend.locked(["my.1"]) == {}
    assert backend.delete_many(["my.1", "my.2"]) == {}
    assert list(backend.ls()) == []


@pytest.mark.parametrize(
    "answer",
    [
        refusal(501, "NotImplemented"),
        refusal(405, "MethodNotAllowed"),
        refusal(404, "NoSuchVersioningConfiguration"),
    ],
    ids=["501", "405", "404"],
)
def test_a_storage_that_knows_no_versions_deletes_as_ever(
    moto_proxy: FaultProxy, moto_conf: Conf, answer: Answer
) -> None:
    backend = s3_backend({**moto_conf, "endpoint_url": moto_proxy.endpoint_url})
    backend.create_container()
    put_version(moto_conf, "my.1")
    moto_proxy.on("GET", VERSIONING, answer)
    backend.delete("my.1")
    assert versions_in(moto_conf) == {}


def test_an_interrupted_deletion_shows_no_older_content(
    moto_proxy: FaultProxy, moto_conf: Conf
) -> None:
    client = make_bucket(moto_conf)
    for key in ("my.1", "my.2"):
        for body in (b"first", b"second"):
            put_version(moto_conf, key, body)
    moto_proxy.on("POST", "?delete", Reset(), after=1)  # the latest versions
    backend = s3_backend({**moto_conf, "endpoint_url": moto_proxy.endpoint_url})
    with pytest.raises(UnreachableError):
        backend.delete_many(["my.1", "my.2"])
    bucket = moto_conf["s3_bucket"]
    for key in ("my.1", "my.2"):
        assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == b"second"
    moto_proxy.rules.clear()
    assert backend.delete_many(["my.1", "my.2"]) == {}
    assert versions_in(moto_conf) == {}


def test_a_deletion_whose_answer_is_lost_is_repeated(
    moto_proxy: FaultProxy, moto_conf: Conf
) -> None:
    make_bucket(moto_conf)
    for key in ("my.1", "my.2"):
        put_version(moto_conf, key)
    moto_proxy.on("POST", "?delete", LoseAnswer(), times=1)
    backend = s3_backend({**moto_conf, "endpoint_url": moto_proxy.endpoint_url})
    assert backend.delete_many(["my.1", "my.2"]) == {}
    assert versions_in(moto_conf) == {}


def test_an_empty_answer_to_the_listing_is_no_empty_bucket(
    moto_proxy: FaultProxy, moto_conf: Conf
) -> None:
    make_bucket(moto_conf)
    put_version(moto_conf, "my.1")
    moto_proxy.on("GET", LISTING, Answer(200, b"<ListVersionsResult></ListVersionsResult>"))
    backend = s3_backend({**moto_conf, "endpoint_url": moto_proxy.endpoint_url})
    with pytest.raises(BakthatError):
        backend.delete("my.1")
    assert versions_in(moto_conf) == {"my.1": 1}


def test_versions_are_kept_where_the_profile_says_so(conf: Conf) -> None:
    make_bucket(conf)
    put_version(conf, "my.1", b"first")
    put_version(conf, "my.1", b"second")
    put_version(conf, "my.2")
    backend = s3_backend({**conf, "versions": "keep"})
    for _ in range(2):  # the second time, there is nothing to hide
        assert backend.delete_many(["my.1", "my.2", "my.3"]) == {}
        assert versions_in(conf) == {"my.1": 3, "my.2": 2}
    assert list(backend.ls()) == []


# Keys that may not do it


def denied(*keys: str) -> Answer:
    """Return the answer to a batch of which every deletion is refused."""
    errors = (
        f"<Error><Key>{key}</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
        for key in keys
    )
    return Answer(200, f"<DeleteResult>{''.join(errors)}</DeleteResult>".encode())


def refusing(proxy: FaultProxy, *parts: str, method: str = "GET") -> None:
    for part in parts:
        proxy.on(method, part, refusal(403, "AccessDenied", "not for you"))


@pytest.mark.parametrize(
    ("method", "part", "permission"),
    [("GET", LISTING, "s3:ListBucketVersions"), ("DELETE", "versionId=", "s3:DeleteObjectVersion")],
)
@pytest.mark.parametrize("together", [True, False], ids=["together", "one by one"])
def test_without_the_permission_a_marker_hides_it_and_that_is_said_once(
    moto_proxy: FaultProxy,
    moto_conf: Conf,
    method: str,
    part: str,
    permission: str,
    together: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_bucket(moto_conf)
    for key in ("my.1", "my.2"):
        put_version(moto_conf, key)
    moto_proxy.on(method, part, refusal(403, "AccessDenied"))
    if method == "DELETE" and together:
        moto_proxy.on("POST", "?delete", denied("my.1", "my.2"), times=1)
    backend = s3_backend({**moto_conf, "endpoint_url": moto_proxy.endpoint_url})
    if together:
        assert backend.delete_many(["my.1", "my.2"]) == {}
    else:
        backend.delete("my.1")
        backend.delete("my.2")
    assert versions_in(moto_conf) == {"my.1": 2, "my.2": 2}
    assert list(backend.ls()) == []
    (warning,) = warnings_of(caplog)
    assert "is only hidden, and still costs money" in warning
    assert f"allow {permission} on arn:aws:s3:::{moto_conf['s3_bucket']}" in warning


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_without_the_permission_nothing_that_may_be_locked_is_hidden(
    moto_proxy: FaultProxy, moto_conf: Conf, method: str
) -> None:
    make_bucket(moto_conf, locks=True)
    put_version(moto_conf, "my.1", until=time.time() + DAY)
    put_version(moto_conf, "my.2")
    if method == "GET":
        refusing(moto_proxy, LISTING)
    else:  # the lock cannot be seen either
        refusing(moto_proxy, "", method="HEAD")
        refusing(moto_proxy, "retention", method="GET")
        refusing(moto_proxy, "versionId=", method="DELETE")
        moto_proxy.on("POST", "?delete", denied("my.1", "my.2"))
    backend = s3_backend({**moto_conf, "endpoint_url": moto_proxy.endpoint_url})
    for key in ("my.1", "my.2"):
        error = error_of(backend, key)
        assert isinstance(error, CredentialsError)
        assert "may be locked" in str(error)
        permission = "s3:ListBucketVersions" if method == "GET" else "s3:DeleteObjectVersion"
        assert f"allow {permission} on" in error.hint
    assert versions_in(moto_conf) == {"my.1": 1, "my.2": 1}


def test_a_missing_permission_is_told_from_a_lock(moto_proxy: FaultProxy, moto_conf: Conf) -> None:
    make_bucket(moto_conf, locks=True)
    put_version(moto_conf, "my.1")
    moto_proxy.on("DELETE", "versionId=", refusal(403, "AccessDenied"))
    moto_proxy.on("POST", "?delete", refusal(403, "AccessDenied"))
    backend = s3_backend({**moto_conf, "endpoint_url": moto_proxy.endpoint_url})
    # moto answers 500 to this for an object without a retention.
    moto_proxy.on("GET", "?retention", refusal(404, "NoSuchObjectLockConfiguration"))
    error = error_of(backend, "my.1")
    assert isinstance(error, CredentialsError)
    assert "locked" not in str(error)
    assert "allow s3:DeleteObjectVersion on" in error.hint


@pytest.mark.parametrize("has_versions", [True, False], ids=["versions", "no versions"])
def test_where_the_bucket_may_not_be_asked_its_objects_show_it(
    moto_proxy: FaultProxy, moto_conf: Conf, has_versions: bool
) -> None:
    make_bucket(moto_conf) if has_versions else plain(moto_conf).create_bucket(
        Bucket=moto_conf["s3_bucket"]
    )
    for key in ("my.1", "my.2", "my.3"):
        put_version(moto_conf, key)
        put_version(moto_conf, key)
    refusing(moto_proxy, VERSIONING, LOCK)
    backend = s3_backend({**moto_conf, "endpoint_url": moto_proxy.endpoint_url})
    assert backend.delete_many(["my.0", "my.1"]) == {}
    backend.delete("my.2")
    assert versions_in(moto_conf) == {"my.3": 2 if has_versions else 1}
    assert moto_proxy.seen("HEAD") == (6 if has_versions else 2)


def test_where_the_bucket_may_not_be_asked_a_marker_shows_it(
    moto_proxy: FaultProxy, moto_conf: Conf
) -> None:
    make_bucket(moto_conf)
    put_version(moto_conf, "my.1")
    mark(moto_conf, "my.1")
    refusing(moto_proxy, VERSIONING)
    s3_backend({**moto_conf, "endpoint_url": moto_proxy.endpoint_url}).delete("my.1")
    assert versions_in(moto_conf) == {}


@pytest.mark.parametrize("parts", [(VERSIONING,), (VERSIONING, LOCK)], ids=["one", "both"])
def test_where_the_bucket_may_not_be_asked_nothing_locked_is_hidden(
    moto_proxy: FaultProxy, moto_conf: Conf, parts: Sequence[str]
) -> None:
    make_bucket(moto_conf, locks=True)
    put_version(moto_conf, "my.1", until=time.time() + DAY)
    refusing(moto_proxy, *parts)
    backend = s3_backend({**moto_conf, "endpoint_url": moto_proxy.endpoint_url})
    assert isinstance(error_of(backend, "my.1"), LockedObjectError)
    assert versions_in(moto_conf) == {"my.1": 1}


def test_where_nothing_may_be_seen_nothing_is_hidden(
    moto_proxy: FaultProxy, moto_conf: Conf
) -> None:
    make_bucket(moto_conf, locks=True)
    put_version(moto_conf, "my.1", until=time.time() + DAY)
    refusing(moto_proxy, VERSIONING, LOCK)
    refusing(moto_proxy, "", method="HEAD")
    backend = s3_backend({**moto_conf, "endpoint_url": moto_proxy.endpoint_url})
    with pytest.raises(CredentialsError) as caught:
        backend.delete("my.1")
    assert "allow s3:GetBucketVersioning on" in caught.value.hint
    assert versions_in(moto_conf) == {"my.1": 1}


# Locks


@pytest.mark.parametrize("versions", ["delete", "keep"])
@pytest.mark.parametrize("mode", ["GOVERNANCE", "COMPLIANCE"])
def test_a_locked_key_stays_as_it_is(conf: Conf, mode: str, versions: str) -> None:
    make_bucket(conf, locks=True)
    until = int(time.time()) + DAY
    put_version(conf, "my.1", until=until, mode=mode)
    put_version(conf, "my.2")
    backend = s3_backend({**conf, "versions": versions})
    error = error_of(backend, "my.1")
    assert isinstance(error, LockedObjectError)
    assert (error.until, error.is_held) == (until, False)
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(until))
    assert str(error) == f"'my.1' is locked until {moment} UTC"
    assert list(backend.delete_many(["my.1", "my.2"])) == ["my.1"]
    assert list(backend.locked(["my.1", "my.2", "my.3"])) == ["my.1"]
    assert versions_in(conf)["my.1"] == 1
    assert "my.2" not in {each.key for each in backend.ls()}
    assert versions_in(conf).get("my.2", 0) == (2 if versions == "keep" else 0)


def test_a_key_on_hold_stays_as_it_is(conf: Conf) -> None:
    client = make_bucket(conf, locks=True)
    put_version(conf, "my.1")
    client.put_object_legal_hold(Bucket=conf["s3_bucket"], Key="my.1", LegalHold={"Status": "ON"})
    backend = s3_backend(conf)
    error = error_of(backend, "my.1")
    assert isinstance(error, LockedObjectError)
    assert (error.until, error.is_held) == (None, True)
    assert str(error) == "'my.1' is on hold"
    assert versions_in(conf) == {"my.1": 1}
    backend.set_hold("my.1", is_held=False)
    backend.delete("my.1")
    assert versions_in(conf) == {}


@pytest.mark.parametrize("is_hidden", [True, False], ids=["below a marker", "below another"])
def test_a_locked_version_below_keeps_the_key(conf: Conf, is_hidden: bool) -> None:
    make_bucket(conf, locks=True)
    put_version(conf, "my.1", b"backup", until=time.time() + DAY)
    if is_hidden:
        mark(conf, "my.1")
    else:
        put_version(conf, "my.1", b"of somebody who has the keys")
    before = versions_in(conf)
    for versions in ("delete", "keep"):
        backend = s3_backend({**conf, "versions": versions})
        assert isinstance(error_of(backend, "my.1"), LockedObjectError)
        assert list(backend.locked(["my.1"])) == ["my.1"]
    assert versions_in(conf) == before


def test_a_lock_that_is_set_after_the_look_is_obeyed(conf: Conf) -> None:
    make_bucket(conf, locks=True)
    put_version(conf, "my.1")
    put_version(conf, "my.2")
    backend = s3_backend(conf)
    assert backend.locked(["my.1", "my.2"]) == {}
    backend.extend_lock("my.1", Lock(time.time() + DAY, "governance"))
    assert [type(each) for each in backend.delete_many(["my.1", "my.2"]).values()] == [
        LockedObjectError
    ]
    assert versions_in(conf) == {"my.1": 1}
    with pytest.raises(LockedObjectError, match="is locked until"):
        backend.delete("my.1")


def test_what_was_just_looked_at_is_not_looked_at_again(
    moto_proxy: FaultProxy, moto_conf: Conf
) -> None:
    make_bucket(moto_conf, locks=True)
    for key in ("my.1", "my.2", "my.3"):
        put_version(moto_conf, key, until=time.time() + DAY if key == "my.3" else None)
    backend = s3_backend({**moto_conf, "endpoint_url": moto_proxy.endpoint_url})
    assert list(backend.locked(["my.1", "my.2", "my.3"])) == ["my.3"]
    assert moto_proxy.seen("HEAD") == 3
    assert backend.delete_many(["my.1", "my.2"]) == {}
    assert moto_proxy.seen("HEAD") == 3
    assert moto_proxy.seen("GET", LOCK) == 1


def test_a_clock_that_is_ahead_here_ends_no_lock(
    conf: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bucket(conf, locks=True)
    now = time.time()
    put_version(conf, "my.1", until=now + DAY / 2)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now + DAY)
        assert isinstance(error_of(s3_backend(conf), "my.1"), LockedObjectError)
    assert versions_in(conf) == {"my.1": 1}


def test_a_lock_that_has_ended_by_the_clock_of_the_storage_is_none(
    moto_proxy: FaultProxy, moto_conf: Conf
) -> None:
    make_bucket(moto_conf, locks=True)
    now = time.time()
    put_version(moto_conf, "my.1", until=now + DAY / 2)
    later = email.utils.formatdate(now + DAY, usegmt=True)
    moto_proxy.on("HEAD", "my.1", Alter({"date": later}))
    backend = s3_backend({**moto_conf, "endpoint_url": moto_proxy.endpoint_url})
    assert backend.locked(["my.1"]) == {}


def test_what_the_storage_refuses_is_locked_whatever_its_lock_seemed_to_be(
    moto_proxy: FaultProxy, moto_conf: Conf
) -> None:
    """A lock that has ended by one clock of the storage, but not by another."""
    make_bucket(moto_conf, locks=True)
    put_version(moto_conf, "my.1")
    words = "Access Denied because object protected by object lock."
    moto_proxy.on("DELETE", "versionId=", refusal(403, "AccessDenied", words))
    moto_proxy.on("GET", "?retention", refusal(404, "NoSuchObjectLockConfiguration"))
    moto_proxy.on("POST", "?delete", denied("my.1"))
    backend = s3_backend({**moto_conf, "endpoint_url": moto_proxy.endpoint_url})
    assert isinstance(error_of(backend, "my.1"), LockedObjectError)
    assert versions_in(moto_conf) == {"my.1": 1}
    assert markers_in(moto_conf) == set()


def test_nothing_is_hidden_where_locks_cannot_be_seen_and_versions_are_kept(
    moto_proxy: FaultProxy, moto_conf: Conf
) -> None:
    make_bucket(moto_conf, locks=True)
    put_version(moto_conf, "my.1", until=time.time() + DAY)
    refusing(moto_proxy, "", method="HEAD")
    refusing(moto_proxy, "retention")
    conf = {**moto_conf, "endpoint_url": moto_proxy.endpoint_url, "versions": "keep"}
    error = error_of(s3_backend(conf), "my.1")
    assert "may be locked" in str(error)
    assert "s3:GetObjectRetention" in error.hint
    assert versions_in(moto_conf) == {"my.1": 1}


LOCK_HEADERS = frozenset({"x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date"})
HOLD_HEADER = frozenset({"x-amz-object-lock-legal-hold"})
"""What S3 leaves out for keys without s3:GetObjectRetention, or without s3:GetObjectLegalHold."""


@pytest.mark.parametrize("unseen", [LOCK_HEADERS, HOLD_HEADER], ids=["retention", "hold"])
def test_half_a_lock_that_is_seen_hides_nothing(
    moto_proxy: FaultProxy, moto_conf: Conf, unseen: frozenset[str]
) -> None:
    """Of a lock, the keys may see only the hold that has ended, or only the retention."""
    client = make_bucket(moto_conf, locks=True)
    bucket = moto_conf["s3_bucket"]
    put_version(moto_conf, "my.1", until=time.time() + DAY if unseen is LOCK_HEADERS else None)
    status = "OFF" if unseen is LOCK_HEADERS else "ON"
    client.put_object_legal_hold(Bucket=bucket, Key="my.1", LegalHold={"Status": "ON"})
    client.put_object_legal_hold(Bucket=bucket, Key="my.1", LegalHold={"Status": status})
    moto_proxy.on("HEAD", "my.1", Alter(without=unseen))
    if unseen is LOCK_HEADERS:
        refusing(moto_proxy, "?retention", "&retention", "retention=")
    else:
        refusing(moto_proxy, "?legal-hold", "&legal-hold", "legal-hold=")
        moto_proxy.on("GET", "?retention", refusal(404, "NoSuchObjectLockConfiguration"))
    for versions in ("keep", "delete"):
        conf = {**moto_conf, "endpoint_url": moto_proxy.endpoint_url, "versions": versions}
        error = error_of(s3_backend(conf), "my.1")
        assert "may be locked" in str(error) or versions == "delete"
        assert versions_in(moto_conf) == {"my.1": 1}


# What was stored wrongly


def store_wrongly(
    backend: S3Backend, monkeypatch: pytest.MonkeyPatch, lock: Lock | None = None
) -> None:
    """Store half of an object under "my.1", as a faulty machine between here and there would."""
    upload = backend.upload("my.1", metadata={}, replace=True, lock=lock)
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
    upload.abort()


def test_a_wrong_version_is_removed_and_shows_the_one_before(
    conf: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_bucket(conf)
    put_version(conf, "my.1", b"before")
    store_wrongly(s3_backend(conf), monkeypatch)
    assert versions_in(conf) == {"my.1": 1}
    got = client.get_object(Bucket=conf["s3_bucket"], Key="my.1")
    assert got["Body"].read() == b"before"


def test_a_wrong_version_that_may_not_be_removed_is_hidden(
    moto_proxy: FaultProxy, moto_conf: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bucket(moto_conf)
    moto_proxy.on("DELETE", "versionId=", refusal(403, "AccessDenied"))
    backend = s3_backend({**moto_conf, "endpoint_url": moto_proxy.endpoint_url})
    store_wrongly(backend, monkeypatch)
    assert versions_in(moto_conf) == {"my.1": 2}
    assert list(backend.ls()) == []


def test_a_wrong_version_that_is_locked_is_not_hidden(
    conf: Conf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_bucket(conf, locks=True)
    store_wrongly(s3_backend(conf), monkeypatch, Lock(time.time() + DAY, "governance"))
    assert versions_in(conf) == {"my.1": 1}
    (warning,) = warnings_of(caplog)
    assert warning.startswith("incomplete my.1 could not be removed")
