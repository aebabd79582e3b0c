"""How much trouble each gzip member is worth at the default level.

ISA-L's level 3 takes twice the time of its level 2. It gains some 4 % on text and a third of that
on all else, where level 2 comes nearer to what gzip's level 6 makes of it anyway.
"""

from __future__ import annotations

DEFAULT_LEVEL = 3
"""Stays within some 1.15 times what ``gzip -6`` makes of source trees, logs and programs."""

_PIECE_BYTES = 16 * 1024
_GLANCE_BYTES = 4 * 1024
_GLANCES = 4
_NO_GAIN = 0.99
"""From which share of its size on compressed data is not worth inflating again."""
_DENSE = 0.36
"""Above this share of its size level 2 comes close to gzip's level 6, and 3 gains little."""
_SPARED = 0.2
"""How much of a stream may be text with which no trouble is taken. So much of it costs 1 % of
size where all is text."""

# What text has, tabs, line ends and escapes for colours aside, is no control character; NUL is
# what tar fills up with.
_CONTROLS = bytes([*range(0x01, 0x09), *range(0x0E, 0x1B), *range(0x1C, 0x20), 0x7F])
_FEW_CONTROLS = 0.005


class Effort:
    """Tell, member after member of one stream, with which of them to take trouble.

    What it tells depends on what went before, so that text which is a small part of the stream is
    compressed as fast as the rest: the whole stays as close to gzip's level 6 either way.
    """

    def __init__(self) -> None:
        self._seen = 0
        self._spared = 0

    def is_worthwhile(self, member: bytes | memoryview) -> bool:
        """Tell whether level 3 may be worth it for *member*, the next one of the stream."""
        self._seen += len(member)
        if not _is_text(member):
            return False
        if self._spared + len(member) > _SPARED * self._seen:
            return True
        self._spared += len(member)
        return False


def fitting_level(member: bytes | memoryview, *, worthwhile: bool) -> int:
    """Return ISA-L's level for *member*: 3 where it is *worthwhile* and a sample agrees, else 2.

    0 for what does not compress, which is to be stored; 3 for less than a sample, a stream's end.
    """
    if len(member) <= 4 * _PIECE_BYTES:
        return 3
    sample = _pieces(member, 2, _PIECE_BYTES)
    fast = _compressed_size(sample)
    if fast > _NO_GAIN * len(sample):
        # Seldom all of a member is like two places of it: photos lie between texts.
        thorough = _pieces(member, 8, _PIECE_BYTES)
        return 0 if _compressed_size(thorough) > _NO_GAIN * len(thorough) else 2
    return 3 if worthwhile and fast <= _DENSE * len(sample) else 2


def _is_text(member: bytes | memoryview) -> bool:
    glance = _pieces(member, _GLANCES, _GLANCE_BYTES)
    controls = len(glance) - len(glance.translate(None, _CONTROLS))
    return controls <= _FEW_CONTROLS * len(glance)


def _pieces(data: bytes | memoryview, count: int, size: int) -> bytes:
    """Return *count* pieces of *size* bytes that lie evenly in *data*, joined."""
    middles = [len(data) * (2 * number + 1) // (2 * count) for number in range(count)]
    half = size // 2
    return b"".join([data[max(0, middle - half) : middle + half] for middle in middles])


def _compressed_size(data: bytes) -> int:
    from isal import igzip_lib

    return len(igzip_lib.compress(data, 2, igzip_lib.COMP_DEFLATE))
