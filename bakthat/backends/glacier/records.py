"""What is kept of a vault outside of it; core hands it in, for a backend knows no catalog."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class VaultRecords:
    """What must be kept outside of a vault, which knows archives by their ids only."""

    inventory: MutableMapping[str, str] = field(default_factory=dict)
    """The archive id of each key. Its ``setdefault`` must be one step for all who write."""
    jobs: MutableMapping[str, str] = field(default_factory=dict)
    """The id of the last retrieval job of each key."""
    archives: MutableMapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What is known of each archive, by its id: a mapping for JSON. A vault itself tells it only
    by an inventory job, which takes hours. What was deleted stays, with ``deleted`` in it: jobs
    and inventories of the vault go on to name it for days. ``vault`` says which one it is in,
    for the other mappings hold those of all vaults."""
