"""Make the records of an index while the archive is written, and hash the contents of the files.

The writer of an archive says which entries it wrote. Once a piece of the archive is full, the
contents in it are hashed and the records of its entries are packed: for many entries at once, as
that takes half the time.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence

from bakthat.archive.content_hash import MAX_HOLE_BYTES, ContentHash
from bakthat.archive.index.writer import Segment, SegmentWriter
from bakthat.format.entry import Entry
from bakthat.format.index.layout import USUAL_HEADER_BYTES

Extents = Sequence[tuple[int, int]]
"""Offset and length of each part of a file that is no hole."""


class EntryRecorder:
    """Records the entries of an archive, in order.

    *owner_names* returns the names of a user and a group. *on_segment* is called with each segment
    of the index. A hash is of what is stored, zeros for bytes that could not be read included.
    """

    def __init__(
        self,
        owner_names: Callable[[int, int], tuple[str, str]],
        on_segment: Callable[[Segment], object],
    ) -> None:
        self._owner_names = owner_names
        self._segments = SegmentWriter(on_segment)
        self._entries: list[
            tuple[bytes, os.stat_result, int, _Content | None] | tuple[Entry, _Content | None]
        ] = []
        """Those that end in this piece: name, status and position of a usual one, any other whole;
        and the content of one that is not usual, or not whole in this piece."""
        self._begun: tuple[int, int, Extents | None] | None = None
        """The content that is being written."""
        self._content: _Content | None = None
        """The same, once a part of it was in an earlier piece."""

    def begin_content(self, position: int, size: int, extents: Extents | None) -> None:
        """Begin the content of a file, whose entry is added when all of it is written.

        It lies at *position* of the archive; of a sparse file, only its *extents* do. A file with
        huge holes gets no hash.
        """
        if extents is not None and size - sum(length for _, length in extents) > MAX_HOLE_BYTES:
            return
        self._begun = position, size, extents

    def add_usual(self, name: bytes, status: os.stat_result, position: int) -> None:
        """Add a usual file or directory (:meth:`.SegmentPacker.add_usual`)."""
        self._entries.append((name, status, position, self._content))
        self._begun = self._content = None

    def add(self, entry: Entry) -> None:
        """Add any entry; the hash of its content is filled in."""
        content = self._content
        if self._begun is not None and content is None:
            content = _Content(*self._begun)
        self._entries.append((entry, content))
        self._begun = self._content = None

    def end_piece(self, piece: memoryview, start: int) -> None:
        """Record what was added since the last piece; *piece* is the archive from *start* on."""
        entries, self._entries = self._entries, []
        # This runs for each file of a backup.
        sha256, is_directory = hashlib.sha256, stat.S_ISDIR
        add_usual, owner_names = self._segments.add_usual, self._owner_names
        shift = USUAL_HEADER_BYTES - start
        for each in entries:
            content = each[-1]
            if content is not None:
                content.hash_piece(piece, start)
            if len(each) == 2:
                entry = each[0]
                if content is not None:
                    entry = entry._replace(digest=content.digest())
                self._segments.add(entry)
                continue
            name, status, position, _ = each
            size = status.st_size
            if is_directory(status.st_mode):
                size, digest = 0, b""
            elif content is not None:
                digest = content.digest()
            else:
                at = position + shift
                digest = sha256(piece[at : at + size]).digest()
            # Not os.fsdecode, which decodes as the locale says: an index means the same everywhere.
            path = name.decode("utf-8", "surrogateescape")
            owner, group = owner_names(status.st_uid, status.st_gid)
            add_usual(path, status, size, digest, owner, group, position)
        if self._begun is not None:
            self._content = self._content or _Content(*self._begun)
            self._content.hash_piece(piece, start)

    def finish(self) -> None:
        """Pass on the last segment, after the last piece."""
        self._segments.close()


class _Content:
    """The content of one file, of which several pieces have a part, or which has holes."""

    def __init__(self, position: int, size: int, extents: Extents | None) -> None:
        self._hash = ContentHash()
        self._position = position
        self._size = size
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

    def digest(self) -> bytes:
        """Return the SHA-256 of the content."""
        return self._hash.digest(self._size)
