"""Run one command, and turn errors into exit codes. Importing it registers the subcommands."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Sequence

from bakthat.cli import output
from bakthat.cli.app import app, check_words
from bakthat.cli.exit_codes import ExitCode
from bakthat.cli.output import print_error
from bakthat.cli.signals import Stopped, end_by_signals, handle_signals
from bakthat.errors import BakthatError, LockedError, NotReadyError, UsageError
from bakthat.system import terminal
from bakthat.system.text import shortage_error

# A module registers its commands when it is imported, and --help lists them in that order.
# isort: off
from bakthat.cli.commands import backup
from bakthat.cli.commands.jobs import run as jobs
from bakthat.cli.commands import restore
from bakthat.cli.commands import show
from bakthat.cli.commands import retention
from bakthat.cli.commands import browse
from bakthat.cli.commands.storage import hold
from bakthat.cli.commands import upkeep
from bakthat.cli.commands.storage import undelete
from bakthat.cli.commands import cold
from bakthat.cli.commands import configuration
from bakthat.cli.commands import diagnosis
from bakthat.cli.commands.storage import policy
from bakthat.cli.commands.jobs import schedule
from bakthat.cli.commands.monitoring import report
from bakthat.cli.commands.monitoring import status
# isort: on

SUBJECTS = (
    backup,
    jobs,
    restore,
    show,
    status,
    retention,
    browse,
    hold,
    upkeep,
    undelete,
    cold,
    configuration,
    diagnosis,
    policy,
    schedule,
    report,
)
"""The modules of commands, in the order in which ``--help`` lists them."""


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; errors are printed, not raised."""
    try:
        _prepare_streams()
        handle_signals()
        return _run(arguments)
    except Stopped as exc:
        end_by_signals()
        print_error(exc.word, *_notes(exc), kind="Stopped")
        return ExitCode(128 + exc.number)


def _run(arguments: Sequence[str]) -> int:
    debug = "--debug" in arguments
    output.start(json="--json" in arguments)
    try:
        check_words(arguments)
        try:
            code: int | None = app.run(list(arguments))
        except SystemExit as exc:  # argparse: --help, or an invalid argument
            code = exc.code if isinstance(exc.code, int) else ExitCode.USAGE
        terminal.flush()
        return code or ExitCode.DONE
    except BakthatError as exc:
        if debug:
            logging.getLogger("bakthat").exception("the traceback of the error")
        print_error(str(exc), exc.hint, *_notes(exc), kind=_public_name(exc))
        return _exit_code(exc)
    except terminal.OutputError as exc:
        # Otherwise Python flushes it at exit, fails again, and prints a traceback.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # until the process ends
        # A reader that stops reading, as head does, is not a failure to report.
        if not isinstance(exc.__cause__, BrokenPipeError):
            print_error(str(exc))
        return ExitCode.FAILED
    except Exception as exc:
        if debug:
            raise
        shortage = shortage_error(exc)
        if shortage is not None:
            print_error(str(shortage), shortage.hint, kind=type(shortage).__name__)
            return ExitCode.FAILED
        print_error(
            f"unexpected {type(exc).__name__}: {exc}",
            f"{'; '.join(_notes(exc)) or 'this is a defect in bakthat'}; --debug shows where",
            kind=type(exc).__name__,
        )
        return ExitCode.FAILED


def _public_name(exc: BakthatError) -> str:
    """Return the name of the first class of an exception that is in :mod:`bakthat.errors`."""
    module = BakthatError.__module__
    return next(each.__name__ for each in type(exc).__mro__ if each.__module__ == module)


def _notes(exc: BaseException) -> list[str]:
    """Return the notes of an exception: the callback that raised it, and what was done before."""
    return list(getattr(exc, "__notes__", ()))


def _exit_code(exc: BakthatError) -> ExitCode:
    if isinstance(exc, UsageError):
        return ExitCode.USAGE
    if isinstance(exc, LockedError):
        return ExitCode.LOCKED
    return ExitCode.NOT_READY if isinstance(exc, NotReadyError) else ExitCode.FAILED


def _prepare_streams() -> None:
    """Make a closed stream, or a name that the terminal cannot show, no error."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
