"""A rotation lets the locks of what it keeps last as long as it will keep that."""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.backends.lock import Lock, locked_error
from bakthat.backends.s3.backend import S3Backend
from bakthat.errors import LockedObjectError, NotFoundError, UnreachableError
from bakthat.format.names import index_key
from bakthat.models import Backups
from bakthat.operations.retention.operation import carry_out
from bakthat.operations.retention.plan import plan_rotation
from bakthat.session.locks.retention import extend_lock
from bakthat.session.session import Session
from tests.support.commandline import CommandLine
from tests.support.fault_proxy import Answer, FaultProxy, fault_proxy
from tests.support.filled_catalog import DAY, HOST, NOW, FakeStorage, FilledCatalog, using_catalog
from tests.support.profiles import Conf, write_config
from tests.support.servers import S3Server

RETENTION = {"mode": "governance", "days": "retention"}


class LockingFake(FakeStorage):
    """A storage that also remembers locks."""

    def __init__(self) -> None:
        super().__init__("s3", 1000)
        self.locks: dict[str, Lock] = {}

    def upload(self, key: str, **_: Any) -> Any:
        raise AssertionError(key)

    download = create_container = check_container = upload

    def has_locks(self) -> bool:
        return True

    def lock_of(self, key: str) -> Lock:
        return self.locks.get(key, Lock())

    def locked(self, keys: Collection[str]) -> dict[str, LockedObjectError]:
        locks = {key: self.lock_of(key) for key in keys}
        return {key: locked_error(key, lock) for key, lock in locks.items() if lock.holds_at(NOW)}

    def extend_lock(self, key: str, lock: Lock) -> None:
        self.locks[key] = lock

    def set_hold(self, key: str, *, is_held: bool) -> None:
        raise AssertionError


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FilledCatalog]:
    monkeypatch.setattr(time, "time", lambda: NOW)
    made = FilledCatalog(
        tmp_path / "catalog.sqlite", object_lock=RETENTION, rotation={"days": 3, "months": 2}
    )
    made.storages["s3"] = LockingFake()
    with using_catalog(made):
        yield made


def add(filled: FilledCatalog, date: int, lock: Lock | None = None, *needs: int) -> str:
    metadata: dict[str, Any] = {"client": HOST}
    if lock is not None:
        metadata["lock"] = {"mode": lock.mode, "until": lock.until}
    if needs:
        name = filled.add_increment(date, list(needs))
        with models.catalog(filled.path, write=True):
            row = Backups.get(Backups.stored_filename == name)
            row.metadata = {**row.metadata, **metadata}
            row.save()
        return name
    return filled.add(date, metadata=metadata)


def rotate(filled: FilledCatalog, **rules: Any) -> dict[str, float]:
    """Rotate, and return what was extended until when, in days from now."""
    session = Session("default", None, filled.conf)
    plan = plan_rotation(session, "my", **rules)
    planned = {x.backup.stored_filename: x.lock for x in plan.extensions.planned}
    locks = filled.storages["s3"].locks  # type: ignore[attr-defined]  # of the fake
    locks.clear()
    carry_out(session, plan)
    assert {key: lock for key, lock in locks.items() if index_key("") not in key} == planned
    for key, lock in planned.items():
        assert locks[index_key(key)] == lock
        [row] = [x for x in bakthat.ls(conf=filled.conf) if x.stored_filename == key]
        assert row.metadata["lock"] == {"mode": lock.mode, "until": lock.until}
    return {key: (lock.until - NOW) / DAY for key, lock in planned.items() if lock.until}


def in_days(days: float, mode: str = "governance") -> Lock:
    return Lock(NOW + days * DAY, mode)


def test_backup_from_before_object_lock_was_set_gets_a_lock(filled: FilledCatalog) -> None:
    name = add(filled, NOW - DAY)
    # The oldest of its month: until the second month from now begins, and a day longer.
    assert rotate(filled) == {name: 15.5 + 31 + 1}
    assert rotate(filled) == {}


def test_lock_that_is_long_enough_stays(filled: FilledCatalog) -> None:
    add(filled, NOW - DAY, in_days(300))
    assert rotate(filled) == {}


def test_lock_of_a_backup_that_a_coarser_rule_has_taken_over_is_extended(
    filled: FilledCatalog,
) -> None:
    name = add(filled, NOW - 10 * DAY, in_days(2))
    others = [add(filled, NOW - days * DAY, in_days(9)) for days in range(3, -1, -1)]
    extended = rotate(filled)
    assert set(extended) == {name}
    assert extended[name] > 40
    assert others[1:] == [x.stored_filename for x in bakthat.ls(conf=filled.conf)][-2::-1]


def test_what_an_increment_needs_is_locked_as_long_also_where_that_is_less_than_a_day_more(
    filled: FilledCatalog,
) -> None:
    filled.conf["rotation"] = {"days": 3}
    full = add(filled, NOW - 5 * DAY, in_days(0.2))
    increment = add(filled, NOW - 4 * DAY, in_days(0.5), NOW - 5 * DAY)
    add(filled, NOW - 2 * DAY, in_days(9))
    add(filled, NOW - DAY, in_days(9))
    newest = add(filled, NOW, in_days(3), NOW - 5 * DAY)
    extended = rotate(filled)
    assert full in extended
    assert increment not in extended
    assert extended[full] == extended.get(newest, 3)


def test_a_day_less_is_enough(filled: FilledCatalog) -> None:
    filled.conf["object_lock"] = {"mode": "governance", "days": 30}
    less = add(filled, NOW - 2 * DAY, in_days(27.5))
    more = add(filled, NOW - DAY, in_days(28))
    assert rotate(filled, last=9) == {more: 29}
    assert less != more


def test_last_hours_of_a_lock_are_extended_by_hours(filled: FilledCatalog) -> None:
    filled.conf["object_lock"] = {"mode": "governance", "days": 2}
    name = add(filled, NOW - DAY, in_days(0.4))
    assert rotate(filled, last=9) == {name: 1}


def test_newest_that_was_just_made_is_left_as_it_is(filled: FilledCatalog) -> None:
    # No rule keeps it, so it is to be locked for a day from now on, which is seconds later.
    filled.conf["rotation"] = {"days": 3}
    add(filled, NOW - 3600, in_days(3))
    add(filled, NOW, in_days(0.99))
    assert rotate(filled) == {}


def test_number_of_days_that_has_passed_locks_nothing(filled: FilledCatalog) -> None:
    filled.conf["object_lock"] = {"mode": "governance", "days": 2}
    add(filled, NOW - 3 * DAY)
    assert rotate(filled, last=9) == {}


def test_backup_from_the_future_is_not_locked_from_its_date(filled: FilledCatalog) -> None:
    add(filled, NOW + 9999 * DAY)
    name = add(filled, NOW - DAY)
    assert set(rotate(filled)) == {name}


def test_stricter_mode_is_taken_over_and_a_weaker_one_is_not(filled: FilledCatalog) -> None:
    filled.conf["object_lock"] = {"mode": "compliance", "days": 9}
    weak = add(filled, NOW - 2 * DAY, in_days(20))
    assert rotate(filled, last=9) == {weak: 20}
    locks = filled.storages["s3"].locks  # type: ignore[attr-defined]  # of the fake
    assert locks[weak].mode == "compliance"
    filled.conf["object_lock"] = {"mode": "governance", "days": 90}
    assert rotate(filled, last=9) == {weak: 88}
    assert locks[weak].mode == "compliance"


def test_expiry_extends_no_lock(filled: FilledCatalog) -> None:
    add(filled, NOW - DAY)
    add(filled, NOW)
    bakthat.delete_older_than("my", "1h", conf=filled.conf)
    assert filled.storages["s3"].locks == {}  # type: ignore[attr-defined]  # of the fake


def test_storage_that_does_not_answer_is_not_asked_for_each_lock(
    filled: FilledCatalog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    filled.conf["object_lock"] = {"mode": "governance", "days": 90}
    names = [add(filled, NOW - days * DAY) for days in range(40, 0, -1)]
    asked = []

    def fail(key: str, lock: Lock) -> None:
        asked.append(key)
        raise UnreachableError("no connection")

    monkeypatch.setattr(filled.storages["s3"], "extend_lock", fail)
    plan = plan_rotation(Session("default", None, filled.conf), "my", last=99)
    carry_out(Session("default", None, filled.conf), plan)
    assert len(plan.not_locked) == len(names)
    assert len(asked) < 10
    assert "did not answer the requests before" in caplog.text
    assert all("lock" not in x.metadata for x in bakthat.ls(conf=filled.conf))


def test_rotation_without_a_rule_of_time_is_a_warning(
    filled: FilledCatalog, caplog: pytest.LogCaptureFixture
) -> None:
    filled.conf["rotation"] = {"last": 2}
    names = [add(filled, NOW - days * DAY) for days in range(3, -1, -1)]
    assert rotate(filled) == {}
    assert "No lock is extended: 'object_lock' derives its time" in caplog.text
    assert {x.stored_filename for x in bakthat.ls(conf=filled.conf)} == set(names[2:])


# On real servers


@pytest.fixture
def conf(locking_conf: Conf, isolated_environment: Path) -> Conf:
    database = str(isolated_environment / "catalog.sqlite")
    return {**locking_conf, "database": database, "incremental": True}


def test_changed_rotation_extends_the_locks_of_archives_and_indexes(conf: Conf, tree: Path) -> None:
    short = {**conf, "object_lock": {"mode": "governance", "days": 2}}
    (tree / "large").write_bytes(random.Random(1).randbytes(200_000))
    made = [bakthat.backup(tree, "s3", conf=short, prompt="no")]
    (tree / "new").write_text("new")
    made.append(bakthat.backup(tree, "s3", conf=short, prompt="no"))
    long = {**conf, "object_lock": RETENTION, "rotation": {"days": 7, "months": 6}}
    assert bakthat.rotate_backups("mydir", conf=long) == []
    backend = S3Backend(conf)
    ends = [backend.lock_of(each.stored_filename).until or 0 for each in made]
    assert ends[0] >= ends[1]
    assert ends[0] > made[0].date + 5 * DAY
    for each, end in zip(made, ends, strict=True):
        assert backend.lock_of(index_key(each.stored_filename)).until == end
    listed = {each.stored_filename: each for each in bakthat.ls(conf=conf)}
    for each, end in zip(made, ends, strict=True):
        assert listed[each.stored_filename].metadata["lock"]["until"] == end


@pytest.fixture
def proxy(moto_endpoint: S3Server) -> Iterator[FaultProxy]:
    with fault_proxy(moto_endpoint.endpoint_url) as proxy:
        yield proxy


def test_extension_that_stopped_halfway_is_finished_by_a_machine_that_knows_only_the_storage(
    conf: Conf, proxy: FaultProxy, tree: Path
) -> None:
    conf |= {"endpoint_url": proxy.endpoint_url, "attempts": 1, "rotation": {"last": 5}}
    conf["object_lock"] = {"mode": "governance", "days": 2}
    made = bakthat.backup(tree, "s3", conf=conf, prompt="no")
    conf["object_lock"] = {"mode": "governance", "days": 20}
    proxy.on("PUT", "retention", Answer(403), after=1)  # of archive and index, one is extended
    bakthat.rotate_backups("mydir", conf=conf)
    assert proxy.seen("PUT", "retention") == 2
    proxy.rules.clear()
    Path(conf["database"]).unlink()
    bakthat.sync(conf=conf)
    bakthat.rotate_backups("mydir", conf=conf)
    backend, end = S3Backend(conf), made.date + 20 * DAY
    for key in (made.stored_filename, index_key(made.stored_filename)):
        assert backend.lock_of(key).until == end


def test_index_without_its_archive_is_not_locked(conf: Conf, tree: Path) -> None:
    bakthat.backup(tree, "s3", conf=conf, prompt="no")  # makes the bucket, with object lock
    unlocked = {**conf, "object_lock": None, "incremental": False}
    made = bakthat.backup(tree, "s3", conf=unlocked, prompt="no")
    backend = S3Backend(conf)
    backend.delete(made.stored_filename)
    with pytest.raises(NotFoundError):
        extend_lock(backend, made.stored_filename, Lock(time.time() + DAY, "governance"))
    assert backend.lock_of(index_key(made.stored_filename)) == Lock()


@pytest.mark.slow
def test_commands_say_what_is_extended_and_what_could_not_be(
    moto_conf: Conf, proxy: FaultProxy, user: CommandLine, tree: Path
) -> None:
    conf = {**moto_conf, "endpoint_url": proxy.endpoint_url, "attempts": 1, "timeout": 5}
    conf |= {"object_lock": {"mode": "governance", "days": 2}, "rotation": {"last": 5}}
    job = {"sources": [str(tree)], "rotate": True}

    def write(**more: Any) -> None:
        write_config(user.home / ".bakthat.yml", default={**conf, **more}, jobs={"nightly": job})

    write()
    for _ in range(2):
        assert user.run("backup", "mydir", "--prompt", "no").code == 0
    write(object_lock={"mode": "governance", "days": 20})
    done = user.run("rotate_backups", "mydir", "--dry-run")
    assert done.code == 0
    assert done.stdout.count("; lock until 20") == 2
    done = user.run("--json", "rotate_backups", "mydir", "--dry-run")
    assert all(line["locked_until"] > time.time() + 19 * DAY for line in done.lines("backup"))
    proxy.on("PUT", "retention", Answer(403), times=1)
    done = user.run("--json", "rotate_backups", "mydir")
    assert done.code == 3, done.stderr
    [summary] = done.lines("summary")
    assert (summary["deleted"], summary["extended"]) == (0, 1)
    [error] = done.lines("error")
    assert error["message"].startswith("1 of 2 locks could not be extended: ")
    assert error["type"] == "CredentialsError"
    done = user.run("rotate_backups", "mydir")
    assert done.code == 0, done.stderr
    done = user.run("--json", "rotate_backups", "mydir")
    assert [line["extended"] for line in done.lines("summary")] == [0]
    write(object_lock={"mode": "governance", "days": 40})
    proxy.on("PUT", "retention", Answer(403))
    done = user.run("--json", "run", "nightly")
    assert done.code == 3, done.stderr
    [line] = done.lines("job")
    assert line["outcome"] == "incomplete"
    assert len(line["not_locked"]) == 2


@pytest.mark.slow
def test_bucket_without_object_lock_is_rotated_all_the_same(
    moto_conf: Conf, user: CommandLine, tree: Path
) -> None:
    conf = {**moto_conf, "rotation": {"last": 1}}
    write_config(user.home / ".bakthat.yml", default=conf)
    for _ in range(2):
        assert user.run("backup", "mydir", "--prompt", "no").code == 0
    lock = {"mode": "governance", "days": 20}
    write_config(user.home / ".bakthat.yml", default={**conf, "object_lock": lock})
    done = user.run("rotate_backups", "mydir")
    assert done.code == 3
    assert "No lock is extended: 'object_lock' is set, but bucket" in done.stderr
    assert "error: the locks of what is kept are not extended: 'object_lock' is set" in done.stderr
    assert len(user.run("--json", "ls").lines("backup")) == 1
