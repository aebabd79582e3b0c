"""What a job has done, and how it went."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from bakthat import models
from bakthat.conf import JobSource
from bakthat.errors import BakthatError, LockedError
from bakthat.operations.check.result import CheckResult
from bakthat.operations.needed import LeftBackup
from bakthat.operations.retention.operation import RetentionReport


class JobOutcome(enum.StrEnum):
    """How a job went; the first that applies, from the last one on."""

    DONE = "done"
    INCOMPLETE = "incomplete"
    """A backup lacks files, or its size is suspicious, or a lock could not be extended."""
    LOCKED = "locked"
    """Another run was still going on a source, which was left to it."""
    FAILED = "failed"


@dataclass(slots=True)
class SourceReport:
    """What was done with one source of a job."""

    job: str
    source: JobSource
    backups: list[models.Backups] = field(default_factory=list)
    """Those that were stored; one that ``is_skipped`` was there already, and nothing has changed
    since."""
    rotated: list[models.Backups] = field(default_factory=list)
    """Those that rotation has deleted; in a dry run, those that it would delete now."""
    not_locked: list[models.Backups] = field(default_factory=list)
    """Those that rotation keeps, and whose lock it could not extend."""
    protected: list[LeftBackup] = field(default_factory=list)
    """Those that rotation does not keep, and that stay since they are locked or on hold."""
    problems: list[BakthatError] = field(default_factory=list)
    is_stored: bool = False
    """Whether each of its backups was made, whatever has failed after that; in a dry run, whether
    nothing speaks against them."""

    def add_rotation(self, rotation: RetentionReport) -> None:
        """Add what the rotation of one set has done."""
        self.rotated += rotation.deleted
        self.protected += rotation.protected
        if rotation.plan is not None:
            self.not_locked += rotation.plan.not_locked

    @property
    def is_locked(self) -> bool:
        """Whether another run was still going on it."""
        return any(isinstance(each, LockedError) for each in self.problems)

    @property
    def is_good(self) -> bool:
        """Whether each of its backups was made, and nothing has failed after that."""
        return self.is_stored and not self.problems

    @property
    def outcome(self) -> JobOutcome:
        """How it went. A source that was not reached has failed."""
        if self.is_locked:
            return JobOutcome.LOCKED
        if not self.is_good:
            return JobOutcome.FAILED
        whole = all(each.is_complete and not each.is_suspicious for each in self.backups)
        is_done = whole and not self.not_locked
        return JobOutcome.DONE if is_done else JobOutcome.INCOMPLETE


@dataclass(slots=True)
class JobReport:
    """What a job has done or, in a dry run, would do."""

    job: str
    sources: list[SourceReport] = field(default_factory=list)
    """One of each source, also of those that were not reached."""
    problems: list[BakthatError] = field(default_factory=list)
    """Those of the job: of its configuration, its commands, its checks and drills."""
    check_due: list[str] = field(default_factory=list)
    """The names of the sets whose check is due."""
    drill_due: list[str] = field(default_factory=list)
    checked: list[CheckResult] = field(default_factory=list)
    drilled: list[models.Backups] = field(default_factory=list)
    """The backups whose drill has passed."""
    commands: dict[str, int] = field(default_factory=dict)
    """How many commands are to run ``before``, ``after`` and ``on_error``."""
    seconds: float = 0.0

    @property
    def backups(self) -> list[models.Backups]:
        """The backups that were stored."""
        return [each for source in self.sources for each in source.backups if not each.is_skipped]

    @property
    def protected(self) -> list[LeftBackup]:
        """What rotation does not keep, and what stays since it is locked or on hold."""
        return [each for source in self.sources for each in source.protected]

    @property
    def not_locked(self) -> list[models.Backups]:
        """The backups whose lock rotation could not extend."""
        return [each for source in self.sources for each in source.not_locked]

    @property
    def all_problems(self) -> list[BakthatError]:
        """All errors, in their order: those of the job are first where no source was reached."""
        of_sources = [each for source in self.sources for each in source.problems]
        if any(source.backups for source in self.sources):
            return [*of_sources, *self.problems]
        return [*self.problems, *of_sources]

    def sources_that(self, *outcomes: JobOutcome) -> list[JobSource]:
        """Return the sources that went one of these ways."""
        return [each.source for each in self.sources if each.outcome in outcomes]

    @property
    def outcome(self) -> JobOutcome:
        """How the job went: as badly as the worst of it."""
        found = {each.outcome for each in self.sources}
        for each in self.problems:
            is_locked = isinstance(each, LockedError)
            found.add(JobOutcome.LOCKED if is_locked else JobOutcome.FAILED)
        return next((each for each in reversed(JobOutcome) if each in found), JobOutcome.DONE)

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints of it, apart from its backups and errors."""
        return {
            "job": self.job,
            "outcome": self.outcome.value,
            "seconds": round(self.seconds, 3),
            "sources": [each.source.text for each in self.sources],
            "failed": [each.text for each in self.sources_that(JobOutcome.FAILED)],
            "locked": [each.text for each in self.sources_that(JobOutcome.LOCKED)],
            "stored": [each.stored_filename for each in self.backups],
            "rotated": [each.stored_filename for source in self.sources for each in source.rotated],
            "protected": [each.backup.stored_filename for each in self.protected],
            "not_locked": [each.stored_filename for each in self.not_locked],
            "checked": len(self.checked),
            "wrong": sum(not each.is_good for each in self.checked),
            "drilled": [each.stored_filename for each in self.drilled],
            "error": str(next(iter(self.all_problems), "")),
            "check_due": self.check_due,
            "drill_due": self.drill_due,
            "commands": self.commands,
        }
