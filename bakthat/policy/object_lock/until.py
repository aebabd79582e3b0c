"""Until when the backups of one set are locked.

A lock is a promise that cannot be taken back, so it ends at the earliest moment at which the
rotation could stop to keep the backup, plus a day. A rule keeps the oldest backup of each of its
latest slots; the backup at position 3 of 7 stays until five later slots have one, and the first of
these slots can begin no earlier than now. So each rotation computes it again: days without a backup
make it later, and so does a rotation that keeps more, or a backup that a coarser rule has taken
over. It never ends earlier than before.

Everything here is pure: no clock, no disk, no local time zone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from bakthat.errors import ConfigError
from bakthat.policy.object_lock.rule import MAX_DAYS, LockRule
from bakthat.policy.rotation import RotationPolicy, positions

DAY = 86400
"""Seconds."""
_LAST_YEAR = 9999
_SLOT_SECONDS = {"minutes": 60, "hours": 3600, "days": DAY, "weeks": 7 * DAY}
_MONTHS = {"months": 1, "years": 12}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_WEEK_DAY = _EPOCH.weekday()


def locked_until(
    dates: Sequence[int], rule: LockRule, policy: RotationPolicy | None, now: int
) -> list[int]:
    """Return until when the backup of each date is to be locked, in epoch seconds UTC.

    *dates* are those of all backups of the set that are stored, in any order; they and *now* are in
    epoch seconds UTC. *policy* is the rotation of the set. A backup that no rule of time keeps,
    such as a second one of a day, is to be locked for a day from now, since a backup can be the
    newest for that long. A rotation that keeps backups for longer locks them for a hundred years
    from now. Raises ConfigError when *rule* derives the time from a rotation that has no rule of
    time.
    """
    if rule.days is not None:
        return [date + rule.days * DAY for date in dates]
    check_derivable(rule, policy)
    assert policy is not None
    end = dict.fromkeys(dates, now)
    for name, kept in positions(dates, policy, now).items():
        count = getattr(policy, name)
        newest = max(kept, default=0)
        for date, position in kept.items():
            last = _start_of_slot(name, newest, now, count - position + 1, policy.first_week_day)
            end[date] = max(end[date], last)
    return [min(end[date] + DAY, now + MAX_DAYS * DAY) for date in dates]


def check_derivable(rule: LockRule, policy: RotationPolicy | None) -> None:
    """Raise ConfigError when *rule* derives the time from a rotation that has no rule of time."""
    if rule.days is None and (policy is None or not policy.longest_days):
        lacks = "no rotation" if policy is None else f"a rotation, {policy}, without a rule of time"
        raise ConfigError(
            f"'object_lock' derives its time from the rotation, and there is {lacks}",
            hint="add a rule such as days: 7 to rotation, or write a number of days in object_lock",
        )


def _start_of_slot(name: str, newest: int, now: int, count: int, first_week_day: int) -> int:
    """Return when the *count*-th slot from now on that *newest* is not in begins, at the earliest.

    It is *now* when the first one has begun already, and only one is asked for.
    """
    if name in _MONTHS:
        months = _MONTHS[name]
        latest, current = (_month(each) // months for each in (newest, now))
        return max(now, _start_of_month(max(latest + count, current + count - 1) * months))
    length = _SLOT_SECONDS[name]
    offset = (_EPOCH_WEEK_DAY - first_week_day) % 7 * DAY if name == "weeks" else 0
    latest, current = ((each + offset) // length for each in (newest, now))
    return max(now, max(latest + count, current + count - 1) * length - offset)


def _month(date: int) -> int:
    """Return the number of the month of *date*, counted from the year 0."""
    moment = _EPOCH + timedelta(seconds=date)
    return moment.year * 12 + moment.month - 1


def _start_of_month(number: int) -> int:
    year, month = divmod(number, 12)
    moment = datetime(min(year, _LAST_YEAR), month + 1, 1, tzinfo=UTC)
    return int((moment - _EPOCH).total_seconds())
