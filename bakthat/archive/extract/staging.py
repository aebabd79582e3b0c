"""The hidden directory inside the destination, into which everything is unpacked first."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import stat
import unicodedata
from collections.abc import Callable
from pathlib import Path

from bakthat.archive.extract.file_system import REFUSED, FileSystem
from bakthat.archive.extract.metadata import DEFAULT_ACL
from bakthat.archive.report import ArchiveReport
from bakthat.errors import DestinationError
from bakthat.system import linux
from bakthat.system.signals import held_back
from bakthat.system.text import quoted, reason_of

STAGING_PREFIX = ".bakthat-restore-"

logger = logging.getLogger("bakthat.archive")

_SPARE_DESCRIPTORS = 3
"""What the removal of the staging directory opens at once, at most."""
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class Staging:
    """A private directory inside *destination*, which is created too where it is missing.

    ``tree`` receives the new files, ``replaced`` the files they replace. Used in a ``with``: at
    its end the directory is removed with all that is left in it. After an exception, so is the
    destination if this class created it. Raises DestinationError.
    """

    def __init__(self, destination: Path) -> None:
        self.destination = destination
        self._made: list[Path] = []
        self._name = STAGING_PREFIX + secrets.token_hex(8)
        self._fds: list[int] = []
        self._spare: list[int] = []
        """Descriptors that are closed before the removal, which needs as many."""
        self._before: os.stat_result | None = None
        self._kept = ""
        self.published = False
        """Whether all files were moved into place; then an exception leaves the destination."""

    def __enter__(self) -> Staging:
        try:
            self._make_destination()
            self.destination_fd = self._track(
                os.open(self.destination, os.O_RDONLY | os.O_DIRECTORY)
            )
            self._before = os.fstat(self.destination_fd)
            for _ in range(_SPARE_DESCRIPTORS):
                self._spare.append(os.dup(self.destination_fd))
            os.mkdir(self._name, 0o700, dir_fd=self.destination_fd)
            self._fd = self._track(open_private(self._name, self.destination_fd)[0])
            self._make_private()
            self.tree_fd = self._track(self._make("tree"))
            self.replaced_fd = self._track(self._make("replaced"))
            self.file_system = FileSystem.of(self._fd)
        except OSError as exc:
            self._remove(failed=True)
            raise DestinationError(
                f"cannot restore into {quoted(os.fsencode(self.destination))}: {reason_of(exc)}",
                hint="raise the limit of open files (ulimit -n)"
                if exc.errno == errno.EMFILE
                else "name a directory that can be written to",
            ) from exc
        except BaseException:
            self._remove(failed=True)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._remove(failed=kind is not None and not self.published)

    def warn_of_losses(self, report: ArchiveReport) -> None:
        """Warn once in *report* of what the file system of the destination does not keep."""
        lacking = self.file_system.lacking()
        if not lacking:
            return
        text = (
            f"the file system of {quoted(os.fsencode(self.destination))} does not keep {lacking}: "
            "restored files have what the mount gives them"
        )
        if os.fstat(self._fd).st_mode & 0o077:
            text += ", and other users may have access to them"
        report.warn(text)

    def keep(self, what: str) -> None:
        """Do not remove the directory at the end: it holds the only copy of *what*."""
        self._kept = what

    def remove_tree(self) -> None:
        """Remove the directory ``tree``. Raises OSError if it is not empty."""
        os.rmdir("tree", dir_fd=self._fd)

    def _make_destination(self) -> None:
        missing = []
        path = self.destination
        while not os.path.lexists(path):
            missing.append(path)
            path = path.parent
        for path in reversed(missing):
            os.mkdir(path)
            self._made.append(path)

    def _make_private(self) -> None:
        """Let the entries inherit neither a group nor an ACL from the destination.

        A file system without owners or modes may refuse; :class:`FileSystem` finds that out too.
        """
        changes: list[Callable[[], None]] = []
        found = os.fstat(self._fd)
        if found.st_gid != os.getegid():
            changes.append(lambda: os.fchown(self._fd, -1, os.getegid()))
        if stat.S_IMODE(found.st_mode) != 0o700:
            changes.append(lambda: os.fchmod(self._fd, 0o700))
        for change in changes:
            try:
                change()
            except OSError as exc:
                if exc.errno not in REFUSED:
                    raise
        with contextlib.suppress(OSError):
            linux.removexattr(self._fd, DEFAULT_ACL)

    def _make(self, name: str) -> int:
        os.mkdir(name, 0o700, dir_fd=self._fd)
        return open_private(name, self._fd)[0]

    def _track(self, fd: int) -> int:
        """Close *fd* with the directory; return it."""
        self._fds.append(fd)
        return fd

    def _remove(self, *, failed: bool) -> None:
        while self._spare:
            os.close(self._spare.pop())
        where = quoted(os.fsencode(self.destination / self._name))
        with held_back("removing the unpacked files", mend=f"remove {where} by hand"):
            if self._kept:
                logger.error("%s are in %s", self._kept, where)
                self._close()
            else:
                self._remove_all(failed=failed)

    def _remove_all(self, *, failed: bool) -> None:
        try:
            if len(self._fds) > 1:
                remove_content(self._fds[1])
            if self._fds:
                with contextlib.suppress(FileNotFoundError):
                    os.rmdir(self._name, dir_fd=self._fds[0])
            if failed and self._before is not None:
                times = (self._before.st_atime_ns, self._before.st_mtime_ns)
                with contextlib.suppress(PermissionError):  # not the owner
                    os.utime(self._fds[0], ns=times)
            if failed:
                for path in reversed(self._made):
                    os.rmdir(path)
        except OSError as exc:
            where = quoted(os.fsencode(self.destination / self._name))
            logger.warning("cannot remove %s, remove it by hand: %s", where, reason_of(exc))
        finally:
            self._close()

    def _close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())


def open_private(name: str | bytes, parent: int) -> tuple[int, os.stat_result]:
    """Open the directory *name* of *parent*, which only this user can change.

    It gets mode 0700 if it lacks a bit that its owner needs. Returns the descriptor, which the
    caller closes, and the status before. Raises OSError.
    """
    before = os.stat(name, dir_fd=parent, follow_symlinks=False)
    lacking = stat.S_ISDIR(before.st_mode) and before.st_mode & 0o700 != 0o700
    try:
        fd = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
    except PermissionError:
        if not lacking:
            raise
        # chmod follows links, but nobody else can replace the directory with one.
        os.chmod(name, 0o700, dir_fd=parent)
        return os.open(name, DIRECTORY_FLAGS, dir_fd=parent), before
    if lacking:
        try:
            os.fchmod(fd, 0o700)
        except OSError as exc:
            if exc.errno not in REFUSED:
                os.close(fd)
                raise
    return fd, before


def remove_content(root: int) -> None:
    """Remove all entries of the private directory *root*, however deep and whatever their modes.

    Every directory is first moved up to *root*, so that depth costs no descriptors. Raises
    OSError.
    """
    serial = 0
    while names := names_in(root):
        for name in names:
            if not is_directory(name, root):
                os.unlink(name, dir_fd=root)
                continue
            fd, _ = open_private(name, root)
            try:
                for inner in names_in(fd):
                    if not is_directory(inner, fd):
                        os.unlink(inner, dir_fd=fd)
                        continue
                    # Moving a directory changes its "..", so it must be writable.
                    os.close(open_private(inner, fd)[0])
                    serial += 1
                    try:
                        os.rename(inner, f"{name[:20]}~{serial}", src_dir_fd=fd, dst_dir_fd=root)
                    except OSError:  # the disk is full: even a new name takes space
                        _remove_in_place(inner, fd)
            finally:
                os.close(fd)
            os.rmdir(name, dir_fd=root)


def _remove_in_place(name: str, parent: int) -> None:
    """Remove the directory *name* of *parent* with its content; opens a descriptor a level."""
    fd, _ = open_private(name, parent)
    try:
        for inner in names_in(fd):
            if is_directory(inner, fd):
                _remove_in_place(inner, fd)
            else:
                os.unlink(inner, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)


def names_in(directory: int) -> list[str]:
    """Return the names of the entries that the open *directory* has now. Raises OSError.

    It opens a new descriptor, since on btrfs an old one does not list entries that were created
    after it was opened. Use this for every directory that stays open.
    """
    fd = os.open(".", DIRECTORY_FLAGS, dir_fd=directory)
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)


def folds_names(directory: int) -> bool:
    """Return whether *directory* may treat names as equal that differ in case or Unicode form.

    To find out, it creates a file there and removes it. Raises OSError.
    """
    probe = f"{STAGING_PREFIX}{secrets.token_hex(8)}-É"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        os.close(os.open(probe.encode(), flags, 0o600, dir_fd=directory))
    except OSError as exc:
        if exc.errno in (errno.EILSEQ, errno.EINVAL):
            return True  # the file system restricts names; assume that it folds them
        raise
    try:
        spellings = (probe.lower(), unicodedata.normalize("NFD", probe))
        return any(exists(spelling.encode(), directory) for spelling in spellings)
    finally:
        os.unlink(probe.encode(), dir_fd=directory)


def exists(name: str | bytes, parent: int) -> bool:
    """Return whether *parent* has an entry *name*; no link is followed. Raises OSError."""
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def is_directory(name: str | bytes, parent: int) -> bool:
    """Return whether the entry *name* of *parent* is a directory, not a link. Raises OSError."""
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
