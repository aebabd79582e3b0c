"""What a bucket had at a time, for ``sync --as-of``."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

import bakthat
from bakthat.cli.exit_codes import ExitCode
from bakthat.cli.options import options_of
from bakthat.cli.output import Summary, print_error, print_result
from bakthat.cli.progress import progress_bar
from bakthat.system import terminal, text

if TYPE_CHECKING:
    from bakthat.session.versions.past import PastBackup


def show_stored_at(
    as_of: str, *, destination: str | None, profile: str, config: str | None
) -> int | None:
    """List what the bucket had at a time, and what became of it. Return the exit code."""
    started = time.monotonic()
    with progress_bar("Looking", counts_bytes=False) as progress:
        found = bakthat.stored_at(as_of, destination, profile, config, progress=progress)
    if found.gone:
        count = text.counted(len(found.gone), "backup")
        print_error(f"{count} of that time cannot be brought back: no version is left")
    again = f"{shlex.quote(text.utc_time(found.time))}{options_of(profile, config)}"
    summary = Summary(
        found.summary(),
        time.monotonic() - started,
        next_step=f"bring all of them back: bakthat undelete --all --as-of {again}"
        if found.hidden
        else "",
        facts=found.as_dict(),
    )
    print_result(
        summary,
        lambda: _print_backups(found.backups),
        (("backup", each.as_dict()) for each in found.backups),
    )
    return ExitCode.FAILED if found.gone else None


def _print_backups(backups: list[PastBackup]) -> None:
    rows = [
        (
            each.what,
            "" if each.changed_at is None else text.shown_time(each.changed_at),
            text.shown_time(each.backup.backup_date),
            text.human_size(each.backup.size) if each.backup.size >= 0 else "",
            each.backup.stored_filename,
            each.detail,
        )
        for each in backups
    ]
    zone = text.shown_zone()
    header = ("STATE", f"SINCE ({zone})", f"DATE ({zone})", "SIZE", "NAME", "DETAIL")
    terminal.print_table(header, rows, right=frozenset({3}))
