"""Restore a stream into a program or a database, in place of a directory."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property

from bakthat import models
from bakthat.archive.extract.selection import Selection
from bakthat.archive.index.reader import IndexReader
from bakthat.archive.report import ArchiveReport
from bakthat.errors import ConsumerError, UsageError
from bakthat.format.description import sanitized
from bakthat.operations.restore.archive import ArchiveRestore
from bakthat.operations.restore.options import RestoreOptions
from bakthat.operations.sources.databases.base import HEAD_BYTES, HeadReader, Load
from bakthat.operations.sources.databases.url import parts
from bakthat.operations.sources.servers import check_target, find_database
from bakthat.passwords import DecryptionKeys
from bakthat.pipeline import read
from bakthat.session.reading import KeyFinder, byte_counter
from bakthat.session.session import Session
from bakthat.system.programs import Ended, Program, RunningProgram, shell_program
from bakthat.system.signals import held_back
from bakthat.system.streams import Buffer, Sink
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
    arguments: Sequence[str] = ()
    """What names it again on the command line, without what may be a secret."""


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


def find_consumer(
    session: Session,
    *,
    to_command: str | None,
    into: str | None,
    replace: bool,
    via: str | None,
    database_password: str | None,
) -> Consumer:
    """Return what takes the stream: the command, or the database of the URL *into*.

    The arguments are those of :func:`bakthat.restore`. Raises UsageError.
    """
    if to_command is not None and into is not None:
        raise UsageError("--to-command and --into were given", hint="give one of them")
    if into is None and (replace or (via, database_password) != (None, None)):
        raise UsageError(
            "--replace, --via and database_password are for a restore into a database",
            hint="name it: --into postgresql://host/name (into= in Python)",
        )
    if to_command is not None:
        return _program_consumer(shell_program(to_command))
    assert into is not None
    return _database_consumer(session, into, replace=replace, password=database_password, via=via)


def _program_consumer(program: Program) -> Consumer:
    # The line may have a password.
    return Consumer(
        program.name, lambda write: feed(program, write), arguments=["--to-command", "…"]
    )


def _database_consumer(
    session: Session, url: str, *, replace: bool, password: str | None, via: str | None
) -> Consumer:
    """Return the database of *url* as a consumer.

    It is made where it is missing; one that is not empty is refused, unless *replace*.
    """

    def check(backup: models.Backups) -> None:
        check_target(url, dump_kind_of(backup))
        found.append(dump_kind_of(backup))

    def consume(write: Write) -> None:
        database = find_database(session, url, found[0], password=password, via=via)
        done: list[str] = []
        try:
            with opened(lambda: database.load(replace=replace)) as load:
                load_dump(load, write, on_loaded=lambda: done.append(database.url))
        except BaseException as exc:
            for each in done:  # a signal was held back
                exc.add_note(f"the whole dump was loaded into {each} before this happened")
            raise

    found: list[str] = []
    shown = parts(url).shown
    arguments = ["--into", shown, *(["--replace"] if replace else [])]
    # The words may have a password.
    arguments += ["--via", "…"] if via is not None else []
    return Consumer(printable(shown), consume, check, arguments)


@contextmanager
def opened(make: Callable[[], Load]) -> Iterator[Load]:
    """Yield the load that *make* returns, and close it, also when a signal interrupts."""
    with ExitStack() as stack:
        with held_back("preparing a database"):
            load = make()
            stack.callback(_close, load)
        yield load


def _close(load: Load) -> None:
    with held_back("removing what is temporary in a database"):
        load.close()


def load_dump(load: Load, write: Write, *, on_loaded: Callable[[], object] = lambda: None) -> None:
    """Load a dump, which *write* writes; the caller closes *load*.

    *on_loaded* is called once the whole dump is in its place.

    Raises ConsumerError, DatabaseError, and what *write* raises; then nothing is loaded.
    """

    def write_prepared(sink: Sink) -> None:
        head = _Head(load, sink)
        write(head)
        head.finish()

    feed(load.program, write_prepared)
    with held_back("finishing the load of a database"):
        load.commit()
        on_loaded()


class _Head:
    """Gives a load the beginning of its dump, before its program reads any of it."""

    def __init__(self, load: Load, sink: Sink) -> None:
        self._sink = sink
        self._held = bytearray()
        self._waiting = load if isinstance(load, HeadReader) else None

    def write(self, data: Buffer, /) -> None:
        """Hold the beginning back until it is long enough."""
        if self._waiting is None:
            self._sink.write(data)
            return
        self._held += data
        if len(self._held) >= HEAD_BYTES:
            self.finish()

    def finish(self) -> None:
        """Write what is held back."""
        if self._waiting is not None:
            self._waiting.prepare(bytes(self._held[:HEAD_BYTES]))
            self._waiting = None
            self._sink.write(self._held)
            self._held = bytearray()


def dump_kind_of(backup: models.Backups) -> str:
    """Return of which kind of database *backup* is a dump; "" when it is not known to be one."""
    return str(sanitized(backup.metadata).get("dump", ""))


def feed(program: Program, write: Write) -> Ended:
    """Run *program*, and let *write* write what it reads; return how it ended, with exit code 0.

    It is started when the first piece comes, and not at all for a wrong key. A program that stops
    reading early, and succeeds, is no error. When *write* raises, the program is ended before it
    can take what it has read for complete. Raises ConsumerError when it cannot be started or fails,
    and what *write* raises.
    """
    with ExitStack() as stack:
        reader = _Reader(program, stack)
        try:
            write(reader)
            reader.running.stdin.close()
        except _EnoughReadError:
            pass  # its exit code says whether it had enough
        ended = reader.running.wait()
    if not ended.succeeded:
        raise ConsumerError(f"{printable(program.name)} {ended.problem()}")
    return ended


class _EnoughReadError(Exception):
    """The program reads no more. A broken pipe of somebody else must not be taken for that."""


class _Reader:
    """A program that reads a stream. *stack* ends it."""

    def __init__(self, program: Program, stack: ExitStack) -> None:
        self._program = program
        self._stack = stack

    def write(self, data: Buffer, /) -> None:
        """Write all of *data*. Raises _EnoughReadError when the program reads no more."""
        stdin = self.running.stdin
        try:
            stdin.write(data)
        except BrokenPipeError as exc:
            raise _EnoughReadError from exc

    @cached_property
    def running(self) -> RunningProgram:
        """The program, which is started when this is first read. Raises ConsumerError."""
        try:
            return self._stack.enter_context(RunningProgram(self._program, stdin=True))
        except OSError as exc:
            raise ConsumerError(
                f"cannot run {printable(self._program.name)}: {reason_of(exc)}",
                hint="write a long line into a file, and let the command run that"
                if exc.errno == errno.E2BIG
                else "",
            ) from exc
