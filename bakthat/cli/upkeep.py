"""Bring catalog and storage together, look whether what is stored is good, and tidy up."""

from __future__ import annotations

import time
from typing import Any

from bakthat.cli.app import command, option, print_json, with_destination, with_host, with_profile
from bakthat.cli.log import complain
from bakthat.cli.progress import progress_bar
from bakthat.cli.run import FAILED, NOT_READY
from bakthat.system import terminal, text


@command("sync", "make the catalog agree with what is stored; deletes nothing from the storage")
@option("--dry-run", action="store_true", help="show what would change, and change nothing")
@option("--wait", action="store_true", help="wait until the vault has made its list, for hours")
@option("--json", action="store_true", help="print what changed as JSON")
@with_destination
@with_profile
def sync(**arguments: Any) -> int | None:
    """Run ``bakthat sync``."""
    from bakthat.operations.sync import operation

    as_json = arguments.pop("json")
    with progress_bar("Looking", counts_bytes=False) as progress:
        report = operation.sync(**arguments, progress=progress)
    if as_json:
        print_json(report.as_dict())
    elif report.is_dry_run:
        rows = [
            (
                change.action.value,
                _moment(change.backup.backup_date),
                change.backup.backend,
                change.backup.host,
                text.human_size(change.backup.size),
                change.backup.stored_filename,
            )
            for change in report.changes
        ]
        header = ("WHAT", "DATE (UTC)", "WHERE", "HOST", "SIZE", "NAME")
        terminal.print_table(header, rows, right=frozenset({4}))
    return NOT_READY if report.is_pending else None


@command("check", "look whether what the catalog lists is stored, and can be read")
@option("filename", nargs="?", default="", help="stored filename, name of the backup, or beginning")
@option("--read-data", action="store_true", help="read each backup to its end; writes nothing")
@option("--sample", type=int, metavar="N", help="only N of them, picked at random")
@option("--prompt", default="yes", choices=("yes", "no"), help="no: never ask for a password")
@option("--identity-file", metavar="FILE", help="age private keys")
@option("--json", action="store_true", help="print JSON")
@with_destination
@with_host
@with_profile
def check(**arguments: Any) -> int | None:
    """Run ``bakthat check``."""
    from bakthat.operations import check as operation

    as_json = arguments.pop("json")
    with progress_bar("Checking", counts_bytes=arguments["read_data"]) as progress:
        found = operation.check(**arguments, progress=progress)
    if as_json:
        print_json([each.as_dict() for each in found])
    else:
        rows = [
            (
                each.verdict.value,
                _moment(each.backup.backup_date),
                each.backup.backend,
                text.human_size(each.backup.size),
                each.backup.stored_filename,
                each.detail,
            )
            for each in found
        ]
        header = ("FOUND", "DATE (UTC)", "WHERE", "SIZE", "NAME", "DETAIL")
        terminal.print_table(header, rows, right=frozenset({3}))
    wrong = sum(not each.is_good for each in found)
    if wrong:
        complain(f"{wrong} of {len(found)} backups are not as they should be")
        return FAILED
    return None


@command("cleanup", "remove what killed processes left behind; never a backup")
@option("--older-than", default="1D", metavar="INTERVAL", help="such as 12h or 3D (default: 1D)")
@option("--dry-run", action="store_true", help="show what would be removed, and remove nothing")
@option("--json", action="store_true", help="print it as JSON")
@with_destination
@with_profile
def cleanup(**arguments: Any) -> None:
    """Run ``bakthat cleanup``."""
    from bakthat.operations import cleanup as operation

    as_json = arguments.pop("json")
    found = operation.cleanup(**arguments)
    if as_json:
        print_json([each.as_dict() for each in found])
    elif arguments["dry_run"]:
        rows = [
            (
                each.kind,
                _moment(each.begun_at),
                each.where,
                text.human_size(each.size) if each.size >= 0 else "",
                each.name,
            )
            for each in found
        ]
        terminal.print_table(
            ("WHAT", "BEGUN (UTC)", "WHERE", "SIZE", "NAME"), rows, right=frozenset({3})
        )


def _moment(when: float | None) -> str:
    return "" if when is None else time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(when))
