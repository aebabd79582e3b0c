"""The finding about each backup that was checked."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from bakthat import models


class Verdict(enum.StrEnum):
    """The finding about one backup."""

    STORED = "stored"
    """It is stored with its size; its data was not read."""
    SAMPLED = "sampled"
    """A share of it was read, and every checksum in that is right."""
    READ = "read"
    """It was read to its end, and every checksum in it is right."""
    COLD = "cold"
    """It is stored, and must be thawed before it can be read."""
    MISSING = "missing"
    """It is not stored."""
    WRONG_SIZE = "wrong size"
    """It is stored with another size: it was replaced or truncated."""
    DAMAGED = "damaged"
    """Its data differs from the data that was stored."""
    BROKEN = "broken"
    """It is an increment, and an archive that it needs is missing, or is another one than it
    was."""
    NO_KEY = "no key"
    """None of the given passwords and private keys opens it."""
    UNKNOWN = "unknown"
    """The storage could not be reached or read, or a later bakthat stored it."""


_GOOD = (Verdict.STORED, Verdict.SAMPLED, Verdict.READ, Verdict.COLD)


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
        return self.verdict in _GOOD

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
