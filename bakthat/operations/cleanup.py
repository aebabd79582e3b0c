"""Remove what killed processes left behind, and expired records of the catalog.

These are the parts of unfinished uploads, which cost money; temporary files and claims of the local
destination; and in the catalog expired thaws and jobs, and reservations of names. A backup is never
removed, nor what has no name of bakthat's, nor what is younger than a limit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bakthat import models
from bakthat.backends.base import Backend, Leftover
from bakthat.backends.glacier.backend import GlacierBackend
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import BakthatError, ContainerNotFoundError, StorageError, UsageError
from bakthat.format import names as naming
from bakthat.policy.defaults import DESTINATIONS
from bakthat.policy.intervals import parse_interval
from bakthat.session import cold
from bakthat.session.session import Session, operation
from bakthat.system.paths import PathLike
from bakthat.system.text import printable

log = logging.getLogger("bakthat")

DEFAULT_AGE = "1D"
"""An interval. No upload takes so long for a part, and most uploads end within hours."""

CATALOG = "catalog"


@dataclass(frozen=True, slots=True)
class CleanedUp:
    """One thing that was removed or, in a dry run, would be."""

    where: str
    """"s3", "glacier", "local" or "catalog"."""
    container: str
    kind: str
    """"upload", "temporary file", "claim", "expired job", "expired thaw" or "reservation"."""
    name: str
    begun_at: float | None = None
    """Epoch seconds UTC; None where it is not known."""
    size: int = -1
    """In bytes; -1 where it is not known."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {
            "where": self.where,
            "container": self.container,
            "kind": self.kind,
            "name": self.name,
            "begun_at": self.begun_at,
            "size": self.size,
        }


def cleanup(
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    older_than: str = DEFAULT_AGE,
    dry_run: bool = False,
) -> list[CleanedUp]:
    """Remove what killed processes left in the profile's containers and the catalog; return it.

    Removed are unfinished uploads to S3 and to the vault, if their keys are this profile's;
    temporary files and claims of the local directory; expired jobs, thaws and reservations of the
    catalog. With *destination*, only that container is cleaned up, and no reservation. Nothing
    younger than the interval *older_than* is touched. With *dry_run*, nothing is removed. Raises
    UsageError; StorageError, after all else is done, when something could not be read or removed.
    """
    seconds = parse_interval(older_than)
    session = Session(profile, config, conf, destination)
    with operation(session, "cleanup", deferred=True):
        cleaner = _Cleaner(session, seconds, dry_run)
        named = session.named_destination
        for each in (named,) if named else DESTINATIONS:
            if named or session.containers(each):
                cleaner.clean(each)
        if not named:
            cleaner.clean_reservations()
        doing = "Would remove" if dry_run else "Removed"
        log.info("%s %d leftovers older than %s", doing, len(cleaner.found), older_than)
        for other in cleaner.failures[1:]:
            log.warning("this could not be cleaned up either: %s", other)
        if cleaner.failures:
            raise cleaner.failures[0]
        return cleaner.found


class _Cleaner:
    """Cleans up one container after the other; collects what it removed and what failed."""

    def __init__(self, session: Session, seconds: int, dry_run: bool) -> None:
        self.session = session
        self.seconds = seconds
        self.dry_run = dry_run
        self.found: list[CleanedUp] = []
        self.failures: list[BakthatError] = []

    def clean(self, destination: str) -> None:
        """Clean up one container, and the catalog's records of it."""
        backend = self.session.backend(destination)
        try:
            for leftover in list(self._old_leftovers(backend)):
                self._remove(backend, leftover)
            for kind, names in self._expired(backend):
                for name in names:
                    self._add(CleanedUp(CATALOG, backend.container, kind, name))
        except ContainerNotFoundError as exc:
            if self.session.destination == destination:
                self.failures.append(exc)
            else:
                log.debug("%s does not exist yet", printable(backend.container))
        except StorageError as exc:
            self.failures.append(exc)

    def clean_reservations(self) -> None:
        """Free the names that killed backups had reserved."""
        with models.catalog(self.session.catalog_path, write=not self.dry_run):
            old = models.reserved_long_ago(int(time.time()), self.seconds)
            rows = list(models.Reservations.select().where(old))
            if not self.dry_run:
                models.Reservations.delete().where(old).execute()
        for row in rows:
            path = str(self.session.catalog_path)
            self._add(CleanedUp(CATALOG, path, "reservation", row.stored_filename, row.reserved_at))

    def _old_leftovers(self, backend: Backend) -> Iterator[Leftover]:
        for leftover in backend.leftovers(self.session.shared_prefix):
            if leftover.age < self.seconds:
                log.debug("%s is too young: left alone", printable(leftover.key))
            elif leftover.kind == "temporary file" or self._is_ours(leftover.key):
                yield leftover
            else:
                log.debug("%s is not bakthat's: left alone", printable(leftover.key))

    def _is_ours(self, key: str) -> bool:
        rest = naming.without_prefix(key, self.session.profile.prefix)
        if rest is None or "/" in rest:
            return False
        is_value = rest.endswith(naming.KEY_VALUE_EXTENSION)
        return is_value or naming.parse_stored_name(rest) is not None

    def _remove(self, backend: Backend, leftover: Leftover) -> None:
        try:
            if not self.dry_run and not backend.remove_leftover(leftover):
                log.debug("%s is gone or in use", printable(leftover.key))
                return
        except (StorageError, UsageError) as exc:
            self.failures.append(exc)
            return
        self._add(
            CleanedUp(
                backend.name,
                backend.container,
                leftover.kind,
                leftover.key,
                leftover.begun_at,
                leftover.size,
            )
        )

    def _expired(self, backend: Backend) -> Iterator[tuple[str, list[str]]]:
        if isinstance(backend, GlacierBackend):
            containers = self.session.containers(backend.name)
            with models.catalog(self.session.catalog_path):
                rows = models.Backups.within(containers)
                keys = {row.stored_filename for row in rows}
            yield "expired job", backend.forget_expired_jobs(keys, dry_run=self.dry_run)
        if backend.name != "local":
            expired = cold.forget_expired(self.session, backend.name, dry_run=self.dry_run)
            yield "expired thaw", expired

    def _add(self, item: CleanedUp) -> None:
        self.found.append(item)
        if not self.dry_run:
            log.info("Removed the %s %s", item.kind, printable(item.name))
