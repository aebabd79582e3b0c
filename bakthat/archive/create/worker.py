"""Count a tree and write its archive in a worker process, while this process stores it.

Walking, packing headers and much of the upload run in Python, so in one process they would wait for
each other. The worker counts the tree while this process still loads the modules for the upload. It
reads the files into shared memory, from which this process compresses them, and hashes them there;
counts, warnings, the segments of the index and errors come as messages. So does the path that is
read now, with each piece, where a progress bar shows it; and the names of all files, many at once,
where somebody listens to them. Where this process may not fork, it does all of this itself.
"""

from __future__ import annotations

import contextlib
import os
import socket
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
from bakthat.archive.create.walk import Scan, WalkOptions, check_root
from bakthat.archive.index.writer import Segment
from bakthat.archive.report import ArchiveReport, PlanTotals
from bakthat.archive.worker.messages import ConnectionEndedError, receive, send
from bakthat.archive.worker.process import WorkerProcess, may_fork
from bakthat.archive.worker.shared_memory import FILLED, RingReader, RingSink, SharedRing
from bakthat.errors import ArchiveError
from bakthat.system.streams import ByteCounter, Sink

if TYPE_CHECKING:
    from bakthat.archive.create.increment.archive import Basis

_PIECES = 24
_PIECE_BYTES = 1024 * 1024
"""The size of the shared memory limits how far the worker runs ahead. A compressor holds up to 20
pieces."""

# The kinds of messages: those from the worker, besides FILLED, and the one to it.
_COUNT, _READ, _WARNING, _SEGMENT, _NAMES = "count", "read", "warning", "segment", "names"
_RESULT = "result"
_WRITE = "write"

_MOST_NAMES = 1000
"""How many names are sent at once; the first process logs them while the next are gathered."""

_RESULT_COUNTS = ("files", "directories", "bytes", "excluded_files", "excluded_directories")
"""The attributes of the report that the last message holds, in order; the length
of the archive precedes them."""


@contextlib.contextmanager
def open_content(
    path: Path,
    options: WalkOptions,
    *,
    arcname: str,
    unchanged: bool = False,
    basis: Basis | None = None,
) -> Iterator[BackupContent]:
    """Open *path* for archiving; where possible, a worker process starts to count it at once.

    *arcname* is the name of *path* in the archive and in the index. *unchanged* stores *path*, a
    file, as it is. With *basis*, the tree is compared with it. The worker has ended when the block
    ends. Raises SourceError when *path* cannot be read.
    """
    if unchanged:
        with contextlib.closing(PlainFile(path, arcname)) as file:
            yield file
        return
    archive: BackupContent
    tree = TreeArchive(path, arcname, options)
    if basis is not None:
        from bakthat.archive.create.increment.archive import ComparedArchive

        tree = ComparedArchive(path, arcname, options, basis)
    archive = tree
    check_root(path)  # before any process is started
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
        self.begun_ns = archive.begun_ns
        self.totals: PlanTotals | None = None
        ring = SharedRing(_PIECES, _PIECE_BYTES)
        self._worker = WorkerProcess(lambda connection: _work(archive, ring, connection))
        self._reader = RingReader(ring, self._worker.connection)

    def close(self) -> None:
        """End the worker process."""
        self._worker.end()

    def begin(self, identity: str, *, increment: bool = False, is_followed: bool = False) -> None:
        with contextlib.suppress(OSError):  # if it has ended, its last message says why
            send(self._worker.connection, _WRITE, (identity, increment, is_followed))

    def count(self) -> Scan:
        _, (numbers, totals) = self._receive()
        self.totals = PlanTotals(*totals) if totals is not None else None
        return Scan(*numbers)

    def write(
        self,
        sink: Sink,
        *,
        report: ArchiveReport,
        on_bytes: ByteCounter,
        on_segment: SegmentReceiver,
    ) -> int:
        path, read = "", 0
        report.current = lambda: (path, read)
        while True:
            kind, content = self._receive()
            if kind == FILLED:
                self._reader.pass_on(sink, *content)
            elif kind == _SEGMENT:
                on_segment(Segment._make(content))
            elif kind == _READ:
                count, path = content
                read += count
                on_bytes(count)
            elif kind == _NAMES:
                for line in content:
                    report.log_name(line)
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
                "the process that makes the archive ended",
                hint="try again; the log of the kernel may say what killed it (dmesg)",
            ) from None


class _SendingReport(ArchiveReport):
    """A report whose warnings and names are sent as messages."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._connection = connection
        self._names: list[str] = []

    def warn(self, text: str) -> None:
        self.send_names()
        send(self._connection, _WARNING, text)

    def log_name(self, line: str) -> None:
        self._names.append(line)
        if len(self._names) == _MOST_NAMES:
            self.send_names()

    def send_names(self) -> None:
        """Send the names that wait."""
        if self._names:
            send(self._connection, _NAMES, self._names)
            self._names.clear()

    def send_bytes(self, count: int, *, is_followed: bool) -> None:
        """Send that *count* bytes more were read, with the path if it *is_followed*."""
        self.send_names()
        path = self.current()[0] if is_followed and self.current is not None else ""
        send(self._connection, _READ, (count, path))


def _work(archive: TreeArchive, ring: SharedRing, connection: socket.socket) -> None:
    """Make *archive* in the worker process."""
    counted = archive.count()
    totals = astuple(archive.totals) if archive.totals is not None else None
    send(connection, _COUNT, (astuple(counted), totals))
    identity, increment, is_followed = receive(connection)[1]
    archive.begin(identity, increment=increment)
    report = _SendingReport(connection)
    size = archive.write(
        RingSink(ring, connection),
        report=report,
        on_bytes=lambda count: report.send_bytes(count, is_followed=is_followed),
        # A plain tuple: marshal supports no class.
        on_segment=lambda segment: send(connection, _SEGMENT, tuple(segment)),
    )
    report.send_names()
    send(connection, _RESULT, (size, *(getattr(report, name) for name in _RESULT_COUNTS)))
