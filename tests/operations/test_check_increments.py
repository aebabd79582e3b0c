"""The check of increments: all that they need must be stored, as it was when they were made."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.operations.check.result import CheckResult, Verdict
from bakthat.session.indexes.cache import IndexCache
from bakthat.session.session import Session
from tests.support.increments import Chain
from tests.support.profiles import Conf


@pytest.fixture
def chain(local: Conf, tmp_path: Path) -> Chain:
    """Make a full of a directory and three increments, in a local store."""
    tree = tmp_path / "mydir"
    tree.mkdir()
    made = Chain(tree, local)
    (tree / "one").write_bytes(os.urandom(3000))
    made.full()
    for name in ("two", "three", "four"):
        (tree / name).write_bytes(os.urandom(3000))
        if name == "four":
            (tree / "two").unlink()
        made.increment()
    return made


def check(chain: Chain, name: str = "", **options: Any) -> dict[str, CheckResult]:
    found = bakthat.check(name, conf=chain.conf, password="", **options)
    return {each.backup.stored_filename: each for each in found}


def verdicts(chain: Chain, name: str = "", **options: Any) -> list[str]:
    """Return the verdicts in the order of the chain."""
    found = check(chain, name, **options)
    return [found[each].verdict.value for each in chain.names if each in found]


def stored(chain: Chain, number: int) -> Path:
    return Path(chain.conf["local_path"]) / chain.names[number]


def change_row(chain: Chain, number: int, **metadata: Any) -> None:
    with models.catalog(chain.conf["database"], write=True):
        row = models.Backups.get(models.Backups.stored_filename == chain.names[number])
        row.metadata = {**row.metadata, **metadata}
        row.save()


@pytest.mark.parametrize("cached", [True, False])
def test_a_whole_chain_is_good(chain: Chain, cached: bool) -> None:
    if not cached:
        IndexCache().forget(chain.backups)
    assert verdicts(chain) == ["stored"] * 4
    assert verdicts(chain, chain.names[2]) == ["stored"]
    assert verdicts(chain, read_data=True) == ["read"] * 4
    assert verdicts(chain, sample="50%") == ["sampled"] * 4


@pytest.mark.parametrize("read_data", [False, True])
def test_a_missing_archive_breaks_all_that_need_it(chain: Chain, read_data: bool) -> None:
    stored(chain, 1).unlink()
    found = check(chain, read_data=read_data)
    good = "read" if read_data else "stored"
    assert [found[each].verdict.value for each in chain.names] == [
        good,
        "missing",
        "broken",
        "broken",
    ]
    assert f"needs {chain.names[1]}: missing" in found[chain.names[2]].detail
    detail = found[chain.names[1]].detail
    assert detail.endswith(f"2 backups need it: {chain.names[3]}, {chain.names[2]}")
    assert not found[chain.names[3]].is_good


def test_a_check_of_one_backup_looks_its_needs_up(chain: Chain) -> None:
    stored(chain, 0).unlink()
    found = check(chain, chain.names[2])
    assert found.keys() == {chain.names[2]}
    assert found[chain.names[2]].verdict is Verdict.BROKEN
    assert f"needs {chain.names[0]}: missing" in found[chain.names[2]].detail


def test_an_archive_of_another_size_breaks_all_that_need_it(chain: Chain) -> None:
    with stored(chain, 1).open("ab") as file:
        file.write(b"more")
    assert verdicts(chain) == ["stored", "wrong size", "broken", "broken"]


def test_an_archive_that_was_replaced_before_it_was_listed_is_found_by_the_index(
    chain: Chain,
) -> None:
    """The catalog of another machine has the size of what is there now."""
    with stored(chain, 1).open("ab") as file:
        file.write(b"more")
    bakthat.sync(conf=chain.conf)
    found = check(chain)
    assert [found[each].verdict.value for each in chain.names] == [
        "stored",
        "stored",
        "broken",
        "broken",
    ]
    assert "bytes, and had" in found[chain.names[3]].detail


def test_an_archive_with_another_id_is_another_one(chain: Chain) -> None:
    sidecar = stored(chain, 1).with_name(f"{chain.names[1]}.bakthat.json")
    description = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**description, "id": "f" * 16}))
    found = check(chain)
    assert found[chain.names[1]].verdict is Verdict.DAMAGED
    assert "another archive was put in its place" in found[chain.names[1]].detail
    assert found[chain.names[2]].verdict is Verdict.BROKEN
    # Who lists it only now has its new id.
    change_row(chain, 1, id="f" * 16)
    found = check(chain)
    assert found[chain.names[1]].verdict is Verdict.STORED
    assert "is another archive than it was" in found[chain.names[2]].detail


def test_the_id_is_compared_with_the_storage_where_a_listing_does_not_tell_it(
    moto_conf: Conf, local: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing of S3 has no descriptions, so what an increment needs is asked for itself."""
    monkeypatch.setattr("bakthat.operations.check.stored.MAX_SINGLE_REQUESTS", 2)
    chain = Chain(tree, {**moto_conf, "database": local["database"]})
    chain.full()
    for name in ("two", "three"):
        (tree / name).write_bytes(os.urandom(3000))
        chain.increment()
    assert verdicts(chain) == ["stored"] * 3
    backend = Session("default", None, chain.conf).backend("s3")
    key = chain.names[1]
    with closing(backend.download(key)) as stream:
        content = stream.read()
    description = {**(backend.stat(key).metadata or {}), "id": "f" * 16}
    upload = backend.upload(key, metadata=description, replace=True)
    upload.write(content)
    upload.commit()
    assert verdicts(chain) == ["stored", "damaged", "broken"]
    IndexCache().forget(chain.backups)
    change_row(chain, 2, needs=[])  # it may need all that are older
    assert verdicts(chain)[:2] == ["stored", "damaged"]


def test_without_the_cache_only_reading_finds_another_id(chain: Chain) -> None:
    sidecar = stored(chain, 1).with_name(f"{chain.names[1]}.bakthat.json")
    description = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**description, "id": "f" * 16}))
    change_row(chain, 1, id="f" * 16)
    IndexCache().forget(chain.backups)
    assert verdicts(chain) == ["stored"] * 4
    assert verdicts(chain, read_data=True)[2:] == ["broken", "broken"]


def test_what_is_needed_and_not_listed_is_said(chain: Chain) -> None:
    with models.catalog(chain.conf["database"], write=True):
        models.Backups.delete().where(models.Backups.stored_filename == chain.names[0]).execute()
    IndexCache().forget(chain.backups)
    found = check(chain)
    assert found[chain.names[1]].verdict is Verdict.BROKEN
    assert "which is not in the catalog" in found[chain.names[1]].detail


def test_of_a_lost_description_the_index_says_what_is_needed(chain: Chain) -> None:
    change_row(chain, 3, needs=[])
    assert verdicts(chain) == ["stored"] * 4
    IndexCache().forget(chain.backups)
    found = check(chain)
    assert found[chain.names[3]].is_good
    assert found[chain.names[3]].detail == "what it needs is known only to its index"
    stored(chain, 1).unlink()
    assert verdicts(chain, chain.names[3], read_data=True) == ["broken"]


def test_a_damaged_archive_names_those_that_need_it(chain: Chain) -> None:
    path = stored(chain, 0)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    found = check(chain, read_data=True)
    assert found[chain.names[0]].verdict is Verdict.DAMAGED
    assert "; 3 backups need it: " in found[chain.names[0]].detail
    assert [found[each].verdict.value for each in chain.names[1:]] == ["read"] * 3


def test_a_storage_that_is_away_is_not_a_broken_chain(chain: Chain) -> None:
    shutil.rmtree(chain.conf["local_path"])
    assert set(verdicts(chain)) == {"unknown"}


def test_a_format_of_a_later_version_is_not_called_good(chain: Chain) -> None:
    change_row(chain, 3, format=3)
    found = check(chain)
    assert found[chain.names[3]].verdict is Verdict.UNKNOWN
    assert "upgrade bakthat" in found[chain.names[3]].detail
