"""Say in plain words why a file or a directory cannot be used, and what to try."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import shlex
import stat
import tempfile
from dataclasses import dataclass

from bakthat.system.text import printable, reason_of

PROBE_BYTES = 64 * 1024
"""How many bytes are written to find out whether a disk is full: more than SQLite needs at once."""

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL})
_CAP_DAC_OVERRIDE = 1 << 1
"""The bit of a process's capabilities on Linux; see capabilities(7)."""
HINTS = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there, or ask for a larger quota",
    errno.EROFS: "remount the file system for writing",
    errno.EACCES: "check the owner and the mode of the file and of its directory",
    errno.EPERM: "check the owner and the mode; an immutable file is shown by lsattr and changed "
    "by chattr -i",
    errno.EIO: "check the disk and its cable: the log of the kernel says more (dmesg)",
    errno.EISDIR: "a directory has the name of the file: move it away",
    errno.EEXIST: "a file has the name of a directory: move it away",
    errno.ENOTDIR: "a file has the name of a directory: move it away",
    errno.ELOOP: "the symbolic links lead in a circle: remove one of them",
    errno.ENAMETOOLONG: "use a shorter path",
    errno.ESTALE: "the server of the network file system lost the directory: mount it again",
    errno.ENOTCONN: "the file system's own process has ended: mount it again",
    errno.EHOSTDOWN: "the server of the file system does not answer: check the network",
    errno.ETIMEDOUT: "the server of the file system does not answer: check the network",
    errno.EFBIG: "the file system, or ulimit -f, does not allow files of that size",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "the machine has too many open files: end some programs",
    errno.ENOLCK: "use another file system: this one has no locks",
    errno.ENODEV: "the disk was removed: connect and mount it again",
    errno.ENXIO: "the disk was removed: connect and mount it again",
}
"""What to try after an error of the system, by its number."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something cannot be used, for the end of a message, and a hint."""

    reason: str
    hint: str
    is_full: bool = False


def hint_of(error: OSError) -> str:
    """Return what to try after *error*; "" where nothing is known."""
    return HINTS.get(error.errno or 0, "")


def problem_of_file(path: str | os.PathLike[str]) -> Problem | None:
    """Return why the existing file *path* cannot be written; None when nothing is found.

    The file is not opened: closing it again would end the locks that this process holds on it.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as exc:
        return Problem(reason_of(exc), hint_of(exc))
    if stat.S_ISDIR(found.st_mode):
        return Problem("it is a directory", "move it away")
    if not stat.S_ISREG(found.st_mode):
        return Problem("it is not a regular file", "move it away")
    if os.access(path, os.W_OK):
        return None
    return _refusal(path, found)


def problem_of_directory(path: str | os.PathLike[str]) -> Problem | None:
    """Return why no file can be made in the directory *path*; None when one can.

    A file without a name is written there to find that out.
    """
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode) and not os.access(path, os.W_OK | os.X_OK):
            return _refusal(path, found)
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(bytes(PROBE_BYTES))
            probe.flush()
    except OSError as exc:
        if exc.errno == errno.ENOENT and os.path.isdir(path):  # as in /proc
            return Problem(
                f"no file can be made in {printable(path)}",
                "use another directory; what this one is on says "
                f"findmnt -T {shlex.quote(printable(path))}",
            )
        reason = "the disk is full" if exc.errno == errno.ENOSPC else reason_of(exc)
        is_full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = (
            f"create it: mkdir -p {shlex.quote(printable(path))}"
            if exc.errno == errno.ENOENT
            else hint_of(exc)
        )
        return Problem(f"{printable(path)}: {reason}", hint, is_full)
    return None


def has_locks(directory: str | os.PathLike[str]) -> bool:
    """Return whether the file system of *directory* has the locks that SQLite needs.

    It has where no file can be made to try it.
    """
    try:
        with tempfile.TemporaryFile(dir=directory) as probe:
            fcntl.lockf(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        return exc.errno not in _NO_LOCKS
    return True


def _refusal(path: str | os.PathLike[str], found: os.stat_result) -> Problem:
    """Return why this user may not write *path*."""
    name = printable(path)
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return Problem(f"the file system of {name} is mounted read-only", "remount it for writing")
    mode = stat.S_IMODE(found.st_mode)
    is_own = found.st_uid == os.geteuid()
    if _has_override() or (is_own and mode & stat.S_IWUSR):
        return Problem(
            f"{name} is immutable, or the system protects it",
            f"look with lsattr -d {name}; chattr -i makes it writable again",
        )
    owner = _user_name(found.st_uid)
    return Problem(
        f"{name} belongs to {owner} and has the mode {mode:04o}",
        f"run it as {owner}" if not is_own else f"chmod u+w {name}",
    )


def _has_override() -> bool:
    """Return whether this process may write whatever the mode of a file says, as root mostly."""
    try:
        # Read as bytes: a codec would have to be loaded, which fails where nothing can be opened.
        with open("/proc/self/status", "rb") as status:
            fields = dict(line.split(b":", 1) for line in status if b":" in line)
        return bool(int(fields[b"CapEff"], 16) & _CAP_DAC_OVERRIDE)
    except (OSError, KeyError, ValueError):  # a system without capabilities
        return os.geteuid() == 0


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"
