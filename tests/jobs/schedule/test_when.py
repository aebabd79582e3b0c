"""When jobs run."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from bakthat.errors import UsageError
from bakthat.jobs.schedule.when import DEFAULT_TIME, Daily, calendar, daily


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Restore the zone of this process after the test."""
    yield monkeypatch
    monkeypatch.undo()
    time.tzset()


def test_a_time_is_a_calendar_of_systemd() -> None:
    assert daily("4:05", 15) == Daily(4, 5, 15)
    assert daily("04:05", 0).calendar == "*-*-* 04:05:00"
    assert str(daily("23:59", 5)) == "daily at 23:59, up to 5 min later"
    assert str(daily("0:00", 0)) == "daily at 00:00"


@pytest.mark.parametrize(
    "text", ["", "4", "24:00", "12:60", "4:5", "-1:00", "4:05 ", "\u0664:\u0660\u0665"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--at is a time of the day"):
        daily(text, 0)


@pytest.mark.parametrize("minutes", [-1, 1440])
def test_a_jitter_is_shorter_than_a_day(minutes: int) -> None:
    with pytest.raises(UsageError, match="--jitter"):
        daily("4:00", minutes)


@pytest.mark.parametrize("text", ["hourly", "Mon..Fri 12:00", "*-*-01 04:30:00", "Sat *-*-1..7"])
def test_any_calendar_of_systemd_is_taken(text: str) -> None:
    assert calendar(text, 5).calendar == text
    assert str(calendar(text, 5)) == f"{text}, up to 5 min later"


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("text", ["every night", "Mox 12:00", "25:00"])
def test_systemd_says_what_is_no_calendar(text: str) -> None:
    with pytest.raises(UsageError, match="no calendar of systemd"):
        calendar(text, 5)


@pytest.mark.parametrize("text", ["daily\nPersistent=no", "%n", "daily;", "$x"])
def test_a_calendar_cannot_bring_other_settings(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="no calendar of systemd"):
        calendar(text, 5)


def test_the_minute_of_cron_is_always_that_of_the_host_and_the_job() -> None:
    when = Daily(23, 50, 29)
    found = {when.minute_of(f"web{number}", "nightly") for number in range(500)}
    assert found == {(23, 50 + each) for each in range(10)} | {(0, each) for each in range(20)}
    assert when.minute_of("web1", "nightly") == when.minute_of("web1", "nightly")
    assert Daily(4, 30, 0).minute_of("web1", "nightly") == (4, 30)


@pytest.mark.parametrize(
    ("name", "at", "day"),
    [
        ("UTC", "02:30", ""),
        ("Europe/Berlin", "02:30", "2027-03-28"),
        ("Europe/Athens", "03:30", "2027-03-28"),
        ("America/New_York", "02:00", "2027-03-14"),
        ("America/New_York", "03:00", ""),
        ("Australia/Lord_Howe", "02:15", "2027-10-03"),
    ],
)
def test_the_day_without_that_time_is_known(
    zone: pytest.MonkeyPatch, name: str, at: str, day: str
) -> None:
    zone.setenv("TZ", name)
    time.tzset()
    assert daily(at, 0).missing_day(1795800000) == day  # in November 2026


def test_the_default_time_comes_every_day_in_every_zone(zone: pytest.MonkeyPatch) -> None:
    from zoneinfo import available_timezones

    when = daily(DEFAULT_TIME, 0)
    for name in sorted(available_timezones()):
        zone.setenv("TZ", name)
        time.tzset()
        assert when.missing_day(1795800000) == "", name
