"""The SHA-256 of a file's content, from the pieces that are not holes."""

from __future__ import annotations

import hashlib

from bakthat.system.streams import Buffer

MAX_HOLE_BYTES = 1024**3
"""A file with more bytes of holes has no hash: to hash their zeros would take too long."""

_ZEROS = bytes(1024 * 1024)


class ContentHash:
    """Hash a file's content piece by piece; what lies between the pieces are zeros.

    So the hash is that of ``sha256sum``, whether the file is sparse or not.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._end = 0
        self._hole_bytes = 0

    def update_at(self, offset: int, piece: Buffer) -> None:
        """Hash *piece*, which begins at *offset*, where the piece before it ends or later."""
        self._skip_to(offset)
        if self._hole_bytes <= MAX_HOLE_BYTES:
            self._hash.update(piece)
        self._end += len(piece)

    def digest(self, size: int) -> bytes:
        """Return the SHA-256 of the content, which ends at *size*; call it once, and last.

        It is b"" when more than MAX_HOLE_BYTES of the content are holes.
        """
        self._skip_to(size)
        return b"" if self._hole_bytes > MAX_HOLE_BYTES else self._hash.digest()

    def _skip_to(self, offset: int) -> None:
        """Hash the zeros of the hole before *offset*."""
        hole = offset - self._end
        if hole < 0:
            raise ValueError(f"a piece begins at {offset}, before the last one ends")
        self._end = offset
        self._hole_bytes += hole
        if self._hole_bytes > MAX_HOLE_BYTES:
            return
        while hole:
            piece = min(hole, len(_ZEROS))
            self._hash.update(_ZEROS if piece == len(_ZEROS) else _ZEROS[:piece])
            hole -= piece
