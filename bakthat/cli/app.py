"""The parser: decorators that register a command and its options."""

from __future__ import annotations

import argparse
import contextlib
import functools
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

import aaargh  # type: ignore[import-untyped]  # the library ships no types

import bakthat
from bakthat.cli import output
from bakthat.cli.exit_codes import ExitCode
from bakthat.cli.log import start_log
from bakthat.errors import UsageError
from bakthat.system import terminal, text
from bakthat.system.text import did_you_mean, printable

Command = Callable[..., int | None]
"""Takes its options as keywords; returns an exit code, or None for 0."""

Result = TypeVar("Result")


DAILY, LOOKING, UPKEEP, COLD, SETUP = GROUPS = (
    "Every day",
    "Look into backups",
    "Upkeep",
    "Cold storage",
    "Set up",
)
"""The groups of the list of commands."""


class Described(NamedTuple):
    """What the help, the reference and completion know of a command."""

    name: str
    aliases: tuple[str, ...]
    group: str
    sentence: str
    """What it does; begins in lower case and has no full stop."""
    example: str
    exits: Mapping[int, str]
    """What its exit codes mean, besides those of wrong usage and of signals."""
    parser: argparse.ArgumentParser
    sections: Mapping[str, Sequence[argparse.Action]]
    """Its arguments by the headings of its help, in order."""


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
        if self._inside:
            return super().parse_known_args(args, namespace)
        # Python 3.11 loses the dashes between two passes.
        has_dashes = "--" in (args or ())
        parse = super().parse_known_args if has_dashes else self.parse_known_intermixed_args
        self._inside = True
        try:
            found, others = parse(args, namespace)
        finally:
            self._inside = False
        if others:  # the program's parser would print its usage with the error
            self.error(
                f"it does not take {' '.join(map(shlex.quote, others))}",
                "; a value with spaces needs quotes",
            )
        return found, others

    def error(self, message: str, more_hint: str = "") -> NoReturn:
        """Raise UsageError: it is printed as every error is, and has no list of all options."""
        raise UsageError(
            f"{self.prog.removeprefix('bakthat ')}: {message}",
            hint=f"{self.prog} --help shows what it takes{more_hint}",
        )


class _PrintCommands(argparse.Action):
    """``--help`` of the program: argparse would list aliases too, and no groups."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print the commands, and exit."""
        terminal.print_line(_list_of_commands())
        parser.exit()


USAGE = "bakthat [OPTION ...] COMMAND ..."
DESCRIPTION = "Back up files as plain archives to S3, Glacier or a local directory."

_GLOBAL_OPTIONS: dict[str, dict[str, Any]] = {
    # These options may stand before or after the subcommand. They have no default, since the
    # default of one parser would overwrite the value from the other.
    "--json": {
        "action": "store_true",
        "default": argparse.SUPPRESS,
        "help": "print JSON lines, for programs",
    },
    "--quiet": {
        "action": "store_true",
        "default": argparse.SUPPRESS,
        "help": "only warnings and errors",
    },
    "-v --verbose": {
        "action": "store_true",
        "default": argparse.SUPPRESS,
        "help": "name each file, and say why one is left out",
    },
    "--debug": {
        "action": "store_true",
        "default": argparse.SUPPRESS,
        "help": "log more, and show the traceback of an error",
    },
    "--local-time": {
        "action": "store_true",
        "default": argparse.SUPPRESS,
        "help": "show times in the local zone, not in UTC",
    },
}
_PROGRAM_FLAGS = {"-h", "--help", "--version", *" ".join(_GLOBAL_OPTIONS).split()}
_commands: dict[str, Described] = {}
"""The commands by their names, in the order in which they are listed."""
_options: dict[str, set[str]] = {}
"""The long options of each command, by its name or alias."""
_pending: list[tuple[str, tuple[str, ...], dict[str, Any]]] = []
"""The arguments of the command that is registered next: their section, flags and settings."""

ARGUMENTS, SELECTION, KEYS, CONFIGURATION, OUTPUT = (
    "arguments",
    "which backups",
    "keys",
    "where",
    "output",
)
"""Sections of the help of many commands."""
OPTIONS = "options"

PROGRAM_OPTIONS = argparse.ArgumentParser(add_help=False)
"""A parser of what may stand before the name of a command, and of nothing else."""

PROGRAM_OPTIONS.add_argument(
    "-h", "--help", action=_PrintCommands, nargs=0, default=argparse.SUPPRESS, help="show this list"
)
PROGRAM_OPTIONS.add_argument(
    "--version",
    action="version",
    version=f"bakthat {bakthat.__version__}",
    help="show the version",
)
for _flags, _settings in _GLOBAL_OPTIONS.items():
    PROGRAM_OPTIONS.add_argument(*_flags.split(), **_settings)

# argparse would list the names of all commands at each wrong argument.
app = aaargh.App(
    prog="bakthat",
    usage=USAGE,
    description=DESCRIPTION,
    add_help=False,
    parents=[PROGRAM_OPTIONS],
)
_PARSER: argparse.ArgumentParser = app._parser  # aaargh keeps it to itself
_SUBPARSERS: Any = app._subparsers  # nor has it groups of arguments, or a parameter for the class
_SUBPARSERS._parser_class = _CommandParser


def command(
    name: str,
    sentence: str,
    *,
    group: str,
    example: str,
    exits: Mapping[int, str] | None = None,
    aliases: Sequence[str] = (),
    is_file: bool = False,
) -> Callable[[Command], Command]:
    """Register a function as a subcommand, with the options that all subcommands have.

    *sentence* says what it does, *example* is a whole command line, and *exits* say what its exit
    codes mean where that is not "done" and "failed". The standard output of a command that
    *is_file* cannot be JSON.
    """

    def register(function: Command) -> Command:
        @functools.wraps(function)
        def with_output(
            *,
            json: bool = False,
            quiet: bool = False,
            verbose: bool = False,
            debug: bool = False,
            local_time: bool = False,
            **arguments: Any,
        ) -> int | None:
            if json and is_file:
                raise UsageError(
                    f"{name} takes no --json: its output is a file", hint="leave --json out"
                )
            from bakthat.conf import remember_pipes  # --help does without

            remember_pipes()
            output.start(name, json=json, quiet=quiet)
            start_log(quiet=quiet, verbose=verbose, debug=debug)
            text.show_local_time(local_time)
            return function(**arguments)

        arguments = _take_pending(with_json=not is_file)
        dashed = [each.replace("_", "-") for each in (name, *aliases) if "_" in each]
        codes = {ExitCode.DONE: "done", ExitCode.FAILED: "failed", **(exits or {})}
        app.cmd(
            name=name,
            alias=[*aliases, *dashed],
            prog=f"bakthat {name}",
            usage=f"bakthat {name} [OPTION ...]{_usage(arguments)}",
            help=sentence,
            description=f"{sentence[0].upper()}{sentence[1:]}.",
            epilog=f"example:\n  {example}\n\nexit codes:\n{_exit_lines(codes)}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
        )(with_output)
        parser: argparse.ArgumentParser = _SUBPARSERS.choices[name]
        sections = _add_sections(parser, arguments)
        _commands[name] = Described(
            name, (*aliases, *dashed), group, sentence, example, codes, parser, sections
        )
        known = {flag for _, flags, _ in arguments for flag in flags if flag.startswith("--")}
        _options.update((each, known) for each in (name, *aliases, *dashed))
        return function

    return register


def option(*flags: str, section: str = "", **settings: Any) -> Callable[[Command], Command]:
    """Add an argument to the subcommand that is registered next.

    *section* is its heading in the help. The value of an option must not be empty, unless its
    default is "".
    """

    def unchanged(function: Command) -> Command:
        return function

    takes_value = settings.get("action") in (None, "append")
    is_option = flags[0].startswith("-")
    if is_option and takes_value and settings.get("default") != "":
        settings.setdefault("type", _given)
    _pending.append((section or (OPTIONS if is_option else ARGUMENTS), flags, settings))
    return unchanged


def _take_pending(*, with_json: bool) -> list[tuple[str, tuple[str, ...], dict[str, Any]]]:
    """Return the arguments of the command that is being registered, with those of all."""
    for flags, settings in _GLOBAL_OPTIONS.items():
        if with_json or flags != "--json":
            option(*flags.split(), section=OUTPUT, **settings)
    option(
        "-h",
        "--help",
        section=OUTPUT,
        action="help",
        default=argparse.SUPPRESS,
        help="show this help",
    )
    arguments = sorted(_pending, key=lambda each: _rank(each[0]))
    _pending.clear()
    return arguments


def _rank(section: str) -> int:
    """Return the place of a section in the help; a command's own are behind its arguments."""
    common = (ARGUMENTS, "", SELECTION, KEYS, CONFIGURATION, OUTPUT)
    return common.index(section if section in common else "")


def _add_sections(
    parser: argparse.ArgumentParser,
    arguments: Sequence[tuple[str, tuple[str, ...], dict[str, Any]]],
) -> dict[str, list[argparse.Action]]:
    sections: dict[str, list[argparse.Action]] = {}
    groups: dict[str, Any] = {}
    for section, flags, settings in arguments:
        if section not in groups:
            groups[section] = parser.add_argument_group(section)
        sections.setdefault(section, []).append(groups[section].add_argument(*flags, **settings))
    return sections


def _usage(arguments: Sequence[tuple[str, tuple[str, ...], dict[str, Any]]]) -> str:
    """Return the arguments of a usage line, without the options."""
    words = ""
    for section, (flag, *_), settings in arguments:
        if section == ARGUMENTS:
            word = settings.get("metavar", flag)
            shape = {"?": " [{0}]", "*": " [{0} ...]", "+": " {0} [{0} ...]"}
            words += shape.get(settings.get("nargs", ""), " {0}").format(word)
    return words


def _exit_lines(codes: Mapping[int, str]) -> str:
    return "\n".join(f"  {code:<3} {meaning}" for code, meaning in sorted(codes.items()))


def described_commands() -> Iterator[Described]:
    """Yield the commands in the order of the list."""
    for group in GROUPS:
        yield from (each for each in _commands.values() if each.group == group)


def program_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole program."""
    return _PARSER


def _list_of_commands() -> str:
    lines = [f"usage: {USAGE}", "", DESCRIPTION]
    for group in GROUPS:
        found = [each for each in described_commands() if each.group == group]
        if found:
            width = max(len(each.name) for each in found)
            lines += ["", f"{group}:", *(f"  {x.name:<{width}}  {x.sentence}" for x in found)]
    return "\n".join([*lines, "", *_list_of_options(), "", *_last_lines()])


def _list_of_options() -> list[str]:
    flags = {
        "-h, --help": "show this list",
        "--version": "show the version",
        **{", ".join(key.split()): value["help"] for key, value in _GLOBAL_OPTIONS.items()},
    }
    width = max(map(len, flags))
    return ["Options:", *(f"  {name:<{width}}  {what}" for name, what in flags.items())]


def _last_lines() -> list[str]:
    return [
        "First: bakthat backup DIRECTORY, then bakthat restore NAME; no account needed.",
        "bakthat COMMAND --help shows its options, an example and its exit codes.",
    ]


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
        flag = words.pop(0)
        if flag not in _PROGRAM_FLAGS:
            near = did_you_mean(flag, _PROGRAM_FLAGS) if flag.startswith("--") else ""
            raise UsageError(
                f"no option {printable(flag)} before the command",
                hint=near or "bakthat --help lists the options",
            )
        if flag in ("-h", "--help", "--version"):
            return
    if not words:
        raise UsageError("no command was given", hint="bakthat --help lists the commands")
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
