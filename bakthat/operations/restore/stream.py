"""Restore a stream into a program or a database, in place of a directory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from bakthat import models
from bakthat.archive.extract.selection import Selection
from bakthat.archive.index.reader import IndexReader
from bakthat.archive.report import ArchiveReport
from bakthat.errors import ConsumerError, UsageError
from bakthat.format.description import sanitized
from bakthat.operations.restore.archive import ArchiveRestore
from bakthat.operations.restore.options import RestoreOptions
from bakthat.operations.sources.databases.base import Load
from bakthat.operations.sources.databases.url import parts
from bakthat.operations.sources.servers import check_kind, find_database
from bakthat.passwords import DecryptionKeys
from bakthat.pipeline import read
from bakthat.session.reading import KeyFinder, byte_counter
from bakthat.session.session import Session
from bakthat.system.programs import Ended, Program, RunningProgram
from bakthat.system.streams import Sink
from bakthat.system.text import printable, reason_of

Write = Callable[[Sink], object]
"""Writes a stream. The last piece comes only when all of it is as it was stored."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """What takes a stream in place of a directory."""

    name: str
    """For messages."""
    consume: Callable[[Write], object]
    """Lets the stream be written, and takes it; raises what *write* raises, and its own errors."""
    check: Callable[[models.Backups], object] = lambda _: None
    """Raises UsageError when it cannot take the stream of a backup."""


class StreamRestore(ArchiveRestore):
    """The restore of a stream into a consumer."""

    def __init__(
        self,
        session: Session,
        backup: models.Backups,
        expected: read.Expected,
        keys: KeyFinder,
        options: RestoreOptions,
        consumer: Consumer,
    ) -> None:
        """Raise UsageError when the consumer cannot take the backup."""
        super().__init__(session, backup, expected, keys, options)
        if expected.is_archive or expected.is_value:
            what = "a value" if expected.is_value else "an archive of files"
            raise UsageError(
                f"{printable(backup.stored_filename)} is {what}, and no stream",
                hint="restore it into a directory",
            )
        consumer.check(backup)
        self._consumer = consumer

    def _read_whole(
        self,
        keys: DecryptionKeys,
        report: ArchiveReport,
        selection: Selection | None,
        index: IndexReader | None,
    ) -> None:
        def write(sink: Sink) -> None:
            read.read_stream(
                self._backend.download(self._key),
                self._expected_by(index),
                sink,
                keys=keys,
                report=report,
                on_bytes=byte_counter(self._options.progress, self._backup.size, report),
                index=index,
                file_keys=self._keys.file_keys,
            )

        self._consumer.consume(write)


def program_consumer(program: Program) -> Consumer:
    """Return *program* as a consumer."""
    return Consumer(program.name, lambda write: feed(program, write))


def database_consumer(
    session: Session, url: str, *, replace: bool, password: str | None, via: str | None
) -> Consumer:
    """Return the database of *url* as a consumer.

    It is made where it is missing; one that is not empty is refused, unless *replace*.
    """

    def check(backup: models.Backups) -> None:
        check_kind(url, dump_kind_of(backup))
        found.append(dump_kind_of(backup))

    def consume(write: Write) -> None:
        database = find_database(session, url, found[0], password=password, via=via)
        with closing(database.load(replace=replace)) as load:
            load_dump(load, write)

    found: list[str] = []
    return Consumer(printable(parts(url).shown), consume, check)


def load_dump(load: Load, write: Write) -> None:
    """Load a dump, which *write* writes; the caller closes *load*.

    Raises ConsumerError, DatabaseError, and what *write* raises; then nothing is loaded.
    """
    feed(load.program, write)
    load.commit()


def dump_kind_of(backup: models.Backups) -> str:
    """Return of which kind of database *backup* is a dump; "" when it is not known to be one."""
    return str(sanitized(backup.metadata).get("dump", ""))


def feed(program: Program, write: Write) -> Ended:
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
