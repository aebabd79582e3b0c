"""Restore a stream into a program, which reads it from its standard input."""

from __future__ import annotations

from collections.abc import Callable

from bakthat import models
from bakthat.archive.extract.selection import Selection
from bakthat.archive.index.reader import IndexReader
from bakthat.archive.report import ArchiveReport
from bakthat.errors import ConsumerError, UsageError
from bakthat.operations.restore.archive import ArchiveRestore
from bakthat.operations.restore.options import RestoreOptions
from bakthat.passwords import DecryptionKeys
from bakthat.pipeline import read
from bakthat.session.reading import KeyFinder, byte_counter
from bakthat.session.session import Session
from bakthat.system.programs import Ended, Program, RunningProgram
from bakthat.system.streams import Sink
from bakthat.system.text import printable, reason_of


def check_is_stream(backup: models.Backups, expected: read.Expected) -> None:
    """Raise UsageError unless *backup* is one stream or file."""
    if expected.is_archive or expected.is_value:
        what = "a value" if expected.is_value else "an archive of files"
        raise UsageError(
            f"{printable(backup.stored_filename)} is {what}, which no program gets as a stream",
            hint="restore it into a directory",
        )


class StreamRestore(ArchiveRestore):
    """The restore of a stream into a program."""

    def __init__(
        self,
        session: Session,
        backup: models.Backups,
        expected: read.Expected,
        keys: KeyFinder,
        options: RestoreOptions,
        program: Program,
    ) -> None:
        super().__init__(session, backup, expected, keys, options)
        self._program = program

    def _read_whole(
        self,
        keys: DecryptionKeys,
        report: ArchiveReport,
        selection: Selection | None,
        index: IndexReader | None,
    ) -> None:
        stream = self._backend.download(self._key)

        def write(sink: Sink) -> None:
            read.read_stream(
                stream,
                self._expected,
                sink,
                keys=keys,
                report=report,
                on_bytes=byte_counter(self._options.progress, self._backup.size, report),
                index=index,
                file_keys=self._keys.file_keys,
            )

        try:
            feed(self._program, write)
        finally:
            stream.close()


def feed(program: Program, write: Callable[[Sink], object]) -> Ended:
    """Run *program*, and let *write* write what it reads; return how it ended, with exit code 0.

    A program that stops reading early, and succeeds, is no error. When *write* raises, the program
    is ended before it can take what it has read for complete. Raises ConsumerError when it cannot
    be started or fails, and what *write* raises.
    """
    name = printable(program.name)
    try:
        running = RunningProgram(program, stdin=True)
    except OSError as exc:
        raise ConsumerError(
            f"cannot run {name}: {reason_of(exc)}",
            hint="check that it is installed, and on PATH",
        ) from exc
    with running:
        try:
            write(running.stdin)
            running.stdin.close()
        except BrokenPipeError:
            pass  # its exit code says whether it had enough
        ended = running.wait()
    if not ended.succeeded:
        raise ConsumerError(f"{name} {ended.problem()}")
    return ended
