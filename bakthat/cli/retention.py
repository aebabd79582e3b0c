"""Rotate a set, or delete what is old of it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from bakthat.cli.app import command, option, print_json, with_destination, with_host, with_profile
from bakthat.policy.week_days import WEEK_DAYS, parse_week_day
from bakthat.system import terminal, text

if TYPE_CHECKING:
    from bakthat.operations.retention import Plan


log = logging.getLogger("bakthat")

RULES = ("last", "minutes", "hours", "days", "weeks", "months", "years")


@command(
    "rotate_backups", "thin a set out: delete what its rotation does not keep", aliases=("rotate",)
)
@option("filename", metavar="name", help="name of the set, in full")
@option("--last", type=int, metavar="N", help="keep the latest N, whatever their dates")
@option("--minutes", type=int, metavar="N", help="keep one a minute, of the latest N with one")
@option("--hours", type=int, metavar="N", help="keep one an hour, likewise")
@option("--days", type=int, metavar="N", help="keep one a day, likewise")
@option("--weeks", type=int, metavar="N", help="keep one a week, likewise")
@option("--months", type=int, metavar="N", help="keep one a month, likewise")
@option("--years", type=int, metavar="N", help="keep one a year, likewise")
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
@with_profile
def rotate_backups(**arguments: Any) -> None:
    """Run ``bakthat rotate_backups``."""
    from bakthat.operations import retention
    from bakthat.session.session import Session

    as_json = arguments.pop("json")
    if not arguments.pop("dry_run"):
        _report(retention.rotate_backups(**arguments), as_json)
        return
    rules = {rule: arguments.pop(rule) for rule in RULES}
    filename, host = arguments.pop("filename"), arguments.pop("host")
    first_week_day = arguments.pop("first_week_day")
    session = Session(**arguments, conf=None)
    plan = retention.plan_rotation(session, filename, rules, first_week_day, host=host)
    _show_plan(plan, as_json)


@command("delete_older_than", "delete what is older than an interval of a set")
@option("filename", metavar="name", help="name of the set, in full")
@option("interval", help="such as 3M2D8h20m5s; units: s m h D W, M of 30 days, Y of 365 days")
@option("--dry-run", action="store_true", help="show what would be kept and deleted, and why")
@option("--json", action="store_true", help="print what was deleted, or the dry run, as JSON")
@with_destination
@with_host
@with_profile
def delete_older_than(**arguments: Any) -> None:
    """Run ``bakthat delete_older_than``."""
    from bakthat.operations import retention
    from bakthat.session.session import Session

    as_json = arguments.pop("json")
    if not arguments.pop("dry_run"):
        _report(retention.delete_older_than(**arguments), as_json)
        return
    filename, interval = arguments.pop("filename"), arguments.pop("interval")
    host = arguments.pop("host")
    session = Session(**arguments, conf=None)
    _show_plan(retention.plan_by_age(session, filename, interval, host=host), as_json)


def _report(deleted: list[Any], as_json: bool) -> None:
    if as_json:
        print_json([each.as_dict() for each in deleted])


def _show_plan(plan: Plan, as_json: bool) -> None:
    log.info("%s; this is a dry run, nothing is deleted", plan.purpose)
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
            time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(each.date)),
            "keep" if each.decision.keep else "delete",
            text.human_size(each.backup.size),
            each.backup.stored_filename,
            ", ".join(each.decision.reasons),
        )
        for each in plan.backups
    ]
    terminal.print_table(("DATE (UTC)", "WHAT", "SIZE", "NAME", "WHY"), rows, right=frozenset({2}))
    doomed = plan.doomed
    size = text.human_size(sum(each.size for each in doomed))
    log.info("Would delete %d of %d backups (%s)", len(doomed), len(plan.backups), size)
