"""Keep what others need: the backups that a rule would delete, and that must stay all the same.

An increment is applied to the state of an earlier backup, and so on back to a full one. Whatever a
kept backup, a running one, or one that the catalog does not list needs is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from bakthat import models, reservations
from bakthat.errors import BakthatError, StorageError
from bakthat.policy.levels import needed_by, reason_needed
from bakthat.policy.rotation import RUNNING, Decision
from bakthat.session.chains import (
    check_formats,
    increments_beside,
    is_needed_by,
    may_be_of_one_set,
    needs_within,
)
from bakthat.session.indexes.pins import may_be_needed, unlisted_increments
from bakthat.session.session import Session
from bakthat.session.sets import BackupSet


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
