"""The log and the errors of a command, on standard error."""

from __future__ import annotations

import contextlib
import logging
import re
import sys

from bakthat.system.text import printable


def print_error(message: str, hint: str = "") -> None:
    """Print an error, and a hint if there is one, to standard error."""
    lines = [f"bakthat: error: {printable(message)}"]
    if hint:
        lines.append(f"bakthat: hint: {printable(hint)}")
    with contextlib.suppress(OSError):
        sys.stderr.write("\n".join(lines) + "\n")


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
