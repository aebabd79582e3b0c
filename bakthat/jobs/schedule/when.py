"""When a job runs."""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass

from bakthat.errors import UsageError
from bakthat.system.programs import Program, find_program, run_program
from bakthat.system.text import printable

DEFAULT_TIME = "04:30"
"""Between 0:00 and 4:00, there are nights in some zones in which that time does not come."""
DEFAULT_JITTER = 15
"""Minutes."""
_TIME = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])", re.ASCII)
_CALENDAR = re.compile(r"[\w *:,./~+-]+", re.ASCII)
"""What calendars of systemd are made of."""
_DAYS = 366
_DAY = 86400


@dataclass(frozen=True, slots=True)
class Daily:
    """A time of each day, in the zone of the machine, and up to *jitter* minutes later."""

    hour: int
    minute: int
    jitter: int

    def __str__(self) -> str:
        later = f", up to {self.jitter} min later" if self.jitter else ""
        return f"daily at {self.hour:02d}:{self.minute:02d}{later}"

    @property
    def calendar(self) -> str:
        """The time as a calendar of systemd."""
        return f"*-*-* {self.hour:02d}:{self.minute:02d}:00"

    def minute_of(self, host: str, job: str) -> tuple[int, int]:
        """Return the hour and the minute for a job of a host: always the same, with the jitter.

        cron has no jitter of its own, and a command that slept would hold a process for it.
        """
        digest = hashlib.sha256(f"{host}\0{job}".encode("utf-8", "surrogateescape")).digest()
        later = int.from_bytes(digest[:8]) % (self.jitter + 1)
        hour, minute = divmod(self.hour * 60 + self.minute + later, 60)
        return hour % 24, minute

    def missing_day(self, now: float) -> str:
        """Return the first day of the next year on which the time does not come, or "".

        That is the day on which summer time begins: systemd then leaves the run out. *now* is in
        epoch seconds.
        """
        today = time.localtime(now)
        for day in range(_DAYS):
            wanted = (today.tm_year, today.tm_mon, today.tm_mday + day, self.hour, self.minute)
            found = time.localtime(time.mktime((*wanted, 0, 0, 0, -1)))
            if (found.tm_hour, found.tm_min) != (self.hour, self.minute):
                return time.strftime("%Y-%m-%d", found)
        return ""


@dataclass(frozen=True, slots=True)
class Calendar:
    """A calendar of systemd, and up to *jitter* minutes later."""

    calendar: str
    jitter: int

    def __str__(self) -> str:
        later = f", up to {self.jitter} min later" if self.jitter else ""
        return f"{self.calendar}{later}"

    def missing_day(self, now: float) -> str:  # as Daily.missing_day
        """Return "": systemd-analyze calendar shows the times."""
        return ""


When = Daily | Calendar


def daily(text: str, jitter: int) -> Daily:
    """Return the time of each day that *text* names, such as ``04:30``. Raises UsageError."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise UsageError(
            f"--at is a time of the day, not '{printable(text)}'", hint="write it like 04:30"
        )
    return Daily(int(found[1]), int(found[2]), _checked(jitter))


def calendar(text: str, jitter: int) -> Calendar:
    """Return a calendar; systemd checks it, where it is installed. Raises UsageError."""
    hint = "try it in a shell: systemd-analyze calendar 'Mon..Fri 04:30'"
    if not _CALENDAR.fullmatch(text):
        raise UsageError(f"--calendar is no calendar of systemd: '{printable(text)}'", hint=hint)
    if find_program("systemd-analyze") is not None:
        words = ("systemd-analyze", "calendar", "--", text)
        ended, _ = run_program(Program("systemd-analyze", words))
        if not ended.succeeded:
            raise UsageError(
                f"--calendar is no calendar of systemd: '{printable(text)}'", hint=hint
            )
    return Calendar(text, _checked(jitter))


def _checked(jitter: int) -> int:
    if not 0 <= jitter < _DAY // 60:
        raise UsageError(
            f"--jitter is a number of minutes below a day, not {jitter}", hint="write 0 for none"
        )
    return jitter
