"""The finding about each backup that was checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bakthat import models
from bakthat.operations.facts import Verdict as Verdict


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A backup and the finding about it."""

    backup: models.Backups
    verdict: Verdict
    detail: str = ""
    """One line about the problem, or about the part that was read."""
    index_problem: str = ""
    """One line about an index that should be there and is not; the backup can be restored all the
    same."""

    @property
    def is_good(self) -> bool:
        """Whether the check found no problem. A cold backup was only looked up."""
        return self.verdict.is_good

    def as_dict(self) -> dict[str, Any]:
        """Return the entry's columns and the finding."""
        return {
            **self.backup.as_dict(),
            "good": self.is_good,
            "verdict": self.verdict.value,
            "detail": self.detail,
            "index_problem": self.index_problem,
        }


def should_have_index(backup: models.Backups) -> bool:
    """Return whether an index was stored with a backup, or later by sync."""
    return "index" in backup.metadata or "index_size" in backup.metadata
