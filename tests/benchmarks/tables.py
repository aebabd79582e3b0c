"""A report as reStructuredText, which a terminal shows well too."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.benchmarks.figures import (
    CHANGED,
    NEWEST,
    SERIES,
    SUBJECT,
    UNCHANGED,
    Report,
    Run,
    core_case,
    fastest_peer,
    median,
    ratio,
    second_core,
    spread,
    targets,
)

MEGABYTE = 1e6
MEBIBYTE = 1024 * 1024
TITLES = {
    "first": "First backup",
    "restore": "Restore",
    "one-file": "One file out of it",
    "stream": "Backup of a stream",
    UNCHANGED: "No change since the last backup",
    CHANGED: "1 % of the files changed",
    NEWEST: "Restore of the newest of {history} backups",
}
RECEIVING = {"restore", "one-file", NEWEST}
"""The sections in which the tools receive."""


def simple_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a simple table; the first cell of a row is never empty."""
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    line = "  ".join("=" * width for width in widths)

    def text(row: Sequence[str]) -> str:
        first = row[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        return "  ".join((first, *rest)).rstrip()

    return "\n".join((line, text(head), line, *map(text, rows), line))


def render(report: Report) -> str:
    """Return all of *report*."""
    parts = [_about(report)]
    if met := targets(report):
        rows = [
            (
                each.what,
                f"{'≤' if each.at_most else '≥'} {each.limit:g}{each.unit}",
                f"{each.measured:.2f}{each.unit}",
                "yes" if each.is_met else "no",
            )
            for each in met
        ]
        parts.append(_titled("Targets", simple_table(("what", "target", "measured", "met"), rows)))
    parts += [
        _titled(
            f"{title_of(report, section)}: {case} ({report.cases.get(case, '')})",
            _tools(report, section, case),
        )
        for section in TITLES
        for case in report.cases_of(section)
    ]
    parts += [text for make in (_start, _memory, _cores, _link) if (text := make(report))]
    if report.imports:
        text = "::\n\n" + "\n".join(f"    {line}" for line in report.imports)
        parts.append(_titled("What ``bakthat --help`` imports, the slowest", text))
    return "\n\n".join(parts) + "\n"


def title_of(report: Report, section: str) -> str:
    """Return the title of a section."""
    return TITLES[section].format(history=report.history)


def _titled(title: str, text: str) -> str:
    return f".. rubric:: {title}\n\n{text}"


def _about(report: Report) -> str:
    lines = [f"- {name}: {value}" for name, value in report.machine.items()]
    lines += [f"- {name}: {value}" for name, value in report.versions.items()]
    lines += [f"- {name}: {why}" for name, why in report.absent.items()]
    lines += [f"- {note}" for note in report.notes]
    return "\n".join(lines)


def _tools(report: Report, section: str, case: str) -> str:
    """Return the table of one case, by time; what stands apart is at the end."""
    tools = report.tools_of(section, case)
    walls = {tool: median(report.of(section, case, tool), lambda run: run.wall) for tool in tools}
    tools.sort(key=lambda tool: (tool in report.apart, walls[tool]))
    own = walls.get(SUBJECT)
    digits = 2 if section in SERIES else 0  # what is sent may be far less than a megabyte
    rows = []
    for tool in tools:
        runs = report.of(section, case, tool)
        name = report.labels.get(tool, tool) + (" [apart]" if tool in report.apart else "")
        stored = median(runs, lambda run: run.stored) / MEGABYTE
        rows.append(
            (
                name,
                _seconds(runs),
                f"{own / walls[tool]:.2f}" if own else "-",
                f"{median(runs, lambda run: run.cpu):.1f}",
                f"{median(runs, lambda run: run.server_cpu):.1f}",
                f"{median(runs, lambda run: run.memory) / MEBIBYTE:.0f}",
                f"{median(runs, lambda run: run.traffic) / MEGABYTE:.{digits}f}",
                f"{stored:.{digits}f}" if stored or section in SERIES else "-",
                f"{median(runs, lambda run: run.scratch) / MEGABYTE:.0f}",
            )
        )
    head = (
        "tool",
        "seconds (least-most)",
        "bakthat/it",
        "CPU s",
        "server CPU s",
        "memory MiB",
        "received MB" if section in RECEIVING else "sent MB",
        "stored MB",
        "temporary MB",
    )
    text = simple_table(head, rows)
    words = [_verdict(report, section, case, walls)]
    if section == "one-file":
        words.append("The pipelines read all of the backup for it.")
    return f"{text}\n\n{' '.join(words)}".rstrip()


def _verdict(report: Report, section: str, case: str, walls: dict[str, float]) -> str:
    """Return the comparison in words: the fastest peer, and where another format wins."""
    share = ratio(report, section, case)
    if share is None:
        return ""
    peer = fastest_peer(report, section, case)
    words = [f"bakthat takes {share:.2f} of the time of {report.labels.get(peer, peer)}."]
    for tool in report.apart:
        if tool in walls:
            wins = walls[tool] < walls[SUBJECT]
            label = report.labels.get(tool, tool)
            difference = walls[tool] / walls[SUBJECT]
            words.append(
                f"{label}, another format, {'wins' if wins else 'does not win'} here:"
                f" {difference:.2f} of bakthat's time{_smaller(report, section, case, tool)}."
            )
    return " ".join(words)


def _smaller(report: Report, section: str, case: str, tool: str) -> str:
    runs, own = report.of(section, case, tool), report.of(section, case, SUBJECT)
    stored, mine = (median(each, lambda run: run.stored) for each in (runs, own))
    return f", {stored / mine:.2f} of its stored bytes" if stored and mine else ""


def _seconds(runs: Sequence[Run], digits: int = 2) -> str:
    least, most = spread([run.wall for run in runs])
    middle = median(runs, lambda run: run.wall)
    return f"{middle:.{digits}f} ({least:.{digits}f}-{most:.{digits}f})"


def _cases(
    report: Report, section: str, columns: Sequence[tuple[str, Callable[[list[Run]], str]]]
) -> str:
    rows = []
    for case in report.cases_of(section):
        for tool in report.tools_of(section, case):
            runs = report.of(section, case, tool)
            name = case if tool == SUBJECT else f"{case}: {report.labels.get(tool, tool)}"
            rows.append((name, *(value(runs) for _, value in columns)))
    return simple_table(("what", *(name for name, _ in columns)), rows)


def _start(report: Report) -> str:
    runs = report.of("start")
    if not runs:
        return ""
    rows = [(case, _seconds(report.of("start", case), 3)) for case in report.cases_of("start")]
    return _titled("Start-up", simple_table(("command", "seconds (least-most)"), rows))


def _memory(report: Report) -> str:
    if not report.of("memory"):
        return ""
    table = _cases(
        report,
        "memory",
        (
            ("memory MiB", lambda runs: f"{median(runs, lambda run: run.memory) / MEBIBYTE:.0f}"),
            ("temporary MB", lambda runs: f"{max(run.scratch for run in runs) / MEGABYTE:.0f}"),
            ("seconds", lambda runs: f"{median(runs, lambda run: run.wall):.1f}"),
        ),
    )
    return _titled("Memory against size, half of it incompressible", table)


def _cores(report: Report) -> str:
    if not report.of("cores"):
        return ""
    table = _cases(report, "cores", (("seconds (least-most)", _seconds),))
    gains = [
        f"{name} to {where}: {gain:.2f} times one core's throughput"
        for where in ("S3", "tmpfs")
        for name in report.cases
        if (gain := second_core(report, name, where)) is not None
        and report.of("cores", core_case(name, where, 2))
    ]
    text = "To S3 the server has the same cores; to a tmpfs there is no server.\n\n" + table
    if gains:
        text += "\n\nThe second core: " + "; ".join(gains) + "."
    return _titled("First backup against cores", text)


def _link(report: Report) -> str:
    if not report.of("link"):
        return ""
    table = _cases(
        report,
        "link",
        (
            ("seconds (least-most)", _seconds),
            ("use of the line", lambda runs: f"{median(runs, lambda run: run.line_use):.1%}"),
        ),
    )
    return _titled("A slow link", table)
