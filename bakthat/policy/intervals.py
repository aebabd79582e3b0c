"""Intervals such as ``3M2D8h20m5s``: parse them, and describe them in words.

The units are those of bakthat 0.6.0: ``s`` seconds, ``m`` minutes, ``h`` hours, ``D`` days, ``W``
weeks, ``M`` months of 30 days, ``Y`` years of 365 days. ``1m`` and ``1M`` differ by a factor of
43,200, so an interval is shown in words before backups are deleted by it.
Everything here is pure: no clock, no disk.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from bakthat.errors import UsageError
from bakthat.system.text import printable

UNITS = {
    "s": 1,
    "m": 60,
    "h": 3600,
    "D": 86400,
    "W": 7 * 86400,
    "M": 30 * 86400,
    "Y": 365 * 86400,
}
"""Seconds of each unit."""

LONGEST = 1000 * UNITS["Y"]
"""The longest interval in seconds: no backup is older, and Python can represent the date."""

GRAMMAR = (
    "write whole numbers with units and nothing between, such as 3M2D8h20m5s: s seconds, "
    "m minutes, h hours, D days, W weeks, M months (30 days), Y years (365 days); "
    "upper and lower case differ"
)
"""The syntax of an interval, for hints and help texts."""

_MAX_CHARACTERS = 100
_PART = re.compile(r"([0-9]+)([smhDWMY])")
_EPOCH = datetime(1970, 1, 1)
_DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[ T][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?(?:Z|[+-][0-9]{2}:[0-9]{2})?)?"
)
_SINCE_HINT = (
    "write a date in UTC such as 2013-06-04 or '2013-06-04 19:10', or an age such as 3D, 12h or 2W"
)


def parse_interval(text: str) -> int:
    """Return the seconds of the interval *text*, such as ``3M2D8h20m5s``; always more than 0.

    The units may be in any order, each once. Raises UsageError for everything else: an empty text,
    zero, a unit twice, signs, spaces, digits other than 0 to 9, more than 1,000 years.
    """
    if not text:
        raise UsageError("the interval is empty", hint=GRAMMAR)
    if len(text) > _MAX_CHARACTERS:
        raise UsageError(f"the interval is too long ({len(text)} characters)", hint=GRAMMAR)
    seconds = 0
    seen: set[str] = set()
    position = 0
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            raise UsageError(f"interval {text!r}: {_syntax_problem(text[position:])}", hint=GRAMMAR)
        number, unit = part.groups()
        if unit in seen:
            raise UsageError(f"interval {text!r} has the unit {unit!r} twice", hint=GRAMMAR)
        seen.add(unit)
        seconds += int(number) * UNITS[unit]
        position = part.end()
    if not seconds:
        raise UsageError(
            f"interval {text!r} is zero, which would select every backup", hint=GRAMMAR
        )
    if seconds > LONGEST:
        raise UsageError(f"interval {text!r} is longer than 1000 years", hint=GRAMMAR)
    return seconds


def _syntax_problem(rest: str) -> str:
    """Return why *rest* does not begin with a number and a unit."""
    number = re.match("[0-9]+", rest)
    if number is None:
        return f"{'no number before' if rest[0] in UNITS else 'unexpected'} {rest[0]!r}"
    if number.end() == len(rest):
        return f"no unit after {rest}"
    return f"unknown unit {rest[number.end()]!r}"


def parse_since(since: str | float, now: float) -> float:
    """Return epoch seconds: those of a date, or of an interval before *now*.

    A date is in UTC, unless it names another zone, as in ``2013-06-04T19:10+02:00``. Raises
    UsageError.
    """
    if not isinstance(since, str):
        return float(since)
    if _DATE.fullmatch(since) is None:
        try:
            return now - parse_interval(since)
        except UsageError as exc:
            raise UsageError(
                f"'{printable(since)}' is neither a date nor an interval", hint=_SINCE_HINT
            ) from exc
    try:
        moment = datetime.fromisoformat(since)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except ValueError as exc:
        raise UsageError(f"there is no date '{since}'", hint=_SINCE_HINT) from exc


def describe_interval(seconds: int, now: int) -> str:
    """Describe which backups an interval selects: those dated before *now* minus *seconds*.

    *now* is in epoch seconds UTC. Returns text such as
    ``older than 92 days 8:20:05, before 2026-08-23 12:00:00 UTC``.
    """
    length = timedelta(seconds=seconds)
    days = f"{length.days} day" if length.days == 1 else f"{length.days} days"
    before = _EPOCH + timedelta(seconds=now - seconds)
    return f"older than {days} {timedelta(seconds=length.seconds)}, before {before} UTC"
