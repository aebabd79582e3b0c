"""The records of an index, in segments that can each be read alone."""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bakthat.errors import CorruptIndexError
from bakthat.format.entry import BLOCK, Entry, EntryType
from bakthat.format.index.layout import ARCHIVE, FILE, SegmentPlace
from bakthat.format.index.values import (
    BAD_PATH,
    MAX_BLOCKS,
    MAX_ID,
    MAX_NS,
    MAX_NUMBER,
    MAX_PATH_BYTES,
    pack_line,
    pack_text,
    parse_json,
    parse_list,
    parse_names,
    parse_number,
    parse_object,
    parse_text,
    sort_key,
)

MAX_SEGMENT_BYTES = 4 * 1024 * 1024
"""The most bytes of text that a reader accepts in one segment."""
MAX_HEADER_BLOCKS = 1 << 18
"""The most blocks of one member's headers: 128 MiB, for a sparse map of 64 MiB."""

_KINDS = {
    "f": EntryType.FILE,
    "d": EntryType.DIRECTORY,
    "l": EntryType.SYMLINK,
    "h": EntryType.HARDLINK,
    "c": EntryType.CHARACTER,
    "b": EntryType.BLOCK,
    "p": EntryType.FIFO,
}
_LETTERS = {kind: letter for letter, kind in _KINDS.items()}

_USUAL_HEADER_BLOCKS = 3
_DIGEST = re.compile(r"[A-Za-z0-9+/]{43}")
_ATTRIBUTES = re.compile(r"[0-9a-f]{16}")
_PLAIN = re.compile(r"[ !#-\[\]-~]*")
"""Text that JSON writes as it is."""


class SegmentPacker:
    """Collects the records of one segment."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._owners: dict[int, str] = {}
        self._groups: dict[int, str] = {}
        self._inode = 0
        self._next: int | None = None
        self.first = ""
        self.at = 0
        self.bytes = 0
        """Bytes of text, about."""

    def __len__(self) -> int:
        return len(self._lines)

    def fits(self, entry: Entry) -> bool:
        """Return whether *entry* may follow: right after the last one, with the same names."""
        return self._next is None or (
            entry.position == self._next
            and self._owners.get(entry.uid, entry.owner) == entry.owner
            and self._groups.get(entry.gid, entry.group) == entry.group
        )

    def add(self, entry: Entry) -> None:
        """Add a record; it must fit."""
        if self._next is None:
            self.first, self.at = entry.path, entry.position
        self._next = entry.end
        self._owners[entry.uid] = entry.owner
        self._groups[entry.gid] = entry.group
        line = self._pack(entry)
        self.bytes += len(line) + 1
        self._lines.append(line)

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
        path = entry.path
        inode, ctime = entry.inode, entry.ctime_ns
        more = "" if _is_usual(entry) else _pack_more(entry)
        if inode is not None and ctime is not None and _PLAIN.fullmatch(path):
            line = '["%s","%s",%d,%d,%d,%d,%d,%d' % (  # noqa: UP031  # half the time of an f-string
                path,
                _LETTERS[entry.type],
                entry.mode,
                entry.uid,
                entry.gid,
                entry.mtime_ns,
                ctime - entry.mtime_ns,
                inode - self._inode,
            )
            self._inode = inode
        else:
            values = [
                pack_text(path),
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
            line = json.dumps(values, separators=(",", ":"), ensure_ascii=False)[:-1]
        if entry.digest:
            digest = binascii.b2a_base64(entry.digest, newline=False)[:43].decode()
            line = f'{line},{entry.size},"{digest}"'
        elif more:
            line = f'{line},{entry.size},""'
        elif entry.size:
            line = f"{line},{entry.size}"
        return f"{line},{more}]" if more else f"{line}]"


def _is_usual(entry: Entry) -> bool:
    stored = entry.size if entry.type is EntryType.FILE else 0
    return (
        entry.header_bytes == _USUAL_HEADER_BLOCKS * BLOCK
        and entry.stored_bytes == stored
        and not (entry.target or entry.device or entry.attributes or entry.is_volatile)
    )


def _pack_more(entry: Entry) -> str:
    more: dict[str, Any] = {}
    if entry.target:
        more["t"] = pack_text(entry.target)
    if entry.device is not None:
        more["d"] = list(entry.device)
    if entry.header_bytes != _USUAL_HEADER_BLOCKS * BLOCK:
        more["n"] = entry.header_bytes // BLOCK
    if entry.stored_bytes != (entry.size if entry.type is EntryType.FILE else 0):
        more["k"] = entry.stored_bytes
    if entry.attributes:
        more["x"] = entry.attributes
    if entry.is_volatile:
        more["v"] = 1
    return json.dumps(more, separators=(",", ":"), ensure_ascii=False)


def parse_segment(
    text: bytes,
    place: SegmentPlace,
    *,
    end: int,
    is_sorted: bool,
    kind: str = ARCHIVE,
    where: Callable[[str], bool] | None = None,
) -> list[Entry]:
    """Return the entries of a segment in order; with *where*, those whose path it accepts.

    *end* is where the archive's content after this segment begins at the latest, in bytes. A
    segment of which nothing is accepted is parsed, but not checked further. Raises
    CorruptIndexError.
    """
    head_line, _, body = text.partition(b"\n")
    head = parse_object(head_line, "segment")
    records = _records(body)
    if head.get("segment") != place.records or len(records) != place.records:
        raise CorruptIndexError("a segment of the index has another number of records")
    if parse_number(head.get("at"), 0, MAX_BLOCKS * BLOCK) != place.at:
        raise CorruptIndexError("a segment of the index has another position")
    wanted: Sequence[bool] | None = None
    if where is not None:
        wanted = [where(_path_of(record)) for record in records]
        if not any(wanted):
            return []
    owners, groups = parse_names(head.get("owners")), parse_names(head.get("groups"))
    entries: list[Entry] = []
    at, inode, previous = place.at, 0, b""
    for number, record in enumerate(records):
        entry = _entry(record, at, inode, owners, groups, kind)
        at = entry.end
        if entry.inode is not None:
            inode = entry.inode
        if is_sorted:
            key = sort_key(entry.path)
            if key <= previous:
                raise CorruptIndexError(
                    "the paths in the index are not in order, or one is there twice"
                )
            previous = key
        if wanted is None or wanted[number]:
            entries.append(entry)
        if number == 0 and entry.path != place.first:
            raise CorruptIndexError("a segment of the index begins with another path")
    if at > end:
        raise CorruptIndexError("a position in the index is outside of the archive")
    return entries


def _records(body: bytes) -> list[Any]:
    if body and not body.endswith(b"\n"):
        raise CorruptIndexError("a segment of the index is truncated")
    records = parse_json(b"[" + body[:-1].replace(b"\n", b",") + b"]", "segment")
    if not isinstance(records, list) or body.count(b"\n") != len(records):
        raise CorruptIndexError("a segment of the index has no records")
    return records


def _path_of(record: object) -> str:
    if not isinstance(record, list) or not record:
        raise CorruptIndexError("a record of the index is not a list")
    path = record[0]
    return path if isinstance(path, str) and path.isascii() else parse_text(path)


def _entry(
    record: object,
    at: int,
    previous_inode: int,
    owners: dict[int, str],
    groups: dict[int, str],
    kind: str,
) -> Entry:
    path = _path_of(record)
    assert isinstance(record, list)
    if BAD_PATH.search(path) or len(path) > MAX_PATH_BYTES:
        raise CorruptIndexError(f"the index has an invalid path: {path[:200]!r}")
    try:
        values = (*record, *_MISSING[len(record) :])
        _, letter, mode, uid, gid, mtime, ctime, inode, size, digest, more = values
        type_ = _KINDS[letter]
    except (ValueError, KeyError, TypeError) as exc:
        raise CorruptIndexError(f"a record of the index is not valid: {path[:200]!r}") from exc
    # One comparison for each usual value; what is not usual is looked at below.
    if not (
        type(mode) is type(uid) is type(gid) is type(mtime) is type(size) is int
        and 0 <= mode <= 0o7777
        and 0 <= uid <= MAX_ID
        and 0 <= gid <= MAX_ID
        and -MAX_NS <= mtime <= MAX_NS
        and 0 <= size < MAX_NUMBER
        and (ctime is None or (type(ctime) is int and -2 * MAX_NS <= ctime <= 2 * MAX_NS))
        and (inode is None or (type(inode) is int and abs(inode) < 1 << 65))
    ):
        raise CorruptIndexError(f"a number in the index is out of its range: {path[:200]!r}")
    is_file = type_ is EntryType.FILE
    if (size or digest) and not is_file:
        raise CorruptIndexError(f"the index gives content to what has none: {path[:200]!r}")
    if digest:
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise CorruptIndexError(f"the index has an invalid SHA-256: {path[:200]!r}")
        digest = binascii.a2b_base64(digest + "=")
    extra = _parse_more(more, type_, path) if more is not None else _NO_MORE
    header = (_USUAL_HEADER_BLOCKS if extra.blocks is None else extra.blocks) * BLOCK
    if (header == 0) != (kind == FILE):
        raise CorruptIndexError(f"the index has an entry without headers: {path[:200]!r}")
    stored = size if extra.stored is None else extra.stored
    return Entry(
        path,
        type_,
        mode,
        uid,
        gid,
        mtime,
        None if ctime is None else mtime + ctime,
        None if inode is None else previous_inode + inode,
        size,
        digest or b"",
        owners.get(uid, ""),
        groups.get(gid, ""),
        extra.target,
        extra.device,
        extra.attributes,
        extra.is_volatile,
        at,
        header,
        stored,
    )


_MISSING = (None, None, None, None, None, None, None, None, 0, "", None)


class _More(NamedTuple):
    target: str = ""
    device: tuple[int, int] | None = None
    blocks: int | None = None
    stored: int | None = None
    attributes: str = ""
    is_volatile: bool = False


_NO_MORE = _More()


def _parse_more(more: object, type_: EntryType, path: str) -> _More:
    if not isinstance(more, dict):
        raise CorruptIndexError(f"a record of the index is not valid: {path[:200]!r}")
    target = parse_text(more.get("t", ""))
    if bool(target) != (type_ in (EntryType.SYMLINK, EntryType.HARDLINK)):
        raise CorruptIndexError(f"the index has a link without a target: {path[:200]!r}")
    if len(target) > MAX_PATH_BYTES or "\0" in target:
        raise CorruptIndexError(f"the index has an invalid target: {path[:200]!r}")
    if type_ is EntryType.HARDLINK and BAD_PATH.search(target):
        raise CorruptIndexError(f"the index has an invalid target: {path[:200]!r}")
    device = None
    if "d" in more:
        numbers = parse_list(more["d"])
        if len(numbers) != 2:
            raise CorruptIndexError(f"the index has an invalid device: {path[:200]!r}")
        device = parse_number(numbers[0], 0, MAX_ID), parse_number(numbers[1], 0, MAX_ID)
    attributes = more.get("x", "")
    if attributes and not (isinstance(attributes, str) and _ATTRIBUTES.fullmatch(attributes)):
        raise CorruptIndexError(f"the index has an invalid hash of attributes: {path[:200]!r}")
    stored = None
    if "k" in more:
        if type_ is not EntryType.FILE:
            raise CorruptIndexError(f"the index gives content to what has none: {path[:200]!r}")
        stored = parse_number(more["k"], 0, MAX_NUMBER)
    return _More(
        target,
        device,
        parse_number(more["n"], 0, MAX_HEADER_BLOCKS) if "n" in more else None,
        stored,
        attributes,
        bool(more.get("v")),
    )
