"""Cold storage: what is thawing, and the inventory of a vault in its three places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bakthat.cli.app import command, option, print_json, with_destination, with_profile
from bakthat.cli.run import NOT_READY
from bakthat.system import terminal, text


@command("jobs", "list what is being thawed from cold storage, and what is thawed")
@option("--json", action="store_true", help="print JSON")
@with_destination
@with_profile
def jobs(**arguments: Any) -> None:
    """Run ``bakthat jobs``."""
    from bakthat.operations import cold as operation
    from bakthat.session import cold

    as_json = arguments.pop("json")
    found = operation.jobs(**arguments)
    if as_json:
        print_json([job.as_dict() for job in found])
        return
    rows = [
        (
            job.thaw.key,
            job.backend,
            job.thaw.storage_class,
            job.thaw.tier,
            cold.show_moment(job.thaw.requested_at),
            "yes" if job.thaw.is_readable else "no",
            cold.show_moment(job.thaw.ready_until),
        )
        for job in found
    ]
    header = ("NAME", "WHERE", "CLASS", "TIER", "ASKED", "READY", "UNTIL")
    terminal.print_table(header, rows, right=frozenset())


@command(
    "show_glacier_inventory",
    "list the archives of the vault as it lists them itself; the first call asks for the list",
)
@option("--json", action="store_true", help="print JSON")
@option("--wait", action="store_true", help="wait until the vault has made its list")
@with_profile
def show_glacier_inventory(**arguments: Any) -> int | None:
    """Run ``bakthat show_glacier_inventory``."""
    import dataclasses

    from bakthat.operations import cold as operation
    from bakthat.session.cold import show_moment

    as_json = arguments.pop("json")
    archives = operation.show_glacier_inventory(**arguments)
    if archives is None:
        return NOT_READY
    if as_json:
        print_json([dataclasses.asdict(each) for each in archives])
        return None
    rows = [
        (
            show_moment(each.date),
            text.human_size(each.size),
            each.key or each.description,
            each.archive_id,
        )
        for each in archives
    ]
    terminal.print_table(("STORED", "SIZE", "NAME", "ARCHIVE ID"), rows, right=frozenset({1}))
    return None


@command("show_local_glacier_inventory", "list the archives of vaults that this machine knows")
@option("--json", action="store_true", help="print JSON")
@with_profile
def show_local_glacier_inventory(**arguments: Any) -> None:
    """Run ``bakthat show_local_glacier_inventory``."""
    from bakthat.operations import cold as operation

    as_json = arguments.pop("json")
    _print_archives(operation.show_local_glacier_inventory(**arguments), as_json=as_json)


@command("backup_glacier_inventory", "write the inventory of this machine to the bucket")
@with_profile
def backup_glacier_inventory(**arguments: Any) -> None:
    """Run ``bakthat backup_glacier_inventory``."""
    from bakthat.operations import cold as operation

    stored = operation.backup_glacier_inventory(**arguments)
    terminal.print_line(f"{len(stored)} archives are in the bucket's inventory")


@command(
    "restore_glacier_inventory", "add to the inventory of this machine what the bucket's copy has"
)
@with_profile
def restore_glacier_inventory(**arguments: Any) -> None:
    """Run ``bakthat restore_glacier_inventory``."""
    from bakthat.operations import cold as operation

    added = operation.restore_glacier_inventory(**arguments)
    terminal.print_line(f"{len(added)} archives were added to the inventory of this machine")


def _print_archives(archives: Mapping[str, str], *, as_json: bool) -> None:
    if as_json:
        print_json([{"filename": name, "archive_id": archives[name]} for name in sorted(archives)])
    else:
        terminal.print_table(("NAME", "ARCHIVE ID"), sorted(archives.items()), right=frozenset())
