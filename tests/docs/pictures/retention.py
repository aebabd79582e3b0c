"""The retention calendar: what a rotation keeps of daily backups, as the rules decide it."""

from __future__ import annotations

import calendar
from datetime import UTC, date, datetime, timedelta

from bakthat.policy.rotation import Decision, RotationPolicy, decide
from tests.docs import svg

POLICY = RotationPolicy(days=7, weeks=4, months=6)
FIRST, TODAY = date(2026, 7, 1), date(2026, 12, 16)
"""A backup was made on each day from the one to the other."""

CELL, GAP = 30, 4
STEP = CELL + GAP
MONTH_GAP, TOP, LEFT = 34, 84, 24
STYLE = (
    ".title{font-size:15px;font-weight:bold}\n"
    ".month{font-size:14px;font-weight:bold}\n"
    ".weekday,.small{font-size:11px;fill:@faint}\n"
    ".day{font-size:12px}\n"
    "text.deleted{fill:@faint}\n"
    "rect.deleted{fill:none;stroke:@line}\n"
    "text.daily{fill:@on-strong;font-weight:bold}\n"
    "rect.daily{fill:@strong;stroke:@strong}\n"
    "rect.weekly{fill:@soft;stroke:@edge}\n"
    "rect.monthly{fill:@warm;stroke:@warm-edge}\n"
    ".also{fill:@on-strong}\n"
    ".today{fill:none;stroke:@text;stroke-width:1.5}\n"
)
KEY = {
    "daily": "one of the last 7 days",
    "weekly": "a week's first, of 4 weeks",
    "monthly": "a month's first, of 6 months",
    "deleted": "deleted",
}
RULES = str(POLICY).replace("saturday", "Saturday")
SUBTITLE = (
    "A backup each night since 1 July, and what rotate_backups keeps of them on 16 December "
    "(the day with a ring)."
)
COLUMNS = 3
ORDER = calendar.Calendar(POLICY.first_week_day)


def decisions() -> dict[date, Decision]:
    """Return what the rotation of today decides about the backup of each day."""
    days = [FIRST + timedelta(each) for each in range((TODAY - FIRST).days + 1)]
    dates = [_moment(day) for day in days]
    return dict(zip(days, decide(dates, POLICY, dates[-1]), strict=True))


def _moment(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, 3, tzinfo=UTC).timestamp())


def kind_of(decision: Decision) -> str:
    """Return the finest rule that keeps a backup, or "deleted"."""
    words = [reason.split()[0] for reason in decision.reasons]
    return next((each for each in KEY if each in words), "deleted")


def draw() -> str:
    """Return the picture."""
    decided = decisions()
    kept = sum(each.keep for each in decided.values())
    title = f"{kept} of {len(decided)} daily backups are kept: {RULES}"
    body = [
        svg.text(LEFT, 34, title, "title"),
        svg.text(LEFT, 56, SUBTITLE, "small"),
    ]
    months = sorted({(day.year, day.month) for day in decided})
    y = TOP
    for start in range(0, len(months), COLUMNS):
        row = months[start : start + COLUMNS]
        for column, (year, month) in enumerate(row):
            body += _month(year, month, LEFT + column * (7 * STEP + MONTH_GAP), y, decided)
        y += max(len(ORDER.monthdatescalendar(*each)) for each in row) * STEP + 68
    body += svg.key(LEFT, y, KEY)
    body.append(svg.text(LEFT, y + 24, "A dot: the first of its week too.", "small"))
    width = 2 * LEFT + COLUMNS * (7 * STEP + MONTH_GAP) - MONTH_GAP - GAP
    return svg.document(width, y + 42, title, _description(decided), STYLE, body)


def _month(year: int, month: int, x: float, y: float, decided: dict[date, Decision]) -> list[str]:
    parts = [svg.text(x, y + 14, f"{calendar.month_name[month]} {year}", "month")]
    for column, weekday in enumerate(ORDER.iterweekdays()):
        middle = x + column * STEP + CELL / 2
        name = calendar.day_abbr[weekday]
        parts.append(svg.text(middle, y + 34, name, "weekday", anchor="middle"))
    for row, week in enumerate(ORDER.monthdatescalendar(year, month)):
        for column, day in enumerate(week):
            if day.month == month and day in decided:
                parts += _day(day, x + column * STEP, y + 42 + row * STEP, decided[day])
    return parts


def _day(day: date, x: float, y: float, decision: Decision) -> list[str]:
    kind = kind_of(decision)
    middle = x + CELL / 2
    parts = [
        svg.box(x, y, CELL, CELL, kind),
        svg.text(middle, y + 20, str(day.day), f"day {kind}", anchor="middle"),
    ]
    if kind == "daily" and any(each.startswith("weekly") for each in decision.reasons):
        parts.append(svg.element("circle", cx=middle, cy=y + 25.5, r=1.8, class_="also"))
    if day == TODAY:
        parts.append(svg.box(x - 3, y - 3, CELL + 6, CELL + 6, "today", rx=6))
    return parts


def _description(decided: dict[date, Decision]) -> str:
    """Return the days that are kept, for those who do not see them."""
    kept: dict[str, list[str]] = {}
    for day, decision in decided.items():
        if decision.keep:
            name = f"{day.day} {calendar.month_name[day.month]}"
            kept.setdefault(kind_of(decision), []).append(name)
    return " ".join(f"{kind.capitalize()}: {', '.join(days)}." for kind, days in kept.items())
