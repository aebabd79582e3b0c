"""The headers of a tar archive in the PAX format (POSIX.1-2001, pax(1), "pax Interchange Format").

All functions are pure. Values that a ustar header cannot hold go into an extended header before it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from bakthat.archive.tar.fields import BLOCK_BYTES, MAX_ID, MAX_SIZE, MAX_TIME_NS, byte_sum

RECORD_BYTES = 10_240
"""An archive is padded to a multiple of this, as by GNU tar."""

REGULAR = b"0"
HARD_LINK = b"1"
SYMBOLIC_LINK = b"2"
CHARACTER_DEVICE = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"
_EXTENDED = b"x"
_GLOBAL = b"g"

_AFTER_CHECKSUM = struct.Struct("1s100s8s32s32s8s8s155s12x")
_BLANK_CHECKSUM = b" " * 8
_NAME_BYTES = 100
_PREFIX_BYTES = 155
_OWNER_BYTES = 31
# The largest numbers in the fields of a ustar header; larger ones go into an extended header.
_MAX_USTAR_ID = 0o7777777
_MAX_USTAR_SIZE = 0o77777777777
_NS = 1_000_000_000


class HeaderError(ValueError):
    """A value of a member does not fit into any header; the message names the value."""


@dataclass(slots=True)
class MemberHeader:
    """The values in the header of one member."""

    name: bytes
    """Whole path in the archive; a directory's ends with a slash."""
    kind: bytes
    """The type flag, one of this module's constants."""
    mode: int
    """Permissions and the set-id and sticky bits; the type bits are ignored."""
    uid: int
    gid: int
    mtime_ns: int
    """Nanoseconds since 1970 UTC, negative before it."""
    size: int = 0
    """Bytes of data that follow the header."""
    link: bytes = b""
    """The target of a symbolic link, or the name of the member that a hard link refers to."""
    owner: bytes = b""
    group: bytes = b""
    device: tuple[int, int] = (0, 0)
    """Major and minor number."""
    records: Iterable[tuple[bytes, bytes]] = ()
    """Further keywords and values for the extended header."""


def pack_member_header(member: MemberHeader) -> bytes:
    """Return the header blocks of *member*; its data and their padding follow them.

    Raises HeaderError for values that no reader accepts.
    """
    _check_range("size", member.size, 0, MAX_SIZE)
    _check_range("time", member.mtime_ns, -MAX_TIME_NS, MAX_TIME_NS)
    for number in member.device:
        # Pax has no record for device numbers.
        _check_range("device number", number, 0, _MAX_USTAR_ID)
    records: list[tuple[bytes, bytes]] = []
    prefix, name = _split(member.name)
    if not name or not member.name.isascii():
        records.append((b"path", member.name))
        prefix, name = b"", _ascii(member.name)
    link = member.link
    if len(link) > _NAME_BYTES or not link.isascii():
        records.append((b"linkpath", link))
        link = _ascii(link)
    size = _field(b"size", member.size, _MAX_USTAR_SIZE, records)
    uid = _id(b"uid", member.uid, records)
    gid = _id(b"gid", member.gid, records)
    owner = _owner(b"uname", member.owner, records)
    group = _owner(b"gname", member.group, records)
    mtime, fraction = divmod(member.mtime_ns, _NS)
    if fraction or not 0 <= mtime <= _MAX_USTAR_SIZE:
        records.append((b"mtime", decimal_seconds(member.mtime_ns)))
        mtime = min(max(mtime, 0), _MAX_USTAR_SIZE)
    records.extend(member.records)
    ids = _ids(member.mode & 0o7777, uid, gid)
    rest = _rest(member.kind, link, owner, group, *member.device, prefix)
    block = _block(name, ids, size, mtime, rest)
    return _extended_header(records) + block if records else block


class SharedPieces(NamedTuple):
    """The bytes that the headers of many members share."""

    ids: bytes
    """The fields mode, uid and gid."""
    rest: bytes
    """The bytes after the checksum field."""
    sum: int
    """The sum of the bytes of both, with the checksum field counted as spaces."""


def shared_pieces(member: MemberHeader) -> SharedPieces | None:
    """Return the pieces of *member*'s header that do not depend on its name, size and time.

    None when *member* needs extended records for anything else. Raises HeaderError.
    """
    records: list[tuple[bytes, bytes]] = []
    uid = _id(b"uid", member.uid, records)
    gid = _id(b"gid", member.gid, records)
    owner = _owner(b"uname", member.owner, records)
    group = _owner(b"gname", member.group, records)
    if records or member.link or member.records:
        return None
    ids = _ids(member.mode & 0o7777, uid, gid)
    rest = _rest(member.kind, b"", owner, group, *member.device, b"")
    return SharedPieces(ids, rest.block, byte_sum(ids) + rest.sum)


def pack_usual_header(name: bytes, shared: SharedPieces, size: int, mtime_ns: int) -> bytes | None:
    """Return the header blocks of a usual member, in a third of :func:`pack_member_header`'s time.

    A usual member has a short ASCII name, and needs an extended header for its time at most; nearly
    every file is one. Returns None for any other member. Raises HeaderError.
    """
    seconds, fraction = divmod(mtime_ns, _NS)
    if (
        # Ten decimal digits can exceed eleven octal digits.
        not 0 <= seconds <= _MAX_USTAR_SIZE
        or len(name) > _NAME_BYTES
        or not name.isascii()
        or not 0 <= size <= _MAX_USTAR_SIZE
    ):
        return None
    extension = b""
    if fraction:
        record = (b" mtime=%d.%09d" % (seconds, fraction)).rstrip(b"0")
        length = len(record) + 3  # which has two digits, as the seconds have at most ten
        extension = _extended_block(length, _EXTENDED) + (b"%d%b\n" % (length, record)).ljust(
            BLOCK_BYTES, b"\0"
        )
    numbers = b"%011o\0%011o\0" % (size, seconds)
    total = byte_sum(name) + byte_sum(numbers) + shared.sum
    header = b"".join(
        (
            extension,
            name.ljust(_NAME_BYTES, b"\0"),
            shared.ids,
            numbers,
            b"%06o\0 " % total,
            shared.rest,
        )
    )
    if len(header) != len(extension) + BLOCK_BYTES:
        raise _misfit(header)
    return header


def pack_comment(comment: bytes) -> bytes:
    """Return a global extended header that holds *comment*; tar tools skip it."""
    return _extended_header([(b"comment", comment)], _GLOBAL)


def decimal_seconds(nanoseconds: int) -> bytes:
    """Return *nanoseconds* as decimal seconds, exactly."""
    seconds, fraction = divmod(abs(nanoseconds), _NS)
    sign = b"-" if nanoseconds < 0 else b""
    if not fraction:
        return b"%b%d" % (sign, seconds)
    return (b"%b%d.%09d" % (sign, seconds, fraction)).rstrip(b"0")


def pack_record(key: bytes, value: bytes) -> bytes:
    """Return one record of an extended header; its length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(b"%d" % rest)
    # The digits of the length may make it one digit longer.
    length = rest + len(b"%d" % length)
    return b"%d %b=%b\n" % (length, key, value)


def _split(name: bytes) -> tuple[bytes, bytes]:
    """Divide *name* into the prefix and name fields; both are empty when it does not fit."""
    if len(name) <= _NAME_BYTES:
        return b"", name
    # Do not divide at the slash that ends a directory's name.
    cut = name.rfind(b"/", 1, min(_PREFIX_BYTES + 1, len(name) - 1))
    if cut < 0 or len(name) - cut - 1 > _NAME_BYTES:
        return b"", b""
    return name[:cut], name[cut + 1 :]


def _ascii(text: bytes) -> bytes:
    """Return *text* as a reader without support for extended headers sees it."""
    return text[:_NAME_BYTES].decode("ascii", "replace").encode("ascii", "replace")


def _id(key: bytes, value: int, records: list[tuple[bytes, bytes]]) -> int:
    _check_range("owner id", value, 0, MAX_ID)
    return _field(key, value, _MAX_USTAR_ID, records)


def _check_range(what: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise HeaderError(f"its {what} {value} does not fit into a tar header")


def _misfit(header: bytes) -> HeaderError:
    # One extra byte would shift the rest of the archive.
    return HeaderError(f"its tar header would have {len(header)} bytes")


def _field(key: bytes, value: int, limit: int, records: list[tuple[bytes, bytes]]) -> int:
    if value <= limit:
        return value
    records.append((key, b"%d" % value))
    return 0


def _owner(key: bytes, name: bytes, records: list[tuple[bytes, bytes]]) -> bytes:
    if len(name) <= _OWNER_BYTES and name.isascii():
        return name
    records.append((key, name))
    return b""


def _extended_header(records: Iterable[tuple[bytes, bytes]], kind: bytes = _EXTENDED) -> bytes:
    body = b"".join([pack_record(key, value) for key, value in records])
    return _extended_block(len(body), kind) + body + bytes(-len(body) % BLOCK_BYTES)


@lru_cache(maxsize=1024)
def _extended_block(size: int, kind: bytes) -> bytes:
    rest = _rest(kind, b"", b"", b"", 0, 0, b"")
    return _block(b"././@PaxHeader", _ids(0o644, 0, 0), size, 0, rest)


# Headers are joined from cached pieces, since many members share most of them. Callers make sure
# that every value fits into its field.


def _block(name: bytes, ids: bytes, size: int, mtime: int, rest: _Rest) -> bytes:
    """Return one ustar header block."""
    head = b"%b%b%011o\0%011o\0" % (name.ljust(_NAME_BYTES, b"\0"), ids, size, mtime)
    block = b"%b%06o\0 %b" % (head, byte_sum(head) + rest.sum, rest.block)
    if len(block) != BLOCK_BYTES:
        raise _misfit(block)
    return block


@lru_cache(maxsize=1024)
def _ids(mode: int, uid: int, gid: int) -> bytes:
    return b"%07o\0%07o\0%07o\0" % (mode, uid, gid)


class _Rest(NamedTuple):
    """The bytes after the checksum field of a header."""

    block: bytes
    sum: int
    """The sum of these bytes, with the checksum field counted as spaces."""


@lru_cache(maxsize=1024)
def _rest(
    kind: bytes, link: bytes, owner: bytes, group: bytes, major: int, minor: int, prefix: bytes
) -> _Rest:
    block = _AFTER_CHECKSUM.pack(
        kind, link, b"ustar\x0000", owner, group, b"%07o" % major, b"%07o" % minor, prefix
    )
    total = byte_sum(block[:256]) + byte_sum(block[256:]) + byte_sum(_BLANK_CHECKSUM)
    return _Rest(block, total)
