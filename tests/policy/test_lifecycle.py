"""Which lifecycle rules of a bucket delete backups, move indexes, or abort uploads too early."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bakthat.policy.finding import Finding, Verdict
from bakthat.policy.lifecycle import (
    LARGE_BYTES,
    LifecycleRule,
    days_of_versions,
    lifecycle_findings,
)
from bakthat.policy.rotation import RotationPolicy

EXPIRING = LifecycleRule("tidy", expires_after=30)


def findings(
    *rules: LifecycleRule,
    prefix: str = "web1/",
    kept_days: int = 0,
    is_incremental: bool = False,
) -> list[Finding]:
    return lifecycle_findings(rules, prefix, kept_days=kept_days, is_incremental=is_incremental)


def one(*rules: LifecycleRule, **options: object) -> Finding:
    (found,) = findings(*rules, **options)  # type: ignore[arg-type]  # those of findings()
    return found


def test_a_rule_that_deletes_what_rotation_keeps_is_a_problem() -> None:
    found = one(EXPIRING, kept_days=186)
    assert found.verdict is Verdict.PROBLEM
    assert found.detail == (
        "rule 'tidy' deletes backups after 30 days, but the rotation of the profile keeps some for "
        "186 days"
    )
    assert "rotate_backups" in found.hint


def test_a_rule_that_deletes_what_increments_need_is_a_problem() -> None:
    found = one(EXPIRING, is_incremental=True)
    assert found.verdict is Verdict.PROBLEM
    assert "increments need" in found.detail


@pytest.mark.parametrize("kept_days", [0, 30])
def test_a_rule_that_deletes_later_than_rotation_is_advice(kept_days: int) -> None:
    found = one(EXPIRING, kept_days=kept_days)
    assert found.verdict is Verdict.ADVICE
    assert "also the last one" in found.detail


def test_a_rule_with_a_date_deletes_everything_then() -> None:
    found = one(replace(EXPIRING, expires_after=0), kept_days=1)
    assert found.verdict is Verdict.PROBLEM
    assert "deletes backups at a date" in found.detail


def test_a_limit_of_size_says_what_is_deleted() -> None:
    assert (
        "indexes and backups of less than 4096 bytes"
        in one(replace(EXPIRING, less_than=4096)).detail
    )
    assert "backups of more than 9 bytes" in one(replace(EXPIRING, more_than=9)).detail


@pytest.mark.parametrize(
    "rule",
    [
        replace(EXPIRING, prefix="logs/"),
        replace(EXPIRING, prefix="web2/"),
        replace(EXPIRING, needs_tags=True),
        LifecycleRule("ia", moves=((30, "STANDARD_IA"), (60, "GLACIER_IR"))),
        LifecycleRule("large", moves=((30, "DEEP_ARCHIVE"),), more_than=LARGE_BYTES),
        LifecycleRule("abort", aborts_after=7),
        LifecycleRule("versions", expires_versions_after=1),
    ],
    ids=lambda rule: rule.name + rule.prefix,
)
def test_rules_that_do_no_harm(rule: LifecycleRule) -> None:
    assert one(rule, kept_days=186, is_incremental=True).verdict is Verdict.GOOD


@pytest.mark.parametrize("prefix", ["", "web1/", "w", "web1/my"])
def test_a_rule_for_a_part_of_the_keys_or_for_more_than_them_counts(prefix: str) -> None:
    assert one(replace(EXPIRING, prefix=prefix), kept_days=31).verdict is Verdict.PROBLEM


def test_indexes_that_are_moved_into_cold_storage() -> None:
    found = one(LifecycleRule("old", moves=((90, "DEEP_ARCHIVE"), (30, "GLACIER"))))
    assert found.verdict is Verdict.ADVICE
    assert "moves indexes to GLACIER with their backups, after 30 days" in found.detail
    assert "storage_class: GLACIER" in found.hint


def test_uploads_that_are_aborted_too_early() -> None:
    found = one(LifecycleRule("abort", aborts_after=1))
    assert found.verdict is Verdict.ADVICE
    assert "aborts uploads after 1 day:" in found.detail


def test_one_rule_may_do_several_things() -> None:
    rule = replace(EXPIRING, aborts_after=1, moves=((3, "GLACIER"),))
    assert len(findings(rule, EXPIRING, kept_days=31)) == 4


def test_the_id_of_a_rule_is_safe_to_show() -> None:
    assert "\x1b" not in one(replace(EXPIRING, name="a\x1b[31mb")).detail


@pytest.mark.parametrize(
    ("rule", "days"),
    [
        (LifecycleRule("a", expires_versions_after=9), 9),
        (LifecycleRule("a", prefix="web", expires_versions_after=9), 9),
        (LifecycleRule("a", prefix="web1/x", expires_versions_after=9), None),
        (LifecycleRule("a", expires_versions_after=9, needs_tags=True), None),
        (LifecycleRule("a", expires_versions_after=9, more_than=1), None),
        (EXPIRING, None),
    ],
)
def test_old_versions_of_all_backups_must_expire(rule: LifecycleRule, days: int | None) -> None:
    assert days_of_versions([rule], "web1/") == days


@given(
    days=st.integers(0, 100),
    weeks=st.integers(0, 100),
    months=st.integers(0, 100),
    years=st.integers(0, 100),
    hours=st.integers(1, 100),
)
def test_rotation_keeps_no_longer_than_its_coarsest_rule(
    days: int, weeks: int, months: int, years: int, hours: int
) -> None:
    policy = RotationPolicy(days=days, weeks=weeks, months=months, years=years, hours=hours)
    longest = max(days, 7 * weeks, 31 * months, 366 * years)
    assert policy.longest_days == max(longest, -(-hours // 24))
    assert RotationPolicy(last=3).longest_days == 0
