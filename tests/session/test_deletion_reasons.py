"""Why a backup was deleted, as its entry in the catalog says."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.helper import KeyValue
from bakthat.policy.outcome import with_deletion
from tests.support.filled_catalog import DAY, NOW, FilledCatalog, using_catalog
from tests.support.profiles import Conf


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[FilledCatalog]:
    made = FilledCatalog(tmp_path / "catalog.sqlite")
    with using_catalog(made):
        yield made


def reason(catalog: Path | str, stored_filename: str) -> Any:
    with models.catalog(catalog):
        found = models.Backups.get(models.Backups.stored_filename == stored_filename)
        return found.metadata.get("deleted")


def test_a_rotation_says_its_rule(filled: FilledCatalog) -> None:
    oldest = filled.add_days(5)[0]
    bakthat.rotate_backups("my", conf=filled.conf, last=1, days=2)
    expected = {"date": NOW, "why": "rotation, keeping the last 1, 2 daily"}
    assert reason(filled.path, oldest) == expected


def test_a_deletion_by_age_says_the_interval(filled: FilledCatalog) -> None:
    oldest = filled.add_days(5)[0]
    bakthat.delete_older_than("my", "2D", conf=filled.conf)
    assert reason(filled.path, oldest) == {"date": NOW, "why": "older than 2D"}


def test_a_deletion_by_name_says_so_and_why_its_dependents_went_too(
    filled: FilledCatalog,
) -> None:
    full = filled.add(NOW - 2 * DAY)
    increment = filled.add_increment(NOW - DAY, [NOW - 2 * DAY])
    bakthat.delete(full, conf=filled.conf, with_dependents=True)
    assert reason(filled.path, full) == {"date": NOW, "why": "by name"}
    assert reason(filled.path, increment) == {"date": NOW, "why": f"it needs {full}"}


def test_sync_says_what_is_gone_and_forgets_it_when_it_is_back(local: Conf, tree: Path) -> None:
    made = bakthat.backup(tree, conf=local, password="")
    path = Path(local["local_path"]) / made.stored_filename
    path.rename(path.with_name("aside"))
    bakthat.sync(conf=local)
    deleted = reason(local["database"], made.stored_filename)
    assert deleted["why"] == "gone from the storage"
    assert abs(deleted["date"] - made.backup_date) < 600
    path.with_name("aside").rename(path)
    report = bakthat.sync(conf=local)
    assert [each.what for each in report.changes] == ["revived"]
    assert reason(local["database"], made.stored_filename) is None
    assert bakthat.ls(conf=local)[0].metadata == made.metadata


def test_a_value_says_that_it_was_replaced_or_deleted(local: Conf) -> None:
    values = KeyValue(conf=local)
    values.set_key("color", "red")
    values.delete_key("color")
    with models.catalog(local["database"]):
        (entry,) = models.Backups.select()
    assert entry.metadata["deleted"]["why"] == "by name"


def test_what_was_recorded_meanwhile_stays(filled: FilledCatalog) -> None:
    stored = filled.add(NOW - DAY)
    with models.catalog(filled.path, write=True):
        (planned,), (checked,) = list(models.Backups.select()), list(models.Backups.select())
        checked.metadata = {**checked.metadata, "check": {"verdict": "read"}}
        checked.save()
        models.mark_deleted(planned, "by name")
        found = models.Backups.get(models.Backups.stored_filename == stored)
    assert found.is_deleted
    assert found.metadata["check"] == {"verdict": "read"}
    assert found.metadata["deleted"] == {"date": NOW, "why": "by name"}


def test_damaged_metadata_is_not_replaced(filled: FilledCatalog) -> None:
    stored = filled.add(NOW - DAY)
    connection = sqlite3.connect(filled.path)
    connection.execute("UPDATE backups SET metadata = 'x'")
    connection.commit()
    connection.close()
    bakthat.delete(stored, conf=filled.conf)
    assert reason(filled.path, stored) is None
    assert filled.living() == set()
    connection = sqlite3.connect(filled.path)
    assert connection.execute("SELECT metadata FROM backups").fetchall() == [("x",)]
    connection.close()
    assert with_deletion({}, NOW, "by name") == {}
