"""Record in the catalog which backups were checked, and what was found."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from bakthat import models
from bakthat.errors import CatalogError
from bakthat.operations.check.result import CheckResult, Verdict
from bakthat.operations.facts import CHECK, CheckRecord
from bakthat.session.session import Session
from bakthat.session.stat import batches

log = logging.getLogger("bakthat")

_READ = (Verdict.SAMPLED, Verdict.READ)


def record_checks(session: Session, found: Sequence[CheckResult], share: float | None) -> None:
    """Record each finding in the catalog and in its entry; *share* is how much was to be read.

    Nothing is recorded of a backup that could not be looked up: that says nothing about it. A
    catalog that cannot be written is only a warning.
    """
    now = int(time.time())
    records = {
        each.backup.stored_filename: _record(each, share, now)
        for each in found
        # An entry without metadata is damaged, and sync knows it by that.
        if each.verdict is not Verdict.UNKNOWN and each.backup.metadata
    }
    for each in found:
        if each.backup.stored_filename in records:
            each.backup.metadata = _with(each.backup, records[each.backup.stored_filename])
    try:
        for names in batches(list(records)):
            with models.catalog(session.catalog, write=True):
                _write(names, records)
    except CatalogError as exc:
        log.warning("the results of the check are not in the catalog: %s", exc)


def _record(result: CheckResult, share: float | None, now: int) -> CheckRecord:
    verdict = result.verdict
    return CheckRecord(
        now,
        verdict,
        "; ".join(filter(None, (result.detail, result.index_problem))),
        share if verdict in (*_READ, Verdict.DAMAGED) else None,
        now if verdict in _READ else None,
    )


def _write(names: Sequence[str], records: dict[str, CheckRecord]) -> None:
    # Read again: another process may have recorded something meanwhile.
    rows = models.Backups.select().where(models.Backups.stored_filename.in_(list(names)))
    for row in list(rows):
        if row.metadata:
            row.metadata = _with(row, records[row.stored_filename])
            # Not last_updated: sync takes it for the time at which the object was there.
            row.save(only=["metadata"])


def _with(backup: models.Backups, record: CheckRecord) -> dict[str, object]:
    after = record.after(CheckRecord.of(backup.metadata))
    return {**backup.metadata, CHECK: after.as_dict()}
