"""Transcripts of deletions in a bucket with object lock."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from bakthat.cli.messages import documented_keys
from tests.support.commandline import CommandLine, Done
from tests.support.fault_proxy import Answer, FaultProxy, refusal
from tests.support.profiles import Conf, write_config
from tests.support.servers import S3Server
from tests.support.versions import hold, lock, make_bucket

DAY = 86400
UNTIL = int(time.time()) + 10 * DAY


class User(CommandLine):
    """A user of a bucket with object lock, and of five backups, the oldest first."""

    def __init__(self, home: Path, conf: Conf) -> None:
        super().__init__(home, home)
        self.conf = conf
        self.names: list[str] = []
        write_config(home / ".bakthat.yml", default={**conf, "default_destination": "s3"})
        make_bucket(conf, locks=True)
        (home / "mydir").mkdir()
        for number in range(5):
            (home / "mydir" / "file").write_text(str(number))
            done = self.run("backup", "mydir", "--prompt", "no", "--json")
            self.names += [line["stored_filename"] for line in done.lines("backup")]


@pytest.fixture
def user(isolated_environment: Path, moto_endpoint: S3Server, moto_proxy: FaultProxy) -> User:
    conf = moto_endpoint.conf(endpoint_url=moto_proxy.endpoint_url, attempts=1)
    return User(isolated_environment, conf)


def documented(done: Done) -> dict[str, list[dict[str, Any]]]:
    """Return the lines of a rotation by their type; each has the keys that the contract says."""
    found = {kind: done.lines(kind) for kind in ("backup", "kept", "summary", "warning", "error")}
    for kind, lines in found.items():
        always, sometimes = documented_keys("rotate_backups", kind)
        for line in lines:
            assert always <= line.keys() <= always | sometimes
    assert sum(map(len, found.values())) == len(done.stdout.splitlines())
    return found


def shown() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(UNTIL))


def test_a_rotation_says_what_is_locked_and_ends_well(user: User) -> None:
    lock(user.conf, user.names[0], UNTIL)
    hold(user.conf, user.names[1])
    done = user.run("rotate_backups", "mydir", "--last", "2")
    assert done.code == 0
    assert f"Keeping {user.names[0]}: it is locked until {shown()}\n" in done.stderr
    assert f"Keeping {user.names[1]}: it is on hold\n" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert re.match(
        r"Deleted 1 of 5 backups \(\d+ B\), 1 locked, 1 on hold \(\d+ B stay\) from s3 ", last
    )
    done = user.run("rotate_backups", "mydir", "--last", "2", "--json")
    assert done.code == 0
    found = documented(done)
    assert found["backup"] == found["error"] == found["warning"] == []
    told = [(each["stored_filename"], each["outcome"]) for each in found["kept"]]
    assert told == [(user.names[0], "locked"), (user.names[1], "held")]
    assert [each["locked_until"] for each in found["kept"]] == [UNTIL, None]
    assert found["kept"][0]["detail"] == f"locked until {shown()}"
    (summary,) = found["summary"]
    size = sum(each["size"] for each in found["kept"])
    assert {name: summary[name] for name in ("deleted", "locked", "held", "failed", "staying")} == {
        "deleted": 0,
        "locked": 1,
        "held": 1,
        "failed": 0,
        "staying": size,
    }


@pytest.mark.slow
def test_a_dry_run_shows_the_dates_and_what_they_cost(user: User) -> None:
    lock(user.conf, user.names[0], UNTIL)
    hold(user.conf, user.names[1])
    done = user.run("rotate_backups", "mydir", "--last", "2", "--dry-run")
    assert done.code == 0
    rows = [re.split(r"  +", row) for row in done.stdout.splitlines()[1:]]
    assert [(row[3], row[1]) for row in rows] == [
        (user.names[4], "keep"),
        (user.names[3], "keep"),
        (user.names[2], "delete"),
        (user.names[1], "held"),
        (user.names[0], "locked"),
    ]
    assert rows[3][4] == "not needed by any rule, on hold"
    assert rows[4][4] == f"not needed by any rule, locked until {shown()}"
    assert re.match(
        r"Would delete 1 of 5 backups \(\d+ B\), 1 locked, 1 on hold \(\d+ B stay\) from s3",
        done.stderr.splitlines()[-1],
    )
    found = documented(user.run("rotate_backups", "mydir", "--last", "2", "--dry-run", "--json"))
    assert [each["keep"] for each in found["backup"]] == [True, True, False, True, True]
    assert [each.get("outcome") for each in found["backup"]] == [None, None, None, "held", "locked"]
    assert found["backup"][4]["locked_until"] == UNTIL
    assert found["kept"] == []


@pytest.mark.slow
def test_what_fails_is_told_apart_and_ends_badly(user: User, moto_proxy: FaultProxy) -> None:
    lock(user.conf, user.names[0], UNTIL)
    error = f"<Error><Key>{user.names[1]}</Key><Code>InternalError</Code></Error>"
    answer = Answer(200, f"<DeleteResult>{error}</DeleteResult>".encode())
    moto_proxy.on("POST", "?delete", answer, times=1)
    moto_proxy.on("DELETE", user.names[1], refusal(500, "InternalError"))
    # Not by age: backups that are made in one second are dated ahead of the clock.
    done = user.run("rotate_backups", "mydir", "--last", "1", "--json")
    assert done.code == 1
    found = documented(done)
    assert [each["stored_filename"] for each in found["backup"]] == user.names[2:4]
    assert [each["outcome"] for each in found["kept"]] == ["locked", "failed"]
    assert "InternalError" in found["kept"][1]["detail"]
    assert found["summary"][0]["failed"] == 1
    (told,) = found["error"]
    assert told["message"].startswith("1 of 4 backups could not be deleted, the first is ")
    assert done.stderr.count("Deleted 2 of 5 backups") == 2  # in the log, and the summary


def test_a_locked_backup_is_named_by_delete(user: User) -> None:
    lock(user.conf, user.names[4], UNTIL)
    done = user.run("delete", "mydir")
    assert done.code == 1
    assert f"bakthat: error: {user.names[4]} is locked until {shown()}\n" in done.stderr
    hold(user.conf, user.names[4])
    done = user.run("delete", "mydir", "--json")
    assert done.code == 1
    (error,) = done.lines("error")
    assert error["type"] == "LockedObjectError"
    assert error["message"] == f"{user.names[4]} is on hold"
    assert error["hint"] == "bakthat release ends the hold"
