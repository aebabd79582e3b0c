"""The state of a backup, from the indexes of all archives that it needs."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain

from bakthat.archive.index.reader import IndexReader
from bakthat.errors import CorruptIndexError
from bakthat.format.entry import Entry
from bakthat.format.index.layout import IndexHeader
from bakthat.format.index.overlay import overlay
from bakthat.format.index.values import sort_key
from bakthat.system.text import printable


class State:
    """What a backup holds, by *indexes*: the full's first, then those of the increments in order.

    A full backup has one index. The caller closes their sources. An entry's ``archive`` is the
    number of the index of the archive that has its content. Raises CorruptIndexError for an index
    that does not continue those before it.
    """

    def __init__(self, indexes: Sequence[IndexReader]) -> None:
        self.indexes = tuple(indexes)
        _check_chain(self.indexes)

    @property
    def header(self) -> IndexHeader:
        """The header of the backup's own index."""
        return self.indexes[-1].header

    @property
    def top(self) -> str:
        """The first component of the first entry's path; "" without entries."""
        return self.indexes[0].top

    def entries(
        self,
        paths: Collection[str] | None = None,
        *,
        where: Callable[[str], bool] | None = None,
    ) -> Iterator[Entry]:
        """Yield the entries in order; as :meth:`.IndexReader.entries` does, for a full backup.

        With *paths*, only those at these paths and below them; *where* is called with each path and
        says whether its entry is wanted. Raises CorruptIndexError, and what the sources raise.
        """
        full, *increments = self.indexes
        if not increments:
            return full.entries(paths, where=where)
        changes = [_changes(index, paths) for index in increments]
        found: Iterator[Entry]
        found = chain.from_iterable(overlay(full.segments(paths, where=where), changes))
        if paths is not None:
            inside = _Inside(paths)
            found = (each for each in found if inside(each.path))
        if where is not None:
            return (each for each in found if where(each.path))
        return found

    def entries_of(
        self,
        archive: int,
        paths: Collection[str] | None = None,
        *,
        where: Callable[[str], bool] | None = None,
    ) -> Iterator[Entry]:
        """Yield those of :meth:`entries` whose content the archive with this number has."""
        return (each for each in self.entries(paths, where=where) if each.archive == archive)


def _check_chain(indexes: Sequence[IndexReader]) -> None:
    """Raise CorruptIndexError unless each increment was made from the state before it."""
    for number, index in enumerate(indexes):
        header = index.header
        expected = [each.header.key for each in indexes[:number]]
        if [each.key for each in header.needs] != expected:
            raise CorruptIndexError(
                f"the index of {printable(header.key)} is not that of an increment of "
                f"{printable(expected[-1]) if expected else 'nothing'}",
                hint="bakthat sync --indexes makes it again: another object was put in its place",
            )
        for before, needed in zip(indexes[:number], header.needs, strict=True):
            if needed.archive_id != before.header.archive_id and before.header.archive_id:
                raise CorruptIndexError(
                    f"{printable(header.key)} needs another archive than the one that is "
                    f"{printable(needed.key)} now",
                    hint="restore an older backup: it was replaced on the storage",
                )
        if number and not (index.header.is_sorted and indexes[0].header.is_sorted):
            raise CorruptIndexError(
                f"the index of {printable(header.key)} is damaged: its paths are not in order"
            )


def _changes(index: IndexReader, paths: Collection[str] | None) -> Iterator[Entry]:
    """Yield the changes of an increment that matter for *paths*, in order.

    What is above them may be removed, or be no directory any more.
    """
    if paths is None:
        return chain.from_iterable(index.segments())
    above: set[str] = set()
    for path in paths:
        parts = path.split("/")
        above.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    above.difference_update(paths)
    inside = _Inside(paths)
    outside = [each for each in index.at(above) if not inside(each.path)]
    within = chain.from_iterable(index.segments(paths))
    return heapq.merge(outside, within, key=lambda each: sort_key(each.path))


class _Inside:
    """Says whether a path is one of *paths*, or below one of them."""

    def __init__(self, paths: Collection[str]) -> None:
        self._paths = frozenset(paths)

    def __call__(self, path: str) -> bool:
        while path:
            if path in self._paths:
                return True
            path = path.rpartition("/")[0]
        return False
