"""Inflate single gzip members of bakthat's: all of one, or its front (RFC 1951, RFC 1952)."""

from __future__ import annotations

from bakthat.archive.gzip.members import HEADER_BYTES, TRAILER_BYTES, member_length
from bakthat.errors import CorruptArchiveError


def inflate_body(body: bytes | memoryview, size: int, offset: int) -> bytes:
    """Inflate *body*, a member of *size* bytes without its header, and check its checksum.

    *offset* is where the member begins, for messages. Raises CorruptArchiveError.
    """
    from isal import isal_zlib

    isal_error: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # stub: instance
    inflater = isal_zlib.decompressobj(-15)
    try:
        # Ask for one byte more than declared: otherwise an overlong member would look complete.
        inflated = inflater.decompress(body[:-TRAILER_BYTES], size + 1)
    except isal_error as exc:
        raise corrupt_member_error(offset, f"is damaged: {exc}") from exc
    if not inflater.eof or inflater.unused_data or len(inflated) != size:
        raise corrupt_member_error(offset, "does not hold as many bytes as it declares")
    if isal_zlib.crc32(inflated) != int.from_bytes(body[-8:-4], "little"):
        raise corrupt_member_error(offset, "fails its checksum")
    return inflated


def inflate_front(data: bytes | memoryview, wanted: int, *, length: int, offset: int) -> bytes:
    """Return the first *wanted* bytes of a member, or fewer when *data* holds no more.

    *data* is the front of the member with its header, *length* the length that the whole must have,
    and *offset* where it begins, for messages. There is no checksum of a front, so the caller must
    check what it takes from it. Raises CorruptArchiveError.
    """
    from isal import isal_zlib

    check_header(data, length=length, offset=offset)
    isal_error: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # stub: instance
    try:
        return isal_zlib.decompressobj(-15).decompress(data[HEADER_BYTES:], wanted)
    except isal_error as exc:
        raise corrupt_member_error(offset, f"is damaged: {exc}") from exc


def inflate_whole(data: bytes | memoryview, size: int, *, length: int, offset: int) -> bytes:
    """Return all of a member of *size* bytes; as :func:`inflate_front`, and check its checksum."""
    check_header(data, length=length, offset=offset)
    if int.from_bytes(data[-4:], "little") != size:
        raise corrupt_member_error(offset, f"does not hold {size} bytes, as the index says")
    return inflate_body(memoryview(data)[HEADER_BYTES:], size, offset)


def check_header(data: bytes | memoryview, *, length: int, offset: int) -> None:
    """Raise CorruptArchiveError unless a member of *length* bytes begins with *data*."""
    if member_length(bytes(data[:HEADER_BYTES])) != length:
        raise corrupt_member_error(offset, f"is not the one of {length} bytes in the index")


def corrupt_member_error(offset: int, reason: str) -> CorruptArchiveError:
    """Return the error for the member at byte *offset*."""
    return CorruptArchiveError(f"the gzip member at byte {offset} {reason}")
