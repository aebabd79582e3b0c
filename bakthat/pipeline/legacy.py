"""Recognise a wrong password for an object of bakthat 0.6.0 by the beginning of the plaintext.

The encryption of 0.6.0 (:mod:`bakthat.crypto.beefish`) authenticates nothing. Its plaintext is a
tar archive in gzip, or JSON in gzip for KeyValue. One wrong password in 100 million gives a gzip
header, so the first block of the tar archive is checked too. A file that was stored with
``compress: false`` cannot be checked.
"""

from __future__ import annotations

from collections.abc import Callable

from bakthat.archive.gzip.members import GZIP_MAGIC
from bakthat.archive.tar.fields import BLOCK_BYTES, has_valid_checksum
from bakthat.errors import CorruptArchiveError, WrongKeyError
from bakthat.system.streams import Source

GZIP_HEADER_BYTES = 10


class RecognisedSource:
    """A source that raises WrongKeyError unless *is_valid* accepts its first *size* bytes."""

    def __init__(self, source: Source, size: int, is_valid: Callable[[bytes], bool]) -> None:
        self._source = source
        self._size = size
        self._is_valid = is_valid
        self._first: bytes | None = None

    def read(self, size: int, /) -> bytes:
        """Return between 1 and *size* bytes, or ``b""`` at the end."""
        if self._first is None:
            self._first = self._recognise()
        if self._first:
            piece, self._first = self._first[:size], self._first[size:]
            return piece
        return self._source.read(size)

    def _recognise(self) -> bytes:
        first = b""
        while len(first) < self._size:
            piece = self._source.read(self._size - len(first))
            if not piece:
                break
            first += piece
        if not self._is_valid(first):
            raise wrong_password_error()
        return first


def begins_gzip(header: bytes) -> bool:
    """Return whether *header* can begin a gzip file (RFC 1952, section 2.3)."""
    return header.startswith(GZIP_MAGIC + b"\x08") and len(header) > 3 and not header[3] & 0xE0


def begins_tar(block: bytes) -> bool:
    """Return whether *block* can be the first block of a tar archive, which may be empty."""
    if len(block) < BLOCK_BYTES:
        return False
    try:
        return not any(block) or has_valid_checksum(block)
    except CorruptArchiveError:
        return False


def wrong_password_error() -> WrongKeyError:
    """Return the error for a wrong password for an object that bakthat 0.6.0 encrypted."""
    return WrongKeyError(
        "the password does not open what bakthat 0.6.0 encrypted, or its beginning is damaged",
        hint="set BAKTHAT_PASSWORD, or password_file in the profile, to the one that it was "
        "encrypted with",
    )
