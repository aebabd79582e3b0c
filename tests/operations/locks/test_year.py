"""Rotation through a simulated year with locks, holds, versions and increments.

After each night the storage holds what the rotation keeps, what is locked or on hold, and all that
these need, and nothing else; and bakthat has sent no request that would delete or hide what was
locked or on hold at that time. At the end, when the locks have ended, every version and delete
marker in the bucket is accounted for, and every backup restores.

The server is moto, in a process whose clock the test sets. moto refuses to delete a locked version,
as S3 does. It lets through a retention that ends earlier or is of a weaker mode, ignores the lock
of an upload in parts (these are small enough to have none), and checks no keys of access. So
:mod:`tests.support.lock_ledger` judges the requests.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.operations.locks.year import Course, Year, day_of_next_year
from tests.support import clocked_moto
from tests.support.servers import S3Server, free_port, running

ROTATION = {"days": 7, "weeks": 4, "months": 6, "years": 1}
MORE = {"days": 14, "weeks": 8, "months": 12, "years": 2}
LESS = {"days": 5, "weeks": 3, "months": 3, "years": 1}
RETENTION = {"mode": "governance", "days": "retention"}
SIX_WEEKS = Course(
    nights=42,
    begin=day_of_next_year(11, 20),  # there is another month, and another year
    object_lock=RETENTION,
    rotations={0: ROTATION, 17: MORE, 30: LESS},
    holds={11: 33, 15: 30},
    gaps=[range(20, 27)],
    attacks=[15, 36],
    restarts=[28],
    second_backups=6,
    restores=14,
    rotates=3,
)


def live(course: Course, directory: Path, seed: int) -> Counter[str]:
    """Live through a course, and return what was done."""
    port = free_port()
    log = directory / "requests"
    log.touch()
    command = [sys.executable, clocked_moto.__file__, str(port), str(log), str(course.begin)]
    with running(command, port, directory):
        server = S3Server(f"http://127.0.0.1:{port}", "host-access-key", "secret")
        year = Year(course, server.conf(), log, directory, seed)
        with year.on_its_clock():
            year.live()
            year.end()
    return year.figures


@pytest.mark.slow
def test_six_weeks(tmp_path: Path) -> None:
    figures = live(SIX_WEEKS, tmp_path, seed=1)
    assert figures["increments"] > figures["fulls"] > 1
    assert figures["deleted by rotation"] > 20
    for what in ("restarts", "released", "increments on hold", "attacks", "brought back"):
        assert figures[what] > 0, what


@pytest.mark.heavy
@pytest.mark.parametrize(
    "more",
    [
        {"object_lock": {"mode": "compliance", "days": 30}},
        {"versions": "keep"},
        {"rotations": {0: {"days": 3, "last": 4}, 25: {"weeks": 3}}},
    ],
    ids=lambda more: next(iter(more)),
)
def test_other_six_weeks(more: dict[str, Any], tmp_path: Path) -> None:
    figures = live(replace(SIX_WEEKS, rotates=1, **more), tmp_path, seed=2)
    assert figures["deleted by rotation"] > 20


@pytest.mark.heavy
def test_a_year(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # other nights each time
    course = Course(
        nights=365,
        object_lock=RETENTION,
        rotations={0: ROTATION, 150: MORE, 240: LESS, 300: ROTATION},
        holds={40: 200, 121: 320},
        gaps=[range(100, 114)],
        attacks=[25, 90, 160, 230, 280],
        restarts=[180],
        second_backups=9,
        restores=15,
    )
    figures = live(course, tmp_path, seed)
    assert figures["deleted by rotation"] > 300
    assert figures["released"] == 2
