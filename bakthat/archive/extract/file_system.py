"""Find out what the file system of the destination keeps of a file.

Some file systems refuse to set what they cannot keep (vfat), others ignore it (exFAT by FUSE, SMB).
So a file is made, given a value and looked at; it is removed again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from bakthat.system.files import NOT_SUPPORTED

REFUSED = NOT_SUPPORTED | {errno.EACCES}
"""The errors for a mode or an owner that a file system does not keep; a server may deny them."""

_SECOND = 10**9
_PROBED_TIME = 1_000_000_000 * _SECOND
_COARSEST = 2 * _SECOND
"""The precision of times on FAT, in nanoseconds; no file system in use is less precise."""
_EXTREMES = (-(2**63), 2**63 - 1)
"""The seconds that a time may have; Linux sets the nearest time that a file system keeps."""
_LATEST_SURELY = (2**31 - 1) * _SECOND
_OTHER_ID = 1
"""A user and group that is not root."""


@dataclass(frozen=True, slots=True)
class FileSystem:
    """What a file system keeps of a file, for this user."""

    modes: bool = True
    owners: bool = True
    """Whether a new file belongs to this user, who can give it away if that is root."""
    times: bool = True
    """Whether this user can set times, to the precision that the file system has."""
    earliest_ns: float = float("-inf")
    """The earliest time that it keeps, in nanoseconds since 1970 UTC."""
    latest_ns: float = float("inf")

    @classmethod
    def of(cls, directory: int) -> FileSystem:
        """Return what the file system of the open, writable *directory* keeps. Raises OSError."""
        name = secrets.token_hex(8)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        fd = os.open(name, flags, 0o600, dir_fd=directory)
        try:
            times = _keeps(fd, _set_time, _PROBED_TIME, _has_about_time)
            earliest, latest = _range(fd) if times else (float("-inf"), float("inf"))
            return cls(
                modes=_keeps(fd, os.fchmod, 0o640, _has_mode)
                and _keeps(fd, os.fchmod, 0o600, _has_mode),
                owners=_keeps_owners(fd),
                times=times,
                earliest_ns=earliest,
                latest_ns=latest,
            )
        finally:
            os.close(fd)
            os.unlink(name, dir_fd=directory)

    def lacking(self) -> str:
        """Return what it does not keep, as words of a message; "" when it keeps all of it."""
        kinds = {"modes": self.modes, "owners": self.owners, "times": self.times}
        return ", ".join(kind for kind, is_kept in kinds.items() if not is_kept)


def _keeps(
    fd: int, set_value: Callable[[int, int], None], value: int, has: Callable[[int, int], bool]
) -> bool:
    try:
        set_value(fd, value)
    except OSError as exc:
        if exc.errno not in REFUSED:
            raise
        return False
    return has(fd, value)


def _has_mode(fd: int, mode: int) -> bool:
    return os.fstat(fd).st_mode & 0o7777 == mode


def _set_time(fd: int, time_ns: int) -> None:
    os.utime(fd, ns=(time_ns, time_ns))


def _has_about_time(fd: int, time_ns: int) -> bool:
    return abs(os.fstat(fd).st_mtime_ns - time_ns) <= _COARSEST


def _keeps_owners(fd: int) -> bool:
    found = os.fstat(fd)
    if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
        return False
    if os.geteuid() != 0:
        return True
    try:
        os.fchown(fd, _OTHER_ID, _OTHER_ID)
    except OSError as exc:
        # A user namespace that lacks this user may have others.
        return exc.errno == errno.EINVAL
    found = os.fstat(fd)
    return (found.st_uid, found.st_gid) == (_OTHER_ID, _OTHER_ID)


def _range(fd: int) -> tuple[float, float]:
    """Return the earliest and the latest time that a file can have, in nanoseconds."""
    found = []
    for seconds in _EXTREMES:
        with contextlib.suppress(OSError, OverflowError):
            _set_time(fd, seconds * _SECOND)
            found.append(os.fstat(fd).st_mtime_ns)
    if len(found) == 2 and found[0] <= 0 and found[1] >= _LATEST_SURELY:
        # A time has a fraction of a second too.
        return found[0], found[1] // _SECOND * _SECOND + _SECOND - 1
    return float("-inf"), float("inf")  # it refuses or wraps, so the range is not known
