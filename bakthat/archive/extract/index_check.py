"""Check the members of an archive against the entries of its index, and files by their SHA-256."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import NoReturn

from bakthat.archive.attributes import attribute_records, attributes_digest
from bakthat.archive.content_hash import ContentHash
from bakthat.archive.extract.tree import split_name
from bakthat.archive.tar.member import Member, MemberType
from bakthat.errors import CorruptArchiveError
from bakthat.format.entry import Entry, EntryType
from bakthat.system.text import quoted
from bakthat.system.threads import ThreadPool

_SMALL_BYTES = 64 * 1024
"""Files up to this size are hashed at once: a thread would wait for the lock of the interpreter,
and let others wait, for longer than that takes."""
_BATCH_BYTES = 2 * 1024 * 1024
_BATCH_PIECES = 256
"""The thread gets the pieces of other files in such batches, for the same reason."""
_MAX_BATCHES = 2
"""Batches that wait to be hashed; each keeps some buffers of 1 MiB of the reader alive."""

NO_INDEX_HINT = "bakthat restore --no-index restores without the index (use_index=False in Python)"

_TYPES = {
    EntryType.FILE: MemberType.FILE,
    EntryType.DIRECTORY: MemberType.DIRECTORY,
    EntryType.SYMLINK: MemberType.SYMLINK,
    EntryType.HARDLINK: MemberType.HARDLINK,
    EntryType.CHARACTER: MemberType.CHARDEV,
    EntryType.BLOCK: MemberType.BLOCKDEV,
    EntryType.FIFO: MemberType.FIFO,
}
_Piece = tuple[ContentHash, int, memoryview, Entry | None]
"""The hash of a file and bytes of it at an offset; its entry comes with the end of the file."""
_NOTHING = memoryview(b"")


class IndexCheck:
    """Compare what is read from an archive with *entries*, those of the same members in order.

    With *parts*, what is read is a stream of these members alone, without any others.
    *on_difference* is called with the entry of each file whose content has another SHA-256, in any
    order; without it, that raises CorruptArchiveError, at once or from a later call. Used in a
    ``with``, which ends its thread: large files are hashed beside what the caller does with them.
    """

    def __init__(
        self,
        entries: Iterable[Entry],
        *,
        parts: bool = False,
        on_difference: Callable[[Entry], None] | None = None,
    ) -> None:
        self._entries = iter(entries)
        self._parts = parts
        self._parts_end = 0
        self._on_difference = on_difference
        self._current: Entry | None = None
        self._position = 0
        self._batch: list[_Piece] = []
        self._batch_bytes = 0
        self._pool: ThreadPool | None = None
        self._pending: deque[Future[list[Entry]]] = deque()

    def __enter__(self) -> IndexCheck:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def begin(self, member: Member, end: int) -> int:
        """Compare the header of the next *member*, which ends at byte *end* of what is read.

        Return where it begins in the archive, in bytes. A directory without a name has no entry,
        and is passed over. Raises CorruptArchiveError where the member differs, and what reading
        the index raises.
        """
        if member.type is MemberType.DIRECTORY and not _joined(member.name, member):
            self._current = None  # the directory that the archive is relative to
            return self._position
        entry = next(self._entries, None)
        if entry is None:
            self._disagree(member.name, "is not in the index")
        self._current, self._position = entry, entry.position
        path = entry.path.encode("utf-8", "surrogateescape")
        if member.name.rstrip(b"/") != path and _joined(member.name, member) != path:
            self._disagree(member.name, f"is {quoted(path)} in the index")
        difference = _difference(member, entry)
        if difference:
            self._disagree(path, f"has {difference} than in the index")
        if self._parts:
            self._parts_end += entry.end - entry.position
        if end != (self._parts_end if self._parts else entry.end):
            self._disagree(path, "has another length than in the index")
        return entry.position

    def content(
        self, content: Iterable[tuple[int, memoryview]]
    ) -> Iterator[tuple[int, memoryview]]:
        """Yield *content*, that of the current member, and hash it; at its end, it is compared.

        Content that is not read to its end is not compared.
        """
        entry = self._current
        if entry is None or entry.type is not EntryType.FILE:
            yield from content
            return
        hashing: ContentHash | None = None
        for offset, piece in content:
            if len(piece) == entry.size <= _SMALL_BYTES:  # as most files are
                if hashlib.sha256(piece).digest() != entry.digest:
                    self._differs(entry)
                yield offset, piece
                return
            hashing = hashing or ContentHash()
            self._add((hashing, offset, piece, None), len(piece))
            yield offset, piece
        self._add((hashing or ContentHash(), 0, _NOTHING, entry), 0)

    def finish(self) -> None:
        """Wait for the hashes. Raises CorruptArchiveError for a difference or a missing member."""
        missing = next(self._entries, None)
        if missing is not None:
            path = missing.path.encode("utf-8", "surrogateescape")
            self._disagree(path, "is in the index, but not in the archive")
        self._flush()
        while self._pending:
            self._collect()

    def _add(self, piece: _Piece, size: int) -> None:
        self._batch.append(piece)
        self._batch_bytes += size
        if self._batch_bytes >= _BATCH_BYTES or len(self._batch) >= _BATCH_PIECES:
            self._flush()

    def _flush(self) -> None:
        if not self._batch:
            return
        if self._pool is None:
            self._pool = ThreadPool(1, thread_name_prefix="bakthat-hash")
        while len(self._pending) >= _MAX_BATCHES:
            self._collect()
        self._pending.append(self._pool.submit(_hash, self._batch))
        self._batch, self._batch_bytes = [], 0

    def _collect(self) -> None:
        for entry in self._pending.popleft().result():
            self._differs(entry)

    def _differs(self, entry: Entry) -> None:
        """Tell that the content of *entry* has another SHA-256."""
        if self._on_difference is not None:
            self._on_difference(entry)
            return
        path = quoted(entry.path.encode("utf-8", "surrogateescape"))
        raise CorruptArchiveError(
            f"the content of {path} differs from its SHA-256 in the index", hint=NO_INDEX_HINT
        )

    def _disagree(self, name: bytes, what: str) -> NoReturn:
        raise CorruptArchiveError(
            f"the archive and its index disagree: {quoted(name)} {what}", hint=NO_INDEX_HINT
        )


def _hash(batch: list[_Piece]) -> list[Entry]:
    """Hash the pieces of *batch*; return the entries of files with another content."""
    different = []
    for hashing, offset, piece, entry in batch:
        if entry is None:
            hashing.update_at(offset, piece)
        elif hashing.digest(entry.size) != entry.digest and (entry.size or entry.digest):
            different.append(entry)
    return different


def _difference(member: Member, entry: Entry) -> str:
    """Return in what *member* differs from *entry*; "" for nothing."""
    if (
        member.mode == entry.mode
        and member.mtime_ns == entry.mtime_ns
        and member.size == entry.size
        and member.type is _TYPES[entry.type]
        and member.uid == entry.uid
        and member.gid == entry.gid
        and (member.type is MemberType.FILE or not _target_difference(member, entry))
        and not (
            (member.xattrs or member.acls or entry.attributes)
            and _attributes(member) != entry.attributes
        )
    ):
        return ""
    if member.type is not _TYPES[entry.type]:
        return "another type"
    if member.size != entry.size:
        return "another size"
    if member.mode != entry.mode:
        return "another mode"
    if member.mtime_ns != entry.mtime_ns:
        return "another time"
    if (member.uid, member.gid) != (entry.uid, entry.gid):
        return "another owner"
    if _attributes(member) != entry.attributes:
        return "other attributes"
    return _target_difference(member, entry)


def _attributes(member: Member) -> str:
    return attributes_digest(attribute_records(member.xattrs, member.acls))


def _target_difference(member: Member, entry: Entry) -> str:
    target = entry.target.encode("utf-8", "surrogateescape")
    if member.type is MemberType.SYMLINK and member.linkname != target:
        return "another target"
    if member.type is MemberType.HARDLINK and member.linkname != target:
        return "" if _joined(member.linkname, member) == target else "another target"
    if member.type in (MemberType.CHARDEV, MemberType.BLOCKDEV):
        return "" if (member.major, member.minor) == entry.device else "another device"
    return ""


def _joined(name: bytes, member: Member) -> bytes:
    return b"/".join(split_name(name, member.name))
