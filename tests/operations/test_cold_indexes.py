"""Indexes beside backups in cold storage: they can be read at once."""

from __future__ import annotations

from pathlib import Path

import pytest

import bakthat
from bakthat.errors import NotReadyError
from bakthat.operations.sync.indexes import make_indexes
from bakthat.session.reading import KeyFinder
from bakthat.session.session import Session
from tests.support.glacier_server import GlacierServer
from tests.support.indexes import forget_cache, lose_indexes
from tests.support.profiles import Conf
from tests.support.servers import S3Server, plain

EXPECTED = ["mydir", "mydir/a.txt"]


@pytest.fixture(params=["GLACIER", "DEEP_ARCHIVE", "vault and bucket", "vault"])
def cold(request: pytest.FixtureRequest, local: Conf) -> Conf:
    """Return a flat profile for cold storage, with a catalog of its own."""
    own = {"database": local["database"]}
    if not request.param.startswith("vault"):
        moto: Conf = request.getfixturevalue("moto_conf")
        return {**moto, **own, "storage_class": request.param}
    server: GlacierServer = request.getfixturevalue("glacier")
    conf = {**server.conf(), **own, "default_destination": "glacier"}
    if request.param == "vault":
        return conf
    bucket: S3Server = request.getfixturevalue("moto_endpoint")
    s3 = bucket.conf()
    return {**conf, "endpoint_url": s3["endpoint_url"], "s3_bucket": s3["s3_bucket"]}


def paths(conf: Conf) -> list[str]:
    return [each.path for each in bakthat.contents("mydir", conf=conf)]


def test_what_is_in_a_cold_backup_is_listed_without_a_thaw(cold: Conf, tree: Path) -> None:
    made = bakthat.backup(tree, conf=cold, password="")
    forget_cache()
    assert paths(cold) == EXPECTED
    forget_cache()
    (match,) = bakthat.find("a.txt", conf=cold)
    assert match.newest.stored_filename == made.stored_filename
    assert bakthat.thaw_status("mydir", conf=cold).state == "frozen"
    report = make_indexes(
        Session("default", None, cold),
        [made.backend],
        KeyFinder(Session("default", None, cold)),
        dry_run=False,
        progress=None,
    )
    assert [each.action.value for each in report] == ["good"]


def test_the_index_is_in_the_standard_class(cold: Conf, tree: Path) -> None:
    bakthat.backup(tree, conf=cold, password="")
    if "s3_bucket" not in cold:
        pytest.skip("no bucket")
    listed = plain(cold).list_objects_v2(Bucket=cold["s3_bucket"])["Contents"]
    classes = {each["Key"]: each["StorageClass"] for each in listed}
    (index,) = (key for key in classes if key.endswith(".index"))
    assert classes[index] == "STANDARD"


def test_without_an_index_the_backup_must_be_thawed(
    cold: Conf, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = bakthat.backup(tree, conf=cold, password="")
    lose_indexes(cold, made.stored_filename)
    with pytest.raises(NotReadyError):
        paths(cold)
    report = bakthat.find("a.txt", conf=cold)
    assert (len(report), report.searched, report.is_complete) == (0, 0, False)
    session = Session("default", None, cold)
    (change,) = make_indexes(
        session, [made.backend], KeyFinder(session), dry_run=False, progress=None
    )
    assert change.action.value == "cold"
