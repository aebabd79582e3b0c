"""Back up files as plain archives to S3, Glacier or a local directory.

The public API; importing it does nothing, and each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bakthat.drills import drill
    from bakthat.errors import BakthatError
    from bakthat.format.entry import Entry
    from bakthat.hooks import events
    from bakthat.jobs.run import run_jobs
    from bakthat.operations.access_policy import access_policy
    from bakthat.operations.backup.databases import backup_databases
    from bakthat.operations.backup.open_backup import open_backup
    from bakthat.operations.backup.operation import backup
    from bakthat.operations.backup.preview import preview_backup
    from bakthat.operations.browse.contents import contents
    from bakthat.operations.browse.diff import diff
    from bakthat.operations.browse.find import find
    from bakthat.operations.browse.open_file import open_file
    from bakthat.operations.by_hand.operation import restore_script
    from bakthat.operations.check.operation import check
    from bakthat.operations.cleanup import cleanup
    from bakthat.operations.cold import (
        backup_glacier_inventory,
        restore_glacier_inventory,
        show_glacier_inventory,
        show_local_glacier_inventory,
        thaws,
    )
    from bakthat.operations.delete import delete
    from bakthat.operations.doctor.operation import doctor
    from bakthat.operations.hold import hold, release
    from bakthat.operations.listing import ls, show
    from bakthat.operations.report.operation import report
    from bakthat.operations.restore.operation import restore, thaw_status
    from bakthat.operations.retention.operation import delete_older_than, rotate, rotate_backups
    from bakthat.operations.status.operation import status
    from bakthat.operations.sync.as_of import stored_at
    from bakthat.operations.sync.operation import sync
    from bakthat.operations.undelete import undelete

__version__ = "1.0.0.dev0"

__all__ = [
    "BakthatError",
    "Entry",
    "access_policy",
    "backup",
    "backup_databases",
    "backup_glacier_inventory",
    "check",
    "cleanup",
    "contents",
    "delete",
    "delete_older_than",
    "diff",
    "doctor",
    "drill",
    "events",
    "find",
    "hold",
    "ls",
    "open_backup",
    "open_file",
    "preview_backup",
    "release",
    "report",
    "restore",
    "restore_glacier_inventory",
    "restore_script",
    "rotate",
    "rotate_backups",
    "run_jobs",
    "show",
    "show_glacier_inventory",
    "show_local_glacier_inventory",
    "status",
    "stored_at",
    "sync",
    "thaw_status",
    "thaws",
    "undelete",
]

_HOMES = {
    "BakthatError": "bakthat.errors",
    "Entry": "bakthat.format.entry",
    "access_policy": "bakthat.operations.access_policy",
    "backup": "bakthat.operations.backup.operation",
    "backup_databases": "bakthat.operations.backup.databases",
    "backup_glacier_inventory": "bakthat.operations.cold",
    "check": "bakthat.operations.check.operation",
    "cleanup": "bakthat.operations.cleanup",
    "contents": "bakthat.operations.browse.contents",
    "delete": "bakthat.operations.delete",
    "delete_older_than": "bakthat.operations.retention.operation",
    "diff": "bakthat.operations.browse.diff",
    "doctor": "bakthat.operations.doctor.operation",
    "drill": "bakthat.drills",
    "events": "bakthat.hooks",
    "find": "bakthat.operations.browse.find",
    "hold": "bakthat.operations.hold",
    "ls": "bakthat.operations.listing",
    "open_backup": "bakthat.operations.backup.open_backup",
    "open_file": "bakthat.operations.browse.open_file",
    "preview_backup": "bakthat.operations.backup.preview",
    "release": "bakthat.operations.hold",
    "report": "bakthat.operations.report.operation",
    "restore": "bakthat.operations.restore.operation",
    "restore_glacier_inventory": "bakthat.operations.cold",
    "restore_script": "bakthat.operations.by_hand.operation",
    "rotate": "bakthat.operations.retention.operation",
    "rotate_backups": "bakthat.operations.retention.operation",
    "run_jobs": "bakthat.jobs.run",
    "show": "bakthat.operations.listing",
    "show_glacier_inventory": "bakthat.operations.cold",
    "show_local_glacier_inventory": "bakthat.operations.cold",
    "status": "bakthat.operations.status.operation",
    "stored_at": "bakthat.operations.sync.as_of",
    "sync": "bakthat.operations.sync.operation",
    "thaw_status": "bakthat.operations.restore.operation",
    "thaws": "bakthat.operations.cold",
    "undelete": "bakthat.operations.undelete",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bakthat' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
