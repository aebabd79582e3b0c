"""An attacker with write access to the storage cannot harm the machine that restores."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.backends.local.backend import LocalBackend
from bakthat.errors import ArchiveError, CorruptArchiveError, DestinationError, UsageError
from bakthat.format.description import archive_identity, sanitized
from bakthat.helper import KeyValue
from bakthat.models import Backups
from bakthat.session import reading
from tests.support.commandline import CommandLine
from tests.support.indexes import lose_indexes
from tests.support.profiles import Conf
from tests.support.tar_bytes import END, header, member, pax

MIB = 1024 * 1024
STORED = "evil.20200202020202.tgz"
ESCAPE = "\x1b]0;owned\x07\x9b31m\r\n\u202e"
"""What a terminal acts on: a title, a colour, a line begun again, text turned around."""


def plant(conf: Conf, content: bytes, *, key: str = STORED, **description: Any) -> None:
    """Store an object behind bakthat's back, with any self-description."""
    backend = LocalBackend(conf)
    backend.create_container()
    upload = backend.upload(key, metadata=description, replace=True)
    upload.write(content)
    upload.commit()


def refusal(conf: Conf, out: Path, name: str = STORED) -> str:
    """Restore, expect an archive that is refused, and return the message."""
    with pytest.raises(ArchiveError) as caught:
        bakthat.restore(name, conf=conf, output=out)
    assert not out.exists()
    assert str(caught.value).isprintable()
    return str(caught.value)


def zeros(size: int) -> bytes:
    """Return a gzip of a tar with a file of *size* zeros: a thousandth of that."""
    return gzip.compress(header(b"zeros", size=size) + bytes(size) + END, 9)


def replace(conf: Conf, made: Backups, tar: bytes) -> None:
    """Put an archive of *tar* in the place of a backup that the catalog knows."""
    identity = archive_identity(made.filename, made.backup_date, made.host, made.source_id).encode()
    bomb = gzip.compress(pax([(b"comment", identity)], b"g") + tar)
    plant(conf, bomb, key=made.stored_filename, bytes=2**60, files=1)
    # An index that disagrees would be refused for that alone.
    lose_indexes(conf, made.stored_filename)
    # Of the same size, or it would be refused for that alone.
    with sqlite3.connect(conf["database"]) as catalog:
        catalog.execute("UPDATE backups SET size = ?", (len(bomb),))
    catalog.close()


@pytest.fixture
def made(local: Conf, tmp_path: Path) -> Backups:
    """Return a backup of an empty directory, made on this machine."""
    (tmp_path / "mydir").mkdir()
    return bakthat.backup(tmp_path / "mydir", conf=local, password="")


def test_a_bomb_is_refused_soon_after_the_size_that_was_backed_up(
    local: Conf, out: Path, made: Backups
) -> None:
    replace(local, made, header(b"zeros", size=70 * MIB) + bytes(70 * MIB) + END)
    assert "unpacks to more than 67.1 MB: 0 B were backed up" in refusal(local, out, "mydir")


def test_an_announced_size_never_lowers_the_limit(local: Conf, out: Path) -> None:
    plant(local, zeros(80 * MIB), bytes=1000, files=1)
    bakthat.restore(STORED, conf=local, output=out)
    assert (out / "zeros").stat().st_size == 80 * MIB


def test_a_bomb_of_bakthats_own_members_is_refused_too(
    local: Conf, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil/zeros").write_bytes(bytes(40 * MIB))
    made = bakthat.backup(tmp_path / "evil", conf=local, password="")
    body = (Path(local["local_path"]) / made.stored_filename).read_bytes()
    plant(local, body, bytes=1000, files=1)
    monkeypatch.setattr(reading, "SLACK_BYTES", MIB)
    monkeypatch.setattr(reading, "UNANNOUNCED_BYTES", MIB)
    assert "1.0 KB were counted before" in refusal(local, out)


def test_without_an_announced_size_the_stored_size_limits_a_bomb(
    local: Conf, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(local, zeros(50 * MIB))
    monkeypatch.setattr(reading, "UNANNOUNCED_BYTES", MIB)
    refusal(local, out)


def test_any_size_lifts_the_limit(local: Conf, out: Path, made: Backups) -> None:
    replace(local, made, header(b"zeros", size=80 * MIB) + bytes(80 * MIB) + END)
    bakthat.restore("mydir", conf=local, output=out, any_size=True)
    assert (out / "zeros").stat().st_size == 80 * MIB


def test_the_size_comes_from_the_catalog_not_from_the_object(
    local: Conf, out: Path, made: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(local, made, header(b"zeros", size=3 * MIB) + bytes(3 * MIB) + END)
    monkeypatch.setattr(reading, "SLACK_BYTES", MIB)
    assert "unpacks to more than" in refusal(local, out, "mydir")


def test_sync_replaces_nothing_that_this_machine_counted(
    local: Conf, out: Path, made: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by the description of a replaced archive nor by that of its index."""
    forged = {"bytes": 2**60, "files": 2**30, "warning_count": 7, "sha256": "0" * 64}
    replace(local, made, header(b"zeros", size=3 * MIB) + bytes(3 * MIB) + END)
    content = (Path(local["local_path"]) / made.stored_filename).read_bytes()
    described = {"format": 1, "kind": "archive", "index": 1, "host": made.host}
    plant(local, content + bytes(9), key=made.stored_filename, **described, **forged)
    plant(local, b"x", key=f"{made.stored_filename}.index", kind="index", **forged)
    [change] = bakthat.sync(conf=local).changes
    assert change.action.value == "updated"
    counted = {key: made.metadata.get(key) for key in forged}
    assert {key: change.backup.metadata.get(key) for key in forged} == counted
    monkeypatch.setattr(reading, "SLACK_BYTES", MIB)
    assert "0 B were backed up" in refusal(local, out, made.stored_filename)


def test_more_members_than_were_backed_up_are_refused(
    local: Conf, out: Path, made: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(local, made, b"".join(header(b"%d" % number) for number in range(4000)) + END)
    monkeypatch.setattr(reading, "SLACK_BYTES", MIB)
    refusal(local, out, "mydir")


def test_pax_headers_of_a_gigabyte_are_not_even_read(local: Conf, out: Path) -> None:
    gigabyte = header(b"x", b"x", size=1 << 30) + b"30 comment=" + bytes(4096)
    plant(local, gzip.compress(gigabyte))
    assert "an extended header of 1073741824 bytes" in refusal(local, out)


def test_global_headers_that_every_member_would_repeat_are_refused(local: Conf, out: Path) -> None:
    records = [(b"key%d" % number, b"v") for number in range(1001)]
    plant(local, gzip.compress(pax(records, b"g") + header(b"f") + END))
    assert "global pax headers" in refusal(local, out)


def test_too_many_implied_directories_are_refused(
    local: Conf, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each of a few members may name tens of thousands of directories.
    monkeypatch.setattr("bakthat.archive.extract.tree.MAX_PATHS", 50)
    plant(local, gzip.compress(pax([(b"path", b"a/" * 60 + b"f")]) + member(b"f") + END))
    assert "more than 50 implied directories" in refusal(local, out)


def can_hold(path: Path, size: int) -> bool:
    """Return whether the file system of *path* can hold a sparse file of *size* bytes."""
    path.touch()
    try:
        os.truncate(path, size)
    except OSError:
        return False
    path.unlink()
    return True


def test_a_sparse_file_larger_than_the_file_system_can_hold_is_named(
    local: Conf, out: Path, tmp_path: Path
) -> None:
    size = 2**63 - 1
    records = [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.map", b"0,1")]
    plant(local, gzip.compress(pax(records) + member(b"s", b"a") + END))
    if can_hold(tmp_path / "probe", size):  # btrfs and tmpfs can
        bakthat.restore(STORED, conf=local, output=out)
        assert (out / "s").stat().st_size == size
        return
    with pytest.raises(DestinationError, match="cannot write"):
        bakthat.restore(STORED, conf=local, output=out)
    assert not out.exists()


def test_a_value_that_is_a_bomb_fills_no_memory(
    local: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = KeyValue(conf=local)
    values.set_key("config", {"a": 1}, password="")
    bomb = gzip.compress(b'"' + b" " * (4 * MIB) + b'"')
    (Path(local["local_path"]) / "config.keyvalue").write_bytes(bomb)
    monkeypatch.setattr(reading, "MAX_VALUE_BYTES", MIB)
    with pytest.raises(ArchiveError, match="unpacks to more than"):
        values.get_key("config")


def test_a_value_too_large_to_be_read_again_is_not_stored(
    local: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bakthat.operations.key_values.MAX_VALUE_BYTES", 10)
    with pytest.raises(UsageError, match="at most 10"):
        KeyValue(conf=local).set_key("config", "x" * 20, password="")


SHAPES: list[Any] = [
    {"bytes": -1},
    {"bytes": 2**80, "files": 2**80},
    {"bytes": 1.5, "files": "many", "directories": None},
    {"bytes": True},
    {"host": "h" * 5000, "tags": ["a"], "set": {"a": 1}},
    {"kind": ["keyvalue"], "KeyValue": "yes", "is_enc": 1},
]


@pytest.mark.parametrize("shape", SHAPES, ids=range(len(SHAPES)))
def test_metadata_of_a_wrong_shape_stops_no_restore(local: Conf, out: Path, shape: Conf) -> None:
    plant(local, gzip.compress(member(b"evil", b"content") + END), **shape)
    bakthat.restore(STORED, conf=local, output=out)
    assert (out / "evil").read_bytes() == b"content"
    assert reading.unpacked_limit(Backups(metadata=shape, size=10)).bytes > 0


def test_invalid_sizes_in_a_description_are_ignored() -> None:
    assert sanitized({"bytes": True, "files": -1, "directories": "9"}) == {}


NASTY = "x';DROP--TABLE$(touch${IFS}owned)`touch${IFS}owned`\";rm|sh&"


def test_sql_and_shell_syntax_in_tags_and_names_is_text(
    local: Conf, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = tmp_path / NASTY
    source.mkdir()
    (source / "f").write_text("content")
    made = bakthat.backup(source, conf=local, password="", tags=[NASTY, "' OR 1=1"])
    assert made.tags.split() == [NASTY, "'", "OR", "1=1"]
    assert [each.filename for each in bakthat.ls(conf=local, tags=NASTY)] == [NASTY]
    assert bakthat.ls("' OR '1'='1", conf=local) == []
    bakthat.restore(NASTY, conf=local, output=out)
    assert (out / NASTY / "f").read_text() == "content"
    bakthat.delete(NASTY, conf=local)
    assert bakthat.ls(conf=local) == []
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([NASTY, "out"])


def raw(text: str) -> set[str]:
    """Return what in *text* a terminal would act on."""
    return {char for char in text if not char.isprintable()} - {"\n"}


def test_no_name_of_an_archive_reaches_the_terminal_raw(user: CommandLine) -> None:
    conf = {"local_path": str(user.home / ".bakthat_store")}
    name = ESCAPE.encode()
    plant(conf, gzip.compress(member(name, b"1") + header(name, b"1", linkname=b"gone") + END))
    refused = user.run("restore", STORED, "--debug", "-o", "out")
    assert refused.code == 1
    assert "\\x1b]0;owned" in refused.stderr
    assert raw(refused.stderr) == set()
    comment = pax([(b"comment", name)], b"g")
    plant(conf, gzip.compress(comment + member(b"evil", b"1") + END))
    warned = user.run("restore", STORED, "-o", "out")
    assert warned.code == 0
    assert "the archive says that it is" in warned.stderr
    assert raw(warned.stderr) == set()


def test_nothing_in_the_catalog_reaches_the_terminal_raw(user: CommandLine) -> None:
    (user.directory / "mydir").mkdir()
    user.run("backup", "mydir", "--prompt", "no")
    with sqlite3.connect(user.home / ".bakthat.sqlite") as catalog:
        description = json.dumps({"client": ESCAPE, "kind": ESCAPE})
        catalog.execute(
            "UPDATE backups SET stored_filename = ?, tags = ?, metadata = ?",
            (f"{ESCAPE}.20200202020202.tgz", ESCAPE, description),
        )
    catalog.close()
    for command in (["show"], ["show", "--json"], ["restore", "mydir"], ["delete", "mydir"]):
        done = user.run(*command, "--debug" if command != ["show", "--json"] else "--quiet")
        assert raw(done.stdout) | raw(done.stderr) == set(), command


def test_a_name_that_looks_like_an_option_is_a_name_after_two_dashes(user: CommandLine) -> None:
    (user.directory / "-rf").mkdir()
    (user.directory / "-rf" / "f").write_text("content")
    assert user.run("backup", "--prompt", "no", "--", "-rf").code == 0
    (stored,) = (path.name for path in (user.home / ".bakthat_store").glob("*.tgz"))
    assert stored.startswith("-rf.")
    assert user.run("restore", "-o", "out", "--", stored).code == 0
    assert (user.directory / "out/-rf/f").read_text() == "content"
    without = user.run("delete", stored)
    assert without.code == 2
    assert (user.home / ".bakthat_store" / stored).exists()
    assert user.run("delete", "--", stored).code == 0


@pytest.mark.permissions
@pytest.mark.skipif(os.geteuid() == 0, reason="root makes devices")
def test_members_that_only_root_can_make_are_warnings(local: Conf, out: Path) -> None:
    plant(local, gzip.compress(header(b"d", b"3") + member(b"f", b"1") + END))
    bakthat.restore(STORED, conf=local, output=out)
    assert os.listdir(out) == ["f"]


def test_a_file_whose_name_leads_elsewhere_is_refused(local: Conf, out: Path) -> None:
    plant(local, b"text", key="...20130604191055", kind="file")
    with pytest.raises(CorruptArchiveError, match=r"under the name '\.\.', which no file can have"):
        bakthat.restore("...20130604191055", conf=local, output=out)


def test_an_archive_without_its_identity_is_refused(local: Conf, out: Path) -> None:
    plant(local, gzip.compress(member(b"f") + END), format=1, set="evil", host="h")
    with pytest.raises(CorruptArchiveError, match="says that it is 'nothing', not"):
        bakthat.restore(STORED, conf=local, output=out)


def test_an_archive_of_another_set_is_refused(local: Conf, out: Path) -> None:
    comment = pax([(b"comment", b"bakthat set=other date=1 host=h")], b"g")
    plant(local, gzip.compress(comment + member(b"f") + END), format=1, set="evil", host="h")
    with pytest.raises(CorruptArchiveError, match="the archive says that it is"):
        bakthat.restore(STORED, conf=local, output=out)
