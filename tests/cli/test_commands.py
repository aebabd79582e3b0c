"""Every command takes exactly the options that its parser gives it."""

from __future__ import annotations

import inspect

import pytest

from bakthat.cli import run  # noqa: F401  # registers the commands
from bakthat.cli.app import app

PARSERS = app._subparsers.choices


@pytest.mark.parametrize("name", PARSERS)
def test_a_command_takes_the_options_of_its_parser(name: str) -> None:
    parser = PARSERS[name]
    options = {action.dest for action in parser._actions} - {"help", "quiet", "debug"}
    command = inspect.unwrap(parser.get_default("_func"))
    assert options == set(inspect.signature(command).parameters)
