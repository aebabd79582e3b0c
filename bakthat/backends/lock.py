"""What keeps a stored object from being deleted."""

from __future__ import annotations

from dataclasses import dataclass

from bakthat.policy.object_lock.rule import COMPLIANCE


@dataclass(frozen=True, slots=True)
class Lock:
    """What keeps a stored object from being deleted, whoever asks."""

    until: float | None = None
    """When its retention ends, in epoch seconds UTC; None if it has none."""
    mode: str = ""
    """"governance" or "compliance"; "" without a retention."""
    is_held: bool = False
    """Whether it is on hold (S3: legal hold), which ends only when it is released."""

    def holds_at(self, now: float) -> bool:
        """Return whether the object cannot be deleted at *now*, in epoch seconds UTC."""
        return self.is_held or (self.until is not None and self.until > now)

    def covers(self, other: Lock) -> bool:
        """Return whether the retention lasts as long as that of *other*, in a mode as strict."""
        if other.until is None:
            return True
        is_as_strict = self.mode == COMPLIANCE or other.mode == self.mode
        return self.until is not None and self.until >= other.until and is_as_strict
