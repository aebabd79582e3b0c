"""What is said of a backup: in the descriptions on the storage, in its index, in the catalog."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from bakthat.archive.create.increment.rule import ChangeRule, racy_seconds
from bakthat.archive.create.walk import Scan
from bakthat.archive.gzip.members import MEMBER_BYTES
from bakthat.archive.report import ArchiveReport, PlanTotals
from bakthat.format.description import (
    INCREMENT_FORMAT,
    INDEX,
    INDEX_FORMAT,
    archive_identity,
    describe,
)
from bakthat.format.index.layout import IndexHeader
from bakthat.operations.sources.base import Source
from bakthat.passwords import EncryptionKeys
from bakthat.policy.outcome import SUSPICIOUS

if TYPE_CHECKING:
    # A backup without increments does not load it.
    from bakthat.operations.backup.parent import Parent


@dataclass(frozen=True, slots=True)
class BackupFacts:
    """What is known of a backup before it has a name."""

    host: str
    source: Source
    keys: EncryptionKeys
    tags: str
    parent: Parent | None
    """What an increment is made from; None for a full."""
    job: str = ""
    """The job that makes it; "" for none."""

    def identity(self, date: int) -> str:
        """Return what an archive says of itself (see :func:`archive_identity`)."""
        source = self.source
        return archive_identity(source.set_name, date, self.host, source.source_id)

    def describe(
        self, date: int, counted: Scan, status: os.stat_result | None, archive_id: str
    ) -> dict[str, Any]:
        """Return the self-description, from which ``sync`` rebuilds the catalog.

        *status* is that of a file that is stored as it is.
        """
        source = self.source
        description = describe(
            source.kind,
            source.set_name,
            date,
            self.host,
            encryption=self.keys.kind,
            compressed=bool(source.level),
            source_id=source.source_id,
            archive_id=archive_id,
            **self._chain(),
        )
        description["index"] = INDEX_FORMAT if self.parent is None else INCREMENT_FORMAT
        if self.tags:
            description["tags"] = self.tags
        return description | dict(source.describe(counted, status))

    def describe_index(
        self,
        date: int,
        report: ArchiveReport,
        stored: int,
        archive_id: str,
        facts: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Return the self-description of the index.

        It has what is known only at the end of a backup, when that of the archive is sent already.
        *stored* is the size of the archive on the storage.
        """
        description = describe(
            INDEX,
            self.source.set_name,
            date,
            self.host,
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
        if facts.get(SUSPICIOUS):
            description[SUSPICIOUS] = True
        return description

    def index_header(self, key: str, date: int, begun_ns: int, archive_id: str) -> IndexHeader:
        """Return the header of the index of *key*, which began to be made at *begun_ns*."""
        source, parent = self.source, self.parent
        rule = parent.basis.rule if parent is not None else ChangeRule(racy_seconds=racy_seconds())
        return IndexHeader(
            key=key,
            set_name=source.set_name,
            host=self.host,
            source=source.origin,
            source_id=source.source_id,
            date=date,
            kind=source.kind,
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

    def result(
        self, report: ArchiveReport, index_size: int | None, totals: PlanTotals | None
    ) -> dict[str, Any]:
        """Return the metadata that is known only after the backup was written."""
        result = {
            "is_enc": bool(self.keys),
            "client": self.host,
            "source": self.source.origin,
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
        if self.job:
            result["job"] = self.job
        if report.sha256:
            result["sha256"] = report.sha256
        if index_size is not None:
            result["index_size"] = index_size
        return result

    def _chain(self) -> _Chain:
        """Return what both self-descriptions say of the archives that an increment needs."""
        if self.parent is None:
            return {}
        return {"needs": [each.date for each in self.parent.needs], "level": self.parent.level}


class _Chain(TypedDict, total=False):
    needs: Sequence[int]
    level: int
