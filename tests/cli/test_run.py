"""``bakthat run``: what it prints, and its exit codes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.jobs.backup import lock_path
from bakthat.session.session import Session
from bakthat.system.locks import held
from tests.cli.test_json import checked_lines
from tests.support.commandline import CommandLine, untimed
from tests.support.nights import Night
from tests.support.profiles import Conf


@pytest.fixture
def night(isolated_environment: Path, tmp_path: Path, local: Conf) -> Night:
    return Night(isolated_environment, tmp_path, local)


def lock_of(night: Night) -> Path:
    from bakthat.conf import read_configuration

    (loaded, *_) = read_configuration().jobs.values()
    return lock_path(Session("default", None, night.conf), loaded.job.sources[0])


def test_one_line_says_what_became_of_each_source_and_one_what_became_of_all(
    night: Night, user: CommandLine
) -> None:
    one, missing = night.source("one"), str(night.directory / "missing")
    night.write(nightly={"sources": [one, missing]}, empty={"sources": [night.source("two")]})
    done = user.run("run", "--quiet")
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr == (
        f"bakthat: error: nightly: no such file or directory: '{missing}'\n"
        "bakthat: hint: check the name, and that its disk is mounted\n"
    )
    done = user.run("run")
    assert done.code == 1
    lines = [re.sub(r"\d{14}", "DATE", each) for each in untimed(done.stderr).splitlines()]
    store = night.conf["local_path"]
    assert [re.sub(r" \(\d+ B\)(?=:)", "", each) for each in lines if "ored" in each] == [
        f"nightly: stored as one.DATE.tgz: 1 file (5 B) on local {store}",
        f"empty: stored as two.DATE.tgz: 1 file (5 B) on local {store}",
        "Ran 2 jobs, 1 failed: 2 of 3 sources stored: 2 files (10 B)",
    ]


def test_the_lines_of_json_are_those_of_the_contract(night: Night, user: CommandLine) -> None:
    one, missing = night.source("one"), str(night.directory / "missing")
    night.conf["rotation"] = {"last": 1}
    night.write(
        nightly={"sources": [one, missing], "rotate": True, "after": ["exit 1"]},
        daily={"sources": [one], "check": {"every": "1D"}, "drill": {"every": "1D"}},
    )
    bakthat.backup(one, prompt="no")
    done = user.run("run", "--json")
    lines = checked_lines(done, "run")
    assert [each["message_type"] for each in lines] == [
        *("backup", "error", "error", "job"),
        *("backup", "job", "summary"),
    ]
    _, source, after, nightly, stored, daily, summary = lines
    assert source["type"] == "SourceError"
    assert (after["type"], after["message"]) == (
        "HookError",
        "nightly: the command 'after' ended with exit code 1",
    )
    assert (nightly["outcome"], nightly["failed"]) == ("failed", [missing])
    assert len(nightly["rotated"]) == 1
    assert (daily["outcome"], daily["stored"]) == ("done", [stored["stored_filename"]])
    assert (daily["drilled"], daily["wrong"]) == ([stored["stored_filename"]], 0)
    assert (summary["jobs"], summary["sources"], summary["failed"]) == (2, 3, 1)
    assert summary["jobs_failed"] == 1
    assert (summary["rotated"], summary["files"]) == (1, 2)


def test_a_dry_run_says_what_would_be_done(night: Night, user: CommandLine) -> None:
    one, missing = night.source("one"), str(night.directory / "missing")
    night.conf["rotation"] = {"last": 1}
    night.write(
        nightly={
            "sources": [one, missing],
            "rotate": True,
            "check": {"every": "1D"},
            "drill": {"every": "1D"},
            "before": ["one", "two"],
        }
    )
    names = [bakthat.backup(one, prompt="no").stored_filename for _ in range(2)]
    done = user.run("run", "--dry-run")
    assert done.code == 1
    assert done.stdout == (
        "nightly: commands: 2 before\n"
        f"  {one}: would be stored; rotation would delete {names[0]}\n"
        f"  {missing}: cannot be stored\n"
        "  check is due: one\n"
        "  drill is due: one\n"
    )
    assert untimed(done.stderr).splitlines()[-1] == (
        "Looked at 1 job, 1 would fail: 1 of 2 sources would be stored, "
        "1 backup would be rotated away"
    )
    lines = checked_lines(user.run("run", "--dry-run", "--json"), "run")
    assert [each["message_type"] for each in lines] == ["error", "job", "summary"]
    assert lines[1]["rotated"] == names[:1]
    assert lines[1]["check_due"] == lines[1]["drill_due"] == ["one"]
    assert len(bakthat.ls()) == 2


@pytest.mark.parametrize("job", [{"rotate": True}, {"rotat": True}, {"after": "exit 1"}])
def test_the_summary_says_that_a_job_failed_and_what_is_stored_of_it(
    night: Night, user: CommandLine, job: dict[str, Any]
) -> None:
    """A backup that is stored is so, and a job that could not begin has failed."""
    night.write(nightly={"sources": [night.source("one")], **job})
    stored = "rotat" not in job
    done = user.run("run")
    assert done.code == 1
    said = "1 of 1 source stored" if stored else "0 of 0 sources stored"
    assert untimed(done.stderr).splitlines()[-1].startswith(f"Ran 1 job, 1 failed: {said} (")
    *_, summary = checked_lines(user.run("run", "--json"), "run")
    assert (summary["jobs"], summary["jobs_failed"]) == (1, 1)


def test_the_exit_code_tells_the_worst(night: Night, user: CommandLine) -> None:
    one, two = night.source("one"), Path(night.source("two"))
    night.write(first={"sources": [one]}, second={"sources": [str(two)]})
    assert user.run("run").code == 0
    (two / "file").unlink()
    done = user.run("run")
    assert done.code == 3
    assert "second: stored, but incomplete or of a suspicious size: two." in done.stderr
    with held(lock_of(night), wait=False, about=one):
        done = user.run("run")
        assert done.code == 5
        assert (
            f"first: another run is still going on {one}: process {os.getpid()} on" in done.stderr
        )
        two.rmdir()
        assert user.run("run").code == 1


def test_what_cannot_be_asked_for_is_said(night: Night, user: CommandLine) -> None:
    night.write(nightly={"sources": [night.source("one")]})
    done = user.run("run", "nigthly")
    assert done.code == 1
    assert "no job 'nigthly' (there are: nightly)" in done.stderr
    assert "did you mean nightly?" in done.stderr
    assert user.run("run", "--profile", "default").code == 2


def test_the_configuration_may_be_named_by_a_variable(night: Night, user: CommandLine) -> None:
    path = night.write(nightly={"sources": [night.source("one")]})
    other = str(path.rename(night.directory / "other.yml"))
    assert user.run("run", env={"BAKTHAT_CONFIG": other}).code == 0
    assert user.run("run", "nightly", "-c", other).code == 0
    assert user.run("run").code == 1


def test_an_output_that_cannot_be_written_stops_no_backup(night: Night, user: CommandLine) -> None:
    night.write(first={"sources": [night.source("one")]}, second={"sources": [night.source("two")]})
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "bakthat", "run", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=user.environment,
            check=False,
        )
    assert ended.returncode == 1
    assert b"cannot write the output" in ended.stderr
    assert len(bakthat.ls()) == 2


def test_an_unexpected_error_is_named_as_one(night: Night, user: CommandLine) -> None:
    plugins = night.home / ".bakthat_plugins"
    plugins.mkdir(mode=0o700)
    (plugins / "broken.py").write_text(
        "from bakthat.plugin import Plugin\n"
        "class Broken(Plugin):\n"
        "    def activate(self):\n"
        "        self.before_backup += lambda session_id: 1 / 0\n"
    )
    night.conf["plugins"] = ["broken.Broken"]
    night.write(nightly={"sources": [night.source("one")]})
    done = user.run("run", "--json")
    (error,) = done.lines("error")
    assert (done.code, error["type"]) == (1, "BakthatError")
    assert "unexpected ZeroDivisionError: division by zero" in error["message"]
    assert "a callback of before_backup" in error["hint"]


def test_the_progress_is_on_a_terminal(night: Night, user: CommandLine) -> None:
    (Path(night.source("one")) / "large").write_bytes(os.urandom(20_000_000))
    night.write(nightly={"sources": [str(night.directory / "one")]})
    code, screen = user.converse("run", columns=80)
    assert code == 0
    assert "Uploading" in screen
    assert "Ran 1 job: 1 of 1 source stored" in screen
