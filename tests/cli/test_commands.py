"""Every command takes exactly the options that its parser gives it."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from bakthat.cli import run  # noqa: F401  # registers the commands
from bakthat.cli.app import app, check_words
from bakthat.errors import UsageError
from tests.support.commandline import CommandLine

PARSERS = app._subparsers.choices
EVERYWHERE = {"help", "json", "quiet", "verbose", "debug", "local_time"}


@pytest.mark.parametrize("name", PARSERS)
def test_a_command_takes_the_options_of_its_parser(name: str) -> None:
    parser = PARSERS[name]
    options = {action.dest for action in parser._actions} - EVERYWHERE
    command = inspect.unwrap(parser.get_default("_func"))
    assert options == set(inspect.signature(command).parameters)


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in PARSERS)])
def test_the_help_fits_80_columns(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        app._parser.parse_args(words)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 10
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        (
            ["contents", "a", "--json", "b", "-d", "s3", "c"],
            {"filename": "a", "patterns": ["b", "c"]},
        ),
        (["contents", "a", "--json"], {"filename": "a", "patterns": []}),
        (["contents", "--json", "a", "--", "-b"], {"filename": "a", "patterns": ["-b"]}),
        (["diff", "a", "--json", "b"], {"filename": "a", "other": "b"}),
        (["diff", "a", "--json"], {"filename": "a", "other": None}),
        (["find", "a", "--json", "b"], {"patterns": ["a", "b"]}),
        (["check", "--read-data", "a", "--json"], {"filename": "a"}),
    ],
)
def test_options_may_stand_between_arguments(words: list[str], arguments: dict[str, Any]) -> None:
    parsed = vars(app._parser.parse_args(words))
    assert parsed["json"] is True
    assert {name: parsed[name] for name in arguments} == arguments


@pytest.mark.parametrize("flag", ["--colour", "-x"])
def test_an_unknown_option_before_the_command_is_named(flag: str) -> None:
    with pytest.raises(UsageError, match=f"no option {flag} before the command") as caught:
        check_words([flag, "backup", "x"])
    assert caught.value.hint


def test_what_show_takes_with_by_hand_is_named(user: CommandLine) -> None:
    done = user.run("show", "mydir", "--by-hand", "--tags", "daily")
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == (
        "bakthat: error: --by-hand takes no --tags\nbakthat: hint: leave --tags out\n"
    )
