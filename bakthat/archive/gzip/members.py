"""The gzip members that bakthat writes, and how a reader finds where each one ends.

One archive is one gzip file (RFC 1952) made of independent members. Each member holds up to
:data:`MEMBER_BYTES` of the stream and carries, in an extra field of its header (RFC 1952,
section 2.3.1.1), its own length, so that a reader can cut the file into members without
inflating them, and inflate several at once. Every gzip tool skips the field.
"""

from __future__ import annotations

import struct

GZIP_MAGIC = b"\x1f\x8b"
"""The first bytes of every gzip member (RFC 1952, section 2.3.1)."""

MEMBER_BYTES = 1024 * 1024
"""Bytes of the uncompressed stream in each member but the last."""

MAX_MEMBER_BYTES = 16 * 1024 * 1024
"""The most uncompressed bytes of a member with a length field; the reader refuses more.

Higher than :data:`MEMBER_BYTES` so that a later version may choose larger members.
"""

# magic, deflate, FEXTRA; mtime 0, no extra flags, unknown system; 8 bytes of extra field: the
# subfield "BK" of 4 bytes, which is the length of the whole member in bytes, header and trailer
# included.
_HEADER = struct.Struct("<4s4sBBH2sHI")
_FIXED = (GZIP_MAGIC + b"\x08\x04", b"\0\0\0\0", 0, 255, 8, b"BK", 4)
_TRAILER = struct.Struct("<II")

HEADER_BYTES = _HEADER.size
TRAILER_BYTES = _TRAILER.size


def pack_member(deflated: bytes, crc32: int, size: int) -> bytes:
    """Frame raw deflate data as one gzip member with the length field.

    *crc32* and *size* are those of the uncompressed data.
    """
    total = HEADER_BYTES + len(deflated) + TRAILER_BYTES
    header = _HEADER.pack(*_FIXED, total)
    return b"".join((header, deflated, _TRAILER.pack(crc32, size & 0xFFFFFFFF)))


def member_length(header: bytes) -> int | None:
    """Return the length in bytes of the member that begins with *header*.

    *header* is the first :data:`HEADER_BYTES` bytes of the member. Returns None when it has no
    length field exactly as bakthat writes it: such a member must be read serially.
    """
    if len(header) < HEADER_BYTES:
        return None
    *fixed, total = _HEADER.unpack(header[:HEADER_BYTES])
    if tuple(fixed) != _FIXED or total < HEADER_BYTES + TRAILER_BYTES:
        return None
    return int(total)
