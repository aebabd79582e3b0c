"""Decide which backups of a set a rule deletes, and which of these must stay for now."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from typing import Unpack

from bakthat import models
from bakthat.errors import BakthatError, ConfigError, StorageError
from bakthat.operations.needed import LeftBackup, blocked, keep_needed, left_of, waves
from bakthat.policy.intervals import describe_interval, parse_interval
from bakthat.policy.rotation import (
    IN_THE_FUTURE,
    NEWEST_OF_SOURCE,
    NEWEST_OF_USUAL_SIZE,
    ON_HOLD,
    RECORDED_LAST,
    Decision,
    RotationKeywords,
    RotationPolicy,
    decide,
    decide_by_age,
    keep_also,
)
from bakthat.session.deletion import check_before_deleting
from bakthat.session.locks.extension import Extensions, plan_extensions
from bakthat.session.locks.holds import hold_of
from bakthat.session.lookup import find_set, other_hosts
from bakthat.session.session import Session
from bakthat.session.sets import BackupSet, id_of_source
from bakthat.system.paths import PathLike
from bakthat.system.text import enumerate_some, printable

log = logging.getLogger("bakthat")

UNLOOKED = "locks cannot be looked at, and nothing is deleted before: %s"
"""What is said of a plan whose locks are not known."""


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
    left: tuple[LeftBackup, ...] = ()
    """Those that no rule keeps and that cannot be deleted now, once :func:`checked` has looked."""
    unlooked: StorageError | None = None
    """Why :func:`checked` could not look."""

    @property
    def not_locked(self) -> list[models.Backups]:
        """The backups that stay and whose lock was not extended; all, where that is not known."""
        if self.extensions.problem is not None:
            return [each.backup for each in self.backups if each.decision.keep]
        planned = self.extensions.planned
        return [each.backup for each in planned if each.problem is not None]

    @property
    def obstacle(self) -> BakthatError | None:
        """Why none of its backups is deleted, for now; None when nothing prevents that."""
        return (self.problem or self.unlooked) if self.unkept else None

    @property
    def unkept(self) -> list[models.Backups]:
        """The backups that no rule keeps, the oldest first."""
        return [each.backup for each in reversed(self.backups) if not each.decision.keep]

    @property
    def to_delete(self) -> list[models.Backups]:
        """The backups to delete, the oldest first."""
        left = {each.backup.stored_filename for each in self.left}
        return [each for each in self.unkept if each.stored_filename not in left]


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


def checked(session: Session, plan: Plan) -> Plan:
    """Return *plan* with those of its backups that cannot be deleted now, nor what they need.

    Warns about each of the others that is charged for longer than it has been stored.
    """
    unkept = plan.unkept
    if not unkept:
        return plan
    backend = session.backend(session.destination)
    try:
        errors: dict[str, BakthatError] = {
            **check_before_deleting(backend, unkept, trusts_catalog=True)
        }
    except StorageError as exc:
        return replace(plan, unlooked=exc)
    for wave in waves(unkept):
        errors |= blocked(wave, unkept, errors)
    return replace(plan, left=left_of(unkept, errors))


def log_notes(plan: Plan) -> None:
    """Log what a user should know about the set besides what is deleted."""
    if plan.problem is not None:
        log.warning(
            "increments that the catalog does not list cannot be looked up, and nothing is deleted "
            "before: %s",
            plan.problem,
        )
    if plan.unlooked is not None:
        log.warning(UNLOOKED, plan.unlooked)
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
