"""Sync the catalog, check backups, and clean up."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import bakthat
from bakthat.cli.app import UPKEEP, command, option
from bakthat.cli.exit_codes import ExitCode
from bakthat.cli.options import options_of, with_destination, with_host, with_keys, with_profile
from bakthat.cli.output import Summary, print_error, print_result
from bakthat.cli.progress import progress_bar
from bakthat.errors import UsageError
from bakthat.policy.defaults import DEFAULT_LEFTOVER_AGE
from bakthat.system import terminal, text

if TYPE_CHECKING:
    from bakthat.operations.check.result import CheckResult
    from bakthat.operations.cleanup import CleanupItem
    from bakthat.operations.sync.report import Change, IndexChange
    from bakthat.session.versions.past import PastBackup


@command(
    "sync",
    "make the catalog agree with what is stored",
    group=UPKEEP,
    example="bakthat sync --dry-run",
    exits={
        ExitCode.FAILED: "failed, or a backup of --as-of cannot be brought back",
        ExitCode.INCOMPLETE: "synced, but some backups could not be adopted",
        ExitCode.NOT_READY: "the vault's list is not ready yet: run the command again",
    },
)
@option("--dry-run", action="store_true", help="show what would change, and change nothing")
@option(
    "--wait", action="store_true", help="wait until the vault has made its list, which takes hours"
)
@option(
    "--indexes",
    action="store_true",
    help="make missing and damaged indexes again, by reading the backups",
)
@option(
    "--as-of",
    metavar="TIME",
    help="only list what the bucket had then, and what became of it: '2026-07-01 12:00' (UTC), or "
    "an age such as 2D",
)
@with_keys
@with_destination
@with_profile
def sync(
    *,
    dry_run: bool,
    wait: bool,
    indexes: bool,
    as_of: str | None,
    prompt: str,
    identity_file: str | None,
    destination: str | None,
    profile: str,
    config: str | None,
) -> int | None:
    """Run ``bakthat sync``."""
    if as_of is not None:
        if wait or indexes:
            raise UsageError(
                "--as-of only lists: it takes neither --wait nor --indexes",
                hint="leave them out; bakthat undelete brings back what it lists",
            )
        return _show_stored_at(as_of, destination=destination, profile=profile, config=config)
    started = time.monotonic()
    with progress_bar("Syncing", counts_bytes=False) as progress:
        report = bakthat.sync(
            destination,
            profile,
            config,
            dry_run=dry_run,
            wait=wait,
            indexes=indexes,
            identity_file=identity_file,
            prompt=prompt,
            progress=progress,
        )
    if report.has_failed:
        print_error("the index of some backups could not be made")
    changes: list[Change | IndexChange] = [*report.changes, *report.index_changes]
    print_result(
        Summary(report.summary(), time.monotonic() - started, facts=report.as_dict()),
        (lambda: _print_changes(changes)) if dry_run else None,
        (("change", each.as_dict()) for each in (*report.changes, *(report.indexes or ()))),
    )
    if report.has_failed:
        return ExitCode.FAILED
    if report.is_pending:
        return ExitCode.NOT_READY
    return None if report.is_complete else ExitCode.INCOMPLETE


def _print_changes(changes: Sequence[Change | IndexChange]) -> None:
    rows = [
        (
            change.what,
            text.shown_time(change.backup.backup_date),
            change.backup.backend,
            change.backup.host,
            text.human_size(change.backup.size),
            change.backup.stored_filename,
        )
        for change in changes
    ]
    header = ("WHAT", f"DATE ({text.shown_zone()})", "WHERE", "HOST", "SIZE", "NAME")
    terminal.print_table(header, rows, right=frozenset({4}))


def _show_stored_at(
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
        lambda: _print_stored(found.backups),
        (("backup", each.as_dict()) for each in found.backups),
    )
    return ExitCode.FAILED if found.gone else None


def _print_stored(backups: list[PastBackup]) -> None:
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


@command(
    "check",
    "check that the backups are stored and can be read",
    group=UPKEEP,
    example="bakthat check --read-data --sample 5%",
    exits={
        ExitCode.FAILED: "a backup is missing or damaged, or failed",
        ExitCode.NOT_READY: "all are in cold storage: none was read",
    },
)
@option(
    "filename",
    metavar="BACKUP",
    nargs="?",
    default="",
    help="stored filename, name of the set, or beginning",
)
@option("--read-data", action="store_true", help="read each backup to its end; writes nothing")
@option(
    "--sample",
    metavar="N|PERCENT",
    help="check N backups, picked at random; or read P percent of each, another part each time",
)
@with_keys
@with_destination
@with_host
@with_profile
def check(
    *,
    filename: str,
    read_data: bool,
    sample: str | None,
    prompt: str,
    identity_file: str | None,
    destination: str | None,
    host: str | None,
    profile: str,
    config: str | None,
) -> int | None:
    """Run ``bakthat check``."""
    started = time.monotonic()
    reads = read_data or "%" in (sample or "")
    with progress_bar("Checking", counts_bytes=reads) as progress:
        found = bakthat.check(
            filename,
            destination,
            profile,
            config,
            host=host,
            read_data=read_data,
            sample=sample,
            identity_file=identity_file,
            prompt=prompt,
            progress=progress,
        )
    bad = sum(not each.is_good for each in found)
    if bad:
        print_error(f"{bad} of {text.counted(len(found), 'backup')} failed the check")
    print_result(
        Summary(
            _describe_checked(found, reads),
            time.monotonic() - started,
            facts={"backups": len(found), "wrong": bad},
        ),
        lambda: _print_checked(found),
        (("check", each.as_dict()) for each in found),
    )
    if bad:
        return ExitCode.FAILED
    is_unread = reads and all(each.verdict == "cold" for each in found)
    return ExitCode.NOT_READY if is_unread else None


def _describe_checked(found: list[CheckResult], reads: bool) -> str:
    good = sum(each.is_good for each in found)
    cold = sum(each.verdict == "cold" for each in found)
    in_cold = f" ({cold} in cold storage, not read)" if cold and reads else ""
    checked = text.counted(len(found), "backup")
    without = sum(bool(each.index_problem) for each in found)
    indexes = f"; {text.counted(without, 'backup')} without a good index" if without else ""
    return f"Checked {checked}: {good} good{in_cold}, {len(found) - good} wrong{indexes}"


def _print_checked(checked: list[CheckResult]) -> None:
    rows = [
        (
            each.verdict.value,
            text.shown_time(each.backup.backup_date),
            each.backup.backend,
            text.human_size(each.backup.size),
            each.backup.stored_filename,
            "; ".join(filter(None, (each.detail, each.index_problem))),
        )
        for each in checked
    ]
    header = ("FOUND", f"DATE ({text.shown_zone()})", "WHERE", "SIZE", "NAME", "DETAIL")
    terminal.print_table(header, rows, right=frozenset({3}))


@command(
    "cleanup",
    "remove what killed processes left behind; never a backup",
    group=UPKEEP,
    example="bakthat cleanup --dry-run",
)
@option(
    "--older-than",
    default=DEFAULT_LEFTOVER_AGE,
    metavar="INTERVAL",
    help=f"such as 12h or 3D (default: {DEFAULT_LEFTOVER_AGE})",
)
@option("--dry-run", action="store_true", help="show what would be removed, and remove nothing")
@with_destination
@with_profile
def cleanup(
    *,
    older_than: str,
    dry_run: bool,
    destination: str | None,
    profile: str,
    config: str | None,
) -> None:
    """Run ``bakthat cleanup``."""
    started = time.monotonic()
    found = bakthat.cleanup(destination, profile, config, older_than=older_than, dry_run=dry_run)
    done = "Would remove" if dry_run else "Removed"
    summary = Summary(
        f"{done} {text.counted(len(found), 'leftover')} older than {older_than}",
        time.monotonic() - started,
        facts={"leftovers": len(found)},
    )
    print_result(
        summary,
        (lambda: _print_leftovers(found)) if dry_run else None,
        (("change", each.as_dict()) for each in found),
    )


def _print_leftovers(found: list[CleanupItem]) -> None:
    rows = [
        (
            each.kind,
            "" if each.begun_at is None else text.shown_time(each.begun_at),
            each.where,
            text.human_size(each.size) if each.size >= 0 else "",
            each.name,
        )
        for each in found
    ]
    header = ("WHAT", f"BEGUN ({text.shown_zone()})", "WHERE", "SIZE", "NAME")
    terminal.print_table(header, rows, right=frozenset({3}))
