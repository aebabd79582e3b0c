"""Make the entries of an index while the archive is written, and hash the contents of the files.

The writer of an archive knows the entries and where their contents are. Hashing takes as long as
all that the writer does, so it happens elsewhere: beside the compression, in the process that
compresses. What passes between the two is a :class:`PieceContents` for each piece of the archive.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bakthat.archive.content_hash import ContentHash
from bakthat.format.entry import Entry, EntryType

_EMPTY = hashlib.sha256().digest()
_TYPES = {each.value: each for each in EntryType}

Extents = Sequence[tuple[int, int]]
"""Offset and length of each part of a file that is no hole."""


class PieceContents(NamedTuple):
    """What a piece of the archive has of contents; of types that :mod:`marshal` supports."""

    start: int
    """Where the piece begins in the archive, in bytes."""
    entries: list[tuple[tuple[Any, ...], tuple[Any, ...], int, int, Extents | None]]
    """The entries that end in the piece: the fields before and after the hash; where the content
    begins in the archive, and its bytes, -1 for what is no file; the extents of a sparse file."""
    begun: tuple[int, Extents] | None
    """Where a content begins, and its extents, if it begins in the piece and does not end in it."""
    goes_on: bool
    """Whether a content does not end in the piece."""


class EntryRecorder:
    """Collects the entries of an archive, in order.

    *on_piece* is called with each piece of the archive, before it is sent, and what is in it. The
    hash is then of what is stored, zeros for bytes that could not be read included.
    """

    def __init__(self, on_piece: Callable[[memoryview, PieceContents], object]) -> None:
        self._on_piece = on_piece
        self._entries: list[Any] = []
        self._position = 0
        self._extents: Extents | None = None
        self._is_begun = False

    def begin_content(self, position: int, extents: Extents) -> None:
        """Begin the content of a file; *extents* of it lie at *position* of the archive."""
        self._position = position
        self._extents = extents
        self._is_begun = False

    def add_file(self, before: tuple[Any, ...], after: tuple[Any, ...]) -> None:
        """Add the file whose content was begun last, and is written now.

        *before* and *after* are the fields of its entry before and after the hash, in order; the
        type is that of :class:`EntryType` as plain text.
        """
        extents = self._extents
        assert extents is not None
        self._extents = None
        size = before[-1]
        is_whole = self._is_begun or extents == [(0, size)]
        self._entries.append((before, after, self._position, size, None if is_whole else extents))

    def add_other(self, before: tuple[Any, ...], after: tuple[Any, ...]) -> None:
        """Add an entry that is no file; *before* and *after* are as for :meth:`add_file`."""
        self._entries.append((before, after, 0, -1, None))

    def end_piece(self, piece: memoryview, start: int) -> None:
        """Pass on *piece*, the bytes of the archive from *start* on, and what is in it."""
        begun = None
        if self._extents is not None and not self._is_begun:
            begun = (self._position, self._extents)
            self._is_begun = True
        contents = PieceContents(start, self._entries, begun, self._extents is not None)
        self._entries = []
        self._on_piece(piece, contents)


class ContentHasher:
    """Hashes the contents of files in the pieces of an archive, one after the other.

    *on_entry* is called with each entry that is complete, in the order of the archive.
    """

    def __init__(self, on_entry: Callable[[Entry], object]) -> None:
        self._on_entry = on_entry
        self._content: _Content | None = None
        """The content of which an earlier piece has a part."""

    def hash_piece(self, piece: memoryview, contents: PieceContents) -> None:
        """Hash what *piece* has of the contents, and pass on the entries that end in it."""
        start = contents.start
        on_entry, sha256 = self._on_entry, hashlib.sha256
        for before, after, position, size, extents in contents.entries:
            if size < 0:
                digest = b""
            elif self._content is not None or extents is not None:
                content = self._content or _Content(position, extents or ())
                content.hash_piece(piece, start)
                digest = content.digest(size)
                self._content = None
            elif size:
                position -= start
                digest = sha256(piece[position : position + size]).digest()
            else:
                digest = _EMPTY
            path, kind, *others = before
            on_entry(Entry._make((path, _TYPES[kind], *others, digest, *after)))
        if contents.begun is not None:
            self._content = _Content(*contents.begun)
        if contents.goes_on and self._content is not None:
            self._content.hash_piece(piece, start)


class _Content:
    """The content of one file, of which several pieces have a part, or which has holes."""

    def __init__(self, position: int, extents: Extents) -> None:
        self._hash = ContentHash()
        self._position = position
        self._extents = iter(extents)
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
        """Return the SHA-256 of the content of *size* bytes; b"" where it has huge holes."""
        return self._hash.digest(size)
