"""Hard links: those whose content comes later, and copies of files that cannot be linked."""

from __future__ import annotations

import errno
import os
import stat
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from bakthat.archive.tar.member import Member, MemberType
from bakthat.errors import BakthatError, CorruptArchiveError, NoMatchError
from bakthat.system import linux
from bakthat.system.text import quoted

MAX_DEFERRED = 100_000
"""The most links that wait for a second reading; each takes some 500 bytes of memory."""

_READ_BYTES = 1024 * 1024
_Path = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Deferred:
    member: Member
    position: int
    """Grows from member to member of the archive."""
    target: _Path


class DeferredLinks:
    """The hard links to restore whose content was not restored under its first name.

    That name was not selected, or the file system cannot hold it. The content comes from a second
    reading of the archive, so that nothing must be kept in case that a link needs it.
    """

    def __init__(self) -> None:
        self.count = 0
        self._links: dict[_Path, _Deferred] = {}

    def __contains__(self, path: list[bytes]) -> bool:
        return tuple(path) in self._links

    def add(self, path: list[bytes], position: int, member: Member, target: list[bytes]) -> None:
        """Remember the hard link *member* at *path*; *position* grows from member to member.

        Raises NoMatchError when there are too many.
        """
        if len(self._links) >= MAX_DEFERRED:
            raise NoMatchError(
                f"more than {MAX_DEFERRED} chosen hard links are to files that were not chosen, "
                f"such as {quoted(member.name)} to {quoted(member.linkname)}",
                hint="choose the files too: name them with --only",
            )
        of_target = self._links.get(tuple(target))
        first = of_target.target if of_target else tuple(target)
        self._links[tuple(path)] = _Deferred(member, position, first)
        self.count = len(self._links)

    def discard(self, path: list[bytes]) -> None:
        """Forget the link at *path*: a later member took its place."""
        self._links.pop(tuple(path), None)
        self.count = len(self._links)

    def by_target(self) -> DeferredContent:
        """Return the links in the order in which a second reading meets their content."""
        return DeferredContent(list(self._links.values()))


class DeferredContent:
    """What a second reading looks for."""

    def __init__(self, links: list[_Deferred]) -> None:
        self._by_target: dict[_Path, list[_Deferred]] = defaultdict(list)
        for link in links:
            self._by_target[link.target].append(link)
        self.targets = [b"/".join(target) for target in self._by_target]
        """The paths of the members that hold the content."""
        self._unmet: dict[_Path, BakthatError] = {
            target: CorruptArchiveError(
                f"the hard link {quoted(waiting[0].member.name)} needs "
                f"{quoted(b'/'.join(target))}, which the archive does not hold before it"
            )
            for target, waiting in self._by_target.items()
        }

    def links_to(self, path: list[bytes], position: int, member: Member) -> list[Member]:
        """Return the links whose content *member* holds.

        *position* grows from member to member, as that of :meth:`DeferredLinks.add`.
        A later member of the same path may hold newer content for them, or none.
        """
        target = tuple(path)
        found = [link for link in self._by_target.get(target, ()) if link.position > position]
        if not found:
            return []
        name, wanted = quoted(found[0].member.name), quoted(member.name)
        if member.type is MemberType.DIRECTORY:
            self._unmet[target] = CorruptArchiveError(
                f"the hard link {name} is to the directory {wanted}"
            )
            return []
        if member.type is MemberType.HARDLINK:
            self._unmet[target] = NoMatchError(
                f"{name} is another name of {wanted}, which is another name of "
                f"{quoted(member.linkname)}",
                hint="choose all of them",
            )
            return []
        self._unmet.pop(target, None)
        return [link.member for link in found]

    def check(self) -> None:
        """Raise CorruptArchiveError or NoMatchError unless the content of every link was met."""
        for error in self._unmet.values():
            raise error


def as_member(name: bytes, fd: int) -> Member:
    """Return the member *name* with the metadata of the open file *fd*. Raises OSError."""
    found = os.fstat(fd)
    attributes = {}
    try:
        attributes = {os.fsencode(key): linux.getxattr(fd, key) for key in linux.listxattr(fd)}
    except OSError as exc:
        if exc.errno != errno.ENOTSUP:
            raise
    member = entry_as_member(name, found, b"")
    member.size, member.xattrs = found.st_size, attributes
    member.sparse = array("q", [0, found.st_size])  # so that the holes stay holes
    return member


def entry_as_member(name: bytes, found: os.stat_result, linkname: bytes) -> Member:
    """Return the member *name* with the status *found*; *linkname* is a symbolic link's."""
    kinds = {
        stat.S_IFREG: MemberType.FILE,
        stat.S_IFLNK: MemberType.SYMLINK,
        stat.S_IFIFO: MemberType.FIFO,
        stat.S_IFCHR: MemberType.CHARDEV,
        stat.S_IFBLK: MemberType.BLOCKDEV,
    }
    return Member(
        name,
        kinds[stat.S_IFMT(found.st_mode)],
        stat.S_IMODE(found.st_mode),
        found.st_uid,
        found.st_gid,
        b"",
        b"",
        size=0,
        mtime_ns=found.st_mtime_ns,
        linkname=linkname,
        major=os.major(found.st_rdev),
        minor=os.minor(found.st_rdev),
    )


def read_data(fd: int) -> Iterator[tuple[int, memoryview]]:
    """Yield the offset and the bytes of each piece of the open file *fd*, without its holes.

    A piece is valid until the next one is read. Raises OSError.
    """
    buffer = memoryview(bytearray(_READ_BYTES))
    end = os.fstat(fd).st_size
    offset = 0
    while offset < end:
        try:
            offset = os.lseek(fd, offset, os.SEEK_DATA)
            hole = os.lseek(fd, offset, os.SEEK_HOLE)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # only a hole is left
                return
            hole = end  # the file system does not know its holes
        while offset < hole:
            count = linux.read_at(fd, buffer[: hole - offset], offset)
            if not count:
                return
            yield offset, buffer[:count]
            offset += count
