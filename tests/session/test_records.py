"""The records of vaults in the catalog, as mappings."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bakthat import models
from bakthat.errors import CatalogError
from bakthat.session.records import vault_records


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.sqlite"


def test_inventory_and_jobs_are_the_tables_of_060(path: Path) -> None:
    records = vault_records(path)
    records.inventory["a.tgz"] = "archive-1"
    records.jobs["a.tgz"] = "job-1"
    with sqlite3.connect(path) as database:
        inventory = database.execute("SELECT filename, archive_id FROM inventory").fetchall()
        jobs = database.execute("SELECT filename, job_id FROM jobs").fetchall()
    database.close()
    assert inventory == [("a.tgz", "archive-1")]
    assert jobs == [("a.tgz", "job-1")]


def test_a_mapping_in_the_catalog_behaves_like_a_dict(path: Path) -> None:
    inventory = vault_records(path).inventory
    assert (len(inventory), list(inventory), "a" in inventory) == (0, [], False)
    with pytest.raises(KeyError):
        inventory["a"]
    with pytest.raises(KeyError):
        del inventory["a"]
    inventory["a"] = "1"
    inventory["b"] = "2"
    inventory["a"] = "3"
    assert dict(inventory) == dict(inventory.items()) == {"a": "3", "b": "2"}
    assert sorted(inventory.values()) == ["2", "3"]
    assert inventory.setdefault("a", "4") == "3"
    assert inventory.setdefault("c", "5") == "5"
    assert inventory.pop("a") == "3"
    assert inventory.pop("a", None) is None
    assert vault_records(path).inventory == {"b": "2", "c": "5"}


def test_facts_of_archives_do_not_mix_with_other_values(path: Path) -> None:
    records = vault_records(path)
    with models.catalog(path, write=True):
        models.Config.create(key="sync", value={"last": 1})
    records.archives["id"] = {"size": 3, "description": "é"}
    assert dict(records.archives) == {"id": {"size": 3, "description": "é"}}
    records.archives.clear()
    with models.catalog(path):
        assert [row.key for row in models.Config.select()] == ["sync"]


def test_one_of_several_concurrent_claims_of_a_key_succeeds(path: Path) -> None:
    count = 6
    together = threading.Barrier(count)

    def claim(number: int) -> bool:
        together.wait(60)
        return vault_records(path).inventory.setdefault("a", str(number)) == str(number)

    with ThreadPoolExecutor(count) as pool:
        assert sum(pool.map(claim, range(count))) == 1


def test_records_open_the_catalog_when_used_and_a_damaged_one_is_an_error(path: Path) -> None:
    records = vault_records(path)
    assert not path.exists()
    path.write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.raises(CatalogError):
        records.inventory.get("a")
