"""Indexes of backups for the tests: read, changed, and written again."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
