"""Entries of the catalog as sync found them, before the storage was listed."""

from __future__ import annotations

from dataclasses import dataclass

from bakthat.backends.base import StoredObject
from bakthat.format import names
from bakthat.format.description import sanitized


@dataclass(frozen=True, slots=True)
class Known:
    """What the catalog had about an object before the storage was listed."""

    size: int
    is_deleted: bool
    is_damaged: bool
    """Whether its metadata cannot be read."""
    is_described_value: bool
    is_unread: bool
    """Whether its description could not be read yet."""
    etag: object

    def agrees(self, stored: StoredObject) -> bool:
        """Return whether the catalog has *stored* as it is listed."""
        if self.is_deleted or self.is_damaged or self.is_unread:
            return False
        if stored.size not in (self.size, -1):
            return False
        if not self.is_described_value:
            return True
        # A value may be replaced by another one of the same size.
        return bool(self.etag) and self.etag == stored.extra.get("etag")


def may_have_index(stored: StoredObject) -> bool:
    """Return whether an object has an index that is worth a request.

    Each increment has one, and its index says what it needs, also where its own self-description
    was lost.
    """
    description = sanitized(stored.metadata)
    parsed = names.parse_stored_name(stored.key.rpartition("/")[2])
    is_increment = parsed is not None and parsed.is_increment
    return "index" in description or (is_increment and "needs" not in description)
