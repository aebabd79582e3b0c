"""Give restored files their owner, mode, times and extended attributes.

A value that cannot be set causes a warning, never an error: the content matters more.
"""

from __future__ import annotations

import errno
import functools
import grp
import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from bakthat.archive.acl import binary_acl
from bakthat.archive.extract.file_system import FileSystem
from bakthat.archive.report import ArchiveReport
from bakthat.archive.tar.member import Member
from bakthat.system import linux
from bakthat.system.text import quoted, reason_of

DEFAULT_ACL = "system.posix_acl_default"

_SET_IDS = 0o6000
_CACHED_NAMES = 1024

Target = TypeVar("Target")


@dataclass(frozen=True, slots=True)
class DirectoryState:
    """The metadata of a directory, saved to be applied to it or to another one later."""

    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    xattrs: dict[str, bytes]

    @classmethod
    def of(cls, fd: int, before: os.stat_result | None = None) -> DirectoryState:
        """Return the state of the open directory *fd*; *before* replaces its current status."""
        st = before or os.fstat(fd)
        xattrs = {}
        if linux.HAS_XATTRS:
            try:
                xattrs = {name: linux.getxattr(fd, name) for name in linux.listxattr(fd)}
            except OSError:
                # The file system has no attributes.
                xattrs = {}
        mode = st.st_mode & 0o7777
        return cls(mode, st.st_uid, st.st_gid, st.st_atime_ns, st.st_mtime_ns, xattrs)

    def apply(self, fd: int, warn: Callable[[str, OSError], None], *, exactly: bool) -> None:
        """Apply this state to the open directory *fd*; *exactly* removes other attributes too.

        *warn* is called with the name of each value that could not be set, and the error.
        """
        now = DirectoryState.of(fd)
        if (now.uid, now.gid) != (self.uid, self.gid):
            _attempt(warn, "owner", os.fchown, fd, self.uid, self.gid)
        for name, value in self.xattrs.items():
            if now.xattrs.get(name) != value:
                _attempt(warn, f"attribute {name}", linux.setxattr, fd, name, value)
        if exactly:
            for name in now.xattrs.keys() - self.xattrs.keys():
                _attempt(warn, f"attribute {name}", linux.removexattr, fd, name)
        # Set the mode after the ACL: the group bits are the ACL's mask. A file system without modes
        # may refuse to set even the mode that it shows.
        if os.fstat(fd).st_mode & 0o7777 != self.mode:
            _attempt(warn, "mode", os.fchmod, fd, self.mode)
        _attempt(warn, "time", _set_times, fd, self.atime_ns, self.mtime_ns)


class MetadataWriter:
    """Apply the metadata of members; *report* collects what could not be applied.

    What *file_system* does not keep at all is left out without a word: the caller warns once.
    As root, the owner is the user of the recorded name, or of the recorded number if this machine
    has no such name, as in GNU tar. Any other user owns the files that they restore.
    """

    def __init__(self, report: ArchiveReport, file_system: FileSystem) -> None:
        self._report = report
        self._keeps_modes = file_system.modes
        self._keeps_owners = file_system.owners
        self._keeps_times = file_system.times
        self._earliest_ns, self._latest_ns = file_system.earliest_ns, file_system.latest_ns
        self._without_attributes = False
        self._uid, self._gid = os.geteuid(), os.getegid()
        self._user = functools.lru_cache(_CACHED_NAMES)(_find_user)
        self._group = functools.lru_cache(_CACHED_NAMES)(_find_group)
        self._ids = functools.lru_cache(_CACHED_NAMES)(self._find_ids)

    def apply(self, fd: int, member: Member, *, owner: tuple[int, int] | None = None) -> None:
        """Apply the metadata of *member* to the open file or directory *fd*.

        *owner* is its present user and group id, None if unknown.
        """
        owned = self._set_owner(member, owner, os.fchown, fd)
        if member.xattrs or member.acls:
            # The file must be writable, and the umask may have removed that bit. Set attributes
            # after the owner: chown removes security.capability.
            if self._keeps_modes:
                os.fchmod(fd, 0o600)
            self._set_xattrs(member, fd)
        if self._keeps_modes:
            try:
                os.fchmod(fd, self._mode(member, owned))
            except OSError as exc:
                self.warn(member.name, "mode", exc)
        if self._keeps_times:
            try:
                os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
            except (OSError, OverflowError) as exc:
                self.warn(member.name, "time", exc)
            if not self._earliest_ns <= member.mtime_ns <= self._latest_ns:
                self._warn_of_time(member)

    def apply_to_entry(self, parent: int, name: bytes, member: Member, *, link: bool) -> None:
        """Apply the metadata of *member* to the entry *name* of the open directory *parent*.

        It is for entries that cannot be opened: FIFOs, devices, and, with *link*, symbolic links,
        which have no mode.
        """
        chown = functools.partial(os.chown, dir_fd=parent, follow_symlinks=False)
        owned = self._set_owner(member, None, chown, name)
        if member.xattrs or (member.acls and not link):
            # There is no setxattr relative to a directory.
            path = b"/proc/self/fd/%d/%s" % (parent, name)
            self._set_xattrs(member, path)
        try:
            if not link and self._keeps_modes:
                os.chmod(name, self._mode(member, owned), dir_fd=parent)
            if self._keeps_times:
                times = (member.mtime_ns, member.mtime_ns)
                os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
                if not self._earliest_ns <= member.mtime_ns <= self._latest_ns:
                    self._warn_of_time(member)
        except (OSError, OverflowError) as exc:
            self.warn(member.name, "mode or time", exc)

    def warn(self, name: bytes, what: str, error: OSError | OverflowError | ValueError) -> None:
        """Report that *what* of the file *name* could not be restored, and why."""
        why = reason_of(error)
        self._report.warn(f"cannot restore the {what} of {quoted(name)}: {why}")

    def _warn_of_time(self, member: Member) -> None:
        # The nearest time that there is was set, without an error.
        self.warn(member.name, "time", ValueError("the file system keeps no such time"))

    def _set_owner(
        self,
        member: Member,
        current: tuple[int, int] | None,
        chown: Callable[[Target, int, int], None],
        target: Target,
    ) -> bool:
        """Set the owner if permitted. Return whether it is the recorded one.

        *current* is the present uid and gid, None if unknown.
        """
        if not self._keeps_owners:
            return False
        uid, gid = self._ids(member.uid, member.gid, member.uname, member.gname)
        if self._uid != 0:
            return (uid, gid) == (self._uid, self._gid)
        if (uid, gid) == current:
            return True
        try:
            chown(target, uid, gid)
        except OSError as exc:
            self.warn(member.name, "owner", exc)
            return False
        return True

    def _find_ids(self, uid: int, gid: int, uname: bytes, gname: bytes) -> tuple[int, int]:
        named_user, named_group = self._user(uname), self._group(gname)
        return (
            uid if named_user is None else named_user,
            gid if named_group is None else named_group,
        )

    def _mode(self, member: Member, owned: bool) -> int:
        if owned or not member.mode & _SET_IDS:
            return member.mode
        # With another owner, setuid would grant that owner's rights.
        self._report.warn(
            f"left out setuid and setgid of {quoted(member.name)}: its owner was not restored"
        )
        return member.mode & ~_SET_IDS

    def _set_xattrs(self, member: Member, target: int | bytes) -> None:
        if not linux.HAS_XATTRS:
            self._report.warn(f"left out the extended attributes of {quoted(member.name)}")
            return
        xattrs = dict(member.xattrs)
        for kind, text in member.acls.items():
            # GNU tar stores an ACL both as text and as this attribute; the attribute is exact.
            name = b"system.posix_acl_" + kind
            if name not in xattrs and kind in (b"access", b"default"):
                try:
                    xattrs[name] = binary_acl(text, self._user, self._group)
                except ValueError as exc:
                    self.warn(member.name, "ACL", ValueError(f"invalid ACL: {exc}"))
        for name, value in xattrs.items():
            if self._without_attributes:
                return
            try:
                if isinstance(target, int):
                    linux.setxattr(target, name, value)
                else:
                    linux.setxattr(target, name, value, follow_symlinks=False)
            except OSError as exc:
                if exc.errno == errno.ENOTSUP and not _has_attributes(target):
                    self._without_attributes = True
                    self._report.warn(
                        "left out the extended attributes and ACLs, which this file system does "
                        f"not keep: those of {quoted(member.name)} and any that follow"
                    )
                    return
                self.warn(member.name, f"attribute {quoted(name)}", exc)


def _has_attributes(target: int | bytes) -> bool:
    """Return whether the file system of *target* has any extended attributes."""
    try:
        if isinstance(target, int):
            linux.listxattr(target)
        else:
            linux.listxattr(target, follow_symlinks=False)
    except OSError as exc:
        return exc.errno != errno.ENOTSUP
    return True


def _set_times(fd: int, atime_ns: int, mtime_ns: int) -> None:
    os.utime(fd, ns=(atime_ns, mtime_ns))


def _attempt(
    warn: Callable[[str, OSError], None], what: str, action: Callable[..., None], *arguments: object
) -> None:
    try:
        action(*arguments)
    except OSError as exc:
        warn(what, exc)


def _find_user(name: bytes) -> int | None:
    if not name:
        return None
    try:
        return pwd.getpwnam(os.fsdecode(name)).pw_uid
    except (KeyError, ValueError):  # ValueError: a NUL in it
        return None


def _find_group(name: bytes) -> int | None:
    if not name:
        return None
    try:
        return grp.getgrnam(os.fsdecode(name)).gr_gid
    except (KeyError, ValueError):  # ValueError: a NUL in it
        return None
