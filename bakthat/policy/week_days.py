"""The days of the week, by name and by number."""

from __future__ import annotations

from bakthat.errors import UsageError

WEEK_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
"""In the order of their numbers in a policy."""
SATURDAY = WEEK_DAYS.index("saturday")


def parse_week_day(text: str) -> int:
    """Return the number of a week day, 0 to 6; *text* is its English name or its number.

    Raises UsageError.
    """
    word = text.lower()
    if word in WEEK_DAYS:
        return WEEK_DAYS.index(word)
    if word in map(str, range(len(WEEK_DAYS))):
        return int(word)
    raise UsageError(
        f"{text!r} is not a day of the week",
        hint=f"give one of {', '.join(WEEK_DAYS)}, or its number from 0 to 6",
    )
