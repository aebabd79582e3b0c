"""The rule by which a profile locks its backups: its mode, and for how long.

S3 knows two modes (https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html): a lock
in governance mode can be lifted by whoever has a special right, one in compliance mode by nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

GOVERNANCE, COMPLIANCE = MODES = ("governance", "compliance")
RETENTION = "retention"
"""The word for a lock that lasts as long as the rotation keeps the backup."""
MAX_DAYS = 36500
"""S3's limit, by https://docs.aws.amazon.com/AmazonS3/latest/API/API_DefaultRetention.html, is the
same hundred years."""


@dataclass(frozen=True, slots=True)
class LockRule:
    """``object_lock`` of a profile."""

    mode: str
    """"governance" or "compliance"."""
    days: int | None
    """From the date of a backup; None for as long as the rotation keeps it."""

    @classmethod
    def of(cls, mapping: Mapping[str, Any]) -> Self | None:
        """Return the rule that a checked ``object_lock`` describes; None for an empty one."""
        if not mapping:
            return None
        return cls(mapping["mode"], None if mapping["days"] == RETENTION else mapping["days"])
