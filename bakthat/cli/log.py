"""What a command writes to standard error: its log, its errors and its summary."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from typing import NamedTuple

from bakthat.system.text import counted, human_seconds, human_size, printable


def print_error(message: str, *hints: str) -> None:
    """Print an error, and the hints that are not empty, to standard error."""
    lines = [f"bakthat: error: {printable(message)}"]
    lines += [f"bakthat: hint: {printable(hint)}" for hint in hints if hint]
    _write("\n".join(lines))


class Summary(NamedTuple):
    """What a command did. A count that is None is not mentioned.

    It is no dataclass, since ``bakthat --help`` would then take a tenth longer.
    """

    done: str
    """What was done, and to what: "Stored as mydir.20130604191055.tgz"."""
    seconds: float
    stored: int | None = None
    """Bytes on the storage; -1 when they are not known."""
    files: int | None = None
    bytes: int = 0
    """The content of the files."""
    unchanged: int | None = None
    """Files of an increment that earlier archives have."""
    where: str = ""
    """The destination and its container, with a preposition: "on s3 mybucket"."""
    into: str = ""
    """The directory that was restored into."""
    warnings: int = 0

    def line(self) -> str:
        """Return one line for people."""
        done = self.done
        if self.stored is not None and self.stored >= 0:
            done += f" ({human_size(self.stored)})"
        if self.files is not None:
            done += f": {counted(self.files, 'file')} ({human_size(self.bytes)})"
        if self.unchanged is not None:
            done += f", {self.unchanged} unchanged"
        if self.where:
            done += f" {self.where}"
        if self.into:
            done += f" into {self.into}"
        done += f", {human_seconds(self.seconds)}"
        if self.warnings:
            done += f", {counted(self.warnings, 'warning')}"
        return printable(done)


def print_summary(summary: Summary, *, always: bool = False) -> None:
    """Print a summary to standard error; with ``--quiet`` only if *always*."""
    if always or is_verbose():
        _write(summary.line())


def is_verbose() -> bool:
    """Return whether the command runs without ``--quiet``."""
    return logging.getLogger("bakthat").isEnabledFor(logging.INFO)


def _write(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{text}\n")


_URL_SECRET = re.compile(r"//[^/@\s]+@")
"""User and password in a URL, which the exceptions of libraries may quote."""


class _Format(logging.Formatter):
    """Formats lines as 0.6.0 did; a warning or an error begins with its level."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        return printable(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        # Names of files and keys are escaped where they are logged. This escapes all other text,
        # such as that of a library's exception.
        text = "\n".join(map(printable, super().format(record).split("\n")))
        if record.levelno >= logging.WARNING:
            text = f"bakthat: {record.levelname.lower()}: {text}"
        return _URL_SECRET.sub("//***@", text)


class _Handler(logging.Handler):
    """Writes to the present ``sys.stderr``, which a progress bar replaces for a while."""

    def emit(self, record: logging.LogRecord) -> None:
        # A backup goes on when its log cannot be written. RuntimeError: a signal that arrived
        # while a line was written has another one to write.
        with contextlib.suppress(OSError, RuntimeError):
            sys.stderr.write(f"{self.format(record)}\n")


def start_log(*, quiet: bool, debug: bool) -> None:
    """Send the log to standard error, from the level that the options name."""
    logger = logging.getLogger("bakthat")
    logger.setLevel(logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO)
    handler = _Handler()
    handler.setFormatter(_Format("%(message)s"))
    logger.handlers[:] = [handler]
    logger.propagate = False
    # The results of operations, of which the command prints a summary itself.
    logging.getLogger("bakthat.results").disabled = True
