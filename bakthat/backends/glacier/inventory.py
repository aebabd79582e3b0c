"""The archives of a vault: bakthat's records of them, and the vault's own inventory."""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from bakthat.backends.base import StoredObject
from bakthat.backends.glacier.client import Description, epoch_seconds
from bakthat.errors import StorageError
from bakthat.policy.storage_classes import VAULT


@dataclass(frozen=True, slots=True)
class VaultRecords:
    """The records of a vault's archives: the vault itself knows them only by their ids.

    The session makes them from the catalog, which a backend does not know.
    """

    inventory: MutableMapping[str, str] = field(default_factory=dict)
    """The archive id of each key. Its ``setdefault`` must be atomic among all writers."""
    jobs: MutableMapping[str, str] = field(default_factory=dict)
    """The id of the last retrieval job of each key."""
    archives: MutableMapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The facts about each archive, by its id: a mapping that JSON can hold. The vault returns them
    only through an inventory job, which takes hours. A deleted archive stays, with ``deleted`` in
    its facts: jobs and inventories of the vault name it for some more days. ``vault`` names the
    vault of the archive, since these mappings hold the archives of all vaults."""


@dataclass(frozen=True, slots=True)
class VaultArchive:
    """One archive as the inventory of its vault lists it."""

    archive_id: str
    key: str
    """The stored name, from the description; "" when the description is not bakthat's."""
    size: int
    """In bytes, as stored."""
    date: float | None
    """Epoch seconds UTC; None when it cannot be read."""
    description: str
    tree_hash: str

    def facts(self) -> dict[str, Any]:
        """Return the facts that :attr:`VaultRecords.archives` holds."""
        described = Description.decode(self.description)
        facts: dict[str, Any] = {
            "key": self.key,
            "size": 0 if described.is_empty else self.size,
            "tree_hash": self.tree_hash,
            "description": self.description,
        }
        return facts if self.date is None else {**facts, "date": self.date}

    def as_object(self) -> StoredObject:
        """Return the archive as an object, like those of other backends."""
        return described_object(self.key, self.archive_id, self.facts())


@dataclass(frozen=True, slots=True)
class VaultListing:
    """The inventory that a vault made of itself, some hours or a day ago."""

    archives: list[VaultArchive]
    made_at: float | None
    """Epoch seconds UTC; the listing lacks later uploads and deletions."""


def described_object(key: str, archive_id: str, facts: Mapping[str, Any]) -> StoredObject:
    """Return an archive as *facts*, one of :attr:`VaultRecords.archives`, describe it."""
    described = Description.decode(facts.get("description"))
    size = facts.get("size")
    return StoredObject(
        key,
        size if isinstance(size, int) else -1,
        last_modified=facts.get("date"),
        metadata=described.metadata,
        storage_class=VAULT,
        extra={"archive_id": archive_id, "tree_hash": str(facts.get("tree_hash", ""))},
    )


def parse_listing(content: bytes, shown: str) -> VaultListing:
    """Return the listing in *content*, the output of an inventory job; *shown* is for a message.

    Raises StorageError when *content* is not an inventory.
    """
    try:
        inventory = json.loads(content)
        archives = [
            VaultArchive(
                str(each["ArchiveId"]),
                Description.decode(each.get("ArchiveDescription")).key,
                int(each["Size"]),
                epoch_seconds(each.get("CreationDate")),
                str(each.get("ArchiveDescription") or ""),
                str(each.get("SHA256TreeHash") or ""),
            )
            for each in inventory["ArchiveList"]
        ]
        return VaultListing(archives, epoch_seconds(inventory.get("InventoryDate")))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise StorageError(
            f"the inventory of {shown} cannot be read: {exc}",
            hint="request another one: bakthat show_glacier_inventory",
        ) from exc
