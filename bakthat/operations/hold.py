"""Put a backup on hold with all that it needs, and release it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bakthat import models
from bakthat.backends.protection import LockingStorage
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import CatalogError, NotFoundError, StorageError, UsageError
from bakthat.session.chains import all_needed
from bakthat.session.deletion import check_recordable
from bakthat.session.locks.holds import (
    HOLD,
    Hold,
    hold_of,
    set_hold,
    still_held,
    storage_of_holds,
)
from bakthat.session.lookup import find_backup
from bakthat.session.session import Session, operation
from bakthat.system.paths import PathLike
from bakthat.system.text import counted, enumerate_some, printable, utc_time

log = logging.getLogger("bakthat")

MAX_REASON = 1000
"""Characters."""


def hold(
    filename: str,
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    reason: str,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
    source: PathLike | None = None,
) -> models.Backups:
    """Put one backup on hold, so that nobody can delete it until it is released; return it.

    *filename*, *host* and *source* are as for :func:`bakthat.delete`. The hold is of the archive,
    its index, and all that an increment needs; it has no end, and is besides a lock that has one.
    *reason* is kept in the catalog, in the ``metadata["hold"]`` of the backup. A backup that is on
    hold already gets the new reason. Rotation keeps it.

    Only a bucket with object lock has holds. Raises UsageError for another storage and for an
    empty reason, ConfigError for a bucket without object lock, NoMatchError, AmbiguousNameError,
    CatalogError, and StorageError; one that says that the backup is on hold only in part is mended
    by a second call.
    """
    session = Session(profile, config, conf, destination)
    with operation(session, "hold") as current:
        reason = _checked(reason)
        found, backend, needed = _covered(session, filename, host, source)
        _for_each(found, [found, *needed], "on hold", lambda each: _put_on_hold(backend, each))
        before = hold_of(found)
        if before is None or before.reason != reason:
            made = Hold(reason, int(time.time()))
            _record(
                session, found, "on hold", lambda: models.add_metadata(found, made.as_metadata())
            )
            if before is not None and before.reason:
                log.info("The reason was: %s", printable(before.reason))
        found.container, found.restore_warning_count = backend.container, 0
        return current.finish(found, done=f"put {printable(found.stored_filename)} on hold")


def release(
    filename: str,
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
    source: PathLike | None = None,
) -> models.Backups:
    """Release one backup that is on hold, and return it; its lock, if it has one, stays.

    The arguments and exceptions are those of :func:`hold`. What it needs is released too, except
    what is on hold itself and what another backup on hold needs. A backup that is not on hold is no
    error.
    """
    session = Session(profile, config, conf, destination)
    with operation(session, "release") as current:
        found, backend, needed = _covered(session, filename, host, source)
        covered = [found, *reversed(needed)]
        kept = still_held(session, backend, found, covered)
        free = [each for each in covered if each.stored_filename not in kept]
        _for_each(found, free, "released", lambda each: _release(backend, each))
        for each in covered:
            if each.stored_filename in kept:
                why = kept[each.stored_filename]
                log.info("%s stays on hold: %s", printable(each.stored_filename), why)
        if hold_of(found) is not None:
            _record(session, found, "released", lambda: models.drop_metadata(found, HOLD))
        found.container, found.restore_warning_count = backend.container, 0
        return current.finish(found, done=f"released {printable(found.stored_filename)}")


def _checked(reason: str) -> str:
    reason = reason.strip()
    if not reason or len(reason) > MAX_REASON or not reason.isprintable():
        raise UsageError(
            "a hold needs a reason: one line of text, of "
            f"{counted(MAX_REASON, 'character')} at most",
            hint="say who may release it, and when: --reason 'audit 2026, ask Jane Doe'",
        )
    return reason


def _covered(
    session: Session, filename: str, host: str | None, source: PathLike | None
) -> tuple[models.Backups, LockingStorage, list[models.Backups]]:
    """Return the backup, its storage, and what it needs, the oldest first."""
    found = find_backup(session, filename, host=host, source=source, to_delete=True)
    name = printable(found.stored_filename)
    if found.is_key_value:
        raise UsageError(
            f"{name} is a value of KeyValue, which is replaced: it has no hold",
            hint="put a backup on hold",
        )
    backend = storage_of_holds(session, found)
    check_recordable(session, backend, found)
    needed, missing = all_needed(session, found)
    if missing:
        log.warning(
            "%s needs backups that are not stored any more, those of %s (UTC): bakthat check shows "
            "what can be restored",
            name,
            enumerate_some([utc_time(date) for date in missing]),
        )
    return found, backend, needed


def _put_on_hold(backend: LockingStorage, backup: models.Backups) -> None:
    log.info("Putting %s on hold", printable(backup.stored_filename))
    set_hold(backend, backup, is_held=True)


def _release(backend: LockingStorage, backup: models.Backups) -> None:
    log.info("Releasing %s", printable(backup.stored_filename))
    set_hold(backend, backup, is_held=False)


def _for_each(
    found: models.Backups,
    backups: Sequence[models.Backups],
    done: str,
    change: Callable[[models.Backups], None],
) -> None:
    """Call *change* with each of *backups*; say how far that went when it fails."""
    for number, each in enumerate(backups):
        try:
            change(each)
        except NotFoundError as exc:
            if not number:
                hint = "bakthat sync brings the catalog up to date"
                raise NotFoundError(str(exc), hint=hint) from exc
            log.warning("%s is not %s: %s", printable(each.stored_filename), done, exc)
        except StorageError as exc:
            if not number:
                raise
            name = printable(found.stored_filename)
            raise StorageError(
                f"{name} is {done} only in part, with {number} of {len(backups)} archives: {exc}",
                hint="run it again for the rest",
            ) from exc


def _record(session: Session, found: models.Backups, done: str, change: Callable[[], None]) -> None:
    try:
        models.changed(session.catalog, change)
    except CatalogError as exc:
        raise CatalogError(
            f"{printable(found.stored_filename)} is {done}, but that is not recorded: {exc}",
            hint=f"{exc.hint}; then run it again",
        ) from exc
    if not found.metadata:
        log.warning(
            "the entry of %s in the catalog is damaged, so the reason is not kept: run bakthat "
            "sync, then this again",
            printable(found.stored_filename),
        )
