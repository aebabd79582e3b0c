"""Restore a backup that is one object: all of it, or by its index the parts that are wanted."""

from __future__ import annotations

import logging
import os
import time
from contextlib import AbstractContextManager, suppress

from bakthat import models
from bakthat.archive.extract.selection import OneFile, Selection
from bakthat.archive.index.reader import IndexReader
from bakthat.archive.report import ArchiveReport
from bakthat.backends.base import StoredObject
from bakthat.backends.ranges import ObjectRanges
from bakthat.errors import (
    AgeFormatError,
    CorruptArchiveError,
    CorruptIndexError,
    DecryptionError,
    UsageError,
)
from bakthat.operations.restore.options import RestoreOptions
from bakthat.passwords import DecryptionKeys
from bakthat.pipeline import read
from bakthat.pipeline.parts import Spans, find_parts, read_parts
from bakthat.policy.storage_classes import storage_class
from bakthat.session import cold
from bakthat.session.indexes.opening import open_index
from bakthat.session.reading import KeyFinder, byte_counter, with_size
from bakthat.session.session import Session
from bakthat.system.text import human_size, printable

log = logging.getLogger("bakthat")


class ArchiveRestore:
    """The restore of a backup that is one object, by its index where it has one."""

    def __init__(
        self,
        session: Session,
        backup: models.Backups,
        expected: read.Expected,
        keys: KeyFinder,
        options: RestoreOptions,
    ) -> None:
        self._session = session
        self._backup = backup
        self._expected = expected
        self._keys = keys
        self._options = options
        self._key = backup.stored_filename
        self._backend = session.backend(backup.backend)
        # Without any hint of an index, one is looked for only where it saves a lot.
        is_known = not {"index", "index_size"}.isdisjoint(backup.metadata)
        self._has_index = (
            options.use_index and not expected.is_value and (is_known or bool(options.only))
        )

    def prepare(self, stored: StoredObject) -> bool:
        """Return whether the object, which is *stored*, can be read; request its thaw if need be.

        Raises NoMatchError and UsageError before a thaw, which costs money.
        """
        if not storage_class(stored.storage_class).is_cold:
            return True
        self._check_selection()
        return cold.make_readable(self._session, [self._backup], self._options.thaw)

    def _check_selection(self) -> None:
        """Raise NoMatchError or UsageError where the index says that a wanted member is missing."""
        selection = self._selection()
        if selection is None:
            return
        if not self._expected.is_archive:
            self._check_name(selection)
        elif self._has_index:
            # What is wrong with the index is said after the thaw.
            with suppress(CorruptIndexError), self._open_index(selection) as index:
                if index is not None:
                    self._find_parts(index, selection)

    def run(self, report: ArchiveReport) -> None:
        """Restore all that is wanted into a directory; when anything fails, nothing appears there.

        *report* takes the counts and warnings, and the duration.
        """
        # Of a file that is stored as it is, no part can be restored alone.
        hint = read.DAMAGE_HINT if self._expected.is_archive else read.CHECK_HINT
        with read.naming(self._key, damage_hint=hint):
            self._run(report)

    def _run(self, report: ArchiveReport) -> None:
        self._backup.container = self._backend.container
        log.info("Downloading...")
        keys = self._keys.of(self._backend, self._backup, self._expected)
        self._log_stages()
        started = time.monotonic()
        selection = self._selection()
        if selection is not None and not self._expected.is_archive:
            self._check_name(selection)
        if not (self._has_index and self._run_by_index(keys, report)):
            self._read_whole(keys, report, self._selection(), None)
        report.seconds = time.monotonic() - started

    def _run_by_index(self, keys: DecryptionKeys, report: ArchiveReport) -> bool:
        """Restore by the index; return False, with nothing done, where none can be read."""
        before = report.copy()
        selection = self._selection() if self._expected.is_archive else None
        try:
            with self._open_index(selection) as index:
                if index is None:
                    return False
                spans = self._find_parts(index, selection) if selection is not None else None
                if spans is not None and selection is not None:
                    self._read_parts(keys, report, selection, index, spans)
                    return True
                try:
                    self._read_whole(keys, report, selection, index)
                except (CorruptArchiveError, AgeFormatError, DecryptionError) as exc:
                    if selection is None or isinstance(exc, CorruptIndexError):
                        raise
                    report.go_back_to(before)
                    if not self._read_around(exc, keys, report, index):
                        raise
        except CorruptIndexError as exc:
            what = "" if exc.is_named else f"the index of {printable(self._key)} is damaged: "
            log.warning("%s%s, so it is not used; %s", what, exc, exc.hint)
            report.go_back_to(before)
            return False
        return True

    def _read_around(
        self,
        damage: Exception,
        keys: DecryptionKeys,
        report: ArchiveReport,
        index: IndexReader,
    ) -> bool:
        """Restore what is wanted of a damaged archive, without the rest of it.

        Return False, with nothing done, where no part of it can be read alone.
        """
        selection = Selection(self._options.only)
        spans = self._find_parts(index, selection, even_if_most=True)
        if spans is None:
            return False
        log.warning(
            "%s is damaged: %s; only the parts that hold what is wanted are read",
            printable(self._key),
            damage,
        )
        self._read_parts(keys, report, selection, index, spans)
        return True

    def _find_parts(
        self, index: IndexReader, selection: Selection, *, even_if_most: bool = False
    ) -> Spans | None:
        """Find the parts to read, None for all. Raises CorruptIndexError, and NoMatchError."""
        try:
            return find_parts(index, selection, self._expected, even_if_most=even_if_most)
        except (DecryptionError, AgeFormatError) as exc:  # nothing but the index was read
            raise CorruptIndexError(str(exc)) from exc

    def _read_parts(
        self,
        keys: DecryptionKeys,
        report: ArchiveReport,
        selection: Selection,
        index: IndexReader,
        spans: Spans,
    ) -> None:
        wanted, total = human_size(spans.bytes), human_size(index.footer.tar_bytes)
        log.info("Reading %s of %s", wanted, total)
        stored = ObjectRanges(self._backend, self._key, self._backup.size)
        read_parts(
            stored,
            self._expected,
            self._options.target,
            index=index,
            selection=selection,
            spans=spans,
            keys=keys,
            file_keys=self._keys.file_keys,
            report=report,
            on_bytes=byte_counter(self._options.progress, spans.bytes, report),
            keep_going=self._options.keep_going,
            cancel=stored.cancel,
        )

    def _read_whole(
        self,
        keys: DecryptionKeys,
        report: ArchiveReport,
        selection: Selection | None,
        index: IndexReader | None,
    ) -> None:
        read.read_object(
            self._backend.download(self._key),
            self._expected_by(index),
            self._options.target,
            keys=keys,
            report=report,
            on_bytes=byte_counter(self._options.progress, self._backup.size, report),
            selection=selection,
            keep_going=self._options.keep_going,
            reopen=lambda: self._backend.download(self._key),
            index=index,
            file_keys=self._keys.file_keys,
        )

    def _expected_by(self, index: IndexReader | None) -> read.Expected:
        """Return how to read the object, which is as large as *index* says."""
        if index is None or self._expected.is_archive:
            return self._expected
        return with_size(self._expected, index.footer.content_bytes)

    def _open_index(
        self, selection: Selection | None
    ) -> AbstractContextManager[IndexReader | None]:
        """Open the index: for patterns, and for the whole archive, all of it is needed."""
        return open_index(
            self._session,
            self._backup,
            self._keys,
            whole=selection is None or not selection.looks_like_paths,
            may_read_archive=False,
            is_quiet=selection is None,
        )

    def _selection(self) -> Selection | None:
        return Selection(self._options.only) if self._options.only else None

    def _check_name(self, selection: Selection) -> None:
        """Raise unless *selection* has the one file of the backup."""
        if self._expected.is_value:
            raise UsageError(
                f"{printable(self._key)} is a value, which cannot be restored in part",
                hint="leave --only out (only= in Python)",
            )
        name = os.fsencode(self._expected.name).decode("utf-8", "surrogateescape")
        list(selection.entries(OneFile(name)))
        selection.check()

    def _log_stages(self) -> None:
        expected = self._expected
        if expected.encrypted:
            log.info("Decrypting...")
            if expected.is_legacy and not (expected.compressed or expected.is_value):
                log.warning(
                    "%s was stored uncompressed by bakthat 0.6.0, so a wrong password cannot be "
                    "detected: check the restored file",
                    printable(self._key),
                )
        if expected.compressed:
            log.info("Uncompressing...")
