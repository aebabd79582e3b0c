"""Transcripts of the commands of retention: standard output, standard error and exit code."""

from __future__ import annotations

import os
import re
import socket
import stat
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from bakthat import models
from tests.support.commandline import INTERRUPT, CommandLine, untimed
from tests.support.filled_catalog import DAY, at
from tests.support.profiles import write_config

END = at(2020, 12, 16, 12)
"""A Wednesday before the clock of whoever runs the tests."""


class User(CommandLine):
    """A user of the local destination, with a set of daily backups up to END."""

    def __init__(self, home: Path, directory: Path) -> None:
        super().__init__(home, directory)
        self.store = home / ".bakthat_store"
        self.store.mkdir()

    def record_days(self, days: int, name: str = "mydir") -> list[str]:
        """Store a backup a day; return their stored filenames, the oldest first."""
        made = []
        for number in range(days):
            date = END - (days - 1 - number) * DAY
            stored = time.strftime(f"{name}.%Y%m%d%H%M%S.tgz", time.gmtime(date))
            (self.store / stored).write_bytes(b"x" * 1500)
            with models.catalog(self.home / ".bakthat.sqlite", write=True):
                models.record(
                    {
                        "backend": "local",
                        "backend_hash": models.backend_hash(str(self.store)),
                        "backup_date": date,
                        "filename": name,
                        "metadata": {"client": socket.gethostname()},
                        "size": 1500,
                        "stored_filename": stored,
                        "tags": "",
                    }
                )
            made.append(stored)
        return made

    def stored(self) -> list[str]:
        return sorted(os.listdir(self.store))

    def configure(self, **profiles: dict[str, Any]) -> Path:
        path = self.home / ".bakthat.yml"
        return write_config(path, **profiles)


@pytest.fixture
def user(isolated_environment: Path, tmp_path: Path) -> User:
    return User(isolated_environment, tmp_path)


def test_a_dry_run_prints_what_is_kept_and_deleted_with_the_reasons(user: User) -> None:
    made = user.record_days(5)
    done = user.run("rotate_backups", "mydir", "--days", "2", "--weeks", "1", "--dry-run")
    assert done.stdout == (
        "DATE (UTC)           WHAT      SIZE  NAME                      WHY\n"
        "2020-12-16 12:00:00  keep    1.5 KB  mydir.20201216120000.tgz  newest, daily 1 of 2\n"
        "2020-12-15 12:00:00  keep    1.5 KB  mydir.20201215120000.tgz  daily 2 of 2\n"
        "2020-12-14 12:00:00  delete  1.5 KB  mydir.20201214120000.tgz  not needed by any rule\n"
        "2020-12-13 12:00:00  delete  1.5 KB  mydir.20201213120000.tgz  not needed by any rule\n"
        "2020-12-12 12:00:00  keep    1.5 KB  mydir.20201212120000.tgz  weekly 1 of 1\n"
    )
    assert untimed(done.stderr) == (
        "Rotating mydir, keeping 2 daily, 1 weekly (weeks from saturday); "
        "this is a dry run, nothing is deleted\n"
        "Would delete 2 of 5 backups (3.0 KB) from local\n"
    )
    assert done.code == 0
    assert user.stored() == made


def test_a_rotation_says_what_it_deletes(user: User) -> None:
    made = user.record_days(5)
    done = user.run("rotate_backups", "mydir", "--last", "3")
    assert untimed(done.stderr).splitlines() == [
        "Rotating mydir, keeping the last 3",
        f"Deleting {made[0]}",
        f"Deleting {made[1]}",
        f"Deleted 2 of 5 backups (3.0 KB) from local {user.store}",
    ]
    assert (done.stdout, done.code) == ("", 0)
    assert user.stored() == made[2:]
    again = user.run("rotate_backups", "mydir", "--last", "3")
    assert untimed(again.stderr).splitlines()[1:] == [
        f"Deleted 0 of 3 backups (0 B) from local {user.store}"
    ]
    assert again.code == 0


@pytest.mark.parametrize("name", ["rotate_backups", "rotate-backups", "rotate"])
def test_every_name_of_the_command_rotates_by_the_profile(user: User, name: str) -> None:
    made = user.record_days(4)
    user.configure(default={"default_destination": "local", "rotation": {"days": 2}})
    assert user.run(name, "mydir", "--quiet").code == 0
    assert user.stored() == made[2:]


@pytest.mark.parametrize("name", ["delete_older_than", "delete-older-than"])
def test_deleting_by_age_shows_how_it_reads_the_interval_before_it_acts(
    user: User, name: str
) -> None:
    made = user.record_days(3)
    done = user.run(name, "mydir", "1m")
    messages = untimed(done.stderr).splitlines()
    assert re.fullmatch(
        r"Deleting backups of mydir older than 0 days 0:01:00, "
        r"before \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC",
        messages[0],
    )
    assert messages[1:] == [
        f"Keeping {made[2]}: it is the newest",
        f"Deleting {made[0]}",
        f"Deleting {made[1]}",
        f"Deleted 2 of 3 backups (3.0 KB) from local {user.store}",
    ]
    assert (done.stdout, done.code) == ("", 0)
    assert user.stored() == made[2:]


def test_a_dry_run_by_age_shows_the_newest_as_kept(user: User) -> None:
    made = user.record_days(2)
    done = user.run("delete_older_than", "mydir", "1M", "--dry-run")
    assert [line.split(maxsplit=6)[2::4] for line in done.stdout.splitlines()[1:]] == [
        ["keep", "newest"],
        ["delete", "older"],
    ]
    assert "older than 30 days 0:00:00, before " in done.stderr
    assert user.stored() == made


def test_json_lists_the_deleted_backups_or_the_dry_run(user: User) -> None:
    made = user.record_days(3)
    shown = user.run("rotate", "mydir", "--last", "1", "--dry-run", "--json").lines("backup")
    assert [(row["stored_filename"], row["keep"], row["reasons"]) for row in shown] == [
        (made[2], True, ["newest", "last 1 of 1"]),
        (made[1], False, ["not needed by any rule"]),
        (made[0], False, ["not needed by any rule"]),
    ]
    assert user.stored() == made
    gone = user.run("rotate", "mydir", "--last", "1", "--json").lines("backup")
    assert [(row["stored_filename"], row["is_deleted"]) for row in gone] == [
        (made[0], True),
        (made[1], True),
    ]
    assert user.run("delete_older_than", "mydir", "1D", "--json").lines("backup") == []


def test_a_failed_deletion_is_reported_and_the_exit_code_is_1(user: User) -> None:
    made = user.record_days(3)
    (user.store / made[0]).unlink()
    (user.store / made[0]).mkdir()
    done = user.run("rotate", "mydir", "--last", "1")
    why = f"{user.store}/{made[0]} is not a regular file and was left as it is"
    assert done.stderr.splitlines() == [
        "Rotating mydir, keeping the last 1",
        f"Deleting {made[0]}",
        f"Deleting {made[1]}",
        f"bakthat: warning: {made[0]} was not deleted: {why}",
        "Deleted 1 of 3 backups",
        f"bakthat: error: 1 of 2 backups could not be deleted, the first is {made[0]}: {why}",
        "bakthat: hint: they stay in the catalog; move it away: another program put it there",
    ]
    assert done.code == 1
    assert user.stored() == [made[0], made[2]]


REFUSED: dict[str, tuple[list[str], int, str]] = {
    "no name": (["rotate_backups"], 2, "the following arguments are required: SET"),
    "no interval": (["delete_older_than", "mydir"], 2, "arguments are required: interval"),
    "empty interval": (
        ["delete_older_than", "mydir", ""],
        2,
        "bakthat: error: the interval is empty\nbakthat: hint: write whole numbers with units",
    ),
    "no unit": (["delete_older_than", "mydir", "3"], 2, "interval '3': no unit after 3"),
    "empty name": (["rotate", "", "--last", "1"], 2, "bakthat: error: no backup set was named"),
    "no rotation": (
        ["rotate", "mydir"],
        1,
        "profile 'default': no rotation is configured\n"
        "bakthat: hint: run bakthat configure_backups_rotation, or say what to keep, such as "
        "--days 7 --weeks 4 --months 6",
    ),
    "nothing kept": (["rotate", "mydir", "--days", "0"], 2, "keeps nothing is refused"),
    "negative": (["rotate", "mydir", "--last", "-1"], 2, "'last' is -1, not a whole number"),
    "no number": (["rotate", "mydir", "--last", "x"], 2, "argument --last: invalid int value"),
    "no week day": (
        ["rotate", "mydir", "--weeks", "1", "--first-week-day", "someday"],
        2,
        "bakthat: error: 'someday' is not a day of the week\nbakthat: hint: give one of monday, ",
    ),
    "a path": (
        ["rotate", "/home/me/mydir/", "--last", "1"],
        1,
        " on local\nbakthat: hint: did you mean mydir?",
    ),
    "the beginning of a name": (["rotate", "my", "--last", "1"], 1, "did you mean mydir?"),
    "a pattern": (["rotate", "my*", "--last", "1"], 1, "has no backups of 'my*' on local"),
    "another host": (
        ["rotate", "mydir", "--last", "1", "--host", "elsewhere"],
        1,
        "bakthat: error: elsewhere has no backups of 'mydir' on local\n"
        "bakthat: hint: that set exists for ",
    ),
    "not UTF-8": (["rotate", "my\udcff", "--last", "1"], 1, "has no backups of 'my\\xff' on"),
    "another destination": (["rotate", "mydir", "-d", "s3", "--last", "1"], 1, "s3_bucket"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_arguments_delete_nothing(user: User, case: str) -> None:
    arguments, code, message = REFUSED[case]
    made = user.record_days(3)
    done = user.run(*arguments)
    assert message in done.stderr
    assert (done.stdout, done.code) == ("", code)
    assert "Traceback" not in done.stderr
    assert user.stored() == made


def test_the_week_begins_on_the_day_that_was_named(user: User) -> None:
    user.record_days(20)
    for day, kept in {"monday": "14", "0": "14", "Sunday": "13", "5": "12"}.items():
        done = user.run("rotate", "mydir", "--weeks", "1", "--first-week-day", day, "--dry-run")
        assert f"mydir.202012{kept}120000.tgz  weekly 1 of 1" in done.stdout


# configure_backups_rotation

DAYS, WEEKS, MONTHS = (f"Number of {rule} to keep: " for rule in ("days", "weeks", "months"))
WEEK_DAY = "First week day (to calculate which weekly backup keep, saturday by default): "


@pytest.mark.parametrize("name", ["configure_backups_rotation", "configure-backups-rotation"])
def test_the_questions_of_060_are_asked_and_the_rest_is_kept(user: User, name: str) -> None:
    work = {"s3_bucket": "b", "access_key": "AK", "secret_key": "SK", "rotation": {"last": 3}}
    path = user.configure(default={"s3_bucket": "other"}, work=work)
    path.chmod(0o644)
    answers = [(DAYS, "7\n"), (WEEKS, "4\n"), (MONTHS, "6\n"), (WEEK_DAY, "Monday\n")]
    code, screen = user.converse(name, "-p", "work", answers=answers)
    assert code == 0
    assert f"rotation of profile 'work' written to {path}" in screen
    rotation = {"last": 3, "days": 7, "weeks": 4, "months": 6, "first_week_day": 0}
    assert yaml.safe_load(path.read_text()) == {
        "default": {"s3_bucket": "other"},
        "work": {**work, "rotation": rotation},
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(each.name for each in user.home.iterdir()) == [".bakthat.yml", ".bakthat_store"]


def test_empty_answers_keep_the_present_values_and_a_dash_removes_one(user: User) -> None:
    rotation = {"days": 7, "weeks": 4, "first_week_day": 6}
    path = user.configure(default={"default_destination": "local", "rotation": rotation})
    done = user.run("configure_backups_rotation", stdin="\n-\n\n\n")
    assert done.stderr == (
        "Number of days to keep (7): Number of weeks to keep (4): " + MONTHS + "First week day "
        "(to calculate which weekly backup keep, sunday): "
    )
    assert done.code == 0
    content = yaml.safe_load(path.read_text())["default"]
    assert content["rotation"] == {"days": 7, "first_week_day": 6}


def test_without_a_configuration_the_destination_stays_local(user: User) -> None:
    made = user.record_days(3)
    assert user.run("configure_backups_rotation", stdin="2\n\n\n\n").code == 0
    path = user.home / ".bakthat.yml"
    assert yaml.safe_load(path.read_text())["default"] == {
        "rotation": {"days": 2, "first_week_day": 5},
        "default_destination": "local",
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert user.run("rotate", "mydir").code == 0
    assert user.stored() == made[1:]


def test_what_a_variable_says_is_not_written_into_the_file(user: User) -> None:
    env = {"BAKTHAT_ROTATION": "{years: 9}", "BAKTHAT_LOCAL_PATH": str(user.home / "elsewhere")}
    assert user.run("configure_backups_rotation", stdin="2\n\n\n\n", env=env).code == 0
    assert yaml.safe_load((user.home / ".bakthat.yml").read_text())["default"] == {
        "rotation": {"days": 2, "first_week_day": 5},
        "default_destination": "local",
    }


def test_a_wrong_answer_is_asked_for_again_on_a_terminal(user: User) -> None:
    path = user.configure(default={"s3_bucket": "b"})
    answers = [
        *((DAYS, f"{wrong}\n") for wrong in ("x", "-1", "1.5", "seven", "\N{SUPERSCRIPT TWO}")),
        (DAYS, "7\n"),
        (WEEKS, "\n"),
        (MONTHS, "\n"),
        (WEEK_DAY, "someday\n"),
        (WEEK_DAY, "6\n"),
    ]
    code, screen = user.converse("configure_backups_rotation", answers=answers)
    assert code == 0
    assert screen.count("is not a whole number from 0 on") == 5
    assert "'someday' is not a day of the week\r\nhint: give one of monday" in screen
    rotation = yaml.safe_load(path.read_text())["default"]["rotation"]
    assert rotation == {"days": 7, "first_week_day": 6}


WRONG: dict[str, tuple[str, int, str]] = {
    "no number": ("x\n\n\n\n", 2, "bakthat: error: 'x' is not a whole number from 0 on"),
    "negative": ("-7\n\n\n\n", 2, "'-7' is not a whole number from 0 on"),
    "no week day": ("7\n\n\nsomeday\n", 2, "bakthat: error: 'someday' is not a day of the week"),
    "the end": ("7\n\n", 1, "the input ended before the last answer; nothing was changed"),
    "nothing kept": ("\n\n\n\n", 1, "a rotation that keeps nothing is refused"),
    "zeros": ("0\n0\n0\n\n", 1, "a rotation that keeps nothing is refused"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_answer_without_a_terminal_is_an_error_and_changes_nothing(
    user: User, case: str
) -> None:
    stdin, code, message = WRONG[case]
    path = user.configure(default={"s3_bucket": "b"})
    before = path.read_bytes()
    done = user.run("configure_backups_rotation", stdin=stdin)
    assert message in done.stderr
    assert done.code == code
    assert path.read_bytes() == before
    assert sorted(each.name for each in user.home.iterdir()) == [".bakthat.yml", ".bakthat_store"]


def test_interrupting_the_questions_changes_nothing(user: User) -> None:
    path = user.configure(default={"s3_bucket": "b"})
    before = path.read_bytes()
    code, screen = user.converse(
        "configure_backups_rotation", answers=[(DAYS, "7\n"), (WEEKS, INTERRUPT)]
    )
    assert code == 130
    assert "bakthat: error: interrupted" in screen
    assert path.read_bytes() == before


def test_a_missing_profile_is_not_created(user: User) -> None:
    path = user.configure(default={"s3_bucket": "b"})
    before = path.read_bytes()
    done = user.run("configure_backups_rotation", "-p", "defualt", stdin="7\n\n\n\n")
    assert "no profile 'defualt'" in done.stderr
    assert "did you mean default?" in done.stderr
    assert done.code == 1
    assert path.read_bytes() == before
