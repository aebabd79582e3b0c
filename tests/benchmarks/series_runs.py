"""Backups of one tree again and again: without a change, with 1 % changed, and the newest of many.

Only tools that store what has changed take part; the others would store everything each time.
"""

from __future__ import annotations

import filecmp
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.benchmarks.changes import ChangingTree, changing
from tests.benchmarks.datasets import Tree, warm
from tests.benchmarks.figures import CHANGED, NEWEST, UNCHANGED, Report, Run
from tests.benchmarks.measuring import CommandFailedError
from tests.benchmarks.peers import Peer
from tests.benchmarks.tool_runs import Say, in_turn, restore, run_of
from tests.benchmarks.world import Site, World


def run_series(
    world: World,
    report: Report,
    trees: Sequence[Tree],
    peers: Sequence[Peer],
    sections: Collection[str],
    rounds: int,
    say: Say,
) -> None:
    """Let those of *peers* that can back up changes of every tree, *rounds* times, into *report*.

    The newest of ``report.history`` backups is restored.
    """
    able = [peer for peer in peers if peer.again]
    for tree in trees:
        with changing(tree, world.workspace) as copy:
            one_turn = partial(_one_turn, world, copy, sections, report.history)
            in_turn(report, able, rounds, one_turn, say)


def _one_turn(
    world: World,
    copy: ChangingTree,
    sections: Collection[str],
    history: int,
    peer: Peer,
    number: int,
) -> list[Run]:
    runs = []
    name = copy.tree.name
    copy.reset()
    if world.settle:
        copy.settle()
    with world.site(f"series-{peer.name}-{name}-{number}") as site:
        site.write_settings(incremental=True)
        if peer.prepare:
            site.run(peer.prepare, copy.tree)
        warm(copy.tree)
        site.run(peer.backup, copy.tree)
        runs.append(_again(site, copy.tree, peer, UNCHANGED))
        done = 2
        copy.change(done)
        runs.append(_again(site, copy.tree, peer, CHANGED))
        done += 1
        if NEWEST in sections:
            while done < history:
                copy.change(done)
                site.run(peer.again, copy.tree)
                done += 1
            measured = restore(
                site,
                copy.described(),
                peer.newest or peer.restore,
                check=lambda target: check_changed(target, copy),
            )
            stored = site.stored(peer)
            runs.append(run_of(NEWEST, name, peer.name, measured, stored=stored))
    return [run for run in runs if run.section in sections]


def _again(site: Site, tree: Tree, peer: Peer, section: str) -> Run:
    """Back up once more; what is stored for it is the growth of the repository."""
    before = site.stored(peer)
    measured = site.run(peer.again, tree)
    grown = max(0, site.stored(peer) - before)
    return replace(run_of(section, tree.name, peer.name, measured), stored=grown)


def check_changed(target: Path, copy: ChangingTree) -> None:
    """Fail unless the files that changed are in *target* as they are now."""
    path = copy.tree.path
    root = target / path.name
    if not root.exists():  # some restore below the whole path
        root = target / path.relative_to(path.anchor)
    for name in copy.changed:
        if not (root / name).is_file() or not filecmp.cmp(path / name, root / name, shallow=False):
            raise CommandFailedError(f"'{name}' was not restored as it was backed up last")
