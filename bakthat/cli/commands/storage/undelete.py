"""Bring back what somebody deleted or overwrote."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

import bakthat
from bakthat.cli.app import UPKEEP, command, option
from bakthat.cli.exit_codes import ExitCode
from bakthat.cli.options import options_of, with_destination, with_host, with_profile, with_source
from bakthat.cli.output import Summary, print_error, print_result
from bakthat.cli.progress import progress_bar
from bakthat.system import terminal, text

if TYPE_CHECKING:
    from bakthat.operations.undelete import Undeletion


@command(
    "undelete",
    "bring back a deleted backup from a bucket with versions",
    group=UPKEEP,
    example="bakthat undelete --all --as-of '2026-07-01 12:00'",
    exits={
        ExitCode.FAILED: "a backup is not back, or cannot be restored without others",
        ExitCode.INCOMPLETE: "the backups are back, but the index of one is not",
    },
)
@option(
    "filename",
    metavar="BACKUP",
    nargs="?",
    default="",
    help="stored filename, name of the set (its newest that is deleted or overwritten), or "
    "beginning",
)
@option("--all", action="store_true", help="all that BACKUP means; without BACKUP, all of --as-of")
@option(
    "--as-of",
    metavar="TIME",
    help="what was stored then, as it was then: '2026-07-01 12:00' (UTC) or an age such as 2D "
    "(default: the first version of each)",
)
@option("--dry-run", action="store_true", help="show what would be done, and do nothing")
@with_destination
@with_host
@with_source
@with_profile
def undelete(
    *,
    filename: str,
    all: bool,
    as_of: str | None,
    dry_run: bool,
    destination: str | None,
    host: str | None,
    source: str | None,
    profile: str,
    config: str | None,
) -> int | None:
    """Run ``bakthat undelete``."""
    started = time.monotonic()
    with progress_bar("Bringing back", counts_bytes=False) as progress:
        done = bakthat.undelete(
            filename,
            destination,
            profile,
            config,
            host=host,
            source=source,
            as_of=as_of,
            everything=all,
            dry_run=dry_run,
            progress=progress,
        )
    failed = [each for each in done if each.has_failed or not each.is_restorable]
    without_index = [each for each in done if each.index_action == "failed"]
    if failed:
        print_error(
            f"{len(failed)} of {text.counted(len(done), 'backup')} cannot be restored as before"
        )
    elif without_index:
        count = text.counted(len(without_index), "backup")
        print_error(f"the index of {count} is not back", "bakthat sync --indexes makes it again")
    changed = [each for each in done if each.is_changed]
    doing = "Would bring back" if dry_run else "Brought back"
    again = options_of(profile, config)
    name = done[-1].backup.stored_filename if len(done) == 1 else ""
    check = f"bakthat check --read-data{f' {shlex.quote(name)}' if name else ''}{again}"
    summary = Summary(
        f"{doing} {len(changed)} of {text.counted(len(done), 'backup')}",
        time.monotonic() - started,
        next_step=f"read what is back to its end: {check}" if changed and not dry_run else "",
        facts={
            "backups": len(done),
            "changed": len(changed),
            "failed": len(failed),
            "dry_run": dry_run,
        },
    )
    print_result(
        summary,
        (lambda: _print_done(done)) if done else None,
        (("change", each.as_dict()) for each in done),
    )
    if failed:
        return ExitCode.FAILED
    return ExitCode.INCOMPLETE if without_index else None


def _print_done(done: list[Undeletion]) -> None:
    rows = [
        (
            each.what,
            text.shown_time(each.backup.backup_date),
            text.human_size(each.backup.size) if each.backup.size >= 0 else "",
            each.backup.stored_filename,
            "; ".join(filter(None, ("needed by another" if each.needed else "", each.detail))),
        )
        for each in done
    ]
    header = ("WHAT", f"DATE ({text.shown_zone()})", "SIZE", "NAME", "DETAIL")
    terminal.print_table(header, rows, right=frozenset({2}))
