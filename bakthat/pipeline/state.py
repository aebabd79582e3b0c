"""Restore the state of a backup from all archives that it needs, each path from one of them.

Of each archive only the members are unpacked that the state still has, the oldest archive first. So
nothing is ever unpacked that a later archive replaces or removes, and hard links find their files.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from bakthat.archive.extract.index_check import IndexCheck
from bakthat.archive.extract.selection import Selection
from bakthat.archive.extract.unpack import Reading, extract_all
from bakthat.archive.report import ArchiveReport
from bakthat.archive.tar.reader import TarReader
from bakthat.crypto.age import FileKeys
from bakthat.errors import CorruptArchiveError, CorruptIndexError
from bakthat.format.entry import EntryType
from bakthat.passwords import DecryptionKeys
from bakthat.pipeline.parts import PartsStream, Spans, has_parts, is_most
from bakthat.pipeline.plan import Index, State, find_spans
from bakthat.pipeline.ranges import plain_ranges, tar_ranges
from bakthat.pipeline.read import DAMAGE, Expected, bounded, naming, open_stages
from bakthat.system.streams import ByteCounter, CountedSource, RandomSource, Source

log = logging.getLogger("bakthat")

_READ_BYTES = 1024 * 1024
_NO_SPAN = (sys.maxsize, sys.maxsize)
_FRAME_BYTES = 12 * 1024
"""Bytes of a tar that belong to no member, at most: its comment and its end."""


class Ranges(RandomSource, Protocol):
    """A stored object of which parts can be read; :class:`.ObjectRanges`."""

    def cancel(self) -> object:
        """Let the calls that are under way fail."""


@dataclass(frozen=True, slots=True)
class StoredArchive:
    """One archive of a state, and how to read it."""

    key: str
    index: Index
    expected: Expected
    size: int
    """Of the stored object, in bytes; -1 when it is not known."""
    keys: Callable[[], DecryptionKeys]
    download: Callable[[], BinaryIO]
    """Opens the stored object from its beginning."""
    ranges: Callable[[], Ranges]
    """Opens it to read parts of it."""

    @property
    def has_parts(self) -> bool:
        """Whether a part of it can be read without what comes before it."""
        return self.size >= 0 and has_parts(self.index, self.expected)

    def is_read_whole(self, spans: Spans) -> bool:
        """Return whether it is read front to back, if *spans* of it are wanted."""
        return not self.has_parts or is_most(spans, self.index)


def restore_state(
    archives: Sequence[StoredArchive],
    spans: Sequence[Spans],
    destination: Path,
    *,
    state: State,
    selection: Selection | None,
    file_keys: FileKeys,
    report: ArchiveReport,
    on_bytes: ByteCounter,
    keep_going: bool = False,
) -> list[Path]:
    """Restore what *spans* of *archives* hold into *destination*; all of it appears, or nothing.

    Both are in the order of the indexes of *state*, and *spans* are those that were planned for all
    of the state, or for what *selection* means in it. *on_bytes* is called with the stored
    bytes of an archive that is read whole, and with the bytes of the tar of any other. Where an
    archive is damaged, only the parts of it are read that are needed. Returns the restored paths at
    the top of *destination*. Raises what :func:`bakthat.pipeline.read.read_object` raises; the
    message about damage names the archive.
    """
    reader = _StateReader(archives, state, file_keys, on_bytes)
    before = report.copy()
    while True:
        try:
            return extract_all(
                reader.readings(spans),
                destination,
                report=report,
                selection=selection,
                keep_going=keep_going,
                read_again=reader.read_again,
            )
        except DAMAGE as exc:
            if not reader.can_read_around(exc, spans):
                raise
            log.warning("%s; only the parts of it are read that hold what is wanted", exc)
            report.go_back_to(before)


class _StateReader:
    """Opens the archives of a state one after the other, as streams of what is wanted of each."""

    def __init__(
        self,
        archives: Sequence[StoredArchive],
        state: State,
        file_keys: FileKeys,
        on_bytes: ByteCounter,
    ) -> None:
        self._archives = archives
        self._state = state
        self._file_keys = file_keys
        self._on_bytes = on_bytes
        self._current = -1
        """The number of the archive that is read now."""
        self._in_parts: set[int] = set()
        """Those that are damaged, of which no more is read than what is wanted."""

    def readings(self, spans: Sequence[Spans]) -> Iterator[AbstractContextManager[Reading]]:
        """Yield what opens each archive of which something is wanted."""
        before = 0
        for number, wanted in enumerate(spans):
            if wanted.bytes:
                yield self._open(number, wanted, before)
            before += self._archives[number].index.footer.tar_bytes

    def read_again(self, paths: Collection[bytes]) -> Iterator[AbstractContextManager[Reading]]:
        """Yield what opens the archives that have the members at *paths*."""
        wanted = {path.decode("utf-8", "surrogateescape") for path in paths}
        found = (
            entry
            for entry in self._state.entries(wanted)
            if entry.path in wanted and entry.type is not EntryType.DIRECTORY
        )
        return self.readings(find_spans(self._state, found))

    def can_read_around(self, damage: Exception, spans: Sequence[Spans]) -> bool:
        """Return whether the archive in which *damage* was found can be read with less of it."""
        number = self._current
        if isinstance(damage, CorruptIndexError) or number < 0 or number in self._in_parts:
            return False
        archive = self._archives[number]
        has_others = spans[number].bytes + _FRAME_BYTES < archive.index.footer.tar_bytes
        if not has_others or not archive.has_parts:
            return False
        self._in_parts.add(number)
        return True

    @contextmanager
    def _open(self, number: int, spans: Spans, before: int) -> Iterator[Reading]:
        archive = self._archives[number]
        self._current = number
        with naming(archive.key, needs_index=True), ExitStack() as stages:
            if archive.is_read_whole(spans) and number not in self._in_parts:
                source = self._front_to_back(stages, archive, spans)
            else:
                source = self._parts(stages, archive, spans)
            check = stages.enter_context(IndexCheck(archive.index.within(spans), parts=True))
            yield Reading(source, check, before)

    def _front_to_back(self, stages: ExitStack, archive: StoredArchive, spans: Spans) -> Source:
        stored = CountedSource(stages.enter_context(closing(archive.download())), self._on_bytes)
        expected = archive.expected
        source = open_stages(stages, stored, expected, archive.keys(), file_keys=self._file_keys)
        if expected.check_identity is not None:
            source = _identified(source, expected.check_identity)
        return PartsStream(wanted_pieces(source, spans, archive.index.footer.tar_bytes), _ignore)

    def _parts(self, stages: ExitStack, archive: StoredArchive, spans: Spans) -> Source:
        stored = archive.ranges()
        plain = plain_ranges(stored, archive.expected, archive.keys(), self._file_keys)
        tar = stages.enter_context(tar_ranges(plain, archive.index, cancel=stored.cancel))
        return bounded(PartsStream(tar.pieces(spans), self._on_bytes), archive.expected)


def _ignore(_size: int) -> None:
    """Count nothing: the stored bytes were counted."""


def _identified(source: Source, check: Callable[[bytes], None]) -> Source:
    """Return *source*, a tar, after *check* was called with the comment at its beginning."""
    recorded = _Recorded(source)
    reader = TarReader(recorded)
    next(iter(reader), None)
    check(reader.comment)
    return _Replayed(recorded.pieces, source)


class _Recorded:
    """A source that keeps what was read."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.pieces: list[bytes] = []

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self.pieces.append(data)
        return data


class _Replayed:
    """*pieces*, and then the rest of *source*."""

    def __init__(self, pieces: list[bytes], source: Source) -> None:
        self._pieces = pieces[::-1]
        self._source = source

    def read(self, size: int, /) -> bytes:
        if not self._pieces:
            return self._source.read(size)
        piece = self._pieces.pop()
        if len(piece) > size:
            self._pieces.append(piece[size:])
        return piece[:size] or self.read(size)


def wanted_pieces(source: Source, spans: Spans, size: int) -> Iterator[bytes]:
    """Yield *spans* of *source*, a tar of *size* bytes, which is read to its end.

    So the stages below check all of it. Raises CorruptArchiveError when it has another size.
    """
    waiting = iter(spans)
    start, end = next(waiting, _NO_SPAN)
    at = 0
    while piece := source.read(_READ_BYTES):
        stop = at + len(piece)
        wanted = []
        while start < stop:
            wanted.append(piece[max(start - at, 0) : end - at])
            if end > stop:
                break
            start, end = next(waiting, _NO_SPAN)
        if wanted:
            yield b"".join(wanted)  # TarReader is slower with small pieces
        at = stop
    if at != size:
        raise CorruptArchiveError(f"it has {at} bytes of tar, and {size} in its index")
