"""Read a file of the tree for the SHA-256 of its content, as the index has it."""

from __future__ import annotations

import os

from bakthat.archive.content_hash import ContentHash
from bakthat.archive.create.extents import data_extents, looks_sparse
from bakthat.system.linux import NO_ATIME, read_at

_READ_BYTES = 1024 * 1024
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_file(path: str) -> int:
    """Open *path* without blocking or following a link; the caller closes it. Raises OSError.

    Its access time stays as it is, where that is permitted.
    """
    try:
        return os.open(path, _READ_FLAGS | NO_ATIME)
    except PermissionError:
        # O_NOATIME is only for the owner and root; others may still be allowed to read.
        return os.open(path, _READ_FLAGS)


def why_not_opened(path: str) -> OSError | None:
    """Return the error of :func:`open_file` for *path*; None where it can be opened."""
    try:
        os.close(open_file(path))
    except OSError as exc:
        return exc
    return None


def content_digest(fd: int, status: os.stat_result) -> bytes:
    """Return the SHA-256 of the open file *fd* with *status*; b"" for one with too large holes.

    Raises OSError.
    """
    size = status.st_size
    extents = data_extents(fd, size) if looks_sparse(status) else None
    made = ContentHash()
    buffer = memoryview(bytearray(min(_READ_BYTES, size)))
    for offset, length in [(0, size)] if extents is None else extents:
        end = offset + length
        while offset < end:
            count = read_at(fd, buffer[: min(len(buffer), end - offset)], offset)
            if not count:  # it was just truncated
                return made.digest(offset)
            made.update_at(offset, buffer[:count])
            offset += count
    return made.digest(size)
