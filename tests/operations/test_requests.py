"""The number of requests that each operation sends to S3; each request must prove something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bakthat
from tests.support.fault_proxy import FaultProxy
from tests.support.servers import S3Server

LOOK_FOR_BUCKET = "HEAD bucket"
LOOK_FOR_KEY = "HEAD key"


@pytest.fixture
def conf(
    isolated_environment: Path, moto_endpoint: S3Server, moto_proxy: FaultProxy
) -> dict[str, Any]:
    return {
        **moto_endpoint.conf(endpoint_url=moto_proxy.endpoint_url),
        "default_destination": "s3",
        "database": str(isolated_environment / "catalog.sqlite"),
    }


STORING_INDEX = [LOOK_FOR_KEY, "PUT key", LOOK_FOR_KEY]
"""As for a backup that is stored with one request."""


def requests(proxy: FaultProxy, conf: dict[str, Any]) -> list[str]:
    """Return the requests since the last call, parts of an upload as one."""
    found: list[str] = []
    for method, path, _ in proxy.requests:
        where, _, query = path.removeprefix(f"/{conf['s3_bucket']}").partition("?")
        operation = next(
            (each for each in ("uploads", "partNumber", "uploadId") if each in query), ""
        )
        word = f"{method} {'key' if where.strip('/') else 'bucket'} {operation}".strip()
        if operation != "partNumber" or word not in found:
            found.append(word)
    proxy.requests.clear()
    return found


def test_a_backup_looks_for_its_bucket_and_twice_for_its_key(
    conf: dict[str, Any], moto_proxy: FaultProxy, tmp_path: Path
) -> None:
    (tmp_path / "small").write_text("hello")
    bakthat.backup(tmp_path / "small", conf=conf, password="")
    assert requests(moto_proxy, conf) == [
        LOOK_FOR_BUCKET,
        "PUT bucket",
        *STORING_INDEX,
        LOOK_FOR_KEY,  # by another writer, where the storage ignores If-None-Match
        "PUT key",
        LOOK_FOR_KEY,  # is it all there, and is it ours?
    ]
    bakthat.backup(tmp_path / "small", conf=conf, password="", custom_filename="other")
    storing = [LOOK_FOR_KEY, "PUT key", LOOK_FOR_KEY]
    assert requests(moto_proxy, conf) == [LOOK_FOR_BUCKET, *STORING_INDEX, *storing]


def test_a_backup_in_parts_looks_for_its_key_before_the_first_part_too(
    conf: dict[str, Any], moto_proxy: FaultProxy, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(bytes(20 * 1024 * 1024))
    conf["compress"] = False
    bakthat.backup(tmp_path / "large", conf=conf, password="")
    assert requests(moto_proxy, conf) == [
        LOOK_FOR_BUCKET,
        "PUT bucket",
        LOOK_FOR_KEY,  # before all of it is sent for nothing
        "POST key uploads",
        "PUT key partNumber",
        *STORING_INDEX,
        LOOK_FOR_KEY,
        "POST key uploadId",
        LOOK_FOR_KEY,
    ]


def test_a_restore_looks_at_its_object_once(
    conf: dict[str, Any], moto_proxy: FaultProxy, tmp_path: Path
) -> None:
    (tmp_path / "small").write_text("hello")
    bakthat.backup(tmp_path / "small", conf=conf, password="secret")
    requests(moto_proxy, conf)
    bakthat.restore("small", conf=conf, password="secret", output=tmp_path / "out")
    assert requests(moto_proxy, conf) == [LOOK_FOR_KEY, "GET key"]


def test_a_deletion_looks_for_increments_and_at_its_object_once(
    conf: dict[str, Any], moto_proxy: FaultProxy, tmp_path: Path
) -> None:
    (tmp_path / "small").write_text("hello")
    bakthat.backup(tmp_path / "small", conf=conf, password="")
    requests(moto_proxy, conf)
    bakthat.delete("small", conf=conf)
    # The first one looks for increments that another machine made from it, and the last one removes
    # the index; a backup of an earlier version has neither. The second one asks whether the bucket
    # keeps versions.
    assert requests(moto_proxy, conf) == [
        "GET bucket",
        "GET bucket",
        LOOK_FOR_KEY,
        "DELETE key",
        "POST bucket",
    ]
