"""Measure bakthat and its peers: ``python -m tests.benchmarks --help``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import bakthat
from tests.benchmarks import other_runs, peers, series_runs, stream_runs, tool_runs
from tests.benchmarks.chart import SHORT, draw
from tests.benchmarks.datasets import FULL, MAKERS, QUICK, make
from tests.benchmarks.figures import SECOND_CORE, SERIES, SUBJECT, Report
from tests.benchmarks.tables import render
from tests.benchmarks.world import PROJECT, World, open_world

SECTIONS = (
    *("first", "restore", "one-file", "stream", *SERIES),
    *("stored", "start", "memory", "cores", "link"),
)
OF_TOOLS = {"first", "restore", "one-file"}
ON_LINK = ("bakthat", "pigz", "zstd", "restic")
PUBLISHED = PROJECT / "docs" / "benchmarks"
OWN_NETWORK = "BAKTHAT_BENCHMARK_NETWORK"
"""Set in the environment once the benchmark runs in a network namespace of its own."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parse(given)
    if options.render:
        write(load(options.output / "results.json"), options.output)
        return 0
    if arguments is None and may_unshare():
        return in_own_network(given)
    with (
        workspace(options.workspace) as path,
        open_world(path, settle=not options.quick) as world,
    ):
        report = measure_all(world, options)
    print(render(report))
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        type=_names(SECTIONS),
        default=list(SECTIONS),
        metavar="PARTS",
        help=f"of {','.join(SECTIONS)} (default: all)",
    )
    parser.add_argument(
        "--sets",
        type=_names([*MAKERS]),
        metavar="SETS",
        help="A many small files, B large ones, C a dump, D very many tiny ones, E the stream"
        " (default: A,B,C; with --quick A,C; the part stream always has E)",
    )
    every = [peer.name for peer in peers.PEERS]
    parser.add_argument(
        "--peers",
        type=_names(every),
        default=every,
        metavar="NAMES",
        help=f"beside bakthat, of {','.join(every)} (default: those that are installed)",
    )
    parser.add_argument("--rounds", type=int, default=5, help="of each command (default: 5)")
    parser.add_argument(
        "--quick", action="store_true", help="small sets and one round: a rehearsal"
    )
    parser.add_argument(
        "--workspace",
        type=Path,
        metavar="DIR",
        help="keep the sets here for the next time (default: below /var/tmp, gone at the end)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="where results and chart go (default: docs/benchmarks; with --quick nowhere)",
    )
    parser.add_argument("--render", action="store_true", help="only draw from --output again")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds = 1
    options.sets = options.sets or ["A", *("" if options.quick else "B"), "C"]
    if options.output is None and (options.render or not options.quick):
        options.output = PUBLISHED
    return options


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def split(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"'{name}' is none of {', '.join(known)}")
        return names

    return split


def may_unshare() -> bool:
    """Return whether a network of its own can be had, where nothing else counts as traffic."""
    if OWN_NETWORK in os.environ or os.geteuid() or not shutil.which("unshare"):
        return False
    return not subprocess.run(
        ["unshare", "--net", "ip", "link", "set", "lo", "up"], capture_output=True, check=False
    ).returncode


def in_own_network(arguments: Sequence[str]) -> int:
    """Run the benchmark again inside a network namespace with nothing but loopback."""
    start = f'ip link set lo up && exec "{sys.executable}" -m tests.benchmarks "$@"'
    command = ["unshare", "--net", "sh", "-c", start, "benchmarks", *arguments]
    return subprocess.run(command, env={**os.environ, OWN_NETWORK: "1"}, check=False).returncode


@contextlib.contextmanager
def workspace(asked: Path | None) -> Iterator[Path]:
    """Make the directory for all that is large; one that was asked for stays."""
    if asked:
        asked.mkdir(parents=True, exist_ok=True)
        yield asked.resolve()
        return
    # Not /tmp, which may be a tmpfs.
    with tempfile.TemporaryDirectory(prefix="bakthat-benchmark-", dir="/var/tmp") as path:
        yield Path(path).resolve()


def measure_all(world: World, options: argparse.Namespace) -> Report:
    """Run what was asked for; results are written after each part."""
    sizes = QUICK if options.quick else FULL
    report = Report(
        machine=machine(),
        apart=[peer.name for peer in peers.PEERS if peer.apart],
        local=[peer.name for peer in peers.PEERS if not peer.on_s3],
        history=sizes.history,
    )
    chosen = present(world, report, options.peers)
    trees = [make(name, world.workspace / "sets", sizes) for name in options.sets]
    report.cases = {tree.name: tree.label for tree in trees}
    parts = set(options.only)

    def done(part: str) -> None:
        say(f"{part}: done")
        if options.output:
            write(report, options.output)

    if parts & OF_TOOLS:
        for tree in trees:
            tool_runs.run_tools(world, report, [tree], chosen, parts, options.rounds, say)
            done(f"tools, {tree.name}")
    if stream_runs.SECTION in parts:
        stream = make("E", world.workspace / "sets", sizes)
        report.cases[stream.name] = stream.label
        stream_runs.run_streams(world, report, stream, chosen, options.rounds, say)
        done("stream")
    if parts & set(SERIES):
        for tree in trees:
            series_runs.run_series(world, report, [tree], chosen, parts, options.rounds, say)
            done(f"series, {tree.name}")
    if "stored" in parts:
        report.gzip_bytes = {tree.name: tool_runs.gzip_size(tree) for tree in trees}
        done("stored")
    if "start" in parts:
        rounds = 1 if options.quick else other_runs.START_ROUNDS
        other_runs.run_start(world, report, sizes, rounds)
        done("start")
    if "cores" in parts:
        others = [tree for tree in trees if tree.name in SECOND_CORE]
        other_runs.run_cores(world, report, others, options.rounds, say)
        done("cores")
    if "link" in parts:
        few = [peer for peer in chosen if peer.name in ON_LINK]
        other_runs.run_link(world, report, trees[-1], few, min(options.rounds, 2), say)
        done("link")
    if "memory" in parts:
        other_runs.run_memory(world, report, sizes, say)
        done("memory")
    return report


def present(world: World, report: Report, names: Sequence[str]) -> list[peers.Peer]:
    """Return bakthat and those of *names* that are installed; the report names the others."""
    found = []
    with world.site("versions") as site:
        environment = site.environment()
        for peer in (peers.BAKTHAT, *peers.PEERS):
            if peer.name != SUBJECT and peer.name not in names:
                continue
            report.labels[peer.name] = peer.label
            if missing := peers.missing_tools(peer, environment):
                report.absent[peer.label] = "absent: no " + ", ".join(missing)
                continue
            found.append(peer)
            versions = peers.versions(peer, environment).values()
            own = f"bakthat {bakthat.__version__}"
            report.versions[peer.label] = own if peer.name == SUBJECT else ", ".join(versions)
    return found


def machine() -> dict[str, str]:
    """Return what the figures depend on, beside the tools."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    kernel = ".".join(platform.release().split(".")[:2])
    own = OWN_NETWORK in os.environ
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": f"{len(os.sched_getaffinity(0))} cores of {model}, {memory:.0f} GiB of memory",
        "system": f"{platform.system()} {kernel}, Python {platform.python_version()}",
        "load before": f"{os.getloadavg()[0]:.1f}",
        "traffic counted": "on a loopback interface of its own"
        if own
        else "on the loopback interface that everything on the machine shares",
    }


def write(report: Report, directory: Path) -> None:
    """Write the results as JSON, as a page's part, as a chart, and as a short one of one set."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.json").write_text(json.dumps(report.as_dict(), indent=1) + "\n")
    (directory / "results.inc").write_text(render(report))
    (directory / "chart.svg").write_text(draw(report))
    (directory / "short.svg").write_text(draw(report, SHORT, "A"))


def load(path: Path) -> Report:
    """Read the results that :func:`write` wrote."""
    return Report.from_dict(json.loads(path.read_text()))


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
