"""Read parts of an archive: its stored bytes, decrypted and inflated, by their place in the tar.

One file of an archive costs the age header and last chunk of the stored object, and the gzip
members that hold the file: of the last of them only the front.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from bakthat.archive.gzip.inflate import inflate_front, inflate_whole
from bakthat.archive.gzip.members import HEADER_BYTES
from bakthat.archive.index.reader import MemberTable
from bakthat.crypto.age import FileKeys
from bakthat.crypto.age_ranges import AgeRanges
from bakthat.errors import CorruptArchiveError, CorruptIndexError
from bakthat.passwords import DecryptionKeys
from bakthat.system.streams import RandomSource
from bakthat.system.threads import ThreadPool

MAX_GAP = 1024 * 1024
"""Bytes between two wanted parts that are fetched and thrown away, rather than asked around."""
REQUEST_BYTES = 4 * 1024 * 1024
"""The most bytes of one request, unless one gzip member is longer."""
REQUESTS = 8
"""Requests at once. Each takes up to twice its bytes of memory while it is decrypted."""
_LOCATED_BYTES = 256 * 1024 * 1024
"""Bytes of the tar whose members are looked up at once, so that a long part takes no memory."""
_KEPT_MEMBERS = 8
"""Inflated members that read_at keeps for its next call."""


class Footer(Protocol):
    """What the end of an index says of its archive."""

    @property
    def tar_bytes(self) -> int:
        """Bytes of the tar, or of a file that is stored as it is."""

    @property
    def stored_bytes(self) -> int:
        """Bytes of the gzip members, before age; 0 when there are none."""


class ArchiveIndex(Protocol):
    """What an index says of its archive; :class:`bakthat.archive.index.reader.IndexReader`."""

    @property
    def footer(self) -> Footer:
        """What its end says."""

    def members(self) -> MemberTable | None:
        """Return where the gzip members of the archive are; None if that is not known."""


class HowToRead(Protocol):
    """What :class:`bakthat.pipeline.read.Expected` says of the encryption of an object."""

    @property
    def encrypted(self) -> bool:
        """Whether it is encrypted."""

    @property
    def is_legacy(self) -> bool:
        """Whether bakthat 0.6.0 encrypted it."""


def plain_ranges(
    stored: RandomSource,
    expected: HowToRead,
    keys: DecryptionKeys,
    file_keys: FileKeys | None = None,
) -> RandomSource:
    """Return the decrypted bytes of an object, *stored* itself where it is not encrypted.

    Raises CryptoError and what *stored* raises; ValueError for the encryption of bakthat 0.6.0, in
    which no part can be read without what comes before it.
    """
    if not expected.encrypted:
        return stored
    if expected.is_legacy:
        raise ValueError("an object of bakthat 0.6.0 cannot be read in parts")
    return AgeRanges(
        stored, passphrase=keys.passphrase, identities=keys.identities, file_keys=file_keys
    )


def tar_ranges(
    plain: RandomSource, index: ArchiveIndex, *, cancel: Callable[[], object] | None = None
) -> TarRanges:
    """Return the tar in an archive, whose decrypted bytes are *plain*, by its *index*.

    A file that is stored as it is counts as a tar of this one file. *cancel* lets the calls of
    *plain* that are under way fail, when the tar is closed before they end. Raises
    CorruptArchiveError when *plain* has another size than *index* says, and what reading *index*
    raises.
    """
    members, size = index.members(), plain_size(index)
    if plain.size != size:
        raise CorruptArchiveError(
            f"the index is of an archive of {size} bytes, but this one has {plain.size}",
            hint="bakthat restore --no-index restores without the index; "
            "bakthat sync --indexes makes it again",
        )
    return TarRanges(plain, members, index.footer.tar_bytes, cancel=cancel)


def plain_size(index: ArchiveIndex) -> int:
    """Return how many bytes the decrypted archive has, if parts of it can be read."""
    footer = index.footer
    return footer.tar_bytes if index.members() is None else footer.stored_bytes


class TarRanges:
    """Parts of the tar in an archive; a :class:`.RandomSource` of *size* bytes.

    *plain* holds the decrypted archive, and *members* says where in it the tar is; None when it is
    not compressed. Use it in a ``with``, which ends its threads; *plain* stays open. Memory stays
    under 100 MB whatever is read.

    What it returns was decrypted and inflated from where the index says. Of a gzip member that is
    read in part there is no checksum, so the caller checks what it takes against the index.
    """

    def __init__(
        self,
        plain: RandomSource,
        members: MemberTable | None,
        size: int,
        *,
        cancel: Callable[[], object] | None = None,
    ) -> None:
        self._plain = plain
        self._cancel = cancel
        self._members = members
        self.size = size
        self._pool: ThreadPool | None = None
        self._kept: dict[int, bytes] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> TarRanges:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads and the requests that are under way. May be called again."""
        pool, self._pool = self._pool, None
        if pool is not None:
            if self._cancel is not None:
                self._cancel()
            pool.shutdown(wait=True, cancel_futures=True)
        self._kept.clear()

    def pieces(self, wanted: Iterable[tuple[int, int]]) -> Generator[bytes]:
        """Yield the bytes of the tar from start to end of each of *wanted*, one after the other.

        The parts are in order and do not overlap. A piece holds no bytes of two parts. Several
        requests are made at once and ahead; the parts are taken from *wanted* as they are needed.
        Raises CorruptArchiveError, CryptoError and StorageError.
        """
        pending: deque[tuple[_Request, Future[bytes]]] = deque()
        try:
            for request in self._requests(wanted):
                pending.append((request, self._submit(request)))
                if len(pending) == REQUESTS:
                    yield from self._cut(*pending.popleft())
            while pending:
                yield from self._cut(*pending.popleft())
        finally:
            for _, future in pending:
                future.cancel()

    def read_at(self, offset: int, size: int, /) -> bytes:
        """Return *size* bytes of the tar from *offset* on; a few members are kept for later calls.

        Several threads may call it at once. Raises ValueError for a part outside, and what
        :meth:`pieces` raises.
        """
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(f"bytes {offset} to {offset + size} are not in {self.size} bytes")
        if self._members is None:
            return self._plain.read_at(offset, size)
        found = []
        for part in self._parts(iter([(offset, offset + size)])):
            front = self._kept_front(part)
            found += [front[start:end] for start, end in part.windows]
        return b"".join(found)

    def _kept_front(self, part: _Part) -> bytes:
        with self._lock:
            front = self._kept.pop(part.start, b"")
        if len(front) < part.wanted:
            # A second look at a member fetches all of it, for it may not be the last.
            whole = part.as_whole() if front else part
            front = self._inflate(whole, self._plain.read_at(whole.start, whole.length))
        with self._lock:
            self._kept[part.start] = front
            while len(self._kept) > _KEPT_MEMBERS:
                del self._kept[next(iter(self._kept))]
        return front

    def _submit(self, request: _Request) -> Future[bytes]:
        if self._pool is None:
            self._pool = ThreadPool(REQUESTS, thread_name_prefix="bakthat-ranges")
        return self._pool.submit(self._plain.read_at, request.start, request.end - request.start)

    def _cut(self, request: _Request, future: Future[bytes]) -> Iterator[bytes]:
        data = memoryview(future.result())
        for part in request.parts:
            at = part.start - request.start
            piece: bytes | memoryview = data[at : at + part.length]
            if part.is_member:
                piece = self._inflate(part, piece)
            for start, end in part.windows:
                yield bytes(piece[start:end])

    def _requests(self, wanted: Iterable[tuple[int, int]]) -> Iterator[_Request]:
        """Yield the requests that fetch *wanted*: parts that are near each other in one."""
        current: _Request | None = None
        for part in self._parts(iter(wanted)):
            if current is not None:
                is_near = part.start - current.end <= MAX_GAP
                if is_near and part.end - current.start <= REQUEST_BYTES:
                    current.end = part.end
                    current.parts.append(part)
                    continue
                yield current
            current = _Request(part.start, part.end, [part])
        if current is not None:
            yield current

    def _parts(self, wanted: Iterator[tuple[int, int]]) -> Iterator[_Part]:
        done = 0
        current: _Part | None = None
        for start, end in wanted:
            if not done <= start <= end <= self.size:
                raise ValueError(f"bytes {start} to {end} are not after {done} in {self.size}")
            done = end
            for part in self._parts_of(start, end):
                if current is not None and part.is_member and part.start == current.start:
                    current.extend(part)
                    continue
                if current is not None:
                    yield current
                current = part
        if current is not None:
            yield current

    def _parts_of(self, start: int, end: int) -> Iterator[_Part]:
        if self._members is None:
            for at in range(start, end, REQUEST_BYTES):
                size = min(REQUEST_BYTES, end - at)
                yield _Part(at, at + size, 0, False, [(0, size)])
            return
        for at in range(start, end, _LOCATED_BYTES):
            stop = min(at + _LOCATED_BYTES, end)
            for member in self._members.locate(at, stop):
                size = min(self._members.member_bytes, self.size - member.start)
                window = max(at - member.start, 0), min(stop - member.start, size)
                if member.stored_end > self._plain.size:
                    raise CorruptIndexError(
                        f"the index has a gzip member outside of the archive, "
                        f"at byte {member.stored_start}"
                    )
                yield _Part(member.stored_start, member.stored_end, size, True, [window])

    def _inflate(self, part: _Part, data: bytes | memoryview) -> bytes:
        length = part.stored_end - part.start
        if len(data) == length and part.wanted == part.size:
            return inflate_whole(data, part.size, length=length, offset=part.start)
        front = inflate_front(data, part.wanted, length=length, offset=part.start)
        if len(front) == part.wanted:
            return front
        # Hardly ever: it compresses to more than its own size.
        data = self._plain.read_at(part.start, length)
        return inflate_whole(data, part.size, length=length, offset=part.start)


@dataclass(slots=True)
class _Part:
    """What is wanted of one gzip member, or of a tar that is not compressed."""

    start: int
    """Where it begins in the archive, before age."""
    stored_end: int
    """Where it ends there."""
    size: int
    """Bytes of the tar in the member; 0 where there is none."""
    is_member: bool
    windows: list[tuple[int, int]]
    """Start and end of each wanted piece, in order; in the inflated member, if it is one."""

    def extend(self, other: _Part) -> None:
        """Add what is wanted of the same member."""
        self.windows += other.windows

    def as_whole(self) -> _Part:
        """Return the same member, all of which is wanted."""
        return _Part(self.start, self.stored_end, self.size, True, [(0, self.size)])

    @property
    def wanted(self) -> int:
        """How many bytes are needed from the front on."""
        return self.windows[-1][1]

    @property
    def length(self) -> int:
        """Bytes to fetch. Deflate makes nothing much longer, so a front needs a front only."""
        whole = self.stored_end - self.start
        if not self.is_member or self.wanted == self.size:
            return whole
        return min(whole, HEADER_BYTES + self.wanted + self.wanted // 64 + 4096)

    @property
    def end(self) -> int:
        """Where what is fetched ends in the archive."""
        return self.start + self.length


@dataclass(slots=True)
class _Request:
    """Bytes of the archive to fetch at once."""

    start: int
    end: int
    parts: list[_Part] = field(default_factory=list)
