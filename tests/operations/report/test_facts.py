"""The facts of a report: gaps, days, deletions, checks and drills, from any entries."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from bakthat import models
from bakthat.operations.facts import CheckRecord, DrillRecord, Verdict
from bakthat.operations.report.days import MOST_DAYS, Day, DayState, days_of
from bakthat.operations.report.facts import (
    BackupFacts,
    Deletion,
    Expectations,
    Gap,
    Period,
    Problem,
    SetFacts,
    facts_of,
    gaps,
)
from bakthat.system import text
from tests.support.filled_catalog import DAY, at

HOUR = 3600
BEGIN, END = at(2026, 9, 1), at(2026, 9, 11)
PERIOD = Period(BEGIN, END, END)
MAX_AGE = 26 * HOUR


def fact(day: float, **more: Any) -> BackupFacts:
    """Return a backup made *day* days after the beginning of the period."""
    made = BackupFacts(
        stored_filename=f"my.{day}.tgz",
        date=int(BEGIN + day * DAY),
        size=100,
        files=1,
        content=10,
        seconds=1.0,
        is_increment=False,
        encryption="none",
        warning_count=0,
        warnings=(),
        is_suspicious=False,
        deletion=None,
        check=None,
        drill=None,
    )
    return replace(made, **more)


def facts(*known: BackupFacts, max_age: int | None = MAX_AGE, **expected: Any) -> SetFacts:
    return SetFacts(
        name="my",
        host="box",
        source="/my",
        backend="local",
        container="/store",
        jobs=(),
        rotation="",
        is_rotated=False,
        expected=Expectations(max_age, **expected),
        period=PERIOD,
        known=tuple(sorted(known, key=lambda each: each.date)),
    )


def daily(*without: int) -> list[BackupFacts]:
    """Return a backup at 02:00 of each day from the one before the period on."""
    return [fact(day + 1 / 12) for day in range(-1, 10) if day not in without]


def days(*numbers: float) -> list[int]:
    return [int(BEGIN + number * DAY) for number in numbers]


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        ([], []),
        ([9.5], []),  # nothing says that there should have been one before
        ([-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9], []),
        ([3, 4, 7, 8, 9], [(4, 7)]),
        ([9, 4, 8, 3, 9, 7], [(4, 7)]),  # in no order, and twice
        ([-3, 1, 2, 3, 4, 5, 6, 7, 8, 9], [(-3, 1)]),  # it began before the period
        ([-9, -5, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [(-5, 0)]),
        ([-9, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9], []),  # it ended before
        ([-5], [(-5, None)]),
        ([5, 6], [(6, None)]),  # until now
        ([8.95], []),  # not overdue yet
    ],
)
def test_a_gap_is_longer_than_a_backup_may_be_old(
    dates: list[float], expected: list[tuple[float, float | None]]
) -> None:
    wanted = [
        Gap(
            int(BEGIN + begin * DAY),
            None if end is None else int(BEGIN + end * DAY),
            int(BEGIN + begin * DAY) + MAX_AGE,
        )
        for begin, end in expected
    ]
    assert gaps(days(*dates), MAX_AGE, PERIOD) == wanted


def test_a_gap_of_exactly_that_length_is_none() -> None:
    assert gaps([BEGIN, BEGIN + MAX_AGE, END], MAX_AGE, PERIOD) == [
        Gap(BEGIN + MAX_AGE, END, BEGIN + 2 * MAX_AGE)
    ]


def test_a_period_that_has_ended_knows_what_came_after_it() -> None:
    past = Period(BEGIN, END, END + 30 * DAY)
    dates = days(0, 1, 2, 3, 4, 5, 6, 7, 8, 12)
    last, after = dates[-2:]
    assert gaps(dates, MAX_AGE, past) == [Gap(last, after, last + MAX_AGE)]
    found = replace(facts(*[fact(each) for each in (0, 1, 2, 3, 4, 5, 6, 7, 8, 12)]), period=past)
    assert [each.date for each in found.backups] == days(0, 1, 2, 3, 4, 5, 6, 7, 8)
    assert list(found.problems) == [Problem.OVERDUE]
    assert (found.newest, len(found.stored)) == (days(8)[0], 9)


def test_a_set_is_good_when_nothing_is_missing() -> None:
    found = facts(*daily(), is_expected=True)
    assert (found.problems, found.missed, len(found.backups)) == ({}, [], 10)
    assert found.as_dict()["good"] is True


def test_deleted_backups_were_made_all_the_same() -> None:
    rotated = [
        replace(each, deletion=Deletion(END - 1, "older than 5D"))
        if each.date < END - DAY
        else each
        for each in daily()
    ]
    found = facts(*rotated)
    assert found.problems == {}
    assert (len(found.backups), len(found.deleted), len(found.stored)) == (10, 10, 1)


def test_a_set_that_was_deleted_on_purpose_is_not_overdue() -> None:
    gone = [replace(fact(each), deletion=Deletion(days(3)[0], "by name")) for each in (0, 1, 2)]
    assert facts(*gone).problems == {}
    assert list(facts(*gone, is_expected=True).problems) == [Problem.OVERDUE]
    lost = [replace(each, deletion=Deletion(days(3)[0], "gone from the storage")) for each in gone]
    assert facts(*lost).problems == {Problem.GONE: "3 backups gone from the storage"}


def test_without_a_limit_gaps_are_not_judged() -> None:
    found = facts(fact(0), fact(7), max_age=None)
    assert (found.missed, found.problems, found.longest_gap) == ([], {}, 7 * DAY)


def test_a_source_without_a_backup_is_a_problem_when_a_job_should_make_it() -> None:
    assert facts(is_expected=True, check_every=DAY).problems == {
        Problem.NEVER: "it was never backed up"
    }
    assert facts().problems == {}


def test_a_job_without_a_limit_whose_backups_are_all_deleted_is_not_good() -> None:
    gone = replace(fact(1), deletion=Deletion(days(2)[0], "by name"))
    expected = {Problem.NEVER: "no backup of it is stored"}
    assert facts(gone, max_age=None, is_expected=True).problems == expected
    assert facts(gone, max_age=None).problems == {}


def test_what_is_only_dated_in_the_future_was_backed_up() -> None:
    assert list(facts(fact(30), is_expected=True).problems) == [Problem.FUTURE]


def test_each_problem_is_named_the_worst_first() -> None:
    found = facts(
        fact(-1, check=CheckRecord(days(2)[0], Verdict.DAMAGED)),
        fact(4, warning_count=2, is_suspicious=True),
        fact(5, warning_count=1, is_suspicious=True),
        fact(6, drill=DrillRecord(days(6)[0], passed=False, problem="x")),
        fact(7, deletion=Deletion(days(8)[0], "gone from the storage")),
        fact(40),
        check_every=7 * DAY,
        drill_every=DAY,
    )
    assert found.problems == {
        Problem.OVERDUE: "the newest backup is older than it may be",
        Problem.MISSED: "1 gap longer than a backup may be old",
        Problem.DRILL_FAILED: "1 drill failed",
        Problem.CHECK_FAILED: "1 check failed",
        Problem.GONE: "1 backup gone from the storage",
        Problem.INCOMPLETE: "1 backup with missing or changed files",
        Problem.SUSPICIOUS: "2 backups of suspicious size",
        Problem.NOT_DRILLED: "no drill in the interval that its job has",
        Problem.FUTURE: "1 backup dated in the future",
    }


@pytest.mark.parametrize(("last", "is_late"), [(None, True), (3.1, False), (-1.0, True)])
def test_a_check_is_late_a_quarter_of_its_interval_after_it(
    last: float | None, is_late: bool
) -> None:
    check = None if last is None else CheckRecord(days(last)[0], Verdict.READ)
    found = facts(*daily(), fact(1, check=check), check_every=7 * DAY)
    assert (Problem.NOT_CHECKED in found.problems) == is_late


def test_a_backup_from_the_future_ends_no_gap() -> None:
    found = facts(fact(0), fact(1), fact(400))
    assert [(each.begin, each.end) for each in found.missed] == [(days(1)[0], None)]
    assert [each.date for each in found.backups] == days(0, 1, 400)
    assert found.newest == days(1)[0]


def test_a_clock_that_is_a_little_ahead_is_no_future() -> None:
    found = facts(*daily(), fact(10 + 1 / 48))
    assert (len(found.backups), len(found.stored), found.future) == (11, 12, [])
    assert states(found) == "bbbbbbbbbbb"
    past = replace(found, period=Period(BEGIN, END, END + DAY))
    assert len(past.backups) == 10


def test_the_curve_goes_down_where_a_backup_was_deleted() -> None:
    found = facts(
        fact(-5, deletion=Deletion(days(-2)[0], "by name")),
        fact(-4, size=70, deletion=Deletion(days(3)[0], "by name")),
        fact(2),
        fact(4, size=-1),
    )
    dates = days(2, 3, 4)
    assert found.curve() == [
        (BEGIN, 70),
        (dates[0], 170),
        (dates[1], 100),
        (dates[2], 100),
        (END, 100),
    ]


def test_a_deletion_before_its_backup_is_a_clock_that_was_set_back() -> None:
    found = facts(fact(5, deletion=Deletion(days(2)[0], "by name")))
    made = days(5)[0]
    assert found.curve() == [(BEGIN, 0), (made, 100), (made, 0), (END, 0)]


def states(found: SetFacts) -> str:
    letters = {state: state.value[0] for state in DayState} | {
        DayState.NONE: ".",
        DayState.FAILED: "F",
    }
    return "".join(letters[each.state] for each in days_of(found, found.period, text.shown_day))


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (daily(), "bbbbbbbbbb."),
        (daily(3), "bbbmbbbbbb."),
        (daily(3, 4, 5), "bbbmmmbbbb."),
        (daily(-1, 0), ".bbbbbbbbb."),
        (daily(0), "mbbbbbbbbb."),
        (daily(7, 8, 9), "bbbbbbbmmmm"),
        ([*daily(3), fact(3.1, warning_count=1)], "bbbibbbbbb."),
        ([*daily(3), fact(3.1, is_suspicious=True)], "bbbibbbbbb."),
        (
            [*daily(), fact(-1, check=CheckRecord(days(4)[0], Verdict.DAMAGED))],
            "bbbbFbbbbb.",
        ),
        (
            [*daily(), fact(0, drill=DrillRecord(days(4)[0], passed=False, problem=""))],
            "bbbbFbbbbb.",
        ),
    ],
)
def test_each_day_has_the_worst_of_its_states(known: list[BackupFacts], expected: str) -> None:
    assert states(facts(*known)) == expected


def test_a_gap_within_a_day_is_shown_though_the_day_has_backups() -> None:
    hourly = [fact(hour / 24) for hour in range(-2, 241) if not 30 <= hour <= 40]
    assert states(facts(*hourly, max_age=2 * HOUR)) == "bmbbbbbbbbb"


def test_a_calendar_has_at_most_three_years() -> None:
    found = replace(facts(*daily()), period=Period(0, END, END))
    shown = days_of(found, found.period, text.shown_day)
    assert len(shown) == MOST_DAYS
    assert shown[-2] == Day(date(2026, 9, 10), DayState.GOOD, 1)


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Show the times of a zone that has summer time."""
    before = os.environ.get("TZ")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    text.show_local_time(True)
    yield
    text.show_local_time(False)
    monkeypatch.undo()
    assert os.environ.get("TZ") == before
    time.tzset()


@pytest.mark.parametrize(("month", "day"), [(3, 29), (10, 25)])
def test_the_night_when_the_clocks_change_is_no_gap(berlin: None, month: int, day: int) -> None:
    begin = int(time.mktime((2026, month, day - 3, 0, 0, 0, 0, 0, -1)))
    end = int(time.mktime((2026, month, day + 3, 12, 0, 0, 0, 0, -1)))
    nights = [
        int(time.mktime((2026, month, day + number, 4, 30, 0, 0, 0, -1))) for number in range(-3, 4)
    ]
    lengths = {b - a for a, b in itertools.pairwise(nights)}
    assert len(lengths) == 2  # one night is 23 or 25 hours long
    made = [replace(fact(0), date=each) for each in nights]
    found = replace(facts(*made), period=Period(begin, end, end))
    shown = days_of(found, found.period, text.shown_day)
    assert found.missed == []
    wanted = [date(2026, month, day) + timedelta(number) for number in range(-3, 4)]
    assert [(each.day, each.state, each.count) for each in shown] == [
        (each, DayState.GOOD, 1) for each in wanted
    ]


def entry(**more: Any) -> models.Backups:
    values = {
        "backend": "local",
        "backend_hash": "",
        "backup_date": BEGIN,
        "filename": "my",
        "is_deleted": False,
        "last_updated": END,
        "metadata": {"client": "box"},
        "size": 10,
        "stored_filename": "my.20260901000000.tgz",
        "tags": "",
        **more,
    }
    return models.Backups(**values)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"deleted": {"date": BEGIN, "why": "by name"}}, Deletion(BEGIN, "by name")),
        ({"deleted": {"date": BEGIN}}, Deletion(BEGIN, "not recorded")),
        ({}, Deletion(END, "not recorded")),  # by an earlier version
        ({"deleted": "x"}, Deletion(END, "not recorded")),
        ({"deleted": {"date": 10**30, "why": "x"}}, Deletion(END, "not recorded")),
        ({"deleted": {"date": True, "why": "x"}}, Deletion(END, "not recorded")),
    ],
)
def test_a_deletion_of_an_earlier_version_is_not_recorded(
    metadata: dict[str, Any], expected: Deletion
) -> None:
    assert facts_of(entry(is_deleted=True, metadata=metadata)).deletion == expected
    assert facts_of(entry(metadata=metadata)).deletion is None


def test_damaged_facts_are_left_out() -> None:
    broken = {
        "files": "many",
        "bytes": -1,
        "seconds": "x",
        "warnings": 5,
        "warning_count": "x",
        "check": [],
        "drill": {"date": None},
        "encryption": ["x"],
    }
    found = facts_of(entry(metadata=broken))
    assert (found.files, found.content, found.seconds, found.warnings) == (None, None, None, ())
    assert (found.check, found.drill, found.warning_count) == (None, None, 0)
    never = {"check": {"date": float("inf"), "verdict": "read"}, "drill": {"date": float("inf")}}
    assert facts_of(entry(metadata=never)).check is None
    never = {"check": {"date": 10**30, "verdict": "read"}, "drill": {"date": -1, "passed": True}}
    assert facts_of(entry(metadata=never)).check is None
    assert facts_of(entry(metadata=never)).drill is None


@pytest.mark.parametrize("date", [-(10**18), 9 * 10**18])
def test_a_date_that_no_calendar_has_is_the_nearest(date: int) -> None:
    metadata = {"client": "box", "format": 1}
    found = facts_of(entry(backup_date=date, last_updated=date, is_deleted=True, metadata=metadata))
    assert found.deletion is not None
    assert found.date == found.deletion.date
    assert text.shown_day(found.date).year in (1970, 9999)


@pytest.mark.parametrize(
    ("stored", "encryption", "expected"),
    [
        ("my.20260901000000.tgz", "passphrase", "none"),  # the name says it
        ("my.20260901000000.tgz.age", "passphrase", "age, passphrase"),
        ("my.20260901000000.tgz.age", "recipients", "age, public keys"),
        ("my.20260901000000.tgz.age", "", "age"),
        ("my.20260901000000.tgz.enc", "", "Blowfish (0.6.0)"),
    ],
)
def test_how_a_backup_is_encrypted(stored: str, encryption: str, expected: str) -> None:
    made = entry(stored_filename=stored, metadata={"client": "box", "encryption": encryption})
    assert facts_of(made).encryption == expected


def test_an_increment_counts_as_a_backup() -> None:
    found = facts_of(entry(stored_filename="my.20260901000000.inc.tgz"))
    assert found.is_increment
