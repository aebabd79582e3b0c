"""List the backups, or print how to restore one by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import bakthat
from bakthat.cli import output
from bakthat.cli.app import DAILY, SELECTION, command, option
from bakthat.cli.options import with_destination, with_host, with_keys, with_profile, with_source
from bakthat.cli.output import print_listing, print_text
from bakthat.errors import UsageError

if TYPE_CHECKING:
    pass


@command(
    "show",
    "list the backups",
    aliases=("ls",),
    group=DAILY,
    example="bakthat show etc --tags daily",
)
@option(
    "query",
    metavar="BACKUP",
    nargs="?",
    default="",
    help="part of a name; with --by-hand, one backup",
)
@option("-t", "--tags", section=SELECTION, default="", help="with one of these tags")
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
        if output.is_json() or tags:
            option = "--tags" if tags else "--json"
            raise UsageError(f"--by-hand takes no {option}", hint=f"leave {option} out")
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
        raise UsageError(f"show takes {given} with --by-hand only", hint="add --by-hand")
    elif output.is_json():
        from bakthat.operations.listing import relations

        found = bakthat.ls(query, destination, tags, profile, config, host=host)
        pairs = zip(found, relations(found, profile, config), strict=True)
        rows = [{**each.as_dict(), **related.as_dict(each)} for each, related in pairs]
        print_listing(None, (("backup", row) for row in rows), backups=len(rows))
    else:
        bakthat.show(query, destination, tags, profile, config, host=host)
