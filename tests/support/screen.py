"""A terminal of a given size, and what it shows."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import pyte


def set_size(descriptor: int, columns: int, rows: int) -> None:
    """Give the terminal *descriptor* a size."""
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def shown(output: str, columns: int, rows: int = 300) -> list[str]:
    """Return the lines that a terminal shows after *output*, without the empty ones at the end."""
    screen = pyte.Screen(columns, rows)
    pyte.Stream(screen).feed(output)
    return _lines(screen)


def _lines(screen: pyte.Screen) -> list[str]:
    return "\n".join(line.rstrip() for line in screen.display).rstrip("\n").split("\n")


class Terminal:
    """A terminal that wraps the lines it shows when it becomes narrower, as most do.

    *stream* is the end that a program writes to.
    """

    def __init__(self, stream: TextIO, screen_end: int, columns: int, rows: int) -> None:
        self.stream = stream
        self._screen_end = screen_end
        self._screen = pyte.Screen(columns, rows)
        set_size(screen_end, columns, rows)

    def lines(self) -> list[str]:
        """Return what it shows, without the empty lines at the end."""
        pyte.Stream(self._screen).feed(self.output())
        return _lines(self._screen)

    def output(self) -> str:
        """Return what was written since the last call."""
        self.stream.flush()
        pieces = []
        with_more = True
        while with_more:
            try:
                pieces.append(os.read(self._screen_end, 65536))
            except BlockingIOError:
                with_more = False
        return b"".join(pieces).decode()

    def wait_for(self, text: str) -> None:
        """Return when it shows *text*."""
        deadline = time.monotonic() + 60
        while not any(text in line for line in self.lines()):
            assert time.monotonic() < deadline, self.lines()
            select.select([self._screen_end], [], [], 1)

    def narrow(self, columns: int) -> None:
        """Make it as narrow as *columns*."""
        self.lines()
        before, rows = self._screen, self._screen.lines
        self._screen = pyte.Screen(columns, rows)
        stream, cursor = pyte.Stream(self._screen), before.cursor.y
        set_size(self._screen_end, columns, rows)
        for number in range(cursor + 1):
            row = before.buffer[number]
            cells = [row[column].data for column in range(before.columns)]
            while cells and cells[-1] == " ":
                cells.pop()
            pieces = ["".join(cells[at : at + columns]) for at in range(0, len(cells), columns)]
            stream.feed("\r\n" if number else "")
            at = self._screen.cursor.y
            stream.feed("\r\n".join(pieces))
            if number == cursor:
                down, self._screen.cursor.x = divmod(before.cursor.x, columns)
                self._screen.cursor.y = at + down


@contextmanager
def terminal(columns: int = 80, rows: int = 24, *, encoding: str = "utf-8") -> Iterator[Terminal]:
    """Open a terminal."""
    screen_end, program_end = pty.openpty()
    os.set_blocking(screen_end, False)
    with open(program_end, "w", encoding=encoding, errors="backslashreplace") as stream:
        try:
            yield Terminal(stream, screen_end, columns, rows)
        finally:
            os.close(screen_end)
