"""``sync --indexes`` makes the indexes again that are missing or damaged."""

from __future__ import annotations

import calendar
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.backends.base import Backend
from bakthat.crypto import age
from bakthat.errors import StorageError
from bakthat.format.entry import Entry
from bakthat.helper import KeyValue
from bakthat.models import Backups
from bakthat.operations.sync.report import SyncReport
from bakthat.pipeline.scan import ScannedIndex
from bakthat.session.indexes.home import home_of_index
from bakthat.session.indexes.opening import check_stored_index, scanned_index
from bakthat.session.reading import KeyFinder
from bakthat.session.session import Session
from tests.support.commandline import CommandLine
from tests.support.indexes import forget_cache, lose_indexes
from tests.support.legacy import PASSWORD, Legacy, beefish, tarball
from tests.support.profiles import Conf
from tests.support.servers import S3Server
from tests.support.trees import make_every_kind

IDENTITY = age.generate_identity()
RECIPIENT = age.recipient_of(IDENTITY)


def actions(report: SyncReport) -> dict[str, str]:
    assert report.indexes is not None
    return {each.backup.stored_filename: each.action.value for each in report.indexes}


def index_of(conf: Conf, name: str) -> tuple[Backend, str]:
    session = Session("default", None, conf)
    return home_of_index(session, session.backend(session.destination), name)


def stored_index(conf: Conf, name: str) -> bytes:
    home, key = index_of(conf, name)
    with home.download(key) as stream:
        return stream.read()


def write_index(conf: Conf, name: str, content: bytes) -> None:
    home, key = index_of(conf, name)
    upload = home.upload(key, metadata=home.stat(key).metadata or {}, replace=True)
    upload.write(content)
    upload.commit()


def entries(conf: Conf, name: str, **secrets: Any) -> list[Entry]:
    return list(bakthat.contents(name, conf=conf, **secrets))


def from_storage(conf: Conf, name: str, **secrets: Any) -> list[Entry]:
    """Return the entries by the index that is stored."""
    forget_cache()
    session = Session("default", None, conf)
    backup = next(each for each in bakthat.ls(conf=conf) if each.stored_filename == name)
    check_stored_index(session, backup, KeyFinder(session, secrets.get("password"), prompt=False))
    return entries(conf, name, **secrets)


KEYS: list[dict[str, Any]] = [
    {"password": ""},
    {"password": "secret"},
    {"recipients": [RECIPIENT]},
]


@pytest.mark.usefixtures("cheap_passphrases")
@pytest.mark.parametrize("keys", KEYS, ids=["plain", "password", "recipients"])
def test_a_missing_index_is_made_and_then_nothing_is_left_to_do(
    conf: Conf, tmp_path: Path, keys: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bakthat")
    (tmp_path / "id").write_text(IDENTITY)
    conf = {**conf, "identity_file": str(tmp_path / "id")}
    made = bakthat.backup(make_every_kind(tmp_path / "mydir"), conf=conf, **keys)
    name = made.stored_filename
    secrets: dict[str, Any] = {"password": keys.get("password")}
    before = entries(conf, name, **secrets)
    lose_indexes(conf, name)

    dry = bakthat.sync(conf=conf, indexes=True, dry_run=True, **secrets)
    assert actions(dry) == {name: "made"}
    assert f"Reading {name}" not in caplog.text
    report = bakthat.sync(conf=conf, indexes=True, **secrets)
    assert actions(report) == {name: "made"}
    assert report.is_complete
    assert f"Reading {name} to make its index" in caplog.text

    found = from_storage(conf, name, **secrets)
    assert [_from_archive(each) for each in found] == [_from_archive(each) for each in before]
    home, key = index_of(conf, name)
    description = home.stat(key).metadata
    assert description is not None
    assert (description["kind"], description["set"]) == ("index", "mydir")
    assert description["encryption"] == made.metadata["encryption"]
    (entry,) = bakthat.ls(conf=conf)
    assert entry.metadata["index_size"] == home.stat(key).size
    assert home.stat(key).storage_class in ("", "STANDARD")

    content = stored_index(conf, name)
    again = bakthat.sync(conf=conf, indexes=True, **secrets)
    assert actions(again) == {name: "good"}
    assert stored_index(conf, name) == content


def _from_archive(entry: Entry) -> Entry:
    """Return *entry* without what an archive does not say."""
    return entry._replace(ctime_ns=None, inode=None, is_volatile=False)


@pytest.fixture
def indexed(local: Conf, tree: Path) -> Backups:
    made = bakthat.backup(tree, conf=local, password="")
    lose_indexes(local, made.stored_filename)
    bakthat.sync(conf=local, indexes=True)
    return made


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty", "another's"])
def test_a_damaged_index_is_made_again(
    local: Conf,
    indexed: Backups,
    tree: Path,
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = indexed.stored_filename
    good = stored_index(local, name)
    if damage == "another's":
        other = bakthat.backup(tree, conf=local, password="", custom_filename="other")
        bakthat.sync(conf=local, indexes=True)
        bad = stored_index(local, other.stored_filename)
    else:
        bad = {"truncated": good[:-9], "altered": _altered(good), "empty": b""}[damage]
    write_index(local, name, bad)
    report = bakthat.sync(conf=local, indexes=True)
    assert actions(report)[name] == "replaced"
    assert f"the index of {name} is made again: " in caplog.text
    assert stored_index(local, name) == good
    assert entries(local, name)[1].path == "mydir/a.txt"


def _altered(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_the_index_of_a_damaged_backup_is_not_made(
    local: Conf, indexed: Backups, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = indexed.stored_filename
    good = bakthat.backup(tree, conf=local, password="", custom_filename="other").stored_filename
    os.truncate(Path(local["local_path"], name), 300)
    lose_indexes(local, name, good)
    report = bakthat.sync(conf=local, indexes=True)
    assert actions(report) == {name: "failed", good: "made"}
    assert (report.has_failed, report.is_complete) == (True, False)
    assert f"the index of {name}: " in caplog.text
    home, key = index_of(local, name)
    assert key not in [each.key for each in home.ls(indexes=True)]


@pytest.mark.usefixtures("cheap_passphrases")
def test_without_the_key_it_is_a_failure(local: Conf, tree: Path) -> None:
    made = bakthat.backup(tree, conf=local, password="secret")
    lose_indexes(local, made.stored_filename)
    for password in (None, "wrong"):
        report = bakthat.sync(conf=local, indexes=True, password=password, prompt="no")
        assert actions(report) == {made.stored_filename: "failed"}
    report = bakthat.sync(conf=local, indexes=True, password="secret")
    assert actions(report) == {made.stored_filename: "made"}


@pytest.mark.parametrize("step", ["write", "commit"])
@pytest.mark.parametrize("how", [KeyboardInterrupt, StorageError])
def test_what_is_stopped_leaves_nothing_and_can_be_done_again(
    local: Conf,
    indexed: Backups,
    step: str,
    how: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = indexed.stored_filename
    lose_indexes(local, name)

    def stop(*_: object) -> None:
        raise how("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(f"bakthat.backends.local.backend.LocalUpload.{step}", stop)
        if how is KeyboardInterrupt:
            with pytest.raises(KeyboardInterrupt):
                bakthat.sync(conf=local, indexes=True)
        else:
            assert actions(bakthat.sync(conf=local, indexes=True)) == {name: "failed"}
    store = Path(local["local_path"])
    assert sorted(path.name for path in store.iterdir()) == [name, f"{name}.bakthat.json"]
    assert actions(bakthat.sync(conf=local, indexes=True)) == {name: "made"}


def test_a_backup_that_is_deleted_meanwhile_gets_no_index(
    local: Conf, indexed: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = indexed.stored_filename
    lose_indexes(local, name)

    @contextmanager
    def scan_and_delete(*arguments: Any, **options: Any) -> Iterator[ScannedIndex]:
        with scanned_index(*arguments, **options) as scanned:
            bakthat.delete(name, conf=local)
            yield scanned

    monkeypatch.setattr("bakthat.operations.sync.indexes.scanned_index", scan_and_delete)
    assert actions(bakthat.sync(conf=local, indexes=True)) == {name: "failed"}
    assert list(Path(local["local_path"]).iterdir()) == []


def test_values_have_no_index(local: Conf, indexed: Backups) -> None:
    KeyValue(conf=local).set_key("mykey", "value")
    assert actions(bakthat.sync(conf=local, indexes=True)) == {indexed.stored_filename: "good"}


def test_a_file_that_is_stored_as_it_is_has_an_index(local: Conf, tmp_path: Path) -> None:
    (tmp_path / "data.tar.gz").write_bytes(b"not really one")
    os.chmod(tmp_path / "data.tar.gz", 0o640)
    made = bakthat.backup(tmp_path / "data.tar.gz", conf=local, password="")
    before = entries(local, made.stored_filename)
    lose_indexes(local, made.stored_filename)
    assert actions(bakthat.sync(conf=local, indexes=True)) == {made.stored_filename: "made"}
    (found,) = from_storage(local, made.stored_filename)
    assert (found.path, found.size, found.mode) == ("data.tar.gz", 14, 0o640)
    assert [_from_archive(each) for each in before] == [_from_archive(found)]


@pytest.fixture
def old(moto_endpoint: S3Server, tmp_path: Path) -> Legacy:
    return Legacy(moto_endpoint.conf(), tmp_path / "bakthat.sqlite")


@pytest.mark.slow
def test_backups_of_060_get_an_index(old: Legacy) -> None:
    files = {"a.txt": b"hello", "sub-" + "n" * 150: b"long name", "big": bytes(700_000)}
    date = calendar.timegm(time.strptime("20130604191055", "%Y%m%d%H%M%S"))
    plain, encrypted = "www.20130604191055.tgz", "mydir.20130604191055.tgz.enc"
    old.store(plain, "www", tarball("www", files), {"is_enc": False, "client": "box"}, date)
    secret = beefish(tarball("mydir", files))
    old.store(encrypted, "mydir", secret, {"is_enc": True, "client": "box"}, date)
    report = bakthat.sync(conf=old.conf, indexes=True, password=PASSWORD)
    assert actions(report) == {plain: "made", encrypted: "made"}
    for name in (plain, encrypted):
        found = from_storage(old.conf, name, password=PASSWORD)
        assert {each.path.partition("/")[2]: each.size for each in found if each.digest} == {
            file: len(content) for file, content in files.items()
        }
    assert stored_index(old.conf, encrypted).startswith(b"age-encryption.org/v1\n-> scrypt ")
    assert actions(bakthat.sync(conf=old.conf, indexes=True, password=PASSWORD)) == {
        plain: "good",
        encrypted: "good",
    }


def test_the_command_says_what_it_did(user: CommandLine, tree: Path) -> None:
    done = user.run("backup", tree, "-d", "local", "--prompt", "no", "--json")
    name = done.lines("backup")[0]["stored_filename"]
    (user.home / ".bakthat_store" / f"{name}.index").unlink(missing_ok=True)
    done = user.run("sync", "--indexes", "--dry-run")
    assert done.code == 0
    assert done.stdout.splitlines()[1].startswith("index made  ")
    assert not (user.home / ".bakthat_store" / f"{name}.index").exists()
    done = user.run("sync", "--indexes")
    assert done.code == 0
    assert "; indexes: 1 made" in done.stderr.splitlines()[-1]
    assert (user.home / ".bakthat_store" / f"{name}.index").exists()
    done = user.run("sync", "--indexes", "--json")
    (index,) = done.lines("change")
    assert (index["action"], index["stored_filename"]) == ("good", name)
    archive = user.home / ".bakthat_store" / name
    archive.write_bytes(archive.read_bytes()[:-1] + b"!")
    (user.home / ".bakthat_store" / f"{name}.index").unlink()
    done = user.run("sync", "--indexes")
    assert done.code == 1
    assert "bakthat: error: the index of some backups could not be made" in done.stderr
    assert "indexes: 1 failed" in done.stderr.splitlines()[-1]
