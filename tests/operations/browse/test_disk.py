"""The entries of a directory on the disk."""

from __future__ import annotations

import contextlib
import grp
import hashlib
import os
import pwd
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from bakthat.archive.create import walk as walk_module
from bakthat.archive.create.excludes import find_rules
from bakthat.archive.create.walk import WalkOptions
from bakthat.archive.report import ArchiveReport
from bakthat.errors import SourceError
from bakthat.format.entry import Entry, EntryType
from bakthat.operations.browse.comparison import Aspect, Totals, compare
from bakthat.operations.browse.disk import DiskTree
from tests.support.trees import make_every_kind

pytestmark = pytest.mark.permissions


def disk(root: Path, *, reads: bool = False, **options: Any) -> DiskTree:
    return DiskTree(root, "top", WalkOptions(**options), ArchiveReport(), reads=reads)


def by_path(tree: DiskTree) -> dict[str, Entry]:
    return {entry.path.removeprefix("top").removeprefix("/"): entry for entry in tree.entries()}


def test_every_kind_has_what_lstat_says(tmp_path: Path) -> None:
    root = make_every_kind(tmp_path / "mydir")
    found = by_path(disk(root))
    assert found[""].path == "top"
    assert found[""].type is EntryType.DIRECTORY
    for name, entry in found.items():
        status = os.lstat(root / name)
        assert entry.mode == stat.S_IMODE(status.st_mode)
        assert (entry.uid, entry.gid) == (status.st_uid, status.st_gid)
        assert (entry.mtime_ns, entry.ctime_ns) == (status.st_mtime_ns, status.st_ctime_ns)
        assert entry.inode == status.st_ino
        if entry.type is EntryType.FILE:
            assert entry.size == status.st_size
    assert found["text"].owner == pwd.getpwuid(os.geteuid()).pw_name
    assert found["text"].group == grp.getgrgid(os.stat(root / "text").st_gid).gr_name
    assert found["link"].type is EntryType.SYMLINK
    assert found["link"].target == "text"
    assert found["fifo"].type is EntryType.FIFO
    assert (found["text"].type, found["text"].target) == (EntryType.HARDLINK, "top/hard link")
    assert "not-utf8-\udcff\udcfe" in found


def test_the_first_name_of_a_file_has_its_content(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("x")
    os.link(tmp_path / "b", tmp_path / "a")
    tree = disk(tmp_path)
    found = by_path(tree)
    assert (found["a"].type, found["a"].size) == (EntryType.FILE, 1)
    assert (found["b"].type, found["b"].target) == (EntryType.HARDLINK, "top/a")
    assert list(tree.first_names) == ["top/a"]
    resolved = tree.resolve(found["b"])
    assert resolved is not None
    assert (resolved.path, resolved.type, resolved.size) == ("top/b", EntryType.FILE, 1)
    assert set(tree.find(["top", "top/a", "top/missing"])) == {"top", "top/a"}


def test_a_socket_is_left_out_as_no_archive_can_hold_it(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "s"))
        assert list(by_path(disk(tmp_path))) == [""]


def test_what_the_patterns_leave_out_is_not_there(tmp_path: Path) -> None:
    for name in ("keep", "leave.o"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".gitignore").write_text("*.o\n")
    found = by_path(disk(tmp_path, rules=find_rules(tmp_path)))
    assert list(found) == ["", ".gitignore", "keep"]


def test_a_file_is_a_tree_of_one_entry(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("text")
    tree = disk(tmp_path / "f", reads=True)
    (entry,) = tree.entries()
    assert (entry.path, entry.type, entry.size) == ("top", EntryType.FILE, 4)
    hashed = tree.with_digest(entry)
    assert hashed is not None
    assert hashed.digest == hashlib.sha256(b"text").digest()


def test_a_missing_place_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot compare with .*: no such file or directory"):
        list(disk(tmp_path / "missing").entries())


class TestDigests:
    def test_that_of_a_sparse_file_counts_its_holes_as_zeros(self, tmp_path: Path) -> None:
        with (tmp_path / "f").open("wb") as file:
            file.seek(5_000_000)
            file.write(b"data")
            file.truncate(9_000_000)
        tree = disk(tmp_path, reads=True)
        hashed = tree.with_digest(by_path(tree)["f"])
        assert hashed is not None
        assert hashed.digest == hashlib.sha256((tmp_path / "f").read_bytes()).digest()

    def test_files_are_read_only_on_request(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_text("x")
        tree = disk(tmp_path)
        assert tree.with_digest(by_path(tree)["f"]) == by_path(tree)["f"]

    def test_a_file_of_several_names_is_read_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a").write_text("x")
        os.link(tmp_path / "a", tmp_path / "b")
        tree = disk(tmp_path, reads=True)
        found = by_path(tree)
        first = tree.with_digest(found["a"])
        monkeypatch.setattr("bakthat.operations.browse.disk.content_digest", None)
        second = tree.with_digest(found["b"])
        assert first is not None
        assert second is not None
        assert first.digest == second.digest

    def test_a_file_that_vanished_is_a_warning(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_text("x")
        report = ArchiveReport()
        tree = DiskTree(tmp_path, "top", WalkOptions(), report, reads=True)
        found = by_path(tree)
        (tmp_path / "f").unlink()
        assert tree.with_digest(found["f"]) is None
        assert report.warnings == [
            f"{tmp_path}/f: vanished before it was read; its content is not compared"
        ]


def test_what_is_below_a_directory_that_cannot_be_listed_is_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/b/c", "a/d", "e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    real = walk_module._open_directory

    def refusing(path: str) -> int:
        if path == str(tmp_path / "a/b"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(walk_module, "_open_directory", refusing)
    report = ArchiveReport()
    tree = DiskTree(tmp_path, "top", WalkOptions(), report, reads=False)
    found = by_path(tree)
    assert list(found) == ["", "a", "a/b", "a/d", "e"]
    assert report.warnings == [
        f"{tmp_path}/a/b: cannot list this directory: permission denied; "
        "its contents are not compared"
    ]
    assert [
        name for name in ("a", "a/b", "a/b/c", "a/d", "top") if tree.is_unread(f"top/{name}")
    ] == [
        "a/b",
        "a/b/c",
    ]


def test_two_directories_are_compared_as_they_are(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    for root in (before, after):
        make_every_kind(root)
        for path in sorted(root.rglob("*")):
            os.utime(path, ns=(1, 1), follow_symlinks=False)
        os.utime(root, ns=(1, 1))
    same = [each.path for each in compare(disk(before), disk(after), Totals())]
    assert same == []
    attributes: dict[str, tuple[Aspect, ...]] = {}
    if os.listxattr(after / "text"):
        attributes["text"] = (Aspect.CONTENT, Aspect.TIMES, Aspect.TARGET, Aspect.ATTRIBUTES)
    (after / "text").unlink()
    (after / "text").write_text("other")
    owner = os.lstat(after / "link")
    (after / "link").unlink()
    (after / "link").symlink_to("random")
    os.chown(after / "link", owner.st_uid, owner.st_gid, follow_symlinks=False)
    (after / "new").mkdir()
    (after / "fifo").chmod(0o600)
    with contextlib.suppress(OSError):  # not on every file system
        os.setxattr(after / "random", "user.colour", b"red")
        attributes["random"] = (Aspect.ATTRIBUTES,)
    found = compare(disk(before), disk(after), Totals())
    changed = {each.path.removeprefix("top/"): each.aspects for each in found}
    assert changed == {
        "top": (Aspect.TIMES,),
        "fifo": (Aspect.MODE,),
        "link": (Aspect.TIMES, Aspect.TARGET),
        "new": (),
        "text": (Aspect.CONTENT, Aspect.TIMES, Aspect.TARGET),
        "the same fifo": (Aspect.MODE,),
        **attributes,
    }
