"""Restore an increment: what is wanted of its state, from all archives that it needs."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import BinaryIO

from bakthat import models
from bakthat.archive.extract.selection import Selection
from bakthat.archive.index.reader import IndexReader
from bakthat.archive.index.state import State
from bakthat.archive.report import ArchiveReport, FileNames
from bakthat.backends.base import StoredObject
from bakthat.backends.ranges import ObjectRanges
from bakthat.errors import (
    ConfigError,
    CorruptArchiveError,
    CorruptIndexError,
    CryptoError,
    NotFoundError,
    NotReadyError,
    UsageError,
)
from bakthat.format.index.layout import NeededArchive
from bakthat.operations.restore.options import RestoreOptions
from bakthat.pipeline.parts import Spans
from bakthat.pipeline.plan import SOME, Lost, Plan, plan_restore
from bakthat.pipeline.state import StoredArchive, restore_state
from bakthat.policy.storage_classes import storage_class
from bakthat.session import cold
from bakthat.session.chains import (
    NeededObject,
    look_up_needed,
    needed_backup,
    needed_backups,
    needs_within,
    of_one_set,
)
from bakthat.session.indexes.opening import open_state
from bakthat.session.reading import KeyFinder, byte_counter, expected_of
from bakthat.session.session import Session
from bakthat.system.text import counted, human_size, printable

log = logging.getLogger("bakthat")

_PARTIAL = "--partial (partial=True in Python) restores all others"


class StateRestore:
    """The restore of an increment: :meth:`prepare` it, then :meth:`run` it; *stack* closes it."""

    def __init__(
        self,
        stack: ExitStack,
        session: Session,
        backup: models.Backups,
        keys: KeyFinder,
        options: RestoreOptions,
    ) -> None:
        """Raises UsageError for an option that an increment does not allow."""
        if not options.use_index:
            raise UsageError(
                f"{printable(backup.stored_filename)} is an increment: only its index says which "
                "parts of which archives make it up",
                hint="leave --no-index out, or restore it with tar: the full first, then each "
                "increment in order by tar xzGf; bakthat show --by-hand prints how",
            )
        self._stack = stack
        self._session = session
        self._backup = backup
        self._keys = keys
        self._options = options
        self._backend = session.backend(backup.backend)
        self._selection = Selection(options.only) if options.only else None
        self._needed: list[NeededObject] = []
        self._state: State
        self._plan: Plan

    def prepare(self, stored: StoredObject) -> bool:
        """Decide what to read; return whether it can be read, and request its thaw if need be.

        *stored* is the increment itself. Raises NoMatchError and UsageError for what is wanted,
        NotFoundError and CorruptArchiveError for archives that are missing or were replaced, and
        what reading the indexes raises.
        """
        try:
            self._state = self._open()
        except NotReadyError:
            # An index was lost, and its archive must be read to make it again.
            needed = [each.backup for each in self._needed if not each.problem]
            if not self._needed:
                needed = needed_backups(self._session, self._backup)
            if not self._make_readable([*needed, self._backup]):
                return False
            self._state = self._open()
        missing = self._missing()
        self._plan = plan_restore(self._state, self._selection, missing)
        if self._plan.lost and not self._options.partial:
            raise self._refusal(missing, self._plan.lost)
        for number in missing:
            if number not in self._plan.lost:
                log.warning("%s, but nothing of it is wanted", self._problem(number))
        classes = [*(each.storage_class for each in self._needed), stored.storage_class]
        backups = self._backups()
        touched = self._plan.archives
        return self._make_readable(
            [backups[number] for number in touched if storage_class(classes[number]).is_cold]
        )

    def run(self, report: ArchiveReport) -> None:
        """Restore all that is wanted into a directory; when anything fails, nothing appears there.

        *report* takes the counts and warnings, and the duration.
        """
        self._backup.container = self._backend.container
        log.info("Downloading...")
        started = time.monotonic()
        names = FileNames(report)
        for number, lost in sorted(self._plan.lost.items()):
            report.warn(f"{self._problem(number)}: {_described(lost)}")
            for path in lost.paths:
                names.say("left out", path, self._problem(number))
        archives = self._archives()
        total = sum(
            max(archive.size, 0) if archive.is_read_whole(spans) else spans.bytes
            for archive, spans in zip(archives, self._plan.spans, strict=True)
            if spans.bytes
        )
        restore_state(
            archives,
            self._plan.spans,
            self._options.target,
            state=self._state,
            selection=self._selection,
            file_keys=self._keys.file_keys,
            report=report,
            on_bytes=byte_counter(self._options.progress, total, report),
            keep_going=self._options.keep_going,
        )
        report.seconds = time.monotonic() - started

    def _open(self) -> State:
        """Open the indexes. Raises as :func:`open_state` does."""
        selection = self._selection
        opened = open_state(
            self._session,
            self._backup,
            self._keys,
            whole=selection is None or not selection.looks_like_paths,
            progress=self._options.progress,
            find_needed=self._find_needed,
        )
        try:
            state = self._stack.enter_context(opened)
        except (NotFoundError, CorruptIndexError) as exc:
            missing = self._missing()
            if not missing:
                raise
            raise self._refusal(missing, {}) from exc
        assert state is not None  # what has no index is read, to make one
        for index, needed, found in zip(
            state.indexes, state.header.needs, self._needed, strict=False
        ):
            # The index beside an archive that was replaced may be that of the new one.
            is_its_own = needed.archive_id and index.header.archive_id == needed.archive_id
            if found.problem and not (found.is_missing or is_its_own):
                raise self._refusal(self._missing(), {})
        return state

    def _find_needed(self, needs: Sequence[NeededArchive]) -> Sequence[NeededObject]:
        self._needed = look_up_needed(self._session, self._backup, needs)
        return self._needed

    def _missing(self) -> list[int]:
        """Return the numbers of the needed archives that are missing or were replaced."""
        return [number for number, each in enumerate(self._needed) if each.problem]

    def _backups(self) -> list[models.Backups]:
        return [*(each.backup for each in self._needed), self._backup]

    def _make_readable(self, backups: Sequence[models.Backups]) -> bool:
        return cold.make_readable(self._session, backups, self._options.thaw, tell_price=True)

    def _problem(self, number: int) -> str:
        """Return a sentence about a needed archive that is missing or was replaced."""
        name = printable(self._needed[number].backup.stored_filename)
        return f"{name} {self._needed[number].problem}"

    def _refusal(
        self, missing: Sequence[int], lost: dict[int, Lost]
    ) -> NotFoundError | CorruptArchiveError:
        """Return the error for *missing* archives, of which *lost* is wanted."""
        problems = ", and ".join(self._problem(number) for number in missing)
        what = _described(*lost.values()) if lost else "what it held is not known"
        name = printable(self._backup.stored_filename)
        hint = "bakthat check shows which backups can be restored"
        is_missing = any(self._needed[number].is_missing for number in missing)
        return (NotFoundError if is_missing else CorruptArchiveError)(
            f"{name} needs other archives: {problems}; {what}",
            hint=f"{_PARTIAL}; {hint}" if lost else hint,
        )

    def _archives(self) -> list[StoredArchive]:
        needs, backups, state = self._state.header.needs, self._backups(), self._state
        sizes = [*(needed.size for needed in needs), self._backup.size]
        return [
            self._archive(*each)
            for each in zip(backups, state.indexes, self._plan.spans, sizes, strict=True)
        ]

    def _archive(
        self, backup: models.Backups, index: IndexReader, spans: Spans, size: int
    ) -> StoredArchive:
        key, backend = backup.stored_filename, self._backend
        expected = expected_of(backup, any_size=self._options.any_size)

        def download() -> BinaryIO:
            log.info("Reading %s", printable(key))
            return backend.download(key)

        def ranges() -> ObjectRanges:
            wanted, total = human_size(spans.bytes), human_size(index.footer.tar_bytes)
            log.info("Reading %s of %s of %s", wanted, total, printable(key))
            return ObjectRanges(backend, key, size)

        return StoredArchive(
            key=key,
            index=index,
            expected=expected,
            size=size,
            keys=lambda: self._keys.of(backend, backup, expected),
            download=download,
            ranges=ranges,
        )


def archives_to_read(
    session: Session, backup: models.Backups, only: Sequence[str]
) -> list[models.Backups]:
    """Return the archives that a restore of an increment reads; all that it needs, if in doubt.

    No password is asked for. Raises NoMatchError and UsageError for *only*, and StorageError.
    """
    selection = Selection(only) if only else None
    keys = KeyFinder(session, prompt=False)
    whole = selection is None or not selection.looks_like_paths
    opened = open_state(session, backup, keys, whole=whole, may_read_archive=False, is_quiet=True)
    try:
        with opened as state:
            if state is not None:
                needs = state.header.needs
                found = [*(needed_backup(session, backup, each) for each in needs), backup]
                return [found[number] for number in plan_restore(state, selection).archives]
    except (ConfigError, CorruptArchiveError, CryptoError, NotFoundError) as exc:
        log.debug("what a restore reads is not known: %s", exc)
    try:
        return [*needed_backups(session, backup), backup]
    except (CorruptArchiveError, NotFoundError) as exc:
        log.debug("what a restore needs is not known: %s", exc)
    return [*needs_within(backup, of_one_set(session, backup)), backup]


def _described(*lost: Lost) -> str:
    """Return how many files are lost, and the first of them."""
    files = sum(each.files for each in lost)
    directories = sum(each.directories for each in lost)
    count = counted(files, "file")
    if directories:
        more = f"{directories} director{'y' if directories == 1 else 'ies'}"
        count += f" and the metadata of {more}"
    paths = [printable(path) for each in lost for path in each.paths][:SOME]
    shown = ", ".join(f"'{path}'" for path in paths)
    return f"{count} cannot be restored, such as {shown}"
