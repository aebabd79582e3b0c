"""The parser: decorators that register a command and its options; exit codes."""

from __future__ import annotations

import argparse
import enum
import functools
import json
import signal
from collections.abc import Callable, Sequence
from typing import Any

import aaargh  # type: ignore[import-untyped]  # the library ships no types

from bakthat import __version__
from bakthat.cli.log import start_log
from bakthat.policy.defaults import DESTINATIONS
from bakthat.system import terminal

Command = Callable[..., int | None]
"""Takes its options as keywords; returns an exit code, or None for 0."""


class ExitCode(enum.IntEnum):
    """The exit code of a command. Scripts depend on these numbers."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    INCOMPLETE = 3
    """Backed up, but some files could not be read as they were."""
    NOT_READY = 4
    """The backup or the list is in cold storage and not ready yet."""
    HUNG_UP = 128 + signal.SIGHUP
    INTERRUPTED = 128 + signal.SIGINT
    TERMINATED = 128 + signal.SIGTERM


app = aaargh.App(
    prog="bakthat",
    description="Back up files as plain archives to S3, Glacier or a local directory.",
    epilog="exit codes: 0 done, 1 failed, 2 usage, 3 some files could not be read, "
    "4 not ready yet (cold storage), 129 hung up, 130 interrupted, 143 terminated",
)
_GLOBAL_OPTIONS: dict[str, dict[str, Any]] = {
    # These options may stand before or after the subcommand. They have no default, since the
    # default of one parser would overwrite the value from the other.
    "--quiet": {
        "action": "store_true",
        "default": argparse.SUPPRESS,
        "help": "only warnings and errors",
    },
    "--debug": {
        "action": "store_true",
        "default": argparse.SUPPRESS,
        "help": "log more, and show the traceback of an error",
    },
}
app.arg("--version", action="version", version=f"bakthat {__version__}")
for _flag, _settings in _GLOBAL_OPTIONS.items():
    app.arg(_flag, **_settings)


def command(
    name: str, help_text: str, *, aliases: Sequence[str] = ()
) -> Callable[[Command], Command]:
    """Register a function as a subcommand, with the options that all subcommands have."""

    def register(function: Command) -> Command:
        @functools.wraps(function)
        def with_log(*, quiet: bool = False, debug: bool = False, **arguments: Any) -> int | None:
            start_log(quiet=quiet, debug=debug)
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
    """Add an argument to the subcommand that is registered next.

    The value of an option must not be empty, unless its default is "".
    """

    def unchanged(function: Command) -> Command:
        return function

    _add(*flags, **settings)
    return unchanged


def _add(*flags: str, **settings: Any) -> None:
    takes_value = settings.get("action") in (None, "append")
    if flags[0].startswith("-") and takes_value and settings.get("default") != "":
        settings.setdefault("type", _given)
    app.cmd_arg(*flags, **settings)


def _given(value: str) -> str:
    """Return a value that is not empty.

    An empty one is a mistake of a script, which must not get the default instead.
    """
    if not value:
        raise argparse.ArgumentTypeError("the value is empty; is a variable of a script not set?")
    return value


def with_profile(function: Command) -> Command:
    """Add the options that select the profile."""
    _add("-p", "--profile", default="default", help="profile of the configuration")
    _add("-c", "--config", metavar="FILE", help="configuration file (~/.bakthat.yml)")
    return function


def with_destination(function: Command) -> Command:
    """Add the option that selects the destination."""
    _add("-d", "--destination", metavar="WHERE", help=", ".join(DESTINATIONS))
    return function


def with_host(function: Command) -> Command:
    """Add the option that selects the host."""
    _add("--host", help="only backups made by HOST")
    return function


def with_source(function: Command) -> Command:
    """Add the option that selects one of several sets of the same name."""
    _add("--source", metavar="PATH", help="only backups of this file or directory")
    return function


def print_json(value: object) -> None:
    """Print a value to standard output as JSON."""
    terminal.print_line(json.dumps(value, indent=2, sort_keys=True))
