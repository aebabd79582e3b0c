"""Many processes on one catalog and one bucket, and a process that is killed with locks held."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import bakthat
from bakthat import models
from tests.support.commandline import PROJECT, CommandLine
from tests.support.fault_proxy import FaultProxy
from tests.support.profiles import Conf, write_config
from tests.support.servers import S3Server, parts_under_way, plain

pytestmark = pytest.mark.slow

BACKUPS = 20


@pytest.fixture(params=["local", "moto", "rclone"])
def conf(request: pytest.FixtureRequest, local: Conf) -> Conf:
    if request.param == "local":
        return local
    if request.param == "moto":
        # Through the proxy: moto alone checks a condition and writes in two steps.
        proxy: FaultProxy = request.getfixturevalue("moto_proxy")
        server: S3Server = request.getfixturevalue("moto_endpoint")
        return {
            **server.conf(),
            "endpoint_url": proxy.endpoint_url,
            "database": local["database"],
        }
    return {**request.getfixturevalue("rclone_conf"), "database": local["database"]}


@pytest.fixture
def user(user: CommandLine, tree: Path, conf: Conf) -> CommandLine:
    assert tree.parent == user.directory  # where the commands run
    write_config(user.home / ".bakthat.yml", default=conf)
    return user


def wait_for_all(processes: list[subprocess.Popen[bytes]]) -> list[tuple[int, str]]:
    """Wait for processes; return their exit codes and their output."""
    outputs = [each.communicate(timeout=300) for each in processes]
    return [
        (each.returncode, errors.decode())
        for each, (_, errors) in zip(processes, outputs, strict=True)
    ]


def listed(user: CommandLine) -> list[str]:
    return [each["stored_filename"] for each in user.run("show", "--json").lines("backup")]


def test_twenty_backups_of_one_set_at_once_all_stay(user: CommandLine, conf: Conf) -> None:
    started = [user.start("backup", "mydir", "--prompt", "no") for _ in range(BACKUPS)]
    assert [code for code, _ in wait_for_all(started)] == [0] * BACKUPS
    assert len(set(listed(user))) == BACKUPS
    assert bakthat.sync(conf=conf).changes == []
    found = bakthat.check(conf=conf, read_data=True)
    assert [each.verdict.value for each in found] == ["read"] * BACKUPS


def test_rotation_and_backups_at_once_never_lose_the_newest(user: CommandLine, conf: Conf) -> None:
    assert user.run("backup", "mydir", "--prompt", "no").code == 0
    started = []
    for _ in range(5):
        started.append(user.start("backup", "mydir", "--prompt", "no"))
        started.append(user.start("rotate", "mydir", "--last", "1"))
    ended = wait_for_all(started)
    assert [code for code, _ in ended] == [0] * 10, ended
    newest = max(listed(user))
    assert bakthat.sync(conf=conf).changes == []
    assert all(each.is_good for each in bakthat.check(conf=conf, read_data=True))
    bakthat.rotate_backups("mydir", conf=conf, last=1)
    assert newest in listed(user)


def test_syncs_backups_and_cleanups_at_once(user: CommandLine, conf: Conf) -> None:
    assert user.run("backup", "mydir", "--prompt", "no").code == 0
    for path in user.home.glob("catalog.sqlite*"):
        path.unlink()
    started = [
        user.start(*words)
        for _ in range(3)
        for words in (("sync",), ("backup", "mydir", "--prompt", "no"), ("cleanup",))
    ]
    ended = wait_for_all(started)
    assert [code for code, _ in ended] == [0] * 9, ended
    assert len(listed(user)) == 4
    assert bakthat.sync(conf=conf).changes == []


HOLDING = """
import os, sys
from bakthat import models, reservations
with models.catalog(sys.argv[1], write=True):
    reservations.reserve(iter([("held", 1)]))
    print("holding", flush=True)
    sys.stdin.read()
"""


def test_no_lock_outlives_its_process(local: Conf, tmp_path: Path) -> None:
    """Kill a process in the middle of a transaction on the catalog."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDING, local["database"]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=PROJECT,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder.stdin, holder.stdout:
        assert holder.stdout.readline() == b"holding\n"
        holder.send_signal(signal.SIGKILL)
        holder.wait(60)
    (tmp_path / "file").write_text("hello")
    made = bakthat.backup(tmp_path / "file", conf=local, password="")
    assert [each.stored_filename for each in bakthat.ls(conf=local)] == [made.stored_filename]


def test_a_backup_stored_but_not_recorded_by_a_killed_process_is_adopted(
    local: Conf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("hello")
    code = (
        "import bakthat, json, os, signal, sys\n"
        "from bakthat.operations.backup import store\n"
        "store.NewBackup._record = lambda self, row: os.kill(os.getpid(), signal.SIGKILL)\n"
        "bakthat.backup(sys.argv[1], conf=json.loads(sys.argv[2]), password='')\n"
    )
    died = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "file"), json.dumps(local)],
        cwd=PROJECT,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL
    assert bakthat.ls(conf=local) == []
    report = bakthat.sync(conf=local)
    assert [each.action.value for each in report.changes] == ["adopted"]
    assert [each.verdict.value for each in bakthat.check(conf=local, read_data=True)] == ["read"]
    assert models.RECORD_PATIENCE > 60


def test_two_hosts_on_one_bucket_with_catalogs_of_their_own(
    conf: Conf, tmp_path: Path, moto_endpoint: S3Server
) -> None:
    """The keys meet in the same second; each host's backup has a name of its own."""
    if conf.get("s3_bucket") and conf["endpoint_url"].endswith(moto_endpoint.endpoint_url[-5:]):
        pytest.fail("moto must be behind the proxy")
    (tmp_path / "file").write_text("hello")
    made: list[str] = []
    hosts = [{**conf, "database": str(tmp_path / f"{number}.sqlite")} for number in range(4)]
    bakthat.backup(tmp_path / "file", conf=hosts[0], password="")

    def back_up(host: Conf) -> None:
        made.append(bakthat.backup(tmp_path / "file", conf=host, password="").stored_filename)

    for host in hosts:  # one after the other within a second: rclone has no conditional writes
        thread = threading.Thread(target=back_up, args=(host,))
        thread.start()
        thread.join()
    assert len(set(made)) == len(hosts)
    for host in hosts:
        bakthat.sync(conf=host)
        assert len(bakthat.ls(conf=host)) == len(hosts) + 1


def test_no_parts_and_no_temporary_files_stay_behind(user: CommandLine, conf: Conf) -> None:
    (user.directory / "large").write_bytes(os.urandom(9 * 1024 * 1024))
    started = [user.start("backup", "large", "--prompt", "no") for _ in range(4)]
    got = wait_for_all(started)
    assert [code for code, _ in got] == [0] * 4, got
    if "s3_bucket" in conf:
        assert parts_under_way(conf) == []
        assert (
            len(plain(conf).list_objects_v2(Bucket=conf["s3_bucket"])["Contents"]) == 8
        )  # with indexes
    else:
        names = [path.name for path in Path(conf["local_path"]).iterdir()]
        assert len(names) == 16  # with indexes, and the descriptions of both
        assert not [name for name in names if name.startswith(".bakthat-")]
