"""The descriptions of thaws: durations and states as text."""

from __future__ import annotations

import pytest

from bakthat.backends.base import ThawState, ThawStatus
from bakthat.errors import CredentialsError, NotFoundError, StorageError, UnreachableError
from bakthat.session.cold import MAX_OUTAGE, Polling, describe, format_duration

ASKED = ThawStatus("a", ThawState.ASKED, "GLACIER")
READY = ThawStatus("a", ThawState.READY, "GLACIER")


def test_durations_are_formatted_in_minutes_and_hours() -> None:
    durations = [format_duration(n) for n in (0, 59, 60, 300, 3600, 5400, 5 * 3600, 48 * 3600)]
    assert durations == [
        "0 minutes",
        "0 minutes",
        "1 minute",
        "5 minutes",
        "1 hour",
        "1 h 30 min",
        "5 hours",
        "48 hours",
    ]


def test_a_state_is_described_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bakthat.session.cold.time.time", lambda: 1370380255.0)
    name = "my\n.20130604191055.tgz"
    assert (
        describe(ThawStatus(name, ThawState.WARM)) == r"my\n.20130604191055.tgz can be read at once"
    )
    assert describe(ThawStatus("a", ThawState.FROZEN, "GLACIER")) == (
        "a is frozen (GLACIER); bakthat restore requests its thaw"
    )
    assert describe(ThawStatus("a", ThawState.ASKED, "GLACIER", "bulk", 1370373055.0)) == (
        "a is thawing (GLACIER, tier bulk): requested 2 hours ago, expected by 2013-06-05 07:10 UTC"
    )
    assert describe(ThawStatus("a", ThawState.ASKED, "DEEP_ARCHIVE")) == (
        "a is thawing (DEEP_ARCHIVE, tier unknown): it takes up to 48 hours"
    )
    assert describe(ThawStatus("a", ThawState.READY, "GLACIER", ready_until=1370373055.0)) == (
        "a is thawed until 2013-06-04 19:10 UTC"
    )


def _failing() -> StorageError:
    error = StorageError("the storage answered 503")
    error.may_pass = True
    return error


@pytest.mark.parametrize("failure", [_failing(), UnreachableError("no connection")])
def test_a_wait_goes_on_over_failures_that_pass(
    failure: StorageError, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[ThawStatus | StorageError] = [ASKED, failure, failure, ASKED, failure, READY]
    pauses: list[float] = []

    def check() -> ThawStatus:
        found = answers[len(pauses) - 1]
        if isinstance(found, StorageError):
            raise found
        return found

    polling, status = Polling(pauses.append, check), ASKED
    while status is not READY:
        status = polling.next_status(status, MAX_OUTAGE / 2)
    assert len(pauses) == len(answers)
    assert caplog.text.count("; still waiting") == 3


@pytest.mark.parametrize("failure", [_failing(), UnreachableError("no connection")])
def test_a_wait_ends_when_the_outage_is_longer_than_a_day(failure: StorageError) -> None:
    waited: list[float] = []

    def check() -> ThawStatus:
        raise failure

    polling = Polling(waited.append, check)
    for _ in range(int(MAX_OUTAGE / 600)):
        assert polling.next_status(ASKED, 600.0) is ASKED
    with pytest.raises(type(failure)):
        polling.next_status(ASKED, 600.0)
    assert sum(waited) == MAX_OUTAGE + 600
    assert "24 h 10 min" in failure.hint


@pytest.mark.parametrize(
    "failure", [CredentialsError("refused"), NotFoundError("gone"), StorageError("400")]
)
def test_a_wait_ends_at_once_at_a_failure_that_stays(failure: StorageError) -> None:
    def check() -> ThawStatus:
        raise failure

    with pytest.raises(type(failure)):
        Polling(lambda _: None, check).next_status(ASKED, 600.0)
