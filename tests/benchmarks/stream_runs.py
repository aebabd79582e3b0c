"""Backup of a stream, which bakthat and the pipelines compress, encrypt and send in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from tests.benchmarks.datasets import Tree, warm
from tests.benchmarks.figures import Report, Run
from tests.benchmarks.peers import Peer
from tests.benchmarks.tool_runs import Say, in_turn, run_of
from tests.benchmarks.world import World

SECTION = "stream"


def run_streams(
    world: World, report: Report, tree: Tree, peers: Sequence[Peer], rounds: int, say: Say
) -> None:
    """Let those of *peers* that take a stream store the one file of *tree*, *rounds* times."""
    able = [peer for peer in peers if peer.stream]
    in_turn(report, able, rounds, partial(_one_turn, world, tree), say)


def _one_turn(world: World, tree: Tree, peer: Peer, number: int) -> list[Run]:
    with world.site(f"stream-{peer.name}-{number}") as site:
        warm(tree)
        made = site.run(peer.stream, tree)
        return [run_of(SECTION, tree.name, peer.name, made, stored=site.stored(peer))]
