"""What goes into an object: the archive of a tree, or a file as it is."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from bakthat.archive.report import ArchiveReport
from bakthat.archive.tar_aside import Contents, OnBytes, archiving
from bakthat.archive.walk import Scan, WalkOptions, check_root, scan
from bakthat.errors import SourceError
from bakthat.naming import printable
from bakthat.sources import BackupSource
from bakthat.streams import Sink

READ_BYTES = 1024 * 1024
"""How much of a file that is stored as it is moves at once."""


def contents_of(
    source: BackupSource, options: WalkOptions
) -> contextlib.AbstractContextManager[Contents]:
    """Get ready what is to be written; where it can, another process begins at once to count it.

    It is gone when the block ends. Raises SourceError when *source* cannot be read.
    """
    if source.is_archive:
        return archiving(source.path, source.root_name, options)
    return contextlib.nullcontext(PlainFile(source.path, options))


class PlainFile:
    """A file whose bytes are an object as they are."""

    def __init__(self, path: Path, options: WalkOptions) -> None:
        """Raises SourceError when it cannot be read, before anything is made on the storage."""
        check_root(path)
        self._path = path
        self._options = options
        self.sha256 = ""
        """Of what was written, in hex."""

    def counted(self) -> Scan:
        """Return what there is to write. Raises SourceError."""
        return scan(self._path, self._options)

    def write(self, sink: Sink, *, identity: str, report: ArchiveReport, on_bytes: OnBytes) -> None:
        """Write the file to *sink* as it is, which has no room for *identity*.

        Raises SourceError when it cannot be read.
        """
        path = self._path
        digest = hashlib.sha256()
        try:
            stream = path.open("rb", buffering=0)
        except OSError as exc:
            raise SourceError(f"cannot read '{path}': {exc.strerror or exc}") from exc
        with stream:
            before = os.fstat(stream.fileno())
            left = before.st_size  # what comes later is another backup's, or it would never end
            while left:
                try:
                    piece = stream.read(min(READ_BYTES, left))
                except OSError as exc:
                    raise SourceError(f"cannot read '{path}': {exc.strerror or exc}") from exc
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
        self.sha256 = digest.hexdigest()
