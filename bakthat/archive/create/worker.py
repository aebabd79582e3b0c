"""Count a tree and write its archive in a worker process, while this process stores it.

Walking, packing headers and much of the upload run in Python, so in one process they would wait for
each other. The worker counts the tree while this process still loads the modules for the upload. It
reads the files into shared memory, from which this process compresses them, and hashes them there;
counts, warnings, the segments of the index and errors come as messages. Where this process may not
fork, it does all of this itself.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bakthat.archive.create.content import (
    BackupContent,
    PlainFile,
    SegmentReceiver,
    TreeArchive,
)
from bakthat.archive.create.recorder import ContentHasher, PieceContents
from bakthat.archive.create.walk import Scan, WalkOptions, check_root
from bakthat.archive.index.writer import Segment
from bakthat.archive.report import ArchiveReport
from bakthat.archive.worker.messages import ConnectionEndedError, receive, send
from bakthat.archive.worker.process import WorkerProcess, may_fork
from bakthat.archive.worker.shared_memory import FILLED, RingReader, RingSink, SharedRing
from bakthat.errors import ArchiveError
from bakthat.system.streams import ByteCounter, Sink

if TYPE_CHECKING:
    from concurrent.futures import Future

_PIECES = 24
_PIECE_BYTES = 1024 * 1024
"""The size of the shared memory limits how far the worker runs ahead. A compressor holds up to 20
pieces."""

_MAX_HANDED_OVER = 16
"""The most contents of one piece that are hashed in the thread. With more, the two threads would
wait for each other's turn for as long as hashing takes."""

# The kinds of messages: those from the worker, besides FILLED, and the one to it.
_COUNT, _READ, _WARNING, _SEGMENT = "count", "read", "warning", "segment"
_RESULT = "result"
_WRITE = "write"

_RESULT_COUNTS = ("files", "directories", "bytes", "excluded_files", "excluded_directories")
"""The attributes of the report that the last message holds, in order; the length
of the archive precedes them."""


@contextlib.contextmanager
def open_content(
    path: Path, options: WalkOptions, *, arcname: str, unchanged: bool = False
) -> Iterator[BackupContent]:
    """Open *path* for archiving; where possible, a worker process starts to count it at once.

    *arcname* is the name of *path* in the archive and in the index. *unchanged* stores *path*, a
    file, as it is. The worker has ended when the block ends. Raises SourceError when *path* cannot
    be read.
    """
    if unchanged:
        with contextlib.closing(PlainFile(path, arcname)) as file:
            yield file
        return
    check_root(path)  # before any process is started
    archive: BackupContent
    archive = tree = TreeArchive(path, arcname, options)
    try:
        if may_fork():
            with contextlib.suppress(OSError):  # no memory, descriptors or processes left
                archive = _WorkerArchive(tree)
        yield archive
    finally:
        archive.close()


class _WorkerArchive:
    """An archive that is made in a worker process; the caller must call :meth:`close`."""

    status: os.stat_result | None = None

    def __init__(self, archive: TreeArchive) -> None:
        """Raises OSError where no process can be started."""
        ring = SharedRing(_PIECES, _PIECE_BYTES)
        self._worker = WorkerProcess(lambda connection: _work(archive, ring, connection))
        self._reader = RingReader(ring, self._worker.connection)

    def close(self) -> None:
        """End the worker process."""
        self._worker.end()

    def begin(self, identity: str) -> None:
        with contextlib.suppress(OSError):  # if it has ended, its last message says why
            send(self._worker.connection, _WRITE, identity)

    def count(self) -> Scan:
        _, numbers = self._receive()
        return Scan(*numbers)

    def write(
        self,
        sink: Sink,
        *,
        report: ArchiveReport,
        on_bytes: ByteCounter,
        on_segment: SegmentReceiver,
    ) -> int:
        while True:
            kind, content = self._receive()
            if kind == FILLED:
                self._reader.pass_on(sink, *content)
            elif kind == _SEGMENT:
                on_segment(Segment._make(content))
            elif kind == _READ:
                on_bytes(content)
            elif kind == _WARNING:
                report.warn(content)
            else:
                size, *counts = content
                for name, count in zip(_RESULT_COUNTS, counts, strict=True):
                    setattr(report, name, count)
                return int(size)

    def _receive(self) -> tuple[str, Any]:
        try:
            return receive(self._worker.connection)
        except ConnectionEndedError:
            raise ArchiveError(
                "the process that makes the archive ended", hint="something killed it; try again"
            ) from None


class _SendingReport(ArchiveReport):
    """A report whose warnings are sent as messages."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._connection = connection

    def warn(self, text: str) -> None:
        send(self._connection, _WARNING, text)


class _HashingSink:
    """The ring, and a thread that hashes the contents in its pieces beside what fills them.

    Segments are passed on by the thread that calls the methods. Raises what passing them on raises.
    """

    def __init__(self, ring: RingSink, on_segment: SegmentReceiver) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._ring = ring
        self._on_segment = on_segment
        self._made: deque[Segment] = deque()
        self._hasher = ContentHasher(self._made.append)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="bakthat-hash")
        self._jobs: dict[int, Future[None]] = {}

    def lend(self) -> memoryview:
        """Return a free piece, of which nothing is to be hashed any more; wait for one."""
        piece = self._ring.lend()
        self._finish(self._ring.number)
        return piece

    def take(self, lent: memoryview, size: int, /) -> None:
        """Send a piece."""
        self._ring.take(lent, size)

    def begin(self, piece: memoryview, contents: PieceContents) -> None:
        """Begin to hash *piece*, the one that is lent, before it is sent."""
        if len(contents.contents) > _MAX_HANDED_OVER:
            self._finish_all()
            self._hasher.hash_piece(piece, contents)
        else:
            job = self._pool.submit(self._hasher.hash_piece, piece, contents)
            self._jobs[self._ring.number] = job

    def close(self) -> None:
        """Hash what is left, pass on the last segments, and end the thread."""
        self._finish_all()
        self._pool.shutdown()

    def _finish_all(self) -> None:
        for number in list(self._jobs):
            self._finish(number)

    def _finish(self, number: int) -> None:
        job = self._jobs.pop(number, None)
        if job is not None:
            job.result()
        while self._made:
            self._on_segment(self._made.popleft())


def _work(archive: TreeArchive, ring: SharedRing, connection: socket.socket) -> None:
    """Make *archive* in the worker process."""
    send(connection, _COUNT, astuple(archive.count()))
    _, identity = receive(connection)
    report = _SendingReport(connection)
    sink = _HashingSink(
        RingSink(ring, connection),
        # A plain tuple: marshal supports no class.
        on_segment=lambda segment: send(connection, _SEGMENT, tuple(segment)),
    )
    size = archive.write_pieces(
        sink,
        identity=identity,
        report=report,
        on_bytes=lambda count: send(connection, _READ, count),
        on_piece=sink.begin,
    )
    sink.close()
    send(connection, _RESULT, (size, *(getattr(report, name) for name in _RESULT_COUNTS)))
