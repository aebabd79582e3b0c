"""Entries of the catalog as sync found them, and how an object changes its entry."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bakthat import models
from bakthat.backends.base import StoredObject
from bakthat.format import names
from bakthat.format.description import sanitized
from bakthat.policy.outcome import DELETED
from bakthat.session.entries import merged_metadata

UNREAD = "unread"
"""The key of the metadata of an entry that was adopted from a listing, since the access keys may
not read the object. It is looked up again by each sync, until its description is known."""


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


def update_entry(found: models.Backups, entry: models.Backups, *, is_here: bool) -> None:
    """Update the entry *found* from *entry*, which describes the stored object."""
    if not (is_here or may_be_the_same(found, entry)):
        for column, value in entry.as_dict().items():
            setattr(found, column, value)
        found.metadata["adopted"] = int(time.time())
        return
    found.is_deleted = False
    outdated = {DELETED} if UNREAD in entry.metadata else {DELETED, UNREAD}
    found.metadata = {key: each for key, each in found.metadata.items() if key not in outdated}
    if not is_here:
        found.backend_hash = entry.backend_hash
    if entry.size >= 0:
        found.size = entry.size
    if entry.is_key_value:
        kept = {"adopted": found.metadata["adopted"]} if "adopted" in found.metadata else {}
        found.metadata = {**entry.metadata, **kept}
        found.filename, found.backup_date = entry.filename, entry.backup_date
    elif "format" in entry.metadata or not found.metadata:
        found.metadata = merged_metadata(found, entry)


def may_have_index(stored: StoredObject) -> bool:
    """Return whether an object has an index that is worth a request.

    Each increment has one, and its index says what it needs, also where its own self-description
    was lost.
    """
    description = sanitized(stored.metadata)
    parsed = names.parse_stored_name(stored.key.rpartition("/")[2])
    is_increment = parsed is not None and parsed.is_increment
    return "index" in description or (is_increment and "needs" not in description)


def may_be_the_same(found: models.Backups, entry: models.Backups) -> bool:
    """Return whether an entry of another container may belong to this container after all.

    0.6.0 put the access key into the hash of the container. After a change of keys the hashes of
    its entries no longer match.
    """
    is_legacy = not {"format", "adopted"} & set(found.metadata)
    return is_legacy and found.backend == entry.backend and found.size == entry.size
