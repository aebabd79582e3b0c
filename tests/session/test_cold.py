"""The descriptions of thaws: durations and states as text."""

from __future__ import annotations

import pytest

from bakthat.backends.base import ThawState, ThawStatus
from bakthat.session.cold import describe, format_duration


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
