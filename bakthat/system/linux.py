"""What only Linux has, and what takes its place elsewhere.

Every other module works on each POSIX system, and takes from here what may be missing. mypy checks
that for macOS too (``mypy --platform darwin``).
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys
import tempfile
from contextlib import suppress

if hasattr(os, "preadv"):

    def read_at(descriptor: int, buffer: memoryview, offset: int) -> int:
        """Read into *buffer* from byte *offset* on; return how many bytes. Raises OSError."""
        return os.preadv(descriptor, [buffer], offset)

else:  # macOS before 11

    def read_at(descriptor: int, buffer: memoryview, offset: int) -> int:
        """Read into *buffer* from byte *offset* on; return how many bytes. Raises OSError."""
        data = os.pread(descriptor, len(buffer), offset)
        buffer[: len(data)] = data
        return len(data)


def _open_temporary_file() -> int:
    with tempfile.TemporaryFile() as file:  # mode 0600, and removed at once
        return os.dup(file.fileno())


if sys.platform == "linux":
    from os import getxattr as getxattr
    from os import listxattr as listxattr
    from os import removexattr as removexattr
    from os import setxattr as setxattr

    HAS_XATTRS = True
    """Whether there are extended attributes, ACLs among them, with these functions."""

    NO_ATIME = os.O_NOATIME
    """A flag for :func:`os.open` that leaves the access time as it is, or 0."""

    # A Python that was built for old kernels, such as uv's, has no pidfds.
    HAS_PIDFDS = (
        hasattr(os, "pidfd_open")
        and hasattr(os, "P_PIDFD")
        and hasattr(signal, "pidfd_send_signal")
    )
    """Whether there are pidfds. The kernel or a sandbox may still refuse them."""

    def open_pidfd(process: int) -> int:
        """Return a pidfd of *process*, which the caller closes. Raises OSError."""
        return os.pidfd_open(process)

    def signal_pidfd(pidfd: int, number: int) -> None:
        """Send a signal to the process of *pidfd*; 0 only checks. Raises OSError."""
        signal.pidfd_send_signal(pidfd, number)

    def reap_pidfd(pidfd: int) -> None:
        """Reap the child of *pidfd* if it has ended; do not wait. Raises OSError."""
        # The child was reaped already, by an ignored SIGCHLD or a wait for any child.
        with suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)

    def usable_cores() -> int:
        """Return how many cores this process may use."""
        return len(os.sched_getaffinity(0))

    def announce_sequential_read(descriptor: int, start: int) -> None:
        """Let the system read an open file ahead from byte *start* on."""
        with suppress(OSError):  # this is only advice, which a file system may refuse
            os.posix_fadvise(descriptor, start, 0, os.POSIX_FADV_SEQUENTIAL)

    def enlarge_pipe(descriptor: int, size: int) -> None:
        """Let a pipe hold *size* bytes, if this user may."""
        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, size)

    def open_nameless_file() -> int:
        """Return a new file in memory that has no name and mode 0600. Raises OSError."""
        if not hasattr(os, "memfd_create"):  # a Python that was built for old kernels
            return _open_temporary_file()
        descriptor = os.memfd_create("bakthat")
        os.fchmod(descriptor, 0o600)
        return descriptor

else:
    HAS_XATTRS = False
    NO_ATIME = 0
    HAS_PIDFDS = False

    _Target = int | str | bytes | os.PathLike[str]

    def _missing() -> OSError:
        return OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    def getxattr(path: _Target, attribute: str | bytes, *, follow_symlinks: bool = True) -> bytes:
        """Raise OSError."""
        raise _missing()

    def listxattr(path: _Target | None = None, *, follow_symlinks: bool = True) -> list[str]:
        """Raise OSError."""
        raise _missing()

    def setxattr(
        path: _Target, attribute: str | bytes, value: bytes, *, follow_symlinks: bool = True
    ) -> None:
        """Raise OSError."""
        raise _missing()

    def removexattr(path: _Target, attribute: str | bytes, *, follow_symlinks: bool = True) -> None:
        """Raise OSError."""
        raise _missing()

    def open_pidfd(process: int) -> int:
        """Raise OSError."""
        raise _missing()

    def signal_pidfd(pidfd: int, number: int) -> None:
        """Raise OSError."""
        raise _missing()

    def reap_pidfd(pidfd: int) -> None:
        """Raise OSError."""
        raise _missing()

    def usable_cores() -> int:
        """Return how many cores this machine has."""
        return os.cpu_count() or 1

    def announce_sequential_read(descriptor: int, start: int) -> None:
        """Do nothing."""

    def enlarge_pipe(descriptor: int, size: int) -> None:
        """Do nothing."""

    def open_nameless_file() -> int:
        """Return a new file that has no name and mode 0600. Raises OSError."""
        return _open_temporary_file()
