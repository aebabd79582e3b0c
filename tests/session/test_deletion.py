"""Checks before a deletion: the warnings of minimum days that are left."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from tests.support.glacier_server import GlacierServer

DAY = 86400


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
