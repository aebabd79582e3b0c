"""Cold storage: list thaws, and show the inventory of a vault in its three places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import bakthat
from bakthat.cli.app import COLD, command, option
from bakthat.cli.exit_codes import ExitCode
from bakthat.cli.options import with_destination, with_profile
from bakthat.cli.output import print_listing
from bakthat.system import terminal, text

if TYPE_CHECKING:
    from bakthat.backends.glacier.inventory import VaultArchive
    from bakthat.operations.cold import Thaw


@command(
    "thaws",
    "list the backups that are thawing or thawed",
    group=COLD,
    example="bakthat thaws",
)
@with_destination
@with_profile
def thaws(*, destination: str | None, profile: str, config: str | None) -> None:
    """Run ``bakthat thaws``."""
    found = bakthat.thaws(destination, profile, config)
    print_listing(
        lambda: _print_thaws(found),
        (("status", thaw.as_dict()) for thaw in found),
        thaws=len(found),
    )


def _print_thaws(found: list[Thaw]) -> None:
    rows = [
        (
            thaw.status.key,
            thaw.backend,
            thaw.status.storage_class,
            thaw.status.tier,
            text.shown_minute(thaw.status.requested_at),
            "yes" if thaw.status.is_readable else "no",
            text.shown_minute(thaw.status.ready_until),
        )
        for thaw in found
    ]
    header = ("NAME", "WHERE", "CLASS", "TIER", "ASKED", "READY", "UNTIL")
    terminal.print_table(header, rows, right=frozenset())


@command(
    "show_glacier_inventory",
    "print the vault's own list of its archives",
    group=COLD,
    example="bakthat show_glacier_inventory",
    exits={ExitCode.NOT_READY: "the vault's list is not ready yet: run the command again"},
)
@option("--wait", action="store_true", help="wait until the vault has made its list")
@with_profile
def show_glacier_inventory(*, wait: bool, profile: str, config: str | None) -> int | None:
    """Run ``bakthat show_glacier_inventory``."""
    archives = bakthat.show_glacier_inventory(profile, config, wait=wait)
    from dataclasses import asdict

    found = archives or []
    print_listing(
        lambda: _print_vault(found) if archives is not None else None,
        (("archive", asdict(each)) for each in found),
        archives=len(found),
        pending=archives is None,
    )
    return ExitCode.NOT_READY if archives is None else None


def _print_vault(archives: list[VaultArchive]) -> None:
    rows = [
        (
            text.shown_minute(each.date),
            text.human_size(each.size),
            each.key or each.description,
            each.archive_id,
        )
        for each in archives
    ]
    terminal.print_table(("STORED", "SIZE", "NAME", "ARCHIVE ID"), rows, right=frozenset({1}))


@command(
    "show_local_glacier_inventory",
    "print this machine's list of the archives",
    group=COLD,
    example="bakthat show_local_glacier_inventory",
)
@with_profile
def show_local_glacier_inventory(*, profile: str, config: str | None) -> None:
    """Run ``bakthat show_local_glacier_inventory``."""
    archives = bakthat.show_local_glacier_inventory(profile, config)
    rows = sorted(archives.items())
    print_listing(
        lambda: terminal.print_table(("NAME", "ARCHIVE ID"), rows, right=frozenset()),
        (("archive", {"key": name, "archive_id": archive_id}) for name, archive_id in rows),
        archives=len(rows),
    )


@command(
    "backup_glacier_inventory",
    "write this machine's list to the bucket",
    group=COLD,
    example="bakthat backup_glacier_inventory",
)
@with_profile
def backup_glacier_inventory(*, profile: str, config: str | None) -> None:
    """Run ``bakthat backup_glacier_inventory``."""
    stored = bakthat.backup_glacier_inventory(profile, config)
    done = f"{len(stored)} archives are in the bucket's inventory"
    print_listing(lambda: terminal.print_line(done), (), archives=len(stored))


@command(
    "restore_glacier_inventory",
    "add the bucket's copy to this machine's list",
    group=COLD,
    example="bakthat restore_glacier_inventory",
)
@with_profile
def restore_glacier_inventory(*, profile: str, config: str | None) -> None:
    """Run ``bakthat restore_glacier_inventory``."""
    added = bakthat.restore_glacier_inventory(profile, config)
    done = f"{len(added)} archives were added to the inventory of this machine"
    print_listing(lambda: terminal.print_line(done), (), archives=len(added))
