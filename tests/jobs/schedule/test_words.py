"""Names of units, and quoting for systemd and cron."""

from __future__ import annotations

import os
import shlex
import subprocess

import pytest

from bakthat.errors import ScheduleError
from bakthat.jobs.schedule.words import (
    cron_command,
    exec_line,
    job_of_unit,
    unit_name,
    unit_word,
)
from tests.support.needs import program
from tests.support.schedules import NAMES


def test_the_name_of_a_unit_is_that_of_the_job_where_it_can_be() -> None:
    assert unit_name("nightly") == "bakthat-nightly"
    assert unit_name("every-hour") == "bakthat-every-hour"
    assert unit_name("ä b@c") == r"bakthat-\xc3\xa4\x20b\x40c"


@pytest.mark.parametrize("job", NAMES)
def test_other_names_are_escaped_as_systemd_does_but_for_hyphens(job: str) -> None:
    escaped = subprocess.run(
        [program("systemd-escape"), "--", job], capture_output=True, text=True, check=True
    )
    assert unit_name(job) == "bakthat-" + escaped.stdout.rstrip("\n").replace(r"\x2d", "-")
    assert job_of_unit(unit_name(job)) == job


def test_two_jobs_never_have_one_unit() -> None:
    names = [*NAMES, r"a\x2db", "a-b", r"\\x2d", "A", "a", "a.", ".a"]
    assert len({*map(unit_name, names)}) == len({*names})


def test_a_name_that_is_too_long_is_refused() -> None:
    assert len(unit_name("x" * 239)) == 247
    with pytest.raises(ScheduleError, match="too long") as caught:
        unit_name("x" * 240)
    assert "248 characters of 247" in caught.value.hint


def test_plain_words_stay_plain() -> None:
    assert exec_line(["/usr/bin/bakthat", "run", "nightly"]) == "/usr/bin/bakthat run nightly"
    assert unit_word("/srv/a b") == '"/srv/a b"'


def test_a_program_that_systemd_refuses_is_started_by_env() -> None:
    assert exec_line(["/a'b", "run"]) == '/usr/bin/env "/a\'b" run'


@pytest.mark.parametrize("text", ["a\nb", "tab\t", "\x7f", os.fsdecode(b"\xff")])
def test_what_no_file_of_systemd_or_cron_can_hold_is_refused(text: str) -> None:
    for made in (
        unit_word,
        lambda word: exec_line(["/b", word]),
        lambda word: cron_command([word]),
    ):
        with pytest.raises(ScheduleError, match="control character"):
            made(text)


def read_by_cron(command: str) -> list[str]:
    """Return the words that a shell gets after cron has read the command."""
    line, is_escaped = "", False
    for char in command:  # as do_command.c of cron 3.0 does
        if is_escaped and char == "%":
            line = line[:-1]
        elif not is_escaped and char == "%":
            break
        is_escaped = char == "\\" and not is_escaped
        line += char
    return shlex.split(line)


@pytest.mark.parametrize(
    "word", [*NAMES, "\\%", "\\\\%", "a%%b", "%", "'%'", "\\'%", "", "a\\%\\%"]
)
def test_cron_and_the_shell_give_back_each_word(word: str) -> None:
    assert read_by_cron(cron_command(["/b", word])) == ["/b", word]


def test_variables_of_a_line_are_for_its_command_alone() -> None:
    command = cron_command(["/b"], [("HOME", "/a b"), ("PATH", "/bin")])
    assert command == "HOME='/a b' PATH=/bin /b"
