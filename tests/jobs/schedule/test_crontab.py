"""Lines of a crontab: their text, and the real crontab with a spool of its own."""

from __future__ import annotations

import json
import os
import pwd
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bakthat.errors import ScheduleError
from bakthat.jobs.schedule.crontab import Entry, entry_of, with_entry, without_entry
from bakthat.jobs.schedule.when import Daily
from tests.support.commandline import PATIENCE, CommandLine
from tests.support.needs import as_root, missing, program
from tests.support.schedules import NAMES, service, with_mounts

SPOOL = "/var/spool/cron/crontabs"
JOBS = """\
default: {default_destination: local, password: ""}
jobs:
  nightly: {sources: [/srv/data]}
  "50 % it's": {sources: [/srv/data]}
"""
OTHERS = [
    b"",
    b"MAILTO=me\n\n7 3 * * *  mine # x\n",
    b"# begin bakthat-nightly2, written by bakthat schedule for me\n",
    b"\xff\xfe % \r\n\tno newline",
    b"\n\n\n",
]


def entry(name: str = "bakthat-nightly", line: str = "1 2 * * * x", config: str = "") -> Entry:
    return Entry(name, config, line)


@pytest.mark.parametrize("before", OTHERS)
@pytest.mark.parametrize("after", OTHERS)
def test_everything_else_stays_byte_for_byte(before: bytes, after: bytes) -> None:
    if before and not before.endswith(b"\n"):
        before += b"\n"
    first = before + entry().text.encode() + after
    new = entry(line="3 4 * * * y")
    assert with_entry(first, new) == before + new.text.encode() + after
    assert without_entry(first, "bakthat-nightly", "") == before + after
    assert without_entry(before + after, "bakthat-nightly", "") == before + after
    for other in ("bakthat-other", "bakthat-night", "bakthat-nightly-2"):
        assert without_entry(first, other, "") == first


def test_a_new_entry_comes_last_and_twice_is_once() -> None:
    text = with_entry(b"# mine", entry())
    assert text == b"# mine\n" + entry().text.encode()
    assert with_entry(text, entry()) == text
    doubled = text + b"x\n" + entry().text.encode()
    assert with_entry(doubled, entry()) == text + b"x\n"
    assert without_entry(doubled, "bakthat-nightly", "") == b"# mine\nx\n"


@pytest.mark.parametrize("job", NAMES)
def test_each_job_has_an_entry_of_its_own(job: str) -> None:
    made = [entry_of(service(job=each), Daily(4, 30, 15), "web1") for each in NAMES]
    text = b""
    for each in made:
        text = with_entry(text, each)
    mine = entry_of(service(job=job), Daily(4, 30, 15), "web1")
    left = without_entry(text, mine.name, "")
    assert left.count(b"# begin ") == len(NAMES) - 1
    assert mine.text.encode() in text
    assert mine.text.encode() not in left


def test_an_entry_without_its_end_is_not_guessed() -> None:
    with pytest.raises(ScheduleError, match="but not '# end bakthat-nightly'"):
        with_entry(entry().text.encode().partition(b"# end")[0], entry())


def test_the_entry_of_another_configuration_stays() -> None:
    text = entry(config="/srv/a.yml").text.encode()
    with pytest.raises(ScheduleError, match=r"for a job of that name in /srv/a\.yml"):
        with_entry(text, entry())
    with pytest.raises(ScheduleError, match=r"for a job of that name in /srv/a\.yml"):
        without_entry(text, "bakthat-nightly", "/srv/b.yml")


def test_the_line_has_what_cron_lacks_and_no_more() -> None:
    home = pwd.getpwuid(os.geteuid()).pw_dir
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    made = entry_of(service(environment=(("HOME", home),)), Daily(4, 30, 0), "web1")
    assert made.line == f"30 4 * * * PATH={path} /usr/bin/bakthat run --quiet nightly"
    other = service(environment=(("HOME", "/a b"), ("XDG_CACHE_HOME", "/c")), config="/d/%.yml")
    made = entry_of(other, Daily(4, 30, 0), "web1")
    assert made.line == (
        f"30 4 * * * HOME='/a b' XDG_CACHE_HOME=/c PATH={path} "
        "/usr/bin/bakthat run --quiet -c /d/\\%.yml nightly"
    )


def test_a_command_that_is_too_long_for_cron_is_refused() -> None:
    long = service(config=f"/{'x' * 900}/my.yml")
    with pytest.raises(ScheduleError, match="the job 'nightly' has more than 998 characters"):
        entry_of(long, Daily(4, 30, 0), "web1")


# With the real crontab, whose directory only root can replace.


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """Make the directory of an empty spool."""
    program("crontab")
    if not Path(SPOOL).is_dir():
        missing("Debian's cron is not installed")
    spool = tmp_path / "spool"
    spool.mkdir()
    shutil.chown(spool, group="crontab")
    spool.chmod(0o1730)
    return spool


@pytest.fixture
def admin(user: CommandLine, spool: Path) -> CommandLine:
    """Return a user with a crontab of its own."""
    user.prefix = with_mounts({SPOOL: spool})
    configure(user)
    return user


def configure(user: CommandLine) -> None:
    (user.home / ".bakthat.yml").write_text(JOBS)
    (user.home / ".bakthat.yml").chmod(0o600)


def crontab_of(user: CommandLine) -> str:
    return user.run_program("crontab", "-l").stdout


@as_root
@pytest.mark.slow
def test_the_crontab_gets_a_line_and_loses_it_again(admin: CommandLine) -> None:
    for before in ("", "MAILTO=''\n#  ä mine\n*/5 * * * * true %x\n\n"):
        admin.run_program("crontab", "-", stdin=before)
        done = admin.run(
            "schedule", "nightly", "--cron", "--at", "3:07", "--jitter", "0", "--install"
        )
        assert (done.code, done.stdout) == (0, ""), done.stderr
        assert done.stderr.startswith("The crontab runs the job daily at 03:07, ")
        printed = admin.run("schedule", "nightly", "--cron", "--at", "3:07", "--jitter", "0").stdout
        assert crontab_of(admin) == before + printed
        done = admin.run("schedule", "50 % it's", "--cron", "--install")
        assert done.code == 0, done.stderr
        done = admin.run("schedule", "nightly", "--cron", "--remove")
        assert (done.code, done.stderr[:37]) == (0, "Removed the line of the job from the ")
        assert crontab_of(admin).startswith(before + "# begin bakthat-50\\x20\\x25\\x20it\\x27s, ")
        assert admin.run("schedule", "50 % it's", "--cron", "--remove").code == 0
        assert crontab_of(admin) == before


@as_root
def test_a_crontab_that_bakthat_made_is_gone_in_the_end(admin: CommandLine, spool: Path) -> None:
    assert admin.run("schedule", "nightly", "--cron", "--install").code == 0
    assert admin.run("schedule", "nightly", "--cron", "--remove").code == 0
    assert [*spool.iterdir()] == []
    done = admin.run("schedule", "nightly", "--cron", "--remove")
    assert done.code == 1
    assert "the crontab has no line for the job 'nightly'" in done.stderr


@as_root
def test_a_user_without_a_home_directory_may_have_a_line(
    admin: CommandLine, tmp_path: Path
) -> None:
    config = admin.home / ".bakthat.yml"
    missing = {"HOME": str(tmp_path / "missing")}
    done = admin.run("schedule", "nightly", "--cron", "--install", "-c", str(config), env=missing)
    assert done.code == 0, done.stderr
    assert "run --quiet -c" in crontab_of(admin)


@as_root
def test_a_typing_error_in_what_is_removed_names_the_nearest(admin: CommandLine) -> None:
    assert admin.run("schedule", "nightly", "--cron", "--install").code == 0
    done = admin.run("schedule", "nigthly", "--cron", "--remove")
    assert (done.code, "hint: did you mean nightly?" in done.stderr) == (1, True)


@as_root
@pytest.mark.slow
def test_cron_runs_exactly_what_was_meant(admin: CommandLine, tmp_path: Path) -> None:
    """Let cron itself start a program with each of the names, as it starts."""
    listing = tmp_path / "100% it's" / "list"
    listing.parent.mkdir()
    os.mkfifo(tmp_path / "ended")
    listing.write_text(
        f"#!{sys.executable}\nimport json, os, sys\nline = [os.environ['HOME'], *sys.argv]\n"
        f"with open({str(tmp_path / 'ended')!r}, 'a') as file: print(json.dumps(line), file=file)\n"
    )
    listing.chmod(0o755)
    jobs = [service(job=job, words=(str(listing),), environment=(("HOME", f"/{job}"),))
            for job in NAMES]  # fmt: skip
    lines = [entry_of(each, Daily(4, 30, 0), "h").line.split(" ", 5)[5] for each in jobs]
    text = "".join(f"@reboot {each}\n" for each in lines)
    done = admin.run_program("crontab", "-", stdin=text)
    assert (done.code, done.stderr) == (0, "")
    (tmp_path / "run").mkdir()
    words = with_mounts({SPOOL: tmp_path / "spool", "/run": tmp_path / "run"})
    ended = os.open(tmp_path / "ended", os.O_RDWR)  # its end does not come with each program's
    read = b""
    with subprocess.Popen([*words, program("cron"), "-f"]) as daemon:
        try:
            while read.count(b"\n") < len(jobs):
                assert select.select([ended], [], [], PATIENCE)[0], "cron has not started all"
                read += os.read(ended, 65536)
        finally:
            daemon.kill()
            os.close(ended)
    found = [json.loads(each) for each in read.splitlines()]
    assert sorted(found) == sorted([f"/{each.job}", *each.run("--quiet")] for each in jobs)


@as_root
@pytest.mark.slow
def test_of_ten_at_once_no_line_is_lost(admin: CommandLine) -> None:
    text = JOBS + "".join(f"  job{number}: {{sources: [/srv]}}\n" for number in range(10))
    (admin.home / ".bakthat.yml").write_text(text)
    command = [*admin.prefix, sys.executable, "-m", "bakthat", "schedule"]
    started = [
        subprocess.Popen(
            [*command, f"job{number}", "--cron", "--install"],
            env=admin.environment,
            stderr=subprocess.PIPE,
        )
        for number in range(10)
    ]
    assert [each.communicate()[1] and each.returncode for each in started] == [0] * 10
    text = crontab_of(admin)
    assert sorted(text.count(f"# begin bakthat-job{number},") for number in range(10)) == [1] * 10


@as_root
def test_a_user_who_may_have_no_crontab_is_told(
    user: CommandLine, spool: Path, tmp_path: Path
) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    for name in ("passwd", "group", "nsswitch.conf"):
        shutil.copy(f"/etc/{name}", etc / name)
    (etc / "cron.allow").write_text("somebody\n")
    (etc / "cron.allow").chmod(0o644)
    # As nobody, who may not be able to run this Python.
    other = pwd.getpwnam("nobody")
    drop = f"{program('setpriv')} --reuid={other.pw_uid} --regid={other.pw_gid} --clear-groups"
    put_on_path(user, tmp_path, f'exec {drop} {program("crontab")} "$@"')
    configure(user)
    user.prefix = with_mounts({SPOOL: spool, "/etc": etc})
    done = user.run("schedule", "nightly", "--cron", "--install")
    assert done.code == 1, done.stderr
    assert "the crontab is as it was: crontab ended with exit code 1: You (nobody)" in done.stderr
    assert "not allowed to use this program" in done.stderr
    assert [*spool.iterdir()] == []


@as_root
def test_what_crontab_refuses_leaves_the_crontab_as_it_was(
    admin: CommandLine, spool: Path, tmp_path: Path
) -> None:
    admin.run_program("crontab", "-", stdin="# mine\n")
    admin.prefix = with_mounts({SPOOL: spool}, read_only=SPOOL)
    done = admin.run("schedule", "nightly", "--cron", "--install")
    assert done.code == 1
    assert "the crontab is as it was: crontab ended with exit code 1: " in done.stderr
    assert crontab_of(admin) == "# mine\n"


@as_root
def test_a_change_by_another_program_is_noticed(
    admin: CommandLine, spool: Path, tmp_path: Path
) -> None:
    real = program("crontab")
    put_on_path(admin, tmp_path, f'{real} "$@" || exit\n[ "$1" != - ] || echo "# other" | {real} -')
    done = admin.run("schedule", "nightly", "--cron", "--install")
    assert done.code == 1
    assert (
        "another program has changed the crontab at the same time as bakthat-nightly" in done.stderr
    )
    assert "hint: look at it with crontab -l, then try again" in done.stderr


def test_a_crontab_that_cannot_be_run(user: CommandLine, tmp_path: Path) -> None:
    configure(user)
    put_on_path(user, tmp_path, "")
    (tmp_path / "bin" / "crontab").write_text("#!/no/such/shell\n")
    user.environment["PATH"] = str(tmp_path / "bin")  # or the next one is run
    done = user.run("schedule", "nightly", "--cron", "--install")
    assert done.code == 1
    assert "cannot run crontab: no such file or directory" in done.stderr


def put_on_path(user: CommandLine, directory: Path, script: str) -> None:
    """Let a script be the first program called crontab."""
    wrapper = directory / "bin" / "crontab"
    wrapper.parent.mkdir()
    wrapper.write_text(f"#!/bin/sh\n{script}\n")
    wrapper.chmod(0o755)
    user.environment["PATH"] = f"{wrapper.parent}:{user.environment['PATH']}"


def test_without_cron_the_other_way_is_named(user: CommandLine) -> None:
    configure(user)
    done = user.run("schedule", "nightly", "--cron", "--install", env={"PATH": ""})
    assert done.code == 1
    assert "there is no cron here: crontab is not on PATH" in done.stderr
    assert "leave --cron out for a timer of systemd" in done.stderr
