"""Until when a backup is locked: no longer than the rotation keeps it, plus a day."""

from __future__ import annotations

import calendar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bakthat.errors import ConfigError
from bakthat.policy.object_lock.rule import MAX_DAYS, LockRule
from bakthat.policy.object_lock.until import DAY, locked_until
from bakthat.policy.rotation import RotationPolicy, decide
from bakthat.policy.settings import object_lock

RETENTION = LockRule("governance", None)
HOUR = 3600


def at(year: int, month: int, day: int, hour: int = 0) -> int:
    return calendar.timegm((year, month, day, hour, 0, 0))


POLICIES = st.builds(
    RotationPolicy,
    hours=st.integers(0, 3),
    days=st.integers(1, 8),
    weeks=st.integers(0, 4),
    months=st.integers(0, 6),
    years=st.integers(0, 2),
    first_week_day=st.integers(0, 6),
)


def test_number_of_days_counts_from_the_date_of_each_backup() -> None:
    rule = LockRule("compliance", 30)
    assert locked_until([1000, 2000], rule, None, 9999) == [1000 + 30 * DAY, 2000 + 30 * DAY]


def test_daily_backup_of_seven_is_locked_for_eight_days() -> None:
    made = at(2026, 3, 4, 3)
    policy = RotationPolicy(days=7)
    assert locked_until([made], RETENTION, policy, made) == [at(2026, 3, 12)]


def test_first_backup_of_a_month_is_locked_for_as_many_months() -> None:
    made = at(2026, 3, 1, 3)
    policy = RotationPolicy(days=7, weeks=4, months=6)
    dates = [at(2026, 2, day, 3) for day in range(1, 29)]
    assert locked_until([*dates, made], RETENTION, policy, made)[-1] == at(2026, 9, 2)


@pytest.mark.parametrize("first_week_day", range(7))
def test_weeks_begin_on_the_day_that_the_rotation_says(first_week_day: int) -> None:
    made = at(2026, 3, 4, 3)  # a Wednesday
    policy = RotationPolicy(weeks=1, first_week_day=first_week_day)
    ends = locked_until([made], RETENTION, policy, made)[0] - DAY
    assert calendar.weekday(*_day(ends)) == first_week_day
    assert 0 < ends - made <= 7 * DAY


def _day(seconds: int) -> tuple[int, int, int]:
    import time

    found = time.gmtime(seconds)
    return found.tm_year, found.tm_mon, found.tm_mday


def test_second_backup_of_a_day_is_locked_for_a_day() -> None:
    made = at(2026, 3, 4, 15)
    policy = RotationPolicy(days=7)
    assert locked_until([at(2026, 3, 4, 3), made], RETENTION, policy, made)[-1] == made + DAY


def test_days_without_a_backup_make_the_lock_longer() -> None:
    made = at(2026, 3, 4, 3)
    policy = RotationPolicy(days=7)
    later = at(2026, 3, 20, 3)
    # The seven later days with a backup can be the 20th to the 26th.
    assert locked_until([made], RETENTION, policy, later) == [at(2026, 3, 27)]


@pytest.mark.parametrize("policy", [None, RotationPolicy(last=5)])
def test_rotation_without_a_rule_of_time_gives_no_lock(policy: RotationPolicy | None) -> None:
    with pytest.raises(ConfigError, match="derives its time"):
        locked_until([1000], RETENTION, policy, 1000)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    dates=st.lists(st.integers(0, 400 * 24), min_size=1, max_size=12, unique=True),
    later=st.lists(st.integers(1, 40 * 24), max_size=20, unique=True),
    policy=POLICIES,
)
def test_no_later_backups_make_rotation_drop_what_is_locked(
    dates: list[int], later: list[int], policy: RotationPolicy
) -> None:
    base = at(2025, 1, 1)
    dates = [base + hours * HOUR for hours in dates]
    now = max(dates)
    kept = [each for each, what in zip(dates, decide(dates, policy, now), strict=True) if what.keep]
    ends = dict(zip(kept, locked_until(kept, RETENTION, policy, now), strict=True))
    made = kept
    for moment in sorted(now + hours * HOUR for hours in later):
        made = [*made, moment]
        decisions = dict(zip(made, decide(made, policy, moment), strict=True))
        for each in kept:
            if moment < ends[each] - DAY:
                assert decisions[each].keep, "it is locked, and rotation would drop it"


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(dates=st.lists(st.integers(0, 400 * 24), min_size=1, max_size=30), policy=POLICIES)
def test_lock_of_what_is_kept_never_gets_shorter(dates: list[int], policy: RotationPolicy) -> None:
    base = at(2025, 1, 1)
    made: list[int] = []
    known: dict[int, int] = {}
    for moment in sorted({base + hours * HOUR for hours in dates}):
        made.append(moment)
        made = [
            each for each, what in zip(made, decide(made, policy, moment), strict=True) if what.keep
        ]
        now_known = dict(zip(made, locked_until(made, RETENTION, policy, moment), strict=True))
        for each, until in now_known.items():
            # What is kept only as the newest has no time of its own.
            assert until >= min(known.get(each, 0), moment + DAY)
        known = now_known


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("governance", "must be a mapping"),
        ({"mode": "governance"}, "has no days"),
        ({"days": 3}, "has no mode"),
        ({"mode": "strict", "days": 3}, "has a mode that is not one of"),
        ({"mode": "governance", "days": 0}, "neither a whole number"),
        ({"mode": "governance", "days": True}, "neither a whole number"),
        ({"mode": "governance", "days": "30"}, "neither a whole number"),
        ({"mode": "governance", "days": 3, "until": 4}, "has an unknown key"),
    ],
)
def test_wrong_rules_are_refused(value: object, says: str) -> None:
    problem = object_lock(value)
    assert problem is not None
    assert says in problem.text


@pytest.mark.parametrize("days", [1, 30, "retention"])
def test_right_rules_are_taken(days: object) -> None:
    assert object_lock({"mode": "compliance", "days": days}) is None
    assert object_lock({}) is None


@pytest.mark.parametrize(
    "rules",
    [
        {"minutes": 10**12},
        {"hours": 10**10},
        {"days": 10**8},
        {"weeks": 10**7},
        {"months": 10**6},
        {"years": 1000},
    ],
    ids=str,
)
def test_rotation_that_keeps_all_for_ever_locks_for_a_hundred_years(rules: dict[str, int]) -> None:
    made = at(2026, 3, 1, 3)
    policy = RotationPolicy(**rules)
    assert locked_until([made], RETENTION, policy, made) == [made + MAX_DAYS * DAY]
