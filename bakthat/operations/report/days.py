"""What happened to a set on each day of a period. Everything here is pure."""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from bakthat.operations.report.facts import BackupFacts, Period, SetFacts

DayOf = Callable[[float], date]
"""Returns the day of epoch seconds, in the zone of the report."""

MOST_DAYS = 3 * 366
"""The most days that a calendar has, the last ones: ten years of many sets are no page."""

_LONGEST_DAY = 25 * 3600


class DayState(enum.StrEnum):
    """What is shown of a day; the first that fits."""

    FAILED = "failed check or drill"
    MISSED = "missed"
    INCOMPLETE = "incomplete"
    GOOD = "backed up"
    NONE = "no backup"


@dataclass(frozen=True, slots=True)
class Day:
    """A day, what happened on it, and how many backups were made."""

    day: date
    state: DayState
    count: int


def days_of(found: SetFacts, period: Period, day_of: DayOf) -> list[Day]:
    """Return the days of a period in their order, at most the last :data:`MOST_DAYS`.

    A day counts as missed when a backup became overdue on it, and when it was overdue all day.
    """
    last = day_of(period.end)
    first = max(day_of(period.begin), last - timedelta(MOST_DAYS - 1))
    made: defaultdict[date, list[BackupFacts]] = defaultdict(list)
    for each in found.known:
        # The first day is shown whole, though the period begins within it.
        if period.begin - _LONGEST_DAY <= each.date <= period.last:
            made[min(day_of(each.date), last)].append(each)
    failed = {day_of(check.date) for _, check in found.checked if not check.verdict.is_good}
    failed |= {day_of(drill.date) for _, drill in found.drilled if not drill.passed}
    missed = _missed(found, period, day_of, first, set(made))
    days = []
    for number in range((last - first).days + 1):
        day = first + timedelta(number)
        state = DayState.NONE
        if day in failed:
            state = DayState.FAILED
        elif day in missed:
            state = DayState.MISSED
        elif day in made:
            is_whole = not any(each.is_incomplete or each.is_suspicious for each in made[day])
            state = DayState.GOOD if is_whole else DayState.INCOMPLETE
        days.append(Day(day, state, len(made[day]) if day in made else 0))
    return days


def _missed(
    found: SetFacts, period: Period, day_of: DayOf, first: date, made: set[date]
) -> set[date]:
    missed = set()
    for gap in found.missed:
        begin = day_of(gap.overdue)
        end = day_of(period.end if gap.end is None else min(gap.end, period.end))
        overdue = set(_range(max(begin, first), end))
        missed |= (overdue - made) | (overdue & {begin})
    return missed


def _range(first: date, last: date) -> Iterator[date]:
    for number in range((last - first).days + 1):
        yield first + timedelta(number)
