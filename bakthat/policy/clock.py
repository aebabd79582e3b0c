"""Clocks: how far that of this machine may be from a storage's, and what is due by it."""

from __future__ import annotations

from bakthat.policy.finding import Finding, advice, good, problem
from bakthat.system.text import human_seconds

ADVISED_SECONDS = 5 * 60
REFUSED_SECONDS = 15 * 60
"""S3 refuses a request whose date is further away than this, by
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-authentication-HTTPPOST.html."""

_HINT = "set the clock of this machine, and keep it right with NTP (timedatectl set-ntp true)"


def clock_finding(seconds: float, *, is_refused: bool = False) -> Finding:
    """Return the finding about a clock that is *seconds* ahead of the storage's.

    A negative number means behind. *is_refused* says that the storage refused a request for it.
    """
    off = abs(seconds)
    if off < 1.5 and not is_refused:  # the date of an answer is in whole seconds
        return good("clock", "this machine and the storage agree on the time")
    where = "ahead of" if seconds > 0 else "behind"
    detail = f"the clock of this machine is {human_seconds(off)} {where} the storage's"
    if is_refused:
        return problem("clock", f"{detail}, and the storage refuses its requests", _HINT)
    if off >= REFUSED_SECONDS:
        return advice("clock", f"{detail}; S3 refuses requests from 15 minutes on", _HINT)
    if off >= ADVISED_SECONDS:
        return advice("clock", detail, _HINT)
    return good("clock", detail)


def is_due(last: int | None, every: int, now: int) -> bool:
    """Return whether what is to be done each *every* seconds is due *now*, and was done at *last*.

    Both times are epoch seconds; None means never. A twentieth of the time may be missing, since
    what runs each night never runs at the same second. What was done in the future is due: a clock
    is or was wrong.
    """
    return last is None or last > now or now - last >= every - every // 20


def is_overdue(last: int | None, every: int, now: int) -> bool:
    """Return whether what is due each *every* seconds should have been done by now.

    What is due waits for the next run of its job, so a quarter of the time more is allowed.
    """
    return last is None or now - last > every + every // 4
