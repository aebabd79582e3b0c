"""Files that are written or replaced as a whole, and what not every file system can do."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import tempfile
from pathlib import Path

from bakthat.system.text import printable

log = logging.getLogger("bakthat")

NOT_SUPPORTED = frozenset(
    {
        errno.EPERM,
        errno.EINVAL,
        errno.ENOSYS,
        errno.ENOTSUP,
        errno.EOPNOTSUPP,
        errno.ENOTTY,
    }
)
"""The errors by which file systems refuse an operation that they do not have."""


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


def temporary_place() -> str:
    """Return where temporary files go, for a message; also where there is no directory for them."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return "a temporary file"


_PRIVATE = 0o600


def replace_file(target: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write *target* atomically and durably, and leave no temporary file. Raises OSError."""
    handle, temporary = tempfile.mkstemp(prefix=f"{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            if mode != _PRIVATE:
                _set_mode(stream.fileno(), mode)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_directory(target.parent)


def create_file(path: Path, content: bytes) -> None:
    """Write a new file durably, with mode 0600, and leave none when that fails.

    What has the name already is never changed, be it a link. Raises OSError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(path, flags, _PRIVATE)
    try:
        try:
            write_all(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(path.parent)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        raise


def sync_directory(path: str | Path) -> None:
    """Wait until the entries of the directory *path* are on the disk. Raises OSError.

    Does nothing on a file system that cannot be told to.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as exc:
        if exc.errno not in NOT_SUPPORTED and exc.errno != errno.EBADF:
            raise
    finally:
        os.close(descriptor)


def _set_mode(descriptor: int, mode: int) -> None:
    try:
        os.fchmod(descriptor, mode)
    except OSError as exc:
        # A file system without modes; the file stays as private as it can be.
        if exc.errno not in NOT_SUPPORTED:
            raise


def remove_tree(directory: Path) -> None:
    """Remove a directory and its contents; log a failure as a warning."""
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        return
    except OSError:
        _unlock(directory)
        try:
            shutil.rmtree(directory)
        except OSError as exc:
            log.warning("%s could not be removed: %s", printable(directory), exc)


def _unlock(directory: Path) -> None:
    """Give the owner every permission on the directories below, which others may have removed."""
    for above, names, _ in os.walk(directory):
        for name in names:
            path = os.path.join(above, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)
