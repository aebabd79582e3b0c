"""Indexes of backups for the tests: read, changed, and written again."""

from __future__ import annotations

import gzip
import io
import itertools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bakthat.archive.gzip.members import HEADER_BYTES, member_length
from bakthat.archive.gzip.writer import compress_member
from bakthat.archive.index.framing import TAIL_BYTES, pack_tail
from bakthat.archive.index.reader import IndexReader
from bakthat.archive.index.writer import IndexSpool, SegmentWriter
from bakthat.format.entry import Entry
from bakthat.format.index.layout import IndexHeader
from bakthat.session.indexes.scanning import scan_backup
from bakthat.session.reading import KeyFinder, find_to_restore
from bakthat.session.session import Session
from tests.support.indexes import forget_cache
from tests.support.ranges import Bytes


@dataclass
class Contents:
    """What an index says, to be changed and written again."""

    header: IndexHeader
    entries: list[Entry]
    lengths: list[int] = field(default_factory=list)
    """The stored length of each gzip member of the archive."""
    tar_bytes: int = 0

    @classmethod
    def of(cls, index: bytes, key: str) -> Contents:
        """Read *index*, that of the archive *key*."""
        reader = IndexReader(Bytes(index), key=key)
        table = reader.members()
        found = table.locate(0, reader.footer.tar_bytes) if table is not None else []
        lengths = [each.stored_end - each.stored_start for each in found]
        return cls(reader.header, list(reader.entries()), lengths, reader.footer.tar_bytes)

    def packed(self) -> bytes:
        """Return the index, not encrypted."""
        with IndexSpool() as spool:
            writer = SegmentWriter(spool.add_segment)
            for entry in self.entries:
                writer.add(entry)
            writer.close()
            for length in self.lengths:
                spool.add_member(length)
            sink = io.BytesIO()
            spool.write_to(sink, self.header, tar_bytes=self.tar_bytes)
        return sink.getvalue()


def index_by_reading(conf: dict[str, Any], name: str, password: str = "") -> bytes:
    """Return the index of a backup, made by reading it, not encrypted."""
    session = Session("default", None, conf)
    backup = find_to_restore(session, name, None)
    sink = io.BytesIO()
    with scan_backup(session, backup, KeyFinder(session, password, None, False)) as scanned:
        scanned.write_to(sink)
    return sink.getvalue()


def change_index(
    conf: dict[str, Any], name: str, change: Callable[[Contents], object] = lambda _: None
) -> None:
    """Store an index with changes in the local store of *conf*, for an unencrypted backup."""
    contents = Contents.of(index_by_reading(conf, name), name)
    change(contents)
    index_path(conf, name).write_bytes(contents.packed())
    forget_cache()


def index_path(conf: dict[str, Any], name: str) -> Path:
    """Return where the local store of *conf* has the index of a backup."""
    return Path(conf["local_path"], f"{name}.index")


def replaced(entries: Iterable[Entry], which: str, **fields: Any) -> list[Entry]:
    """Return *entries*, the one at *which* with other *fields*."""
    found = [each._replace(**fields) if each.path == which else each for each in entries]
    assert found != entries
    return found


@dataclass
class RawIndex:
    """The lines of an index, to be changed without any check, and packed again."""

    header: Any
    segments: list[list[Any]]
    """The lines of each segment."""
    places: list[list[Any]]
    """First path, records and position of each segment, for the footer."""
    tables: list[Any]
    table_places: list[list[Any]]
    """Members and stored position of each table, for the footer."""
    footer: dict[str, Any]
    texts: dict[int, bytes] = field(default_factory=dict)
    """What a gzip member holds instead, by its number."""
    footer_at: int | None = None
    """Where the tail says that the footer is, instead of where it is."""

    @classmethod
    def parse(cls, index: bytes) -> RawIndex:
        """Take *index* apart."""
        parts: list[list[Any]] = []
        at = 0
        while at < len(index) - TAIL_BYTES:
            length = member_length(index[at : at + HEADER_BYTES])
            assert length is not None
            text = gzip.decompress(index[at : at + length])
            parts.append([json.loads(line) for line in text.splitlines()])
            at += length
        footer = parts[-1][0]
        segments = [each for each in parts[1:-1] if "segment" in each[0]]
        tables = [each[0] for each in parts[1:-1] if "segment" not in each[0]]
        places = [each[:3] for each in footer["segments"]]
        return cls(
            parts[0][0],
            segments,
            places,
            tables,
            [each[:2] for each in footer["members"]],
            footer,
        )

    def packed(self) -> bytes:
        """Return the index; the footer says where its parts really are."""
        parts = [self._member(0, [self.header])]
        number = 1
        for lines in [*self.segments, *([each] for each in self.tables)]:
            parts.append(self._member(number, lines))
            number += 1
        offsets = list(itertools.accumulate(map(len, parts)))
        ends = list(zip(offsets, map(len, parts[1:]), strict=False))
        footer = dict(self.footer)
        count = len(self.places)
        footer["segments"] = [[*a, *b] for a, b in zip(self.places, ends[:count], strict=True)]
        footer["members"] = [[*a, *b] for a, b in zip(self.table_places, ends[count:], strict=True)]
        parts.append(self._member(number, [footer]))
        at = offsets[-1] if self.footer_at is None else self.footer_at
        return b"".join(parts) + pack_tail(at)

    def _member(self, number: int, lines: list[Any]) -> bytes:
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()
        return compress_member(self.texts.get(number, text), 1)
