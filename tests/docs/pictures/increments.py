"""How increments build on each other: the parents that the rules choose, for daily backups."""

from __future__ import annotations

import calendar
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

from bakthat.policy.levels import (
    DAY,
    FULL,
    MAX_ARCHIVES,
    MONTH,
    WEEK,
    Link,
    level_of,
    needed_by,
    parent_of,
)
from bakthat.policy.rotation import RotationPolicy, decide
from tests.docs import svg

POLICY = RotationPolicy(days=7, weeks=4, months=6)
FIRST, RESTORED, LAST = date(2026, 9, 1), date(2026, 9, 14), date(2026, 10, 3)
"""A backup is made each day. What is restored, and deleted by then, is seen from *RESTORED*."""
SHOWN = [FIRST + timedelta(each) for each in range(14)]
SHOWN += [date(2026, 10, each) for each in (1, 2, 3)]

ROWS = {"full": FULL, "month": MONTH, "week": WEEK, "day": DAY}
WIDTH, HEIGHT = 1086, 400
BOX_WIDTH, BOX_HEIGHT, STEP = 46, 34, 56
STYLE = (
    (
        ".small{font-size:11px;fill:@faint}\n"
        ".row{font-weight:bold}\n"
        ".line{stroke:@line;stroke-width:1}\n"
        "rect.kept{fill:@soft;stroke:@edge}\n"
        "rect.chain{fill:@strong;stroke:@strong}\n"
        "rect.needed{fill:@warm;stroke:@warm-edge}\n"
        "rect.deleted{fill:@page;stroke:@edge;stroke-dasharray:4 3}\n"
        "text.chain{fill:@on-strong;font-weight:bold}\n"
        "text.deleted{fill:@faint}\n"
    )
    + svg.ARROW_STYLE
    + ".arrow.chain{stroke:@strong;stroke-width:2.6}\n"
)
KEY = {
    "chain": "read to restore 14 September",
    "kept": "kept by rotation, or made later",
    "needed": "kept since others need it",
    "deleted": "deleted",
}


def chains() -> tuple[dict[date, list[date]], dict[date, int]]:
    """Return what each backup needs, itself at the end, and the level of each."""
    needs: dict[date, list[date]] = {}
    levels: dict[date, int] = {}
    for number in range((LAST - FIRST).days + 1):
        day = FIRST + timedelta(number)
        chain = needs[max(needs)] if needs else []
        level = level_of(moment(day), map(moment, needs), POLICY)
        links = [Link(moment(each), levels[each]) for each in chain]
        position = parent_of(links, level, MAX_ARCHIVES)
        needs[day] = [*(chain[: position + 1] if position is not None else []), day]
        levels[day] = FULL if position is None else level
    return needs, levels


def kinds(needs: dict[date, list[date]]) -> dict[date, str]:
    """Return the class of each box: what becomes of the backup."""
    until = [day for day in needs if day <= RESTORED]
    decided = decide([moment(day) for day in until], POLICY, moment(RESTORED))
    kept = {day for day, decision in zip(until, decided, strict=True) if decision.keep}
    by_moment = {moment(day): list(map(moment, chain)) for day, chain in needs.items()}
    needed = needed_by(set(map(moment, kept)), by_moment)
    found = {}
    for day in needs:
        if day in needs[RESTORED]:
            found[day] = "chain"
        elif day in kept or day > RESTORED:
            found[day] = "kept"
        else:
            found[day] = "needed" if moment(day) in needed else "deleted"
    return found


def moment(day: date) -> int:
    """Return the time of a day's backup, in epoch seconds."""
    return int(datetime(day.year, day.month, day.day, 3, tzinfo=UTC).timestamp())


def draw() -> str:
    """Return the picture."""
    needs, levels = chains()
    kind = kinds(needs)
    body = [svg.ARROW_HEAD]
    for name, level in ROWS.items():
        y = _top(level)
        body.append(svg.text(16, y + 21, name, "row"))
        body.append(svg.element("line", x1=70, y1=y + 51, x2=WIDTH - 16, y2=y + 51, class_="line"))
    for day in SHOWN:
        is_first = day in (FIRST, *SHOWN[-3:])
        label = f"{day.day} {calendar.month_abbr[day.month]}" if is_first else str(day.day)
        week_day = calendar.day_abbr[day.weekday()]
        body.append(svg.text(_middle(day), 26, label, anchor="middle"))
        body.append(svg.text(_middle(day), 42, week_day, "small", anchor="middle"))
    body.append(svg.text(_middle(RESTORED) + 46, _top(DAY) + 21, "…", "small", anchor="middle"))
    links = [(day, needs[day][-2]) for day in SHOWN if len(needs[day]) > 1]
    for day, parent in links:
        is_read = day in needs[RESTORED]
        body.append(_arrow(day, parent, levels, "arrow chain" if is_read else "arrow"))
    for day in SHOWN:
        x, y = _middle(day) - BOX_WIDTH / 2, _top(levels[day])
        name = "full" if levels[day] == FULL else ".inc"
        body.append(svg.box(x, y, BOX_WIDTH, BOX_HEIGHT, kind[day]))
        body.append(svg.text(_middle(day), y + 21, name, kind[day], anchor="middle"))
    body += svg.key(84, 366, KEY)
    body.append(svg.text(84, 388, f"{ARROWS} Rotation keeps {RULES}.", "small"))
    return svg.document(
        WIDTH,
        HEIGHT,
        "Daily backups of September as archives, and what each is made from",
        _description(links, needs),
        STYLE,
        body,
    )


RULES = str(POLICY).replace("saturday", "Saturday")
ARROWS = "An arrow leads from an archive to the one that it is made from."


def _description(links: Iterable[tuple[date, date]], needs: dict[date, list[date]]) -> str:
    made = ", ".join(f"{day:%d.%m.} from {parent:%d.%m.}" for day, parent in links)
    read = ", ".join(f"{day:%d.%m.}" for day in needs[RESTORED])
    return f"Made from each other: {made}. A restore of 14 September reads {read}"


def _arrow(day: date, parent: date, levels: dict[date, int], class_: str) -> str:
    """Return the arrow from the box of *day* to that of its parent, which are on their rows."""
    x, y = _middle(day) - BOX_WIDTH / 2, _top(levels[day]) + BOX_HEIGHT / 2
    to_x, to_y = _middle(parent), _top(levels[parent]) + BOX_HEIGHT / 2
    right, below = to_x + BOX_WIDTH / 2, to_y + BOX_HEIGHT / 2
    if levels[day] == levels[parent]:
        path = f"M{x:g},{y:g} H{right:g}"
    elif levels[day] == MONTH:
        path = f"M{_middle(day):g},{y - BOX_HEIGHT / 2:g} V{to_y:g} H{right:g}"
    else:
        # Two arrows to the full: those of a week and of a day, side by side.
        shift = {WEEK: 11, DAY: -11}[levels[day]] if levels[parent] == FULL else 0
        path = f"M{x:g},{y:g} H{to_x + shift:g} V{below:g}"
    return svg.arrow(path, class_, id=f"{day}-from-{parent}")


def _middle(day: date) -> float:
    position = SHOWN.index(day)
    return 107 + STEP * position + (40 if day > RESTORED else 0)


def _top(level: int) -> float:
    return 70 + 70 * list(ROWS.values()).index(level)
