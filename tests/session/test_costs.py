"""The costs of deletions and the durations of thaws: the table, and the warnings from it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bakthat
from bakthat import models
from bakthat.backends.base import ThawState, ThawStatus
from bakthat.errors import UsageError
from bakthat.policy.storage_classes import TIERS, VAULT, check_tier, days_left, storage_class
from bakthat.session.cold import describe, format_duration
from tests.support.glacier_server import GlacierServer

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


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("storage_class", "days"), [("GLACIER", 90), ("DEEP_ARCHIVE", 180), ("GLACIER_IR", 90)]
)
def test_deleting_too_early_warns_with_the_days_left(
    moto_conf: dict[str, Any],
    tree: Path,
    storage_class: str,
    days: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    conf = {**moto_conf, "storage_class": storage_class}
    made = bakthat.backup(tree, conf=conf, password="")
    bakthat.delete("mydir", conf=conf)
    (warning,) = warnings_of(caplog)
    assert warning == (
        f"{made.stored_filename} is in {storage_class}, which is charged for at least "
        f"{days} days: deleting it now saves nothing for {days} days"
    )


def test_deleting_from_a_class_without_minimum_days_does_not_warn(
    moto_conf: dict[str, Any], tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bakthat.backup(tree, conf=moto_conf, password="")
    bakthat.delete("mydir", conf=moto_conf)
    assert warnings_of(caplog) == []


def test_retention_warns_of_each_archive_that_it_deletes_too_early(
    glacier: GlacierServer,
    tree: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    now, conf = time.time(), glacier.conf()
    made = []
    for age in (200, 30, 20, 10):
        moment = now - age * DAY
        with monkeypatch.context() as patch:
            patch.setattr("bakthat.operations.store.time.time", lambda moment=moment: moment)
            made.append(bakthat.backup(tree, conf=conf, password=""))
    bakthat.delete_older_than("mydir", "15D", conf=conf)
    warned = warnings_of(caplog)
    assert [each.split()[0] for each in warned] == [each.stored_filename for each in made[1:3]]
    assert "a vault, which is charged for at least 90 days" in warned[0]
    assert warned[0].endswith("for 60 days")
    assert warned[1].endswith("for 70 days")
    with models.catalog("~/.bakthat.sqlite"):
        assert models.Backups.select().where(models.Backups.is_deleted).count() == 3


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
