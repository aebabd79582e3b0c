"""Restore an archive, or one plain file, into a directory: all of it or nothing.

Files are unpacked into a private directory inside the destination, on the same file system. They
are published, that is moved into place, only after the source was read to its end, and so every
checksum and every authentication was verified. After any error or interrupt the destination is as
it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from bakthat.archive.extract.metadata import MetadataWriter
from bakthat.archive.extract.publish import publish
from bakthat.archive.extract.selection import Selection
from bakthat.archive.extract.staging import Staging
from bakthat.archive.extract.tree import PathSet, StagedTree, split_name
from bakthat.archive.report import ArchiveReport
from bakthat.archive.tar.member import Member, MemberType, Owner
from bakthat.archive.tar.reader import TarReader
from bakthat.errors import DestinationError, UnsafeMemberError
from bakthat.system.files import write_all
from bakthat.system.streams import ByteCounter, Source
from bakthat.system.text import quoted, reason_of

_READ_BYTES = 1024 * 1024


def extract(
    source: Source,
    destination: Path,
    *,
    report: ArchiveReport,
    check_comment: Callable[[bytes], None] | None = None,
    selection: Selection | None = None,
) -> list[Path]:
    """Restore the tar archive in *source* into the directory *destination*.

    *destination* is created, with its parents, where it is missing. Existing directories are merged
    with those of the archive; existing files and links are replaced. *report* takes the counts,
    and warnings about owners, modes, attributes and devices that could not be restored.
    *check_comment* is called with the comment of a global pax header, ``b""`` if there is none,
    and may raise. With *selection*, only the members that it includes are restored, and the
    directories that they need. Returns the paths that are now at the top of *destination*, sorted.

    *source* is read to its end and not closed. Raises CorruptArchiveError, UnsafeMemberError for
    a member that would leave *destination*, DestinationError, and whatever *source* raises; then
    nothing is left behind.
    """
    with Staging(destination) as staging:
        implied_directories = _unpack(source, staging, report, check_comment, selection)
        return publish(staging, implied_directories, report)


def _unpack(
    source: Source,
    staging: Staging,
    report: ArchiveReport,
    check_comment: Callable[[bytes], None] | None,
    selection: Selection | None,
) -> PathSet:
    """Create the tree in the staging directory; return the directories that are not members."""
    watched = _WatchedSource(source)
    reader = TarReader(watched)
    path, first = b"", True
    try:
        with StagedTree(staging.tree_fd, report) as tree:
            for member in reader:
                path = member.name
                if first and check_comment is not None:
                    check_comment(reader.comment)  # check before unpacking
                first = False
                if selection is None or selection.includes(member):
                    tree.add(member, reader.read_content(member))
            if check_comment is not None:
                check_comment(reader.comment)
            if selection is not None:
                selection.check()
    except OSError as exc:
        if exc is watched.failure:
            raise
        raise _cannot_write(staging.destination / os.fsdecode(path), exc) from exc
    report.bytes += reader.content_bytes
    return tree.implied_directories


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
    with Staging(destination) as staging:
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
                    MetadataWriter(report).apply(fd, member)
                else:
                    os.fchmod(fd, mode & 0o777)
                if mtime_ns is not None:
                    os.utime(fd, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(fd)
        except OSError as exc:
            if exc is watched.failure:
                raise
            raise _cannot_write(destination / name, exc) from exc
        report.files += 1
        return publish(staging, PathSet(), report)[0]


def verify(
    source: Source,
    *,
    on_bytes: ByteCounter | None = None,
    check_comment: Callable[[bytes], None] | None = None,
) -> ArchiveReport:
    """Read the tar archive in *source* to its end, without writing any file, and return the counts.

    *on_bytes* is called with the number of bytes of content that were read, *check_comment* as by
    :func:`extract`. Raises the errors of :func:`extract`, except those of writing files.
    """
    report = ArchiveReport()
    reader = TarReader(source)
    for member in reader:
        if check_comment is not None and not (report.files or report.directories):
            check_comment(reader.comment)  # check before reading the content
        path = split_name(member.name, member.name)
        if member.type is MemberType.HARDLINK:
            split_name(member.linkname, member.name)
        for _, piece in reader.read_content(member):
            report.bytes += len(piece)
            if on_bytes is not None:
                on_bytes(len(piece))
        if member.type is not MemberType.DIRECTORY:
            report.files += 1
        elif path:
            report.directories += 1
    if check_comment is not None:
        check_comment(reader.comment)
    return report


def _cannot_write(path: Path, error: OSError) -> DestinationError:
    return DestinationError(f"cannot write {quoted(os.fsencode(path))}: {reason_of(error)}")


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
