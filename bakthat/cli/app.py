"""The parser: decorators that register a command and its options; exit codes."""

from __future__ import annotations

import argparse
import contextlib
import enum
import functools
import json
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import aaargh  # type: ignore[import-untyped]  # the library ships no types

import bakthat
from bakthat.cli.log import Summary, print_summary, start_log
from bakthat.errors import UsageError
from bakthat.policy.defaults import DESTINATIONS
from bakthat.system import terminal
from bakthat.system.text import did_you_mean, printable

Command = Callable[..., int | None]
"""Takes its options as keywords; returns an exit code, or None for 0."""

Result = TypeVar("Result")


class ExitCode(enum.IntEnum):
    """The exit code of a command. Scripts depend on these numbers."""

    DONE = 0
    FAILED = 1
    DIFFERENT = 1
    """The trees that ``diff --exit-code`` compared differ."""
    USAGE = 2
    INCOMPLETE = 3
    """Done, but not all of it: files could not be stored or restored as they were."""
    NOT_READY = 4
    """The backup or the list is in cold storage and not ready yet."""
    HUNG_UP = 128 + signal.SIGHUP
    INTERRUPTED = 128 + signal.SIGINT
    TERMINATED = 128 + signal.SIGTERM


class _CommandParser(argparse.ArgumentParser):
    """The parser of a subcommand, where options may also stand between its arguments.

    argparse ends optional arguments at the first option: ``contents NAME --json PATTERN`` would
    have a PATTERN too many.
    """

    _inside = False

    def parse_known_args(  # type: ignore[override]  # typeshed has overloads for the namespace
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse as ``parse_known_intermixed_args``, which calls this in turn."""
        if self._inside or "--" in (args or ()):  # Python 3.11 loses the dashes between two passes
            return super().parse_known_args(args, namespace)
        self._inside = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._inside = False


app = aaargh.App(
    prog="bakthat",
    # argparse would list the names of all commands at each wrong argument.
    usage="bakthat [-h] [--version] [--quiet] [--debug] COMMAND ...",
    description="Back up files as plain archives to S3, Glacier or a local directory.",
    epilog="exit codes: 0 done, 1 failed, 2 usage, 3 backed up or restored but not all of it, "
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
_options: dict[str, set[str]] = {}
"""The long options of each command, by its name or alias."""
_pending_options: set[str] = set()

app._subparsers._parser_class = _CommandParser  # aaargh has no parameter for it
app.arg("--version", action="version", version=f"bakthat {bakthat.__version__}")
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
            _add(flag, **settings)
        dashed = [each.replace("_", "-") for each in (name, *aliases) if "_" in each]
        known = {"--help", *_pending_options}
        _options.update((each, known) for each in (name, *aliases, *dashed))
        _pending_options.clear()
        app.cmd(
            name=name,
            alias=[*aliases, *dashed],
            prog=f"bakthat {name}",
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
    _pending_options.update(flag for flag in flags if flag.startswith("--"))
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


def check_words(arguments: Sequence[str]) -> None:
    """Raise UsageError, with the nearest name as its hint, for an unknown command or option.

    argparse says only what it knows, which is some thirty names.
    """
    words = list(arguments)
    while words and words[0].startswith("-"):
        words.pop(0)
    if not words:
        return
    name, *rest = words
    if name not in _options:
        near = did_you_mean(name, _options)
        raise UsageError(
            f"no command '{printable(name)}'", hint=near or "bakthat --help lists the commands"
        )
    for word in rest[: rest.index("--")] if "--" in rest else rest:
        flag = word.partition("=")[0]
        # argparse takes the beginning of an option for it, and a word with a space for a name.
        if (
            flag.startswith("--")
            and " " not in word
            and not any(each.startswith(flag) for each in _options[name])
        ):
            near = did_you_mean(flag, _options[name])
            raise UsageError(
                f"{name} has no option {printable(flag)}",
                hint=near or f"bakthat {name} --help lists its options",
            )


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


def with_prompt(function: Command) -> Command:
    """Add the option that says whether a password may be asked for."""
    _add("--prompt", default="yes", choices=("yes", "no"), help="no: never ask for a password")
    return function


def with_keys(function: Command) -> Command:
    """Add the options that say where the keys of a backup that is read come from."""
    _add("--identity-file", metavar="FILE", help="age private keys")
    return with_prompt(function)


def print_json(value: object) -> None:
    """Print a value to standard output as JSON. Raises OutputError."""
    _check_output()
    terminal.print_line(json.dumps(value, indent=2, sort_keys=True))


def print_text(text: str) -> None:
    """Print *text*, which ends with a line end, to standard output. Raises OutputError."""
    _check_output()
    terminal.write_bytes(text.encode())


def _check_output() -> None:
    """Raise OutputError if standard output was closed: JSON and scripts are missed."""
    if sys.__stdout__ is None:
        raise terminal.OutputError("cannot write the output: standard output is closed")


def print_json_line(message_type: str, value: Mapping[str, Any]) -> None:
    """Print *value* to standard output as one line of JSON, with its *message_type*.

    Raises OutputError.
    """
    print_json_lines(message_type, [value])


def print_json_lines(message_type: str, values: Iterable[Mapping[str, Any]]) -> None:
    """Print each of *values* as :func:`print_json_line` does, all at once. Raises OutputError."""
    _check_output()
    lines = [json.dumps({"message_type": message_type, **value}) for value in values]
    text = "".join(f"{line}\n" for line in lines)
    # It is ASCII; of DEL, which JSON does not escape, a terminal might make something.
    terminal.write_bytes(text.replace("\x7f", "\\u007f").encode())


def print_result(summary: Summary, output: Callable[[], None] | None = None) -> None:
    """Call *output*, which prints to standard output, and end with the summary.

    When the output cannot be written, only the summary says what was done, so ``--quiet`` does not
    silence it then. Raises OutputError.
    """
    try:
        if output is not None:
            output()
            terminal.flush()  # before the summary, also where both go to one file
    except terminal.OutputError:
        print_summary(summary, always=True)
        raise
    print_summary(summary)


def run_operation(name: str, run: Callable[[], Result], show: Callable[[Result], None]) -> Result:
    """Call *run*, then *show* with its result, and return the result.

    *name* is that of the operation's events. When a callback raises, the operation has been done:
    its result is shown all the same, before the exception propagates.
    """
    results: list[Any] = []

    def remember(_session_id: str, result: Any) -> None:
        results.append(result)

    slot = getattr(bakthat.events, f"on_{name}")
    slot += remember
    try:
        result = run()
    except BaseException:
        if results:
            with contextlib.suppress(terminal.OutputError):
                show(results[0])
        raise
    finally:
        slot -= remember
    show(result)
    return result
