"""Compare two trees of entries: what was added and removed, and what of the others changed.

Both trees come in the order of an archive, so they are merged: nothing but the hard links is
remembered, however many entries there are.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from bakthat.format.entry import Entry, EntryType
from bakthat.format.index.values import sort_key

_SECOND = 10**9
_MAX_LINKS = 40
"""The most hard links from one to the next; bakthat writes one."""


class ChangeKind(enum.StrEnum):
    """What happened to an entry."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


class Aspect(enum.StrEnum):
    """What of an entry changed."""

    TYPE = "type"
    CONTENT = "content"
    MODE = "mode"
    OWNER = "owner"
    """The user or the group; by their names where both sides have one, else by their numbers."""
    TIMES = "times"
    """The time of the last modification."""
    TARGET = "target"
    """Where a symbolic link points, or which other names of the tree the file has."""
    DEVICE = "device"
    """The numbers of a device."""
    ATTRIBUTES = "attributes"
    """Extended attributes and ACLs."""


_ORDER = tuple(Aspect)


class EntryChange(NamedTuple):
    """One entry that two trees do not have alike."""

    path: str
    """The path of *after*, or of *before* where it was removed."""
    kind: ChangeKind
    aspects: tuple[Aspect, ...]
    """What changed; empty for an entry that was added or removed."""
    before: Entry | None
    """The entry in the first tree; None when it was added."""
    after: Entry | None
    """The entry in the second tree; None when it was removed."""

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints of a change."""
        return {
            "path": self.path,
            "change": self.kind.value,
            "aspects": [each.value for each in self.aspects],
            "before": None if self.before is None else self.before.as_dict(),
            "after": None if self.after is None else self.after.as_dict(),
        }


@dataclass(slots=True)
class Totals:
    """Counts of a comparison."""

    added: int = 0
    removed: int = 0
    changed: int = 0
    unchanged: int = 0
    bytes_added: int = 0
    """The content of files that were added, and of those whose content changed, as it is now."""
    bytes_removed: int = 0
    """The content of files that were removed, and of those whose content changed, as it was."""
    unknown: int = 0
    """Entries of the first tree that could not be compared, since the second could not be read."""

    @property
    def differs(self) -> bool:
        """Whether any entry was added, removed or changed."""
        return bool(self.added or self.removed or self.changed)

    def count(self, change: EntryChange) -> None:
        """Count one change."""
        if change.before is None:
            self.added += 1
        elif change.after is None:
            self.removed += 1
        else:
            self.changed += 1
            if not {Aspect.CONTENT, Aspect.TYPE} & set(change.aspects):
                return
        self.bytes_added += change.after.size if change.after is not None else 0
        self.bytes_removed += change.before.size if change.before is not None else 0

    def as_dict(self) -> dict[str, int]:
        """Return what ``--json`` prints of the totals."""
        return {name: getattr(self, name) for name in self.__slots__}


class Tree(Protocol):
    """One side of a comparison: the entries of a backup, or of a directory on the disk.

    All paths are those of its entries.
    """

    @property
    def top(self) -> str:
        """The directory at the top, with which all paths begin; "" without one."""

    has_whole_seconds: bool
    """Whether its times have no fractions, since what made it does not keep them."""
    has_attributes: bool
    """Whether its entries say what extended attributes and ACLs they have."""

    @property
    def first_names(self) -> Collection[str]:
        """The paths, among those that were read so far, that later hard links may have as targets.

        Empty where that is not known before the hard link is read.
        """

    def entries(self) -> Iterator[Entry]:
        """Yield the entries, each path once, component by component in the order of the bytes."""

    def link_targets(self) -> Collection[str]:
        """Return the targets of all hard links; empty where that would mean a second walk."""

    def find(self, paths: Collection[str]) -> Mapping[str, Entry]:
        """Return the entries at those of *paths* that exist."""

    def resolve(self, link: Entry) -> Entry | None:
        """Return a hard link that :meth:`link_targets` did not know as the file that it names."""

    def with_digest(self, entry: Entry) -> Entry | None:
        """Return the entry of a file with the SHA-256 of its content, if the tree has or reads it.

        None when the file cannot be read; a warning was given then.
        """

    def is_unread(self, path: str) -> bool:
        """Return whether *path* is at or below an entry that could not be read."""


def compare(before: Tree, after: Tree, totals: Totals) -> Iterator[EntryChange]:
    """Yield what differs between two trees, in the order of an archive, and count it in *totals*.

    The name of the top directory is not compared. A hard link is compared as the file that it is
    another name of. Contents are the same when their SHA-256 are; where one side has none, when
    size and time are.
    """
    comparison = _Comparison(before, after, totals)
    for change in comparison.changes():
        totals.count(change)
        yield change


@dataclass(slots=True)
class _Side:
    """A tree, the entries of which are read one after the other."""

    tree: Tree
    top: str = ""
    groups: dict[bytes, bytes] = field(default_factory=dict)
    """The first name that both trees have of a file, by the target of its hard links."""
    found: Mapping[bytes, Entry] | None = None
    """The entries that hard links have as targets, by key; None before the first is needed."""

    def keyed(self) -> Iterator[tuple[bytes, Entry]]:
        """Yield the entries with the keys by which they are ordered."""
        self.top = self.tree.top
        for entry in self.tree.entries():
            yield self.key(entry.path), entry

    def key(self, path: str) -> bytes:
        """Return a key that orders paths below the top directory as an archive does.

        What is not below the top directory comes last.
        """
        if not self.top:
            return b"\0" + sort_key(path)
        top, _, rest = path.partition("/")
        if top == self.top:
            return b"\0" + sort_key(rest)
        return b"\1" + sort_key(path)

    def path(self, key: bytes) -> str:
        """Return the path with *key* in this tree."""
        path = key[1:].replace(b"\0", b"/").decode("utf-8", "surrogateescape")
        if key[:1] == b"\1" or not self.top:
            return path
        return f"{self.top}/{path}" if path else self.top


class _Comparison:
    def __init__(self, before: Tree, after: Tree, totals: Totals) -> None:
        self._before = _Side(before)
        self._after = _Side(after)
        self._totals = totals
        self._have_attributes = before.has_attributes and after.has_attributes
        self._changed: dict[int, tuple[Aspect, ...] | None] = {}
        """What changed in an entry, by the hash of its key, for hard links; None for not known."""
        self._common: set[bytes] = set()
        """Keys of first names that both trees have."""

    def changes(self) -> Iterator[EntryChange]:
        left, right = self._before.keyed(), self._after.keyed()
        a, b = next(left, None), next(right, None)
        while a is not None or b is not None:
            if b is None or (a is not None and a[0] < b[0]):
                assert a is not None
                if self._after.tree.is_unread(self._after.path(a[0])):
                    self._totals.unknown += 1
                else:
                    yield EntryChange(a[1].path, ChangeKind.REMOVED, (), a[1], None)
                a = next(left, None)
            elif a is None or b[0] < a[0]:
                yield EntryChange(b[1].path, ChangeKind.ADDED, (), None, b[1])
                b = next(right, None)
            else:
                aspects = self._pair(a[0], a[1], b[1])
                if aspects is None:
                    self._totals.unknown += 1
                elif aspects:
                    yield EntryChange(b[1].path, ChangeKind.CHANGED, aspects, a[1], b[1])
                else:
                    self._totals.unchanged += 1
                a, b = next(left, None), next(right, None)

    def _pair(self, key: bytes, a: Entry, b: Entry) -> tuple[Aspect, ...] | None:
        """Return what changed of an entry; None when that cannot be known."""
        if a.path in self._before.tree.first_names or b.path in self._after.tree.first_names:
            self._common.add(key)
        found = self._node(key, a, b)
        if found is None:
            return None
        aspects = list(found)
        if a.mode != b.mode:
            aspects.append(Aspect.MODE)
        same_user = _same_name(a.owner, a.uid, b.owner, b.uid)
        if not same_user or not _same_name(a.group, a.gid, b.group, b.gid):
            aspects.append(Aspect.OWNER)
        if not self._same_time(a, b):
            aspects.append(Aspect.TIMES)
        return tuple(sorted(aspects, key=_ORDER.index)) if len(aspects) > 1 else tuple(aspects)

    def _node(self, key: bytes, a: Entry, b: Entry) -> tuple[Aspect, ...] | None:
        """Return what changed of what all names of a file share; None when that cannot be known.

        The entries of hard links have only the mode, the owner and the time of it.
        """
        link = EntryType.HARDLINK
        if a.type is not link and b.type is not link:
            found = self._contents(a, b)
            if found != () and a.type is not EntryType.DIRECTORY:
                self._changed[hash(key)] = found  # hard links may follow
            return found
        targets = [
            side.key(entry.target) if entry.type is link else None
            for side, entry in ((self._before, a), (self._after, b))
        ]
        if targets[0] == targets[1]:
            return self._changed.get(hash(targets[0]), ())
        return self._other_link(key, a, b, targets)

    def _other_link(
        self, key: bytes, a: Entry, b: Entry, targets: list[bytes | None]
    ) -> tuple[Aspect, ...] | None:
        """Compare two entries that are not hard links to one path."""
        self._find_targets()
        first, second = (
            self._resolved(side, entry, target)
            for side, entry, target in zip(
                (self._before, self._after), (a, b), targets, strict=True
            )
        )
        if first is None or second is None:  # the archive lacks the target of a hard link
            return (Aspect.TARGET,)
        found = self._contents(first, second)
        if found is None or Aspect.TARGET in found:
            return found
        groups = [
            self._group(side, key, target)
            for side, target in zip((self._before, self._after), targets, strict=True)
        ]
        return found if groups[0] == groups[1] else (*found, Aspect.TARGET)

    def _find_targets(self) -> None:
        if self._before.found is not None:
            return
        sides = self._before, self._after
        keys = {side.key(path) for side in sides for path in side.tree.link_targets()}
        for side in sides:
            found = side.tree.find({side.path(key) for key in keys})
            side.found = {side.key(path): entry for path, entry in found.items()}

    def _resolved(self, side: _Side, entry: Entry, target: bytes | None) -> Entry | None:
        """Return the entry that a hard link is another name of; any other entry as it is."""
        if target is None:
            return entry
        assert side.found is not None
        for _ in range(_MAX_LINKS):
            found = side.found.get(target)
            if found is None or found.type is not EntryType.HARDLINK:
                return found or side.tree.resolve(entry)
            target = side.key(found.target)
        return None

    def _group(self, side: _Side, key: bytes, target: bytes | None) -> bytes:
        """Return the key of the first of a file's names that both trees have.

        So a name that one tree lacks does not make a difference of all others.
        """
        if target is None:
            return key
        return target if self._is_common(target) else side.groups.setdefault(target, key)

    def _is_common(self, key: bytes) -> bool:
        return key in self._common or all(
            side.found is not None and key in side.found for side in (self._before, self._after)
        )

    def _contents(self, a: Entry, b: Entry) -> tuple[Aspect, ...] | None:
        """Compare two entries that are no hard links by what is in them."""
        if a.type is not b.type:
            return (Aspect.TYPE,)
        found: list[Aspect] = []
        if a.type is EntryType.FILE:
            same = self._same_content(a, b)
            if same is None:
                return None
            if not same:
                found.append(Aspect.CONTENT)
        if a.target != b.target:
            found.append(Aspect.TARGET)
        if a.device != b.device:
            found.append(Aspect.DEVICE)
        if self._have_attributes and a.attributes != b.attributes:
            found.append(Aspect.ATTRIBUTES)
        return tuple(found)

    def _same_content(self, a: Entry, b: Entry) -> bool | None:
        if a.size != b.size:
            return False
        if a.digest and not b.digest:
            read = self._after.tree.with_digest(b)
            if read is None:
                return None
            b = read
        if a.digest and b.digest:
            return a.digest == b.digest
        return self._same_time(a, b)

    def _same_time(self, a: Entry, b: Entry) -> bool:
        if a.mtime_ns == b.mtime_ns:
            return True
        if not (self._before.tree.has_whole_seconds or self._after.tree.has_whole_seconds):
            return False
        return a.mtime_ns // _SECOND == b.mtime_ns // _SECOND


def _same_name(name: str, number: int, other_name: str, other_number: int) -> bool:
    return name == other_name if name and other_name else number == other_number
