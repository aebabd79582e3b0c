"""Deletion of one backup of a set with increments: what others need is refused, or goes with them.

The storages only remember their keys.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models, reservations
from bakthat.errors import StorageError, UsageError
from tests.support.filled_catalog import DAY, HOST, NOW, FilledCatalog, increment_key, using_catalog

INDEXED = {"client": HOST, "is_enc": False, "index_size": 5}
DATES = [NOW - days * DAY for days in range(9, 0, -1)]


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[FilledCatalog]:
    made = FilledCatalog(tmp_path / "catalog.sqlite")
    with using_catalog(made):
        yield made


@pytest.fixture
def chain(filled: FilledCatalog) -> list[str]:
    """Add a full and five increments, each of which needs all before it."""
    full = filled.add(DATES[0], metadata=INDEXED)
    return [full, *(filled.add_increment(DATES[n], DATES[:n]) for n in range(1, 6))]


def test_a_needed_backup_is_refused_and_its_dependents_are_named(
    filled: FilledCatalog, chain: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        bakthat.delete(chain[0], conf=filled.conf)
    assert str(caught.value) == (
        f"{chain[0]} is needed by {chain[5]}, {chain[4]}, {chain[3]} and 2 more, "
        "so it is not deleted"
    )
    assert "--with-dependents" in caught.value.hint
    assert "with_dependents=True" in caught.value.hint
    with pytest.raises(UsageError, match="is needed by"):
        bakthat.delete(chain[4], conf=filled.conf)
    assert filled.living() == filled.storages["s3"].keys == set(chain)


def test_an_increment_that_nobody_needs_is_deleted(filled: FilledCatalog, chain: list[str]) -> None:
    deleted = bakthat.delete("my", conf=filled.conf)
    assert deleted.stored_filename == chain[-1]
    assert filled.living() == filled.storages["s3"].keys == set(chain[:-1])


def test_with_dependents_they_are_deleted_first(
    filled: FilledCatalog, chain: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    deleted = bakthat.delete(chain[2], conf=filled.conf, with_dependents=True)
    assert deleted.stored_filename == chain[2]
    assert deleted.is_deleted
    storage = filled.storages["s3"]
    assert storage.batches == [[chain[5]], [chain[4]], [chain[3]], [chain[2]]]
    assert filled.living() == storage.keys == set(chain[:2])
    for each in chain[2:]:
        assert f"Deleting {each}" in caplog.text


def test_what_a_dependent_that_is_not_deleted_needs_stays(
    filled: FilledCatalog, chain: list[str]
) -> None:
    storage = filled.storages["s3"]
    storage.refused = {chain[4]}
    with pytest.raises(StorageError, match="locked") as caught:
        bakthat.delete(chain[0], conf=filled.conf, with_dependents=True)
    assert f"deleted {chain[5]} from s3 bucket before this happened" in caught.value.__notes__
    assert filled.living() == storage.keys == set(chain[:5])


def test_what_a_running_backup_needs_is_refused_whatever_is_said(
    filled: FilledCatalog, chain: list[str]
) -> None:
    with models.catalog(filled.path, write=True):
        reservations.reserve([(increment_key("my", NOW), NOW)], needs=chain[:4])
    for name in (chain[0], chain[3]):
        for with_dependents in (False, True):
            with pytest.raises(UsageError, match="needed by a running backup"):
                bakthat.delete(name, conf=filled.conf, with_dependents=with_dependents)
    assert filled.living() == filled.storages["s3"].keys == set(chain)
    bakthat.delete(chain[5], conf=filled.conf)


def test_a_backup_that_begins_during_the_deletion_of_dependents_stops_it(
    filled: FilledCatalog, chain: list[str]
) -> None:
    def begin(number: int) -> None:
        if number == 1:
            with models.catalog(filled.path, write=True):
                reservations.reserve([(increment_key("my", NOW), NOW)], needs=chain[:4])

    filled.storages["s3"].before_batch = begin
    with pytest.raises(UsageError, match="needed by a running backup"):
        bakthat.delete(chain[0], conf=filled.conf, with_dependents=True)
    assert filled.living() == filled.storages["s3"].keys == set(chain[:5])


def test_what_an_increment_needs_that_the_catalog_does_not_list_is_refused(
    filled: FilledCatalog, chain: list[str]
) -> None:
    name = increment_key("my", NOW)
    description = {"kind": "index", "host": HOST, "format": 2, "needs": DATES[:6]}
    filled.storages["s3"].indexes[name] = description
    for with_dependents in (False, True):
        with pytest.raises(
            UsageError, match=r"needed by .* which the catalog does not list"
        ) as caught:
            bakthat.delete(chain[5], conf=filled.conf, with_dependents=with_dependents)
        assert name in str(caught.value)
        assert "sync" in caught.value.hint
        assert "cleanup" in caught.value.hint
    assert filled.living() == filled.storages["s3"].keys == set(chain)
    filled.storages["s3"].indexes.clear()
    bakthat.delete(chain[5], conf=filled.conf)


def test_a_full_may_be_needed_by_the_first_increment_of_another_machine(
    filled: FilledCatalog,
) -> None:
    full = filled.add(DATES[0], metadata=INDEXED)
    description = {"kind": "index", "host": HOST, "format": 2, "needs": DATES[:1]}
    filled.storages["s3"].indexes[increment_key("my", NOW)] = description
    with pytest.raises(UsageError, match="does not list"):
        bakthat.delete("my", conf=filled.conf)
    assert filled.living() == {full}


def test_an_increment_whose_description_was_lost_may_need_any_that_is_older(
    filled: FilledCatalog,
) -> None:
    older = filled.add(DATES[0], metadata=INDEXED)
    lost = filled.add_increment(DATES[1], [], metadata={"client": "", "is_enc": False})
    newer = filled.add(DATES[2], metadata=INDEXED)
    with pytest.raises(UsageError, match=f"is needed by {lost}"):
        bakthat.delete(older, conf=filled.conf)
    bakthat.delete(newer, conf=filled.conf)
    bakthat.delete(lost, conf=filled.conf)
    bakthat.delete(older, conf=filled.conf)
    assert filled.living() == set()


def test_a_format_of_a_later_version_may_need_any_of_its_set(
    filled: FilledCatalog,
) -> None:
    full = filled.add(DATES[0], metadata=INDEXED)
    later = filled.add(DATES[1], metadata={**INDEXED, "format": 3})
    for with_dependents in (False, True):
        with pytest.raises(UsageError, match="does not know") as caught:
            bakthat.delete(full, conf=filled.conf, with_dependents=with_dependents)
        assert caught.value.hint == "upgrade bakthat"
    bakthat.delete(later, conf=filled.conf)
    bakthat.delete(full, conf=filled.conf)


@pytest.mark.parametrize(
    "metadata",
    [
        {"client": HOST, "is_enc": False},
        {"client": HOST, "is_enc": False, "kind": "file", "index": 1, "format": 1},
        {"client": HOST, "is_enc": False, "kind": "keyvalue", "format": 1},
    ],
    ids=["0.6.0", "file", "value"],
)
def test_what_no_increment_can_need_costs_no_request_more(
    filled: FilledCatalog, metadata: dict[str, Any]
) -> None:
    filled.add(DATES[0], metadata=metadata)
    bakthat.delete("my", conf=filled.conf)
    assert filled.storages["s3"].requests == []


def test_what_an_increment_needs_that_was_listed_meanwhile_stays(
    filled: FilledCatalog, chain: list[str]
) -> None:
    """It began and ended between two deletions, so no running backup needs it any more."""
    made = []

    def back_up(number: int) -> None:
        if number == 1:
            made.append(filled.add_increment(DATES[6], DATES[:5]))

    filled.storages["s3"].before_batch = back_up
    with pytest.raises(UsageError) as caught:
        bakthat.delete(chain[0], conf=filled.conf, with_dependents=True)
    assert f"is needed by {made[0]}, so it is not deleted" in str(caught.value)
    assert filled.living() == {*chain[:5], *made}
