"""What a check records about each backup in the catalog."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.errors import StorageError
from bakthat.operations.facts import CheckRecord, DrillRecord, Verdict
from tests.support.profiles import Conf


@pytest.fixture
def conf(local: Conf) -> Conf:
    """Return a profile that stores unencrypted."""
    return {**local, "password": ""}


def recorded(conf: Conf, name: str = "mydir") -> dict[str, Any] | None:
    """Return what the catalog has about the check of the newest backup of a set."""
    [newest, *_] = bakthat.ls(name, conf=conf)
    found: dict[str, Any] | None = newest.metadata.get("check")
    return found


def damage(conf: Conf, stored_filename: str) -> None:
    """Change one byte of a stored backup."""
    path = Path(conf["local_path"], stored_filename)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_each_check_is_recorded_with_what_it_read(conf: Conf, tree: Path) -> None:
    bakthat.backup(tree, conf=conf)
    assert recorded(conf) is None
    begun = int(time.time())
    [found] = bakthat.check(conf=conf)
    first = recorded(conf)
    assert first is not None
    assert begun <= first.pop("date") <= time.time()
    assert first == {"verdict": "stored", "detail": "", "share": None, "read": None}
    assert found.backup.metadata["check"]["verdict"] == "stored"
    bakthat.check(conf=conf, sample="100%")
    bakthat.check(conf=conf, read_data=True)
    full = recorded(conf)
    assert full is not None
    assert (full["verdict"], full["share"], full["read"]) == ("read", 1.0, full["date"])
    bakthat.check(conf=conf)
    last = recorded(conf)
    assert last is not None
    assert (last["verdict"], last["share"], last["read"]) == ("stored", None, full["read"])


def test_only_the_backups_that_were_picked_are_recorded(conf: Conf, tree: Path) -> None:
    for _ in range(3):
        bakthat.backup(tree, conf=conf)
    bakthat.check(conf=conf, sample=1)
    assert sum("check" in each.metadata for each in bakthat.ls(conf=conf)) == 1


def test_damage_stays_recorded_until_all_of_the_backup_was_read(conf: Conf, tree: Path) -> None:
    made = bakthat.backup(tree, conf=conf)
    damage(conf, made.stored_filename)
    bakthat.check(conf=conf, read_data=True)
    damaged = recorded(conf)
    assert damaged is not None
    assert damaged["verdict"] == "damaged"
    assert damaged["detail"]
    bakthat.check(conf=conf)
    assert recorded(conf) == damaged
    damage(conf, made.stored_filename)  # which mends it
    bakthat.check(conf=conf, read_data=True)
    mended = recorded(conf)
    assert mended is not None
    assert mended["verdict"] == "read"


def test_a_missing_backup_is_recorded(conf: Conf, tree: Path) -> None:
    made = bakthat.backup(tree, conf=conf)
    bakthat.backup(tree, conf=conf)
    Path(conf["local_path"], made.stored_filename).unlink()
    bakthat.check(conf=conf, read_data=True)
    verdicts = [each.metadata["check"]["verdict"] for each in bakthat.ls(conf=conf)]
    assert verdicts == ["read", "missing"]


def test_a_storage_that_does_not_answer_says_nothing_about_a_backup(
    conf: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bakthat.backends.local.backend import LocalBackend

    def refuse(_: object, key: str) -> None:
        raise StorageError(f"{key} cannot be looked up")

    bakthat.backup(tree, conf=conf)
    bakthat.check(conf=conf)
    before = recorded(conf)
    monkeypatch.setattr(LocalBackend, "stat", refuse)
    [found] = bakthat.check(conf=conf)
    assert found.verdict is Verdict.UNKNOWN
    assert recorded(conf) == before


def test_only_the_metadata_of_an_entry_changes(conf: Conf, tree: Path) -> None:
    bakthat.backup(tree, conf=conf)
    with closing(sqlite3.connect(conf["database"])) as catalog, catalog:
        catalog.execute("UPDATE backups SET last_updated = 5, tags = 'a b'")
    before = bakthat.ls(conf=conf)[0].as_dict()
    bakthat.check(conf=conf)
    after = bakthat.ls(conf=conf)[0].as_dict()
    assert after["metadata"].pop("check")["verdict"] == "stored"
    assert after == before


def test_an_entry_without_metadata_stays_recognizable(conf: Conf, tree: Path) -> None:
    bakthat.backup(tree, conf=conf)
    with closing(sqlite3.connect(conf["database"])) as catalog, catalog:
        catalog.execute("UPDATE backups SET metadata = '{'")
    bakthat.check(conf=conf)
    assert bakthat.ls(conf=conf)[0].metadata == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_catalog_that_cannot_be_written_is_no_error(
    conf: Conf, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bakthat.backup(tree, conf=conf)
    catalog = Path(conf["database"])
    catalog.chmod(0o400)
    catalog.parent.chmod(0o500)
    try:
        [found] = bakthat.check(conf=conf)
    finally:
        catalog.parent.chmod(0o700)
    assert found.is_good
    assert "the results of the check are not in the catalog: " in caplog.text


def test_a_locked_catalog_is_no_error(
    conf: Conf, tree: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bakthat.backup(tree, conf=conf)
    monkeypatch.setattr(models, "BUSY_TIMEOUT", 0)
    with closing(sqlite3.connect(conf["database"])) as other:
        other.execute("BEGIN IMMEDIATE")
        [found] = bakthat.check(conf=conf)
    assert found.is_good
    assert "the results of the check are not in the catalog: " in caplog.text
    assert recorded(conf) is None


@pytest.mark.parametrize(
    "value",
    [None, 5, "text", [], {}, {"date": "x", "verdict": "read"}, {"date": 5, "verdict": "fine"}],
)
def test_a_record_that_is_not_valid_is_none(value: object) -> None:
    assert CheckRecord.of({"check": value}) is None
    assert DrillRecord.of({"drill": value}) is None


def test_a_record_is_read_as_it_was_written() -> None:
    record = CheckRecord(5, Verdict.SAMPLED, "read a part", 0.05, 5)
    assert CheckRecord.of(json.loads(json.dumps({"check": record.as_dict()}))) == record
    assert DrillRecord.of({"drill": {"date": 5, "passed": False, "problem": "empty"}}) == (
        DrillRecord(5, False, "empty")
    )
