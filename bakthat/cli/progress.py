"""The progress of a command on a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from bakthat.cli import output
from bakthat.system import terminal
from bakthat.system.streams import ProgressState
from bakthat.system.text import human_rate, human_size, printable

if TYPE_CHECKING:
    from bakthat.system.streams import Progress

_SAMPLES = 75
"""How many drawings a rate is the mean of: those of some 15 seconds."""
_MIN_SECONDS = 1.0
"""The rate of a shorter time says nothing."""
_MIN_BAR, _MAX_BAR = 8, 50
_PATH_COLUMN, _MIN_PATH = 24, 16


@contextmanager
def progress_bar(
    label: str, *, moved: str = "", counts_bytes: bool = True
) -> Iterator[Progress | None]:
    """Show the progress on a terminal; elsewhere yield None, so that percentages are logged.

    The arguments are those of :class:`ProgressLines`. Nothing of it is left when the block ends.
    """
    if output.is_quiet() or not _can_show(sys.stderr):
        yield None
        return
    bar = _Bar(sys.stderr, ProgressLines(sys.stderr, label, moved=moved, counts_bytes=counts_bytes))
    try:
        yield bar
    finally:
        bar.stop()


def _can_show(stream: TextIO) -> bool:
    """Return whether *stream* is a terminal that can redraw, and shows nothing else meanwhile."""
    is_terminal = stream.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")
    return is_terminal and not (output.is_json() and terminal.shows_output())


class _Bar:
    """A function of progress that shows it on *stream*, standard error."""

    def __init__(self, stream: TextIO, content: ProgressLines) -> None:
        # Loaded here, since only a terminal needs it.
        from bakthat.cli.status_lines import StatusLines

        self._content = content
        self._status = StatusLines(stream, lambda width: content.lines(width, time.monotonic()))
        self._is_started = False

    def __call__(self, done: int, total: int) -> None:
        self.on_state(ProgressState(done, total))

    def on_state(self, state: ProgressState) -> None:
        self._content.state = state
        if not self._is_started:  # not earlier, since a password may be asked for first
            self._is_started = True
            self._status.start()

    def stop(self) -> None:
        self._status.stop()


class ProgressLines:
    """Says how far a command is: a bar, counts, rate, time left, and the path that it is at.

    *stream* is the terminal. It counts bytes or, with *counts_bytes* False, objects. *moved* says
    what is done with the bytes that a :class:`ProgressState` counts as moved.
    """

    def __init__(
        self, stream: TextIO, label: str, *, moved: str = "", counts_bytes: bool = True
    ) -> None:
        self.state = ProgressState(0, 0)
        self._stream = stream
        self._label = label
        self._moved = moved
        self._counts_bytes = counts_bytes
        self._samples: deque[tuple[float, int]] = deque(maxlen=_SAMPLES)
        self._is_unicode = (stream.encoding or "").lower().startswith("utf")

    def lines(self, width: int, now: float) -> list[str]:
        """Return the lines for a terminal of *width* columns, *now* by :func:`time.monotonic`."""
        state = self.state
        rate = self._rate(state.done, now)
        first, second = self._amounts(state, width), self._position(state, rate, width)
        return [first, second] if second else [first]

    def _rate(self, done: int, now: float) -> float | None:
        """Return how much is done in a second; None when that is not known yet."""
        self._samples.append((now, done))
        (then, before), *_ = self._samples
        return (done - before) / (now - then) if now - then >= _MIN_SECONDS else None

    def _amounts(self, state: ProgressState, width: int) -> str:
        done, total = (
            (human_size(state.done), human_size(state.total))
            if self._counts_bytes
            else (str(state.done), str(state.total))
        )
        # Below 100 until the storage has confirmed, or all is in its place.
        percent = f"{min(100 * state.done // state.total, 99):2} %" if state.total else ""
        counts = f"{done} of {total}" if state.total else done
        if state.moved is not None and self._moved:
            more = f"{counts}, {human_size(state.moved)} {self._moved}"
        else:
            more = counts
        text = " ".join(filter(None, (self._label, percent, more)))
        room = min(width - len(text) - 1, _MAX_BAR)
        if percent and room >= _MIN_BAR:
            return f"{self._label} {percent} {self._bar(state, room)} {more}"
        shorter = (f"{percent} {more}".strip(), f"{percent} {counts}".strip())
        return next((each for each in (text, *shorter) if len(each) <= width), counts[:width])

    def _bar(self, state: ProgressState, size: int) -> str:
        full = size * min(state.done, state.total) // state.total
        begun, rest = "━─" if self._is_unicode else "=-"
        return terminal.styled(self._stream, begun * full, "green") + rest * (size - full)

    def _position(self, state: ProgressState, rate: float | None, width: int) -> str:
        """Return the rate, the time left, and the path as far as there is room."""
        from bakthat.cli.status_lines import shortened

        facts = []
        if rate is not None and self._counts_bytes:
            facts.append(human_rate(round(rate), 1))
        if rate and state.total:
            facts.append(f"{_clock((state.total - state.done) / rate)} left")
        text = ", ".join(facts)
        begin = max(len(text) + 2, _PATH_COLUMN) if text else 0
        if not state.path or width - begin < _MIN_PATH:
            return text[:width]
        path = printable(state.path)
        if not self._is_unicode:  # as it is written, so that its width is known
            encoding = self._stream.encoding or "ascii"
            path = path.encode(encoding, "backslashreplace").decode(encoding)
        mark = "…" if self._is_unicode else "..."
        return text.ljust(begin) + shortened(path, width - begin, mark=mark)


def _clock(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds: ``0:42``, ``1:02:04``."""
    minutes, seconds = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
