"""Retention over a catalog: exactly one set, everything decided first, and nothing lost on failure.

The storages only remember their keys; test_retention_storages.py works on real ones.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bakthat
from bakthat import models
from bakthat.errors import (
    BakthatError,
    CatalogError,
    ConfigError,
    CredentialsError,
    NoMatchError,
    StorageError,
    UnreachableError,
    UsageError,
)
from bakthat.operations.retention.plan import plan_by_age, plan_rotation
from bakthat.session.session import Session
from tests.support.filled_catalog import DAY, HOST, NOW, FilledCatalog, at, using_catalog
from tests.support.profiles import write_config


@pytest.fixture
def filled(catalog: str) -> Iterator[FilledCatalog]:
    made = FilledCatalog(catalog, batch_size=3)
    with using_catalog(made):
        yield made


def names(backups: list[models.Backups]) -> list[str]:
    return [each.stored_filename for each in backups]


# Exactly one set, whatever the names.

TRICKY = [
    "my",
    "mysql",
    "my.sql",
    "my*",
    "m?",
    "my_other",
    "m%",
    "m_",
    "%",
    "_",
    "MY",
    "my ",
    "my'; DELETE FROM backups; --",
    'my"',
    "my\nother",
    "my\\",
    "mý",
    "my\N{COMBINING ACUTE ACCENT}",
]
KINDS: dict[str, Any] = {
    "backup": {"is_enc": False},
    "value of 0.6.0": {"KeyValue": True, "is_enc": False},
    "value": {"kind": "keyvalue"},
    "deleted": {"is_enc": True},
}


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Draw a catalog of a few names, and what is asked of one of them."""
    some = st.sampled_from(draw(st.lists(st.sampled_from(TRICKY), min_size=1, max_size=3)))
    entry = st.fixed_dictionaries(
        {
            "name": some,
            "host": st.sampled_from([HOST, HOST, "other", ""]),
            "where": st.sampled_from(
                [("s3", "bucket"), ("s3", "bucket"), ("s3", "bucket2"), ("glacier", "vault")]
            ),
            "legacy": st.booleans(),
            "kind": st.sampled_from(["backup", "backup", *KINDS]),
            "age": st.integers(-2, 40),
        }
    )
    request = st.fixed_dictionaries(
        {
            "name": some,
            "host": st.sampled_from([None, None, "other", ""]),
            "act": st.sampled_from(["rotate", "delete"]),
            "count": st.integers(1, 5),
        }
    )
    return draw(st.lists(entry, max_size=25)), draw(request)


def fill(filled: FilledCatalog, drawn: list[dict[str, Any]]) -> None:
    for number, entry in enumerate(drawn):
        backend, container = entry["where"]
        filled.add(
            NOW - entry["age"] * DAY + number,
            entry["name"],
            # Not all names hold a date.
            stored=f"{entry['name']}.{number}" if number % 3 else None,
            backend=backend,
            container=container,
            legacy=entry["legacy"],
            metadata={**KINDS[entry["kind"]], "client": entry["host"]},
            is_deleted=entry["kind"] == "deleted",
        )


def act(filled: FilledCatalog, request: dict[str, Any], **more: Any) -> list[models.Backups]:
    common = {"conf": filled.conf, "host": request["host"], **more}
    if request["act"] == "rotate":
        return bakthat.rotate_backups(request["name"], days=request["count"], **common)
    return bakthat.delete_older_than(request["name"], f"{request['count'] * 5}D", **common)


@settings(max_examples=100, deadline=None)
@given(histories())
@pytest.mark.slow
def test_nothing_outside_the_set_is_touched_and_its_newest_stays(
    history: tuple[list[dict[str, Any]], dict[str, Any]],
) -> None:
    drawn, request = history
    with tempfile.TemporaryDirectory() as directory:
        filled = FilledCatalog(Path(directory) / "catalog.sqlite", batch_size=2)
        with using_catalog(filled, NOW + 100):
            fill(filled, drawn)
            before, stored = filled.rows(), set().union(*(s.keys for s in filled.storages.values()))
            members = {
                key: NOW - entry["age"] * DAY + number
                for number, (key, entry) in enumerate(zip(before, drawn, strict=True))
                if entry["name"] == request["name"]
                and entry["where"] == ("s3", "bucket")
                and entry["host"] == (HOST if request["host"] is None else request["host"])
                and entry["kind"] == "backup"
            }
            if not members:
                with pytest.raises(NoMatchError):
                    act(filled, request)
                assert filled.rows() == before
                return
            would = names(act(filled, request, dry_run=True))
            assert filled.rows() == before

            deleted = names(act(filled, request))
            left = set().union(*(s.keys for s in filled.storages.values()))
            assert deleted == would
            assert set(deleted) <= set(members)
            assert stored - left == set(deleted)
            after = filled.rows()
            assert {key for key in before if after[key] != before[key]} == set(deleted)
            past = [(date, key) for key, date in members.items() if date <= NOW + 100]
            assert {key for _date, key in sorted(past)[-1:]}.isdisjoint(deleted)
            assert act(filled, request) == []
            assert filled.rows() == after


def test_the_same_name_on_the_same_host_in_another_bucket_is_another_set(
    filled: FilledCatalog,
) -> None:
    here = filled.add_days(3)
    there = [filled.add(NOW - n * DAY, stored=f"my.{n}", container="bucket2") for n in range(3)]
    assert names(bakthat.rotate_backups("my", conf=filled.conf, last=1)) == here[:2]
    assert set(there) <= filled.living()


def test_damaged_metadata_could_be_anything_and_is_left_alone(filled: FilledCatalog) -> None:
    filled.add(NOW - DAY)
    damaged = filled.add(NOW - 9 * DAY)
    filled.damage(damaged)
    assert bakthat.rotate_backups("my", conf=filled.conf, last=1) == []
    with pytest.raises(NoMatchError):
        bakthat.rotate_backups("my", conf=filled.conf, host="", last=1)
    assert damaged in filled.living()


def test_rows_of_060_and_of_this_version_are_one_set(filled: FilledCatalog) -> None:
    old = filled.add(NOW - 2 * DAY, legacy=True)
    filled.add(NOW - DAY)
    assert names(bakthat.rotate_backups("my", conf=filled.conf, last=1)) == [old]


def test_a_row_of_060_counts_by_the_date_in_its_name_not_by_its_skewed_column(
    filled: FilledCatalog,
) -> None:
    # Ten hours old; 0.6.0 in a zone ten hours ahead of UTC recorded it as twenty.
    stored = f"my.{time.strftime('%Y%m%d%H%M%S', time.gmtime(NOW - 10 * 3600))}.tgz.enc"
    filled.add(NOW - 20 * 3600, stored=stored, legacy=True)
    filled.add(NOW - 3600)
    assert bakthat.delete_older_than("my", "15h", conf=filled.conf) == []
    assert names(bakthat.delete_older_than("my", "9h", conf=filled.conf)) == [stored]


def test_the_local_time_zone_makes_no_difference(
    filled: FilledCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.add_days(40)
    results = []
    for zone in ("UTC", "Pacific/Kiritimati", "America/Los_Angeles"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        results.append(names(bakthat.rotate("my", conf=filled.conf, days=3, weeks=2, dry_run=True)))
    monkeypatch.delenv("TZ")
    time.tzset()
    assert results[0] == results[1] == results[2] != []


def test_only_the_given_destination_is_read(filled: FilledCatalog) -> None:
    in_s3, on_disk = filled.add_days(3), filled.add_days(3, "on_disk", backend="local")
    with pytest.raises(NoMatchError, match="on s3"):
        bakthat.rotate_backups("on_disk", conf=filled.conf, last=1)
    assert (
        names(bakthat.rotate_backups("on_disk", "local", conf=filled.conf, last=1)) == on_disk[:2]
    )
    assert set(in_s3) <= filled.living()


# Invalid arguments, refused before anything is changed.


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mydri", "did you mean mydir?"),
        ("/home/me/mydir/", "did you mean mydir?"),
        ("mydir.20130604191055.tgz", "did you mean mydir?"),
        ("x" * 300, "bakthat show lists the backups"),
        ("\udcff", "bakthat show lists the backups"),
        ("mydir\0", "did you mean mydir?"),
    ],
)
def test_an_unknown_set_is_an_error_that_names_the_nearest(
    filled: FilledCatalog, name: str, hint: str
) -> None:
    filled.add_days(3, "mydir")
    before = filled.rows()
    for call in (
        partial(bakthat.rotate_backups, name, last=1),
        partial(bakthat.delete_older_than, name, "1s"),
    ):
        with pytest.raises(NoMatchError) as caught:
            call(conf=filled.conf)
        assert caught.value.hint == hint
        assert "\n" not in str(caught.value)
    assert filled.rows() == before


def test_the_error_names_sets_of_the_same_name_elsewhere(filled: FilledCatalog) -> None:
    filled.add(NOW - DAY, host="other")
    filled.add(NOW - DAY, stored="my.1", backend="glacier")
    with pytest.raises(NoMatchError, match="box has no backups of 'my' on s3") as caught:
        bakthat.rotate_backups("my", conf=filled.conf, last=1)
    assert caught.value.hint == (
        "that set exists for box on glacier, other on s3; select it with --host and --destination"
    )


def test_an_empty_catalog_says_that_it_is_empty(filled: FilledCatalog) -> None:
    with pytest.raises(NoMatchError) as caught:
        bakthat.rotate_backups("my", conf=filled.conf, last=1)
    assert caught.value.hint.startswith("bakthat backup makes the first one; ")


REFUSED: dict[str, tuple[type[BakthatError], Callable[[FilledCatalog], object]]] = {
    "no name": (UsageError, lambda filled: bakthat.rotate_backups("", conf=filled.conf, last=1)),
    "no interval": (
        UsageError,
        lambda filled: bakthat.delete_older_than("my", "", conf=filled.conf),
    ),
    "zero": (UsageError, lambda filled: bakthat.delete_older_than("my", "0D", conf=filled.conf)),
    "no unit": (UsageError, lambda filled: bakthat.delete_older_than("my", "3", conf=filled.conf)),
    "nothing kept": (UsageError, lambda filled: bakthat.rotate("my", conf=filled.conf, days=0)),
    "negative": (UsageError, lambda filled: bakthat.rotate("my", conf=filled.conf, days=-1)),
    "no such day": (
        UsageError,
        lambda filled: bakthat.rotate("my", conf=filled.conf, days=1, first_week_day=7),
    ),
    "no rotation": (ConfigError, lambda filled: bakthat.rotate("my", conf=filled.conf)),
    "only a week day": (
        ConfigError,
        lambda filled: bakthat.rotate("my", conf=filled.conf, first_week_day=1),
    ),
    "unknown destination": (
        UsageError,
        lambda filled: bakthat.rotate("my", "tape", conf=filled.conf, days=1),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_arguments_are_refused_and_nothing_is_deleted(
    filled: FilledCatalog, case: str
) -> None:
    error, call = REFUSED[case]
    filled.add_days(9)
    before = filled.rows()
    with pytest.raises(error) as caught:
        call(filled)
    assert caught.value.hint
    assert filled.rows() == before
    assert filled.storages["s3"].batches == []


def test_without_a_rotation_the_error_says_where_and_how_to_configure_one(tmp_path: Path) -> None:
    config = tmp_path / "bakthat.yml"
    write_config(config, work={"s3_bucket": "bucket"})
    with pytest.raises(ConfigError) as caught:
        bakthat.rotate_backups("my", profile="work", config=config)
    assert str(caught.value) == f"{config}: profile 'work': no rotation is configured"
    assert "configure_backups_rotation" in caught.value.hint
    assert "--days 7" in caught.value.hint
    assert "days=7" in caught.value.hint


def test_a_rotation_that_is_wrong_names_file_profile_and_key(tmp_path: Path) -> None:
    config = tmp_path / "bakthat.yml"
    write_config(config, work={"rotation": {"dayz": 7}})
    with pytest.raises(ConfigError) as caught:
        bakthat.rotate_backups("my", profile="work", config=config)
    assert str(caught.value) == f"{config}:2: profile 'work': 'rotation' has the unknown key 'dayz'"
    assert "did you mean days?" in caught.value.hint


def test_a_week_day_of_the_profile_that_is_none_is_named_with_the_file(
    filled: FilledCatalog,
) -> None:
    filled.add_days(3)
    filled.conf["rotation"] = {"first_week_day": "saturday"}
    with pytest.raises(ConfigError, match="'saturday', not a whole number from 0 to 6") as caught:
        bakthat.rotate_backups("my", conf=filled.conf, weeks=1)
    assert "profile 'default'" in str(caught.value)
    assert bakthat.rotate_backups("my", conf=filled.conf, last=3, first_week_day=5) == []


# Which rotation holds.


def kept_by(filled: FilledCatalog, **rules: Any) -> int:
    to_delete = bakthat.rotate_backups("my", conf=filled.conf, dry_run=True, **rules)
    return len(filled.living()) - len(to_delete)


def test_arguments_replace_the_rotation_of_the_profile(filled: FilledCatalog) -> None:
    filled.add_days(40)
    filled.conf["rotation"] = {"days": 30}
    assert kept_by(filled) == 30
    assert kept_by(filled, days=5) == 5
    assert kept_by(filled, last=2) == 2
    assert kept_by(filled, hours=7) == 7


def test_the_week_day_of_the_profile_holds_unless_another_is_given(filled: FilledCatalog) -> None:
    filled.add_days(40)
    plans = {}
    for configured, argument in ((None, None), (0, None), (0, 5), (5, 0)):
        filled.conf["rotation"] = {"days": 1} | (
            {} if configured is None else {"first_week_day": configured}
        )
        plans[configured, argument] = names(
            bakthat.rotate("my", conf=filled.conf, weeks=3, first_week_day=argument, dry_run=True)
        )
    assert plans[None, None] == plans[0, 5] != plans[0, None] == plans[5, 0]
    filled.conf["rotation"] = {"weeks": 3, "first_week_day": 5}
    assert (
        names(bakthat.rotate("my", conf=filled.conf, first_week_day=0, dry_run=True))
        == plans[0, None]
    )


def test_the_rotation_of_060s_configuration_is_understood(filled: FilledCatalog) -> None:
    filled.add_days(200)
    filled.conf["rotation"] = {"days": 7, "first_week_day": 5, "months": 6, "weeks": 6}
    bakthat.rotate_backups("my", conf=filled.conf)
    # 10 to 16 December; the Saturdays before; the first days of six months.
    assert len(filled.living()) == 7 + 5 + 6


# Deleting by age.


def test_older_means_dated_before_the_moment_that_is_repeated(
    filled: FilledCatalog, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bakthat")
    border = NOW - 92 * DAY - 8 * 3600 - 20 * 60 - 5
    older, _same, _newer = filled.add(border - 1), filled.add(border), filled.add(border + 1)
    gone = bakthat.delete_older_than("my", "3M2D8h20m5s", conf=filled.conf)
    assert names(gone) == [older]
    assert gone[0].is_deleted
    assert [record.getMessage() for record in caplog.records] == [
        "Deleting backups of my older than 92 days 8:20:05, before 2026-09-15 03:39:55 UTC",
        f"Deleting {older}",
        "Deleted 1 of 3 backups",
    ]


def test_the_newest_stays_however_old_it_is(
    filled: FilledCatalog, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bakthat")
    old, newest = filled.add(at(2019, 1, 1)), filled.add(at(2020, 1, 1))
    assert names(bakthat.delete_older_than("my", "1s", conf=filled.conf)) == [old]
    assert f"Keeping {newest}: it is the newest" in caplog.text
    assert bakthat.delete_older_than("my", "1s", conf=filled.conf) == []


def test_a_backup_from_the_future_is_neither_old_nor_the_newest(filled: FilledCatalog) -> None:
    filled.add(NOW + 400 * DAY)
    old = filled.add(NOW - 9 * DAY)
    newest = filled.add(NOW - 5 * DAY)
    assert names(bakthat.delete_older_than("my", "1D", conf=filled.conf)) == [old]
    assert newest in filled.living()


# A clock that was wrong.


@pytest.mark.parametrize("act", ["rotate", "delete"])
def test_a_backup_made_while_the_clock_was_years_slow_stays_until_the_next(
    filled: FilledCatalog, act: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bakthat")

    def thin_out() -> list[str]:
        if act == "rotate":
            return names(bakthat.rotate_backups("my", conf=filled.conf, last=1))
        return names(bakthat.delete_older_than("my", "1s", conf=filled.conf))

    made = filled.add_days(3)
    new = filled.add(at(2015, 1, 1))  # a battery was empty, and the clock is right again since
    assert thin_out() == made[:2]
    assert f"Keeping {new}: it was recorded last" in caplog.text
    assert thin_out() == []
    newer = filled.add(NOW - 60)
    assert thin_out() == [new, made[2]]
    assert filled.living() == {newer}


def test_a_clock_that_jumps_a_year_ahead_twice_deletes_neither_of_the_newest(
    filled: FilledCatalog,
) -> None:
    made = filled.add_days(3)
    ahead = filled.add(NOW + 365 * DAY)  # the first time, a backup was made
    new = filled.add(NOW - 60)  # then the clock was right
    with using_catalog(filled, NOW + 366 * DAY):
        assert names(bakthat.rotate_backups("my", conf=filled.conf, last=1)) == made
    assert filled.living() == {ahead, new}


# What the storage has lost.


def test_while_the_newest_is_listed_and_not_stored_none_is_deleted(filled: FilledCatalog) -> None:
    made = filled.add_days(4)
    filled.storages["s3"].keys.remove(made[3])
    with pytest.raises(StorageError) as caught:
        bakthat.rotate_backups("my", conf=filled.conf, last=1)
    assert str(caught.value) == (
        "the newest backup of my is listed, but not stored, so none was deleted: "
        f"no object {made[3]}"
    )
    assert filled.living() == set(made)
    assert filled.storages["s3"].keys == set(made[:3])
    # Nothing is at stake, and nobody is asked.
    assert bakthat.rotate_backups("my", conf=filled.conf, last=4) == []


def test_of_the_newest_of_one_second_one_that_is_stored_is_enough(filled: FilledCatalog) -> None:
    old = filled.add(NOW - DAY)
    lost, there = filled.add(NOW), filled.add(NOW, stored=f"my.{at(2026, 1, 1)}.age")
    filled.storages["s3"].keys.remove(lost)
    assert names(bakthat.rotate_backups("my", conf=filled.conf, last=1)) == [old]
    assert there in filled.living()


def test_keys_that_may_delete_but_not_read_can_rotate(
    filled: FilledCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = filled.add_days(3)

    def forbidden(_key: str) -> None:
        raise CredentialsError("403")

    monkeypatch.setattr(filled.storages["s3"], "stat", forbidden)
    assert names(bakthat.rotate_backups("my", conf=filled.conf, last=1)) == made[:2]


# Failures: nothing is lost, what stays is said, and running again finishes it.


def test_a_backup_that_cannot_be_deleted_stays_and_stops_no_other(
    filled: FilledCatalog, caplog: pytest.LogCaptureFixture
) -> None:
    made = filled.add_days(10)
    filled.storages["s3"].refused = {made[1], made[6]}
    with pytest.raises(StorageError) as caught:
        bakthat.rotate_backups("my", conf=filled.conf, last=1)
    assert str(caught.value) == (
        f"2 of 9 backups could not be deleted, the first is {made[1]}: {made[1]} is locked"
    )
    assert "run it again" in caught.value.hint
    assert filled.living() == {made[1], made[6], made[9]} == filled.storages["s3"].keys
    warned = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert warned == [f"{key} was not deleted: {key} is locked" for key in (made[1], made[6])]
    filled.storages["s3"].refused = set()
    assert names(bakthat.rotate_backups("my", conf=filled.conf, last=1)) == [made[1], made[6]]
    assert filled.living() == {made[9]}


@pytest.mark.parametrize("error", [KeyboardInterrupt, UnreachableError("the network is gone")])
def test_a_second_run_finishes_an_interrupted_one(
    filled: FilledCatalog, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bakthat")
    made = filled.add_days(10)

    def fail(number: int) -> None:
        if number == 3:
            raise error

    filled.storages["s3"].before_batch = fail
    with pytest.raises(type(error) if isinstance(error, Exception) else KeyboardInterrupt):
        bakthat.rotate_backups("my", conf=filled.conf, last=1)
    # The oldest go first, and what is gone is marked by the batch.
    assert filled.living() == set(made[6:]) == filled.storages["s3"].keys
    assert "Deleted 6 of 10 backups" in caplog.text
    assert names(bakthat.rotate_backups("my", conf=filled.conf, last=1)) == made[6:9]
    assert filled.living() == {made[9]} == filled.storages["s3"].keys


def test_a_backup_deleted_but_not_marked_is_marked_the_next_time(
    filled: FilledCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = filled.add_days(5)

    def fail(_backup: models.Backups, _why: str) -> None:
        raise CatalogError("the catalog is locked by another process")

    with monkeypatch.context() as patch:
        patch.setattr(models, "mark_deleted", fail)
        with pytest.raises(CatalogError):
            bakthat.rotate_backups("my", conf=filled.conf, last=1)
    assert filled.living() == set(made)
    assert filled.storages["s3"].keys == set(made[3:])
    assert names(bakthat.rotate_backups("my", conf=filled.conf, last=1)) == made[:4]
    assert filled.living() == {made[4]} == filled.storages["s3"].keys


def test_the_catalog_is_free_while_the_storage_works(filled: FilledCatalog) -> None:
    filled.add_days(5)
    during: list[str] = []
    filled.storages["s3"].before_batch = lambda number: during.append(
        filled.add(NOW - number, f"meanwhile {number}")
    )
    assert len(bakthat.rotate_backups("my", conf=filled.conf, last=1)) == 4
    assert set(during) <= filled.living()


def test_a_set_is_read_once_before_the_first_deletion(
    filled: FilledCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.add_days(9)
    moments: list[str] = []
    real = models.Backups.of_set

    def watched(*arguments: Any, **options: Any) -> list[models.Backups]:
        moments.append("read")
        return real(*arguments, **options)

    monkeypatch.setattr(models.Backups, "of_set", watched)
    filled.storages["s3"].before_batch = lambda number: moments.append("delete")
    bakthat.rotate_backups("my", conf=filled.conf, last=1)
    assert moments == ["read", "delete", "delete", "delete"]


# Events.


def test_events_fire_around_both_with_the_list_of_what_was_deleted(
    filled: FilledCatalog, fired: list[tuple[Any, ...]]
) -> None:
    made = filled.add_days(6)
    rotated = bakthat.rotate_backups("my", conf=filled.conf, last=4)
    expired = bakthat.delete_older_than("my", "2D", conf=filled.conf)
    nothing = bakthat.delete_older_than("my", "2D", conf=filled.conf)
    assert [names(each) for each in (rotated, expired, nothing)] == [made[:2], made[2:4], []]
    assert [call[0] for call in fired] == [
        "before_rotate_backups",
        "on_rotate_backups",
        *("before_delete_older_than", "on_delete_older_than") * 2,
    ]
    for before, after in zip(fired[::2], fired[1::2], strict=True):
        assert before[1] == after[1]
    assert [call[2] for call in fired[1::2]] == [rotated, expired, nothing]


def test_a_dry_run_fires_no_event_and_touches_nothing(
    filled: FilledCatalog, fired: list[tuple[Any, ...]]
) -> None:
    made = filled.add_days(6)
    before = filled.rows()
    assert names(bakthat.rotate("my", conf=filled.conf, last=4, dry_run=True)) == made[:2]
    assert names(bakthat.delete_older_than("my", "2D", conf=filled.conf, dry_run=True)) == made[:4]
    assert fired == []
    assert filled.rows() == before
    assert filled.storages["s3"].batches == []


def test_a_callback_that_raises_before_it_stops_it(filled: FilledCatalog) -> None:
    made = filled.add_days(6)

    def refuse(_session_id: str) -> None:
        raise RuntimeError("not today")

    bakthat.events.before_rotate_backups += refuse
    try:
        with pytest.raises(RuntimeError, match="not today"):
            bakthat.rotate_backups("my", conf=filled.conf, last=1)
    finally:
        bakthat.events.before_rotate_backups -= refuse
    assert filled.living() == set(made)


def test_a_failed_deletion_fires_on_error_and_no_on_event(
    filled: FilledCatalog, fired: list[tuple[Any, ...]]
) -> None:
    filled.storages["s3"].refused = set(filled.add_days(3))
    with pytest.raises(StorageError) as caught:
        bakthat.rotate_backups("my", conf=filled.conf, last=1)
    assert [call[0] for call in fired] == ["before_rotate_backups", "on_error"]
    assert fired[1][2:] == ("rotate_backups", caught.value)


# Plans.


def test_a_plan_has_a_decision_with_reasons_for_each_backup(filled: FilledCatalog) -> None:
    made = filled.add_days(4)
    second = filled.add(NOW - 60)
    future = filled.add(NOW + DAY)
    session = Session("default", None, filled.conf)
    plan = plan_rotation(session, "my", days=2)
    assert plan.purpose == "Rotating my, keeping 2 daily"
    assert [
        (each.backup.stored_filename, each.decision.keep, each.decision.reasons)
        for each in plan.backups
    ] == [
        (second, True, ("newest",)),
        (made[3], True, ("daily 1 of 2",)),
        (made[2], True, ("daily 2 of 2",)),
        (made[1], False, ("not needed by any rule",)),
        (made[0], False, ("not needed by any rule",)),
        (future, True, ("in the future",)),
    ]
    assert names(plan.to_delete) == made[:2]
    by_age = plan_by_age(session, "my", "2D")
    assert [each.decision.reasons for each in by_age.backups] == [
        ("newest", "not older"),
        ("not older",),
        ("not older",),
        ("older",),
        ("older",),
        ("in the future",),
    ]


# Large catalogs.


@pytest.mark.parametrize("catalog", ["sqlite"], indirect=True)
def test_no_query_of_a_rotation_scans_a_table(
    filled: FilledCatalog, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("my", "mysql", "other"):
        filled.add_days(7, name)
    caplog.set_level(logging.DEBUG, "peewee")
    caplog.clear()
    bakthat.rotate_backups("my", conf=filled.conf, last=2)
    bakthat.delete_older_than("my", "1s", conf=filled.conf)
    queries: list[Any] = [record.msg for record in caplog.records if record.name == "peewee"]
    asked = [
        (sql, values)
        for sql, values in queries
        # The table of reservations has a row for each running backup.
        if sql.startswith(("SELECT", "UPDATE")) and 'FROM "reservations"' not in sql
    ]
    assert sum(sql.startswith('UPDATE "backups" SET "is_deleted"') for sql, _ in asked) == 6
    with closing(sqlite3.connect(filled.path)) as raw:
        for sql, values in asked:
            plan = [row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {sql}", values or ())]
            assert any(step.startswith("SEARCH") for step in plan), (sql, plan)
            assert not any(step.startswith("SCAN") for step in plan), (sql, plan)


@pytest.mark.slow
@pytest.mark.parametrize("apart", ["names", "hosts"])
def test_one_of_200_sets_of_100_000_backups_is_rotated_without_reading_the_others(
    tmp_path: Path, apart: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = FilledCatalog(tmp_path / "catalog.sqlite")
    rows: list[tuple[Any, ...]] = []
    for number in range(200):
        name, host = ("my", f"host{number}") if apart == "hosts" else (f"my{number}", HOST)
        metadata = json.dumps({"client": host, "is_enc": False, "source": f"/var/lib/{name}"})
        for age in reversed(range(500)):
            date = NOW - age * DAY - number
            key = f"{host}/{name}.{time.strftime('%Y%m%d%H%M%S', time.gmtime(date))}.tgz"
            rows.append((models.backend_hash("bucket"), date, name, metadata, key))
    with closing(sqlite3.connect(filled.path)) as raw, raw:
        raw.executemany(
            "INSERT INTO backups (backend, backend_hash, backup_date, filename, is_deleted,"
            " last_updated, metadata, size, stored_filename, tags)"
            " VALUES ('s3', ?, ?, ?, 0, 0, ?, 10, ?, '')",
            rows,
        )
    filled.storages["s3"].keys = {row[4] for row in rows}
    mine = rows[500 * 7 : 500 * 8]
    name, host = mine[0][2], mine[0][4].split("/")[0]
    with using_catalog(filled):
        made = 0
        real = models.Backups.__init__

        def counted(self: models.Backups, *arguments: Any, **values: Any) -> None:
            nonlocal made
            made += 1
            real(self, *arguments, **values)

        monkeypatch.setattr(models.Backups, "__init__", counted)
        deleted = bakthat.rotate_backups(
            name, conf=filled.conf, host=host, days=7, weeks=4, months=6
        )
    read = made  # and no more: below, the test itself reads all of them
    left = {row[4] for row in rows} - set(names(deleted))
    assert len(deleted) == 500 - (7 + 3 + 6)  # one of the four Saturdays is one of the seven days
    assert filled.living() == filled.storages["s3"].keys == left
    assert set(names(deleted)) < {row[4] for row in mine}
    assert 500 <= read < 10_000
