"""The chart of the documentation, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.figures import LOCAL_SUBJECT, SERIES, SUBJECT, Report, median
from tests.benchmarks.tables import title_of
from tests.docs import svg

WIDTH = 760
LABEL = 310
"""Pixels left of the bars."""
ROW = 20
PANEL = 34
"""Pixels above the bars of a panel."""
STYLE = (
    ".strong{font-weight:bold}\n"
    "rect.subject{fill:@strong}\n"
    "rect.peer{fill:@peer}\n"
    "rect.apart{fill:@apart}\n"
)
"""The bars of bakthat, of the tools that it is compared with, and of those with another format."""
SECTIONS = ("first", "restore", *SERIES)


SHORT = ("first", "restore")
"""The sections of the chart for a page that has no room for all of them."""


def draw(report: Report, sections: Sequence[str] = SECTIONS, only: str = "") -> str:
    """Return a panel of bars, seconds, for each set that was backed up or restored.

    *only* is the one set to show, whose letter then need not be known; all unless given.
    """
    parts: list[str] = []
    said: list[str] = []
    top = 12
    for section in sections:
        for case in report.cases_of(section):
            if only not in ("", case):
                continue
            name = title_of(report, section) + ("" if only else f", {case}")
            title = f"{name}: {report.cases.get(case, '')}"
            bars = sorted(
                (median(report.of(section, case, tool), lambda run: run.wall), tool)
                for tool in report.tools_of(section, case)
            )
            said.append(f"{title}: {_in_words(report, bars)}.")
            top = _panel(parts, report, bars, f"{title} (seconds, less is better)", top)
    return svg.document(
        WIDTH, top, "Seconds of each tool, less is better", " ".join(said), STYLE, parts
    )


def _in_words(report: Report, bars: Sequence[tuple[float, str]]) -> str:
    return ", ".join(f"{report.labels.get(tool, tool)} {seconds:.2f}" for seconds, tool in bars)


def _panel(
    parts: list[str], report: Report, bars: Sequence[tuple[float, str]], title: str, top: int
) -> int:
    """Append one panel and return where the next one begins."""
    longest = max(seconds for seconds, _ in bars) or 1.0
    parts.append(svg.text(12, top + 20, title, "strong"))
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
        width = round((WIDTH - LABEL - 64) * seconds / longest, 1)
        weight = "strong" if kind == "subject" else ""
        parts += [
            svg.text(LABEL - 8, top + 13, label, weight, anchor="end"),
            svg.box(LABEL, top + 2, width, ROW - 6, kind, rx=0),
            svg.text(LABEL + width + 6, top + 13, f"{seconds:.2f}", weight),
        ]
        top += ROW
    return top + 8
