"""The state machine: edits, backups, rotations and deletions, and what must hold after each."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

import bakthat
from bakthat import models
from bakthat.archive.create.increment import archive
from bakthat.archive.create.increment.writer import write_increment
from bakthat.errors import UsageError
from tests.support.edits import Edits
from tests.support.indexes import forget_cache
from tests.support.profiles import Conf
from tests.support.trees import fingerprint

SET = "mydir"
ROTATION = {"days": 3, "weeks": 2, "months": 2}
DAY = 86400
BEGIN = 1_704_200_400
"""2024-01-02 13:00 UTC, a Tuesday: long before now, so that no date is in the future."""
STEPS = 30
"""The most steps of one history."""
_RACY = (
    "bakthat.operations.backup.parent.racy_seconds",
    "bakthat.operations.backup.facts.racy_seconds",
)

_SETGID = 6
"""Where stat.filemode() shows the bit."""
MOST_ARCHIVES = "archives of the state that needs most"
figures: Counter[str] = Counter()
"""What was done in this process."""

options = st.one_of(
    st.just({}),
    st.just({}),
    st.fixed_dictionaries(
        {},
        optional={
            "detect": st.just("hash"),
            "ignore_inode": st.booleans(),
            "always_read": st.sampled_from([["a"], ["*"]]),
            "recheck": st.sampled_from([30, 100]),
            "skip_unchanged": st.booleans(),
        },
    ),
    st.fixed_dictionaries({"max_archives": st.integers(2, 6)}),
    st.fixed_dictionaries({"full_every": st.sampled_from(["7D", "40D"])}),
    st.just({"full": True}),
)
days = st.sampled_from([0, 0, 0, 1, 1, 1, 1, 2, 6, 20])
randoms = st.randoms(use_true_random=False)


@dataclass(frozen=True)
class Made:
    """A backup that is kept, and what it must restore."""

    entry: models.Backups
    state: dict[bytes, Any]

    @property
    def name(self) -> str:
        return str(self.entry.stored_filename)


class Histories(RuleBasedStateMachine):
    """One tree, its backups in a local store, and a clock that is set."""

    def __init__(self) -> None:
        super().__init__()
        self._closing = contextlib.ExitStack()
        self._path = self._temporary_directory()
        self._tree = self._path / SET
        # What waits for its disk is in memory; the tree is not, since its times would say nothing.
        in_memory = self._temporary_directory("/dev/shm" if Path("/dev/shm").is_dir() else None)
        self._store = in_memory / "store"
        self._catalog = in_memory / "catalog.sqlite"
        self._edits = Edits(self._tree)
        self._now = BEGIN
        self._made: dict[int, Made] = {}
        """By date."""
        self._conf: Conf = {
            "default_destination": "local",
            "local_path": str(self._store),
            "database": str(self._catalog),
            "incremental": True,
            "rotation": ROTATION,
            # Few bytes are stored, and the headers alone would make most increments too large.
            "compress": True,
        }
        figures["histories"] += 1

    def teardown(self) -> None:
        self._closing.close()

    def _temporary_directory(self, place: str | None = None) -> Path:
        made = tempfile.TemporaryDirectory(prefix="bakthat-histories-", dir=place)
        return Path(self._closing.enter_context(made))

    @rule(
        rng=randoms,
        edits=st.integers(0, 8),
        days=days,
        hours=st.integers(0, 23),
        options=options,
        is_racy=st.booleans(),
    )
    def back_up(
        self,
        rng: random.Random,
        edits: int,
        days: int,
        hours: int,
        options: dict[str, Any],
        is_racy: bool,
    ) -> None:
        note(f"edits: {[self._edits.make(rng) for _ in range(edits)]}")
        self._now += days * DAY + hours * 3600
        state = fingerprint(self._tree)
        with self._clock(), _long_after() if not is_racy else contextlib.nullcontext():
            entry = bakthat.backup(self._tree, conf=self._conf, password="", **options)
        assert entry.is_complete, entry.metadata
        assert fingerprint(self._tree) == state
        if entry.is_skipped:
            assert entry.date == max(self._made)
            assert self._made[entry.date].state == state
            figures["skipped"] += 1
            return
        assert entry.date >= self._now
        assert entry.date not in self._made
        assert set(entry.needs) <= set(self._made)
        assert bool(entry.needs) == entry.is_increment
        self._made[entry.date] = made = Made(entry, state)
        figures["increments" if entry.is_increment else "fulls"] += 1
        self._examine(made)

    @precondition(lambda self: self._made)
    @rule(rng=randoms, edits=st.integers(0, 4), days=days, meanwhile=st.integers(1, 2**31))
    def back_up_while_it_changes(
        self, rng: random.Random, edits: int, days: int, meanwhile: int
    ) -> None:
        """Edit also between the comparison and the archive: the two restores agree all the same."""
        note(f"edits: {[self._edits.make(rng) for _ in range(edits)]}")
        self._now += days * DAY
        real = write_increment
        during = random.Random(meanwhile)

        def write(*arguments: Any, **options: Any) -> int:
            for _ in range(during.randint(1, 6)):
                self._edits.make(during)
            return real(*arguments, **options)

        with self._clock(), mock.patch.object(archive, "write_increment", write):
            entry = bakthat.backup(self._tree, conf=self._conf, password="")
        self._made[entry.date] = made = Made(entry, self._restored(entry))
        figures["increments of trees that changed meanwhile"] += entry.is_increment
        self._examine(made)

    @precondition(lambda self: len(self._made) > 1)
    @rule()
    def rotate(self) -> None:
        with self._clock():
            gone = bakthat.rotate_backups(SET, conf=self._conf)
        figures["deleted by rotation"] += len(gone)
        self._forget({each.date for each in gone})

    @precondition(lambda self: self._made)
    @rule(rng=randoms, what=st.sampled_from(["restore", "delete", "cache", "catalog"]))
    def do_something_else(self, rng: random.Random, what: str) -> None:
        date = rng.choice(sorted(self._made))
        if what == "restore":
            self._examine(self._made[date])
        elif what == "delete":
            self._delete(date)
        elif what == "cache":
            forget_cache()
        else:
            self._catalog.unlink()
            with self._clock():
                bakthat.sync(conf=self._conf)
            self._forget(set())

    def _delete(self, date: int) -> None:
        """Delete a backup, which is refused exactly if another one needs it."""
        is_needed = any(date in each.entry.needs for each in self._made.values())
        try:
            with self._clock():
                bakthat.delete(self._made[date].name, conf=self._conf)
        except UsageError:
            assert is_needed
            figures["refused deletions"] += 1
        else:
            assert not is_needed
            figures["deletions"] += 1
            self._forget({date})

    def _forget(self, dates: set[int]) -> None:
        """Note what was deleted; all else is there, and also what it needs."""
        self._made = {date: each for date, each in self._made.items() if date not in dates}
        stored = {each.name for each in self._store.iterdir() if each.name.endswith(".tgz")}
        assert stored == {each.name for each in self._made.values()}
        assert {each.stored_filename for each in bakthat.ls(conf=self._conf)} == stored
        for each in self._made.values():
            assert set(each.entry.needs) <= set(self._made)

    def _examine(self, made: Made) -> None:
        """Restore with bakthat and with GNU tar alone: each time, all is as it was."""
        by_tar = self._path / "out by tar"
        assert difference(self._restored(made.entry), made.state) == {}
        by_tar.mkdir()
        needed = [self._made[date].name for date in made.entry.needs]
        for name in (*needed, made.name):
            extract = "xGf" if ".inc." in name else "xf"
            done = subprocess.run(
                ["tar", "--xattrs", f"-{extract}", self._store / name, "-C", by_tar],
                capture_output=True,
                check=False,
            )
            assert (done.returncode, done.stderr) == (0, b""), (name, done.stderr)
        found = difference(without_inherited(fingerprint(by_tar / SET), made.state), made.state)
        assert found == {}, f"by tar, and as it was: {found}"
        shutil.rmtree(by_tar)
        figures["states"] += 1
        figures[MOST_ARCHIVES] = max(figures[MOST_ARCHIVES], len(needed) + 1)

    def _restored(self, entry: models.Backups) -> dict[bytes, Any]:
        out = self._path / "out"
        with self._clock():
            restored = bakthat.restore(
                entry.stored_filename, conf=self._conf, output=out, password=""
            )
        assert restored is not None
        assert restored.is_complete, restored.metadata
        found = fingerprint(out / SET)
        shutil.rmtree(out)
        return found

    @contextlib.contextmanager
    def _clock(self) -> Iterator[None]:
        """Let it be the time that this history has come to."""
        self._now += 1
        with mock.patch.object(time, "time", return_value=float(self._now)):
            yield


@contextlib.contextmanager
def _long_after() -> Iterator[None]:
    """Let the tree count as edited long before the backup, so that its times are trusted."""
    with contextlib.ExitStack() as stack:
        for name in _RACY:
            stack.enter_context(mock.patch(name, return_value=0))
        yield


def difference(found: dict[bytes, Any], expected: dict[bytes, Any]) -> dict[bytes, Any]:
    """Return by path what was found and what was expected, where the two differ."""
    return {
        path: (found.get(path), expected.get(path))
        for path in sorted({*found, *expected})
        if found.get(path) != expected.get(path)
    }


def without_inherited(by_tar: dict[bytes, Any], expected: dict[bytes, Any]) -> dict[bytes, Any]:
    """Return what tar restored without the setgid bits that it lets new directories inherit.

    GNU tar 1.34 does not take away the bit that mkdir gave a directory in one that has it.
    """
    found = dict(by_tar)
    for path, (mode, *others) in by_tar.items():
        above = by_tar[os.path.dirname(path) or b"."][0]
        if mode[0] == "d" and mode[_SETGID] in "sS" and above[_SETGID] in "sS":
            own = mode[:_SETGID] + ("x" if mode[_SETGID] == "s" else "-") + mode[_SETGID + 1 :]
            if path in expected and expected[path][0] == own:
                found[path] = (own, *others)
    return found


def settings_for(histories: int, **more: Any) -> settings:
    """Return the settings for so many histories."""
    return settings(
        max_examples=histories,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )
