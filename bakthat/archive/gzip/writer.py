"""Compress a stream into independent gzip members, on several threads."""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Self

from bakthat.archive.gzip.level import DEFAULT_LEVEL, choose_level
from bakthat.archive.gzip.members import MEMBER_BYTES, pack_member
from bakthat.errors import UsageError
from bakthat.system.linux import usable_cores
from bakthat.system.streams import Buffer, Sink
from bakthat.system.threads import ThreadPool

MAX_THREADS = 8
"""The most threads by default; eight compress faster than storage takes bytes."""

# ISA-L's levels 1 to 3 are several times faster than zlib's; its level 0 compresses worse, and
# expands data that does not compress.
_ISAL_LEVELS = (1, 2, 3)
_RAW_DEFLATE = -15
_STORED_BYTES = 65535
_STORED_HEADER = struct.Struct("<?HH")


def _nothing() -> None:
    pass


class GzipWriter:
    """Compress the written bytes into gzip members and push them to *sink* in order.

    *level* is gzip's, 1 (fastest) to 9 (smallest). *threads* is the number of compressing threads,
    by default one for each processor that this process may use, at most :data:`MAX_THREADS`. Only
    the thread that calls the methods writes to the sink, which is never closed. Memory is bounded
    by two members of input and output for each thread, and four more. *on_member* is called with
    the length of each member, after the sink has taken it.

    End it with :meth:`close` or :meth:`abort`; as a context manager it closes after the block
    and aborts on an exception. It is not an ``io.IOBase``, whose destructor would finish half a
    file. Raises UsageError for an invalid level or number of threads.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        level: int = DEFAULT_LEVEL,
        threads: int | None = None,
        on_member: Callable[[int], object] | None = None,
    ) -> None:
        if not 1 <= level <= 9:
            raise UsageError(
                f"there is no compression level {level}", hint="choose 1 (fastest) to 9"
            )
        if threads is None:
            threads = min(usable_cores(), MAX_THREADS)
        if threads < 1:
            raise UsageError(f"cannot compress on {threads} threads", hint="choose 1 or more")
        self._sink = sink
        self._level = level
        self._pool = ThreadPool(threads, thread_name_prefix="bakthat-gzip")
        self._on_member = on_member
        self._limit = 2 * threads + 4
        self._pending: deque[tuple[Future[bytes], Callable[[], None]]] = deque()
        self._spare: list[memoryview] = []
        self._gathered = bytearray()
        self._empty = True
        self._closed = False
        self._error: BaseException | None = None

    def write(self, data: Buffer, /) -> None:
        """Take all of *data*, waiting while the compressors or the sink are slower.

        Raises what the sink or a compressor raised, now and at every later call; ValueError
        after :meth:`close` or :meth:`abort`.
        """
        self._check()
        try:
            with memoryview(data).cast("B") as view:
                self._take(view)
            self._push(self._limit)
        except BaseException as exc:
            self._fail(exc)
            raise

    def lend(self) -> memoryview:
        """Return memory for one member, to be filled and given back by :meth:`take`.

        The memory is reused: allocating new pages for each member would take longer than copying.
        """
        return self._spare.pop() if self._spare else memoryview(bytearray(MEMBER_BYTES))

    def take(self, lent: memoryview, size: int, /) -> None:
        """Take the first *size* bytes of *lent*, from :meth:`lend`; a whole member is not copied.

        The caller must not touch *lent* any more. Raises as :meth:`write`.
        """
        self.borrow(lent[:size], partial(self._spare.append, lent))

    def borrow(self, data: memoryview, give_back: Callable[[], None], /) -> None:
        """Take *data*; a whole member is not copied.

        Calls *give_back* when *data* was compressed and written, or copied. Raises as
        :meth:`write`.
        """
        if len(data) != MEMBER_BYTES or self._gathered:
            self.write(data)
            give_back()
            return
        self._check()
        try:
            self._submit(data, give_back)
            self._push(self._limit)
        except BaseException as exc:
            self._fail(exc)
            raise

    def wait(self) -> None:
        """Wait until one more piece is given back, if any is pending. Raises as :meth:`write`."""
        self._check()
        try:
            self._push(max(len(self._pending) - 1, 0))
        except BaseException as exc:
            self._fail(exc)
            raise

    def close(self) -> None:
        """Compress and write the remaining bytes, and return when the sink has all of it.

        Raises what the sink or a compressor raised; then, and after :meth:`abort`, the output is
        incomplete. A second call does nothing.
        """
        if self._closed and self._error is None:
            return
        self._check()
        try:
            # Empty input still makes one member: an empty file is not a gzip file.
            if self._gathered or self._empty:
                self._submit(bytes(self._gathered))
            self._push(0)
        except BaseException as exc:
            self._fail(exc)
            raise
        self._closed = True
        self._stop()

    def abort(self) -> None:
        """Stop without writing more; returns when no thread is left.

        May be called again, and after :meth:`close` does nothing.
        """
        if not self._closed and self._error is None:
            self._fail(ValueError("the gzip writer was aborted"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self._closed:
            raise ValueError("the gzip writer is closed")

    def _take(self, view: memoryview) -> None:
        """Cut *view* into members, and buffer the bytes that do not fill one."""
        start = 0
        while start < len(view):
            left = len(view) - start
            if not self._gathered and left >= MEMBER_BYTES:
                self._submit(bytes(view[start : start + MEMBER_BYTES]))
                start += MEMBER_BYTES
                continue
            count = min(left, MEMBER_BYTES - len(self._gathered))
            self._gathered += view[start : start + count]
            start += count
            if len(self._gathered) == MEMBER_BYTES:
                self._submit(bytes(self._gathered))
                self._gathered.clear()

    def _submit(self, data: bytes | memoryview, give_back: Callable[[], None] = _nothing) -> None:
        self._empty = False
        self._push(self._limit - 1)
        future = self._pool.submit(compress_member, data, self._level)
        self._pending.append((future, give_back))

    def _push(self, keep: int) -> None:
        """Write finished members to the sink, waiting while more than *keep* are unfinished."""
        while self._pending and (len(self._pending) > keep or self._pending[0][0].done()):
            future, give_back = self._pending.popleft()
            member = future.result()
            self._sink.write(member)
            if self._on_member is not None:
                self._on_member(len(member))
            give_back()

    def _fail(self, error: BaseException) -> None:
        self._error = error
        self._stop()

    def _stop(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pending.clear()
        self._spare.clear()
        self._gathered.clear()


def compress_member(data: bytes | memoryview, level: int) -> bytes:
    """Return *data* (at most a member's) as one gzip member, compressed at *level*.

    At the default level, :func:`~bakthat.archive.gzip.level.choose_level` chooses one.
    """
    # Imported here, so that importing this module does not load it.
    from isal import igzip_lib, isal_zlib

    if level == DEFAULT_LEVEL:
        level = choose_level(data)
    if level == 0:
        deflated = _store(data)
    elif level in _ISAL_LEVELS:
        deflated = igzip_lib.compress(data, level, igzip_lib.COMP_DEFLATE)
    else:
        deflated = _deflate(data, level)
    return pack_member(deflated, isal_zlib.crc32(data), len(data))


def _store(data: bytes | memoryview) -> bytes:
    """Return *data* as stored blocks (RFC 1951, section 3.2.4), five times as fast as zlib."""
    blocks: list[bytes | memoryview] = []
    for start in range(0, len(data), _STORED_BYTES):
        piece = data[start : start + _STORED_BYTES]
        is_final = start + _STORED_BYTES >= len(data)
        blocks += (_STORED_HEADER.pack(is_final, len(piece), len(piece) ^ 0xFFFF), piece)
    return b"".join(blocks)


def _deflate(data: bytes | memoryview, level: int) -> bytes:
    compressor = zlib.compressobj(level, zlib.DEFLATED, _RAW_DEFLATE, zlib.DEF_MEM_LEVEL + 1)
    return compressor.compress(data) + compressor.flush()
