"""Retention of sets with increments: nothing that a kept backup needs is deleted."""

from __future__ import annotations

import logging
import multiprocessing
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bakthat
from bakthat import models, reservations
from bakthat.errors import (
    BakthatError,
    CredentialsError,
    StorageError,
    UnreachableError,
    UsageError,
)
from bakthat.operations.retention.plan import Plan, plan_rotation
from bakthat.session.session import Session
from tests.support.filled_catalog import (
    DAY,
    HOST,
    NOW,
    FilledCatalog,
    increment_key,
    using_catalog,
)

INDEXED = {"client": HOST, "is_enc": False, "index_size": 5}


@pytest.fixture
def filled(catalog: str) -> Iterator[FilledCatalog]:
    made = FilledCatalog(catalog, batch_size=3)
    with using_catalog(made):
        yield made


def ago(days: int) -> int:
    return NOW - days * DAY


def chain(filled: FilledCatalog, *days: int, **more: Any) -> list[str]:
    """Add a full and increments, each of which needs all before it; return them."""
    dates = [ago(each) for each in days]
    full = filled.add(dates[0], metadata=INDEXED, **more)
    return [
        full,
        *(
            filled.add_increment(date, dates[:number], **more)
            for number, date in enumerate(dates[1:], 1)
        ),
    ]


def plan_of(filled: FilledCatalog, name: str = "my", **rules: Any) -> Plan:
    return plan_rotation(Session("default", None, filled.conf), name, **rules)


def reasons(plan: Plan) -> dict[str, tuple[str, ...]]:
    return {each.backup.stored_filename: each.decision.reasons for each in plan.backups}


def names(backups: list[models.Backups]) -> list[str]:
    return [each.stored_filename for each in backups]


# What kept backups need.


def test_what_the_newest_needs_stays_and_says_why(filled: FilledCatalog) -> None:
    old = filled.add(ago(40), metadata=INDEXED)
    full, first, second = chain(filled, 30, 20, 10)
    assert reasons(plan_of(filled, last=1)) == {
        second: ("newest", "last 1 of 1"),
        first: (f"needed by {second}",),
        full: (f"needed by {second}",),
        old: ("not needed by any rule",),
    }
    assert names(bakthat.rotate_backups("my", conf=filled.conf, last=1)) == [old]
    assert filled.living() == filled.storages["s3"].keys == {full, first, second}


def test_the_reason_names_the_newest_and_counts_the_others(filled: FilledCatalog) -> None:
    full, *increments = chain(filled, 30, 6, 5, 4, 3)
    plan = plan_of(filled, last=4)
    assert reasons(plan)[full] == (f"needed by {increments[-1]} and 3 more",)


def test_expiry_keeps_what_young_ones_need(filled: FilledCatalog) -> None:
    unneeded = filled.add_increment(ago(15), [ago(30)])
    full, first, second = chain(filled, 30, 20, 1)
    deleted = bakthat.delete_older_than("my", "7D", conf=filled.conf)
    assert names(deleted) == [unneeded]
    assert filled.living() == {full, first, second}


def test_what_only_deleted_backups_need_goes_with_them(filled: FilledCatalog) -> None:
    old = chain(filled, 40, 39, 38)
    (new,) = chain(filled, 1)
    deleted = bakthat.rotate_backups("my", conf=filled.conf, last=1)
    assert set(names(deleted)) == set(old)
    assert filled.living() == {new}


def test_a_second_rotation_deletes_what_is_not_needed_any_more(filled: FilledCatalog) -> None:
    full, first = chain(filled, 40, 39)
    assert bakthat.rotate_backups("my", conf=filled.conf, last=1) == []
    (new,) = chain(filled, 1)
    assert set(names(bakthat.rotate_backups("my", conf=filled.conf, last=1))) == {full, first}
    assert filled.living() == {new}


def test_an_increment_whose_description_was_lost_pins_all_that_are_older(
    filled: FilledCatalog,
) -> None:
    older = [*chain(filled, 60, 50), filled.add(ago(45), metadata=INDEXED)]
    lost = filled.add_increment(ago(40), [])
    newer = filled.add(ago(30), metadata=INDEXED)
    newest = filled.add(ago(1), metadata=INDEXED)
    assert names(bakthat.rotate_backups("my", conf=filled.conf, last=3)) == []
    assert filled.living() == {*older, lost, newer, newest}
    deleted = bakthat.rotate_backups("my", conf=filled.conf, last=2)
    assert set(names(deleted)) == {*older, lost}


@pytest.mark.parametrize(
    "metadata", [{"is_enc": False, "client": ""}, {"is_enc": False, "client": HOST}]
)
def test_an_increment_of_an_unknown_host_or_source_may_belong_to_any_set(
    filled: FilledCatalog, metadata: dict[str, Any]
) -> None:
    described = {**INDEXED, "source_id": "0" * 16}
    for days in (9, 5, 1):
        filled.add(ago(days), metadata=described)
    lost = filled.add_increment(ago(3), [], metadata={**metadata, "adopted": 1})
    before = filled.living()
    found = reasons(plan_of(filled, last=1, host=HOST, source="0" * 16))
    assert [each for each in found.values() if each == (f"needed by {lost}",)] != []
    bakthat.rotate_backups("my", conf=filled.conf, last=1, source="0" * 16)
    assert filled.living() == before


def test_increments_of_another_source_or_host_pin_nothing(filled: FilledCatalog) -> None:
    for days in (9, 5, 1):
        filled.add(ago(days), metadata={**INDEXED, "source_id": "0" * 16})
    other = {**INDEXED, "format": 2, "needs": [ago(9), ago(5)]}
    filled.add_increment(ago(3), [], metadata={**other, "source_id": "1" * 16})
    filled.add_increment(ago(2), [], metadata={**other, "client": "elsewhere"})
    deleted = bakthat.rotate_backups("my", conf=filled.conf, last=1, source="0" * 16)
    assert len(deleted) == 2


def test_one_of_the_same_second_as_a_needed_one_stays(filled: FilledCatalog) -> None:
    """Dates tell what is needed, so two backups of one second are both kept."""
    dates = [ago(9), ago(5), ago(1)]
    twins = [filled.add(ago(9)), filled.add_increment(ago(9), [ago(20)])]
    filled.add_increment(dates[1], dates[:1])
    filled.add_increment(dates[2], dates[:2])
    bakthat.rotate_backups("my", conf=filled.conf, last=1)
    assert filled.living() >= set(twins)


def test_nothing_is_deleted_from_a_set_with_a_format_of_a_later_version(
    filled: FilledCatalog,
) -> None:
    for days in (9, 5, 1):
        filled.add(ago(days))
    later = filled.add(ago(3), metadata={**INDEXED, "format": 3})
    before = filled.living()
    with pytest.raises(UsageError, match="does not know") as caught:
        bakthat.rotate_backups("my", conf=filled.conf, last=1)
    assert later in str(caught.value)
    assert caught.value.hint == "upgrade bakthat"
    with pytest.raises(UsageError, match="does not know"):
        bakthat.delete_older_than("my", "2D", conf=filled.conf)
    assert filled.living() == filled.storages["s3"].keys == before


# The order of deletion.


def test_dependents_are_deleted_first(filled: FilledCatalog) -> None:
    full, first, second, third = chain(filled, 40, 39, 38, 37)
    side = filled.add_increment(ago(36), [ago(40), ago(39)])
    other = filled.add(ago(50), metadata=INDEXED)
    filled.add(ago(1), metadata=INDEXED)
    bakthat.rotate_backups("my", conf=filled.conf, last=1)
    assert filled.storages["s3"].batches == [[other, third, side], [second], [first], [full]]


def test_a_set_of_fulls_is_deleted_as_ever(filled: FilledCatalog) -> None:
    made = filled.add_days(6)
    bakthat.rotate_backups("my", conf=filled.conf, last=1)
    assert filled.storages["s3"].batches == [made[:3], made[3:5]]
    assert filled.storages["s3"].requests == []


def test_what_a_backup_needs_that_could_not_be_deleted_is_left(
    filled: FilledCatalog, caplog: pytest.LogCaptureFixture
) -> None:
    full, first, second = chain(filled, 40, 39, 38)
    side = filled.add_increment(ago(37), [ago(40)])
    (other,) = chain(filled, 60)
    (newest,) = chain(filled, 1)
    storage = filled.storages["s3"]
    storage.refused = {second}
    with pytest.raises(StorageError, match="3 of 5 backups could not be deleted") as caught:
        bakthat.rotate_backups("my", conf=filled.conf, last=1)
    assert f"{second}: {second} is locked" in str(caught.value)
    assert filled.living() == storage.keys == {full, first, second, newest}
    assert side not in storage.keys
    assert other not in storage.keys
    assert f"{full} was not deleted: {second}, which was not deleted, needs it" in caplog.text
    storage.refused = set()
    bakthat.rotate_backups("my", conf=filled.conf, last=1)
    assert filled.living() == storage.keys == {newest}


def test_an_archive_is_deleted_before_its_index(
    filled: FilledCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = chain(filled, 40, 39)
    filled.add(ago(1), metadata=INDEXED)
    requests: list[list[str]] = []
    storage = filled.storages["s3"]
    real = storage.delete_many

    def recorded(keys: Sequence[str]) -> Mapping[str, BakthatError]:
        requests.append(list(keys))
        return real(keys)

    monkeypatch.setattr(storage, "delete_many", recorded)
    bakthat.rotate_backups("my", conf=filled.conf, last=1)
    full, first = made
    assert requests == [[first], [f"{first}.index"], [full], [f"{full}.index"]]


# Running backups.


def test_what_an_increment_needs_that_was_listed_meanwhile_stays(
    filled: FilledCatalog, caplog: pytest.LogCaptureFixture
) -> None:
    """It began and ended during the rotation, so no running backup needs it any more."""
    caplog.set_level(logging.INFO)
    full, first, second = chain(filled, 9, 8, 7)
    newest = filled.add(ago(1), metadata=INDEXED)
    made = []

    def back_up(number: int) -> None:
        if number == 1:
            made.append(filled.add_increment(NOW, [ago(9), ago(8)]))

    filled.storages["s3"].before_batch = back_up
    assert names(bakthat.rotate_backups("my", conf=filled.conf, last=1)) == [second]
    assert filled.living() == {full, first, newest, *made}
    assert f"Keeping {full}: it is needed by {made[0]} and 1 more" in caplog.messages


def test_what_a_running_backup_needs_stays(
    filled: FilledCatalog, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    full, first = chain(filled, 9, 8)
    other = filled.add(ago(7), metadata=INDEXED)
    filled.add(ago(1), metadata=INDEXED)
    with models.catalog(filled.path, write=True):
        reservations.reserve([(increment_key("my", NOW), NOW)], needs=[full, first])
    found = reasons(plan_of(filled, last=1))
    assert found[full] == (f"needed by {first}",) or found[full] == ("needed by a running backup",)
    assert found[first] == ("needed by a running backup",)
    assert names(bakthat.rotate_backups("my", conf=filled.conf, last=1)) == [other]
    assert f"Keeping {first}: a running backup needs it" in caplog.text
    with models.catalog(filled.path, write=True):
        reservations.release(increment_key("my", NOW))
    deleted = bakthat.rotate_backups("my", conf=filled.conf, last=1)
    assert set(names(deleted)) == {full, first}


def test_what_a_pinned_increment_needs_stays_even_if_it_is_not_pinned_itself(
    filled: FilledCatalog,
) -> None:
    full, first = chain(filled, 9, 8)
    filled.add(ago(1), metadata=INDEXED)
    with models.catalog(filled.path, write=True):
        reservations.reserve([(increment_key("my", NOW), NOW)], needs=[first])
    assert bakthat.rotate_backups("my", conf=filled.conf, last=1) == []
    assert reasons(plan_of(filled, last=1))[full] == (f"needed by {first}",)


def test_a_backup_that_begins_after_the_plan_was_made_pins_too(filled: FilledCatalog) -> None:
    made = [filled.add(ago(days)) for days in range(9, 0, -1)]

    def begin(number: int) -> None:
        if number == 1:
            with models.catalog(filled.path, write=True):
                reservations.reserve([(increment_key("my", NOW), NOW)], needs=made[4:5])

    filled.storages["s3"].before_batch = begin
    deleted = bakthat.rotate_backups("my", conf=filled.conf, last=1)
    assert names(deleted) == [*made[:4], *made[5:8]]
    assert filled.living() == filled.storages["s3"].keys == {made[4], made[8]}


def _rotate(path: str, starts: Any, results: Any) -> None:
    filled = FilledCatalog(path, batch_size=1)
    with models.catalog(path):
        rows = list(models.Backups.select())
    filled.storages["s3"].keys = {each.stored_filename for each in rows}
    with using_catalog(filled):
        starts.wait(60)
        results.put(names(bakthat.rotate_backups("my", conf=filled.conf, last=1)))


def _reserve(path: str, starts: Any, results: Any) -> None:
    with using_catalog(FilledCatalog(path)):
        starts.wait(60)
        with models.catalog(path, write=True):
            living = [
                each.stored_filename
                for each in models.Backups.select().where(
                    models.Backups.is_deleted == False  # noqa: E712  # SQL
                )
            ]
            pinned = random.sample(sorted(living), min(5, len(living)))
            reservations.reserve([(increment_key("my", NOW), NOW)], needs=pinned)
    results.put(pinned)


@pytest.mark.slow
def test_a_rotation_and_a_backup_that_begins_meanwhile_agree(catalog: str) -> None:
    """One batch may be under way when a backup reserves its name; it looks at its needs again."""
    context = multiprocessing.get_context("spawn")
    filled = FilledCatalog(catalog)
    for days in range(60, 0, -1):
        filled.add(ago(days))
    starts, deleted, pinned = context.Barrier(2), context.Queue(), context.Queue()
    processes = [
        context.Process(target=_rotate, args=(catalog, starts, deleted)),
        context.Process(target=_reserve, args=(catalog, starts, pinned)),
    ]
    for each in processes:
        each.start()
    gone, kept = deleted.get(timeout=60), pinned.get(timeout=60)
    for each in processes:
        each.join()
        each.close()
    for queue in (deleted, pinned):
        queue.close()
        queue.join_thread()
    assert len(set(gone) & set(kept)) <= 1
    assert filled.living() >= set(kept) - set(gone)


# Increments that the catalog does not list.


def unlisted(filled: FilledCatalog, date: int, **description: Any) -> str:
    """Store the index of an increment that the catalog does not list; return its archive's key."""
    name = increment_key("my", date)
    filled.storages["s3"].indexes[name] = {"kind": "index", "host": HOST, **description}
    return name


def test_an_index_whose_increment_is_not_listed_pins_what_it_needs(
    filled: FilledCatalog,
) -> None:
    full, first, second = chain(filled, 40, 39, 38)
    (newest,) = chain(filled, 1)
    running = unlisted(filled, NOW, format=2, needs=[ago(40), ago(39)], level=3)
    assert names(bakthat.rotate_backups("my", conf=filled.conf, last=1)) == [second]
    assert reasons(plan_of(filled, last=1)) == {
        newest: ("newest", "last 1 of 1"),
        first: (f"needed by {running}",),
        full: (f"needed by {running}",),
    }
    storage = filled.storages["s3"]
    assert (
        storage.requests
        == [
            "list my.",
            f"stat {running}.index",
        ]
        * 2
    )


def test_a_set_that_has_no_increment_yet_is_looked_at_too(filled: FilledCatalog) -> None:
    """Another machine may make backups of the same set."""
    older, old = (filled.add(ago(days), metadata=INDEXED) for days in (9, 8))
    filled.add(ago(1), metadata=INDEXED)
    unlisted(filled, ago(2), format=2, needs=[ago(8)], level=3)
    assert names(bakthat.rotate_backups("my", conf=filled.conf, last=1)) == [older]
    assert old in filled.living()


def test_an_unlisted_index_without_a_description_pins_all_that_are_older(
    filled: FilledCatalog,
) -> None:
    chain(filled, 40, 39, 38)
    newer, _newest = (filled.add(ago(days), metadata=INDEXED) for days in (5, 1))
    filled.storages["s3"].indexes[increment_key("my", ago(10))] = {}
    assert names(bakthat.rotate_backups("my", conf=filled.conf, last=1)) == [newer]


def test_an_unlisted_index_of_a_later_format_stops_the_rotation(filled: FilledCatalog) -> None:
    chain(filled, 40, 39)
    chain(filled, 1)
    before = filled.living()
    unlisted(filled, NOW, format=3)
    with pytest.raises(UsageError, match="does not know"):
        bakthat.rotate_backups("my", conf=filled.conf, last=1)
    assert filled.living() == filled.storages["s3"].keys == before


def test_indexes_of_other_sets_and_of_listed_backups_pin_nothing(filled: FilledCatalog) -> None:
    made = chain(filled, 40, 39, 38)
    (newest,) = chain(filled, 1)
    storage = filled.storages["s3"]
    for each in (*made, newest):
        storage.indexes[each] = {"kind": "index"}
    unlisted(filled, NOW, format=2, needs=[ago(40)], host="elsewhere")
    storage.indexes[increment_key("my.sql", NOW)] = {}
    storage.indexes[increment_key("mysql", NOW)] = {}
    storage.indexes["other/" + increment_key("my", NOW)] = {}
    assert set(names(bakthat.rotate_backups("my", conf=filled.conf, last=1))) == set(made)
    assert storage.indexes.keys() & set(made) == set()


def test_the_indexes_of_a_vault_are_looked_at_where_they_are(filled: FilledCatalog) -> None:
    full, first, second = chain(filled, 40, 39, 38, backend="glacier")
    chain(filled, 1, backend="glacier")
    within = "bakthat_glacier_indexes/vault/"
    indexes = filled.storages["s3"].indexes
    indexes[within + second] = {"kind": "index", "format": 2, "needs": [ago(40), ago(39)]}
    name = increment_key("my", NOW)
    indexes[within + name] = {"kind": "index", "host": HOST, "format": 2, "needs": [ago(40)]}

    def to_delete() -> list[str]:
        conf = {**filled.conf, "default_destination": "glacier"}
        return names(bakthat.rotate_backups("my", conf=conf, last=1, dry_run=True))

    assert to_delete() == [first, second]
    # That of one which this machine deleted pins nothing, and a vault cannot be asked.
    with models.catalog(filled.path, write=True):
        models.mark_deleted(models.Backups.get(models.Backups.stored_filename == second), "by name")
    del indexes[within + name]
    assert to_delete() == [full, first]


def test_the_index_that_a_deletion_left_behind_pins_nothing(filled: FilledCatalog) -> None:
    full, first = chain(filled, 40, 39)
    chain(filled, 1)
    storage = filled.storages["s3"]
    bakthat.delete(first, conf=filled.conf)
    storage.indexes[first] = {"kind": "index", "format": 2, "needs": [ago(40)]}
    assert names(bakthat.rotate_backups("my", conf=filled.conf, last=1)) == [full]


@pytest.mark.parametrize("error", [StorageError("broken"), UnreachableError("away")])
def test_nothing_is_deleted_while_the_indexes_cannot_be_listed(
    filled: FilledCatalog,
    error: StorageError,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    chain(filled, 40, 39)
    chain(filled, 1)
    before = filled.living()

    def refuse(*_: object, **__: object) -> Iterator[Any]:
        raise error

    monkeypatch.setattr(filled.storages["s3"], "ls", refuse)
    with pytest.raises(type(error), match=str(error)):
        bakthat.rotate_backups("my", conf=filled.conf, last=1)
    assert filled.living() == filled.storages["s3"].keys == before
    # What would be deleted is shown all the same.
    assert len(bakthat.rotate_backups("my", conf=filled.conf, last=1, dry_run=True)) == 2


def test_keys_that_may_not_list_rotate_sets_of_fulls_only(
    filled: FilledCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _new = (filled.add(ago(days), metadata=INDEXED) for days in (9, 1))

    def refuse(*_: object, **__: object) -> Iterator[Any]:
        raise CredentialsError("may not list")

    monkeypatch.setattr(filled.storages["s3"], "ls", refuse)
    assert names(bakthat.rotate_backups("my", conf=filled.conf, last=1)) == [old]
    chain(filled, 40, 39)
    chain(filled, 0)
    with pytest.raises(CredentialsError):
        bakthat.rotate_backups("my", conf=filled.conf, last=1)


# Everything at once.


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, list[int], bool]]:
    """Draw backups: the days since, the needs as positions of earlier ones, and whether lost."""
    backups: list[tuple[int, list[int], bool]] = []
    for number in range(draw(st.integers(1, 14))):
        parent = draw(st.integers(-1, number - 1))
        needs = [] if parent < 0 else [*backups[parent][1], parent]
        lost = bool(needs) and draw(st.integers(0, 9)) == 0
        backups.append((number, needs, lost))
    return backups


@settings(max_examples=60, deadline=None)
@given(
    histories(),
    st.sampled_from(["rotate", "expire", "delete"]),
    st.integers(1, 14),
    st.sets(st.integers(0, 13), max_size=3),
    st.sets(st.integers(0, 13), max_size=2),
)
@pytest.mark.slow
def test_every_backup_that_stays_has_what_it_needs(
    history: list[tuple[int, list[int], bool]],
    act: str,
    count: int,
    refused: set[int],
    pinned: set[int],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        filled = FilledCatalog(Path(directory) / "catalog.sqlite", batch_size=2)
        with using_catalog(filled):
            made: list[str] = []
            needs: dict[str, set[str]] = {}
            for number, positions, lost in history:
                date = ago(len(history) - number)
                if not positions:
                    made.append(filled.add(date, metadata=INDEXED))
                else:
                    dates = [ago(len(history) - each) for each in positions]
                    made.append(filled.add_increment(date, [] if lost else dates))
                needs[made[-1]] = {made[each] for each in positions}
            storage = filled.storages["s3"]
            storage.refused = {made[each] for each in refused if each < len(made)}
            running = {made[each] for each in pinned if each < len(made)}
            running |= {one for each in running for one in needs[each]}
            with models.catalog(filled.path, write=True):
                reservations.reserve([(increment_key("my", NOW), NOW)], needs=sorted(running))
            left_behind = False
            try:
                if act == "rotate":
                    bakthat.rotate_backups("my", conf=filled.conf, last=count)
                elif act == "expire":
                    bakthat.delete_older_than("my", f"{count}D", conf=filled.conf)
                else:
                    name = made[count % len(made)]
                    bakthat.delete(name, conf=filled.conf, with_dependents=bool(refused))
            except (StorageError, UsageError):
                left_behind = True
            assert storage.keys == filled.living()
            assert running <= storage.keys
            for each in storage.keys:
                assert needs[each] <= storage.keys, (each, left_behind)
