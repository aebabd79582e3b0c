"""Increments on the command line: the options of ``backup``, its previews and its summary."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import bakthat
from bakthat.errors import UsageError
from bakthat.helper import BakHelper
from tests.support.commandline import CommandLine
from tests.support.profiles import Conf

DONE, FAILED, USAGE = 0, 1, 2
BALLAST = 300_000


@pytest.fixture
def tree(tree: Path) -> Path:
    """Make a directory in which a small change is worth an increment."""
    (tree / "ballast").write_bytes(os.urandom(BALLAST))
    return tree


def backed_up(user: CommandLine, *options: str) -> str:
    """Back mydir up, and return what it said."""
    done = user.run("backup", "mydir", "--prompt", "no", *options)
    assert done.code == DONE, done.stderr
    return done.stderr


def kinds(user: CommandLine) -> list[bool]:
    """Return of each stored archive, the oldest first, whether it is an increment."""
    return [".inc." in name for name in store(user) if name.endswith(".tgz")]


def store(user: CommandLine) -> list[str]:
    """Return the names of all files in the store."""
    directory = user.home / ".bakthat_store"
    return sorted(each.name for each in directory.iterdir()) if directory.exists() else []


def test_without_the_option_every_backup_is_full(user: CommandLine, tree: Path) -> None:
    for _ in range(2):
        assert "full backup" not in backed_up(user)
    assert kinds(user) == [False, False]


def test_an_increment_says_what_it_is_made_from_and_a_full_why(
    user: CommandLine, tree: Path
) -> None:
    assert "Making a full backup: it is the first of its set" in backed_up(user, "--incremental")
    (tree / "a.txt").write_text("changed")
    said = backed_up(user, "--incremental")
    assert "Storing what has changed since mydir." in said
    assert ": 1 file (7 B), 1 unchanged on local" in said.splitlines()[-2]
    assert "Making a full backup: it was asked for" in backed_up(user, "--incremental", "--full")
    assert kinds(user) == [False, True, False]


def test_the_profile_turns_increments_on(user: CommandLine, tree: Path) -> None:
    (user.home / ".bakthat.yml").write_text(
        "default: {default_destination: local, incremental: true, full_every: 1D}\n"
    )
    (user.home / ".bakthat.yml").chmod(0o600)
    for _ in range(2):
        backed_up(user)
    assert kinds(user) == [False, True]


def test_no_backup_is_made_when_nothing_has_changed(user: CommandLine, tree: Path) -> None:
    backed_up(user, "--incremental")
    said = backed_up(user, "--incremental", "--skip-unchanged")
    assert said.splitlines()[-1].startswith("Nothing has changed since mydir.")
    assert kinds(user) == [False]
    (tree / "new").write_text("new")
    backed_up(user, "--incremental", "--skip-unchanged")
    assert kinds(user) == [False, True]


def test_a_dry_run_says_what_would_be_stored_and_stores_nothing(
    user: CommandLine, tree: Path
) -> None:
    backed_up(user, "--incremental")
    before = store(user)
    (tree / "a.txt").write_text("a longer text")
    (tree / "new").write_text("new")
    (tree / "ballast 2").mkdir()
    done = user.run("backup", "mydir", "--prompt", "no", "--incremental", "--dry-run")
    assert (done.code, done.stdout.splitlines()[:-1]) == (
        DONE,
        [
            "+ mydir: its time changed",
            "+ mydir/a.txt: its size changed",
            "+ mydir/ballast 2: new",
            "+ mydir/new: new",
        ],
    )
    last = done.stdout.splitlines()[-1]
    assert last.startswith("Would store 2 files (16 B) as mydir.")
    assert ".inc.tgz, from mydir." in last
    assert last.endswith(": 1 unchanged, 0 removed")
    assert store(user) == before


def test_a_dry_run_names_what_is_gone_and_why_a_full_would_be_made(
    user: CommandLine, tree: Path
) -> None:
    first = user.run("backup", "mydir", "--prompt", "no", "--incremental", "--dry-run")
    assert first.stdout.startswith("Would store 2 files")
    assert first.stdout.endswith(", a full backup since it is the first of its set\n")
    assert not (user.home / ".bakthat_store").exists()
    backed_up(user, "--incremental")
    (tree / "a.txt").unlink()
    gone = user.run("backup", "mydir", "--prompt", "no", "--incremental", "--dry-run")
    assert "- mydir/a.txt: it is gone" in gone.stdout.splitlines()
    (tree / "ballast").write_bytes(os.urandom(BALLAST))
    full = user.run("backup", "mydir", "--prompt", "no", "--incremental", "--dry-run")
    assert "a full backup since the increment would have" in full.stdout


def test_a_dry_run_prints_json(user: CommandLine, tree: Path) -> None:
    backed_up(user, "--incremental")
    (tree / "new").write_text("new")
    done = user.run("backup", "mydir", "--prompt", "no", "--incremental", "--dry-run", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["message_type"], each.get("path")) for each in lines] == [
        ("change", "mydir"),
        ("change", "mydir/new"),
        ("summary", None),
    ]
    assert (lines[-1]["files"], lines[-1]["bytes"], lines[-1]["unchanged"]) == (1, 3, 2)
    assert lines[-1]["is_increment"] is True


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.txt", "it is stored: its size changed"),
        ("mydir/a.txt", "it is stored: its size changed"),
        ("ballast", "it is not stored: it is unchanged since mydir."),
        ("gone", "it is recorded as removed: mydir."),
        ("nothing", "it is not stored: it is neither in the tree nor in the backup before"),
        (".", "it is stored: its time changed"),
    ],
)
def test_why_a_path_would_be_stored(
    user: CommandLine, tree: Path, path: str, expected: str
) -> None:
    (tree / "gone").write_text("gone")
    backed_up(user, "--incremental")
    (tree / "gone").unlink()
    (tree / "a.txt").write_text("a longer text")
    done = user.run("backup", "mydir", "--prompt", "no", "--incremental", "--why", path)
    assert done.code == DONE, done.stderr
    assert done.stdout.startswith(expected)
    assert kinds(user) == [False]


def test_a_path_elsewhere_is_an_error(user: CommandLine, tree: Path) -> None:
    done = user.run("backup", "mydir", "--prompt", "no", "--incremental", "--why", "/etc/hosts")
    assert (done.code, "is not below" in done.stderr) == (USAGE, True)


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({"detect": "size"}, "'detect' must be one of ctime, mtime, hash$"),
        ({"max_archives": 1}, "'max_archives' must be a whole number from 2 to 64, not 1"),
        ({"max_archives": True}, "'max_archives' must be a whole number from 2 to 64"),
        ({"recheck": 101}, "'recheck' must be a whole number of percent from 0 to 100"),
        ({"full_every": "never"}, "'full_every' is no interval"),
        ({"always_read": [""]}, "'always_read' entry 1 is empty"),
        ({"always_read": ["a["]}, "'always_read' has a pattern"),
        ({"skip_unchanged": "yes"}, "'skip_unchanged' must be true or false"),
    ],
)
def test_a_setting_that_makes_no_sense_is_an_error(
    local: Conf, tree: Path, setting: dict[str, object], problem: str
) -> None:
    options = {"incremental": True, **setting}
    with pytest.raises(UsageError, match=problem.replace("[", r"\[")):
        bakthat.backup(tree, conf=local, prompt="no", **options)  # type: ignore[arg-type]  # wrong
    assert not Path(str(local["local_path"])).exists()


def test_the_helper_of_scripts_makes_increments_too(local: Conf, tree: Path) -> None:
    entries = []
    for content in ("one", "two"):
        with BakHelper("www", conf=local) as helper:
            (tree / "a.txt").write_text(content)
            entries.append(helper.backup(tree, incremental=True))
    entries.append(helper.backup(tree, incremental=True, full=True))
    entries.append(helper.backup(tree, incremental=True, skip_unchanged=True))
    assert [each.is_increment for each in entries] == [False, True, False, False]
    assert entries[3].is_skipped
