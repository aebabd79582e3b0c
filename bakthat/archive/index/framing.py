"""The gzip members of an index, and the last one, which says where the footer begins."""

from __future__ import annotations

import struct

from bakthat.archive.gzip.inflate import inflate_whole
from bakthat.archive.gzip.members import GZIP_MAGIC, HEADER_BYTES, TRAILER_BYTES, member_length
from bakthat.errors import CorruptArchiveError, CorruptIndexError

LEVEL = 2
"""Of ISA-L: as small as its level 3 within a hundredth, in half its time."""

# magic, deflate, FEXTRA; mtime 0, no extra flags, unknown system; 12 bytes of extra field: the
# subfield "BI" of 8 bytes, the offset of the footer; an empty deflate block; CRC and size 0.
_TAIL = struct.Struct("<4s4sBBH2sHQ2s8s")
_TAIL_FIXED = (GZIP_MAGIC + b"\x08\x04", b"\0\0\0\0", 0, 255, 12, b"BI", 8)
_TAIL_END = (b"\x03\0", b"\0" * 8)
TAIL_BYTES = _TAIL.size


def pack_tail(footer: int) -> bytes:
    """Return an empty gzip member that holds the offset of the footer."""
    return _TAIL.pack(*_TAIL_FIXED, footer, *_TAIL_END)


def parse_tail(tail: bytes) -> int:
    """Return the offset of the footer. Raises CorruptIndexError."""
    if len(tail) == TAIL_BYTES:
        *fixed, footer, block, trailer = _TAIL.unpack(tail)
        if tuple(fixed) == _TAIL_FIXED and (block, trailer) == _TAIL_END:
            return int(footer)
    raise CorruptIndexError("the index is truncated, or it is not one")


def length_of_first(data: bytes) -> int:
    """Return the length of the gzip member that *data* begins with. Raises CorruptIndexError."""
    length = member_length(data[:HEADER_BYTES])
    if length is None:
        raise CorruptIndexError("it is not an index of bakthat")
    return length


def inflate(data: bytes | memoryview, *, limit: int, offset: int) -> bytes:
    """Return the text of the gzip member *data*, which begins at *offset* of the index.

    Raises CorruptIndexError, also for more than *limit* bytes of text.
    """
    size = int.from_bytes(data[-4:], "little") if len(data) >= HEADER_BYTES + TRAILER_BYTES else -1
    if not 0 <= size <= limit:
        raise CorruptIndexError(f"the index has an empty or too large part at byte {offset}")
    try:
        return inflate_whole(data, size, length=len(data), offset=offset)
    except CorruptArchiveError as exc:
        raise CorruptIndexError(f"in the index, {exc}") from exc
