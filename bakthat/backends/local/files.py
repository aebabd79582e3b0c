"""Operations on the files and directories of the local storage."""

from __future__ import annotations

import errno
import fcntl
import io
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from bakthat.backends.base import Metadata, decode_metadata
from bakthat.errors import KeyExistsError, NotFoundError, StorageError, UsageError
from bakthat.system.files import NOT_SUPPORTED, write_all
from bakthat.system.linux import announce_sequential_read, read_at
from bakthat.system.text import reason_of

log = logging.getLogger(__name__)

SIDECAR_SUFFIX = ".bakthat.json"
TEMPORARY_PREFIX, TEMPORARY_SUFFIX = ".bakthat-", ".tmp"
NAME_MAX = 255
"""Bytes of a file's name, on Linux and macOS."""
METADATA_LIMIT = 64 * 1024
"""Bytes of a self-description."""
_DIRECTORY_MODE, _FILE_MODE = 0o700, 0o600
_NO_HARD_LINKS = NOT_SUPPORTED | {errno.EMLINK}
_ODD_NAME = "the file system may not allow this name: give another with --name"
_OWN_HINTS = {
    errno.ENOENT: _ODD_NAME,  # exFAT says so of a colon
    errno.EINVAL: _ODD_NAME,
    errno.EILSEQ: _ODD_NAME,
    errno.ENAMETOOLONG: _ODD_NAME,
}
_ELSEWHERE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EEXIST, errno.ENOTDIR}
)
"""Errors after which another local_path may help."""


@contextmanager
def translated_errors(doing: str, path: str) -> Iterator[None]:
    """Raise an OSError of the block as a StorageError that names *path*."""
    try:
        yield
    except OSError as exc:
        raise StorageError(f"cannot {doing} {path}: {reason_of(exc)}", hint=_hint_of(exc)) from exc


def _hint_of(error: OSError) -> str:
    from bakthat.system import disks  # only needed here

    hint = _OWN_HINTS.get(error.errno or 0) or disks.hint_of(error)
    return f"{hint}, or set another local_path" if error.errno in _ELSEWHERE else hint


def key_exists_error(path: str) -> KeyExistsError:
    """Return the error that refuses to overwrite *path*."""
    return KeyExistsError(
        f"{path} exists already, or is being written; it was left as it is",
        hint="run it again: a later second makes another name",
    )


def is_private(name: str) -> bool:
    """Return whether a file of this name is a sidecar or a temporary file."""
    temporary = name.startswith(TEMPORARY_PREFIX) and name.endswith(TEMPORARY_SUFFIX)
    return temporary or name.endswith(SIDECAR_SUFFIX)


def check_file_names(key: str) -> None:
    """Raise UsageError unless the files of *key* can have its name."""
    name = key.rpartition("/")[2]
    if is_private(name):
        raise UsageError(
            f"{key!r} cannot be a key: bakthat reserves such names",
            hint="choose another name with --name, or another prefix in the profile",
        )
    if any(len(part.encode()) > NAME_MAX for part in [*key.split("/"), name + SIDECAR_SUFFIX]):
        raise UsageError(
            f"{key!r} cannot be a key: a component is too long for a file name",
            hint=f"keep it under {NAME_MAX - len(SIDECAR_SUFFIX)} bytes",
        )


def make_directories(path: str, *, below: str | None = None) -> list[str]:
    """Create the directory *path* and its missing parents; return those made, outermost first.

    With *below*, which must be *path* or a parent of it, nothing above *below* is created.
    """
    missing = []
    while path != below and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    made = []
    for directory in reversed(missing):
        try:
            os.mkdir(directory, _DIRECTORY_MODE)
        except FileExistsError:
            # Another writer may have created the directory; a file of that name is an error.
            if not os.path.isdir(directory):
                raise
        else:
            made.append(directory)
    return made


def create(path: str) -> int:
    """Create the file *path* and return its descriptor for writing. Raises FileExistsError."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _FILE_MODE)


def lock(descriptor: int) -> None:
    """Lock a file that is being written, until it is closed or the process ends."""
    # On a file system without locks, only the age of the file tells an abandoned one.
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def claim(path: str) -> int:
    """Create the sidecar *path*, lock it, and return its descriptor. Raises FileExistsError."""
    while True:
        descriptor = create(path)
        # A cleanup may hold the lock for a moment, and remove what it takes for an old claim.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink and os.path.lexists(path):
            return descriptor
        os.close(descriptor)


def remove_abandoned(path: str, *, unless: str = "") -> bool:
    """Remove the file *path*, unless a process holds its lock or the file *unless* exists.

    Returns whether it was removed. No process can take the lock meanwhile. Raises OSError.
    """
    descriptor = -1
    try:
        with suppress(PermissionError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if descriptor >= 0:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as exc:  # without locks, only the age of the file tells an abandoned one
            log.debug("%s cannot be locked: %s", path, reason_of(exc))
        if unless and os.path.lexists(unless):
            return False
        os.unlink(path)
    except FileNotFoundError:
        return False
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return True


def write_durably(descriptor: int, text: str) -> None:
    """Write ASCII *text*, wait for the disk, and close *descriptor*, also after an error."""
    try:
        write_all(descriptor, text.encode("ascii"))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_without_replacing(source: str, target: str) -> None:
    """Rename *source* to *target*. Raises KeyExistsError when *target* exists."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as exc:
        if exc.errno not in _NO_HARD_LINKS and exc.errno != errno.EEXIST:
            raise
        if not os.path.lexists(target):
            if exc.errno == errno.EEXIST:
                raise
            os.rename(source, target)
            return
        # Over NFS, the answer may have been lost, and the repeated request refused.
        if not os.path.samefile(source, target):
            raise key_exists_error(target) from exc
    remove(source)


def remove(path: str) -> None:
    """Remove the file *path* if it exists; a failure is logged, not raised."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as exc:
        log.warning("%s could not be removed: %s", path, reason_of(exc))


def read_sidecar(path: str) -> Metadata:
    """Return the self-description in the file *path*; an empty one when it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as sidecar:
            return decode_metadata(sidecar.read(METADATA_LIMIT + 1))
    except FileNotFoundError:
        return {}
    except OSError as exc:
        log.warning("%s could not be read: %s", path, reason_of(exc))
        return {}


class FileRange(io.RawIOBase):
    """Bytes *start* to *end* (excluded; None: to the last) of an open file, which it closes."""

    def __init__(self, descriptor: int, path: str, start: int, end: int | None) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._path = path
        try:
            with translated_errors("open", path):
                found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise NotFoundError(
                    f"{path} is not a regular file any more",
                    hint="another program replaced it; bakthat check shows what is lost",
                )
        except BaseException:
            self.close()
            raise
        self._position = start
        self._end = found.st_size if end is None else min(end, found.st_size)
        announce_sequential_read(descriptor, start)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill *buffer* with the next bytes and return how many; 0 at the end of the range."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        view = memoryview(buffer).cast("B")[: max(self._end - self._position, 0)]
        if not view:
            return 0
        with translated_errors("read", self._path):
            count = read_at(self._descriptor, view, self._position)
        if count == 0:
            raise StorageError(
                f"{self._path} was truncated while it was read",
                hint="another program writes to local_path; bakthat check shows what is lost",
            )
        self._position += count
        return count

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            super().close()
            os.close(self._descriptor)
