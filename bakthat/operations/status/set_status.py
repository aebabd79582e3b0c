"""How one set is: what is known of its newest backup and of those before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bakthat.operations.facts import CheckRecord, DrillRecord
from bakthat.policy.finding import Finding

MOST_SIZES = 12
"""How many sizes the history of a set has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetStatus:
    """How one set is. Times are epoch seconds UTC; None or "" is what is not known."""

    name: str
    """Of the set; of a server without any backup, the URL that the job has."""
    host: str
    """"" when it is not known."""
    backend: str
    source: str = ""
    """The path or URL that was backed up, else the id of its source; "" if a name was given."""
    profile: str = ""
    """The profile by which it was found."""
    jobs: tuple[str, ...] = ()
    """The jobs that make it; none where a storage was asked, which knows no jobs."""
    stored_filename: str = ""
    """Of the newest backup."""
    last_backup: int | None = None
    """The date of the newest backup; None when there is none."""
    last_success: int | None = None
    """The date of the newest backup that has no warnings."""
    age: int | None = None
    """Seconds since the newest backup; negative for one that is dated in the future."""
    max_age: int | None = None
    """The age, in seconds, from which on it is too old."""
    size: int | None = None
    """Bytes of the newest backup, as stored."""
    usual_size: int | None = None
    """The median of earlier ones of its kind, full or increment; of those of :attr:`sizes`."""
    sizes: tuple[int, ...] = ()
    """Of the latest backups of the kind of the newest, which comes last."""
    files: int | None = None
    content: int | None = None
    """Bytes in the files."""
    is_estimate: bool = False
    """Whether files and content are what was counted before the backup began."""
    seconds: float | None = None
    """How long the backup took."""
    warnings: int | None = None
    """How many files of the newest backup are missing, or not as they were."""
    is_suspicious: bool = False
    """Whether its size is far from usual."""
    is_increment: bool = False
    backups: int | None = None
    """How many backups the set has."""
    next_to_go: str = ""
    """The stored filename of what a rotation after the next backup deletes first."""
    check: CheckRecord | None = None
    """The last check of any of its backups."""
    drill: DrillRecord | None = None
    findings: tuple[Finding, ...] = ()
    """What is wrong, and what could be better."""

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return not any(each.is_problem for each in self.findings)

    @property
    def trend(self) -> int | None:
        """By how many percent the newest backup is larger than usual; None without earlier ones."""
        if self.size is None or not self.usual_size:
            return None
        return round(100 * (self.size - self.usual_size) / self.usual_size)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for JSON."""
        return {
            "filename": self.name,
            "host": self.host,
            "backend": self.backend,
            "source": self.source,
            "profile": self.profile,
            "jobs": list(self.jobs),
            "good": self.is_good,
            "findings": [each.as_dict() for each in self.findings],
            "stored_filename": self.stored_filename,
            "backup_date": self.last_backup,
            "last_success": self.last_success,
            "age": self.age,
            "max_age": self.max_age,
            "size": self.size,
            "usual_size": self.usual_size,
            "trend": self.trend,
            "sizes": list(self.sizes),
            "files": self.files,
            "bytes": self.content,
            "estimate": self.is_estimate,
            "seconds": self.seconds,
            "warning_count": self.warnings,
            "suspicious": self.is_suspicious,
            "increment": self.is_increment,
            "backups": self.backups,
            "next_to_go": self.next_to_go,
            "check": None if self.check is None else self.check.as_dict(),
            "drill": None if self.drill is None else self.drill.as_dict(),
        }


def usual(sizes: Sequence[int]) -> int | None:
    """Return the median of all *sizes* but the last; None where there are no others."""
    return round(median(sizes[:-1])) if len(sizes) > 1 else None
