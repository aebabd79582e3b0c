"""Back up, or say what a backup would store."""

from __future__ import annotations

import functools
import shlex
import time
from typing import TYPE_CHECKING

import bakthat
from bakthat.cli.app import DAILY, KEYS, command, option, run_operation
from bakthat.cli.commands.preview import print_preview
from bakthat.cli.exit_codes import ExitCode
from bakthat.cli.options import (
    options_of,
    with_destination,
    with_profile,
    with_prompt,
    with_via,
    without_password,
)
from bakthat.cli.output import (
    Summary,
    print_error,
    print_incomplete,
    print_listing,
    print_result,
    summary_of_backup,
)
from bakthat.cli.process import keep_freed_memory
from bakthat.cli.progress import progress_bar
from bakthat.errors import BakthatError, UsageError
from bakthat.policy.defaults import DETECT
from bakthat.system.paths import is_url
from bakthat.system.text import counted, printable

if TYPE_CHECKING:
    from bakthat.models import Backups


@command(
    "backup",
    "back up a file, a directory or a stream",
    group=DAILY,
    example="bakthat backup /etc --tags daily",
    exits={
        ExitCode.INCOMPLETE: "stored, but a warning says what is missing, or that the size is "
        "suspicious"
    },
)
@option(
    "filename",
    metavar="PATH",
    nargs="?",
    help="file or directory (default: the current directory), - for standard input, or the URL of "
    "a database",
)
@option(
    "--name",
    section="name",
    dest="custom_filename",
    metavar="SET",
    help="name of the backup (default: the base name)",
)
@option(
    "--host",
    section="name",
    metavar="NAME",
    help="name of this host (default: the profile's or machine's)",
)
@option("-t", "--tags", section="name", default="", help="tags, separated by commas or spaces")
@with_prompt
@option(
    "--recipient",
    section=KEYS,
    dest="recipients",
    action="append",
    default=[],
    metavar="AGE_PUBLIC_KEY",
    help="encrypt to this key; may be given several times",
)
@option(
    "--exclude-file",
    section="what is stored",
    metavar="FILE",
    help="leave out what the .gitignore patterns in FILE match",
)
@option(
    "--no-ignore",
    section="what is stored",
    action="store_true",
    help="use neither .bakthatexclude nor .gitignore",
)
@option(
    "--exclude-caches",
    section="what is stored",
    action="store_true",
    help="leave out caches marked by CACHEDIR.TAG",
)
@option(
    "--one-file-system",
    section="what is stored",
    action="store_true",
    help="leave out other mounted file systems",
)
@option(
    "--create",
    action="store_true",
    help="make a store anew that has listed backups",
)
@option(
    "--allow-empty",
    section="what is stored",
    action="store_true",
    help="no warning when there is nothing to store",
)
@option(
    "--command",
    section="streams",
    metavar="LINE",
    help="back up what this line prints, run by the shell; if it fails, nothing is stored",
)
@with_via
@option(
    "--timeout",
    section="streams",
    metavar="INTERVAL",
    help="end the command after this, such as 2h",
)
@option(
    "--fail-below",
    section="streams",
    metavar="PERCENT",
    help="store nothing below this part of the last size, such as 50%%",
)
@option(
    "--accept-size",
    section="streams",
    action="store_true",
    help="no warning about a size that is far from the last",
)
@option(
    "--incremental",
    section="increments",
    action="store_true",
    default=None,
    help="store only what has changed since an earlier backup",
)
@option("--full", section="increments", action="store_true", help="make a full backup this time")
@option(
    "--skip-unchanged",
    section="increments",
    action="store_true",
    default=None,
    help="no backup when nothing has changed",
)
@option("--detect", section="increments", choices=DETECT, help="how changes are detected")
@option(
    "--recheck", section="increments", type=int, metavar="PERCENT", help="unchanged files to read"
)
@option(
    "--dry-run",
    section="try",
    action="store_true",
    help="store nothing; print what would be stored, and why",
)
@option(
    "--why",
    section="try",
    metavar="PATH",
    help="store nothing; print why PATH, below the source, would be stored",
)
@option("--s3-reduced-redundancy", action="store_true", help="store with less redundancy on S3")
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
    command: str | None,
    timeout: str | None,
    fail_below: str | None,
    accept_size: bool,
    via: str | None,
    dry_run: bool,
    why: str | None,
    s3_reduced_redundancy: bool,
    destination: str | None,
    profile: str,
    config: str | None,
) -> int | None:
    """Run ``bakthat backup``."""
    started = time.monotonic()
    keep_freed_memory()
    if dry_run or why is not None:
        if command is not None or filename == "-" or is_url(filename):
            raise UsageError(
                "--dry-run and --why cannot tell what a stream would store before it is read",
                hint="leave them out",
            )
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
        print_preview(preview, explain=why is not None)
        return None

    def run() -> Backups:
        with progress_bar("Uploading", moved="stored") as progress:
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
                command=command,
                timeout=timeout,
                fail_below=fail_below,
                accept_size=accept_size,
                progress=progress,
            )

    def show(entry: Backups, *, is_last: bool = True) -> None:
        if entry.is_skipped:
            print_result(
                Summary(
                    f"Nothing has changed since {entry.stored_filename}",
                    time.monotonic() - started,
                    where=f"on {entry.where}",
                    facts={"skipped": True},
                ),
                lines=[("backup", entry.as_dict())],
            )
            return
        if entry.is_suspicious:
            print_error("stored, but its size is suspicious")
        elif not entry.is_complete and "dump" in entry.metadata:
            print_error(
                f"stored with {counted(entry.warning_count, 'warning')}: the dump lacks something"
            )
        elif not entry.is_complete:
            print_incomplete("stored", entry.warning_count, "incomplete")
        summary = _summary_of(entry, profile, config)
        print_result(summary, lines=[("backup", entry.as_dict())], is_last=is_last)

    if command is None and filename is not None and is_url(filename):
        # Imported here, as --help needs none of it.
        from bakthat.operations.backup.request import refuse_misplaced

        refuse_misplaced(
            "a database",
            exclude_file=exclude_file is not None,
            exclude_caches=exclude_caches,
            one_file_system=one_file_system,
            allow_empty=allow_empty,
            incremental=bool(incremental),
            full=full,
            skip_unchanged=bool(skip_unchanged),
            detect=detect is not None,
            recheck=recheck is not None,
        )
        with progress_bar("Uploading", moved="stored") as progress:
            stored = bakthat.backup_databases(
                without_password(filename) or "",
                destination,
                profile,
                config,
                custom_filename=custom_filename,
                via=via,
                timeout=timeout,
                fail_below=fail_below,
                accept_size=accept_size,
                recipients=recipients,
                prompt=prompt,
                tags=tags,
                host=host,
                s3_reduced_redundancy=s3_reduced_redundancy,
                create=create,
                progress=progress,
                on_stored=functools.partial(show, is_last=False),
            )
        print_listing(
            None,
            (),
            time.monotonic() - started,
            warnings=sum(each.warning_count for each in stored),
            files=len(stored),
            bytes=sum(each.metadata["bytes"] for each in stored),
            stored=sum(each.size for each in stored),
            skipped=False,
        )
        return None if all(each.is_complete for each in stored) else ExitCode.INCOMPLETE
    if via is not None:
        raise UsageError("--via is for databases", hint="name one: postgresql://host/shop")
    entry = run_operation("backup", run, show)
    return None if entry.is_skipped or entry.is_complete else ExitCode.INCOMPLETE


def _summary_of(entry: Backups, profile: str, config: str | None) -> Summary:
    return summary_of_backup(f"Stored as {entry.stored_filename}", entry)._replace(
        next_step=_without_bakthat(entry, profile, config), facts={"skipped": False}
    )


def _without_bakthat(entry: Backups, profile: str, config: str | None) -> str:
    # Imported here, as only a backup that was made needs it.
    from bakthat.operations.by_hand.operation import restore_line

    try:
        line = restore_line(entry, profile, config)
    except BakthatError:  # the configuration has changed meanwhile, and the backup is stored
        return ""
    if line:
        return f"Without bakthat: {line}"
    name = shlex.quote(printable(entry.stored_filename)) + options_of(profile, config)
    return f"Without bakthat: bakthat show --by-hand {name} prints a script"
