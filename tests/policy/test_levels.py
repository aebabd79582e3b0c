"""Levels: the parent of an increment, when a full is due, what is needed, and what it all costs."""

from __future__ import annotations

import calendar
import random
from collections.abc import Mapping
from statistics import mean
from typing import NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bakthat.policy.levels import (
    DAY,
    FULL,
    HOUR,
    MAX_ARCHIVES,
    MAX_ARCHIVES_COLD,
    MAX_EARLY,
    MONTH,
    OTHER,
    WEEK,
    Link,
    level_of,
    needed_by,
    parent_of,
    reason_needed,
    why_full_by_age,
    why_full_by_needs,
    why_full_by_share,
)
from bakthat.policy.rotation import RotationPolicy, decide

SECONDS_A_DAY = 86400
EVERY_RULE = RotationPolicy(hours=1, days=1, weeks=1, months=1, years=1)
LEVELS = {"hourly": HOUR, "daily": DAY, "weekly": WEEK, "monthly": MONTH, "yearly": MONTH}


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    return calendar.timegm((year, month, day, hour, minute, second))


# 1 December 2026 is a Tuesday, 5 December a Saturday.
@pytest.mark.parametrize(
    ("date", "previous", "level"),
    [
        (at(2026, 12, 1), at(2026, 11, 30, 23, 59, 59), MONTH),
        (at(2026, 12, 31, 23), at(2026, 11, 30, 23), MONTH),
        (at(2027, 1, 1), at(2026, 12, 31, 23), MONTH),
        (at(2027, 12, 2), at(2026, 12, 1), MONTH),
        (at(2026, 12, 5), at(2026, 12, 4, 23, 59, 59), WEEK),
        (at(2026, 12, 14), at(2026, 12, 11, 23), WEEK),
        (at(2026, 12, 4, 12), at(2026, 12, 3, 12), DAY),
        (at(2026, 12, 4), at(2026, 12, 3, 23, 59, 59), DAY),
        (at(2026, 12, 4, 12), at(2026, 12, 4, 11, 59, 59), HOUR),
        (at(2026, 12, 4, 12, 59, 59), at(2026, 12, 4, 12), OTHER),
        (at(2024, 3, 1), at(2024, 2, 29), MONTH),
        (at(2024, 2, 29), at(2024, 2, 28), DAY),
    ],
)
def test_the_level_is_that_of_the_coarsest_slot_in_which_a_backup_is_the_first(
    date: int, previous: int, level: int
) -> None:
    assert level_of(date, [previous], EVERY_RULE) == level


def test_a_week_begins_on_the_day_of_the_policy() -> None:
    friday, saturday, monday = (at(2026, 12, day) for day in (4, 5, 7))
    for first_week_day, levels in {5: (WEEK, DAY), 0: (DAY, WEEK)}.items():
        policy = RotationPolicy(days=7, weeks=4, first_week_day=first_week_day)
        assert level_of(saturday, [friday], policy) == levels[0]
        assert level_of(monday, [friday, saturday], policy) == levels[1]


@pytest.mark.parametrize(
    ("policy", "level"),
    [
        (RotationPolicy(years=1), MONTH),
        (RotationPolicy(weeks=1), WEEK),
        (RotationPolicy(days=1), DAY),
        (RotationPolicy(hours=1), HOUR),
        (RotationPolicy(minutes=1), OTHER),
        (RotationPolicy(last=1), OTHER),
        (None, MONTH),
    ],
)
def test_a_rule_that_keeps_nothing_gives_no_level(
    policy: RotationPolicy | None, level: int
) -> None:
    assert level_of(at(2027, 1, 1), [], policy) == level


def test_a_month_gives_no_level_where_only_years_are_kept() -> None:
    policy = RotationPolicy(days=1, years=1)
    assert level_of(at(2026, 12, 1), [at(2026, 11, 30)], policy) == DAY
    assert level_of(at(2027, 1, 3), [at(2026, 12, 31)], policy) == MONTH


def test_a_set_without_a_rotation_has_months_and_weeks() -> None:
    assert level_of(at(2026, 12, 1), [at(2026, 11, 30)], None) == MONTH
    assert level_of(at(2026, 12, 5), [at(2026, 12, 4)], None) == WEEK
    assert level_of(at(2026, 12, 7), [at(2026, 12, 5)], None) == OTHER


def test_backups_of_the_same_second_later_and_before_1970_do_not_count() -> None:
    date = at(1970, 1, 1, 3)
    assert level_of(date, [date, date + 1, -1], EVERY_RULE) == MONTH
    assert level_of(date, [date, date + 1, -1, 0], EVERY_RULE) == HOUR
    assert level_of(-1, [], EVERY_RULE) == OTHER


@st.composite
def policies(draw: st.DrawFn) -> RotationPolicy:
    rules = ("last", "minutes", "hours", "days", "weeks", "months", "years")
    counts = {rule: draw(st.integers(0, 3)) for rule in rules}
    assume(any(counts.values()))
    return RotationPolicy(**counts, first_week_day=draw(st.integers(0, 6)))


@st.composite
def histories(draw: st.DrawFn) -> list[int]:
    """Draw dates that fall often into one slot, sometimes at its edge, in any order."""
    start = draw(st.one_of(st.integers(0, 400 * 366 * SECONDS_A_DAY), st.just(at(2026, 1, 1))))
    grain = draw(st.sampled_from([1, 60, 3599, 3600, 43200, 86399, 86400, 7 * 86400, 31 * 86400]))
    dates = [start + step * grain for step in draw(st.lists(st.integers(-9, 30), min_size=1))]
    edge = draw(st.sampled_from([1, 3600, 86400]))
    return [date - date % edge if draw(st.booleans()) else date for date in dates]


@given(histories(), policies())
def test_a_backup_has_the_level_of_the_rules_that_keep_it_when_it_is_made(
    dates: list[int], policy: RotationPolicy
) -> None:
    for date in dates:
        known = [each for each in dates if each <= date]
        reasons = decide(known, policy, max(date, 0))[known.index(date)].reasons
        rules = [LEVELS[reason.split()[0]] for reason in reasons if reason.split()[0] in LEVELS]
        assert level_of(date, dates, policy) == min(rules, default=OTHER)


def chain_of(*levels: int) -> list[Link]:
    return [Link(position, level) for position, level in enumerate(levels)]


@pytest.mark.parametrize(
    ("levels", "level", "most", "parent"),
    [
        ([FULL], OTHER, 16, 0),
        ([FULL], MONTH, 16, 0),
        ([FULL], MONTH, 2, 0),
        ([FULL], MONTH, 1, None),
        ([FULL], MONTH, 0, None),
        ([], MONTH, 16, None),
        ([FULL, MONTH, WEEK, WEEK, DAY, DAY], MONTH, 16, 1),
        ([FULL, MONTH, WEEK, WEEK, DAY, DAY], WEEK, 16, 3),
        ([FULL, MONTH, WEEK, WEEK, DAY, DAY], DAY, 16, 5),
        ([FULL, MONTH, WEEK, WEEK, DAY, DAY], OTHER, 16, 5),
        ([FULL, WEEK, DAY], MONTH, 16, 0),
        # The newest one just fits, or an older one of a lower level has to do.
        ([FULL, MONTH, WEEK, WEEK, DAY, DAY], DAY, 7, 5),
        ([FULL, MONTH, WEEK, WEEK, DAY, DAY], DAY, 6, 3),
        ([FULL, MONTH, WEEK, WEEK, DAY, DAY], DAY, 5, 3),
        ([FULL, MONTH, WEEK, WEEK, DAY, DAY], DAY, 4, 2),
        ([FULL, MONTH, WEEK, WEEK, DAY, DAY], DAY, 3, 1),
        ([FULL, MONTH, WEEK, WEEK, DAY, DAY], DAY, 2, 0),
        ([FULL, MONTH, WEEK, WEEK, DAY, DAY], WEEK, 4, 1),
        ([FULL, *[OTHER] * 15], OTHER, 16, 0),
        ([FULL, *[OTHER] * 14], OTHER, 16, 14),
        # Levels that no backup has.
        ([OTHER], MONTH, 16, 0),
        ([99, 99, 99], OTHER, 16, 0),
        ([FULL, -7, FULL], MONTH, 16, 2),
        ([FULL, *[FULL] * 20], MONTH, 16, 0),
        ([-1, *[-1] * 20], MONTH, 16, 0),
    ],
)
def test_the_parent_is_the_newest_backup_that_is_not_of_a_higher_level(
    levels: list[int], level: int, most: int, parent: int | None
) -> None:
    assert parent_of(chain_of(*levels), level, most) == parent


new_levels = st.integers(MONTH, OTHER)
limits = st.one_of(st.integers(0, 8), st.sampled_from([MAX_ARCHIVES, MAX_ARCHIVES_COLD]))


@given(st.lists(st.integers(-2, 8), max_size=30), new_levels, limits)
def test_whatever_levels_the_storage_has_the_limit_of_archives_holds(
    levels: list[int], level: int, most: int
) -> None:
    parent = parent_of(chain_of(*levels), level, most)
    assert (parent is None) == (not levels or most < 2)
    if parent is not None:
        assert parent + 2 <= most
        believed = [FULL, *(max(each, MONTH) for each in levels[1:])]
        newest = max(n for n, each in enumerate(believed) if each <= level)
        if newest + 2 > most:
            newest = max(n for n in range(most - 1) if believed[n] < believed[newest])
        assert parent == newest


@given(st.lists(new_levels, max_size=80), limits)
def test_no_backup_needs_one_of_a_higher_level(levels: list[int], most: int) -> None:
    chain = chain_of(FULL)
    for date, level in enumerate(levels, 1):
        parent = parent_of(chain, level, most)
        if parent is None:
            assert most < 2
            chain = [Link(date, FULL)]
            continue
        chain = [*chain[: parent + 1], Link(date, level)]
        assert len(chain) <= most
        assert all(needed.level <= level for needed in chain)


@given(st.lists(new_levels, max_size=80))
def test_without_a_limit_the_levels_of_a_chain_never_fall(levels: list[int]) -> None:
    chain = chain_of(FULL)
    for date, level in enumerate(levels, 1):
        parent = parent_of(chain, level, 1000)
        assert parent is not None
        chain = [*chain[: parent + 1], Link(date, level)]
    assert [link.level for link in chain] == sorted(link.level for link in chain)


def test_an_increment_that_is_nearly_as_large_as_a_full_is_made_as_a_full() -> None:
    assert why_full_by_share(599, 1000) == ""
    assert why_full_by_share(600, 1000) == (
        "the increment would have 60 % of the bytes of a full backup"
    )
    assert "71 % of" in why_full_by_share(701, 1000)
    assert "105 % of" in why_full_by_share(1050, 1000)


def test_an_increment_whose_archives_are_more_than_twice_the_data_is_made_as_a_full() -> None:
    assert why_full_by_needs(2000, 1000) == ""
    assert why_full_by_needs(2001, 1000) == (
        "the archives that the increment would need have 201 % of the bytes of a full backup"
    )


def test_where_no_data_is_left_a_full_is_made_unless_there_is_nothing_to_store() -> None:
    assert why_full_by_share(0, 0) == ""
    assert why_full_by_needs(0, 0) == ""
    assert "more than 1000 % of" in why_full_by_share(1, 0)
    assert "more than 1000 % of" in why_full_by_needs(1, 0)


@given(st.integers(0, 10**15), st.integers(0, 10**15))
def test_a_reason_never_gives_a_share_within_the_limit(part: int, whole: int) -> None:
    for reason, limit in (
        (why_full_by_share(part, whole), 59),
        (why_full_by_needs(part, whole), 200),
    ):
        if reason:
            assert int(reason.partition(" %")[0].split()[-1]) > limit


@pytest.mark.parametrize(
    ("age", "full_every", "reason"),
    [
        (30 * SECONDS_A_DAY, 30 * SECONDS_A_DAY, "the last full backup is 30 days old"),
        (30 * SECONDS_A_DAY - MAX_EARLY, 30 * SECONDS_A_DAY, "the last full backup is 30 days old"),
        (30 * SECONDS_A_DAY - MAX_EARLY - 1, 30 * SECONDS_A_DAY, ""),
        (45 * SECONDS_A_DAY, 30 * SECONDS_A_DAY, "the last full backup is 45 days old"),
        (SECONDS_A_DAY, SECONDS_A_DAY, "the last full backup is 24 hours old"),
        (SECONDS_A_DAY - 72 * 60, SECONDS_A_DAY, "the last full backup is 23 hours old"),
        (SECONDS_A_DAY - 72 * 60 - 1, SECONDS_A_DAY, ""),
        (3600, 3600, "the last full backup is 1 hour old"),
        (1, 1, "the last full backup is 0 hours old"),
        (0, 1, ""),
        (-5, 1, ""),
        (10**9, None, ""),
        (10**9, 0, ""),
    ],
)
def test_a_full_is_due_when_full_every_has_nearly_passed(
    age: int, full_every: int | None, reason: str
) -> None:
    assert why_full_by_age(10**9, 10**9 - age, full_every) == reason


@given(
    st.integers(2, 90),
    st.lists(st.integers(0, 3600), min_size=200, max_size=200),
    st.integers(0, 199),
)
def test_daily_runs_at_nearly_the_same_time_make_a_full_on_the_day_it_is_due(
    days: int, late: list[int], summer_time: int
) -> None:
    full_day, full_date = 0, late[0]
    for day, seconds in enumerate(late):
        date = day * SECONDS_A_DAY + seconds + 3600 * (day < summer_time)
        if day and why_full_by_age(date, full_date, days * SECONDS_A_DAY):
            assert day - full_day == days
            full_day, full_date = day, date
        assert day - full_day < days


def test_what_a_kept_backup_needs_is_needed_with_all_that_it_needs_in_turn() -> None:
    needs = {1: [1], 2: [1, 2], 3: [2, 3], 4: [1, 4], 5: [5], 6: [5, 6]}
    assert needed_by([3, 4], needs) == {1: [3, 4], 2: [3]}
    assert needed_by([5], needs) == {}
    assert needed_by([], needs) == {}
    assert needed_by([3, 2, 6, 4], needs) == {1: [2, 3, 4], 5: [6]}


def test_a_kept_backup_without_needs_and_a_needed_one_that_is_missing_are_no_trouble() -> None:
    assert needed_by([7, 8], {8: [2, 8]}) == {2: [8]}


def test_backups_that_need_each_other_and_long_chains_end() -> None:
    assert needed_by([3], {3: [2], 2: [1], 1: [2, 3]}) == {1: [3], 2: [3]}
    length = 50_000
    chain = {date: [date - 1] for date in range(1, length)}
    assert list(needed_by([length - 1], chain)) == list(range(length - 1))


dates = st.integers(0, 12)


@given(st.sets(dates), st.dictionaries(dates, st.lists(dates, max_size=4)))
def test_everything_that_is_kept_has_all_that_it_needs_and_no_more_is_kept(
    kept: set[int], needs: dict[int, list[int]]
) -> None:
    found = needed_by(kept, needs)
    stay = kept | set(found)
    assert kept.isdisjoint(found)
    assert all(set(needs.get(date, ())) <= stay for date in stay)
    for date, dependents in found.items():
        assert dependents
        assert dependents == [each for each in sorted(kept) if date in needed_by([each], needs)]


def test_the_reason_names_the_newest_backup_that_needs_another_one() -> None:
    names = [f"mydir.2026120{day}030000.inc.tgz" for day in range(1, 6)]
    assert reason_needed(names) == f"needed by {names[4]} and 4 more"
    assert reason_needed(names[:2]) == f"needed by {names[1]} and 1 more"
    assert reason_needed(names[:1]) == f"needed by {names[0]}"


# The simulation that the rules were chosen by: what a year of daily backups stores.

FILES = 1000
HOT_FILES = 100
CHANGED_A_DAY, HOT_CHANGED_A_DAY = 10, 8
POLICY = RotationPolicy(days=7, weeks=4, months=6)


class Backup(NamedTuple):
    level: int
    needs: list[int]
    stored: dict[int, int]
    """The files in the archive, by number, each with the day when it was written."""
    state: list[int]
    """The same for all files."""


class Day(NamedTuple):
    stored: float
    """What all archives have, in times the data."""
    most_needs: int
    newest_needs: int
    only_needed: int


def simulated(start: int, days: int, seed: int) -> list[Day]:
    """Back up equal files once a day, and rotate after each backup."""
    changes = random.Random(seed)
    files = [0] * FILES
    backups: dict[int, Backup] = {}
    course = []
    for date in range(start, start + days * SECONDS_A_DAY, SECONDS_A_DAY):
        changed = changes.sample(range(HOT_FILES), HOT_CHANGED_A_DAY)
        changed += changes.sample(range(HOT_FILES, FILES), CHANGED_A_DAY - HOT_CHANGED_A_DAY)
        for number in changed:
            files[number] = date
        backups[date] = made(date, files.copy(), backups)
        decisions = zip(backups, decide([*backups], POLICY, date), strict=True)
        kept = {each for each, decision in decisions if decision.keep}
        needed = needed_by(kept, {each: backup.needs for each, backup in backups.items()})
        backups = {each: backups[each] for each in sorted({*kept, *needed})}
        course.append(
            Day(
                sum(len(backup.stored) for backup in backups.values()) / FILES,
                max(len(backup.needs) for backup in backups.values()),
                len(backups[date].needs),
                len(needed),
            )
        )
    assert all(restored(backup, backups) == backup.state for backup in backups.values())
    return course


def made(date: int, files: list[int], backups: Mapping[int, Backup]) -> Backup:
    """Make an increment or, where a rule says so, a full."""
    full = Backup(FULL, [date], dict(enumerate(files)), files)
    if not backups:
        return full
    needs = backups[max(backups)].needs
    level = level_of(date, backups, POLICY)
    chain = [Link(each, backups[each].level) for each in needs]
    position = parent_of(chain, level, MAX_ARCHIVES)
    assert position is not None
    parent = backups[needs[position]].state
    stored = {number: day for number, day in enumerate(files) if day != parent[number]}
    needs = needs[: position + 1]
    needed = len(stored) + sum(len(backups[each].stored) for each in needs)
    if why_full_by_share(len(stored), FILES) or why_full_by_needs(needed, FILES):
        return full
    return Backup(level, [*needs, date], stored, files)


def restored(backup: Backup, backups: Mapping[int, Backup]) -> list[int]:
    overlay: dict[int, int] = {}
    for each in backup.needs:
        overlay.update(backups[each].stored)
    return [overlay[number] for number in range(FILES)]


@pytest.mark.parametrize(
    "start", [at(2026, 1, 1, 3), at(2026, 9, 13, 3), at(2027, 10, 31, 3)], ids=("1", "2", "3")
)
def test_a_year_of_daily_increments_stores_little_and_needs_few_archives(start: int) -> None:
    course = simulated(start, days=400, seed=1)
    assert max(day.most_needs for day in course) <= MAX_ARCHIVES == 16
    late = course[200:]
    assert mean(day.stored for day in late) <= 3.6
    assert mean(day.newest_needs for day in late) <= 10
    assert mean(day.only_needed for day in late) <= 10
