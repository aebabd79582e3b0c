"""What operations record about a backup in the ``metadata`` of its entry: its last check and drill.

The catalog alone has them: they are not in the description on the storage.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

CHECK = "check"
"""The key of the metadata that has the result of the last check of a backup."""
DRILL = "drill"
"""The key of the metadata that has the result of its last drill."""

_DAMAGED = (TypeError, KeyError, ValueError, AttributeError, OverflowError)
"""What the values of a damaged record raise."""


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

    @property
    def is_good(self) -> bool:
        """Whether the check found no problem. A cold backup was only looked up."""
        return self in (Verdict.STORED, Verdict.SAMPLED, Verdict.READ, Verdict.COLD)


@dataclass(frozen=True, slots=True)
class CheckRecord:
    """The last check of a backup. Times are epoch seconds UTC."""

    date: int
    verdict: Verdict
    detail: str = ""
    """One line about the problem, or about the part that was read."""
    share: float | None = None
    """The share of its data that was read, up to 1; None where none was."""
    read: int | None = None
    """When data of it was last read and found right, by this check or one before."""

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Self | None:
        """Return what an entry's *metadata* has; None where that is nothing, or not valid."""
        found: Any = metadata.get(CHECK)
        try:
            return cls(
                int(found["date"]),
                Verdict(found["verdict"]),
                str(found.get("detail") or ""),
                found.get("share"),
                found.get("read"),
            )
        except _DAMAGED:
            return None

    def after(self, before: CheckRecord | None) -> CheckRecord:
        """Return what to record when the check *before* this one was recorded.

        Damage stays recorded until the backup was read to its end: a check that reads less, or
        another part, does not show that it is gone.
        """
        if before is None:
            return self
        is_less = self.verdict.is_good and self.verdict is not Verdict.READ
        if before.verdict is Verdict.DAMAGED and is_less:
            return before
        return self if self.read is not None else replace(self, read=before.read)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {
            "date": self.date,
            "verdict": self.verdict.value,
            "detail": self.detail,
            "share": self.share,
            "read": self.read,
        }


@dataclass(frozen=True, slots=True)
class DrillRecord:
    """The last drill of a backup."""

    date: int
    """Epoch seconds, UTC."""
    passed: bool
    problem: str = ""

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Self | None:
        """Return what an entry's *metadata* has; None where that is nothing, or not valid."""
        found: Any = metadata.get(DRILL)
        try:
            return cls(int(found["date"]), bool(found["passed"]), str(found.get("problem") or ""))
        except _DAMAGED:
            return None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {"date": self.date, "passed": self.passed, "problem": self.problem}
