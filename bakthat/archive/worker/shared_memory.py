"""Memory that a process shares with one forked from it, so that an archive need not be copied."""

from __future__ import annotations

import contextlib
import functools
import mmap
import socket

from bakthat.archive.worker.messages import ConnectionEndedError, send
from bakthat.system.streams import BorrowingSink, Sink

FILLED = "filled"
"""The kind of the message that a piece is filled; its content is the piece's number and size."""


class SharedRing:
    """*count* pieces of *size* bytes each, at most 255, in memory that forked processes share.

    One process fills pieces with a :class:`RingSink`, the other reads them with a
    :class:`RingReader` and sends the number of each piece that is free again as one byte.
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
    """Passes the pieces that the other process fills on to a sink."""

    def __init__(self, ring: SharedRing, connection: socket.socket) -> None:
        self._ring = ring
        self._connection = connection
        self._borrowed = 0

    def pass_on(self, sink: Sink, number: int, size: int) -> None:
        """Write *size* bytes of the piece *number* to *sink*, and free the piece after that."""
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
        # If the other process has ended, its last messages must still be received.
        with contextlib.suppress(OSError):
            self._connection.sendall(bytes([number]))
