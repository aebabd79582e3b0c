"""Decide which parts of which archives the restore of a state needs, and what cannot be restored.

Memory does not grow with the number of entries, but by 16 bytes for each gap between wanted ones.
Only where archives are missing, each hard link takes some 70 bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bakthat.archive.extract.links import MAX_DEFERRED
from bakthat.archive.extract.selection import EntrySource, Selection
from bakthat.format.entry import Entry, EntryType
from bakthat.pipeline.parts import Spans
from bakthat.pipeline.ranges import ArchiveIndex
from bakthat.system import file_log

SOME = 3
"""How many lost files are named."""
_LINK = EntryType.HARDLINK


class Index(ArchiveIndex, Protocol):
    """The index of one archive; :class:`bakthat.archive.index.reader.IndexReader`."""

    def within(self, parts: Iterable[tuple[int, int]]) -> Iterator[Entry]:
        """Yield the entries whose members lie in *parts* of the tar, which are in order."""


class State(EntrySource, Protocol):
    """The state of a backup; :class:`bakthat.archive.index.state.State`."""

    @property
    def indexes(self) -> Sequence[Index]:
        """Those of the archives that it needs, the oldest first."""


@dataclass(slots=True)
class Lost:
    """What cannot be restored, since the archive that has it is missing."""

    files: int = 0
    """Entries that are not directories."""
    directories: int = 0
    """Directories that get no mode, owner and time."""
    paths: list[str] = field(default_factory=list)
    """The first of them; all, where somebody listens to the log of files."""

    def add(self, entry: Entry) -> None:
        """Add one."""
        if entry.type is EntryType.DIRECTORY:
            self.directories += 1
        else:
            self.files += 1
        if len(self.paths) < SOME or file_log.is_wanted():
            self.paths.append(entry.path)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to read of each archive of a state; the archives are numbers of its indexes."""

    spans: Sequence[Spans]
    """The parts of each archive that hold what is wanted."""
    linked: Collection[int]
    """The archives with the content of wanted hard links to what is not wanted."""
    lost: dict[int, Lost]
    """What is wanted of those that are missing."""

    @property
    def archives(self) -> Sequence[int]:
        """Those of which anything is read, the oldest first."""
        wanted = {number for number, spans in enumerate(self.spans) if spans.bytes}
        return sorted(wanted.union(self.linked))


def find_spans(state: State, entries: Iterable[Entry]) -> list[Spans]:
    """Return which parts of each archive hold *entries*, which are of *state*, in its order.

    Raises CorruptIndexError for one that is outside of its archive, and what *entries* raises.
    """
    spans = [Spans((), index.footer.tar_bytes) for index in state.indexes]
    for entry in entries:
        spans[entry.archive].add(entry.position, entry.end)
    return spans


def plan_restore(state: State, selection: Selection | None, missing: Collection[int] = ()) -> Plan:
    """Decide how to restore *state*, or what *selection* means in it, without *missing* archives.

    Raises NoMatchError where the selection does not match, and what reading the indexes raises.
    """
    return _Planning(state, selection, missing).plan()


class _Planning:
    def __init__(self, state: State, selection: Selection | None, missing: Collection[int]) -> None:
        self._state = state
        self._selection = selection
        self._missing = frozenset(missing)
        self._unchosen: set[str] = set()
        """What wanted hard links are other names of, and is not wanted itself."""
        self._lost_targets: dict[int, int] = {}
        """The missing archives of what hard links are other names of, by the hash of its path."""
        self._lost: dict[int, Lost] = {}

    def plan(self) -> Plan:
        if self._missing:
            self._find_lost_targets()
        spans = find_spans(self._state, self._restorable())
        if self._selection is not None:
            self._selection.check()
        linked = self._archives_of(self._unchosen) if self._unchosen else set()
        return Plan(spans, linked, self._lost)

    def _wanted(self) -> Iterator[Entry]:
        if self._selection is None:
            return self._state.entries()
        return self._selection.entries(self._state)

    def _find_lost_targets(self) -> None:
        targets = {hash(entry.target) for entry in self._wanted() if entry.type is _LINK}
        if targets:
            self._lost_targets = {
                hash(entry.path): entry.archive
                for entry in self._state.entries()
                if entry.archive in self._missing and hash(entry.path) in targets
            }

    def _restorable(self) -> Iterator[Entry]:
        """Yield what is wanted and not lost."""
        for entry in self._wanted():
            lost_with = self._lost_with(entry) if self._missing else None
            if lost_with is not None:
                self._lost.setdefault(lost_with, Lost()).add(entry)
                continue
            if entry.type is _LINK and self._selection is not None:
                self._note_target(self._selection, entry.target)
            yield entry

    def _lost_with(self, entry: Entry) -> int | None:
        """Return which missing archive has the content of *entry*; None if none has."""
        if entry.archive in self._missing:
            return entry.archive
        return self._lost_targets.get(hash(entry.target)) if entry.type is _LINK else None

    def _note_target(self, selection: Selection, target: str) -> None:
        if len(self._unchosen) <= MAX_DEFERRED and not selection.includes_target(
            target.encode("utf-8", "surrogateescape")
        ):
            self._unchosen.add(target)

    def _archives_of(self, paths: Collection[str]) -> set[int]:
        return {each.archive for each in self._state.entries(paths) if each.path in paths}
