"""One file of an archive: its content in order, or a file that can seek in it."""

from __future__ import annotations

import io
import os
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import accumulate
from typing import BinaryIO, Protocol

from bakthat.archive.content_hash import ContentHash
from bakthat.archive.extract.index_check import IndexCheck
from bakthat.archive.tar.fields import BLOCK_BYTES
from bakthat.archive.tar.member import Member
from bakthat.archive.tar.reader import TarReader
from bakthat.errors import CorruptArchiveError, DestinationError
from bakthat.format.entry import Entry
from bakthat.system.streams import RandomSource, Source
from bakthat.system.text import quoted, reason_of

BUFFER_BYTES = 128 * 1024
"""Bytes that a file reads at once where its caller reads fewer."""
_FIRST_WINDOW = 4 * 1024 * 1024
_MAX_WINDOW = 1024 * 1024 * 1024
"""What is asked for at once of a file that is read in order: each time four times as much."""
_END_MARK = bytes(2 * BLOCK_BYTES)
_READ_BYTES = 1024 * 1024


class Ranges(RandomSource, Protocol):
    """A tar of which parts can be fetched ahead: :class:`bakthat.pipeline.ranges.TarRanges`."""

    def pieces(self, wanted: Iterable[tuple[int, int]]) -> Iterator[bytes]:
        """Yield the bytes of each of *wanted*."""


def content_of(source: Source, entry: Entry) -> Iterator[tuple[int, memoryview]]:
    """Yield the offset and the bytes of each piece of the content of *entry*, without its holes.

    *source* holds what the tar has of the entry, its headers too, and nothing else. The entry is
    that of a file. Raises CorruptArchiveError where the member differs from it; that its SHA-256
    differs only after the last piece.
    """
    if not entry.header_bytes:
        yield from _plain_content(source, entry)
        return
    with IndexCheck([entry], parts=True) as check:
        reader = TarReader(_Ended(source))
        for member in reader:
            check.begin(member, reader.end)
            yield from check.content(reader.read_content(member))
        check.finish()


def parts_of_stream(source: Source, start: int, end: int) -> Iterator[bytes]:
    """Yield bytes *start* to *end* of *source*, which is read from its beginning to its end.

    Its end is read too, so that the stages below check it. Raises CorruptArchiveError when it ends
    before.
    """
    at = 0
    while piece := source.read(_READ_BYTES):
        wanted = piece[max(start - at, 0) : max(end - at, 0)]
        at += len(piece)
        if wanted:
            yield wanted
    if at < end:
        raise CorruptArchiveError(f"the archive is truncated: it ends at byte {at}")


def temporary_copy(source: Source, entry: Entry) -> BinaryIO:
    """Return the content of *entry*, checked, as an unnamed temporary file to read.

    Raises as :func:`content_of` does, and DestinationError when it cannot be written.
    """
    try:
        with tempfile.TemporaryFile(prefix="bakthat-", buffering=0) as stream:
            for offset, piece in content_of(source, entry):
                stream.seek(offset)
                while piece:
                    piece = piece[stream.write(piece) :]
            stream.truncate(entry.size)
            stream.seek(0)
            return open(os.dup(stream.fileno()), "rb")
    except OSError as exc:
        raise DestinationError(
            f"cannot write a temporary file: {reason_of(exc)}",
            hint="TMPDIR names another directory for it",
        ) from exc


class PieceSource:
    """A :class:`.Source` of the bytes that an iterator yields."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        """Return between 1 and *size* bytes, or ``b""`` at the end."""
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left = memoryview(piece)
        data = bytes(self._left[:size])
        self._left = self._left[size:]
        return data


def seekable(
    tar: Ranges,
    entry: Entry,
    on_close: Callable[[], object],
    *,
    naming: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> BinaryIO:
    """Return the content of *entry* as a file that can seek, buffered.

    It calls *on_close* once when it is closed, or when this function raises. Whatever is read is
    read within *naming*, which may name the archive in errors. Raises CorruptArchiveError where the
    headers in *tar* differ from *entry*, and what *tar* raises.
    """
    try:
        with naming():
            layout = _layout_of(tar, entry)
        return io.BufferedReader(StoredFile(tar, entry, layout, on_close, naming), BUFFER_BYTES)
    except BaseException:
        on_close()
        raise


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a tar has the content of a file."""

    front: bytes
    """The headers, and the content after them as far as it was fetched with them."""
    offsets: Sequence[int]
    """Where in the file each part begins that is not a hole."""
    lengths: Sequence[int]
    positions: Sequence[int]
    """Where in the tar each part begins."""


class StoredFile(io.RawIOBase):
    """The content of the file *entry*, read from the parts of *tar* that it needs.

    Reading raises CorruptArchiveError for damage that is found, CryptoError and StorageError. When
    all is read in order, the last read compares the SHA-256. If it differs, that read raises, and
    so does each one after it.
    """

    def __init__(
        self,
        tar: Ranges,
        entry: Entry,
        layout: _Layout,
        on_close: Callable[[], object],
        naming: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        super().__init__()
        self.name = entry.path
        self._tar = tar
        self._entry = entry
        self._at = 0
        self._stream: Iterator[bytes] | None = None
        self._piece = memoryview(b"")
        self._next = -1
        """Where the stream, or the last read, goes on in the tar."""
        self._window = _FIRST_WINDOW
        self._hash = ContentHash() if entry.digest else None
        self._hashed = 0
        self._is_damaged = False
        self._layout = layout
        self._on_close = on_close
        self._naming = naming

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        self._check_open()
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to another position, and return it; nothing is fetched before the next read."""
        self._check_open()
        bases = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._entry.size}
        if whence not in bases:
            raise ValueError(f"invalid whence: {whence}")
        if bases[whence] + offset < 0:
            raise ValueError(f"negative seek position {bases[whence] + offset}")
        self._at = bases[whence] + offset
        return self._at

    def readinto(self, buffer: object, /) -> int:
        """Fill *buffer* with the next bytes, and return how many; 0 at the end."""
        self._check_open()
        with self._naming():
            if self._is_damaged:
                raise hash_error(self._entry)
            with memoryview(buffer) as view, view.cast("B") as target:  # type: ignore[arg-type]  # io's
                count = self._fill(target)
                self._check(target[:count])
        self._at += count
        return count

    def readall(self) -> bytes:
        """Return all bytes up to the end; Python's own way reads 8 KiB at once."""
        return b"".join(iter(lambda: self.read(_READ_BYTES), b""))

    def close(self) -> None:
        """End the downloads. May be called again."""
        if self.closed:
            return
        try:
            self._end_stream()
            self._on_close()
        finally:
            super().close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _fill(self, target: memoryview) -> int:
        count = min(len(target), self._entry.size - self._at)
        if count <= 0:
            return 0
        layout = self._layout
        number = bisect_right(layout.offsets, self._at) - 1
        begun = self._at - layout.offsets[number] if number >= 0 else 0
        if number < 0 or begun >= layout.lengths[number]:
            is_last = number + 1 == len(layout.offsets)
            end = self._entry.size if is_last else layout.offsets[number + 1]
            count = min(count, end - self._at)
            target[:count] = bytes(count)
            return count
        left = layout.lengths[number] - begun
        data = self._read(layout.positions[number] + begun, min(count, left), left)
        target[: len(data)] = data
        return len(data)

    def _read(self, at: int, size: int, left: int) -> memoryview:
        """Return 1 to *size* bytes of the tar from *at* on, of which *left* may be wanted."""
        begun = at - self._entry.position
        front = self._layout.front
        if begun < len(front):
            return memoryview(front)[begun : begun + size]
        if at != self._next:
            self._end_stream()
            self._window = _FIRST_WINDOW
            if size <= BUFFER_BYTES:
                self._next = at + size
                return memoryview(self._tar.read_at(at, size))
        while not self._piece:
            if self._stream is None:
                self._stream = self._tar.pieces([(at, at + min(left, self._window))])
                self._window = min(self._window * 4, _MAX_WINDOW)
            piece = next(self._stream, None)
            if piece is None:
                self._stream = None
            else:
                self._piece = memoryview(piece)
        data, self._piece = self._piece[:size], self._piece[size:]
        self._next = at + len(data)
        return data

    def _end_stream(self) -> None:
        stream, self._stream = self._stream, None
        self._piece = memoryview(b"")
        self._next = -1
        if stream is not None:
            stream.close()  # type: ignore[attr-defined]  # it is a generator

    def _check(self, data: memoryview) -> None:
        """Hash what is read in order; at the end of the file, compare the hash."""
        if self._hash is None or self._at != self._hashed or not data:
            return
        self._hash.update_at(self._at, data)
        self._hashed += len(data)
        if self._hashed == self._entry.size:
            hashing, self._hash = self._hash, None
            if hashing.digest(self._hashed) not in (self._entry.digest, b""):
                self._is_damaged = True
                raise hash_error(self._entry)


def _layout_of(tar: Ranges, entry: Entry) -> _Layout:
    """Return where *tar* has the content of *entry*; its headers there are compared with it."""
    if not entry.header_bytes:
        return _Layout(b"", [0], [entry.size], [entry.position])
    front = tar.read_at(entry.position, min(entry.end - entry.position, BUFFER_BYTES))
    member = _read_member(tar, entry, front)
    if member.sparse is None:
        return _Layout(front, [0], [entry.size], [entry.content_position])
    offsets, lengths = member.sparse[::2], member.sparse[1::2]
    # The map comes before the data, if it is not in the headers.
    first = entry.content_position + entry.stored_bytes - sum(lengths)
    positions = list(accumulate(lengths, initial=first))[:-1]
    return _Layout(front, offsets, lengths, positions)


def _read_member(tar: Ranges, entry: Entry, front: bytes) -> Member:
    reader = TarReader(PieceSource(_headers(tar, entry, front)))
    with IndexCheck([entry], parts=True) as check:
        for member in reader:
            check.begin(member, reader.end)
            return member
    raise CorruptArchiveError(f"the tar archive has no member at byte {entry.position}")


def _headers(tar: Ranges, entry: Entry, front: bytes) -> Iterator[bytes]:
    """Yield what *tar* has of *entry*, as far as it is asked for: a sparse map is long."""
    yield front
    at = entry.position + len(front)
    while at < entry.end:
        size = min(entry.end - at, BUFFER_BYTES)
        yield tar.read_at(at, size)
        at += size


def hash_error(entry: Entry) -> CorruptArchiveError:
    """Return the error for content with another SHA-256 than that in the index."""
    name = quoted(entry.path.encode("utf-8", "surrogateescape"))
    return CorruptArchiveError(f"the content of {name} differs from its SHA-256 in the index")


class _Ended:
    """What a tar has of one entry, and then the mark of its end."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._end = _END_MARK

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        if not data:
            data, self._end = self._end[:size], self._end[size:]
        return data


def _plain_content(source: Source, entry: Entry) -> Iterator[tuple[int, memoryview]]:
    hashing = ContentHash()
    at = 0
    while piece := source.read(_READ_BYTES):
        hashing.update_at(at, piece)
        yield at, memoryview(piece)
        at += len(piece)
    if at != entry.size:
        raise CorruptArchiveError(f"the file has {at} bytes, and {entry.size} in the index")
    if entry.digest and hashing.digest(at) != entry.digest:
        raise hash_error(entry)
