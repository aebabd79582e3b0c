"""What a killed backup of an increment leaves: it pins what it needs, until cleanup removes it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import bakthat
from bakthat.errors import UsageError
from tests.support.filled_catalog import DAY
from tests.support.increments import Chain
from tests.support.indexes import forget_cache
from tests.support.profiles import Conf


@pytest.fixture
def chain(local: Conf, tmp_path: Path) -> Chain:
    """Make a full of a directory and two increments, in a local store."""
    tree = tmp_path / "mydir"
    tree.mkdir()
    made = Chain(tree, local)
    (tree / "one").write_text("one")
    made.full()
    for name in ("two", "three"):
        (tree / name).write_text(name)
        made.increment()
    return made


def forget(chain: Chain, *names: str) -> None:
    """Let the catalog be one that never had these."""
    for path in Path(chain.conf["database"]).parent.glob("catalog.sqlite*"):
        path.unlink()
    bakthat.sync(conf=chain.conf)
    assert not {each.stored_filename for each in bakthat.ls(conf=chain.conf)} & set(names)


def age(chain: Chain, days: int) -> None:
    then = time.time() - days * DAY
    for path in Path(chain.conf["local_path"]).iterdir():
        os.utime(path, (then, then))


def kept(chain: Chain) -> set[str]:
    return {path.name for path in Path(chain.conf["local_path"]).iterdir()}


def test_an_index_of_an_increment_without_its_archive_pins_until_it_is_removed(
    chain: Chain,
) -> None:
    store, last = Path(chain.conf["local_path"]), chain.names[2]
    for path in (store / last, store / f"{last}.bakthat.json"):
        path.unlink()
    forget(chain, last)
    with pytest.raises(UsageError, match=f"{last}, which the catalog does not list"):
        bakthat.delete(chain.names[1], conf=chain.conf)
    assert bakthat.cleanup(conf=chain.conf) == []  # it may be running
    age(chain, 2)
    assert [(each.kind, each.name) for each in bakthat.cleanup(conf=chain.conf)] == [
        ("index", f"{last}.index")
    ]
    assert not any(last in name for name in kept(chain))
    bakthat.delete(chain.names[1], conf=chain.conf)
    assert {name for name in kept(chain) if chain.names[1] in name} == set()


def test_the_claim_of_an_increment_is_removed_and_no_increment_is(chain: Chain) -> None:
    store = Path(chain.conf["local_path"])
    dead = chain.names[2].replace("mydir.2", "mydir.1")
    (store / f"{dead}.bakthat.json").write_text("{}")
    before = kept(chain)
    age(chain, 2)
    found = bakthat.cleanup(conf=chain.conf)
    assert [(each.kind, each.name) for each in found] == [("claim", dead)]
    assert kept(chain) == before - {f"{dead}.bakthat.json"}
    assert {each.verdict.value for each in bakthat.check(conf=chain.conf)} == {"stored"}


@pytest.mark.parametrize("is_index_lost", [False, True])
def test_what_a_partial_restore_needs_stays_when_a_needed_archive_is_lost(
    is_index_lost: bool, chain: Chain, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What the others hold is only known by its index, even if that is in the cache alone."""
    full = chain.names[0]
    bakthat.restore(chain.names[2], conf=chain.conf, output=out / "before")  # fills the cache
    ends = ("", ".bakthat.json", ".index", ".index.bakthat.json")
    for end in ends if is_index_lost else ends[:2]:
        (Path(chain.conf["local_path"]) / f"{full}{end}").unlink()
    age(chain, 2)
    before = kept(chain)
    bakthat.sync(conf=chain.conf)
    assert bakthat.cleanup(conf=chain.conf) == []
    assert kept(chain) == before
    if not is_index_lost:
        forget_cache()
    caplog.clear()
    found = bakthat.restore(chain.names[2], conf=chain.conf, output=out / "after", partial=True)
    assert found is not None
    assert not found.is_complete
    assert {each.name for each in (out / "after" / "mydir").iterdir()} == {"two", "three"}
    assert "has no index" not in caplog.text
    bakthat.delete(chain.names[2], conf=chain.conf)
    bakthat.delete(chain.names[1], conf=chain.conf)
    age(chain, 2)
    removed = [(each.kind, each.name) for each in bakthat.cleanup(conf=chain.conf)]
    assert removed == ([] if is_index_lost else [("index", f"{full}.index")])
