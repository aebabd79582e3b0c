"""A report as a page: one file of HTML without scripts, that needs nothing else.

Names come from file systems and from the storage, to which others may write, so all text is made
printable and escaped. Should one slip through, the page's policy forbids scripts and requests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape

from bakthat.operations.report import svg
from bakthat.operations.report.days import MOST_DAYS, days_of
from bakthat.operations.report.facts import BackupFacts, Report, SetFacts
from bakthat.operations.report.style import style_sheet
from bakthat.system import text
from bakthat.system.text import counted, human_seconds, human_size, printable

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"

Cell = str | tuple[str, str]
"""HTML, or HTML with a class."""


def page(report: Report) -> Iterator[str]:
    """Yield the parts of the page, in the zone that :func:`bakthat.system.text` shows times in."""
    period = f"{day(report.period.begin)} to {day(report.period.end)}"
    yield (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="generator" content="bakthat {shown(report.version)}">\n'
        f"<title>Backup report, {period}</title>\n<style>\n{style_sheet()}</style>\n</head>\n"
        f"<body>\n{svg.definitions()}\n"
    )
    yield from _head(report)
    yield "<main>\n"
    yield from _overview(report)
    yield from _hosts(report)
    for number, each in enumerate(report.sets, 1):
        yield from _set(number, each)
    yield "</main>\n</body>\n</html>\n"


def shown(name: str) -> str:
    """Return text from anywhere as HTML."""
    return escape(printable(name))


def moment(seconds: float | None) -> str:
    """Return epoch seconds as a date and a time; a local one with its distance from UTC."""
    if seconds is None:
        return ""
    return text.shown_time(seconds) if text.shown_zone() == "UTC" else text.shown_minute(seconds)


def day(seconds: float) -> str:
    """Return the day of epoch seconds."""
    return text.shown_day(seconds).isoformat()


def _head(report: Report) -> Iterator[str]:
    period = report.period
    zone = "UTC" if text.shown_zone() == "UTC" else f"local times of {shown(report.host)}"
    facts = {
        "Period": f"{moment(period.begin)} to {moment(period.end)}",
        "Made": f"{moment(period.now)} by bakthat {shown(report.version)} on {shown(report.host)}",
        "Catalog": ", ".join(map(shown, report.catalogs)),
        "Profiles": ", ".join(map(shown, report.profiles)),
        "Times": zone,
        "Source": "the catalog alone; the storage was not asked",
    }
    yield f"<header>\n<h1>Backup report</h1>\n{_list(facts)}</header>\n"


def _list(facts: dict[str, str]) -> str:
    items = "".join(f"<dt>{name}</dt><dd>{value}</dd>\n" for name, value in facts.items() if value)
    return f"<dl>\n{items}</dl>\n"


def _overview(report: Report) -> Iterator[str]:
    sets = report.sets
    bad = len(sets) - report.good
    checked = [check.verdict.is_good for each in sets for _, check in each.checked]
    drilled = [drill.passed for each in sets for _, drill in each.drilled]
    made = [each for found in sets for each in found.backups]
    totals = {
        "sets": str(len(sets)),
        "need attention": str(bad),
        "backups made": f"{len(made)}",
        "bytes made": human_size(sum(each.stored for each in made)),
        "gaps": str(sum(len(each.missed) for each in sets)),
        "incomplete": str(sum(each.is_incomplete for each in made)),
        "deleted": str(sum(len(each.deleted) for each in sets)),
        "checks passed": f"{sum(checked)} of {len(checked)}",
        "drills passed": f"{sum(drilled)} of {len(drilled)}",
        "stored now" if report.period.end == report.period.now else "stored at the end": human_size(
            sum(backup.stored for each in sets for backup in each.stored)
        ),
    }
    items = "".join(f"<li><b>{value}</b> {name}</li>" for name, value in totals.items())
    yield f'<section>\n<h2>Summary</h2>\n<ul class="totals">{items}</ul>\n'
    header = (
        "Set",
        "Host",
        "Where",
        ("Last backup", "t"),
        ("Made", "n"),
        ("Gaps", "n"),
        ("Incomplete", "n"),
        ("Deleted", "n"),
        ("Checks", "n"),
        ("Drills", "n"),
        ("Stored", "n"),
        "Verdict",
    )
    rows = (_row_of_set(number, each) for number, each in enumerate(sets, 1))
    yield from _table("Sets", header, rows)
    yield "</section>\n"


def _row_of_set(number: int, found: SetFacts) -> Sequence[Cell]:
    return (
        f'<a href="#set-{number}">{shown(found.name)}</a>',
        shown(found.host) or "unknown",
        shown(found.backend),
        moment(found.newest) or "never",
        str(len(found.backups)),
        str(len(found.missed)) if found.expected.max_age is not None else "not judged",
        str(sum(each.is_incomplete for each in found.backups)),
        str(len(found.deleted)),
        _passed([check.verdict.is_good for _, check in found.checked]),
        _passed([drill.passed for _, drill in found.drilled]),
        human_size(sum(each.stored for each in found.stored)),
        _verdict(found),
    )


def _passed(results: Sequence[bool]) -> str:
    return f"{sum(results)} of {len(results)}" if results else "0"


def _verdict(found: SetFacts) -> str:
    problems = found.problems
    if not problems:
        return '<span class="verdict good">\u2713 good</span>'
    words = ", ".join(problem.value for problem in problems)
    return f'<span class="verdict bad">\u2717 {words}</span>'


def _hosts(report: Report) -> Iterator[str]:
    by_host: defaultdict[str, list[SetFacts]] = defaultdict(list)
    for each in report.sets:
        by_host[each.host].append(each)
    header = (
        "Host",
        ("Sets", "n"),
        ("Need attention", "n"),
        ("Backups made", "n"),
        ("Last backup", "t"),
        ("Stored", "n"),
    )
    rows = (
        (
            shown(host) or "unknown",
            str(len(found)),
            str(sum(bool(each.problems) for each in found)),
            str(sum(len(each.backups) for each in found)),
            moment(max((each.newest or 0 for each in found), default=0) or None),
            human_size(sum(one.stored for each in found for one in each.stored)),
        )
        for host, found in sorted(by_host.items())
    )
    yield "<section>\n<h2>Hosts</h2>\n"
    yield from _table("Hosts", header, rows, class_="narrow")
    yield "</section>\n"


def _set(number: int, found: SetFacts) -> Iterator[str]:
    yield f'<section class="set" id="set-{number}">\n<div class="head">\n'
    host = f" of {shown(found.host)}" if found.host else ""
    yield f"<h2>{shown(found.name)}{host}</h2>\n<p>{_verdict(found)}</p>\n"
    if found.problems:
        items = "".join(f"<li>{shown(sentence)}</li>" for sentence in found.problems.values())
        yield f'<ul class="problems">{items}</ul>\n'
    yield _list(
        {
            "Source": shown(found.source),
            "Where": " ".join(filter(None, (shown(found.backend), shown(found.container)))),
            "Job": ", ".join(map(shown, found.jobs)) or "none",
            "Limit": _max_age(found),
            "Longest gap": "" if found.longest_gap is None else _length(found.longest_gap),
            "Rotation": _rotation(found),
            "Encryption": ", ".join(sorted({each.encryption for each in found.backups})),
            "Last backup": moment(found.newest) or "never",
            "Stored": f"{counted(len(found.stored), 'backup')}, "
            f"{human_size(sum(each.stored for each in found.stored))}",
        }
    )
    yield from _pictures(found)
    yield "</div>\n"
    yield from _tables(found)
    yield "</section>\n"


def _max_age(found: SetFacts) -> str:
    if found.expected.max_age is None:
        return "none, so gaps are not judged"
    return f"a backup may be {_length(found.expected.max_age)} old"


def _rotation(found: SetFacts) -> str:
    if not found.rotation:
        return "none: nothing is deleted by a rule of the profile"
    how = "by its job after each backup" if found.is_rotated else "when somebody runs it"
    return f"keeps {shown(found.rotation)}; {how}"


def _length(seconds: int) -> str:
    """Return a duration in days and hours: ``1 day 2 h``, ``26 min 0 s``."""
    days, rest = divmod(seconds, 86400)
    if not days:
        return human_seconds(seconds)
    hours = rest // 3600
    return counted(days, "day") + (f" {hours} h" if hours else "")


def _pictures(found: SetFacts) -> Iterator[str]:
    if not found.known:
        return
    name = printable(found.name)
    days = days_of(found, found.period, text.shown_day)
    ends = moment(found.period.begin), moment(found.period.end)
    is_cut = (found.period.end - found.period.begin) // 86400 > MOST_DAYS
    yield f'<div class="pictures">\n{svg.calendar(days, f"Calendar of {name}")}\n'
    if is_cut:
        yield f'<p class="faint">The calendar has the last {MOST_DAYS} days.</p>\n'
    yield f'<p class="key">{svg.key()}</p>\n'
    yield "<h3>Bytes that are stored</h3>\n"
    yield f"{svg.curve(found.curve(), f'Stored bytes of {name}', ends)}\n</div>\n"


def _tables(found: SetFacts) -> Iterator[str]:
    made = {each.stored_filename for each in found.backups}
    listed = [*(each for each in found.deleted if each.stored_filename not in made), *found.backups]
    reasons = _reasons(listed)
    kinds = {each.encryption for each in listed}
    is_mixed = len(kinds) > 1
    yield from _table(
        "Backups that were made or deleted",
        (
            ("Date", "t"),
            ("Name", "w"),
            "Kind",
            ("Stored", "n"),
            ("Files", "n"),
            ("Content", "n"),
            ("Took", "n"),
            *(("Encryption",) if is_mixed else ()),
            "Result",
            "Now",
        ),
        (_row_of_backup(each, reasons, is_mixed=is_mixed) for each in listed),
    )
    yield from _table(
        "Why backups were deleted",
        (("No.", "n"), "Why", ("Backups", "n"), ("First", "t"), ("Last", "t")),
        (
            (
                str(number),
                shown(why),
                str(len(dates)),
                moment(min(dates)),
                moment(max(dates)),
            )
            for why, (number, dates) in reasons.items()
        ),
    )
    yield from _table(
        "Gaps longer than a backup may be old",
        (("From", "t"), ("To", "t"), ("Length", "n"), ("Overdue since", "t")),
        (
            (
                moment(each.begin),
                moment(each.end) or "no later backup",
                _length((each.end or found.period.now) - each.begin),
                moment(each.overdue),
            )
            for each in found.missed
        ),
    )
    yield from _table(
        "Backups with warnings",
        (("Date", "t"), ("Name", "w"), ("Warnings", "n"), "The first of them"),
        (
            (
                moment(each.date),
                shown(each.stored_filename),
                str(each.warning_count),
                "<br>".join(map(shown, each.warnings)) or "recorded on the host that made it",
            )
            for each in found.backups
            if each.warning_count
        ),
    )
    yield from _table(
        "Checks (the last one of each backup)",
        (("Date", "t"), ("Name", "w"), "Result", "Detail"),
        (
            (
                moment(check.date),
                shown(each.stored_filename),
                _result(check.verdict.is_good, check.verdict.value),
                shown(check.detail),
            )
            for each, check in found.checked
        ),
    )
    yield from _table(
        "Drills (the last one of each backup)",
        (("Date", "t"), ("Name", "w"), "Result", "Problem"),
        (
            (
                moment(drill.date),
                shown(each.stored_filename),
                _result(drill.passed, "restored" if drill.passed else "failed"),
                shown(drill.problem),
            )
            for each, drill in found.drilled
        ),
    )


def _reasons(backups: Iterable[BackupFacts]) -> dict[str, tuple[int, list[int]]]:
    """Return for each reason of a deletion its number, from 1 on, and the dates of deletions."""
    found: dict[str, tuple[int, list[int]]] = {}
    for each in backups:
        if each.deletion is not None:
            _, dates = found.setdefault(each.deletion.why, (len(found) + 1, []))
            dates.append(each.deletion.date)
    return found


def _row_of_backup(
    backup: BackupFacts, reasons: Mapping[str, tuple[int, list[int]]], *, is_mixed: bool
) -> Sequence[Cell]:
    problems = [
        counted(backup.warning_count, "warning") if backup.is_incomplete else "",
        "suspicious size" if backup.is_suspicious else "",
    ]
    problem = ", ".join(filter(None, problems))
    now = "stored"
    if backup.deletion is not None:
        why = f" ({reasons[backup.deletion.why][0]})" if len(reasons) > 1 else ""
        now = f"deleted {day(backup.deletion.date)}{why}"
    return (
        moment(backup.date),
        shown(backup.stored_filename),
        "increment" if backup.is_increment else "full",
        _size(backup.size),
        "" if backup.files is None else str(backup.files),
        "" if backup.content is None else human_size(backup.content),
        "" if backup.seconds is None else human_seconds(backup.seconds),
        *((backup.encryption,) if is_mixed else ()),
        (f"! {problem}", "warn") if problem else "complete",
        now,
    )


def _size(size: int) -> str:
    return human_size(size) if size >= 0 else ""


def _result(passed: bool, word: str) -> Cell:
    return f"\u2713 {shown(word)}" if passed else (f"\u2717 {shown(word)}", "bad")


def _table(
    caption: str, header: Sequence[Cell], rows: Iterable[Sequence[Cell]], *, class_: str = ""
) -> Iterator[str]:
    """Yield a table; nothing without rows.

    The class of a head is that of its column: the table says it for all rows, such as "n4". HTML
    lets the ends of cells and rows be left out.
    """
    is_begun = False
    for row in rows:
        if not is_begun:
            is_begun = True
            columns = [
                f"{each[1]}{number}"
                for number, each in enumerate(header, 1)
                if not isinstance(each, str)
            ]
            names = [each if isinstance(each, str) else each[0] for each in header]
            heads = "".join(f'<th scope="col">{each}' for each in names)
            yield (
                f'<section class="table" aria-label="{caption}" tabindex="0">'
                f'<table class="{" ".join(filter(None, (class_, *columns)))}">\n'
                f"<caption>{caption}</caption>\n<thead><tr>{heads}</thead>\n<tbody>\n"
            )
        yield "".join(["<tr>", *map(_cell, row), "\n"])
    if is_begun:
        yield "</tbody></table></section>\n"


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return f"<td>{cell}"
    content, class_ = cell
    return f'<td class="{class_}">{content}'
