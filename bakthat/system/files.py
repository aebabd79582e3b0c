"""Files that are written or replaced as a whole."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> int:
    """Write all of *data* and return its length in bytes. Raises OSError."""
    written = os.write(descriptor, data)
    if written < len(data):
        view = memoryview(data)
        while written < len(view):
            count = os.write(descriptor, view[written:])
            if not count:
                raise OSError(errno.EIO, "nothing was written")
            written += count
    return written


def replace_file(target: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write *target* atomically and durably, and leave no temporary file. Raises OSError."""
    handle, temporary = tempfile.mkstemp(prefix=f"{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
