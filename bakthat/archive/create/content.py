"""The content of a new object: the archive of a tree, or one unchanged file."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bakthat.archive.create.walk import DirectoryCache, Scan, WalkOptions, check_root, scan
from bakthat.archive.create.writer import write_tree
from bakthat.archive.report import ArchiveReport
from bakthat.errors import SourceError
from bakthat.system.streams import ByteCounter, LendingSink, Sink
from bakthat.system.text import printable, reason_of

_READ_BYTES = 1024 * 1024
"""Bytes of an unchanged file that are read at once."""


class BackupContent(Protocol):
    """The content of an object: the archive of a tree, or an unchanged file."""

    def count(self) -> Scan:
        """Count what :meth:`write` will store; call it once, and first. Raises SourceError."""

    def write(
        self, sink: Sink, *, identity: str, report: ArchiveReport, on_bytes: ByteCounter
    ) -> None:
        """Write the content to *sink*; call it once.

        *identity* becomes the comment of an archive. *report* takes the counts and the warnings;
        *on_bytes* is called with the number of bytes that were read. Raises SourceError,
        ArchiveError, and whatever *sink* raises.
        """

    def close(self) -> None:
        """End what works on the content; may be called again. It cannot be written any more."""


class PlainFile:
    """A file that is stored unchanged."""

    def __init__(self, path: Path, options: WalkOptions) -> None:
        """Raises SourceError when *path* cannot be read, before the storage is used."""
        check_root(path)
        self._path = path
        self._options = options

    def count(self) -> Scan:
        """Count the file. Raises SourceError."""
        return scan(self._path, self._options)

    def write(
        self, sink: Sink, *, identity: str, report: ArchiveReport, on_bytes: ByteCounter
    ) -> None:
        """Write the file to *sink* as it is; *identity* is not stored.

        Raises SourceError when it cannot be read.
        """
        path = self._path
        digest = hashlib.sha256()
        try:
            stream = path.open("rb", buffering=0)
        except OSError as exc:
            raise SourceError(f"cannot read '{printable(path)}': {reason_of(exc)}") from exc
        with stream:
            before = os.fstat(stream.fileno())
            left = before.st_size  # bytes appended meanwhile are for the next backup
            while left:
                try:
                    piece = stream.read(min(_READ_BYTES, left))
                except OSError as exc:
                    raise SourceError(f"cannot read '{printable(path)}': {reason_of(exc)}") from exc
                if not piece:
                    break
                left -= len(piece)
                digest.update(piece)
                sink.write(piece)
                report.bytes += len(piece)
                on_bytes(len(piece))
            after = os.fstat(stream.fileno())
        if (before.st_size, before.st_mtime_ns, before.st_ctime_ns) != (
            after.st_size,
            after.st_mtime_ns,
            after.st_ctime_ns,
        ):
            report.warn(f"{printable(path)}: changed while it was read")
        report.files = 1
        report.sha256 = digest.hexdigest()

    def close(self) -> None:
        """Do nothing: between calls, nothing is open."""


@dataclass
class TreeArchive:
    """An archive that is made in this process."""

    root: Path
    arcname: str
    options: WalkOptions

    def __post_init__(self) -> None:
        self._cache = DirectoryCache()

    def count(self) -> Scan:
        """Count the tree. Raises SourceError."""
        return scan(self.root, self.options, self._cache)

    def write(
        self,
        sink: Sink | LendingSink,
        *,
        identity: str,
        report: ArchiveReport,
        on_bytes: ByteCounter,
    ) -> None:
        """Write the archive to *sink*. Raises SourceError."""
        write_tree(
            self.root,
            self.arcname,
            sink,
            self.options,
            report=report,
            on_bytes=on_bytes,
            comment=identity,
            cache=self._cache,
        )

    def close(self) -> None:
        """Do nothing: between calls, nothing is open."""
