"""Killed at each step of a deletion: what is left is told, and comes to rest."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import bakthat
from bakthat.__main__ import main
from bakthat.format.names import index_key
from bakthat.session.session import Session
from tests.reliability.world import in_child
from tests.support.profiles import Conf, write_config
from tests.support.steps import kill_before_step

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

DAY = 86400
MANY = 300
"""More steps than any of these commands takes."""


@pytest.fixture(params=["local", pytest.param("moto", marks=pytest.mark.slow)])
def conf(request: pytest.FixtureRequest, local: Conf) -> Conf:
    if request.param == "local":
        return local
    return {**request.getfixturevalue("moto_conf"), "database": local["database"]}


def keys(conf: Conf, *, indexes: bool = False) -> set[str]:
    session = Session("default", None, conf)
    return {each.key for each in session.backend(session.destination).ls(indexes=indexes)}


def back_up(source: Path, conf: Conf, days_ago: int, monkeypatch: pytest.MonkeyPatch) -> str:
    moment = time.time() - days_ago * DAY
    with monkeypatch.context() as patch:
        patch.setattr("bakthat.operations.backup.store.time.time", lambda: moment)
        return bakthat.backup(source, conf=conf, password="").stored_filename


def clean_later(conf: Conf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clean up as if it was the day after tomorrow."""
    real = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: real() + 2 * DAY)
        bakthat.cleanup(conf=conf)


@pytest.mark.parametrize(
    "command", ["delete", pytest.param("delete_older_than", marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_a_deletion_that_is_killed_at_any_step_leaves_nothing_that_looks_like_a_backup(
    conf: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """No archive is without an index, and no index without an archive is taken for a backup."""
    (tree / "file").write_text("hello")
    config = write_config(Path(os.environ["HOME"], "bakthat.yml"), default=conf)
    killed, orphans = 0, set()
    for number in range(1, MANY, 1 if "local_path" in conf else 3):
        old = [back_up(tree, conf, days, monkeypatch) for days in (9, 8)]
        kept = back_up(tree, conf, 0, monkeypatch)
        gone = old if command == "delete_older_than" else [old[0]]
        arguments = ["mydir", "5D"] if command == "delete_older_than" else [old[0]]
        ended = in_child(killing(number, [command, *arguments, "-c", str(config)]))
        left, indexes = keys(conf), keys(conf, indexes=True)
        assert kept in left
        assert {index_key(key) for key in left} <= indexes
        orphans |= {len(indexes) - len(left)}
        # It is no backup: neither for a search on the storage nor for sync.
        for key in set(gone) - left:
            with pytest.raises(bakthat.BakthatError):
                bakthat.restore(key, conf=conf, output=tree.parent / "out")
        assert bakthat.sync(conf=conf).containers[0].foreign == 0
        assert {each.stored_filename for each in bakthat.ls(conf=conf)} == left
        assert [each.index_problem for each in bakthat.check(conf=conf)] == [""] * len(left)
        clean_later(conf, monkeypatch)
        assert keys(conf, indexes=True) == {index_key(key) for key in left}
        if "local_path" in conf:
            present = {each.name for each in Path(conf["local_path"]).iterdir()}
            described = left | {index_key(key) for key in left}
            assert present == described | {f"{key}.bakthat.json" for key in described}
        for key in left:
            bakthat.delete(key, conf=conf)
        if not ended.killed:
            assert (ended.result, left & set(gone)) == (0, set())
            break
        killed += 1
    assert killed > 3
    assert orphans > {0}


def killing(number: int, arguments: list[str]) -> Callable[[], int]:
    def run() -> int:
        kill_before_step(number)
        return main(arguments)

    return run
