"""``bakthat schedule``: what it prints, and what it refuses."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from tests.cli.test_json import checked_lines
from tests.support.commandline import CommandLine, Done

JOBS = """\
default:
  default_destination: local
  local_path: store
  password_file: key
  plugins: [bakthat.notify.Prometheus]
  prometheus: {textfile: metrics/bakthat.prom}
cloud:
  s3_bucket: b
  secret_key_file: /etc/my key
  healthchecks_file: hc
  password: geheim
  password_file: unused
  database: catalog/c.sqlite
sealed:
  s3_bucket: b
  password_file: key
  recipients: [age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj]
asked: {s3_bucket: b, password_command: pass backup}
plugged: {s3_bucket: b, plugins: [mine.Plugin]}
jobs:
  nightly: {sources: [/etc]}
  cloudy: {sources: [/etc, "sqlite:////var/app.db"], profile: cloud}
  sealed_job: {sources: [/etc], profile: sealed}
  hooked: {sources: [/etc], before: [a], after: [b], on_error: [c]}
  command: {sources: [/etc, {command: ls, name: ls}]}
  via: {sources: [{path: "postgresql://h/d", via: docker exec db}]}
  asking: {sources: [/etc], profile: asked}
  plugged_job: {sources: [/etc], profile: plugged}
  told: {sources: [/etc], profile: plugged, notify: [bakthat.notify.Webhook]}
  drilled: {sources: [/etc], drill: {every: 1M, scratch: scratch}}
  checking: {sources: [/etc], drill: {every: 1M, check_command: "true"}}
"""


@pytest.fixture
def config(user: CommandLine) -> Path:
    """Write a configuration with many jobs; return its path."""
    path = user.home / ".bakthat.yml"
    path.write_text(JOBS)
    path.chmod(0o600)
    for name in ("catalog", "metrics", "store", "scratch"):
        (user.home / name).mkdir()
    return path


def values(done: Done, setting: str) -> list[str]:
    lines = done.stdout.splitlines()
    return [each.partition("=")[2] for each in lines if each.startswith(f"{setting}=")]


def test_the_units_are_printed_with_their_paths_and_nothing_is_written(
    user: CommandLine, config: Path
) -> None:
    before = {each: each.read_bytes() for each in user.home.rglob("*") if each.is_file()}
    done = user.run("schedule", "nightly", "--user")
    assert (done.code, done.stderr) == (0, "")
    place = user.home / ".config/systemd/user"
    first = f"# {place}/bakthat-nightly.service\n# Written by bakthat schedule for the default "
    assert done.stdout.startswith(first)
    assert f"\n# {place}/bakthat-nightly.timer\n" in done.stdout
    (command,) = values(done, "ExecStart")
    program, *words = shlex.split(command)
    assert Path(program).name == "bakthat"
    assert os.access(program, os.X_OK)
    assert words == ["run", "nightly"]
    assert values(done, "Environment") == [f"HOME={user.home}"]
    after = {each: each.read_bytes() for each in user.home.rglob("*") if each.is_file()}
    assert after == before


def test_a_configuration_that_was_named_is_named_by_its_whole_path(
    user: CommandLine, config: Path
) -> None:
    (user.directory / "my jobs.yml").write_text(JOBS)
    (user.directory / "my jobs.yml").chmod(0o600)
    whole = user.directory / "my jobs.yml"
    for arguments, environment in (
        (["-c", "my jobs.yml"], {}),
        ([], {"BAKTHAT_CONFIG": str(whole)}),
    ):
        done = user.run("schedule", "nightly", "--user", *arguments, env=environment)
        (command,) = values(done, "ExecStart")
        assert shlex.split(command)[1:] == ["run", "-c", str(whole), "nightly"]
        assert f"# Written by bakthat schedule for {whole}.\n" in done.stdout
        assert done.stderr == ""


def test_the_variables_of_this_shell_are_not_those_of_the_night(
    user: CommandLine, config: Path
) -> None:
    environment = {"BAKTHAT_S3_BUCKET": "x", "XDG_CACHE_HOME": "/var/cache/mine"}
    done = user.run("schedule", "nightly", "--user", env=environment)
    assert done.code == 0
    assert "BAKTHAT_S3_BUCKET is set here, but not when the job runs" in done.stderr
    assert values(done, "Environment") == [
        f"HOME={user.home}",
        "XDG_CACHE_HOME=/var/cache/mine",
    ]


def system_units(user: CommandLine, job: str) -> Done:
    if os.geteuid() != 0:
        pytest.skip("only root has units of the system")
    done = user.run("schedule", job)
    assert (done.code, done.stderr) == (0, "")
    return done


def test_secrets_in_files_are_credentials_where_the_file_is_what_counts(
    user: CommandLine, config: Path
) -> None:
    assert values(system_units(user, "nightly"), "LoadCredential") == [
        f"bakthat.password:{user.home}/key"
    ]
    assert values(system_units(user, "cloudy"), "LoadCredential") == [
        "bakthat.secret_key:/etc/my key",
        f"bakthat.healthchecks:{user.home}/hc",
    ]
    assert values(system_units(user, "sealed_job"), "LoadCredential") == []


@pytest.mark.parametrize(
    ("job", "commands"),
    [
        ("hooked", "before, after, on_error"),
        ("command", "source 2"),
        ("via", "source 1"),
        ("asking", "password_command"),
        ("plugged_job", "mine.Plugin"),
        ("checking", "drill"),
    ],
)
def test_a_service_that_runs_commands_of_the_user_is_open(
    user: CommandLine, config: Path, job: str, commands: str
) -> None:
    done = system_units(user, job)
    assert f"# The job has commands or plugins of yours ({commands})" in done.stdout
    assert values(done, "ProtectSystem") == values(done, "NoNewPrivileges") == []


@pytest.mark.parametrize("job", ["nightly", "cloudy", "told", "drilled"])
def test_a_service_that_runs_none_is_closed(user: CommandLine, config: Path, job: str) -> None:
    done = system_units(user, job)
    assert values(done, "ProtectSystem") == ["strict"]
    assert values(done, "NoNewPrivileges") == ["yes"]
    assert ("CAP_CHOWN" in done.stdout) == (job == "drilled")


def test_the_json_has_the_files(user: CommandLine, config: Path) -> None:
    done = user.run("schedule", "nightly", "--user", "--json")
    service, timer, summary = checked_lines(done, "schedule")
    assert (service["kind"], timer["kind"]) == ("service", "timer")
    assert timer["path"].endswith("/bakthat-nightly.timer")
    assert "[Timer]\nOnCalendar=*-*-* 04:30:00\n" in timer["text"]
    assert summary["installed"] is False
    entry, _ = checked_lines(user.run("schedule", "nightly", "--cron", "--json"), "schedule")
    assert (entry["kind"], entry["path"]) == ("crontab", None)
    assert entry["text"] == user.run("schedule", "nightly", "--cron").stdout


def test_the_time_of_the_day_and_the_jitter(user: CommandLine, config: Path) -> None:
    done = user.run("schedule", "nightly", "--user", "--at", "23:05", "--jitter", "0")
    assert values(done, "OnCalendar") == ["*-*-* 23:05:00"]
    assert values(done, "RandomizedDelaySec") == []
    done = user.run("schedule", "nightly", "--user", "--calendar", "Mon..Fri 12:00")
    assert values(done, "OnCalendar") == ["Mon..Fri 12:00"]
    assert values(done, "RandomizedDelaySec") == ["15min"]
    done = user.run("schedule", "nightly", "--cron", "--at", "23:05", "--jitter", "0")
    assert done.stdout.splitlines()[1].startswith("5 23 * * * ")


def test_a_time_that_summer_time_leaves_out_is_named(user: CommandLine, config: Path) -> None:
    words = ("schedule", "nightly", "--at", "02:30")
    zone = {"TZ": "Europe/Berlin"}
    done = user.run(*words, "--user", env=zone)
    assert done.code == 0
    assert "that time does not come on 20" in done.stderr
    assert "so there is no run; 04:30 always comes" in done.stderr
    assert user.run(*words, "--user", env={"TZ": "UTC"}).stderr == ""
    # cron makes up for it.
    assert user.run(*words, "--cron", env=zone).stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nightly", "--install", "--remove"], "--install and --remove exclude each other"),
        (["nightly", "--at", "1:00", "--calendar", "daily"], "--at and --calendar exclude"),
        (["nightly", "--cron", "--calendar", "daily"], "--cron and --calendar exclude"),
        (["nightly", "--cron", "--user"], "--cron and --user exclude"),
        (["nightly", "--remove", "--at", "1:00"], "--remove and --at exclude"),
        (["nightly", "--remove", "--jitter", "1"], "--remove and --jitter exclude"),
        (["nightly", "--at", "25:00"], "--at is a time of the day, not '25:00'"),
        (["nightly", "--jitter", "1440"], "--jitter is a number of minutes below a day"),
        (["nightly", "--calendar", "daily;"], "--calendar is no calendar of systemd"),
        (["nightly", "-c", "/dev/null"], "the configuration /dev/null is no file"),
    ],
)
def test_wrong_usage(user: CommandLine, config: Path, arguments: list[str], message: str) -> None:
    done = user.run("schedule", *arguments)
    assert (done.code, done.stdout) == (2, "")
    assert f"error: {message}" in done.stderr
    assert "hint: " in done.stderr


@pytest.mark.parametrize("way", [[], ["--install"], ["--cron"], ["--cron", "--install"]])
def test_a_job_that_does_not_exist(user: CommandLine, config: Path, way: list[str]) -> None:
    done = user.run("schedule", "nightli", "--user", *way) if not way else user.run(
        "schedule", "nightli", *way
    )  # fmt: skip
    assert (done.code, done.stdout) == (1, "")
    assert "no job 'nightli'" in done.stderr
    assert "hint: did you mean nightly?" in done.stderr


def test_without_systemctl_cron_is_named(user: CommandLine, config: Path) -> None:
    done = user.run("schedule", "nightly", "--user", "--install", env={"PATH": ""})
    assert done.code == 1
    assert "there is no systemd here: systemctl is not on PATH" in done.stderr
    assert "hint: --cron makes a line of a crontab instead" in done.stderr
    assert not (user.home / ".config").exists()
