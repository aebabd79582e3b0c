"""Cold storage: list thaws, and show the inventory of a vault in its three places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import bakthat
from bakthat.cli.app import ExitCode, command, option, print_json, with_destination, with_profile
from bakthat.system import terminal, text

if TYPE_CHECKING:
    from bakthat.backends.glacier.inventory import VaultArchive
    from bakthat.operations.cold import ThawJob


@command("jobs", "list the backups that are thawing or thawed")
@option("--json", action="store_true", help="print JSON")
@with_destination
@with_profile
def jobs(*, json: bool, destination: str | None, profile: str, config: str | None) -> None:
    """Run ``bakthat jobs``."""
    found = bakthat.jobs(destination, profile, config)
    if json:
        print_json([job.as_dict() for job in found])
    else:
        _print_jobs(found)


def _print_jobs(found: list[ThawJob]) -> None:
    rows = [
        (
            job.thaw.key,
            job.backend,
            job.thaw.storage_class,
            job.thaw.tier,
            text.utc_minute(job.thaw.requested_at),
            "yes" if job.thaw.is_readable else "no",
            text.utc_minute(job.thaw.ready_until),
        )
        for job in found
    ]
    header = ("NAME", "WHERE", "CLASS", "TIER", "ASKED", "READY", "UNTIL")
    terminal.print_table(header, rows, right=frozenset())


@command(
    "show_glacier_inventory",
    "print the vault's own list of its archives; the first call requests the list",
)
@option("--json", action="store_true", help="print JSON")
@option("--wait", action="store_true", help="wait until the vault has made its list")
@with_profile
def show_glacier_inventory(
    *, json: bool, wait: bool, profile: str, config: str | None
) -> int | None:
    """Run ``bakthat show_glacier_inventory``."""
    archives = bakthat.show_glacier_inventory(profile, config, wait=wait)
    if archives is None:
        return ExitCode.NOT_READY
    if json:
        from dataclasses import asdict

        print_json([asdict(each) for each in archives])
    else:
        _print_vault(archives)
    return None


def _print_vault(archives: list[VaultArchive]) -> None:
    rows = [
        (
            text.utc_minute(each.date),
            text.human_size(each.size),
            each.key or each.description,
            each.archive_id,
        )
        for each in archives
    ]
    terminal.print_table(("STORED", "SIZE", "NAME", "ARCHIVE ID"), rows, right=frozenset({1}))


@command("show_local_glacier_inventory", "print this machine's inventory of vaults")
@option("--json", action="store_true", help="print JSON")
@with_profile
def show_local_glacier_inventory(*, json: bool, profile: str, config: str | None) -> None:
    """Run ``bakthat show_local_glacier_inventory``."""
    archives = bakthat.show_local_glacier_inventory(profile, config)
    if json:
        print_json([{"filename": name, "archive_id": archives[name]} for name in sorted(archives)])
    else:
        terminal.print_table(("NAME", "ARCHIVE ID"), sorted(archives.items()), right=frozenset())


@command("backup_glacier_inventory", "write the inventory of this machine to the bucket")
@with_profile
def backup_glacier_inventory(*, profile: str, config: str | None) -> None:
    """Run ``bakthat backup_glacier_inventory``."""
    stored = bakthat.backup_glacier_inventory(profile, config)
    terminal.print_line(f"{len(stored)} archives are in the bucket's inventory")


@command("restore_glacier_inventory", "add the bucket's copy to the inventory of this machine")
@with_profile
def restore_glacier_inventory(*, profile: str, config: str | None) -> None:
    """Run ``bakthat restore_glacier_inventory``."""
    added = bakthat.restore_glacier_inventory(profile, config)
    terminal.print_line(f"{len(added)} archives were added to the inventory of this machine")
