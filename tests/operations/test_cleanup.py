"""Cleanup removes what killed processes left behind, and nothing else."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import bakthat
from bakthat import models
from bakthat.backends.base import StoredObject
from bakthat.errors import ContainerNotFoundError, StorageError, UsageError
from bakthat.format import names
from bakthat.operations.backup.progress import renewing
from bakthat.operations.cleanup import CleanupItem
from bakthat.session.entries import entry_of
from bakthat.session.session import Session
from tests.support.commandline import CommandLine
from tests.support.fault_proxy import FaultProxy, Hold, fault_proxy, refusal
from tests.support.glacier_server import GlacierServer
from tests.support.profiles import Conf, write_config
from tests.support.servers import (
    TWO_PARTS,
    S3Server,
    glacier_backend,
    parts_under_way,
    plain,
    put,
    s3_backend,
)

DAY = 86400


@pytest.fixture
def local(local: Conf) -> Conf:
    Path(local["local_path"]).mkdir()
    return local


@pytest.fixture
def rclone(rclone_conf: Conf, local: Conf) -> Conf:
    """Return a profile for rclone; to moto every upload was begun in 2010."""
    plain(rclone_conf).create_bucket(Bucket=rclone_conf["s3_bucket"])
    return {**rclone_conf, "database": local["database"]}


@pytest.fixture
def moto(moto_conf: Conf, local: Conf) -> Conf:
    plain(moto_conf).create_bucket(Bucket=moto_conf["s3_bucket"])
    return {**moto_conf, "database": local["database"]}


def begin(conf: Conf, *keys: str) -> None:
    """Begin uploads in parts as writers that are then killed."""
    client = plain(conf)
    for key in keys:
        upload = client.create_multipart_upload(Bucket=conf["s3_bucket"], Key=key)
        client.upload_part(
            Bucket=conf["s3_bucket"],
            Key=key,
            UploadId=upload["UploadId"],
            PartNumber=1,
            Body=b"x" * 1000,
        )


def reported(found: list[CleanupItem]) -> set[tuple[str, str]]:
    return {(each.kind, each.name) for each in found}


def age(path: Path, seconds: float) -> None:
    when = time.time() - seconds
    os.utime(path, (when, when))


DEAD = "mydir.20260101000000.tgz.age"


def test_parts_of_abandoned_uploads_are_removed(
    moto: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(moto, DEAD, "raw.20260101000000", "mykey.keyvalue", "holiday.jpg", "other/x.tgz")
    two_days = time.time() + 2 * DAY
    monkeypatch.setattr("bakthat.backends.s3.backend.time_of", lambda _answer: two_days)
    ours = {("upload", DEAD), ("upload", "raw.20260101000000"), ("upload", "mykey.keyvalue")}
    assert reported(bakthat.cleanup(conf=moto, dry_run=True)) == ours
    assert len(parts_under_way(moto)) == 5
    found = bakthat.cleanup(conf=moto)
    assert reported(found) == ours
    assert {each.where for each in found} == {"s3"}
    assert sorted(parts_under_way(moto)) == ["holiday.jpg", "other/x.tgz"]
    assert bakthat.cleanup(conf=moto) == []


def test_an_upload_younger_than_the_limit_is_never_touched(rclone: Conf) -> None:
    backend = s3_backend(rclone)
    upload = backend.upload(DEAD, metadata={})
    upload.write(TWO_PARTS)
    assert len(parts_under_way(rclone)) == 1
    assert bakthat.cleanup(conf=rclone) == []
    assert bakthat.cleanup(conf=rclone, older_than="1h") == []
    upload.commit()
    assert backend.stat(DEAD).size == len(TWO_PARTS)


def test_the_age_of_an_upload_is_that_of_its_latest_part(
    moto: Conf, moto_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(moto, DEAD)  # in 2010, to moto; its part is of this moment
    conf = {**moto, "endpoint_url": moto_proxy.endpoint_url}
    assert bakthat.cleanup(conf=conf) == []
    # Where parts cannot be listed, the beginning is all that is known: it must be long ago.
    moto_proxy.on("GET", "uploadId=", refusal(501, "NotImplemented"))
    begun_at = datetime(2010, 11, 10, 20, 48, 33, tzinfo=UTC).timestamp()
    with monkeypatch.context() as patch:
        patch.setattr("bakthat.backends.s3.backend.time_of", lambda _answer: begun_at + 2 * DAY)
        assert bakthat.cleanup(conf=conf) == []
    assert reported(bakthat.cleanup(conf=conf)) == {("upload", DEAD)}


def test_ages_come_from_the_clock_of_the_storage(
    rclone: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(rclone, DEAD)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 365 * DAY)
    assert bakthat.cleanup(conf=rclone) == []
    assert parts_under_way(rclone) == [DEAD]


def test_only_the_prefix_of_the_profile_is_cleaned_for_every_host(
    moto: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(moto, DEAD, f"hosts/alpha/{DEAD}", f"hosts/beta/{DEAD}", f"hosts/a/b/{DEAD}")
    monkeypatch.setattr(
        "bakthat.backends.s3.backend.time_of", lambda _answer: time.time() + 2 * DAY
    )
    found = bakthat.cleanup(conf={**moto, "prefix": "hosts/{host}/"})
    assert {each.name for each in found} == {f"hosts/alpha/{DEAD}", f"hosts/beta/{DEAD}"}
    assert sorted(parts_under_way(moto)) == [f"hosts/a/b/{DEAD}", DEAD]


def test_an_upload_that_cannot_be_removed_stops_no_other(
    moto: Conf, moto_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(moto, DEAD, "other.20260101000000.tgz")
    monkeypatch.setattr(
        "bakthat.backends.s3.backend.time_of", lambda _answer: time.time() + 2 * DAY
    )
    moto_proxy.on("DELETE", "/mydir.", refusal(403, "AccessDenied"))
    with pytest.raises(StorageError, match="AccessDenied"):
        bakthat.cleanup(conf={**moto, "endpoint_url": moto_proxy.endpoint_url})
    assert parts_under_way(moto) == [DEAD]


@pytest.fixture
def proxy(rclone: Conf) -> Iterator[FaultProxy]:
    with fault_proxy(rclone["endpoint_url"]) as made:
        yield made


def test_a_killed_backup_leaves_parts_that_cleanup_removes(
    rclone: Conf, proxy: FaultProxy, isolated_environment: Path, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(os.urandom(20 * 1024 * 1024))
    config = isolated_environment / ".bakthat.yml"
    write_config(config, default={**rclone, "endpoint_url": proxy.endpoint_url})
    user = CommandLine(isolated_environment, tmp_path)
    hold = Hold()
    proxy.on("PUT", "partNumber=1", hold, times=1)
    process = user.start("backup", "large", "--prompt", "no")
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdin, process.stdout, process.stderr:
        assert hold.done.wait(60)
        process.send_signal(signal.SIGKILL)
        hold.go.set()
        assert process.wait(60) == -signal.SIGKILL
    assert len(parts_under_way(rclone)) == 1
    # The catalog opens, nothing is listed, and nothing stands in the way of the next backup.
    assert user.run("show", "--json").lines("backup") == []
    assert user.run("sync").code == 0
    young = user.run("cleanup")
    assert (young.code, len(parts_under_way(rclone))) == (0, 1)
    kinds: list[str] = []
    deadline = time.monotonic() + 60
    while len(kinds) < 2 and time.monotonic() < deadline:  # until both are a second old
        shown = user.run("cleanup", "--older-than", "1s", "--dry-run", "--json")
        kinds = sorted(each["kind"] for each in shown.lines("change"))
    assert kinds == ["reservation", "upload"]
    done = user.run("cleanup", "--older-than", "1s")
    assert done.code == 0
    assert "Removed the upload large." in done.stderr
    assert parts_under_way(rclone) == []
    assert user.run("backup", "large", "--prompt", "no").code == 0


# Vaults.


def test_parts_in_a_vault_are_removed(glacier: GlacierServer, local: Conf) -> None:
    conf = {**glacier.conf(), "database": local["database"]}
    backend = glacier_backend(conf)
    backend.create_container()
    upload = backend.upload(DEAD, metadata={})
    upload.write(bytes(3 * 1024 * 1024))
    vault = conf["glacier_vault"]
    assert len(glacier.uploads_under_way(vault)) == 1
    foreign = backend.upload("holiday.jpg", metadata={})
    foreign.write(bytes(3 * 1024 * 1024))
    assert bakthat.cleanup(conf=conf) == []
    glacier.advance(hours=25)
    assert bakthat.cleanup(conf=conf, dry_run=True) == []
    assert bakthat.cleanup(conf=conf) == []  # it may still be written
    glacier.advance(hours=25)
    assert reported(bakthat.cleanup(conf=conf, dry_run=True)) == {("upload", DEAD)}
    assert reported(bakthat.cleanup(conf=conf)) == {("upload", DEAD)}
    assert len(glacier.uploads_under_way(vault)) == 1
    for each in (upload, foreign):
        each.abort()


def test_an_upload_to_a_vault_that_grows_is_never_removed(
    glacier: GlacierServer, local: Conf
) -> None:
    conf = {**glacier.conf(), "database": local["database"]}
    backend = glacier_backend(conf)
    backend.create_container()
    upload = backend.upload(DEAD, metadata={})
    written = b""
    for day in range(5):
        upload.write(bytes([day]) * 2 * 1024 * 1024)
        written += bytes([day]) * 2 * 1024 * 1024
        upload._collect(at_most=0)  # wait until the parts have arrived
        assert bakthat.cleanup(conf=conf) == []
        glacier.advance(hours=25)
    assert upload.commit().size == len(written)


def test_an_upload_of_a_backup_that_runs_here_is_never_removed(
    glacier: GlacierServer, moto: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(moto, DEAD)
    monkeypatch.setattr("bakthat.backends.s3.backend.time_of", lambda _: time.time() + 2 * DAY)
    with models.catalog(moto["database"], write=True):
        models.Reservations.create(stored_filename=DEAD, reserved_at=int(time.time()) - 3600)
    # No part was sent for two days: what is read compresses to nearly nothing.
    assert bakthat.cleanup(conf=moto) == []
    with models.catalog(moto["database"], write=True):
        models.Reservations.update(reserved_at=int(time.time()) - 2 * DAY).execute()
    assert ("upload", DEAD) in reported(bakthat.cleanup(conf=moto))


def test_a_running_backup_renews_the_reservation_of_its_name(
    local: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = Path(local["database"])
    long_ago = int(time.time()) - 3 * DAY
    with models.catalog(catalog, write=True):
        models.Reservations.create(stored_filename=DEAD, reserved_at=long_ago)
    counted: list[int] = []
    count = renewing(catalog, DEAD, counted.append)
    count(1)
    assert ("reservation", DEAD) in reported(bakthat.cleanup(conf=local, dry_run=True))
    monkeypatch.setattr("bakthat.operations.backup.progress.RENEWAL_SECONDS", 0.0)
    count(2)
    assert bakthat.cleanup(conf=local) == []
    assert counted == [1, 2]


def test_expired_retrievals_are_removed(
    glacier: GlacierServer, local: Conf, tmp_path: Path
) -> None:
    conf = {**glacier.conf(), "database": local["database"]}
    (tmp_path / "file").write_text("hello")
    made = bakthat.backup(tmp_path / "file", conf=conf, password="")
    assert bakthat.restore("file", conf=conf) is None
    glacier.advance(hours=6)
    assert bakthat.cleanup(conf=conf) == []
    glacier.advance(hours=48)
    expired = {("expired retrieval", made.stored_filename), ("expired thaw", made.stored_filename)}
    assert reported(bakthat.cleanup(conf=conf, dry_run=True)) == expired
    assert reported(bakthat.cleanup(conf=conf)) == expired
    assert bakthat.cleanup(conf=conf) == []


# Local.


def test_temporary_files_and_claims_of_dead_writers_are_removed(local: Conf) -> None:
    store = Path(local["local_path"])
    (store / "sub").mkdir()
    temporary = store / "sub" / f".bakthat-{'0' * 32}.tmp"
    claim = store / f"{DEAD}.bakthat.json"
    others = [
        store / ".bakthat-mine.tmp",
        store / "holiday.jpg.bakthat.json",
        store / f"listed{DEAD}",
        store / f"listed{DEAD}.bakthat.json",
    ]
    for path in (temporary, claim, *others):
        path.write_text("x")
        age(path, 2 * DAY)
    young = store / f".bakthat-{'1' * 32}.tmp"
    young.write_text("x")
    dead = {("temporary file", f"sub/{temporary.name}"), ("claim", DEAD)}
    assert reported(bakthat.cleanup(conf=local, dry_run=True)) == dead
    assert temporary.exists()
    assert reported(bakthat.cleanup(conf=local)) == dead
    assert not temporary.exists()
    assert not claim.exists()
    assert all(path.exists() for path in (young, *others))


def test_a_file_that_a_running_process_writes_is_never_removed(local: Conf) -> None:
    from bakthat.backends.local.backend import LocalBackend

    backend = LocalBackend(local)
    upload = backend.upload(DEAD, metadata={})
    upload.write(b"content")
    [path] = Path(local["local_path"]).glob(".bakthat-*.tmp")
    age(path, 400 * DAY)
    assert bakthat.cleanup(conf=local) == []
    upload.commit()
    assert backend.stat(DEAD).size == 7


def test_a_symbolic_link_is_no_leftover(local: Conf, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("x")
    age(precious, 2 * DAY)
    (Path(local["local_path"]) / f".bakthat-{'0' * 32}.tmp").symlink_to(precious)
    (Path(local["local_path"]) / "away").symlink_to(tmp_path)
    assert bakthat.cleanup(conf=local) == []
    assert precious.exists()


# The catalog.


def test_old_reservations_are_freed_and_young_ones_kept(local: Conf) -> None:
    now = int(time.time())
    with models.catalog(local["database"], write=True):
        for name, when in (("old", now - 2 * DAY), ("young", now), ("odd", now + 400 * DAY)):
            models.Reservations.create(stored_filename=name, reserved_at=when)
    assert reported(bakthat.cleanup(conf=local, dry_run=True)) == {
        ("reservation", "old"),
        ("reservation", "odd"),
    }
    assert len(bakthat.cleanup(conf=local)) == 2
    with models.catalog(local["database"]):
        assert [each.stored_filename for each in models.Reservations.select()] == ["young"]


def test_backups_are_never_touched(moto: Conf, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    made = bakthat.backup(tmp_path / "file", conf=moto, password="")
    bakthat.cleanup(conf=moto, older_than="1s")
    assert [each.verdict.value for each in bakthat.check(conf=moto, read_data=True)] == ["read"]
    assert [each.stored_filename for each in bakthat.ls(conf=moto)] == [made.stored_filename]


def test_invalid_arguments_are_refused(local: Conf, moto_endpoint: S3Server) -> None:
    with pytest.raises(UsageError, match="interval"):
        bakthat.cleanup(conf=local, older_than="soon")
    with pytest.raises(ContainerNotFoundError):
        bakthat.cleanup(conf={**moto_endpoint.conf(), "database": local["database"]})


@pytest.mark.parametrize("storage", ["local", "moto", "rclone", "seaweedfs"])
def test_an_index_without_its_archive_is_removed_after_a_day(
    request: pytest.FixtureRequest, storage: str, local: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup that was killed between its two commits leaves it, and so does a deletion."""
    conf = local
    if storage != "local":
        conf = {**request.getfixturevalue(f"{storage}_conf"), "database": local["database"]}
    (Path(local["local_path"]).parent / "kept").write_text("hello")
    kept = bakthat.backup(Path(local["local_path"]).parent / "kept", conf=conf, password="")
    backend = Session("default", None, conf).backend(kept.backend)
    dead, foreign = f"{DEAD}.index", "notes.index"
    for key in (dead, f"{kept.stored_filename}.index", foreign):
        if key not in {each.key for each in backend.ls(indexes=True)}:
            put(backend, key, b"x")
    assert bakthat.cleanup(conf=conf) == []
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 2 * DAY)
    assert [each.name for each in bakthat.cleanup(conf=conf, dry_run=True)] == [dead]
    assert reported(bakthat.cleanup(conf=conf)) == {("index", dead)}
    assert bakthat.cleanup(conf=conf) == []
    stored = {each.key for each in [*backend.ls(), *backend.ls(indexes=True)]}
    assert {kept.stored_filename, f"{kept.stored_filename}.index", foreign} <= stored


def test_an_index_of_a_vault_stays_until_its_archive_was_deleted(
    local: Conf, glacier: GlacierServer, moto_conf: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vault may hold archives that only another machine knows."""
    conf = {**local, **moto_conf, **glacier.conf(), "default_destination": "glacier"}
    conf["database"] = local["database"]
    plain(moto_conf).create_bucket(Bucket=moto_conf["s3_bucket"])
    bucket = s3_backend(moto_conf)
    within = f"bakthat_glacier_indexes/{conf['glacier_vault']}/"
    put(bucket, f"{within}{DEAD}.index", b"x")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 2 * DAY)
    s3_only = {**moto_conf, "database": local["database"]}
    assert bakthat.cleanup("s3", conf=s3_only) == []
    session = Session("default", None, conf, "glacier")
    glacier_backend(glacier.conf() | {"glacier_vault": conf["glacier_vault"]}).create_container()
    assert bakthat.cleanup("glacier", conf=conf) == []
    with models.catalog(session.catalog, write=True):
        row = entry_of(
            session.backend("glacier"), StoredObject(DEAD, 1), names.StoredName("set", 1, "", "")
        )
        row.is_deleted = True
        row.save()
    assert reported(bakthat.cleanup("glacier", conf=conf)) == {("index", f"{within}{DEAD}.index")}
