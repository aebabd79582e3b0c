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
from tests.support.profiles import write_config

pytestmark = pytest.mark.slow

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
    if shell == "zsh":
        return _completed_by_zsh(user, line)
    script = user.home / f"completion.{shell}"
    script.write_text(user.run("completion", shell).stdout)
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


class _Terminal:
    """A shell on a terminal, with its prompt shown."""

    def __init__(self, user: CommandLine, command: list[str]) -> None:
        self.pid, self.screen = pty.fork()
        if self.pid == 0:
            os.chdir(user.directory)
            environment = {**user.environment, "TERM": "dumb", "ZDOTDIR": str(user.home)}
            os.execvpe(command[0], command, environment)
        _read_until(self.screen, "ready> ")

    def end(self) -> None:
        os.write(self.screen, b"\x03\nexit\n")
        os.close(self.screen)
        os.waitpid(self.pid, 0)


def _shell(user: CommandLine, shell: str) -> _Terminal:
    """Start *shell*; its completion is where the documentation puts it."""
    script = user.run("completion", shell).stdout
    if shell == "bash":
        start, place = user.home / "bashrc", user.home / "completion.bash"
        start.write_text(f"PS1='ready> '; source {place}; bind 'set enable-bracketed-paste off'\n")
        command = ["bash", "--noprofile", "--rcfile", str(start), "-i"]
    elif shell == "fish":
        place = user.home / ".config" / "fish" / "completions" / "bakthat.fish"
        command = ["fish", "-i", "-C", "function fish_prompt; echo 'ready> '; end"]
    else:
        place = user.home / ".zfunc" / "_bakthat"
        (user.home / ".zshrc").write_text(
            "PS1='ready> '; unsetopt zle_bracketed_paste\n"
            "fpath+=~/.zfunc; autoload -U compinit; compinit -u -D\n"
            "setopt list_rows_first; zstyle ':completion:*' list-prompt ''\n"
            "zstyle ':completion:*' insert-unambiguous false; LISTMAX=0; stty cols 400 rows 200\n"
        )
        command = ["zsh", "-i"]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(script)
    return _Terminal(user, command)


def _completed_by_zsh(user: CommandLine, line: str) -> list[str]:
    """Return it as zsh lists it on a terminal."""
    terminal = _shell(user, "zsh")
    try:
        # What ^D does in the editor of zsh: list, and insert nothing.
        os.write(terminal.screen, line.encode() + b"\x04")
        shown = _read_until(
            terminal.screen, "ready> ", "\a"
        )  # it beeps when there is nothing to list
    finally:
        terminal.end()
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
    assert "--local-time" in completed(user, shell, "bakthat --lo")
    assert completed(user, shell, "bakthat --json rotate_backups my") == ["mydir"]
    assert "--exclude-caches" in completed(user, shell, "bakthat backup --exclude-c")
    assert sorted(completed(user, shell, "bakthat restore my")) == ["mydir", name]
    assert completed(user, shell, "bakthat rotate_backups my") == ["mydir"]
    assert completed(user, shell, "bakthat show -d gla") == ["glacier"]
    assert completed(user, shell, "bakthat configure --default-destination gla") == ["glacier"]
    assert completed(user, shell, "bakthat restore mydir --tier bu") == ["bulk"]


HOSTILE = [
    "a b",
    "b$(touch owned)",
    "c`touch owned`",
    "d;touch owned",
    "e'f",
    'f"g',
    "g*h",
    "h&touch owned",
    "i|touch owned",
    "j>owned",
    "k$HOME",
    "l{m,n}",
    "z:n",
    "n=~",
    "o\\p",
    "p!!",
    "q#r",
    "s(t)",
    "t[u]",
    "ü ñ",
    "#v",
]
"""Names that mean something to a shell, each with a first character of its own."""
UNSAFE = ["x\ny", "x\ty", "x\x1b[2J", "\u202ex", "-x", "--help", "~root", ""]


def add_sets(user: CommandLine, *names: str) -> None:
    """Put backups of these sets into the catalog, as a sync with a bucket may do."""
    with sqlite3.connect(user.home / ".bakthat.sqlite") as catalog:
        for number, name in enumerate(names):
            catalog.execute(
                "INSERT INTO backups SELECT NULL, backend, backend_hash, backup_date, ?,"
                " is_deleted, last_updated, metadata, size, ?, tags FROM backups LIMIT 1",
                (name, f"{name}.{number}"),
            )
    catalog.close()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_name_is_inserted_so_that_the_command_gets_it_as_it_is(
    user: CommandLine, shell: str
) -> None:
    add_sets(user, *HOSTILE)
    report = user.home / "arguments"
    os.mkfifo(report)
    program = user.home / "bin" / "bakthat"
    # The shell asks the real one for names; what is run by hand below tells what it was given.
    lines = program.read_text().splitlines()
    lines[1:1] = [f'[ "$1" = completion ] || {{ printf "<%s>\\n" "$@" >{report}; exit; }}']
    program.write_text("\n".join(lines))
    terminal = _shell(user, shell)
    arguments = os.open(report, os.O_RDWR | os.O_NONBLOCK)
    try:
        for name in HOSTILE:
            # A user quotes the beginning where the shell needs that.
            beginning = name[0] if name[0] != "#" else r"\#"
            os.write(terminal.screen, f"bakthat rotate_backups {beginning}\t\n".encode())
            assert _read_until(arguments, f"<{name}>\n") == f"<rotate_backups>\n<{name}>\n"
            _read_until(terminal.screen, "ready> ")
    finally:
        os.close(arguments)
        terminal.end()
    assert not (user.directory / "owned").exists()


def test_a_name_that_no_quotes_make_safe_is_not_offered(user: CommandLine) -> None:
    add_sets(user, *UNSAFE)
    assert names(user) == ["mydir"]
    assert all(each[0] not in "-~" for each in names(user, "backups"))


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_asks_for_names_only_when_it_offers_them(user: CommandLine, shell: str) -> None:
    script = user.home / f"completion.{shell}"
    script.write_text(user.run("completion", shell).stdout)
    program = user.home / "bin" / "bakthat"
    program.write_text(f"#!/bin/sh\ntouch {user.home}/asked\n")
    prepare = "autoload -U compinit; compinit -u -D; " if shell == "zsh" else ""
    subprocess.run(
        [shell, "-c", f"{prepare}source {script}"],
        env={**user.environment, "TERM": "dumb"},
        check=True,
    )
    assert not (user.home / "asked").exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_names_are_those_of_the_profile_on_the_line(user: CommandLine, shell: str) -> None:
    config = user.directory / "other config.yml"
    config.write_text(
        f"default: {{default_destination: local, database: {user.home}/none.sqlite}}\n"
        f"work: {{default_destination: local, database: {user.home}/.bakthat.sqlite}}\n"
    )
    config.chmod(0o600)
    line = "bakthat rotate_backups -c 'other config.yml'"
    assert completed(user, shell, f"{line} ") == []
    assert completed(user, shell, f"{line} --profile work ") == ["mydir"]
    assert completed(user, shell, f"{line} -p nobody ") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_profiles_are_those_of_the_configuration_on_the_line(user: CommandLine, shell: str) -> None:
    for name in (".bakthat.yml", "other.yml"):
        config = user.home / name
        config.write_text(f"default: {{}}\nwork of {name}: {{regoin: x}}\n")
        config.chmod(0o600)
    beginning = "work of " if shell == "fish" else "work\\ of\\ "  # fish quotes on insertion
    assert completed(user, shell, "bakthat show -p def") == ["default"]
    line = "bakthat show --json -c other.yml --profile w"
    assert " ".join(completed(user, shell, line)) == f"{beginning}other.yml"


@pytest.mark.parametrize("shell", SHELLS)
def test_jobs_are_those_of_the_configuration_on_the_line(user: CommandLine, shell: str) -> None:
    for name, jobs in ((".bakthat.yml", "nightly"), ("other.yml", "weekly: {}, monthly")):
        config = user.home / name
        config.write_text(f"default: {{}}\njobs: {{{jobs}: {{sources: [/etc]}}}}\n")
        config.chmod(0o600)
    assert completed(user, shell, "bakthat run n") == ["nightly"]
    assert sorted(completed(user, shell, "bakthat run -c other.yml ")) == ["monthly", "weekly"]
    assert completed(user, shell, "bakthat schedule -c other.yml w") == ["weekly"]


def test_a_configuration_from_a_pipe_is_left_to_the_command(user: CommandLine) -> None:
    os.mkfifo(user.home / "pipe.yml")
    for kind in ("sets", "profiles"):
        assert names(user, kind, "", "-c", str(user.home / "pipe.yml")) == []


def test_the_profile_on_the_line_may_be_given_in_each_way(user: CommandLine) -> None:
    config = user.directory / "config.yml"
    config.write_text(f"work: {{default_destination: local, database: {user.home}/none.sqlite}}\n")
    config.chmod(0o600)
    for words in ("-p work", "--profile=work", "--profile = work", "-p 'work' --json", "-p 'wor"):
        assert names(user, "sets", "", "rotate_backups", *words.split()) == []
    line = ["-c", "config.yml", "rotate_backups"]
    assert names(user, "sets", "", *line, "-p", "work") == []
    assert names(user, "sets", "", "-p", "") == ["mydir"]


def test_names_are_those_of_the_profile_in_the_environment(user: CommandLine) -> None:
    config = user.directory / "config.yml"
    config.write_text(f"work: {{default_destination: local, database: {user.home}/none.sqlite}}\n")
    config.chmod(0o600)
    user.environment |= {"BAKTHAT_CONFIG": str(config), "BAKTHAT_PROFILE": "work"}
    assert names(user) == []
    user.environment["BAKTHAT_DATABASE"] = str(user.home / ".bakthat.sqlite")
    assert names(user) == ["mydir"]
    user.environment["BAKTHAT_TIMEOUT"] = "wrong"
    assert names(user) == []


def test_the_path_of_the_catalog_may_have_any_character(user: CommandLine) -> None:
    catalog = user.directory / "100% of #1?mode=rwc.sqlite"
    config = user.home / ".bakthat.yml"
    config.write_text(f"default: {{default_destination: local, database: '{catalog}'}}\n")
    config.chmod(0o600)
    assert names(user) == []
    assert not list(user.directory.glob("100%*"))
    (user.home / ".bakthat.sqlite").rename(catalog)
    assert names(user) == ["mydir"]


def test_of_more_names_than_a_list_takes_those_with_the_typed_beginning_come_first(
    user: CommandLine,
) -> None:
    add_sets(user, *(f"set{number:04}" for number in range(600)))
    found = names(user, "backups", "myd")
    assert len(found) == 500
    assert found[0] == "mydir"
    assert found[1].startswith("mydir.")


def names(user: CommandLine, kind: str = "sets", *more: str) -> list[str]:
    done = user.run("completion", "--names", kind, *more)
    assert (done.code, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_nothing_is_left_beside_the_catalog(user: CommandLine) -> None:
    before = sorted(user.home.rglob("*"))
    assert names(user) == ["mydir"]
    assert sorted(user.home.rglob("*")) == before


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
    assert names(user, "zzz") == names(user, "") == []


@pytest.mark.parametrize("way", ["file", "command"])
def test_no_program_runs_and_no_file_is_read_to_find_the_catalog(
    user: CommandLine, way: str
) -> None:
    os.mkfifo(user.home / "fifo")
    program = user.home / "program"
    program.write_text(f"#!/bin/sh\necho > {user.home / 'ran'}; echo {user.home}/.bakthat.sqlite\n")
    program.chmod(0o700)
    value = user.home / "fifo" if way == "file" else program
    write_config(user.home / ".bakthat.yml", default={f"database_{way}": str(value)})
    assert names(user) == []
    assert not (user.home / "ran").exists()


def test_a_catalog_that_is_being_written_is_read_as_it_was(user: CommandLine) -> None:
    with sqlite3.connect(user.home / ".bakthat.sqlite", isolation_level=None) as catalog:
        catalog.execute("BEGIN IMMEDIATE")
        catalog.execute("DELETE FROM backups")
        assert names(user) == ["mydir"]
        catalog.execute("ROLLBACK")
    catalog.close()


def test_a_script_is_printed_without_a_word_on_standard_error(user: CommandLine) -> None:
    for shell in ("bash", "zsh", "fish"):
        done = user.run("completion", shell)
        assert (done.code, done.stderr) == (0, "")
        assert done.stdout.endswith("\n")


@pytest.mark.needs("bash")
def test_an_option_for_a_directory_offers_directories_only(user: CommandLine) -> None:
    (user.directory / "mydir.txt").write_text("")
    assert completed(user, "bash", "bakthat configure --local-path my") == ["mydir"]


def test_an_unknown_shell_is_wrong_usage(user: CommandLine) -> None:
    done = user.run("completion", "tcsh")
    assert done.code == 2
    assert "bash, zsh, fish" in done.stderr.replace("'", "")
