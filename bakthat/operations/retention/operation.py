"""Delete by rule: the backups older than an interval, or those that a rotation does not keep.

Both work on exactly one set: the backups of one name and one source, made by one host, in one
container. A plan is complete before the first deletion; ``--dry-run`` shows it. The newest backup
of a set always stays, and the newest whose size is not suspicious, and those on hold, and so does
whatever the kept ones, running ones, and those that the catalog does not list need. A rotation also
extends the locks of what it keeps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bakthat import models
from bakthat.backends.base import Backend
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import (
    BakthatError,
    CredentialsError,
    NotFoundError,
    StorageError,
)
from bakthat.operations.changes import after_change
from bakthat.operations.needed import (
    FAILED,
    LeftBackup,
    blocked,
    left_of,
    needed_now,
    waves,
)
from bakthat.operations.retention.plan import (
    UNLOOKED,
    Plan,
    checked,
    log_notes,
    plan_by_age,
    plan_rotation,
)
from bakthat.policy.rotation import (
    NEWEST,
    NEWEST_OF_SOURCE,
    NEWEST_OF_USUAL_SIZE,
    ON_HOLD,
    RECORDED_LAST,
    RUNNING,
    RotationKeywords,
)
from bakthat.session.container import check_mounted
from bakthat.session.deletion import (
    UNMARKED,
    check_recordable,
    delete_indexes,
    record_deletion,
)
from bakthat.session.locks.extension import carry_out_extensions
from bakthat.session.session import Session, operation, result_log
from bakthat.system.paths import PathLike
from bakthat.system.signals import held_back
from bakthat.system.text import counted, printable

log = logging.getLogger("bakthat")

_KEPT_WITHOUT_RULE: Mapping[tuple[str, ...], str] = {
    (NEWEST,): "it is the newest",
    (NEWEST_OF_SOURCE,): "it is the newest of its source",
    (NEWEST_OF_USUAL_SIZE,): "it is the newest of a usual size",
    (ON_HOLD,): "it is on hold",
    (RECORDED_LAST,): "it was recorded last",
    (RUNNING,): "a running backup needs it",
}
"""Why a backup that no rule keeps is kept."""


@dataclass(slots=True)
class RetentionReport:
    """What became of the backups of a plan. It is filled while they are deleted."""

    plan: Plan | None = None
    deleted: list[models.Backups] = field(default_factory=list)
    """The oldest first; in a dry run, those that would be deleted."""
    left: list[LeftBackup] = field(default_factory=list)
    """Those that no rule keeps, and that stay: locked, on hold, or not deletable."""

    @property
    def protected(self) -> list[LeftBackup]:
        """Those that stay since they, or what needs them, are locked or on hold."""
        return [each for each in self.left if each.outcome != FAILED]

    def left_as(self, outcome: str) -> list[LeftBackup]:
        """Return those that stay since they are "locked", "held" or "failed"."""
        return [each for each in self.left if each.outcome == outcome]


def delete_older_than(
    filename: str,
    interval: str,
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
    source: PathLike | None = None,
    dry_run: bool = False,
) -> list[models.Backups]:
    """Delete the backups of the set *filename* that are older than *interval*; return them.

    *interval* is text such as ``3M2D8h20m5s``. The newest backup of the set stays, however old it
    is. *host* names the host that made the set, by default this one. Only *destination* is
    searched, by default the profile's. Backups that are locked or on hold stay, with what they
    need; a later call deletes them. With *dry_run*, nothing is deleted, no event fires, and the
    backups that would be deleted are returned. Raises UsageError for an invalid interval,
    NoMatchError when there is no such set, and StorageError when some backups could not be deleted:
    they stay in the catalog, and all others are deleted.
    """
    session = Session(profile, config, conf, destination)
    if dry_run:
        plan = plan_by_age(session, filename, interval, host=host, source=source)
        return foresee(session, plan).deleted
    return delete_by_plan(
        session,
        "delete_older_than",
        lambda: plan_by_age(session, filename, interval, host=host, source=source),
    )


def rotate_backups(
    filename: str,
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
    source: PathLike | None = None,
    dry_run: bool = False,
    last: int | None = None,
    minutes: int | None = None,
    hours: int | None = None,
    days: int | None = None,
    weeks: int | None = None,
    months: int | None = None,
    years: int | None = None,
    first_week_day: int | None = None,
) -> list[models.Backups]:
    """Delete the backups of the set *filename* that its rotation does not keep; return them.

    *last* to *years* say how many backups each rule keeps. When none of them is given, the
    profile's ``rotation`` is used. *first_week_day* is 0 Monday to 6 Sunday, by default the
    profile's. The other arguments and exceptions are those of :func:`delete_older_than`. Raises
    ConfigError when there is no rotation at all.
    """
    session = Session(profile, config, conf, destination)
    rules = RotationKeywords(
        last=last,
        minutes=minutes,
        hours=hours,
        days=days,
        weeks=weeks,
        months=months,
        years=years,
        first_week_day=first_week_day,
    )
    if dry_run:
        plan = plan_rotation(session, filename, host=host, source=source, **rules)
        return foresee(session, plan).deleted
    return delete_by_plan(
        session,
        "rotate_backups",
        lambda: plan_rotation(session, filename, host=host, source=source, **rules),
    )


rotate = rotate_backups


def delete_by_plan(
    session: Session,
    name: str,
    make_plan: Callable[[], Plan],
    report: RetentionReport | None = None,
) -> list[models.Backups]:
    """Run the operation *name*: make its plan, delete what it says, and return that.

    *report* is filled also when this raises.
    """
    report = report if report is not None else RetentionReport()
    with operation(session, name) as current:
        carry_out(session, make_plan(), report)
        done = f"deleted {counted(len(report.deleted), 'backup')}"
        return current.finish(report.deleted, done=done)


def foresee(session: Session, plan: Plan) -> RetentionReport:
    """Return what :func:`carry_out` would do now, as far as that is known."""
    plan = checked(session, plan)
    if plan.unlooked is not None:
        log.warning(UNLOOKED, plan.unlooked)
    return RetentionReport(plan, plan.to_delete, list(plan.left))


def carry_out(session: Session, plan: Plan, report: RetentionReport | None = None) -> None:
    """Delete the plan's backups from the storage, then mark them in the catalog; fill *report*.

    Raises StorageError, after all others are deleted, when some could not be deleted, and are
    neither locked nor on hold.
    """
    report = report if report is not None else RetentionReport()
    log.info("%s", plan.purpose)
    plan = report.plan = checked(session, plan)
    log_notes(plan)
    for each in plan.backups:
        reason = _KEPT_WITHOUT_RULE.get(each.decision.reasons, "")
        if reason or each.is_needed:
            reason = reason or f"it is {each.decision.reasons[0]}"
            log.info("Keeping %s: %s", printable(each.backup.stored_filename), reason)
    backend = session.backend(session.destination)
    for each in plan.backups:
        each.backup.container = backend.container
    carry_out_extensions(session, plan.extensions)
    unkept, to_delete = plan.unkept, plan.to_delete
    if plan.obstacle is not None:
        raise plan.obstacle
    if to_delete:
        check_mounted(session, backend, len(to_delete))
        _check_newest(backend, plan)
    errors = {each.backup.stored_filename: each.error for each in plan.left}
    _log_left(plan.left)
    try:
        for wave in waves(to_delete):
            _note(errors, blocked(wave, unkept, errors), wave)
            deletable = [each for each in wave if each.stored_filename not in errors]
            for start in range(0, len(deletable), backend.batch_size):
                batch = deletable[start : start + backend.batch_size]
                done, failed = _delete_batch(session, backend, batch, plan.why)
                _note(errors, failed, batch)
                report.deleted += done
    finally:
        report.left = list(left_of(unkept, errors))
        # The command line has a summary of its own, but not when an exception ends the command.
        is_whole = len(report.deleted) + len(report.protected) == len(unkept)
        results = result_log if is_whole else log
        results.info("Deleted %d of %d backups", len(report.deleted), len(plan.backups))
        if report.deleted:
            after_change(session, backend.name)
    failed_ones = report.left_as(FAILED)
    if failed_ones:
        first = failed_ones[0]
        raise StorageError(
            f"{len(failed_ones)} of {len(unkept)} backups could not be deleted, the first is "
            f"{printable(first.backup.stored_filename)}: {first.error}",
            hint=f"they stay in the catalog; {first.error.hint or 'run it again to delete them'}",
        ) from first.error


def _note(
    errors: dict[str, BakthatError],
    found: Mapping[str, BakthatError],
    backups: Sequence[models.Backups],
) -> None:
    """Add the errors that were *found* of *backups*, and say which of them stay."""
    errors |= found
    _log_left(left_of(backups, found))


def _log_left(left: Sequence[LeftBackup]) -> None:
    for each in left:
        name = printable(each.backup.stored_filename)
        if each.outcome == FAILED:
            log.warning("%s was not deleted: %s", name, each.error)
        else:
            log.info("Keeping %s: it is %s", name, each.why)


def _unneeded(session: Session, batch: Sequence[models.Backups]) -> list[models.Backups]:
    """Return the backups of *batch* that nothing needs which began after the plan was made."""
    reasons = needed_now(session, batch)
    for name, reason in reasons.items():
        why = _KEPT_WITHOUT_RULE.get((reason,), f"it is {reason}")
        log.info("Keeping %s: %s", printable(name), why)
    return [each for each in batch if each.stored_filename not in reasons]


def _check_newest(backend: Backend, plan: Plan) -> None:
    """Raise StorageError when the newest backup is in the catalog but not on the storage.

    Another program or a rule of the bucket may have deleted it. The older backups are then needed.
    """
    missing: NotFoundError | None = None
    for each in plan.backups:
        if NEWEST not in each.decision.reasons:
            continue
        try:
            backend.stat(each.backup.stored_filename)
        except NotFoundError as exc:
            missing = exc
        except CredentialsError as exc:
            log.debug("cannot look for the newest backup: %s", exc)
            return
        else:
            return
    if missing is not None:
        raise StorageError(
            f"the newest backup of {printable(plan.filename)} is listed, but not stored, so none "
            f"was deleted: {missing}",
            hint=missing.hint or "remove its entry with bakthat delete, then run this again",
        ) from missing


def _delete_batch(
    session: Session, backend: Backend, batch: Sequence[models.Backups], why: str
) -> tuple[list[models.Backups], Mapping[str, BakthatError]]:
    """Delete the backups of *batch* that none needs which runs by now.

    Returns those that are deleted, and an error for each that could not be.
    """
    batch = _unneeded(session, batch)
    if not batch:
        return [], {}
    for backup in batch:
        log.info("Deleting %s", printable(backup.stored_filename))
    check_recordable(session, backend, batch[0])
    # An interrupt must not leave any of them in the catalog but not on the storage, nor an index.
    with held_back(f"finishing the deletion of {len(batch)} backups", mend=UNMARKED):
        failed = backend.delete_many([backup.stored_filename for backup in batch])
        deleted = [each for each in batch if each.stored_filename not in failed]
        record_deletion(session, deleted, why)
        delete_indexes(session, backend, deleted)
    return deleted, failed
