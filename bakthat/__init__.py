"""Back up files as plain archives to S3, Glacier or a local directory.

The public API; importing it does nothing, and each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bakthat.checking import check
    from bakthat.cleaning import cleanup
    from bakthat.core import backup, delete, ls, restore, show
    from bakthat.errors import BakthatError
    from bakthat.hooks import events
    from bakthat.inventory import (
        backup_glacier_inventory,
        restore_glacier_inventory,
        show_glacier_inventory,
        show_local_glacier_inventory,
    )
    from bakthat.retention import delete_older_than, rotate, rotate_backups
    from bakthat.syncing import sync
    from bakthat.thawing import jobs

__version__ = "1.0.0.dev0"

__all__ = [
    "BakthatError",
    "backup",
    "backup_glacier_inventory",
    "check",
    "cleanup",
    "delete",
    "delete_older_than",
    "events",
    "jobs",
    "ls",
    "restore",
    "restore_glacier_inventory",
    "rotate",
    "rotate_backups",
    "show",
    "show_glacier_inventory",
    "show_local_glacier_inventory",
    "sync",
]

_HOMES = {
    "BakthatError": "bakthat.errors",
    "backup": "bakthat.core",
    "backup_glacier_inventory": "bakthat.inventory",
    "check": "bakthat.checking",
    "cleanup": "bakthat.cleaning",
    "delete": "bakthat.core",
    "delete_older_than": "bakthat.retention",
    "events": "bakthat.hooks",
    "jobs": "bakthat.thawing",
    "ls": "bakthat.core",
    "restore": "bakthat.core",
    "restore_glacier_inventory": "bakthat.inventory",
    "rotate": "bakthat.retention",
    "rotate_backups": "bakthat.retention",
    "show": "bakthat.core",
    "show_glacier_inventory": "bakthat.inventory",
    "show_local_glacier_inventory": "bakthat.inventory",
    "sync": "bakthat.syncing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bakthat' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
