"""Clocks that jump, stand still or are a year off: no key collides, and the newest stays."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from tests.support.examples import rest_slow
from tests.support.profiles import Conf

DAY, YEAR = 86400, 365 * 86400
RULES: list[dict[str, Any]] = [{"last": 1}, {"days": 1}, {"days": 7, "weeks": 4}, {"years": 1}]


class Clock:
    """A clock that stands in for ``time.time``."""

    def __init__(self, now: float) -> None:
        self.now = now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(time.time())
    monkeypatch.setattr(time, "time", lambda: made.now)
    return made


@pytest.fixture
def conf(local: Conf) -> Conf:
    return local


@pytest.fixture
def back_up(conf: Conf, tmp_path: Path) -> Callable[[], models.Backups]:
    (tmp_path / "my").write_text("hello")
    return lambda: bakthat.backup(tmp_path / "my", conf=conf, password="")


def living(conf: Conf) -> set[str]:
    return {each.stored_filename for each in bakthat.ls(conf=conf)}


def lose_catalog(conf: Conf) -> None:
    for path in Path(conf["database"]).parent.glob("catalog.sqlite*"):
        path.unlink()


@pytest.mark.parametrize("rules", rest_slow(RULES))
@pytest.mark.parametrize("lost", [False, True], ids=["catalog kept", "catalog lost"])
@pytest.mark.parametrize("off", [-YEAR, -5 * YEAR, -DAY, YEAR])
def test_a_wrong_clock_when_the_last_backup_is_made_does_not_delete_it(
    conf: Conf,
    clock: Clock,
    back_up: Callable[[], models.Backups],
    off: int,
    lost: bool,
    rules: dict[str, Any],
) -> None:
    right = clock.now
    for age in range(5, 0, -1):
        clock.now = right - age * DAY
        back_up()
    clock.now = right + off
    last = back_up()
    if lost:
        lose_catalog(conf)
        bakthat.sync(conf=conf)
    for now in (right + off, right, right + off, right + YEAR):
        clock.now = now
        bakthat.rotate_backups("my", conf=conf, **rules)
        bakthat.delete_older_than("my", "1D", conf=conf)
        assert last.stored_filename in living(conf)


@pytest.mark.parametrize("rules", rest_slow(RULES))
@pytest.mark.parametrize("off", [-20 * YEAR, -YEAR, YEAR, 20 * YEAR])
def test_a_wrong_clock_when_rotating_does_not_delete_the_newest(
    conf: Conf,
    clock: Clock,
    back_up: Callable[[], models.Backups],
    off: int,
    rules: dict[str, Any],
) -> None:
    right = clock.now
    for age in range(40, 0, -4):
        clock.now = right - age * DAY
        newest = back_up()
    clock.now = right + off
    bakthat.rotate_backups("my", conf=conf, **rules)
    bakthat.delete_older_than("my", "2D", conf=conf)
    assert newest.stored_filename in living(conf)


def test_a_backup_from_the_future_displaces_no_other(
    conf: Conf, clock: Clock, back_up: Callable[[], models.Backups]
) -> None:
    right = clock.now
    clock.now = right + YEAR
    future = back_up()
    for day in range(5):
        clock.now = right + day * DAY
        newest = back_up()
        bakthat.rotate_backups("my", conf=conf, last=1)
        assert living(conf) == {future.stored_filename, newest.stored_filename}


def test_a_backup_kept_as_the_last_recorded_is_deleted_after_the_next(
    conf: Conf,
    clock: Clock,
    back_up: Callable[[], models.Backups],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "bakthat")
    right = clock.now
    newest = back_up()
    clock.now = right - YEAR
    last = back_up()
    clock.now = right
    assert bakthat.rotate_backups("my", conf=conf, last=1) == []
    assert f"Keeping {last.stored_filename}: it was recorded last" in caplog.text
    clock.now = right + 60
    made = back_up()
    deleted = bakthat.rotate_backups("my", conf=conf, last=1)
    assert {each.stored_filename for each in deleted} == {
        newest.stored_filename,
        last.stored_filename,
    }
    assert living(conf) == {made.stored_filename}


@pytest.mark.parametrize("lost", [False, True], ids=["catalog kept", "catalog lost"])
@pytest.mark.parametrize("step", [0, -1, -3])
def test_a_clock_that_stands_still_or_goes_backwards_makes_no_key_collide(
    conf: Conf, clock: Clock, back_up: Callable[[], models.Backups], step: int, lost: bool
) -> None:
    made = []
    for _ in range(12):
        made.append(back_up().stored_filename)
        clock.now += step
        if lost:
            lose_catalog(conf)
    bakthat.sync(conf=conf)
    assert len(set(made)) == 12
    assert living(conf) == set(made)
    assert all(each.is_good for each in bakthat.check(conf=conf, read_data=True))


def test_a_name_is_not_used_again_after_its_backup_was_deleted(
    conf: Conf, clock: Clock, back_up: Callable[[], models.Backups]
) -> None:
    first = back_up()
    bakthat.delete(first.stored_filename, conf=conf)
    assert back_up().stored_filename != first.stored_filename


def test_a_reservation_made_by_a_fast_clock_expires(
    conf: Conf, clock: Clock, back_up: Callable[[], models.Backups]
) -> None:
    with models.catalog(conf["database"], write=True):
        models.Reservations.create(stored_filename="dead", reserved_at=int(clock.now) + YEAR)
    back_up()
    with models.catalog(conf["database"]):
        assert list(models.Reservations.select()) == []


@pytest.fixture
def ahead_then_right(
    clock: Clock, back_up: Callable[[], models.Backups], tmp_path: Path
) -> tuple[models.Backups, models.Backups]:
    """Make a backup with the clock nine days ahead, then one with the right clock."""
    right = clock.now
    clock.now = right + 9 * DAY
    future = back_up()
    clock.now = right
    (tmp_path / "my").write_text("hello again")
    return future, back_up()


@pytest.mark.parametrize("lost", [False, True], ids=["catalog kept", "catalog lost"])
def test_every_command_takes_the_same_backup_for_the_newest(
    conf: Conf,
    clock: Clock,
    ahead_then_right: tuple[models.Backups, models.Backups],
    out: Path,
    caplog: pytest.LogCaptureFixture,
    lost: bool,
) -> None:
    future, newest = map(str, ahead_then_right)
    if lost:
        lose_catalog(conf)
        bakthat.sync(conf=conf)
    assert [str(each) for each in bakthat.ls(conf=conf)] == [newest, future]
    checked = [str(each.backup) for each in bakthat.check("my", conf=conf)]
    assert checked == [str(each.backup) for each in bakthat.check(conf=conf)] == [newest, future]
    assert bakthat.rotate_backups("my", conf=conf, last=1) == []
    assert "Backups dated in the future stay" in caplog.text
    for name in ("my", "my.2"):
        caplog.clear()
        assert str(bakthat.restore(name, conf=conf, output=out)) == newest
        assert (out / "my").read_text() == "hello again"
        assert "is dated in the future" in caplog.text
    caplog.clear()
    whole = ahead_then_right[0].stored_filename
    assert str(bakthat.restore(whole, conf=conf, output=out)) == future
    assert caplog.text == ""
    assert str(bakthat.delete("my", conf=conf)) == newest


def test_when_all_backups_are_in_the_future_the_latest_is_the_newest(
    conf: Conf,
    clock: Clock,
    back_up: Callable[[], models.Backups],
    out: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As on a machine without a battery, whose clock begins in 1970."""
    back_up()
    clock.now += DAY
    newest = str(back_up())
    clock.now = 0
    assert str(bakthat.restore("my", conf=conf, output=out)) == newest
    assert "it is used, since all are" in caplog.text
