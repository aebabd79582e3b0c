"""The picture, the sessions and the lines of docs/explanation/incremental.rst."""

from __future__ import annotations

import calendar
import re
import subprocess
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

import bakthat
from bakthat.policy.levels import FULL, MAX_ARCHIVES, Link, level_of, needed_by, parent_of
from bakthat.policy.rotation import RotationPolicy, decide
from tests.docs.sessions import DOCS, Reader, sessions_of
from tests.support.trees import fingerprint

PAGE = DOCS / "explanation" / "incremental.rst"
PICTURE = DOCS / "pictures" / "increments.svg"
SVG = "{http://www.w3.org/2000/svg}"
A_DAY = 24 * 3600


def day(text: str) -> int:
    return calendar.timegm(time.strptime(f"{text} 03", "%Y-%m-%d %H"))


def name_of(date: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(date))


def test_the_picture_shows_the_parents_that_the_rules_choose() -> None:
    policy = RotationPolicy(days=7, weeks=4, months=6)
    needs: dict[int, list[int]] = {}
    levels: dict[int, int] = {}
    for date in range(day("2026-09-01"), day("2026-10-04"), A_DAY):
        chain = needs[max(needs)] if needs else []
        level = level_of(date, needs, policy)
        position = parent_of([Link(each, levels[each]) for each in chain], level, MAX_ARCHIVES)
        needs[date] = [*(chain[: position + 1] if position is not None else []), date]
        levels[date] = FULL if position is None else level

    root = ElementTree.fromstring(PICTURE.read_text())
    arrows = {path.get("id", ""): path.get("class") for path in root.iter(f"{SVG}path")}
    del arrows[""]  # the head of an arrow
    shown = {tuple(arrow.split("-from-")) for arrow in arrows}
    dates = [*range(day("2026-09-02"), day("2026-09-15"), A_DAY)]
    dates += [*range(day("2026-10-01"), day("2026-10-04"), A_DAY)]
    assert shown == {(name_of(each), name_of(needs[each][-2])) for each in dates}

    last = day("2026-09-14")
    chain = needs[last]
    assert len(chain) == 5
    assert {arrow for arrow, kind in arrows.items() if kind == "arrow chain"} == {
        f"{name_of(each)}-from-{name_of(parent)}" for parent, each in pairwise(chain)
    }
    until = [each for each in needs if each <= last]
    decisions = zip(until, decide(until, policy, last), strict=True)
    kept = {each for each, decision in decisions if decision.keep}
    needed = needed_by(kept, needs).keys()
    kinds = [box.get("class") for box in root.iter(f"{SVG}rect")]
    in_key = 1
    assert kinds.count("needed") == len(needed) + in_key
    assert kinds.count("deleted") == len(until) - len(kept | needed) + in_key


@pytest.mark.slow
def test_the_session_is_what_happens(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    config = reader.machine().path("~/.bakthat.yml")
    config.write_text("default: {default_destination: local, incremental: true}\n")
    config.chmod(0o600)
    sessions = [*sessions_of(PAGE, "How it works"), *sessions_of(PAGE, "Retention")]
    assert len(sessions) == 2
    reader.follow(sessions)


LINES = re.findall(r"^    (tar xz.*)$", PAGE.read_text(), re.M)


@pytest.mark.needs("GNU tar")
def test_the_lines_restore_an_increment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree, store, empty = tmp_path / "mydir", tmp_path / "store", tmp_path / "empty"
    (tree / "sub").mkdir(parents=True)
    (tree / "large").write_bytes(bytes(range(256)) * 4096)
    conf = {
        "default_destination": "local",
        "local_path": str(store),
        "database": str(tmp_path / "catalog.sqlite"),
        "incremental": True,
        "rotation": {"days": 7, "weeks": 4, "months": 6},
    }
    for date in range(day("2026-09-01"), day("2026-09-15"), A_DAY):
        number = str((date - day("2026-09-01")) // A_DAY)
        (tree / number).write_text(number)
        for old in tree.glob("sub/*"):
            old.unlink()
        (tree / "sub" / number).write_text(number)
        monkeypatch.setattr("bakthat.operations.backup.store.time.time", partial(float, date))
        bakthat.backup(tree, conf=conf, password="")
    empty.mkdir()
    # The page has the objects beside the empty directory.
    for stored in store.iterdir():
        stored.rename(tmp_path / stored.name)
    assert len(LINES) == 5
    for line in LINES:
        assert Path(empty, line.split()[2]).exists()
        done = subprocess.run(line, shell=True, cwd=empty, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    contents = [
        {path: found[3:6] for path, found in fingerprint(root).items()}
        for root in (tree, empty / "mydir")
    ]
    assert contents[0] == contents[1]
