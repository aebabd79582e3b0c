"""Every ``bakthat`` command line that the documentation or a hint shows can be typed."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from bakthat.cli.app import check_words, program_parser
from bakthat.errors import UsageError
from tests.docs import command_lines
from tests.docs.command_lines import CommandLine
from tests.support.commandline import PROJECT

importlib.import_module("bakthat.cli.run")  # it registers the commands


def problem_of(found: CommandLine, capsys: pytest.CaptureFixture[str]) -> str:
    """Return why the real parser refuses a command line, or nothing."""
    if found.words[0].isupper():  # COMMAND
        return ""
    try:
        check_words(found.words)
    except UsageError as exc:
        return str(exc)
    if found.is_whole:
        try:
            program_parser().parse_args(found.words)
        except UsageError as exc:
            return str(exc)
        except SystemExit as exc:
            return capsys.readouterr().err if exc.code else ""
    return ""


def problems(
    lines: Iterator[CommandLine], capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[str]]:
    found = [(line, problem_of(line, capsys)) for line in lines]
    return len(found), [
        f"{line.place}: bakthat {' '.join(line.words)}: {problem}"
        for line, problem in found
        if problem
    ]


@pytest.mark.parametrize(
    "page", command_lines.PAGES, ids=lambda each: str(each.relative_to(PROJECT))
)
def test_the_command_lines_of_a_page_can_be_typed(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, wrong = problems(command_lines.of_page(page), capsys)
    assert wrong == []


def test_the_command_lines_of_docstrings_and_hints_can_be_typed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = (line for module in command_lines.MODULES for line in command_lines.of_module(module))
    count, wrong = problems(lines, capsys)
    assert wrong == []
    assert count > 30


def test_there_are_many_of_them() -> None:
    lines = [line for page in command_lines.PAGES for line in command_lines.of_page(page)]
    assert len(lines) > 100
    assert sum(line.is_whole for line in lines) > 40


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("So ``bakthat bakcup`` it", "no command 'bakcup'"),
        ("Try::\n\n    bakthat show --tag x --nonsense\n", "show has no option --nonsense"),
        (".. code-block:: console\n\n    $ sudo bakthat check --sample\n", "expected one argument"),
        ("In a file::\n\n    0 3 * * * root /usr/bin/bakthat backup a b > x\n", "does not take b"),
        ("Words::\n\n    bakthat restore \\\n      --days many NAME\n", ""),
        (".. code-block:: console\n   :class: old-version\n\n   $ bakthat bakcup\n", ""),
        (".. code-block:: console\n\n   $ bakthat show\n   bakthat shown\n", ""),
        (".. code-block:: console\n\n   web$ bakthat shwo\n   bakthat x\n", "no command 'shwo'"),
        ("Run ``pipx install bakthat sync`` and ``bakthat COMMAND --help``", ""),
        ("As::\n\n    podman build -t bakthat -f File .\n    podman run --rm bakthat shw\n", "shw"),
    ],
)
def test_what_cannot_be_typed_is_found(
    text: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, wrong = problems(command_lines.of_text("page", text), capsys)
    assert len(wrong) == bool(problem), wrong
    assert problem in "".join(wrong)
