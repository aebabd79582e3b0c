"""What was measured, and what follows from it: medians, ratios, targets. No input, no output."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

SUBJECT = "bakthat"
LOCAL_SUBJECT = "bakthat-local"
"""bakthat too, with a local directory as its destination."""
UNCHANGED, CHANGED, NEWEST = SERIES = ("unchanged", "changed", "newest")
"""The sections of backups of one tree again and again: nothing changed, 1 % of the files changed,
and the restore of the newest backup of many."""
MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class Run:
    """One command that was measured once."""

    section: str
    case: str
    tool: str
    wall: float
    cpu: float = 0.0
    server_cpu: float = 0.0
    memory: int = 0
    traffic: int = 0
    scratch: int = 0
    stored: int = 0
    line_use: float = 0.0
    """Of the slow link's capacity, 0 to 1."""


@dataclass
class Report:
    """All that the pages show."""

    machine: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    """Of each tool, by its label."""
    absent: dict[str, str] = field(default_factory=dict)
    """Tools that did not run, or failed, and why."""
    labels: dict[str, str] = field(default_factory=dict)
    """How the tables call each tool."""
    cases: dict[str, str] = field(default_factory=dict)
    """What the sets hold."""
    apart: list[str] = field(default_factory=list)
    """Tools whose format differs; not compared with."""
    local: list[str] = field(default_factory=list)
    """Tools that write to a local directory, where the others send to a server."""
    notes: list[str] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    gzip_bytes: dict[str, int] = field(default_factory=dict)
    """What ``tar | gzip -6`` makes of each set."""
    history: int = 30
    """Of how many backups the newest is restored."""
    imports: list[str] = field(default_factory=list)
    """The lines of ``python -X importtime`` that took longest."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Report:
        """Return the report that :meth:`as_dict` was made of."""
        return cls(**{**values, "runs": [Run(**run) for run in values["runs"]]})

    def of(self, section: str, case: str = "", tool: str = "") -> list[Run]:
        """Return the runs of a section, of one case or tool only where that is given."""
        return [
            run
            for run in self.runs
            if run.section == section
            and (not case or run.case == case)
            and (not tool or run.tool == tool)
        ]

    def cases_of(self, section: str) -> list[str]:
        """Return the cases of a section in the order in which they ran."""
        return list(dict.fromkeys(run.case for run in self.of(section)))

    def tools_of(self, section: str, case: str = "") -> list[str]:
        """Return the tools of a section in the order in which they ran."""
        return list(dict.fromkeys(run.tool for run in self.of(section, case)))


def median(runs: Iterable[Run], value: Callable[[Run], float]) -> float:
    """Return the median of *value* over *runs*, of which there is at least one."""
    return statistics.median(value(run) for run in runs)


def wall(report: Report, section: str, case: str, tool: str) -> float:
    """Return the median seconds of a tool in a case."""
    return median(report.of(section, case, tool), lambda run: run.wall)


def fastest_peer(report: Report, section: str, case: str, *, local: bool | None = None) -> str:
    """Return the fastest tool beside bakthat, but for those apart, or "".

    *local* True keeps to those that write to a local directory, False to the others.
    """
    peers = [
        tool
        for tool in report.tools_of(section, case)
        if tool not in (SUBJECT, LOCAL_SUBJECT, *report.apart)
        and (local is None or (tool in report.local) == local)
    ]
    return min(peers, key=lambda tool: wall(report, section, case, tool), default="")


def ratio(report: Report, section: str, case: str, *, local: bool | None = None) -> float | None:
    """Return bakthat's seconds over those of the fastest peer, or None without both.

    With *local* True it is bakthat writing to a local directory that is compared.
    """
    peer = fastest_peer(report, section, case, local=local)
    subject = LOCAL_SUBJECT if local else SUBJECT
    if not peer or not report.of(section, case, subject):
        return None
    return wall(report, section, case, subject) / wall(report, section, case, peer)


@dataclass(frozen=True)
class Target:
    """What was meant to be reached, and what was."""

    what: str
    limit: float
    measured: float
    at_most: bool = True
    unit: str = ""

    @property
    def is_met(self) -> bool:
        """Whether it was reached."""
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit


AGAINST: dict[str, bool | None] = {
    "the fastest peer": None,
    "the fastest that sends to S3 too": False,
    "the fastest local one, local too": True,
}
LIMITS = {
    "first": {"A": 0.6, "B": 0.5, "C": 0.5},
    "restore": {"A": 0.75, "B": 0.8, "C": 0.6},
}
STREAM_LIMIT = 0.7
SECOND_CORE = {"A": 1.2, "C": 1.5}
AGAIN_PEER = "restic"
AGAIN_LIMIT = 0.5
"""Of a backup of A or D when nothing, or 1 %, has changed, in times of AGAIN_PEER."""
UNCHANGED_SENT_LIMIT = 0.1
"""Megabytes."""
STORED_LIMIT = 1.15
MEMORY_LIMIT = 256 * MEBIBYTE
SCRATCH_LIMIT = MEBIBYTE
"""The catalog and its log are files of the home directory, and small."""
LINE_LIMIT = 0.95
START_LIMIT = 2.0
BASELINE = "python"
"""The tool of the section ``start`` that stands for what Python itself takes."""


def targets(report: Report) -> list[Target]:
    """Return every target that *report* has the runs for."""
    found = []
    for section, what in (("first", "first backup"), ("restore", "restore")):
        for case, limit in LIMITS[section].items():
            for whom, local in AGAINST.items():
                measured = ratio(report, section, case, local=local)
                if measured is not None:
                    found.append(Target(f"{what} of {case} against {whom}", limit, measured))
    for case in report.cases_of("stream"):
        measured = ratio(report, "stream", case)
        if measured is not None:
            what = "backup of a stream against the fastest pipeline"
            found.append(Target(what, STREAM_LIMIT, measured))
    found += _targets_of_series(report)
    for case, packed in report.gzip_bytes.items():
        if runs := report.of("first", case, SUBJECT):
            share = median(runs, lambda run: run.stored) / packed
            found.append(Target(f"stored bytes of {case} against gzip -6", STORED_LIMIT, share))
    found += _limits_of_every_run(report)
    found += [
        Target(
            f"use of the line, {case}",
            LINE_LIMIT * 100,
            100 * median(report.of("link", case, SUBJECT), lambda run: run.line_use),
            at_most=False,
            unit=" %",
        )
        for case in report.cases_of("link")
        if report.of("link", case, SUBJECT)
    ]
    for case, limit in SECOND_CORE.items():
        gain = second_core(report, case)
        if gain is not None:
            what = f"throughput of a second core, {case} to S3"
            found.append(Target(what, limit, gain, at_most=False))
    starts = report.of("start", "bakthat --help"), report.of("start", tool=BASELINE)
    if all(starts):
        share = median(starts[0], lambda run: run.wall) / median(starts[1], lambda run: run.wall)
        what = "bakthat --help against python -c 'import argparse, yaml'"
        found.append(Target(what, START_LIMIT, share))
    return found


def _targets_of_series(report: Report) -> list[Target]:
    found = []
    peer = report.labels.get(AGAIN_PEER, AGAIN_PEER)
    for case in ("A", "D"):
        for section, what in ((UNCHANGED, "no change"), (CHANGED, "1 % changed")):
            if report.of(section, case, SUBJECT) and report.of(section, case, AGAIN_PEER):
                own, other = (wall(report, section, case, tool) for tool in (SUBJECT, AGAIN_PEER))
                found.append(Target(f"{what} of {case} against {peer}", AGAIN_LIMIT, own / other))
    if runs := report.of(UNCHANGED, "A", SUBJECT):
        sent = median(runs, lambda run: run.traffic) / 1e6
        found.append(
            Target("sent when nothing of A changed", UNCHANGED_SENT_LIMIT, sent, unit=" MB")
        )
    return found


def _limits_of_every_run(report: Report) -> list[Target]:
    runs = [run for run in report.runs if run.tool == SUBJECT and run.memory]
    if not runs:
        return []
    memory = max(run.memory for run in runs) / MEBIBYTE
    # The catalog that ``show`` is timed with is no temporary file, and large.
    scratch = max((run.scratch for run in runs if run.section != "start"), default=0) / MEBIBYTE
    return [
        Target("peak memory of every run", MEMORY_LIMIT / MEBIBYTE, memory, unit=" MiB"),
        Target("temporary disk of every run", SCRATCH_LIMIT / MEBIBYTE, scratch, unit=" MiB"),
    ]


def core_case(name: str, where: str, cores: int) -> str:
    """Return the case of the section ``cores`` for a set, a destination and a number of cores."""
    return f"{name} to {where}, {cores} core{'s' if cores > 1 else ''}"


def second_core(report: Report, name: str, where: str = "S3") -> float | None:
    """Return how many times faster two cores are than one, or None without the runs."""
    runs = [report.of("cores", core_case(name, where, cores), SUBJECT) for cores in (1, 2)]
    if not all(runs):
        return None
    one, two = (median(each, lambda run: run.wall) for each in runs)
    return one / two


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the least and the greatest of *values*."""
    return min(values), max(values)
