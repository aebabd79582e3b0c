"""The command line: arguments, questions, progress, and what each failure exits with.

Exit codes: 0 done, 1 failed, 2 usage, 3 backed up, but some files could not be read as they
were, 4 not ready yet (cold storage), 129 hung up, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import aaargh  # type: ignore[import-untyped]  # the library ships no types

from bakthat import __version__, terminal
from bakthat.errors import BakthatError, NotReadyError, UsageError
from bakthat.naming import printable

FAILED, USAGE, INCOMPLETE, NOT_READY = 1, 2, 3, 4

CLEANING_SECONDS = 2.0
"""For how long after a signal another one is not heard: Ctrl-C is often pressed twice, and what
the first one stopped is being cleaned up."""

RETRY_SECONDS = 0.01
"""When a signal that came where no exception can pass is tried again."""

Command = Callable[..., int | None]

app = aaargh.App(
    prog="bakthat",
    description="Back up files as plain archives to S3, Glacier or a local directory.",
    epilog="exit codes: 0 done, 1 failed, 2 usage, 3 some files could not be read, "
    "4 not ready yet (cold storage), 129 hung up, 130 interrupted, 143 terminated",
)
_GLOBAL_OPTIONS: dict[str, dict[str, Any]] = {
    # Before and after the subcommand; without a default, so that one does not undo the other.
    "--quiet": {
        "action": "store_true",
        "default": argparse.SUPPRESS,
        "help": "only warnings and errors",
    },
    "--debug": {
        "action": "store_true",
        "default": argparse.SUPPRESS,
        "help": "say more; show where an error arose",
    },
}
app.arg("--version", action="version", version=f"bakthat {__version__}")
for _flag, _settings in _GLOBAL_OPTIONS.items():
    app.arg(_flag, **_settings)


class Stopped(KeyboardInterrupt):
    """A signal arrived; unwinds like Ctrl-C, so that nothing half-made stays behind."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.exit_code = 128 + number
        self.word = _SIGNAL_WORDS[number]


_SIGNAL_WORDS: dict[int, str] = {
    signal.SIGHUP: "hung up",
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
}


def run(arguments: Sequence[str]) -> int:
    """Run one command; return its exit code. Prints errors, and raises none of its own."""
    debug = "--debug" in arguments
    try:
        _prepare_streams()
        _hear_signals()
        code: int | None = app.run(list(arguments))
        terminal.flush()
        return code or 0
    except SystemExit as exc:  # argparse: --help, or an argument it refuses
        return exc.code if isinstance(exc.code, int) else USAGE
    except BakthatError as exc:
        if debug:
            logging.getLogger("bakthat").exception("the failure in full")
        complain(str(exc), exc.hint or _origin(exc))
        return _exit_code(exc)
    except Stopped as exc:
        complain(exc.word)
        return exc.exit_code
    except terminal.OutputError as exc:
        # Python must not complain at its exit either.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # until the process ends
        if not isinstance(exc.__cause__, BrokenPipeError):  # else the reader has seen enough
            complain(str(exc))
        return FAILED
    except Exception as exc:
        if debug:
            raise
        complain(
            f"unexpected {type(exc).__name__}: {exc}",
            f"{_origin(exc) or 'this is a defect in bakthat'}; --debug shows where",
        )
        return FAILED


def _origin(exc: BaseException) -> str:
    """Say which callback an exception is from; "" when it is from none."""
    return "; ".join(getattr(exc, "__notes__", ()))


def _exit_code(exc: BakthatError) -> int:
    if isinstance(exc, UsageError):
        return USAGE
    return NOT_READY if isinstance(exc, NotReadyError) else FAILED


def _hear_signals() -> None:
    """Let SIGINT, SIGTERM and SIGHUP stop the command, and none of them its cleaning up."""
    stopper = _Stopper()
    for number in _SIGNAL_WORDS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, stopper.stop)
    signal.signal(signal.SIGALRM, stopper.repeat)
    sys.unraisablehook = stopper.hear_swallowed


class _Stopper:
    """Turns a signal into an exception where one can pass, and tries again where none can."""

    def __init__(self) -> None:
        self._last = -CLEANING_SECONDS
        self._waiting: int | None = None

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Raise Stopped, unless another signal has just done so."""
        if time.monotonic() - self._last < CLEANING_SECONDS:
            return
        if frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
            # Inside of the import machinery an exception may leave its lock held for ever, on
            # which every other thread that imports then waits.
            self._wait(number)
            return
        self._last = time.monotonic()
        raise Stopped(number)

    def repeat(self, _number: int, _frame: FrameType | None) -> None:
        """Send again the signal that could not do its work, to whoever hears it now."""
        number, self._waiting = self._waiting, None
        if number is not None:
            signal.raise_signal(number)

    def hear_swallowed(self, unraisable: sys.UnraisableHookArgs, /) -> None:
        """Try again when Stopped was raised where Python drops exceptions, as in ``__del__``."""
        if isinstance(unraisable.exc_value, Stopped):
            self._last = -CLEANING_SECONDS
            self._wait(unraisable.exc_value.number)
        else:
            sys.__unraisablehook__(unraisable)

    def _wait(self, number: int) -> None:
        self._waiting = number
        signal.setitimer(signal.ITIMER_REAL, RETRY_SECONDS)


def _prepare_streams() -> None:
    """Let no name that the terminal cannot show, and no closed stream, stop a command."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def complain(message: str, hint: str = "") -> None:
    """Print an error, and a hint if there is one, to standard error."""
    lines = [f"bakthat: error: {printable(message)}"]
    if hint:
        lines.append(f"bakthat: hint: {printable(hint)}")
    with contextlib.suppress(OSError):
        sys.stderr.write("\n".join(lines) + "\n")


_URL_SECRET = re.compile(r"//[^/@\s]+@")
"""User and password in an address, which the exceptions of libraries repeat."""


class _Format(logging.Formatter):
    """0.6.0's plain lines; what is a warning or worse says so."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        return printable(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        # Names of files and keys are escaped where they are told; whatever was missed, a foreign
        # exception's words among it, reaches no terminal raw either.
        text = "\n".join(map(printable, super().format(record).split("\n")))
        if record.levelno >= logging.WARNING:
            text = f"bakthat: {record.levelname.lower()}: {text}"
        return _URL_SECRET.sub("//***@", text)


class _Handler(logging.Handler):
    """Writes to whatever standard error is now: a progress bar takes its place for a while."""

    def emit(self, record: logging.LogRecord) -> None:
        # A backup goes on when its log cannot be written.
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{self.format(record)}\n")


def _start_log(*, quiet: bool, debug: bool) -> None:
    logger = logging.getLogger("bakthat")
    logger.setLevel(logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO)
    handler = _Handler()
    handler.setFormatter(_Format("%(message)s"))
    logger.handlers[:] = [handler]
    logger.propagate = False


def command(
    name: str, help_text: str, *, aliases: Sequence[str] = ()
) -> Callable[[Command], Command]:
    """Make a function a subcommand with the options that all of them share."""

    def register(function: Command) -> Command:
        @functools.wraps(function)
        def with_log(*, quiet: bool = False, debug: bool = False, **arguments: Any) -> int | None:
            _start_log(quiet=quiet, debug=debug)
            return function(**arguments)

        for flag, settings in _GLOBAL_OPTIONS.items():
            app.cmd_arg(flag, **settings)
        dashed = [each.replace("_", "-") for each in (name, *aliases) if "_" in each]
        app.cmd(
            name=name,
            alias=[*aliases, *dashed],
            help=help_text,
            description=f"{help_text[0].upper()}{help_text[1:]}.",
        )(with_log)
        return function

    return register


def option(*flags: str, **settings: Any) -> Callable[[Command], Command]:
    """Add an argument to the subcommand that is registered next."""

    def remember(function: Command) -> Command:
        return function

    app.cmd_arg(*flags, **settings)
    return remember


def with_profile(function: Command) -> Command:
    """Add the options that say which profile is meant."""
    app.cmd_arg("-p", "--profile", default="default", help="profile of the configuration")
    app.cmd_arg("-c", "--config", metavar="FILE", help="configuration file (~/.bakthat.yml)")
    return function


def with_destination(function: Command) -> Command:
    """Add the option that says where a backup is."""
    app.cmd_arg("-d", "--destination", metavar="WHERE", help="s3, glacier or local")
    return function


def with_host(function: Command) -> Command:
    """Add the option that says whose backup is meant."""
    app.cmd_arg("--host", help="only backups that this host made")
    return function


@contextmanager
def progress_bar(
    label: str, *, counts_bytes: bool = True
) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar on a terminal; elsewhere give None, so that the percentages are logged.

    It counts bytes, or else things.
    """
    visible = logging.getLogger("bakthat").isEnabledFor(logging.INFO)
    if not (visible and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    counting = (
        (DownloadColumn(), TransferSpeedColumn()) if counts_bytes else (MofNCompleteColumn(),)
    )
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *counting,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(label, total=None)

    def show(done: int, total: int) -> None:
        bar.start()  # not before there is something to show: a password may be asked for first
        bar.update(task, completed=min(done, total), total=total)

    try:
        yield show
    finally:
        bar.stop()


def print_json(value: object) -> None:
    """Print a value to standard output as JSON."""
    terminal.print_line(json.dumps(value, indent=2, sort_keys=True))
