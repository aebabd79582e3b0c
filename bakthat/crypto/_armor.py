"""Read ASCII armor: strict PEM (RFC 7468, section 3, figure 3), as the age specification requires.

Whitespace before and after the armor is allowed, as whole lines, and so are CR LF line ends.
"""

from __future__ import annotations

import binascii
import re

from bakthat.crypto import _base64
from bakthat.crypto._lookahead import LookaheadReader
from bakthat.errors import AgeFormatError
from bakthat.system.streams import Source

_BEGIN = b"-----BEGIN AGE ENCRYPTED FILE-----"
_END = b"-----END AGE ENCRYPTED FILE-----"
_COLUMNS = 64
_FULL_LINES = re.compile(rb"(?:[A-Za-z0-9+/]{64}\r?\n)++")
_BLOCK = 64 * 1024
_LINE_LIMIT = 1024
"""More than any line of armor; also the limit of a line of whitespace before it."""


def without_armor(source: Source) -> LookaheadReader:
    """Return *source* buffered, without its armor if it has one. Raises AgeFormatError."""
    reader = LookaheadReader(source.read)
    start = reader.peek(len(b"-----"))
    if start == b"-----" or start[:1].isspace():
        return LookaheadReader(_ArmorReader(reader).read)
    return reader


class _ArmorReader:
    """Decode the armor that *source* begins with, after blank lines."""

    def __init__(self, source: LookaheadReader) -> None:
        self._source = source
        self._ended = False
        line = b"\n"
        while line.endswith(b"\n") and not line.strip():
            line = source.readline(_LINE_LIMIT)
        if _strip_end_of_line(line) != _BEGIN:
            raise AgeFormatError("not an age file: its first line is neither a header nor armor")

    def read(self, _size: int) -> bytes:
        """Return the next decoded bytes, at most 48 KiB, or ``b""`` after the armor's end."""
        if self._ended:
            return b""
        full = _FULL_LINES.match(self._source.peek(_BLOCK))
        if full:
            self._source.skip(full.end())
            return binascii.a2b_base64(full[0].translate(None, b"\r\n"))
        line = self._readline()
        if line == _END:
            self._finish()
            return b""
        data = self._decode_last(line)
        if self._readline() != _END:
            raise AgeFormatError("a short line of armor is not the last one")
        self._finish()
        return data

    def _decode_last(self, line: bytes) -> bytes:
        if not line:
            raise AgeFormatError("an empty line in the armor")
        if len(line) > _COLUMNS:
            raise AgeFormatError(f"a line of armor is longer than {_COLUMNS} characters")
        try:
            return _base64.decode_padded(line)
        except _base64.Base64Error as exc:
            raise AgeFormatError(f"a line of armor is not canonical base64: {exc}") from exc

    def _readline(self) -> bytes:
        line = self._source.readline(_LINE_LIMIT)
        if not line:
            raise AgeFormatError("the armor has no END line: the file is truncated")
        return _strip_end_of_line(line)

    def _finish(self) -> None:
        self._ended = True
        while rest := self._source.peek(_BLOCK):
            if rest.strip():
                raise AgeFormatError("data follows the armor's END line")
            self._source.skip(len(rest))


def _strip_end_of_line(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")
