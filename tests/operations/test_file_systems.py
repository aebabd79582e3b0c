"""Every file system as the source, the destination, the store and the place of the catalog."""

from __future__ import annotations

import logging
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.archive.extract.unpack import extract
from bakthat.archive.report import ArchiveReport
from bakthat.errors import CorruptArchiveError, DestinationError, StorageError
from bakthat.operations.check.result import Verdict
from bakthat.system.text import quoted
from tests.support.commandline import CommandLine
from tests.support.file_systems import FileSystem, mounted_file_system
from tests.support.needs import mounted
from tests.support.profiles import Conf
from tests.support.tar_bytes import END, Pieces, as_nobody, header, member, pax
from tests.support.trees import fingerprint, make_every_kind

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cheap_passphrases")]

LINKS_OF_EXT4 = 65_000


@pytest.fixture
def there(file_system: FileSystem) -> Path:
    """Make a directory of the test's own on the file system."""
    path = file_system.path / uuid.uuid4().hex
    path.mkdir()
    return path


def make_plain_tree(root: Path) -> Path:
    """Make a tree of files and directories that every file system can hold."""
    root.mkdir()
    (root / "deep/er/still").mkdir(parents=True)
    (root / "empty directory").mkdir()
    (root / "empty").touch()
    (root / "ünï").write_text("name")
    (root / "deep/er/random").write_bytes(os.urandom(300_000))
    (root / "deep/er/still/text").write_text("text\n" * 1000)
    for path in (root / "ünï", root / "deep/er/random", root / "deep/er/still"):
        os.utime(path, ns=(0, 1_234_567_890 * 10**9))
    return root


def kept(root: Path, file_system: FileSystem) -> dict[bytes, Any]:
    """Return what the file system keeps of the tree *root*."""
    found = fingerprint(root)
    if file_system.keeps_modes:
        return found
    # The kind; the time in seconds, or exFAT would differ from itself; size, content.
    return {
        path: (mode[0], time // 10**9 if mode[0] == "-" else 0, size, content)
        for path, (mode, _, _, time, size, content, *_) in found.items()
    }


def test_a_tree_that_lives_there_comes_back_elsewhere(
    file_system: FileSystem, there: Path, local: Conf, out: Path
) -> None:
    make = make_every_kind if file_system.keeps_modes else make_plain_tree
    source = make(there / "tree")
    made = bakthat.backup(source, conf=local, password="")
    assert made.metadata.get("warning_count", 0) == 0
    bakthat.restore("tree", conf=local, output=out)
    assert kept(out / "tree", file_system) == kept(source, file_system)


def test_a_backup_is_restored_there_into_nothing_and_over_itself(
    file_system: FileSystem, there: Path, local: Conf, tmp_path: Path
) -> None:
    make = make_every_kind if file_system.keeps_all_kinds else make_plain_tree
    source = make(tmp_path / "tree")
    bakthat.backup(source, conf=local, password="")
    for _ in range(2):
        bakthat.restore("tree", conf=local, output=there)
        assert os.listdir(there) == ["tree"]
        assert kept(there / "tree", file_system) == kept(source, file_system)


def test_store_and_catalog_may_be_there(
    file_system: FileSystem, there: Path, local: Conf, tree: Path, out: Path
) -> None:
    conf = local | {"local_path": str(there / "store"), "database": str(there / "catalog.sqlite")}
    first, second = (bakthat.backup(tree, conf=conf, password="pw") for _ in range(2))
    assert [each.stored_filename for each in bakthat.ls(conf=conf)] == [
        second.stored_filename,
        first.stored_filename,
    ]
    found = bakthat.check(conf=conf, password="pw", read_data=True)
    assert [each.verdict for each in found] == [Verdict.READ, Verdict.READ]
    bakthat.restore("mydir", conf=conf, password="pw", output=out)
    assert fingerprint(out / "mydir") == fingerprint(tree)
    bakthat.delete(second.stored_filename, conf=conf)
    assert sorted(os.listdir(there / "store")) == sorted(
        f"{first.stored_filename}{end}"
        for end in ("", ".bakthat.json", ".index", ".index.bakthat.json")
    )
    os.unlink(there / "catalog.sqlite")
    bakthat.sync(conf=conf)
    assert [each.stored_filename for each in bakthat.ls(conf=conf)] == [first.stored_filename]


def test_a_failed_restore_leaves_everything_there_as_it_was(there: Path) -> None:
    (there / "out/d").mkdir(parents=True)
    (there / "out/d/old").write_text("old")
    archive = member(b"d/old", b"new") + member(b"d/fresh", b"new")
    with pytest.raises(CorruptArchiveError):  # without its end
        extract(Pieces(archive), there / "out", report=ArchiveReport())
    with pytest.raises(CorruptArchiveError, match="a directory with content"):
        extract(Pieces(archive + member(b"d", b"") + END), there / "other", report=ArchiveReport())
    (there / "out/d/fresh").mkdir()
    (there / "out/d/fresh/in").touch()
    with pytest.raises(DestinationError, match="a directory with content"):
        extract(Pieces(archive + END), there / "out", report=ArchiveReport())
    assert sorted(os.listdir(there)) == ["out"]
    assert sorted(os.listdir(there / "out")) == ["d"]
    assert sorted(os.listdir(there / "out/d")) == ["fresh", "old"]
    assert (there / "out/d/old").read_text() == "old"


@pytest.fixture
def exfat() -> Iterator[Path]:
    """Mount an exFAT, which has no links, no FIFOs, no modes, and not every name."""
    with mounted_file_system("exfat") as made:
        yield made.path


def test_one_warning_says_that_modes_and_owners_are_not_kept(
    file_system: FileSystem,
    there: Path,
    local: Conf,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = make_plain_tree(tmp_path / "tree")
    if os.geteuid() == 0:
        os.chown(source / "empty", 1234, 5678)
    (source / "ünï").chmod(0o4640)
    for name in ("empty", "ünï"):
        os.setxattr(source / name, "user.colour", b"blue")
    bakthat.backup(source, conf=local, password="")
    caplog.clear()
    bakthat.restore("tree", conf=local, output=there)
    warnings = [each.message for each in caplog.records if each.levelno == logging.WARNING]
    if file_system.keeps_modes:
        assert warnings == []
        return
    modes, attributes = warnings
    assert f"the file system of '{there}' does not keep modes, owners: " in modes
    assert ("other users may" in modes) is (file_system.kind == "exfat")
    assert "left out the extended attributes and ACLs, which this file system" in attributes


def test_what_exfat_cannot_hold_is_left_out_and_named(
    exfat: Path, user: CommandLine, tmp_path: Path
) -> None:
    source = make_every_kind(tmp_path / "tree")
    (source / "Text").write_text("another spelling")
    os.link(source / "random", source / "second")
    with (source / "huge").open("wb") as stream:
        stream.truncate(15 * 2**40)  # as much as ext4 can hold
    os.mknod(source / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    assert user.run("backup", "tree", "--prompt", "no").code == 0

    refused = user.run("restore", "tree", "-o", str(exfat))
    assert refused.code == 1
    assert "--keep-going" in refused.stderr
    assert os.listdir(exfat) == []

    done = user.run("restore", "tree", "-o", str(exfat), "--keep-going")
    assert done.code == 3
    lost = {
        *("link", "absolute link", "dangling", "dangling too", "fifo", "the same fifo", "null"),
        *("huge", "*?[x]", 'quo"te', "back\\slash", "new\nline"),
        os.fsdecode(b"not-utf8-\xff\xfe"),
    }
    there = {path.relative_to(exfat / "tree") for path in (exfat / "tree").rglob("*")}
    here = {path.relative_to(source) for path in source.rglob("*")}
    assert len({"text", "Text"} & set(os.listdir(exfat / "tree"))) == 1
    missing = {str(path) for path in here - there} - {"text", "Text"}
    assert missing == lost
    for name in missing:
        assert quoted(os.fsencode(f"tree/{name}")) in done.stderr
    assert (exfat / "tree/second").read_bytes() == (source / "random").read_bytes()
    assert "'tree/second' is a copy of 'tree/random', not a hard link" in done.stderr


def test_a_hard_link_comes_back_whose_first_name_cannot_be_held(
    exfat: Path, local: Conf, tmp_path: Path
) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    (source / "a:b").write_text("content")
    os.link(source / "a:b", source / "b")
    os.link(source / "a:b", source / "c")
    bakthat.backup(source, conf=local, password="")
    bakthat.restore("tree", conf=local, output=exfat, keep_going=True)
    assert sorted(os.listdir(exfat / "tree")) == ["b", "c"]
    assert (exfat / "tree/b").read_text() == (exfat / "tree/c").read_text() == "content"


def test_where_nothing_can_be_held_nothing_is_restored(
    exfat: Path, local: Conf, tmp_path: Path
) -> None:
    (tmp_path / "a:b").mkdir()
    (tmp_path / "a:b/file").touch()
    bakthat.backup(tmp_path / "a:b", conf=local, password="")
    with pytest.raises(DestinationError, match="can hold nothing of what was to be restored"):
        bakthat.restore("a:b", conf=local, output=exfat, keep_going=True)
    assert os.listdir(exfat) == []


def test_a_user_restores_to_a_file_system_that_belongs_to_root(exfat: Path) -> None:
    archive = member(b"d/inner", b"text") + member(b"d/other", b"text") + END
    report = ArchiveReport()

    def restore() -> list[str]:
        extract(Pieces(archive), exfat / "out", report=report)
        extract(Pieces(archive), exfat / "out", report=report)
        return [*report.warnings]

    found = as_nobody(restore)
    assert isinstance(found, list)
    assert [text.partition("not keep ")[2].partition(":")[0] for text in found] == [
        "modes, owners, times"
    ] * 2
    assert (exfat / "out/d/inner").read_text() == "text"


def test_a_file_with_more_links_than_ext4_allows_gets_a_few_copies(tmp_path: Path) -> None:
    count = LINKS_OF_EXT4 + 10
    first = member(b"first", b"content")
    links = (header(b"%d" % number, b"1", linkname=b"first") for number in range(count))
    report = ArchiveReport()
    with mounted_file_system("ext4") as made:
        out = made.path / "out"
        extract(Pieces(first + b"".join(links) + END), out, report=report)
        inodes = {entry.inode() for entry in os.scandir(out)}
        assert len(os.listdir(out)) == count + 1
        assert len(inodes) == 2
        assert (out / str(count - 1)).read_text() == "content"
    assert report.files == count + 1
    [warning] = report.warnings
    assert warning == "'64999' is a copy of 'first', not a hard link: too many links"


def test_what_is_too_large_for_ext4_is_left_out_and_the_rest_comes_back(local: Conf) -> None:
    with mounted_file_system("tmpfs") as large, mounted_file_system("ext4") as small:
        source = large.path / "tree"
        source.mkdir()
        with (source / "huge").open("wb") as stream:
            stream.truncate(17 * 2**40)
        os.link(source / "huge", source / "the same")
        (source / "text").write_text("text")
        bakthat.backup(source, conf=local, password="")
        out = small.path / "out"
        with pytest.raises(DestinationError, match="file too large") as caught:
            bakthat.restore("tree", conf=local, output=out)
        assert "--keep-going" in caught.value.hint
        assert not out.exists()
        bakthat.restore("tree", conf=local, output=out, keep_going=True)
        assert os.listdir(out / "tree") == ["text"]


def test_a_store_whose_file_system_does_not_allow_a_name_says_so(
    exfat: Path, local: Conf, tree: Path
) -> None:
    conf = local | {"local_path": str(exfat / "store")}
    with pytest.raises(StorageError, match="a:b") as caught:
        bakthat.backup(tree, conf=conf, password="", custom_filename="a:b")
    assert "--name" in caught.value.hint
    assert os.listdir(exfat / "store") == []
    bakthat.backup(tree, conf=conf, password="", custom_filename="ab")


def test_an_overlay_restores_over_what_its_lower_layer_has(local: Conf, tmp_path: Path) -> None:
    source = make_every_kind(tmp_path / "tree")
    bakthat.backup(source, conf=local, password="")

    def fill(lower: Path) -> None:
        (lower / "tree/read-only").mkdir(parents=True)
        (lower / "tree/text").mkdir()
        (lower / "tree/deep").symlink_to("elsewhere")
        for name in ("random", "link", "read-only/inside", "fifo"):
            (lower / "tree" / name).write_text("of the lower layer")

    with mounted_file_system("overlay on btrfs", fill=fill) as made:
        bakthat.restore("tree", conf=local, output=made.path)
        assert os.listdir(made.path) == ["tree"]
        assert fingerprint(made.path / "tree") == fingerprint(source)


def test_a_time_that_the_file_system_cannot_keep_is_named() -> None:
    archive = member(b"now") + pax([(b"mtime", b"20000000000")]) + member(b"later") + END
    report = ArchiveReport()
    with mounted_file_system("ext4") as made:
        extract(Pieces(archive), made.path / "out", report=report)
        assert (made.path / "out/later").stat().st_mtime < 2**34
    [warning] = report.warnings
    assert warning == "cannot restore the time of 'later': the file system keeps no such time"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_mount_of_the_same_file_system_in_the_destination_stays_as_it_was(
    tmp_path: Path,
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/d").mkdir(parents=True)
    (tmp_path / "out/a").write_text("old")
    archive = member(b"a", b"new") + member(b"d/inner", b"new") + END
    with mounted(tmp_path / "out/d", "--bind", str(tmp_path / "elsewhere")):
        with pytest.raises(DestinationError, match="cross-device link") as caught:
            extract(Pieces(archive), tmp_path / "out", report=ArchiveReport())
        assert "move the files by hand" in caught.value.hint
        assert sorted(os.listdir(tmp_path / "out")) == ["a", "d"]
        assert (tmp_path / "out/a").read_text() == "old"
        assert os.listdir(tmp_path / "elsewhere") == []
