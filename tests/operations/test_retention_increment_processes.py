"""Rotation and deletion while another process or another machine makes an increment."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

import bakthat
from bakthat.backends import make_backend
from tests.support.commandline import PATIENCE, CommandLine
from tests.support.filled_catalog import DAY
from tests.support.profiles import Conf, write_config

pytestmark = pytest.mark.slow

PLUGIN = """
import os, sys
from bakthat.operations.backup.store import NewBackup
from bakthat.plugin import Plugin
from bakthat.session.indexes.upload import NewIndex


def paused(function, *, before):
    def call(*arguments, **options):
        if not before:
            found = function(*arguments, **options)
        print("HERE", flush=True)
        sys.stdin.readline()
        return function(*arguments, **options) if before else found
    return call


class Fault(Plugin):
    def activate(self):
        # Where the name is reserved, and nothing is stored.
        if os.environ.get("FAULT") == "pause after reserving":
            NewBackup._store_as = paused(NewBackup._store_as, before=True)
        # Where the index is stored, and its archive is not.
        if os.environ.get("FAULT") == "pause after the index":
            NewIndex.commit = paused(NewIndex.commit, before=False)
"""


@pytest.fixture
def user(user: CommandLine, plugins_dir: Path) -> CommandLine:
    tree = user.directory / "mydir"
    tree.mkdir()
    (tree / "file").write_text("hello")
    (tree / "large").write_bytes(bytes(200_000))
    (plugins_dir / "fault.py").write_text(PLUGIN)
    return user


@pytest.fixture(params=["local", "moto"])
def conf(request: pytest.FixtureRequest, user: CommandLine) -> Conf:
    made: Conf = {"default_destination": "local", "local_path": str(user.home / "store")}
    if request.param == "moto":
        made = {**request.getfixturevalue("moto_conf"), "default_destination": "s3"}
        made.pop("database", None)
    return {**made, "compress": False, "incremental": True}


def configure(user: CommandLine, conf: Conf) -> None:
    write_config(user.home / ".bakthat.yml", default={**conf, "plugins": ["fault.Fault"]})


def back_up(conf: Conf, source: Path, monkeypatch: pytest.MonkeyPatch, days: int) -> str:
    """Make a full some days ago; return its stored filename."""
    then = time.time() - days * DAY
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: then)
        made = bakthat.backup(source, conf=conf, password="", full=True)
    return str(made.stored_filename)


def stored(conf: Conf) -> set[str]:
    return {each.key for each in make_backend(conf["default_destination"], conf).ls()}


def wait_until_here(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == b"HERE\n"


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, output = process.communicate(b"\n" * 9, timeout=PATIENCE)
    return process.returncode, output.decode()


@pytest.mark.parametrize(
    ("fault", "has_own_catalog"),
    [
        ("pause after reserving", False),
        ("pause after the index", False),
        ("pause after the index", True),
    ],
)
def test_what_a_running_increment_needs_outlives_a_rotation(
    user: CommandLine,
    conf: Conf,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fault: str,
    has_own_catalog: bool,
) -> None:
    source = user.directory / "mydir"
    configure(user, conf)
    needed = back_up(conf, source, monkeypatch, 3)
    (source / "new").write_text("new")
    running = user.start("backup", "mydir", "--prompt=no", env={"FAULT": fault})
    wait_until_here(running)
    other = {**conf, "database": str(tmp_path / "other.sqlite")} if has_own_catalog else conf
    if has_own_catalog:
        bakthat.sync(conf=other)
    newest = str(bakthat.backup(source, conf=other, password="", full=True).stored_filename)
    assert bakthat.rotate_backups("mydir", conf=other, last=1) == []
    assert stored(conf) == {needed, newest}
    code, output = finish(running)
    assert code == 0, output
    bakthat.sync(conf=other)
    (increment,) = stored(conf) - {needed, newest}
    assert ".inc." in increment
    assert {each.verdict.value for each in bakthat.check(conf=other, password="")} == {"stored"}
    bakthat.restore(increment, conf=other, output=tmp_path / "out", password="")
    assert (tmp_path / "out" / "mydir" / "new").read_text() == "new"
    bakthat.rotate_backups("mydir", conf=other, last=1)
    kept = stored(conf)
    assert (needed in kept) >= (increment in kept)


def test_an_increment_whose_full_another_machine_deleted_is_not_stored(
    user: CommandLine, conf: Conf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The other machine can see nothing of it yet, so it looks at what it needs again."""
    source = user.directory / "mydir"
    configure(user, conf)
    needed = back_up(conf, source, monkeypatch, 3)
    (source / "new").write_text("new")
    running = user.start("backup", "mydir", "--prompt=no", env={"FAULT": "pause after reserving"})
    wait_until_here(running)
    other = {**conf, "database": str(tmp_path / "other.sqlite")}
    bakthat.sync(conf=other)
    bakthat.delete(needed, conf=other)
    code, output = finish(running)
    bakthat.sync(conf=other)
    assert all(".inc." not in each for each in stored(conf)), output
    # It made a full instead, or said that it failed.
    assert (code == 0) == bool(stored(conf)), output


def test_with_one_catalog_what_a_running_increment_needs_is_not_deleted(
    user: CommandLine, conf: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = user.directory / "mydir"
    configure(user, conf)
    needed = back_up(conf, source, monkeypatch, 3)
    (source / "new").write_text("new")
    running = user.start("backup", "mydir", "--prompt=no", env={"FAULT": "pause after reserving"})
    wait_until_here(running)
    refused = user.run("delete", needed)
    assert refused.code == 2
    assert "is needed by a running backup" in refused.stderr
    code, output = finish(running)
    assert code == 0, output
    assert needed in stored(conf)
    refused = user.run("delete", needed)
    assert refused.code == 2
    assert "--with-dependents" in refused.stderr
    assert user.run("delete", needed, "--with-dependents").code == 0
    assert stored(conf) == set()
