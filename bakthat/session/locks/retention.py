"""Lock new backups, and let the retention of stored ones last longer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bakthat import models
from bakthat.backends.base import Backend
from bakthat.backends.lock import Lock
from bakthat.backends.protection import LockingStorage
from bakthat.errors import ConfigError, NotFoundError, StorageError
from bakthat.format.names import index_key
from bakthat.policy.object_lock.rule import COMPLIANCE, LockRule
from bakthat.policy.object_lock.until import check_derivable, locked_until
from bakthat.policy.rotation import RotationPolicy
from bakthat.session.session import Session
from bakthat.system.text import printable

log = logging.getLogger("bakthat")

LOCK = "lock"
"""The key of the metadata that says how a backup is locked: its mode and until when."""


def rule_of(session: Session, backend: Backend) -> LockRule | None:
    """Return the rule by which backups in *backend* are locked; None if none are.

    Only S3 has locks. Raises ConfigError when the bucket has no object lock, though the profile
    asks for locks, and StorageError when that cannot be looked up.
    """
    rule = LockRule.of(session.profile.object_lock)
    if rule is None or not isinstance(backend, LockingStorage):
        return None
    if not backend.has_locks():
        raise ConfigError(
            f"'object_lock' is set, but bucket '{printable(backend.container)}' has no object lock",
            hint="name a new bucket, which is then made with it where the storage knows locks, or "
            "enable it for this one",
        )
    return rule


def check_rule(session: Session) -> None:
    """Raise ConfigError when backups are to be locked for a time that cannot be derived."""
    rule = LockRule.of(session.profile.object_lock)
    if rule is not None and session.destination == "s3":
        check_derivable(rule, rotation_of(session))


def lock_of_new(session: Session, backend: Backend, date: int, dates: Iterable[int]) -> Lock | None:
    """Return the lock of a new backup; None if it is not to be locked.

    *date* is its own, and *dates* are those of the stored backups of its set, all in epoch seconds
    UTC. Raises ConfigError, StorageError.
    """
    rule = rule_of(session, backend)
    if rule is None:
        return None
    now = max(date, int(time.time()))
    return Lock(locked_until([*dates, date], rule, rotation_of(session), now)[-1], rule.mode)


def rotation_of(session: Session) -> RotationPolicy | None:
    """Return the rotation of the profile; None if it has none. Raises ConfigError."""
    rotation = session.profile.rotation
    return RotationPolicy.choose(rotation) if rotation else None


def known_lock(backup: models.Backups) -> Lock:
    """Return the lock of a backup as the catalog has it. It may last longer by now."""
    known: Any = backup.metadata.get(LOCK)
    if not isinstance(known, Mapping) or not isinstance(known.get("until"), int | float):
        return Lock()
    return Lock(float(known["until"]), str(known.get("mode") or ""))


def as_metadata(lock: Lock) -> dict[str, Any]:
    """Return what the metadata of a backup says of its lock."""
    return {LOCK: {"mode": lock.mode, "until": lock.until}} if lock.until is not None else {}


def extend_locks(
    session: Session, backend: LockingStorage, backups: Sequence[models.Backups], lock: Lock
) -> list[models.Backups]:
    """Let the locks of *backups* and of their indexes last as long as *lock*, and record it.

    Returns those whose lock the catalog knew to end earlier. Raises StorageError, after the locks
    before it were recorded; NotFoundError for an archive that is not stored.
    """
    extended: list[models.Backups] = []
    try:
        for each in backups:
            if known_lock(each).covers(lock):
                continue
            extend_lock(backend, each.stored_filename, lock)
            extended.append(each)
    finally:
        if extended:
            models.changed(session.catalog, lambda: _record(extended, lock))
    return extended


def extend_lock(backend: LockingStorage, key: str, lock: Lock) -> None:
    """Let the locks of the archive *key* and of its index last as long as *lock*.

    Raises StorageError; NotFoundError for an archive that is not stored, whose index is left as it
    is.
    """
    archive_last(backend, key, lambda each: backend.extend_lock(each, lock))


def archive_last(backend: LockingStorage, key: str, change: Callable[[str], None]) -> None:
    """Call *change* with the key of the index of the archive *key*, if it has one, then with *key*.

    In this order, since a machine that knows only the storage takes the lock of the archive for
    that of both, also where this was stopped in between. The archive is worth more, so it is
    changed also where that is refused for its index; then the error of the index is raised.

    Raises StorageError; NotFoundError for an archive that is not stored, and changes nothing.
    """
    backend.lock_of(key)
    refusal: StorageError | None = None
    try:
        change(index_key(key))
    except NotFoundError:
        log.debug("%s has no index", printable(key))
    except StorageError as exc:
        if exc.may_pass:
            raise
        refusal = exc
    change(key)
    if refusal is not None:
        raise refusal


def locks_of(backend: LockingStorage, key: str) -> list[Lock]:
    """Return the lock of the archive *key*, and that of its index if it has one.

    Raises StorageError; NotFoundError for an archive that is not stored.
    """
    found = [backend.lock_of(key)]
    try:
        found.append(backend.lock_of(index_key(key)))
    except NotFoundError:
        log.debug("%s has no index", printable(key))
    return found


def _record(backups: Sequence[models.Backups], lock: Lock) -> None:
    for each in backups:
        known = known_lock(each)
        until = max(lock.until or 0, known.until or 0)
        mode = COMPLIANCE if COMPLIANCE in (lock.mode, known.mode) else lock.mode
        models.add_metadata(each, as_metadata(Lock(until, mode)))
