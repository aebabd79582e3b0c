"""Who is told of a job: monitors and people once, at its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

import bakthat
from bakthat.conf import read_configuration
from bakthat.hooks import JobResult
from bakthat.jobs.backup import lock_path
from bakthat.jobs.report import JobOutcome
from bakthat.session.session import Session
from bakthat.system.locks import held
from tests.support.http_listener import HttpListener, http_listener
from tests.support.nights import Night, messages


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpListener]:
    monkeypatch.setenv("no_proxy", "*")
    with http_listener() as listener:
        yield listener


def with_plugin(night: Night, name: str, section: str, **settings: Any) -> None:
    night.conf = {**night.conf, "plugins": [f"bakthat.notify.{name}"], section: settings}


def write(night: Night, *, is_good: bool) -> None:
    sources = [night.source("one"), night.source("two")]
    missing = [] if is_good else [str(night.directory / "missing")]
    night.write(nightly={"sources": [*missing, *sources], "drill": {"every": "1M"}})


def test_healthchecks_is_pinged_at_the_beginning_and_the_end_of_a_job(
    night: Night, server: HttpListener
) -> None:
    with_plugin(night, "Healthchecks", "healthchecks", url=f"{server.url}/uuid")
    write(night, is_good=True)
    assert night.run().outcome is JobOutcome.DONE
    assert server.paths() == ["/uuid/start", "/uuid"]
    start, end = server.requests
    assert parse_qs(urlsplit(start.path).query)["rid"] == parse_qs(urlsplit(end.path).query)["rid"]
    assert end.body.decode().startswith("job nightly done: 2 backups (")


def test_a_source_that_fails_is_not_hidden_by_the_next_that_succeeds(
    night: Night, server: HttpListener
) -> None:
    with_plugin(night, "Healthchecks", "healthchecks", url=f"{server.url}/uuid")
    write(night, is_good=False)
    report = night.run()
    assert (report.outcome, len(report.backups)) == (JobOutcome.FAILED, 2)
    assert server.paths() == ["/uuid/start", "/uuid/fail"]
    said = server.requests[1].body.decode()
    assert said.startswith("job nightly failed: 2 backups (")
    assert said.endswith(messages(report)[0])


@pytest.mark.parametrize(("is_good", "status"), [(True, "up"), (False, "down")])
def test_a_monitor_of_uptime_kuma_has_one_push_of_a_job(
    night: Night, server: HttpListener, is_good: bool, status: str
) -> None:
    with_plugin(night, "UptimeKuma", "uptime_kuma", url=f"{server.url}/api/push/token")
    write(night, is_good=is_good)
    night.run()
    (pushed,) = server.requests
    query = parse_qs(urlsplit(pushed.path).query)
    assert query["status"] == [status]
    assert query["msg"][0].startswith("job nightly ")
    assert ("ping" in query) is is_good


def test_a_webhook_has_one_message_of_a_job_with_all_of_its_backups(
    night: Night, server: HttpListener
) -> None:
    with_plugin(night, "Webhook", "webhook", url=f"{server.url}/hook")
    write(night, is_good=False)
    report = night.run()
    (posted,) = server.requests
    body = json.loads(posted.body)
    assert (body["operation"], body["status"]) == ("run", "failure")
    assert {each["filename"] for each in body["backups"]} == {"one", "two"}
    assert messages(report)[0] in body["message"]


def test_a_failing_command_is_a_part_of_the_one_message(night: Night, server: HttpListener) -> None:
    with_plugin(night, "Webhook", "webhook", url=f"{server.url}/hook", when="failure")
    night.write(nightly={"sources": [night.source("one")], "before": "exit 3"})
    report = night.run()
    assert len(server.requests) == 1
    assert messages(report)[0] in json.loads(server.requests[0].body)["message"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_job_is_told_once_also_where_sources_of_it_are_locked(
    night: Night, server: HttpListener, told: list[tuple[str, str]], count: int
) -> None:
    with_plugin(night, "Webhook", "webhook", url=f"{server.url}/hook")
    sources = [night.source(name) for name in ("one", "two", "three")]
    night.write(nightly={"sources": sources})
    session = Session("default", None, night.conf)
    with ExitStack() as locks:
        for each in read_configuration().job("nightly").job.sources[:count]:
            locks.enter_context(held(lock_path(session, each), wait=False, about="x"))
        report = night.run()
    assert (report.outcome, len(report.backups)) == (JobOutcome.LOCKED, 3 - count)
    (posted,) = server.requests
    body = json.loads(posted.body)
    assert (body["operation"], body["status"]) == ("run", "failure")
    assert messages(report)[0] in body["message"]
    # Scripts hear of each source of a job that has begun.
    named = [f"backup: {each}" for each in messages(report)]
    errors = [text for event, text in told if event == "on_error"]
    assert errors == (named if count < 3 else [f"run: {messages(report)[0]}"])


def test_a_backup_after_a_job_is_told_as_ever(night: Night, server: HttpListener) -> None:
    with_plugin(night, "Healthchecks", "healthchecks", url=f"{server.url}/uuid")
    source = night.source("one")
    night.write(nightly={"sources": [source]})
    night.run()
    server.requests.clear()
    bakthat.backup(source, prompt="no")
    assert server.paths() == ["/uuid/start", "/uuid"]


def test_the_events_surround_the_job(night: Night) -> None:
    seen: list[tuple[str, str]] = []

    def before_run(session_id: str) -> None:
        seen.append(("before_run", session_id))

    def on_backup(_session_id: str, _backup: object) -> None:
        seen.append(("on_backup", ""))

    def on_run(session_id: str, result: JobResult) -> None:
        seen.append(("on_run", session_id))
        assert (result.job, result.outcome, len(result.backups)) == ("nightly", "done", 2)
        assert result.seconds > 0

    write(night, is_good=True)
    bakthat.events.before_run += before_run
    bakthat.events.on_backup += on_backup
    bakthat.events.on_run += on_run
    try:
        night.run()
    finally:
        bakthat.events.before_run -= before_run
        bakthat.events.on_backup -= on_backup
        bakthat.events.on_run -= on_run
    session_id = seen[0][1]
    assert seen == [
        ("before_run", session_id),
        ("on_backup", ""),
        ("on_backup", ""),
        ("on_run", session_id),
    ]


def test_a_before_run_that_raises_stops_the_job(night: Night) -> None:
    def refuse(_session_id: str) -> None:
        raise ValueError("not tonight")

    write(night, is_good=True)
    bakthat.events.before_run += refuse
    try:
        report = night.run()
    finally:
        bakthat.events.before_run -= refuse
    assert report.outcome is JobOutcome.FAILED
    assert "not tonight" in messages(report)[0]
    assert bakthat.ls() == []


def test_an_on_run_that_raises_is_a_failure_of_the_job(night: Night) -> None:
    def fail(_session_id: str, _result: JobResult) -> None:
        raise ValueError("could not tell")

    night.write(nightly={"sources": [night.source("one"), night.source("two")], **night.hooks()})
    bakthat.events.on_run += fail
    try:
        report = night.run()
    finally:
        bakthat.events.on_run -= fail
    assert report.outcome is JobOutcome.FAILED
    assert night.moments() == ["before", "after", "on_error"]
    assert "could not tell" in night.seen("on_error")[0]["ERROR"]
    assert "could not tell" in messages(report)[0]
    assert len(bakthat.ls()) == 2


def test_of_an_exception_that_is_not_of_bakthat_only_the_type_is_told(
    night: Night, server: HttpListener
) -> None:
    """Its text may quote a secret, as that of a request quotes its address."""

    def fail(_session_id: str, _backup: object) -> None:
        raise ValueError("https://example.com/geheim")

    with_plugin(night, "Webhook", "webhook", url=f"{server.url}/hook")
    write(night, is_good=True)
    bakthat.events.on_backup += fail
    try:
        report = night.run()
    finally:
        bakthat.events.on_backup -= fail
    assert "geheim" in messages(report)[0]
    (posted,) = server.requests
    assert json.loads(posted.body)["message"].endswith("; ValueError")
    assert b"geheim" not in posted.body
