"""The content of a new object: the archive of a tree, one unchanged file, or a stream."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bakthat.archive.create.walk import DirectoryCache, Scan, WalkOptions, scan
from bakthat.archive.create.writer import write_tree
from bakthat.archive.index.writer import Segment, SegmentWriter
from bakthat.archive.report import ArchiveReport, FileNames, PlanTotals
from bakthat.errors import SourceError
from bakthat.format.entry import Entry, EntryType
from bakthat.system.streams import Buffer, ByteCounter, LendingSink, Sink
from bakthat.system.text import from_native, printable, reason_of, to_native

_READ_BYTES = 1024 * 1024
"""Bytes of an unchanged file that are read at once."""

PRIVATE_MODE = 0o600
"""The permissions of a stream that is restored as a file: a dump has all that a database protects.
"""

SegmentReceiver = Callable[[Segment], object]
"""Called with each segment of the index, in order."""


class BackupContent(Protocol):
    """The content of an object: the archive of a tree, or an unchanged file."""

    status: os.stat_result | None
    """The status of an unchanged file; None for an archive, which has that of each member."""

    begun_ns: int
    """When it was opened, before any file was looked at, in nanoseconds since 1970 UTC."""

    totals: PlanTotals | None
    """What an increment would store, once it was counted; None for content that is not compared."""

    def begin(self, identity: str, *, increment: bool = False, is_followed: bool = False) -> None:
        """Begin to read, if that is possible before :meth:`write`; call it once, before that.

        *identity* becomes the comment of an archive. It may precede :meth:`count`, except for an
        *increment*, an archive of what changed only. Only where it *is_followed*, the report says
        what is written now.
        """

    def count(self) -> Scan:
        """Estimate what a full backup will store; call it once, before :meth:`write`.

        Raises SourceError, and where the content is compared NewerContentError, CorruptIndexError
        and ArchiveError.
        """

    def write(
        self,
        sink: Sink,
        *,
        report: ArchiveReport,
        on_bytes: ByteCounter,
        on_segment: SegmentReceiver,
    ) -> int:
        """Write the content to *sink*, and return how many bytes that were; call it once.

        *report* takes the counts and the warnings; *on_bytes* is called with the number of bytes
        that were read, *on_segment* with the index. Raises SourceError, ArchiveError, and whatever
        *sink* and *on_segment* raise.
        """

    def close(self) -> None:
        """End what works on the content; may be called again. It cannot be written any more."""


class PlainFile:
    """A file that is stored unchanged; the caller calls :meth:`close`.

    It is opened once: its size, its times and its content are those of one file, though another
    may take its name meanwhile.
    """

    def __init__(self, path: Path, name: str) -> None:
        """*name* is that of the file in the index.

        Raises SourceError when *path* cannot be read, before the storage is used.
        """
        self.begun_ns = time.time_ns()
        self.totals: PlanTotals | None = None
        self._path = path
        self._name = name
        try:
            self._stream = path.open("rb", buffering=0)
        except OSError as exc:
            raise self._cannot_read(exc) from exc
        self.status: os.stat_result | None = self._status()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def begin(self, identity: str, *, increment: bool = False, is_followed: bool = False) -> None:
        """Do nothing: *identity* is not stored in a file."""

    def count(self) -> Scan:
        """Count the file. Raises SourceError."""
        assert self.status is not None
        return Scan(files=1, bytes=self.status.st_size)

    def write(
        self,
        sink: Sink,
        *,
        report: ArchiveReport,
        on_bytes: ByteCounter,
        on_segment: SegmentReceiver,
    ) -> int:
        """Write the file to *sink* as it is.

        Bytes that are appended meanwhile are left for the next backup. Raises SourceError when it
        cannot be read.
        """
        assert self.status is not None
        digest = hashlib.sha256()
        names = FileNames(report, to_native(self._name))
        report.current = lambda: (names.path(""), report.bytes)
        left = self.status.st_size
        while left:
            try:
                piece = self._stream.read(min(_READ_BYTES, left))
            except OSError as exc:
                raise self._cannot_read(exc) from exc
            if not piece:
                break
            left -= len(piece)
            digest.update(piece)
            sink.write(piece)
            report.bytes += len(piece)
            on_bytes(len(piece))
        has_changed = _version(self.status) != _version(self._status())
        if has_changed:
            report.warn(f"{printable(self._path)}: changed while it was read")
        report.files = 1
        names.say("stored", names.path(""))
        report.sha256 = digest.hexdigest()
        segments = SegmentWriter(on_segment)
        segments.add(self._entry(report.bytes, digest.digest(), has_changed))
        segments.close()
        return report.bytes

    def _entry(self, size: int, digest: bytes, has_changed: bool) -> Entry:
        assert self.status is not None
        owner, group = owner_names(self.status)
        return Entry(
            self._name,
            EntryType.FILE,
            self.status.st_mode & 0o7777,
            self.status.st_uid,
            self.status.st_gid,
            self.status.st_mtime_ns,
            self.status.st_ctime_ns,
            self.status.st_ino,
            size,
            digest,
            owner,
            group,
            is_volatile=has_changed,
            header_bytes=0,
            stored_bytes=size,
        )

    def _status(self) -> os.stat_result:
        try:
            return os.fstat(self._stream.fileno())
        except OSError as exc:
            raise self._cannot_read(exc) from exc

    def _cannot_read(self, error: OSError) -> SourceError:
        return SourceError(
            f"cannot read '{printable(self._path)}': {reason_of(error)}",
            hint="check the name and that this user may read it",
        )


class StreamWriter:
    """Writes a stream to a sink, and records it as the only file of the index.

    Write all of the stream, then call :meth:`finish`.
    """

    def __init__(
        self,
        sink: Sink,
        name: str,
        *,
        report: ArchiveReport,
        on_bytes: ByteCounter,
        on_segment: SegmentReceiver,
    ) -> None:
        """*name* is that of the file which a restore makes; the others are as for
        :meth:`bakthat.archive.create.content.BackupContent.write`."""
        self._sink = sink
        self._name = name
        self._report = report
        self._on_bytes = on_bytes
        self._on_segment = on_segment
        self._digest = hashlib.sha256()
        self._begun_ns = time.time_ns()
        self._names = FileNames(report, to_native(name))
        report.current = lambda: (self._names.path(""), report.bytes)

    def write(self, data: Buffer, /) -> None:
        """Write all of *data*. Raises what the sink raises."""
        self._digest.update(data)
        self._sink.write(data)
        size = len(data)
        self._report.bytes += size
        self._on_bytes(size)

    def finish(self) -> int:
        """Record the stream, which has ended; return its bytes. Raises what *on_segment* raises."""
        report = self._report
        report.files = 1
        report.sha256 = self._digest.hexdigest()
        self._names.say("stored", self._names.path(""))
        user, group = os.getuid(), os.getgid()
        segments = SegmentWriter(self._on_segment)
        segments.add(
            Entry(
                self._name,
                EntryType.FILE,
                PRIVATE_MODE,
                user,
                group,
                self._begun_ns,
                size=report.bytes,
                digest=self._digest.digest(),
                header_bytes=0,
                stored_bytes=report.bytes,
            )
        )
        segments.close()
        return report.bytes


def owner_names(status: os.stat_result) -> tuple[str, str]:
    """Return the names of the owner and the group of a file; "" for an id without a name."""
    owner = group = ""
    with suppress(KeyError):
        owner = from_native(pwd.getpwuid(status.st_uid).pw_name)
    with suppress(KeyError):
        group = from_native(grp.getgrgid(status.st_gid).gr_name)
    return owner, group


def _version(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


@dataclass
class TreeArchive:
    """An archive that is made in this process."""

    root: Path
    arcname: str
    options: WalkOptions

    def __post_init__(self) -> None:
        self.begun_ns = time.time_ns()
        self.status: os.stat_result | None = None
        self.totals: PlanTotals | None = None
        self._cache = DirectoryCache()
        self._identity = ""

    def begin(self, identity: str, *, increment: bool = False, is_followed: bool = False) -> None:
        """Keep *identity* for :meth:`write`."""
        self._identity = identity

    def count(self) -> Scan:
        """Count the tree. Raises SourceError."""
        return scan(self.root, self.options, self._cache)

    def write(
        self,
        sink: Sink | LendingSink,
        *,
        report: ArchiveReport,
        on_bytes: ByteCounter,
        on_segment: SegmentReceiver,
    ) -> int:
        """Write the archive to *sink*. Raises SourceError."""
        return write_tree(
            self.root,
            self.arcname,
            sink,
            self.options,
            report=report,
            on_bytes=on_bytes,
            on_segment=on_segment,
            comment=self._identity,
            cache=self._cache,
        )

    def close(self) -> None:
        """Do nothing: between calls, nothing is open."""
