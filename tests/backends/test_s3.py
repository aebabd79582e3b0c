"""The S3 backend: parts, profiles, buckets."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.response import StreamingBody
from hypothesis import given
from hypothesis import strategies as st

from bakthat.backends import make_backend
from bakthat.backends.aws.part_buffer import PartBuffer
from bakthat.backends.aws.part_plan import MAX_PART_SIZE, MAX_PARTS, MIN_PART_SIZE, PartPlan
from bakthat.backends.aws.part_upload import (
    MAX_OVERTAKING,
    PARTS_MEMORY,
    PartUpload,
    parts_in_flight,
)
from bakthat.backends.aws.session import MAX_CONNECT_TIMEOUT
from bakthat.backends.base import StoredObject
from bakthat.backends.s3.backend import S3Backend
from bakthat.backends.s3.features import has_equal_parts
from bakthat.conf import Profile
from bakthat.errors import BakthatError, ConfigError, CredentialsError, StorageError
from bakthat.system.threads import ThreadPool
from tests.support.profiles import Conf
from tests.support.servers import METHODS, TWO_PARTS, free_port, get, plain, put, s3_backend

# Parts


@given(st.integers(MIN_PART_SIZE, MAX_PART_SIZE), st.integers(1, 16))
def test_parts_in_memory_are_bounded(size: int, workers: int) -> None:
    in_flight = parts_in_flight(size, workers)
    assert in_flight >= 1
    assert (in_flight + 1) * size <= max(PARTS_MEMORY, 2 * size)


class Unanswered(PartUpload):
    """An upload whose first part is answered late: when too many parts have overtaken it, or some
    time after as many as may."""

    def __init__(self) -> None:
        super().__init__("key", plan=PartPlan(1), workers=4)
        self.too_many = threading.Event()
        self.all_that_may = threading.Event()
        self.numbers: list[int] = []

    def _begin(self) -> str:
        return "id"

    def _upload_part(self, number: int, start: int, part: PartBuffer) -> dict[str, Any]:
        if number == 1:
            assert self.all_that_may.wait(60)
            self.too_many.wait(0.5)
        elif number == 1 + MAX_OVERTAKING:
            self.all_that_may.set()
        elif number > 1 + MAX_OVERTAKING and 1 not in self.numbers:
            self.too_many.set()
        self.numbers.append(number)
        return {"PartNumber": number}

    def _publish_whole(self, part: PartBuffer) -> StoredObject:
        raise AssertionError("there are parts")

    def _publish_parts(self) -> StoredObject:
        return StoredObject(self._key, self._sent)

    def _abort_parts(self, upload_id: str) -> None:
        raise AssertionError("nothing failed")


def test_few_parts_overtake_one_that_is_not_answered() -> None:
    """rclone answers it only when no later part waits; after a minute, it would count as lost."""
    upload = Unanswered()
    upload.write(bytes(100))
    assert upload.commit().size == 100
    assert not upload.too_many.is_set()
    assert sorted(upload.numbers) == list(range(1, 101))


@pytest.mark.parametrize(
    ("endpoint_url", "is_equal"),
    [
        (None, False),
        ("https://s3.example.com", False),
        ("https://r2.cloudflarestorage.com.example.com", False),
        ("https://abc123.r2.cloudflarestorage.com", True),
        ("https://abc123.eu.R2.cloudflarestorage.com:443/", True),
        ("https://s3.eu-central-1.s4.mega.io", True),
        ("https://[::1", False),
    ],
)
def test_parts_have_one_size_where_the_storage_insists(
    endpoint_url: str | None, is_equal: bool
) -> None:
    assert has_equal_parts(endpoint_url) is is_equal
    backend = S3Backend({"s3_bucket": "bucket", "endpoint_url": endpoint_url})
    plan = backend.upload("set.dump", metadata={}, size_hint=10**9)._plan
    assert (plan.size_of(1) == plan.size_of(MAX_PARTS)) is is_equal


# Profiles


def test_a_missing_bucket_name_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="s3_bucket") as caught:
        make_backend("s3", {})
    assert "s3_bucket" in caught.value.hint


def test_one_key_without_the_other_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="'secret_key' is not set"):
        S3Backend({"s3_bucket": "bakthat", "access_key": "text"})
    with pytest.raises(ConfigError, match="'access_key' is not set"):
        S3Backend({"s3_bucket": "bakthat", "secret_key": "text"})


def test_the_settings_are_those_of_the_profile_and_show_no_secret() -> None:
    profile = {
        "s3_bucket": "bakthat",
        "access_key": "AK",
        "secret_key": "hidden-text",
        "region_name": "eu-west-1",
        "endpoint_url": "http://localhost:1",
        "timeout": 90,
        "attempts": 2,
    }
    made = S3Backend.settings_of(profile)
    assert (made.container, made.region, made.max_attempts) == ("bakthat", "eu-west-1", 2)
    assert (made.connect_timeout, made.read_timeout) == (MAX_CONNECT_TIMEOUT, 90)
    assert made.endpoint_url == "http://localhost:1"
    assert "hidden-text" not in repr(made)
    impatient = S3Backend.settings_of({"s3_bucket": "bakthat", "timeout": 2})
    assert (impatient.connect_timeout, impatient.read_timeout) == (2, 2)


def test_the_settings_have_the_same_defaults_as_a_profile() -> None:
    made, profile = S3Backend.settings_of({"s3_bucket": "bakthat"}), Profile()
    assert made.region == profile.region_name
    assert made.max_attempts == profile.attempts
    assert made.read_timeout == profile.timeout


def test_creating_a_backend_imports_no_heavy_library() -> None:
    script = (
        "import sys; from bakthat.backends import make_backend;"
        "make_backend('local', {}); make_backend('s3', {'s3_bucket': 'bakthat'});"
        "heavy = {'boto3', 'botocore', 'urllib3', 'cryptography'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_keys_may_come_from_the_environment(
    rclone_conf: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", rclone_conf.pop("access_key"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", rclone_conf.pop("secret_key"))
    backend = s3_backend(rclone_conf)
    backend.create_container()
    put(backend, "set.tgz", b"data")
    assert get(backend, "set.tgz") == b"data"


def test_no_keys_at_all_are_a_credentials_error_with_a_hint(rclone_conf: dict[str, Any]) -> None:
    del rclone_conf["access_key"], rclone_conf["secret_key"]
    with pytest.raises(CredentialsError) as caught:
        s3_backend(rclone_conf).create_container()
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


@pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
def test_wrong_keys_are_a_credentials_error_on_every_method(
    rclone_conf: dict[str, Any], wrong: str
) -> None:
    s3_backend(rclone_conf).create_container()
    backend = s3_backend({**rclone_conf, wrong: "not-the-right-one"})
    backend.check_container()  # assumes that keys which may not read may write
    for name in METHODS:
        with pytest.raises(CredentialsError) as caught:
            METHODS[name](backend)
        assert rclone_conf["secret_key"] not in str(caught.value)
        assert "not-the-right-one" not in str(caught.value)


@pytest.mark.parametrize(
    "profile",
    [
        {"s3_bucket": "no"},
        {"s3_bucket": "not a bucket name"},
        {"endpoint_url": "localhost:9000"},
        {"endpoint_url": "http://[::1"},
        {"region_name": "not a region"},
    ],
)
def test_an_invalid_profile_is_one_clear_error(
    moto_conf: dict[str, Any], profile: dict[str, str]
) -> None:
    with pytest.raises(BakthatError) as caught:
        list(s3_backend({**moto_conf, **profile}).ls())
    assert isinstance(caught.value, ConfigError | StorageError)
    assert "\n" not in str(caught.value)
    assert " at ://" not in str(caught.value)
    assert caught.value.hint


def test_a_password_in_the_endpoint_is_in_no_message(moto_conf: dict[str, Any]) -> None:
    endpoint = f"http://user:hunter2@127.0.0.1:{free_port()}"
    with pytest.raises(BakthatError) as caught:
        list(s3_backend({**moto_conf, "endpoint_url": endpoint}, max_attempts=1).ls())
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ({}, "STANDARD"),
        ({"storage_class": "STANDARD_IA"}, "STANDARD_IA"),
        ({"s3_reduced_redundancy": True}, "REDUCED_REDUNDANCY"),
        ({"s3_reduced_redundancy": True, "storage_class": "GLACIER_IR"}, "GLACIER_IR"),
    ],
)
@pytest.mark.parametrize("data", [b"small", TWO_PARTS], ids=["one request", "parts"])
def test_objects_get_the_storage_class_of_the_profile(
    moto_conf: dict[str, Any], profile: dict[str, Any], expected: str, data: bytes
) -> None:
    backend = s3_backend({**moto_conf, **profile})
    backend.create_container()
    put(backend, "set.tgz", data)
    assert [found.storage_class for found in backend.ls()] == [expected]


def test_objects_carry_the_content_headers(moto_conf: dict[str, Any]) -> None:
    backend = s3_backend(moto_conf)
    backend.create_container()
    put(backend, "set.tgz", b"x", content_type="application/gzip", content_encoding="gzip")
    found = plain(moto_conf).head_object(Bucket=backend.container, Key="set.tgz")
    assert (found["ContentType"], found["ContentEncoding"]) == ("application/gzip", "gzip")


def test_a_bucket_is_created_in_the_region_of_the_profile(moto_conf: dict[str, Any]) -> None:
    backend = s3_backend({**moto_conf, "region_name": "eu-west-1"})
    backend.create_container()
    where = plain(moto_conf).get_bucket_location(Bucket=backend.container)
    assert where["LocationConstraint"] == "eu-west-1"


@pytest.mark.slow
def test_a_listing_goes_over_more_than_a_thousand_keys(moto_conf: dict[str, Any]) -> None:
    backend = S3Backend(moto_conf)
    backend.create_container()
    client = plain(moto_conf)

    def store(number: int) -> None:
        client.put_object(Bucket=backend.container, Key=f"{number:04}", Body=b"")

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(store, range(1001)))) == 1001
    assert len({found.key for found in backend.ls()}) == 1001


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_a_damaged_self_description_is_an_empty_one(moto_conf: dict[str, Any], text: str) -> None:
    backend = s3_backend(moto_conf)
    backend.create_container()
    plain(moto_conf).put_object(
        Bucket=backend.container, Key="set.tgz", Body=b"x", Metadata={"bakthat": text}
    )
    assert backend.stat("set.tgz").metadata == {}


@pytest.mark.parametrize("failure", [MemoryError(), RuntimeError("can't start new thread")])
def test_a_download_without_a_thread_closes_its_connection(
    moto_conf: dict[str, Any], monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    plain(moto_conf).create_bucket(Bucket=moto_conf["s3_bucket"])
    backend = s3_backend(moto_conf)
    put(backend, "key", b"content")
    closed = []

    def refuse(*_: object) -> None:
        raise failure

    monkeypatch.setattr(ThreadPool, "submit", refuse)
    monkeypatch.setattr(StreamingBody, "close", lambda body: closed.append(body))
    with pytest.raises(type(failure)):
        backend.download("key")
    assert len(closed) == 1


def test_what_describes_the_service_is_parsed_once_in_a_process(
    moto_conf: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain(moto_conf).create_bucket(Bucket=moto_conf["s3_bucket"])
    s3_backend(moto_conf).check_container()

    def fail(_self: object, path: str) -> None:
        pytest.fail(f"{path} is read again")

    monkeypatch.setattr("botocore.loaders.JSONFileLoader.load_file", fail)
    s3_backend(moto_conf).check_container()
