"""Count a tree and make its archive in a process of its own, while this one stores it.

The walk and the headers are Python in one thread, and so is much of what comes after them. In two
processes they share no interpreter; and while this one still loads what sending needs, the other
counts already. The archive comes over in memory that both share, where files are read to and
compressed from; counts, warnings and errors come as messages. Where this process may not fork,
all of it happens here.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import socket
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

from bakthat.archive.create.source import Contents, PlainFile, TreeArchive
from bakthat.archive.create.walk import Scan, WalkOptions, check_root
from bakthat.archive.report import ArchiveReport
from bakthat.archive.worker.messages import GoneError, ToldReport, hear, receive, send, tell_failure
from bakthat.archive.worker.process import Forked, may_fork
from bakthat.errors import ArchiveError
from bakthat.system.streams import BorrowingSink, ByteCounter, Sink

_SLOTS = 24
_SLOT_BYTES = 1024 * 1024
"""The shared memory, which is also how far the other process works ahead. A compressor holds up to
20 of them."""


@contextlib.contextmanager
def archiving(root: Path, arcname: str, options: WalkOptions) -> Iterator[Contents]:
    """Begin to archive *root*, in a process of its own where there can be one.

    The arguments are those of :func:`~bakthat.archive.create.writer.write_tree`, whose comment is
    told later. No process is left when the block ends. Raises SourceError when the root cannot be
    read.
    """
    check_root(root)
    archive = TreeArchive(root, arcname, options)
    process = None
    try:
        if may_fork():
            with contextlib.suppress(OSError):  # no memory, or too many processes
                process = _ArchiveAside(archive)
        yield process or archive
    finally:
        if process is not None:
            process.end()


class _ArchiveAside:
    """An archive that is made in another process; :meth:`end` must be called."""

    def __init__(self, archive: TreeArchive) -> None:
        """Raises OSError where there can be no process."""
        self._memory = memoryview(mmap.mmap(-1, _SLOTS * _SLOT_BYTES))
        self._borrowed = 0
        self._socket, theirs = socket.socketpair()
        try:
            self._process = Forked(lambda: self._work(archive, theirs))
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()

    def _work(self, archive: TreeArchive, theirs: socket.socket) -> None:
        self._socket.close()  # or it would not end when this process is gone
        with contextlib.suppress(GoneError, ConnectionError):
            _work(archive, theirs, self._memory)

    def end(self) -> None:
        """End the process, if it has not ended."""
        self._socket.close()
        self._process.end()

    def counted(self) -> Scan:
        _, said = self._hear()
        return Scan(*said)

    def write(
        self, sink: Sink, *, identity: str, report: ArchiveReport, on_bytes: ByteCounter
    ) -> None:
        with contextlib.suppress(OSError):  # should it be gone, its last words are still to come
            send(self._socket, identity)
        while True:
            word, said = self._hear()
            if word == "filled":
                self._pass_on(sink, *said)
            elif word == "read":
                on_bytes(said)
            elif word == "warning":
                report.warn(said)
            else:
                report.files, report.directories, report.bytes = said
                return

    def _pass_on(self, sink: Sink, slot: int, size: int) -> None:
        start = slot * _SLOT_BYTES
        piece = self._memory[start : start + size]
        if not isinstance(sink, BorrowingSink):
            sink.write(piece)
            self._give_back(slot)
            return
        self._borrowed += 1
        sink.borrow(piece, functools.partial(self._take_back, slot))
        while self._borrowed == _SLOTS:
            sink.wait()

    def _take_back(self, slot: int) -> None:
        self._borrowed -= 1
        self._give_back(slot)

    def _give_back(self, slot: int) -> None:
        # Should it be gone, its last words are still to be heard.
        with contextlib.suppress(OSError):
            self._socket.sendall(bytes([slot]))

    def _hear(self) -> tuple[str, Any]:
        ended = ArchiveError(
            "the process that makes the archive ended", hint="something killed it; try again"
        )
        return hear(self._socket, ended)


def _work(archive: TreeArchive, connection: socket.socket, memory: memoryview) -> None:
    """Make *archive* in the other process, and tell all of it."""
    report = ToldReport(connection)
    try:
        send(connection, ("counted", astuple(archive.counted())))
        archive.write(
            _Slots(connection, memory),
            identity=receive(connection),
            report=report,
            on_bytes=lambda count: send(connection, ("read", count)),
        )
    except (GoneError, ConnectionError):
        raise
    except Exception as exc:  # noqa: BLE001  # told where somebody hears it
        tell_failure(connection, exc)
    else:
        send(connection, ("done", (report.files, report.directories, report.bytes)))


class _Slots:
    """Lends the slots of the shared memory, and waits where none is free."""

    def __init__(self, connection: socket.socket, memory: memoryview) -> None:
        self._connection = connection
        self._memory = memory
        self._free = bytearray(range(_SLOTS))
        self._slot = 0

    def lend(self) -> memoryview:
        if not self._free:
            self._free += self._connection.recv(_SLOTS)
            if not self._free:
                raise GoneError
        self._slot = self._free.pop()
        return self._memory[self._slot * _SLOT_BYTES :][:_SLOT_BYTES]

    def take(self, lent: memoryview, size: int, /) -> None:
        send(self._connection, ("filled", (self._slot, size)))


def contents_of(
    path: Path, options: WalkOptions, *, arcname: str | None
) -> contextlib.AbstractContextManager[Contents]:
    """Get ready what is to be written; where it can, another process begins at once to count it.

    *arcname* is what *path* is called inside of the archive; with None, it is a file that is stored
    as it is. The process is gone when the block ends. Raises SourceError when *path* cannot be
    read.
    """
    if arcname is not None:
        return archiving(path, arcname, options)
    return contextlib.nullcontext(PlainFile(path, options))
