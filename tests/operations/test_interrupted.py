"""Signals at critical moments leave no half of a backup and no half of a deletion."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

import bakthat
from bakthat.format.names import index_key, is_index_key
from tests.support.commandline import CommandLine
from tests.support.examples import rest_slow
from tests.support.fault_proxy import FaultProxy, Hold
from tests.support.profiles import Conf, write_config
from tests.support.servers import parts_under_way, plain
from tests.support.versions import put_version, set_versions, versions_in

LARGE = 20 * 1024 * 1024
"""Bytes that do not fit one part."""


@pytest.fixture
def conf(proxied_conf: Conf) -> Conf:
    return proxied_conf


@pytest.fixture
def user(user: CommandLine, conf: dict[str, Any]) -> CommandLine:
    (user.directory / "small").write_text("small")
    (user.directory / "large").write_bytes(os.urandom(LARGE))
    write_config(user.home / ".bakthat.yml", default=conf)
    return user


def interrupt(user: CommandLine, hold: Hold, *arguments: str, number: int) -> tuple[int, str]:
    """Run a command, send it *number* twice while a request is held, and let that go on."""
    process = user.start(*arguments)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdin, process.stdout, process.stderr:
        assert hold.done.wait(60)
        process.send_signal(number)
        process.send_signal(number)
        hold.go.set()
        output = process.stderr.read().decode()
        return process.wait(60), output


def listed(user: CommandLine) -> list[str]:
    return [each["stored_filename"] for each in user.run("show", "--json").lines("backup")]


def stored(conf: dict[str, Any]) -> list[str]:
    """Return the keys of the archives, each of which has its index, and of nothing else."""
    found = plain(conf).list_objects_v2(Bucket=conf["s3_bucket"]).get("Contents", [])
    archives = [each["Key"] for each in found if not is_index_key(each["Key"])]
    assert {each["Key"] for each in found} == {*archives, *map(index_key, archives)}
    return archives


@pytest.mark.parametrize(
    ("name", "method", "part"),
    [
        ("small", "PUT", "/small."),
        ("large", "POST", "uploads"),
        ("large", "PUT", "partNumber=1"),
        ("large", "POST", "uploadId="),
    ],
    ids=["storing all", "beginning parts", "sending a part", "publishing parts"],
)
@pytest.mark.parametrize("number", rest_slow([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
def test_an_interrupted_backup_is_stored_and_listed_or_neither(
    user: CommandLine,
    conf: dict[str, Any],
    moto_proxy: FaultProxy,
    name: str,
    method: str,
    part: str,
    number: int,
) -> None:
    hold = Hold()
    moto_proxy.on(method, part, hold, times=1)
    code, output = interrupt(user, hold, "backup", name, "--prompt", "no", number=number)
    assert code == 128 + number, output
    assert "Traceback" not in output
    assert listed(user) == stored(conf)
    assert parts_under_way(conf) == []
    # Nothing stands in the way of the next one.
    assert user.run("backup", name, "--prompt", "no").code == 0


def test_an_interrupted_deletion_is_done_in_both_places(
    user: CommandLine, conf: dict[str, Any], moto_proxy: FaultProxy
) -> None:
    user.run("backup", "small", "--prompt", "no")
    hold = Hold()
    moto_proxy.on("DELETE", "/small.", hold, times=1)
    code, _ = interrupt(user, hold, "delete", "small", number=signal.SIGINT)
    assert code == 130
    assert listed(user) == stored(conf) == []


@pytest.mark.parametrize(
    "arguments", [("delete", "small"), ("rotate_backups", "small", "--last", "1")]
)
@pytest.mark.slow
def test_an_interrupted_deletion_removes_the_index_too(
    user: CommandLine, conf: dict[str, Any], moto_proxy: FaultProxy, arguments: tuple[str, ...]
) -> None:
    for _ in range(2):
        user.run("backup", "small", "--prompt", "no")
    stays = sorted(listed(user))[0 if arguments[0] == "delete" else 1]
    hold = Hold()
    verb = "DELETE" if arguments[0] == "delete" else "POST"
    moto_proxy.on(verb, "/small." if verb == "DELETE" else "?delete", hold, times=1)
    code, output = interrupt(user, hold, *arguments, number=signal.SIGTERM)
    assert code == 143, output
    assert listed(user) == [stays]
    assert [each.removesuffix(".index") for each in stored(conf)] in ([stays], [stays, stays])


@pytest.mark.parametrize("moment", ["listing versions", "deleting older ones", "the latest"])
@pytest.mark.parametrize(
    "arguments", [("delete", "small"), ("rotate_backups", "small", "--last", "1")]
)
@pytest.mark.slow
def test_an_interrupted_deletion_of_versions_is_done_in_both_places(
    user: CommandLine,
    conf: dict[str, Any],
    moto_proxy: FaultProxy,
    arguments: tuple[str, ...],
    moment: str,
) -> None:
    set_versions(conf, "Enabled")
    for _ in range(3):
        user.run("backup", "small", "--prompt", "no")
    for key in versions_in(conf):
        put_version(conf, key)
    names = sorted(listed(user))
    stays = names[:2] if arguments[0] == "delete" else names[2:]
    hold = Hold()
    if moment == "listing versions":
        moto_proxy.on("GET", "versions&", hold, times=1)
    elif arguments[0] == "delete":
        after = 0 if moment == "deleting older ones" else 1
        moto_proxy.on("DELETE", "/small.", hold, times=1, after=after)
    else:
        after = 0 if moment == "deleting older ones" else 1
        moto_proxy.on("POST", "?delete", hold, times=1, after=after)
    code, output = interrupt(user, hold, *arguments, number=signal.SIGTERM)
    assert code == 143, output
    assert sorted(listed(user)) == stays
    assert versions_in(conf) == dict.fromkeys([*stays, *map(index_key, stays)], 2)


PLUGIN = """
from bakthat.plugin import Plugin


class Listener(Plugin):
    def activate(self):
        self.on_error += self.write

    def write(self, session_id, operation, exception):
        with open("fired", "a") as file:
            file.write(f"{operation} {type(exception).__name__} {isinstance(exception, Exception)}")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.slow
def test_an_interrupted_backup_fires_on_error_and_leaves_nothing(
    user: CommandLine, conf: dict[str, Any], moto_proxy: FaultProxy, number: int
) -> None:
    plugins = user.home / ".bakthat_plugins"
    plugins.mkdir(mode=0o700)
    (plugins / "listener.py").write_text(PLUGIN)
    path = user.home / ".bakthat.yml"
    path.write_text(yaml.safe_dump({"default": {**conf, "plugins": ["listener.Listener"]}}))
    before = {each.name for each in user.directory.iterdir()}
    hold = Hold()
    moto_proxy.on("POST", "uploads", hold, times=1)
    code, _ = interrupt(user, hold, "backup", "large", "--prompt", "no", number=number)
    assert code == 128 + number
    # No Exception: a callback that catches everything else does not swallow it.
    assert (user.directory / "fired").read_text() == "backup Stopped False"
    assert {each.name for each in user.directory.iterdir()} == before | {"fired"}
    assert stored(conf) == listed(user) == parts_under_way(conf) == []
    cleaned = user.run("cleanup", "--older-than", "1s", "--json")
    assert cleaned.lines("change") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_local_backup_leaves_no_file(
    user: CommandLine, conf: dict[str, Any], number: int
) -> None:
    os.mkfifo(user.directory / "gate")
    fifo = str(user.directory / "gate")
    path = user.home / ".bakthat.yml"
    # The password is what the backup waits for, after it has begun.
    local = {"default_destination": "local", "password_command": ["cat", fifo]}
    path.write_text(yaml.safe_dump({"default": local}))
    process = user.start("backup", "large")
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdin, process.stdout, process.stderr:
        gate = os.open(fifo, os.O_WRONLY)  # opens once bakthat waits for its password
        process.send_signal(number)
        os.close(gate)
        assert process.wait(60) == 128 + number
    store = user.home / ".bakthat_store"
    assert not store.exists() or list(store.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.slow
def test_an_interrupted_sync_continues_where_it_stopped(
    user: CommandLine, conf: dict[str, Any], moto_proxy: FaultProxy, number: int
) -> None:
    user.run("backup", "small", "--prompt", "no")
    user.run("backup", "small", "--name", "other", "--prompt", "no")
    for path in user.home.glob(".bakthat.sqlite*"):
        path.unlink()
    hold = Hold()
    moto_proxy.on("HEAD", "/other.", hold, times=1)
    code, output = interrupt(user, hold, "sync", number=number)
    assert code == 128 + number, output
    assert user.run("sync").code == 0
    assert sorted(listed(user)) == stored(conf)


def test_using_the_library_installs_no_handler_of_signals(tmp_path: Path) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    conf = {
        "default_destination": "local",
        "local_path": str(tmp_path / "store"),
        "database": str(tmp_path / "catalog.sqlite"),
    }
    (tmp_path / "file").write_text("hello")
    bakthat.backup(tmp_path / "file", conf=conf, password="")
    bakthat.sync(conf=conf)
    bakthat.check(conf=conf, read_data=True)
    bakthat.cleanup(conf=conf)
    bakthat.delete("file", conf=conf)
    after = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert after == before
