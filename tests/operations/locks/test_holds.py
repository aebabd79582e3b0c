"""A backup on hold cannot be deleted, nor what it needs, until it is released."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import bakthat
from bakthat import models
from bakthat.backends.s3.backend import S3Backend
from bakthat.errors import CatalogError, ConfigError, NotFoundError, StorageError, UsageError
from bakthat.format.names import index_key
from bakthat.helper import KeyValue
from bakthat.models import Backups
from bakthat.operations.retention.plan import plan_by_age, plan_rotation
from bakthat.session.locks.holds import hold_of
from bakthat.session.session import Session
from tests.support.commandline import CommandLine
from tests.support.fault_proxy import Answer, FaultProxy, fault_proxy
from tests.support.filled_catalog import DAY, HOST, NOW, FilledCatalog, using_catalog
from tests.support.profiles import Conf, write_config
from tests.support.servers import S3Server, plain

NO_LOCKS: dict[str, Any] = {"object_lock": {}}


@pytest.fixture
def conf(locking_conf: Conf, isolated_environment: Path) -> Conf:
    """Return a profile whose bucket has object lock, and which asks for no lock."""
    S3Backend(locking_conf).create_container()
    database = str(isolated_environment / "catalog.sqlite")
    return {**locking_conf, **NO_LOCKS, "database": database, "incremental": True}


@pytest.fixture
def chain(conf: Conf, tree: Path) -> list[Backups]:
    """Make a full backup and two increments, of which the second needs all others."""
    return make_chain(conf, tree)


def make_chain(conf: Conf, tree: Path) -> list[Backups]:
    """Make a full backup and two increments, of which the second needs all others."""
    (tree / "large").write_bytes(random.Random(1).randbytes(200_000))
    made = [bakthat.backup(tree, "s3", conf=conf, prompt="no")]
    for name in ("first", "second"):
        (tree / name).write_text(name)
        made.append(bakthat.backup(tree, "s3", conf=conf, prompt="no"))
    assert len(made[2].needs) == 2
    return made


def held(conf: Conf, backups: list[Backups]) -> list[bool]:
    """Return which of *backups* are on hold; each as its index is."""
    backend = S3Backend(conf)
    found = []
    for each in backups:
        is_held = backend.lock_of(each.stored_filename).is_held
        assert backend.lock_of(index_key(each.stored_filename)).is_held is is_held
        found.append(is_held)
    return found


def put_on_hold(conf: Conf, backup: Backups, reason: str = "audit") -> Backups:
    return bakthat.hold(backup.stored_filename, conf=conf, reason=reason)


def release(conf: Conf, backup: Backups) -> Backups:
    return bakthat.release(backup.stored_filename, conf=conf)


def listed(conf: Conf) -> dict[str, Backups]:
    return {each.stored_filename: each for each in bakthat.ls(conf=conf)}


def reason_of(conf: Conf, backup: Backups) -> str | None:
    known = hold_of(listed(conf)[backup.stored_filename])
    return None if known is None else known.reason


def test_hold_is_of_the_index_and_of_all_that_an_increment_needs(
    conf: Conf, chain: list[Backups]
) -> None:
    full, first, second = chain
    began = int(time.time())
    entry = put_on_hold(conf, first)
    assert entry.stored_filename == first.stored_filename
    assert held(conf, chain) == [True, True, False]
    found = listed(conf)[first.stored_filename].metadata["hold"]
    assert found == entry.metadata["hold"]
    assert found["reason"] == "audit"
    assert began <= found["date"] <= time.time()
    assert [reason_of(conf, each) for each in (full, second)] == [None, None]
    client = plain(conf)
    version = client.head_object(Bucket=conf["s3_bucket"], Key=full.stored_filename)["VersionId"]
    with pytest.raises(ClientError):
        client.delete_object(Bucket=conf["s3_bucket"], Key=full.stored_filename, VersionId=version)


def test_release_frees_all_that_the_hold_took(conf: Conf, chain: list[Backups]) -> None:
    put_on_hold(conf, chain[2])
    entry = release(conf, chain[2])
    assert held(conf, chain) == [False, False, False]
    assert "hold" not in entry.metadata
    assert reason_of(conf, chain[2]) is None


def test_release_leaves_what_another_backup_on_hold_needs(
    conf: Conf, chain: list[Backups], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bakthat")
    put_on_hold(conf, chain[1])
    put_on_hold(conf, chain[2])
    release(conf, chain[2])
    assert held(conf, chain) == [True, True, False]
    names = [each.stored_filename for each in chain]
    assert f"{names[1]} stays on hold: it is on hold itself" in caplog.text
    assert f"{names[0]} stays on hold: {names[1]}, which is on hold, needs it" in caplog.text
    release(conf, chain[1])
    assert held(conf, chain) == [False, False, False]


def test_released_backup_stays_on_hold_while_another_one_needs_it(
    conf: Conf, chain: list[Backups]
) -> None:
    put_on_hold(conf, chain[0])
    put_on_hold(conf, chain[2])
    release(conf, chain[0])
    assert held(conf, chain) == [True, True, True]
    assert reason_of(conf, chain[0]) is None
    release(conf, chain[2])
    assert held(conf, chain) == [False, False, False]


@pytest.mark.parametrize("is_listed", [True, False])
def test_release_asks_the_storage_for_holds_that_another_machine_has_made(
    conf: Conf, chain: list[Backups], tmp_path: Path, is_listed: bool
) -> None:
    other = {**conf, "database": str(tmp_path / "other.sqlite")}
    bakthat.sync("s3", conf=other)
    put_on_hold(other, chain[2])
    if not is_listed:
        with models.catalog(conf["database"], write=True):
            Backups.delete().where(Backups.stored_filename == chain[2].stored_filename).execute()
    release(conf, chain[1])
    assert held(conf, chain) == [True, True, True]


def test_both_may_be_repeated(conf: Conf, chain: list[Backups]) -> None:
    once = put_on_hold(conf, chain[1])
    twice = put_on_hold(conf, chain[1])
    assert once.metadata["hold"] == twice.metadata["hold"]
    assert put_on_hold(conf, chain[1], "another").metadata["hold"]["reason"] == "another"
    assert held(conf, chain) == [True, True, False]
    release(conf, chain[1])
    release(conf, chain[1])
    assert held(conf, chain) == [False, False, False]


def test_a_backup_without_an_index_is_put_on_hold(conf: Conf, tree: Path) -> None:
    entry = bakthat.backup(tree / "a.txt", "s3", conf={**conf, "compress": False}, prompt="no")
    put_on_hold(conf, entry)
    assert S3Backend(conf).lock_of(entry.stored_filename).is_held


def test_the_lock_stays_as_it_is(locking_conf: Conf, tree: Path) -> None:
    entry = bakthat.backup(tree, "s3", conf=locking_conf, prompt="no")
    backend = S3Backend(locking_conf)
    before = backend.lock_of(entry.stored_filename)
    put_on_hold(locking_conf, entry)
    release(locking_conf, entry)
    assert backend.lock_of(entry.stored_filename) == before


def test_rotation_keeps_what_is_on_hold_and_what_it_needs(conf: Conf, chain: list[Backups]) -> None:
    tree = Path(chain[0].metadata["source"])
    (tree / "large").write_bytes(random.Random(2).randbytes(300_000))
    newest = bakthat.backup(tree, "s3", conf={**conf, "incremental": False}, prompt="no")
    put_on_hold(conf, chain[1])
    names = [each.stored_filename for each in chain]
    would = bakthat.rotate_backups("mydir", conf=conf, last=1, dry_run=True)
    assert [each.stored_filename for each in would] == [names[2]]
    deleted = bakthat.rotate_backups("mydir", conf=conf, last=1)
    assert [each.stored_filename for each in deleted] == [names[2]]
    assert set(listed(conf)) == {*names[:2], newest.stored_filename}


@pytest.mark.parametrize("is_rotation", [True, False])
def test_plan_says_that_a_backup_is_on_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_rotation: bool
) -> None:
    made = FilledCatalog(tmp_path / "catalog.sqlite")
    monkeypatch.setattr(time, "time", lambda: NOW)
    with using_catalog(made):
        metadata = {"client": HOST, "hold": {"reason": "why", "date": NOW}}
        on_hold = made.add(NOW - 9 * DAY, metadata=metadata)
        other = made.add(NOW - 5 * DAY)
        made.add(NOW - DAY)
        session = Session("default", None, made.conf)
        plan = (
            plan_rotation(session, "my", last=1)
            if is_rotation
            else plan_by_age(session, "my", "2D")
        )
    found = {each.backup.stored_filename: each.decision.reasons for each in plan.backups}
    assert found[on_hold] == ("on hold",)
    assert [each.stored_filename for each in plan.to_delete] == [other]


def test_release_is_of_all_versions(conf: Conf, chain: list[Backups]) -> None:
    client, name = plain(conf), chain[0].stored_filename
    where = {"Bucket": conf["s3_bucket"], "Key": name}
    put_on_hold(conf, chain[0])
    first = client.head_object(**where)["VersionId"]
    second = client.put_object(**where, Body=b"another")["VersionId"]
    release(conf, chain[0])
    for version in (first, second):
        client.delete_object(**where, VersionId=version)


def test_what_is_not_on_hold_is_not_written_to(
    through_proxy: Conf, tree: Path, proxy: FaultProxy
) -> None:
    entry = bakthat.backup(tree, "s3", conf=through_proxy, prompt="no")
    put_on_hold(through_proxy, entry)
    assert proxy.seen("PUT", "legal-hold") == 2
    put_on_hold(through_proxy, entry)
    assert proxy.seen("PUT", "legal-hold") == 2


# What goes wrong


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "x" * 1001])
def test_reason_must_be_one_line(local: Conf, tree: Path, reason: str) -> None:
    bakthat.backup(tree, conf=local, prompt="no")
    with pytest.raises(UsageError, match="needs a reason"):
        bakthat.hold("mydir", conf=local, reason=reason)


@pytest.mark.parametrize(
    "change",
    [
        lambda conf: bakthat.hold("mydir", conf=conf, reason="why"),
        lambda conf: bakthat.release("mydir", conf=conf),
    ],
)
def test_other_storages_have_no_holds(local: Conf, tree: Path, change: Any) -> None:
    bakthat.backup(tree, conf=local, prompt="no")
    with pytest.raises(UsageError, match="is on local, which has no holds"):
        change(local)


def test_a_vault_has_locks_of_its_own(tmp_path: Path) -> None:
    made = FilledCatalog(tmp_path / "catalog.sqlite", default_destination="glacier")
    with using_catalog(made):
        made.add(NOW - DAY, backend="glacier")
        with pytest.raises(UsageError, match="is on glacier, which has no holds") as caught:
            bakthat.hold("my", conf=made.conf, reason="why")
    assert "Vault Lock" in caught.value.hint


@pytest.mark.parametrize("server", ["moto", "rclone", "seaweedfs"])
def test_a_bucket_without_object_lock_has_no_holds(
    server: str, request: pytest.FixtureRequest, tree: Path
) -> None:
    endpoint: S3Server = request.getfixturevalue(f"{server}_endpoint")
    conf = endpoint.conf(password="")
    entry = bakthat.backup(tree, "s3", conf=conf, prompt="no")
    for change in (put_on_hold, release):
        with pytest.raises(ConfigError, match="has no object lock, so mydir"):
            change(conf, entry)
    assert S3Backend(conf).stat(entry.stored_filename).size == entry.size  # rclone's would be 0


def test_a_value_has_no_hold(conf: Conf) -> None:
    KeyValue(conf=conf).set_key("counter", 1)
    with pytest.raises(UsageError, match="is a value of KeyValue"):
        bakthat.hold("counter", conf=conf, reason="why")


@pytest.mark.parametrize("is_marked", [True, False])
def test_backup_that_is_not_stored_any_more(
    conf: Conf, chain: list[Backups], is_marked: bool
) -> None:
    client, name = plain(conf), chain[0].stored_filename
    where = {"Bucket": conf["s3_bucket"], "Key": name}
    if is_marked:
        client.delete_object(**where)
    else:
        client.delete_object(**where, VersionId=client.head_object(**where)["VersionId"])
    with pytest.raises(NotFoundError) as caught:
        put_on_hold(conf, chain[0])
    assert "sync" in caught.value.hint
    if is_marked:
        release(conf, chain[0])  # what the marker hides may be on hold
    else:
        with pytest.raises(NotFoundError) as caught:
            release(conf, chain[0])
        assert "sync" in caught.value.hint
    assert reason_of(conf, chain[0]) is None


def test_what_an_increment_needs_and_is_missing_is_said(
    conf: Conf, chain: list[Backups], caplog: pytest.LogCaptureFixture
) -> None:
    client, name = plain(conf), chain[0].stored_filename
    where = {"Bucket": conf["s3_bucket"], "Key": name}
    client.delete_object(**where, VersionId=client.head_object(**where)["VersionId"])
    put_on_hold(conf, chain[1])
    assert f"{name} is not on hold" in caplog.text
    assert held(conf, chain[1:]) == [True, False]
    with models.catalog(conf["database"], write=True):
        Backups.delete().where(Backups.stored_filename == name).execute()
    caplog.clear()
    put_on_hold(conf, chain[1])
    assert "needs backups that are not stored any more" in caplog.text
    release(conf, chain[1])
    assert held(conf, chain[1:]) == [False, False]


def test_what_the_catalog_does_not_list_is_put_on_hold_too(
    conf: Conf, chain: list[Backups]
) -> None:
    with models.catalog(conf["database"], write=True):
        Backups.delete().where(Backups.stored_filename == chain[0].stored_filename).execute()
    put_on_hold(conf, chain[1])
    assert held(conf, chain) == [True, True, False]


def test_an_increment_whose_description_was_lost_may_need_all_that_are_older(
    conf: Conf, chain: list[Backups]
) -> None:
    with models.catalog(conf["database"], write=True):
        models.drop_metadata(chain[2], "needs")
    put_on_hold(conf, chain[2])
    assert held(conf, chain) == [True, True, True]


@pytest.fixture
def proxy(moto_endpoint: S3Server) -> Any:
    with fault_proxy(moto_endpoint.endpoint_url) as proxy:
        yield proxy


@pytest.fixture
def through_proxy(moto_conf: Conf, isolated_environment: Path, proxy: FaultProxy) -> Conf:
    S3Backend({**moto_conf, "object_lock": {"mode": "governance", "days": 1}}).create_container()
    return {
        **moto_conf,
        "endpoint_url": proxy.endpoint_url,
        "database": str(isolated_environment / "catalog.sqlite"),
        "password": "",
        "incremental": True,
        "attempts": 1,
    }


def test_hold_that_stopped_halfway_is_none_for_a_machine_that_knows_only_the_storage(
    through_proxy: Conf, proxy: FaultProxy, tree: Path
) -> None:
    conf = through_proxy
    made = bakthat.backup(tree, "s3", conf=conf, prompt="no")
    proxy.on("PUT", "legal-hold", Answer(403), after=1)  # of archive and index, one is changed
    with pytest.raises(StorageError):
        put_on_hold(conf, made)
    proxy.rules.clear()
    Path(conf["database"]).unlink()
    bakthat.sync("s3", conf=conf)
    assert hold_of(listed(conf)[made.stored_filename]) is None
    put_on_hold(conf, made)
    assert held(conf, [made]) == [True]
    proxy.on("PUT", "legal-hold", Answer(403), after=1)
    with pytest.raises(StorageError):
        release(conf, made)
    proxy.rules.clear()
    Path(conf["database"]).unlink()
    bakthat.sync("s3", conf=conf)
    assert hold_of(listed(conf)[made.stored_filename]) is not None
    release(conf, made)
    assert held(conf, [made]) == [False]


@pytest.mark.slow
def test_hold_and_release_that_stop_in_the_middle_are_said_and_repeated(
    through_proxy: Conf, tree: Path, proxy: FaultProxy
) -> None:
    conf = through_proxy
    chain = make_chain(conf, tree)
    for change, done in ((put_on_hold, True), (release, False)):
        proxy.on("PUT", "legal-hold", Answer(503), times=1, after=2)
        with pytest.raises(StorageError, match="only in part, with 1 of 3 archives") as caught:
            change(conf, chain[2])
        assert caught.value.hint == "run it again for the rest"
        assert held(conf, chain) == [not done, not done, done]
        assert reason_of(conf, chain[2]) == (None if done else "audit")
        change(conf, chain[2])
        assert held(conf, chain) == [done, done, done]
        assert reason_of(conf, chain[2]) == ("audit" if done else None)


def test_hold_and_release_that_cannot_be_recorded_are_said(
    conf: Conf, chain: list[Backups], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise CatalogError("the disk is full", hint="make room")

    with monkeypatch.context() as patch:
        patch.setattr(models, "add_metadata", fail)
        with pytest.raises(CatalogError, match="is on hold, but that is not recorded") as caught:
            put_on_hold(conf, chain[0])
    assert caught.value.hint == "make room; then run it again"
    assert held(conf, chain) == [True, False, False]
    put_on_hold(conf, chain[0])
    monkeypatch.setattr(models, "drop_metadata", fail)
    with pytest.raises(CatalogError, match="is released, but that is not recorded") as caught:
        release(conf, chain[0])
    assert caught.value.hint == "make room; then run it again"
    assert held(conf, chain) == [False, False, False]


def test_damaged_entry_keeps_no_reason(
    conf: Conf, chain: list[Backups], caplog: pytest.LogCaptureFixture
) -> None:
    with models.catalog(conf["database"], write=True):
        Backups.update(metadata={}).where(
            Backups.stored_filename == chain[0].stored_filename
        ).execute()
    put_on_hold(conf, chain[0])
    assert "so the reason is not kept" in caplog.text
    assert held(conf, chain) == [True, False, False]


# Events and the command line


def test_events(conf: Conf, chain: list[Backups], fired: list[tuple[Any, ...]]) -> None:
    fired.clear()
    held_entry = put_on_hold(conf, chain[0])
    released = release(conf, chain[0])
    assert [(each[0], *each[2:]) for each in fired] == [
        ("before_hold",),
        ("on_hold", held_entry),
        ("before_release",),
        ("on_release", released),
    ]
    with pytest.raises(UsageError):
        put_on_hold(conf, chain[0], "")
    assert [each[0] for each in fired[4:]] == ["before_hold", "on_error"]


def test_a_backup_with_warnings_is_put_on_hold_completely(conf: Conf, chain: list[Backups]) -> None:
    with models.catalog(conf["database"], write=True):
        models.add_metadata(chain[0], {"warning_count": 2})
    assert put_on_hold(conf, chain[0]).is_complete
    assert release(conf, chain[0]).is_complete


def test_commands(moto_conf: Conf, user: CommandLine, tree: Path) -> None:
    conf = {**moto_conf, "object_lock": {"mode": "governance", "days": 2}, "incremental": True}
    write_config(user.home / ".bakthat.yml", default=conf)
    (tree / "large").write_bytes(random.Random(1).randbytes(200_000))
    assert user.run("backup", "mydir", "--prompt", "no").code == 0
    (tree / "new").write_text("new")
    assert user.run("backup", "mydir", "--prompt", "no").code == 0
    done = user.run("--json", "hold", "mydir", "--reason", "audit 2026")
    assert done.code == 0, done.stderr
    [line] = done.lines("backup")
    assert line["metadata"]["hold"]["reason"] == "audit 2026"
    shown = user.run("show", "mydir").stdout
    assert "LOCKED UNTIL" in shown
    assert "UTC governance" in shown
    newest, oldest = shown.splitlines()[1:]
    assert "on hold: audit 2026" in newest
    assert f"on hold: {line['stored_filename']} needs it" in oldest
    listed = user.run("--json", "show", "mydir").lines("backup")
    assert [each["held_by"] for each in listed] == [[], [line["stored_filename"]]]
    assert all(each["metadata"]["lock"]["mode"] == "governance" for each in listed)
    done = user.run("release", "mydir")
    assert done.code == 0
    assert done.stderr.splitlines()[-1].startswith(f"Released {line['stored_filename']} on s3 ")
    assert "on hold" not in user.run("show", "mydir").stdout
    done = user.run("hold", "mydir")
    assert done.code == 2
    assert "--reason" in done.stderr
