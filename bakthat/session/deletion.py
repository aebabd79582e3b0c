"""What surrounds the deletion of backups: its checks, and its record in the catalog.

Checked are locks, unknown archives, the charge for minimum days, and whether the catalog can be
written.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bakthat import models
from bakthat.backends.base import Backend, ColdStorage, StoredObject
from bakthat.backends.lock import Lock, held_error, locked_error
from bakthat.backends.protection import LockingStorage
from bakthat.database.address import Location
from bakthat.errors import (
    BakthatError,
    CatalogError,
    ContainerNotFoundError,
    LockedObjectError,
    NotFoundError,
    StorageError,
    UsageError,
)
from bakthat.format.names import index_key
from bakthat.policy.object_lock.rule import COMPLIANCE
from bakthat.policy.storage_classes import LONGEST_MINIMUM_DAYS, VAULT, days_left, storage_class
from bakthat.session.container import check_mounted
from bakthat.session.indexes.cache import forget_index
from bakthat.session.indexes.home import home_of_indexes
from bakthat.session.locks.holds import hold_of
from bakthat.session.locks.retention import known_lock
from bakthat.session.session import Session
from bakthat.session.stat import stat_by_listing
from bakthat.system.text import printable

log = logging.getLogger("bakthat")

UNMARKED = "bakthat sync then brings the catalog up to date, bakthat cleanup removes indexes"
"""What mends a deletion that was stopped before it was recorded."""


def check_before_deleting(
    backend: Backend, backups: Sequence[models.Backups], *, trusts_catalog: bool = False
) -> dict[str, StorageError]:
    """Return an error, by stored filename, for each backup that cannot be deleted now.

    That is one whose archive id in the vault is not known here, for which the caller must not mark
    it as deleted: the archive would stay, and cost money. And one that is locked or on hold, it or
    its index: LockedObjectError. With *trusts_catalog*, the storage is not asked for locks that
    the catalog knows to hold, and that nobody can shorten.

    Warns about each of the others whose class is charged for more days than it has been stored.
    A storage class that cannot be looked up does not prevent the deletion. Raises StorageError when
    the locks cannot be looked up.
    """
    errors: dict[str, StorageError] = {**_unknown_archives(backend, backups)}
    known = [each for each in backups if each.stored_filename not in errors]
    errors |= _locked(backend, known, trusts_catalog=trusts_catalog)
    _warn_of_minimum(backend, [each for each in known if each.stored_filename not in errors])
    return errors


def _locked(
    backend: Backend, backups: Sequence[models.Backups], *, trusts_catalog: bool
) -> dict[str, LockedObjectError]:
    """Return an error for each backup that is locked or on hold, it or its index."""
    if not isinstance(backend, LockingStorage):
        return {}
    errors: dict[str, LockedObjectError] = {}
    unsure: dict[str, list[str]] = {}
    now = time.time()
    for each in backups:
        lock = known_lock(each)
        if trusts_catalog and lock.mode == COMPLIANCE and lock.holds_at(now):
            errors[each.stored_filename] = _locked_error(each, lock)
        else:
            archive = each.stored_filename
            unsure[archive] = [archive] if each.is_key_value else [archive, index_key(archive)]
    locked = backend.locked([key for keys in unsure.values() for key in keys])
    for each in backups if locked else ():
        found = [locked[key] for key in unsure.get(each.stored_filename, ()) if key in locked]
        if found:
            until = max((one.until for one in found if one.until is not None), default=None)
            lock = Lock(until, "", any(one.is_held for one in found))
            errors[each.stored_filename] = _locked_error(each, lock)
    return errors


def _locked_error(backup: models.Backups, lock: Lock) -> LockedObjectError:
    name, hold = printable(backup.stored_filename), hold_of(backup)
    if lock.is_held and hold is not None and hold.reason:
        return held_error(name, lock, printable(hold.reason))
    return locked_error(name, lock)


def check_recordable(session: Session, backend: Backend, backup: models.Backups) -> None:
    """Raise CatalogError when the deletion of *backup* could not be recorded.

    A deletion from a local store makes room for its record where both are on one full disk, so it
    is let through. Raises ContainerNotFoundError for a local store whose disk is not mounted.
    """
    check_mounted(session, backend, 1)
    try:
        with models.catalog(session.catalog, write=True):
            models.check_writable(backup)
    except CatalogError as exc:
        if not (models.is_full(exc) and _makes_room(backend, session.catalog)):
            raise
        log.warning("%s; the deletion makes room there", exc)


def record_deletion(session: Session, backups: Sequence[models.Backups], why: str) -> None:
    """Mark backups that were just deleted from the storage, and keep *why*. Raises CatalogError."""
    if not backups:
        return
    try:
        models.changed(session.catalog, lambda: _mark_deleted(backups, why))
    except CatalogError as exc:
        others = f" and {len(backups) - 1} more" if len(backups) > 1 else ""
        raise CatalogError(
            f"deleted {printable(backups[0].stored_filename)}{others} from {backups[0].backend}, "
            f"but not from the catalog: {exc}",
            hint=f"{exc.hint}; then bakthat sync removes the entries",
        ) from exc


def _mark_deleted(backups: Sequence[models.Backups], why: str) -> None:
    for each in backups:
        models.mark_deleted(each, why)


def delete_indexes(session: Session, backend: Backend, backups: Sequence[models.Backups]) -> None:
    """Remove the indexes of backups whose deletion is recorded, also from this machine's cache.

    An index that cannot be removed is harmless without its archive, so that is only a warning.
    """
    archives = [each.stored_filename for each in backups if not each.is_key_value]
    for key, error in _delete_indexes(session, backend, archives).items():
        log.warning(
            "the index of %s was not deleted: %s; bakthat cleanup removes it later",
            printable(key),
            error,
        )
    forget_index(backups)


def _delete_indexes(
    session: Session, backend: Backend, archives: Sequence[str]
) -> dict[str, BakthatError]:
    """Remove the indexes of *archives*; return an error for each that may still be stored."""
    if not archives:
        return {}
    try:
        home, within = home_of_indexes(session, backend)
        failed = home.delete_many([within + index_key(each) for each in archives])
    except ContainerNotFoundError as exc:
        log.debug("there are no indexes: %s", exc)
        return {}
    except BakthatError as exc:
        return dict.fromkeys(archives, exc)
    return {
        each: failed[within + index_key(each)]
        for each in archives
        if within + index_key(each) in failed
        # No object has a key that is not valid.
        and not isinstance(failed[within + index_key(each)], UsageError)
    }


def _makes_room(backend: Backend, catalog: Location) -> bool:
    """Return whether the backend's files are on the disk of the catalog."""
    if backend.name != "local" or not isinstance(catalog, Path):
        return False
    try:
        return os.stat(backend.container).st_dev == os.stat(catalog.parent).st_dev
    except OSError:
        return False


def _warn_of_minimum(backend: Backend, backups: Sequence[models.Backups]) -> None:
    if not isinstance(backend, ColdStorage):
        return
    now = time.time()
    young = [each for each in backups if now - each.backup_date < LONGEST_MINIMUM_DAYS * 86400]
    if not young:
        return
    try:
        stored = _stat_all(backend, [each.stored_filename for each in young])
    except StorageError as exc:
        log.debug("the storage classes are not known: %s", exc)
        return
    for each in young:
        found = stored.get(each.stored_filename)
        if found is None:
            continue
        since = found.last_modified if found.last_modified is not None else each.backup_date
        left = days_left(found.storage_class, since, now)
        if left:
            shown = "a vault" if found.storage_class == VAULT else found.storage_class
            log.warning(
                "%s is in %s, which is charged for at least %d days: deleting it now saves "
                "nothing for %d days",
                printable(each.stored_filename),
                shown,
                storage_class(found.storage_class).minimum_days,
                left,
            )


def _stat_all(backend: Backend, keys: Sequence[str]) -> Mapping[str, StoredObject]:
    if len(keys) == 1:
        return {keys[0]: backend.stat(keys[0])}
    return stat_by_listing(backend, keys)


def _unknown_archives(
    backend: Backend, backups: Sequence[models.Backups]
) -> dict[str, NotFoundError]:
    return {
        each.stored_filename: NotFoundError(
            f"the archive of {printable(each.stored_filename)} in vault {backend.container!r} "
            "is not known here, so it cannot be deleted",
            hint="bakthat restore_glacier_inventory brings the inventory back from the "
            "bucket, bakthat show_glacier_inventory asks the vault for its own",
        )
        for each in backups
        if backend.is_unknown(each.stored_filename)
    }
