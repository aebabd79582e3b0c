"""Read any gzip file, several of bakthat's own members at once (RFC 1952).

Members that carry their length (:mod:`bakthat.archive.gzip.members`) are cut out of the stream
and inflated in a pool of threads ahead of the reader. All others, such as those of gzip, pigz
or bakthat 0.6.0, are inflated one after the other as they are read.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, NoReturn

from bakthat.archive.gzip.inflate import corrupt_member_error, inflate_body
from bakthat.archive.gzip.members import (
    GZIP_MAGIC,
    HEADER_BYTES,
    MAX_MEMBER_BYTES,
    member_length,
)
from bakthat.errors import CorruptArchiveError
from bakthat.system.streams import Source
from bakthat.system.threads import ThreadPool

if TYPE_CHECKING:
    from isal.igzip_lib import IgzipDecompressor


_READ_BYTES = 256 * 1024
_SERIAL_INPUT_BYTES = 32 * 1024
"""Small, because the input after the end of a member is copied, once for each member in it."""
_SERIAL_OUTPUT_BYTES = 256 * 1024
_AHEAD_BYTES = 32 * 1024 * 1024
"""Reading ahead stops when the pending members take this much, compressed and inflated."""
_MAX_THREADS = 8

# Deflate stores what does not compress in blocks of at most 65,535 bytes with 5 bytes each
# (RFC 1951, section 3.2.4); twice that leaves room for an encoder that cuts shorter blocks.
_MAX_STORED_BYTES = MAX_MEMBER_BYTES + MAX_MEMBER_BYTES // 65535 * 10 + 1024


OnMember = Callable[[int, int], object]
"""Called with the stored length of a gzip member and the bytes that it holds."""


class GzipReader:
    """Inflate the gzip file that *source* holds, from its next byte to its end.

    *threads* is the number of members with a length that are inflated at once, by default the
    number of cores, at most 8. *source* is read only by the thread that calls :meth:`read`, and is
    not closed. Memory stays under 100 MB whatever the file holds. The caller must use the reader
    in a ``with`` or close it, which ends its threads.
    """

    def __init__(
        self,
        source: Source,
        *,
        threads: int | None = None,
        on_member: OnMember | None = None,
    ) -> None:
        self._source = source
        self._on_member = on_member
        self._threads = min(threads or os.cpu_count() or 1, _MAX_THREADS)
        self._pool: ThreadPool | None = None
        self._pending: deque[tuple[int, Future[bytes]]] = deque()
        self._pending_bytes = 0
        self._serial: IgzipDecompressor | None = None
        self._raw = b""
        self._raw_at = 0
        self._raw_offset = 0
        self._members = 0
        self._piece = b""
        self._piece_at = 0
        self._failure: BaseException | None = None
        self._closed = False

    def __enter__(self) -> GzipReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Discard the pending work and end the threads; the source stays open.

        May be called again.
        """
        self._closed = True
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
        self._pending.clear()
        self._serial = None
        self._failure = None
        self._raw = self._piece = b""

    def read(self, size: int = -1) -> bytes:
        """Return between 1 and *size* bytes, all that is left with -1, or ``b""`` at the end.

        The end is returned only after the checksum and the length of every member were verified.
        Raises CorruptArchiveError for a file that is truncated, altered or not gzip, and
        whatever the source raises; every call after an error raises the same error.
        """
        if self._closed:
            raise ValueError("read of a closed GzipReader")
        if self._failure is not None:
            raise self._failure
        if size < 0:
            return b"".join(iter(lambda: self.read(_READ_BYTES), b""))
        if size == 0:
            return b""
        if self._piece_at == len(self._piece):
            try:
                self._piece, self._piece_at = self._next_piece(), 0
            except BaseException as exc:
                # Also after an interrupt: bytes that were already read may be lost.
                self._failure = exc
                raise
        start, self._piece_at = self._piece_at, min(self._piece_at + size, len(self._piece))
        return self._piece[start : self._piece_at]

    def _next_piece(self) -> bytes:
        while True:
            if self._serial is not None:
                piece = self._inflate_serially(self._serial)
            else:
                self._read_ahead()
                if self._pending:
                    reserved, future = self._pending.popleft()
                    piece = future.result()
                    self._pending_bytes -= reserved
                elif self._begin_other_member():
                    continue
                else:
                    return b""
            if piece:
                return piece

    def _read_ahead(self) -> None:
        while len(self._pending) <= 2 * self._threads and self._pending_bytes < _AHEAD_BYTES:
            self._fill(HEADER_BYTES, beyond=0)
            length = member_length(self._raw[self._raw_at : self._raw_at + HEADER_BYTES])
            if length is None:
                return
            self._cut_member(length)

    def _cut_member(self, length: int) -> None:
        offset = self._offset
        if length > _MAX_STORED_BYTES:
            self._refuse(f"declares {length} bytes, more than any that bakthat writes")
        self._raw_at += HEADER_BYTES
        rest = length - HEADER_BYTES
        # Read the next header too. The buffer is then empty, and the next read copies nothing.
        if not self._fill(rest, beyond=HEADER_BYTES):
            raise corrupt_member_error(offset, "is truncated")
        member = memoryview(self._raw)[self._raw_at : self._raw_at + rest]
        self._raw_at += rest
        size = int.from_bytes(member[-4:], "little")
        if size > MAX_MEMBER_BYTES:
            raise corrupt_member_error(
                offset, f"declares {size} bytes, more than any that bakthat writes"
            )
        if self._pool is None:
            self._pool = ThreadPool(self._threads, thread_name_prefix="bakthat-gunzip")
        self._members += 1
        if self._on_member is not None:
            self._on_member(length, size)
        self._pending_bytes += length + size
        self._pending.append((length + size, self._pool.submit(inflate_body, member, size, offset)))

    def _begin_other_member(self) -> bool:
        # ISA-L fails on a header with a name and a comment that arrives in two pieces.
        self._fill(_SERIAL_INPUT_BYTES)
        start = self._raw[self._raw_at : self._raw_at + len(GZIP_MAGIC)]
        if start == GZIP_MAGIC:
            from isal import igzip_lib

            self._members += 1
            if self._on_member is not None:
                self._on_member(0, 0)
            self._serial = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            return True
        if not self._members:
            raise CorruptArchiveError("the file is empty" if not start else "not a gzip file")
        while self._raw_at < len(self._raw) or self._fill(1):
            if self._raw.count(0, self._raw_at) != len(self._raw) - self._raw_at:
                raise CorruptArchiveError(
                    f"data that is not gzip follows the last gzip member at byte {self._offset}"
                )
            self._raw_at = len(self._raw)
        return False

    def _inflate_serially(self, inflater: IgzipDecompressor) -> bytes:
        from isal import igzip_lib

        isal_error: type[Exception] = igzip_lib.error  # type: ignore[assignment]  # stub: instance
        chunk = b""
        if inflater.needs_input:
            if not self._fill(1):
                self._refuse("is truncated")
            chunk = self._raw[self._raw_at : self._raw_at + _SERIAL_INPUT_BYTES]
            self._raw_at += len(chunk)
        try:
            piece = inflater.decompress(chunk, _SERIAL_OUTPUT_BYTES)
        except isal_error as exc:
            raise CorruptArchiveError(
                f"the gzip data before byte {self._offset} is damaged: {exc}"
            ) from exc
        if inflater.eof:
            self._raw_at -= len(inflater.unused_data)
            self._serial = None
        return piece

    def _fill(self, count: int, *, beyond: int | None = None) -> bool:
        """Buffer *count* bytes; return False if the source ends first.

        Read at most *beyond* bytes more; None reads ahead freely.
        """
        have = len(self._raw) - self._raw_at
        if have >= count:
            return True
        pieces = [self._raw[self._raw_at :]] if have else []
        while have < count:
            want = count - have
            piece = self._source.read(max(want, _READ_BYTES) if beyond is None else want + beyond)
            if not piece:
                break
            pieces.append(piece)
            have += len(piece)
        self._raw_offset += self._raw_at
        self._raw, self._raw_at = b"".join(pieces), 0
        return have >= count

    @property
    def _offset(self) -> int:
        """The position of the next byte in the source."""
        return self._raw_offset + self._raw_at

    def _refuse(self, reason: str) -> NoReturn:
        raise corrupt_member_error(self._offset, reason)
