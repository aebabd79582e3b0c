"""Retention on a local directory and S3 servers: deleted backups go, kept ones can be restored."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.backends import make_backend
from bakthat.errors import ContainerNotFoundError, StorageError, UnreachableError
from tests.support.fault_proxy import FaultProxy, Reset, refusal
from tests.support.filled_catalog import DAY, at
from tests.support.profiles import Conf
from tests.support.servers import S3Server

pytestmark = pytest.mark.slow


END = at(2020, 12, 16, 12)
"""A Wednesday before the clock of whoever runs the tests."""


@pytest.fixture
def local(local: Conf) -> Conf:
    return {**local, "rotation": {"days": 3, "weeks": 2}}


@pytest.fixture
def conf(conf: Conf) -> Conf:
    return {**conf, "rotation": {"days": 3, "weeks": 2}}


def back_up_daily(conf: Conf, source: Path, days: int, **more: Any) -> list[str]:
    """Back up once a day up to END; return the stored filenames, the oldest first."""
    made = []
    for number in range(days):
        with pytest.MonkeyPatch.context() as patch:
            moment = float(END - (days - 1 - number) * DAY)
            patch.setattr(time, "time", lambda moment=moment: moment)
            backup = bakthat.backup(source, conf=conf, password="", **more)
        made.append(backup.stored_filename)
    return made


def stored(conf: Conf) -> set[str]:
    backend = make_backend(conf.get("default_destination", "s3"), conf)
    return {found.key for found in backend.ls()}


def listed(conf: Conf) -> set[str]:
    return {backup.stored_filename for backup in bakthat.ls(conf=conf)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "mydir"
    directory.mkdir()
    (directory / "file").write_text("hello")
    return directory


def test_a_set_is_rotated_expired_and_still_restored(
    conf: Conf, source: Path, tmp_path: Path
) -> None:
    mine = back_up_daily(conf, source, 12)
    others = set(back_up_daily(conf, source, 2, custom_filename="mydir2"))
    # Today, yesterday and the day before; Saturday 12 December and Saturday 5 December.
    kept = {mine[11], mine[10], mine[9], mine[7], mine[0]}
    before = stored(conf)
    would = bakthat.rotate_backups("mydir", conf=conf, dry_run=True)
    assert stored(conf) == before == {*mine, *others}
    gone = bakthat.rotate_backups("mydir", conf=conf)
    assert gone == would
    assert [each.stored_filename for each in gone] == [each for each in mine if each not in kept]
    assert stored(conf) == listed(conf) == kept | others
    assert bakthat.rotate_backups("mydir", conf=conf) == []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: float(END + 10))
        expired = bakthat.delete_older_than("mydir", "3D", conf=conf)
    assert {each.stored_filename for each in expired} == {mine[7], mine[0]}
    assert stored(conf) == listed(conf) == set(mine[9:]) | others
    bakthat.restore("mydir", conf=conf, output=tmp_path / "out")
    assert (tmp_path / "out" / "mydir" / "file").read_text() == "hello"


def test_a_local_file_that_cannot_be_deleted_stays_and_stops_no_other(
    local: Conf, source: Path, tmp_path: Path
) -> None:
    mine = back_up_daily(local, source, 4)
    locked = Path(local["local_path"]) / mine[1]
    # A directory in its place is no file of bakthat's, which leaves it as it is.
    locked.rename(tmp_path / "unlocked")
    locked.mkdir()
    with pytest.raises(StorageError, match="1 of 3 backups could not be deleted") as caught:
        bakthat.rotate_backups("mydir", conf=local, last=1)
    assert mine[1] in str(caught.value)
    assert listed(local) == {mine[1], mine[3]}
    locked.rmdir()
    (tmp_path / "unlocked").rename(locked)
    assert len(bakthat.rotate_backups("mydir", conf=local, last=1)) == 1
    assert stored(local) == listed(local) == {mine[3]}
    assert os.listdir(local["local_path"]) == [
        name for name in os.listdir(local["local_path"]) if name.startswith(mine[3])
    ]


def test_a_disk_that_is_not_mounted_marks_nothing(local: Conf, source: Path) -> None:
    mine = back_up_daily(local, source, 4)
    store = Path(local["local_path"])
    store.rename(store.with_name("elsewhere"))
    with pytest.raises(ContainerNotFoundError):
        bakthat.rotate_backups("mydir", conf=local, last=1)
    assert listed(local) == set(mine)
    store.with_name("elsewhere").rename(store)
    assert len(bakthat.rotate_backups("mydir", conf=local, last=1)) == 3


@pytest.fixture
def through_proxy(moto_proxy: FaultProxy, moto_endpoint: S3Server) -> Conf:
    server = S3Server(moto_proxy.endpoint_url, moto_endpoint.access_key, moto_endpoint.secret_key)
    return server.conf()


def test_a_set_on_s3_is_deleted_in_one_request_and_its_indexes_in_another(
    through_proxy: Conf, moto_proxy: FaultProxy, source: Path
) -> None:
    mine = back_up_daily(through_proxy, source, 5)
    moto_proxy.requests.clear()
    assert len(bakthat.rotate_backups("mydir", conf=through_proxy, last=1)) == 4
    assert moto_proxy.seen("HEAD", mine[4]) == 1  # is the newest there?
    assert moto_proxy.seen("GET", "?list-type=2&prefix=mydir.") == 1  # who else needs them?
    assert moto_proxy.seen("GET", "?versioning") == 1  # is what is deleted gone?
    assert moto_proxy.seen("POST", "?delete") == 2
    assert len(moto_proxy.requests) == 5
    assert stored(through_proxy) == {mine[4]}


def test_an_object_that_s3_refuses_to_delete_stays_in_the_catalog(
    through_proxy: Conf, moto_proxy: FaultProxy, source: Path
) -> None:
    mine = back_up_daily(through_proxy, source, 4)
    moto_proxy.on("POST", "?delete", refusal(501, "NotImplemented"))
    moto_proxy.on("DELETE", mine[1], refusal(403, "AccessDenied"))
    with pytest.raises(StorageError, match="1 of 3 backups could not be deleted"):
        bakthat.rotate_backups("mydir", conf=through_proxy, last=1)
    assert stored(through_proxy) == listed(through_proxy) == {mine[1], mine[3]}
    # What the storage says is locked is no failure, also where the bucket shows no lock.
    moto_proxy.rules.pop()
    moto_proxy.on("DELETE", mine[1], refusal(403, "AccessDenied", "object lock"))
    assert bakthat.rotate_backups("mydir", conf=through_proxy, last=1) == []
    assert stored(through_proxy) == listed(through_proxy) == {mine[1], mine[3]}


def test_a_network_that_is_gone_marks_nothing(
    through_proxy: Conf,
    moto_proxy: FaultProxy,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine = back_up_daily(through_proxy, source, 3)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    moto_proxy.on("POST", "?delete", Reset())
    with monkeypatch.context() as patch:
        patch.setattr("time.sleep", lambda _seconds: None)  # the pauses between botocore's tries
        with pytest.raises(UnreachableError):
            bakthat.rotate_backups("mydir", conf=through_proxy, last=1)
    assert listed(through_proxy) == set(mine)
    moto_proxy.rules.clear()
    assert len(bakthat.rotate_backups("mydir", conf=through_proxy, last=1)) == 2


def test_two_rotations_at_once_end_as_one(local: Conf, source: Path) -> None:
    mine = back_up_daily(local, source, 4)
    real = make_backend("local", local)

    # The other one deletes after this one has decided and before it deletes.
    def the_other(_session_id: str) -> None:
        for key in mine[:2]:
            real.delete(key)

    plan_first = bakthat.rotate_backups("mydir", conf=local, last=1, dry_run=True)
    bakthat.events.before_rotate_backups += the_other
    try:
        deleted = bakthat.rotate_backups("mydir", conf=local, last=1)
    finally:
        bakthat.events.before_rotate_backups -= the_other
    assert deleted == plan_first
    assert stored(local) == listed(local) == {mine[3]}


def test_a_plugins_model_is_used(
    local: Conf, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class MyBackups(models.Backups):
        pass

    back_up_daily(local, source, 2)
    monkeypatch.setattr(models, "Backups", MyBackups)
    (gone,) = bakthat.rotate_backups("mydir", conf=local, last=1)
    assert isinstance(gone, MyBackups)
