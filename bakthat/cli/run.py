"""Run one command: register the subcommands, and turn what fails into an exit code."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from bakthat.cli.app import app
from bakthat.cli.log import complain
from bakthat.cli.signals import Stopped, hear_signals
from bakthat.errors import BakthatError, NotReadyError, UsageError
from bakthat.system import terminal

FAILED, USAGE, INCOMPLETE, NOT_READY = 1, 2, 3, 4

SUBJECTS = ("backups", "retention", "upkeep", "cold", "configuration")
"""In the order in which ``--help`` lists them."""


def register() -> None:
    """Register every subcommand; again does nothing."""
    for subject in SUBJECTS:
        import_module(f"{__package__}.{subject}")


def run(arguments: Sequence[str]) -> int:
    """Run one command; return its exit code. Prints errors, and raises none of its own."""
    debug = "--debug" in arguments
    try:
        _prepare_streams()
        hear_signals()
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


def _prepare_streams() -> None:
    """Let no name that the terminal cannot show, and no closed stream, stop a command."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
