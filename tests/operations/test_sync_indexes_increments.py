"""The index of an increment is made again from its archive and the state that it was made from."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.format.entry import Entry
from bakthat.format.index.layout import NeededArchive
from bakthat.operations.sync.report import IndexAction
from bakthat.session.indexes.cache import IndexCache
from bakthat.session.indexes.opening import open_index, open_state
from bakthat.session.reading import KeyFinder
from bakthat.session.session import Session
from tests.support import increments
from tests.support.increments import Chain
from tests.support.profiles import Conf


@pytest.fixture(params=["", "secret"], ids=["clear", "encrypted"])
def password(request: pytest.FixtureRequest, cheap_passphrases: None) -> str:
    return str(request.param)


@pytest.fixture
def chain(local: Conf, tmp_path: Path, password: str) -> Chain:
    """Make a full of a directory and three increments that remove and replace, in a local store."""
    tree = tmp_path / "mydir"
    made = Chain(tree, local, password)
    for name in ("a/b/one", "a/two", "a-b/three", "gone/x/y", "swap/below/file", "z"):
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tree / "plain").write_text("plain")
    os.link(tree / "z", tree / "a" / "z2")
    made.full()
    shutil.rmtree(tree / "gone")
    (tree / "a" / "two").unlink()
    (tree / "new" / "empty").mkdir(parents=True)
    made.increment()
    shutil.rmtree(tree / "swap")
    (tree / "swap").write_text("now a file")
    (tree / "plain").unlink()
    (tree / "plain").mkdir()
    (tree / "plain" / "inner").write_text("inner")
    made.increment()
    (tree / "swap").unlink()
    (tree / "swap").mkdir()
    (tree / "gone").write_text("again")
    (tree / "a" / "b" / "one").unlink()
    (tree / "new" / "empty").rmdir()
    made.increment()
    return made


Seen = tuple[Any, ...]


def state_of(chain: Chain, number: int) -> list[Seen]:
    """Return what the state of a backup says, but for what only its index knows."""
    session = Session("default", None, chain.conf)
    keys = KeyFinder(session, chain.password)
    row = next(
        each for each in bakthat.ls(conf=chain.conf) if each.stored_filename == chain.names[number]
    )
    with open_state(session, row, keys, whole=True) as state:
        assert state is not None
        return [_seen(each) for each in state.entries()]


def _seen(entry: Entry) -> Seen:
    known = entry._replace(ctime_ns=None, inode=None, is_volatile=False, is_stale=False, read=0)
    return tuple(known)


def header_of(chain: Chain, number: int) -> tuple[tuple[NeededArchive, ...], str, int]:
    session = Session("default", None, chain.conf)
    with open_index(
        session, chain.backups[number], KeyFinder(session, chain.password), whole=True
    ) as index:
        assert index is not None
        return index.header.needs, index.header.archive_id, index.header.level


def lose(chain: Chain, *numbers: int) -> None:
    """Remove the indexes of these, from the storage and the cache."""
    for number in numbers:
        for path in Path(chain.conf["local_path"]).glob(f"{chain.names[number]}.index*"):
            path.unlink()
    IndexCache().forget(chain.backups)


def sync(chain: Chain, **options: Any) -> dict[str, IndexAction]:
    report = bakthat.sync(conf=chain.conf, indexes=True, password=chain.password, **options)
    return {each.backup.stored_filename: each.action for each in report.indexes or ()}


@pytest.mark.parametrize("lost", [(3,), (1,), (1, 2, 3), (0, 1, 2, 3), (0, 2)])
def test_an_index_that_is_made_again_says_the_same(chain: Chain, lost: tuple[int, ...]) -> None:
    states = [state_of(chain, number) for number in range(4)]
    headers = [header_of(chain, number) for number in range(4)]
    lose(chain, *lost)
    found = sync(chain)
    for number, name in enumerate(chain.names):
        wanted = IndexAction.MADE if number in lost else IndexAction.GOOD
        assert found[name] is wanted
    for cached in (True, False):
        assert [state_of(chain, number) for number in range(4)] == states
        assert [header_of(chain, number) for number in range(4)] == headers
        if cached:
            IndexCache().forget(chain.backups)
    assert set(sync(chain).values()) == {IndexAction.GOOD}


def test_a_restore_without_indexes_reads_the_archives(
    chain: Chain, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lose(chain, 0, 1, 2, 3)
    out = tmp_path / "out"
    bakthat.restore(chain.names[3], conf=chain.conf, output=out, password=chain.password)
    assert tree_of(out / "mydir") == tree_of(chain.tree)


def tree_of(root: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


def test_its_description_says_what_it_needs(chain: Chain) -> None:
    backend = Session("default", None, chain.conf).backend("local")
    before = backend.stat(f"{chain.names[3]}.index").metadata
    lose(chain, 3)
    sync(chain)
    after = backend.stat(f"{chain.names[3]}.index").metadata
    assert before is not None
    assert after is not None
    for key in ("format", "needs", "level", "id", "set", "host", "source_id"):
        assert after[key] == before[key]


def test_what_is_needed_and_not_listed_is_found_on_the_storage(chain: Chain) -> None:
    states = [state_of(chain, number) for number in range(4)]
    lose(chain, 3)
    with models.catalog(chain.conf["database"], write=True):
        models.Backups.delete().where(models.Backups.stored_filename == chain.names[1]).execute()
    session = Session("default", None, chain.conf)
    keys = KeyFinder(session, chain.password)
    with open_state(session, chain.backups[3], keys, whole=True) as state:
        assert state is not None
        assert [_seen(each) for each in state.entries()] == states[3]


def test_without_what_it_needs_it_is_not_made(chain: Chain) -> None:
    lose(chain, 3)
    (Path(chain.conf["local_path"]) / chain.names[1]).unlink()
    found = sync(chain)
    assert found[chain.names[3]] is IndexAction.FAILED
    assert not (Path(chain.conf["local_path"]) / f"{chain.names[3]}.index").exists()


def test_without_its_description_it_is_not_made(chain: Chain) -> None:
    lose(chain, 3)
    with models.catalog(chain.conf["database"], write=True):
        row = models.Backups.get(models.Backups.stored_filename == chain.names[3])
        row.metadata = {key: row.metadata[key] for key in row.metadata if key != "needs"}
        row.save()
    report = bakthat.sync(conf=chain.conf, indexes=True, password=chain.password)
    (failed,) = report.index_changes
    assert failed.action is IndexAction.FAILED
    assert "its description was lost" in failed.detail


def test_a_directory_without_its_list_is_refused(
    local: Conf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "mydir"
    tree.mkdir()
    chain = Chain(tree, local)
    (tree / "one").write_text("one")
    chain.full()
    (tree / "one").unlink()
    monkeypatch.setattr(increments, "_listing", lambda *_: None)
    chain.increment()
    before = state_of(chain, 1)
    assert sync(chain)[chain.names[1]] is IndexAction.GOOD
    lose(chain, 1)
    report = bakthat.sync(conf=chain.conf, indexes=True, password="")
    (failed,) = report.index_changes
    assert failed.action is IndexAction.FAILED
    assert "does not say what was removed from mydir" in failed.detail
    assert [each[0] for each in before] == ["mydir"]


class Changes:
    """Makes random changes in a tree of few names, so that kinds replace each other."""

    NAMES = ("a", "a-", "a.b", "b", "c")

    def __init__(self, tree: Path, seed: int) -> None:
        self.tree = tree
        self.chance = random.Random(seed)

    def make(self) -> None:
        for _ in range(6):
            path = self.tree.joinpath(*self.chance.choices(self.NAMES, k=self.chance.randint(1, 3)))
            if path.is_dir():
                shutil.rmtree(path)
            elif path.exists():
                path.unlink()
            self._create(path)

    def _create(self, path: Path) -> None:
        above = [each for each in path.parents if self.tree in each.parents]
        kind = self.chance.choice(["file", "file", "link", "directory", "", ""])
        if not kind or any(each.is_file() for each in above):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        found = (each for name in self.NAMES for each in self.tree.glob(f"{name}/**/*"))
        files = sorted(each for each in found if each.is_file())
        if kind == "directory":
            path.mkdir()
        elif kind == "link" and files:
            os.link(self.chance.choice(files), path)
        else:
            path.write_text(str(self.chance.random()))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_random_changes_are_found_again(local: Conf, tmp_path: Path, seed: int) -> None:
    tree = tmp_path / "mydir"
    tree.mkdir()
    (tree / "large").write_bytes(os.urandom(200_000))  # else fulls would be as small
    changes = Changes(tree, seed)
    chain = Chain(tree, {**local, "incremental": True})
    for _ in range(5):
        changes.make()
        chain.backups.append(bakthat.backup(tree, conf=chain.conf, password=""))
    assert [each.is_increment for each in chain.backups] == [False, True, True, True, True]
    states = [state_of(chain, number) for number in range(5)]
    lose(chain, *changes.chance.sample(range(5), 3))
    assert IndexAction.FAILED not in sync(chain).values()
    IndexCache().forget(chain.backups)
    assert [state_of(chain, number) for number in range(5)] == states
    assert tree_of(tree) == tree_of_restored(chain, tmp_path / "out")


def tree_of_restored(chain: Chain, out: Path) -> dict[str, bytes | None]:
    bakthat.restore(chain.names[-1], conf=chain.conf, output=out, password=chain.password)
    return tree_of(out / "mydir")
