"""Retention in concurrent and in killed processes loses nothing."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import bakthat
from bakthat import models
from bakthat.backends import make_backend
from bakthat.errors import StorageError
from bakthat.session.records import vault_records
from tests.support.commandline import PATIENCE, CommandLine
from tests.support.filled_catalog import DAY, at
from tests.support.glacier_server import GlacierServer
from tests.support.profiles import Conf, write_config

pytestmark = pytest.mark.slow


END = at(2020, 12, 16, 12)
"""A Wednesday before the clock of whoever runs the tests."""

PLUGIN = """
import os, signal, sys
from bakthat import models
from bakthat.operations.retention import operation as retention
from bakthat.operations.backup import store
from bakthat.plugin import Plugin


def paused(function):
    def call(*arguments, **options):
        print("HERE", flush=True)
        sys.stdin.readline()
        return function(*arguments, **options)
    return call


def killed(function, calls=[]):
    def call(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call


class Fault(Plugin):
    def activate(self):
        # Where both have decided, and neither has deleted.
        if os.environ.get("FAULT") == "pause before deleting":
            retention._delete_batch = paused(retention._delete_batch)
        # Where the object is stored, and not yet recorded.
        if os.environ.get("FAULT") == "pause before recording":
            store.NewBackup._record = paused(store.NewBackup._record)
        # Where the storage has deleted, and the catalog does not know.
        if os.environ.get("FAULT") == "kill before marking":
            models.mark_deleted = killed(models.mark_deleted)
"""


@pytest.fixture
def user(user: CommandLine, plugins_dir: Path) -> CommandLine:
    (user.directory / "mydir").mkdir()
    (user.directory / "mydir" / "file").write_text("hello")
    (plugins_dir / "fault.py").write_text(PLUGIN)
    return user


@pytest.fixture(params=["local", "moto", "rclone", "glacier"])
def conf(request: pytest.FixtureRequest, user: CommandLine) -> Conf:
    if request.param == "local":
        store = str(user.home / "store")
        return use(user, {"default_destination": "local", "local_path": store})
    if request.param == "glacier":
        server: GlacierServer = request.getfixturevalue("glacier")
        return use(user, server.conf())
    return use(user, dict(request.getfixturevalue(f"{request.param}_conf")))


def use(user: CommandLine, conf: Conf) -> Conf:
    path = user.home / ".bakthat.yml"
    write_config(path, default={**conf, "plugins": ["fault.Fault"]})
    return conf


def back_up_daily(conf: Conf, source: Path, days: int) -> list[str]:
    """Back up once a day up to END; return the stored filenames, the oldest first."""
    made = []
    for number in range(days):
        with pytest.MonkeyPatch.context() as patch:
            moment = float(END - (days - 1 - number) * DAY)
            patch.setattr(time, "time", lambda moment=moment: moment)
            made.append(bakthat.backup(source, conf=conf, password="").stored_filename)
    return made


def stored(conf: Conf) -> set[str]:
    destination = conf.get("default_destination", "s3")
    records = vault_records(Path("~/.bakthat.sqlite").expanduser())
    return {found.key for found in make_backend(destination, conf, records).ls()}


def listed(conf: Conf) -> set[str]:
    return {backup.stored_filename for backup in bakthat.ls(conf=conf)}


def wait_until_here(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == b"HERE\n"


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Let a process that stopped go on to its end; return its exit code and its output."""
    _, output = process.communicate(b"\n" * 9, timeout=PATIENCE)
    return process.returncode, output.decode()


def test_a_second_run_finishes_one_killed_between_storage_and_catalog(
    user: CommandLine, conf: Conf
) -> None:
    made = back_up_daily(conf, user.directory / "mydir", 5)
    killed = user.run("rotate", "mydir", "--last", "2", env={"FAULT": "kill before marking"})
    assert killed.code == -9
    with contextlib.closing(sqlite3.connect(user.home / ".bakthat.sqlite")) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    # What is listed and gone is only what was to be deleted.
    assert set(made[3:]) <= stored(conf) < listed(conf)
    again = user.run("rotate", "mydir", "--last", "2")
    assert (again.code, again.stderr.splitlines()[-1][:7]) == (0, "Deleted")
    assert stored(conf) == listed(conf) == set(made[3:])
    assert "Deleted 0 of 2 backups (" in user.run("rotate", "mydir", "--last", "2").stderr


def test_two_rotations_that_decided_at_once_end_as_one(user: CommandLine, conf: Conf) -> None:
    made = back_up_daily(conf, user.directory / "mydir", 4)
    pause = {"FAULT": "pause before deleting"}
    both = [user.start("rotate", "mydir", "--last", keep, env=pause) for keep in ("1", "2")]
    for process in both:
        wait_until_here(process)
    ended = [finish(process) for process in both]
    assert [code for code, _ in ended] == [0, 0], ended
    assert stored(conf) == listed(conf) == {made[3]}
    assert user.run("rotate", "mydir", "--last", "1").code == 0
    assert stored(conf) == listed(conf) == {made[3]}


@pytest.mark.parametrize("first", ["backup", "rotation"])
def test_a_rotation_and_a_backup_of_one_set_that_meet_lose_nothing(
    user: CommandLine, conf: Conf, first: str
) -> None:
    made = back_up_daily(conf, user.directory / "mydir", 3)
    backup = user.start("backup", "mydir", "--prompt=no", env={"FAULT": "pause before recording"})
    wait_until_here(backup)
    rotation = user.start("rotate", "mydir", "--last", "1", env={"FAULT": "pause before deleting"})
    wait_until_here(rotation)
    two = (backup, rotation) if first == "backup" else (rotation, backup)
    ended = [finish(process) for process in two]
    assert [code for code, _ in ended] == [0, 0], ended
    # The rotation did not know of the new one, so it kept the newest that it knew.
    (new,) = listed(conf) - set(made)
    assert stored(conf) == listed(conf) == {made[2], new}
    assert user.run("rotate", "mydir", "--last", "1").code == 0
    assert stored(conf) == listed(conf) == {new}


def lose(conf: Conf, key: str) -> None:
    """Delete an object behind bakthat's back."""
    make_backend(conf.get("default_destination", "s3"), conf).delete(key)


@pytest.mark.parametrize("conf", ["local", "moto", "rclone"], indirect=True)
@pytest.mark.parametrize(
    "act",
    [
        lambda conf: bakthat.rotate_backups("mydir", conf=conf, last=1),
        lambda conf: bakthat.delete_older_than("mydir", "1D", conf=conf),
    ],
    ids=["rotate", "delete_older_than"],
)
def test_while_the_newest_is_listed_and_not_stored_the_others_stay(
    user: CommandLine, conf: Conf, act: Callable[[Conf], list[models.Backups]]
) -> None:
    made = back_up_daily(conf, user.directory / "mydir", 4)
    lose(conf, made[3])
    with pytest.raises(StorageError, match="listed, but not stored, so none was deleted") as caught:
        act(conf)
    assert made[3] in str(caught.value)
    assert "bakthat delete" in caught.value.hint
    assert stored(conf) == set(made[:3])
    assert listed(conf) == set(made)

    bakthat.delete(made[3], conf=conf)
    assert [each.stored_filename for each in act(conf)] == made[:2]
    assert stored(conf) == listed(conf) == {made[2]}


@pytest.mark.parametrize("conf", ["glacier"], indirect=True)
def test_an_archive_that_the_inventory_lacks_stays_and_stops_no_other(
    user: CommandLine, conf: Conf, glacier: GlacierServer
) -> None:
    made = back_up_daily(conf, user.directory / "mydir", 4)
    with models.catalog("~/.bakthat.sqlite", write=True):
        forgotten = models.Inventory.get(models.Inventory.filename == made[1])
        forgotten.delete_instance()
    with pytest.raises(StorageError, match="1 of 3 backups could not be deleted") as caught:
        bakthat.rotate_backups("mydir", conf=conf, last=1)
    assert "restore_glacier_inventory" in caught.value.hint
    assert listed(conf) == {made[1], made[3]}
    assert forgotten.archive_id in glacier.archives(conf["glacier_vault"])
    with models.catalog("~/.bakthat.sqlite", write=True):
        models.Inventory.create(filename=made[1], archive_id=forgotten.archive_id)
    assert len(bakthat.rotate_backups("mydir", conf=conf, last=1)) == 1
    assert stored(conf) == listed(conf) == {made[3]}
    assert len(glacier.archives(conf["glacier_vault"])) == 1


@pytest.mark.parametrize("conf", ["glacier"], indirect=True)
def test_a_vault_whose_newest_archive_is_unknown_here_keeps_all(
    user: CommandLine, conf: Conf
) -> None:
    made = back_up_daily(conf, user.directory / "mydir", 3)
    with models.catalog("~/.bakthat.sqlite", write=True):
        models.Inventory.delete().where(models.Inventory.filename == made[2]).execute()
    with pytest.raises(StorageError, match="so none was deleted") as caught:
        bakthat.rotate_backups("mydir", conf=conf, last=1)
    assert "inventory" in caught.value.hint
    assert listed(conf) == set(made)
