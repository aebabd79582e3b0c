"""``bakthat status``: what it prints for people and for programs, and its exit codes."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from bakthat.__main__ import main
from bakthat.conf import machine_name
from bakthat.session.session import Session
from bakthat.system import terminal
from tests.support.commandline import CommandLine, untimed
from tests.support.fleet import Fleet

CONFIG = """\
default:
  default_destination: local
  local_path: store
  password: ""
  prefix: "{host}/"
  rotation: {last: 2}
jobs:
  nightly:
    sources: [etc, {command: "echo hello", name: out.txt}]
    max_age: 26h
    check: {every: 1W}
"""


@pytest.fixture
def user(user: CommandLine) -> CommandLine:
    """Give the user a job and a directory to back up."""
    (user.home / "etc").mkdir()
    (user.home / "etc" / "a").write_text("hello")
    config = user.home / ".bakthat.yml"
    config.write_text(CONFIG)
    config.chmod(0o600)
    return user


def test_what_is_wrong_is_named_with_what_can_be_typed(user: CommandLine) -> None:
    assert user.run("backup", user.home / "etc").code == 0
    done = user.run("status")
    assert done.code == 1
    assert untimed(done.stderr) == (
        "bakthat: error: 2 of 2 sets need attention\n2 sets, 0 good, 2 wrong\n"
    )
    table, _, findings = done.stdout.partition("\n\n")
    header, etc, out = table.splitlines()
    assert header.split()[:5] == ["SET", "AGE", "SIZE", "BACKUPS", "JOB"]
    assert etc.split()[:4] == ["WRONG", "etc", "0", "min"]
    assert re.search(r" 1 +nightly +20", etc)
    assert out.split() == ["WRONG", "out.txt", "never", "0", "nightly"]
    assert findings == (
        "problem\n"
        "  etc      never checked, and its job says each 7 d\n"
        "           hint: bakthat check etc does it now\n"
        "  out.txt  never backed up: the job nightly should make it\n"
        "           hint: bakthat run nightly makes the next one, or says what fails\n"
    )
    # What was said to be typed mends it.
    assert user.run("run", "nightly").code == 0
    done = user.run("status")
    assert (done.code, untimed(done.stderr)) == (0, "2 sets, 2 good, 0 wrong\n")
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["ok", "ok"]
    assert "stored 0 min ago" in done.stdout


def test_a_hint_has_the_options_by_which_its_command_finds_the_set(user: CommandLine) -> None:
    config = user.home / ".bakthat.yml"
    text = (
        config.read_text()
        .replace("default:", "second:")
        .replace("sources", "profile: second\n    sources")
    )
    text += "    drill: {every: 1M}\n"
    config.write_text(text)
    user.run("backup", "-p", "second", user.home / "etc")
    done = user.run("status", "--json")
    etc, _ = done.lines("status")
    hints = [each["hint"] for each in etc["findings"]]
    assert hints == [
        "bakthat check -p second etc does it now",
        "bakthat drill -p second etc does it now",
    ]
    for hint in hints:
        assert user.shell(hint.removeprefix("bakthat ").removesuffix(" does it now")).code == 0
    assert user.run("status", "etc").code == 0


def test_a_hint_names_another_configuration(user: CommandLine) -> None:
    config = user.home / "my jobs.yml"
    (user.home / ".bakthat.yml").rename(config)
    user.run("backup", "-c", config, user.home / "etc")
    done = user.run("status", "--json", "-c", config)
    hints = [finding["hint"] for each in done.lines("status") for finding in each["findings"]]
    check, run = hints
    assert check == f"bakthat check -c '{config}' etc does it now"
    assert run == f"bakthat run -c '{config}' nightly makes the next one, or says what fails"
    assert user.shell(check.removeprefix("bakthat ").removesuffix(" does it now")).code == 0


@pytest.mark.parametrize("command", ["status", "report"])
def test_no_set_has_a_name_that_is_no_text(user: CommandLine, command: str) -> None:
    done = user.run(command, "e\udcff")
    assert done.code == 1
    assert "no set 'e\\xff', and no job makes one" in done.stderr


def test_quiet_says_only_what_is_wrong(user: CommandLine) -> None:
    user.run("backup", user.home / "etc", "--name", "mine")
    done = user.run("status", "mine", "--quiet")
    assert (done.code, done.stdout, done.stderr) == (0, "", "")
    done = user.run("status", "--quiet")
    assert done.code == 1
    assert done.stderr == "bakthat: error: 2 of 3 sets need attention\n"
    assert "mine" not in done.stdout
    assert "never backed up" in done.stdout


def test_programs_get_a_line_for_each_set(user: CommandLine) -> None:
    user.run("run")
    done = user.run("status", "--json", "--max-age", "1s", env={"TZ": "UTC"})
    etc, out = done.lines("status")
    assert (etc["filename"], etc["max_age"], etc["jobs"]) == ("etc", 1, ["nightly"])
    assert out["files"] == 1
    [summary] = done.lines("summary")
    assert summary["sets"] == 2
    assert summary["wrong"] == sum(not each["good"] for each in (etc, out))
    assert done.code == (1 if summary["wrong"] else 0)


def test_prometheus_gets_metrics_and_nothing_else(user: CommandLine) -> None:
    user.run("backup", user.home / "etc")
    done = user.run("status", "--prometheus")
    assert (done.code, done.stderr) == (1, "")
    labels = f'{{set="etc",host="{machine_name()}",destination="local",source="{user.home}/etc"}}'
    lines = done.stdout.splitlines()
    assert f"bakthat_problems{labels} 1" in lines
    assert f"bakthat_max_age_seconds{labels} 93600" in lines
    assert f"bakthat_backups{labels} 1" in lines
    never = f'{{set="out.txt",host="{machine_name()}",destination="local"}}'
    assert [each for each in lines if never in each] == [
        f"bakthat_backups{never} 0",
        f"bakthat_max_age_seconds{never} 93600",
        f"bakthat_problems{never} 1",
    ]
    for name in {each.partition("{")[0] for each in lines if not each.startswith("#")}:
        assert sum(each.startswith(f"# HELP {name} ") for each in lines) == 1
        assert lines.count(f"# TYPE {name} gauge") == 1
    done = user.run("status", "--prometheus", "--json")
    assert done.code == 2
    assert "--prometheus takes no --json" in done.stderr


def test_all_hosts_need_no_catalog(user: CommandLine) -> None:
    for host in ("web1", "web2"):
        config = (user.home / ".bakthat.yml").read_text().partition("jobs:")[0]
        other = user.home / f"{host}.yml"
        other.write_text(f"{config}  host: {host}\n")
        other.chmod(0o600)
        assert user.run("backup", user.home / "etc", "-c", other).code == 0
    (user.home / ".bakthat.sqlite").unlink()
    done = user.run("status", "--all-hosts", "--max-age", "1D")
    assert (done.code, untimed(done.stderr)) == (0, "2 sets, 2 good, 0 wrong\n")
    assert [line.split()[:3] for line in done.stdout.splitlines()[1:]] == [
        ["ok", "etc", "web1"],
        ["ok", "etc", "web2"],
    ]
    assert not (user.home / ".bakthat.sqlite").exists()
    done = user.run("status", "--all-hosts", "--host", "web3")
    assert done.code == 1
    assert "there are no backups of any set of web3 in " in done.stderr


def test_an_unknown_set_and_a_wrong_interval_are_refused(user: CommandLine) -> None:
    done = user.run("status", "ect")
    assert done.code == 1
    assert "no set 'ect', and no job makes one" in done.stderr
    done = user.run("status", "--max-age", "26")
    assert done.code == 2
    assert "interval '26': no unit after 26" in done.stderr


def test_a_narrow_terminal_shows_everything_in_two_lines_and_wrong_rows_in_red(
    user: CommandLine,
) -> None:
    user.run("backup", user.home / "etc")
    code, screen = user.converse("status", columns=80, env={"NO_COLOR": ""})
    assert code == 1
    lines = screen.replace("\r", "").splitlines()
    assert all(len(re.sub(r"\x1b\[\d+m", "", line)) <= 110 for line in lines)
    wrong = [line for line in lines if "WRONG" in line]
    assert len(wrong) == 2
    assert all(line.startswith("\x1b[31m") for line in wrong)
    assert "NEXT TO GO" not in screen  # nothing goes next


def test_a_red_row_is_plain_where_there_are_no_colors(
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal.print_table(("A", "B"), [("1", "2"), ("3", "4")], frozenset(), frozenset({1}))
    assert capsys.readouterr().out == "A  B\n1  2\n3  4\n"


@pytest.mark.usefixtures("isolated_environment", "restored_signals")
def test_the_age_of_what_the_storage_has_lost_is_unknown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet()
    fleet.lost = {fleet.add("etc", int(time.time()) - 60, "web1")}
    monkeypatch.setattr(Session, "backend", lambda _self, _destination: fleet)
    monkeypatch.setenv("BAKTHAT_S3_BUCKET", "fleet")
    monkeypatch.setenv("BAKTHAT_PREFIX", "{host}/")
    assert main(["status", "--all-hosts", "-d", "s3"]) == 1
    header, lost = capsys.readouterr().out.splitlines()[:2]
    assert header.split()[:2] == ["SET", "AGE"]
    assert lost.split()[:3] == ["WRONG", "etc", "unknown"]


def test_names_of_others_are_escaped(user: CommandLine) -> None:
    store = user.home / "store" / machine_name()
    store.mkdir(parents=True)
    name = "a\x1b[2J\u202e.20260101000000.tgz"
    Path(store, name).write_bytes(b"x")
    done = user.run("status", "--all-hosts")
    assert "\x1b" not in done.stdout + done.stderr
    assert "\u202e" not in done.stdout + done.stderr
    assert "a\\x1b[2J\\u202e" in done.stdout
    assert "\\\\x1b[2J" in user.run("status", "--all-hosts", "--prometheus").stdout
