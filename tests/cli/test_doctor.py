"""``bakthat doctor``: its lines, its exit code, and what a signal leaves."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.support.commandline import PATIENCE, CommandLine, untimed
from tests.support.fault_proxy import FaultProxy, Stall
from tests.support.profiles import Conf, write_config
from tests.support.servers import plain


@pytest.fixture
def conf(local: Conf) -> Conf:
    """Return a profile that nothing is wrong with."""
    Path(local["local_path"]).mkdir()
    return {**local, "password": "secret"}


def test_findings_are_grouped_and_counted(user: CommandLine, conf: Conf) -> None:
    write_config(user.home / ".bakthat.yml", default=conf)
    done = user.run("doctor")
    assert done.code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "good"
    assert f"  writing        a file was written to {conf['local_path']}" in lines
    assert "advice" not in lines
    assert "problem" not in lines
    (summary,) = done.stderr.splitlines()
    assert untimed(summary) == f"Tried {len(lines) - 1} things: {len(lines) - 1} good, 0 to " + (
        "consider, 0 problems"
    )


def test_only_a_problem_of_the_destination_is_a_failure(user: CommandLine, conf: Conf) -> None:
    profiles = {
        "default": {**conf, "password": ""},
        "web": {**conf, "default_destination": "s3"},
    }
    write_config(user.home / ".bakthat.yml", **profiles)
    done = user.run("doctor")
    assert done.code == 0
    lines = done.stdout.splitlines()
    at = lines.index("advice")
    assert lines[at + 1] == "  encryption     backups are not encrypted, as the profile says"
    assert lines[at + 2].startswith("                 hint: set recipients")
    done = user.run("doctor", "-p", "web")
    assert done.code == 1
    assert done.stdout.splitlines()[-3:] == [
        "problem",
        "  configuration       's3_bucket' is not set",
        "                      hint: add s3_bucket to the profile, or run bakthat configure",
    ]
    assert user.run("doctor", "-p", "web", "-d", "local").code == 0


def test_json_has_a_line_for_each_finding(user: CommandLine, conf: Conf) -> None:
    write_config(user.home / ".bakthat.yml", default={**conf, "default_destination": "s3"})
    done = user.run("doctor", "--json")
    assert done.code == 1
    error, *checks, summary = [json.loads(line) for line in done.stdout.splitlines()]
    assert (error["message_type"], error["message"]) == ("error", "1 problem found")
    assert {each["message_type"] for each in checks} == {"check"}
    wrong = [each for each in checks if each["verdict"] == "problem"]
    assert [(each["topic"], each["hint"]) for each in wrong] == [
        ("configuration", "add s3_bucket to the profile, or run bakthat configure")
    ]
    assert (summary["command"], summary["problems"]) == ("doctor", 1)
    assert summary["good"] + summary["advice"] + summary["problems"] == len(checks)


def test_a_destination_that_is_unknown_is_wrong_usage(user: CommandLine) -> None:
    done = user.run("doctor", "-d", "dropbox")
    assert done.code == 2
    assert "there is no destination 'dropbox'" in done.stderr


def test_lines_fit_the_terminal(user: CommandLine, conf: Conf) -> None:
    write_config(user.home / ".bakthat.yml", default={**conf, "password": ""})
    code, screen = user.converse("doctor", env={"COLUMNS": "80"})
    assert code == 0
    lines = screen.replace("\r", "").splitlines()
    assert "advice" in lines
    # Only a path that is longer than the line is not broken.
    assert [each for each in lines if len(each) > 80 and len(each.split()) > 3] == []
    hint = next(number for number, line in enumerate(lines) if "hint: set recipients" in line)
    assert lines[hint + 1].startswith(" " * 17)


def test_colors_say_how_bad_it_is(user: CommandLine, conf: Conf) -> None:
    write_config(user.home / ".bakthat.yml", default=conf)
    _, screen = user.converse("doctor", env={"NO_COLOR": ""})
    assert "\x1b[32mgood\x1b[0m" in screen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_in_the_bucket(
    user: CommandLine, proxied_conf: Conf, moto_proxy: FaultProxy, number: int
) -> None:
    write_config(user.home / ".bakthat.yml", default={**proxied_conf, "timeout": 5})
    stall = Stall()
    moto_proxy.on("HEAD", ".probe", stall, times=1)
    process = user.start("doctor")
    assert stall.reached.wait(PATIENCE)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number, errors
    assert b"Traceback" not in errors
    found = plain(proxied_conf).list_objects_v2(Bucket=proxied_conf["s3_bucket"])
    assert found.get("Contents") is None
