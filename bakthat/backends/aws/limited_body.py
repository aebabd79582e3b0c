"""The body of a request that is sent no faster than a bandwidth allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO


class LimitedBody:
    """*body* as the file object that botocore needs, read in pieces of at most *piece* bytes.

    *on_piece* gets the bytes of each piece before it is sent, and returns when it may be. What it
    raises ends the request. The owner of *body* closes it. Between two reads, no buffer of *body*
    is in use, so that a part can be emptied for the next one.
    """

    def __init__(
        self, body: bytes | bytearray | BinaryIO, piece: int, on_piece: Callable[[int], object]
    ) -> None:
        self._body = body
        self._piece = piece
        self._on_piece = on_piece
        self._position = 0 if isinstance(body, bytes | bytearray) else body.tell()

    def read(self, size: int, /) -> bytes | bytearray:
        """Return the next bytes, at most *size* of them; empty at the end."""
        size = min(size, self._piece)
        if isinstance(self._body, bytes | bytearray):
            data = self._body[self._position : self._position + size]
        else:
            data = self._body.read(size)
        self._position += len(data)
        if data:
            self._on_piece(len(data))
        return data

    def seek(self, offset: int, /) -> int:
        """Move to *offset* bytes from the beginning; return the position."""
        if not isinstance(self._body, bytes | bytearray):
            self._body.seek(offset)  # botocore reads it again, to sign the repeated request
        self._position = offset
        return offset

    def tell(self) -> int:
        """Return the position."""
        return self._position
