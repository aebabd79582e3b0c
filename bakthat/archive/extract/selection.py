"""Select the entries of an archive that texts mean: paths that are there, or else patterns."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import groupby
from typing import Protocol

from bakthat.archive.patterns import InvalidPatternError, Pattern, PatternRules, parse_pattern
from bakthat.errors import NoMatchError, UsageError
from bakthat.format.entry import Entry, EntryType
from bakthat.system.text import quoted

_SPECIAL = frozenset(b"*?[\\")
_CACHED_BYTES = 4 * 1024 * 1024
"""How long the names are in sum whose decisions are remembered."""


_Step = Callable[[bytes, bytes, bool], bool | None]
"""Decides about an entry by its path, its path below the top, and whether it is a directory."""


class EntrySource(Protocol):
    """What a selection asks of an index."""

    @property
    def top(self) -> str:
        """The first component of the first entry's path; "" without entries."""

    def entries(
        self,
        paths: Collection[str] | None = None,
        *,
        where: Callable[[str], bool] | None = None,
    ) -> Iterator[Entry]:
        """Yield the entries at *paths* and below them that *where* may want; None for all."""


class OneFile:
    """What a backup of one file, called *name*, is to a selection."""

    def __init__(self, name: str) -> None:
        self.top = name

    def entries(
        self,
        paths: Collection[str] | None = None,
        *,
        where: Callable[[str], bool] | None = None,
    ) -> Iterator[Entry]:
        """Yield the one entry, if it is wanted."""
        if (paths is None or self.top in paths) and (where is None or where(self.top)):
            yield Entry(self.top, EntryType.FILE, 0, 0, 0, 0)


class Selection:
    """The entries that *texts* mean, and everything below them.

    A text is a path that is there, from the top of the archive or from just below the one directory
    at its top: ``mydir/etc/hosts`` or ``etc/hosts``. A text that is not there is a pattern with the
    rules of .gitignore, relative to that directory. With a "!" at its beginning, it leaves out what
    it matches; of several texts that match an entry, the last decides. Where all texts leave out,
    everything else is selected.

    :meth:`resolve` finds out which texts are paths. Without it, while an archive is read front to
    back, both meanings are tried, and :meth:`settle` says afterwards whether that went wrong.

    Raises UsageError for a text with "..", with a NUL, or without any name.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = [_Text(text) for text in texts]
        self._only_excludes = all(text.excludes for text in self._texts)
        self._top: bytes | None = None
        self._settled = False
        self._seen_paths: set[tuple[int, bytes]] = set()
        self._seen_as_pattern: set[int] = set()
        self._unseen: set[int] = set()
        """The texts that are patterns and have not matched yet."""
        self._is_empty = True
        self._by_directories = any(text.directory_only for text in self._texts)
        self._steps: list[_Step] = []
        self._states: dict[bytes, bool | None] = {}
        self._states_bytes = 0
        self.found: dict[str, Entry] = {}
        """The first entry at each text that is a path, by this path, as :meth:`resolve` saw them.
        A directory may have no entry."""

    @property
    def looks_like_paths(self) -> bool:
        """Whether no text has a character of patterns, so that a few entries will be asked for."""
        return not any(text.excludes or _SPECIAL.intersection(text.raw) for text in self._texts)

    def resolve(self, index: EntrySource) -> None:
        """Find out which texts are paths in *index*; the others are patterns.

        It may be called again, for another index. Raises whatever *index* raises.
        """
        self._top = top = _encoded(index.top)
        self._is_empty = True
        self.found.clear()
        # The likely paths first, since a look for what is not there may read a segment more.
        missing = set(range(len(self._texts)))
        paths: dict[int, bytes] = {}
        for attempt in (0, 1):
            wanted = {n: self._texts[n].paths(top)[attempt : attempt + 1] for n in missing}
            found = _find(index, {path for each in wanted.values() for path in each})
            paths |= {n: each[0] for n, each in wanted.items() if found.keys() & each}
            self.found.update((_decoded(path), entry) for path, entry in found.items() if entry)
            missing -= paths.keys()
        self._settle(paths)

    def entries(self, index: EntrySource) -> Iterator[Entry]:
        """Resolve the texts in *index*, and yield the entries that they mean, in its order.

        Call :meth:`check` afterwards, where a text without an entry is an error.
        """
        self.resolve(index)
        paths = self.literal_paths()
        for entry in index.entries(paths, where=self.includes_name):
            if self.includes(entry.path, is_directory=entry.type is EntryType.DIRECTORY):
                yield entry

    def literal_paths(self) -> Collection[str] | None:
        """Return paths at or below which all selected entries are; None if there is a pattern.

        Call :meth:`resolve` first.
        """
        paths: list[str] = []
        for text in self._texts:
            if text.found is not None:
                paths.append(_decoded(text.found))
            elif not text.excludes:
                return None
        return None if self._only_excludes else paths

    def includes_name(self, path: str) -> bool:
        """Return whether the selection may include an entry at *path*, a directory or not."""
        raw = _encoded(path)
        return self._includes(raw, is_dir=False) or (
            (self._by_directories or b"/" not in raw) and self._includes(raw, is_dir=True)
        )

    def includes(self, path: str, *, is_directory: bool) -> bool:
        """Return whether the selection includes the entry at *path*."""
        return self.includes_raw(_encoded(path), is_directory=is_directory)

    def includes_raw(self, path: bytes, *, is_directory: bool) -> bool:
        """Return whether the selection includes the entry at *path*, normalized.

        Where nothing was resolved, the first call tells the directory at the top of the archive.
        """
        if self._top is None:
            self._top = path.partition(b"/")[0]
        if not self._includes(path, is_dir=is_directory):
            return False
        self._is_empty = False
        if self._unseen:
            self._note(path, is_dir=is_directory)
        return True

    def matches_name(self, path: str) -> bool:
        """Return whether :meth:`matches` may say yes for *path*, a directory or not."""
        return self.matches(path, is_directory=False) or (
            (self._by_directories or "/" not in path) and self.matches(path, is_directory=True)
        )

    def matches(self, path: str, *, is_directory: bool) -> bool:
        """Return whether a text means the entry at *path* itself, not only a directory above it.

        Call :meth:`resolve` first. Where all texts leave out, everything else is meant.
        """
        raw = _encoded(path)
        if not self._includes(raw, is_dir=is_directory):
            return False
        return self._only_excludes or self._decide(raw, is_dir=is_directory) is True

    def includes_target(self, path: bytes) -> bool:
        """Return whether the selection includes the file at *path*, of which there is a link."""
        return self._includes(path, is_dir=False)

    def settle(self) -> bool:
        """Decide which texts are paths, by the entries that :meth:`includes_raw` has seen.

        Return False if other entries were included meanwhile than those that the texts mean, so
        that all must be read again.
        """
        if self._settled:
            return True
        paths: dict[int, bytes] = {}
        for number, text in enumerate(self._texts):
            seen = [p for p in text.paths(self._top or b"") if (number, p) in self._seen_paths]
            paths |= {number: seen[0]} if seen else {}
        is_wrong = len(self._seen_paths) > len(paths) or bool(paths.keys() & self._seen_as_pattern)
        self._settle(paths)
        self._unseen -= self._seen_as_pattern
        self._is_empty = self._is_empty or is_wrong
        return not is_wrong

    def check(self) -> None:
        """Raise NoMatchError unless every text has matched an entry, and one was included."""
        missing = self._unseen
        if not self._settled:
            seen = {number for number, _ in self._seen_paths} | self._seen_as_pattern
            missing = {n for n, text in enumerate(self._texts) if not text.excludes} - seen
        for number in sorted(missing):
            raise NoMatchError(
                f"the backup holds no {quoted(self._texts[number].raw)}",
                hint="bakthat contents lists what it holds; "
                "give a path as it is there, or a pattern as in .gitignore",
            )
        if self._is_empty:
            raise NoMatchError(
                "the backup holds nothing but what is left out",
                hint="remove a pattern that begins with ! from --only (only= in Python)",
            )

    def _settle(self, paths: dict[int, bytes]) -> None:
        """Take the texts with these numbers for *paths*, and the others for patterns."""
        self._settled = True
        for number, text in enumerate(self._texts):
            text.found = paths.get(number)
        self._only_excludes = all(text.excludes and text.found is None for text in self._texts)
        self._unseen = {
            number
            for number, text in enumerate(self._texts)
            if text.found is None and not text.excludes
        }
        self._steps = _steps(self._texts, self._top or b"")
        self._states.clear()
        self._states_bytes = 0

    def _includes(self, path: bytes, *, is_dir: bool) -> bool:
        above = self._state(path.rpartition(b"/")[0])
        if above is False:
            return False
        decided = self._decide(path, is_dir=is_dir)
        return bool(above) if decided is None else decided

    def _state(self, directory: bytes) -> bool | None:
        """Return whether what is in *directory* is included; None if no text says so.

        What a text leaves out stays so, with everything below it.
        """
        if not directory:
            return True if self._only_excludes else None
        try:
            return self._states[directory]
        except KeyError:
            pass
        state: bool | None = True if self._only_excludes else None
        end = -1
        while state is not False and end != len(directory):
            end = directory.find(b"/", end + 1)
            end = len(directory) if end < 0 else end
            decided = self._decide(directory[:end], is_dir=True)
            state = state if decided is None else decided
        self._states_bytes += len(directory)
        if self._states_bytes > _CACHED_BYTES:
            self._states.clear()
            self._states_bytes = len(directory)
        self._states[directory] = state
        return state

    def _decide(self, path: bytes, *, is_dir: bool) -> bool | None:
        """Return what the last text says that matches *path* itself; None for none."""
        if not self._settled:
            return self._try_both(path, is_dir=is_dir)
        below = _below(path, self._top or b"", is_dir=is_dir)
        for step in self._steps:
            decided = step(path, below, is_dir)
            if decided is not None:
                return decided
        return None

    def _try_both(self, path: bytes, *, is_dir: bool) -> bool | None:
        top = self._top or b""
        below = _below(path, top, is_dir=is_dir)
        result: bool | None = None
        for number in reversed(range(len(self._texts))):
            text = self._texts[number]
            decided = text.match(below, top, is_dir=is_dir) if below else None
            if path in text.paths(top):
                self._seen_paths.add((number, path))
                decided = True
            elif decided is not None:
                self._seen_as_pattern.add(number)
            result = decided if result is None else result
        return result

    def _note(self, path: bytes, *, is_dir: bool) -> None:
        """Remember which patterns match *path* or a directory above it."""
        top = self._top or b""
        while path and self._unseen:
            below = _below(path, top, is_dir=is_dir)
            for number in tuple(self._unseen):
                if below and self._texts[number].match(below, top, is_dir=is_dir):
                    self._unseen.discard(number)
            path, is_dir = path.rpartition(b"/")[0], True


class _Text:
    """One text, in both of its meanings."""

    def __init__(self, text: str) -> None:
        self.raw = os.fsencode(text)
        parts = [part for part in self.raw.split(b"/") if part not in (b"", b".")]
        if not parts or b".." in parts or b"\0" in self.raw:
            raise UsageError(
                f"no path in a backup can be {quoted(self.raw)}",
                hint="give one as bakthat contents shows it, or a pattern as in .gitignore",
            )
        self._parts = parts
        self.excludes = self.raw.startswith(b"!")
        self.directory_only = self.raw.endswith(b"/")
        self.found: bytes | None = None
        """The path that is there; None when the text is a pattern."""
        self._top = b""
        self._patterns = _parse(self.raw)
        self._rules = PatternRules(self._patterns)

    def paths(self, top: bytes) -> tuple[bytes, ...]:
        """Return the paths that the text can be where *top* is at the top, the likelier first."""
        path = b"/".join(self._parts)
        if not top:
            return (path,)
        below = top + b"/" + path
        return (path, below) if self._parts[0] == top else (below, path)

    def patterns(self, top: bytes) -> list[Pattern]:
        """Return the text as patterns relative to *top*; none when they could never match."""
        if top != self._top:
            sign = b"!" if self.excludes else b""
            rest = self.raw[len(sign) :].removeprefix(b"/")
            self._patterns = _parse(self.raw)
            if rest.startswith(top + b"/"):  # a text may begin with the top, as a path may
                self._patterns += _parse(sign + rest[len(top) :])
            self._rules = PatternRules(self._patterns)
            self._top = top
        return self._patterns

    def match(self, below: bytes, top: bytes, *, is_dir: bool) -> bool | None:
        """Return what the text as a pattern says of *below*, a path relative to *top*."""
        return self._rules.match(below, is_dir=is_dir) if self.patterns(top) else None


def _parse(line: bytes) -> list[Pattern]:
    try:
        return [parse_pattern(line)]
    except InvalidPatternError:
        return []


def _find(index: EntrySource, paths: Collection[bytes]) -> dict[bytes, Entry | None]:
    """Return which of *paths* have an entry in *index*: the one at the path, None if only below."""
    found: dict[bytes, Entry | None] = {}
    if not paths:
        return found
    for entry in index.entries([_decoded(path) for path in paths]):
        path = _encoded(entry.path)
        if path in paths:
            found.setdefault(path, entry)
        while path := path.rpartition(b"/")[0]:
            if path in paths:
                found.setdefault(path, None)
        if len(found) == len(paths):
            break
    return found


def _steps(texts: Sequence[_Text], top: bytes) -> list[_Step]:
    """Return what decides about an entry, the first answer counts: the last text's."""
    steps: list[_Step] = []
    for is_path, run in groupby(reversed(texts), key=lambda text: text.found is not None):
        if is_path:
            steps.append(_path_step({text.found for text in run if text.found is not None}))
        else:
            # Of the patterns of one PatternRules, the last decides.
            patterns = [pattern for text in run for pattern in text.patterns(top)][::-1]
            steps.append(_pattern_step(PatternRules(patterns)))
    return steps


def _path_step(paths: Collection[bytes]) -> _Step:
    return lambda path, below, is_dir: True if path in paths else None


def _pattern_step(rules: PatternRules) -> _Step:
    return lambda path, below, is_dir: rules.match(below, is_dir=is_dir) if below else None


def _below(path: bytes, top: bytes, *, is_dir: bool) -> bytes:
    """Return *path* relative to the directory *top*; b"" for that directory itself."""
    first, _, rest = path.partition(b"/")
    if first != top or (not rest and not is_dir):
        return path
    return rest


def _encoded(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _decoded(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
