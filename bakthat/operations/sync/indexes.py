"""Make the indexes again that are missing or damaged, by reading the backups."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from bakthat import models
from bakthat.backends.base import Backend
from bakthat.backends.lock import Lock
from bakthat.backends.protection import LockingStorage
from bakthat.crypto.age import EncryptWriter, SharedHeader
from bakthat.errors import (
    AgeFormatError,
    BakthatError,
    ContainerNotFoundError,
    CorruptIndexError,
    CredentialsError,
    DecryptionError,
    KeyExistsError,
    LockedObjectError,
    NotFoundError,
    NotReadyError,
    StorageError,
    UnreachableError,
)
from bakthat.format.description import INDEX, describe
from bakthat.operations.sync.report import IndexAction, IndexChange
from bakthat.passwords import DecryptionKeys
from bakthat.pipeline.scan import ScannedIndex
from bakthat.session.indexes.cache import remember_index
from bakthat.session.indexes.home import home_of_index
from bakthat.session.indexes.opening import check_stored_index, scanned_index
from bakthat.session.reading import KeyFinder, expected_of
from bakthat.session.session import Session
from bakthat.session.sets import newest_first
from bakthat.system.streams import Progress, Sink
from bakthat.system.text import printable

log = logging.getLogger("bakthat")


def make_indexes(
    session: Session,
    destinations: Sequence[str],
    keys: KeyFinder,
    *,
    dry_run: bool,
    progress: Progress | None,
) -> list[IndexChange]:
    """Make the index of each backup that has none, or a damaged one; return what was done.

    The indexes that are stored are read to their end. Nothing is replaced by a worse one: an index
    is stored only after all of its backup was read. A backup in cold storage is left out. With
    *dry_run*, no backup is read, and nothing is stored. *progress* is called with the number of
    backups done and their total. A failure is in the result, and does not stop the others.
    """
    with models.catalog(session.catalog):
        rows = list(models.Backups.not_deleted(session.containers(*destinations)))
    backups = newest_first(each for each in rows if not each.is_key_value)
    # That of an increment is made from those of the archives that it needs.
    increments = [each for each in reversed(backups) if each.is_increment]
    backups = [*(each for each in backups if not each.is_increment), *increments]
    changes = []
    unreachable: dict[str, BakthatError] = {}
    for number, backup in enumerate(backups, 1):
        failure = unreachable.get(backup.backend)
        try:
            if failure is not None:
                raise failure
            change = _Maker(session, backup, keys).run(dry_run=dry_run)
        except NotReadyError:
            log.info(
                "%s is in cold storage, so its index is not made", printable(backup.stored_filename)
            )
            change = IndexChange(IndexAction.COLD, backup)
        except BakthatError as exc:
            if isinstance(exc, (UnreachableError, CredentialsError, ContainerNotFoundError)):
                unreachable[backup.backend] = exc
            log.warning("the index of %s: %s", printable(backup.stored_filename), exc)
            change = IndexChange(IndexAction.FAILED, backup, str(exc))
        changes.append(change)
        if progress is not None:
            progress(number, len(backups))
    return changes


class _Maker:
    """Makes the index of one backup."""

    def __init__(self, session: Session, backup: models.Backups, keys: KeyFinder) -> None:
        self._session = session
        self._backup = backup
        self._keys = keys
        self._backend: Backend = session.backend(backup.backend)
        self._home, self._key = home_of_index(session, self._backend, backup.stored_filename)

    def run(self, *, dry_run: bool) -> IndexChange:
        """Return what was done. Raises NotReadyError for a backup in cold storage."""
        action, problem = self._look(dry_run=dry_run)
        if action is IndexAction.GOOD or dry_run:
            return IndexChange(action, self._backup, problem)
        name = printable(self._backup.stored_filename)
        if problem:
            log.warning("the index of %s is made again: %s", name, problem)
        else:
            log.info("Reading %s to make its index", name)
        with scanned_index(self._session, self._backup, self._keys) as scanned:
            is_stored = self._store(scanned, replace=action is IndexAction.REPLACED)
            if is_stored:
                remember_index(self._backup, scanned.write_to)
        return IndexChange(action, self._backup, problem)

    def _look(self, *, dry_run: bool) -> tuple[IndexAction, str]:
        """Return whether the index is good, missing or damaged, and the problem."""
        try:
            size = check_stored_index(self._session, self._backup, self._keys)
        except NotReadyError:
            return IndexAction.REPLACED, "it is in cold storage, where a rule moved it"
        except ContainerNotFoundError:
            if self._home is self._backend:
                raise
            return IndexAction.MADE, ""
        except NotFoundError:
            return IndexAction.MADE, ""
        except (CorruptIndexError, DecryptionError, AgeFormatError) as exc:
            return IndexAction.REPLACED, str(exc)
        if not dry_run and self._backup.metadata.get("index_size") != size:
            self._record(size)
        return IndexAction.GOOD, ""

    def _store(self, scanned: ScannedIndex, *, replace: bool) -> bool:
        """Store the index beside its archive; return False when another process just did."""
        keys = self._keys.of(self._backend, self._backup, expected_of(self._backup, any_size=True))
        try:
            size = self._upload(scanned, keys, replace=replace)
        except ContainerNotFoundError:
            if self._home is self._backend:
                raise
            self._home.create_container()
            size = self._upload(scanned, keys, replace=replace)
        except KeyExistsError:
            if self._is_stored():
                log.info("the index of %s is there by now", printable(self._backup.stored_filename))
                return False
            # Only its description is: in a local store that is a second file.
            size = self._upload(scanned, keys, replace=True)
        self._record(size)
        return True

    def _is_stored(self) -> bool:
        try:
            self._home.stat(self._key)
        except NotFoundError:
            return False
        return True

    def _upload(self, scanned: ScannedIndex, keys: DecryptionKeys, *, replace: bool) -> int:
        """Upload the index; return its size as stored."""
        locking, lock = self._lock()
        upload = self._home.upload(
            self._key,
            metadata=self._description(scanned, keys),
            replace=replace,
            lock=lock if lock.until is not None else None,
        )
        try:
            with ExitStack() as stages:
                sink: Sink = upload
                if self._backup.is_encrypted:
                    sink = stages.enter_context(self._encrypted(upload, keys))
                scanned.write_to(sink)
            size = upload.commit().size
        finally:
            upload.abort()
        if locking is not None and lock.is_held:
            locking.set_hold(self._key, is_held=True)
        # Whoever deletes the backup meanwhile did not see this index.
        try:
            self._backend.stat(self._backup.stored_filename)
        except NotFoundError:
            try:
                self._home.delete(self._key)
            except LockedObjectError as exc:
                log.warning(
                    "%s may remain without an archive: %s; bakthat cleanup removes it after that",
                    printable(self._key),
                    exc,
                )
            raise
        return size

    def _lock(self) -> tuple[LockingStorage | None, Lock]:
        """Return the storage that has locks, if one has, and the lock of the archive there."""
        backend = self._backend
        if self._home is not backend or not isinstance(backend, LockingStorage):
            return None, Lock()
        try:
            if not backend.has_locks():
                return None, Lock()
        except UnreachableError:
            raise
        except StorageError as exc:  # or it knows no such request
            log.debug("the locks of %s cannot be looked at: %s", printable(backend.container), exc)
            return None, Lock()
        return backend, backend.lock_of(self._backup.stored_filename)

    def _encrypted(self, sink: Sink, keys: DecryptionKeys) -> EncryptWriter:
        """Encrypt to those who can open the archive, whose public keys nobody else may know."""
        header = self._keys.file_keys.last
        if header is not None and not expected_of(self._backup, any_size=True).is_legacy:
            return EncryptWriter(sink, header=SharedHeader(*header))
        return EncryptWriter(sink, passphrase=keys.passphrase)

    def _description(self, scanned: ScannedIndex, keys: DecryptionKeys) -> dict[str, Any]:
        backup, spool = self._backup, scanned.spool
        kind = "none"
        if backup.is_encrypted:
            kind = "recipients" if keys.identities else "passphrase"
        known = {
            name: backup.metadata[name]
            for name in ("warning_count", "seconds", "sha256")
            if name in backup.metadata
        }
        return {
            **describe(
                INDEX,
                backup.filename,
                backup.date,
                backup.host,
                encryption=kind,
                compressed=True,
                source_id=backup.source_id,
                archive_id=backup.archive_id,
                needs=backup.needs,
                level=backup.level,
            ),
            "files": spool.files,
            "directories": spool.directories,
            "bytes": spool.bytes,
            "stored": backup.size,
            **known,
        }

    def _record(self, size: int) -> None:
        """Record the size of the index in the catalog."""
        with models.catalog(self._session.catalog, write=True):
            found = models.Backups.get_or_none(
                models.Backups.stored_filename == self._backup.stored_filename
            )
            if found is not None:
                found.metadata = {**found.metadata, "index_size": size}
                found.save()
