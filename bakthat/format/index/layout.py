"""The header, the footer and the tables of an index."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bakthat import __version__
from bakthat.errors import CorruptIndexError
from bakthat.format.entry import BLOCK, EntryType
from bakthat.format.index.values import (
    BAD_PATH,
    MAX_BLOCKS,
    MAX_NS,
    MAX_NUMBER,
    MAX_PATH_BYTES,
    pack_line,
    pack_text,
    parse_list,
    parse_number,
    parse_object,
    parse_text,
    sort_key,
)
from bakthat.format.names import parse_stored_name

FORMAT, INCREMENT_FORMAT = 1, 2
"""The versions of the format of an index: that of a full backup, and that of an increment."""
MAX_NEEDS = 4096
"""The most archives that the index of an increment may name."""
DEFAULT_RACY_SECONDS = 60
"""What an index that does not say it means by :attr:`IndexHeader.racy_seconds`."""
ARCHIVE, FILE = "archive", "file"
"""The kinds of objects that have an index; the content of a ``file`` is no tar archive."""
MAX_SEGMENT_RECORDS = 2048
"""The most records of one segment."""
MAX_TABLE_MEMBERS = 16_384
"""The most gzip members of the archive in one table."""
_MIN_MEMBER_BYTES, _MAX_MEMBER_BYTES = 64 * 1024, 16 * 1024 * 1024
"""Bounds of how much each gzip member of an archive holds: smaller ones would make tables that are
too long, and larger ones would take too much memory."""
_MAX_STORED_MEMBER_BYTES = _MAX_MEMBER_BYTES + 64 * 1024
"""The longest gzip member of an archive: content that does not compress becomes hardly longer."""
_MAX_PART_BYTES = 4 * 1024 * 1024
"""The longest gzip member of the index with a segment or a table; their text is half as long."""
COLUMNS = (
    "path",
    "kind",
    "mode",
    "uid",
    "gid",
    "mtime",
    "ctime",
    "inode",
    "size",
    "sha256",
    "more",
)
"""The columns of a record; missing ones at its end have no value."""

KINDS = {
    "f": EntryType.FILE,
    "d": EntryType.DIRECTORY,
    "l": EntryType.SYMLINK,
    "h": EntryType.HARDLINK,
    "c": EntryType.CHARACTER,
    "b": EntryType.BLOCK,
    "p": EntryType.FIFO,
    "x": EntryType.REMOVED,
    "s": EntryType.SEEN,
}
"""The types of entries, by their letters in a record."""
USUAL_HEADER_BYTES = 3 * BLOCK
"""Bytes of an entry's headers where its record does not say."""
DIGEST_LETTERS = 43
"""How many letters a SHA-256 has in base64, without the ``=`` at its end."""


class SegmentPlace(NamedTuple):
    """Where a segment of records is in the index."""

    first: str
    """The path of its first record."""
    records: int
    at: int
    """Where the first record's headers begin in the tar archive, in bytes."""
    offset: int
    """Where its gzip member begins in the index, in bytes, before age."""
    length: int
    """Bytes of its gzip member."""


class TablePlace(NamedTuple):
    """Where a table of lengths is in the index."""

    members: int
    """The number of its gzip members of the archive."""
    stored: int
    """Where the first of them begins in the archive, in bytes, before age."""
    offset: int
    """Where its own gzip member begins in the index, in bytes, before age."""
    length: int
    """Bytes of its own gzip member."""


class NeededArchive(NamedTuple):
    """One of the archives that an increment needs."""

    key: str
    date: int
    """Epoch seconds, UTC."""
    size: int
    """Bytes, as stored."""
    archive_id: str
    """That of its description; "" where it has none."""


@dataclass(frozen=True, slots=True)
class IndexHeader:
    """The first line of an index: which object it describes."""

    key: str
    """The key of the archive, or of the file."""
    set_name: str
    host: str
    source: str
    """The path that was backed up, on its host; "" when it is not known."""
    source_id: str
    date: int
    """Epoch seconds, UTC."""
    kind: str = ARCHIVE
    begun_ns: int = 0
    """When the first file was looked at, in nanoseconds since 1970 UTC; 0 when it is not known."""
    member_bytes: int = 0
    """Bytes of the tar archive in each of its gzip members but the last; 0 when it is not
    compressed, or by another program."""
    is_sorted: bool = True
    """Whether the paths ascend, component by component, in their bytes, and each is there once."""
    archive_id: str = ""
    """16 hexadecimal digits, also in the archive's description; "" in those of earlier versions."""
    needs: tuple[NeededArchive, ...] = ()
    """The archives that an increment is applied to, the full first; none for a full backup."""
    level: int = 0
    """That of an increment among the others (:mod:`bakthat.policy.levels`); 0 is a full backup."""
    racy_seconds: int = DEFAULT_RACY_SECONDS
    """A file that changed fewer seconds than this before it was read may have changed again without
    another time, so the next backup reads it."""
    recipients: str = ""
    """16 hexadecimal digits that change with the recipients to which the archive is encrypted, so
    that an increment to others is not made; "" where that is not known."""
    rule: Mapping[str, Any] = field(default_factory=dict)
    """How changes were found, for people who read it."""

    @property
    def is_increment(self) -> bool:
        """Whether the archive holds the difference to another backup only."""
        return bool(self.needs)

    @property
    def racy_ns(self) -> int:
        """The time from which on a change may be followed by another one with the same times.

        In nanoseconds since 1970 UTC.
        """
        begun = self.begun_ns or self.date * 10**9
        return begun - self.racy_seconds * 10**9

    def pack(self) -> bytes:
        """Return the line."""
        increment = {
            "level": self.level,
            "needs": [[pack_text(each.key), *each[1:]] for each in self.needs],
        }
        return pack_line(
            {
                "bakthat": "index",
                "format": INCREMENT_FORMAT if self.needs else FORMAT,
                "version": __version__,
                "key": pack_text(self.key),
                "set": pack_text(self.set_name),
                "host": pack_text(self.host),
                "source": pack_text(self.source),
                "source_id": self.source_id,
                "date": self.date,
                "kind": self.kind,
                "begun": self.begun_ns,
                "member": self.member_bytes,
                "sorted": self.is_sorted,
                **({"id": self.archive_id} if self.archive_id else {}),
                **({"recipients": self.recipients} if self.recipients else {}),
                **(increment if self.needs else {}),
                "rule": {**self.rule, "racy": self.racy_seconds},
                "columns": COLUMNS,
            }
        )

    @classmethod
    def parse(cls, line: bytes) -> IndexHeader:
        """Parse the line. Raises CorruptIndexError, also for a format that this version lacks."""
        found = parse_object(line, "header")
        if found.get("bakthat") != "index":
            raise CorruptIndexError("it is not an index of bakthat")
        version = found.get("format")
        if version not in (FORMAT, INCREMENT_FORMAT) or isinstance(version, bool):
            raise CorruptIndexError(
                f"the index has the format {version!r}, and this version of bakthat reads up to "
                f"{INCREMENT_FORMAT}",
                hint="upgrade bakthat",
            )
        kind = found.get("kind")
        if kind not in (ARCHIVE, FILE):
            raise CorruptIndexError("the index describes an object of an unknown kind")
        member_bytes = parse_number(found.get("member"), 0, _MAX_MEMBER_BYTES)
        if 0 < member_bytes < _MIN_MEMBER_BYTES:
            raise CorruptIndexError("the index has gzip members of a size that is never used")
        date = parse_number(found.get("date"), 0, MAX_NUMBER)
        needs = _needs(found.get("needs", []), date)
        if bool(needs) != (version == INCREMENT_FORMAT) or (needs and kind != ARCHIVE):
            raise CorruptIndexError("the index does not say which archives it needs")
        rule = found.get("rule", {})
        if not isinstance(rule, dict):
            raise CorruptIndexError("the index has no mapping where the rule of change must be")
        return cls(
            key=parse_text(found.get("key")),
            set_name=parse_text(found.get("set")),
            host=parse_text(found.get("host")),
            source=parse_text(found.get("source", "")),
            source_id=parse_text(found.get("source_id", "")),
            date=date,
            kind=kind,
            begun_ns=parse_number(found.get("begun", 0), 0, MAX_NS),
            member_bytes=member_bytes,
            is_sorted=found.get("sorted") is True,
            archive_id=parse_text(found.get("id", "")),
            needs=needs,
            level=parse_number(found.get("level", 0), 0, MAX_NUMBER),
            racy_seconds=parse_number(rule.get("racy", DEFAULT_RACY_SECONDS), 0, MAX_NUMBER),
            recipients=parse_text(found.get("recipients", "")),
            rule={key: value for key, value in rule.items() if key != "racy"},
        )


def _needs(value: object, date: int) -> tuple[NeededArchive, ...]:
    """Return the archives that an increment of *date* needs. Raises CorruptIndexError."""
    needs = [parse_list(each) for each in parse_list(value)]
    if len(needs) > MAX_NEEDS or any(len(each) != 4 for each in needs):
        raise CorruptIndexError("the index has something else where a needed archive must be")
    parsed = tuple(
        NeededArchive(
            _needed_key(key),
            parse_number(when, 0, MAX_NUMBER),
            parse_number(size, 0, MAX_NUMBER),
            parse_text(archive_id),
        )
        for key, when, size, archive_id in needs
    )
    dates = [each.date for each in parsed] + [date]
    if any(map(operator.ge, dates, dates[1:])):
        raise CorruptIndexError("the archives that the index needs are not in the order of time")
    return parsed


def _needed_key(value: object) -> str:
    """Return the stored filename of an archive, which is looked up by it. Raises CorruptIndexError.

    Whoever can write to the storage may have written it.
    """
    if isinstance(value, str) and not BAD_PATH.search(value):  # no text is what is not UTF-8
        key = parse_text(value)
        if parse_stored_name(key.rpartition("/")[2]) is not None:
            return key
    raise CorruptIndexError("the index needs an archive whose name is no stored filename")


@dataclass(frozen=True, slots=True)
class IndexFooter:
    """The last line of an index: counts, and where its segments and tables are."""

    records: int
    files: int
    """Entries that are not directories."""
    directories: int
    content_bytes: int
    """Bytes of the content of all files, without holes; hard links have none."""
    tar_bytes: int
    """Bytes of the tar archive, or of the file."""
    stored_bytes: int
    """Bytes of the object before age; 0 when they are not known."""
    segments: Sequence[SegmentPlace]
    tables: Sequence[TablePlace]

    def pack(self) -> bytes:
        """Return the line."""
        return pack_line(
            {
                "footer": 1,
                "records": self.records,
                "files": self.files,
                "directories": self.directories,
                "bytes": self.content_bytes,
                "tar": self.tar_bytes,
                "stored": self.stored_bytes,
                "removed": [],
                "segments": [[pack_text(each.first), *each[1:]] for each in self.segments],
                "members": [list(each) for each in self.tables],
            }
        )

    @classmethod
    def parse(cls, line: bytes, header: IndexHeader, *, begin: int, end: int) -> IndexFooter:
        """Parse the line; segments and tables fill the index from *begin* to *end*.

        Raises CorruptIndexError.
        """
        found = parse_object(line, "footer")
        if found.get("footer") != 1:
            raise CorruptIndexError("the index has no footer")
        tar_bytes = parse_number(found.get("tar"), 0, MAX_BLOCKS * BLOCK)
        stored = parse_number(found.get("stored"), 0, MAX_NUMBER)
        segments = [_segment_place(each) for each in parse_list(found.get("segments"))]
        tables = [_table_place(each) for each in parse_list(found.get("members"))]
        at = begin
        parts = [each[-2:] for each in segments] + [each[-2:] for each in tables]
        for offset, length in parts:
            if offset != at:
                raise CorruptIndexError("the parts of the index do not follow each other")
            at += length
        if at != end:
            raise CorruptIndexError("the parts of the index do not fill it")
        records = parse_number(found.get("records"), 0, MAX_NUMBER)
        if sum(each.records for each in segments) != records:
            raise CorruptIndexError("the index has not as many records as its footer says")
        position = 0
        previous = b""
        for each in segments:
            if not position <= each.at <= tar_bytes:
                raise CorruptIndexError("a position in the index is outside of the archive")
            position = each.at
            if header.is_sorted:
                key = sort_key(each.first)
                if key <= previous:
                    raise CorruptIndexError("the segments of the index are not in order")
                previous = key
        _check_tables(tables, header, tar_bytes, stored)
        return cls(
            records,
            parse_number(found.get("files"), 0, records),
            parse_number(found.get("directories"), 0, records),
            parse_number(found.get("bytes"), 0, MAX_NUMBER),
            tar_bytes,
            stored,
            segments,
            tables,
        )


def _check_tables(
    tables: Sequence[TablePlace], header: IndexHeader, tar_bytes: int, stored: int
) -> None:
    expected = -(-tar_bytes // header.member_bytes) if header.member_bytes else 0
    members = sum(each.members for each in tables)
    is_empty = header.member_bytes and not tar_bytes and members == 1  # a gzip file has a member
    if members != expected and not is_empty:
        raise CorruptIndexError("the index has not as many gzip members as the archive")
    position = -1
    for each in tables:
        if each.stored <= position or each.stored > stored:
            raise CorruptIndexError("a gzip member in the index is outside of the archive")
        position = each.stored
    if tables and tables[0].stored != 0:
        raise CorruptIndexError("the gzip members in the index do not begin at the beginning")


def pack_table(lengths: Sequence[int]) -> bytes:
    """Return the line with the stored lengths of some of the archive's gzip members."""
    return pack_line({"members": list(lengths)})


def parse_table(line: bytes, place: TablePlace) -> list[int]:
    """Return the lengths, in bytes. Raises CorruptIndexError."""
    lengths = parse_list(parse_object(line, "table").get("members"))
    if len(lengths) != place.members:
        raise CorruptIndexError("a table of the index has another number of gzip members")
    return [parse_number(each, 1, _MAX_STORED_MEMBER_BYTES) for each in lengths]


def _segment_place(value: object) -> SegmentPlace:
    parts = parse_list(value)
    if len(parts) != 5:
        raise CorruptIndexError("the index has a segment without its place")
    first = parse_text(parts[0])
    if BAD_PATH.search(first) or len(first) > MAX_PATH_BYTES:
        raise CorruptIndexError(f"the index has a path that no file has: {first[:200]!r}")
    return SegmentPlace(
        first,
        parse_number(parts[1], 1, MAX_SEGMENT_RECORDS),
        parse_number(parts[2], 0, MAX_BLOCKS * BLOCK),
        *_place(parts[3:]),
    )


def _table_place(value: object) -> TablePlace:
    parts = parse_list(value)
    if len(parts) != 4:
        raise CorruptIndexError("the index has a table without its place")
    members = parse_number(parts[0], 1, MAX_TABLE_MEMBERS)
    return TablePlace(members, parse_number(parts[1], 0, MAX_NUMBER), *_place(parts[2:]))


def _place(values: Sequence[object]) -> tuple[int, int]:
    return parse_number(values[0], 0, MAX_NUMBER), parse_number(values[1], 1, _MAX_PART_BYTES)
