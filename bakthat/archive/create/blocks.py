"""Buffer the bytes of an archive that is written."""

from __future__ import annotations

from collections.abc import Callable

from bakthat.system.streams import LendingSink, Sink

_BUFFER_BYTES = 1024 * 1024


class BlockBuffer:
    """Buffer the written bytes, and pass them to the sink in pieces of one size.

    *on_piece* is called with each piece before the sink takes it, and with its position in the
    archive. The piece must not be changed, nor used after the call.
    """

    def __init__(
        self, sink: Sink | LendingSink, on_piece: Callable[[memoryview, int], object]
    ) -> None:
        self._sink: LendingSink = sink if isinstance(sink, LendingSink) else _LendingAdapter(sink)
        self._view = self._sink.lend()
        self._size = len(self._view)
        self._filled = 0
        self._flushed = 0
        self._on_piece = on_piece

    @property
    def position(self) -> int:
        """The length of the archive so far, in bytes."""
        return self._flushed + self._filled

    def put(self, data: bytes) -> None:
        """Write all of *data*."""
        end = self._filled + len(data)
        if end <= self._size:
            self._view[self._filled : end] = data
            self._filled = end
            return
        start = 0
        while start < len(data):
            space = self.space(len(data) - start)
            count = len(space)
            space[:] = data[start : start + count]
            self.fill(count)
            start += count

    def space(self, most: int) -> memoryview:
        """Return memory for at least one byte, at *most* this many; then call :meth:`fill`."""
        if self._filled == self._size:
            self.flush()
        return self._view[self._filled : self._filled + most]

    def fill(self, count: int) -> None:
        """Count *count* bytes, which the caller put into :meth:`space`, as written."""
        self._filled += count

    def zeros(self, count: int) -> None:
        """Write *count* zero bytes."""
        while count > 0:
            piece = min(count, _BUFFER_BYTES)
            self.put(bytes(piece))
            count -= piece

    def pad(self, multiple: int) -> None:
        """Write zeros until the length of the archive is a multiple of *multiple*."""
        self.put(bytes(-self.position % multiple))

    def flush(self) -> None:
        """Write the buffered bytes to the sink."""
        if self._filled:
            self._on_piece(self._view[: self._filled], self._flushed)
            self._sink.take(self._view, self._filled)
            self._flushed += self._filled
            self._filled = 0
            self._view = self._sink.lend()


class _LendingAdapter:
    """A LendingSink over a sink that lends no memory."""

    def __init__(self, sink: Sink) -> None:
        self._memory = memoryview(bytearray(_BUFFER_BYTES))
        self._sink = sink

    def lend(self) -> memoryview:
        return self._memory

    def take(self, lent: memoryview, size: int, /) -> None:
        self._sink.write(lent[:size])
