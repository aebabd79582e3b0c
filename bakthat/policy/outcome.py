"""Whether an operation did all of its work, decided once: done, or incomplete.

Exit codes, notifications and BakHelper ask the entry that the operation returned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bakthat.system.text import printable

SUSPICIOUS = "suspicious"
"""The key of the metadata that says that the size of a stream is far from usual."""
DELETED = "deleted"
"""The key of the metadata that says when a backup was deleted, and why."""
BY_NAME, REPLACED, GONE = "by name", "replaced", "gone from the storage"
"""Why a backup was deleted, where no rule of retention says it."""


class Outcome:
    """What an operation adds to the entry of the catalog that it returns; these are no columns."""

    backend: Any
    metadata: Any
    container = ""
    """The bucket, vault or directory of the backup; "" in an entry that was only listed."""
    restore_warning_count: int | None = None
    """The warnings of the restore, the skipped backup, the hold or the release that returned this
    entry; None for any other operation."""
    is_skipped = False
    """Whether a backup returned this entry in place of a new one, since nothing has changed."""

    @property
    def warning_count(self) -> int:
        """The number of warnings of the restore that returned this entry, else of the backup.

        Each is about a file that is missing, or not as it was.
        """
        if self.restore_warning_count is not None:
            return self.restore_warning_count
        count = self.metadata.get("warning_count")
        return int(count) if isinstance(count, int) else 0  # true is a number too

    @property
    def is_complete(self) -> bool:
        """Whether the restore that returned this entry, else the backup, had no warnings."""
        return not self.warning_count

    @property
    def is_suspicious(self) -> bool:
        """Whether it is a stream whose size is far from that of the one before it."""
        return bool(self.metadata.get(SUSPICIOUS))

    @property
    def where(self) -> str:
        """The destination and, where it is known, the container, for messages."""
        return f"{self.backend} {printable(self.container)}".rstrip()


def with_deletion(metadata: Mapping[str, Any], date: int, why: str) -> dict[str, Any]:
    """Return the metadata of a backup that was deleted at *date*, in epoch seconds UTC.

    Metadata that could not be read is empty and stays so, as others are told by that.
    """
    return {**metadata, DELETED: {"date": date, "why": why}} if metadata else {}
