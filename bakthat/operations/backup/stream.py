"""Back up a stream: the output of a program, standard input, or what a caller writes."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Required, TypedDict, Unpack

from bakthat import models
from bakthat.archive.create.content import StreamWriter
from bakthat.archive.report import ArchiveReport, PlanTotals
from bakthat.errors import ProducerError, UsageError
from bakthat.format.description import ARCHIVE, join_tags
from bakthat.operations.backup.store import NewBackup, Writing
from bakthat.operations.changes import after_change
from bakthat.operations.sources import streams
from bakthat.operations.sources.stream_sizes import difference_of, is_below, parse_percent
from bakthat.operations.sources.streams import StreamSource
from bakthat.passwords import EncryptionKeys
from bakthat.policy.intervals import parse_interval
from bakthat.policy.outcome import SUSPICIOUS
from bakthat.session.session import Operation, Session, operation
from bakthat.session.sets import id_of_source, newest_first
from bakthat.system.programs import Ended, shell_program
from bakthat.system.streams import Progress
from bakthat.system.text import human_size, printable

log = logging.getLogger("bakthat")


@dataclass(frozen=True, slots=True)
class SizeRule:
    """What is done about a stream of an unusual size."""

    allow_empty: bool = False
    """Whether a stream without a byte is stored; else it is an error."""
    accept_size: bool = False
    """Whether the size is not compared with that of the last backup."""
    fail_below: int | None = None
    """Below so many percent of the size of the last backup, nothing is stored; None for never."""

    @classmethod
    def make(
        cls, *, allow_empty: bool, accept_size: bool, fail_below: str | int | None
    ) -> SizeRule:
        """Return the rule; *fail_below* may be "50%". Raises UsageError."""
        if accept_size and fail_below is not None:
            raise UsageError(
                "--accept-size and --fail-below contradict each other", hint="leave one of them out"
            )
        percent = None if fail_below is None else parse_percent(fail_below)
        return cls(allow_empty, accept_size, percent)


class StreamBackup:
    """The backup of one stream, within its operation."""

    def __init__(
        self,
        session: Session,
        current: Operation,
        source: StreamSource,
        rule: SizeRule,
        *,
        keys: Callable[[], EncryptionKeys],
        tags: str | Sequence[str] = (),
        s3_reduced_redundancy: bool = False,
        create: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Ask for a password if need be: *keys* does. The others are as in :func:`bakthat.backup`.

        Raises ConfigError, UsageError, PasswordError, KeyFormatError, CatalogError.
        """
        self._session = session
        self._current = current
        self._source = source
        self._rule = rule
        self._tags = join_tags(tags)
        # Raises ConfigError for a missing setting, before a password is asked for.
        self._backend = session.backend(
            session.destination, s3_reduced_redundancy=s3_reduced_redundancy
        )
        log.info("Backing up %s", printable(source.set_name))
        self._keys = keys()
        self._create = create
        self._progress = progress
        self._last = self._find_last()
        self._producer: dict[str, Any] = {}

    @contextmanager
    def writing(self) -> Iterator[tuple[StreamWriter, Writing]]:
        """Yield what takes the stream; when the block ends, it is stored and recorded.

        When the block raises, nothing is stored. Raises ProducerError for an empty stream,
        StorageError and CatalogError.
        """
        new = NewBackup(
            self._session,
            self._backend,
            self._source,
            self._keys,
            self._tags,
            self._progress,
            self._create,
            check=self._check_size,
            on_recorded=self._finish,
        )
        last = self._last
        with new.writing(
            size_hint=self._size_hint,
            expected_bytes=_bytes_of(last) if last is not None else 0,
        ) as writing:
            stream = StreamWriter(
                writing.sink,
                self._source.restored_name,
                report=writing.report,
                on_bytes=writing.on_bytes,
                on_segment=writing.on_segment,
            )
            yield stream, writing
            writing.size = stream.finish()
        after_change(self._session, self._backend.name, make_bucket=True)

    @property
    def _size_hint(self) -> int | None:
        """The size of the object, as far as it is known: that of the last one, unless another one
        is meant."""
        last = self._last
        return (
            last.size if last is not None and last.size > 0 and not self._rule.accept_size else None
        )

    def store(
        self, write: Callable[[StreamWriter], Ended | None], warnings: Sequence[str] = ()
    ) -> models.Backups:
        """Store what *write* writes, and return the entry; raises what *write* raises too.

        *warnings* say what it lacks.
        """
        with self.writing() as (stream, writing):
            for each in warnings:
                writing.report.warn(each)
            ended = write(stream)
            if ended is not None:
                self._producer = {
                    "exit_code": ended.exit_code,
                    "seconds": round(ended.seconds, 3),
                    "stderr": ended.stderr,
                }
        assert writing.entry is not None
        return writing.entry

    def _finish(self, entry: models.Backups) -> None:
        name = printable(entry.stored_filename)
        self._current.finish(entry, done=f"stored as {name} on {entry.where}")

    def _check_size(self, report: ArchiveReport, _: PlanTotals | None) -> Mapping[str, Any]:
        size, rule, last = report.bytes, self._rule, self._last
        if not size and not rule.allow_empty:
            raise ProducerError(
                f"{self._source.origin} gave no data, so nothing was stored",
                hint="where that is meant, --allow-empty stores it (allow_empty=True in Python)",
            )
        facts: dict[str, Any] = {"producer": self._producer} if self._producer else {}
        if self._source.dump_kind:
            facts["dump"] = self._source.dump_kind
        if last is None:
            return facts
        name = printable(last.stored_filename)
        if rule.fail_below is not None and is_below(size, _bytes_of(last), rule.fail_below):
            raise ProducerError(
                f"{human_size(size)} is less than {rule.fail_below} % of the "
                f"{human_size(_bytes_of(last))} of {name}, so nothing was stored",
                hint="look at what produces it; without --fail-below it is stored, with a warning",
            )
        difference = "" if rule.accept_size else difference_of(size, _bytes_of(last))
        if difference:
            report.warn(
                f"{printable(self._source.set_name)}: the size is suspicious: {difference} of "
                f"{name}; --accept-size says that this is meant"
            )
            facts[SUSPICIOUS] = True
        return facts

    def _find_last(self) -> models.Backups | None:
        """Return the newest backup of the set whose size is known, and not suspicious."""
        session = self._session
        containers = session.containers(self._backend.name)
        with models.catalog(session.catalog):
            rows = models.Backups.of_set(self._source.set_name, containers, host=session.host)
        return next(
            (
                each
                for each in newest_first(rows)
                if id_of_source(each) == self._source.source_id
                and not (each.is_key_value or each.is_increment or each.is_suspicious)
                and each.metadata.get("kind") != ARCHIVE  # of a tree with the same --name
                and _bytes_of(each) >= 0
            ),
            None,
        )


def _bytes_of(backup: models.Backups) -> int:
    """Return the size of the stream of *backup*, in bytes; -1 when it is not known."""
    found = backup.metadata.get("bytes")
    return found if isinstance(found, int) else -1


class StreamOptions(TypedDict, total=False):
    """The options of :class:`StreamBackup` that :func:`back_up_stream` takes too."""

    keys: Required[Callable[[], EncryptionKeys]]
    tags: str | Sequence[str]
    s3_reduced_redundancy: bool
    create: bool
    progress: Progress | None


def back_up_stream(
    session: Session,
    command: str | None,
    name: str | None,
    rule: SizeRule,
    *,
    timeout: str | float | None = None,
    **options: Unpack[StreamOptions],
) -> models.Backups:
    """Store the output of *command*, a line for the shell, or standard input, as *name*.

    Returns the entry. *timeout* is for the command, in seconds, or an interval such as "2h". Raises
    UsageError, ProducerError when the command fails, SourceError when standard input cannot be
    read, and what :class:`StreamBackup` and its :meth:`~StreamBackup.store` raise; then nothing is
    stored.
    """
    origin = streams.STANDARD_INPUT if command is None else streams.COMMAND
    source = StreamSource.named(name, origin, compress=session.profile.compress)
    write: Callable[[StreamWriter], Ended | None]
    if command is None:
        if timeout is not None:
            raise UsageError(
                "--timeout is for a command, and none was given",
                hint="--command runs the program itself, and ends it in time",
            )
        streams.check_standard_input()
        write = streams.write_standard_input
    else:
        program = shell_program(command)
        if not command.strip():
            raise UsageError(
                "the command is empty", hint="bakthat backup --command 'pg_dump shop' --name shop"
            )
        write = functools.partial(streams.write_output, program, timeout=seconds_of(timeout))
    with operation(session, "backup") as current:
        return StreamBackup(session, current, source, rule, **options).store(write)


def seconds_of(timeout: str | float | None) -> float | None:
    """Return the seconds of a time limit: a number of them, or an interval. Raises UsageError."""
    if timeout is None:
        return None
    try:
        seconds = float(parse_interval(timeout)) if isinstance(timeout, str) else float(timeout)
    except UsageError:
        seconds = 0  # the words of an interval tell of years, which no time limit needs
    if not seconds > 0:
        raise UsageError(
            f"'{printable(str(timeout))}' is no time limit", hint="give one such as 2h or 30m"
        )
    return seconds
