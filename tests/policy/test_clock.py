"""How bad it is that a clock is off."""

from __future__ import annotations

import pytest

from bakthat.policy.clock import clock_finding
from bakthat.policy.finding import Verdict


@pytest.mark.parametrize(
    ("seconds", "verdict", "words"),
    [
        (0, Verdict.GOOD, "agree"),
        (1.4, Verdict.GOOD, "agree"),
        (-40, Verdict.GOOD, "40.0 s behind"),
        (299, Verdict.GOOD, "4 min 59 s ahead of"),
        (-300, Verdict.ADVICE, "5 min 0 s behind"),
        (899, Verdict.ADVICE, "14 min 59 s ahead of the storage's"),
        (-86400, Verdict.ADVICE, "S3 refuses requests from 15 minutes on"),
    ],
)
def test_a_clock_that_is_off(seconds: float, verdict: Verdict, words: str) -> None:
    found = clock_finding(seconds)
    assert found.verdict is verdict
    assert words in found.detail
    assert bool(found.hint) is (verdict is not Verdict.GOOD)


@pytest.mark.parametrize("seconds", [0, 1000, -1000])
def test_a_clock_that_the_storage_refuses_is_a_problem(seconds: float) -> None:
    found = clock_finding(seconds, is_refused=True)
    assert found.verdict is Verdict.PROBLEM
    assert "refuses" in found.detail
