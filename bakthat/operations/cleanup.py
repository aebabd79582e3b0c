"""Remove what killed processes left behind, and expired records of the catalog.

Leftovers are the parts of unfinished uploads, which cost money; temporary files and claims of the
local destination; indexes whose archive is not stored; probes of doctor; and in the catalog expired
thaws, expired retrievals and reservations of names. A backup is never removed. Neither is an object
without a name of bakthat's, nor a leftover younger than a limit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bakthat import models, reservations
from bakthat.backends.base import (
    UNKNOWN_PROGRESS,
    Backend,
    ColdStorage,
    Leftover,
    StoredObject,
)
from bakthat.backends.protection import LockingStorage
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import (
    BakthatError,
    ContainerNotFoundError,
    LockedObjectError,
    NotFoundError,
    StorageError,
    UsageError,
)
from bakthat.format import names
from bakthat.policy.defaults import DEFAULT_LEFTOVER_AGE, DESTINATIONS
from bakthat.policy.intervals import parse_interval
from bakthat.session import cold
from bakthat.session.chains import NeededKeys
from bakthat.session.indexes.cache import forget_index
from bakthat.session.indexes.home import archive_key, home_of_indexes
from bakthat.session.records import CatalogMapping
from bakthat.session.session import Session, operation, result_log
from bakthat.system.paths import PathLike
from bakthat.system.text import printable

log = logging.getLogger("bakthat")

CATALOG = "catalog"


@dataclass(frozen=True, slots=True)
class CleanupItem:
    """A leftover that was removed or, in a dry run, would be removed."""

    where: str
    """"s3", "glacier", "local" or "catalog"."""
    container: str
    kind: str
    """"upload", "temporary file", "claim", "index", "probe", "expired retrieval", "expired thaw" or
    "reservation"."""
    name: str
    begun_at: float | None = None
    """Epoch seconds, UTC; None when it is not known."""
    size: int = -1
    """Bytes; -1 when it is not known."""

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
    older_than: str = DEFAULT_LEFTOVER_AGE,
    dry_run: bool = False,
) -> list[CleanupItem]:
    """Remove what killed processes left in the profile's containers and the catalog; return it.

    It removes unfinished uploads to S3 and to the vault whose keys are this profile's, temporary
    files and claims of the local directory, indexes whose archive is not stored, the probes of this
    host, and the catalog's expired retrievals, thaws and reservations.
    A vault does not say when a part was written: an upload to it is removed by the second cleanup
    that finds it with the same number of parts, the interval *older_than* after the first.
    With *destination*, it cleans up that container only, and no reservations. It touches nothing
    younger than the interval *older_than*, nor what is locked. With *dry_run*, it removes nothing.

    Raises UsageError and, after everything else is done, StorageError when something could not be
    read or removed.
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
        # The command line has a summary of its own, but not when an exception ends the command.
        results = log if cleaner.failures else result_log
        results.info("%s %d leftovers older than %s", doing, len(cleaner.found), older_than)
        for other in cleaner.failures[1:]:
            log.warning("another leftover could not be removed: %s", other)
        if cleaner.failures:
            raise cleaner.failures[0]
        return cleaner.found


class _WatchedUploads:
    """The unfinished uploads of one container whose progress the catalog records.

    A vault does not say when a part was written, so two cleanups compare the number of parts.
    """

    def __init__(self, session: Session, destination: str, dry_run: bool) -> None:
        container = "".join(digest[:16] for _, digest in session.containers(destination)[:1])
        self._seen: CatalogMapping[Mapping[str, Any]] = CatalogMapping(
            session.catalog, "Config", "key", "value", prefix=f"upload {container} "
        )
        self._dry_run = dry_run
        self._listed: set[str] = set()

    def idle_seconds(self, leftover: Leftover) -> float:
        """Return for how long *leftover* is known not to have grown."""
        if not leftover.progress:
            return leftover.age
        if leftover.progress == UNKNOWN_PROGRESS:
            return leftover.age if leftover.age >= reservations.RESERVATION_SECONDS else 0.0
        self._listed.add(leftover.handle)
        now = leftover.begun_at + leftover.age
        seen = self._seen.get(leftover.handle, {})
        if seen.get("progress") == leftover.progress:
            return now - float(seen["since"])
        if not self._dry_run:
            self._seen[leftover.handle] = {"progress": leftover.progress, "since": now}
        return 0.0

    def forget_others(self) -> None:
        """Forget the uploads that are not listed any more."""
        if not self._dry_run:
            for handle in set(self._seen) - self._listed:
                self._seen.pop(handle, None)


class _Cleaner:
    """Cleans up containers one by one; collects the removed leftovers and the failures."""

    def __init__(self, session: Session, seconds: int, dry_run: bool) -> None:
        self.session = session
        self.seconds = seconds
        self.dry_run = dry_run
        self.found: list[CleanupItem] = []
        self.failures: list[BakthatError] = []

    def clean(self, destination: str) -> None:
        """Clean up one container and the catalog's records of it."""
        backend = self.session.backend(destination)
        try:
            for leftover in list(self._old_leftovers(backend)):
                self._remove(backend, leftover)
            home, indexes = self._old_indexes(backend)
            self._remove_objects(home, indexes, "index")
            self._remove_objects(backend, self._old_probes(backend), "probe")
            self._forget_cached(backend)
            for kind, keys in self._expired(backend):
                for key in keys:
                    self._add(CleanupItem(CATALOG, backend.container, kind, key))
        except ContainerNotFoundError as exc:
            if self.session.destination == destination:
                self.failures.append(exc)
            else:
                log.debug("%s does not exist yet", printable(backend.container))
        except StorageError as exc:
            self.failures.append(exc)

    def clean_reservations(self) -> None:
        """Remove the reservations of killed backups."""
        with models.catalog(self.session.catalog, write=not self.dry_run):
            old = reservations.reserved_long_ago(int(time.time()), self.seconds)
            columns = models.Reservations.stored_filename, models.Reservations.reserved_at
            rows = list(models.Reservations.select(*columns).where(old))
            if not self.dry_run:
                models.Reservations.delete().where(old).execute()
        for row in rows:
            path = str(self.session.catalog)
            self._add(
                CleanupItem(CATALOG, path, "reservation", row.stored_filename, row.reserved_at)
            )

    def _old_leftovers(self, backend: Backend) -> Iterator[Leftover]:
        watched = _WatchedUploads(self.session, backend.name, self.dry_run)
        for leftover in backend.leftovers(self.session.shared_prefix):
            name = printable(leftover.key)
            if leftover.kind != "temporary file" and not self._is_ours(leftover.key):
                log.debug("%s is not bakthat's: left alone", name)
            elif leftover.age < self.seconds:
                log.debug("%s is too young: left alone", name)
            elif leftover.kind == "upload" and self._is_reserved(leftover.key):
                log.debug("%s is being written by a backup with this catalog: left alone", name)
            elif watched.idle_seconds(leftover) < self.seconds:
                log.info(
                    "%s may still be written: a later cleanup removes it if it does not grow", name
                )
            else:
                yield leftover
        watched.forget_others()

    def _is_reserved(self, key: str) -> bool:
        """Return whether a backup with this catalog has renewed the reservation of *key*.

        *key* may be that of its index.
        """
        if names.is_index_key(key):
            key = key.removesuffix(names.INDEX_EXTENSION)
        with models.catalog(self.session.catalog):
            old = reservations.reserved_long_ago(int(time.time()), self.seconds)
            reserved = models.Reservations.select().where(
                models.Reservations.stored_filename == key, ~old
            )
            return bool(reserved.exists())

    def _is_ours(self, key: str) -> bool:
        rest = names.without_prefix(key, self.session.profile.prefix)
        if rest is None or "/" in rest:
            return False
        is_value = rest.endswith(names.KEY_VALUE_EXTENSION)
        is_other = names.is_index_key(rest) or names.is_probe_name(rest)
        return is_value or is_other or names.parse_stored_name(rest) is not None

    def _remove(self, backend: Backend, leftover: Leftover) -> None:
        try:
            if not self.dry_run and not backend.remove_leftover(leftover):
                log.debug("%s is gone or in use", printable(leftover.key))
                return
        except (StorageError, UsageError) as exc:
            self.failures.append(exc)
            return
        self._add(
            CleanupItem(
                backend.name,
                backend.container,
                leftover.kind,
                leftover.key,
                leftover.begun_at,
                leftover.size,
            )
        )

    def _old_indexes(self, backend: Backend) -> tuple[Backend, list[StoredObject]]:
        """Return the backend that stores the indexes, and those whose archive is not stored."""
        home, within = home_of_indexes(self.session, backend)
        prefix = within + self.session.shared_prefix
        try:
            indexes = {
                archive: each
                for each in home.ls(prefix, indexes=True)
                if (archive := archive_key(each.key, within)) is not None
                and self._is_ours(archive)
                and time.time() - (each.last_modified or 0) >= self.seconds
            }
        except ContainerNotFoundError:
            if home is backend:
                raise
            return home, []
        if indexes and backend.name != "glacier":
            for stored in backend.ls(self.session.shared_prefix):
                indexes.pop(stored.key, None)
        with models.catalog(self.session.catalog):
            # What the others hold can only be restored with the index of an archive that is gone.
            containers = self.session.containers(backend.name)
            needed = NeededKeys(models.Backups.increments(containers))
        return home, [
            each
            for key, each in indexes.items()
            if key not in needed and self._is_gone(backend, key)
        ]

    def _is_gone(self, backend: Backend, key: str) -> bool:
        """Return whether the archive *key* is certainly not stored, and nobody is writing it."""
        if backend.name == "glacier":
            # The vault may hold archives that only another machine knows.
            containers = self.session.containers(backend.name)
            with models.catalog(self.session.catalog):
                rows = models.Backups.within(containers).where(
                    models.Backups.stored_filename == key, models.Backups.is_deleted
                )
                return bool(rows.exists())
        if self._is_reserved(key):
            return False
        try:
            backend.stat(key)
        except NotFoundError:
            return True
        return False

    def _old_probes(self, backend: Backend) -> list[StoredObject]:
        """Return what a doctor of this host that was killed has left; a vault has none."""
        if backend.name == "glacier":
            return []
        prefix = self.session.prefix
        return [
            each
            for each in backend.ls(prefix + names.PROBE_PREFIX)
            if names.is_probe_name(each.key.removeprefix(prefix))
            and time.time() - (each.last_modified or 0) >= self.seconds
        ]

    def _remove_objects(self, backend: Backend, stored: list[StoredObject], kind: str) -> None:
        """Remove objects, those excepted that are locked: a later cleanup removes these."""
        locked: Mapping[str, LockedObjectError] = {}
        if stored and isinstance(backend, LockingStorage):
            locked = backend.locked([each.key for each in stored])
        for each in stored:
            if each.key in locked:
                self._keep(kind, each, locked[each.key])
            else:
                self._remove_object(backend, each, kind)

    def _keep(self, kind: str, stored: StoredObject, error: LockedObjectError) -> None:
        log.info("Keeping the %s %s: it is %s", kind, printable(stored.key), error.why)

    def _remove_object(self, backend: Backend, stored: StoredObject, kind: str) -> None:
        try:
            if not self.dry_run:
                backend.delete(stored.key)
        except LockedObjectError as exc:
            self._keep(kind, stored, exc)
            return
        except (StorageError, UsageError) as exc:
            self.failures.append(exc)
            return
        name, container = backend.name, backend.container
        self._add(CleanupItem(name, container, kind, stored.key, stored.last_modified, stored.size))

    def _forget_cached(self, backend: Backend) -> None:
        """Remove the indexes of backups that are gone from the cache of this machine."""
        if self.dry_run:
            return
        containers = self.session.containers(backend.name)
        with models.catalog(self.session.catalog):
            needed = NeededKeys(models.Backups.increments(containers))
            rows = models.Backups.within(containers).where(models.Backups.is_deleted)
            forget_index(each for each in rows.iterator() if each.stored_filename not in needed)

    def _expired(self, backend: Backend) -> Iterator[tuple[str, list[str]]]:
        if not isinstance(backend, ColdStorage):
            return
        containers = self.session.containers(backend.name)
        with models.catalog(self.session.catalog):
            rows = models.Backups.within(containers).select(models.Backups.stored_filename)
            keys = {key for (key,) in rows.tuples()}
        yield "expired retrieval", backend.forget_expired_jobs(keys, dry_run=self.dry_run)
        thaws = cold.forget_expired(self.session, backend.name, dry_run=self.dry_run)
        yield "expired thaw", thaws

    def _add(self, item: CleanupItem) -> None:
        self.found.append(item)
        if not self.dry_run:
            log.info("Removed the %s %s", item.kind, printable(item.name))
