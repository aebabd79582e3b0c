"""Storage classes: their minimum days, which of them are cold, and their tiers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bakthat.errors import UsageError
from bakthat.policy.storage_classes import TIERS, VAULT, check_tier, days_left, storage_class

DAY = 86400


def test_the_days_that_are_left_are_those_that_aws_charges() -> None:
    assert days_left("GLACIER", 0, 0) == 90
    assert days_left("GLACIER", 0, 1) == 90
    assert days_left("GLACIER", 0, DAY) == 89
    assert days_left("GLACIER", 0, 90 * DAY - 1) == 1
    assert days_left("GLACIER", 0, 90 * DAY) == 0
    assert days_left("GLACIER", 0, 1000 * DAY) == 0
    assert days_left("DEEP_ARCHIVE", 0, 100 * DAY) == 80
    assert days_left(VAULT, 0, 0) == 90
    for name in ("STANDARD", "", "INTELLIGENT_TIERING", "SOMETHING_NEW"):
        assert days_left(name, 0, 0) == 0


@given(st.sampled_from(["GLACIER", "DEEP_ARCHIVE", "STANDARD_IA", VAULT]), st.floats(0, 1e9))
def test_no_day_is_left_after_the_minimum_days(name: str, stored_at: float) -> None:
    minimum = storage_class(name).minimum_days
    assert 0 <= days_left(name, stored_at, stored_at + 5 * DAY) <= minimum - 5 + 1
    assert days_left(name, stored_at, stored_at + (minimum + 1) * DAY) == 0


def test_only_what_must_be_thawed_is_cold() -> None:
    cold = {"GLACIER", "DEEP_ARCHIVE", "ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS", VAULT}
    for name in (*cold, "STANDARD", "STANDARD_IA", "GLACIER_IR", "INTELLIGENT_TIERING", ""):
        assert storage_class(name).is_cold == (name in cold)


def test_a_tier_that_a_class_lacks_is_refused_with_those_that_it_has() -> None:
    for tier in TIERS:
        check_tier("GLACIER", tier)
    with pytest.raises(UsageError, match="DEEP_ARCHIVE") as caught:
        check_tier("DEEP_ARCHIVE", "expedited")
    assert caught.value.hint == "use one of: standard, bulk"
