"""Lines at the bottom of a terminal that change all the time, while text scrolls above them."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, TextIO, cast

from bakthat.system.threads import check_room_for_thread

REDRAW_SECONDS = 0.2
"""How long a drawing stays. A thread redraws, since a storage may let the command wait."""

_USUAL_SIZE = os.terminal_size((80, 24))
_STYLE = re.compile(r"\x1b\[[\d;]*m")
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"
_ERASE_BELOW = "\x1b[J"


class StatusLines:
    """Draws what *lines* returns for a width below all that is written to standard error.

    *stream* is standard error, a terminal. The caller calls :meth:`stop`, which leaves nothing of
    the lines behind.
    """

    def __init__(self, stream: TextIO, lines: Callable[[int], Sequence[str]]) -> None:
        self._stream = stream
        self._lines = lines
        self._lock = threading.RLock()
        self._shown: Sequence[str] = ()
        """Those that are on the screen now."""
        self._last: Sequence[str] = ()
        """Those that were drawn last."""
        self._is_in_line = False
        """Whether what was written last has no line end yet, as a question has none."""
        self._is_stopped = threading.Event()

    def start(self) -> None:
        """Draw the lines, from now on again and again."""
        sys.stderr = cast(TextIO, _Above(self, self._stream))
        self.draw()
        try:
            check_room_for_thread()
            threading.Thread(target=self._redraw, daemon=True).start()
        except (MemoryError, RuntimeError):  # the command can do without
            self.stop()

    def stop(self) -> None:
        """Erase the lines, and draw no more. May be called again."""
        with self._lock:
            self._is_stopped.set()
            self._write(self._erased())
            self._shown = ()
            if isinstance(sys.stderr, _Above):
                sys.stderr = self._stream

    def draw(self) -> None:
        """Draw the lines as they are now."""
        with self._lock:
            if self._is_stopped.is_set() or self._is_in_line or not self._is_in_foreground():
                return
            columns, rows = self._size()
            # Not the last column: after it, some terminals are in the next line already.
            lines = self._lines(columns - 1)[: max(rows - 1, 1)]
            erased = self._erased()
            self._shown = self._last = lines
            self._write(erased + self._drawn())

    def write_above(self, text: str) -> None:
        """Write *text* above the lines."""
        with self._lock:
            erased = self._erased()
            self._is_in_line = not text.endswith("\n")
            self._shown = () if self._is_in_line or self._is_stopped.is_set() else self._last
            self._write(erased + text + self._drawn())

    def _redraw(self) -> None:
        while not self._is_stopped.wait(REDRAW_SECONDS):
            self.draw()

    def _drawn(self) -> str:
        """Return what draws the shown lines. The cursor stays at the beginning of the last one."""
        # What is too wide is cut off, also where a terminal shows a character wider than expected.
        text = "\n".join(self._shown)
        return f"{_NO_WRAP}{text}{_WRAP}\r" if text else ""

    def _erased(self) -> str:
        """Return what erases the shown lines.

        A terminal that has become narrower has wrapped them meanwhile.
        """
        if not self._shown:
            return ""
        columns, _ = self._size()
        above = sum(max(-(-cells(line) // columns), 1) for line in self._shown[:-1])
        return f"\r\x1b[{above}A{_ERASE_BELOW}" if above else f"\r{_ERASE_BELOW}"

    def _size(self) -> os.terminal_size:
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return _USUAL_SIZE
        return size if size.columns > 1 and size.lines else _USUAL_SIZE

    def _is_in_foreground(self) -> bool:
        """Return whether the terminal is this command's, and not that of a shell's next command."""
        try:
            return os.tcgetpgrp(self._stream.fileno()) == os.getpgrp()
        except (OSError, ValueError):  # it is not the terminal of this session
            return True

    def _write(self, text: str) -> None:
        # A command goes on when the terminal is gone. RuntimeError: a signal that arrived while
        # something was written has something to write.
        with contextlib.suppress(OSError, RuntimeError):
            self._stream.write(text)
            self._stream.flush()


class _Above:
    """Takes the place of standard error, and writes above the lines."""

    def __init__(self, lines: StatusLines, stream: TextIO) -> None:
        self._lines = lines
        self._stream = stream

    def write(self, text: str) -> int:
        self._lines.write_above(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def cells(text: str) -> int:
    """Return how many columns of a terminal *text* takes; its styles take none."""
    text = _STYLE.sub("", text)
    return len(text) if text.isascii() else sum(map(_cells_of, text))


def shortened(text: str, width: int, *, mark: str = "…") -> str:
    """Return *text*, with a *mark* in place of its middle where it takes more than *width* columns.

    A *width* below that of the mark leaves nothing of it.
    """
    if cells(text) <= width:
        return text
    room = width - cells(mark)
    if room < 0:
        return ""
    head = _beginning(text, room // 2)
    tail = _beginning(text[::-1], room - cells(head))[::-1]
    return f"{head}{mark}{tail}"


def _beginning(text: str, width: int) -> str:
    for index, char in enumerate(text):
        width -= _cells_of(char)
        if width < 0:
            return text[:index]
    return text


def _cells_of(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
