"""A reader's key restores and monitors, and a keeper's deletes; neither does what the other may."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import bakthat
from bakthat import models
from bakthat.backends.s3.backend import S3Backend
from bakthat.errors import CredentialsError
from bakthat.operations.check.result import Verdict
from tests.support.profiles import Conf
from tests.support.roles import Guarded
from tests.support.trees import fingerprint


@pytest.fixture
def stored(guarded: Guarded, tree: Path) -> list[models.Backups]:
    """Store a full and an increment of this host, with the writer's key."""
    conf = guarded.conf("writer", incremental=True)
    (tree / "large").write_bytes(random.Random(1).randbytes(200_000))
    full = bakthat.backup(tree, conf=conf, prompt="no")
    (tree / "new").write_text("new")
    return [full, bakthat.backup(tree, conf=conf, prompt="no")]


def on_another_machine(guarded: Guarded, role: str, tmp_path: Path, **more: Any) -> Conf:
    """Return the profile of a role that begins with an empty catalog."""
    catalog = str(tmp_path / f"{role}.sqlite")
    return guarded.conf(role, database=catalog, host="office", **more)


def test_reader_restores_and_checks_what_the_writer_stored(
    guarded: Guarded, stored: list[models.Backups], tree: Path, tmp_path: Path, out: Path
) -> None:
    conf = on_another_machine(guarded, "reader", tmp_path)
    bakthat.sync(conf=conf)
    assert bakthat.restore("mydir", conf=conf, host="web1", output=out) is not None
    assert fingerprint(out / "mydir") == fingerprint(tree)
    checked = bakthat.check(conf=conf, host="web1", read_data=True)
    assert {each.verdict for each in checked} == {Verdict.READ}
    statuses = bakthat.status(conf=conf, all_hosts=True)
    assert [(each.host, each.name, each.backups) for each in statuses] == [("web1", "mydir", 2)]
    assert not [each for status in statuses for each in status.findings if each.is_problem]


def test_reader_and_keeper_store_nothing(
    guarded: Guarded, stored: list[models.Backups], tree: Path, tmp_path: Path
) -> None:
    before = guarded.versions()
    for role in ("reader", "keeper"):
        conf = on_another_machine(guarded, role, tmp_path)
        with pytest.raises(CredentialsError) as refused:
            bakthat.backup(tree, conf=conf, prompt="no")
        assert "s3:PutObject" in refused.value.hint
    assert guarded.versions() == before


def test_reader_deletes_nothing(
    guarded: Guarded, stored: list[models.Backups], tmp_path: Path
) -> None:
    conf = on_another_machine(guarded, "reader", tmp_path)
    bakthat.sync(conf=conf)
    before = guarded.versions()
    with pytest.raises(CredentialsError) as refused:
        bakthat.delete(stored[1].stored_filename, conf=conf)
    assert "s3:DeleteObject" in refused.value.hint
    assert guarded.versions() == before


def test_keeper_rotates_the_backups_of_all_hosts(
    guarded: Guarded, stored: list[models.Backups], tree: Path, tmp_path: Path
) -> None:
    newest = bakthat.backup(tree, conf=guarded.conf("writer"), prompt="no")
    conf = on_another_machine(guarded, "keeper", tmp_path, rotation={"last": 1})
    bakthat.sync(conf=conf)
    rotated = bakthat.rotate_backups("mydir", conf=conf, host="web1")
    assert {each.stored_filename for each in rotated} == {each.stored_filename for each in stored}
    name = newest.stored_filename
    assert [key for key, _ in guarded.versions()] == [name, f"{name}.index"]


def test_keeper_cleans_up(guarded: Guarded, tmp_path: Path) -> None:
    old = {"Bucket": guarded.bucket, "Key": "backups/web1/x.20130604191055.tgz"}
    guarded.s3.create_multipart_upload(**old)
    conf = on_another_machine(guarded, "keeper", tmp_path)
    keeper = S3Backend(conf)
    (leftover,) = keeper.leftovers("backups/")
    assert (leftover.key, leftover.progress) == (old["Key"], "")  # its parts were looked at
    assert keeper.remove_leftover(leftover)
    assert bakthat.cleanup(conf=conf) == []
    assert "Uploads" not in guarded.s3.list_multipart_uploads(Bucket=guarded.bucket)


def test_reader_sees_what_was_deleted_and_the_keeper_brings_it_back(
    guarded: Guarded, stored: list[models.Backups], tmp_path: Path
) -> None:
    names = [each.stored_filename for each in stored]
    for name in names:
        guarded.s3.delete_object(Bucket=guarded.bucket, Key=name)
    before = guarded.versions()
    reader = on_another_machine(guarded, "reader", tmp_path)
    for each in bakthat.undelete("mydir", conf=reader, host="web1"):
        assert "s3:DeleteObjectVersion" in each.detail or "s3:PutObject" in each.detail
    assert guarded.versions() == before
    keeper = on_another_machine(guarded, "keeper", tmp_path)
    done = bakthat.undelete("mydir", conf=keeper, host="web1")
    assert {each.backup.stored_filename for each in done} == set(names)
    assert set(names) < set(guarded.stored())


def test_keeper_only_hides_where_versions_are_kept(
    guarded: Guarded, stored: list[models.Backups], tmp_path: Path
) -> None:
    guarded.print_policies(versions="keep")
    conf = on_another_machine(guarded, "keeper", tmp_path, versions="keep")
    bakthat.sync(conf=conf)
    before = guarded.versions()
    name = stored[1].stored_filename
    bakthat.delete(name, conf=conf)
    assert set(before) < set(guarded.versions())
    assert name not in guarded.stored()
    version = next(each for key, each in before if key == name)
    with pytest.raises(ClientError, match="AccessDenied"):
        guarded.s3_of("keeper").delete_object(Bucket=guarded.bucket, Key=name, VersionId=version)
    reader = guarded.s3_of("reader")  # it sees what an attack has left
    body = reader.get_object(Bucket=guarded.bucket, Key=name, VersionId=version)["Body"]
    assert len(body.read()) == stored[1].size


def test_bucket_is_examined_by_reader_and_keeper(guarded: Guarded, tmp_path: Path) -> None:
    for role in ("reader", "keeper"):
        findings = bakthat.doctor(conf=on_another_machine(guarded, role, tmp_path))
        assert [each.detail for each in findings if "could not look" in each.detail] == []
