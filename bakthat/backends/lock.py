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


def held_error(name: str, lock: Lock, reason: str) -> LockedObjectError:
    """Return the error of a deletion that a hold prevents, whose *reason* is known.

    *name* is that of the object, for the message.
    """
    hold = f"on hold ({reason})"
    return LockedObjectError(
        f"{name} is {hold}", hint=_RELEASE, until=lock.until, is_held=True, why=hold
    )


def locked_error(name: str, lock: Lock) -> LockedObjectError:
    """Return the error of a deletion that *lock* prevents; see :func:`held_error`."""
    if lock.is_held:
        return LockedObjectError(
            f"{name} is on hold", hint=_RELEASE, until=lock.until, is_held=True, why="on hold"
        )
    assert lock.until is not None
    retention = f"locked until {utc_time(lock.until)} UTC"
    return LockedObjectError(f"{name} is {retention}", hint=_WAIT, until=lock.until, why=retention)
