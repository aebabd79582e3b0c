"""Report what was backed up in a period, and what was not: ``bakthat report``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import bakthat
from bakthat.cli.app import SELECTION, UPKEEP, command, option
from bakthat.cli.options import with_destination, with_host, with_profiles
from bakthat.cli.output import Summary, print_result
from bakthat.system import terminal, text

if TYPE_CHECKING:
    from bakthat.operations.report.facts import Report, SetFacts


@command(
    "report",
    "report what was backed up in a period, and what was not",
    group=UPKEEP,
    example="bakthat report --since 90D -o report.html",
)
@option("filename", metavar="SET", nargs="?", default="", help="name of the set (default: all)")
@option(
    "--since",
    section=SELECTION,
    default="90D",
    metavar="WHEN",
    help="from then on: an age such as 90D, or 2026-07-01 (UTC) (default: 90D)",
)
@option("--until", section=SELECTION, metavar="WHEN", help="until then (default: now)")
@option(
    "--max-age",
    metavar="INTERVAL",
    help="how old a backup may be where no job says it, such as 26h",
)
@option("-o", "--output", metavar="FILE", help="write a page of HTML, with pictures, to FILE")
@with_destination
@with_host
@with_profiles
def report(
    *,
    filename: str,
    since: str,
    until: str | None,
    max_age: str | None,
    output: str | None,
    destination: str | None,
    host: str | None,
    profile: str | None,
    config: str | None,
) -> None:
    """Run ``bakthat report``."""
    started = time.monotonic()
    made = bakthat.report(
        filename,
        destination,
        profile,
        config,
        host=host,
        since=since,
        until=until,
        max_age=max_age,
        output=output,
    )
    count = text.counted(len(made.sets), "set")
    written = f"Wrote {output}: " if output is not None else ""
    bad = len(made.sets) - made.good
    attention = f", {bad} of them need{'s' if bad == 1 else ''} attention" if bad else ", all good"
    summary = Summary(
        f"{written}{count} from {text.shown_time(made.period.begin)} to "
        f"{text.shown_time(made.period.end)}{attention}",
        time.monotonic() - started,
        facts={
            "sets": len(made.sets),
            "good": made.good,
            "since": made.period.begin,
            "until": made.period.end,
            "made_at": made.period.now,
            "version": made.version,
            "host": made.host,
            "catalogs": list(made.catalogs),
            "profiles": list(made.profiles),
            "output": output,
        },
    )
    print_result(
        summary,
        (lambda: _print_sets(made)) if output is None else None,
        (("report", each.as_dict()) for each in made.sets),
    )


def _print_sets(report: Report) -> None:
    header = (
        "SET",
        "WHERE",
        "HOST",
        f"LAST ({text.shown_zone()})",
        "MADE",
        "GAPS",
        "INCOMPLETE",
        "DELETED",
        "CHECKS",
        "DRILLS",
        "STORED",
        "VERDICT",
    )
    rows = [_row(each) for each in report.sets]
    terminal.print_table(header, rows, right=frozenset(range(4, 11)))


def _row(found: SetFacts) -> tuple[str, ...]:
    return (
        found.name,
        found.backend,
        found.host,
        "never" if found.newest is None else text.shown_time(found.newest),
        str(len(found.backups)),
        "?" if found.expected.max_age is None else str(len(found.missed)),
        str(sum(each.is_incomplete for each in found.backups)),
        str(len(found.deleted)),
        _passed([check.verdict.is_good for _, check in found.checked]),
        _passed([drill.passed for _, drill in found.drilled]),
        text.human_size(sum(each.stored for each in found.stored)),
        "; ".join(found.problems.values()) or "good",
    )


def _passed(results: list[bool]) -> str:
    return f"{sum(results)}/{len(results)}"
