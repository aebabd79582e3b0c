"""Restore a backup, or say how far its thaw is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import bakthat
from bakthat.cli.app import DAILY, UPKEEP, command, option, run_operation
from bakthat.cli.exit_codes import ExitCode
from bakthat.cli.options import (
    with_destination,
    with_host,
    with_keys,
    with_profile,
    with_source,
    with_via,
    without_password,
)
from bakthat.cli.output import Summary, print_incomplete, print_listing, print_result
from bakthat.cli.process import keep_freed_memory
from bakthat.cli.progress import progress_bar
from bakthat.policy.storage_classes import DEFAULT_DAYS, STANDARD, TIERS
from bakthat.system import terminal
from bakthat.system.text import counted, human_size

if TYPE_CHECKING:
    from bakthat.models import Backups


@command(
    "restore",
    "restore a backup",
    group=DAILY,
    example="bakthat restore etc --only hosts --output /tmp/restored",
    exits={
        ExitCode.INCOMPLETE: "restored, but a warning says what differs from the backup",
        ExitCode.NOT_READY: "the thaw was requested: run the command again when it is ready",
    },
)
@option("filename", metavar="BACKUP", help="stored filename, name of the set, or beginning")
@option(
    "-o", "--output", metavar="DIR", help="directory to restore into (default: the current one)"
)
@option(
    "--only",
    section="what comes back",
    action="append",
    default=[],
    metavar="PATH",
    help="only this file or directory of the backup, or what this pattern of .gitignore matches; "
    "may be given several times",
)
@option(
    "--to-command",
    section="what comes back",
    metavar="LINE",
    help="let this line, run by the shell, read a stream; no file appears",
)
@option(
    "--into",
    section="databases",
    metavar="URL",
    help="load a dump into this database, such as postgresql://host/shop_copy",
)
@option(
    "--replace",
    section="databases",
    action="store_true",
    help="replace what is in the database",
)
@with_via
@option(
    "--no-index",
    section="what comes back",
    action="store_true",
    help="read all, and ignore what the index says",
)
@option(
    "--keep-going",
    section="what comes back",
    action="store_true",
    help="leave out what the file system cannot hold",
)
@option(
    "--partial",
    section="what comes back",
    action="store_true",
    help="of an increment, restore what is left when an archive that it needs is missing",
)
@with_keys
@option(
    "--tier",
    section="cold storage",
    default=STANDARD,
    choices=TIERS,
    help="speed of the thaw; faster costs more",
)
@option(
    "--days",
    section="cold storage",
    type=int,
    default=DEFAULT_DAYS,
    help="S3: days that the thawed copy is kept",
)
@option(
    "--wait",
    section="cold storage",
    action="store_true",
    help="wait until cold storage has thawed the backup",
)
@option(
    "--any-size",
    section="what comes back",
    action="store_true",
    help="do not limit the unpacked size",
)
@option(
    "--job-check",
    section="cold storage",
    action="store_true",
    help="only print the status of the thaw",
)
@with_destination
@with_host
@with_source
@with_profile
def restore(
    *,
    filename: str,
    output: str | None,
    only: list[str],
    to_command: str | None,
    into: str | None,
    replace: bool,
    via: str | None,
    no_index: bool,
    keep_going: bool,
    partial: bool,
    prompt: str,
    identity_file: str | None,
    tier: str,
    days: int,
    wait: bool,
    any_size: bool,
    job_check: bool,
    destination: str | None,
    host: str | None,
    source: str | None,
    profile: str,
    config: str | None,
) -> int | None:
    """Run ``bakthat restore``."""
    if job_check:
        return _print_thaw_status(
            filename, destination, profile, config, host=host, source=source, only=only
        )
    keep_freed_memory()
    # Imported here, as it is only loaded for a backup and a restore.
    from bakthat.archive.report import ArchiveReport

    report = ArchiveReport()

    def run() -> Backups | None:
        with progress_bar("Downloading", moved="written") as progress:
            return bakthat.restore(
                filename,
                destination,
                profile,
                config,
                output=output,
                host=host,
                source=source,
                identity_file=identity_file,
                prompt=prompt,
                tier=tier,
                days=days,
                wait=wait,
                any_size=any_size,
                only=only,
                use_index=not no_index,
                keep_going=keep_going,
                partial=partial,
                to_command=to_command,
                into=without_password(into),
                replace=replace,
                via=via,
                report=report,
                progress=progress,
            )

    def show(entry: Backups | None) -> None:
        if entry is None:  # the log says how far the thaw is
            print_listing(None, (), pending=True)
            return
        if not entry.is_complete:
            print_incomplete("restored", entry.warning_count, "differ from the backup")
        print_result(
            Summary(
                f"Restored {entry.stored_filename}",
                report.seconds,
                files=report.files,
                bytes=report.bytes,
                into=into or ("a command" if to_command is not None else output or os.curdir),
                stored=entry.size,
                where=f"from {entry.where}",
                warnings=entry.warning_count,
            ),
            lines=[("backup", entry.as_dict())],
        )

    restored = run_operation("restore", run, show)
    if restored is None:
        return ExitCode.NOT_READY
    return None if restored.is_complete else ExitCode.INCOMPLETE


@command(
    "drill",
    "prove that a backup restores, in a scratch place",
    group=UPKEEP,
    example="bakthat drill shop --into postgresql://db1 --check 'SELECT id FROM orders'",
    exits={
        ExitCode.FAILED: "it does not restore, or a check failed",
        ExitCode.NOT_READY: "it is in cold storage and must be thawed first",
    },
)
@option("filename", metavar="BACKUP", help="stored filename, name of the set, or beginning")
@option(
    "--check",
    section="checks",
    dest="checks",
    action="append",
    default=[],
    metavar="SQL",
    help="a query that must give a row whose first value is neither 0 nor NULL; may be given "
    "several times",
)
@option(
    "--check-command",
    section="checks",
    metavar="LINE",
    help="a line for the shell, run in the scratch directory, that must succeed; $BAKTHAT_DRILL is "
    "the directory, or the file or URL of the scratch database",
)
@option(
    "--into",
    section="scratch",
    metavar="URL",
    help="the server for the scratch database, such as postgresql://localhost",
)
@option(
    "--scratch",
    section="scratch",
    metavar="DIR",
    help="where the scratch directory is made (default: $TMPDIR, or /tmp)",
)
@with_via
@with_keys
@with_destination
@with_host
@with_source
@with_profile
def drill(
    *,
    filename: str,
    checks: list[str],
    check_command: str | None,
    into: str | None,
    scratch: str | None,
    via: str | None,
    prompt: str,
    identity_file: str | None,
    destination: str | None,
    host: str | None,
    source: str | None,
    profile: str,
    config: str | None,
) -> None:
    """Run ``bakthat drill``."""
    keep_freed_memory()

    def run() -> Backups:
        with progress_bar("Downloading", moved="written") as progress:
            return bakthat.drill(
                filename,
                destination,
                profile,
                config,
                host=host,
                source=source,
                identity_file=identity_file,
                prompt=prompt,
                into=without_password(into),
                via=via,
                check=checks,
                check_command=check_command,
                scratch=scratch,
                progress=progress,
            )

    def show(entry: Backups) -> None:
        result = entry.metadata["drill"]
        passed = f", {counted(result['checks'], 'check')} passed" if result["checks"] else ""
        print_result(
            Summary(
                f"{entry.stored_filename} restores: {human_size(result['bytes'])}{passed}",
                result["seconds"],
                facts={"bytes": result["bytes"], "checks": result["checks"]},
            ),
            lines=[("backup", entry.as_dict())],
        )

    run_operation("drill", run, show)


def _print_thaw_status(
    filename: str,
    destination: str | None,
    profile: str,
    config: str | None,
    *,
    host: str | None,
    source: str | None,
    only: list[str],
) -> int | None:
    from bakthat.session.cold import describe

    status = bakthat.thaw_status(
        filename, destination, profile, config, host=host, source=source, only=only
    )
    print_listing(
        lambda: terminal.print_line(describe(status)),
        [("status", status.as_dict())],
    )
    return None if status.is_readable else ExitCode.NOT_READY
