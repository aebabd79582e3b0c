"""Lay out an archive in a process of its own, while this one fetches, decrypts and inflates it.

To read the headers of many small files and to make them is Python in one thread, and so is much
of what comes before. In two processes they share no interpreter. The archive goes over in memory
that both share; what comes of it comes back as messages. Where this process may not fork, nothing
of this is used.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
from collections.abc import Callable

from bakthat.archive.extract.layout import CannotMakeError, lay_out
from bakthat.archive.extract.tree import PathSet
from bakthat.archive.report import ArchiveReport
from bakthat.archive.worker.messages import GoneError, ToldReport, hear, receive, send, tell_failure
from bakthat.archive.worker.process import Forked, may_fork
from bakthat.errors import DestinationError
from bakthat.system.streams import Source

MIN_FILES = 500
"""Fewer are made before another process would pay."""
MAX_AVERAGE_BYTES = 128 * 1024
"""Larger files take their time in the kernel, where another thread may work meanwhile."""

_SLOTS = 8
_SLOT_BYTES = 1024 * 1024
"""The shared memory, which is also how far this process works ahead."""


class TreeProcess:
    """A process that is ready to lay out an archive.

    Made before the threads that read the archive; used in a ``with``, at whose end it is gone.
    """

    def __init__(self) -> None:
        """Raises OSError where there can be no process."""
        self._memory = memoryview(mmap.mmap(-1, _SLOTS * _SLOT_BYTES))
        self._free = list(range(_SLOTS))
        self._socket, theirs = socket.socketpair()
        try:
            self._process = Forked(lambda: self._work(theirs))
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()

    def __enter__(self) -> TreeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _work(self, theirs: socket.socket) -> None:
        self._socket.close()  # or it would not end when this process is gone
        with contextlib.suppress(GoneError, ConnectionError):
            _work(theirs, self._memory)

    def end(self) -> None:
        """End the process, if it has not ended; may be called again."""
        if self._socket.fileno() >= 0:
            self._socket.close()
            self._process.end()

    def lay_out(
        self,
        source: Source,
        root: int,
        report: ArchiveReport,
        *,
        check_comment: Callable[[bytes], None] | None = None,
    ) -> PathSet:
        """Do, once, what :func:`~bakthat.archive.extract.layout.lay_out` does, and end the process.

        What goes wrong there, and what *check_comment* says, is raised here some pieces later.
        """
        try:
            self._send_fd(root)
            while data := source.read(_SLOT_BYTES):
                while not self._free:
                    self._hear(report, check_comment)
                slot = self._free.pop()
                start = slot * _SLOT_BYTES
                self._memory[start : start + len(data)] = data
                self._tell((slot, len(data)), report, check_comment)
            self._tell(None, report, check_comment)
            while (done := self._hear(report, check_comment)) is None:
                pass
            return done
        finally:
            self.end()  # before anybody removes what it has made

    def _send_fd(self, root: int) -> None:
        # Its end is told when it is waited for.
        with contextlib.suppress(OSError):
            socket.send_fds(self._socket, [b"."], [root])

    def _tell(
        self,
        message: tuple[int, int] | None,
        report: ArchiveReport,
        check_comment: Callable[[bytes], None] | None,
    ) -> None:
        try:
            send(self._socket, message)
        except OSError:
            while True:  # it has ended, and its last words say why
                self._hear(report, check_comment)

    def _hear(
        self, report: ArchiveReport, check_comment: Callable[[bytes], None] | None
    ) -> PathSet | None:
        """Take one message; raise what it says went wrong, and return what is said at the end."""
        ended = DestinationError(
            "the process that makes the files ended", hint="something killed it; try again"
        )
        word, said = hear(self._socket, ended)
        if word == "free":
            self._free.append(said)
        elif word == "warning":
            report.warn(said)
        elif word == "comment":
            if check_comment is not None:
                check_comment(said)
        elif word == "system":
            path, number, text = said
            raise CannotMakeError(path, OSError(number, text))
        else:
            files, directories, size, digests = said
            report.files += files
            report.directories += directories
            report.bytes += size
            return PathSet(digests)
        return None


def tree_process(files: int, size: int) -> TreeProcess | None:
    """Return a process for *files* with *size* bytes in all, or None where it would not pay."""
    if files < MIN_FILES or size > files * MAX_AVERAGE_BYTES or not may_fork():
        return None
    try:
        return TreeProcess()
    except OSError:  # no memory, or too many processes
        return None


def _work(connection: socket.socket, memory: memoryview) -> None:
    """Lay the archive out in the other process, and tell all of it."""
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
    if not descriptors:
        return  # nothing was to be made
    umask = os.umask(0)  # of this process alone: files are made with their modes
    report = ToldReport(connection)
    source = _Slots(connection, memory)
    try:
        implicit = lay_out(
            source,
            descriptors[0],
            report,
            check_comment=lambda comment: send(connection, ("comment", comment)),
            umask=umask,
        )
    except CannotMakeError as exc:
        why = exc.error.errno or 0, exc.error.strerror or str(exc.error)
        send(connection, ("system", (exc.path, *why)))
    except (GoneError, ConnectionError):
        raise
    except Exception as exc:  # noqa: BLE001  # told where somebody hears it
        tell_failure(connection, exc)
    else:
        done = (report.files, report.directories, report.bytes, implicit.digests())
        send(connection, ("done", done))


class _Slots:
    """Lends what comes in the slots of the shared memory, one after the other."""

    def __init__(self, connection: socket.socket, memory: memoryview) -> None:
        self._connection = connection
        self._memory = memory
        self._lent: int | None = None
        self._ended = False

    def read(self, _size: int, /) -> bytes | memoryview:
        """Return the next piece, which is never larger than the reader of an archive asks for."""
        if self._lent is not None:
            send(self._connection, ("free", self._lent))
            self._lent = None
        message = None if self._ended else receive(self._connection)
        if message is None:
            self._ended = True
            return b""
        self._lent, size = message
        start = self._lent * _SLOT_BYTES
        return self._memory[start : start + size]
