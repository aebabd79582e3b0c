"""``--json``: every command prints lines that the contract in bakthat/cli/messages.py describes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bakthat.cli import run  # noqa: F401  # registers the commands
from bakthat.cli.app import described_commands
from bakthat.cli.exit_codes import ExitCode
from bakthat.cli.messages import JSON_VERSION, MESSAGES, documented_keys
from tests.support.commandline import CommandLine, Done

FILES = {"cat", "completion", "policy"}
"""Commands whose standard output is a file of its own."""


@pytest.fixture
def user(isolated_environment: Path) -> CommandLine:
    made = CommandLine(isolated_environment, isolated_environment)
    (made.directory / "mydir").mkdir()
    (made.directory / "mydir" / "file").write_text("hello\n")
    return made


def lines_of(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def checked_lines(done: Done, command: str) -> list[dict[str, Any]]:
    """Return the lines, each of which has the keys that the contract says."""
    lines = lines_of(done)
    for line in lines:
        always, sometimes = documented_keys(command, line["message_type"])
        found = line.keys() - {"message_type"}
        assert always <= found <= always | sometimes, line
    return lines


def the_backup(user: CommandLine) -> str:
    made = lines_of(user.run("backup", "mydir", "--prompt", "no", "--json"))
    return str(made[0]["stored_filename"])


WORDS: dict[str, list[str]] = {
    # A command as the contract names it, and what is typed.
    "diff": ["diff", "mydir"],
    "backup": ["backup", "mydir", "--prompt", "no"],
    "backup --dry-run": ["backup", "mydir", "--prompt", "no", "--incremental", "--dry-run"],
    "restore": ["restore", "mydir", "-o", "out"],
    "restore --job-check": ["restore", "mydir", "--job-check"],
    "show": ["show"],
    "contents": ["contents", "mydir"],
    "find": ["find", "file"],
    "rotate_backups": ["rotate_backups", "mydir", "--last", "1"],
    "delete_older_than": ["delete_older_than", "mydir", "1D", "--dry-run"],
    "sync": ["sync", "--indexes"],
    "status": ["status"],
    "check": ["check"],
    "cleanup": ["cleanup"],
    "report": ["report"],
    "doctor": ["doctor"],
    "config check": ["config", "check"],
    "config show": ["config", "show"],
    "thaws": ["thaws"],
    "show_local_glacier_inventory": ["show_local_glacier_inventory"],
    "delete": ["delete", "mydir"],
}


def test_every_command_prints_lines_of_the_contract(user: CommandLine) -> None:
    the_backup(user)
    (user.directory / "mydir" / "file").write_text("changed\n")
    kinds: dict[str, set[str]] = {}
    for command, words in WORDS.items():
        done = user.run(*words, "--json")
        lines = checked_lines(done, command)
        assert lines[-1]["message_type"] == "summary", done.stderr
        assert lines[-1]["json_version"] == JSON_VERSION
        assert lines[-1]["command"] == words[0]
        kinds[command] = {line["message_type"] for line in lines}
    assert kinds["backup"] == {"backup", "summary"}
    assert kinds["contents"] == {"entry", "summary"}
    assert kinds["find"] == {"match", "summary"}
    assert kinds["diff"] == {"change", "summary"}
    assert kinds["check"] == {"check", "summary"}
    assert kinds["doctor"] == {"check", "summary"}
    assert kinds["restore --job-check"] == {"status", "summary"}


@pytest.mark.parametrize("name", [each.name for each in described_commands()])
def test_every_command_takes_json_unless_its_output_is_a_file(name: str) -> None:
    (found,) = [each for each in described_commands() if each.name == name]
    flags = {
        flag
        for actions in found.sections.values()
        for each in actions
        for flag in each.option_strings
    }
    assert ("--json" in flags) == (name not in FILES)


def test_the_contract_names_only_commands_that_exist() -> None:
    names = {each.name for each in described_commands()}
    assert {command.split()[0] for each in MESSAGES for command in each.commands} <= names


def test_json_may_stand_before_the_command(user: CommandLine) -> None:
    (summary,) = lines_of(user.run("--json", "show"))
    assert (summary["command"], summary["backups"]) == ("show", 0)


def fails_with_usage(user: CommandLine) -> Done:
    return user.run("bakcup", "--json")


def fails_in_the_parser(user: CommandLine) -> Done:
    return user.run("restore", "--json")


def fails_with_an_error(user: CommandLine) -> Done:
    return user.run("restore", "nothing", "--json")


def fails_in_the_configuration(user: CommandLine) -> Done:
    (user.home / ".bakthat.yml").write_text("default:\n  regoin_name: x\n")
    return user.run("show", "--json")


@pytest.mark.parametrize(
    ("fail", "kind"),
    [
        (fails_with_usage, "UsageError"),
        (fails_in_the_parser, "UsageError"),
        (fails_with_an_error, "NoMatchError"),
        (fails_in_the_configuration, "ConfigError"),
    ],
)
def test_an_error_is_the_last_line(
    user: CommandLine, fail: Callable[[CommandLine], Done], kind: str
) -> None:
    done = fail(user)
    assert done.code != ExitCode.DONE
    *_, error = checked_lines(done, "")
    assert (error["message_type"], error["type"]) == ("error", kind)
    assert error["message"] in done.stderr


def test_warnings_are_lines_too_and_the_summary_counts_them(user: CommandLine) -> None:
    secret = user.directory / "mydir" / "loop"
    secret.symlink_to("loop")
    (user.directory / "empty").mkdir()
    done = user.run("backup", "empty", "--prompt", "no", "--json")
    assert done.code == ExitCode.INCOMPLETE
    lines = checked_lines(done, "backup")
    kinds = [line["message_type"] for line in lines]
    assert kinds == ["warning", "error", "backup", "summary"]
    assert lines[-1]["warnings"] == 1
    assert lines[0]["message"] in done.stderr


def test_the_output_is_ascii_and_one_object_a_line(user: CommandLine) -> None:
    name = "caf\u00e9 \u202e\x7f\n"
    (user.directory / "mydir" / name).write_text("")
    the_backup(user)
    done = user.run("contents", "mydir", "--json")
    assert done.stdout.isascii()
    assert "\x7f" not in done.stdout
    assert name in [line.get("path", "").removeprefix("mydir/") for line in lines_of(done)]


def test_a_file_has_no_json(user: CommandLine) -> None:
    name = the_backup(user)
    for words in (["--json", "cat", name, "file"], ["show", "--by-hand", name, "--json"]):
        done = user.run(*words)
        assert done.code == ExitCode.USAGE
        assert "--json" in done.stderr
