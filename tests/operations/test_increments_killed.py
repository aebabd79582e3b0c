"""Killed or interrupted at each step of making an increment: it is there as a whole, or not."""

from __future__ import annotations

import os
import shutil
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
from tests.support.steps import interrupt_before_step, kill_before_step
from tests.support.trees import fingerprint

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

DAY = 86400
MANY = 300
"""More steps than a backup takes."""


@pytest.fixture(
    params=[
        ("local", 5),
        pytest.param(("local", 1), marks=pytest.mark.slow),
        pytest.param(("moto", 7), marks=pytest.mark.slow),
    ],
    ids=lambda param: f"{param[0]}, every {param[1]}",
)
def world(request: pytest.FixtureRequest, local: Conf) -> tuple[Conf, int]:
    """Return a profile, and how many steps are between two at which a backup is stopped."""
    name, every = request.param
    conf = local
    if name == "moto":
        conf = {**request.getfixturevalue("moto_conf"), "database": local["database"]}
    return {**conf, "incremental": True}, every


class History:
    """A tree with a full backup and an increment, and what the command line makes of it."""

    def __init__(self, tree: Path, conf: Conf) -> None:
        self.tree, self.conf = tree, conf
        self._config = write_config(Path(os.environ["HOME"], "bakthat.yml"), default=conf)
        self.states: dict[str, dict[bytes, tuple[object, ...]]] = {}
        """What each backup must restore, by its name."""
        (tree / "ballast").write_bytes(os.urandom(1_000_000))
        for _ in range(2):
            self.change()
            self._note(bakthat.backup(tree, conf=conf, password="").stored_filename)

    def _note(self, name: str) -> None:
        self.states[name] = fingerprint(self.tree)

    def change(self) -> None:
        """Change, add, remove and replace what is in the tree."""
        (self.tree / "a.txt").write_bytes(os.urandom(50))
        (self.tree / f"new {time.time_ns()}").write_text("new")
        shutil.rmtree(self.tree / "directory", ignore_errors=True)
        (self.tree / "directory").mkdir()
        (self.tree / "directory" / f"in it {time.time_ns()}").write_text("in it")

    def stop_a_backup(self, stop: Callable[[int], None], step: int) -> tuple[bool, int | None]:
        """Stop a backup before one of its steps; return whether it was killed, and its code."""

        def run() -> int:
            stop(step)
            return main(["backup", str(self.tree), "-c", str(self._config), "--prompt", "no"])

        ended = in_child(run)
        return ended.killed, ended.result

    def keys(self, *, indexes: bool = False) -> set[str]:
        session = Session("default", None, self.conf)
        return {each.key for each in session.backend(session.destination).ls(indexes=indexes)}

    def listed(self) -> set[str]:
        return {each.stored_filename for each in bakthat.ls(conf=self.conf)}

    def examine(self, out: Path) -> set[str]:
        """See that all backups restore; return the names of those that are new."""
        assert bakthat.sync(conf=self.conf).containers[0].foreign == 0
        stored = self.keys()
        assert self.listed() == stored
        assert {index_key(name) for name in stored} <= self.keys(indexes=True)
        assert set(self.states) <= stored
        new = stored - set(self.states)
        for name in new:
            self._note(name)
        for name in new or [max(self.states)]:
            bakthat.restore(name, conf=self.conf, output=out, password="")
            assert fingerprint(out / "mydir") == self.states[name]
            shutil.rmtree(out)
        assert [each.index_problem for each in bakthat.check(conf=self.conf)] == [""] * len(stored)
        return new

    def clean_later(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Clean up as if it was the day after tomorrow; nothing but whole backups is left."""
        real = time.time
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: real() + 2 * DAY)
            bakthat.cleanup(conf=self.conf)
        assert self.keys(indexes=True) == {index_key(key) for key in self.keys()}
        self.see_nothing_else()

    def see_nothing_else(self) -> None:
        """See that the local store has the backups, their indexes, and what describes them."""
        if "local_path" not in self.conf:
            return
        objects = {each for key in self.keys() for each in (key, index_key(key))}
        present = {each.name for each in Path(self.conf["local_path"]).iterdir()}
        assert present == objects | {f"{key}.bakthat.json" for key in objects}


@pytest.mark.slow
def test_an_increment_that_is_killed_at_any_step_is_there_as_a_whole_or_not_at_all(
    world: tuple[Conf, int], tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf, every = world
    history = History(tree, conf)
    killed, whole = 0, 0
    for step in range(1, MANY, every):
        history.change()
        was_killed, code = history.stop_a_backup(kill_before_step, step)
        made = history.examine(out)
        assert all(".inc." in name for name in made)
        history.clean_later(monkeypatch)
        if not was_killed:
            assert (code, len(made)) == (0, 1)
            break
        killed += 1
        whole += len(made)
    else:
        pytest.fail("no backup came to its end")
    assert killed > MANY // every // 20
    if every == 1:
        assert whole > 0  # killed after the archive was completed


@pytest.mark.slow
def test_an_increment_that_is_interrupted_at_any_step_leaves_nothing_or_is_stored(
    world: tuple[Conf, int], tree: Path, out: Path
) -> None:
    conf, every = world
    history = History(tree, conf)
    interrupted = 0
    for step in range(1, MANY, every):
        history.change()
        was_killed, code = history.stop_a_backup(interrupt_before_step, step)
        history.see_nothing_else()
        assert history.listed() == history.keys()
        made = history.examine(out)
        assert not was_killed
        assert code in (0, 130)
        if code == 0:
            assert len(made) == 1
            break
        interrupted += 1
    assert interrupted > 3
