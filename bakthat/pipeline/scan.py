"""Make the index of an object that is stored without one, by reading it to its end."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import BinaryIO, Self

from bakthat.archive.gzip.members import MEMBER_BYTES
from bakthat.archive.index.removed import IncrementScan
from bakthat.archive.index.scan import TarScan
from bakthat.archive.index.writer import IndexSpool, SegmentWriter
from bakthat.crypto.age import FileKeys
from bakthat.format.entry import Entry, EntryType
from bakthat.format.index.layout import IndexHeader
from bakthat.passwords import DecryptionKeys
from bakthat.pipeline.read import Expected, open_stages
from bakthat.system.streams import ByteCounter, CountedSource, Sink, Source
from bakthat.system.text import from_native

_READ_BYTES = 1024 * 1024
_PRIVATE = 0o600


class ScannedIndex:
    """An index that was made by reading an object. Use it in a ``with``, or close it."""

    def __init__(self, spool: IndexSpool, header: IndexHeader, tar_bytes: int) -> None:
        self.spool = spool
        self.header = header
        self.tar_bytes = tar_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write_to(self, sink: Sink) -> None:
        """Write the index, not encrypted; may be called again."""
        self.spool.write_to(sink, self.header, tar_bytes=self.tar_bytes)

    def close(self) -> None:
        """Remove the temporary file. May be called again."""
        self.spool.close()


def scan_object(
    stream: BinaryIO,
    expected: Expected,
    header: IndexHeader,
    *,
    keys: DecryptionKeys,
    file_keys: FileKeys | None = None,
    on_bytes: ByteCounter | None = None,
    before: Iterable[Entry] = (),
) -> ScannedIndex:
    """Read an object to its end, and return its index.

    *header* says what is known of it before; the order of the entries and the length of the gzip
    members are found out. Where not every gzip member is one of this version, the index has no
    table of them. *before* are the entries of the state that an increment was made from, which say
    what it removed. *stream* is always closed. *on_bytes* is called with the number of bytes read
    from it. Raises ArchiveError, CryptoError and StorageError.
    """
    spool = IndexSpool()
    try:
        with ExitStack() as stages:
            stages.enter_context(closing(stream))
            members = _Members()
            source = open_stages(
                stages,
                CountedSource(stream, on_bytes),
                expected,
                keys,
                file_keys=file_keys,
                on_member=members.add,
            )
            if not expected.is_archive:
                entry = _read_file(source, expected)
                _write(spool, [entry])
                return ScannedIndex(spool, header, entry.size)
            scan = TarScan(source)
            _write(spool, IncrementScan(scan, before) if header.is_increment else scan)
            if expected.check_identity is not None:
                expected.check_identity(scan.comment)
        header = replace(
            header,
            is_sorted=scan.is_sorted,
            member_bytes=MEMBER_BYTES if members.are_of_this_version(scan.tar_bytes) else 0,
        )
        if header.member_bytes:
            for length in members.lengths:
                spool.add_member(length)
        return ScannedIndex(spool, header, scan.tar_bytes)
    except BaseException:
        spool.close()
        raise


def _write(spool: IndexSpool, entries: Iterable[Entry]) -> None:
    writer = SegmentWriter(spool.add_segment)
    for entry in entries:
        writer.add(entry)
    writer.close()


def _read_file(source: Source, expected: Expected) -> Entry:
    """Read a file that is stored as it is; return its only entry."""
    counted, digest = CountedSource(source), hashlib.sha256()
    while piece := counted.read(_READ_BYTES):
        digest.update(piece)
    owner = expected.owner
    return Entry(
        from_native(expected.name),
        EntryType.FILE,
        _PRIVATE if expected.mode is None else expected.mode,
        owner.uid if owner is not None else 0,
        owner.gid if owner is not None else 0,
        expected.mtime_ns or 0,
        size=counted.bytes,
        digest=digest.digest(),
        owner=owner.uname.decode("utf-8", "surrogateescape") if owner is not None else "",
        group=owner.gname.decode("utf-8", "surrogateescape") if owner is not None else "",
        header_bytes=0,
        stored_bytes=counted.bytes,
    )


class _Members:
    """The gzip members of an archive: their stored lengths, and whether each is as they must be."""

    def __init__(self) -> None:
        self.lengths = array("L")
        self._last = MEMBER_BYTES
        self._are_usual = True

    def add(self, length: int, size: int) -> None:
        """Add the next member; see :data:`bakthat.archive.gzip.reader.OnMember`."""
        # Every member but the last is full, so the one before this one must be.
        self._are_usual = self._are_usual and length > 0 and self._last == MEMBER_BYTES
        self._last = size
        if self._are_usual:
            self.lengths.append(length)

    def are_of_this_version(self, total: int) -> bool:
        """Return whether each member has its length, and holds what a table of them says."""
        return self._are_usual and len(self.lengths) == -(-total // MEMBER_BYTES)
