"""Pack entries into segments of an index, which can each be read alone."""

from __future__ import annotations

import binascii
import json
import os
import re
import stat
from typing import Any

from bakthat.format.entry import BLOCK, Entry, EntryType
from bakthat.format.index.layout import (
    DIGEST_LETTERS,
    KINDS,
    MAX_SEGMENT_RECORDS,
    USUAL_HEADER_BYTES,
)
from bakthat.format.index.values import pack_line, pack_text

_FULL_BYTES = 1024 * 1024
"""Bytes of text after which a segment ends; with long paths it has fewer records."""

_LETTERS = {kind: letter for letter, kind in KINDS.items()}
_PLAIN = re.compile(r"[ !#-\[\]-~]*").fullmatch
"""Whether JSON writes a text as it is."""
_base64 = binascii.b2a_base64


class SegmentPacker:
    """Collects the records of one segment."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._owners: dict[int, str] = {}
        self._groups: dict[int, str] = {}
        self._usual: dict[tuple[int, int, int, str, str], str] = {}
        """What usual records have after their path, by mode, with the type, owners and names."""
        self._inode = 0
        self._next: int | None = None
        self._bytes = 0
        self.first = ""
        self.at = 0
        self.files = 0
        """Members that are not directories."""
        self.directories = 0
        self.content_bytes = 0
        """Bytes of the content of the files, without holes."""

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, entry: Entry) -> bool:
        """Add a record; return False when it must begin another segment, for this one is full.

        A record also follows right after the one before it, with the same names of owners.
        """
        if entry.type.is_member:
            names = entry.owner, entry.group
            may_follow = self._may_follow(entry.position, entry.uid, entry.gid, *names)
        else:  # what was removed or seen has no owner
            may_follow = not self._lines or entry.position == self._next
        if not may_follow:
            return False
        if not self._lines:
            self.first, self.at = entry.path, entry.position
        line = self._pack(entry)
        self._append(line, entry.end)
        if entry.type is EntryType.DIRECTORY:
            self.directories += 1
        elif entry.type.is_member:
            self.files += 1
            self.content_bytes += entry.stored_bytes
        return True

    def add_usual(
        self,
        path: str,
        status: os.stat_result,
        size: int,
        digest: bytes,
        owner: str,
        group: str,
        position: int,
    ) -> bool:
        """Add the record of a usual file or directory, in a third of the time of :meth:`add`.

        It has headers of :data:`.layout.USUAL_HEADER_BYTES`, no extended attributes and no holes,
        and nothing disturbed the reading. *status* is its own, *size* 0 for a directory, and the
        others are those of its :class:`.Entry`.
        """
        # This runs for each file of a backup, so it looks up as little as it can.
        mode, uid, gid = status.st_mode, status.st_uid, status.st_gid
        middle = self._usual.get((mode, uid, gid, owner, group))
        if position != self._next or middle is None:
            if not self._may_follow(position, uid, gid, owner, group):
                return False
            if not self._lines:
                self.first, self.at = path, position
            kind = "d" if stat.S_ISDIR(mode) else "f"
            middle = f',"{kind}",{mode & 0o7777},{uid},{gid},'
            self._usual[mode, uid, gid, owner, group] = middle
        mtime, inode = status.st_mtime_ns, status.st_ino
        name = f'"{path}"' if _PLAIN(path) else _json(pack_text(path))
        line = f"[{name}{middle}{mtime},{status.st_ctime_ns - mtime},{inode - self._inode}"
        self._inode = inode
        if digest:
            line = f'{line},{size},"{_letters(digest)}"]'
            self.files += 1
            self.content_bytes += size
        else:
            line += "]"
            self.directories += 1
        self._append(line, position + USUAL_HEADER_BYTES + size + -size % BLOCK)
        return True

    def _may_follow(self, position: int, uid: int, gid: int, owner: str, group: str) -> bool:
        """Return whether an entry at *position*, with these names of owners, fits in here."""
        if self._lines and position != self._next:
            return False
        return (
            self._owners.setdefault(uid, owner) == owner
            and self._groups.setdefault(gid, group) == group
        )

    def _append(self, line: str, end: int) -> None:
        """Append *line*, for an entry that ends at *end* of the archive."""
        lines = self._lines
        lines.append(line)
        self._bytes += len(line) if line.isascii() else len(line.encode())
        is_full = len(lines) >= MAX_SEGMENT_RECORDS or self._bytes >= _FULL_BYTES
        self._next = None if is_full else end

    def pack(self) -> bytes:
        """Return the lines of the segment."""
        head = {
            "segment": len(self._lines),
            "at": self.at,
            "owners": {str(uid): pack_text(name) for uid, name in self._owners.items() if name},
            "groups": {str(gid): pack_text(name) for gid, name in self._groups.items() if name},
        }
        return pack_line(head) + "\n".join([*self._lines, ""]).encode()

    def _pack(self, entry: Entry) -> str:
        """Return the record of any entry."""
        inode, ctime = entry.inode, entry.ctime_ns
        values: list[Any] = [
            pack_text(entry.path),
            _LETTERS[entry.type],
            entry.mode,
            entry.uid,
            entry.gid,
            entry.mtime_ns,
            None if ctime is None else ctime - entry.mtime_ns,
            None if inode is None else inode - self._inode,
        ]
        if inode is not None:
            self._inode = inode
        more = {} if _is_usual(entry) else _more(entry)
        if entry.digest or entry.size or more:
            values.append(entry.size)
        record = _json(values)[:-1]
        if entry.digest or more:
            record += f',"{_letters(entry.digest)}"'
        if more:
            record += f",{_json(more)}"
        return f"{record}]"


def _letters(digest: bytes) -> str:
    return _base64(digest, newline=False)[:DIGEST_LETTERS].decode()


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _is_usual(entry: Entry) -> bool:
    if entry.type is EntryType.REMOVED:
        return True
    stored = entry.size if entry.type is EntryType.FILE else 0
    return (
        entry.header_bytes == USUAL_HEADER_BYTES
        and entry.stored_bytes == stored
        and not (entry.target or entry.device or entry.attributes or entry.is_volatile)
        and entry.type is not EntryType.SEEN
    )


def _more(entry: Entry) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if entry.target:
        more["t"] = pack_text(entry.target)
    if entry.device is not None:
        more["d"] = list(entry.device)
    if entry.type is EntryType.SEEN:
        more["a"] = entry.archive
        if entry.is_stale:
            more["z"] = 1
    elif entry.header_bytes != USUAL_HEADER_BYTES:
        more["n"] = entry.header_bytes // BLOCK
    if entry.stored_bytes != (entry.size if entry.type is EntryType.FILE else 0):
        more["k"] = entry.stored_bytes
    if entry.attributes:
        more["x"] = entry.attributes
    if entry.is_volatile:
        more["v"] = 1
    return more
