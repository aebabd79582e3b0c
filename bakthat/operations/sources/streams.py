"""Streams as sources: standard input, the output of a program, and what a caller writes."""

from __future__ import annotations

import errno
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from bakthat.archive.create.content import PRIVATE_MODE
from bakthat.archive.create.walk import Scan
from bakthat.archive.gzip.level import DEFAULT_LEVEL
from bakthat.errors import ProducerError, SourceError, UsageError
from bakthat.format import names
from bakthat.format.description import FILE, NAMED
from bakthat.system import terminal
from bakthat.system.programs import Ended, Program, RunningProgram
from bakthat.system.streams import Buffer
from bakthat.system.text import printable, reason_of

STANDARD_INPUT = "standard input"
COMMAND = "a command"
PYTHON = "a Python program"
_READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class StreamSource:
    """A stream to back up, and the form in which it is stored."""

    set_name: str
    level: int
    """The gzip level; 0 stores the stream without compression."""
    origin: str
    """Where it comes from, for the catalog."""
    source_id: str = NAMED
    file_name: str = ""
    """The name of the file that a restore makes; "" is the name of the set."""
    dump_kind: str = ""
    """What a database's dump is (:attr:`.databases.base.Database.dump_kind`); "" for others."""

    @classmethod
    def named(cls, name: str | None, origin: str, *, compress: bool | int) -> StreamSource:
        """Return the stream from *origin* that belongs to the set *name*. Raises UsageError."""
        if name is None:
            raise UsageError(
                f"what comes from {origin} has no name of its own",
                hint="name it: --name shop.dump (custom_filename= in Python)",
            )
        level = DEFAULT_LEVEL if compress is True else int(compress)
        return cls(names.check_set_name(name), level, origin)

    @property
    def stem(self) -> str:
        """What precedes the date in the stored name."""
        return self.set_name

    @property
    def extension(self) -> str:
        """What follows the date in the stored name."""
        return ".gz" if self.level else ""

    @property
    def kind(self) -> str:
        """The kind of the object: a stream is stored, and comes back, as a file."""
        return FILE

    @property
    def restored_name(self) -> str:
        """The name of the file that a restore makes."""
        return self.file_name or self.set_name

    def describe(self, counted: Scan, status: os.stat_result | None) -> dict[str, Any]:
        """Return what :class:`.base.Source` says; the size is not known yet."""
        return {
            "mode": PRIVATE_MODE,
            **({"name": self.file_name} if self.file_name not in ("", self.set_name) else {}),
            **({"dump": self.dump_kind} if self.dump_kind else {}),
        }


class Stream(Protocol):
    """Takes a stream, as :class:`bakthat.archive.create.content.StreamWriter` does."""

    def write(self, data: Buffer, /) -> object:
        """Write all of *data*."""


def write_output(
    program: Program,
    stream: Stream,
    *,
    timeout: float | None = None,
    hint: str = "nothing was stored; run it in a shell to see what is wrong",
) -> Ended:
    """Run *program* and write its output to *stream*; return how it ended.

    The program has ended when this returns or raises. *timeout* is in seconds; None is for ever.
    *hint* is that of a failure.
    Raises ProducerError unless it ended with exit code 0, and what *stream* raises.
    """
    try:
        running = RunningProgram(program, stdout=True, timeout=timeout)
    except OSError as exc:
        raise ProducerError(
            f"cannot run {printable(program.name)}: {reason_of(exc)}",
            hint="write a long line into a file, and let the command run that"
            if exc.errno == errno.E2BIG
            else "",
        ) from exc
    with running:
        output = running.stdout
        assert output is not None
        _copy(lambda buffer: output.readinto(buffer) or 0, stream)
        ended = running.wait()
    if not ended.succeeded:
        raise ProducerError(
            f"{printable(program.name)} {ended.problem()}",
            hint=hint,
        )
    return ended


def write_standard_input(stream: Stream) -> None:
    """Write all of standard input to *stream*. Raises SourceError, and what *stream* raises."""
    with _unreadable_input():
        source = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115  # closed below
    with source:
        ready = select.poll()
        ready.register(source, select.POLLIN)

        def read_into(buffer: memoryview) -> int:
            with _unreadable_input():
                # None is not the end: another program has made the pipe non-blocking.
                while (size := source.readinto(buffer)) is None:
                    ready.poll()
                return size

        _copy(read_into, stream)


@contextmanager
def _unreadable_input() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise SourceError(f"cannot read standard input: {reason_of(exc)}") from exc


def check_standard_input() -> None:
    """Raise UsageError unless something may come from standard input."""
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError(
            "standard input is closed: there is nothing to back up",
            hint="pipe a dump into bakthat backup - --name NAME",
        )
    if terminal.is_terminal(sys.stdin):
        raise UsageError(
            "standard input is a terminal: nothing is piped into it",
            hint="pipe a dump into bakthat backup - --name NAME, or use --command",
        )


def _copy(read_into: Callable[[memoryview], int], stream: Stream) -> None:
    """Write to *stream* what *read_into* reads into a buffer, until it returns 0."""
    buffer = memoryview(bytearray(_READ_BYTES))
    filled = 0
    while size := read_into(buffer[filled:]):
        filled += size
        if filled == len(buffer):
            stream.write(buffer)
            filled = 0
    if filled:
        stream.write(buffer[:filled])
