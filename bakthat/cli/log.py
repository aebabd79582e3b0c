"""The log of a command, on standard error; with ``--json`` its warnings are lines of JSON too."""

from __future__ import annotations

import contextlib
import logging
import re
import sys

from bakthat.cli import output
from bakthat.system import file_log, terminal
from bakthat.system.text import printable

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
        return _URL_SECRET.sub("//***@", text)


class _Handler(logging.Handler):
    """Writes to the present ``sys.stderr``, which a progress bar replaces for a while."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if getattr(record, "once", False):  # of a command, which may load its profile twice
            if text in self._said:
                return
            self._said.add(text)
        is_warning = record.levelno >= logging.WARNING
        line = text
        if is_warning:
            level = terminal.styled(sys.stderr, f"{record.levelname.lower()}:", "yellow")
            line = f"bakthat: {level} {text}"
        # A backup goes on when its log cannot be written. RuntimeError: a signal that arrived
        # while a line was written has another one to write.
        with contextlib.suppress(OSError, RuntimeError):
            sys.stderr.write(f"{line}\n")
        if is_warning and output.is_json():
            with contextlib.suppress(terminal.OutputError, RuntimeError):
                output.print_lines("warning", [{"message": text}])


def start_log(*, quiet: bool = False, verbose: bool = False, debug: bool = False) -> None:
    """Send the log to standard error, from the level that the options name.

    *verbose* names each file, which it does also when *quiet*.
    """
    logger = logging.getLogger("bakthat")
    logger.setLevel(logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO)
    handler = _Handler()
    handler.setFormatter(_Format("%(message)s"))
    logger.handlers[:] = [handler]
    logger.propagate = False
    # The results of operations, of which the command prints a summary itself.
    logging.getLogger("bakthat.results").disabled = True
    file_log.log.setLevel(logging.INFO if verbose else logging.WARNING)
