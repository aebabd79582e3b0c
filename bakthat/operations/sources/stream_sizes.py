"""Whether the size of a stream is far from that of the backup before it.

A dump that failed without an exit code is most often too small. Everything here is pure.
"""

from __future__ import annotations

import re

from bakthat.errors import UsageError
from bakthat.system.text import human_size

_FACTOR = 2
_PERCENT = re.compile(r"([0-9]{1,3})\s*%?")


def difference_of(size: int, last: int) -> str:
    """Return how *size* differs suspiciously from *last*, both in bytes; "" when it does not.

    That is less than half of it, or more than twice as much.
    """
    if size * _FACTOR < last:
        return f"{human_size(size)} is less than half of the {human_size(last)}"
    if size > last * _FACTOR:
        return f"{human_size(size)} is more than twice the {human_size(last)}"
    return ""


def is_below(size: int, last: int, percent: int) -> bool:
    """Return whether *size* is below *percent* of *last*."""
    return size * 100 < last * percent


def parse_percent(value: str | int) -> int:
    """Return the percent that "50%", "50" or 50 means. Raises UsageError unless it is 1 to 100."""
    found = _PERCENT.fullmatch(str(value).strip())
    percent = int(found[1]) if found is not None else 0
    if not 1 <= percent <= 100:
        raise UsageError(
            f"'{value}' is no share of the last size",
            hint="give percent from 1 to 100, such as --fail-below 50%",
        )
    return percent
