"""Store a new backup under the first free name, and record it in the catalog."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from bakthat import models
from bakthat.archive.create.content import BackupContent, owner_names
from bakthat.archive.create.increment.rule import ChangeRule, racy_seconds
from bakthat.archive.create.walk import Scan, WalkOptions
from bakthat.archive.create.worker import open_content
from bakthat.archive.gzip.members import MEMBER_BYTES
from bakthat.archive.report import ArchiveReport, PlanTotals
from bakthat.backends.base import Backend, StoredObject, Upload
from bakthat.crypto import age
from bakthat.errors import CatalogError, KeyExistsError, StorageError
from bakthat.format import names
from bakthat.format.description import (
    ARCHIVE,
    FILE,
    INCREMENT_FORMAT,
    INDEX,
    INDEX_FORMAT,
    archive_identity,
    describe,
)
from bakthat.format.index.layout import IndexHeader
from bakthat.operations.backup.progress import UploadProgress, renewing
from bakthat.operations.sources.files import BackupSource
from bakthat.passwords import EncryptionKeys
from bakthat.pipeline.write import shared_header, write_object
from bakthat.session.container import make_container, recognize_moved, remember
from bakthat.session.indexes.upload import NewIndex
from bakthat.session.session import Session, result_log
from bakthat.system import text
from bakthat.system.signals import held_back
from bakthat.system.streams import Buffer, Progress, Sink
from bakthat.system.text import printable

if TYPE_CHECKING:
    # A backup without increments does not load it.
    from bakthat.operations.backup.parent import Parent

log = logging.getLogger("bakthat")

MAX_COLLISIONS = 100
"""How many taken names in a row are tried. More must have another cause."""


@dataclass(frozen=True, slots=True)
class NewBackup:
    """A backup to store. Everything but its name is decided."""

    session: Session
    backend: Backend
    source: BackupSource
    options: WalkOptions
    keys: EncryptionKeys
    tags: str
    progress: Progress | None
    create: bool
    """Whether a missing container is made anew though the catalog lists backups in it."""
    allow_empty: bool
    """Whether a backup without any content is no warning."""
    on_recorded: Callable[[models.Backups], object]
    """Called with the entry as soon as it is in the catalog."""
    parent: Parent | None = None
    """What an increment is made from; None for a full."""
    started: float | None = None
    """When the tree began to be compared, by :func:`time.monotonic`; None if it was not."""

    def store(self, first: BackupContent, counted: Scan | None = None) -> models.Backups:
        """Write the object under the first free name, record it, and return the entry.

        *first* is the content, which the caller opened and closes too; *counted* is what it
        counted, if it did. When the storage already has the name, the source is opened again and
        stored under the next name. Raises SourceError, StorageError, CatalogError; of an increment
        NeededGoneError, NewerContentError and ChangedTargetError.
        """
        catalog_path = self.session.catalog_path
        if self.backend.name == "local":
            recognize_moved(self.session)
        date = int(time.time())
        if self.parent is not None:
            date = max(date, self.parent.earliest_date)
        without = self._dates_of_increments()
        for attempt in range(MAX_COLLISIONS):
            with models.catalog(catalog_path, write=True):
                key, date = models.reserve(self._names_from(date, without), self._needed_names)
            try:
                # Recording the backup ends the reservation.
                if not attempt:
                    return self._store_as(key, date, first, counted)
                with open_content(
                    self.source.path,
                    self.options,
                    arcname=self.source.arcname,
                    unchanged=not self.source.is_archive,
                    basis=self.parent.basis if self.parent is not None else None,
                ) as again:
                    counted = again.count() if self.parent is not None else None
                    return self._store_as(key, date, again, counted)
            except KeyExistsError:
                log.info("%s is taken on the storage, trying the next second", printable(key))
                first.close()
                date += 1
                _release(catalog_path, key)
            except BaseException:
                _release(catalog_path, key)
                raise
        raise StorageError(
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
        with models.catalog(self.session.catalog_path):
            rows = models.Backups.increments(containers, self.source.set_name)
        return {each.date for each in rows}

    @property
    def _needed_names(self) -> list[str]:
        return [each.key for each in self.parent.needs] if self.parent is not None else []

    def _store_as(
        self, key: str, date: int, content: BackupContent, counted: Scan | None
    ) -> models.Backups:
        source = self.source
        # A worker process works while this one connects.
        content.begin(
            self._identity(date),
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
        if source.level:
            log.info("Compressing...")
        if self.keys:
            log.info("Encrypting...")
        log.info("Uploading...")
        index = NewIndex(self.session, self.backend, key)
        with contextlib.closing(index):
            entry = self._upload(key, date, content, counted, index)
            index.remember(entry)
        return entry

    def _upload(
        self, key: str, date: int, content: BackupContent, counted: Scan, index: NewIndex
    ) -> models.Backups:
        """Store *content*, after its index, and record it. What is left is removed on a failure."""
        started = time.monotonic() if self.started is None else self.started
        report = ArchiveReport()
        shared = shared_header(self.keys)
        archive_id = secrets.token_hex(8)
        description = self._describe(date, counted, content.status, archive_id)
        row = self._row(key, date)
        upload = self.backend.upload(key, metadata=description, size_hint=_size_hint(counted))
        # An interrupt must not leave it stored but not recorded.
        last_step = held_back(
            f"finishing the upload of {printable(key)}",
            mend="if it was stored, bakthat sync lists it; bakthat cleanup removes other remains",
        )
        try:
            sink = _CountedSink(upload)
            progress = UploadProgress(counted.bytes, self.progress, report, lambda: sink.size)
            tar_bytes = write_object(
                sink,
                content,
                level=self.source.level,
                keys=self.keys,
                shared=shared,
                report=report,
                on_bytes=renewing(self.session.catalog_path, key, progress.add),
                spool=index.spool,
            )
            self._check_content(report, content.totals)
            report.seconds = time.monotonic() - started
            index.send(  # while the last parts of the archive are under way
                self._describe_index(date, report, sink.size, archive_id),
                self._index_header(key, date, content.begun_ns, archive_id),
                tar_bytes=tar_bytes,
                keys=self.keys,
                shared=shared,
            )
            upload.flush()
            with last_step:
                row["size"] = self._commit(upload, index).size
                report.seconds = time.monotonic() - started
                result = self._result(report, index.size, content.totals)
                row["metadata"] = description | result | {"tar_bytes": tar_bytes}
                entry = self._record(row)
                entry.container = self.backend.container
                self.on_recorded(entry)
                progress.finish()
                size = text.human_size(entry.size)
                result_log.info("Stored as %s (%s) on %s", printable(key), size, entry.where)
        finally:
            if not last_step.is_stopped:
                with held_back(
                    f"removing what was sent of {printable(key)}",
                    mend="bakthat cleanup removes what is left",
                ):
                    upload.abort()
                    index.abort()
        return entry

    def _identity(self, date: int) -> str:
        source = self.source
        return archive_identity(source.set_name, date, self.session.host, source.source_id)

    def _check_content(self, report: ArchiveReport, totals: PlanTotals | None) -> None:
        """Warn when nothing was stored, and log what was left out."""
        counts = report
        if self.parent is not None and totals is not None:
            counts = ArchiveReport(totals.full_files, totals.full_directories)
        why = "" if self.allow_empty else self.source.why_empty(counts, self.options)
        if why:
            report.warn(
                f"{printable(self.source.path)}: nothing in it is stored: {why}; "
                "--allow-empty says that this is meant"
            )
        self._log_excluded(report)

    def _log_excluded(self, report: ArchiveReport) -> None:
        if self.options.rules is not None:
            log.info(
                "Left out %s and %s by %s",
                text.counted(report.excluded_files, "file"),
                f"{report.excluded_directories} directories"
                if report.excluded_directories != 1
                else "1 directory",
                printable(str(self.options.rules.path)),
            )

    def _result(
        self, report: ArchiveReport, index_size: int | None, totals: PlanTotals | None
    ) -> dict[str, Any]:
        """Return the metadata that is known only after the backup was written."""
        result = {
            "is_enc": bool(self.keys),
            "client": self.session.host,
            "source": text.from_native(str(self.source.path)),
            "files": report.files,
            "directories": report.directories,
            "bytes": report.bytes,
            "excluded_files": report.excluded_files,
            "excluded_directories": report.excluded_directories,
            "warning_count": report.warning_count,
            "warnings": report.warnings,
            "seconds": round(report.seconds, 3),
        }
        if self.parent is not None and totals is not None:
            result["unchanged"], result["removed"] = totals.unchanged, totals.removed
        if report.sha256:
            result["sha256"] = report.sha256
        if index_size is not None:
            result["index_size"] = index_size
        return result

    def _row(self, key: str, date: int) -> dict[str, Any]:
        """Return the columns of the entry that are known before the upload."""
        return {
            "backend": self.backend.name,
            "backend_hash": models.backend_hash(self.backend.container),
            "backup_date": date,
            "filename": self.source.set_name,
            "stored_filename": key,
            "tags": self.tags,
        }

    def _record(self, row: dict[str, Any]) -> models.Backups:
        try:
            with models.catalog(
                self.session.catalog_path, write=True, patience=models.RECORD_PATIENCE
            ):
                remember(self.backend)
                return models.record(row)
        except CatalogError as exc:
            name = printable(row["stored_filename"])
            raise CatalogError(
                f"stored as {name} on {self.backend.name}, but not recorded: {exc}",
                hint=f"it is complete: bakthat restore {name} restores it, bakthat sync lists it",
            ) from exc

    def _describe(
        self, date: int, counted: Scan, status: os.stat_result | None, archive_id: str
    ) -> dict[str, Any]:
        """Return the self-description, from which ``sync`` rebuilds the catalog.

        *status* is that of a file that is stored as it is.
        """
        source = self.source
        description = describe(
            ARCHIVE if source.is_archive else FILE,
            source.set_name,
            date,
            self.session.host,
            encryption=self.keys.kind,
            compressed=bool(source.level),
            source_id=source.source_id,
            archive_id=archive_id,
            **self._chain(),
        )
        description["index"] = INDEX_FORMAT if self.parent is None else INCREMENT_FORMAT
        if self.tags:
            description["tags"] = self.tags
        if status is None:
            # Estimates: the tree may change before it is read. The catalog gets the exact counts.
            description["bytes"] = counted.bytes
            description["files"] = counted.files
            description["directories"] = counted.directories
        else:
            description["mode"] = status.st_mode & 0o7777
            description["mtime_ns"] = status.st_mtime_ns
            description["uid"], description["gid"] = status.st_uid, status.st_gid
            owner, group = owner_names(status)
            description |= {"owner": owner} if owner else {}
            description |= {"group": group} if group else {}
            if source.arcname != source.set_name:
                description["name"] = source.arcname
        return description

    def _chain(self) -> _Chain:
        """Return what both self-descriptions say of the archives that an increment needs."""
        if self.parent is None:
            return {}
        return {"needs": [each.date for each in self.parent.needs], "level": self.parent.level}

    def _describe_index(
        self, date: int, report: ArchiveReport, stored: int, archive_id: str
    ) -> dict[str, Any]:
        """Return the self-description of the index.

        It has what is known only at the end of a backup, when that of the archive is sent already.
        *stored* is the size of the archive on the storage.
        """
        description = describe(
            INDEX,
            self.source.set_name,
            date,
            self.session.host,
            encryption=self.keys.kind,
            compressed=True,
            source_id=self.source.source_id,
            archive_id=archive_id,
            **self._chain(),
        )
        description |= {
            "files": report.files,
            "directories": report.directories,
            "bytes": report.bytes,
            "warning_count": report.warning_count,
            "seconds": round(report.seconds, 3),
            "stored": stored,
        }
        if report.sha256:
            description["sha256"] = report.sha256
        return description

    def _index_header(self, key: str, date: int, begun_ns: int, archive_id: str) -> IndexHeader:
        source, parent = self.source, self.parent
        rule = parent.basis.rule if parent is not None else ChangeRule(racy_seconds=racy_seconds())
        return IndexHeader(
            key=key,
            set_name=source.set_name,
            host=self.session.host,
            source=text.from_native(str(source.path)),
            source_id=source.source_id,
            date=date,
            kind=ARCHIVE if source.is_archive else FILE,
            begun_ns=begun_ns,
            member_bytes=MEMBER_BYTES if source.level else 0,
            is_sorted=True,
            archive_id=archive_id,
            needs=parent.needs if parent is not None else (),
            level=parent.level if parent is not None else 0,
            racy_seconds=rule.racy_seconds,
            recipients=self.keys.recipients_id,
            rule={"detect": rule.detect, "ignore_inode": rule.ignore_inode} if parent else {},
        )

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


class NeededGoneError(StorageError):
    """An archive that an increment needs vanished while it was made; a full must be made."""


class _Chain(TypedDict, total=False):
    needs: Sequence[int]
    level: int


class _CountedSink:
    """A sink that counts what it passes on."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.size = 0

    def write(self, data: Buffer, /) -> None:
        self._sink.write(data)
        self.size += len(data)


def _release(catalog_path: Path, key: str) -> None:
    """Release a name under which nothing was recorded."""
    try:
        with (
            held_back(f"releasing the name {printable(key)}", mend="it expires by itself"),
            models.catalog(catalog_path, write=True),
        ):
            models.release(key)
    except CatalogError as exc:
        # This must not hide the failure of the backup; the reservation expires by itself.
        log.debug("the reservation of %s stays: %s", printable(key), exc)


def _size_hint(counted: Scan) -> int:
    """Return an upper bound of the object's size, for large headers and no compression."""
    entries = counted.files + counted.directories
    return int((counted.bytes + entries * 1536) * 1.001) + 1024 * 1024
