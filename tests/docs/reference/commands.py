"""The commands: their arguments, examples and exit codes, for the page and the manual pages."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator, Mapping

from bakthat.cli.app import GROUPS, Described, described_commands, program_parser
from tests.docs.reference import rst

importlib.import_module("bakthat.cli.run")  # it registers the commands


PICTURE = """.. image:: /pictures/help.svg
   :alt: The list of the commands in groups that bakthat --help prints; the tables below have the
         same.
   :width: 100%"""


def commands() -> list[Described]:
    """Return all commands in the order of ``bakthat --help``."""
    return list(described_commands())


def page() -> str:
    """Return ``docs/reference/commands.rst``."""
    parts = [
        rst.NOTICE,
        rst.title("Commands"),
        rst.prose(
            "``bakthat --help`` lists the commands, and ``bakthat COMMAND --help`` shows what this "
            "page says of one. An option may stand before or after the arguments, and the ones of "
            "every command also before its name. ``man bakthat`` and ``man "
            "bakthat-restore`` show the same after ``pipx install``; uv leaves the manual pages "
            'where ``man -M "$(uv tool dir)/bakthat/share/man" bakthat`` finds them.'
        ),
        PICTURE,
    ]
    for group in GROUPS:
        found = [each for each in commands() if each.group == group]
        rows = [(f":ref:`{each.name} <{label(each)}>`", each.sentence) for each in found]
        parts += [rst.title(group, "-"), rst.table(("command", "what it does"), rows, (3, 7))]
        for described in found:
            parts += _section(described)
    parts += [
        ".. program:: bakthat",
        ".. _global-options:",
        rst.title("Options of every command", "-"),
        *(_option(action) for action in global_options().values()),
    ]
    return rst.page(*parts)


def label(described: Described) -> str:
    """Return the name by which other pages refer to a command."""
    return f"bakthat-{described.name}"


def _section(described: Described) -> Iterator[str]:
    yield f".. _{label(described)}:"
    yield f".. program:: bakthat {described.name}"
    yield rst.title(described.name, "~")
    yield rst.prose(sentence(described))
    yield rst.block(usage(described))
    for heading, actions in sections(described).items():
        yield f".. rubric:: {heading.capitalize()}"
        yield from map(_option, actions)
    yield rst.prose("Example:")[:-1] + rst.block(described.example)
    yield "Exit codes (:ref:`all of them <exit-codes>`):"
    yield rst.definitions((str(int(code)), exits) for code, exits in codes(described))


def sentence(described: Described) -> str:
    """Return what a command does, and its other names, as sentences."""
    text = f"{described.sentence[0].upper()}{described.sentence[1:]}."
    if described.aliases:
        text += f" Also {', '.join(map(rst.literal, described.aliases))}."
    return text


def usage(described: Described) -> str:
    """Return the line that says how a command is typed."""
    return described.parser.format_usage().removeprefix("usage: ").strip()


def sections(described: Described) -> Mapping[str, list[argparse.Action]]:
    """Return the arguments of a command by headings, without the options of every command."""
    shared = global_options()
    found = {
        heading: [each for each in actions if _name(each) not in shared]
        for heading, actions in described.sections.items()
    }
    return {heading: actions for heading, actions in found.items() if actions}


def codes(described: Described) -> list[tuple[int, str]]:
    """Return the exit codes of a command, and what they mean."""
    return sorted(described.exits.items())


def global_options() -> dict[str, argparse.Action]:
    """Return the options that every command takes, by their last names."""
    return {_name(action): action for action in program_parser()._actions if action.option_strings}


def _name(action: argparse.Action) -> str:
    return action.option_strings[-1] if action.option_strings else action.dest


def term(action: argparse.Action) -> str:
    """Return how an argument is typed: ``-d WHERE, --destination WHERE``."""
    if not action.option_strings:
        return str(action.metavar or action.dest)
    return ", ".join(f"{flag}{_value(action)}" for flag in action.option_strings)


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.metavar:
        return f" {action.metavar}"
    if action.choices is not None:
        return f" {{{','.join(map(str, action.choices))}}}"
    return f" {action.dest.upper()}"


def meaning(action: argparse.Action) -> str:
    """Return what an argument is for, as a sentence without its full stop."""
    text = (action.help or "") % {**vars(action), "prog": "bakthat"}
    return rst.escaped(text)


def _option(action: argparse.Action) -> str:
    return f".. option:: {term(action)}\n\n{rst.prose(meaning(action), '   ')}"
