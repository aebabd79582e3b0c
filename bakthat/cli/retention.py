"""Rotate a set, or delete its old backups."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import bakthat
from bakthat.cli.app import (
    Command,
    command,
    option,
    print_json,
    with_destination,
    with_host,
    with_profile,
    with_source,
)
from bakthat.policy.week_days import WEEK_DAYS, parse_week_day
from bakthat.system import terminal, text

if TYPE_CHECKING:
    from bakthat.models import Backups
    from bakthat.operations.retention import Plan
    from bakthat.policy.rotation import RotationKeywords

log = logging.getLogger("bakthat")


def _keep_one_for_each(*slots: str) -> Callable[[Command], Command]:
    """Add an option for each of these slots of time to the subcommand that is registered next."""
    for slot in slots:
        option(
            f"--{slot}",
            type=int,
            metavar="N",
            help=f"keep one backup for each of the latest N {slot} that have one",
        )
    return lambda function: function


@command(
    "rotate_backups", "delete the backups that the rotation does not keep", aliases=("rotate",)
)
@option("filename", metavar="name", help="name of the set, in full")
@option("--last", type=int, metavar="N", help="keep the latest N, whatever their dates")
@_keep_one_for_each("minutes", "hours", "days", "weeks", "months", "years")
@option(
    "--first-week-day",
    type=parse_week_day,
    metavar="DAY",
    help=f"{', '.join(WEEK_DAYS)}, or 0 to 6 (default: the profile's, else saturday)",
)
@option("--dry-run", action="store_true", help="show what would be kept and deleted, and why")
@option("--json", action="store_true", help="print what was deleted, or the dry run, as JSON")
@with_destination
@with_host
@with_source
@with_profile
def rotate_backups(
    *,
    filename: str,
    last: int | None,
    minutes: int | None,
    hours: int | None,
    days: int | None,
    weeks: int | None,
    months: int | None,
    years: int | None,
    first_week_day: int | None,
    dry_run: bool,
    json: bool,
    destination: str | None,
    host: str | None,
    source: str | None,
    profile: str,
    config: str | None,
) -> None:
    """Run ``bakthat rotate_backups``."""
    rules: RotationKeywords = {
        "last": last,
        "minutes": minutes,
        "hours": hours,
        "days": days,
        "weeks": weeks,
        "months": months,
        "years": years,
        "first_week_day": first_week_day,
    }
    if not dry_run:
        deleted = bakthat.rotate_backups(
            filename, destination, profile, config, host=host, source=source, **rules
        )
        _show_deleted(deleted, json)
        return
    from bakthat.operations.retention import plan_rotation
    from bakthat.session.session import Session

    session = Session(profile, config, None, destination)
    _show_plan(plan_rotation(session, filename, host=host, source=source, **rules), json)


@command("delete_older_than", "delete the backups of a set that are older than an interval")
@option("filename", metavar="name", help="name of the set, in full")
@option("interval", help="such as 3M2D8h20m5s; units: s m h D W, M of 30 days, Y of 365 days")
@option("--dry-run", action="store_true", help="show what would be kept and deleted, and why")
@option("--json", action="store_true", help="print what was deleted, or the dry run, as JSON")
@with_destination
@with_host
@with_source
@with_profile
def delete_older_than(
    *,
    filename: str,
    interval: str,
    dry_run: bool,
    json: bool,
    destination: str | None,
    host: str | None,
    source: str | None,
    profile: str,
    config: str | None,
) -> None:
    """Run ``bakthat delete_older_than``."""
    if not dry_run:
        deleted = bakthat.delete_older_than(
            filename, interval, destination, profile, config, host=host, source=source
        )
        _show_deleted(deleted, json)
        return
    from bakthat.operations.retention import plan_by_age
    from bakthat.session.session import Session

    session = Session(profile, config, None, destination)
    _show_plan(plan_by_age(session, filename, interval, host=host, source=source), json)


def _show_deleted(deleted: list[Backups], as_json: bool) -> None:
    if as_json:
        print_json([each.as_dict() for each in deleted])


def _show_plan(plan: Plan, as_json: bool) -> None:
    from bakthat.operations.retention import log_notes

    log.info("%s; this is a dry run, nothing is deleted", plan.purpose)
    log_notes(plan)
    if as_json:
        print_json(
            [
                {
                    **each.backup.as_dict(),
                    "keep": each.decision.keep,
                    "reasons": list(each.decision.reasons),
                }
                for each in plan.backups
            ]
        )
        return
    rows = [
        (
            text.utc_time(each.date),
            "keep" if each.decision.keep else "delete",
            text.human_size(each.backup.size),
            each.backup.stored_filename,
            ", ".join(each.decision.reasons),
        )
        for each in plan.backups
    ]
    terminal.print_table(("DATE (UTC)", "WHAT", "SIZE", "NAME", "WHY"), rows, right=frozenset({2}))
    to_delete = plan.to_delete
    size = text.human_size(sum(each.size for each in to_delete))
    log.info("Would delete %d of %d backups (%s)", len(to_delete), len(plan.backups), size)
