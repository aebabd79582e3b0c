"""Which earlier backup an increment is made from, when a full is due, and what is still needed.

The level of a backup is read off the rotation when the backup is made: a backup that a coarser rule
keeps has a lower level. An increment of one level is made from a backup of the same or a lower one,
so nothing that stays for months depends on a daily backup that rotation deletes after some days.
What lies in the archives that are passed over is stored once more. Levels decide what is stored and
how many archives a restore reads, and never whether it is correct: each increment is the difference
from the state of the one backup that it names.

Everything here is pure: no clock, no disk, no local time zone.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from bakthat.policy.rotation import RotationPolicy
from bakthat.system.text import counted

FULL, MONTH, WEEK, DAY, HOUR, OTHER = range(6)
"""The levels: a full; the first backup of its month (or year), week, day or hour; all others."""

MAX_ARCHIVES = 16
"""The most archives that a backup needs, itself included."""
MAX_ARCHIVES_COLD = 12
"""The same in cold storage classes, where a restore has each of them thawed."""

MAX_SHARE = 60
"""Percent of a full's bytes from which on a full is made instead of the increment."""
MAX_NEEDED_SHARE = 200
"""Percent of a full's bytes that all archives that an increment needs may have together."""

MAX_EARLY = 6 * 3600
"""Seconds that a full may be made before ``full_every`` has passed. Daily runs differ by seconds,
by an hour where summer time begins, and by more with a timer that spreads them; without this, such
a full would be made a day late. It is less than half of the time between daily runs."""
EARLY_PART = 20
"""The part of ``full_every`` that a full may be early at most, as its divisor: a full every day is
made 72 minutes early, not six hours."""

_HOUR_SECONDS, _DAY_SECONDS = 3600, 86400
_NO_ROTATION = RotationPolicy(months=1, weeks=1)
_MOST_SHOWN = 1000


def level_of(date: int, dates: Iterable[int], policy: RotationPolicy | None) -> int:
    """Return the level of a new backup among the earlier ones of its set: MONTH to OTHER.

    *date* is that of the new backup and *dates* are those of the known ones, in any order, all in
    epoch seconds UTC. Dates from *date* on and before 1970 do not count. *policy* is the rotation
    of the set: rules that keep nothing give no level, and ``last`` and ``minutes`` have none. None
    for a set without a rotation, which has months and weeks.

    A backup has a level exactly when :func:`bakthat.policy.rotation.decide` gives the rule of that
    level as a reason to keep it at the time it is made.
    """
    previous = max((each for each in dates if 0 <= each < date), default=None)
    for level, start in _slots(date, policy or _NO_ROTATION):
        if previous is None or previous < start:
            return level
    return OTHER


def _slots(date: int, policy: RotationPolicy) -> Iterator[tuple[int, int]]:
    """Yield each level that *policy* has, and the epoch second when its slot of *date* begins."""
    if date < 0:  # has no slot in rotation either
        return
    moment = time.gmtime(date)
    midnight = date - date % _DAY_SECONDS
    if policy.months:  # the first of a year is also the first of its month
        yield MONTH, midnight - (moment.tm_mday - 1) * _DAY_SECONDS
    elif policy.years:
        yield MONTH, midnight - (moment.tm_yday - 1) * _DAY_SECONDS
    if policy.weeks:
        yield WEEK, midnight - (moment.tm_wday - policy.first_week_day) % 7 * _DAY_SECONDS
    if policy.days:
        yield DAY, midnight
    if policy.hours:
        yield HOUR, date - date % _HOUR_SECONDS


class Link(NamedTuple):
    """One backup of a chain, which is what a backup needs, oldest first, with itself at the end."""

    date: int
    """In epoch seconds UTC."""
    level: int
    """FULL to OTHER as the storage has it, so it may be any number."""


def parent_of(chain: Sequence[Link], level: int, max_archives: int) -> int | None:
    """Return the position in *chain* of the backup that a new increment is made from.

    *chain* is that of the newest backup, *level* is MONTH to OTHER, and the new backup will need
    the chain up to its parent and itself: the position and 2 archives. The parent is the newest
    backup whose level is not above the new one's. Where that needs more than *max_archives*, the
    parent is the newest backup of a lower level than that one for which the number suffices.
    Returns None when there is none, so that a full must be made: *chain* is empty, or
    *max_archives* is less than 2.
    """
    levels = [_sane_level(position, link.level) for position, link in enumerate(chain)]
    newest_first = range(len(chain) - 1, -1, -1)
    parent = next((each for each in newest_first if levels[each] <= level), None)
    if parent is None or parent + 2 <= max_archives:
        return parent
    fitting = range(min(parent, max_archives - 1) - 1, -1, -1)
    return next((each for each in fitting if levels[each] < levels[parent]), None)


def _sane_level(position: int, level: int) -> int:
    """Return the level of the backup at *position* of a chain, whatever the storage says it is.

    The first backup needs only itself, so it is a full, and no other one is.
    """
    return FULL if position == 0 else max(level, MONTH)


def why_full_by_share(new_bytes: int, full_bytes: int) -> str:
    """Return why a full is made instead of an increment that is nearly as large, or "".

    *new_bytes* are the bytes of tar that the increment would have, and *full_bytes* those that a
    full would have now. The reason is a phrase for the log.
    """
    if not new_bytes or new_bytes * 100 < full_bytes * MAX_SHARE:
        return ""
    return f"the increment would have {_share(new_bytes, full_bytes)} the bytes of a full backup"


def why_full_by_needs(needed_bytes: int, living_bytes: int) -> str:
    """Return why a full is made instead of an increment that needs too many bytes, or "".

    *needed_bytes* are those of all archives that the increment would need, itself included, and
    *living_bytes* those of a full made now; both of tar, or both as stored. The reason is a phrase
    for the log.
    """
    if needed_bytes * 100 <= living_bytes * MAX_NEEDED_SHARE:
        return ""
    share = _share(needed_bytes, living_bytes)
    return f"the archives that the increment would need have {share} the bytes of a full backup"


def why_full_by_age(date: int, full_date: int, full_every: int | None) -> str:
    """Return why a full is due at *date* by the ``full_every`` of the profile, or "".

    *full_date* is the date of the full that an increment would need; both are in epoch seconds
    UTC. *full_every* is in seconds; None or 0 for never. A full is due a little before that time
    has passed, by MAX_EARLY and EARLY_PART, so that it is made by the run that is meant and not by
    the next one. The reason is a phrase for the log.
    """
    age = date - full_date
    if not full_every or age < full_every - min(MAX_EARLY, full_every // EARLY_PART):
        return ""
    return f"the last full backup is {_rounded_age(age)} old"


def _share(part: int, whole: int) -> str:
    """Return *part* in percent of *whole*, ``71 % of``, rounded up so that it is not the limit."""
    if part * 100 > whole * _MOST_SHOWN:  # also where there is no whole
        return f"more than {_MOST_SHOWN} % of"
    return f"{-(-part * 100 // whole)} % of"


def _rounded_age(seconds: int) -> str:
    unit, noun = (_HOUR_SECONDS, "hour") if seconds < 2 * _DAY_SECONDS else (_DAY_SECONDS, "day")
    return counted((seconds + unit // 2) // unit, noun)


def needed_by(kept: Collection[int], needs: Mapping[int, Collection[int]]) -> dict[int, list[int]]:
    """Return the backups that are not kept but needed by kept ones, each with those, oldest first.

    All are dates of one set in epoch seconds UTC: *kept* of the backups that rotation or expiry
    keeps, and *needs* has for a backup those that it needs. What these need is needed as well,
    whether *needs* has it or not. A date for which there is no backup is returned too.
    """
    keep = set(kept)
    found: defaultdict[int, list[int]] = defaultdict(list)
    for date in sorted(keep):
        for each in _reached_from(date, needs) - keep:
            found[each].append(date)
    return dict(sorted(found.items()))


def _reached_from(date: int, needs: Mapping[int, Collection[int]]) -> set[int]:
    reached = {date}
    pending = [date]  # not a recursion: the storage decides how deep it would be
    while pending:
        new = set(needs.get(pending.pop(), ())) - reached
        reached |= new
        pending += new
    return reached


def reason_needed(names: Sequence[str]) -> str:
    """Return why a backup is kept that the backups *names* need: ``needed by X and 4 more``.

    *names* are at least one, oldest first, as :func:`needed_by` returns their dates; X is the
    newest of them.
    """
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"needed by {names[-1]}{more}"
