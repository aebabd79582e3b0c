"""A version that was deleted or overwritten is brought back, whatever the storage refuses."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from bakthat.backends.lock import Lock
from bakthat.backends.protection import Version, VersionedStorage
from bakthat.backends.s3.backend import S3Backend
from bakthat.backends.s3.versions import undeletion
from bakthat.errors import CredentialsError, NotFoundError, NotReadyError, StorageError
from tests.support.attacker import Attacker
from tests.support.fault_proxy import Alter, Answer, FaultProxy, LoseAnswer, refusal
from tests.support.profiles import Conf
from tests.support.servers import get, put

DAY = 86400
KEY = "p/etc.20260101000000.tgz"
DENIED = refusal(403, "AccessDenied", "Access Denied")


@pytest.fixture
def attacker(proxied_conf: Conf) -> Attacker:
    found = Attacker(proxied_conf)
    found.make_bucket(object_lock=True)
    return found


@pytest.fixture
def backend(proxied_conf: Conf, attacker: Attacker) -> S3Backend:
    return S3Backend(proxied_conf)


def stored(backend: S3Backend, data: bytes = b"content") -> Version:
    put(backend, KEY, data)
    return versions(backend)[0]


def versions(backend: S3Backend) -> list[Version]:
    return [each for each in backend.versions(KEY) if each.key == KEY]


def test_it_is_a_versioned_storage(backend: S3Backend) -> None:
    assert isinstance(backend, VersionedStorage)


def test_what_nothing_hides_is_left_alone(backend: S3Backend, moto_proxy: FaultProxy) -> None:
    version = stored(backend)
    before = len(moto_proxy.requests)
    assert backend.bring_back(version).extra["version"] == version.version_id
    assert {verb for verb, *_ in moto_proxy.requests[before:]} == {"GET", "HEAD"}


def test_several_markers_are_removed_and_nothing_else(
    backend: S3Backend, attacker: Attacker, moto_proxy: FaultProxy
) -> None:
    version = stored(backend)
    attacker.delete(KEY, KEY)
    assert sorted(each.is_marker for each in versions(backend)) == [False, True, True]
    written = moto_proxy.seen("PUT")
    found = backend.bring_back(version)
    assert (found.size, found.metadata) == (7, {"of": KEY})
    assert [each.version_id for each in versions(backend)] == [version.version_id]
    assert moto_proxy.seen("PUT") == written


def test_copy_in_a_bucket_whose_versions_are_suspended_is_recognized(
    backend: S3Backend, attacker: Attacker, moto_proxy: FaultProxy
) -> None:
    version = stored(backend)
    attacker.overwrite(KEY)
    # It has the id "null", which the answer to the copy need not say. moto and SeaweedFS make none.
    silent = Alter(without=frozenset({"x-amz-version-id"}))
    moto_proxy.on("PUT", f"/{KEY}", silent, header="x-amz-copy-source")
    of_copy = Alter(headers={"x-amz-version-id": "null"})
    moto_proxy.on("HEAD", f"/{KEY}", of_copy, after=1)  # the first is of the version
    found = backend.bring_back(version)
    assert (found.size, found.extra["version"]) == (7, "null")
    assert get(backend, KEY) == b"content"


def test_marker_that_may_not_be_removed_is_copied_over(
    backend: S3Backend, attacker: Attacker, moto_proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    version = stored(backend)
    attacker.delete(KEY)
    moto_proxy.on("DELETE", "versionId", DENIED)
    found = backend.bring_back(version)
    assert found.extra["version"] != version.version_id
    assert sorted(each.is_marker for each in versions(backend)) == [False, False, True]
    assert get(backend, KEY) == b"content"
    assert "cannot be removed, so the version is copied" in caplog.text


def test_either_permission_is_enough_and_both_are_named(
    backend: S3Backend, attacker: Attacker, moto_proxy: FaultProxy
) -> None:
    version = stored(backend)
    attacker.delete(KEY)
    moto_proxy.on("DELETE", "versionId", DENIED)
    moto_proxy.on("PUT", KEY, DENIED)
    with pytest.raises(CredentialsError) as caught:
        backend.bring_back(version)
    assert "allow s3:DeleteObjectVersion on" in caught.value.hint
    assert "; or allow s3:PutObject on" in caught.value.hint


def test_failure_of_the_service_is_no_refusal(
    proxied_conf: Conf, attacker: Attacker, moto_proxy: FaultProxy
) -> None:
    backend = S3Backend({**proxied_conf, "attempts": 1})
    version = stored(backend)
    attacker.delete(KEY)
    moto_proxy.on("DELETE", "versionId", refusal(503, "SlowDown"))
    with pytest.raises(StorageError, match="503"):
        backend.bring_back(version)
    assert len(versions(backend)) == 2


def test_lost_answers_lose_nothing(
    backend: S3Backend, attacker: Attacker, moto_proxy: FaultProxy
) -> None:
    version = stored(backend)
    attacker.delete(KEY)
    moto_proxy.on("DELETE", "versionId", LoseAnswer(), times=1)
    backend.bring_back(version)
    attacker.overwrite(KEY)
    moto_proxy.on("PUT", KEY, LoseAnswer(), times=1, header="x-amz-copy-source")
    backend.bring_back(version)
    assert get(backend, KEY) == b"content"


def test_frozen_version_is_not_copied_but_shown(proxied_conf: Conf, attacker: Attacker) -> None:
    backend = S3Backend({**proxied_conf, "storage_class": "DEEP_ARCHIVE"})
    version = stored(backend)
    attacker.delete(KEY)
    assert backend.bring_back(version).storage_class == "DEEP_ARCHIVE"
    attacker.overwrite(KEY)
    with pytest.raises(NotReadyError, match="frozen in DEEP_ARCHIVE") as caught:
        backend.bring_back(version)
    assert f"--version-id {version.version_id}" in caught.value.hint
    assert len(versions(backend)) == 2


def test_version_that_was_removed_meanwhile(backend: S3Backend, attacker: Attacker) -> None:
    version = stored(backend)
    attacker.overwrite(KEY)
    attacker.client.delete_object(Bucket=attacker.bucket, Key=KEY, VersionId=version.version_id)
    with pytest.raises(NotFoundError, match="any more"):
        backend.bring_back(version)
    with pytest.raises(NotFoundError):
        backend.stat_version(version)


@pytest.mark.parametrize("how", ["delete", "overwrite"])
def test_somebody_who_hides_it_again_is_noticed(
    backend: S3Backend, attacker: Attacker, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    version = stored(backend)
    attacker.overwrite(KEY)
    real: Callable[..., Any] = undeletion.Undeletion._copy_whole

    def copy(*arguments: Any) -> Any:
        answer = real(*arguments)
        getattr(attacker, how)(KEY)
        return answer

    monkeypatch.setattr(undeletion.Undeletion, "_copy_whole", copy)
    with pytest.raises(StorageError, match="is hidden again") as caught:
        backend.bring_back(version)
    assert "access keys" in caught.value.hint


@pytest.mark.parametrize(
    ("other", "what"),
    [({"ContentLength": 8}, "size"), ({"Metadata": {}}, "self-description")],
)
def test_copy_of_what_is_not_the_same_is_an_error(
    backend: S3Backend,
    attacker: Attacker,
    monkeypatch: pytest.MonkeyPatch,
    other: dict[str, Any],
    what: str,
) -> None:
    version = stored(backend)
    attacker.overwrite(KEY)
    real: Callable[..., Any] = undeletion.headers_of_version

    def headers(*arguments: Any) -> Any:
        return {**real(*arguments), **other}

    monkeypatch.setattr(undeletion, "headers_of_version", headers)
    with pytest.raises(StorageError, match=f"another {what} than the version"):
        backend.bring_back(version)


@pytest.mark.parametrize("sizes", [(5 * 1024**2 + 7, 100), (7,)])
def test_object_larger_than_one_request_copies_is_copied_in_parts(
    backend: S3Backend,
    attacker: Attacker,
    monkeypatch: pytest.MonkeyPatch,
    moto_proxy: FaultProxy,
    sizes: tuple[int, ...],
) -> None:
    data = b"".join(bytes([number]) * size for number, size in enumerate(sizes, 1))
    version = stored(backend, data)
    monkeypatch.setattr(undeletion, "MAX_COPY_BYTES", 6)
    monkeypatch.setattr(undeletion, "COPIED_PART_BYTES", 5 * 1024**2)
    lock = Lock(float(int(time.time()) + DAY), "governance")
    attacker.overwrite(KEY)
    found = backend.bring_back(version, lock)
    assert moto_proxy.seen("PUT", "partNumber") == len(sizes)
    assert (found.size, found.metadata) == (len(data), {"of": KEY})
    assert found.lock is not None
    assert found.lock.covers(lock)
    assert get(backend, KEY) == data


@pytest.mark.parametrize("refused", ["partNumber", "uploadId"])
def test_parts_of_a_copy_that_failed_do_not_stay(
    backend: S3Backend,
    attacker: Attacker,
    monkeypatch: pytest.MonkeyPatch,
    moto_proxy: FaultProxy,
    refused: str,
) -> None:
    version = stored(backend)
    monkeypatch.setattr(undeletion, "MAX_COPY_BYTES", 6)
    attacker.overwrite(KEY)
    moto_proxy.on("PUT" if refused == "partNumber" else "POST", refused, DENIED)
    with pytest.raises(CredentialsError, match="AccessDenied"):
        backend.bring_back(version)
    assert list(backend.leftovers()) == []
    assert get(backend, KEY) == b"garbage"


def test_parts_that_cannot_be_aborted_are_named(
    backend: S3Backend,
    attacker: Attacker,
    monkeypatch: pytest.MonkeyPatch,
    moto_proxy: FaultProxy,
    caplog: pytest.LogCaptureFixture,
) -> None:
    version = stored(backend)
    monkeypatch.setattr(undeletion, "MAX_COPY_BYTES", 6)
    attacker.overwrite(KEY)
    moto_proxy.on("PUT", "partNumber", DENIED)
    moto_proxy.on("DELETE", "uploadId", DENIED)
    with pytest.raises(CredentialsError):
        backend.bring_back(version)
    assert "bakthat cleanup removes them" in caplog.text


def test_storage_that_does_not_say_its_parts(
    backend: S3Backend, attacker: Attacker, moto_proxy: FaultProxy
) -> None:
    data = bytes(9 * 1024**2)
    upload = backend.upload(KEY, metadata={"of": KEY}, size_hint=100 * 1024**2)
    upload.write(data)
    upload.commit()
    (version,) = versions(backend)
    assert version.etag.endswith("-2")
    attacker.overwrite(KEY)
    moto_proxy.on("HEAD", "partNumber", Answer(400))
    backend.bring_back(version)
    assert get(backend, KEY) == data


def test_copy_is_locked_and_on_hold(backend: S3Backend, attacker: Attacker) -> None:
    version = stored(backend)
    attacker.overwrite(KEY)
    lock = Lock(float(int(time.time()) + DAY), "compliance", True)
    assert backend.bring_back(version, lock).lock == lock
    assert backend.lock_of(KEY) == lock


def test_copy_that_cannot_be_locked_is_back_and_a_warning(
    backend: S3Backend, attacker: Attacker, moto_proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    version = stored(backend)
    attacker.overwrite(KEY)
    moto_proxy.on("PUT", "retention", DENIED)
    found = backend.bring_back(version, Lock(time.time() + DAY, "governance"))
    assert (found.size, found.lock) == (7, None)
    assert "is back, but is not locked" in caplog.text


@pytest.mark.parametrize(
    ("method", "part", "call", "action"),
    [
        ("GET", "versions", "versions", "s3:ListBucketVersions"),
        ("HEAD", "versionId", "stat_version", "s3:GetObjectVersion"),
        ("PUT", KEY, "bring_back", "s3:PutObject"),
    ],
)
def test_missing_permission_is_named(
    backend: S3Backend,
    attacker: Attacker,
    moto_proxy: FaultProxy,
    method: str,
    part: str,
    call: str,
    action: str,
) -> None:
    version = stored(backend)
    attacker.overwrite(KEY)
    moto_proxy.on(method, part, DENIED if method != "HEAD" else Answer(403))
    calls: dict[str, Callable[[], object]] = {
        "versions": lambda: list(backend.versions("p/")),
        "stat_version": lambda: backend.stat_version(version),
        "bring_back": lambda: backend.bring_back(version),
    }
    with pytest.raises(CredentialsError) as caught:
        calls[call]()
    assert f"allow {action} on arn:aws:s3:::" in caught.value.hint
