"""Back up, restore, show, delete."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import bakthat
from bakthat.cli.app import (
    ExitCode,
    command,
    option,
    print_json,
    print_result,
    print_text,
    run_operation,
    with_destination,
    with_host,
    with_keys,
    with_profile,
    with_prompt,
    with_source,
)
from bakthat.cli.log import Summary, print_error
from bakthat.cli.preview import print_preview
from bakthat.cli.process import keep_freed_memory
from bakthat.cli.progress import progress_bar
from bakthat.errors import UsageError
from bakthat.policy.defaults import DETECT
from bakthat.policy.storage_classes import DEFAULT_DAYS, STANDARD, TIERS
from bakthat.system import terminal
from bakthat.system.text import counted

if TYPE_CHECKING:
    from bakthat.models import Backups


@command("backup", "back up a file or a directory")
@option("filename", nargs="?", help="file or directory (default: the current directory)")
@option("--name", dest="custom_filename", help="name of the backup (default: the base name)")
@option("--host", metavar="NAME", help="name of this host (default: the profile's or machine's)")
@option("-t", "--tags", default="", help="tags, separated by commas or spaces")
@with_prompt
@option(
    "--recipient",
    dest="recipients",
    action="append",
    default=[],
    metavar="AGE_PUBLIC_KEY",
    help="encrypt to this key; may be given several times",
)
@option(
    "--exclude-file", metavar="FILE", help="leave out what the .gitignore patterns in FILE match"
)
@option("--no-ignore", action="store_true", help="use neither .bakthatexclude nor .gitignore")
@option("--exclude-caches", action="store_true", help="leave out caches marked by CACHEDIR.TAG")
@option("--one-file-system", action="store_true", help="leave out other mounted file systems")
@option(
    "--create",
    action="store_true",
    help="make a store anew that has listed backups",
)
@option("--allow-empty", action="store_true", help="no warning when there is nothing to store")
@option(
    "--incremental",
    action="store_true",
    default=None,
    help="store only what has changed since an earlier backup",
)
@option("--full", action="store_true", help="with increments: make a full backup this time")
@option(
    "--skip-unchanged",
    action="store_true",
    default=None,
    help="with increments: no backup when nothing has changed",
)
@option("--detect", choices=DETECT, help="with increments: how changes are detected")
@option("--recheck", type=int, metavar="PERCENT", help="with increments: unchanged files to read")
@option("--dry-run", action="store_true", help="store nothing; print what would be stored, and why")
@option(
    "--why", metavar="PATH", help="store nothing; print why PATH, below the source, would be stored"
)
@option("--s3-reduced-redundancy", action="store_true", help="store with less redundancy on S3")
@option("--json", action="store_true", help="print the backup's entry as JSON")
@with_destination
@with_profile
def backup(
    *,
    filename: str | None,
    custom_filename: str | None,
    host: str | None,
    tags: str,
    prompt: str,
    recipients: list[str],
    exclude_file: str | None,
    no_ignore: bool,
    exclude_caches: bool,
    one_file_system: bool,
    create: bool,
    allow_empty: bool,
    incremental: bool | None,
    full: bool,
    skip_unchanged: bool | None,
    detect: str | None,
    recheck: int | None,
    dry_run: bool,
    why: str | None,
    s3_reduced_redundancy: bool,
    json: bool,
    destination: str | None,
    profile: str,
    config: str | None,
) -> int | None:
    """Run ``bakthat backup``."""
    started = time.monotonic()
    keep_freed_memory()
    if dry_run or why is not None:
        preview = bakthat.preview_backup(
            filename,
            destination,
            profile,
            config,
            prompt,
            exclude_file,
            custom_filename=custom_filename,
            host=host,
            recipients=recipients,
            ignore_files=not no_ignore,
            exclude_caches=exclude_caches,
            one_file_system=one_file_system,
            incremental=incremental,
            full=full,
            skip_unchanged=skip_unchanged,
            detect=detect,
            recheck=recheck,
            why=why,
        )
        print_preview(preview, explain=why is not None, json=json)
        return None

    def run() -> Backups:
        with progress_bar("Uploading") as progress:
            return bakthat.backup(
                filename,
                destination,
                profile,
                config,
                prompt,
                tags,
                exclude_file,
                s3_reduced_redundancy,
                custom_filename=custom_filename,
                host=host,
                recipients=recipients,
                ignore_files=not no_ignore,
                exclude_caches=exclude_caches,
                one_file_system=one_file_system,
                create=create,
                allow_empty=allow_empty,
                incremental=incremental,
                full=full,
                skip_unchanged=skip_unchanged,
                detect=detect,
                recheck=recheck,
                progress=progress,
            )

    def show(entry: Backups) -> None:
        if entry.is_skipped:
            print_result(
                Summary(
                    f"Nothing has changed since {entry.stored_filename}",
                    time.monotonic() - started,
                    where=f"on {entry.where}",
                ),
                (lambda: print_json(entry.as_dict())) if json else None,
            )
            return
        if not entry.is_complete:
            _print_incomplete("stored", entry.warning_count, "incomplete")
        print_result(_summary_of(entry), (lambda: print_json(entry.as_dict())) if json else None)

    entry = run_operation("backup", run, show)
    return None if entry.is_skipped or entry.is_complete else ExitCode.INCOMPLETE


def _summary_of(entry: Backups) -> Summary:
    return Summary(
        f"Stored as {entry.stored_filename}",
        entry.metadata["seconds"],
        files=entry.metadata["files"],
        bytes=entry.metadata["bytes"],
        unchanged=entry.metadata.get("unchanged"),
        stored=entry.size,
        where=f"on {entry.where}",
        warnings=entry.warning_count,
    )


def _print_incomplete(done: str, warnings: int, problem: str) -> None:
    print_error(f"{done} with {counted(warnings, 'warning')}; some files are missing or {problem}")


@command("restore", "restore a backup")
@option("filename", help="stored filename, name of the backup, or beginning of a stored filename")
@option(
    "-o", "--output", metavar="DIR", help="directory to restore into (default: the current one)"
)
@option(
    "--only",
    action="append",
    default=[],
    metavar="PATH",
    help="only this file or directory of the backup, or what this pattern of .gitignore matches; "
    "may be given several times",
)
@option("--no-index", action="store_true", help="read all, and ignore what the index says")
@option("--keep-going", action="store_true", help="leave out what the file system cannot hold")
@option(
    "--partial",
    action="store_true",
    help="of an increment, restore what is left when an archive that it needs is missing",
)
@with_keys
@option("--tier", default=STANDARD, choices=TIERS, help="speed of the thaw; faster costs more")
@option("--days", type=int, default=DEFAULT_DAYS, help="S3: days that the thawed copy is kept")
@option("--wait", action="store_true", help="wait until cold storage has thawed the backup")
@option("--any-size", action="store_true", help="do not limit the unpacked size")
@option("--job-check", action="store_true", help="only print the status of the thaw")
@with_destination
@with_host
@with_source
@with_profile
def restore(
    *,
    filename: str,
    output: str | None,
    only: list[str],
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
        with progress_bar("Downloading") as progress:
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
                report=report,
                progress=progress,
            )

    def show(entry: Backups | None) -> None:
        if entry is None:
            return
        if not entry.is_complete:
            _print_incomplete("restored", entry.warning_count, "differ from the backup")
        print_result(
            Summary(
                f"Restored {entry.stored_filename}",
                report.seconds,
                files=report.files,
                bytes=report.bytes,
                into=output or os.curdir,
                stored=entry.size,
                where=f"from {entry.where}",
                warnings=entry.warning_count,
            )
        )

    restored = run_operation("restore", run, show)
    if restored is None:
        return ExitCode.NOT_READY
    return None if restored.is_complete else ExitCode.INCOMPLETE


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
    terminal.print_line(describe(status))
    return None if status.is_readable else ExitCode.NOT_READY


@command("show", "list the backups", aliases=("ls",))
@option("query", nargs="?", default="", help="part of a name; with --by-hand, what restore takes")
@option("-t", "--tags", default="", help="only backups with one of these tags")
@option("--json", action="store_true", help="print JSON")
@option(
    "--by-hand",
    action="store_true",
    help="print a shell script that restores one backup without bakthat",
)
@with_keys
@with_destination
@with_host
@with_source
@with_profile
def show(
    *,
    query: str,
    tags: str,
    json: bool,
    by_hand: bool,
    prompt: str,
    identity_file: str | None,
    destination: str | None,
    host: str | None,
    source: str | None,
    profile: str,
    config: str | None,
) -> None:
    """Run ``bakthat show``."""
    if by_hand:
        if json or tags:
            raise UsageError(f"--by-hand takes no {'--json' if json else '--tags'}")
        script = bakthat.restore_script(
            query,
            destination,
            profile,
            config,
            host=host,
            source=source,
            identity_file=identity_file,
            prompt=prompt,
        )
        print_text(script)
    elif source is not None or identity_file is not None:
        given = "--source" if source is not None else "--identity-file"
        raise UsageError(f"show takes {given} with --by-hand only")
    elif json:
        from bakthat.operations.listing import relations

        found = bakthat.ls(query, destination, tags, profile, config, host=host)
        pairs = zip(found, relations(found, profile, config), strict=True)
        print_json([{**each.as_dict(), **related.as_dict(each)} for each, related in pairs])
    else:
        bakthat.show(query, destination, tags, profile, config, host=host)


@command("delete", "delete a backup")
@option("filename", help="stored filename, name of the backup (its newest), or NAME.DATE")
@option("--with-dependents", action="store_true", help="delete the increments that need it too")
@with_destination
@with_host
@with_source
@with_profile
def delete(
    *,
    filename: str,
    with_dependents: bool,
    destination: str | None,
    host: str | None,
    source: str | None,
    profile: str,
    config: str | None,
) -> None:
    """Run ``bakthat delete``."""
    started = time.monotonic()

    def run() -> Backups:
        return bakthat.delete(
            filename,
            destination,
            profile,
            config,
            host=host,
            source=source,
            with_dependents=with_dependents,
        )

    def show(entry: Backups) -> None:
        seconds = time.monotonic() - started
        where = f"from {entry.where}"
        done = f"Deleted {entry.stored_filename}"
        print_result(Summary(done, seconds, stored=entry.size, where=where))

    run_operation("delete", run, show)
