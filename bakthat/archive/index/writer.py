"""Write an index: segments while the archive is made, the rest when it is complete."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import IO, NamedTuple, Self

from bakthat.archive.gzip.writer import compress_member
from bakthat.archive.index.framing import LEVEL, pack_tail
from bakthat.errors import ArchiveError
from bakthat.format.entry import Entry
from bakthat.format.index.layout import (
    MAX_TABLE_MEMBERS,
    IndexFooter,
    IndexHeader,
    SegmentPlace,
    TablePlace,
    pack_table,
)
from bakthat.format.index.packing import SegmentPacker
from bakthat.system.files import temporary_place
from bakthat.system.streams import Sink
from bakthat.system.text import reason_of

_MEMORY_BYTES = 16 * 1024 * 1024
"""Bytes of segments that are kept in memory: those of some 250,000 files."""
_COPY_BYTES = 1024 * 1024


class Segment(NamedTuple):
    """A segment of an index, of types that :mod:`marshal` supports."""

    first: str
    """The path of the first record."""
    records: int
    at: int
    """Where the first entry's headers begin in the tar archive, in bytes."""
    text: bytes
    files: int
    directories: int
    bytes: int
    """Bytes of the content of its files, without holes."""


class SegmentWriter:
    """Make segments from entries, which are added in the order of the archive.

    *on_segment* is called with each. Call :meth:`close` after the last entry.
    """

    def __init__(self, on_segment: Callable[[Segment], object]) -> None:
        self._on_segment = on_segment
        self._packer = SegmentPacker()

    def add(self, entry: Entry) -> None:
        """Add an entry. Raises what *on_segment* raises."""
        if not self._packer.add(entry):
            self.close()
            self._packer.add(entry)

    def add_usual(
        self,
        path: str,
        status: os.stat_result,
        size: int,
        digest: bytes,
        owner: str,
        group: str,
        position: int,
    ) -> None:
        """Add a usual entry, as :meth:`.SegmentPacker.add_usual` does. Raises as :meth:`add`."""
        if not self._packer.add_usual(path, status, size, digest, owner, group, position):
            self.close()
            self._packer.add_usual(path, status, size, digest, owner, group, position)

    def close(self) -> None:
        """Pass on the entries that are still here. Raises what *on_segment* raises."""
        packer = self._packer
        if not len(packer):
            return
        segment = Segment(
            packer.first,
            len(packer),
            packer.at,
            packer.pack(),
            packer.files,
            packer.directories,
            packer.content_bytes,
        )
        self._packer = SegmentPacker()
        self._on_segment(segment)


class IndexSpool:
    """Keep the segments of an index until the archive is complete, and then write all of it.

    Beyond 16 MiB the segments are in an unnamed temporary file, so a million files need no more
    memory than a thousand. End it with :meth:`close`, or use it in a ``with``.
    """

    def __init__(self) -> None:
        # Closed by close(), which the caller calls.
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES)  # noqa: SIM115
        self._segments: list[SegmentPlace] = []
        self._size = 0
        self._lengths = array("L")
        self.files = 0
        self.directories = 0
        self.bytes = 0

    @property
    def records(self) -> int:
        """The number of entries."""
        return sum(each.records for each in self._segments)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the archive's gzip members."""
        return sum(self._lengths)

    def add_segment(self, segment: Segment) -> None:
        """Add the next segment. Raises ArchiveError when the temporary file cannot be written."""
        member = compress_member(segment.text, LEVEL)
        place = SegmentPlace(segment.first, segment.records, segment.at, self._size, len(member))
        try:
            self._file.write(member)
        except OSError as exc:
            raise _cannot_keep_error(exc) from exc
        self._segments.append(place)
        self._size += len(member)
        self.files += segment.files
        self.directories += segment.directories
        self.bytes += segment.bytes

    def add_member(self, length: int) -> None:
        """Add the stored length, in bytes, of the archive's next gzip member."""
        self._lengths.append(length)

    def write_to(self, sink: Sink, header: IndexHeader, *, tar_bytes: int) -> None:
        """Write the whole index to *sink*; may be called again.

        *tar_bytes* is the size of the tar archive, or of a file that is stored as it is. Raises
        ArchiveError when the temporary file cannot be read, and what *sink* raises.
        """
        member = compress_member(header.pack(), LEVEL)
        sink.write(member)
        begin = at = len(member)
        for piece in self._pieces():
            sink.write(piece)
            at += len(piece)
        tables = []
        for count, stored, member in self._tables() if header.member_bytes else ():
            sink.write(member)
            tables.append(TablePlace(count, stored, at, len(member)))
            at += len(member)
        footer = IndexFooter(
            self.records,
            self.files,
            self.directories,
            self.bytes,
            tar_bytes,
            self.stored_bytes,
            [each._replace(offset=begin + each.offset) for each in self._segments],
            tables,
        )
        sink.write(compress_member(footer.pack(), LEVEL))
        sink.write(pack_tail(at))

    def close(self) -> None:
        """Remove the temporary file. May be called again."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _pieces(self) -> Iterator[bytes]:
        try:
            self._file.seek(0)
            while piece := self._file.read(_COPY_BYTES):
                yield piece
            self._file.seek(0, 2)
        except OSError as exc:
            raise _cannot_keep_error(exc) from exc

    def _tables(self) -> Iterable[tuple[int, int, bytes]]:
        """Yield the number of lengths, where the first one's member begins, and the table."""
        stored = 0
        for start in range(0, len(self._lengths), MAX_TABLE_MEMBERS):
            lengths = self._lengths[start : start + MAX_TABLE_MEMBERS]
            yield len(lengths), stored, compress_member(pack_table(lengths), LEVEL)
            stored += sum(lengths)


def _cannot_keep_error(error: OSError) -> ArchiveError:
    return ArchiveError(
        f"cannot keep the index in {temporary_place()}: {reason_of(error)}",
        hint="it takes some 60 bytes for each file; TMPDIR names another directory",
    )
