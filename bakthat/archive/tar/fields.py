"""Parse the fields of tar headers, and quote names for messages.

Formats: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; the GNU tar
manual, "Basic Tar Format" and "Storing Sparse Files".
"""

from __future__ import annotations

import re
from functools import lru_cache
from zlib import adler32

from bakthat.errors import CorruptArchiveError
from bakthat.system.text import quoted

BLOCK_BYTES = 512
MAX_NAME_BYTES = 64 * 1024
"""Longer names and link targets are refused; Linux allows 4,096 bytes in one path."""

# The same limits hold for reading and writing.
MAX_ID = 2**32 - 2
"""The highest id of a user or a group; 2**32 - 1 tells chown to change nothing."""
MAX_DEVICE = 2**31 - 1
MAX_SIZE = 2**63 - 1
MAX_TIME_NS = 2**63 * 10**9
"""The limit before and after 1970: some file systems store 64 bits of seconds."""
_MAX_DIGITS = 19
"""Those of 2**63."""

_SECONDS = re.compile(rb"([+-]?)(\d*)(?:\.(\d*))?")


@lru_cache(maxsize=4096)
def parse_number(field: bytes) -> int:
    """Return the number in a header's *field*: octal digits, or GNU's base 256.

    An empty field is 0. Raises CorruptArchiveError for anything else.
    """
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    if field[0] == 0xFF:
        return int.from_bytes(field, "big", signed=True)
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    if digits.isdigit():
        try:
            return int(digits, 8)
        except ValueError:
            pass
    raise CorruptArchiveError(f"a tar header has {quoted(field)} where a number belongs")


def parse_decimal(text: bytes) -> int:
    """Return the number in *text*, which has at most 19 decimal digits.

    Raises CorruptArchiveError.
    """
    if not text.isdigit() or len(text) > _MAX_DIGITS:
        raise CorruptArchiveError(f"a pax header has {quoted(text)} where a number belongs")
    return int(text)


def parse_seconds(text: bytes) -> int:
    """Return the time in *text*, decimal seconds, as nanoseconds.

    Digits past the ninth are rounded towards the past, before 1970 too. Raises CorruptArchiveError.
    """
    seconds, _, fraction = text.partition(b".")
    if seconds.isdigit() and fraction.isdigit() and len(seconds) <= _MAX_DIGITS:
        return int(seconds) * 10**9 + int(fraction[:9].ljust(9, b"0"))  # the usual case
    match = _SECONDS.fullmatch(text)
    if match is None or not (match[2] or match[3]) or len(match[2]) > _MAX_DIGITS:
        raise CorruptArchiveError(f"a pax header has {quoted(text)} where a time belongs")
    fraction = match[3] or b""
    nanoseconds = int(match[2] or b"0") * 10**9 + int(fraction[:9].ljust(9, b"0"))
    if match[1] != b"-":
        return nanoseconds
    return -nanoseconds - bool(fraction[9:].strip(b"0"))


def has_valid_checksum(block: bytes) -> bool:
    """Return whether the checksum in a header of 512 bytes is right.

    The checksum is the sum of unsigned bytes; some old tars added signed ones.
    """
    field = block[148:156]
    # The checksum counts its own field as eight spaces.
    unsigned = byte_sum(block[:256]) + byte_sum(block[256:]) - byte_sum(field) + 8 * 32
    if field == b"%06o\0 " % unsigned:
        return True  # the form of POSIX, which nearly every tar writes
    stored = parse_number(field)
    if stored == unsigned:
        return True
    negative = sum(byte >= 128 for byte in block) - sum(byte >= 128 for byte in field)
    return stored == unsigned - 256 * negative


def byte_sum(octets: bytes) -> int:
    """Return the sum of at most 256 bytes.

    The low half of Adler-32 (RFC 1950, section 8.2) is the sum of the bytes plus one, modulo 65521,
    which 256 bytes cannot reach. It is many times faster than sum().
    """
    return (adler32(octets) & 0xFFFF) - 1


def only_mtime(payload: bytes) -> tuple[bytes, bytes] | None:
    """Return the record of a pax header that holds the mtime and nothing else, or None.

    Nearly every file has such a header; this takes a third of the time of the general parser.
    """
    if payload[2:9] == b" mtime=" and payload[:2] == b"%d" % len(payload) and payload[-1] == 10:
        return b"mtime", payload[9:-1]
    return None


def parse_pax_records(payload: bytes) -> list[tuple[bytes, bytes]]:
    """Return the keywords and values of a pax header, in order.

    Raises CorruptArchiveError.
    """
    records = []
    at = 0
    while at < len(payload):
        space = payload.find(b" ", at, at + 20)
        end = at + parse_decimal(payload[at:space]) if space > at else 0
        keyword, equals, value = payload[space + 1 : max(end - 1, 0)].partition(b"=")
        if end <= space or payload[end - 1 : end] != b"\n" or not keyword or not equals:
            raise CorruptArchiveError("a pax header has a record that is not as long as it says")
        records.append((keyword, value))
        at = end
    return records
