"""How sets are by the catalog."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.errors import NoMatchError, UsageError
from bakthat.operations.retention.plan import plan_rotation
from bakthat.operations.status.metrics import as_metrics
from bakthat.operations.status.set_status import SetStatus
from bakthat.session.session import Session
from tests.support.filled_catalog import DAY, HOST, NOW, FilledCatalog, using_catalog

Filled = Callable[..., FilledCatalog]


@pytest.fixture
def filled(isolated_environment: Path) -> Iterator[Filled]:
    """Make catalogs, whose host this process is at a fixed time."""
    numbers = iter(range(100))
    with contextlib.ExitStack() as stack:

        def make(**conf: Any) -> FilledCatalog:
            path = isolated_environment / f"catalog{next(numbers)}.sqlite"
            made = FilledCatalog(path, **conf)
            stack.enter_context(using_catalog(made))
            return made

        yield make


def metadata(**more: Any) -> dict[str, Any]:
    """Return the metadata of a backup of this host's /srv/my."""
    return {"client": HOST, "is_enc": False, "source": "/srv/my", **more}


def only(catalog: FilledCatalog, **more: Any) -> SetStatus:
    """Return the status of the only set."""
    [found] = bakthat.status(conf=catalog.conf, **more)
    return found


def topics(found: SetStatus) -> list[str]:
    """Return what is wrong."""
    return [each.topic for each in found.findings]


def test_the_newest_backup_is_described(filled: Filled) -> None:
    catalog = filled()
    catalog.add(NOW - 2 * DAY, size=100, metadata=metadata())
    catalog.add(NOW - DAY, size=300, metadata=metadata(warning_count=2))
    newest = catalog.add(
        NOW - 3600,
        size=400,
        metadata=metadata(files=7, bytes=900, seconds=1.5, warning_count=0),
    )
    found = only(catalog)
    assert (found.name, found.host, found.backend, found.source) == ("my", HOST, "s3", "")
    assert (found.stored_filename, found.last_backup, found.age) == (newest, NOW - 3600, 3600)
    assert (found.size, found.usual_size, found.trend, found.sizes) == (
        400,
        200,
        100,
        (100, 300, 400),
    )
    assert (found.files, found.content, found.seconds, found.warnings) == (7, 900, 1.5, 0)
    assert (found.backups, found.last_success) == (3, NOW - 3600)
    assert (found.is_good, found.findings, found.check, found.drill) == (True, (), None, None)


def test_an_incomplete_backup_is_no_success_and_its_first_warning_is_shown(filled: Filled) -> None:
    catalog = filled()
    catalog.add(NOW - 2 * DAY, metadata=metadata())
    catalog.add(NOW - DAY, metadata=metadata(warning_count=1, warnings=["/srv/my/a: gone"]))
    found = only(catalog)
    assert (found.last_backup, found.last_success) == (NOW - DAY, NOW - 2 * DAY)
    assert topics(found) == ["warnings"]
    assert "/srv/my/a: gone" in found.findings[0].detail


def test_max_age_is_the_argument_where_no_job_says_it(filled: Filled) -> None:
    catalog = filled()
    catalog.add(NOW - DAY)
    assert only(catalog).is_good
    assert only(catalog, max_age="26h").is_good
    assert topics(only(catalog, max_age="23h")) == ["age"]
    with pytest.raises(UsageError, match="no unit after 26"):
        bakthat.status(conf=catalog.conf, max_age="26")


def test_an_old_backup_of_what_has_not_changed_is_explained(filled: Filled) -> None:
    for incremental in (True, False):
        catalog = filled(incremental=incremental, skip_unchanged=True)
        catalog.add(NOW - DAY)
        [finding] = only(catalog, max_age="23h").findings
        assert ("its profile has skip_unchanged" in finding.hint) is incremental


def test_sizes_are_compared_with_those_of_the_same_kind(filled: Filled) -> None:
    catalog = filled()
    catalog.add(NOW - 3 * DAY, size=1000)
    catalog.add_increment(NOW - 2 * DAY, [NOW - 3 * DAY], size=10)
    catalog.add_increment(NOW - DAY, [NOW - 3 * DAY], size=15)
    found = only(catalog)
    assert (found.is_increment, found.sizes, found.trend, found.backups) == (True, (10, 15), 50, 3)


@pytest.mark.parametrize("damaged", [float("nan"), float("inf"), -1, 2**63, True, "many"])
def test_a_damaged_entry_is_told_without_what_is_damaged(filled: Filled, damaged: Any) -> None:
    catalog = filled()
    wrong = dict.fromkeys(("files", "bytes", "seconds", "warning_count"), damaged)
    records = {key: {"date": damaged, "verdict": "stored"} for key in ("check", "drill")}
    catalog.add(NOW - DAY, metadata=metadata(**wrong, **records))
    found = only(catalog, max_age="1h")
    assert (found.files, found.content, found.seconds) == (None, None, None)
    assert "age" in topics(found)
    assert all(float(each.rsplit(" ", 1)[1]) < 10**20 for each in samples_of(found))
    json.dumps(found.as_dict(), allow_nan=False)


def samples_of(found: SetStatus) -> list[str]:
    """Return the samples for Prometheus."""
    return [each for each in as_metrics([found]).splitlines() if not each.startswith("#")]


def test_an_increment_whose_full_is_gone_is_wrong(filled: Filled) -> None:
    catalog = filled()
    full = catalog.add(NOW - 3 * DAY)
    catalog.add_increment(NOW - 2 * DAY, [NOW - 3 * DAY])
    catalog.add_increment(NOW - DAY, [NOW - 3 * DAY, NOW - 2 * DAY])
    assert only(catalog).is_good
    with models.catalog(catalog.path, write=True):
        row = models.Backups.get(models.Backups.stored_filename == full)
        row.is_deleted = True
        row.save()
    [finding] = only(catalog).findings
    assert finding.topic == "check"
    assert finding.detail == (
        "the newest backup cannot be restored as a whole: it is an increment, and 1 backup that it "
        "needs is not there, the first of 2026-12-13 12:00:00 UTC"
    )
    assert finding.hint.startswith("bakthat check my says which can be restored")
    # A new full needs no other.
    catalog.add(NOW - 3600)
    assert only(catalog).is_good


def test_a_full_whose_source_is_not_known_is_there_all_the_same(filled: Filled) -> None:
    catalog = filled()
    catalog.add(NOW - 3 * DAY)
    known = {"client": HOST, "is_enc": False, "format": 2, "level": 3}
    needs = {**known, "needs": [NOW - 3 * DAY], "source_id": "a" * 16}
    catalog.add_increment(NOW - 2 * DAY, [], metadata=needs)
    catalog.add(NOW - 9 * DAY, metadata={**known, "format": 1, "source_id": "b" * 16})
    assert [each.is_good for each in bakthat.status(conf=catalog.conf)] == [True] * 3


def test_a_size_that_is_not_known_is_left_out(filled: Filled) -> None:
    catalog = filled()
    catalog.add(NOW - 2 * DAY, size=-1)
    catalog.add(NOW - DAY, size=-1)
    found = only(catalog)
    assert (found.size, found.sizes, found.trend) == (None, (), None)


def test_a_backup_dated_in_the_future_is_wrong_and_not_the_newest(filled: Filled) -> None:
    catalog = filled()
    ahead = catalog.add(NOW + 2 * DAY)
    newest = catalog.add(NOW - DAY)
    found = only(catalog, max_age="12h")
    assert found.stored_filename == newest
    assert topics(found) == ["age", "date"]
    assert ahead in found.findings[1].detail


def test_where_all_are_dated_in_the_future_none_is_too_old(filled: Filled) -> None:
    catalog = filled()
    catalog.add(NOW + 2 * DAY)
    found = only(catalog, max_age="12h")
    assert (found.age, found.last_success, topics(found)) == (-2 * DAY, None, ["date"])


def test_the_last_check_and_drill_of_any_backup_count(filled: Filled) -> None:
    catalog = filled()
    check = {"date": NOW - DAY, "verdict": "read", "detail": "", "share": 1.0, "read": NOW - DAY}
    later = {**check, "date": NOW - 60, "verdict": "stored"}
    drill = {"date": NOW - 50, "passed": True}
    future = {"date": NOW + DAY, "passed": False, "problem": "no"}
    catalog.add(NOW - 3 * DAY, metadata=metadata(check=later, drill=drill))
    catalog.add(NOW - 2 * DAY, metadata=metadata(check=check, drill=future))
    catalog.add(NOW - DAY, metadata=metadata(check={"date": "x"}))
    found = only(catalog)
    assert found.check is not None
    assert found.drill is not None
    assert (found.check.date, found.check.verdict) == (NOW - 60, "stored")
    assert (found.drill.date, found.drill.passed) == (NOW - 50, True)
    assert found.is_good


def test_a_backup_that_failed_its_last_check_is_wrong(filled: Filled) -> None:
    catalog = filled()
    bad = {"date": NOW - DAY, "verdict": "damaged", "detail": "wrong checksum"}
    good = {"date": NOW - 60, "verdict": "stored", "detail": ""}
    old = catalog.add(NOW - 3 * DAY, metadata=metadata(check=bad))
    catalog.add(NOW - DAY, metadata=metadata(check=good))
    found = only(catalog)
    assert topics(found) == ["check"]
    assert f"{old}: damaged: wrong checksum" in found.findings[0].detail


def test_a_hint_names_the_host_and_the_container_where_they_are_others(filled: Filled) -> None:
    catalog = filled()
    failed = {"date": NOW - 60, "verdict": "missing"}
    catalog.add(
        NOW - DAY, backend="local", host="web 2", metadata={"client": "web 2", "check": failed}
    )
    [finding] = only(catalog, host="web 2").findings
    assert finding.hint == "bakthat check -d local --host 'web 2' my looks again"


@pytest.mark.parametrize(
    "rotation", [{"days": 3}, {"days": 2, "weeks": 2}, {"last": 2}, {"hours": 5}, {"years": 1}]
)
def test_what_goes_next_is_what_rotation_deletes_after_the_next_backup(
    filled: Filled, rotation: dict[str, int]
) -> None:
    catalog = filled(rotation=rotation)
    catalog.add_days(9, metadata=metadata())
    bakthat.rotate_backups("my", conf=catalog.conf)
    foreseen = only(catalog).next_to_go
    next_one = NOW - NOW % DAY + DAY + 3 * 3600
    with pytest.MonkeyPatch.context() as patch:  # undone before the clock of the catalog
        patch.setattr(time, "time", lambda: float(next_one + 60))
        catalog.add(next_one, metadata=metadata())
        plan = plan_rotation(Session("default", None, catalog.conf), "my")
    deleted = [each.stored_filename for each in plan.to_delete]
    assert [foreseen] == (deleted[:1] or [""])


def test_nothing_goes_that_increments_need(filled: Filled) -> None:
    catalog = filled(rotation={"last": 2})
    full = NOW - 5 * DAY
    catalog.add(full)
    for number in (4, 3, 2, 1):
        catalog.add_increment(NOW - number * DAY, [full])
    # The next one is kept, and the newest: it may be what the next is made from.
    assert only(catalog).next_to_go == catalog_key(catalog, NOW - 4 * DAY)


def catalog_key(catalog: FilledCatalog, date: int) -> str:
    """Return the stored filename of the backup of a date."""
    [found] = [each for each in bakthat.ls(conf=catalog.conf) if each.date == date]
    return str(found.stored_filename)


def test_without_rotation_or_with_one_backup_nothing_goes(filled: Filled) -> None:
    catalog = filled()
    catalog.add_days(5)
    assert only(catalog).next_to_go == ""
    catalog = filled(rotation={"days": 3})
    catalog.add(NOW - DAY)
    assert only(catalog).next_to_go == ""


def test_what_rotation_should_have_deleted_goes_first(filled: Filled) -> None:
    catalog = filled(rotation={"last": 2})
    keys = catalog.add_days(5)
    assert only(catalog).next_to_go == keys[0]


def test_another_hosts_sets_are_seen_by_its_name(filled: Filled) -> None:
    catalog = filled()
    catalog.add(NOW - DAY)
    catalog.add(NOW - 2 * DAY, host="other", metadata={"client": "other"})
    assert only(catalog).host == HOST
    assert only(catalog, host="other").age == 2 * DAY
    with pytest.raises(NoMatchError):
        bakthat.status(conf=catalog.conf, host="nobody")


def test_the_status_of_jobs_has_their_limits(isolated_environment: Path) -> None:
    home = isolated_environment
    (home / "srv").mkdir()
    (home / "srv" / "a").write_text("a")
    config = home / ".bakthat.yml"
    config.write_text(
        f"default: {{default_destination: local, local_path: {home}/store, password: ''}}\n"
        f"jobs:\n  nightly:\n    sources: [{home}/srv, {{command: 'true', name: never}}]\n"
        "    max_age: 26h\n    check: {every: 1W}\n    drill: {every: 1M}\n"
    )
    config.chmod(0o600)
    bakthat.backup(home / "srv")
    never, srv = bakthat.status()
    assert (srv.max_age, srv.jobs, srv.source) == (26 * 3600, ("nightly",), str(home / "srv"))
    assert topics(srv) == ["check", "drill"]
    # Of what has no backup, that is all that is wrong.
    assert (never.name, never.backups, topics(never)) == ("never", 0, ["age"])
    bakthat.check()
    bakthat.drill("srv")
    assert topics(bakthat.status("srv")[0]) == []
    assert bakthat.status("srv", max_age="1h")[0].max_age == 3600
