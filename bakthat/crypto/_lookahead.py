"""A buffered reader that can look ahead, read lines and fill a buffer."""

from __future__ import annotations

from collections.abc import Callable

READ_SIZE = 1 << 20
"""Bytes that are read from a source at once."""


class LookaheadReader:
    """Buffer the bytes that *read* returns.

    ``read(size)`` returns about *size* bytes, fewer or more, and ``b""`` only at the end.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._buffer = bytearray()
        self._start = 0

    def peek(self, size: int) -> bytes:
        """Return the next *size* bytes without removing them; fewer only at the end."""
        while len(self._buffer) - self._start < size and self._more():
            pass
        return bytes(self._buffer[self._start : self._start + size])

    def skip(self, size: int) -> None:
        """Remove *size* bytes that :meth:`peek` returned."""
        self._start += size

    def readline(self, limit: int) -> bytes:
        """Return the next line with its line feed.

        A line without one ends with the input, or was cut after *limit* bytes.
        """
        searched = 0
        while True:
            at = self._buffer.find(b"\n", self._start + searched, self._start + limit)
            if at >= 0:
                size = at + 1 - self._start
                break
            searched = len(self._buffer) - self._start
            if searched >= limit or not self._more():
                size = min(searched, limit)
                break
        line = bytes(self._buffer[self._start : self._start + size])
        self._start += size
        return line

    def readinto(self, target: memoryview) -> int:
        """Fill *target* and return the number of bytes; fewer than its length only at the end."""
        size = len(target)
        filled = min(len(self._buffer) - self._start, size)
        target[:filled] = self._buffer[self._start : self._start + filled]
        self._start += filled
        while filled < size:
            piece = self._read(size - filled)
            if not piece:
                break
            fits = min(len(piece), size - filled)
            target[filled : filled + fits] = piece if fits == len(piece) else piece[:fits]
            filled += fits
            self._buffer[:] = piece[fits:]
            self._start = 0
        return filled

    def _more(self) -> bool:
        piece = self._read(READ_SIZE)
        del self._buffer[: self._start]
        self._start = 0
        self._buffer += piece
        return bool(piece)
