"""The reservations of names by running backups, and the backups that these need meanwhile.

Call these functions within ``catalog()``, and those that change something within
``catalog(..., write=True)``, which one process at a time is in, whatever its host.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from typing import Any

from bakthat import models
from bakthat.errors import CatalogError

RESERVATION_SECONDS = 7 * 24 * 3600
"""The age at which a reservation is removed, since its process must have died."""


class NeededDeletedError(CatalogError):
    """A backup that an increment needs was deleted before the increment could pin it."""


def reserve(names: Iterable[tuple[str, int]], needs: Collection[str] = ()) -> tuple[str, int]:
    """Reserve the first of *names* that no backup has or has reserved, and return it.

    *names* are pairs of stored name and date (epoch seconds, UTC). *needs* are the stored filenames
    of the backups that the new one needs: while the name is reserved, nobody with this catalog
    deletes them. :func:`bakthat.models.record` or :func:`release` ends the reservation. Raises
    NeededDeletedError when one of *needs* was deleted before that.
    """
    now = int(time.time())
    backups, reserved = models.Backups, models.Reservations
    reserved.delete().where(reserved_long_ago(now, RESERVATION_SECONDS)).execute()
    gone = backups.select().where(backups.stored_filename.in_(list(needs)), backups.is_deleted)
    for each in gone if needs else ():
        raise NeededDeletedError(
            f"{each.stored_filename}, which the backup would need, was deleted meanwhile",
            hint="run it again",
        )
    for name, date in names:
        exists = backups.select().where(backups.stored_filename == name).exists()
        if not exists and not reserved.select().where(reserved.stored_filename == name):
            reserved.create(stored_filename=name, reserved_at=now, needs=needs)
            return name, date
    raise AssertionError("the names of a backup never end")


def pinned() -> set[str]:
    """Return the stored filenames that running backups need, which must not be deleted.

    They are those of the reservations that have not expired.
    """
    if models.schema_version() < models.SCHEMA_VERSION:  # it can only be read
        return set()
    old = reserved_long_ago(int(time.time()), RESERVATION_SECONDS)
    rows = models.Reservations.select(models.Reservations.needs).where(~old)
    return {name for row in rows for name in row.needs}


def keep_reserved(name: str) -> None:
    """Renew the reservation of a name, whose backup is still running."""
    models.Reservations.update(reserved_at=int(time.time())).where(
        models.Reservations.stored_filename == name
    ).execute()


def reserved_long_ago(now: int, seconds: int) -> Any:
    """Return the condition that selects reservations older than *seconds* at *now*.

    It also selects reservations that are as far in the future, since a clock was wrong.
    """
    reserved_at = models.Reservations.reserved_at
    return (reserved_at < now - seconds) | (reserved_at > now + seconds)


def release(name: str) -> None:
    """End the reservation of a name."""
    models.Reservations.delete().where(models.Reservations.stored_filename == name).execute()
