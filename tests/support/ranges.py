"""Sources of which any part can be read, for tests."""

from __future__ import annotations


class Bytes:
    """A :class:`bakthat.system.streams.RandomSource` of bytes in memory, which counts."""

    def __init__(self, data: bytes, *, fail_after: int | None = None) -> None:
        self._data = data
        self._fail_after = fail_after
        self.size = len(data)
        self.calls: list[tuple[int, int]] = []
        """Offset and size of each call."""
        self.sizes: list[int] = []

    def read_at(self, offset: int, size: int, /) -> bytes:
        """Return the bytes; raise OSError once *fail_after* calls have been answered."""
        assert 0 <= offset <= offset + size <= self.size, (offset, size, self.size)
        if self._fail_after is not None and len(self.calls) >= self._fail_after:
            raise OSError("broken")
        self.calls.append((offset, size))
        self.sizes.append(size)
        return self._data[offset : offset + size]
