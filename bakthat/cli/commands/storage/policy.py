"""Print what the access keys of a role may do: ``bakthat policy``."""

from __future__ import annotations

import json

import bakthat
from bakthat.cli.app import SETUP, command, option
from bakthat.cli.options import with_profile
from bakthat.cli.output import print_text

ROLES = ("writer", "reader", "keeper")


@command(
    "policy",
    "print policies of AWS for the keys of a role",
    group=SETUP,
    example="bakthat policy writer --host web1",
    is_file=True,
)
@option(
    "role",
    metavar="ROLE",
    choices=ROLES,
    help="writer (makes backups and can neither read, overwrite nor delete any), reader (restores "
    "and monitors) or keeper (rotates, extends locks, holds)",
)
@option("--host", metavar="HOST", help="for the writer on HOST (default: this one)")
@with_profile
def policy(*, role: str, host: str | None, profile: str, config: str | None) -> None:
    """Run ``bakthat policy``."""
    found = bakthat.access_policy(role, profile, config, host=host)
    print_text(f"{json.dumps(found, indent=2)}\n")
