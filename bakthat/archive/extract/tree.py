"""Create the members of an archive below one directory, and never outside of it.

Every component of a path is opened relative to its parent and without following links, so no
member can lead out, whatever names and links the archive holds and in whatever order.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bakthat.archive.extract.file_system import FileSystem
from bakthat.archive.extract.links import as_member, entry_as_member, read_data
from bakthat.archive.extract.metadata import DEFAULT_ACL, DirectoryState, MetadataWriter
from bakthat.archive.extract.staging import folds_names, names_in, open_private
from bakthat.archive.report import ArchiveReport, FileNames
from bakthat.archive.tar.member import Member, MemberType
from bakthat.errors import CorruptArchiveError, DestinationError, UnsafeMemberError
from bakthat.system import linux
from bakthat.system.files import NOT_SUPPORTED, write_all
from bakthat.system.text import quoted, reason_of

if TYPE_CHECKING:
    from types import TracebackType


_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_PRIVATE = 0o700
_NO_LINK = NOT_SUPPORTED | {errno.EMLINK, errno.EXDEV}
"""The errors of a file system without hard links, or of one where a file has all it may have."""
_OPEN_LEVELS = 64
"""Directories of the current path that stay open; those above are opened again on the way back."""

MAX_PATHS = 1_000_000
"""The most paths in one :class:`PathSet`; each takes some 100 bytes of memory."""

MemberPath = list[bytes]
"""The components of the path of a member."""
_CAN_MAKE_NODES = {os.mkfifo, os.mknod} <= os.supports_dir_fd
"""Whether the system has mkfifoat and mknodat."""


class NameCollisionError(DestinationError):
    """The file system does not keep two members apart."""


class PathSet:
    """A set of paths in bounded memory: a small archive may name gigabytes of them.

    Raises CorruptArchiveError for more than :data:`MAX_PATHS`.
    """

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def add(self, path: MemberPath) -> None:
        """Remember *path*."""
        if len(self._digests) >= MAX_PATHS:
            raise CorruptArchiveError(
                f"the archive has more than {MAX_PATHS} implied directories or skipped members",
                hint="inspect the archive with tar tzf",
            )
        self._digests.add(_digest(path))

    def discard(self, path: MemberPath) -> None:
        """Forget *path*, if it is remembered."""
        self._digests.discard(_digest(path))

    def __contains__(self, path: MemberPath) -> bool:
        return _digest(path) in self._digests


def _digest(path: MemberPath) -> bytes:
    return hashlib.blake2b(b"/".join(path), digest_size=16).digest()


def split_name(name: bytes, member: bytes) -> MemberPath:
    """Return the components of *name*, a path of the member called *member*.

    Raises UnsafeMemberError for an absolute path and for one with "..".
    """
    path = [part for part in name.split(b"/") if part not in (b"", b".")]
    if name.startswith(b"/") or b".." in path:
        what = "has an absolute path" if name.startswith(b"/") else 'has ".." in its path'
        if name != member:
            what = f"links to {quoted(name)}, which {what}"
        raise UnsafeMemberError(
            f"the member {quoted(member)} {what}",
            hint="bakthat stores no such names; inspect the archive with tar tzf",
        )
    return path


@dataclass(slots=True)
class _Level:
    """One directory of the current path."""

    name: bytes
    fd: int | None
    """None while the directory is not kept open."""
    finish: Member | DirectoryState | None
    """The metadata that the directory gets when it is left."""
    owner: tuple[int, int] | None = None
    """The user and group id of the directory and of new entries in it; None if unknown."""
    identity: tuple[int, int] | None = None
    """The device and the inode of a directory that is not kept open."""


class StagedTree:
    """A tree under construction below the open private directory *root*, not closed here.

    Used in a ``with``; after a block without an exception, every directory has its metadata. An
    OSError of the file system is not translated.
    """

    def __init__(self, root: int, report: ArchiveReport, file_system: FileSystem) -> None:
        self.implied_directories = PathSet()
        """Paths of directories that were needed but are not members."""
        self._report = report
        self._keeps_modes = file_system.modes
        self._metadata = MetadataWriter(report, file_system)
        # This user just made the root. Entries below it get the same owner: no directory in
        # between is setgid, and the file system assigns no other owner.
        status = os.fstat(root)
        self._owner = (status.st_uid, status.st_gid)
        self._levels = [_Level(b"", root, None, self._owner)]
        self._head = b""
        """The path of the current directory as the last member spelled it; empty when unknown."""
        self._head_path: MemberPath = []
        self.skipped = PathSet()
        """Paths of members that were left out."""
        self._copies = 0
        self._first_copy = ""
        self._latest_copies: dict[bytes, MemberPath] = {}
        """The copies of files that cannot have more links, by the digest of the first path."""
        self._folds = folds_names(root)
        self._add = {
            MemberType.DIRECTORY: self._add_directory,
            MemberType.HARDLINK: self._add_hardlink,
            MemberType.SYMLINK: self._add_symlink,
            MemberType.FIFO: self._add_special,
            MemberType.CHARDEV: self._add_special,
            MemberType.BLOCKDEV: self._add_special,
        }

    def __enter__(self) -> StagedTree:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            while kind is None and len(self._levels) > 1:
                self._leave()
            if kind is None and self._copies:
                others = f", and {self._copies - 1} more" if self._copies > 1 else ""
                self._report.warn(f"{self._first_copy}{others}")
        finally:
            for level in self._levels[1:]:
                if level.fd is not None:
                    os.close(level.fd)
            del self._levels[1:]

    def add(self, member: Member, content: Iterable[tuple[int, memoryview]]) -> None:
        """Create *member*; *content* is what TarReader.read_content yields for it.

        Raises UnsafeMemberError, CorruptArchiveError, DestinationError, OSError, and whatever
        *content* raises.
        """
        name = member.name.rstrip(b"/")
        head, _, leaf = name.rpartition(b"/")
        if head and head == self._head and leaf != b"." and leaf != b"..":
            # The usual case: the same directory as that of the previous member.
            path = [*self._head_path, leaf]
            parent = _fd(self._levels[-1])
        else:
            path = split_name(member.name, member.name)
            if not path:
                if member.type is not MemberType.DIRECTORY:
                    raise CorruptArchiveError(f"the member {quoted(member.name)} has no name")
                return
            parent = self._enter(path[:-1])
            self._head, self._head_path = head, path[:-1]
        if member.type is MemberType.FILE:
            self._add_file(parent, path, member, content)
        else:
            self._add[member.type](parent, path, member)
        if member.type is MemberType.DIRECTORY:
            self._head, self._head_path = name, path

    def _add_file(
        self,
        parent: int,
        path: MemberPath,
        member: Member,
        content: Iterable[tuple[int, memoryview]],
    ) -> None:
        try:
            fd = os.open(path[-1], _NEW_FILE, 0o600, dir_fd=parent)
        except FileExistsError:
            self._remove_earlier(parent, path)
            fd = os.open(path[-1], _NEW_FILE, 0o600, dir_fd=parent)
        try:
            try:
                if member.sparse is None:
                    for _, piece in content:
                        write_all(fd, piece)
                else:
                    for offset, piece in content:
                        os.lseek(fd, offset, os.SEEK_SET)
                        write_all(fd, piece)
                    os.ftruncate(fd, member.size)
                self._metadata.apply(fd, member, owner=self._levels[-1].owner)
            finally:
                os.close(fd)
        except OSError:
            _unlink_if_exists(parent, path)
            raise
        self._report.files += 1

    def _add_directory(self, parent: int, path: MemberPath, member: Member) -> None:
        existing = False
        try:
            os.mkdir(path[-1], _PRIVATE, dir_fd=parent)
        except FileExistsError:
            self._check_spelling(parent, path)
            existing = stat.S_ISDIR(_lstat(path[-1], parent).st_mode)
            if not existing:
                self._remove_earlier(parent, path)
                os.mkdir(path[-1], _PRIVATE, dir_fd=parent)
        self._descend(path[-1], parent, existing=existing).finish = member
        self.implied_directories.discard(path)
        self._report.directories += 1

    def _add_hardlink(self, parent: int, path: MemberPath, member: Member) -> None:
        first = target = split_name(member.linkname, member.name)
        if self._latest_copies:
            target = self._latest_copies.get(_digest(first), first)
        name, wanted = quoted(member.name), quoted(member.linkname)
        if not target or target == path:
            raise CorruptArchiveError(f"the hard link {name} is to no other member, {wanted}")
        missing = CorruptArchiveError(
            f"the hard link {name} needs {wanted}, which the archive does not hold before it"
        )
        source = self._enter(target[:-1], missing=missing)
        with contextlib.ExitStack() as opened:
            if target[:-1] != path[:-1]:
                source = os.dup(source)
                opened.callback(os.close, source)
                parent = self._enter(path[:-1])
            self._remove_earlier(parent, path)
            try:
                found = _lstat(target[-1], source)
            except FileNotFoundError:
                if target not in self.skipped:
                    raise missing from None
                self._leave_out(path, member, f"{wanted}, which it links to, was left out")
                return
            if stat.S_ISDIR(found.st_mode):
                raise CorruptArchiveError(f"the hard link {name} is to the directory {wanted}")
            try:
                os.link(
                    target[-1],
                    path[-1],
                    src_dir_fd=source,
                    dst_dir_fd=parent,
                    follow_symlinks=False,
                )
            except OSError as exc:
                if exc.errno not in _NO_LINK:
                    raise
                self._copy(source, target, parent, path, member)
                if not self._copies:
                    why = reason_of(exc)
                    self._first_copy = f"{name} is a copy of {wanted}, not a hard link: {why}"
                self._copies += 1
                if exc.errno == errno.EMLINK:
                    self._latest_copies[_digest(first)] = path
                return
        self._report.files += 1

    def _copy(
        self, source: int, target: MemberPath, parent: int, path: MemberPath, link: Member
    ) -> None:
        """Copy the entry *target* of the directory *source* to *path*, the place of *link*."""
        found = _lstat(target[-1], source)
        if not stat.S_ISREG(found.st_mode):
            is_link = stat.S_ISLNK(found.st_mode)
            linkname = os.readlink(target[-1], dir_fd=source) if is_link else b""
            member = entry_as_member(link.name, found, linkname)
            self._add[member.type](parent, path, member)
            return
        fd = _open_to_read(target[-1], source, found)
        try:
            member = as_member(link.name, fd)
            member.mode = stat.S_IMODE(found.st_mode)
            self._add_file(parent, path, member, read_data(fd))
        finally:
            os.close(fd)
            if not found.st_mode & stat.S_IRUSR:
                os.chmod(target[-1], stat.S_IMODE(found.st_mode), dir_fd=source)

    def _add_symlink(self, parent: int, path: MemberPath, member: Member) -> None:
        try:
            os.symlink(member.linkname, path[-1], dir_fd=parent)
        except FileExistsError:
            self._remove_earlier(parent, path)
            os.symlink(member.linkname, path[-1], dir_fd=parent)
        self._metadata.apply_to_entry(parent, path[-1], member, link=True)
        self._report.files += 1

    def _add_special(self, parent: int, path: MemberPath, member: Member) -> None:
        kind = stat.S_IFCHR if member.type is MemberType.CHARDEV else stat.S_IFBLK
        self._remove_earlier(parent, path)
        if not _CAN_MAKE_NODES:
            self._leave_out(path, member, "this system cannot make it in an open directory")
            return
        try:
            if member.type is MemberType.FIFO:
                os.mkfifo(path[-1], 0o600, dir_fd=parent)
            else:
                device = os.makedev(member.major, member.minor)
                os.mknod(path[-1], 0o600 | kind, device, dir_fd=parent)
        except (PermissionError, OverflowError) as exc:
            self._leave_out(path, member, reason_of(exc))
            return
        except OSError:
            _unlink_if_exists(parent, path)  # exFAT by FUSE fails, and makes a plain file
            raise
        self._metadata.apply_to_entry(parent, path[-1], member, link=False)
        self._report.files += 1

    def leave_out(self, member: Member, reason: str) -> None:
        """Report that *member* is left out because of *reason*, after :meth:`add` has failed."""
        self._head = b""  # the current directory may be another one now
        self._leave_out(split_name(member.name, member.name), member, reason)

    def _leave_out(self, path: MemberPath, member: Member, reason: str) -> None:
        self.skipped.add(path)
        self._report.warn(f"left out the {member.type.value} {quoted(member.name)}: {reason}")
        FileNames(self._report).say("left out", member.name, reason)

    def _remove_earlier(self, parent: int, path: MemberPath) -> None:
        """Remove the entry that an earlier member made at *path*, since the later member wins."""
        try:
            found = _lstat(path[-1], parent)
        except FileNotFoundError:
            return
        self._check_spelling(parent, path)
        self._latest_copies.clear()  # it may be one of them
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(path[-1], dir_fd=parent)
            return
        try:
            os.rmdir(path[-1], dir_fd=parent)
        except OSError as exc:
            if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise CorruptArchiveError(
                f"the archive holds {quoted(b'/'.join(path))} as a directory with content and "
                "again as something else"
            ) from exc

    def _check_spelling(self, parent: int, path: MemberPath) -> None:
        """Raise NameCollisionError if *path* exists only in another spelling, as another member."""
        if self._folds and os.fsdecode(path[-1]) not in names_in(parent):
            raise NameCollisionError(
                f"{quoted(b'/'.join(path))} and another member differ only in case or Unicode "
                "form, which this file system does not keep apart",
                hint="restore to a directory on another file system; --keep-going "
                "(keep_going=True in Python) leaves one of them out",
            )

    def _enter(self, path: MemberPath, *, missing: CorruptArchiveError | None = None) -> int:
        """Make the directory at *path* the current one, and return it open.

        Missing directories are created, unless *missing* is given: then it is raised. The
        directories that are left get their metadata.
        """
        levels = self._levels
        depth = len(levels) - 1
        if depth == len(path) and (depth == 0 or levels[-1].name == path[-1]):
            same = all(level.name == part for level, part in zip(levels[1:], path, strict=True))
            if same:
                return _fd(levels[-1])
        common = 0
        while common < min(len(path), depth) and levels[common + 1].name == path[common]:
            common += 1
        while len(levels) - 1 > common:
            self._leave()
        for index in range(common, len(path)):
            self._descend_into(path[: index + 1], missing)
        return _fd(levels[-1])

    def _descend_into(self, path: MemberPath, missing: CorruptArchiveError | None) -> None:
        """Make the directory at *path* the current one; create it, implied, where it is missing."""
        parent = _fd(self._levels[-1])
        try:
            found = _lstat(path[-1], parent)
        except FileNotFoundError:
            if missing is not None:
                raise missing from None
            # With the default mode, like mkdir -p: no member records another.
            os.mkdir(path[-1], dir_fd=parent)
            self.implied_directories.add(path)
            self._descend(path[-1], parent, existing=False)
            return
        self._check_spelling(parent, path)
        if stat.S_ISLNK(found.st_mode):
            raise UnsafeMemberError(
                f"the archive goes through its own symbolic link {quoted(b'/'.join(path))}",
                hint="bakthat stores no such members; inspect the archive with tar tzf",
            )
        if not stat.S_ISDIR(found.st_mode):
            raise CorruptArchiveError(
                f"the archive holds {quoted(b'/'.join(path))} both as a file and as a directory"
            )
        self._descend(path[-1], parent, existing=True)

    def _descend(self, name: bytes, parent: int, *, existing: bool) -> _Level:
        """Open the directory *name* of *parent*, and make it the current one.

        The metadata of an *existing* directory is saved here and restored by `_leave`.
        """
        fd, before = open_private(name, parent)
        level = _Level(name, fd, None, None if existing else self._owner)
        self._levels.append(level)
        if existing:
            level.finish = state = DirectoryState.of(fd, before)
            # New entries must not inherit the group or ACL of a finished directory.
            if self._keeps_modes:
                os.fchmod(fd, _PRIVATE)
            if DEFAULT_ACL in state.xattrs:
                linux.removexattr(fd, DEFAULT_ACL)
        if len(self._levels) > _OPEN_LEVELS + 1:
            distant = self._levels[-_OPEN_LEVELS - 1]
            found = os.fstat(_fd(distant))
            distant.identity = found.st_dev, found.st_ino
            os.close(_fd(distant))
            distant.fd = None
        return level

    def _leave(self) -> None:
        """Finish the current directory and go back to its parent."""
        level, parent = self._levels[-1], self._levels[-2]
        fd = _fd(level)
        if parent.fd is None:
            parent.fd = os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
            found = os.fstat(parent.fd)
            if (found.st_dev, found.st_ino) != parent.identity:
                # Others can do this only where the file system keeps no modes.
                raise DestinationError(
                    f"another program moved the directory {quoted(level.name)} while it was made",
                    hint="restore to a directory that only you can write to",
                )
        if isinstance(level.finish, Member):
            self._metadata.apply(fd, level.finish, owner=level.owner)
        elif level.finish is not None:
            path = b"/".join(one.name for one in self._levels[1:])
            level.finish.apply(
                fd, lambda what, exc: self._metadata.warn(path, what, exc), exactly=True
            )
        self._levels.pop()
        os.close(fd)


def _fd(level: _Level) -> int:
    assert level.fd is not None  # the current directory and the root are always open
    return level.fd


def _unlink_if_exists(parent: int, path: MemberPath) -> None:
    """Remove what a failed operation has left at *path*."""
    with contextlib.suppress(OSError):
        os.unlink(path[-1], dir_fd=parent)


def _open_to_read(name: bytes, parent: int, found: os.stat_result) -> int:
    """Open the file *name*, with the status *found*, of a directory that only this user changes.

    It gets a mode that its owner can read, where it lacks one.
    """
    if not found.st_mode & stat.S_IRUSR:
        os.chmod(name, 0o600, dir_fd=parent)
    return os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=parent)


def _lstat(name: bytes, parent: int) -> os.stat_result:
    return os.stat(name, dir_fd=parent, follow_symlinks=False)
