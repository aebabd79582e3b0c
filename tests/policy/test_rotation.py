"""Rotation: the backups that are kept for any history, policy and clock, and invalid rules."""

from __future__ import annotations

import calendar
import random
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from pathlib import Path

import grandfatherson  # type: ignore[import-untyped]  # ships no type hints
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bakthat.errors import ConfigError, UsageError
from bakthat.policy.newest import is_in_the_future
from bakthat.policy.rotation import (
    BEFORE_1970,
    IN_THE_FUTURE,
    NEWEST,
    NOT_NEEDED,
    NOT_OLDER,
    OLDER,
    RECORDED_LAST,
    Decision,
    RotationKeywords,
    RotationPolicy,
    decide,
    decide_by_age,
    keep_also,
)
from bakthat.policy.week_days import WEEK_DAYS, parse_week_day
from tests.support.examples import rest_slow

DAY = 86400
EPOCH = datetime(1970, 1, 1)
RULES = ("minutes", "hours", "days", "weeks", "months", "years")
WORDS = dict(
    zip(RULES, ("minutely", "hourly", "daily", "weekly", "monthly", "yearly"), strict=True)
)


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    return calendar.timegm((year, month, day, hour, minute, second))


def moment(seconds: int) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


def not_in_the_future(dates: Sequence[int], now: int) -> list[int]:
    return [date for date in dates if not is_in_the_future(date, now)]


def kept(dates: Sequence[int], policy: RotationPolicy, now: int) -> list[int]:
    """Return the dates that stay, in their order."""
    decisions = decide(dates, policy, now)
    return [date for date, decision in zip(dates, decisions, strict=True) if decision.keep]


def slot(rule: str, seconds: int, first_week_day: int) -> int:
    """Number the slots of a rule with independent arithmetic, to check the library."""
    if rule in ("minutes", "hours", "days"):
        return seconds // {"minutes": 60, "hours": 3600, "days": DAY}[rule]
    if rule == "weeks":
        # 1 January 1970 was a Thursday, which Python counts as 3.
        return (seconds // DAY + 3 - first_week_day) // 7
    year, month, *_ = time.gmtime(seconds)
    return year * 12 + month if rule == "months" else year


nows = st.integers(at(2000, 1, 1), at(2100, 1, 1))
counts = st.one_of(st.just(0), st.integers(1, 12), st.integers(1, 10**6))


@st.composite
def policies(draw: st.DrawFn) -> RotationPolicy:
    values = {name: draw(counts) for name in ("last", *RULES)}
    assume(any(values.values()))
    return RotationPolicy(**values, first_week_day=draw(st.integers(0, 6)))


@st.composite
def histories(draw: st.DrawFn, future: bool = True) -> tuple[list[int], int]:
    """Draw dates that fall often into one slot, sometimes at its edge, and a clock."""
    now = draw(nows)
    grain = draw(st.sampled_from([1, 60, 3599, 3600, DAY - 1, DAY, DAY + 1, 7 * DAY, 31 * DAY]))
    steps = draw(st.lists(st.integers(-4 if future else 0, 40), max_size=60))
    edge = draw(st.sampled_from([0, now % 60, now % 3600, now % DAY]))
    return [now - edge * (step >= 0) - step * grain for step in steps], now


@given(histories(), policies())
def test_the_newest_backup_is_kept_whatever_the_policy(
    history: tuple[list[int], int], policy: RotationPolicy
) -> None:
    dates, now = history
    past = not_in_the_future(dates, now)
    decisions = dict(zip(dates, decide(dates, policy, now), strict=True))
    if past:
        assert decisions[max(past)].keep
        assert decisions[max(past)].reasons[0] == NEWEST
    assert [date for date, why in decisions.items() if NEWEST in why.reasons] == [
        max(past) for _ in past[:1]
    ]


@given(histories(), policies())
def test_backups_from_the_future_are_kept_and_change_nothing_for_the_others(
    history: tuple[list[int], int], policy: RotationPolicy
) -> None:
    dates, now = history
    past = not_in_the_future(dates, now)
    decisions = decide(dates, policy, now)
    for when, decision in zip(dates, decisions, strict=True):
        if is_in_the_future(when, now):
            assert decision == Decision(True, (IN_THE_FUTURE,))
    assert [
        decision
        for date, decision in zip(dates, decisions, strict=True)
        if not is_in_the_future(date, now)
    ] == decide(past, policy, now)


@given(histories(), policies(), st.data())
def test_a_larger_policy_keeps_a_superset(
    history: tuple[list[int], int], policy: RotationPolicy, data: st.DataObject
) -> None:
    dates, now = history
    larger = replace(
        policy,
        **{name: getattr(policy, name) + data.draw(counts) for name in ("last", *RULES)},
    )
    assert set(kept(dates, policy, now)) <= set(kept(dates, larger, now))


@given(histories(), policies())
def test_rotating_twice_deletes_nothing_the_second_time(
    history: tuple[list[int], int], policy: RotationPolicy
) -> None:
    dates, now = history
    left = kept(dates, policy, now)
    assert kept(left, policy, now) == left


@given(histories(future=False), policies(), st.integers(0, 5 * 365 * DAY))
def test_time_alone_deletes_nothing(
    history: tuple[list[int], int], policy: RotationPolicy, later: int
) -> None:
    dates, now = history
    left = kept(dates, policy, now)
    assert kept(left, policy, now + later) == left
    assert kept(dates, policy, now + later) == left


@given(histories(future=False), policies())
def test_rotating_after_every_backup_ends_as_rotating_once(
    history: tuple[list[int], int], policy: RotationPolicy
) -> None:
    dates, now = history
    left: list[int] = []
    for backup in sorted(set(dates)):
        left = kept([*left, backup], policy, backup)
    assert left == kept(sorted(set(dates)), policy, now)


@given(histories(), policies(), st.randoms(use_true_random=False))
def test_the_order_of_the_dates_does_not_matter(
    history: tuple[list[int], int], policy: RotationPolicy, shuffler: random.Random
) -> None:
    dates, now = history
    shuffled = dates.copy()
    shuffler.shuffle(shuffled)
    assert dict(zip(dates, decide(dates, policy, now), strict=True)) == dict(
        zip(shuffled, decide(shuffled, policy, now), strict=True)
    )


@given(histories(), policies())
def test_backups_of_one_second_share_a_decision_and_crowd_no_other_out(
    history: tuple[list[int], int], policy: RotationPolicy
) -> None:
    dates, now = history
    dates = sorted(set(dates))
    once = decide(dates, policy, now)
    assert decide(dates * 3, policy, now) == once * 3


@given(histories(), policies())
def test_each_rule_keeps_the_oldest_of_exactly_as_many_slots_as_it_promises(
    history: tuple[list[int], int], policy: RotationPolicy
) -> None:
    dates, now = history
    decisions = dict(zip(dates, decide(dates, policy, now), strict=True))
    for rule in RULES:
        count = getattr(policy, rule)
        oldest: dict[int, int] = {}
        for when in sorted(not_in_the_future([*decisions], now), reverse=True):
            oldest[slot(rule, when, policy.first_week_day)] = when
        promised = {
            date: f"{WORDS[rule]} {position} of {count}"
            for position, date in enumerate(list(oldest.values())[:count], 1)
        }
        given_out = {
            date: reason
            for date, decision in decisions.items()
            for reason in decision.reasons
            if reason.startswith(WORDS[rule])
        }
        assert given_out == promised


@given(histories(), st.integers(1, 70))
def test_last_keeps_the_latest_whatever_their_dates(
    history: tuple[list[int], int], last: int
) -> None:
    dates, now = history
    past = sorted({*not_in_the_future(dates, now)}, reverse=True)
    left = kept(dates, RotationPolicy(last=last), now)
    assert {*not_in_the_future(left, now)} == set(past[:last])


@given(histories(), policies(), st.data())
def test_the_backup_recorded_last_is_kept_and_changes_nothing_for_the_others(
    history: tuple[list[int], int], policy: RotationPolicy, data: st.DataObject
) -> None:
    dates, now = history
    assume(dates)
    position = data.draw(st.integers(0, len(dates) - 1))
    decided = decide(dates, policy, now)
    decisions = keep_also(decided, position, RECORDED_LAST)
    assert decisions[position] == (
        decided[position] if decided[position].keep else Decision(True, (RECORDED_LAST,))
    )
    del decided[position], decisions[position]
    assert decisions == decided


@given(histories(), policies())
def test_every_decision_gives_its_reasons(
    history: tuple[list[int], int], policy: RotationPolicy
) -> None:
    dates, now = history
    decisions = decide(dates, policy, now)
    assert len(decisions) == len(dates)
    for decision in decisions:
        assert decision.reasons
        assert decision.keep == (decision.reasons != (NOT_NEEDED,))


@given(histories(), policies())
def test_no_backup_is_deleted_that_grandfatherson_keeps(
    history: tuple[list[int], int], policy: RotationPolicy
) -> None:
    dates, now = history
    # The library keeps what is dated after now, be it by a second.
    dates = [date for date in dates if date <= now or is_in_the_future(date, now)]
    # The library counts back from now in datetimes, which end at the year 1.
    counts = {rule: min(getattr(policy, rule), 500) for rule in RULES}
    library = grandfatherson.to_keep(
        [moment(date) for date in dates],
        **counts,
        firstweekday=policy.first_week_day,
        now=moment(now),
    )
    assert library <= {moment(date) for date in kept(dates, policy, now)}


@given(
    nows,
    st.integers(1, 1200),
    st.builds(
        RotationPolicy,
        days=st.integers(1, 40),
        weeks=st.integers(0, 60),
        months=st.integers(0, 40),
        years=st.integers(0, 4),
        first_week_day=st.integers(0, 6),
    ),
)
def test_with_a_backup_every_day_exactly_what_grandfatherson_keeps_is_kept(
    now: int, length: int, policy: RotationPolicy
) -> None:
    dates = [now - age * DAY for age in range(length)]
    library = grandfatherson.to_keep(
        [moment(date) for date in dates],
        days=policy.days,
        weeks=policy.weeks,
        months=policy.months,
        years=policy.years,
        firstweekday=policy.first_week_day,
        now=moment(now),
    )
    assert {moment(date) for date in kept(dates, policy, now)} == library


def test_the_example_of_days_weeks_and_months_in_grandfathersons_documentation_holds() -> None:
    # "daily backups for the all of year 1999", from the documentation of GrandFatherSon 1.3.
    backups = [at(1999, 1, 1) + day * DAY for day in range(365)]
    policy = RotationPolicy(days=7, weeks=4, months=3, first_week_day=calendar.SATURDAY)
    days = [f"{moment(date):%m-%d}" for date in kept(backups, policy, at(1999, 12, 31, 23, 59, 59))]
    assert days == [
        *("10-01", "11-01", "12-01", "12-04", "12-11", "12-18", "12-25", "12-26"),
        *("12-27", "12-28", "12-29", "12-30", "12-31"),
    ]


def test_the_example_of_hours_and_minutes_in_grandfathersons_documentation_holds() -> None:
    # A backup every second of one day; without the library's seconds, which bakthat has not.
    backups = [at(1999, 12, 31) + second for second in range(DAY)]
    policy = RotationPolicy(hours=2, minutes=10)
    assert kept(backups, policy, backups[-1]) == [
        at(1999, 12, 31, 22),
        at(1999, 12, 31, 23),
        *(at(1999, 12, 31, 23, minute) for minute in range(50, 60)),
        at(1999, 12, 31, 23, 59, 59),
    ]


@pytest.mark.parametrize("first_week_day", rest_slow(range(7), 2))
@pytest.mark.parametrize(
    "start",
    [
        datetime(2023, 3, 1),
        datetime(2024, 2, 29),
        datetime(2024, 12, 31),
        datetime(2027, 1, 1),
        datetime(2099, 6, 30),
    ],
)
def test_a_year_of_daily_backups_and_rotations_holds_the_promised_counts_every_day(
    start: datetime, first_week_day: int
) -> None:
    policy = RotationPolicy(days=7, weeks=6, months=6, years=2, first_week_day=first_week_day)
    clock = random.Random(f"{start} {first_week_day}")
    left: dict[int, datetime] = {}
    for today in (start + timedelta(days) for days in range(366)):
        now = calendar.timegm(today.timetuple()) + clock.randrange(DAY)
        left = {**left, now: today}
        left = {when: left[when] for when in kept([*left], policy, now)}
        ago = [today - timedelta(days) for days in range((today - start).days + 1)]
        daily = ago[:7]
        # What began before the first backup is represented by the first backup.
        weekly = [d for d in ago if d == start or d.weekday() == first_week_day][:6]
        monthly = [d for d in ago if d == start or d.day == 1][:6]
        yearly = [d for d in ago if d == start or (d.day, d.month) == (1, 1)][:2]
        assert set(left.values()) == {*daily, *weekly, *monthly, *yearly}
        if (today - start).days > 200:
            assert (len(daily), len(weekly), len(monthly)) == (7, 6, 6)


def test_the_second_backup_of_a_day_stays_until_the_next_backup() -> None:
    policy = RotationPolicy(days=7)
    morning, noon = at(2026, 11, 23, 8), at(2026, 11, 23, 12)
    assert kept([morning, noon], policy, noon) == [morning, noon]
    tomorrow = morning + DAY
    assert kept([morning, noon, tomorrow], policy, tomorrow) == [morning, tomorrow]


def test_a_clock_that_runs_a_year_ahead_costs_one_slot_and_not_the_history() -> None:
    policy = RotationPolicy(days=7, weeks=4, months=6)
    now = at(2026, 11, 23, 12)
    left = kept([now - age * DAY for age in range(365)], policy, now)
    assert kept(left, policy, now + 365 * DAY) == left
    wrong = now + 365 * DAY
    gone = set(left) - set(kept([wrong, *left], policy, wrong))
    assert now not in gone
    assert len(gone) <= 3  # at most the oldest of each rule made room for the new backup

    # With the clock set right again, the backup with the wrong date displaces no other.
    decisions = decide([wrong, *left], policy, now)
    assert decisions[0] == Decision(True, (IN_THE_FUTURE,))
    assert all(decision.keep for decision in decisions)


def test_a_clock_that_fell_back_deletes_nothing() -> None:
    dates = [at(2026, 11, 23) - age * DAY for age in range(100)]
    assert kept(dates, RotationPolicy(last=1), at(1970, 1, 1)) == dates
    assert kept(dates, RotationPolicy(last=1), -1) == dates


def test_dates_that_no_calendar_holds_are_kept() -> None:
    now = at(2026, 11, 23)
    milliseconds = now * 1000
    decisions = decide([-1, 0, now, milliseconds, -(10**30), 10**30], RotationPolicy(last=1), now)
    assert [decision.reasons for decision in decisions] == [
        (BEFORE_1970,),
        (NOT_NEEDED,),
        (NEWEST, "last 1 of 1"),
        (IN_THE_FUTURE,),
        (BEFORE_1970,),
        (IN_THE_FUTURE,),
    ]


@pytest.mark.parametrize("now", [0, 1, at(1970, 1, 3), at(9999, 12, 31, 23, 59, 59)])
def test_every_rule_reaches_from_any_clock_back_to_1970(now: int) -> None:
    dates = sorted({0, now // 2, now})
    for rule in RULES:
        assert kept(dates, RotationPolicy(**{rule: 10**12}), now)[0] == 0


def test_no_backups_need_no_decisions() -> None:
    assert decide([], RotationPolicy(days=7), 0) == []


def test_the_29th_of_february_is_a_day_like_any_other() -> None:
    now = at(2024, 3, 2, 12)
    dates = [now - age * DAY for age in range(40)]
    left = kept(dates, RotationPolicy(days=3, months=2, years=1), now)
    assert [f"{moment(date):%m-%d}" for date in left] == [
        "03-02",
        "03-01",
        "02-29",
        "02-01",
        "01-23",
    ]


def test_a_week_that_spans_two_years_is_one_week_in_two_months() -> None:
    saturday, wednesday, friday = at(2025, 12, 27), at(2025, 12, 31), at(2026, 1, 2)
    decisions = decide(
        [saturday, wednesday, friday], RotationPolicy(weeks=9, months=9, years=9), friday
    )
    assert [decision.reasons for decision in decisions] == [
        ("weekly 1 of 9", "monthly 2 of 9", "yearly 2 of 9"),
        (NOT_NEEDED,),
        (NEWEST, "monthly 1 of 9", "yearly 1 of 9"),
    ]


@pytest.mark.parametrize("first_week_day", range(7))
def test_a_week_begins_on_the_day_that_the_policy_says(first_week_day: int) -> None:
    now = at(2026, 11, 23, 12)
    policy = RotationPolicy(weeks=5, first_week_day=first_week_day)
    left = kept([now - age * DAY for age in range(60)], policy, now)
    weekdays = [moment(date).weekday() for date in left]
    # 23 November 2026 is a Monday; it is kept as the newest even where no week begins.
    assert weekdays == ([0] * 5 if first_week_day == 0 else [0] + [first_week_day] * 5)


@pytest.fixture
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    "zone",
    # POSIX rules, so that no time zone database is needed: Berlin, Sydney, Kiritimati, Pago Pago.
    ["CET-1CEST,M3.5.0,M10.5.0/3", "AEST-10AEDT,M10.1.0,M4.1.0/3", "LINT-14", "SST11"],
    indirect=True,
)
@pytest.mark.usefixtures("zone")
def test_no_local_time_zone_and_no_daylight_saving_shifts_a_slot() -> None:
    assert time.localtime(0)[:5] != time.gmtime(0)[:5]
    # Each half hour around the nights on which Berlin and Sydney change their clocks.
    for change in (at(2026, 3, 29, 1), at(2026, 10, 25, 1), at(2026, 4, 4, 16)):
        dates = [change + half * 1800 for half in range(-60, 60)]
        assert kept(dates, RotationPolicy(hours=99), dates[-1]) == [
            date for date in dates if date % 3600 == 0 or date == dates[-1]
        ]
        assert kept(dates, RotationPolicy(days=9), dates[-1]) == [
            date for date in dates if date % DAY == 0 or date in (dates[0], dates[-1])
        ]


def test_the_rotation_of_a_profile_becomes_a_policy() -> None:
    assert RotationPolicy.from_mapping(
        {"days": 7, "first_week_day": 6, "months": 6, "weeks": 4}
    ) == RotationPolicy(days=7, weeks=4, months=6, first_week_day=6)
    everything = {field.name: 1 for field in fields(RotationPolicy)}
    assert RotationPolicy.from_mapping(everything) == RotationPolicy(**everything)


def test_a_week_begins_on_saturday_by_default() -> None:
    assert RotationPolicy.from_mapping({"weeks": 1}).first_week_day == calendar.SATURDAY
    assert RotationPolicy(weeks=1, first_week_day=calendar.SUNDAY).first_week_day == 6


@pytest.mark.parametrize(
    ("mapping", "complaint", "hint"),
    [
        ({"day": 7}, "'rotation' has the unknown key 'day'", "did you mean days?"),
        ({"days": 7, "first_weekday": 5}, "unknown key 'first_weekday'", "mean first_week_day?"),
        ({"seconds": 7}, "unknown key 'seconds'", "the keys are last, minutes, hours, days"),
        ({7: 7}, "unknown key 7", "the keys are last"),
        ({"days": "7"}, "'rotation': 'days' is '7', not a whole number from 0 on", "days: 7"),
        ({"days": 7.0}, "'days' is 7.0, not a whole number", "days: 7"),
        ({"days": None}, "'days' is None, not a whole number", "days: 7"),
        ({"weeks": True}, "'weeks' is True, not a whole number", "weeks: 7"),
        ({"months": [6]}, "'months' is [6], not a whole number", "months: 7"),
        ({"days": 7, "last": -1}, "'last' is -1, not a whole number", "last: 7"),
        ({"days": 7, "first_week_day": 7}, "'first_week_day' is 7, not", "0 for Monday"),
        ({"days": 7, "first_week_day": -1}, "'first_week_day' is -1, not", "0 for Monday"),
        (
            {"days": 7, "first_week_day": "sunday"},
            "'first_week_day' is 'sunday', not",
            "6 for Sunday",
        ),
        ({"days": 7, "first_week_day": False}, "'first_week_day' is False, not", "0 for Monday"),
        ({}, "keeps nothing is refused", "days: 7"),
        ({"days": 0, "weeks": 0, "first_week_day": 3}, "keeps nothing is refused", "days: 7"),
        (7, "'rotation' is 7, not a mapping", "rotation: {days: 7"),
        (None, "'rotation' is None, not a mapping", "rotation: {days: 7"),
        ([("days", 7)], "'rotation' is [('days', 7)], not a mapping", "rotation: {days: 7"),
    ],
)
def test_an_invalid_rotation_is_refused_by_name(mapping: object, complaint: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)) as caught:
        RotationPolicy.from_mapping(mapping)
    assert hint in caught.value.hint


def test_invalid_arguments_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="'days' is -1"):
        RotationPolicy(days=-1)
    with pytest.raises(UsageError, match="keeps nothing"):
        RotationPolicy()


@pytest.mark.parametrize(
    ("given_rules", "configured", "policy"),
    [
        ({}, {"days": 7}, RotationPolicy(days=7)),
        (
            {"first_week_day": 0},
            {"weeks": 4, "first_week_day": 6},
            RotationPolicy(weeks=4, first_week_day=0),
        ),
        ({"last": 2, "days": None}, {"days": 7}, RotationPolicy(last=2)),
        (
            {"weeks": 2},
            {"days": 7, "first_week_day": 6},
            RotationPolicy(weeks=2, first_week_day=6),
        ),
        (
            {"weeks": 2, "first_week_day": 0},
            {"first_week_day": 6},
            RotationPolicy(weeks=2, first_week_day=0),
        ),
    ],
)
def test_given_rules_replace_the_configured_ones(
    given_rules: RotationKeywords, configured: dict[str, int], policy: RotationPolicy
) -> None:
    assert RotationPolicy.choose(configured, **given_rules) == policy


def test_a_rotation_needs_a_rule() -> None:
    with pytest.raises(ConfigError, match="no rotation is configured"):
        RotationPolicy.choose({}, first_week_day=0)
    with pytest.raises(UsageError, match="keeps nothing"):
        RotationPolicy.choose({"days": 7}, days=0)


def test_the_keywords_are_the_fields() -> None:
    assert list(RotationKeywords.__annotations__) == [
        field.name for field in fields(RotationPolicy)
    ]


@given(histories(), st.integers(1, 10**10))
def test_by_age_everything_older_is_deleted_but_the_newest_and_impossible_dates(
    history: tuple[list[int], int], seconds: int
) -> None:
    dates, now = history
    newest = max(not_in_the_future([date for date in dates if date >= 0], now), default=None)
    for date, decision in zip(dates, decide_by_age(dates, seconds, now), strict=True):
        goes = 0 <= date < now - seconds and date != newest
        assert decision.keep != goes
        assert decision.reasons
        if goes:
            assert decision.reasons == (OLDER,)
        assert (NEWEST in decision.reasons) == (date == newest)


@given(histories(), st.integers(1, 10**10))
def test_deleting_by_age_twice_deletes_nothing_the_second_time(
    history: tuple[list[int], int], seconds: int
) -> None:
    dates, now = history
    decisions = zip(dates, decide_by_age(dates, seconds, now), strict=True)
    left = [date for date, decision in decisions if decision.keep]
    assert all(decision.keep for decision in decide_by_age(left, seconds, now))


@given(histories(), st.integers(1, 10**9), st.integers(0, 10**9))
def test_a_longer_interval_keeps_a_superset(
    history: tuple[list[int], int], seconds: int, more: int
) -> None:
    dates, now = history
    shorter, longer = (decide_by_age(dates, each, now) for each in (seconds, seconds + more))
    assert all(b.keep for a, b in zip(shorter, longer, strict=True) if a.keep)


def test_a_backup_exactly_as_old_as_the_interval_is_not_older() -> None:
    dates = [1000, 999, 6000]
    assert decide_by_age(dates, 500, 1500) == [
        Decision(True, (NEWEST, NOT_OLDER)),
        Decision(False, (OLDER,)),
        Decision(True, (IN_THE_FUTURE,)),
    ]
    assert decide_by_age([-1], 500, 1500) == [Decision(True, (BEFORE_1970,))]
    assert decide_by_age([], 500, 1500) == []


def test_week_days_are_read_by_name_or_number() -> None:
    for number, name in enumerate(calendar.day_name):
        assert parse_week_day(name) == parse_week_day(name.upper()) == number
        assert parse_week_day(str(number)) == number
    assert WEEK_DAYS[RotationPolicy(days=1).first_week_day] == "saturday"


@pytest.mark.parametrize(
    "text", ["", "7", "-1", "sun", "5.0", "\N{ARABIC-INDIC DIGIT FIVE}", "saturday!"]
)
def test_an_invalid_week_day_is_refused_with_the_choices(text: str) -> None:
    with pytest.raises(UsageError, match="not a day of the week") as caught:
        parse_week_day(text)
    assert "saturday" in caught.value.hint


def test_a_policy_is_described_in_words() -> None:
    assert str(RotationPolicy(days=7, weeks=4, months=6)) == (
        "7 daily, 4 weekly (weeks from saturday), 6 monthly"
    )
    assert str(RotationPolicy(last=3, years=1, first_week_day=0)) == "the last 3, 1 yearly"


def test_every_reason_is_explained_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "retention.rst").read_text("utf-8")
    for reason in (
        NEWEST,
        IN_THE_FUTURE,
        BEFORE_1970,
        NOT_NEEDED,
        OLDER,
        NOT_OLDER,
        "last 2 of 5",
        *WORDS.values(),
    ):
        assert reason in page
    for field in fields(RotationPolicy):
        assert f"``{field.name}``" in page
