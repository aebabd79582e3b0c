"""Restore some members of an archive: read the parts of the object that hold them, and no others.

The index says where they are. Their bytes make a tar stream of their own, which is unpacked, and
compared with the index, as a whole archive would be.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from bakthat.archive.extract.index_check import NO_INDEX_HINT, IndexCheck
from bakthat.archive.extract.selection import EntrySource, Selection
from bakthat.archive.extract.unpack import Reading, extract
from bakthat.archive.report import ArchiveReport
from bakthat.archive.tar.fields import BLOCK_BYTES
from bakthat.crypto.age import FileKeys
from bakthat.errors import CorruptArchiveError, CorruptIndexError
from bakthat.format.entry import Entry, EntryType
from bakthat.passwords import DecryptionKeys
from bakthat.pipeline.ranges import (
    MAX_GAP,
    ArchiveIndex,
    plain_ranges,
    plain_size,
    tar_ranges,
)
from bakthat.pipeline.read import Expected, bounded
from bakthat.system.streams import ByteCounter, RandomSource

SMALL_BYTES = 1024 * 1024
"""An archive that is stored in so many bytes is read front to back: one request, all checked."""
MAX_SHARE = 0.5
"""So it is when more than this share of it is needed."""

_END_MARK = bytes(2 * BLOCK_BYTES)


class Index(EntrySource, ArchiveIndex, Protocol):
    """An index; :class:`bakthat.archive.index.reader.IndexReader`."""


class Spans:
    """Parts of a tar of *size* bytes, in order: those that hold *entries*, and what is added.

    Takes 16 bytes for each gap between them. Raises CorruptIndexError for a part outside.
    """

    def __init__(self, entries: Iterable[Entry], size: int) -> None:
        self._size = size
        self._bounds = array("Q")
        self.bytes = 0
        for entry in entries:
            self.add(entry.position, entry.end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        bounds = iter(self._bounds)
        return zip(bounds, bounds, strict=True)

    @property
    def bounds(self) -> tuple[int, int] | None:
        """Where the first part begins and the last one ends; None if there is none."""
        return (self._bounds[0], self._bounds[-1]) if self._bounds else None

    def covered(self, gap: int) -> int:
        """Return the bytes of the parts and of all gaps of at most *gap* bytes between them."""
        total, previous = 0, None
        for start, end in self:
            total += end - start
            if previous is not None and start - previous <= gap:
                total += start - previous
            previous = end
        return total

    def add(self, start: int, end: int) -> None:
        """Add the part from *start* to *end*, which comes after all others."""
        if not (self._bounds[-1] if self._bounds else 0) <= start < end <= self._size:
            raise CorruptIndexError(
                f"the index has an entry out of place, from byte {start} to {end}",
                hint=NO_INDEX_HINT,
            )
        if self._bounds and start == self._bounds[-1]:
            self._bounds[-1] = end
        else:
            self._bounds.extend((start, end))
        self.bytes += end - start


def find_parts(
    index: Index, selection: Selection, expected: Expected, *, even_if_most: bool = False
) -> Spans | None:
    """Return which parts of the archive hold what *selection* means, by *index*.

    None stands for the archive as a whole, since most of it is needed, unless *even_if_most*, or
    since it can only be read front to back. *selection* is resolved in both cases. Raises
    NoMatchError where it does not match, and what reading *index* raises.
    """
    spans = Spans(selection.entries(index), index.footer.tar_bytes)
    selection.check()
    if not has_parts(index, expected):
        return None
    return None if is_most(spans, index) and not even_if_most else spans


def has_parts(index: ArchiveIndex, expected: Expected) -> bool:
    """Return whether a part of the archive can be read without what comes before it."""
    if expected.encrypted and expected.is_legacy:
        return False
    return not expected.compressed or index.members() is not None


def is_most(spans: Spans, index: ArchiveIndex) -> bool:
    """Return whether the archive is better read front to back than in the parts of *spans*."""
    needed = spans.covered(MAX_GAP)
    return plain_size(index) <= SMALL_BYTES or needed > index.footer.tar_bytes * MAX_SHARE


def read_parts(
    stored: RandomSource,
    expected: Expected,
    destination: Path,
    *,
    index: Index,
    selection: Selection,
    spans: Spans,
    keys: DecryptionKeys,
    file_keys: FileKeys,
    report: ArchiveReport,
    on_bytes: ByteCounter,
    keep_going: bool = False,
    cancel: Callable[[], object] | None = None,
) -> list[Path]:
    """Restore what *selection* means into *destination*; all of it appears, or nothing.

    *selection* and *spans* are those of :func:`find_parts`. *stored* holds the object, and is not
    closed; *cancel* lets its calls that are under way fail. *on_bytes* is called with the bytes of
    the tar that were read. Returns the restored paths at the top of *destination*. Raises what
    :func:`bakthat.pipeline.read.read_object` raises.
    """
    with ExitStack() as stages:
        plain = plain_ranges(stored, expected, keys, file_keys)
        tar = stages.enter_context(tar_ranges(plain, index, cancel=cancel))
        size = index.footer.tar_bytes

        @contextmanager
        def read(spans: Spans, entries: Iterable[Entry]) -> Iterator[Reading]:
            stream = PartsStream(tar.pieces(spans), on_bytes)
            with IndexCheck(entries, parts=True) as check:
                yield Reading(bounded(stream, expected), check)

        @contextmanager
        def read_again(paths: Collection[bytes]) -> Iterator[Reading]:
            wanted = {path.decode("utf-8", "surrogateescape") for path in paths}
            entries = [
                entry
                for entry in index.entries(wanted)
                if entry.path in wanted and entry.type is not EntryType.DIRECTORY
            ]
            with read(Spans(entries, size), entries) as reading:
                yield reading

        reading = stages.enter_context(read(spans, selection.entries(index)))
        try:
            return extract(
                reading.source,
                destination,
                report=report,
                selection=selection,
                keep_going=keep_going,
                read_again=read_again,
                check=reading.check,
            )
        except CorruptArchiveError as exc:
            if exc.hint or isinstance(exc, CorruptIndexError):
                raise
            # Where no member begins, for example, the index may be what is wrong.
            raise CorruptArchiveError(
                f"the archive is not as its index says: {exc}", hint=NO_INDEX_HINT
            ) from exc


class PartsStream:
    """Pieces of a tar and then its end mark, as a source."""

    def __init__(self, pieces: Iterator[bytes], on_bytes: ByteCounter) -> None:
        self._pieces = pieces
        self._on_bytes = on_bytes
        self._piece = b""
        self._at = 0
        self._ended = False

    def read(self, size: int, /) -> bytes:
        """Return between 1 and *size* bytes, or ``b""`` at the end."""
        while self._at == len(self._piece):
            piece = next(self._pieces, None)
            if piece is None:
                if self._ended:
                    return b""
                self._ended = True
                piece = _END_MARK
            else:
                self._on_bytes(len(piece))
            self._piece, self._at = piece, 0
        start, self._at = self._at, min(self._at + size, len(self._piece))
        return (
            self._piece if self._at - start == len(self._piece) else self._piece[start : self._at]
        )
