"""Read the files of the configuration, of which a pipe has its content only once."""

from __future__ import annotations

import errno
import os
from pathlib import Path

MOST_BYTES = 16 * 1024 * 1024
"""The size of what is refused: a device has no end, and would take all memory."""

_piped: dict[Path, bytes] | None = None
"""What was read from pipes; None where nothing is remembered."""


def remember_pipes() -> None:
    """Return for a pipe what it had, from now on, and forget what was remembered before.

    A command loads its profile more than once, and ``-c <(decrypt config)`` can be read once.
    """
    global _piped
    _piped = {}


def forget_pipes() -> None:
    """Remember nothing any more, and forget what was remembered."""
    global _piped
    _piped = None


def content_of(path: Path) -> bytes:
    """Return what a file or a pipe holds. Raises OSError."""
    if _piped is not None and path in _piped:
        return _piped[path]
    is_pipe = path.exists() and not path.is_file()
    with path.open("rb") as file:
        content = file.read(MOST_BYTES)
    if len(content) == MOST_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    if _piped is not None and is_pipe:
        _piped[path] = content
    return content
