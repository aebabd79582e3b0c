"""What is wrong with a set, by what is known of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bakthat.operations.facts import CheckRecord, DrillRecord, Verdict
from bakthat.operations.status.findings import Looked, describe_age, findings_of
from bakthat.operations.status.set_status import SetStatus, usual

NOW = 1_795_000_000
DAY = 86400
LOOKED = Looked(now=NOW)
GOOD = SetStatus(
    name="etc",
    host="web1",
    backend="s3",
    jobs=("nightly",),
    stored_filename="etc.20261118110640.tgz",
    last_backup=NOW - 3600,
    last_success=NOW - 3600,
    age=3600,
    max_age=26 * 3600,
    size=1000,
    warnings=0,
    backups=3,
)


def told(status: SetStatus, looked: Looked = LOOKED) -> list[tuple[str, str, str]]:
    """Return topic, detail and hint of what is wrong."""
    found = findings_of(status, looked)
    assert all(each.is_problem for each in found)
    return [(each.topic, each.detail, each.hint) for each in found]


def test_nothing_is_wrong_with_a_recent_complete_backup() -> None:
    assert told(GOOD) == []
    assert told(replace(GOOD, max_age=None, age=10**9, last_backup=NOW - 10**9)) == []
    assert told(replace(GOOD, warnings=None)) == []


def test_a_backup_is_too_old_from_one_second_after_its_age_on() -> None:
    assert told(replace(GOOD, age=26 * 3600)) == []
    assert told(replace(GOOD, age=26 * 3600 + 1)) == [
        (
            "age",
            "too old: the newest backup is 26 h old, more than 26 h",
            "bakthat run nightly makes the next one, or says what fails",
        )
    ]
    [(_, _, hint)] = told(replace(GOOD, age=3 * DAY, jobs=()))
    assert hint == ""


def test_a_source_without_a_backup_is_named_with_its_job() -> None:
    never = SetStatus(name="etc", host="web1", backend="s3", jobs=("my job",), max_age=DAY)
    assert told(never) == [
        (
            "age",
            "never backed up: the job my job should make it",
            "bakthat run 'my job' makes the next one, or says what fails",
        )
    ]


def test_a_date_in_the_future_is_told_and_is_not_too_old() -> None:
    ahead = replace(GOOD, last_backup=NOW + DAY, age=-DAY)
    looked = Looked(now=NOW, future=["etc.20261119120640.tgz", "etc.20261119110640.tgz"])
    [(topic, detail, hint)] = told(ahead, looked)
    assert topic == "date"
    assert detail == (
        "2 backups are dated in the future, since a clock is or was wrong: etc.20261119120640.tgz"
    )
    assert hint.startswith("set the clock of that host")


def test_a_suspicious_size_is_no_missing_file_too() -> None:
    # One of its warnings is about the size.
    small = replace(GOOD, is_suspicious=True, warnings=1, usual_size=10**6)
    assert told(small) == [
        (
            "size",
            "suspicious: the newest backup has 1.0 KB, and 1.0 MB are usual",
            "look at what makes it; rotation keeps the newest of a usual size",
        )
    ]


def test_a_size_that_differs_from_what_was_stored_is_told() -> None:
    [(topic, detail, _)] = told(GOOD, replace(LOOKED, stored_size=1001))
    assert (topic, detail) == (
        "size",
        "etc.20261118110640.tgz has 1000 bytes, but 1001 were stored: it was replaced or truncated",
    )
    assert told(GOOD, replace(LOOKED, stored_size=1000)) == []


def test_warnings_are_counted_and_the_first_is_shown() -> None:
    looked = replace(LOOKED, first_warning="a.txt: gone\x1b[31m")
    [(topic, detail, _)] = told(replace(GOOD, warnings=2), looked)
    assert topic == "warnings"
    assert detail == (
        "incomplete: the newest backup has 2 warnings, the first is: a.txt: gone\\x1b[31m"
    )


def test_a_failed_check_says_which_backup_and_what_looks_again() -> None:
    failed = [
        ("etc.20261118110640.tgz", CheckRecord(NOW - 5, Verdict.DAMAGED, "wrong checksum")),
        ("etc.20261117110640.tgz", CheckRecord(NOW - 5, Verdict.MISSING)),
    ]
    [(topic, detail, hint)] = told(GOOD, replace(LOOKED, failed=failed))
    assert topic == "check"
    assert detail == (
        "2 backups failed the last check, the first is etc.20261118110640.tgz: damaged: "
        "wrong checksum"
    )
    assert hint == "bakthat check --read-data etc looks again"
    [(_, detail, hint)] = told(GOOD, replace(LOOKED, failed=failed[1:]))
    assert detail == "1 backup failed the last check, the first is etc.20261117110640.tgz: missing"
    assert hint == "bakthat check etc looks again"


def test_a_check_is_overdue_after_a_quarter_more_of_its_time() -> None:
    looked = replace(LOOKED, check_every=4 * DAY)
    checked = CheckRecord(NOW - 5 * DAY, Verdict.STORED)
    assert told(replace(GOOD, check=checked), looked) == []
    late = replace(GOOD, check=replace(checked, date=NOW - 5 * DAY - 1))
    assert told(late, looked) == [
        (
            "check",
            "last checked 5 d ago, and its job says each 4 d",
            "bakthat check etc does it now",
        )
    ]
    assert told(late) == []
    assert told(GOOD, looked) == [
        ("check", "never checked, and its job says each 4 d", "bakthat check etc does it now")
    ]


def test_a_drill_fails_or_is_overdue() -> None:
    failed = replace(GOOD, drill=DrillRecord(NOW - DAY, False, "the check failed"))
    assert told(failed, replace(LOOKED, drill_every=2 * DAY)) == [
        ("drill", "the last drill failed: the check failed", "bakthat drill etc tries again")
    ]
    passed = replace(GOOD, drill=DrillRecord(NOW - 30 * DAY, True))
    assert [each[1] for each in told(passed, replace(LOOKED, drill_every=DAY))] == [
        "last drilled 30 d ago, and its job says each 24 h"
    ]
    assert [each[1] for each in told(GOOD, replace(LOOKED, drill_every=DAY))] == [
        "never drilled, and its job says each 24 h"
    ]


def test_names_from_storage_are_escaped_in_details_and_hints() -> None:
    hostile = replace(GOOD, name="a'; rm -rf \x1b[2J", age=2 * DAY, jobs=("$(x)",))
    looked = replace(LOOKED, check_every=DAY)
    for _, detail, hint in told(hostile, looked):
        assert (detail + hint).isprintable()
    assert told(hostile, looked)[0][2].startswith("bakthat run '$(x)' ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 min"),
        (59, "0 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (26 * 3600, "26 h"),
        (2 * DAY, "2 d"),
        (2 * DAY + 3600, "2 d 1 h"),
        (13 * DAY + 23 * 3600, "13 d 23 h"),
        (14 * DAY + 23 * 3600, "14 d"),
        (1000 * DAY, "1000 d"),
    ],
)
def test_an_age_has_its_two_largest_units(seconds: int, text: str) -> None:
    assert describe_age(seconds) == text


@pytest.mark.parametrize(
    ("sizes", "usual_size", "trend"),
    [
        ((), None, None),
        ((5,), None, None),
        ((100, 150), 100, 50),
        ((100, 300, 200, 100), 200, -50),
        ((0, 0, 5), 0, None),
        ((3, 2, 1), 2, -50),
    ],
)
def test_the_trend_is_against_the_median_of_the_earlier_ones(
    sizes: tuple[int, ...], usual_size: int | None, trend: int | None
) -> None:
    newest: dict[str, Any] = {"size": sizes[-1]} if sizes else {"size": None}
    assert usual(sizes) == usual_size
    assert replace(GOOD, **newest, usual_size=usual(sizes)).trend == trend
