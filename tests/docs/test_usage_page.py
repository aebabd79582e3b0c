"""The sessions of docs/reference/usage.rst and README.rst that look into backups."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.commandline import PROJECT, CommandLine

NAME = re.compile(r"mydir\.\d{14}(?:\.inc)?\.tgz")
USAGE, README = PROJECT / "docs" / "reference" / "usage.rst", PROJECT / "README.rst"


def session_of(page: Path, heading: str) -> list[tuple[str, list[str]]]:
    """Return the commands of the session below *heading*, each with the lines that it prints."""
    section = re.search(
        rf"^{heading}\n-+\n(.*?)(?=^\S[^\n]*\n-+\n|\Z)", page.read_text(), re.M | re.S
    )
    assert section is not None
    commands: list[tuple[str, list[str]]] = []
    for block in re.findall(r"::\n\n((?:    .*\n|\n)+)", section[1]):
        for line in textwrap.dedent(block).strip("\n").splitlines():
            if line.startswith("$ "):
                commands.append((line[2:], []))
            elif commands:
                commands[-1][1].append(line)
    return commands


@pytest.mark.slow
@pytest.mark.parametrize("page", [USAGE, README])
def test_the_session_is_what_happens(isolated_environment: Path, page: Path) -> None:
    user = CommandLine(isolated_environment, isolated_environment)
    commands = session_of(page, "Look into backups")
    assert {"diff", "cat", "restore"} <= {command.split()[1] for command, _ in commands}
    run_session(user, commands)


def run_session(
    user: CommandLine, commands: list[tuple[str, list[str]]], *, failing: str = ""
) -> None:
    """Type *commands*, and compare what they print; those of the command *failing* fail."""
    program = user.home / "bin" / "bakthat"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m bakthat "$@"\n')
    program.chmod(0o755)
    environment = {**user.environment, "PATH": f"{program.parent}:{user.environment['PATH']}"}
    shown = "\n".join(line for command, lines in commands for line in (command, *lines))
    names = sorted(set(NAME.findall(shown)))
    for command, expected in commands:
        is_failing = failing != "" and command.split()[1] == failing
        if NAME.search(command):
            listed = user.run("show", "mydir", "--json").lines("backup")
            made = sorted(each["stored_filename"] for each in listed)
            for name, other in zip(names, made, strict=True):
                command = command.replace(name, other)
        command = command.replace("/home/you", str(user.directory))
        done = subprocess.run(
            ["bash", "-c", f"exec 2>&1; {command}"],
            cwd=user.directory,
            env=environment,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
            start_new_session=True,  # no terminal
        )
        assert (done.returncode != 0) == is_failing, done.stdout
        printed = done.stdout.replace(str(user.directory), "/home/you").splitlines()
        assert list(map(changeless, printed)) == list(map(changeless, expected)), command


def changeless(line: str) -> str:
    """Put words in the place of what is different each time, and one space between words."""
    line = re.sub(r"\d{14}", "DATE", line)
    line = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?(\.\d+)?", "TIME", line)
    line = re.sub(r"\b\d+\.\d s\b", "SECONDS", line)
    line = re.sub(r"\(\d+(\.\d)? K?B\)(?= on| from|:)", "(SIZE)", line)
    line = re.sub(r"^(\S{10}) \S+/\S+ ", r"\1 OWNER ", line)
    if re.match("TIME +local", line):  # a row of show
        line = re.sub(r"\d+(\.\d)? K?B", "SIZE", re.sub("(local +)[^ ]+", r"\1HOST", line))
    return " ".join(line.split())
