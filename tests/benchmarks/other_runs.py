"""Start-up, memory against size, throughput against cores, and a slow link."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bakthat import models
from tests.benchmarks.datasets import Sizes, Tree, described, make_for_memory, warm
from tests.benchmarks.figures import BASELINE, SUBJECT, Report, core_case
from tests.benchmarks.measuring import pin
from tests.benchmarks.peers import BAKTHAT, Peer
from tests.benchmarks.throttle import SLOW, Link, throttled
from tests.benchmarks.tool_runs import Say, restore, run_of
from tests.benchmarks.world import Site, World

START_ROUNDS = 15
IMPORT_LINES = 20
GIBIBYTE = 1024**3


def run_start(world: World, report: Report, sizes: Sizes, rounds: int) -> None:
    """Time what begins and ends at once, the commands in turn."""
    with world.site("start") as site:
        fill_catalog(site.home / ".bakthat.sqlite", sizes.rows, site.bucket)
        (site.path / "empty").mkdir()
        baseline = 'python -c "import argparse, yaml"'
        commands = (
            (BASELINE, baseline, f"exec {baseline}"),
            (SUBJECT, "bakthat --help", "exec bakthat --help"),
            (SUBJECT, "bakthat show", f'HOME="{site.path / "empty"}" exec bakthat show'),
            (SUBJECT, f"bakthat show, {sizes.rows:,} backups", "exec bakthat show"),
        )
        for number in range(rounds + 1):
            for tool, case, script in commands:
                measured = site.run(script)
                if number:  # the first may have had to compile
                    report.runs.append(run_of("start", case, tool, measured))
        report.imports = slowest_imports(site)


def fill_catalog(path: Path, rows: int, container: str) -> None:
    """Write a catalog of *rows* backups of one bucket."""
    with models.catalog(path, write=True):
        for number in range(rows):
            date = 1_700_000_000 + number * 3600
            name = f"set{number % 50}"
            when = time.strftime("%Y%m%d%H%M%S", time.gmtime(date))
            models.Backups.create(
                backend="s3",
                backend_hash=models.backend_hash(container),
                backup_date=date,
                filename=name,
                last_updated=date,
                metadata={"is_enc": True, "client": "box"},
                size=number * 1000,
                stored_filename=f"{name}.{when}.tgz.age",
                tags="daily",
            )


def slowest_imports(site: Site) -> list[str]:
    """Return the head of ``python -X importtime`` and its lines of the greatest own time."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bakthat", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=site.environment(),
    )
    head, *lines = (
        line.removeprefix("import time:")
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    )
    lines.sort(key=lambda line: int(line.split("|")[0]), reverse=True)
    return [head, *lines[:IMPORT_LINES]]


def run_memory(world: World, report: Report, sizes: Sizes, say: Say) -> None:
    """Back up and restore ever more, as far as the disk has room."""
    fitting = tuple(size for size in sizes.memory if _has_room(world.workspace, size))
    for size in sizes.memory[len(fitting) :]:
        note = f"memory at {size / GIBIBYTE:g} GiB was not measured: the disk has no room"
        report.notes.append(note)
    directory = world.workspace / "memory"
    try:
        for size, path in make_for_memory(world.workspace, replace(sizes, memory=fitting)):
            tree = described("memory", path)
            name = f"{size / GIBIBYTE:g} GiB" if size >= GIBIBYTE else f"{size / 2**20:g} MiB"
            with world.site(f"memory-{size}") as site:
                made = site.run(BAKTHAT.backup, tree)
                report.runs.append(run_of("memory", f"backup of {name}", SUBJECT, made))
                say(f"memory, backup of {name}: {made.memory / 2**20:.0f} MiB")
                restored = restore(site, tree, BAKTHAT.restore)
                report.runs.append(run_of("memory", f"restore of {name}", SUBJECT, restored))
                say(f"memory, restore of {name}: {restored.memory / 2**20:.0f} MiB")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _has_room(path: Path, size: int) -> bool:
    # The files, what is stored of them, and what is restored.
    return shutil.disk_usage(path).free > 2.8 * size + GIBIBYTE // 8


def run_cores(world: World, report: Report, trees: Sequence[Tree], rounds: int, say: Say) -> None:
    """Back up on one core and on two: to S3, the server on the same cores, and to a tmpfs."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        report.notes.append("throughput against cores was not measured: there is one core only")
        return
    try:
        for tree in trees:
            warm(tree)
            for number in range(rounds):
                for count in (1, 2):
                    cores = available[:count]
                    pin(world.server.pid, cores)
                    for where in ("S3", "tmpfs"):
                        case = core_case(tree.name, where, count)
                        with world.site(f"cores-{where}-{tree.name}-{count}-{number}") as site:
                            if where == "tmpfs":
                                _store_locally(site)
                            made = site.run(BAKTHAT.backup, tree, cores=cores)
                            shutil.rmtree(world.memory_disk / "store", ignore_errors=True)
                        report.runs.append(run_of("cores", case, SUBJECT, made))
                        say(f"cores, {case}: {made.wall:.2f} s")
    finally:
        pin(world.server.pid, available)


def _store_locally(site: Site) -> None:
    store = site.world.memory_disk / "store"
    site.write_settings(default_destination="local", local_path=str(store))


def run_link(
    world: World,
    report: Report,
    tree: Tree,
    peers: Sequence[Peer],
    rounds: int,
    say: Say,
    link: Link = SLOW,
) -> None:
    """Back up and restore *tree* over a slow line, with every one of *peers* in turn."""
    for number in range(rounds):
        for peer in peers:
            if peer.label in report.absent or not peer.on_s3:
                continue
            with (
                throttled(world.port, link) as line,
                world.site(f"link-{peer.name}-{number}", port=line.port) as site,
            ):
                if peer.prepare:
                    site.run(peer.prepare, tree)
                for what, lane in (("backup", line.up), ("restore", line.down)):
                    before = lane.passed
                    if what == "backup":
                        measured = site.run(peer.backup, tree)
                    else:
                        measured = restore(site, tree, peer.restore)
                    use = (lane.passed - before) / (link.rate * measured.wall)
                    case = f"{what} of {tree.name} over {link}"
                    made = run_of("link", case, peer.name, measured)
                    report.runs.append(replace(made, line_use=use))
                    say(f"link, {what}: {peer.name} {measured.wall:.2f} s, {use:.1%} of the line")
