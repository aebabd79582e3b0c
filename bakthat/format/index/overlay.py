"""The state of a backup: the overlay of the indexes of all archives that it needs.

A full backup has one archive. An increment holds the difference to the state of an earlier backup,
so its state is that of the full, changed by one increment after the other. This is the only place
that says what such a change means.

- A later archive's entry replaces an earlier one's at the same path. One that is no directory also
  removes what lay below the path.
- What an increment removes is gone, with all below.
- What was *seen* keeps its content and gets the ctime and the inode that were seen.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from bakthat.format.entry import Entry, EntryType
from bakthat.format.index.values import sort_key

_Change = tuple[bytes, int, Entry]
"""The key by which paths are sorted, the number of the increment, and its entry."""


def overlay(
    full: Iterable[list[Entry]], increments: Sequence[Iterable[Entry]]
) -> Iterator[list[Entry]]:
    """Yield the entries of a state, in the order of an archive, some at once.

    *full* yields those of the full, also some at once, and *increments* are those of each increment
    with what it removes, in the order in which they are applied. All are sorted by their paths.
    Memory does not grow with their number.
    """
    merging = _Merging(_changes(increments))
    for entries in full:
        yield from merging.apply_to(entries)
    yield from merging.rest()


def _changes(increments: Sequence[Iterable[Entry]]) -> Iterator[tuple[bytes, list[_Change]]]:
    """Yield the changes at each path, the earliest first."""
    keyed = [_keyed(number, entries) for number, entries in enumerate(increments, 1)]
    merged = heapq.merge(*keyed, key=lambda change: change[:2])
    for key, changes in groupby(merged, key=lambda change: change[0]):
        yield key, list(changes)


def _keyed(number: int, entries: Iterable[Entry]) -> Iterator[_Change]:
    for entry in entries:
        yield sort_key(entry.path), number, entry


class _Merging:
    """Applies *changes* to the entries of a full, which come in the same order."""

    def __init__(self, changes: Iterator[tuple[bytes, list[_Change]]]) -> None:
        self._changes = changes
        self._next = next(changes, None)
        self._removed: list[tuple[bytes, int]] = []
        """Where everything below is removed, one within the other: what the keys below begin with,
        and up to which archive."""

    def apply_to(self, entries: list[Entry]) -> Iterator[list[Entry]]:
        """Yield *entries* of the full, changed, and what increments add before the last of them."""
        last = sort_key(entries[-1].path) if entries else b""
        if not entries or (not self._removed and (self._next is None or self._next[0] > last)):
            if entries:
                yield entries
            return
        keys = [sort_key(entry.path) for entry in entries]
        at = 0
        while at < len(entries):
            following = self._next[0] if self._next is not None else None
            stop = len(keys) if following is None else bisect_left(keys, following, at)
            yield from self._alive(keys, entries, at, stop)
            at = stop
            if following is None or following > last:
                return
            below = None
            if at < len(keys) and keys[at] == following:
                below = entries[at]
                at += 1
            yield from self._take(below)

    def rest(self) -> Iterator[list[Entry]]:
        """Yield what increments add after the last entry of the full."""
        while self._next is not None:
            yield from self._take(None)

    def _alive(
        self, keys: list[bytes], entries: list[Entry], start: int, stop: int
    ) -> Iterator[list[Entry]]:
        """Yield those of *entries* from *start* to *stop* that no increment removes."""
        while start < stop:
            if not self._removed_before(keys[start]):
                # Nothing more can be removed before the next change.
                yield entries[start:stop]
                return
            prefix = self._removed[-1][0]
            start = bisect_left(keys, prefix[:-1] + b"\1", start, stop)

    def _take(self, entry: Entry | None) -> list[list[Entry]]:
        """Apply the next changes to *entry*, that of the full at their path, if there is one."""
        assert self._next is not None
        key, changes = self._next
        self._next = next(self._changes, None)
        removed_before = self._removed_before(key)
        found = None if removed_before else entry
        for _, number, change in changes:
            if number < removed_before:
                continue
            if change.type is EntryType.SEEN:
                found = _seen(found, change, number)
                continue
            found = None if change.type is EntryType.REMOVED else change
            if change.type is not EntryType.DIRECTORY:
                self._remove_below(key, number)
        return [[found]] if found is not None else []

    def _removed_before(self, key: bytes) -> int:
        """Return the number of the last increment that removes everything above *key*; 0 if none.

        What that one and later ones hold there is not removed.
        """
        while self._removed and not key.startswith(self._removed[-1][0]):
            self._removed.pop()
        return self._removed[-1][1] if self._removed else 0

    def _remove_below(self, key: bytes, number: int) -> None:
        prefix = key + b"\0"
        if self._removed and self._removed[-1][0] == prefix:
            self._removed.pop()
        above = self._removed[-1][1] if self._removed else 0
        if number > above:  # else that one says it, so there is no more than one an increment
            self._removed.append((prefix, number))


def _seen(entry: Entry | None, seen: Entry, number: int) -> Entry | None:
    """Return *entry* as it was seen later; unchanged if its content is another one."""
    if entry is None or entry.archive != seen.archive:
        return entry
    if seen.is_stale:  # it could not be read, so the next backup must compare it again
        return entry._replace(is_stale=True)
    return entry._replace(
        ctime_ns=seen.ctime_ns,
        inode=seen.inode,
        is_volatile=seen.is_volatile,
        is_stale=False,
        read=number,
    )
