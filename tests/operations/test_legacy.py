"""A catalog and a bucket that bakthat 0.6.0 left: restored, listed, rotated and deleted."""

from __future__ import annotations

import calendar
import json
import socket
import time
from pathlib import Path

import pytest

import bakthat
from bakthat.crypto import beefish as beefish_room
from bakthat.errors import (
    CorruptArchiveError,
    CryptoError,
    DecryptionError,
    NoMatchError,
    PasswordError,
    WrongKeyError,
)
from bakthat.helper import KeyValue
from tests.support.commandline import CommandLine
from tests.support.legacy import PASSWORD, Legacy, beefish, tarball, value
from tests.support.profiles import write_config
from tests.support.servers import S3Server

FILES = {"a.txt": b"hello", "sub-" + "n" * 150: b"long name", "big": bytes(700_000)}
HOST = socket.gethostname()
ENCRYPTED = {"is_enc": True, "client": HOST}
PLAIN = {"is_enc": False, "client": HOST}


def stamp(text: str) -> int:
    return calendar.timegm(time.strptime(text, "%Y%m%d%H%M%S"))


@pytest.fixture
def old(moto_endpoint: S3Server, tmp_path: Path) -> Legacy:
    legacy = Legacy(moto_endpoint.conf(), tmp_path / "bakthat.sqlite")
    for date in ("20130604191055", "20130605191055", "20130606191055"):
        name = f"mydir.{date}.tgz.enc"
        legacy.store(name, "mydir", beefish(tarball("mydir", FILES)), ENCRYPTED, stamp(date))
    date = "20130604200000"
    legacy.store(f"www.{date}.tgz", "www", tarball("www", FILES), PLAIN, stamp(date))
    return legacy


@pytest.fixture
def out(out: Path) -> Path:
    out.mkdir()
    (out / "mine").write_text("mine")
    return out


def files_in(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_old_backups_are_listed_by_their_old_hash(old: Legacy) -> None:
    listed = [each.stored_filename for each in bakthat.ls(conf=old.conf)]
    assert listed == [
        "mydir.20130606191055.tgz.enc",
        "mydir.20130605191055.tgz.enc",
        "www.20130604200000.tgz",
        "mydir.20130604191055.tgz.enc",
    ]
    assert bakthat.ls(conf={**old.conf, "access_key": "another", "secret_key": "x"}) == []


def test_an_old_encrypted_backup_is_restored(old: Legacy, out: Path) -> None:
    found = bakthat.restore("mydir", conf=old.conf, output=out, password=PASSWORD)
    assert found is not None
    assert found.stored_filename == "mydir.20130606191055.tgz.enc"
    assert files_in(out / "mydir") == FILES
    assert (out / "mydir" / "a.txt").stat().st_mtime == 1370373055


def test_an_old_plain_backup_is_restored(old: Legacy, out: Path) -> None:
    bakthat.restore("www", conf=old.conf, output=out)
    assert files_in(out / "www") == FILES


def test_an_old_backup_is_restored_by_its_name_without_a_catalog(old: Legacy, out: Path) -> None:
    lost = {**old.conf, "database": str(out.parent / "lost.sqlite")}
    name = "mydir.20130604191055.tgz.enc"
    bakthat.restore(name, conf=lost, output=out, password=PASSWORD)
    assert files_in(out / "mydir") == FILES


@pytest.mark.parametrize("password", ["wrong", "m", "mypasswore", "x" * 57])
def test_a_wrong_password_restores_nothing(old: Legacy, out: Path, password: str) -> None:
    with pytest.raises(WrongKeyError, match="password") as caught:
        bakthat.restore("mydir", conf=old.conf, output=out, password=password)
    assert "0.6.0" in str(caught.value)
    assert files_in(out) == {"mine": b"mine"}


def test_no_password_restores_nothing(old: Legacy, out: Path) -> None:
    with pytest.raises(PasswordError, match="none was given"):
        bakthat.restore("mydir", conf=old.conf, output=out)
    assert files_in(out) == {"mine": b"mine"}


@pytest.mark.parametrize("cut", [1, 8, 4096])
def test_an_object_cut_before_it_was_listed_restores_nothing(
    old: Legacy, out: Path, cut: int
) -> None:
    name = "cut.20130604191055.tgz.enc"
    body = beefish(tarball("cut", FILES))[:-cut]
    old.store(name, "cut", body, ENCRYPTED, stamp("20130604191055"))
    with pytest.raises((CorruptArchiveError, DecryptionError)):
        bakthat.restore("cut", conf=old.conf, output=out, password=PASSWORD)
    assert files_in(out) == {"mine": b"mine"}


def test_an_altered_object_restores_nothing(old: Legacy, out: Path) -> None:
    body = bytearray(beefish(tarball("bad", FILES)))
    body[len(body) // 2] ^= 1
    old.store("bad.20130604191055.tgz.enc", "bad", bytes(body), ENCRYPTED, stamp("20130604191055"))
    with pytest.raises(CorruptArchiveError):
        bakthat.restore("bad", conf=old.conf, output=out, password=PASSWORD)
    assert files_in(out) == {"mine": b"mine"}


def test_gzip_that_holds_no_tar_archive_is_refused_as_a_wrong_password(
    old: Legacy, out: Path
) -> None:
    import gzip

    body = beefish(gzip.compress(b"noise " * 200))
    old.store("odd.20130604191055.tgz.enc", "odd", body, ENCRYPTED, stamp("20130604191055"))
    with pytest.raises(WrongKeyError):
        bakthat.restore("odd", conf=old.conf, output=out, password=PASSWORD)
    assert files_in(out) == {"mine": b"mine"}


def test_names_without_a_dot_before_the_date_are_read(old: Legacy, out: Path) -> None:
    body = beefish(tarball("older", FILES))
    old.store("older20130101000000.tgz.enc", "older", body, ENCRYPTED, stamp("20130101000000"))
    bakthat.restore("older", conf=old.conf, output=out, password=PASSWORD)
    assert files_in(out / "older") == FILES


def test_a_file_stored_without_compression_comes_back_with_a_warning(
    old: Legacy, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old.store("raw.20130604191055.enc", "raw", beefish(b"as it is"), ENCRYPTED, 1370373055)
    bakthat.restore("raw", conf=old.conf, output=out, password=PASSWORD)
    assert (out / "raw").read_bytes() == b"as it is"
    assert "so a wrong password cannot be detected" in caplog.text


def test_a_machine_without_blowfish_says_so(
    old: Legacy, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.ciphers import Cipher

    def refuse(_self: object) -> None:
        raise UnsupportedAlgorithm("no such cipher")

    monkeypatch.setattr(Cipher, "decryptor", refuse)
    with pytest.raises(CryptoError, match="has no Blowfish"):
        bakthat.restore("mydir", conf=old.conf, output=out, password=PASSWORD)
    assert beefish_room.MAX_KEY_BYTES == 56


def test_an_old_backup_is_deleted(old: Legacy) -> None:
    gone = bakthat.delete("mydir.20130605191055.tgz.enc", conf=old.conf)
    assert gone.stored_filename not in old.stored()
    assert len(old.stored()) == 3
    assert old.alive() == old.stored()


def test_old_and_new_backups_are_one_set_to_rotation(
    old: Legacy, tmp_path: Path, out: Path
) -> None:
    source = tmp_path / "mydir"
    source.mkdir()
    made = bakthat.backup(source, conf=old.conf, password="")
    deleted = bakthat.rotate_backups("mydir", conf=old.conf, last=2)
    assert [each.stored_filename for each in deleted] == [
        "mydir.20130604191055.tgz.enc",
        "mydir.20130605191055.tgz.enc",
    ]
    kept = ["mydir.20130606191055.tgz.enc", made.stored_filename, "www.20130604200000.tgz"]
    assert old.alive() == old.stored() == kept
    # 0.6.0 did not record what it backed up, so its newest one is not deleted for a new one.
    assert bakthat.delete_older_than("mydir", "1Y", conf=old.conf) == []
    bakthat.delete(kept[0], conf=old.conf)
    assert old.alive() == old.stored() == kept[1:]


def test_the_command_line_shows_and_restores_old_backups(
    old: Legacy, tmp_path: Path, isolated_environment: Path
) -> None:
    config = isolated_environment / ".bakthat.yml"
    write_config(config, default=old.conf)
    user = CommandLine(isolated_environment, tmp_path)
    shown = user.run("show", "mydir")
    assert (shown.code, shown.stdout.count(".tgz.enc")) == (0, 3)
    wrong = user.run("restore", "mydir", env={"BAKTHAT_PASSWORD": "wrong"})
    assert wrong.code == 1
    assert ": the password does not open what bakthat 0.6.0 encrypted" in wrong.stderr
    assert not (tmp_path / "mydir").exists()
    done = user.run("restore", "mydir", env={"BAKTHAT_PASSWORD": PASSWORD})
    assert done.code == 0, done.stderr
    assert files_in(tmp_path / "mydir") == FILES


# KeyValue.

CONTENT = {"some": ["data", 1, None, "ü"]}
KINDS = [(compress, password) for compress in (True, False) for password in ("", PASSWORD)]


def old_value(old: Legacy, compress: bool, password: str) -> None:
    body = value(CONTENT, compress=compress, password=password)
    metadata = {"KeyValue": True, "is_enc": bool(password), "is_gzipped": compress}
    old.store("mykey", "mykey", body, metadata, 1370373055)


@pytest.mark.parametrize(("compress", "password"), KINDS)
def test_an_old_value_is_read_and_restored(
    old: Legacy, out: Path, compress: bool, password: str
) -> None:
    old_value(old, compress, password)
    assert KeyValue(conf=old.conf).get_key("mykey", password=password or None) == CONTENT
    bakthat.restore("mykey", conf=old.conf, output=out, password=password or None)
    assert json.loads((out / "mykey.json").read_text()) == CONTENT
    assert [each.filename for each in bakthat.ls("mykey", conf=old.conf)] == ["mykey"]


@pytest.mark.parametrize("compress", [True, False])
def test_a_wrong_password_opens_no_old_value(old: Legacy, out: Path, compress: bool) -> None:
    old_value(old, compress, PASSWORD)
    with pytest.raises(WrongKeyError, match="does not open"):
        KeyValue(conf=old.conf).get_key("mykey", password="wrong")
    with pytest.raises(WrongKeyError, match="does not open"):
        bakthat.restore("mykey", conf=old.conf, output=out, password="wrong")
    with pytest.raises(PasswordError, match="none was given"):
        KeyValue(conf=old.conf).get_key("mykey")
    assert files_in(out) == {"mine": b"mine"}


@pytest.mark.parametrize(("compress", "password"), [KINDS[0], KINDS[1], KINDS[2]])
def test_an_old_value_is_read_without_its_row(old: Legacy, compress: bool, password: str) -> None:
    old_value(old, compress, password)
    lost = {**old.conf, "database": str(Path(old.conf["database"]).with_name("lost.sqlite"))}
    kv = KeyValue(conf=lost)
    assert kv.get_key("mykey", password=password or None) == CONTENT
    # Its object does not say what it is, so nothing deletes it.
    assert not kv.delete_key("mykey")
    assert "mykey" in old.stored()


def test_setting_a_key_again_replaces_the_old_value(old: Legacy, out: Path) -> None:
    old_value(old, compress=True, password=PASSWORD)
    kv = KeyValue(conf=old.conf)
    kv.set_key("mykey", "new")
    assert kv.get_key("mykey") == "new"
    assert "mykey" not in old.stored()
    assert old.alive() == old.stored()
    bakthat.restore("mykey", conf=old.conf, output=out)
    assert json.loads((out / "mykey.json").read_text()) == "new"


def test_an_old_value_is_deleted_and_never_rotated(old: Legacy) -> None:
    old_value(old, compress=True, password="")
    with pytest.raises(NoMatchError):
        bakthat.delete_older_than("mykey", "1s", conf=old.conf)
    kv = KeyValue(conf=old.conf)
    assert kv.delete_key("mykey")
    assert "mykey" not in old.stored()
    assert old.alive() == old.stored()
    assert kv.get_key("mykey", default="gone") == "gone"


def test_a_key_with_slashes_from_0_6_0_is_read(old: Legacy, out: Path) -> None:
    metadata = {"KeyValue": True, "is_enc": False, "is_gzipped": True}
    old.store("app/settings", "app/settings", value(CONTENT), metadata, 1370373055)
    assert KeyValue(conf=old.conf).get_key("app/settings") == CONTENT
    bakthat.restore("app/settings", conf=old.conf, output=out)
    assert json.loads((out / "settings.json").read_text()) == CONTENT
