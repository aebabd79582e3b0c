"""Find out what an increment removes, from its archive and the state that it was made from.

A directory in such an archive lists its names, as GNU tar's incremental archives do, each with a
letter: Y for a name that is in the archive, N for one that is not, D for a directory; there is a
NUL after each name, and one at the end (GNU tar's manual, "Dumpdir"). What the state has in the
directory and the list lacks is removed, and so is a directory that is listed as Y, and anything
else that is listed as D. That is what GNU tar removes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from bakthat.archive.index.scan import TarScan
from bakthat.errors import ArchiveError, CorruptArchiveError
from bakthat.format.entry import Entry, EntryType
from bakthat.format.index.values import sort_key
from bakthat.system.text import printable

MAX_LISTING_BYTES = 64 * 1024 * 1024
"""The most bytes of lists that are kept at once: those of a directory and of all above it."""


class IncrementScan:
    """Iterates over the entries of an increment: those of its archive, and what it removes.

    *scan* reads the archive, and *before* are the entries of the state that the increment was made
    from, in order. Neither is kept in memory. What was only seen is not in an archive: the next
    backup reads it again. Raises CorruptArchiveError for an archive that this version did not
    write, and ArchiveError where the archive does not say what was removed.
    """

    def __init__(self, scan: TarScan, before: Iterable[Entry]) -> None:
        self._scan = scan
        self._before = iter(before)
        self._next = next(self._before, None)
        self._directories: list[_Directory] = []
        """The directory of the archive that was reached last, and those above it that it has."""
        self._listed = 0
        """Bytes of the lists of these."""
        self._gone = b""
        """What the keys of all begin with that lay below the last path that is no directory now;
        b"" for none."""

    def __iter__(self) -> Iterator[Entry]:
        end = 0
        for entry in self._scan:
            if not self._scan.is_sorted:
                raise CorruptArchiveError("the entries of the increment are not in order")
            key = sort_key(entry.path)
            yield from self._removed_before(key, end)
            self._enter(key, entry)
            yield entry
            end = entry.end
        yield from self._removed_before(None, end)

    def _removed_before(self, key: bytes | None, end: int) -> Iterator[Entry]:
        """Yield what is removed before *key* of the archive, None for its end, in order.

        *end* is where the last entry ends in the archive.
        """
        while self._next is not None:
            entry, before = self._next, sort_key(self._next.path)
            if key is not None and before >= key:
                return
            self._next = next(self._before, None)
            if self._gone and before.startswith(self._gone):
                continue
            if self._is_removed(before, entry):
                self._gone = before + b"\0"
                yield Entry(entry.path, EntryType.REMOVED, 0, 0, 0, 0, position=end, header_bytes=0)

    def _is_removed(self, key: bytes, entry: Entry) -> bool:
        self._leave(key)
        if not self._directories:
            return False
        prefix, names, _ = self._directories[-1]
        name = key[len(prefix) :]
        if b"\0" in name or names is None:  # it is in a directory that the archive does not have
            return False
        letter = names.get(name)
        is_directory = entry.type is EntryType.DIRECTORY
        return letter is None or letter == (b"Y" if is_directory else b"D")

    def _enter(self, key: bytes, entry: Entry) -> None:
        """Take note of *entry* of the archive."""
        self._leave(key)
        was_directory = False
        if self._next is not None and sort_key(self._next.path) == key:
            was_directory = self._next.type is EntryType.DIRECTORY
            self._next = next(self._before, None)
        prefix = key + b"\0"
        if entry.type is not EntryType.DIRECTORY:
            self._gone = prefix
            return
        listing = self._scan.listing
        if listing is None and was_directory:
            raise ArchiveError(
                f"the archive does not say what was removed from {printable(entry.path)}: the list "
                "of its names was too long, or could not be read",
                hint="restore the backup before it and then this one with tar, or make a full one",
            )
        names = None if listing is None else _parse(listing)
        size = len(listing or b"")
        self._directories.append(_Directory(prefix, names, size))
        self._listed += size
        if self._listed > MAX_LISTING_BYTES:
            raise CorruptArchiveError("the lists of the directories in the archive are too long")

    def _leave(self, key: bytes) -> None:
        """Forget the directories that are not above *key*."""
        while self._directories and not key.startswith(self._directories[-1].prefix):
            self._listed -= self._directories.pop().size


class _Directory(NamedTuple):
    prefix: bytes
    """What the keys of everything below begin with."""
    names: dict[bytes, bytes] | None
    """The letter of each name; None for a directory that was not there before."""
    size: int
    """Bytes of its list."""


def _parse(listing: bytes) -> dict[bytes, bytes]:
    """Return the letter of each name in the list of a directory. Raises CorruptArchiveError."""
    *records, rest = listing.split(b"\0")
    if rest or not records or records.pop():
        raise CorruptArchiveError("the list of a directory does not end as it must")
    names = {each[1:]: each[:1] for each in records}
    if not names.keys().isdisjoint({b"", b".", b".."}) or not set(names.values()) <= _LETTERS:
        raise CorruptArchiveError("the list of a directory has a name that none can have")
    return names


_LETTERS = {b"Y", b"N", b"D"}
