"""What a command says at its end: the summary line, and its exit code when not all was done."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bakthat.cli.output import Summary
from tests.support.archives import unrestorable
from tests.support.commandline import CommandLine, stored_names, untimed
from tests.support.profiles import write_config

DONE, FAILED, USAGE, INCOMPLETE = 0, 1, 2, 3


@pytest.fixture
def user(user: CommandLine, tree: Path) -> CommandLine:
    assert tree.parent == user.directory  # where the commands run
    return user


def store_of(user: CommandLine) -> Path:
    return user.home / ".bakthat_store"


# The line.


@pytest.mark.parametrize(
    ("summary", "line"),
    [
        (Summary("Removed 0 leftovers", 0.04), "Removed 0 leftovers, 0.0 s"),
        (Summary("Deleted x", 59.9, stored=0), "Deleted x (0 B), 59.9 s"),
        (
            Summary("Deleted x", 60.4, stored=-1, where="from glacier v"),
            "Deleted x from glacier v, 1 min 0 s",
        ),
        (
            Summary("Stored as x", 7500, stored=1_200_000, files=1, bytes=3, where="on s3 b"),
            "Stored as x (1.2 MB): 1 file (3 B) on s3 b, 2 h 5 min",
        ),
        (
            Summary("Restored x", 1, files=0, where="from s3 b", into="a\nb", warnings=1),
            "Restored x: 0 files (0 B) from s3 b into a\\nb, 1.0 s, 1 warning",
        ),
        (Summary("Stored as x", 1, warnings=12), "Stored as x, 1.0 s, 12 warnings"),
    ],
)
def test_a_summary_is_one_line(summary: Summary, line: str) -> None:
    assert summary.line() == line


def test_the_command_line_starts_without_dataclasses() -> None:
    code = "import sys, bakthat.cli.run; print('dataclasses' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


@pytest.mark.parametrize("words", ["--help", "backup --help", "drill --help"])
def test_the_help_loads_no_operation_and_no_database(words: str) -> None:
    code = f"""if True:
        import contextlib, os, sys
        from bakthat.__main__ import main
        with contextlib.redirect_stdout(None):
            try:
                main({words.split()})
            except SystemExit as exc:
                assert not exc.code
        loaded = [each for each in sys.modules if each.startswith("bakthat.")]
        print([each for each in loaded if "operations" in each or "drills" in each])
    """
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_every_command_that_did_something_ends_with_its_summary(user: CommandLine) -> None:
    where = f"local {store_of(user)}"
    for arguments, expected in (
        (("backup", "mydir", "--prompt", "no"), f": 1 file (5 B) on {where}"),
        (("restore", "mydir", "-o", "out"), f": 1 file (5 B) from {where} into out"),
        (("check",), "Checked 1 backup: 1 good, 0 wrong"),
        (("check", "--json"), "Checked 1 backup: 1 good, 0 wrong"),
        (("sync",), f"Synced {where}: 1 unchanged"),
        (("sync", "--dry-run"), f"Would sync {where}: 1 unchanged"),
        (("cleanup",), "Removed 0 leftovers older than 1D"),
        (("cleanup", "--dry-run"), "Would remove 0 leftovers older than 1D"),
        (("rotate", "mydir", "--last", "1"), f"Deleted 0 of 1 backup (0 B) from {where}"),
        (("rotate", "mydir", "--last", "1", "--dry-run"), "Would delete 0 of 1 backup (0 B)"),
        (("delete_older_than", "mydir", "1D"), f"Deleted 0 of 1 backup (0 B) from {where}"),
        (("delete", "mydir"), f") from {where}"),
    ):
        done = user.run(*arguments)
        assert done.code == DONE, done.stderr
        last = summary_of(done.stderr)
        assert untimed(last) != last, f"no seconds in {last}"
        assert expected in untimed(last), arguments
        assert done.stderr.count("good,") <= 1, "it is said once"
        assert done.stderr.count("Deleted ") <= 1


def test_the_summary_follows_the_output_where_both_go_to_one_file(user: CommandLine) -> None:
    user.run("backup", "mydir", "--prompt", "no")
    both = user.shell("check 2>&1").stdout.splitlines()
    assert both[0].startswith("FOUND")
    assert both[-1].startswith("Checked 1 backup: ")


@pytest.mark.slow
def test_quiet_leaves_the_summary_out(user: CommandLine) -> None:
    for arguments in (
        ("backup", "mydir", "--prompt", "no"),
        ("restore", "mydir", "-o", "out"),
        ("sync",),
        ("cleanup",),
        ("rotate", "mydir", "--last", "1"),
        ("delete", "mydir"),
    ):
        assert user.run(*arguments, "--quiet").stderr == ""


def summary_of(said: str) -> str:
    """Return the last line, or of a backup the one before how to restore it without bakthat."""
    lines = said.rstrip("\r\n").split("\n")
    return lines[-2] if lines[-1].startswith("Without bakthat: ") else lines[-1]


# Not all of it.


def break_out(directory: Path) -> None:
    """Put a socket, which no archive can hold, into *directory*."""
    here = os.open(directory, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{here}/socket")
    finally:
        os.close(here)


def test_a_backup_with_warnings_exits_with_3_and_says_so_with_quiet_too(user: CommandLine) -> None:
    break_out(user.directory / "mydir")
    done = user.run("backup", "mydir", "--prompt", "no", "--quiet")
    assert done.code == INCOMPLETE
    warning, error = done.stderr.splitlines()
    assert warning.endswith("is a socket; it is not stored")
    assert error == ("bakthat: error: stored with 1 warning; some files are missing or incomplete")
    # All that was stored comes back.
    restored = user.run("restore", "mydir", "-o", "out")
    assert restored.code == DONE
    assert "was stored with 1 warning: some files are missing or incomplete in it" in (
        restored.stderr
    )
    assert untimed(restored.stderr).endswith("into out\n")


def test_a_restore_with_warnings_exits_with_3(user: CommandLine) -> None:
    store_of(user).mkdir()
    unrestorable(store_of(user) / "mydir.20200101000000.tgz")
    assert user.run("sync").code == DONE
    done = user.run("restore", "mydir", "-o", "out")
    assert done.code == INCOMPLETE
    *_, error, summary = done.stderr.splitlines()
    assert error == (
        "bakthat: error: restored with 1 warning; some files are missing or differ from the backup"
    )
    assert summary.endswith(" s, 1 warning")
    assert (user.directory / "out" / "mydir" / "a.txt").read_text() == "hello"
    # What is not asked for cannot be missing.
    assert user.run("restore", "mydir", "-o", "out", "--quiet").code == INCOMPLETE


EMPTY = {
    "an empty directory": "the directory is empty, or its disk is not mounted",
    "an exclude file that fits all": "/.gitignore leaves out everything",
    "an exclude file that fits all but itself": "/.gitignore leaves out everything",
    "an exclude file alone": "the directory has .gitignore only",
    "a cache": "--exclude-caches leaves out everything",
    "an empty file": "the file is empty",
}


def make_empty(case: str, path: Path) -> list[str]:
    if case == "an empty file":
        path.touch()
        return []
    path.mkdir()
    if case == "a cache":
        (path / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55")
        (path / "object").write_text("x")
        return ["--exclude-caches"]
    if "exclude file" in case:
        if "fits all" in case:
            (path / "file").write_text("x")
            (path / "directory").mkdir()
        (path / ".gitignore").write_text(
            "*\n!.gitignore\n" if "but" in case or "alone" in case else "*\n"
        )
    return []


@pytest.mark.parametrize("case", EMPTY)
def test_a_backup_of_nothing_is_incomplete_unless_it_is_meant(user: CommandLine, case: str) -> None:
    options = make_empty(case, user.directory / "nothing")
    arguments = ("backup", "nothing", "--prompt", "no", *options)
    done = user.run(*arguments, "--quiet")
    assert done.code == INCOMPLETE
    warning, error = done.stderr.splitlines()
    assert warning.startswith(
        f"bakthat: warning: {user.directory}/nothing: nothing in it is stored"
    )
    assert EMPTY[case] in warning
    assert "--allow-empty" in warning
    assert error.startswith("bakthat: error: stored with 1 warning")
    # It is stored all the same.
    assert user.run("restore", "nothing", "-o", "out").code == DONE
    assert (user.directory / "out" / "nothing").exists()
    meant = user.run(*arguments, "--allow-empty", "--quiet")
    assert (meant.code, meant.stderr) == (DONE, "")


@pytest.mark.parametrize(
    "content",
    [
        {"kept": "", ".gitignore": "*\n!kept\n"},
        {"empty": ""},
        {".gitignore": "x\n", "y": ""},
        {"directory/": ""},
    ],
)
def test_a_backup_of_anything_is_complete(user: CommandLine, content: dict[str, str]) -> None:
    root = user.directory / "something"
    root.mkdir()
    for name, text in content.items():
        (root / name).mkdir() if name.endswith("/") else (root / name).write_text(text)
    assert user.run("backup", "something", "--prompt", "no").code == DONE


def test_a_check_of_nothing_is_no_success(user: CommandLine) -> None:
    for arguments in ((), ("--read-data",), ("--json",), ("-d", "local"), ("--host", "other")):
        done = user.run("check", *arguments)
        assert done.code == FAILED
        assert len(done.stdout.splitlines()) == ("--json" in arguments)
        assert done.stderr.startswith("bakthat: error: nothing to check: the catalog ")
        assert "bakthat: hint: bakthat sync " in done.stderr


def test_a_sync_that_cannot_list_all_exits_with_3(user: CommandLine) -> None:
    user.run("backup", "mydir", "--prompt", "no")
    [stored] = store_of(user).glob("mydir.*.tgz")
    other = user.directory / "other"
    other.mkdir()
    unrestorable(other / stored.name)
    config = write_config(
        user.directory / "other.yml",
        default={
            "default_destination": "local",
            "local_path": str(other),
            "database": str(user.home / ".bakthat.sqlite"),
        },
    )
    done = user.run("sync", "-c", config)
    assert done.code == INCOMPLETE, done.stderr
    assert "1 name taken" in done.stderr.splitlines()[-1]


# A result is never lost.

RAISING = """
import bakthat

def refuse(_session_id, _result):
    raise RuntimeError("the callback is broken")

class Raising(bakthat.plugin.Plugin):
    def activate(self):
        for name in ("backup", "restore", "delete", "delete_older_than", "rotate_backups"):
            slot = getattr(self, "on_" + name)
            slot += refuse
"""


@pytest.fixture
def raising(user: CommandLine) -> CommandLine:
    plugins = user.home / ".bakthat_plugins"
    plugins.mkdir(mode=0o700)
    (plugins / "raising.py").write_text(
        RAISING.replace("bakthat.plugin", "plugin").replace(
            "import bakthat", "from bakthat import plugin"
        )
    )
    write_config(
        user.home / ".bakthat.yml",
        default={"default_destination": "local", "plugins": ["raising.Raising"]},
    )
    return user


def test_a_callback_that_raises_afterwards_does_not_hide_the_result(raising: CommandLine) -> None:
    made = raising.run("backup", "mydir", "--prompt", "no", "--json")
    assert made.code == FAILED
    (entry,) = made.lines("backup")
    name = entry["stored_filename"]
    assert f"Stored as {name} (" in made.stderr
    assert "unexpected RuntimeError: the callback is broken" in made.stderr
    assert f"stored as {name} on local {store_of(raising)} before this happened" in made.stderr
    again = raising.run("backup", "mydir", "--prompt", "no", "--quiet")
    assert again.code == FAILED
    assert f"stored as {stored_names(again.stderr)[0]} on local " in again.stderr

    back = raising.run("restore", name, "-o", "out", "--quiet")
    assert back.code == FAILED
    assert f"restored {name} into {raising.directory}/out before this happened" in back.stderr

    gone = raising.run("rotate", "mydir", "--last", "1", "--json", "--quiet")
    assert gone.code == FAILED
    assert [each["stored_filename"] for each in gone.lines("backup")] == [name]
    assert "deleted 1 backup before this happened" in gone.stderr


@pytest.mark.parametrize(
    ("redirection", "reason"),
    [(">/dev/full", "no space left on device"), (">&-", "standard output is closed")],
)
def test_output_that_cannot_be_written_leaves_the_result_on_standard_error(
    user: CommandLine, redirection: str, reason: str
) -> None:
    made = user.shell(f"backup mydir --prompt no --json --quiet {redirection}")
    assert made.code == FAILED
    summary, error = made.stderr.splitlines()
    assert summary.startswith(f"Stored as {stored_names(made.stderr)[0]} (")
    assert f" on local {store_of(user)}, " in summary
    assert error == f"bakthat: error: cannot write the output: {reason}"
    user.run("backup", "mydir", "--prompt", "no")
    gone = user.shell(f"rotate mydir --last 1 --json --quiet {redirection}")
    assert gone.code == FAILED
    assert gone.stderr.startswith("Deleted 1 of 2 backups (")


def test_a_reader_that_stops_reading_leaves_the_result_on_standard_error(user: CommandLine) -> None:
    made = user.shell("backup mydir --prompt no --json --quiet | true")
    assert made.stderr.startswith("Stored as mydir.")


# Mistyped words.


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (["bakcup", "mydir"], "no command 'bakcup'", "did you mean backup?"),
        (["--quiet", "restor"], "no command 'restor'", "did you mean restore?"),
        (["rotate-backup", "x"], "no command 'rotate-backup'", "did you mean rotate-backups?"),
        (["zzz"], "no command 'zzz'", "bakthat --help lists the commands"),
        (["b\x1bd"], "no command 'b\\x1bd'", "bakthat --help lists the commands"),
        (["ls", "--jsno"], "ls has no option --jsno", "did you mean --json?"),
        (
            ["backup", "mydir", "--exlude-caches"],
            "backup has no option --exlude-caches",
            "did you mean --exclude-caches?",
        ),
        (
            ["backup", "--zzz=1"],
            "backup has no option --zzz",
            "bakthat backup --help lists its options",
        ),
    ],
)
def test_a_mistyped_word_is_answered_with_the_nearest(
    user: CommandLine, words: list[str], error: str, hint: str
) -> None:
    done = user.run(*words)
    assert done.stderr == f"bakthat: error: {error}\nbakthat: hint: {hint}\n"
    assert (done.code, done.stdout) == (USAGE, "")


def test_other_wrong_words_do_not_list_every_command(user: CommandLine) -> None:
    for words in ((), ("backup", "-x"), ("restore",), ("check", "--sample", "x"), ("ls", "a", "b")):
        done = user.run(*words)
        assert done.code == USAGE
        assert done.stderr.startswith("bakthat: error: ")
        assert len(done.stderr.splitlines()) == 2


def test_words_that_only_look_mistyped_are_taken(user: CommandLine) -> None:
    assert user.run("backup", "--prom", "no", "--name=--strange", "mydir").code == DONE
    assert user.run("--quiet", "ls", "--", "--nothing").code == DONE
    assert user.run("ls", "--strange --words").code == DONE
    assert user.run("rotate_backups", "--help").stdout.startswith("usage: bakthat rotate_backups [")
