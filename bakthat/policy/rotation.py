"""Which backups of one set a rotation keeps: grandfather, father, son.

A rule such as ``days: 7`` divides time into slots, here the calendar days of UTC, and keeps the
*oldest* backup of each of the 7 latest slots that have one. The library GrandFatherSon
(https://github.com/ecometrica/grandfatherson) divides the slots and selects their oldest backup.
With the oldest, a daily rotation works: the first backup of a week or a month is known when it is
made, and still exists when the rule of days no longer keeps it. The latest backup of a week changes
with each new backup, so a month could end up with none.

Where this module differs from the library, it keeps more:

- The library counts its slots back from now, with or without a backup in them. When backups fail
  for some weeks, or a clock runs ahead, it deletes nearly everything. Here, only slots with a
  backup count, so time alone deletes nothing: only newer backups replace older ones.
- The newest backup is always kept. The second backup of a day, which no rule keeps, stays at least
  until the next one is made.
- The backup that was recorded last is always kept. It is not the newest only when a clock was wrong
  or the catalog was rebuilt. The order of the catalog decides this, not the dates.
- A backup from the future shows that a clock is or was wrong. It is kept, as in the library, but
  has no slot and is not the newest, so no other backup is deleted because of it. A backup is from
  the future when it is further ahead than clocks usually differ (:mod:`bakthat.policy.newest`).

The consequences are tested: a larger policy keeps a superset, a second rotation deletes nothing,
and a rotation after every backup leaves the same as one rotation at the end.
Everything here is pure: no clock, no disk, no local time zone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, Self, TypedDict, Unpack

from grandfatherson import filters  # type: ignore[import-untyped]  # ships no type hints

from bakthat.errors import ConfigError, UsageError
from bakthat.policy.newest import is_in_the_future
from bakthat.policy.week_days import SATURDAY, WEEK_DAYS
from bakthat.system.text import did_you_mean

IN_THE_FUTURE = "in the future"
BEFORE_1970 = "dated before 1970"
NEWEST = "newest"
NEWEST_OF_SOURCE = "newest of its source"
NEWEST_OF_USUAL_SIZE = "newest of a usual size"
RECORDED_LAST = "recorded last"
ON_HOLD = "on hold"
RUNNING = "needed by a running backup"
NOT_NEEDED = "not needed by any rule"
OLDER = "older"
NOT_OLDER = "not older"

_EPOCH = datetime(1970, 1, 1)

_LONGEST_DAYS = {
    "minutes": 1 / 1440,
    "hours": 1 / 24,
    "days": 1,
    "weeks": 7,
    "months": 31,
    "years": 366,
}

# Field of the policy, word in messages, the library's slots, shortest such slot in seconds.
# From fine to coarse, which is the order of the reasons.
_RULES = (
    ("minutes", "minutely", filters.Minutes, 60),
    ("hours", "hourly", filters.Hours, 3600),
    ("days", "daily", filters.Days, 86400),
    ("weeks", "weekly", filters.Weeks, 7 * 86400),
    ("months", "monthly", filters.Months, 28 * 86400),
    ("years", "yearly", filters.Years, 365 * 86400),
)


class RotationKeywords(TypedDict, total=False):
    """The fields of :class:`RotationPolicy`, as keywords; None for one that is not given."""

    last: int | None
    minutes: int | None
    hours: int | None
    days: int | None
    weeks: int | None
    months: int | None
    years: int | None
    first_week_day: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationPolicy:
    """How many backups each rule keeps; 0 switches a rule off.

    Raises UsageError for a value of a wrong type or out of range, and when every rule is off: a
    policy that keeps nothing is a mistake.
    """

    last: int = 0
    """The latest backups, whatever their dates; those of one second count as one."""
    minutes: int = 0
    hours: int = 0
    days: int = 0
    weeks: int = 0
    months: int = 0
    years: int = 0
    first_week_day: int = SATURDAY
    """The day on which a week begins, 0 Monday to 6 Sunday as in Python's ``calendar``; Saturday
    unless given, as in bakthat 0.6.0."""

    def __post_init__(self) -> None:
        rules = [field.name for field in fields(self) if field.name != "first_week_day"]
        for name in rules:
            value = getattr(self, name)
            if not _is_whole(value) or value < 0:
                raise UsageError(
                    f"'{name}' is {value!r}, not a whole number from 0 on",
                    hint=f"give the number of backups to keep, such as {name}: 7",
                )
        if not _is_whole(self.first_week_day) or not 0 <= self.first_week_day <= 6:
            raise UsageError(
                f"'first_week_day' is {self.first_week_day!r}, not a whole number from 0 to 6",
                hint="write 0 for Monday, 5 for Saturday, 6 for Sunday",
            )
        if not any(getattr(self, name) for name in rules):
            raise UsageError(
                "a rotation that keeps nothing is refused",
                hint=f"set at least one of {', '.join(rules)} to 1 or more, such as days: 7",
            )

    def __str__(self) -> str:
        counts = [(getattr(self, name), word) for name, word, *_ in _RULES]
        weeks_from = f" (weeks from {WEEK_DAYS[self.first_week_day]})"
        kept = [f"the last {self.last}"] * (self.last > 0) + [
            f"{count} {word}{weeks_from if word == 'weekly' else ''}"
            for count, word in counts
            if count
        ]
        return ", ".join(kept)

    @property
    def longest_days(self) -> int:
        """For how many days a backup is kept at most, where one is made in each slot.

        A rule for the latest backups does not count: it depends on how often they are made.
        """
        days: float = max(getattr(self, name) * days for name, days in _LONGEST_DAYS.items())
        return math.ceil(days)

    @classmethod
    def choose(cls, configured: Mapping[str, Any], **given: Unpack[RotationKeywords]) -> Self:
        """Return the policy of the *given* rules or, when none is given, of the *configured* ones.

        *configured* is ``rotation`` of the profile. A first_week_day that is not given is taken
        from it in both cases. Raises UsageError for what is given, and ConfigError for what is
        configured, or when there is no rule at all.
        """
        rules: dict[str, Any] = {name: each for name, each in given.items() if each is not None}
        first_week_day = rules.pop("first_week_day", None)
        if rules:
            policy = cls(**rules)
            if first_week_day is None and configured.get("first_week_day") is not None:
                wanted = {"last": 1, "first_week_day": configured["first_week_day"]}
                first_week_day = cls.from_mapping(wanted).first_week_day
        elif configured:
            policy = cls.from_mapping(configured)
        else:
            raise ConfigError(
                "no rotation is configured",
                hint="run bakthat configure_backups_rotation, or say what to keep, such as "
                "--days 7 --weeks 4 --months 6 (days=7 and so on in Python)",
            )
        return policy if first_week_day is None else replace(policy, first_week_day=first_week_day)

    @classmethod
    def from_mapping(cls, mapping: object) -> Self:
        """Return the policy of ``rotation`` in a profile, whose keys are the names of the fields.

        Raises ConfigError, which names the key, unless *mapping* is a mapping with known keys and
        valid values.
        """
        if not isinstance(mapping, Mapping):
            raise ConfigError(
                f"'rotation' is {mapping!r}, not a mapping of rules to numbers",
                hint="write it as rotation: {days: 7, weeks: 4, months: 6}",
            )
        known = [field.name for field in fields(cls)]
        for key in mapping:
            if key not in known:
                guess = did_you_mean(str(key), known)
                raise ConfigError(
                    f"'rotation' has the unknown key {key!r}",
                    hint=f"{guess} the keys are {', '.join(known)}".strip(),
                )
        try:
            return cls(**mapping)
        except UsageError as exc:
            raise ConfigError(f"'rotation': {exc}", hint=exc.hint) from exc


def _is_whole(value: object) -> bool:
    # True and False are integers in Python; in a policy they are a mistake.
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether one backup is kept, and why."""

    keep: bool
    reasons: tuple[str, ...]
    """For messages; at least one. "newest", "last 2 of 5", "daily 3 of 7" (1 is the latest),
    "in the future", "recorded last", "newest of its source", "on hold", "not older", "needed by a
    running backup" and "needed by X and 4 more" (:mod:`bakthat.policy.levels`) keep a backup; one
    that is not kept has only "not needed by any rule" or "older"."""


_NOT_KEPT = Decision(False, (NOT_NEEDED,))


def decide(dates: Sequence[int], policy: RotationPolicy, now: int) -> list[Decision]:
    """Decide which backups of one set are kept; return a decision for each date, in their order.

    *dates* are those of all backups of the set, in any order. They and *now* are in epoch seconds
    UTC; *now* is before the year 10000. Backups of the same second share one decision. A backup
    with a wrong date, before 1970 or in the future, is kept and counts for no rule.
    """
    reasons: defaultdict[int, list[str]] = defaultdict(list)
    for date in set(dates):
        if is_in_the_future(date, now):
            reasons[date].append(IN_THE_FUTURE)
        elif date < 0:
            reasons[date].append(BEFORE_1970)
    latest_first = _latest_first(dates, now)
    for date in latest_first[:1]:
        reasons[date].append(NEWEST)
    for position, date in enumerate(latest_first[: policy.last], 1):
        reasons[date].append(f"last {position} of {policy.last}")
    words = {name: word for name, word, *_ in _RULES}
    for name, kept in positions(dates, policy, now).items():
        for date, position in kept.items():
            reasons[date].append(f"{words[name]} {position} of {getattr(policy, name)}")
    decisions = {date: Decision(True, tuple(why)) for date, why in reasons.items()}
    return [decisions.get(date, _NOT_KEPT) for date in dates]


def positions(dates: Sequence[int], policy: RotationPolicy, now: int) -> dict[str, dict[int, int]]:
    """Return, by each rule of time that is not off, the dates that it keeps with their positions.

    Position 1 is the latest. The arguments are those of :func:`decide`; the rules are ordered from
    fine to coarse.
    """
    moments = {_EPOCH + timedelta(seconds=date): date for date in _latest_first(dates, now)}
    candidates: Collection[datetime] = moments
    found: dict[str, dict[int, int]] = {}
    for name, _, slots, shortest in _RULES:
        count = getattr(policy, name)
        if not count:
            continue
        oldest = _oldest_of_each(slots, shortest, candidates, policy.first_week_day, now)
        found[name] = {
            moments[moment]: position for position, moment in enumerate(oldest[:count], 1)
        }
        if slots is not filters.Weeks:
            # The oldest of a month is also the oldest of its day, hour and minute, so the coarser
            # rules need only these. A week may be in two months.
            candidates = oldest
    return found


def _latest_first(dates: Sequence[int], now: int) -> list[int]:
    """Return the dates that are not wrong, each once."""
    right = (date for date in set(dates) if date >= 0 and not is_in_the_future(date, now))
    return sorted(right, reverse=True)


def keep_also(decisions: Sequence[Decision], position: int, reason: str) -> list[Decision]:
    """Return *decisions*, changed so that the backup at *position* is kept, if need be by *reason*.

    RECORDED_LAST: after a clock was set back, a new backup has an old date and is not the newest by
    its date. NEWEST_OF_SOURCE: a backup that does not say what its source is may be of another one
    than those that do. NEWEST_OF_USUAL_SIZE: newer ones may be of a dump that failed. ON_HOLD: it
    was put on hold.
    """
    return [
        Decision(True, (reason,)) if index == position and not decision.keep else decision
        for index, decision in enumerate(decisions)
    ]


def decide_by_age(dates: Sequence[int], seconds: int, now: int) -> list[Decision]:
    """Decide which backups of one set are kept: not those dated before *now* minus *seconds*.

    As in :func:`decide`, the newest one is kept however old it is, and so is one with a wrong date.
    *dates* and *now* are in epoch seconds UTC; returns a decision for each date.
    """
    newest = max(
        (date for date in dates if date >= 0 and not is_in_the_future(date, now)), default=None
    )

    def decision(date: int) -> Decision:
        if is_in_the_future(date, now):
            return Decision(True, (IN_THE_FUTURE,))
        if date < 0:
            return Decision(True, (BEFORE_1970,))
        reasons = (NEWEST,) * (date == newest) + (NOT_OLDER,) * (date >= now - seconds)
        return Decision(bool(reasons), reasons or (OLDER,))

    return [decision(date) for date in dates]


def _oldest_of_each(
    slots: type[filters.Filter],
    shortest: int,
    moments: Collection[datetime],
    first_week_day: int,
    now: int,
) -> list[datetime]:
    """Return the oldest moment of each slot that has one, latest slot first."""
    # The library keeps what is later than its now. A clock may differ a little from that of the
    # host that made a backup.
    latest = max([*moments, _EPOCH + timedelta(seconds=now)])
    # Enough slots to reach from there to before 1970, so that the library leaves no date out.
    oldest: set[datetime] = slots.filter(
        moments,
        number=int((latest - _EPOCH).total_seconds()) // shortest + 2,
        now=latest,
        firstweekday=first_week_day,
    )
    return sorted(oldest, reverse=True)
