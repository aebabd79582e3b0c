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
from bakthat.system import file_log, terminal
from bakthat.system.streams import ProgressState
from bakthat.system.text import human_rate, human_size, printable

if TYPE_CHECKING:
    from rich.live import Live

    from bakthat.system.streams import Progress

DRAWS_PER_SECOND = 5
"""How often it is drawn. A thread does it, since a storage may let the command wait."""
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

    So it is with ``-v``: rich takes most of a millisecond for each line above what it draws, and
    the names of files tell how far a command is.

    The arguments are those of :class:`ProgressLines`. Nothing of it is left when the block ends.
    """
    if output.is_quiet() or file_log.is_wanted() or not _can_show(sys.stderr):
        yield None
        return
    bar = _Bar(ProgressLines(sys.stderr, label, moved=moved, counts_bytes=counts_bytes))
    try:
        yield bar
    finally:
        bar.stop()


def _can_show(stream: TextIO) -> bool:
    """Return whether *stream* is a terminal that can redraw, and shows nothing else meanwhile."""
    is_terminal = stream.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")
    return is_terminal and not (output.is_json() and terminal.shows_output())


class _Bar:
    """A function of progress that shows it on standard error."""

    def __init__(self, content: ProgressLines) -> None:
        self._content = content
        self._live: Live | None = None

    def __call__(self, done: int, total: int) -> None:
        self.on_state(ProgressState(done, total))

    def on_state(self, state: ProgressState) -> None:
        self._content.state = state
        if self._live is None:
            # Not earlier: a password may be asked for first, and the rate counts from here.
            self._live = _live(self._content)
            self._live.start(refresh=True)

    def stop(self) -> None:
        if self._live is not None:
            self._live.stop()


def _live(content: ProgressLines) -> Live:
    """Return what draws *content*."""
    # Loaded here: it takes a tenth of a second, and only a terminal needs it. Meanwhile the worker
    # process of a backup reads files.
    from rich.console import Console
    from rich.control import Control
    from rich.live import Live
    from rich.segment import ControlType
    from rich.text import Text

    # Otherwise the lines of the log were broken, and a long name could not be copied.
    console = Console(stderr=True, soft_wrap=True)
    shown: list[Text] = []

    def draw() -> Text:
        # A terminal that has become narrower has wrapped what is there, and rich does not know.
        more = sum((line.cell_len - 1) // console.width for line in shown)
        erase = (ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)
        console.control(Control(ControlType.CARRIAGE_RETURN, *erase * more))
        # Not the last column: after it, some terminals are in the next line already.
        lines = content.lines(console.width - 1, time.monotonic())
        text = Text.from_ansi("\n".join(lines), no_wrap=True, overflow="crop")
        shown[:] = text.split("\n")
        return text

    return Live(
        get_renderable=draw, console=console, transient=True, refresh_per_second=DRAWS_PER_SECOND
    )


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


def shortened(text: str, width: int, *, mark: str = "…") -> str:
    """Return *text*, with a *mark* in place of its middle where it takes more than *width* columns.

    A *width* below that of the mark leaves nothing of it.
    """
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    room = width - len(mark)
    if room < 0:
        return ""
    head = set_cell_size(text, room // 2)
    tail = set_cell_size(text[::-1], room - room // 2)[::-1]
    return f"{head}{mark}{tail}"


def _clock(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds: ``0:42``, ``1:02:04``."""
    minutes, seconds = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
