"""Say how the backups are, and what is wrong: ``bakthat status``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import bakthat
from bakthat.cli import output
from bakthat.cli.app import DAILY, SELECTION, command, option
from bakthat.cli.commands.findings import print_findings
from bakthat.cli.exit_codes import ExitCode
from bakthat.cli.options import with_destination, with_host, with_profiles
from bakthat.cli.output import Summary, print_error, print_result, print_text
from bakthat.cli.progress import progress_bar
from bakthat.errors import UsageError
from bakthat.system import terminal, text

if TYPE_CHECKING:
    from bakthat.operations.status.set_status import SetStatus
    from bakthat.policy.finding import Finding

_BARS = "▁▂▃▄▅▆▇█"


@command(
    "status",
    "say how old and how large the backups are, and what is wrong",
    group=DAILY,
    example="bakthat status --max-age 26h",
    exits={ExitCode.FAILED: "something is wrong with a set, or failed"},
)
@option("filename", metavar="SET", nargs="?", default="", help="name of the set (default: all)")
@option(
    "--max-age",
    metavar="INTERVAL",
    help="the age from which on a set is too old, such as 26h (default: max_age of its job)",
)
@option(
    "--all-hosts",
    section=SELECTION,
    action="store_true",
    help="ask the storage about every host; needs no catalog and no password",
)
@option("--prometheus", action="store_true", help="print metrics for node_exporter")
@with_destination
@with_host
@with_profiles
def status(
    *,
    filename: str,
    max_age: str | None,
    all_hosts: bool,
    prometheus: bool,
    destination: str | None,
    host: str | None,
    profile: str | None,
    config: str | None,
) -> int | None:
    """Run ``bakthat status``."""
    if prometheus and output.is_json():
        raise UsageError("--prometheus takes no --json", hint="leave one of them out")
    started = time.monotonic()
    with progress_bar("Reading", counts_bytes=False) as progress:
        found = bakthat.status(
            filename,
            destination,
            profile,
            config,
            host=host,
            max_age=max_age,
            all_hosts=all_hosts,
            progress=progress,
        )
    bad = [each for each in found if not each.is_good]
    if prometheus:
        from bakthat.operations.status.metrics import as_metrics

        print_text(as_metrics(found))
        return ExitCode.FAILED if bad else None
    count = text.counted(len(found), "set")
    if bad:
        need = "needs" if len(bad) == 1 else "need"
        print_error(f"{len(bad)} of {count} {need} attention")
    shown = bad if output.is_quiet() else found
    print_result(
        Summary(
            f"{count}, {len(found) - len(bad)} good, {len(bad)} wrong",
            time.monotonic() - started,
            facts={"sets": len(found), "wrong": len(bad)},
        ),
        (lambda: _print_sets(shown)) if shown else None,
        (("status", each.as_dict()) for each in found),
    )
    return ExitCode.FAILED if bad else None


def _print_sets(found: Sequence[SetStatus]) -> None:
    has_hosts = len({each.host for each in found}) > 1
    columns = [each for each in _columns(found, has_hosts=has_hosts) if any(each[1])]
    right = (number for number, each in enumerate(columns) if each[0] in _NUMBERS)
    wrong = (number for number, each in enumerate(found) if not each.is_good)
    terminal.print_table(
        [header for header, _ in columns],
        list(zip(*(cells for _, cells in columns), strict=True)),
        right=frozenset(right),
        red=frozenset(wrong),
    )
    findings = [each for one in found for each in _labelled(one, has_hosts=has_hosts)]
    if findings:
        terminal.print_line("")
        print_findings(findings)


_NUMBERS = ("AGE", "SIZE", "TREND", "BACKUPS", "FILES", "TOOK")
"""The columns that are aligned on the right."""


def _columns(found: Sequence[SetStatus], *, has_hosts: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield the header and the cells of each column; those without any text are left out."""
    now = time.time()
    places = [(each.name, each.host, each.backend) for each in found]
    yield "", ["ok" if each.is_good else "WRONG" for each in found]
    yield "SET", [each.name for each in found]
    if has_hosts:
        yield "HOST", [each.host or "unknown" for each in found]
    if len({each.backend for each in found}) > 1:
        yield "WHERE", [each.backend for each in found]
    if len({each.profile for each in found}) > 1:
        yield "PROFILE", [each.profile for each in found]
    if len(set(places)) < len(places):
        yield "SOURCE", [each.source for each in found]
    unknown = ["unknown" if each.stored_filename else "never" for each in found]
    ages = [_age(each.last_backup, now) for each in found]
    yield "AGE", [age or other for age, other in zip(ages, unknown, strict=True)]
    yield "SIZE", ["" if each.size is None else text.human_size(each.size) for each in found]
    yield "TREND", ["" if each.trend is None else f"{each.trend:+d}%" for each in found]
    yield "SIZES", [_bars(each.sizes) for each in found]
    yield "BACKUPS", [_count(each.backups) for each in found]
    yield (
        "CHECKED",
        [
            "" if each.check is None else _last(each.check.verdict.value, each.check.date, now)
            for each in found
        ],
    )
    yield (
        "DRILLED",
        [
            "" if each.drill is None else _last(_passed(each.drill.passed), each.drill.date, now)
            for each in found
        ],
    )
    yield "JOB", [", ".join(each.jobs) for each in found]
    yield (
        f"LAST ({text.shown_zone()})",
        ["" if each.last_backup is None else text.shown_time(each.last_backup) for each in found],
    )
    yield "FILES", [_count(each.files) for each in found]
    yield (
        "TOOK",
        ["" if each.seconds is None else text.human_seconds(each.seconds) for each in found],
    )
    yield "NAME", [each.stored_filename for each in found]
    yield "NEXT TO GO", [each.next_to_go for each in found]


def _labelled(found: SetStatus, *, has_hosts: bool) -> list[Finding]:
    """Return the findings about a set with its name as their topic."""
    from dataclasses import replace  # --help needs none

    of = f" of {found.host or 'an unknown host'}" if has_hosts else ""
    return [replace(each, topic=text.printable(found.name + of)) for each in found.findings]


def _age(date: float | None, now: float) -> str:
    if date is None:
        return ""
    from bakthat.operations.status.findings import describe_age

    ahead = date - now
    return f"in {describe_age(int(ahead))}" if ahead > 60 else describe_age(int(-ahead))


def _last(result: str, date: int, now: float) -> str:
    return f"{result} {_age(date, now)} ago"


def _passed(passed: bool) -> str:
    return "passed" if passed else "FAILED"


def _count(number: int | None) -> str:
    return "" if number is None else str(number)


def _bars(sizes: Sequence[int]) -> str:
    """Return the sizes as bars, the newest last, where the output can show them."""
    if len(sizes) < 2 or "utf" not in str(sys.stdout.encoding).lower():
        return ""
    most = max(*sizes, 1)
    return "".join(_BARS[round((len(_BARS) - 1) * each / most)] for each in sizes)
