"""Increments where something is lost, replaced or in the way: what is kept restores, or a full is
made and says why."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.crypto import age
from bakthat.errors import UsageError
from bakthat.operations.backup.store import NewBackup
from bakthat.session.indexes.upload import NewIndex
from tests.reliability.world import in_child
from tests.support.indexes import forget_cache, lose_indexes
from tests.support.profiles import Conf
from tests.support.trees import fingerprint

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

HOUR, DAY = 3600, 86400
BALLAST_BYTES = 100_000


@pytest.fixture
def conf(local: Conf) -> Conf:
    return {**local, "incremental": True}


@pytest.fixture
def tree(tree: Path) -> Path:
    """Give the tree a large file, beside which an increment is small."""
    (tree / "ballast").write_bytes(os.urandom(BALLAST_BYTES))
    return tree


@pytest.fixture
def store(conf: Conf) -> Path:
    return Path(conf["local_path"])


@pytest.fixture(autouse=True)
def reasons(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return why fulls were made, as the log says it; what was read before is not told again."""
    caplog.set_level(logging.INFO, "bakthat")

    def read() -> list[str]:
        found = [
            record.message.removeprefix("Making a full backup: ")
            for record in caplog.records
            if record.message.startswith("Making a full backup: ")
        ]
        caplog.clear()
        return found

    return read


Reasons = Callable[[], list[str]]


def back_up(tree: Path, conf: Conf, content: str, **options: Any) -> models.Backups:
    """Change the tree, and back it up."""
    (tree / "a.txt").write_text(content)
    options = {"password": "", **options} if "recipients" not in conf else options
    return bakthat.backup(tree, conf=conf, **options)


def restores(entry: models.Backups, conf: Conf, tree: Path, content: str, **options: Any) -> bool:
    """Return whether a backup restores the tree, with this *content* of the file that changes."""
    out = tree.parent / "restored"
    options = {"password": "", **options} if "recipients" not in conf else options
    bakthat.restore(entry.stored_filename, conf=conf, output=out, **options)
    found, expected = fingerprint(out / "mydir"), fingerprint(tree)
    is_content = (out / "mydir" / "a.txt").read_text() == content
    shutil.rmtree(out)
    for paths in (found, expected):
        del paths[b"a.txt"], paths[b"."]
    return is_content and found == expected


def stored(store: Path) -> set[str]:
    """Return the names of all files in the store."""
    return {each.name for each in store.iterdir()}


def files_of(*entries: models.Backups) -> set[str]:
    return {
        f"{entry.stored_filename}{more}"
        for entry in entries
        for more in ("", ".bakthat.json", ".index", ".index.bakthat.json")
    }


# What an increment needs is lost or replaced.


def lose(archive: Path, _: Path) -> None:
    archive.unlink()


def truncate(archive: Path, _: Path) -> None:
    os.truncate(archive, archive.stat().st_size - 1)


def replace(archive: Path, other: Path) -> None:
    """Put another archive of the same size there, with its description."""
    size = archive.stat().st_size
    archive.write_bytes(other.read_bytes())
    os.truncate(archive, size)
    description = json.loads(Path(f"{other}.bakthat.json").read_text())
    Path(f"{archive}.bakthat.json").write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lose, "is not stored any more"),
        (truncate, "has {less} bytes, and had {size}"),
        (replace, "is another archive than it was"),
    ],
)
@pytest.mark.parametrize("needed", ["full", "parent"])
def test_a_full_is_made_when_a_needed_archive_is_not_what_it_was(
    damage: Callable[[Path, Path], None],
    reason: str,
    needed: str,
    tree: Path,
    conf: Conf,
    store: Path,
    reasons: Reasons,
) -> None:
    full = back_up(tree, conf, "1")
    parent = back_up(tree, conf, "2")
    other = back_up(tree, {**conf, "local_path": f"{store} 2"}, "3")
    reasons()
    damaged = full if needed == "full" else parent
    assert parent.is_increment
    damage(store / damaged.stored_filename, Path(f"{store} 2", other.stored_filename))
    made = back_up(tree, conf, "4")
    assert not made.is_increment
    expected = reason.format(size=damaged.size, less=damaged.size - 1)
    assert reasons() == [f"{damaged.stored_filename} {expected}"]
    assert restores(made, conf, tree, "4")
    after = back_up(tree, conf, "5")
    assert after.needs == (made.date,)


def test_a_full_is_made_when_a_needed_archive_vanishes_while_an_increment_is_made(
    tree: Path,
    conf: Conf,
    store: Path,
    reasons: Reasons,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = back_up(tree, conf, "1")
    reasons()
    real = NewIndex.commit

    def commit(self: NewIndex) -> None:
        (store / full.stored_filename).unlink(missing_ok=True)
        real(self)

    monkeypatch.setattr(NewIndex, "commit", commit)
    made = back_up(tree, conf, "2")
    assert not made.is_increment
    assert reasons() == [f"{full.stored_filename} is not stored any more"]
    assert restores(made, conf, tree, "2")
    left = files_of(full) - {full.stored_filename}
    assert stored(store) - left == files_of(made)
    assert not models_reserved(conf)


def models_reserved(conf: Conf) -> list[str]:
    """Return the names that are reserved for backups that are being made."""
    with models.catalog(Path(conf["database"])):
        return [each.stored_filename for each in models.Reservations.select()]


def test_a_full_is_made_when_a_needed_backup_is_deleted_before_it_is_pinned(
    tree: Path, conf: Conf, store: Path, reasons: Reasons, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = back_up(tree, conf, "1")
    reasons()
    real = NewBackup.store

    def store_it(self: NewBackup, *arguments: Any, **options: Any) -> models.Backups:
        if self.parent is not None:
            bakthat.delete(full.stored_filename, conf=conf)
        return real(self, *arguments, **options)

    monkeypatch.setattr(NewBackup, "store", store_it)
    made = back_up(tree, conf, "2")
    (reason,) = reasons()
    assert reason.startswith(f"{full.stored_filename}, which the backup would need, was deleted")
    assert stored(store) == files_of(made)
    assert restores(made, conf, tree, "2")


@pytest.mark.parametrize("how", ["delete", "rotate", "delete older than"])
def test_nothing_that_a_running_backup_needs_is_deleted_meanwhile(
    how: str, tree: Path, conf: Conf, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = back_up_days_ago(70, tree, conf, "1", monkeypatch)
    parent = back_up_days_ago(35, tree, conf, "2", monkeypatch)
    real = NewIndex.commit

    def delete() -> str:
        patch.undo()
        newer = back_up(tree, conf, "3", full=True)
        if how == "delete":
            for each in (parent, full):
                with pytest.raises(UsageError):
                    bakthat.delete(each.stored_filename, conf=conf, with_dependents=True)
        elif how == "rotate":
            assert bakthat.rotate_backups("mydir", conf=conf, days=1) == []
        else:
            assert bakthat.delete_older_than("mydir", "10D", conf=conf) == []
        return newer.stored_filename

    def commit(self: NewIndex) -> None:
        newer.append(in_child(delete).result)
        real(self)

    newer: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(NewIndex, "commit", commit)
        made = back_up(tree, conf, "4")
    assert made.needs == (full.date, parent.date)
    assert stored(store) - files_of(full, parent, made) == {
        f"{newer[0]}{more}" for more in ("", ".bakthat.json", ".index", ".index.bakthat.json")
    }
    assert restores(made, conf, tree, "4")
    # Afterwards nothing is in the way of a deletion.
    bakthat.delete(made.stored_filename, conf=conf)
    bakthat.delete(parent.stored_filename, conf=conf)
    bakthat.delete(full.stored_filename, conf=conf)


def back_up_days_ago(
    days: float,
    tree: Path,
    conf: Conf,
    content: str,
    monkeypatch: pytest.MonkeyPatch,
    **options: Any,
) -> models.Backups:
    moment = time.time() - days * DAY
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: moment)
        return back_up(tree, conf, content, **options)


def test_two_processes_make_increments_of_one_parent_at_once(
    tree: Path, conf: Conf, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = back_up(tree, conf, "1")
    real = NewIndex.commit
    others: list[str] = []

    def commit(self: NewIndex) -> None:
        patch.undo()
        others.append(in_child(lambda: back_up(tree, conf, "3").stored_filename).result)
        real(self)

    with monkeypatch.context() as patch:
        patch.setattr(NewIndex, "commit", commit)
        first = back_up(tree, conf, "2")
    (second,) = (each for each in bakthat.ls(conf=conf) if each.stored_filename in others)
    assert first.needs == second.needs == (full.date,)
    assert first.stored_filename != second.stored_filename
    assert restores(first, conf, tree, "2")
    assert restores(second, conf, tree, "3")
    third = back_up(tree, conf, "4")
    newest = max(first.date, second.date)
    assert third.needs == (full.date, newest)
    assert restores(third, conf, tree, "4")
    assert stored(store) == files_of(full, first, second, third)


# What this machine knows is lost.


@pytest.fixture
def key(tmp_path: Path) -> tuple[str, str]:
    """Return an identity file, and the recipient."""
    identity = age.generate_identity()
    file = tmp_path / "key"
    file.write_text(identity)
    file.chmod(0o600)
    return str(file), age.recipient_of(identity)


@pytest.mark.usefixtures("cheap_passphrases")
def test_indexes_that_the_cache_lost_are_fetched_with_the_passphrase(
    tree: Path, conf: Conf, reasons: Reasons
) -> None:
    full = back_up(tree, conf, "1", password="secret")
    increment = back_up(tree, conf, "2", password="secret")
    assert increment.needs == (full.date,)
    reasons()
    forget_cache()
    made = back_up(tree, conf, "3", password="secret")
    assert made.needs == (full.date, increment.date)
    assert reasons() == []
    forget_cache()
    assert restores(made, conf, tree, "3", password="secret")


@pytest.mark.parametrize("loss", ["lost", "altered", "truncated"])
def test_a_host_without_the_private_key_makes_a_full_when_its_cache_is_of_no_use(
    loss: str, tree: Path, conf: Conf, key: tuple[str, str], reasons: Reasons
) -> None:
    identity, recipient = key
    conf = {**conf, "recipients": [recipient]}
    full = back_up(tree, conf, "1")
    increment = back_up(tree, conf, "2")
    assert increment.needs == (full.date,)
    reasons()
    damage_cache(loss)
    made = back_up(tree, conf, "3")
    (reason,) = reasons()
    assert reason.startswith(
        f"the index of {increment.stored_filename} is not in the cache of this machine, "
        "and cannot be decrypted here: "
    )
    assert not made.is_increment
    after = back_up(tree, conf, "4")
    assert after.needs == (made.date,)
    for entry, content in ((increment, "2"), (made, "3"), (after, "4")):
        assert restores(entry, conf, tree, content, identity_file=identity)


def damage_cache(loss: str) -> None:
    files = list(Path(os.environ["HOME"], ".cache", "bakthat").rglob("*.index"))
    assert files
    for file in files:
        if loss == "lost":
            file.unlink()
        elif loss == "truncated":
            os.truncate(file, file.stat().st_size // 2)
        else:
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)


@pytest.mark.parametrize("loss", ["altered", "truncated"])
def test_an_index_in_the_cache_that_was_altered_is_fetched_again(
    loss: str, tree: Path, conf: Conf, reasons: Reasons
) -> None:
    full = back_up(tree, conf, "1")
    reasons()
    damage_cache(loss)
    made = back_up(tree, conf, "2")
    assert made.needs == (full.date,)
    assert restores(made, conf, tree, "2")
    assert reasons() == []


def test_after_a_sync_of_a_lost_catalog_the_next_increment_continues(
    tree: Path, conf: Conf, reasons: Reasons
) -> None:
    full = back_up(tree, conf, "1")
    increment = back_up(tree, conf, "2")
    reasons()
    Path(conf["database"]).unlink()
    forget_cache()
    assert bakthat.sync(conf=conf).containers[0].foreign == 0
    made = back_up(tree, conf, "3")
    assert made.needs == (full.date, increment.date)
    assert restores(made, conf, tree, "3")
    assert reasons() == []


def test_a_full_is_made_when_the_newest_backup_has_no_index(
    tree: Path, conf: Conf, reasons: Reasons
) -> None:
    """As those of earlier versions."""
    full = back_up(tree, conf, "1")
    lose_indexes(conf, full.stored_filename)
    reasons()
    made = back_up(tree, conf, "2")
    assert not made.is_increment
    reason = "has no index (bakthat sync --indexes makes one)"
    assert reasons() == [f"{full.stored_filename} {reason}"]
    assert back_up(tree, conf, "3").needs == (made.date,)


def test_an_older_backup_without_an_index_does_not_matter(tree: Path, conf: Conf) -> None:
    old = back_up(tree, conf, "1")
    full = back_up(tree, conf, "2", full=True)
    lose_indexes(conf, old.stored_filename)
    assert back_up(tree, conf, "3").needs == (full.date,)


def test_a_full_is_made_when_an_index_on_the_storage_is_damaged(
    tree: Path, conf: Conf, store: Path, reasons: Reasons
) -> None:
    """Its records are read only while the tree is compared."""
    full = back_up(tree, conf, "1")
    reasons()
    index = store / f"{full.stored_filename}.index"
    content = bytearray(index.read_bytes())
    content[len(content) // 2] ^= 0xFF
    index.write_bytes(content)
    forget_cache()
    made = back_up(tree, conf, "2")
    assert not made.is_increment
    assert len(reasons()) == 1
    assert restores(made, conf, tree, "2")


# The clock.


def test_a_clock_behind_the_parent_dates_the_increment_after_it(
    tree: Path, conf: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = back_up(tree, conf, "1")
    made = back_up_days_ago(0.5 * HOUR / DAY, tree, conf, "2", monkeypatch)
    assert made.needs == (full.date,)
    assert made.date == full.date + 1
    assert restores(made, conf, tree, "2")


def test_a_full_is_made_where_all_backups_are_dated_in_the_future(
    tree: Path, conf: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(tree, conf, "1")
    made = back_up_days_ago(3, tree, conf, "2", monkeypatch)
    assert not made.is_increment
    assert restores(made, conf, tree, "2")
    after = back_up_days_ago(2, tree, conf, "3", monkeypatch)
    assert after.needs == (made.date,)
    assert restores(after, conf, tree, "3")
