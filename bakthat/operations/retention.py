"""Delete by rule: the backups older than an interval, or those that a rotation does not keep.

Both work on exactly one set: the backups of one name and one source, made by one host, in one
container. A plan is complete before the first deletion; ``--dry-run`` shows it. The newest backup
of a set always stays, and the newest whose size is not suspicious, and those on hold, and so does
whatever the kept ones, running ones, and those that the catalog does not list need. A rotation also
extends the locks of what it keeps.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Unpack

from bakthat import models
from bakthat.backends.base import Backend
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import (
    BakthatError,
    ConfigError,
    CredentialsError,
    NotFoundError,
    StorageError,
)
from bakthat.operations.changes import after_change
from bakthat.operations.needed import keep_needed, needed_now
from bakthat.policy.intervals import describe_interval, parse_interval
from bakthat.policy.rotation import (
    IN_THE_FUTURE,
    NEWEST,
    NEWEST_OF_SOURCE,
    NEWEST_OF_USUAL_SIZE,
    ON_HOLD,
    RECORDED_LAST,
    RUNNING,
    Decision,
    RotationKeywords,
    RotationPolicy,
    decide,
    decide_by_age,
    keep_also,
)
from bakthat.session.chains import dependents_first, is_needed_by
from bakthat.session.container import check_mounted
from bakthat.session.deletion import (
    UNMARKED,
    check_before_deleting,
    check_recordable,
    delete_indexes,
    record_deletion,
)
from bakthat.session.locks.extension import Extensions, carry_out_extensions, plan_extensions
from bakthat.session.locks.holds import hold_of
from bakthat.session.lookup import find_set, other_hosts
from bakthat.session.session import Session, operation, result_log
from bakthat.session.sets import BackupSet, id_of_source
from bakthat.system.paths import PathLike
from bakthat.system.signals import held_back
from bakthat.system.text import counted, enumerate_some, printable

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


@dataclass(frozen=True, slots=True)
class PlannedBackup:
    """A backup of the set and the decision about it."""

    backup: models.Backups
    date: int
    """Epoch seconds, UTC."""
    decision: Decision
    is_needed: bool = False
    """Whether it is kept only because others need it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The decisions about the backups of one set. :func:`carry_out` executes them."""

    filename: str
    """The set's name."""
    purpose: str
    """A line for the log: the action and its rule."""
    why: str
    """Why its backups are deleted, for the catalog."""
    backups: tuple[PlannedBackup, ...]
    """The newest first."""
    other_hosts: tuple[str, ...] = ()
    """The hosts that have backups of that name in the same container. They stay."""
    problem: BakthatError | None = None
    """Why it is not known which backups the increments that the catalog does not list need."""
    extensions: Extensions = field(default_factory=Extensions)
    """The locks that are extended, by a rotation alone."""

    @property
    def not_locked(self) -> list[models.Backups]:
        """The backups that stay and whose lock was not extended; all, where that is not known."""
        if self.extensions.problem is not None:
            return [each.backup for each in self.backups if each.decision.keep]
        planned = self.extensions.planned
        return [each.backup for each in planned if each.problem is not None]

    @property
    def to_delete(self) -> list[models.Backups]:
        """The backups to delete, the oldest first."""
        return [each.backup for each in reversed(self.backups) if not each.decision.keep]


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
    searched, by default the profile's. With *dry_run*, nothing is deleted, no event fires, and the
    backups that would be deleted are returned. Raises UsageError for an invalid interval,
    NoMatchError when there is no such set, and StorageError when some backups could not be deleted:
    they stay in the catalog, and all others are deleted.
    """
    session = Session(profile, config, conf, destination)
    if dry_run:
        return plan_by_age(session, filename, interval, host=host, source=source).to_delete
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
        return plan_rotation(session, filename, host=host, source=source, **rules).to_delete
    return delete_by_plan(
        session,
        "rotate_backups",
        lambda: plan_rotation(session, filename, host=host, source=source, **rules),
    )


rotate = rotate_backups


def delete_by_plan(
    session: Session, name: str, make_plan: Callable[[], Plan]
) -> list[models.Backups]:
    """Run the operation *name*: make its plan, delete what it says, and return that."""
    with operation(session, name) as current:
        deleted = carry_out(session, make_plan())
        return current.finish(deleted, done=f"deleted {counted(len(deleted), 'backup')}")


def plan_by_age(
    session: Session,
    filename: str,
    interval: str,
    *,
    host: str | None = None,
    source: PathLike | None = None,
) -> Plan:
    """Return the plan of :func:`delete_older_than`. Raises the errors of :func:`plan_rotation`."""
    seconds = parse_interval(interval)
    now = int(time.time())
    found = find_set(session, filename, host=host, source=source)
    decisions = decide_by_age([each.date for each in found.backups], seconds, now)
    shown = _shown(found, source)
    purpose = f"Deleting backups of {shown} {describe_interval(seconds, now)}"
    return _plan(session, found, purpose, f"older than {interval}", decisions)


def plan_rotation(
    session: Session,
    filename: str,
    *,
    host: str | None = None,
    source: PathLike | None = None,
    **rules: Unpack[RotationKeywords],
) -> Plan:
    """Return the plan of :func:`rotate_backups`.

    Raises ConfigError, UsageError, NoMatchError, AmbiguousNameError.
    """
    try:
        policy = RotationPolicy.choose(session.profile.rotation, **rules)
    except ConfigError as exc:
        where = session.loaded.place("rotation")
        raise ConfigError(f"{where}: {exc}", hint=exc.hint) from exc
    now = int(time.time())
    found = find_set(session, filename, host=host, source=source)
    decisions = decide([each.date for each in found.backups], policy, now)
    purpose = f"Rotating {_shown(found, source)}, keeping {policy}"
    plan = _plan(session, found, purpose, f"rotation, keeping {policy}", decisions)
    kept = [each.backup for each in plan.backups if each.decision.keep]
    return replace(plan, extensions=plan_extensions(session, found.backups, kept))


def carry_out(session: Session, plan: Plan) -> list[models.Backups]:
    """Delete the plan's backups from the storage, then mark them in the catalog; return them.

    Raises StorageError, after all others are deleted, when some could not be deleted.
    """
    log.info("%s", plan.purpose)
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
    to_delete = plan.to_delete
    if to_delete and plan.problem is not None:
        raise plan.problem
    failures: dict[str, BakthatError] = {**check_before_deleting(backend, to_delete)}
    if to_delete:
        check_mounted(session, backend, len(to_delete))
        _check_newest(backend, plan)
    for key, error in failures.items():
        log.warning("%s was not deleted: %s", printable(key), error)
    deleted: list[models.Backups] = []
    try:
        for wave in _waves(to_delete):
            failures.update(_blocked(wave, to_delete, failures))
            deletable = [each for each in wave if each.stored_filename not in failures]
            for start in range(0, len(deletable), backend.batch_size):
                batch = deletable[start : start + backend.batch_size]
                done, failed = _delete_batch(session, backend, batch, plan.why)
                failures.update(failed)
                deleted += done
    finally:
        # The command line has a summary of its own, but not when an exception ends the command.
        results = result_log if len(deleted) == len(to_delete) else log
        results.info("Deleted %d of %d backups", len(deleted), len(plan.backups))
        if deleted:
            after_change(session, backend.name)
    if failures:
        first, why = next(iter(failures.items()))
        raise StorageError(
            f"{len(failures)} of {len(to_delete)} backups could not be deleted, the first is "
            f"{printable(first)}: {why}",
            hint=f"they stay in the catalog; {why.hint or 'run it again to delete them'}",
        ) from why
    return deleted


def _waves(to_delete: Sequence[models.Backups]) -> Sequence[Sequence[models.Backups]]:
    """Divide backups to delete so that what others need is deleted after them."""
    if any(each.is_increment for each in to_delete):
        return dependents_first(to_delete)
    return [to_delete]


def _blocked(
    wave: Sequence[models.Backups],
    to_delete: Sequence[models.Backups],
    failures: Mapping[str, BakthatError],
) -> dict[str, BakthatError]:
    """Return an error for each backup of *wave* that one needs which could not be deleted."""
    left = [each for each in to_delete if each.stored_filename in failures and each.is_increment]
    found: dict[str, BakthatError] = {}
    for each in wave:
        names = [one.stored_filename for one in left if is_needed_by(each, one)]
        if names and each.stored_filename not in failures:
            error = StorageError(f"{printable(names[-1])}, which was not deleted, needs it")
            log.warning("%s was not deleted: %s", printable(each.stored_filename), error)
            found[each.stored_filename] = error
    return found


def _unneeded(session: Session, batch: Sequence[models.Backups]) -> list[models.Backups]:
    """Return the backups of *batch* that nothing needs which began after the plan was made."""
    reasons = needed_now(session, batch)
    for name, reason in reasons.items():
        why = _KEPT_WITHOUT_RULE.get((reason,), f"it is {reason}")
        log.info("Keeping %s: %s", printable(name), why)
    return [each for each in batch if each.stored_filename not in reasons]


def log_notes(plan: Plan) -> None:
    """Log what a user should know about the set besides what is deleted."""
    if plan.problem is not None:
        log.warning(
            "increments that the catalog does not list cannot be looked up, and nothing is deleted "
            "before: %s",
            plan.problem,
        )
    future = [each for each in plan.backups if IN_THE_FUTURE in each.decision.reasons]
    if future:
        log.warning(
            "Backups dated in the future stay, and count for no rule, since a clock is or was "
            "wrong: %s",
            enumerate_some([printable(each.backup.stored_filename) for each in future]),
        )
    if plan.other_hosts:
        # A host whose name changes with every run never has a second backup to rotate.
        level = logging.WARNING if len(plan.backups) == 1 else logging.INFO
        log.log(
            level,
            "Other hosts have backups of %s too, which stay: %s; select one with --host, or set "
            "host in the profile where the name of one machine changes",
            printable(plan.filename),
            enumerate_some([printable(each) or "an unknown host" for each in plan.other_hosts]),
        )


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
        for key, error in failed.items():
            log.warning("%s was not deleted: %s", printable(key), error)
        deleted = [each for each in batch if each.stored_filename not in failed]
        record_deletion(session, deleted, why)
        delete_indexes(session, backend, deleted)
    return deleted, failed


def _shown(found: BackupSet, source: PathLike | None) -> str:
    """Return the set's name for a message, with its source where one was selected."""
    name = printable(found.name)
    return name if source is None else f"{name} {found.describe_source()}"


def _plan(
    session: Session, found: BackupSet, purpose: str, why: str, decisions: list[Decision]
) -> Plan:
    ids: list[int] = [each.get_id() for each in found.backups]  # type: ignore[no-untyped-call]  # peewee
    decisions = keep_also(decisions, ids.index(max(ids)), RECORDED_LAST)
    # Backups that do not say what their source is may be of another one than those that do.
    is_known = [bool(id_of_source(each)) for each in found.backups]
    for each in set(is_known):
        decisions = keep_also(decisions, is_known.index(each), NEWEST_OF_SOURCE)
    usual = [not each.is_suspicious for each in found.backups]
    if any(usual):
        decisions = keep_also(decisions, usual.index(True), NEWEST_OF_USUAL_SIZE)
    for position, backup in enumerate(found.backups):
        if hold_of(backup) is not None:
            decisions = keep_also(decisions, position, ON_HOLD)
    decided = decisions
    decisions, problem = keep_needed(session, found, decisions)
    planned = (
        PlannedBackup(backup, backup.date, decision, decision is not before)
        for backup, decision, before in zip(found.backups, decisions, decided, strict=True)
    )
    others = other_hosts(session, found.name, found.host)
    return Plan(found.name, purpose, why, tuple(planned), tuple(others), problem)
