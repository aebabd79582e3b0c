"""Make the catalog agree with the storage: list stored objects, and mark missing ones.

The storage is the truth. Nothing is deleted from it, no key or password is needed, and a second
run changes nothing. An object counts as gone only when a complete listing lacks it and a request
for the object itself confirms that.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from bakthat import models
from bakthat.backends.base import Backend, StoredObject, UnreadableError, check_key
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import (
    BakthatError,
    ContainerNotFoundError,
    CredentialsError,
    NotFoundError,
    StorageError,
    UnreachableError,
    UsageError,
)
from bakthat.format import names
from bakthat.format.description import sanitized
from bakthat.operations.sync.indexes import make_indexes
from bakthat.operations.sync.known import (
    Known,
    may_have_index,
)
from bakthat.operations.sync.report import Action, Change, ContainerSync, SyncReport, warn_of
from bakthat.passwords import may_ask
from bakthat.policy.outcome import GONE, with_deletion
from bakthat.session.chains import NeededKeys
from bakthat.session.cold import Wait
from bakthat.session.container import (
    check_mounted,
    container_of,
    recognize_moved,
    remember,
)
from bakthat.session.entries import (
    UNREAD,
    add_index_facts,
    entry_of,
    is_value,
    may_be_the_same,
    update_entry,
    value_entry,
)
from bakthat.session.indexes.cache import forget_index
from bakthat.session.indexes.home import home_of_index
from bakthat.session.locks.holds import add_lock, keep_reason
from bakthat.session.reading import KeyFinder
from bakthat.session.session import Session, operation, result_log
from bakthat.session.stat import batches, workers
from bakthat.session.vault import INVENTORY_KEY, VaultInventory
from bakthat.system.paths import PathLike
from bakthat.system.streams import Progress
from bakthat.system.text import printable
from bakthat.system.threads import ThreadPool

log = logging.getLogger("bakthat")

VAULT_LAG = 3 * 24 * 3600
"""How many seconds old a vault's list may be; a vault makes it about once a day."""

_ORDER = ("s3", "local", "glacier")
"""The vault comes last, since its list may take hours."""


def sync(
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    dry_run: bool = False,
    wait: Wait = False,
    indexes: bool = False,
    password: str | None = None,
    identity_file: PathLike | None = None,
    prompt: str | bool = "yes",
    progress: Progress | None = None,
) -> SyncReport:
    """Make the catalog agree with the profile's containers, or with *destination* alone.

    Stored backups that the catalog lacks are adopted, entries without an object are marked as
    deleted, and changed entries are updated. Nothing is deleted from the storage. With *dry_run*,
    the catalog is not changed either.

    A vault takes hours to make its list. The first call requests the list, and until it is ready
    the report's ``is_pending`` is true. With *wait* True the call waits instead; a function is
    called with the seconds to wait. *progress* is called with the number of objects looked up and
    the number of objects to look up.

    With *indexes*, the index of each listed backup is read to its end then. One that is missing or
    damaged is made by reading the backup, and stored beside it; a good one is never replaced. That
    needs the keys: *password*, *identity_file* and *prompt* are as for :func:`bakthat.restore`, and
    a password is asked for once. A backup in cold storage is left out. The report says what was
    done about each.

    Raises StorageError, after all other containers are done, when one could not be read.
    """
    session = Session(profile, config, conf, destination)
    with operation(session, "sync", deferred=True):
        report = SyncReport(dry_run)
        failures: list[BakthatError] = []
        named = session.named_destination
        for each in (named,) if named else _ORDER:
            if not named and not session.containers(each):
                continue
            try:
                result = _sync_container(session, each, dry_run, wait, progress)
            except (StorageError, UsageError) as exc:
                failures.append(exc)
                continue
            if result is not None:
                report.containers.append(result)
        if indexes:
            keys = KeyFinder(session, password, identity_file, may_ask(prompt))
            done_in = [each.backend for each in report.containers]
            report.indexes = make_indexes(
                session, done_in, keys, dry_run=dry_run, progress=progress
            )
        # The command line has a summary of its own, but not when an exception ends the command.
        results = log if failures else result_log
        for done in report.containers:
            if not done.is_pending:
                results.info("%s", done.summary(dry_run=dry_run))
        for other in failures[1:]:
            log.warning("another container could not be synced: %s", other)
        if failures:
            raise failures[0]
        return report


def _sync_container(
    session: Session, destination: str, dry_run: bool, wait: Wait, progress: Progress | None
) -> ContainerSync | None:
    """Return the findings; None for a container that was never used."""
    if destination == "local":
        recognize_moved(session, dry_run=dry_run)
    comparison = _Comparison(session, destination, dry_run, progress)
    result = comparison.result
    try:
        if destination == "glacier":
            comparison.run_vault(wait)
        else:
            comparison.run()
    except ContainerNotFoundError:
        is_selected = session.destination == destination
        if is_selected or any(not each.is_deleted for each in comparison.known.values()):
            raise
        log.debug("%s does not exist yet", printable(comparison.backend.container))
        return None
    if not (result.is_pending or dry_run):
        with models.catalog(session.catalog, write=True):
            remember(comparison.backend)
    if not result.is_pending:
        warn_of(result)
    return result


class _Comparison:
    """Compares one container with its entries in the catalog."""

    def __init__(
        self, session: Session, destination: str, dry_run: bool, progress: Progress | None
    ) -> None:
        self.session = session
        self.backend: Backend = session.backend(destination)
        self.containers = session.containers(destination)
        self.dry_run = dry_run
        self.progress = progress
        self.result = ContainerSync(destination, self.backend.container)
        # Read before the storage is listed: a backup stored meanwhile must not seem to be gone.
        self.known = self._read_known()
        self.failures: dict[str, BakthatError] = {}
        self.may_read = True
        """Whether no object was found yet that the access keys may not read."""
        self.steps = self.total = 0

    def run(self) -> None:
        """Compare with the complete listing of the container below the prefix of all hosts.

        Where the access keys may not list that, with the listing below the prefix of this host.
        """
        prefix, own = self.session.shared_prefix, self.session.prefix
        try:
            candidates, seen = self._compare(self.backend.ls(prefix))
        except CredentialsError:
            if prefix == own:
                raise
            candidates, seen = self._compare(self.backend.ls(own))
            log.info("Only what is below %s is looked at: no other may be listed", printable(own))
            prefix = own
        missing = [
            key
            for key, known in self.known.items()
            if not known.is_deleted and key not in seen and key.startswith(prefix)
        ]
        self._refuse_if_empty(len(missing))
        self.total = len(candidates) + len(missing)
        with workers() as pool:
            self._adopt(pool, candidates)
            self._mark_gone(pool, missing)
        if self.failures:
            first, why = next(iter(self.failures.items()))
            raise StorageError(
                f"{len(self.failures)} objects of {self.backend.container} could not be looked "
                f"up, the first is {printable(first)}: {why}",
                hint="all others are done; run bakthat sync again",
            ) from why

    def run_vault(self, wait: Wait) -> None:
        """Compare with the vault's own list, which is hours old."""
        inventory = VaultInventory(self.session)
        try:
            listed = inventory.listing(wait=wait, request=not self.dry_run, command="sync")
        except NotFoundError as exc:
            log.info("the vault has not made its list yet: %s", exc)
            listed = None
        if listed is None:
            self.result.is_pending = True
            return
        named = inventory.add_listed(listed.archives, dry_run=self.dry_run)
        self.result.foreign += len(listed.archives) - len(named)
        candidates, seen = self._compare(each.as_object() for each in named.values())
        self.total = len(candidates)
        self._adopt(None, candidates)
        made_at = listed.made_at or 0
        with models.catalog(self.session.catalog):
            rows = list(models.Backups.not_deleted(self.containers))
        self._record_gone(
            each.stored_filename
            for each in rows
            if each.stored_filename in self.known
            and each.stored_filename not in seen
            and each.stored_filename.startswith(self.session.shared_prefix)
            and max(each.backup_date, each.last_updated) < made_at - VAULT_LAG
        )

    def _read_known(self) -> dict[str, Known]:
        with models.catalog(self.session.catalog):
            return {
                row.stored_filename: Known(
                    row.size,
                    row.is_deleted,
                    not row.metadata,
                    row.is_key_value and "format" in row.metadata,
                    UNREAD in row.metadata,
                    row.metadata.get("etag"),
                )
                for row in models.Backups.within(self.containers).iterator()
            }

    def _compare(self, listing: Iterable[StoredObject]) -> tuple[list[StoredObject], set[str]]:
        """Return the objects to look up, the oldest first, and the known keys that are stored."""
        candidates, seen = [], set()
        for stored in listing:
            known = self.known.get(stored.key)
            if known is not None:
                seen.add(stored.key)
            if known is not None and known.agrees(stored):
                self.result.unchanged += 1
            elif known is not None or self._may_be_ours(stored):
                candidates.append(stored)
            elif stored.key != INVENTORY_KEY:
                self.result.foreign += 1
        # Rotation assumes that entries were recorded in the order in which backups were made.
        candidates.sort(key=lambda stored: (stored.last_modified or 0, stored.key))
        return candidates, seen

    def _may_be_ours(self, stored: StoredObject) -> bool:
        """Return whether an object may be bakthat's, by its name."""
        base = stored.key.rpartition("/")[2]
        try:
            check_key(stored.key)
        except UsageError:
            return False  # no backend accepts such a key
        return base.endswith(names.KEY_VALUE_EXTENSION) or names.parse_any_name(base) is not None

    # Stored objects

    def _adopt(self, pool: ThreadPool | None, candidates: Sequence[StoredObject]) -> None:
        for batch in batches(candidates):
            described = (
                map(self._described, batch) if pool is None else pool.map(self._described, batch)
            )
            entries = []
            for found, index in described:
                self._step()
                if found is None:
                    continue
                entry = self._entry(found)
                if entry is None:
                    self.result.foreign += 1
                    continue
                if index is not None:
                    add_index_facts(entry, index)
                add_lock(entry, found.lock)
                entries.append(entry)
            with self._catalog():
                for entry in entries:
                    self.result.unread += UNREAD in entry.metadata
                    self._merge(entry)

    def _described(self, stored: StoredObject) -> tuple[StoredObject | None, StoredObject | None]:
        """Return *stored* with its self-description, and its index; None for what is not found."""
        found: StoredObject | None = stored
        if stored.metadata is None and self.may_read:
            found = self._stat_or_none(stored.key)
        if found is None or found.metadata is None or not may_have_index(found):
            return found, None
        home, key = home_of_index(self.session, self.backend, stored.key)
        try:
            return found, home.stat(key)
        except (StorageError, UsageError) as exc:
            log.debug("the index of %s cannot be looked up: %s", printable(stored.key), exc)
            return found, None

    def _stat_or_none(self, key: str) -> StoredObject | None:
        """Return the object *key*; None when it is missing, or when this request failed."""
        try:
            return self.backend.stat(key)
        except UnreadableError as exc:
            self.may_read = False  # so the others are not asked for
            return exc.stored
        except NotFoundError:
            return None
        except (ContainerNotFoundError, UnreachableError):
            raise
        except (StorageError, UsageError) as exc:
            self.failures[key] = exc
            return None

    def _entry(self, stored: StoredObject) -> models.Backups | None:
        """Return the entry for an object; None when the object is not bakthat's."""
        key = stored.key
        description = sanitized(stored.metadata)
        known = key in self.known
        try:
            if key.endswith(names.KEY_VALUE_EXTENSION) and is_value(stored):
                entry = value_entry(self.backend, stored)
                names.check_set_name(entry.filename)
                return entry
            parsed = names.parse_key(key, self.session.profile.prefix, description.get("set"))
            if parsed is None and known:
                # A value of 0.6.0 may have any name; its entry shows that it is one.
                parsed = names.StoredName(key, 0, "", "")
            elif parsed is not None:
                names.check_set_name(parsed.stem)
        except UsageError as exc:
            log.debug("%s cannot be a backup: %s", printable(key), exc)
            return None
        if parsed is None:
            return None
        entry = entry_of(self.backend, stored, parsed)
        if stored.metadata is None:
            entry.metadata[UNREAD] = True
        return entry

    def _merge(self, entry: models.Backups) -> None:
        """Merge one entry into the catalog; called within a transaction."""
        found = models.Backups.get_or_none(models.Backups.stored_filename == entry.stored_filename)
        if found is None:
            entry.metadata["adopted"] = int(time.time())
            self._change(Action.ADOPTED, entry)
            return
        is_here = (found.backend, found.backend_hash) in self.containers
        if not (is_here or found.is_deleted or may_be_the_same(found, entry)):
            self.result.changes.append(Change(Action.NAME_TAKEN, entry))
            self.result.elsewhere.add(container_of(found))
            return
        if not is_here:
            action = Action.ADOPTED
        else:
            action = Action.REVIVED if found.is_deleted else Action.UPDATED
        before = found.as_dict()
        keep_reason(found, entry)
        update_entry(found, entry, is_here=is_here)
        if found.as_dict() == before:
            self.result.unchanged += 1
            return
        was_replaced = found.size != before["size"] >= 0 and not found.is_key_value
        if action is Action.UPDATED and was_replaced:
            log.warning(
                "%s has %d bytes now, but had %d: it was replaced or truncated after it was stored",
                printable(found.stored_filename),
                found.size,
                before["size"],
            )
        self._change(action, found)

    # Missing objects

    def _mark_gone(self, pool: ThreadPool, missing: Sequence[str]) -> None:
        for batch in batches(missing):
            gone = []
            for key, found in zip(batch, pool.map(self._stat_or_none, batch), strict=True):
                self._step()
                if found is None and key not in self.failures:
                    gone.append(key)
            self._record_gone(gone)

    def _record_gone(self, keys: Iterable[str]) -> None:
        gone = []
        with self._catalog():
            for key in keys:
                found = models.Backups.get_or_none(models.Backups.stored_filename == key)
                # Another process may have deleted it, or stored it anew, meanwhile.
                if (
                    found is None
                    or found.is_deleted
                    or (found.backend, found.backend_hash) not in self.containers
                    or found.size != self.known[key].size
                ):
                    continue
                found.is_deleted = True
                found.metadata = with_deletion(found.metadata, int(time.time()), GONE)
                self._change(Action.GONE, found)
                gone.append(found)
            needed = NeededKeys(models.Backups.increments(self.containers))
        if not self.dry_run:
            # What the others hold can only be restored with the index of one that is gone.
            forget_index(each for each in gone if each.stored_filename not in needed)

    def _change(self, action: Action, backup: models.Backups) -> None:
        backup.last_updated = int(time.time())
        if not self.dry_run:
            backup.save()
        self.result.changes.append(Change(action, backup))

    @contextmanager
    def _catalog(self) -> Iterator[None]:
        with models.catalog(self.session.catalog, write=not self.dry_run):
            yield

    def _step(self) -> None:
        self.steps += 1
        if self.progress is not None:
            self.progress(self.steps, self.total)

    def _refuse_if_empty(self, missing: int) -> None:
        listed = sum(not each.is_deleted for each in self.known.values())
        check_mounted(self.session, self.backend, missing)
        if listed and missing == listed:
            log.warning(
                "none of the %d backups in the catalog is in %s: if this is the wrong container or "
                "its disk is not mounted, correct that and run sync again",
                listed,
                printable(self.backend.container),
            )
