"""Put backups on hold, so that nobody can delete them until they are released.

A hold is of one object (S3: legal hold), and the storage does not say why it is there. So a backup
that was put on hold by its name has the reason in its metadata; what it needs has none.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bakthat import models
from bakthat.backends.base import Backend
from bakthat.backends.lock import Lock
from bakthat.backends.protection import LockingStorage
from bakthat.errors import ConfigError, NotFoundError, UsageError
from bakthat.session.chains import dependents_within, is_needed_by, of_one_set
from bakthat.session.indexes.pins import may_be_needed, unlisted_increments
from bakthat.session.locks.retention import archive_last, as_metadata
from bakthat.session.session import Session
from bakthat.session.stat import workers
from bakthat.system.text import printable

log = logging.getLogger("bakthat")

HOLD = "hold"
"""The key of the metadata that says why and when a backup was put on hold."""
_NO_HOLDS = {
    "glacier": "a vault has locks of its own, which AWS calls Vault Lock: set them there",
    "local": "use a bucket with object lock: whoever can write to a directory can delete there",
}


@dataclass(frozen=True, slots=True)
class Hold:
    """The hold of a backup that was put on hold by its name."""

    reason: str
    """"" when it is not known: the storage does not keep it."""
    date: int | None
    """When that was, in epoch seconds UTC; None when it is not known."""

    def as_metadata(self) -> dict[str, Any]:
        """Return what the metadata of the backup says of it."""
        return {HOLD: {"reason": self.reason, "date": self.date}}

    def __str__(self) -> str:
        """Return "on hold", with the reason where it is known."""
        return f"on hold: {self.reason}" if self.reason else "on hold"


def hold_of(backup: models.Backups) -> Hold | None:
    """Return the hold of a backup as the catalog has it; None for none."""
    known: Any = backup.metadata.get(HOLD)
    if not isinstance(known, Mapping):
        return None
    date = known.get("date")
    return Hold(str(known.get("reason") or ""), date if isinstance(date, int) else None)


def add_lock(entry: models.Backups, lock: Lock | None) -> None:
    """Add to *entry*, made from a stored object, what the storage says of its *lock*, if it does.

    Why it is on hold, and since when, is not known there, nor whether that is for its own sake.
    """
    if lock is not None:
        hold = Hold("", None).as_metadata() if lock.is_held else {}
        entry.metadata = {**entry.metadata, **as_metadata(lock), **hold}


def keep_reason(found: models.Backups, entry: models.Backups) -> None:
    """Let *entry*, made from a stored object, have the hold that the entry *found* has."""
    known = hold_of(found)
    if known is not None and hold_of(entry) is not None:
        entry.metadata = {**entry.metadata, **known.as_metadata()}


def storage_of_holds(session: Session, backup: models.Backups) -> LockingStorage:
    """Return the backend that has *backup*.

    Raises UsageError when that kind of storage has no holds, ConfigError when the bucket has no
    object lock, and StorageError.
    """
    backend = session.backend(backup.backend)
    name = printable(backup.stored_filename)
    if not isinstance(backend, LockingStorage):
        raise UsageError(
            f"{name} is on {backup.backend}, which has no holds", hint=_NO_HOLDS[backup.backend]
        )
    if not backend.has_locks():
        raise ConfigError(
            f"bucket '{printable(backend.container)}' has no object lock, so {name} cannot be on "
            "hold",
            hint="enable object lock for the bucket; the first backup makes a new bucket with it "
            "where 'object_lock' is set",
        )
    return backend


def set_hold(backend: LockingStorage, backup: models.Backups, *, is_held: bool) -> None:
    """Put an archive and its index on hold, or release them. Both may be so already.

    Raises NotFoundError for an archive that is not stored, and StorageError.
    """
    archive_last(
        backend, backup.stored_filename, lambda key: backend.set_hold(key, is_held=is_held)
    )


def still_held(
    session: Session,
    backend: LockingStorage,
    released: models.Backups,
    covered: Sequence[models.Backups],
) -> dict[str, str]:
    """Return which of *covered* must stay on hold when one of them is *released*, and why.

    *covered* are the released backup and all that it needs. The others on hold are known from the
    catalog and, of increments that need one of *covered*, from the storage, since another machine
    may have put them on hold. Raises StorageError.
    """
    listed = of_one_set(session, released)
    held = [each for each in listed if hold_of(each) is not None]
    held = [each for each in held if each.stored_filename != released.stored_filename]
    known = {each.stored_filename for each in (*covered, *held)}
    held += [
        each
        for each in _held_dependents(session, backend, listed, covered)
        if each.stored_filename not in known
    ]
    names = {each.stored_filename for each in held}
    found = {}
    for each in covered:
        needing = [one.stored_filename for one in held if is_needed_by(each, one)]
        if each.stored_filename in names:
            found[each.stored_filename] = "it is on hold itself"
        elif needing:
            found[each.stored_filename] = f"{printable(needing[-1])}, which is on hold, needs it"
    return found


def _held_dependents(
    session: Session,
    backend: Backend,
    listed: Sequence[models.Backups],
    covered: Sequence[models.Backups],
) -> Iterator[models.Backups]:
    """Yield the increments that need one of *covered*, are not among them, and are on hold."""
    known = list(listed)
    if any(may_be_needed(each) for each in covered):
        known += unlisted_increments(session, backend, listed or covered)
    assert isinstance(backend, LockingStorage)
    locking = backend

    def is_held(backup: models.Backups) -> bool:
        try:
            return locking.lock_of(backup.stored_filename).is_held
        except NotFoundError:  # it is being stored, or is gone
            return False

    dependents = dependents_within(covered, known)
    with workers() as pool:
        for each, found in zip(dependents, pool.map(is_held, dependents), strict=True):
            if found:
                yield each
