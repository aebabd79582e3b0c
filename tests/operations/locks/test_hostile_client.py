"""A client with the host's full configuration destroys what it can; each locked backup restores.

On SeaweedFS, which enforces locks in compliance mode against its administrator. moto does not: it
suspends the versions of a bucket with object lock, and then overwrites.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import bakthat
from tests.support.hostile import attack
from tests.support.profiles import Conf
from tests.support.servers import plain

CONTENT = random.Random(1).randbytes(200_000)


@pytest.fixture
def conf(isolated_environment: Path, seaweedfs_conf: Conf) -> Conf:
    return {
        **seaweedfs_conf,
        "object_lock": {"mode": "compliance", "days": 30},
        "incremental": True,
        "password": "",
        "database": str(isolated_environment / "catalog.sqlite"),
    }


def versions(conf: Conf) -> dict[tuple[str, str], bytes]:
    client, bucket = plain(conf), conf["s3_bucket"]
    listed = client.list_object_versions(Bucket=bucket)["Versions"]
    found = {}
    for each in listed:
        which = {"Key": each["Key"], "VersionId": each["VersionId"]}
        found[each["Key"], each["VersionId"]] = client.get_object(Bucket=bucket, **which)[
            "Body"
        ].read()
    return found


def test_no_call_of_s3_changes_a_locked_version(conf: Conf, tree: Path) -> None:
    (tree / "large").write_bytes(CONTENT)
    for number in range(3):
        (tree / f"file {number}").write_text(str(number))
        bakthat.backup(tree, "s3", conf=conf, prompt="no")
    stored = versions(conf)
    assert len(stored) == 6
    done = attack(plain(conf), conf["s3_bucket"])
    assert len(done.tried) > 100
    # It really was destructive: these have hidden and overwritten every backup.
    assert {"DeleteObject", "DeleteObjects", "PutObject"} <= set(done.allowed)
    after = versions(conf)
    assert {key: after.get(key) for key in stored} == stored
    client, bucket = plain(conf), conf["s3_bucket"]
    for key, version in stored:
        found: dict[str, Any] = client.head_object(Bucket=bucket, Key=key, VersionId=version)
        assert found["ObjectLockMode"] == "COMPLIANCE"
