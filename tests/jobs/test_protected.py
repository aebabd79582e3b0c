"""Jobs whose rotation meets backups that are locked or on hold."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.cli.messages import documented_keys
from tests.support.commandline import CommandLine, untimed
from tests.support.fault_proxy import Answer, FaultProxy, refusal
from tests.support.nights import Night
from tests.support.profiles import Conf
from tests.support.servers import S3Server
from tests.support.versions import hold, lock, make_bucket

UNTIL = int(time.time()) + 10 * 86400
SHOWN = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(UNTIL))


@pytest.fixture
def conf(moto_endpoint: S3Server, moto_proxy: FaultProxy) -> Conf:
    """Return a flat profile of a bucket with object lock, behind the proxy."""
    made: Conf = moto_endpoint.conf(
        endpoint_url=moto_proxy.endpoint_url,
        default_destination="s3",
        rotation={"last": 1},
        attempts=1,
    )
    make_bucket(made, locks=True)
    return made


@pytest.fixture
def night(isolated_environment: Path, tmp_path: Path, conf: Conf) -> Night:
    """Return a user whose job rotates what it stores there."""
    made = Night(isolated_environment, tmp_path, conf)
    made.write(nightly={"sources": [made.source("one")], "rotate": True})
    return made


def back_up(night: Night, count: int) -> list[str]:
    """Store backups of the source of the job; return their stored filenames."""
    source = str(night.directory / "one")
    made = [bakthat.backup(source, prompt="no", password="") for _ in range(count)]
    return [str(each.stored_filename) for each in made]


def test_what_is_locked_is_no_failure_of_a_job(night: Night, conf: Conf) -> None:
    names = back_up(night, 3)
    lock(conf, names[0], UNTIL)
    hold(conf, names[1])
    report = night.run()
    assert (report.outcome.value, report.all_problems) == ("done", [])
    assert [each.stored_filename for each in report.sources[0].rotated] == names[2:]
    assert [(each.backup.stored_filename, each.why) for each in report.protected] == [
        (names[0], f"locked until {SHOWN}"),
        (names[1], "on hold"),
    ]
    hold(conf, names[1], is_held=False)
    report = night.run()
    assert names[1] in [each.stored_filename for each in report.sources[0].rotated]
    assert [each.backup.stored_filename for each in report.protected] == names[:1]


def test_what_was_deleted_is_reported_though_the_rest_failed(
    night: Night, moto_proxy: FaultProxy
) -> None:
    names = back_up(night, 2)
    error = f"<Error><Key>{names[0]}</Key><Code>InternalError</Code></Error>"
    answer = Answer(200, f"<DeleteResult>{error}</DeleteResult>".encode())
    moto_proxy.on("POST", "?delete", answer, times=1)
    moto_proxy.on("DELETE", names[0], refusal(500, "InternalError"))
    report = night.run()
    assert report.outcome.value == "failed"
    assert [each.stored_filename for each in report.sources[0].rotated] == names[1:]
    assert report.protected == []


@pytest.mark.slow
def test_a_dry_run_and_the_summary_say_what_stays(
    night: Night, conf: Conf, isolated_environment: Path
) -> None:
    names = back_up(night, 3)
    lock(conf, names[0], UNTIL)
    user = CommandLine(isolated_environment, isolated_environment)
    done = user.run("run", "--dry-run")
    assert done.code == 0
    assert (
        f"would be stored; rotation would delete {names[1]}; rotation would have to leave "
        f"{names[0]} (locked until {SHOWN})\n"
    ) in done.stdout
    assert untimed(done.stderr).splitlines()[-1] == (
        "Looked at 1 job: 1 of 1 source would be stored, 1 backup would be rotated away, "
        "1 backup locked or on hold"
    )
    done = user.run("run", "--json")
    assert done.code == 0
    (job,), (summary,) = done.lines("job"), done.lines("summary")
    assert (job["protected"], job["rotated"]) == (names[:1], names[1:])
    assert (summary["protected"], summary["rotated"]) == (1, 2)
    for kind, line in (("job", job), ("summary", summary)):
        always, sometimes = documented_keys("run", kind)
        found: dict[str, Any] = line
        assert always <= found.keys() <= always | sometimes
