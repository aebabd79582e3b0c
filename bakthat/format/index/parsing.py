"""Parse the segments of an index, each of which can be read alone."""

from __future__ import annotations

import binascii
import itertools
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import NoneType
from typing import Any, NamedTuple, cast

from bakthat.errors import CorruptIndexError
from bakthat.format.entry import BLOCK, Entry, EntryType
from bakthat.format.index.layout import (
    ARCHIVE,
    COLUMNS,
    DIGEST_LETTERS,
    FILE,
    KINDS,
    MAX_NEEDS,
    USUAL_HEADER_BYTES,
    SegmentPlace,
)
from bakthat.format.index.values import (
    BAD_PATH,
    MAX_BLOCKS,
    MAX_ID,
    MAX_NS,
    MAX_NUMBER,
    MAX_PATH_BYTES,
    parse_json,
    parse_list,
    parse_names,
    parse_number,
    parse_object,
    parse_text,
    sort_key,
)

MAX_SEGMENT_BYTES = 2 * 1024 * 1024
"""The most bytes of text that a reader accepts in one segment."""
MAX_INODE = 1 << 65
MAX_HEADER_BLOCKS = 1 << 18
"""The most blocks of one member's headers: 128 MiB, for a sparse map of 64 MiB."""

_LEAST_COLUMNS = 6
_SIZE_COLUMN = COLUMNS.index("size")
"""The SHA-256 is in the next one."""
_LINKS = frozenset((EntryType.SYMLINK, EntryType.HARDLINK))
_DEVICES = frozenset((EntryType.CHARACTER, EntryType.BLOCK))
_WITH_MORE = _LINKS | _DEVICES | {EntryType.SEEN}
_NO_MEMBERS = frozenset((EntryType.REMOVED, EntryType.SEEN))
_ATTRIBUTES = re.compile(r"[0-9a-f]{16}")
_FILE = EntryType.FILE


def parse_segment(
    text: bytes,
    place: SegmentPlace,
    *,
    end: int,
    is_sorted: bool,
    before: str | None = None,
    kind: str = ARCHIVE,
    needs: int = 0,
    where: Callable[[str], bool] | None = None,
) -> list[Entry]:
    """Return the entries of a segment in order; with *where*, those whose path it accepts.

    *needs* is how many archives the one with this index needs; only with some it may have records
    of what was removed or seen. *end* is where the archive's content after this segment begins at
    the latest, in bytes, and *before* the first path of the next segment. A segment of which
    nothing is accepted is not checked. Raises CorruptIndexError.
    """
    head_line, _, body = text.partition(b"\n")
    head = parse_object(head_line, "segment")
    if where is not None:
        plain = _plain_paths(body, place.records)
        if plain is not None and not any(map(where, plain)):
            return []
    records = _records(body)
    if head.get("segment") != place.records or len(records) != place.records:
        raise CorruptIndexError("a segment of the index has another number of records")
    if parse_number(head.get("at"), 0, MAX_BLOCKS * BLOCK) != place.at:
        raise CorruptIndexError("a segment of the index has another position")
    paths = _paths_of(records)
    wanted = None if where is None else list(map(where, paths))
    if wanted is not None and not any(wanted):
        return []
    if paths[0] != place.first:
        raise CorruptIndexError("a segment of the index begins with another path")
    _check_paths(paths, before if is_sorted else None, is_sorted=is_sorted)
    rows = _Columns(paths, records, head, kind, needs).rows(place.at, end)
    return list(map(Entry._make, rows if wanted is None else itertools.compress(rows, wanted)))


def _plain_paths(body: bytes, count: int) -> list[str] | None:
    """Return the paths of *count* records in a sixth of the time that it takes to parse them.

    None if they must be parsed, since one is written with an escape or in base64, or since they are
    not valid.
    """
    if b"\\" in body or not body.startswith(b'["'):
        return None
    try:
        pieces = body[2:].decode().split('\n["')
    except UnicodeDecodeError:
        return None
    return [each.partition('"')[0] for each in pieces] if len(pieces) == count else None


def _records(body: bytes) -> list[Any]:
    if body and not body.endswith(b"\n"):
        raise CorruptIndexError("a segment of the index is truncated")
    records = parse_json(b"[" + body[:-1].replace(b"\n", b",") + b"]", "segment")
    if not isinstance(records, list) or body.count(b"\n") != len(records):
        raise CorruptIndexError("a segment of the index has no records")
    return records


def _paths_of(records: Sequence[object]) -> list[str]:
    if not (set(map(type, records)) <= {list} and all(records)):
        raise CorruptIndexError("a record of the index is not a list")
    paths = [record[0] for record in cast("Sequence[list[Any]]", records)]
    if set(map(type, paths)) == {str} and "".join(paths).isascii():
        return paths
    return [parse_text(path) for path in paths]


def _check_paths(paths: Sequence[str], before: str | None, *, is_sorted: bool) -> None:
    joined = "/" + "/\0/".join(paths) + "/"
    is_bad = "//" in joined or ("/." in joined and ("/./" in joined or "/../" in joined))
    if is_bad or joined.count("\0") != len(paths) - 1:
        bad = next((path for path in paths if BAD_PATH.search(path)), "")
        raise CorruptIndexError(f"the index has a path that no file has: {bad[:200]!r}")
    # As sort_key does it, of all at once: no component is empty, so two NULs are a boundary.
    keys = sort_key("//".join(paths)).split(b"\0\0")
    if max(map(len, keys)) > MAX_PATH_BYTES:
        raise CorruptIndexError("the index has a path that is too long")
    if before is not None:
        keys.append(sort_key(before))
    if is_sorted and not all(map(operator.lt, keys, keys[1:])):
        raise CorruptIndexError("the paths in the index are not in order, or one is there twice")


class _Columns:
    """The records of a segment, checked column by column, in half the time of one by one.

    Raises CorruptIndexError.
    """

    def __init__(
        self,
        paths: Sequence[str],
        records: Sequence[list[Any]],
        head: dict[str, Any],
        kind: str,
        needs: int,
    ) -> None:
        lengths = list(map(len, records))
        if min(lengths) < _LEAST_COLUMNS or max(lengths) > len(COLUMNS):
            raise CorruptIndexError("a record of the index has not as many columns as it must")
        columns = list(itertools.zip_longest(*records))
        columns += [(None,) * len(records)] * (len(COLUMNS) - len(columns))
        _, letters, modes, uids, gids, mtimes, ctimes, inodes, known_sizes, digests, more = columns
        _check_numbers(modes, 0, 0o7777)
        _check_numbers(uids, 0, MAX_ID)
        _check_numbers(gids, 0, MAX_ID)
        _check_numbers(mtimes, -MAX_NS, MAX_NS)
        _check_numbers(_given(ctimes), -2 * MAX_NS, 2 * MAX_NS)
        _check_numbers(_given(inodes), -MAX_INODE, MAX_INODE)
        _check_numbers(_given(known_sizes), 0, MAX_NUMBER)
        # Only records that are too short have neither of the two.
        without_size = sum(map(lengths.count, range(_LEAST_COLUMNS, _SIZE_COLUMN + 1)))
        if (known_sizes.count(None), digests.count(None)) != (
            without_size,
            without_size + lengths.count(_SIZE_COLUMN + 1),
        ):
            raise CorruptIndexError("a record of the index has no value where one must be")
        sizes = [size or 0 for size in known_sizes]
        try:
            types = [KINDS[letter] for letter in letters]
        except (KeyError, TypeError) as exc:
            raise CorruptIndexError("the index has an entry of an unknown kind") from exc
        is_other = [type_ is not _FILE for type_ in types]
        for column in (sizes, digests):
            if any(itertools.compress(column, is_other)):
                raise CorruptIndexError("the index gives content to an entry that can have none")
        self._known: tuple[Sequence[Any], ...] = (
            paths,
            types,
            modes,
            uids,
            gids,
            mtimes,
            _sums_of_pairs(mtimes, ctimes),
            _running_sums(inodes),
            sizes,
            _decoded(digests),
            _names(uids, parse_names(head.get("owners"))),
            _names(gids, parse_names(head.get("groups"))),
        )
        count = len(records)
        self._headers: Sequence[int] = [USUAL_HEADER_BYTES] * count
        self._stored: Sequence[int] = sizes
        self._extras: Sequence[Iterable[Any]] = [itertools.repeat(each) for each in _NO_MORE[:5]]
        self._archives: Iterable[int] = itertools.repeat(needs)
        self._needs = needs
        if more.count(None) < count or not _WITH_MORE.isdisjoint(types):
            self._add_more(more, types)
        self._is_padded = kind != FILE
        if self._is_padded and not _NO_MEMBERS.isdisjoint(types):
            self._leave_out_members(types)
        elif 0 in self._headers if self._is_padded else any(self._headers):
            raise CorruptIndexError("the index has an entry with another kind of headers")

    def _leave_out_members(self, types: Sequence[EntryType]) -> None:
        """Give no place in the archive to the records of what was removed or seen."""
        if not self._needs:
            raise CorruptIndexError("the index of a full backup removes something")
        is_member = [type_ not in _NO_MEMBERS for type_ in types]
        if 0 in itertools.compress(self._headers, is_member):
            raise CorruptIndexError("the index has an entry with another kind of headers")
        self._headers = list(map(operator.mul, self._headers, is_member))

    def _add_more(self, more: Sequence[object], types: Sequence[EntryType]) -> None:
        parsed = [
            _NO_MORE if each is None and type_ not in _WITH_MORE else _parse_more(each, type_)
            for each, type_ in zip(more, types, strict=True)
        ]
        self._extras = list(zip(*parsed, strict=True))[:5]
        if not _NO_MEMBERS.isdisjoint(types):
            self._archives = [
                self._needs if each.archive is None else each.archive for each in parsed
            ]
            if max(self._archives) > self._needs:
                raise CorruptIndexError("the index names an archive that it does not need")
        self._headers = [
            header if each.blocks is None else each.blocks * BLOCK
            for header, each in zip(self._headers, parsed, strict=True)
        ]
        self._stored = [
            size if each.stored is None else each.stored
            for size, each in zip(self._stored, parsed, strict=True)
        ]

    def rows(self, at: int, end: int) -> Iterator[tuple[Any, ...]]:
        """Return the fields of each Entry; the first begins *at*, and the last ends at *end*."""
        steps = [
            header + stored + -stored % BLOCK
            for header, stored in zip(self._headers, self._stored, strict=True)
        ]
        positions = list(itertools.accumulate(steps, initial=at))
        # A file that is stored as it is has no padding.
        last = positions[-1] if self._is_padded else positions[-2] + self._stored[-1]
        if last > end:
            raise CorruptIndexError("a position in the index is outside of the archive")
        return zip(
            *self._known,
            *self._extras,
            positions,
            self._headers,
            self._stored,
            self._archives,
            itertools.repeat(self._needs),
            strict=False,
        )


def _check_numbers(column: Sequence[object], lowest: int, highest: int) -> None:
    if column and (
        set(map(type, column)) != {int}
        or min(cast("Sequence[int]", column)) < lowest
        or max(cast("Sequence[int]", column)) > highest
    ):
        raise CorruptIndexError("a number in the index is missing or out of its range")


def _given(column: Sequence[object]) -> Sequence[object]:
    return [each for each in column if each is not None] if None in column else column


def _names(numbers: Sequence[int], names: dict[int, str]) -> list[str]:
    if len(set(numbers)) == 1:
        return [names.get(numbers[0], "")] * len(numbers)
    return [names.get(number, "") for number in numbers]


def _sums_of_pairs(numbers: Sequence[int], others: Sequence[int | None]) -> Sequence[int | None]:
    if None not in others:
        return list(map(operator.add, numbers, others))
    return [
        None if other is None else number + other
        for number, other in zip(numbers, others, strict=True)
    ]


def _running_sums(numbers: Sequence[int | None]) -> Sequence[int | None]:
    if None not in numbers:
        return list(itertools.accumulate(numbers, operator.add))
    total = 0
    sums: list[int | None] = []
    for number in numbers:
        total += number or 0
        sums.append(None if number is None else total)
    return sums


def _decoded(digests: Sequence[object]) -> list[bytes]:
    if not set(map(type, digests)) <= {str, NoneType}:
        raise CorruptIndexError("the index has something else where a SHA-256 must be")
    known = [str(each) for each in digests if each]
    if set(map(len, known)) - {DIGEST_LETTERS}:
        raise CorruptIndexError("the index has something else where a SHA-256 must be")
    try:
        # All at once: with one letter more, each makes 33 bytes.
        raw = binascii.a2b_base64("A".join([*known, ""]), strict_mode=True)
    except ValueError as exc:
        raise CorruptIndexError("the index has something else where a SHA-256 must be") from exc
    found = iter([raw[at : at + 32] for at in range(0, len(raw), 33)])
    return [next(found) if each else b"" for each in digests]


class _More(NamedTuple):
    target: str = ""
    device: tuple[int, int] | None = None
    attributes: str = ""
    is_volatile: bool = False
    is_stale: bool = False
    blocks: int | None = None
    stored: int | None = None
    archive: int | None = None


_NO_MORE = _More()


def _parse_more(more: object, type_: EntryType) -> _More:
    if more is None:
        more = {}
    if not isinstance(more, dict):
        raise CorruptIndexError("a record of the index has no mapping where one must be")
    target = parse_text(more.get("t", ""))
    if bool(target) != (type_ in _LINKS):
        raise CorruptIndexError("the index has a link without a target")
    is_bad = type_ is EntryType.HARDLINK and BAD_PATH.search(target)
    if len(target.encode("utf-8", "surrogateescape")) > MAX_PATH_BYTES or "\0" in target or is_bad:
        raise CorruptIndexError(f"the index has a target that no link has: {target[:200]!r}")
    device = None
    if "d" in more:
        numbers = parse_list(more["d"])
        if len(numbers) != 2:
            raise CorruptIndexError("the index has a device without its two numbers")
        device = parse_number(numbers[0], 0, MAX_ID), parse_number(numbers[1], 0, MAX_ID)
    if (device is not None) != (type_ in _DEVICES):
        raise CorruptIndexError(
            "the index has a device without numbers, or numbers without a device"
        )
    attributes = more.get("x", "")
    if attributes and not (isinstance(attributes, str) and _ATTRIBUTES.fullmatch(attributes)):
        raise CorruptIndexError("the index has something else where a hash must be")
    if "k" in more and type_ is not EntryType.FILE:
        raise CorruptIndexError("the index gives content to an entry that can have none")
    return _More(
        target,
        device,
        attributes or "",
        bool(more.get("v")),
        bool(more.get("z")),
        parse_number(more["n"], 0, MAX_HEADER_BLOCKS) if "n" in more else None,
        parse_number(more["k"], 0, MAX_NUMBER) if "k" in more else None,
        parse_number(more.get("a"), 0, MAX_NEEDS) if type_ is EntryType.SEEN else None,
    )
