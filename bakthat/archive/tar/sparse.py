"""The maps of sparse files, which say where in a file its data belongs.

All four forms of GNU tar are read, and the newest is written. A parsed map is an array of offset,
length, offset, length, in bytes. Formats: the GNU tar manual, "Storing Sparse Files" and
"Old GNU Format".
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

from bakthat.archive.tar.fields import BLOCK_BYTES, parse_decimal, parse_number
from bakthat.errors import CorruptArchiveError

MAX_EXTENTS = 4 * 1024 * 1024
"""The most extents that are read of one file; each takes 16 bytes of memory."""

MAX_WRITTEN_EXTENTS = 65_536
"""The most extents that are written of one file, so that the map fits into any reader's memory.
The last of them includes all holes after it."""

Extents = list[tuple[int, int]]
"""Offset and length, in bytes, of each extent of a file to write; ascending, with holes between."""

_MAX_OFFSET = 2**63 - 1


def parse_gnu_entries(fields: bytes, extents: array[int]) -> None:
    """Append the entries of a block in the old GNU format, 24 bytes each, to *extents*.

    Raises CorruptArchiveError.
    """
    for at in range(0, len(fields), 24):
        if fields[at + 12] == 0:
            return
        _append(extents, parse_number(fields[at : at + 12]))
        _append(extents, parse_number(fields[at + 12 : at + 24]))


def parse_pax_0_0(records: list[tuple[bytes, bytes]]) -> array[int]:
    """Return the map in *records*, in which the keywords offset and numbytes alternate.

    The keywords come without their prefix ``GNU.sparse.``. Raises CorruptArchiveError.
    """
    extents: array[int] = array("Q")
    for keyword, value in records:
        if keyword in (b"offset", b"numbytes"):
            if (keyword == b"numbytes") != len(extents) % 2:
                raise CorruptArchiveError("the tar archive has a sparse map out of order")
            _append(extents, parse_decimal(value))
    return extents


def parse_pax_0_1(text: bytes) -> array[int]:
    """Return the map in *text*, decimal numbers separated by commas.

    Raises CorruptArchiveError.
    """
    extents: array[int] = array("Q")
    at = 0
    while at < len(text):
        comma = text.find(b",", at, at + 20)
        end = comma if comma >= 0 else len(text)
        _append(extents, parse_decimal(text[at:end]))
        at = end + 1
    return extents


def parse_pax_1_0(next_block: Callable[[], bytes]) -> array[int]:
    """Return the map that precedes the data: decimal numbers, one a line.

    *next_block* returns the next 512 bytes, and is called until the map is complete. Raises
    CorruptArchiveError and what *next_block* raises.
    """
    extents: array[int] = array("Q")
    expected: int | None = None
    rest = b""
    while expected is None or len(extents) < expected:
        *lines, rest = (rest + next_block()).split(b"\n")
        for line in lines:
            if expected is None:
                expected = 2 * parse_decimal(line)
            elif len(extents) < expected:
                _append(extents, parse_decimal(line))
        if len(rest) > 20 and (expected is None or len(extents) < expected):
            raise CorruptArchiveError("the tar archive has a sparse map with a number out of range")
    return extents


def pack_pax_1_0(extents: Extents, size: int) -> bytes:
    """Return the map that precedes the data of a sparse member, padded to whole blocks.

    The format is GNU tar's PAX sparse format 1.0: the number of extents, then offset and length of
    each, in decimal, a line each. As in GNU tar, a file that ends in a hole gets a last, empty
    extent at its *size* in bytes.
    """
    if not extents or sum(extents[-1]) < size:
        extents = [*extents, (size, 0)]
    lines = [b"%d\n" % len(extents)]
    lines += [b"%d\n%d\n" % extent for extent in extents]
    text = b"".join(lines)
    return text + bytes(-len(text) % BLOCK_BYTES)


def check_sparse_map(extents: array[int], *, size: int, stored: int) -> None:
    """Check that extents are in order, lie within *size* bytes and add up to *stored* bytes.

    Raises CorruptArchiveError.
    """
    position = total = 0
    pairs = iter(extents)
    if len(extents) % 2:
        raise CorruptArchiveError("the tar archive has a sparse map with half an entry")
    for offset, length in zip(pairs, pairs, strict=True):
        if offset < position:
            raise CorruptArchiveError("the tar archive has a sparse map out of order")
        position = offset + length
        total += length
    if position > size or total != stored:
        raise CorruptArchiveError("the tar archive has a sparse map that does not fit its file")


def _append(extents: array[int], number: int) -> None:
    if not 0 <= number <= _MAX_OFFSET or len(extents) >= 2 * MAX_EXTENTS:
        raise CorruptArchiveError("the tar archive has a sparse map that is out of bounds")
    extents.append(number)
