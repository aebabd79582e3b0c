"""What surrounds a deletion: the warnings of minimum days that are left, and the indexes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.errors import UnreachableError
from bakthat.helper import KeyValue
from bakthat.session.deletion import delete_indexes
from bakthat.session.indexes.cache import IndexCache
from bakthat.session.indexes.home import home_of_index
from bakthat.session.session import Session
from tests.support.fault_proxy import FaultProxy, refusal
from tests.support.glacier_server import GlacierServer
from tests.support.profiles import Conf
from tests.support.servers import S3Server, plain, put

DAY = 86400


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("storage_class", "days"), [("GLACIER", 90), ("DEEP_ARCHIVE", 180), ("GLACIER_IR", 90)]
)
def test_deleting_too_early_warns_with_the_days_left(
    moto_conf: dict[str, Any],
    tree: Path,
    storage_class: str,
    days: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    conf = {**moto_conf, "storage_class": storage_class}
    made = bakthat.backup(tree, conf=conf, password="")
    bakthat.delete("mydir", conf=conf)
    (warning,) = warnings_of(caplog)
    assert warning == (
        f"{made.stored_filename} is in {storage_class}, which is charged for at least "
        f"{days} days: deleting it now saves nothing for {days} days"
    )


def test_deleting_from_a_class_without_minimum_days_does_not_warn(
    moto_conf: dict[str, Any], tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bakthat.backup(tree, conf=moto_conf, password="")
    bakthat.delete("mydir", conf=moto_conf)
    assert warnings_of(caplog) == []


def test_retention_warns_of_each_archive_that_it_deletes_too_early(
    glacier: GlacierServer,
    tree: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    now, conf = time.time(), glacier.conf()
    made = []
    for age in (200, 30, 20, 10):
        moment = now - age * DAY
        with monkeypatch.context() as patch:
            patch.setattr("bakthat.operations.backup.store.time.time", lambda moment=moment: moment)
            made.append(bakthat.backup(tree, conf=conf, password=""))
    bakthat.delete_older_than("mydir", "15D", conf=conf)
    warned = warnings_of(caplog)
    assert [each.split()[0] for each in warned] == [each.stored_filename for each in made[1:3]]
    assert "a vault, which is charged for at least 90 days" in warned[0]
    assert warned[0].endswith("for 60 days")
    assert warned[1].endswith("for 70 days")
    with models.catalog("~/.bakthat.sqlite"):
        assert models.Backups.select().where(models.Backups.is_deleted).count() == 3


@pytest.fixture(params=["local", "moto", "rclone", "seaweedfs"])
def conf(request: pytest.FixtureRequest, local: Conf) -> Conf:
    if request.param == "local":
        return local
    found: Conf = request.getfixturevalue(f"{request.param}_conf")
    return found


def back_up(
    tree: Path, conf: Conf, monkeypatch: pytest.MonkeyPatch, *, number: int
) -> list[models.Backups]:
    """Make backups of *number* days, the newest last."""
    made = []
    for age in range(number, 0, -1):
        moment = time.time() - age * 2 * DAY
        with monkeypatch.context() as patch:
            patch.setattr("bakthat.operations.backup.store.time.time", lambda moment=moment: moment)
            made.append(bakthat.backup(tree, conf=conf, password=""))
    return made


def put_index(conf: Conf, backup: models.Backups) -> None:
    """Make sure that the backup has an index, on the storage and in the cache."""
    session = Session("default", None, conf)
    home, key = home_of_index(session, session.backend(backup.backend), backup.stored_filename)
    home.create_container()
    home.delete(key)
    put(home, key, b"index")
    IndexCache().remember(backup, lambda sink: sink.write(b"index"))


def indexes(conf: Conf, destination: str) -> list[str]:
    session = Session("default", None, conf)
    home, _ = home_of_index(session, session.backend(destination), "x")
    return sorted(each.key for each in home.ls(indexes=True))


def test_a_deletion_removes_the_index_too_also_from_the_cache(
    conf: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = back_up(tree, conf, monkeypatch, number=4)
    KeyValue(conf=conf).set_key("mykey", "value")
    for each in made:
        put_index(conf, each)
    bakthat.delete(made[0].stored_filename, conf=conf)
    bakthat.delete_older_than("mydir", "1D", conf=conf)
    assert indexes(conf, made[0].backend) == [f"{made[3].stored_filename}.index"]
    cached = [IndexCache().open(each) for each in made]
    assert [each is not None for each in cached] == [False, False, False, True]
    for index in filter(None, cached):
        index.close()
    # A value has none.
    KeyValue(conf=conf).delete_key("mykey")
    bakthat.delete("mydir", conf=conf)
    assert indexes(conf, made[0].backend) == []


@pytest.mark.parametrize("has_bucket", [True, False], ids=["in the bucket", "beside the catalog"])
def test_the_index_of_a_vaults_archive_is_removed_where_it_is(
    glacier: GlacierServer,
    moto_endpoint: S3Server,
    tree: Path,
    has_bucket: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conf = glacier.conf()
    if has_bucket:
        conf = {**moto_endpoint.conf(), **conf}
        plain(conf).create_bucket(Bucket=conf["s3_bucket"])
    made = back_up(tree, conf, monkeypatch, number=3)
    for each in made:
        put_index(conf, each)
    bakthat.delete(made[0].stored_filename, conf=conf)
    bakthat.delete_older_than("mydir", "1D", conf=conf)
    (left,) = indexes(conf, "glacier")
    assert left.endswith(f"{conf['glacier_vault']}/{made[2].stored_filename}.index")


def test_without_any_index_a_vaults_archive_is_deleted_in_silence(
    glacier: GlacierServer, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The directory or the bucket that would have it may not exist."""
    conf = glacier.conf()
    made = bakthat.backup(tree, conf=conf, password="")
    caplog.clear()
    session = Session("default", None, conf)
    delete_indexes(session, session.backend("glacier"), [made, made])
    assert warnings_of(caplog) == []


@pytest.mark.parametrize("fault", ["AccessDenied", "InternalError"])
def test_an_index_that_cannot_be_deleted_is_a_warning(
    proxied_conf: Conf,
    moto_proxy: FaultProxy,
    tree: Path,
    fault: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    conf = {**proxied_conf, "attempts": 1}
    made = bakthat.backup(tree, conf=conf, password="")
    put_index(conf, made)
    moto_proxy.on("DELETE", ".index", refusal(403 if fault == "AccessDenied" else 500, fault))
    moto_proxy.on("POST", "?delete", refusal(403 if fault == "AccessDenied" else 500, fault))
    bakthat.delete("mydir", conf=conf)
    (warning,) = warnings_of(caplog)
    assert warning.startswith(f"the index of {made.stored_filename} was not deleted: ")
    assert warning.endswith("; bakthat cleanup removes it later")
    assert bakthat.ls(conf=conf) == []


def test_a_bucket_of_indexes_that_cannot_be_reached_does_not_fail_the_deletion(
    glacier: GlacierServer,
    tree: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conf = glacier.conf()
    bakthat.backup(tree, conf=conf, password="")

    def fail(*_: object) -> None:
        raise UnreachableError("no route to host")

    monkeypatch.setattr("bakthat.session.deletion.home_of_indexes", fail)
    caplog.clear()
    bakthat.delete("mydir", conf=conf)
    assert "no route to host" in "\n".join(warnings_of(caplog))
    assert bakthat.ls(conf=conf) == []
