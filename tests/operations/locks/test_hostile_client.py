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
import bakthat.cli.run  # registers the commands
from bakthat.cli.app import described_commands
from tests.support.commandline import CommandLine
from tests.support.hostile import attack
from tests.support.profiles import Conf, write_config
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


COMMANDS: dict[str, list[list[str]]] = {
    # The words behind each command, which are tried in this order; NAME is each backup in turn.
    "hold": [["NAME", "--reason", "mine now"]],
    "release": [["NAME"]],
    "delete": [["NAME"], ["NAME", "--with-dependents"], ["mydir", "--with-dependents"]],
    "delete_older_than": [["mydir", "1s"]],
    "rotate_backups": [["mydir", "--last", "1"]],
    "backup": [["evil", "--name", "mydir"], ["evil", "--name", "mydir", "--full"]],
    "cleanup": [[], ["--older-than", "0s"]],
    "sync": [[], ["--indexes"], ["--as-of", "2020-01-01"]],
    "undelete": [["NAME", "--as-of", "2020-01-01"]],
    "configure_backups_rotation": [["default", "--days", "1"]],
    "run": [["--all"]],
    "schedule": [["night", "remove"]],
    "restore": [["NAME", "-o", "stolen"]],
    "cat": [["NAME", "mydir/file 0"]],
    "check": [["--read-data"]],
    "drill": [["mydir"]],
    "report": [[]],
    "policy": [["writer"], ["keeper"]],
    **{
        name: [["mydir"]]
        for name in ("show", "status", "contents", "find", "diff", "thaws", "doctor", "config")
    },
    "completion": [["bash"]],
    "configure": [[]],
    "show_glacier_inventory": [[]],
    "show_local_glacier_inventory": [[]],
    "backup_glacier_inventory": [[]],
    "restore_glacier_inventory": [[]],
}


@pytest.mark.slow
def test_no_command_destroys_a_locked_backup(
    user: CommandLine, seaweedfs_conf: Conf, tree: Path, tmp_path: Path
) -> None:
    honest = {
        **seaweedfs_conf,
        "object_lock": {"mode": "compliance", "days": 30},
        "incremental": True,
        "password": "",
    }
    config = write_config(user.home / ".bakthat.yml", default=honest)
    (tree / "large").write_bytes(CONTENT)
    states: dict[str, dict[str, bytes]] = {}
    for number in range(3):
        (tree / f"file {number}").write_text(str(number))
        entry = bakthat.backup(tree, "s3", conf={**honest, "database": str(tmp_path / "c.sqlite")})
        states[entry.stored_filename] = content_of(tree)
    stored = versions(honest)
    write_config(config, default={**honest, "object_lock": {}})
    (user.directory / "evil").mkdir()
    assert user.run("sync").code == 0
    names = sorted(states, reverse=True)
    assert COMMANDS.keys() == {each.name for each in described_commands()}
    for command, tries in COMMANDS.items():
        for words in tries:
            for name in names if "NAME" in words else names[:1]:
                user.run(command, *(name if word == "NAME" else word for word in words))
    after = versions(honest)
    assert {key: after.get(key) for key in stored} == stored
    # What the calls of S3 can still do is to hide and to overwrite.
    attack(plain(honest), honest["s3_bucket"])
    # Another machine, with the same keys and an empty catalog.
    conf = {**honest, "database": str(tmp_path / "another.sqlite")}
    # Not by a time: SeaweedFS changes that of a version with its tags and its hold.
    done = bakthat.undelete("mydir", "s3", everything=True, conf=conf)
    assert all(each.is_restorable for each in done)
    for name, state in states.items():
        bakthat.restore(name, "s3", conf=conf, output=tmp_path / name)
        assert content_of(tmp_path / name / "mydir") == state


def content_of(directory: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in directory.rglob("*") if each.is_file()}
