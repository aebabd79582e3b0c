"""Prove that what increments need is stored, as it was when they were made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from bakthat import models
from bakthat.errors import (
    ConfigError,
    CorruptArchiveError,
    CorruptIndexError,
    NotFoundError,
    StorageError,
    UsageError,
)
from bakthat.format.index.layout import NeededArchive
from bakthat.format.names import parse_stored_name
from bakthat.operations.check.result import CheckResult, Verdict
from bakthat.operations.check.stored import stat_all
from bakthat.session.chains import check_needed, dependents_within, may_be_of_one_set
from bakthat.session.entries import entry_of
from bakthat.session.indexes.opening import open_cached_index
from bakthat.session.session import Session
from bakthat.system.text import counted, enumerate_some, printable, utc_time

_MOST_NAMED = 3
_LOST = (Verdict.MISSING, Verdict.WRONG_SIZE, Verdict.DAMAGED)
"""The verdicts after which other backups cannot be restored, or not all of their files."""


class _Problem(NamedTuple):
    """The finding about an increment whose needs are not as they should be."""

    verdict: Verdict
    detail: str


class NeededArchives:
    """The archives that the increments among *found* need, and what was found about each.

    Those that are not among *found* are looked up too.
    """

    def __init__(self, session: Session, found: Sequence[CheckResult]) -> None:
        self._session = session
        self._found = {each.backup.stored_filename: each for each in found}
        self._of_date: defaultdict[tuple[str, str, int], list[models.Backups]] = defaultdict(list)
        increments = [each.backup for each in found if each.backup.is_increment]
        with models.catalog(session.catalog):
            for name, backend in {(each.filename, each.backend) for each in increments}:
                for row in models.Backups.of_set(name, session.containers(backend)):
                    self._of_date[name, backend, row.date].append(row)
        others = {
            row.stored_filename: row
            for each in increments
            for date in each.needs
            for row in self._rows(each, date)
            if row.stored_filename not in self._found
        }
        for result in stat_all(session, list(others.values()), None):
            self._found[result.backup.stored_filename] = result

    def proved(self, result: CheckResult) -> CheckResult:
        """Return *result*, or what is wrong with what its backup needs.

        That is found out by the descriptions and, where it is in the cache of this machine, by the
        index, which knows sizes and ids too.
        """
        backup = result.backup
        if not result.is_good or not backup.is_increment:
            return result
        for date in backup.needs:
            if problem := self._problem_of_date(backup, date):
                return replace(result, verdict=problem.verdict, detail=problem.detail)
        needs: Sequence[NeededArchive] = ()
        with suppress(CorruptIndexError), open_cached_index(backup) as index:
            needs = index.header.needs if index is not None else ()
        if not needs and not backup.needs and not result.detail:
            return replace(result, detail="what it needs is known only to its index")
        return self.proved_by(needs, result)

    def proved_by(self, needs: Sequence[NeededArchive], result: CheckResult) -> CheckResult:
        """Return *result*, or what is wrong with *needs*, which the index of its backup names."""
        for each in needs:
            if problem := self._problem_of(result.backup, each):
                return replace(result, verdict=problem.verdict, detail=problem.detail)
        return result

    def with_dependents(self, results: Sequence[CheckResult]) -> list[CheckResult]:
        """Return *results*, where the detail of a bad one says which backups need it."""
        if not any(each.verdict in _LOST for each in results):
            return list(results)
        with models.catalog(self._session.catalog):
            increments = models.Backups.increments(self._session.containers())
        return [
            _with_dependents(each, increments) if each.verdict in _LOST else each
            for each in results
        ]

    def _rows(self, backup: models.Backups, date: int) -> list[models.Backups]:
        """Return the listed backups of the set of *backup* that have this date."""
        rows = self._of_date[backup.filename, backup.backend, date]
        return [each for each in rows if may_be_of_one_set(backup, each)]

    def _problem_of_date(self, backup: models.Backups, date: int) -> _Problem | None:
        """Return the problem of *backup* if what it needs of *date* is not there."""
        results = [
            self._found[row.stored_filename]
            for row in self._rows(backup, date)
            if row.stored_filename in self._found
        ]
        if not results:
            what = f"needs the backup of {utc_time(date)} UTC, which is not in the catalog"
            return _Problem(Verdict.BROKEN, what)
        if any(each.is_good for each in results):  # dates are of a second, and may be of two
            return None
        return _broken_by(results[0])

    def _problem_of(self, backup: models.Backups, needed: NeededArchive) -> _Problem | None:
        """Return the problem of *backup* if *needed* is not there, or is another archive."""
        result = self._found.get(needed.key)
        if result is None:
            result = self._found[needed.key] = self._look_up(backup, needed)
        if not result.is_good:
            return _broken_by(result)
        found = result.backup
        try:
            check_needed(backup, needed, size=found.size, archive_id=found.archive_id)
        except CorruptArchiveError as exc:
            return _Problem(Verdict.BROKEN, str(exc))
        return None

    def _look_up(self, backup: models.Backups, needed: NeededArchive) -> CheckResult:
        """Return the finding about an archive that the catalog does not list."""
        parsed = parse_stored_name(needed.key.rpartition("/")[2])
        entry = models.Backups(stored_filename=needed.key, backend=backup.backend, metadata={})
        if parsed is None:
            return CheckResult(entry, Verdict.MISSING, "its name is none of bakthat")
        try:
            backend = self._session.backend(backup.backend)
            stored = backend.stat(needed.key)
        except (NotFoundError, UsageError) as exc:  # or it can be no key of this storage
            return CheckResult(entry, Verdict.MISSING, str(exc))
        except (StorageError, ConfigError) as exc:
            return CheckResult(entry, Verdict.UNKNOWN, str(exc))
        return CheckResult(entry_of(backend, stored, parsed), Verdict.STORED)


def _broken_by(needed: CheckResult) -> _Problem:
    """Return the problem of a backup that needs the one that *needed* is about."""
    verdict = Verdict.BROKEN if needed.verdict is not Verdict.UNKNOWN else Verdict.UNKNOWN
    name = printable(needed.backup.stored_filename)
    return _Problem(verdict, f"needs {name}: {needed.verdict.value}: {needed.detail}")


def _with_dependents(result: CheckResult, increments: Sequence[models.Backups]) -> CheckResult:
    backup = result.backup
    of_set = [
        each
        for each in increments
        if (each.filename, each.backend) == (backup.filename, backup.backend)
        and may_be_of_one_set(backup, each)
    ]
    needing = [printable(each.stored_filename) for each in dependents_within([backup], of_set)]
    if not needing:
        return result
    need = "needs" if len(needing) == 1 else "need"
    names = enumerate_some(needing, most=_MOST_NAMED)
    what = f"{counted(len(needing), 'backup')} {need} it: {names}"
    return replace(result, detail="; ".join(filter(None, (result.detail, what))))
