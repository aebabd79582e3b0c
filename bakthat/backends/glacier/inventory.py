"""What a vault lists of itself, in the JSON that an inventory job brings out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from bakthat.backends.base import StoredObject
from bakthat.backends.glacier.client import Description, epoch_seconds
from bakthat.backends.glacier.transfer import described_object
from bakthat.errors import StorageError


@dataclass(frozen=True, slots=True)
class VaultArchive:
    """One archive as the inventory of its vault lists it."""

    archive_id: str
    key: str
    """The stored name, as the description says; "" when it is not bakthat's."""
    size: int
    """In bytes, as stored."""
    date: float | None
    """Epoch seconds UTC; None when it cannot be read."""
    description: str
    tree_hash: str

    def facts(self) -> dict[str, Any]:
        """Return what :attr:`VaultRecords.archives` keeps of it."""
        described = Description.decode(self.description)
        facts: dict[str, Any] = {
            "key": self.key,
            "size": 0 if described.is_empty else self.size,
            "tree_hash": self.tree_hash,
            "description": self.description,
        }
        return facts if self.date is None else {**facts, "date": self.date}

    def as_object(self) -> StoredObject:
        """Return the archive as the other listings describe objects."""
        return described_object(self.key, self.archive_id, self.facts())


@dataclass(frozen=True, slots=True)
class VaultInventory:
    """What a vault lists of itself, as it was some hours or a day ago."""

    archives: list[VaultArchive]
    made_at: float | None
    """Epoch seconds UTC; what was stored and deleted later is not in it yet."""


def read_vault_inventory(content: bytes, shown: str) -> VaultInventory:
    """Read the output of an inventory job; *shown* is the vault, for a message.

    Raises StorageError when it is none.
    """
    try:
        said = json.loads(content)
        archives = [
            VaultArchive(
                str(each["ArchiveId"]),
                Description.decode(each.get("ArchiveDescription")).key,
                int(each["Size"]),
                epoch_seconds(each.get("CreationDate")),
                str(each.get("ArchiveDescription") or ""),
                str(each.get("SHA256TreeHash") or ""),
            )
            for each in said["ArchiveList"]
        ]
        return VaultInventory(archives, epoch_seconds(said.get("InventoryDate")))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise StorageError(f"the inventory of {shown} cannot be read: {exc}") from exc
