"""Memory that a process shares with one forked from it, so that an archive need not be copied."""

from __future__ import annotations

import contextlib
import functools
import mmap
import socket

from bakthat.archive.worker.messages import ConnectionEndedError, send
from bakthat.system.streams import BorrowingSink, Sink

FILLED = "filled"
"""The kind of the message that a piece was filled: its number, and the bytes in it."""


class SharedRing:
    """*count* pieces of *size* bytes each, at most 255, in memory that forked processes share.

    One process fills pieces by :meth:`sink`, the other passes them on by :meth:`reader`; the
    number of a piece that is free again goes back over the connection, as one byte.
    """

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self._size = size
        self._memory = memoryview(mmap.mmap(-1, count * size))

    def piece(self, number: int) -> memoryview:
        """Return the piece *number*."""
        return self._memory[number * self._size :][: self._size]


class RingSink:
    """The :class:`~bakthat.system.streams.LendingSink` of the process that fills the pieces."""

    def __init__(self, ring: SharedRing, connection: socket.socket) -> None:
        self._ring = ring
        self._connection = connection
        self._free = bytearray(range(ring.count))
        self._number = 0

    def lend(self) -> memoryview:
        """Return a free piece; wait for one. Raises ConnectionEndedError."""
        if not self._free:
            self._free += self._connection.recv(self._ring.count)
            if not self._free:
                raise ConnectionEndedError
        self._number = self._free.pop()
        return self._ring.piece(self._number)

    def take(self, lent: memoryview, size: int, /) -> None:
        """Send the first *size* bytes of *lent*. Raises OSError."""
        send(self._connection, FILLED, (self._number, size))


class RingReader:
    """Passes on what the other process fills."""

    def __init__(self, ring: SharedRing, connection: socket.socket) -> None:
        self._ring = ring
        self._connection = connection
        self._borrowed = 0

    def pass_on(self, sink: Sink, number: int, size: int) -> None:
        """Write *size* bytes of the piece *number* to *sink*, and free it when that has them."""
        piece = self._ring.piece(number)[:size]
        if not isinstance(sink, BorrowingSink):
            sink.write(piece)
            self._free(number)
            return
        self._borrowed += 1
        sink.borrow(piece, functools.partial(self._give_back, number))
        while self._borrowed == self._ring.count:
            sink.wait()

    def _give_back(self, number: int) -> None:
        self._borrowed -= 1
        self._free(number)

    def _free(self, number: int) -> None:
        # Where the other process has ended, its last messages are still to be received.
        with contextlib.suppress(OSError):
            self._connection.sendall(bytes([number]))
