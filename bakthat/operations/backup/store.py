"""Store a new backup under the first free name, and record it in the catalog."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bakthat import models, reservations
from bakthat.archive.create.content import BackupContent, SegmentReceiver
from bakthat.archive.create.walk import Scan
from bakthat.archive.report import ArchiveReport
from bakthat.backends.base import VERIFIED_BY, Backend, StoredObject, Upload
from bakthat.backends.lock import Lock
from bakthat.backends.protection import LockingStorage
from bakthat.crypto import age
from bakthat.database.address import Location
from bakthat.errors import (
    CatalogError,
    KeyExistsError,
    NotFoundError,
    StorageError,
    UnreachableError,
)
from bakthat.format import names
from bakthat.operations.backup.facts import BackupFacts
from bakthat.operations.backup.progress import UploadProgress, renewing
from bakthat.operations.sources.base import ContentCheck, Source
from bakthat.passwords import EncryptionKeys
from bakthat.pipeline.write import object_stages, shared_header
from bakthat.session.container import make_container, recognize_moved, remember
from bakthat.session.indexes.upload import NewIndex
from bakthat.session.session import Session, result_log
from bakthat.session.sets import id_of_source
from bakthat.session.stat import stat_or_listed
from bakthat.system import text
from bakthat.system.signals import held_back
from bakthat.system.streams import Buffer, ByteCounter, Progress, Sink
from bakthat.system.text import printable

if TYPE_CHECKING:
    # A backup without increments does not load it.
    from bakthat.operations.backup.parent import Parent

log = logging.getLogger("bakthat")

MAX_COLLISIONS = 100
"""How many taken names in a row are tried. More must have another cause."""


@dataclass(slots=True)
class Writing:
    """A backup that is being written. All of its content goes to :attr:`sink`."""

    sink: Sink
    report: ArchiveReport
    """Takes the counts and the warnings."""
    on_bytes: ByteCounter
    """To be called with the number of bytes that were read from the source."""
    on_segment: SegmentReceiver
    """To be called with each segment of the index."""
    size: int = 0
    """How many bytes were written; set it at the end."""
    entry: models.Backups | None = None
    """The entry in the catalog, once the backup is stored."""


@dataclass(frozen=True, slots=True)
class NewBackup:
    """A backup to store. Everything but its name is decided."""

    session: Session
    backend: Backend
    source: Source
    keys: EncryptionKeys
    tags: str
    progress: Progress | None
    create: bool
    """Whether a missing container is made anew though the catalog lists backups in it."""
    check: ContentCheck
    on_recorded: Callable[[models.Backups], object]
    """Called with the entry as soon as it is in the catalog."""
    parent: Parent | None = None
    """What an increment is made from; None for a full."""
    started: float | None = None
    """When the tree began to be compared, by :func:`time.monotonic`; None if it was not."""

    @property
    def _facts(self) -> BackupFacts:
        session = self.session
        return BackupFacts(
            session.host, self.source, self.keys, self.tags, self.parent, session.loaded.job
        )

    def store(
        self,
        first: BackupContent,
        counted: Scan | None = None,
        *,
        open_again: Callable[[], AbstractContextManager[BackupContent]],
    ) -> models.Backups:
        """Write the object under the first free name, record it, and return the entry.

        *first* is the content, which the caller opened and closes too; *counted* is what it
        counted, if it did. When the storage already has the name, the content is opened again and
        stored under the next name. Raises SourceError, StorageError, CatalogError; of an increment
        NeededGoneError, NewerContentError and ChangedTargetError.
        """
        for attempt, (key, date) in enumerate(self._reserved_names()):
            try:
                # Recording the backup ends the reservation.
                if not attempt:
                    return self._store_as(key, date, first, counted)
                with open_again() as again:
                    counted = again.count() if self.parent is not None else None
                    return self._store_as(key, date, again, counted)
            except KeyExistsError:
                log.info("%s is taken on the storage, trying the next second", printable(key))
                first.close()
                _release(self.session.catalog, key)
            except BaseException:
                _release(self.session.catalog, key)
                raise
        raise self._names_taken_error()

    @contextlib.contextmanager
    def writing(self, *, size_hint: int | None, expected_bytes: int) -> Iterator[Writing]:
        """Yield what takes content that can be read only once; store it when the block ends.

        When the block raises, nothing is stored. *size_hint* is the size of the object, and
        *expected_bytes* that of the content, as far as they are known. Raises SourceError,
        StorageError, CatalogError.
        """
        make_container(self.session, self.backend, create=self.create)
        key, date = self._free_name()
        process = os.getpid()
        try:
            counted = Scan(files=1, bytes=expected_bytes)
            with self._writing(key, date, counted, time.time_ns(), size_hint=size_hint) as writing:
                yield writing
        except KeyExistsError as exc:
            _release(self.session.catalog, key)
            raise StorageError(
                f"another writer has stored {printable(key)} meanwhile, so this backup is not",
                hint="run it again: the content can be read only once",
            ) from exc
        except BaseException:
            if os.getpid() == process:
                _release(self.session.catalog, key)
            raise

    def _free_name(self) -> tuple[str, int]:
        """Reserve the first name that the storage does not have, and return it with its date."""
        for key, date in self._reserved_names():
            try:
                stat_or_listed(self.backend, key)
            except NotFoundError:
                return key, date
            except BaseException:
                _release(self.session.catalog, key)
                raise
            log.info("%s is taken on the storage, trying the next second", printable(key))
            _release(self.session.catalog, key)
        raise self._names_taken_error()

    def _reserved_names(self) -> Iterator[tuple[str, int]]:
        """Yield names of the next seconds with their dates; each is reserved."""
        if self.backend.name == "local":
            recognize_moved(self.session)
        date = int(time.time())
        if self.parent is not None:
            date = max(date, self.parent.earliest_date)
        without = self._dates_of_increments()
        for _ in range(MAX_COLLISIONS):
            with models.catalog(self.session.catalog, write=True):
                names_from_now = self._names_from(date, without)
                key, date = reservations.reserve(names_from_now, self._needed_names)
            yield key, date
            date += 1

    def _names_taken_error(self) -> StorageError:
        return StorageError(
            f"{MAX_COLLISIONS} names in a row are taken in {self.backend.container}",
            hint="check that what answers is the storage, and the clock of this machine",
        )

    def _names_from(self, date: int, without: set[int]) -> Iterator[tuple[str, int]]:
        candidates = names.stored_names(
            self.source.stem,
            date,
            self.source.extension,
            encrypted=bool(self.keys),
            increment=self.parent is not None,
        )
        return (
            (self.session.prefix + name, when) for name, when in candidates if when not in without
        )

    def _dates_of_increments(self) -> set[int]:
        """Return the dates that a full must not have, since they say what an increment needs."""
        if self.parent is not None:
            return set()
        containers = self.session.containers(self.backend.name)
        with models.catalog(self.session.catalog):
            rows = models.Backups.increments(containers, self.source.set_name)
        return {each.date for each in rows}

    @property
    def _needed_names(self) -> list[str]:
        return [each.key for each in self.parent.needs] if self.parent is not None else []

    def _store_as(
        self, key: str, date: int, content: BackupContent, counted: Scan | None
    ) -> models.Backups:
        # A worker process works while this one connects.
        content.begin(
            self._facts.identity(date),
            increment=self.parent is not None,
            is_followed=self.progress is not None,
        )
        make_container(self.session, self.backend, create=self.create)
        if self.keys:
            age.load()  # while a worker process still counts
        if counted is None:
            counted = content.count()
        if self.parent is not None and content.totals is not None:
            totals = content.totals
            counted = Scan(totals.stored, totals.stored_directories, totals.stored_bytes)
        hint = _size_hint(counted)
        with self._writing(
            key, date, counted, content.begun_ns, content, size_hint=hint
        ) as writing:
            writing.size = content.write(
                writing.sink,
                report=writing.report,
                on_bytes=writing.on_bytes,
                on_segment=writing.on_segment,
            )
        assert writing.entry is not None
        return writing.entry

    @contextlib.contextmanager
    def _writing(
        self,
        key: str,
        date: int,
        counted: Scan,
        begun_ns: int,
        content: BackupContent | None = None,
        *,
        size_hint: int | None,
    ) -> Iterator[Writing]:
        """Yield what takes the content of *key*; then store its index and itself, and record it.

        What was sent is removed on a failure, but not by a child that was forked in the block: its
        parent goes on. *content* is the tree or file, None for a stream.
        """
        if self.source.level:
            log.info("Compressing...")
        if self.keys:
            log.info("Encrypting...")
        log.info("Uploading...")
        status = content.status if content is not None else None
        totals = content.totals if content is not None else None
        started = time.monotonic() if self.started is None else self.started
        report = ArchiveReport()
        shared = shared_header(self.keys)
        archive_id = secrets.token_hex(8)
        process = os.getpid()
        description = self._facts.describe(date, counted, status, archive_id)
        row = self._row(key, date)
        lock = self._lock(date)
        with contextlib.closing(NewIndex(self.session, self.backend, key)) as index:
            upload = self.backend.upload(key, metadata=description, size_hint=size_hint, lock=lock)
            # An interrupt must not leave it stored but not recorded.
            last_step = held_back(
                f"finishing the upload of {printable(key)}",
                mend="if it was stored, bakthat sync lists it; bakthat cleanup removes other "
                "remains",
            )
            try:
                sink = _CountedSink(upload)
                progress = UploadProgress(counted.bytes, self.progress, report, lambda: sink.size)
                with object_stages(
                    sink,
                    level=self.source.level,
                    keys=self.keys,
                    shared=shared,
                    spool=index.spool,
                ) as top:
                    writing = Writing(
                        top,
                        report,
                        on_bytes=renewing(self.session.catalog, key, progress.add),
                        on_segment=index.spool.add_segment,
                    )
                    yield writing
                tar_bytes = writing.size
                facts = self.check(report, totals)
                report.seconds = time.monotonic() - started
                index.send(  # while the last parts of the archive are under way
                    self._facts.describe_index(date, report, sink.size, archive_id, facts),
                    self._facts.index_header(key, date, begun_ns, archive_id),
                    tar_bytes=tar_bytes,
                    keys=self.keys,
                    shared=shared,
                    lock=lock,
                )
                upload.flush()
                with last_step:
                    stored = self._commit(upload, index)
                    row["size"] = stored.size
                    _log_unverified(stored)
                    report.seconds = time.monotonic() - started
                    if lock is not None or stored.lock is not None:
                        facts = {**facts, **_locked(lock, stored, index.lock, report)}
                    result = self._facts.result(report, index.size, totals)
                    row["metadata"] = description | result | {"tar_bytes": tar_bytes, **facts}
                    entry = self._record(row)
                    entry.container = self.backend.container
                    self.on_recorded(entry)
                    progress.finish()
                    size = text.human_size(entry.size)
                    result_log.info("Stored as %s (%s) on %s", printable(key), size, entry.where)
            finally:
                if not last_step.is_stopped and os.getpid() == process:
                    with held_back(
                        f"removing what was sent of {printable(key)}",
                        mend="bakthat cleanup removes what is left",
                    ):
                        upload.abort()
                        index.abort()
            index.remember(entry)
        writing.entry = entry

    def _lock(self, date: int) -> Lock | None:
        """Return the lock of the new backup, and lock all that it needs for as long.

        Raises NeededGoneError when that cannot be locked: a full needs nothing.
        """
        if not self.session.profile.object_lock:
            return None
        from bakthat.session.locks.retention import extend_locks, lock_of_new  # few backups need it

        containers = self.session.containers(self.backend.name)
        with models.catalog(self.session.catalog):
            rows = models.Backups.of_set(self.source.set_name, containers, host=self.session.host)
        dates = [each.date for each in rows if id_of_source(each) == self.source.source_id]
        lock = lock_of_new(self.session, self.backend, date, dates)
        if (
            lock is not None
            and self.parent is not None
            and isinstance(self.backend, LockingStorage)
        ):
            try:
                extend_locks(self.session, self.backend, self.parent.backups, lock)
            except UnreachableError:
                raise
            except StorageError as exc:
                raise NeededGoneError(f"what it needs cannot be locked for as long: {exc}") from exc
        return lock

    def _row(self, key: str, date: int) -> dict[str, Any]:
        """Return the columns of the entry that are known before the upload."""
        return {
            "backend": self.backend.name,
            "backend_hash": models.backend_hash(self.backend.identity),
            "backup_date": date,
            "filename": self.source.set_name,
            "stored_filename": key,
            "tags": self.tags,
        }

    def _record(self, row: dict[str, Any]) -> models.Backups:
        try:
            return models.changed(self.session.catalog, lambda: self._recorded(row))
        except CatalogError as exc:
            name = printable(row["stored_filename"])
            raise CatalogError(
                f"stored as {name} on {self.backend.name}, but not recorded: {exc}",
                hint=f"it is complete: bakthat restore {name} restores it, bakthat sync lists it",
            ) from exc

    def _recorded(self, row: dict[str, Any]) -> models.Backups:
        remember(self.backend)
        return models.record(row)

    def _commit(self, upload: Upload, index: NewIndex) -> StoredObject:
        """Publish the index, then its archive; return the archive. Raises StorageError.

        In between, the archives that an increment needs are looked up again: the index is there for
        everyone who deletes them from now on.
        """
        index.commit()
        if self.parent is not None:
            problem = self.parent.problem(self.session)
            if problem:
                raise NeededGoneError(problem)
        try:
            stored = upload.commit()
        except KeyExistsError:
            index.withdraw()  # the archive that is there is another one
            raise
        index.keep()
        return stored


def _log_unverified(stored: StoredObject) -> None:
    """Say what nobody has looked at, where the access keys may not read."""
    by, name = stored.extra.get(VERIFIED_BY), printable(stored.key)
    if by == "listing":
        log.info("The access key may not read: of %s, only the size was verified", name)
    elif by:
        log.info("The access key may neither read nor list: %s was not verified", name)


class NeededGoneError(StorageError):
    """An archive that an increment needs vanished while it was made; a full must be made."""


class _CountedSink:
    """A sink that counts what it passes on."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.size = 0

    def write(self, data: Buffer, /) -> None:
        self._sink.write(data)
        self.size += len(data)


def _locked(
    lock: Lock | None, stored: StoredObject, index: Lock | None, report: ArchiveReport
) -> dict[str, Any]:
    """Return what the metadata says of the lock of a new backup, and warn when it has none.

    *lock* was requested; None if none was, and the bucket may have one of its own. *stored* is its
    archive, and *index* is the lock of its index; None when it could not be seen, or there is no
    index.
    """
    from bakthat.session.locks.retention import as_metadata

    if lock is None:
        return as_metadata(stored.lock or Lock())
    if lock.is_over_at(time.time()):
        report.warn(f"{printable(stored.key)} is stored, but its upload took longer than its lock")
        return {}
    for what, found in (("", stored.lock), ("the index of ", index)):
        if found is not None and not found.covers(lock):
            report.warn(f"{what}{printable(stored.key)} is stored, but the storage did not lock it")
            return {}
    if stored.lock is None:
        log.info("The lock was requested, and cannot be looked at with this access key")
    return as_metadata(lock)


def _release(catalog: Location, key: str) -> None:
    """Release a name under which nothing was recorded."""
    try:
        with (
            held_back(f"releasing the name {printable(key)}", mend="it expires by itself"),
            models.catalog(catalog, write=True),
        ):
            reservations.release(key)
    except CatalogError as exc:
        # This must not hide the failure of the backup; the reservation expires by itself.
        log.debug("the reservation of %s stays: %s", printable(key), exc)


def _size_hint(counted: Scan) -> int:
    """Return an upper bound of the object's size, for large headers and no compression."""
    entries = counted.files + counted.directories
    return int((counted.bytes + entries * 1536) * 1.001) + 1024 * 1024
