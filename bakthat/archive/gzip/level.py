"""The compression level of each gzip member, where the user chose none.

ISA-L's level 2 is twice as fast as its level 3, and comes nearly as close to what gzip's level 6
makes of programs and data. Plain source text is what it leaves larger. What does not compress is
stored.
"""

from __future__ import annotations

DEFAULT_LEVEL = 3
"""Levels 2 and 3 and storing, chosen for each member; any other level is the same for all.

It stays within 1.15 times what ``gzip -6`` makes of source text, programs, dumps and images.
"""

_PIECES = 8
_PIECE_BYTES = 4 * 1024
_DENSE = 0.36
"""Use level 3 for text when level 2 compresses the sample below this fraction."""

# Tabs, line ends and the escapes of colours belong to text; NUL is the padding of tar.
_CONTROLS = bytes([*range(0x01, 0x09), *range(0x0E, 0x1B), *range(0x1C, 0x20), 0x7F])


def choose_level(member: bytes | memoryview) -> int:
    """Return ISA-L's level for *member*: 3, 2, or 0 to store it uncompressed."""
    # Here, so that importing this module does not load it; the interpreter keeps it.
    from isal import igzip_lib

    sample = _sample(member)
    compressed = len(igzip_lib.compress(sample, 2, igzip_lib.COMP_DEFLATE))
    if compressed >= len(sample) > 0:
        return 0
    is_text = len(sample.translate(None, _CONTROLS)) == len(sample)
    if is_text and compressed < _DENSE * len(sample):
        return 3
    return 2


def _sample(member: bytes | memoryview) -> bytes:
    """Return pieces that lie evenly in *member*, joined; all of a short one."""
    if len(member) <= _PIECES * _PIECE_BYTES:
        return bytes(member)
    starts = [number * len(member) // _PIECES for number in range(_PIECES)]
    offset = (len(member) // _PIECES - _PIECE_BYTES) // 2
    return b"".join([member[start + offset :][:_PIECE_BYTES] for start in starts])
