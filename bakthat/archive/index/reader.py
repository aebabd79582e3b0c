"""Read an index, all of it or only the parts that are needed."""

from __future__ import annotations

import sys
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, pairwise
from typing import NamedTuple

from bakthat.archive.index.framing import (
    TAIL_BYTES,
    inflate,
    length_of_first,
    parse_tail,
)
from bakthat.errors import CorruptIndexError
from bakthat.format.entry import Entry, EntryType
from bakthat.format.index.layout import (
    IndexFooter,
    IndexHeader,
    SegmentPlace,
    TablePlace,
    parse_table,
)
from bakthat.format.index.parsing import MAX_SEGMENT_BYTES, parse_segment
from bakthat.format.index.values import sort_key
from bakthat.system.streams import RandomSource
from bakthat.system.text import printable

_DIRECTORY = EntryType.DIRECTORY
_NO_PART = (sys.maxsize, sys.maxsize)
_NO_FILES = (EntryType.DIRECTORY, EntryType.REMOVED, EntryType.SEEN)
_END_BYTES = 64 * 1024
"""What is read of the end at first; the footer of a million files fits."""
_MAX_HEADER_BYTES = 256 * 1024
_MAX_FOOTER_BYTES = 16 * 1024 * 1024
"""Enough for a hundred million files."""
_DENSE_BYTES = 1024 * 1024
_BYTES_PER_LIST = 8
"""Of a footer of more than _DENSE_BYTES: one of many empty lists would take 40 times its memory."""
_MAX_TABLE_BYTES = 256 * 1024


class StoredMember(NamedTuple):
    """Where a gzip member of an archive is."""

    start: int
    """Where its content begins in the tar archive, in bytes."""
    stored_start: int
    """Where it begins in the archive, in bytes, before age."""
    stored_end: int


class IndexReader:
    """The index of *key* in *source*, which the caller closes. Memory is bounded by its footer.

    Raises CorruptIndexError, also for the index of another object, and what *source* raises.
    """

    def __init__(self, source: RandomSource, *, key: str) -> None:
        self._source = source
        size = source.size
        if size < TAIL_BYTES:
            raise CorruptIndexError("the index is truncated")
        start = max(size - _END_BYTES, 0)
        end = source.read_at(start, size - start)
        footer = parse_tail(end[-TAIL_BYTES:])
        if not 0 < footer < size - TAIL_BYTES:
            raise CorruptIndexError("the index has no footer")
        if footer < start:
            if size - footer > _MAX_FOOTER_BYTES:
                raise CorruptIndexError("the footer of the index is too long")
            start, end = footer, source.read_at(footer, start - footer) + end
        first = end if start == 0 else source.read_at(0, min(footer, 4096))
        length = length_of_first(first)
        if length > min(footer, _MAX_HEADER_BYTES):
            raise CorruptIndexError("the header of the index is too long")
        if length > len(first):
            first = source.read_at(0, length)
        self.header = IndexHeader.parse(inflate(first[:length], limit=_MAX_HEADER_BYTES, offset=0))
        if self.header.key != key:
            raise CorruptIndexError(
                f"the index says that it is of {printable(self.header.key)}, not of "
                f"{printable(key)}",
                hint="bakthat sync --indexes makes it again: another object was put in its place",
            )
        text = inflate(end[footer - start : -TAIL_BYTES], limit=_MAX_FOOTER_BYTES, offset=footer)
        if len(text) > _DENSE_BYTES and _BYTES_PER_LIST * sum(map(text.count, b"[{")) > len(text):
            raise CorruptIndexError("the footer of the index holds more lists than any has")
        self.footer = IndexFooter.parse(text, self.header, begin=length, end=footer)
        self._firsts = [sort_key(each.first) for each in self.footer.segments]

    @property
    def top(self) -> str:
        """The first component of the first entry's path; "" without entries."""
        segments = self.footer.segments
        return segments[0].first.partition("/")[0] if segments else ""

    def entries(
        self,
        paths: Collection[str] | None = None,
        *,
        where: Callable[[str], bool] | None = None,
    ) -> Iterator[Entry]:
        """Yield the entries that the archive has members for, in its order.

        With *paths*, only the entries at these paths and below them; only the segments that can
        hold them are read. *where* is called with each path and says whether its entry is wanted.
        Raises CorruptIndexError, and what the source raises.
        """
        entries = chain.from_iterable(self.segments(paths, where=where))
        if not self.header.needs:
            return entries
        return (each for each in entries if each.type.is_member)

    def segments(
        self,
        paths: Collection[str] | None = None,
        *,
        where: Callable[[str], bool] | None = None,
    ) -> Iterator[list[Entry]]:
        """Yield the entries of :meth:`entries`, those of a segment at once.

        Those of an increment also say what it removes and what was seen.
        """
        if paths is None:
            segments = self._entries_of(range(len(self.footer.segments)), where)
            return self._counted(segments) if where is None else segments
        wanted = _tops_of(paths)

        def is_wanted(path: str) -> bool:
            key = sort_key(path)
            number = bisect_right(wanted, key) - 1
            if number < 0 or not (key + b"\0").startswith(wanted[number] + b"\0"):
                return False
            return where is None or where(path)

        return self._entries_of(self._segments_with(wanted), is_wanted)

    def at(self, paths: Collection[str]) -> Iterator[Entry]:
        """Yield the entries at *paths*, without those below them, as :meth:`segments` does."""
        wanted = frozenset(paths)
        keys = map(sort_key, wanted)
        if not self.header.is_sorted:
            numbers: Sequence[int] = range(len(self._firsts))
        else:
            found = {max(bisect_right(self._firsts, key) - 1, 0) for key in keys}
            numbers = sorted(found) if self._firsts else []
        return chain.from_iterable(self._entries_of(numbers, wanted.__contains__))

    def within(self, parts: Iterable[tuple[int, int]]) -> Iterator[Entry]:
        """Yield the entries whose members lie in *parts* of the tar archive, which are in order.

        Each part is a start and an end, in bytes. Only the segments that can hold the entries are
        read. Raises CorruptIndexError, and what the source raises.
        """
        waiting = iter(parts)
        start, end = next(waiting, _NO_PART)
        begins = [each.at for each in self.footer.segments]
        for number, (begin, stop) in enumerate(pairwise([*begins, self.footer.tar_bytes])):
            while end <= begin:
                start, end = next(waiting, _NO_PART)
            if stop <= start:
                continue
            for entry in chain.from_iterable(self._entries_of((number,), None)):
                while end <= entry.position:
                    start, end = next(waiting, _NO_PART)
                if start <= entry.position and entry.type.is_member:
                    yield entry

    def members(self) -> MemberTable | None:
        """Return where the archive's gzip members are; None when it has none of known lengths."""
        if not self.header.member_bytes:
            return None
        footer, header = self.footer, self.header
        return MemberTable(
            self._source,
            header.key,
            header.member_bytes,
            footer.tables,
            footer.stored_bytes,
        )

    def _counted(self, segments: Iterable[list[Entry]]) -> Iterator[list[Entry]]:
        """Yield the entries of all segments; at the end, compare them with what the footer says."""
        files = directories = content_bytes = 0
        for entries in segments:
            yield entries
            types = [entry.type for entry in entries]
            directories += types.count(_DIRECTORY)
            files += len(entries) - sum(map(types.count, _NO_FILES))
            content_bytes += sum([entry.stored_bytes for entry in entries])
        footer = self.footer
        if (files, directories, content_bytes) != (
            footer.files,
            footer.directories,
            footer.content_bytes,
        ):
            problem = "it has not as many files or bytes as its footer says"
            raise _damage_error(self.header.key, problem)

    def _segments_with(self, paths: Iterable[bytes]) -> Sequence[int]:
        """Return the numbers of the segments that can hold an entry at or below one of *paths*.

        *paths* are the keys that they are sorted by.
        """
        if not self.header.is_sorted:
            return range(len(self._firsts))
        found: set[int] = set()
        for key in paths:
            first = max(bisect_right(self._firsts, key) - 1, 0)
            # b"\1" is the first byte that can follow the name of a sibling.
            last = bisect_left(self._firsts, key + b"\1")
            found.update(range(first, last))
        return sorted(found)

    def _entries_of(
        self, numbers: Sequence[int], where: Callable[[str], bool] | None
    ) -> Iterator[list[Entry]]:
        segments = self.footer.segments
        for number in numbers:
            place = segments[number]
            following = segments[number + 1] if number + 1 < len(segments) else None
            with _naming(self.header.key):
                entries = parse_segment(
                    self._text(place),
                    place,
                    end=self.footer.tar_bytes if following is None else following.at,
                    before=None if following is None else following.first,
                    is_sorted=self.header.is_sorted,
                    kind=self.header.kind,
                    needs=len(self.header.needs),
                    where=where,
                )
            yield entries

    def _text(self, place: SegmentPlace) -> bytes:
        data = self._source.read_at(place.offset, place.length)
        return inflate(data, limit=MAX_SEGMENT_BYTES, offset=place.offset)


@contextmanager
def _naming(key: str) -> Iterator[None]:
    """Name the object *key* in an error about its index that is found once it is open."""
    try:
        yield
    except CorruptIndexError as exc:
        raise _damage_error(key, str(exc)) from exc


def _damage_error(key: str, problem: str) -> CorruptIndexError:
    error = CorruptIndexError(f"the index of {printable(key)} is damaged: {problem}")
    error.is_named = True
    return error


def _tops_of(paths: Iterable[str]) -> list[bytes]:
    """Return the sorted keys of *paths*, without those below another one."""
    tops: list[bytes] = []
    for key in sorted(map(sort_key, paths)):
        if not tops or not (key + b"\0").startswith(tops[-1] + b"\0"):
            tops.append(key)
    return tops


class MemberTable:
    """Where the gzip members of an archive are. Several threads may use it at once."""

    def __init__(
        self,
        source: RandomSource,
        key: str,
        member_bytes: int,
        places: Sequence[TablePlace],
        stored_bytes: int,
    ) -> None:
        self.member_bytes = member_bytes
        """Bytes of the tar archive in each member but the last."""
        self._source = source
        self._key = key
        self._places = places
        self._stored_bytes = stored_bytes
        self._firsts = [0]
        for each in places:
            self._firsts.append(self._firsts[-1] + each.members)
        self._lock = threading.Lock()
        self._kept: tuple[int, list[int]] = (-1, [])
        """The number of the table read last, and where its members begin, with the end."""

    def locate(self, start: int, end: int) -> list[StoredMember]:
        """Return the members that hold bytes *start* to *end* of the tar archive, in order.

        Raises CorruptIndexError, also for bytes that no member holds, and what the source raises.
        """
        if end <= start:
            return []
        first, last = start // self.member_bytes, (end - 1) // self.member_bytes
        if start < 0 or last >= self._firsts[-1]:
            problem = "it has no gzip member for a position in the archive"
            raise _damage_error(self._key, problem)
        return [self._member(number) for number in range(first, last + 1)]

    def _member(self, number: int) -> StoredMember:
        table = bisect_right(self._firsts, number) - 1
        begins = self._begins(table)
        within = number - self._firsts[table]
        return StoredMember(number * self.member_bytes, begins[within], begins[within + 1])

    def _begins(self, number: int) -> list[int]:
        with self._lock:
            if self._kept[0] != number:
                with _naming(self._key):
                    self._kept = number, self._read(number)
            return self._kept[1]

    def _read(self, number: int) -> list[int]:
        place = self._places[number]
        data = self._source.read_at(place.offset, place.length)
        text = inflate(data, limit=_MAX_TABLE_BYTES, offset=place.offset)
        begins = [place.stored]
        for length in parse_table(text, place):
            begins.append(begins[-1] + length)
        is_last = number + 1 == len(self._places)
        if begins[-1] != (self._stored_bytes if is_last else self._places[number + 1].stored):
            raise CorruptIndexError("the lengths of gzip members in the index do not add up")
        return begins
