"""Read one object in ranges, a few of which are fetched ahead."""

from __future__ import annotations

import io
import random
import re
import threading
from abc import abstractmethod
from collections import deque
from concurrent.futures import Future
from typing import Any

from bakthat.backends.aws.client import AwsClient, TransferCancelledError, foreign_errors
from bakthat.errors import StorageError
from bakthat.system.threads import ThreadPool

PIECE = 256 * 1024
"""Bytes read from a connection at once; a closed reader stops after such a piece."""
LONGEST_BACKOFF = 20.0
"""Seconds, as in botocore's standard retry mode."""
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class RangedReader(io.RawIOBase):
    """The bytes of an object in order, fetched by a few threads.

    *first* is the answer to the request of the first range. At most ``ahead + 1`` ranges of
    *range_size* bytes are held in memory. Subclasses ask their service for the other ranges.
    """

    def __init__(
        self,
        client: AwsClient,
        key: str,
        first: dict[str, Any],
        start: int,
        end: int | None,
        *,
        range_size: int,
        ahead: int,
    ) -> None:
        super().__init__()
        self._client = client
        self._key = key
        self._first = first
        self._range_size = range_size
        self._ahead = ahead
        self._cancelled = threading.Event()
        self._ranges: deque[Future[bytearray]] = deque()
        self._received = bytearray()
        self._current = memoryview(self._received)
        self._spare: deque[bytearray] = deque()
        self._error: Exception | None = None
        try:
            begin, stop, size = extent_of(first, key)
            if begin != start:
                raise StorageError(
                    f"the storage sent {key!r} from byte {begin}, not from {start}",
                    hint=_WRONG_RANGE,
                )
            if stop - start > range_size:
                raise StorageError(
                    f"the storage sent more of {key!r} than the range that was requested",
                    hint=_WRONG_RANGE,
                )
        except StorageError:
            first["Body"].close()
            raise
        self._end = size if end is None else min(end, size)
        self._next = min(stop, self._end)
        self._pool = ThreadPool(ahead, thread_name_prefix="bakthat-download")
        # The other ranges are fetched after the first read: until then, the key derivation of a
        # passphrase takes as much memory as they do.
        try:
            self._ranges.append(self._pool.submit(self._fetch, start, self._next, first))
        except (MemoryError, RuntimeError):  # no thread can be started
            first["Body"].close()
            raise
        self._begun = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill *buffer* with the next bytes, and return how many; 0 at the end."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        # A range that failed is never skipped: every further read raises the same error.
        if self._error is not None:
            raise self._error
        if self._begun:
            self._look_ahead()
        self._begun = True
        if not self._current and self._ranges:
            try:
                self._recycle()
                self._received = self._ranges.popleft().result()
                self._current = memoryview(self._received)
            except Exception as exc:
                self._error = exc
                raise
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._current))
        view[:count] = self._current[:count]
        self._current = self._current[count:]
        return count

    def close(self) -> None:
        """Stop fetching, wait for the threads to end, and release the connections."""
        if self.closed:
            return
        try:
            # The constructor may have failed before it made the pool.
            if hasattr(self, "_pool"):
                self._cancelled.set()
                self._pool.shutdown(wait=True, cancel_futures=True)
                self._first["Body"].close()
                self._ranges.clear()
                self._recycle()
                self._spare.clear()
                self._received = bytearray()
        finally:
            super().close()

    def cancel(self) -> None:
        """Let the ranges that are being fetched fail soon, and a read that waits for them.

        Another thread may call it; :meth:`close` is still called by the one that reads.
        """
        self._cancelled.set()

    def _look_ahead(self) -> None:
        while len(self._ranges) < self._ahead and self._next < self._end:
            # Ranges end at multiples of their size: for those, Glacier sends checksums.
            boundary = (self._next // self._range_size + 1) * self._range_size
            stop = min(boundary, self._end)
            self._ranges.append(self._pool.submit(self._fetch, self._next, stop, None))
            self._next = stop

    def _recycle(self) -> None:
        # Buffers are used again, as in an upload, so that they do not fragment the heap.
        self._current = memoryview(b"")
        self._spare.append(self._received)

    def _buffer(self, size: int) -> bytearray:
        try:
            buffer = self._spare.pop()
        except IndexError:
            return bytearray(size)
        return buffer if len(buffer) == size else bytearray(size)

    def _fetch(self, start: int, stop: int, answer: dict[str, Any] | None) -> bytearray:
        """Return bytes *start* to *stop*; after a broken connection, request the rest again."""
        data = self._buffer(stop - start)
        view = memoryview(data)
        filled = 0
        for attempt in range(self._client.settings.max_attempts):
            if attempt:
                self._cancelled.wait(random.random() * min(2.0**attempt, LONGEST_BACKOFF))
            if answer is None:
                answer = self._request(start + filled, stop)
            body, answer = answer["Body"], None
            cause: Exception | None = None
            try:
                filled += self._drain(body, view[filled:])
            except _BrokenConnectionError as broken:
                filled += broken.filled
                cause = broken.cause
            finally:
                body.close()
            if filled == len(view):
                return data
        raise StorageError(
            f"{self._key!r} in {self._client.shown}: the connection "
            f"ended {len(view) - filled} bytes early, {self._client.settings.max_attempts} times",
            hint="check the network, and try again",
        ) from cause

    def _drain(self, body: Any, view: memoryview) -> int:
        """Fill *view* from *body* and return how many bytes arrived.

        Raises _BrokenConnectionError when the connection broke.
        """
        filled = 0
        limit = self._client.downloads
        piece = PIECE if limit is None else min(PIECE, limit.piece)
        while filled < len(view):
            if self._cancelled.is_set():
                raise TransferCancelledError(f"the download of {self._key!r} was closed")
            try:
                count = body.readinto(view[filled : filled + piece])
            except foreign_errors() as exc:
                raise _BrokenConnectionError(filled, exc) from exc
            if count == 0:
                break
            filled += count
            if limit is not None:
                limit.wait(count, self._cancelled)
        return filled

    @abstractmethod
    def _request(self, start: int, stop: int) -> dict[str, Any]:
        """Request bytes *start* to *stop*; return the answer, whose ``Body`` the caller closes.

        Raises TransferCancelledError, and sends nothing, once the reader was closed.
        """


_WRONG_RANGE = "check endpoint_url: a proxy, or the storage itself, does not send what is asked for"


class _BrokenConnectionError(Exception):
    """A connection broke after *filled* bytes."""

    def __init__(self, filled: int, cause: Exception) -> None:
        super().__init__()
        self.filled = filled
        self.cause = cause


def extent_of(answer: dict[str, Any], key: str) -> tuple[int, int, int]:
    """Return the first byte, the byte after the last and the object's size, from *answer*.

    Raises StorageError when *answer* has no valid range.
    """
    announced = str(answer.get("ContentRange", "missing"))
    match = _CONTENT_RANGE.fullmatch(announced)
    if match is None:
        raise StorageError(
            f"the storage did not send the range of {key!r} that was requested "
            f"(Content-Range: {announced})",
            hint=_WRONG_RANGE,
        )
    begin, last, size = map(int, match.groups())
    return begin, last + 1, size
