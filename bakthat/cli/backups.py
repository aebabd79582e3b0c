"""Back up, restore, show, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bakthat.cli.app import command, option, print_json, with_destination, with_host, with_profile
from bakthat.cli.log import complain
from bakthat.cli.process import keep_memory
from bakthat.cli.progress import progress_bar
from bakthat.cli.run import INCOMPLETE, NOT_READY
from bakthat.policy.storage_classes import DEFAULT_DAYS, STANDARD, TIERS
from bakthat.system import terminal

if TYPE_CHECKING:
    from bakthat.models import Backups


@command("backup", "back up a file or a directory")
@option("filename", nargs="?", help="what to back up (default: the current directory)")
@option("--name", dest="custom_filename", help="name of the backup (default: the base name)")
@option("-t", "--tags", default="", help="tags, separated by commas or spaces")
@option("--prompt", default="yes", choices=("yes", "no"), help="no: never ask for a password")
@option("--recipient", dest="recipients", action="append", default=[], metavar="AGE_PUBLIC_KEY")
@option("--exclude-file", metavar="FILE", help=".gitignore patterns of what to leave out")
@option("--no-ignore", action="store_true", help="heed neither .bakthatexclude nor .gitignore")
@option("--exclude-caches", action="store_true", help="leave out what CACHEDIR.TAG marks")
@option("--one-file-system", action="store_true", help="leave out what is mounted below")
@option("--s3-reduced-redundancy", action="store_true", help="store with less redundancy on S3")
@option("--json", action="store_true", help="print the backup's entry as JSON")
@with_destination
@with_profile
def backup(**arguments: Any) -> int | None:
    """Run ``bakthat backup``."""
    from bakthat.operations import backup as operation

    keep_memory()
    as_json, no_ignore = arguments.pop("json"), arguments.pop("no_ignore")
    with progress_bar("Uploading") as progress:
        made = operation.backup(**arguments, ignore_files=not no_ignore, progress=progress)
    if as_json:
        print_json(made.as_dict())
    if _was_incomplete(made):
        complain(f"stored, but not all of it as it was: {made.metadata['warning_count']} warnings")
        return INCOMPLETE
    return None


@command("restore", "restore a backup")
@option("filename", help="stored filename, name of the backup, or beginning of a stored filename")
@option("-o", "--output", metavar="DIR", help="where to (default: the current directory)")
@option(
    "--only",
    action="append",
    default=[],
    metavar="PATH",
    help="only this file or directory of the backup; may be given several times",
)
@option("--prompt", default="yes", choices=("yes", "no"), help="no: never ask for a password")
@option("--identity-file", metavar="FILE", help="age private keys")
@option("--tier", default=STANDARD, choices=TIERS, help="of cold storage: how fast, and how dear")
@option("--days", type=int, default=DEFAULT_DAYS, help="of S3: how long it stays thawed")
@option("--wait", action="store_true", help="wait until cold storage has thawed the backup")
@option("--any-size", action="store_true", help="unpack also far more than was announced")
@option("--job-check", action="store_true", help="only say how far it is thawed")
@with_destination
@with_host
@with_profile
def restore(**arguments: Any) -> int | None:
    """Run ``bakthat restore``."""
    from bakthat.operations import restore as operation
    from bakthat.session.cold import describe

    if arguments.pop("job_check"):
        named = ("filename", "destination", "host", "profile", "config")
        state = operation.restore(**{name: arguments[name] for name in named}, job_check=True)
        terminal.print_line(describe(state))
        return None if state.is_readable else NOT_READY
    keep_memory()
    with progress_bar("Downloading") as progress:
        restored = operation.restore(**arguments, progress=progress)
    return NOT_READY if restored is None else None


@command("show", "list the backups", aliases=("ls",))
@option("query", nargs="?", default="", help="a part of the name")
@option("-t", "--tags", default="", help="only backups with one of these tags")
@option("--json", action="store_true", help="print JSON")
@with_destination
@with_host
@with_profile
def show(**arguments: Any) -> None:
    """Run ``bakthat show``."""
    from bakthat.operations import listing

    as_json = arguments.pop("json")
    found = listing.ls(**arguments)
    if as_json:
        print_json([each.as_dict() for each in found])
    else:
        listing.print_backups(found)


@command("delete", "delete a backup")
@option("filename", help="stored filename, name of the backup (its newest), or NAME.DATE")
@with_destination
@with_host
@with_profile
def delete(**arguments: Any) -> None:
    """Run ``bakthat delete``."""
    from bakthat.operations import delete as operation

    operation.delete(**arguments)


def _was_incomplete(backup: Backups) -> bool:
    return bool(backup.metadata.get("warning_count"))
