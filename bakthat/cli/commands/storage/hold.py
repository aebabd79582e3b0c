"""Put a backup on hold, and release it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import bakthat
from bakthat.cli.app import UPKEEP, command, option, run_operation
from bakthat.cli.options import with_destination, with_host, with_profile, with_source
from bakthat.cli.output import Summary, print_result

if TYPE_CHECKING:
    from bakthat.models import Backups


@command(
    "hold",
    "let nobody delete a backup until it is released",
    group=UPKEEP,
    example="bakthat hold etc.20130604191055.tgz --reason 'audit 2013, ask Jane Doe'",
)
@option("filename", metavar="BACKUP", help="stored filename, name of the set, or NAME.DATE")
@option("--reason", required=True, metavar="TEXT", help="why, for whoever finds it on hold")
@with_destination
@with_host
@with_source
@with_profile
def hold(
    *,
    filename: str,
    reason: str,
    destination: str | None,
    host: str | None,
    source: str | None,
    profile: str,
    config: str | None,
) -> None:
    """Run ``bakthat hold``."""
    run = partial(
        bakthat.hold,
        filename,
        destination,
        profile,
        config,
        reason=reason,
        host=host,
        source=source,
    )
    _run("hold", run, "{} is on hold")


@command(
    "release",
    "release a backup that is on hold",
    group=UPKEEP,
    example="bakthat release etc.20130604191055.tgz",
)
@option("filename", metavar="BACKUP", help="stored filename, name of the set, or NAME.DATE")
@with_destination
@with_host
@with_source
@with_profile
def release(
    *,
    filename: str,
    destination: str | None,
    host: str | None,
    source: str | None,
    profile: str,
    config: str | None,
) -> None:
    """Run ``bakthat release``."""
    run = partial(bakthat.release, filename, destination, profile, config, host=host, source=source)
    _run("release", run, "Released {}")


def _run(name: str, run: Callable[[], Backups], done: str) -> None:
    started = time.monotonic()

    def show(entry: Backups) -> None:
        summary = Summary(
            done.format(entry.stored_filename),
            time.monotonic() - started,
            where=f"on {entry.where}",
        )
        print_result(summary, lines=[("backup", entry.as_dict())])

    run_operation(name, run, show)
