"""What keeps a stored object from being deleted."""

from __future__ import annotations

from dataclasses import dataclass

from bakthat.errors import LockedObjectError
from bakthat.policy.object_lock.rule import COMPLIANCE
from bakthat.system.text import utc_time

_LEAST_SECONDS = 3600
"""A storage refuses a retention that has ended, and clocks and requests may be slow."""

_RELEASE = "bakthat release ends the hold"
_WAIT = "delete it after that; until then, its storage deletes it for nobody"


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

    def is_over_at(self, now: float) -> bool:
        """Return whether the retention ends within an hour of *now*: too late to ask for it."""
        return self.until is not None and self.until <= now + _LEAST_SECONDS

    def covers(self, other: Lock) -> bool:
        """Return whether the retention lasts as long as that of *other*, in a mode as strict."""
        if other.until is None:
            return True
        is_as_strict = self.mode == COMPLIANCE or other.mode == self.mode
        return self.until is not None and self.until >= other.until and is_as_strict


def locked_error(name: str, lock: Lock, reason: str = "") -> LockedObjectError:
    """Return the error of a deletion that *lock* prevents.

    *name* is that of the object, for the message; *reason* is why it is on hold, where it is known.
    """
    why = _why(lock, reason)
    return LockedObjectError(
        f"{name} is {why}",
        hint=_RELEASE if lock.is_held else _WAIT,
        until=lock.until,
        is_held=lock.is_held,
        why=why,
    )


def _why(lock: Lock, reason: str) -> str:
    if lock.is_held:
        return f"on hold ({reason})" if reason else "on hold"
    assert lock.until is not None
    return f"locked until {utc_time(lock.until)} UTC"
