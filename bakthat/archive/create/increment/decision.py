"""What is decided about a file, a link or a device, compared with what an earlier backup has."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from bakthat.archive.attributes import attributes_digest
from bakthat.archive.create.digest import content_digest, open_file, why_not_opened
from bakthat.archive.create.increment.rule import MTIME, ChangeRule, metadata_change
from bakthat.archive.create.walk import Entry
from bakthat.archive.create.writer import why_unread
from bakthat.archive.create.xattrs import AttributeReader
from bakthat.format.entry import Entry as StateEntry
from bakthat.format.entry import EntryType
from bakthat.system.text import from_native

GONE, STALE = "gone", "stale"
"""Reasons of a file that vanished, and of one that cannot be read."""


class Decision(NamedTuple):
    """Whether an entry is stored."""

    reason: str
    """Why it is stored, GONE or STALE; "" if it is not stored."""
    seen: tuple[int, int, bool] | None = None
    """What was seen of one that is not stored: ctime (ns), inode number, whether it is stale."""
    problem: str = ""
    """Why one that is STALE cannot be read."""


class Decider:
    """Decides by *rule*; *racy_ns* has the :attr:`.IndexHeader.racy_ns` of each index."""

    def __init__(self, rule: ChangeRule, racy_ns: Sequence[int]) -> None:
        self._rule = rule
        self._racy = racy_ns
        self._attributes = AttributeReader()

    def decide(
        self, entry: Entry, status: os.stat_result, type_: EntryType, found: StateEntry | None
    ) -> Decision:
        """Decide about *entry*, which is no directory; *found* is what the earlier backup has."""
        made = self._compare(entry, status, type_, found)
        if (
            made.reason
            and made.reason not in (GONE, STALE)
            and found is not None
            and type_ is found.type is EntryType.FILE
        ):
            # Where it cannot be stored, it must not count as stored: a full might be made for it.
            return _unopened(entry) or made
        return made

    def attributes_digest(self, entry: Entry, status: os.stat_result) -> str:
        """Return the digest of the extended attributes of *entry*."""
        return attributes_digest(self._attributes.records(entry.path, status.st_dev))

    def _compare(
        self, entry: Entry, status: os.stat_result, type_: EntryType, found: StateEntry | None
    ) -> Decision:
        if found is None:
            return Decision("new")
        if found.type is EntryType.HARDLINK:
            # The first name of the file decides; here only the metadata of this name count.
            changed = metadata_change(status, found)
            is_same = self._rule.has_same_times(status, found)
            return Decision(
                changed, None if is_same else (status.st_ctime_ns, status.st_ino, False)
            )
        if found.type is not type_:
            return Decision("another type")
        if type_ is not EntryType.FILE:
            return Decision(self._change_of_other(entry, status, found))
        if status.st_size != found.size:
            return Decision("its size changed")
        changed = metadata_change(status, found)
        if changed:
            return Decision(changed)
        is_settled = self._is_settled(status, found)
        if is_settled and not self._rule.must_read(entry.name, status.st_dev):
            return Decision("")
        decision = self._read(entry, found)
        # What has the times that it had needs no record.
        return decision._replace(seen=None) if is_settled and not decision.reason else decision

    def _is_settled(self, status: os.stat_result, found: StateEntry) -> bool:
        """Return whether the times of a file say that it has not changed."""
        return (
            self._rule.has_same_times(status, found)
            and not self._rule.is_racy(status, self._racy[found.read])
            and not (found.is_volatile or found.is_stale)
        )

    def _change_of_other(self, entry: Entry, status: os.stat_result, found: StateEntry) -> str:
        """Return why what is neither a file nor a directory is stored; "" if it is not."""
        changed = metadata_change(status, found)
        if changed or not self._rule.has_same_times(status, found):
            return changed or "its ctime or inode changed"
        trusts_times = self._rule.detect != MTIME and not self._rule.is_racy(
            status, self._racy[found.read]
        )
        if trusts_times or found.type is not EntryType.SYMLINK:
            return ""
        try:
            is_same = from_native(os.readlink(entry.path)) == found.target
        except OSError:
            is_same = False
        return "" if is_same else "its target changed"

    def _read(self, entry: Entry, found: StateEntry) -> Decision:
        """Compare the content of a file whose times do not decide."""
        try:
            fd = open_file(entry.path)
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    return Decision("another type")
                digest = content_digest(fd, status)
                attributes = attributes_digest(self._attributes.records(fd, status.st_dev))
                after = os.fstat(fd)
            finally:
                os.close(fd)
        except OSError as exc:
            return _unread(exc)
        if status.st_size != found.size or not digest or digest != found.digest:
            return Decision("its content changed")
        changed = metadata_change(status, found)
        if changed or attributes != found.attributes:
            return Decision(changed or "its attributes changed")
        if (after.st_mtime_ns, after.st_ctime_ns) != (status.st_mtime_ns, status.st_ctime_ns):
            return Decision("it changed while it was read")
        return Decision("", (status.st_ctime_ns, status.st_ino, False))


def _unopened(entry: Entry) -> Decision | None:
    """Return what is decided about a file that cannot be opened; None for one that can."""
    error = why_not_opened(entry.path)
    return _unread(error) if error is not None else None


def _unread(error: OSError) -> Decision:
    if isinstance(error, FileNotFoundError):
        return Decision(GONE)
    return Decision(STALE, (0, 0, True), why_unread(error))
