"""Read any part of a stored object."""

from __future__ import annotations

import threading
from typing import BinaryIO, Protocol, runtime_checkable

from bakthat.backends.base import Backend
from bakthat.errors import StorageError
from bakthat.system.streams import RandomSource
from bakthat.system.text import printable


class ObjectRanges:
    """The bytes of the object *key*, which has *size* of them; a :class:`.RandomSource`.

    Each call of :meth:`read_at` is a request, and several threads may call it at once. It holds
    nothing open between the calls. After :meth:`cancel`, every call fails soon.
    """

    def __init__(self, backend: Backend, key: str, size: int) -> None:
        self._backend = backend
        self._key = key
        self.size = size
        self._lock = threading.Lock()
        self._open: set[BinaryIO] = set()
        self._is_cancelled = False

    def read_at(self, offset: int, size: int, /) -> bytes:
        """Return *size* bytes from *offset* on.

        Raises NotFoundError, NotReadyError and other StorageErrors; among them one for an object
        that ends earlier than its size says.
        """
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(f"bytes {offset} to {offset + size} are not in {self.size} bytes")
        if not size:
            return b""
        with self._backend.download(self._key, start=offset, end=offset + size) as stream:
            with self._lock:
                self._open.add(stream)
            try:
                if self._is_cancelled:
                    raise StorageError(f"the download of '{printable(self._key)}' was closed")
                data = stream.read(size)
            finally:
                with self._lock:
                    self._open.discard(stream)
        if len(data) != size:
            raise StorageError(
                f"{printable(self._key)} has fewer than {self.size} bytes on the storage: "
                "it was truncated or replaced",
                hint="bakthat sync updates the catalog",
            )
        return data

    def cancel(self) -> None:
        """Let the calls that wait for the storage fail, so that nobody waits for their ends."""
        self._is_cancelled = True
        with self._lock:
            for stream in self._open:
                raw = getattr(stream, "raw", None)
                if isinstance(raw, Cancellable):
                    raw.cancel()


@runtime_checkable
class Cancellable(Protocol):
    """A download that another thread can end, as those of S3 and of vaults."""

    def cancel(self) -> None:
        """Let a read that waits fail soon."""


class EndsAtOnce:
    """*source*, of which the first *head* and the last *tail* bytes are each read by one call.

    They are read when a part of them is, and kept: for a format with small pieces at its ends.
    """

    def __init__(self, source: RandomSource, *, head: int, tail: int) -> None:
        self._source = source
        self.size = source.size
        head = min(head, self.size)
        self._ends = [_End(source, 0, head), _End(source, max(head, self.size - tail), self.size)]

    def read_at(self, offset: int, size: int, /) -> bytes:
        """Return *size* bytes from *offset* on; raises what the source raises."""
        for end in self._ends:
            if end.start <= offset and offset + size <= end.stop and size:
                return end.read()[offset - end.start : offset - end.start + size]
        return self._source.read_at(offset, size)


class _End:
    """Bytes *start* to *stop* of a source, read once."""

    def __init__(self, source: RandomSource, start: int, stop: int) -> None:
        self._source = source
        self.start = start
        self.stop = stop
        self._data: bytes | None = None
        self._lock = threading.Lock()

    def read(self) -> bytes:
        with self._lock:
            if self._data is None:
                self._data = self._source.read_at(self.start, self.stop - self.start)
            return self._data
