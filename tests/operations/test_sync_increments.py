"""Sync of increments: what they need is known again, as far as the storage says it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.errors import ArchiveError, UsageError
from tests.support.increments import Chain
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


def lose_catalog(conf: Conf) -> None:
    for path in Path(conf["database"]).parent.glob("catalog.sqlite*"):
        path.unlink()


def listed(conf: Conf) -> dict[str, models.Backups]:
    return {each.stored_filename: each for each in bakthat.ls(conf=conf)}


def change_description(conf: Conf, key: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the self-description of an object in the local store."""
    path = Path(conf["local_path"]) / f"{key}.bakthat.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))


def test_another_machine_knows_what_each_needs(chain: Chain) -> None:
    before = listed(chain.conf)
    lose_catalog(chain.conf)
    bakthat.sync(conf=chain.conf)
    after = listed(chain.conf)
    assert after.keys() == before.keys() == set(chain.names)
    for name, backup in after.items():
        assert backup.needs == before[name].needs
        assert backup.level == before[name].level
        assert backup.archive_id == before[name].archive_id
        assert backup.host == before[name].host
    assert after[chain.names[2]].needs == tuple(each.date for each in chain.backups[:2])
    with pytest.raises(UsageError, match="is needed by"):
        bakthat.delete(chain.names[0], conf=chain.conf)


def test_the_description_of_the_index_says_what_that_of_the_archive_lost(chain: Chain) -> None:
    before = listed(chain.conf)
    name = chain.names[2]
    change_description(chain.conf, name, dict.clear)
    lose_catalog(chain.conf)
    bakthat.sync(conf=chain.conf)
    found = listed(chain.conf)[name]
    assert found.needs == before[name].needs
    assert found.level == before[name].level
    assert found.archive_id == before[name].archive_id
    assert (found.host, found.source_id) == (before[name].host, before[name].source_id)
    # It is in its set again, which loses nothing.
    assert bakthat.rotate_backups("mydir", conf=chain.conf, last=1) == []


def test_an_own_description_wins_over_that_of_the_index(chain: Chain) -> None:
    name = chain.names[2]
    change_description(
        chain.conf,
        f"{name}.index",
        lambda found: found.update(needs=[1], level=9, id="f" * 16, host="elsewhere"),
    )
    before = listed(chain.conf)[name]
    lose_catalog(chain.conf)
    bakthat.sync(conf=chain.conf)
    after = listed(chain.conf)[name]
    assert (after.needs, after.level, after.archive_id) == (
        before.needs,
        before.level,
        before.archive_id,
    )
    assert after.host == before.host


def test_where_both_descriptions_are_lost_everything_older_stays(chain: Chain) -> None:
    name = chain.names[2]
    for key in (name, f"{name}.index"):
        change_description(chain.conf, key, dict.clear)
    lose_catalog(chain.conf)
    bakthat.sync(conf=chain.conf)
    found = listed(chain.conf)[name]
    assert found.is_increment
    assert found.needs == ()
    bakthat.rotate_backups("mydir", conf=chain.conf, last=1)
    assert listed(chain.conf).keys() == set(chain.names)


def test_a_format_of_a_later_version_is_listed_and_refused(
    chain: Chain, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = chain.names[2]
    change_description(chain.conf, name, lambda found: found.update(format=3))
    lose_catalog(chain.conf)
    caplog.set_level(logging.WARNING)
    bakthat.sync(conf=chain.conf)
    assert "stored by a later version of bakthat" in caplog.text
    assert name in listed(chain.conf)
    with pytest.raises(ArchiveError, match="has format 3") as caught:
        bakthat.restore(name, conf=chain.conf, output=tmp_path / "out", password="")
    assert caught.value.hint == "upgrade bakthat"
    with pytest.raises(UsageError, match="does not know"):
        bakthat.delete(chain.names[1], conf=chain.conf, with_dependents=True)
    assert listed(chain.conf).keys() == set(chain.names)


def test_a_second_sync_changes_nothing(chain: Chain) -> None:
    lose_catalog(chain.conf)
    bakthat.sync(conf=chain.conf)
    assert bakthat.sync(conf=chain.conf).changes == []
