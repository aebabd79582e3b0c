"""The chart of the documentation, as SVG."""

from __future__ import annotations

from xml.sax.saxutils import escape

from tests.benchmarks.figures import LOCAL_SUBJECT, SERIES, SUBJECT, Report, median
from tests.benchmarks.tables import title_of

WIDTH = 760
LABEL = 310
"""Pixels left of the bars."""
ROW = 20
PANEL = 34
"""Pixels above the bars of a panel."""
COLOURS = {"subject": "#1f6f8b", "peer": "#9aa5b1", "apart": "#d5dbe1"}
SECTIONS = ("first", "restore", *SERIES)


def draw(report: Report) -> str:
    """Return a panel of bars, seconds, for each set that was backed up or restored."""
    parts: list[str] = []
    top = 8
    for section in SECTIONS:
        for case in report.cases_of(section):
            title = title_of(report, section)
            what = f"{title}, {case}: {report.cases.get(case, '')} (seconds, less is better)"
            top = _panel(parts, report, section, case, what, top)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" '
        f'viewBox="0 0 {WIDTH} {top}" font-family="sans-serif" font-size="12" role="img">\n'
        "<title>Seconds of each tool, less is better</title>\n"
        f'<rect width="{WIDTH}" height="{top}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _panel(parts: list[str], report: Report, section: str, case: str, title: str, top: int) -> int:
    """Append one panel and return where the next one begins."""
    bars = sorted(
        (median(report.of(section, case, tool), lambda run: run.wall), tool)
        for tool in report.tools_of(section, case)
    )
    longest = max(seconds for seconds, _ in bars) or 1.0
    parts.append(
        f'<text x="8" y="{top + 20}" font-weight="bold" fill="#222222">{escape(title)}</text>'
    )
    top += PANEL
    for seconds, tool in bars:
        kind = (
            "subject"
            if tool in (SUBJECT, LOCAL_SUBJECT)
            else "apart"
            if tool in report.apart
            else "peer"
        )
        label = report.labels.get(tool, tool) + (" (other format)" if kind == "apart" else "")
        width = (WIDTH - LABEL - 60) * seconds / longest
        weight = ' font-weight="bold"' if kind == "subject" else ""
        parts += [
            f'<text x="{LABEL - 8}" y="{top + 13}" text-anchor="end" fill="#222222"{weight}>'
            f"{escape(label)}</text>",
            f'<rect x="{LABEL}" y="{top + 2}" width="{width:.1f}" height="{ROW - 6}" '
            f'fill="{COLOURS[kind]}"/>',
            f'<text x="{LABEL + width + 6:.1f}" y="{top + 13}" fill="#222222"{weight}>'
            f"{seconds:.2f}</text>",
        ]
        top += ROW
    return top + 8
