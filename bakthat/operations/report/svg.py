"""The pictures of a report as SVG: a calendar, and a curve of the size.

They are parts of a page, whose style sheet has the colours. Each has a title and a description, and
a day is told by its shape as well as by its colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from html import escape

from bakthat.operations.report.days import Day, DayState
from bakthat.system.text import counted, human_size

_CELL, _STEP = 13, 16
_LEFT, _TOP = 34, 16
_WEEKS = 53
"""The most weeks of one row."""
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_NAMED_UNTIL = 5
"""The last day of a month on which a period may begin for its name to have room."""
_WIDTH, _HEIGHT, _RIGHT, _BOTTOM = 880, 130, 8, 20
"""The size of a curve, and its margins; the left one is for the labels of the sizes."""
_LABELS = 70

SHAPES = {
    # Each in a square of _CELL: its id and class, which are short, and what is drawn.
    DayState.GOOD: ("g", '<rect width="13" height="13" rx="2"/>'),
    DayState.INCOMPLETE: (
        "i",
        '<rect class="frame" x=".75" y=".75" width="11.5" height="11.5" rx="2"/>'
        '<path d="M1 12V1L12 12z"/>',
    ),
    DayState.MISSED: (
        "m",
        '<rect class="frame" x=".75" y=".75" width="11.5" height="11.5" rx="2"/>'
        '<path class="line" d="M3.5 3.5l6 6m0-6l-6 6"/>',
    ),
    DayState.FAILED: (
        "f",
        '<rect width="13" height="13" rx="2"/>'
        '<path class="mark" d="M5.5 2.5h2v5h-2zm0 6.2h2v2h-2z"/>',
    ),
    DayState.NONE: ("n", '<circle cx="6.5" cy="6.5" r="1.5"/>'),
}


def definitions() -> str:
    """Return the shapes of the days, which each calendar uses; once for a page."""
    shapes = "".join(
        f'<g id="{id_}" class="day {id_}">{shape}</g>' for id_, shape in SHAPES.values()
    )
    return (
        f'<svg width="0" height="0" class="shapes" aria-hidden="true"><defs>{shapes}</defs></svg>'
    )


def key() -> str:
    """Return the key of the calendars: each shape and what it means."""
    return "".join(
        f'<span><svg width="{_CELL}" height="{_CELL}" aria-hidden="true">'
        f'<use href="#{id_}"/></svg> {escape(state.value)}</span>'
        for state, (id_, _) in SHAPES.items()
    )


def calendar(days: Sequence[Day], title: str) -> str:
    """Return a calendar: a column for each week from Monday on, a row for each day of it.

    After a year the next row of weeks begins. The day of the month is not written; each day has a
    title with its date.
    """
    monday = days[0].day - timedelta(days[0].day.weekday())
    weeks = (days[-1].day - monday).days // 7 + 1
    bands = -(-weeks // _WEEKS)
    band_height = _TOP + 7 * _STEP + 6
    width = _LEFT + min(weeks, _WEEKS) * _STEP
    parts = [
        f'<svg class="calendar" role="img" width="{width}" height="{bands * band_height}" '
        f'viewBox="0 0 {width} {bands * band_height}">',
        f"<title>{escape(title)}</title><desc>{escape(_described(days))}</desc>",
    ]
    for band in range(bands):
        for row, name in ((0, "Mon"), (2, "Wed"), (4, "Fri")):
            y = band * band_height + _TOP + row * _STEP + 11
            parts.append(f'<text x="0" y="{y}">{name}</text>')
    parts += _months(days, monday, band_height)
    for each in days:
        week, row = divmod((each.day - monday).days, 7)
        x = _LEFT + week % _WEEKS * _STEP
        y = week // _WEEKS * band_height + _TOP + row * _STEP
        more = f", {each.count} backups" if each.count > 1 else ""
        parts.append(
            f'<use href="#{SHAPES[each.state][0]}" x="{x}" y="{y}">'
            f"<title>{each.day} {each.state}{more}</title></use>"
        )
    parts.append("</svg>")
    return "".join(parts)


def _described(days: Sequence[Day]) -> str:
    counts = {state: sum(each.state is state for each in days) for state in DayState}
    shown = [f"{state.value}: {counted(count, 'day')}" for state, count in counts.items() if count]
    return f"From {days[0].day} to {days[-1].day}. {'; '.join(shown)}."


def _months(days: Sequence[Day], monday: date, band_height: int) -> Iterator[str]:
    """Yield the names of the months, each above the week of its first day, with new years."""
    year = 0
    for each in days:
        first = each.day if each.day.day == 1 else None
        if each is days[0] and each.day.day <= _NAMED_UNTIL:
            first = each.day
        if first is None:
            continue
        week = (first - monday).days // 7
        x, y = _LEFT + week % _WEEKS * _STEP, week // _WEEKS * band_height + 11
        name = f"{_MONTHS[first.month - 1]}{'' if first.year == year else f' {first.year}'}"
        year = first.year
        yield f'<text x="{x}" y="{y}">{name}</text>'


def curve(points: Sequence[tuple[int, int]], title: str, ends: tuple[str, str]) -> str:
    """Return a curve of bytes over time, which stay the same until they change.

    *points* are epoch seconds and bytes in the order of time, the first and the last those of the
    ends of the period; *ends* are the texts for these.
    """
    begin, end = points[0][0], points[-1][0]
    highest = max(level for _, level in points)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    scale = (right - _LABELS) / max(end - begin, 1)
    levels: dict[int, int] = {}
    for moment, level in points:  # a picture shows no more than a change for each of its pixels
        levels[round(_LABELS + (moment - begin) * scale)] = level
    path = ""
    for x, level in levels.items():
        y = round(bottom - level / max(highest, 1) * (bottom - 8), 1)
        path += f"H{x}V{y:g}" if path else f"M{x} {y:g}"
    description = (
        f"At {ends[0]} {human_size(points[0][1])}, at {ends[1]} {human_size(points[-1][1])}, "
        f"at most {human_size(highest)}."
    )
    labels = [(8, highest), (bottom, 0)] if highest else [(bottom, 0)]
    parts = [
        f'<svg class="curve" role="img" viewBox="0 0 {_WIDTH} {_HEIGHT}">',
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>",
        *(
            f'<path class="grid" d="M{_LABELS} {y}H{right}"/>'
            f'<text x="{_LABELS - 6}" y="{y + 4}" text-anchor="end">{human_size(level)}</text>'
            for y, level in labels
        ),
        f'<path class="area" d="{path}V{bottom}H{_LABELS}z"/><path class="level" d="{path}"/>',
        f'<text x="{_LABELS}" y="{_HEIGHT - 4}">{escape(ends[0])}</text>',
        f'<text x="{right}" y="{_HEIGHT - 4}" text-anchor="end">{escape(ends[1])}</text>',
        "</svg>",
    ]
    return "".join(parts)
