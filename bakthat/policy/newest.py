"""Which of several backups is the newest: one rule for all commands.

Everything here is pure: no clock, no disk.
"""

from __future__ import annotations

CLOCK_TOLERANCE = 3600
"""Seconds that a backup may be dated ahead of the clock. Clocks of two hosts differ by seconds, one
that was not set for summer time by an hour, and of backups in one second each later one is dated a
second later."""


def is_in_the_future(date: int, now: float) -> bool:
    """Return whether a backup's date is further ahead than clocks usually differ.

    Such a date shows that a clock is or was wrong. *date* and *now* are in epoch seconds UTC.
    """
    return date > now + CLOCK_TOLERANCE


def newest_key(date: int, now: float) -> tuple[bool, int]:
    """Return the key by which backups are ordered, the greatest for the newest.

    A backup dated in the future is older than every other one. When all are, a clock is slow now,
    and the latest date is the newest.
    """
    return not is_in_the_future(date, now), date
