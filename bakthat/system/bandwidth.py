"""Limit how many bytes pass in a second, over all threads of a transfer."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from decimal import Decimal

UNITS = {
    "kB": 1000,
    "KiB": 1024,
    "MB": 1000**2,
    "MiB": 1024**2,
    "GB": 1000**3,
    "GiB": 1024**3,
}
"""Bytes of each unit."""
PATTERN = rf"^[0-9]{{1,9}}(\.[0-9]{{1,9}})?({'|'.join(UNITS)})/s$"
"""How a bandwidth is written, such as 5MiB/s or 500kB/s, as a regular expression."""
LOWEST = 10_000
"""The lowest bandwidth, in bytes per second. The longest part that is usual, of 525 MiB where all
parts are equal and the size is not known, then takes 15 hours. cleanup removes an upload that has
had no new part for a day."""

_BANDWIDTH = re.compile(r"([0-9.]+)([A-Za-z]+)/s")
_PIECES_PER_SECOND = 8
"""Each of a few connections then moves several times in a second, so that no server takes it for
dead, and an interrupt waits for nothing."""
_NEVER = threading.Event()


def bytes_per_second(text: str) -> int:
    """Return the bytes per second of a bandwidth such as 5MiB/s or 500kB/s.

    Raises ValueError when *text* is none.
    """
    found = _BANDWIDTH.fullmatch(text)
    if found is None or re.fullmatch(PATTERN, text) is None:
        raise ValueError("not a bandwidth")
    return int(Decimal(found[1]) * UNITS[found[2]])


class Bandwidth:
    """A token bucket: at most *rate* bytes per second, and one :attr:`piece` at once.

    Threads may share it, and take turns. *clock* returns seconds, and never goes back.
    """

    def __init__(self, rate: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self.piece = max(1, rate // _PIECES_PER_SECOND)
        """The most bytes to take at once."""
        self._clock = clock
        self._lock = threading.Lock()
        self._taken_until = float("-inf")

    def take(self, count: int) -> float:
        """Take *count* bytes, at most a piece; return the seconds until they may have passed."""
        with self._lock:
            now = self._clock()
            # What nobody took is lost, but for one piece, since a sleep ends a little late.
            begin = max(self._taken_until, now - self.piece / self.rate)
            self._taken_until = begin + count / self.rate
            return max(0.0, self._taken_until - now)

    def wait(self, count: int, cancelled: threading.Event | None = None) -> None:
        """Take *count* bytes, at most a piece, and wait until they may have passed.

        Returns at once when *cancelled* is set meanwhile.
        """
        seconds = self.take(count)
        if seconds > 0:
            (cancelled or _NEVER).wait(seconds)
