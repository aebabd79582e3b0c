"""What somebody deletes or overwrites in a bucket with versions is listed and brought back."""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat import models
from bakthat.backends.base import StoredObject
from bakthat.backends.protection import Version
from bakthat.backends.s3.backend import S3Backend
from bakthat.errors import (
    AmbiguousNameError,
    CredentialsError,
    NoMatchError,
    StorageError,
    UsageError,
)
from bakthat.format.names import index_key
from bakthat.operations.undelete import Action, Undeletion
from bakthat.session.versions.choice import MAX_LOOKED_AT, State
from bakthat.session.versions.past import UNDELETED, PastBackup
from tests.support.attacker import Attacker
from tests.support.incremental import Tracked, long_after
from tests.support.profiles import Conf
from tests.support.roles import guarded_bucket
from tests.support.trees import fingerprint

DAY = 86400


@pytest.fixture(params=["moto", "seaweedfs"])
def conf(request: pytest.FixtureRequest, local: Conf) -> Conf:
    """Return a flat profile of each server that keeps versions; its bucket does."""
    found: Conf = request.getfixturevalue(f"{request.param}_conf")
    found = {**found, "password": "", "prefix": "p/", "database": local["database"]}
    Attacker(found).make_bucket()
    return found


@pytest.fixture
def attacker(conf: Conf) -> Attacker:
    return Attacker(conf)


@pytest.fixture
def elsewhere(conf: Conf, tmp_path: Path) -> Conf:
    """Return the profile of another machine, whose catalog is empty."""
    return {**conf, "database": str(tmp_path / "elsewhere.sqlite")}


def backup(tree: Path, conf: Conf, **more: Any) -> models.Backups:
    found: models.Backups = bakthat.backup(tree, "s3", conf=conf, prompt="no", **more)
    return found


def listed(conf: Conf, time: float) -> dict[str, PastBackup]:
    found = bakthat.stored_at(time, conf=conf).backups
    return {each.backup.stored_filename: each for each in found}


def actions(done: list[Undeletion]) -> dict[str, tuple[str, str | None]]:
    return {each.backup.stored_filename: (each.action, each.index_action) for each in done}


def restored(name: str, conf: Conf, out: Path) -> dict[bytes, Any]:
    bakthat.restore(name, "s3", conf=conf, output=out, password="")
    (top,) = out.iterdir()
    return fingerprint(top)


def test_deleted_backup_is_listed_and_brought_back(
    conf: Conf, attacker: Attacker, elsewhere: Conf, tree: Path, out: Path
) -> None:
    before = fingerprint(tree)
    name = backup(tree, conf).stored_filename
    moment = attacker.now()
    assert listed(elsewhere, moment)[name].state is State.INTACT
    attacker.delete(name, index_key(name))
    found = listed(elsewhere, moment)[name]
    assert (found.archive.state, found.index and found.index.state) == ("deleted", "deleted")
    assert (found.changed_at or 0) >= moment
    assert found.backup.host
    assert found.backup.size > 0

    done = bakthat.undelete(name, conf=elsewhere)
    assert actions(done) == {name: (Action.SHOWN, Action.SHOWN)}
    assert [each["IsLatest"] for each in attacker.versions(name)] == [True]
    assert listed(elsewhere, moment)[name].is_intact
    assert restored(name, elsewhere, out) == before
    assert bakthat.check(conf=elsewhere)[0].is_good


def test_overwritten_backup_is_copied_and_the_other_version_stays(
    conf: Conf, attacker: Attacker, elsewhere: Conf, tree: Path, out: Path
) -> None:
    before = fingerprint(tree)
    name = backup(tree, {**conf, "storage_class": "STANDARD_IA"}).stored_filename
    own = attacker.head(name)
    moment = attacker.now()
    attacker.overwrite(name)
    attacker.overwrite(index_key(name), forged=True)
    found = listed(elsewhere, moment)[name]
    assert (found.archive.state, found.index and found.index.state) == ("overwritten",) * 2

    assert actions(bakthat.undelete(name, conf=elsewhere)) == {name: (Action.COPIED, Action.COPIED)}
    copy = attacker.head(name)
    for header in ("Metadata", "ContentLength", "StorageClass", "ETag", "ContentType"):
        assert copy[header] == own[header], header
    assert [each["Size"] for each in attacker.versions(name)].count(7) == 1
    assert listed(elsewhere, moment)[name].is_intact
    assert restored(name, elsewhere, out) == before
    # Again, nothing is left to do.
    assert actions(bakthat.undelete(name, conf=elsewhere)) == {name: (Action.THERE, Action.THERE)}
    assert len(attacker.versions(name)) == 3


def test_backup_from_before_the_bucket_kept_versions_is_brought_back(
    conf: Conf, tree: Path, tmp_path: Path, out: Path
) -> None:
    conf = {**conf, "s3_bucket": f"{conf['s3_bucket']}-older"}
    elsewhere = {**conf, "database": str(tmp_path / "elsewhere.sqlite")}
    attacker = Attacker(conf)
    attacker.client.create_bucket(Bucket=conf["s3_bucket"])
    before = fingerprint(tree)
    name = backup(tree, conf).stored_filename
    size = attacker.head(index_key(name))["ContentLength"]
    attacker.keep_versions()
    moment = attacker.now()
    attacker.delete(name)
    attacker.overwrite(index_key(name), forged=True)
    # Both have the same id of a version: "null".
    found = listed(elsewhere, moment)[name]
    assert found.index is not None
    assert found.index.stored is not None
    assert found.index.stored.key == index_key(name)
    assert found.backup.metadata["index_size"] == found.index.stored.size == size
    assert found.archive.stored is not None
    assert found.archive.stored.key == name
    bakthat.undelete(name, conf=elsewhere)
    assert attacker.head(index_key(name))["ContentLength"] == size
    assert restored(name, elsewhere, out) == before


def test_where_versions_were_suspended_what_overwrites_a_copy_is_seen(
    seaweedfs_conf: Conf, local: Conf, tree: Path
) -> None:
    # moto does not answer requests for the version "null" that it lists.
    conf = {**seaweedfs_conf, "password": "", "database": local["database"]}
    attacker = Attacker(conf)
    attacker.make_bucket()
    entry = backup(tree, conf)
    name = entry.stored_filename
    moment = attacker.now()
    attacker.keep_versions("Suspended")
    attacker.overwrite(name)
    attacker.overwrite(index_key(name), forged=True)
    # The id of a copy that is made there is that of whatever overwrites it.
    with models.catalog(conf["database"]):
        models.add_metadata(entry, {UNDELETED: {"date": int(moment), "versions": ["null"]}})
    found = listed(conf, moment)[name]
    assert (found.archive.state, found.index and found.index.state) == ("overwritten",) * 2


@pytest.mark.parametrize("what", ["archive", "index"])
@pytest.mark.parametrize("how", ["deleted", "overwritten", "forged"])
def test_archive_or_index_alone(
    conf: Conf, attacker: Attacker, elsewhere: Conf, tree: Path, out: Path, what: str, how: str
) -> None:
    before = fingerprint(tree)
    name = backup(tree, conf).stored_filename
    key = name if what == "archive" else index_key(name)
    content = attacker.content(key)
    moment = attacker.now()
    if how == "deleted":
        attacker.delete(key)
    else:  # of the same size, so that no listing shows it
        attacker.overwrite(key, os.urandom(len(content)), forged=how == "forged")
    found = listed(elsewhere, moment)[name]
    state = "deleted" if how == "deleted" else "overwritten"
    assert found.what == (state if what == "archive" else f"index {state}")
    bakthat.undelete(name, conf=elsewhere)
    assert attacker.content(key) == content
    assert restored(name, elsewhere, out) == before


def test_increments_come_back_with_all_that_they_need_oldest_first(
    conf: Conf, attacker: Attacker, elsewhere: Conf, tree: Path, out: Path
) -> None:
    tracked = Tracked(tree, conf)
    with long_after():
        entries = [tracked.back_up(destination="s3")]
        for number in range(2):
            (tree / f"new-{number}").write_text("new")
            entries.append(tracked.back_up(destination="s3"))
    assert entries[2].is_increment
    before = fingerprint(tree)
    names = [each.stored_filename for each in entries]
    for name in names:
        attacker.delete(index_key(name))
    attacker.delete(names[0])
    attacker.overwrite(names[1])
    attacker.delete(names[2])

    planned = bakthat.undelete(names[2], conf=elsewhere, dry_run=True)
    assert not attacker.stored() or set(attacker.stored()) == {names[1]}
    assert not Path(elsewhere["database"]).exists()
    done = bakthat.undelete(names[2], conf=elsewhere)
    assert [each.backup.stored_filename for each in done][-1] == names[2]
    assert actions(done) == actions(planned)
    needed = [name for name in names if name in actions(done)]
    assert [each.backup.stored_filename for each in done] == needed
    assert [each.needed for each in done] == [True] * (len(done) - 1) + [False]
    assert restored(names[2], elsewhere, out) == before


def test_intact_increment_whose_full_was_deleted(
    conf: Conf, attacker: Attacker, elsewhere: Conf, tree: Path, out: Path
) -> None:
    tracked = Tracked(tree, conf)
    with long_after():
        full = tracked.back_up(destination="s3")
        (tree / "new").write_text("new")
        increment = tracked.back_up(destination="s3")
    attacker.delete(full.stored_filename, index_key(full.stored_filename))
    done = bakthat.undelete(increment.stored_filename, conf=elsewhere)
    assert actions(done) == {
        full.stored_filename: (Action.SHOWN, Action.SHOWN),
        increment.stored_filename: (Action.THERE, Action.THERE),
    }
    assert restored(increment.stored_filename, elsewhere, out) == fingerprint(tree)


def test_increment_whose_full_is_gone_is_said_to_be_of_no_use(
    conf: Conf, attacker: Attacker, elsewhere: Conf, tree: Path
) -> None:
    tracked = Tracked(tree, conf)
    with long_after():
        full = tracked.back_up(destination="s3")
        (tree / "new").write_text("new")
        increment = tracked.back_up(destination="s3")
    moment = attacker.now()
    attacker.purge(full.stored_filename)
    attacker.delete(increment.stored_filename)
    found = bakthat.stored_at(moment, conf=elsewhere)
    assert [each.backup.stored_filename for each in found.gone] == [full.stored_filename]
    assert found.gone[0].detail == "only its index is left"
    (done,) = bakthat.undelete(increment.stored_filename, conf=elsewhere)
    assert (done.action, done.is_restorable) == (Action.SHOWN, False)
    assert "no version is left of what it needs" in done.detail


def test_everything_of_a_time_comes_back_and_nothing_that_came_later(
    conf: Conf, attacker: Attacker, elsewhere: Conf, tree: Path, out: Path
) -> None:
    first = backup(tree, conf, custom_filename="one").stored_filename
    second = backup(tree, conf, custom_filename="two").stored_filename
    moment = attacker.now()
    attacker.client.put_object(
        Bucket=attacker.bucket, Key="p/one.20200101000000.tgz", Body=b"planted"
    )
    attacker.delete(*attacker.stored())
    found = listed(elsewhere, moment)
    assert found.keys() == {first, second}
    done = bakthat.undelete(conf=elsewhere, everything=True, as_of=moment)
    assert set(actions(done)) == {first, second}
    back = attacker.stored()
    assert set(back) == {first, second, index_key(first), index_key(second)}
    shown = {each.stored_filename for each in bakthat.ls(conf=elsewhere)}
    assert shown == {first, second}


@pytest.mark.parametrize("early", [False, True])
def test_content_with_another_self_description_is_no_copy(
    conf: Conf, attacker: Attacker, elsewhere: Conf, tree: Path, *, early: bool
) -> None:
    name = backup(tree, conf).stored_filename
    own = {key: attacker.head(key)["Metadata"] for key in (name, index_key(name))}
    moment = attacker.now()
    for key in own:
        attacker.overwrite(key, attacker.content(key))
    if early:  # the time that is named is after the attack
        moment = attacker.now()
    found = listed(elsewhere, moment)[name]
    assert (found.archive.state, found.index and found.index.state) == ("overwritten",) * 2
    done = bakthat.undelete(name, conf=elsewhere, as_of=moment)
    assert actions(done) == {name: (Action.COPIED, Action.COPIED)}
    assert {key: attacker.head(key)["Metadata"] for key in own} == own
    assert listed(elsewhere, moment)[name].is_intact
    assert actions(bakthat.undelete(name, conf=elsewhere)) == {name: (Action.THERE, Action.THERE)}


def test_many_versions_are_seen_through_by_few_requests(
    conf: Conf, attacker: Attacker, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = backup(tree, conf).stored_filename
    content = attacker.content(name)
    moment = attacker.now()
    for number in range(30):
        attacker.overwrite(name, b"garbage %d" % number, forged=number % 2 == 0)
    settings = replace(S3Backend.settings_of(conf), page_size=7)  # so that there are many pages
    monkeypatch.setattr(S3Backend, "settings_of", staticmethod(lambda conf: settings))
    looked_at = []
    real = S3Backend.stat_version

    def stat_version(self: S3Backend, version: Version) -> StoredObject:
        looked_at.append(version)
        return real(self, version)

    monkeypatch.setattr(S3Backend, "stat_version", stat_version)
    found = listed(conf, moment)[name]
    assert (found.what, found.detail) == ("overwritten", "30 other versions above it")
    assert len(looked_at) == 2  # it and its index
    bakthat.undelete(name, conf=conf)
    assert len(looked_at) == 4
    assert attacker.content(name) == content


def test_versions_of_somebody_else_are_not_looked_at_without_end(
    conf: Conf, attacker: Attacker, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = backup(tree, conf).stored_filename
    attacker.purge(name)
    for number in range(30):
        attacker.client.put_object(Bucket=attacker.bucket, Key=name, Body=b"x" * number)
    looked_at = []
    real = S3Backend.stat_version

    def stat_version(self: S3Backend, version: Version) -> StoredObject:
        looked_at.append(version)
        return real(self, version)

    monkeypatch.setattr(S3Backend, "stat_version", stat_version)
    (done,) = bakthat.undelete(name, conf=conf)
    assert len(looked_at) == MAX_LOOKED_AT + 1
    assert (done.action, done.detail) == (Action.FAILED, "none of its versions fits")


def test_version_that_was_planted_before_the_backup_is_not_taken_for_it(
    conf: Conf, attacker: Attacker, elsewhere: Conf, tree: Path, out: Path
) -> None:
    name = backup(tree, conf).stored_filename
    body, metadata = attacker.content(name), attacker.head(name)["Metadata"]
    attacker.purge(name)
    # Whoever guesses the second of the next backup can write there first, and delete it again.
    attacker.client.put_object(Bucket=attacker.bucket, Key=name, Body=b"planted", Metadata=metadata)
    attacker.delete(name)
    attacker.client.put_object(Bucket=attacker.bucket, Key=name, Body=body, Metadata=metadata)
    attacker.delete(name)
    bakthat.undelete(name, conf=elsewhere)
    assert restored(name, elsewhere, out) == fingerprint(tree)


def test_time_decides_between_versions_that_fit(conf: Conf, attacker: Attacker, tree: Path) -> None:
    name = backup(tree, conf, custom_filename="one").stored_filename
    attacker.purge(index_key(name))
    content = attacker.content(name)
    attacker.overwrite(name, b"x" * len(content), forged=True)
    moment = attacker.now()
    attacker.delete(name)
    bakthat.undelete(name, conf=conf, as_of=moment)
    assert attacker.content(name) == b"x" * len(content)
    bakthat.undelete(name, conf=conf)
    assert attacker.content(name) == content


def test_older_backup_under_another_key_does_not_count(
    conf: Conf, attacker: Attacker, elsewhere: Conf, tree: Path, out: Path
) -> None:
    old = backup(tree, conf).stored_filename
    (tree / "new").write_text("new")
    new = backup(tree, conf).stored_filename
    # The key of the newer one has only the older one, with its own description.
    attacker.overwrite(new)
    source = {"Bucket": attacker.bucket, "Key": old}
    attacker.client.copy_object(Bucket=attacker.bucket, Key=new, CopySource=source)
    bakthat.undelete(new, conf=elsewhere)
    assert restored(new, elsewhere, out) == fingerprint(tree)


def test_copy_that_was_deleted_again_is_not_copied_once_more(
    conf: Conf, attacker: Attacker, tree: Path
) -> None:
    name = backup(tree, conf).stored_filename
    attacker.overwrite(name)
    bakthat.undelete(name, conf=conf)
    attacker.delete(name)
    assert actions(bakthat.undelete(name, conf=conf))[name] == (Action.SHOWN, Action.THERE)
    assert len(attacker.versions(name)) == 3


def test_name_of_a_set_means_its_newest_hidden_backup(
    conf: Conf, attacker: Attacker, elsewhere: Conf, tree: Path
) -> None:
    names = [backup(tree, conf).stored_filename for _ in range(3)]
    attacker.delete(*names[:2])
    done = bakthat.undelete(tree.name, conf=elsewhere)
    assert list(actions(done)) == [names[1]]
    # Its beginning, without the prefix, means the same.
    done = bakthat.undelete(f"{tree.name}.2", conf=elsewhere)
    assert list(actions(done)) == [names[0]]
    assert bakthat.undelete(tree.name, conf=elsewhere) == []


def test_marked_entry_is_listed_again(conf: Conf, tree: Path) -> None:
    entry = backup(tree, conf)
    name = entry.stored_filename
    Attacker(conf).delete(name, index_key(name))
    bakthat.sync("s3", conf=conf)
    assert bakthat.ls(conf=conf) == []
    bakthat.undelete(name, conf=conf)
    (found,) = bakthat.ls(conf=conf)
    assert "deleted" not in found.metadata
    assert found.metadata["source"] == entry.metadata["source"]


def test_sets_of_two_hosts_are_told_apart(conf: Conf, attacker: Attacker, tree: Path) -> None:
    names = {host: backup(tree, {**conf, "host": host}).stored_filename for host in ("a", "b")}
    attacker.delete(*names.values())
    with pytest.raises(AmbiguousNameError, match="fits several sets"):
        bakthat.undelete(tree.name, conf=conf)
    with pytest.raises(NoMatchError, match="is from that source"):
        bakthat.undelete(tree.name, conf=conf, host="b", source="/nowhere")
    done = bakthat.undelete(tree.name, conf=conf, host="b", source=tree)
    assert list(actions(done)) == [names["b"]]


def test_what_no_name_means(conf: Conf, tree: Path) -> None:
    backup(tree, conf)
    with pytest.raises(NoMatchError, match="nothing that the bucket keeps matches 'other'"):
        bakthat.undelete("other", conf=conf)
    with pytest.raises(UsageError, match="no backup was named"):
        bakthat.undelete(conf=conf)
    with pytest.raises(UsageError, match="no backup was named"):
        bakthat.undelete(conf=conf, everything=True)


def test_large_archive_is_copied_in_its_own_parts(
    conf: Conf, attacker: Attacker, tree: Path, elsewhere: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "large").write_bytes(os.urandom(12 * 1024 * 1024))
    name = backup(tree, {**conf, "compress": False}).stored_filename
    own = attacker.head(name)
    assert "-" in own["ETag"]
    attacker.overwrite(name)
    assert actions(bakthat.undelete(name, conf=conf))[name] == (Action.COPIED, Action.THERE)
    copy = attacker.head(name)
    assert copy["ContentLength"] == own["ContentLength"]
    assert copy["Metadata"] == own["Metadata"]
    if "moto" in conf["access_key"]:  # SeaweedFS counts its own pieces
        assert copy["ETag"] == own["ETag"]
        assert actions(bakthat.undelete(name, conf=elsewhere))[name][0] is Action.THERE
    assert actions(bakthat.undelete(name, conf=conf))[name][0] is Action.THERE
    assert bakthat.check(read_data=True, conf=conf)[0].is_good


@pytest.mark.parametrize("server", ["moto", "rclone", "seaweedfs"])
def test_bucket_without_versions_is_refused(
    server: str, request: pytest.FixtureRequest, tree: Path
) -> None:
    conf = {**request.getfixturevalue(f"{server}_conf"), "password": ""}
    backup(tree, conf)
    with pytest.raises(UsageError, match="keeps no versions"):
        bakthat.stored_at("1D", conf=conf)
    with pytest.raises(UsageError, match="keeps no versions"):
        bakthat.undelete("etc", conf=conf)


def test_other_destinations_are_refused(local: Conf, conf: Conf) -> None:
    for refused in (local, {**conf, "glacier_vault": "vault"}):
        destination = "local" if refused is local else "glacier"
        with pytest.raises(UsageError, match="only of a bucket of S3"):
            bakthat.undelete("etc", destination, conf=refused)


def test_reader_lists_and_keeper_brings_back(moto_conf: Conf, tree: Path, tmp_path: Path) -> None:
    more: dict[str, Any] = {"prefix": "p/", "password": ""}
    more["database"] = str(tmp_path / "role.sqlite")
    with guarded_bucket(moto_conf, **more) as guarded:
        name = backup(tree, guarded.conf("writer")).stored_filename
        attacker = Attacker(moto_conf)
        moment = attacker.now()
        attacker.delete(name, index_key(name))
        assert listed(guarded.conf("reader"), moment)[name].state is State.DELETED
        with pytest.raises(CredentialsError) as caught:
            bakthat.undelete(name, conf=guarded.conf("writer"))
        assert "s3:ListBucketVersions" in caught.value.hint
        (done,) = bakthat.undelete(name, conf=guarded.conf("reader"))
        assert done.action is Action.FAILED
        assert "s3:DeleteObjectVersion" in done.detail
        done = bakthat.undelete(name, conf=guarded.conf("keeper"))[0]
        assert (done.action, done.index_action) == (Action.SHOWN, Action.SHOWN)
        assert set(guarded.stored()) == {"clock", name, index_key(name)}


def test_copy_is_locked_as_the_version_was_and_as_the_profile_demands(
    locking_conf: Conf, tree: Path
) -> None:
    entry = backup(tree, locking_conf)
    name = entry.stored_filename
    attacker = Attacker(locking_conf)
    attacker.overwrite(name)
    attacker.overwrite(index_key(name))
    # A machine whose profile knows nothing of locks.
    plain_conf = {key: value for key, value in locking_conf.items() if key != "object_lock"}
    bakthat.undelete(name, conf=plain_conf)
    backend = S3Backend(locking_conf)
    assert backend.lock_of(name).until == entry.date + 30 * DAY
    assert backend.lock_of(index_key(name)).until == entry.date + 30 * DAY

    attacker.overwrite(name)
    longer = {**locking_conf, "object_lock": {"mode": "governance", "days": 60}}
    bakthat.undelete(name, conf=longer)
    assert backend.lock_of(name).until == entry.date + 60 * DAY
    (found,) = bakthat.ls(conf=longer)
    assert found.metadata["lock"]["until"] == entry.date + 60 * DAY


def test_frozen_backup_comes_back_from_a_marker_but_not_from_below(
    moto_conf: Conf, tree: Path
) -> None:
    conf = {**moto_conf, "password": "", "storage_class": "DEEP_ARCHIVE"}
    attacker = Attacker(conf)
    attacker.make_bucket()
    name = backup(tree, conf).stored_filename
    attacker.delete(name)
    assert actions(bakthat.undelete(name, conf=conf))[name][0] is Action.SHOWN
    attacker.overwrite(name)
    (done,) = bakthat.undelete(name, conf=conf)
    assert (done.action, done.has_failed) == (Action.FAILED, True)
    assert "frozen in DEEP_ARCHIVE" in done.detail
    assert "aws s3api restore-object" in done.detail


def test_what_an_increment_needs_below_a_former_prefix_comes_back_too(
    conf: Conf, attacker: Attacker, elsewhere: Conf, tree: Path, out: Path
) -> None:
    tracked = Tracked(tree, conf)
    with long_after():
        full = tracked.back_up(destination="s3")
        tracked.conf["prefix"] = "now/"
        (tree / "new").write_text("new")
        increment = tracked.back_up(destination="s3")
    assert increment.is_increment
    attacker.delete(*attacker.stored())
    now = {**elsewhere, "prefix": "now/"}
    done = bakthat.undelete(increment.stored_filename, conf=now)
    assert list(actions(done)) == [full.stored_filename, increment.stored_filename]
    assert restored(increment.stored_filename, now, out) == fingerprint(tree)


def test_one_that_fails_does_not_stop_the_others(
    conf: Conf, attacker: Attacker, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [backup(tree, conf).stored_filename for _ in range(2)]
    moment = attacker.now()
    attacker.delete(*names)
    real = S3Backend.bring_back

    def bring_back(self: S3Backend, version: Version, lock: Any = None) -> StoredObject:
        if version.key == names[0]:
            raise StorageError("not this one", hint="another day")
        return real(self, version, lock)

    monkeypatch.setattr(S3Backend, "bring_back", bring_back)
    done = bakthat.undelete(conf=conf, as_of=moment, everything=True)
    found = {each.backup.stored_filename: each for each in done}
    assert found[names[0]].detail == "not this one (another day)"
    assert found[names[1]].action is Action.SHOWN
    # The one that failed is done by the next run.
    monkeypatch.undo()
    done = bakthat.undelete(conf=conf, as_of=moment, everything=True)
    assert {each.action for each in done} <= {Action.SHOWN, Action.THERE}
    assert set(names) <= set(attacker.stored())


def test_entry_of_another_container_keeps_its_name(
    conf: Conf, attacker: Attacker, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry = backup(tree, conf)
    with models.catalog(conf["database"], write=True):
        models.Backups.update(backend_hash="other").execute()
    attacker.delete(entry.stored_filename)
    bakthat.undelete(entry.stored_filename, conf=conf)
    assert "is back, but cannot be listed" in caplog.text
    assert entry.stored_filename in attacker.stored()


def test_damaged_catalog_hides_nothing(
    conf: Conf, attacker: Attacker, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = backup(tree, conf).stored_filename
    moment = attacker.now()
    attacker.delete(name)
    Path(conf["database"]).write_bytes(b"garbage" * 1000)
    assert listed(conf, moment)[name].state is State.DELETED
    assert "the catalog is not read" in caplog.text


def test_what_is_brought_back_is_locked_like_its_index_and_what_it_needs(
    locking_conf: Conf, tree: Path
) -> None:
    conf = {**locking_conf, "incremental": True}
    (tree / "large").write_bytes(random.Random(1).randbytes(200_000))
    full = backup(tree, conf)
    (tree / "new").write_text("new")
    increment = backup(tree, conf)
    assert increment.is_increment
    Attacker(conf).overwrite(increment.stored_filename)  # and not its index
    longer = {**conf, "object_lock": {"mode": "governance", "days": 60}}
    bakthat.undelete(increment.stored_filename, conf=longer)
    end = increment.date + 60 * DAY
    backend = S3Backend(conf)
    listed = {each.stored_filename: each for each in bakthat.ls(conf=conf)}
    for name in (full.stored_filename, increment.stored_filename):
        assert backend.lock_of(name).until == end
        assert backend.lock_of(index_key(name)).until == end
        assert listed[name].metadata["lock"]["until"] == end


def test_copy_is_locked_no_longer_for_what_else_is_hidden(
    locking_conf: Conf, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = {
        **locking_conf,
        "object_lock": {"mode": "governance", "days": "retention"},
        "rotation": {"days": 3, "months": 6},
    }
    attacker = Attacker(conf)
    now = time.time()
    made = []
    for days in (2, 1, 0):
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", lambda days=days: now - days * DAY)
            made.append(backup(tree, conf))
    backend = S3Backend(conf)
    before = [backend.lock_of(each.stored_filename) for each in made]
    attacker.delete(made[0].stored_filename, made[2].stored_filename)
    attacker.overwrite(made[1].stored_filename)
    bakthat.undelete(made[1].stored_filename, conf=conf)
    assert backend.lock_of(made[1].stored_filename) == before[1]
    assert [backend.lock_of(each.stored_filename) for each in made] == before
