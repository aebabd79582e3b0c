"""Make the files of an archive in a process of its own, while this one reads the archive.

To make many small files takes about as long as to read and check the archive that holds them.
Python does one of both at a time, so the tree (:mod:`bakthat.archive.staged_tree`) goes into a
forked process. Members go there in their order, over a socket; the content of files in memory
that both share. Where this process may not fork, nothing of this is used.
"""

from __future__ import annotations

import marshal
import mmap
import socket
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bakthat import errors
from bakthat.archive.forked import Forked, may_fork
from bakthat.archive.report import ArchiveReport
from bakthat.archive.staged_tree import PathSet, StagedTree
from bakthat.archive.tar_reader import Member, MemberType

MIN_FILES = 500
"""Fewer are made before another process would pay."""
MAX_AVERAGE_BYTES = 128 * 1024
"""Larger files take their time in the kernel, where another thread may work meanwhile."""

_SLOTS = 4
_SLOT_BYTES = 1024 * 1024
"""The shared memory: content goes there a slot at a time, with a batch of orders."""
_MAX_ORDERS = 512
_MAX_ORDER_BYTES = 1024 * 1024
"""Of names and attributes in one batch, as far as one member does not have more."""
_MAX_WARNING_BYTES = 16 * 1024
"""Of the texts in one answer. All answers under way fit into the socket's buffer, or two
processes that both send would wait for each other."""

_LENGTH = struct.Struct("<Q")
_TYPES = list(MemberType)

CannotWrite = Callable[[bytes, OSError], Exception]
"""Makes the exception for a member, by its path, that could not be written."""


class TreeProcess:
    """A process that is ready to make a tree.

    Made before the threads that read the archive; used in a ``with``, at whose end it is gone.
    """

    def __init__(self) -> None:
        """Raises OSError where there can be no process."""
        self.memory = mmap.mmap(-1, _SLOTS * _SLOT_BYTES)
        self.socket, theirs = socket.socketpair()
        try:
            self._process = Forked(lambda: self._work(theirs))
        except BaseException:
            self.socket.close()
            raise
        finally:
            theirs.close()

    def __enter__(self) -> TreeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _work(self, theirs: socket.socket) -> None:
        self.socket.close()  # or it would not end when this process is gone
        _Worker(theirs, self.memory).run()

    def end(self) -> None:
        """End the process, if it has not ended; may be called again."""
        if self.socket.fileno() >= 0:
            self.socket.close()
            self._process.end()
            self.memory.close()


def tree_process(files: int, size: int) -> TreeProcess | None:
    """Return a process for *files* with *size* bytes in all, or None where it would not pay."""
    if files < MIN_FILES or size > files * MAX_AVERAGE_BYTES or not may_fork():
        return None
    try:
        return TreeProcess()
    except OSError:  # no memory, or too many processes
        return None


class TreeAside:
    """What :class:`~bakthat.archive.staged_tree.StagedTree` is, made in another process.

    What goes wrong there is raised here, at one of the members after the one it is about.
    """

    def __init__(
        self, process: TreeProcess, root: int, report: ArchiveReport, cannot_write: CannotWrite
    ) -> None:
        self.implicit = PathSet()
        self._process = process
        self._report = report
        self._cannot_write = cannot_write
        self._orders: list[tuple[Any, ...]] = []
        self._order_bytes = 0
        self._slot = 0
        self._filled = 0
        self._unanswered = 0
        try:
            socket.send_fds(process.socket, [b"."], [root])
        except OSError:
            raise _ended() from None

    def __enter__(self) -> TreeAside:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            # Before anybody removes what it has made.
            self._process.end()

    def add(self, member: Member, content: Iterable[tuple[int, memoryview]]) -> None:
        """Have *member* made; as :meth:`~bakthat.archive.staged_tree.StagedTree.add`."""
        self._orders.append(_pack(member))
        self._order_bytes += _weight(member)
        if member.type is MemberType.FILE:
            for offset, piece in content:
                self._add_piece(offset, piece)
        if len(self._orders) >= _MAX_ORDERS or self._order_bytes >= _MAX_ORDER_BYTES:
            self._send()

    def _add_piece(self, offset: int, piece: memoryview) -> None:
        while piece:
            room = _SLOT_BYTES - self._filled
            if not room:
                self._send()
                continue
            part = piece[:room]
            start = self._slot * _SLOT_BYTES + self._filled
            self._process.memory[start : start + len(part)] = part
            self._orders.append((offset, start, len(part)))
            self._filled += len(part)
            offset += len(part)
            piece = piece[len(part) :]

    def _send(self) -> None:
        """Hand over what was gathered, and wait until there is a slot for more."""
        if not self._orders:
            return
        self._deliver(self._orders)
        self._orders = []
        self._order_bytes = self._filled = 0
        self._slot = (self._slot + 1) % _SLOTS
        if self._unanswered == _SLOTS:
            self._hear()

    def _finish(self) -> None:
        self._send()
        self._deliver(None)
        while self._unanswered > 1:
            self._hear()
        files, directories, digests = self._hear()
        self._report.files += files
        self._report.directories += directories
        self.implicit = PathSet(digests)

    def _deliver(self, message: list[tuple[Any, ...]] | None) -> None:
        try:
            _send(self._process.socket, message)
        except OSError:
            while True:  # it has ended, and its last words say why
                self._hear()
        self._unanswered += 1

    def _hear(self) -> Any:
        """Take one answer; raise what it says went wrong."""
        try:
            word, warnings, more, said = _receive(self._process.socket)
        except _GoneError:
            raise _ended() from None
        self._unanswered -= 1
        for text in warnings:
            self._report.warn(text)
        self._report.warning_count += more
        if word == "system":
            path, number, text = said
            raise self._cannot_write(path, OSError(number, text))
        if word == "bakthat":
            name, text, hint = said
            raise getattr(errors, name)(text, hint=hint)
        if word == "defect":
            raise RuntimeError(said)
        return said


class _Worker:
    """What goes on in the other process."""

    def __init__(self, connection: socket.socket, memory: mmap.mmap) -> None:
        self._connection = connection
        self._memory = memoryview(memory)
        self._report = _CollectedWarnings()
        self._path = b""
        self._next: tuple[Any, ...] | None = None
        """The order that comes next."""
        self._orders: Iterator[tuple[Any, ...]] = iter(())

    def run(self) -> None:
        _, descriptors, _, _ = socket.recv_fds(self._connection, 1, 1)
        if not descriptors:
            return  # nothing was to be made
        try:
            tree = self._make(descriptors[0])
        except errors.BakthatError as exc:
            self._answer("bakthat", (type(exc).__name__, str(exc), exc.hint))
        except OSError as exc:
            self._answer("system", (self._path, exc.errno or 0, exc.strerror or str(exc)))
        except _GoneError:
            pass  # nobody hears an answer either
        except Exception as exc:  # noqa: BLE001  # told where somebody hears it
            self._answer("defect", f"{type(exc).__name__}: {exc}")
        else:
            digests = tree.implicit.digests()
            self._answer("done", (self._report.files, self._report.directories, digests))

    def _make(self, root: int) -> StagedTree:
        self._orders = self._receive_orders()
        with StagedTree(root, self._report) as tree:
            self._advance()
            while self._next is not None:
                member = _unpack(self._next)
                self._path = member.name
                self._advance()
                tree.add(member, self._content())
                for _ in self._content():  # what the tree did not ask for
                    pass
        return tree

    def _advance(self) -> None:
        self._next = next(self._orders, None)

    def _receive_orders(self) -> Iterator[tuple[Any, ...]]:
        """Yield every order; a batch is answered when the first of the next is asked for."""
        while (batch := _receive(self._connection)) is not None:
            yield from batch
            self._answer("made", None)

    def _content(self) -> Iterator[tuple[int, memoryview]]:
        """Yield the pieces of content that come before the next member."""
        while self._next is not None and len(self._next) == 3:
            offset, start, size = self._next
            yield offset, self._memory[start : start + size]
            self._advance()

    def _answer(self, word: str, said: object) -> None:
        texts, more = self._report.take()
        _send(self._connection, (word, texts, more, said))


class _CollectedWarnings(ArchiveReport):
    """Keeps warnings until they are sent to who logs them."""

    def warn(self, text: str) -> None:
        self.warning_count += 1
        if sum(map(len, self.warnings)) + len(text) <= _MAX_WARNING_BYTES // 4:
            self.warnings.append(text)

    def take(self) -> tuple[list[str], int]:
        """Return the texts since the last call, and how many more there were."""
        texts, more = self.warnings, self.warning_count - len(self.warnings)
        self.warnings, self.warning_count = [], 0
        return texts, more


class _GoneError(Exception):
    """The other process is gone."""


def _ended() -> errors.DestinationError:
    return errors.DestinationError(
        "the process that makes the files ended", hint="something killed it; try again"
    )


def _pack(member: Member) -> tuple[Any, ...]:
    """Return *member* as marshal takes it; no piece of content has as many values."""
    return (
        member.name,
        _TYPES.index(member.type),
        member.mode,
        member.uid,
        member.gid,
        member.uname,
        member.gname,
        member.size,
        member.mtime_ns,
        member.linkname,
        member.major,
        member.minor,
        member.xattrs,
        member.acls,
        None if member.sparse is None else member.sparse.tobytes(),
    )


def _unpack(order: tuple[Any, ...]) -> Member:
    name, kind, *rest, sparse = order
    member = Member(name, _TYPES[kind], *rest)
    if sparse is not None:
        member.sparse = array("Q", sparse)
    return member


def _weight(member: Member) -> int:
    size = len(member.name) + len(member.linkname)
    if member.xattrs or member.acls or member.sparse:
        size += sum(map(len, member.xattrs.values())) + sum(map(len, member.acls.values()))
        size += 8 * len(member.sparse or ())
    return size


def _send(connection: socket.socket, message: Any) -> None:
    text = marshal.dumps(message)
    connection.sendall(_LENGTH.pack(len(text)) + text)


def _receive(connection: socket.socket) -> Any:
    """Return the next message. Raises _GoneError."""
    (size,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    return marshal.loads(_exactly(connection, size))


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        try:
            count = connection.recv_into(view)
        except ConnectionError:
            count = 0
        if not count:
            raise _GoneError
        view = view[count:]
    return bytes(data)
