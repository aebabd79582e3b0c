"""Completion: real shells complete commands, options, files and the names in the catalog."""

from __future__ import annotations

import os
import pty
import select
import shlex
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.commandline import PATIENCE, CommandLine

SHELLS = [pytest.param(each, marks=pytest.mark.needs(each)) for each in ("bash", "zsh", "fish")]


@pytest.fixture
def user(isolated_environment: Path) -> CommandLine:
    """Somebody with a backup of ``mydir`` and ``bakthat`` on the PATH."""
    made = CommandLine(isolated_environment, isolated_environment)
    program = made.home / "bin" / "bakthat"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m bakthat "$@"\n')
    program.chmod(0o755)
    made.environment["PATH"] = f"{program.parent}:{made.environment['PATH']}"
    (made.directory / "mydir").mkdir()
    (made.directory / "mydir" / "file").write_text("hello\n")
    assert made.run("backup", "mydir", "--prompt", "no").code == 0
    return made


def completed(user: CommandLine, shell: str, line: str) -> list[str]:
    """Return what *shell* offers for the last word of *line*."""
    script = user.home / f"completion.{shell}"
    done = user.run("completion", shell)
    assert (done.code, done.stderr) == (0, "")
    script.write_text(done.stdout)
    if shell == "zsh":
        return _completed_by_zsh(user, script, line)
    words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    quoted = " ".join(map(shlex.quote, words))
    commands = {
        "bash": f"source {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; "
        "_shtab_bakthat 2>/dev/null; printf '%s\\n' \"${COMPREPLY[@]}\"",
        "fish": f"source {script}; complete -C {shlex.quote(line)}",
    }
    ended = subprocess.run(
        [shell, "-c", commands[shell]],
        cwd=user.directory,
        env={**user.environment, "TERM": "dumb"},
        capture_output=True,
        text=True,
        check=True,
    )
    return [each.partition("\t")[0] for each in ended.stdout.splitlines() if each]


def _completed_by_zsh(user: CommandLine, script: Path, line: str) -> list[str]:
    """Return it as zsh lists it on a terminal."""
    (user.home / ".zshrc").write_text(
        "PS1='ready> '; unsetopt zle_bracketed_paste; autoload -U compinit; compinit -u -D\n"
        "setopt list_rows_first; zstyle ':completion:*' list-prompt ''\n"
        "zstyle ':completion:*' insert-unambiguous false; LISTMAX=0; stty cols 400 rows 200\n"
        f"source {script}; compdef _shtab_bakthat bakthat\n"
    )
    pid, screen = pty.fork()
    if pid == 0:
        os.chdir(user.directory)
        environment = {**user.environment, "TERM": "dumb", "ZDOTDIR": str(user.home)}
        os.execvpe("zsh", ["zsh", "-i"], environment)
    try:
        _read_until(screen, "ready> ")
        # What ^D does in the editor of zsh: list, and insert nothing.
        os.write(screen, line.encode() + b"\x04")
        shown = _read_until(screen, "ready> ", "\a")  # it beeps when there is nothing to list
    finally:
        os.write(screen, b"\x03\nexit\n")
        os.close(screen)
        os.waitpid(pid, 0)
    # A line has words, or one word and what it means.
    return [word for each in shown.splitlines()[1:-1] for word in each.partition(" -- ")[0].split()]


def _read_until(screen: int, *texts: str) -> str:
    seen, deadline = "", time.monotonic() + PATIENCE
    while not any(text in seen for text in texts) and time.monotonic() < deadline:
        if select.select([screen], [], [], 1)[0]:
            seen += os.read(screen, 65536).decode(errors="replace")
    assert any(text in seen for text in texts), seen
    return seen


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_offers_commands_options_and_names(user: CommandLine, shell: str) -> None:
    (name,) = [each["stored_filename"] for each in user.run("show", "--json").lines("backup")]
    assert "restore" in completed(user, shell, "bakthat re")
    assert "ls" not in completed(user, shell, "bakthat l")
    assert "--exclude-caches" in completed(user, shell, "bakthat backup --exclude-c")
    assert sorted(completed(user, shell, "bakthat restore my")) == ["mydir", name]
    assert completed(user, shell, "bakthat rotate_backups my") == ["mydir"]
    assert completed(user, shell, "bakthat show -d gla") == ["glacier"]
    assert completed(user, shell, "bakthat restore mydir --tier bu") == ["bulk"]


HOSTILE = ["a b", "$(touch owned)", "`touch owned`", "a;touch owned", "a'b", 'a"b', "a\nb", "a*b"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_name_that_a_shell_would_expand_is_not_offered(user: CommandLine, shell: str) -> None:
    with sqlite3.connect(user.home / ".bakthat.sqlite") as catalog:
        for number, name in enumerate(HOSTILE):
            catalog.execute(
                "INSERT INTO backups SELECT NULL, backend, backend_hash, backup_date, ?,"
                " is_deleted, last_updated, metadata, size, ?, tags FROM backups LIMIT 1",
                (name, f"{name}.{number}"),
            )
    catalog.close()
    assert completed(user, shell, "bakthat rotate_backups ") == ["mydir"]
    assert not (user.directory / "owned").exists()


def names(user: CommandLine, kind: str = "sets") -> list[str]:
    done = user.run("completion", "--names", kind)
    assert (done.code, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_names_of_deleted_backups_are_not_offered(user: CommandLine) -> None:
    assert names(user) == ["mydir"]
    user.run("delete", "mydir")
    assert names(user) == names(user, "backups") == []


def test_whatever_is_wrong_offers_nothing_and_says_nothing(user: CommandLine) -> None:
    catalog = user.home / ".bakthat.sqlite"
    content = catalog.read_bytes()
    for path in user.home.glob(".bakthat.sqlite*"):
        path.unlink()
    assert names(user) == []
    assert not catalog.exists()
    catalog.write_bytes(content[:100])
    assert names(user) == []
    config = user.home / ".bakthat.yml"
    config.write_text("default: {regoin: x}\n")
    assert names(user) == []
    config.write_text("default: {default_destination: local}\n")
    config.chmod(0o644)  # a command would warn of that
    catalog.write_bytes(content)
    assert names(user) == ["mydir"]
    assert names(user, "zzz") == []


def test_a_catalog_that_is_being_written_is_read_as_it_was(user: CommandLine) -> None:
    with sqlite3.connect(user.home / ".bakthat.sqlite", isolation_level=None) as catalog:
        catalog.execute("BEGIN IMMEDIATE")
        catalog.execute("DELETE FROM backups")
        assert names(user) == ["mydir"]
        catalog.execute("ROLLBACK")
    catalog.close()


def test_an_unknown_shell_is_wrong_usage(user: CommandLine) -> None:
    done = user.run("completion", "tcsh")
    assert done.code == 2
    assert "bash, zsh, fish" in done.stderr.replace("'", "")
