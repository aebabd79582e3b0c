"""Make the records of an index while the archive is written, and hash the contents of the files.

The writer of an archive knows the entries and where their contents are, and packs their records.
The hashes are filled in when a whole piece of the archive is written. What passes between the two
is a :class:`PieceContents` for each piece.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bakthat.archive.content_hash import MAX_HOLE_BYTES, ContentHash
from bakthat.archive.index.writer import Segment, SegmentWriter
from bakthat.format.index.packing import PENDING, fill_digests

_EMPTY = hashlib.sha256().digest()

Extents = Sequence[tuple[int, int]]
"""Offset and length of each part of a file that is no hole."""
_ContentPlace = tuple[int, int, Extents | None]
"""Where the content of a file begins in the archive, its size in bytes, and the extents of a sparse
file."""


class PieceContents(NamedTuple):
    """What a piece of the archive has of contents."""

    start: int
    """Where the piece begins in the archive, in bytes."""
    contents: list[_ContentPlace]
    """Those that end in the piece."""
    begun: _ContentPlace | None
    """The one that begins in the piece and does not end in it."""
    goes_on: bool
    """Whether a content does not end in the piece."""
    segments: list[Segment]
    """Those that are complete, but for the hashes of the contents."""


class EntryRecorder:
    """Packs the entries of an archive, in order.

    *on_piece* is called with each piece of the archive, before it is sent, and what is in it. The
    hash is then of what is stored, zeros for bytes that could not be read included.
    """

    def __init__(self, on_piece: Callable[[memoryview, PieceContents], object]) -> None:
        self._on_piece = on_piece
        self._segments: list[Segment] = []
        self._writer = SegmentWriter(lambda segment: self._segments.append(segment))
        self._contents: list[_ContentPlace] = []
        self._content: _ContentPlace | None = None
        """The content that is being written."""
        self._is_begun = False
        self.add = self._writer.add
        """Add an :class:`.Entry`; a file when its content was written."""

    def begin_content(self, position: int, size: int, extents: Extents | None) -> bytes:
        """Begin the content of a file, and return the digest that its entry has until then.

        It lies at *position* of the archive; of a sparse file, only its *extents* do. A file with
        huge holes has no digest.
        """
        if not size:
            return _EMPTY
        if extents is not None and size - sum(length for _, length in extents) > MAX_HOLE_BYTES:
            return b""
        self._content = position, size, extents
        self._is_begun = False
        return PENDING

    def end_content(self) -> None:
        """End the content that was begun last: all of it was written."""
        if self._content is not None:
            self._contents.append(self._content)
            self._content = None

    def end_piece(self, piece: memoryview, start: int) -> None:
        """Pass on *piece*, the bytes of the archive from *start* on, and what is in it."""
        begun = None if self._is_begun else self._content
        self._is_begun = True
        goes_on = self._content is not None
        contents = PieceContents(start, self._contents, begun, goes_on, self._segments)
        self._contents, self._segments = [], []
        self._on_piece(piece, contents)

    def finish(self) -> None:
        """Complete the last segment, which goes with the next piece: the last one."""
        self._writer.close()


class ContentHasher:
    """Hashes the contents of files in the pieces of an archive, one after the other.

    *on_segment* is called with each segment of the index, in the order of the archive.
    """

    def __init__(self, on_segment: Callable[[Segment], object]) -> None:
        self._on_segment = on_segment
        self._digests: deque[bytes] = deque()
        self._content: _Content | None = None
        """The content of which an earlier piece has a part."""

    def hash_piece(self, piece: memoryview, contents: PieceContents) -> None:
        """Hash what *piece* has of the contents, and pass on the segments that are complete."""
        start = contents.start
        add, sha256 = self._digests.append, hashlib.sha256
        for position, size, extents in contents.contents:
            if self._content is not None or extents is not None:
                content = self._content or _Content(position, size, extents)
                content.hash_piece(piece, start)
                add(content.digest(size))
                self._content = None
            else:
                position -= start
                add(sha256(piece[position : position + size]).digest())
        for segment in contents.segments:
            self._on_segment(segment._replace(text=fill_digests(segment.text, self._digests)))
        if contents.begun is not None:
            self._content = _Content(*contents.begun)
        if contents.goes_on and self._content is not None:
            self._content.hash_piece(piece, start)


class _Content:
    """The content of one file, of which several pieces have a part, or which has holes."""

    def __init__(self, position: int, size: int, extents: Extents | None) -> None:
        self._hash = ContentHash()
        self._position = position
        self._extents = iter(extents if extents is not None else ((0, size),))
        self._offset = self._left = 0

    def hash_piece(self, piece: memoryview, start: int) -> None:
        """Hash what *piece*, the bytes of the archive from *start* on, has of the content."""
        at = self._position - start
        while at < len(piece):
            if not self._left:
                extent = next(self._extents, None)
                if extent is None:
                    break
                self._offset, self._left = extent
                continue
            count = min(self._left, len(piece) - at)
            self._hash.update_at(self._offset, piece[at : at + count])
            self._offset += count
            self._left -= count
            at += count
        self._position = start + at

    def digest(self, size: int) -> bytes:
        """Return the SHA-256 of the content of *size* bytes."""
        return self._hash.digest(size)
