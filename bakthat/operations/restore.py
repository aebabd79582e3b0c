"""Restore a backup into a directory."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bakthat import models
from bakthat.archive.extract.selection import OneFile, Selection
from bakthat.archive.index.reader import IndexReader
from bakthat.archive.report import ArchiveReport
from bakthat.backends.base import StoredObject, ThawStatus
from bakthat.backends.ranges import ObjectRanges
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import (
    AgeFormatError,
    CorruptArchiveError,
    CorruptIndexError,
    DecryptionError,
    NotFoundError,
    UsageError,
)
from bakthat.passwords import DecryptionKeys, may_ask
from bakthat.pipeline import read
from bakthat.pipeline.parts import Spans, find_parts, read_parts
from bakthat.policy.storage_classes import DEFAULT_DAYS, STANDARD, storage_class
from bakthat.session import cold
from bakthat.session.indexes.opening import open_index
from bakthat.session.reading import KeyFinder, byte_counter, expected_of, find_to_restore
from bakthat.session.session import Session, operation, result_log
from bakthat.system.paths import PathLike, expanded
from bakthat.system.streams import Progress
from bakthat.system.text import counted, human_size, printable

log = logging.getLogger("bakthat")


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """The options of a restore."""

    target: Path
    password: str | None
    identity_file: PathLike | None
    prompt: bool
    thaw: cold.ThawOptions
    any_size: bool
    """Whether the unpacked size is unlimited."""
    only: Sequence[str]
    """Paths and patterns of the wanted members of an archive; empty for all."""
    use_index: bool
    """Whether the index of an archive is read and compared with it."""
    keep_going: bool
    """Whether members that the file system cannot hold are left out."""
    progress: Progress | None


def restore(
    filename: str,
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    password: str | None = None,
    output: PathLike | None = None,
    job_check: bool = False,
    host: str | None = None,
    source: PathLike | None = None,
    identity_file: PathLike | None = None,
    prompt: str | bool = "yes",
    tier: str = STANDARD,
    days: int = DEFAULT_DAYS,
    wait: cold.Wait = False,
    any_size: bool = False,
    only: str | Sequence[str] = (),
    keep_going: bool = False,
    use_index: bool = True,
    report: ArchiveReport | None = None,
    progress: Progress | None = None,
) -> models.Backups | None:
    """Restore a backup into the directory *output* (by default the current one); return it.

    *filename* is a stored filename, a set's name (its newest backup) or the beginning of a
    stored filename that fits one set; *host* restricts the search to one host, and *source* to the
    backups of one path ("" for the set without a source). *password* and *identity_file* (age
    private keys) override the profile. The backup is read, decrypted and
    checked to its end before the first file appears in *output*; when anything fails, no file
    appears. *progress* is called with the bytes downloaded and the bytes of the whole object.

    *only* names files and directories inside the backup, as ``bakthat contents`` shows them, and
    nothing else is restored. What is no path in the backup is a pattern with the rules of
    .gitignore; with "!" at its beginning, it leaves out what it matches. Only those parts of the
    object are read that hold what is wanted, unless that is most of it, or it has no index.

    Each restored file must be as the index of the backup says, and have its SHA-256. *use_index*
    False ignores the index: the whole object is read, and what is in it is restored.

    *keep_going* True leaves out what the file system of *output* cannot hold, such as names that it
    does not allow, devices and files that are too large. A warning names each.

    What cannot be restored exactly, such as an attribute that the file system does not know, is a
    warning, and the rest is restored. *report* collects the files, directories, bytes and warnings,
    also while an exception is on its way. The returned entry's ``is_complete`` is False after a
    warning.

    A backup that unpacks to far more than was backed up is refused, since it could fill the disk.
    The limit is twice the size in the catalog of the machine that made the backup plus 64 MiB. For
    any other machine, and without that catalog, it is 200 times the stored size plus 1 GiB or, if
    that is more, twice the announced size plus 64 MiB. *any_size* True lifts the limit.

    A backup in cold storage must be thawed first, which takes hours and is charged. The first call
    requests the thaw, by *tier* ("expedited", "standard" or "bulk") and on S3 for *days*, and
    returns None. Further calls return None, and request nothing, until the backup can be read. With
    *wait* True the call waits instead; a function is called with the seconds to wait. *job_check*
    True only returns the result of :func:`thaw_status`, which new code should call.

    Raises NoMatchError and AmbiguousNameError for the name, PasswordError and WrongKeyError for the
    keys, CorruptArchiveError, DestinationError, StorageError, or another BakthatError.
    """
    if job_check:
        return thaw_status(  # type: ignore[return-value]  # an alias; typed code calls it
            filename, destination, profile, config, conf=conf, host=host, source=source
        )
    paths = [only] if isinstance(only, str) else list(only)
    repeated = _arguments_to_repeat(output, identity_file, prompt, paths, keep_going, use_index)
    options = RestoreOptions(
        target=_target(output),
        password=password,
        identity_file=identity_file,
        prompt=may_ask(prompt),
        thaw=cold.ThawOptions(tier, days, wait, repeated),
        any_size=any_size,
        only=paths,
        use_index=use_index,
        keep_going=keep_going,
        progress=progress,
    )
    options.thaw.check()
    Selection(paths)  # invalid paths are an error before anything else
    session = Session(profile, config, conf, destination)
    with operation(session, "restore", deferred=True) as current:
        found = find_to_restore(session, filename, host, source)
        expected = expected_of(found, any_size=options.any_size)
        stored = _stored_object(session, found)
        keys = KeyFinder(session, password, identity_file, options.prompt)
        reading = _Reading(session, found, expected, keys, options)
        is_cold = storage_class(stored.storage_class).is_cold
        if is_cold:
            reading.check_selection()  # before the thaw, which costs money
        if is_cold and not cold.make_readable(session, found, options.thaw):
            return None
        current.begin()
        log.info("Restoring %s", printable(found.stored_filename))
        _warn_of_incomplete(found)
        report = ArchiveReport() if report is None else report
        reading.run(report)
        found.restore_warning_count = report.warning_count
        name, target = printable(found.stored_filename), printable(options.target)
        current.finish(found, done=f"restored {name} into {target}")
        result_log.info(
            "Restored %s: %d files (%s) into %s, with %d warnings",
            name,
            report.files,
            human_size(report.bytes),
            target,
            report.warning_count,
        )
        return found


def thaw_status(
    filename: str,
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
    source: PathLike | None = None,
) -> ThawStatus:
    """Return the status of a backup's thaw; request nothing and restore nothing.

    *filename*, *host* and *source* are as for :func:`restore`. A backup outside of cold storage is
    "warm". Raises NoMatchError, AmbiguousNameError, StorageError.
    """
    session = Session(profile, config, conf, destination)
    with operation(session, "restore", deferred=True):
        return cold.thaw_status(session, find_to_restore(session, filename, host, source))


def _arguments_to_repeat(
    output: PathLike | None,
    identity_file: PathLike | None,
    prompt: str | bool,
    only: Sequence[str],
    keep_going: bool,
    use_index: bool,
) -> list[str]:
    """Return the arguments that the restore after the thaw needs too.

    Without ``-o``, for example, it might replace files of the current directory.
    """
    given = [*(("-o", os.fspath(output)) if output else ())]
    given += ("--identity-file", os.fspath(identity_file)) if identity_file else ()
    given += [word for path in only for word in ("--only", path)]
    given += ["--keep-going"] if keep_going else []
    given += [] if use_index else ["--no-index"]
    return given + ([] if may_ask(prompt) else ["--prompt", "no"])


def _target(output: PathLike | None) -> Path:
    if output is not None and not os.fspath(output):
        raise UsageError("the directory to restore into has an empty name")
    return expanded(output or os.curdir)


def _warn_of_incomplete(backup: models.Backups) -> None:
    if not backup.is_complete:
        log.warning(
            "%s was stored with %s: some files are missing or incomplete in it",
            printable(backup.stored_filename),
            counted(backup.warning_count, "warning"),
        )


class _Reading:
    """The reading of one backup, by its index where it has one."""

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

    def check_selection(self) -> None:
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
            log.warning(
                "the index of %s is damaged, so it is not used: %s; %s",
                printable(self._key),
                exc,
                exc.hint,
            )
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
            on_bytes=byte_counter(self._options.progress, spans.bytes),
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
            self._expected,
            self._options.target,
            keys=keys,
            report=report,
            on_bytes=byte_counter(self._options.progress, self._backup.size),
            selection=selection,
            keep_going=self._options.keep_going,
            reopen=lambda: self._backend.download(self._key),
            index=index,
            file_keys=self._keys.file_keys,
        )

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
            raise UsageError(f"{printable(self._key)} is a value: it cannot be restored in part")
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


def _stored_object(session: Session, backup: models.Backups) -> StoredObject:
    """Return the stored object of *backup*. Raises when it is missing or has another size."""
    backend = session.backend(backup.backend)
    name = printable(backup.stored_filename)
    try:
        stored = backend.stat(backup.stored_filename)
    except NotFoundError as exc:
        if exc.hint:  # a missing bucket, or a vault that may hold it under an unknown id
            raise
        raise NotFoundError(
            f"{name} is in the catalog, but not in {backend.container} any more",
            hint="bakthat on another machine, another program or a rule of the bucket deleted it; "
            "bakthat sync updates the catalog",
        ) from exc
    if stored.size not in (backup.size, -1):
        raise CorruptArchiveError(
            f"{name} has {stored.size} bytes on the storage, but {backup.size} were stored: "
            "it was truncated or replaced"
        )
    return stored
