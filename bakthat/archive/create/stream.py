"""A stream as the content of a new object: bytes whose number is known only at their end."""

from __future__ import annotations

import hashlib
import os
import time

from bakthat.archive.create.content import SegmentReceiver
from bakthat.archive.index.writer import SegmentWriter
from bakthat.archive.report import ArchiveReport, FileNames
from bakthat.format.entry import Entry, EntryType
from bakthat.system.streams import Buffer, ByteCounter, Sink
from bakthat.system.text import to_native

MODE = 0o600
"""The permissions of a stream that is restored as a file: a dump has all that a database protects.
"""


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
                MODE,
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
