"""Restore an archive, or one plain file, into a directory: all of it or nothing.

Files are unpacked into a private directory inside the destination, on the same file system. They
are published, that is moved into place, only after the source was read to its end, and so every
checksum and every authentication was verified. After any error or interrupt the destination is as
it was.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bakthat.archive.extract.index_check import IndexCheck
from bakthat.archive.extract.links import DeferredContent, DeferredLinks
from bakthat.archive.extract.metadata import MetadataWriter
from bakthat.archive.extract.publish import publish
from bakthat.archive.extract.selection import Selection
from bakthat.archive.extract.staging import Staging
from bakthat.archive.extract.tree import NameCollisionError, PathSet, StagedTree, split_name
from bakthat.archive.report import ArchiveReport, FileNames
from bakthat.archive.tar.member import Member, MemberType, Owner
from bakthat.archive.tar.reader import TarReader
from bakthat.errors import DestinationError, NoMatchError, UnsafeMemberError
from bakthat.system.files import NOT_SUPPORTED, write_all
from bakthat.system.streams import ByteCounter, Source
from bakthat.system.text import from_native, quoted, reason_of

logger = logging.getLogger("bakthat.archive")


class Reading(NamedTuple):
    """An archive to read front to back, or a stream of some of its members."""

    source: Source
    check: IndexCheck | None = None
    """Compares the members with the index, where there is one."""
    before: int = 0
    """Bytes of the archives that come before this one, so that positions grow through all."""


Readings = Iterable[AbstractContextManager[Reading]]
"""Opens one archive after the other."""
ReadAgain = Callable[[Collection[bytes]], AbstractContextManager[Reading]]
"""Opens an archive again, or at least its members at the given paths; none stands for all."""
ReadAllAgain = Callable[[Collection[bytes]], Readings]
"""The same of several archives, of which each path has one."""

_READ_BYTES = 1024 * 1024
_SPECIAL = (MemberType.FIFO, MemberType.CHARDEV, MemberType.BLOCKDEV)
_CANNOT_HOLD = NOT_SUPPORTED | {
    errno.EEXIST,
    errno.EFBIG,
    errno.EILSEQ,
    errno.EMLINK,
    errno.ENAMETOOLONG,
    errno.ENODEV,
    errno.ENOENT,  # of a new file: a character that exFAT does not allow
    errno.ENXIO,
    errno.EOVERFLOW,
    errno.EXDEV,
}
"""The errors for one file that say nothing about the next one."""
_KEEP_GOING = (
    "--keep-going (keep_going=True in Python) leaves out what this file system cannot hold"
)


def extract(
    source: Source,
    destination: Path,
    *,
    report: ArchiveReport,
    check_comment: Callable[[bytes], None] | None = None,
    selection: Selection | None = None,
    keep_going: bool = False,
    read_again: ReadAgain | None = None,
    check: IndexCheck | None = None,
) -> list[Path]:
    """Restore the tar archive in *source* into the directory *destination*.

    *destination* is created, with its parents, where it is missing. Existing directories are merged
    with those of the archive; existing files and links are replaced. *report* takes the counts,
    and warnings about owners, modes, attributes and devices that could not be restored.
    *check_comment* is called with the comment of a global pax header, ``b""`` if there is none,
    and may raise. With *selection*, only the members that it includes are restored, and the
    directories that they need. With *keep_going*, members that the file system cannot hold are left
    out, each with a warning. *check* compares each member with the index. Returns the paths that
    are now at the top of *destination*, sorted.

    A hard link may be restored without its first name, which was not selected or cannot be held.
    Then *read_again* is called, and returns a context manager that opens the same archive again.
    Without it, such a link raises NoMatchError. So it is where a selection that no index
    resolved turns out to mean a path, after members were restored that are like it.

    *source* is read to its end and not closed. Raises CorruptArchiveError, UnsafeMemberError for
    a member that would leave *destination*, DestinationError, and whatever *source* raises; then
    nothing is left behind.
    """
    return extract_all(
        [nullcontext(Reading(source, check))],
        destination,
        report=report,
        check_comment=check_comment,
        selection=selection,
        keep_going=keep_going,
        read_again=None if read_again is None else lambda paths: [read_again(paths)],
    )


def extract_all(
    readings: Readings,
    destination: Path,
    *,
    report: ArchiveReport,
    check_comment: Callable[[bytes], None] | None = None,
    selection: Selection | None = None,
    keep_going: bool = False,
    read_again: ReadAllAgain | None = None,
) -> list[Path]:
    """Restore all *readings*, one after the other, into the directory *destination*.

    They make one tree, which is published after the last one. What a later one holds at the same
    path wins, and hard links may be to what an earlier one holds. The other arguments, and what is
    returned and raised, are those of :func:`extract`.
    """
    before = report.copy()
    while True:
        with Staging(destination) as staging:
            staging.warn_of_losses(report)
            unpacking = _Unpacking(
                staging, report, check_comment, selection, keep_going, read_again
            )
            implied_directories = unpacking.run(readings)
            if selection is None or selection.settle():
                return publish(staging, implied_directories, report)
        assert read_again is not None  # only what can be read again is selected from
        logger.info("Reading the backup again, without what is only like a chosen path")
        report.go_back_to(before)
        readings = read_again(())


class _Unpacking:
    """The creation of the tree in the staging directory."""

    def __init__(
        self,
        staging: Staging,
        report: ArchiveReport,
        check_comment: Callable[[bytes], None] | None,
        selection: Selection | None,
        keep_going: bool,
        read_again: ReadAllAgain | None,
    ) -> None:
        self._staging = staging
        self._report = report
        self._check_comment = check_comment
        self._selection = selection
        self._keep_going = keep_going
        self._read_again = read_again
        self._links = DeferredLinks()
        self._left_out = False
        self._current: Member | None = None
        self._reader: TarReader | None = None
        self._source: _WatchedSource | None = None
        self._names = FileNames(report)
        report.current = self._position

    def _position(self) -> tuple[str, int]:
        """Return the path of the current member, and the bytes of content that were written."""
        current, reader = self._current, self._reader
        written = self._report.bytes + (reader.content_bytes if reader is not None else 0)
        name = current.name.rstrip(b"/") if current is not None else b""
        return name.decode("utf-8", "surrogateescape"), written

    def run(self, readings: Readings) -> PathSet:
        """Create the tree; return the directories that are not members."""
        try:
            with StagedTree(self._staging.tree_fd, self._report, self._staging.file_system) as tree:
                for opened in readings:
                    with opened as reading:
                        self._add_members(tree, reading)
                if self._selection is not None:
                    self._selection.check()
                if self._links.count and self._read_again is not None:
                    deferred = self._links.by_target()
                    logger.info("Reading the backup again, for the content of hard links")
                    for opened in self._read_again(deferred.targets):
                        with opened as reading:
                            self._add_deferred(tree, deferred, reading)
                    deferred.check()
        except OSError as exc:
            if self._is_of_source(exc):
                raise
            raise self._cannot_write(exc) from exc
        if self._left_out and not (self._report.files or self._report.directories):
            raise DestinationError(
                f"{quoted(os.fsencode(self._staging.destination))} can hold nothing of what was "
                "to be restored",
                hint="restore to a directory on another file system",
            )
        return tree.implied_directories

    def _cannot_write(self, error: OSError) -> DestinationError:
        path, hint = self._staging.destination, ""
        if self._current is not None:
            path /= os.fsdecode(self._current.name)
            hint = _KEEP_GOING if _is_about_one_member(error, self._current) else ""
        return _cannot_write(path, error, hint)

    def _is_of_source(self, error: Exception) -> bool:
        return self._source is not None and error is self._source.failure

    def _add_members(self, tree: StagedTree, reading: Reading) -> None:
        self._source, check = _WatchedSource(reading.source), reading.check
        reader = self._reader = TarReader(self._source)
        are_named = self._names.are_wanted
        selection, links, hardlink = self._selection, self._links, MemberType.HARDLINK
        for number, member in enumerate(reader):
            if number == 0:
                self._check_identity(reader)  # before unpacking
            position = number if check is None else check.begin(member, reader.end)
            if selection is not None and not _is_selected(selection, member):
                continue
            if member.type is hardlink and self._is_deferred(
                tree, reading.before + position, member
            ):
                continue
            self._current = member
            content = reader.read_content(member)
            try:
                tree.add(member, content if check is None else check.content(content))
            except (OSError, NameCollisionError) as exc:
                self._leave_out_or_raise(tree, member, exc)
            if are_named:
                self._names.say_if_counted("unpacked", member.name)
            if links.count:
                links.discard(split_name(member.name, member.name))
        self._end_reading(reader, check)

    def _end_reading(self, reader: TarReader, check: IndexCheck | None) -> None:
        if check is not None:
            check.finish()
        self._check_identity(reader)
        self._reader = None
        self._report.bytes += reader.content_bytes

    def _check_identity(self, reader: TarReader) -> None:
        if self._check_comment is not None:
            self._check_comment(reader.comment)

    def _is_deferred(self, tree: StagedTree, position: int, link: Member) -> bool:
        """Defer *link*, and return True, if its content was skipped and can be read again."""
        target = split_name(link.linkname, link.name)
        if self._selection is None or self._selection.includes_target(b"/".join(target)):
            was_skipped = self._keep_going and target in tree.skipped
        else:
            was_skipped = True
        if not was_skipped and target not in self._links:
            return False
        if self._read_again is None:
            raise NoMatchError(
                f"{quoted(link.name)} is another name of {quoted(link.linkname)}, which was "
                "not chosen and holds the content",
                hint="choose both",
            )
        self._links.add(split_name(link.name, link.name), position, link, target)
        return True

    def _add_deferred(self, tree: StagedTree, deferred: DeferredContent, reading: Reading) -> None:
        """Create the deferred links, with the content in a second reading of an archive."""
        self._source, check = _WatchedSource(reading.source), reading.check
        reader = self._reader = TarReader(self._source)
        for number, member in enumerate(reader):
            position = number if check is None else check.begin(member, reader.end)
            path = split_name(member.name, member.name)
            links = deferred.links_to(path, reading.before + position, member)
            content = reader.read_content(member)
            if check is not None:
                content = check.content(content)
            before = reader.content_bytes
            first = None
            for link in links:
                if first is not None:
                    self._add(tree, replace(link, linkname=first.name), ())
                elif reader.content_bytes != before:
                    # No name can hold the content, of which a part was read.
                    self._leave_out(tree, link, "its content cannot be held")
                elif self._add(tree, replace(member, name=link.name), content):
                    first = link
        self._end_reading(reader, check)

    def _add(
        self,
        tree: StagedTree,
        member: Member,
        content: Iterable[tuple[int, memoryview]],
    ) -> bool:
        """Create *member*; return False if it was left out."""
        self._current = member
        try:
            tree.add(member, content)
        except (OSError, NameCollisionError) as exc:
            self._leave_out_or_raise(tree, member, exc)
            return False
        self._names.say_if_counted("unpacked", member.name)
        return True

    def _leave_out_or_raise(
        self, tree: StagedTree, member: Member, error: OSError | NameCollisionError
    ) -> None:
        is_about_it = not self._is_of_source(error) and _is_about_one_member(error, member)
        if not (self._keep_going and is_about_it):
            raise error
        self._leave_out(
            tree, member, reason_of(error) if isinstance(error, OSError) else str(error)
        )

    def _leave_out(self, tree: StagedTree, member: Member, reason: str) -> None:
        self._left_out = True
        tree.leave_out(member, reason)


def restore_file(
    source: Source,
    destination: Path,
    name: str,
    *,
    report: ArchiveReport,
    mode: int | None = None,
    mtime_ns: int | None = None,
    owner: Owner | None = None,
    on_bytes: ByteCounter | None = None,
) -> Path:
    """Restore all bytes of *source* as the file *name* in the directory *destination*.

    *destination* is created, with its parents, where it is missing; an existing file or link of
    that name is replaced. The file gets *mode* (None: 0600) and *mtime_ns* (nanoseconds since 1970
    UTC) unless that is None. As root, it gets *owner*; without that owner, setuid and setgid are
    left out. *report* takes the counts and warnings, *on_bytes* is called with the number of bytes
    written. Returns the path of the file.

    *source* is read to its end and not closed. Raises UnsafeMemberError for a *name* that is not
    a plain file name, DestinationError, and whatever *source* raises; then nothing is left behind.
    """
    path = os.fsencode(name)
    if path in (b"", b".", b"..") or b"/" in path or b"\0" in path:
        raise UnsafeMemberError(f"{quoted(path)} is not the name of a file")
    watched = _WatchedSource(source)
    report.current = lambda: (from_native(name), report.bytes)
    with Staging(destination) as staging:
        staging.warn_of_losses(report)
        keeps = staging.file_system
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            fd = os.open(path, flags, 0o600, dir_fd=staging.tree_fd)
            try:
                while piece := watched.read(_READ_BYTES):
                    write_all(fd, piece)
                    report.bytes += len(piece)
                    if on_bytes is not None:
                        on_bytes(len(piece))
                mode = 0o600 if mode is None else mode
                if owner is not None:
                    member = Member(path, MemberType.FILE, mode, *owner, size=0, mtime_ns=0)
                    MetadataWriter(report, keeps).apply(fd, member)
                elif keeps.modes:
                    os.fchmod(fd, mode & 0o777)
                if mtime_ns is not None and keeps.times:
                    os.utime(fd, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(fd)
        except OSError as exc:
            if exc is watched.failure:
                raise
            raise _cannot_write(destination / name, exc) from exc
        report.files += 1
        FileNames(report).say("unpacked", from_native(name))
        return publish(staging, PathSet(), report)[0]


def verify(
    source: Source,
    *,
    on_bytes: ByteCounter | None = None,
    check_comment: Callable[[bytes], None] | None = None,
    check: IndexCheck | None = None,
) -> ArchiveReport:
    """Read the tar archive in *source* to its end, without writing any file, and return the counts.

    *on_bytes* is called with the number of bytes of content that were read, *check_comment* as by
    :func:`extract`. *check* compares each member with the index. Raises the errors of
    :func:`extract`, except those of writing files.
    """
    report = ArchiveReport()
    reader = TarReader(source)
    for member in reader:
        if check_comment is not None and not (report.files or report.directories):
            check_comment(reader.comment)  # check before reading the content
        content = reader.read_content(member)
        if check is not None:
            check.begin(member, reader.end)
            content = check.content(content)
        path = split_name(member.name, member.name)
        if member.type is MemberType.HARDLINK:
            split_name(member.linkname, member.name)
        for _, piece in content:
            report.bytes += len(piece)
            if on_bytes is not None:
                on_bytes(len(piece))
        if member.type is not MemberType.DIRECTORY:
            report.files += 1
        elif path:
            report.directories += 1
    if check is not None:
        check.finish()
    if check_comment is not None:
        check_comment(reader.comment)
    return report


def _is_selected(selection: Selection, member: Member) -> bool:
    path = b"/".join(split_name(member.name, member.name))
    # The directory that the archive is relative to has no name, and no entry in an index.
    return bool(path) and selection.includes_raw(
        path, is_directory=member.type is MemberType.DIRECTORY
    )


def _is_about_one_member(error: OSError | NameCollisionError, member: Member) -> bool:
    """Return whether the file system cannot hold *member*, and may hold others."""
    if isinstance(error, NameCollisionError) or error.errno in _CANNOT_HOLD:
        return True
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        # Holes need space where the file system has none.
        return member.sparse is not None
    return error.errno == errno.EIO and member.type in _SPECIAL  # exFAT by FUSE


def _cannot_write(path: Path, error: OSError, hint: str = "") -> DestinationError:
    return DestinationError(
        f"cannot write {quoted(os.fsencode(path))}: {reason_of(error)}", hint=hint
    )


class _WatchedSource:
    """Remembers the OSError of a source, to tell it from an OSError of the destination."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.failure: OSError | None = None

    def read(self, size: int, /) -> bytes:
        """Read from the source."""
        try:
            return self._source.read(size)
        except OSError as exc:
            self.failure = exc
            raise
