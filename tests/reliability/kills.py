"""kill -9 at random moments of backup, delete, rotate and sync, and at each step of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

import bakthat
from tests.reliability.world import SET, World, in_child

Prepared = tuple[tuple[str, ...], set[str]]
"""A command, and the keys that must be there after it, however it ends."""


def kill(world: World, number: int) -> dict[str, int]:
    """Kill *number* commands in turn; return how many of each were."""
    killed = dict.fromkeys(_PREPARE, 0)
    typical: dict[str, float] = {}
    while sum(killed.values()) < number:
        name = min(killed, key=lambda each: killed[each])
        command, must_remain = _PREPARE[name](world)
        # The first one of each shows how long it takes.
        moment = world.rng.uniform(0, typical[name]) if name in typical else None
        ended = world.run(*command, kill_after=moment)
        if ended.killed:
            killed[name] += 1
        elif name not in typical:
            typical[name] = ended.seconds
        else:
            typical[name] = max(typical[name] * 0.9, 0.005)
        if not ended.killed and ended.result != 0:
            world.problems.append(f"{command} exits with {ended.result}: {ended.output}")
        world.examine(must_remain, f"{' '.join(command)}, killed after {moment} seconds")
        if len(world.keys()) > 6:
            world.tidy(2)
    return killed


def kill_at_steps(world: World, *, every: int, offset: int = 0) -> dict[str, int]:
    """Kill each command before each of its steps, or only one of *every*; return how many were.

    A step is a change to the disk, a request, or a statement that changes the catalog.
    """
    killed = dict.fromkeys(_PREPARE, 0)
    for name, prepare in _PREPARE.items():
        number = 1 + offset
        while _kill_at_step(world, prepare(world), number):
            killed[name] += 1
            number += every
            if len(world.keys()) > 6:
                world.tidy(2)
    return killed


def _kill_at_step(world: World, prepared: Prepared, number: int) -> bool:
    """Return whether the command has a step of that *number*, before which it was killed."""
    command, must_remain = prepared
    try:
        ended = world.run(*command, kill_before=number)
        if not ended.killed and ended.result != 0:
            world.problems.append(f"{command} exits with {ended.result}: {ended.output}")
    except AssertionError as exc:
        world.problems.append(f"{command} at step {number}: {exc}")
        return False
    world.examine(must_remain, f"{' '.join(command)}, killed before step {number}")
    return ended.killed


def _backup(world: World) -> Prepared:
    return ("backup", str(world.source)), world.keys()


def _delete(world: World) -> Prepared:
    while len(world.keys()) < 2:
        world.back_up()
    stored = world.keys()
    key = world.rng.choice(sorted(stored))
    return ("delete", key), stored - {key}


def _rotate(world: World) -> Prepared:
    for days_ago in (9, 8):
        world.back_up(days_ago)
    world.back_up()
    stored = world.keys()
    to_delete: list[str] = in_child(
        lambda: [
            each.stored_filename
            for each in bakthat.rotate_backups(SET, conf=world.conf, dry_run=True)
        ],
        environment={"HOME": str(world.home)},
    ).result
    return ("rotate_backups", SET), stored - set(to_delete)


def _sync(world: World) -> Prepared:
    while len(world.keys()) < 3:
        world.back_up()
    with closing(sqlite3.connect(world.conf["database"])) as catalog, catalog:
        catalog.execute("DELETE FROM backups WHERE id % 2")
    return ("sync",), world.keys()


_PREPARE: dict[str, Callable[[World], Prepared]] = {
    "backup": _backup,
    "delete": _delete,
    "rotate": _rotate,
    "sync": _sync,
}
