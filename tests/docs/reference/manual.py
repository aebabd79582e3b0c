"""The manual pages: bakthat(1), and one of each command."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from docutils.core import publish_string  # type: ignore[import-untyped]  # ships no types

from bakthat.cli.app import DESCRIPTION, GROUPS, USAGE, Described
from bakthat.cli.exit_codes import EXIT_CODES
from tests.docs.reference import commands, rst

FILES = {
    "~/.bakthat.yml": "the configuration, a YAML file with profiles by name",
    "~/.bakthat.sqlite": "the catalog of what is stored, a cache that bakthat sync makes anew",
    "~/.bakthat_store": "the backups, where nothing is configured",
    "~/.cache/bakthat": "indexes of backups, a cache",
}
ENVIRONMENT = {
    "BAKTHAT_PASSWORD": "the password that encrypts and decrypts backups",
    "BAKTHAT_CONFIG, BAKTHAT_PROFILE": "the configuration file and the profile, as -c and -p",
    "BAKTHAT_KEY": "the value of a key of the profile, such as BAKTHAT_S3_BUCKET for s3_bucket",
    "BAKTHAT_KEY_FILE": "a file with that value",
    "NO_COLOR": "no colours",
}


def pages() -> dict[str, str]:
    """Return the text of each page by the name of its file."""
    found = {"bakthat.1": _program()}
    for described in commands.commands():
        found[f"bakthat-{described.name}.1"] = _command(described)
    return found


def _program() -> str:
    parts = [
        _head("bakthat", DESCRIPTION[0].lower() + DESCRIPTION[1:].rstrip(".")),
        *_part("synopsis", f"**bakthat** {rst.escaped(USAGE.removeprefix('bakthat '))}"),
        *_part(
            "description",
            rst.prose(
                "A backup is one plain file: tar opens mydir.20130604191055.tgz, and age opens "
                "mydir.20130604191055.tgz.age. bakthat is not needed to restore it. Without any "
                "configuration backups go to ~/.bakthat_store."
            ),
        ),
    ]
    for group in GROUPS:
        found = [each for each in commands.commands() if each.group == group]
        pairs = [(f"**bakthat-{each.name}**\\ (1)", commands.sentence(each)) for each in found]
        parts += _part(group, rst.definitions(pairs))
    parts += _part("options", _options(commands.global_options().values()))
    parts += _part("exit status", _codes((int(code), text) for code, text in EXIT_CODES.items()))
    parts += _part("environment", _terms(ENVIRONMENT))
    parts += _part("files", _terms(FILES))
    return _manual(parts)


def _command(described: Described) -> str:
    name, _, rest = commands.usage(described).partition(" [")
    parts = [
        _head(f"bakthat-{described.name}", described.sentence),
        *_part("synopsis", f"**{rst.escaped(name)}** {rst.escaped('[' + rest)}"),
        *_part("description", rst.prose(commands.sentence(described))),
    ]
    parts.append(rst.title("OPTIONS"))
    for heading, actions in commands.sections(described).items():
        parts += [rst.title(heading.capitalize(), "-"), _options(actions)]
    parts += _part("exit status", _codes(commands.codes(described)))
    parts += _part("example", rst.block(described.example))
    parts += _part(
        "see also",
        rst.prose(
            "**bakthat**\\ (1) has the options of every command and the exit codes of wrong usage "
            "and of signals."
        ),
    )
    return _manual(parts)


def _head(name: str, sentence: str) -> str:
    line = "-" * len(sentence)
    return "\n".join(
        [
            "=" * len(name),
            name,
            "=" * len(name),
            line,
            rst.escaped(sentence),
            line,
            "",
            ":Manual section: 1",
            ":Manual group: bakthat",
        ]
    )


def _part(heading: str, *paragraphs: str) -> Iterable[str]:
    return (rst.title(heading.upper()), *paragraphs)


def _options(actions: Iterable[argparse.Action]) -> str:
    return rst.definitions((_bold(action), commands.meaning(action)) for action in actions)


def _bold(action: argparse.Action) -> str:
    """Return how an argument is typed, with its names in bold and its value in italics."""
    terms = []
    for each in commands.term(action).split(", "):
        name, _, value = each.partition(" ")
        is_option = name.startswith("-")
        terms.append(f"**{name}**" if is_option else f"*{name}*")
        terms[-1] += f" *{value}*" if value else ""
    return ", ".join(terms)


def _codes(codes: Iterable[tuple[int, str]]) -> str:
    return rst.definitions((f"**{code}**", rst.escaped(text)) for code, text in codes)


def _terms(texts: dict[str, str]) -> str:
    return rst.definitions(
        (f"**{rst.escaped(term)}**", rst.escaped(text)) for term, text in texts.items()
    )


def _manual(parts: Iterable[str]) -> str:
    """Return a manual page of reStructuredText in the language of man."""
    settings = {"report_level": 2, "halt_level": 2, "output_encoding": "unicode"}
    text: str = publish_string(rst.page(*parts), writer="manpage", settings_overrides=settings)
    return text
