"""The commands of a job: when they run, and what their failure does."""

from __future__ import annotations

import logging
import os
import resource
import signal
from contextlib import suppress
from pathlib import Path

import pytest

import bakthat
from bakthat.errors import HookError, SourceError
from bakthat.jobs.report import JobOutcome, JobReport, SourceReport
from tests.support.nights import Night, messages, sets


def is_running(pid: int) -> bool:
    """Return whether a process runs; one that nobody has waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_failing_before_stops_the_job(night: Night, told: list[tuple[str, str]]) -> None:
    one = night.source("one")
    never = f"touch {night.directory}/never"
    night.write(
        nightly={"sources": [one], **night.hooks(), "before": [night.hook("before", 3), never]}
    )
    report = night.run()
    said = "nightly: command 1 of 'before' ended with exit code 3"
    assert messages(report) == [said]
    assert isinstance(report.problems[0], HookError)
    assert report.problems[0].hint.startswith("nothing was stored")
    assert (report.outcome, bakthat.ls()) == (JobOutcome.FAILED, [])
    assert night.moments() == ["before", "after", "on_error"]
    assert not Path(never.split()[1]).exists()
    for moment in ("after", "on_error"):
        (seen,) = night.seen(moment)
        assert (seen["RESULT"], seen["ERROR"]) == ("failed", said)
        assert (seen["FAILED_SOURCES"], seen["SETS"]) == (one, "")
    assert told == [("on_error", f"run: {said}")]


def test_a_failing_after_fails_the_job_and_stops_nothing(
    night: Night, told: list[tuple[str, str]]
) -> None:
    night.write(
        nightly={
            "sources": [night.source("one")],
            **night.hooks(),
            "after": ["echo it does not start >&2; exit 1", night.hook("after")],
        }
    )
    report = night.run()
    said = "nightly: command 1 of 'after' ended with exit code 1: it does not start"
    assert (sets(report), messages(report)) == (["one"], [said])
    assert report.outcome == JobOutcome.FAILED
    assert night.moments() == ["before", "after", "on_error"]
    assert night.seen("on_error")[0]["ERROR"] == said
    assert told == [("on_backup", "one"), ("on_error", f"run: {said}")]


def test_a_failing_on_error_is_told_and_the_next_one_runs(night: Night) -> None:
    missing = str(night.directory / "missing")
    night.write(nightly={"sources": [missing], "on_error": ["exit 7", night.hook("on_error")]})
    report = night.run()
    assert messages(report) == [
        "nightly: command 1 of 'on_error' ended with exit code 7",
        f"nightly: no such file or directory: '{missing}'",
    ]
    assert len(night.seen("on_error")) == 1


def test_a_source_that_fails_does_not_stop_the_others(
    night: Night, told: list[tuple[str, str]]
) -> None:
    missing = str(night.directory / "missing")
    command = {"command": "echo; exit 4", "name": "stream"}
    sources = [missing, night.source("one"), command, night.source("two")]
    night.write(nightly={"sources": sources, **night.hooks()})
    reported: list[SourceReport] = []
    report = night.run(on_source=reported.append)
    assert reported == report.sources
    first, stream = f"no such file or directory: '{missing}'", "the command ended with exit code 4"
    assert messages(report) == [
        f"nightly: {first}",
        f"nightly: the command for stream: {stream}",
    ]
    assert isinstance(report.sources[0].problems[0], SourceError)
    assert (report.outcome, sets(report)) == (JobOutcome.FAILED, ["one", "two"])
    assert night.moments() == ["before", "after", "on_error"]
    (seen,) = night.seen("on_error")
    assert seen["FAILED_SOURCES"] == f"{missing}\nthe command for stream"
    assert (seen["SETS"], seen["ERROR"]) == ("one\ntwo", f"nightly: {first}")
    assert told == [
        ("on_error", f"backup: {first}"),
        ("on_backup", "one"),
        ("on_error", f"backup: {stream}"),
        ("on_backup", "two"),
    ]


def test_an_incomplete_backup_is_no_failure_and_after_knows(night: Night) -> None:
    one = Path(night.source("one"))
    (one / "file").unlink()
    night.write(nightly={"sources": [str(one)], **night.hooks()})
    assert night.run().outcome == JobOutcome.INCOMPLETE
    assert night.moments() == ["before", "after"]
    assert night.seen("after")[0]["RESULT"] == "incomplete"


@pytest.mark.parametrize("lines", [1, 2])
def test_a_line_that_the_system_does_not_take_is_an_error(night: Night, lines: int) -> None:
    line = f"true {'x' * 200_000}"
    night.write(nightly={"sources": [night.source("one")], "after": [line] * lines})
    report = night.run()
    assert (report.outcome, sets(report)) == (JobOutcome.FAILED, ["one"])
    which = "the command 'after'" if lines == 1 else "command 1 of 'after'"
    assert messages(report)[0].startswith(f"nightly: {which} cannot be run: argument list too long")
    assert "into a file" in report.problems[0].hint


def test_a_line_for_which_the_system_lacks_something_says_what_to_do(night: Night) -> None:
    night.write(nightly={"sources": [night.source("one")], "before": ["true"]})
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []

    def take_all(_session_id: str) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")), limits[1]))
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))

    bakthat.events.before_run += take_all
    try:
        report = night.run()
    finally:
        bakthat.events.before_run -= take_all
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for each in taken:
            os.close(each)
    said = "nightly: the command 'before' cannot be run: too many open files"
    assert messages(report) == [said]
    assert report.problems[0].hint == "raise the limit of open files (ulimit -n)"


def test_the_output_of_hooks_is_logged(night: Night, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="bakthat.programs")
    night.write(nightly={"sources": [night.source("one")], "before": ["echo out; echo err >&2"]})
    night.run()
    lines = [each.getMessage() for each in caplog.records if each.name == "bakthat.programs"]
    assert lines == ["before: out", "before: err"]


def test_hooks_have_no_standard_input_and_no_password(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAKTHAT_PASSWORD", "a secret")
    output = night.directory / "output"
    command = f"cat > {output}; env | grep -c secret >> {output}; true"
    night.write(nightly={"sources": [night.source("one")], "before": [command]})
    report = night.run()
    assert (report.outcome, output.read_text()) == (JobOutcome.DONE, "0\n")
    assert report.backups[0].is_encrypted


def test_the_text_of_a_hook_is_in_no_message(night: Night) -> None:
    night.write(
        nightly={"sources": [night.source("one")], "before": ["true --password=geheim; exit 1"]}
    )
    report = night.run()
    assert "geheim" not in "".join(messages(report)) + repr(report)


def test_what_a_hook_starts_in_the_background_ends_unless_it_leaves_the_group(
    night: Night, caplog: pytest.LogCaptureFixture
) -> None:
    ended, left = night.directory / "ended", night.directory / "left"
    command = f"""
        sleep 1000 & echo $! > {ended}
        setsid sh -c 'echo $$ > {left}; exec sleep 1000' &
        until [ -s {left} ]; do :; done
    """
    night.write(nightly={"sources": [night.source("one")], "after": [command]})
    assert night.run().outcome == JobOutcome.DONE
    assert not is_running(int(ended.read_text()))
    assert is_running(int(left.read_text()))
    os.kill(int(left.read_text()), signal.SIGKILL)
    assert caplog.messages[-1] == (
        "nightly: the command 'after' has left a program running, which is ended now: start a "
        "service by its manager, or by setsid with its output in a file"
    )


def test_what_leaves_the_group_goes_on_printing_into_a_file(night: Night) -> None:
    go, done, printed = (night.directory / each for each in ("go", "done", "printed"))
    os.mkfifo(done)
    app = f"until [ -e {go} ]; do sleep 0.02; done; echo works; echo > {done}"
    night.write(
        nightly={
            "sources": [night.source("one")],
            "after": [f"setsid sh -c '{app}' > {printed} 2>&1 &"],
        }
    )
    assert night.run().outcome == JobOutcome.DONE
    go.touch()
    assert done.read_text() == "\n"
    assert printed.read_text() == "works\n"


def test_a_hook_that_has_ended_whole_is_not_warned_of(
    night: Night, caplog: pytest.LogCaptureFixture
) -> None:
    night.write(
        nightly={"sources": [night.source("one")], "before": ["sleep 0.1 & cat | cat; wait"]}
    )
    assert night.run().outcome == JobOutcome.DONE
    assert "has left a program" not in caplog.text


def test_a_mistake_in_the_configuration_runs_no_before_and_no_after(night: Night) -> None:
    night.conf["plugins"] = ["missing.Plugin"]
    night.write(nightly={"sources": [night.source("one")], **night.hooks()})
    report = night.run()
    assert "there is no module 'missing'" in messages(report)[0]
    assert night.moments() == ["on_error"]


def test_an_exception_of_a_callback_stops_neither_the_job_nor_what_it_says_of_the_backup(
    night: Night,
) -> None:
    def fail(_session_id: str, _backup: object) -> None:
        raise ValueError("a defect of a callback")

    night.write(nightly={"sources": [night.source("one"), night.source("two")], **night.hooks()})
    bakthat.events.on_backup += fail
    try:
        report = night.run()
    finally:
        bakthat.events.on_backup -= fail
    assert (report.outcome, sets(report)) == (JobOutcome.FAILED, ["one", "two"])
    assert "unexpected ValueError: a defect of a callback" in messages(report)[0]
    assert any("stored as one." in note for note in report.sources[0].problems[0].__notes__)
    assert night.moments() == ["before", "after", "on_error"]


def test_a_mistake_of_the_caller_stops_all_and_after_runs(night: Night) -> None:
    def fail(_report: object) -> None:
        raise ValueError

    night.write(first={"sources": [night.source("one")], **night.hooks()})
    reports: list[JobReport] = []
    with pytest.raises(ValueError, match=r"^$"):
        bakthat.run_jobs(on_source=fail, on_job=reports.append)
    assert messages(reports[0]) == ["first: stopped by ValueError before its end"]
    assert night.moments() == ["before", "after", "on_error"]


def test_an_exception_of_the_caller_stops_the_job_and_after_runs(night: Night) -> None:
    def stop(_report: object) -> None:
        raise KeyboardInterrupt

    night.write(
        first={"sources": [night.source("one"), night.source("two")], **night.hooks()},
        second={"sources": [night.source("three")]},
    )
    reports: list[JobReport] = []
    with pytest.raises(KeyboardInterrupt):
        bakthat.run_jobs(on_source=stop, on_job=reports.append)
    (report,) = reports
    assert (sets(report), messages(report)) == (
        ["one"],
        ["first: stopped by a signal before its end"],
    )
    assert night.moments() == ["before", "after", "on_error"]
    assert night.seen("after")[0]["RESULT"] == "failed"
    assert night.seen("after")[0]["FAILED_SOURCES"].endswith("two")
