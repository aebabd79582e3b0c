"""First backup, restore and one file out of it, by every tool in turn."""

from __future__ import annotations

import filecmp
import shutil
import subprocess
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tests.benchmarks.datasets import Tree, warm
from tests.benchmarks.figures import SUBJECT, Report, Run
from tests.benchmarks.measuring import CommandFailedError, Measurement, tree_bytes
from tests.benchmarks.peers import Peer
from tests.benchmarks.world import Site, World

Say = Callable[[str], None]


def run_tools(
    world: World,
    report: Report,
    trees: Sequence[Tree],
    peers: Sequence[Peer],
    sections: Collection[str],
    rounds: int,
    say: Say,
) -> None:
    """Let every one of *peers* back up and restore every tree, *rounds* times, into *report*."""
    for tree in trees:
        in_turn(
            report,
            peers,
            rounds,
            partial(_one_turn, world, tree, sections),
            say,
        )


def in_turn(
    report: Report,
    peers: Sequence[Peer],
    rounds: int,
    one_turn: Callable[[Peer, int], list[Run]],
    say: Say,
) -> None:
    """Call *one_turn* with every one of *peers* and the number of the round; report its runs.

    A peer that fails is named in the report and left out from then on; bakthat may not.
    """
    for number in range(rounds):
        # Another one begins each round.
        turn = number % len(peers)
        for peer in (*peers[turn:], *peers[:turn]):
            if peer.label in report.absent:
                continue
            try:
                for run in one_turn(peer, number):
                    report.runs.append(run)
                    say(f"{run.section} {run.case}: {peer.name} {run.wall:.2f} s")
            except CommandFailedError as exc:
                if peer.name == SUBJECT:
                    raise
                why = " ".join(str(exc).split())
                report.absent[peer.label] = f"failed: {why[-200:]}"
                say(f"{peer.name} failed: {exc}")
                report.runs = [run for run in report.runs if run.tool != peer.name]


def _one_turn(
    world: World, tree: Tree, sections: Collection[str], peer: Peer, number: int
) -> list[Run]:
    runs = []
    with world.site(f"{peer.name}-{tree.name}-{number}") as site:
        if peer.prepare:
            site.run(peer.prepare, tree)
        warm(tree)  # borg, for one, drops from the page cache what it has read
        made = site.run(peer.backup, tree)
        stored = site.stored(peer)
        runs.append(run_of("first", tree.name, peer.name, made, stored=stored))
        if "restore" in sections:
            measured = restore(site, tree, peer.restore)
            runs.append(run_of("restore", tree.name, peer.name, measured, stored=stored))
        if "one-file" in sections:
            measured = restore(site, tree, peer.one_file, one_file=True)
            runs.append(run_of("one-file", tree.name, peer.name, measured, stored=stored))
    return runs


def run_of(section: str, case: str, tool: str, measured: Measurement, *, stored: int = 0) -> Run:
    """Return *measured* as a run."""
    return Run(section=section, case=case, tool=tool, stored=stored, **asdict(measured))


def restore(
    site: Site,
    tree: Tree,
    script: str,
    *,
    one_file: bool = False,
    check: Callable[[Path], object] | None = None,
) -> Measurement:
    """Restore with *script* into a new directory and check what came, by *check* too.

    Many small files go to a tmpfs: where thousands were deleted a moment ago, ext4 takes seconds
    more to make them anew, and it is the tools that are measured.
    """
    target = (site.world.memory_disk if tree.files > 100 else site.path) / "restored"
    target.mkdir()
    try:
        measured = site.run(script, tree, target=target)
        _check(target, tree, one_file)
        if check is not None:
            check(target)
    finally:
        shutil.rmtree(target)
    return measured


def _check(target: Path, tree: Tree, one_file: bool) -> None:
    """Fail unless *target* has as many bytes as *tree*, or the one file as it is in there."""
    if one_file:
        original = tree.path.parent / tree.one_file
        found = [file for file in target.rglob(original.name) if file.is_file()]
        if not any(filecmp.cmp(original, file, shallow=False) for file in found):
            raise CommandFailedError(f"'{tree.one_file}' was not restored")
    elif (came := tree_bytes(target)) != tree.bytes:
        raise CommandFailedError(f"{came} of {tree.bytes} bytes were restored")


def gzip_size(tree: Tree) -> int:
    """Return the bytes that ``tar | gzip -6`` makes of *tree*."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", 'tar -cf - "$0" | gzip -6 | wc -c', tree.path.name],
        cwd=tree.path.parent,
        capture_output=True,
        check=True,
    )
    return int(done.stdout)
