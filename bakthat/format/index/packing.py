"""Pack entries into segments of an index, which can each be read alone."""

from __future__ import annotations

import binascii
import json
import re
from collections import deque
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
_FILE, _DIRECTORY = EntryType.FILE, EntryType.DIRECTORY
_base64 = binascii.b2a_base64

PENDING = b"\1"
"""The digest of an entry that is packed before its content is hashed; see :func:`fill_digests`.
JSON has no such byte."""


class SegmentPacker:
    """Collects the records of one segment."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._owners: dict[int, str] = {}
        self._groups: dict[int, str] = {}
        # What usual records have after their path, by mode, owner and names.
        self._of_files: dict[tuple[int, int, int, str, str], str] = {}
        self._of_directories: dict[tuple[int, int, int, str, str], str] = {}
        self._inode = 0
        self._next: int | None = None
        self._bytes = 0
        self.first = ""
        self.at = 0
        self.files = 0
        """Entries that are not directories."""
        self.content_bytes = 0
        """Bytes of the content of the files, without holes."""

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, entry: Entry) -> bool:
        """Add a record; return False when it must begin another segment, for this one is full.

        A record also follows right after the one before it, with the same names of owners.
        """
        # This runs for each file of a backup, so it looks up as little as it can.
        (
            path,
            kind,
            mode,
            uid,
            gid,
            mtime,
            ctime,
            inode,
            size,
            digest,
            owner,
            group,
            _target,
            _device,
            attributes,
            is_volatile,
            position,
            header_bytes,
            stored_bytes,
        ) = entry
        lines = self._lines
        if position != self._next:
            if lines:
                return False
            self.first, self.at = path, position
        known = self._of_directories if kind is _DIRECTORY else self._of_files
        middle = known.get((mode, uid, gid, owner, group))
        if middle is None:
            if self._owners.setdefault(uid, owner) != owner:
                return False
            if self._groups.setdefault(gid, group) != group:
                return False
            letter = "d" if kind is _DIRECTORY else "f"
            middle = known[mode, uid, gid, owner, group] = f'","{letter}",{mode},{uid},{gid},'
        if (
            header_bytes != USUAL_HEADER_BYTES
            or inode is None
            or ctime is None
            or attributes
            or is_volatile
            or not _PLAIN(path)
        ):
            line = self._pack(entry)
        elif kind is _FILE and digest and stored_bytes == size:
            letters = "\1" if digest == PENDING else _letters(digest)
            line = (
                f'["{path}{middle}{mtime},{ctime - mtime},{inode - self._inode},{size},"{letters}"]'
            )
            self._inode = inode
        elif kind is _DIRECTORY and not stored_bytes:
            line = f'["{path}{middle}{mtime},{ctime - mtime},{inode - self._inode}]'
            self._inode = inode
        else:
            line = self._pack(entry)
        lines.append(line)
        if kind is not _DIRECTORY:
            self.files += 1
            self.content_bytes += stored_bytes
        self._bytes += len(line) if line.isascii() else len(line.encode())
        is_full = len(lines) >= MAX_SEGMENT_RECORDS or self._bytes >= _FULL_BYTES
        end = position + header_bytes + stored_bytes + -stored_bytes % BLOCK
        self._next = None if is_full else end
        return True

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


def fill_digests(text: bytes, digests: deque[bytes]) -> bytes:
    """Return *text*, that of a segment, with the digests that were PENDING.

    They are taken from the front of *digests*, in the order of the records.
    """
    first, *others = text.split(PENDING)
    pieces = [first]
    for each in others:
        pieces += (_base64(digests.popleft(), newline=False)[:DIGEST_LETTERS], each)
    return b"".join(pieces)


def _letters(digest: bytes) -> str:
    if digest == PENDING:
        return "\1"
    return _base64(digest, newline=False)[:DIGEST_LETTERS].decode()


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _is_usual(entry: Entry) -> bool:
    stored = entry.size if entry.type is EntryType.FILE else 0
    return (
        entry.header_bytes == USUAL_HEADER_BYTES
        and entry.stored_bytes == stored
        and not (entry.target or entry.device or entry.attributes or entry.is_volatile)
    )


def _more(entry: Entry) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if entry.target:
        more["t"] = pack_text(entry.target)
    if entry.device is not None:
        more["d"] = list(entry.device)
    if entry.header_bytes != USUAL_HEADER_BYTES:
        more["n"] = entry.header_bytes // BLOCK
    if entry.stored_bytes != (entry.size if entry.type is EntryType.FILE else 0):
        more["k"] = entry.stored_bytes
    if entry.attributes:
        more["x"] = entry.attributes
    if entry.is_volatile:
        more["v"] = 1
    return more
