"""Delete: by rotation, by age, or one backup."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import bakthat
from bakthat.cli.app import DAILY, UPKEEP, Command, command, option, run_operation
from bakthat.cli.exit_codes import ExitCode
from bakthat.cli.options import with_destination, with_host, with_profile, with_source
from bakthat.cli.output import Line, Summary, is_json, print_error, print_result
from bakthat.policy.week_days import WEEK_DAYS, parse_week_day
from bakthat.system import terminal, text

if TYPE_CHECKING:
    from bakthat.models import Backups
    from bakthat.operations.needed import LeftBackup
    from bakthat.operations.retention.operation import RetentionReport
    from bakthat.operations.retention.plan import Plan, PlannedBackup
    from bakthat.policy.rotation import RotationKeywords
    from bakthat.session.session import Session

log = logging.getLogger("bakthat")

_LEFT = {"locked": "locked", "held": "on hold", "failed": "not deletable"}
"""The words for what is neither kept by a rule nor deleted."""


def _keep_one_for_each(*slots: str) -> Callable[[Command], Command]:
    """Add an option for each of these slots of time to the subcommand that is registered next."""
    for slot in slots:
        option(
            f"--{slot}",
            section="what is kept",
            type=int,
            metavar="N",
            help=f"keep one backup for each of the latest N {slot} that have one",
        )
    return lambda function: function


@command(
    "rotate_backups",
    "thin a set out: keep daily, weekly, … backups",
    aliases=("rotate",),
    group=DAILY,
    example="bakthat rotate_backups etc --days 7 --weeks 4 --dry-run",
    exits={ExitCode.INCOMPLETE: "rotated, but a lock could not be extended: a warning says why"},
)
@option("filename", metavar="SET", help="name of the set, in full")
@option(
    "--last",
    section="what is kept",
    type=int,
    metavar="N",
    help="keep the latest N, whatever their dates",
)
@_keep_one_for_each("minutes", "hours", "days", "weeks", "months", "years")
@option(
    "--first-week-day",
    section="what is kept",
    type=parse_week_day,
    metavar="DAY",
    help=f"{', '.join(WEEK_DAYS)}, or 0 to 6 (default: the profile's, else saturday)",
)
@option("--dry-run", action="store_true", help="show what would be kept and deleted, and why")
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
    destination: str | None,
    host: str | None,
    source: str | None,
    profile: str,
    config: str | None,
) -> int | None:
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
    from bakthat.operations.retention.plan import plan_rotation
    from bakthat.session.session import Session

    session = Session(profile, config, None, destination)
    return _delete(
        session,
        "rotate_backups",
        lambda: plan_rotation(session, filename, host=host, source=source, **rules),
        dry_run=dry_run,
    )


@command(
    "delete_older_than",
    "delete the backups older than an interval",
    group=UPKEEP,
    example="bakthat delete_older_than etc 3M --dry-run",
)
@option("filename", metavar="SET", help="name of the set, in full")
@option("interval", help="such as 3M2D8h20m5s; units: s m h D W, M of 30 days, Y of 365 days")
@option("--dry-run", action="store_true", help="show what would be kept and deleted, and why")
@with_destination
@with_host
@with_source
@with_profile
def delete_older_than(
    *,
    filename: str,
    interval: str,
    dry_run: bool,
    destination: str | None,
    host: str | None,
    source: str | None,
    profile: str,
    config: str | None,
) -> None:
    """Run ``bakthat delete_older_than``."""
    from bakthat.operations.retention.plan import plan_by_age
    from bakthat.session.session import Session

    session = Session(profile, config, None, destination)
    _delete(
        session,
        "delete_older_than",
        lambda: plan_by_age(session, filename, interval, host=host, source=source),
        dry_run=dry_run,
    )


def _delete(
    session: Session, name: str, make_plan: Callable[[], Plan], *, dry_run: bool
) -> int | None:
    """Run the operation *name* by its plan, or show the plan; end with the summary."""
    from bakthat.errors import StorageError
    from bakthat.operations.needed import FAILED
    from bakthat.operations.retention.operation import RetentionReport, delete_by_plan
    from bakthat.operations.retention.plan import checked, log_notes

    started = time.monotonic()
    if dry_run:
        plan = make_plan()
        log.info("%s; this is a dry run, nothing is deleted", plan.purpose)
        plan = checked(session, plan)
        log_notes(plan)
        left = {each.backup.stored_filename: each for each in plan.left}
        print_result(
            _summary("Would delete", plan.to_delete, plan.left, plan, started),
            lambda: _print_plan(plan, left),
            (
                ("backup", _planned(plan, each, left.get(each.backup.stored_filename)))
                for each in plan.backups
            ),
        )
        return _exit_code(plan)
    report = RetentionReport()

    def show(_: list[Backups]) -> None:
        assert report.plan is not None
        summary = _summary("Deleted", report.deleted, report.left, report.plan, started)
        print_result(summary, lines=_lines(report))

    try:
        run_operation(name, lambda: delete_by_plan(session, name, make_plan, report), show)
    except StorageError:
        if is_json() and report.plan is not None and report.left_as(FAILED):
            with contextlib.suppress(terminal.OutputError):  # the error is printed in any case
                show(report.deleted)
        raise

    assert report.plan is not None
    return _exit_code(report.plan)


def _exit_code(plan: Plan) -> int | None:
    """Return the exit code, and say why it is not 0: locks that could not be extended."""
    problems = plan.extensions.problems
    if not problems:
        return None
    what = "the locks of what is kept are not extended"
    if plan.extensions.problem is None:
        planned = text.counted(len(plan.extensions.planned), "lock")
        what = f"{len(problems)} of {planned} could not be extended"
    print_error(
        f"{what}: {problems[0]}",
        problems[0].hint or "run it again for the rest",
        kind=type(problems[0]).__name__,
    )
    return ExitCode.INCOMPLETE


def _lines(report: RetentionReport) -> Iterator[Line]:
    yield from (("backup", each.as_dict()) for each in report.deleted)
    yield from (("kept", each.as_dict()) for each in report.left)


def _summary(
    done: str,
    deleted: Sequence[Backups],
    left: Sequence[LeftBackup],
    plan: Plan,
    started: float,
) -> Summary:
    counts = Counter(each.outcome for each in left)
    others = [f"{counts[each]} {word}" for each, word in _LEFT.items() if counts[each]]
    staying = sum(max(each.backup.size, 0) for each in left)
    if others:
        others[-1] += f" ({text.human_size(staying)} stay)"
    size = sum(max(each.size, 0) for each in deleted)
    said = f"{done} {len(deleted)} of {text.counted(len(plan.backups), 'backup')}"
    if others and deleted:
        said += f" ({text.human_size(size)})"
    return Summary(
        ", ".join([said, *others]),
        time.monotonic() - started,
        stored=None if others else size,
        where=f"from {plan.backups[0].backup.where}",
        facts={
            "deleted": len(deleted),
            "backups": len(plan.backups),
            "extended": sum(each.problem is None for each in plan.extensions.planned),
            **{each: counts[each] for each in _LEFT},
            "stored": size,
            "staying": staying,
        },
    )


def _planned(plan: Plan, each: PlannedBackup, left: LeftBackup | None) -> dict[str, Any]:
    decision, lock = each.decision, plan.extensions.lock_of(each.backup)
    planned = {
        **each.backup.as_dict(),
        "keep": decision.keep,
        "reasons": list(decision.reasons),
        "locked_until": lock.until if lock is not None else None,
    }
    if left is None:
        return planned
    return {**planned, **left.as_dict(), "keep": True, "reasons": [*decision.reasons, left.why]}


def _why(plan: Plan, each: PlannedBackup, left: LeftBackup | None) -> str:
    lock = plan.extensions.lock_of(each.backup)
    why = ", ".join([*each.decision.reasons, *([] if left is None else [left.why])])
    return why if lock is None else f"{why}; lock until {text.shown_minute(lock.until)}"


def _print_plan(plan: Plan, left: Mapping[str, LeftBackup]) -> None:
    rows = []
    for each in plan.backups:
        stays = left.get(each.backup.stored_filename)
        what = "keep" if each.decision.keep else "delete"
        rows.append(
            (
                text.shown_time(each.date),
                what if stays is None else stays.outcome,
                text.human_size(each.backup.size),
                each.backup.stored_filename,
                _why(plan, each, stays),
            )
        )
    terminal.print_table(
        (f"DATE ({text.shown_zone()})", "WHAT", "SIZE", "NAME", "WHY"), rows, right=frozenset({2})
    )


@command(
    "delete",
    "delete a backup",
    group=UPKEEP,
    example="bakthat delete etc.20130604191055.tgz",
)
@option("filename", metavar="BACKUP", help="stored filename, name of the set, or NAME.DATE")
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
        print_result(
            Summary(done, seconds, stored=entry.size, where=where),
            lines=[("backup", entry.as_dict())],
        )

    run_operation("delete", run, show)
