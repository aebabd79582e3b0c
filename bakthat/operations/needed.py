"""Keep what others need: the backups that a rule would delete, and that must stay all the same.

An increment is applied to the state of an earlier backup, and so on back to a full one. Whatever a
kept backup, a running one, or one that the catalog does not list needs is kept. So does what one
needs that cannot be deleted, since it is locked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bakthat import models, reservations
from bakthat.errors import BakthatError, LockedObjectError, StorageError
from bakthat.policy.levels import needed_by, reason_needed
from bakthat.policy.rotation import RUNNING, Decision
from bakthat.session.chains import (
    check_formats,
    dependents_first,
    increments_beside,
    is_needed_by,
    may_be_of_one_set,
    needs_within,
)
from bakthat.session.indexes.pins import may_be_needed, unlisted_increments
from bakthat.session.session import Session
from bakthat.session.sets import BackupSet
from bakthat.system.text import printable

LOCKED, HELD, FAILED = "locked", "held", "failed"
"""Why a backup that is not kept is not deleted either."""


@dataclass(frozen=True, slots=True)
class LeftBackup:
    """A backup that a rule does not keep, and that stays all the same."""

    backup: models.Backups
    error: BakthatError
    """Why. LockedObjectError: it is locked or on hold, or one that needs it is."""

    @property
    def outcome(self) -> str:
        """Which of "locked", "held" and "failed" it is."""
        if not isinstance(self.error, LockedObjectError):
            return FAILED
        return HELD if self.error.is_held else LOCKED

    @property
    def why(self) -> str:
        """Why it stays, in a few words where it is locked."""
        return self.error.why if isinstance(self.error, LockedObjectError) else str(self.error)

    def as_dict(self) -> dict[str, Any]:
        """Return its fields as plain values, with those of the backup."""
        locked = self.error if isinstance(self.error, LockedObjectError) else None
        return {
            **self.backup.as_dict(),
            "outcome": self.outcome,
            "locked_until": locked and locked.until,
            "detail": self.why,
        }


def keep_needed(
    session: Session, found: BackupSet, decisions: list[Decision]
) -> tuple[list[Decision], BakthatError | None]:
    """Return *decisions*, changed so that what the kept backups and running ones need is kept too.

    Also returned is why the increments that the catalog does not list are not known. Raises
    UsageError for a backup of a later version.
    """
    if all(each.keep for each in decisions):
        return decisions, None
    beside = increments_beside(session, found)
    with models.catalog(session.catalog):
        pinned = reservations.pinned()
    decisions = keep_within(found.backups, decisions, beside)
    decisions = [
        Decision(True, (RUNNING,))
        if each.stored_filename in pinned and not decision.keep
        else decision
        for each, decision in zip(found.backups, decisions, strict=True)
    ]
    decisions = keep_within(found.backups, decisions, beside)
    pairs = zip(found.backups, decisions, strict=True)
    to_delete = [each for each, decision in pairs if not decision.keep]
    if not to_delete:
        return decisions, None
    check_formats([*found.backups, *beside])
    if not any(may_be_needed(each) for each in to_delete):
        return decisions, None
    backend = session.backend(session.destination)
    try:
        unlisted = unlisted_increments(session, backend, [*found.backups, *beside])
    except StorageError as exc:
        return decisions, exc
    check_formats(unlisted)
    return keep_within(found.backups, decisions, [*beside, *unlisted]), None


def needed_now(session: Session, to_delete: Sequence[models.Backups]) -> dict[str, str]:
    """Return why some of *to_delete*, backups of one set, must stay now: by stored filename.

    A running backup needs them, or an increment that was listed after *to_delete* was decided.
    """
    with models.catalog(session.catalog):
        # In this order: a backup that ends is listed before its reservation is gone.
        pinned = reservations.pinned()
        containers = session.containers(to_delete[0].backend)
        increments = models.Backups.increments(containers, to_delete[0].filename)
    names = {each.stored_filename for each in to_delete}
    others = [each for each in increments if each.stored_filename not in names]
    others.sort(key=lambda each: each.date)
    reasons = {}
    for each in to_delete:
        needing = [
            one.stored_filename
            for one in others
            if may_be_of_one_set(each, one) and is_needed_by(each, one)
        ]
        if each.stored_filename in pinned:
            reasons[each.stored_filename] = RUNNING
        elif needing:
            reasons[each.stored_filename] = reason_needed(needing)
    return reasons


def keep_within(
    backups: Sequence[models.Backups],
    decisions: Sequence[Decision],
    others: Sequence[models.Backups],
) -> list[Decision]:
    """Return *decisions* about *backups*, changed so that what the kept ones need is kept too.

    *backups* are of one set; *others* may be of the same set, and stay.
    """
    pairs = list(zip(backups, decisions, strict=True))
    kept = {each.date: each.stored_filename for each, decision in reversed(pairs) if decision.keep}
    kept |= {each.date: each.stored_filename for each in others}
    needs: dict[int, set[int]] = {}
    for each in (*backups, *others):
        if each.is_increment:
            older = needs_within(each, backups) if not each.needs else ()
            dates = each.needs or [one.date for one in older]
            needs.setdefault(each.date, set()).update(dates)
    needed = needed_by(kept, needs)

    def dependents(date: int) -> list[int]:
        if date in kept and needs:  # another one of the same second is kept
            return needed_by(kept.keys() - {date}, needs).get(date, [])
        return needed.get(date, [])

    return [
        Decision(True, (reason_needed([kept[date] for date in found]),))
        if not decision.keep and (found := dependents(each.date))
        else decision
        for each, decision in pairs
    ]


def waves(to_delete: Sequence[models.Backups]) -> Sequence[Sequence[models.Backups]]:
    """Divide backups to delete so that what others need is deleted after them."""
    if any(each.is_increment for each in to_delete):
        return dependents_first(to_delete)
    return [to_delete]


def blocked(
    wave: Sequence[models.Backups],
    unkept: Sequence[models.Backups],
    errors: Mapping[str, BakthatError],
) -> dict[str, BakthatError]:
    """Return an error for each backup of *wave* that one needs which could not be deleted."""
    left = [each for each in unkept if each.stored_filename in errors and each.is_increment]
    found: dict[str, BakthatError] = {}
    for each in wave:
        needing = [one for one in left if is_needed_by(each, one)]
        if not needing or each.stored_filename in errors:
            continue
        name = printable(needing[-1].stored_filename)
        found[each.stored_filename] = StorageError(f"{name}, which was not deleted, needs it")
        why = [errors[one.stored_filename] for one in needing]
        locked = [one for one in why if isinstance(one, LockedObjectError)]
        if len(locked) == len(why):
            found[each.stored_filename] = _needed_by_locked(name, locked)
    return found


def _needed_by_locked(name: str, why: Sequence[LockedObjectError]) -> LockedObjectError:
    """Return the error of a backup that only locked ones need, of which *name* is the newest."""
    until = [each.until for each in why if each.until is not None]
    needed = f"needed by {name}, which is {why[-1].why}"
    return LockedObjectError(
        f"it is {needed}",
        until=max(until, default=None),
        is_held=any(each.is_held for each in why),
        why=needed,
    )


def left_of(
    backups: Sequence[models.Backups], errors: Mapping[str, BakthatError]
) -> tuple[LeftBackup, ...]:
    """Return those of *backups* that have an error, by stored filename; in the order of these."""
    named = {each.stored_filename: each for each in backups}
    return tuple(LeftBackup(named[name], exc) for name, exc in errors.items() if name in named)
