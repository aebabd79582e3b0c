"""Make the entries of an index while the archive is written, and hash the contents of the files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from bakthat.archive.content_hash import ContentHash
from bakthat.format.entry import Entry

_EMPTY = hashlib.sha256().digest()


class EntryRecorder:
    """Makes the entries of an archive, in order, and passes each to *on_entry*.

    The contents of the files are hashed where they lie in the pieces of the archive, after a piece
    was sent: the next stage compresses it meanwhile, and nothing is copied. So what is hashed is
    what is stored, zeros for bytes that could not be read included.
    """

    def __init__(self, on_entry: Callable[[Entry], object]) -> None:
        self._on_entry = on_entry
        # Entries that are written, but not yet sent: the fields before and after the hash, and
        # where the content is, or what hashes it.
        self._waiting: list[tuple[tuple[Any, ...], tuple[Any, ...], int, int, _Content | None]] = []
        self._position = 0
        self._extents: Sequence[tuple[int, int]] | None = None
        self._content: _Content | None = None

    def begin_content(self, position: int, extents: Sequence[tuple[int, int]]) -> None:
        """Begin the content of a file; *extents* of it lie at *position* of the archive."""
        self._position = position
        self._extents = extents

    def add_file(self, before: tuple[Any, ...], after: tuple[Any, ...]) -> None:
        """Add the file whose content was begun last, and is written now.

        *before* and *after* are the fields of its entry before and after the hash, in order.
        """
        extents, content = self._extents, self._content
        self._extents = self._content = None
        assert extents is not None
        size = before[-1]
        if content is None and extents != [(0, size)]:
            content = _Content(self._position, extents)  # else all of it is in this piece
        self._waiting.append((before, after, self._position, size, content))

    def add_other(self, before: tuple[Any, ...], after: tuple[Any, ...]) -> None:
        """Add an entry that is no file; *before* and *after* are as for :meth:`add_file`."""
        self._waiting.append((before, after, 0, -1, None))

    def hash_piece(self, piece: memoryview, start: int) -> None:
        """Hash what *piece*, the bytes of the archive from *start* on, has of the contents.

        Passes on the entries that are complete.
        """
        on_entry = self._on_entry
        sha256 = hashlib.sha256
        for before, after, position, size, content in self._waiting:
            if content is not None:
                content.hash_piece(piece, start)
                digest = content.digest(before[-1])
            elif size > 0:
                position -= start
                digest = sha256(piece[position : position + size]).digest()
            else:
                digest = _EMPTY if size == 0 else b""
            on_entry(Entry._make((*before, digest, *after)))
        self._waiting.clear()
        if self._extents is not None:
            if self._content is None:
                self._content = _Content(self._position, self._extents)
            self._content.hash_piece(piece, start)


class _Content:
    """The content of one file, of which several pieces have a part, or which has holes."""

    def __init__(self, position: int, extents: Sequence[tuple[int, int]]) -> None:
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
