from __future__ import annotations

import errno
import io
import os
import re
import shutil
import signal
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bakthat.archive.create.walk import WalkOptions
from bakthat.archive.create.writer import write_tree
from bakthat.archive.extract import publish, staging
from bakthat.archive.extract.unpack import extract, restore_file, verify
from bakthat.archive.gzip.reader import GzipReader
from bakthat.archive.gzip.writer import GzipWriter
from bakthat.archive.report import ArchiveReport
from bakthat.errors import CorruptArchiveError, DestinationError, UnsafeMemberError
from tests.support.needs import as_root
from tests.support.tar_bytes import (
    END,
    NOBODY,
    Pieces,
    as_nobody,
    header,
    member,
    pax,
    reachable_directory,
    snapshot,
)

pytestmark = pytest.mark.permissions

ROOT = os.geteuid() == 0


def gnu_tar(directory: Path, *options: str) -> bytes:
    command = ["tar", "--sort=name", *options, "-cf", "-", "-C", str(directory), "."]
    return subprocess.run(command, capture_output=True, check=True).stdout


def restore(archive: bytes, destination: Path, piece: int = 1 << 20) -> ArchiveReport:
    report = ArchiveReport()
    source = Pieces(archive, piece)
    extract(source, destination, report=report)
    assert source.drained
    assert not list(destination.glob(".bakthat-restore-*"))
    return report


def make_tree(root: Path) -> None:
    """Every kind of file, with all metadata."""
    for name in ("plain", "deep/er/still", "empty", "closed", "shared-group"):
        (root / name).mkdir(parents=True)
    (root / "plain" / "file").write_bytes(b"content" * 3000)
    (root / "plain" / "empty").write_bytes(b"")
    (root / "plain" / os.fsdecode(b"\xff\n\x1b[1m")).write_bytes(b"odd name")
    (root / ("n" * 200)).write_bytes(b"long name")
    (root / "deep/er/still/secret").write_bytes(b"secret")
    (root / "deep/er/still/secret").chmod(0o400)
    (root / "closed" / "in").write_bytes(b"in")
    os.link(root / "plain/file", root / "deep/hard")
    os.symlink("/nowhere/at/all", root / "dangling")
    os.symlink("plain/file", root / "soft")
    os.link(root / "soft", root / "hard-to-soft", follow_symlinks=False)
    os.mkfifo(root / "fifo", 0o620)
    with open(root / "sparse", "wb") as stream:
        stream.seek(5 << 20)
        stream.write(b"middle")
        stream.truncate(20 << 20)
    os.setxattr(root / "plain/file", "user.note", b"\0binary\n")
    os.setxattr(root / "plain", "user.dir", b"too")
    (root / "plain/file").chmod(0o4755)
    (root / "shared-group").chmod(0o2775)
    (root / "empty").chmod(0o1777)
    if ROOT:
        os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(root / "block", 0o600 | stat.S_IFBLK, os.makedev(7, 200))
        os.chown(root / "deep/er", 1234, 5678)
        os.chown(root / "dangling", 1234, 5678, follow_symlinks=False)
        os.chown(root / "empty", 4321, 4321)
        acl = ["setfacl", "-m", "u:1234:rwx,g:99:r", str(root / "plain/file")]
        subprocess.run(acl, check=True)
        subprocess.run(["setfacl", "-d", "-m", "u:1234:rx", str(root / "deep")], check=True)
        capability = b"\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
        os.setxattr(root / "deep/er/still/secret", "security.capability", capability)
        os.setxattr(root / "dangling", "trusted.link", b"on a link", follow_symlinks=False)
    (root / "closed").chmod(0o500)
    for index, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        times = (0, 1_600_000_000_123_456_789 + index)
        os.utime(path, ns=times, follow_symlinks=False)
    os.utime(root / "fifo", ns=(0, -1_500_000_000))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
@pytest.mark.parametrize("piece", [1 << 20, 777])
def test_every_kind_of_file_is_restored_from_an_archive_of_gnu_tar(
    tmp_path: Path, umask: int, piece: int
) -> None:
    source, destination = tmp_path / "source", tmp_path / "destination"
    source.mkdir()
    make_tree(source)
    archive = gnu_tar(source, "--format=posix", "--xattrs", "--acls", "--sparse")
    before = os.umask(umask)
    try:
        destination.mkdir(0o755)
        destination.chmod(0o755)
        report = restore(archive, destination, piece)
    finally:
        os.umask(before)
    assert report.warnings == []
    assert snapshot(destination) == snapshot(source)
    assert (destination / "sparse").stat().st_blocks * 512 < 1 << 20
    assert (destination / "plain/file").samefile(destination / "deep/hard")
    assert report.directories == 7
    assert report.bytes < 1 << 20
    counted = verify(Pieces(archive))
    assert (counted.files, counted.directories) == (report.files, report.directories)
    assert counted.bytes == report.bytes


def test_every_kind_of_file_is_restored_from_an_archive_of_bakthat(tmp_path: Path) -> None:
    source, destination = tmp_path / "source", tmp_path / "destination"
    source.mkdir()
    make_tree(source)
    (source / "hard-to-soft").unlink()  # the writer stores a second link instead
    stored = io.BytesIO()
    written = ArchiveReport()
    with GzipWriter(stored, threads=2) as sink:
        write_tree(source, "root", sink, WalkOptions(), report=written, comment="this one")
    stored.seek(0)
    report = ArchiveReport()
    comments: list[bytes] = []
    with GzipReader(stored, threads=2) as reader:
        paths = extract(reader, destination, report=report, check_comment=comments.append)
    assert set(comments) == {b"this one"}
    assert paths == [destination / "root"]
    assert report.warnings == written.warnings == []
    assert snapshot(destination / "root") == snapshot(source)
    assert (report.files, report.directories) == (written.files, written.directories)
    assert report.bytes == written.bytes


@as_root
def test_acls_that_are_stored_only_as_text_are_restored(tmp_path: Path) -> None:
    source, destination = tmp_path / "source", tmp_path / "destination"
    (source / "d").mkdir(parents=True)
    (source / "d/f").write_bytes(b"")
    for options in (["-m", "u:daemon:rwx,g:4242:r"], ["-d", "-m", "u:4242:rx,g:daemon:-"]):
        target = "d" if "-d" in options else "d/f"
        subprocess.run(["setfacl", *options, str(source / target)], check=True)
    archive = gnu_tar(source, "--format=posix", "--acls", "--xattrs-exclude=*")
    # Payloads of pax headers have no checksum.
    text_only = archive.replace(b"SCHILY.xattr.system", b"SCHILY.other.system")
    assert restore(text_only, destination).warnings == []
    assert snapshot(destination) == snapshot(source)


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_archive_of_pythons_tarfile_is_restored(tmp_path: Path, format_: int) -> None:
    source, destination = tmp_path / "source", tmp_path / "destination"
    source.mkdir()
    make_tree(source)
    (source / "sparse").unlink()
    (source / "hard-to-soft").unlink()  # tarfile stores a second link instead
    for path in [source, *source.rglob("*")]:
        for name in os.listxattr(path, follow_symlinks=False):
            os.removexattr(path, name, follow_symlinks=False)
        seconds = abs(int(os.lstat(path).st_mtime))
        os.utime(path, (seconds, seconds), follow_symlinks=False)
    if format_ == tarfile.USTAR_FORMAT:
        (source / ("n" * 200)).unlink()
        os.utime(source)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format_, errors="surrogateescape") as tar:
        tar.add(source, ".")
    assert restore(stream.getvalue(), destination).warnings == []
    assert snapshot(destination) == snapshot(source)


def test_a_summary_of_a_restore_has_its_top_level_paths(tmp_path: Path) -> None:
    archive = member(b"b/c/d", b"12345") + header(b"a", b"5") + member(b"./e", b"6") + END
    (tmp_path / "b").mkdir()
    report = ArchiveReport()
    paths = extract(Pieces(archive), tmp_path, report=report)
    assert paths == [tmp_path / "a", tmp_path / "b", tmp_path / "e"]
    assert (report.files, report.directories, report.bytes) == (2, 1, 6)


def test_an_empty_archive_restores_nothing(tmp_path: Path) -> None:
    assert extract(Pieces(END), tmp_path / "new/er", report=ArchiveReport()) == []
    assert os.listdir(tmp_path / "new/er") == []


def test_the_root_of_an_archive_changes_nothing_of_the_destination(tmp_path: Path) -> None:
    tmp_path.chmod(0o751)
    restore(header(b"./", b"5", mode=0o700) + member(b".//a", b"1") + END, tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o751
    assert (tmp_path / "a").read_bytes() == b"1"


def test_a_destination_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    restore(member(b"a", b"1") + END, tmp_path / "link")
    assert (tmp_path / "real/a").read_bytes() == b"1"


def test_nothing_is_inherited_from_the_destination(tmp_path: Path) -> None:
    destination = tmp_path / "d"
    destination.mkdir()
    if ROOT:
        os.chown(destination, 0, 4242)
    destination.chmod(0o2775)
    subprocess.run(["setfacl", "-d", "-m", "u:1234:rwx", str(destination)], check=True)
    source = tmp_path / "s"
    (source / "in/ner").mkdir(parents=True)
    (source / "in/ner/f").write_bytes(b"1")
    restore(gnu_tar(source), destination)
    assert snapshot(destination).keys() == snapshot(source).keys()
    for name, (mode, _, ids, _, xattrs, _) in snapshot(destination).items():
        assert (name, mode, ids, xattrs) == (
            name,
            snapshot(source)[name][0],
            (os.geteuid(), os.getegid()),
            {},
        )


def test_the_later_of_two_members_with_one_name_wins(tmp_path: Path) -> None:
    archive = (
        member(b"f", b"old", mode=0o600)
        + header(b"f-link", b"1", linkname=b"f")
        + header(b"l", b"2", linkname=b"target")
        + header(b"d", b"5", mode=0o700)
        + header(b"was-dir", b"5")
        + member(b"was-file", b"1")
        + member(b"f", b"newer", mode=0o640)
        + member(b"l", b"now a file")
        + header(b"d", b"5", mode=0o750)
        + member(b"was-dir", b"2")
        + header(b"was-file", b"5")
        + header(b"f-link", b"2", linkname=b"f")
        + END
    )
    restore(archive, tmp_path)
    assert (tmp_path / "f").read_bytes() == b"newer"
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640
    assert (tmp_path / "l").read_bytes() == b"now a file"
    assert not (tmp_path / "l").is_symlink()
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o750
    assert (tmp_path / "was-dir").read_bytes() == b"2"
    assert (tmp_path / "was-file").is_dir()
    assert os.readlink(tmp_path / "f-link") == "f"


def reentered() -> bytes:
    acl = b"\2\0\0\0\1\0\7\0\xff\xff\xff\xff\4\0\5\0\xff\xff\xff\xff \0\5\0\xff\xff\xff\xff"
    return (
        pax([(b"mtime", b"5.5"), (b"SCHILY.xattr.system.posix_acl_default", acl)])
        + header(b"a", b"5", mode=0o500)
        + header(b"a/b", b"5", mode=0o2555, mtime=6)
        + member(b"a/b/one", b"1")
        + member(b"other", b"2")
        + member(b"a/b/two", b"3")
        + header(b"z", b"1", linkname=b"a/b/one")
        + member(b"a/three", b"4")
        + END
    )


def check_reentered(destination: Path) -> None:
    a, b = (destination / "a").stat(), (destination / "a/b").stat()
    assert (a.st_mtime_ns, b.st_mtime_ns) == (5_500_000_000, 6_000_000_000)
    assert (stat.S_IMODE(a.st_mode), stat.S_IMODE(b.st_mode) & 0o777) == (0o500, 0o555)
    assert os.listxattr(destination / "a") == ["system.posix_acl_default"]
    assert os.listxattr(destination / "a/b/two") == os.listxattr(destination / "a/three") == []
    assert (destination / "z").samefile(destination / "a/b/one")
    assert (destination / "a/b/two").read_bytes() == b"3"


def test_a_directory_that_is_entered_again_keeps_its_metadata(tmp_path: Path) -> None:
    restore(reentered(), tmp_path)
    check_reentered(tmp_path)
    if ROOT:
        assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o2555


@as_root
def test_a_user_restores_read_only_directories_also_over_themselves(shared: Path) -> None:
    def twice() -> list[str]:
        restore(reentered(), shared)
        check_reentered(shared)
        return restore(reentered(), shared).warnings

    assert as_nobody(twice) == ["left out setuid and setgid of 'a/b': its owner was not restored"]
    check_reentered(shared)


@as_root
def test_a_user_owns_what_is_restored_and_is_warned_of_what_is_left_out(shared: Path) -> None:
    (shared / "source").mkdir()
    make_tree(shared / "source")
    archive = gnu_tar(shared / "source", "--format=posix", "--xattrs", "--sparse")

    def unprivileged() -> list[str]:
        return restore(archive, shared / "mine").warnings

    warnings = as_nobody(unprivileged)
    assert isinstance(warnings, list)
    text = "\n".join(warnings)
    for part in ("character device './null'", "block device './block'", "setuid", "trusted.link"):
        assert part in text
    there, here = snapshot(shared / "source", owners=False), snapshot(shared / "mine")
    assert there.keys() - here.keys() == {"null", "block"}
    for name, (mode, mtime, ids, content, _, first) in here.items():
        assert ids == (NOBODY, NOBODY)
        expected = oct(int(str(there[name][0]), 8) & ~0o6000)
        assert (mode, mtime, content, first) == (
            expected,
            *there[name][1:2],
            *there[name][3:6:2],
        ) or (first == there[name][5] and (mode, mtime, content) == (expected, *there[name][1:4:2]))


@as_root
def test_an_owner_is_found_by_name_where_the_name_exists(tmp_path: Path) -> None:
    archive = (
        pax([(b"uname", b"daemon"), (b"gname", b"daemon"), (b"uid", b"777"), (b"gid", b"777")])
        + member(b"known")
        + pax([(b"uname", b"no\0such"), (b"gname", b"nosuch"), (b"uid", b"777"), (b"gid", b"7")])
        + member(b"unknown")
        + END
    )
    restore(archive, tmp_path)
    assert (tmp_path / "known").owner() == (tmp_path / "known").group() == "daemon"
    assert ((tmp_path / "unknown").stat().st_uid, (tmp_path / "unknown").stat().st_gid) == (777, 7)


def test_an_archive_merges_with_existing_files(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    destination = tmp_path / "destination"
    (destination / "d/implied").mkdir(parents=True)
    (destination / "d/kept").write_bytes(b"kept")
    (destination / "d/f").write_bytes(b"old")
    os.link(destination / "d/f", destination / "d/other-name")
    (destination / "d/link").symlink_to(outside)
    (destination / "d/dirlink").symlink_to(outside)
    (destination / "d/emptydir").mkdir()
    os.mkfifo(destination / "d/fifo")
    (destination / "d/implied").chmod(0o751)
    (destination / "d").chmod(0o700)
    archive = (
        pax([(b"mtime", b"9.000000001"), (b"SCHILY.xattr.user.new", b"1")])
        + header(b"d", b"5", mode=0o755)
        + member(b"d/f", b"new")
        + member(b"d/link", b"a file")
        + header(b"d/dirlink", b"5")
        + member(b"d/dirlink/in", b"in")
        + member(b"d/emptydir", b"a file")
        + member(b"d/fifo", b"a file")
        + member(b"d/implied/x/y", b"y")
        + END
    )
    restore(archive, destination)
    d = destination / "d"
    assert (d / "kept").read_bytes() == b"kept"
    assert (d / "f").read_bytes() == b"new"
    assert (d / "other-name").read_bytes() == b"old"
    for name in ("link", "emptydir", "fifo"):
        assert (d / name).read_bytes() == b"a file"
    assert not (d / "dirlink").is_symlink()
    assert os.listdir(d / "dirlink") == ["in"]
    assert os.listdir(outside) == []
    assert (stat.S_IMODE(d.stat().st_mode), d.stat().st_mtime_ns) == (0o755, 9_000_000_001)
    assert os.getxattr(d, "user.new") == b"1"
    assert stat.S_IMODE((d / "implied").stat().st_mode) == 0o751
    assert (d / "implied/x/y").read_bytes() == b"y"


def test_very_deep_trees_are_restored_and_removed_again(tmp_path: Path) -> None:
    path = b"/".join([b"d"] * 300)
    archive = b"".join(
        pax([(b"path", path[: 2 * depth - 1])]) + header(b"x", b"5", mode=0o555, mtime=depth)
        for depth in range(1, 301)
    )
    with pytest.raises(CorruptArchiveError):
        extract(Pieces(archive), tmp_path, report=ArchiveReport())
    assert os.listdir(tmp_path) == []
    archive += pax([(b"path", path + b"/f")]) + member(b"x", b"deep") + END
    for _ in range(2):  # the second time everything is merged
        restore(archive, tmp_path)
    fd = os.open(tmp_path, os.O_RDONLY)
    for depth in range(1, 301):
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
        assert os.fstat(fd).st_mtime == depth
        os.fchmod(fd, 0o700)
    assert os.listdir(fd) == ["f"]
    os.close(fd)
    # Too deep for pytest to remove.
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


names = st.sampled_from([b"a", b"b", b"c.d", b"\xff", b"e f", b"-x"])
paths = st.lists(names, min_size=1, max_size=4).map(b"/".join)
entries = st.lists(
    st.tuples(
        paths,
        st.sampled_from(["file", "directory", "symlink", "hardlink"]),
        st.binary(max_size=1500),
        st.sampled_from([0o000, 0o400, 0o500, 0o644, 0o755, 0o1777] if ROOT else [0o700, 0o755]),
        st.integers(-(10**18), 10**18),
    ),
    max_size=12,
)


@given(entries=entries, piece=st.sampled_from([1 << 20, 513]))
@settings(max_examples=25, deadline=None)
def test_any_tree_is_restored_and_then_again_over_itself(
    entries: list[tuple[bytes, str, bytes, int, int]], piece: int
) -> None:
    with reachable_directory() as root:
        source = root / "source"
        source.mkdir()
        files: list[str] = []
        for path, kind, content, mode, mtime in entries:
            target = os.path.join(os.fsencode(source), path)
            try:
                os.makedirs(os.path.dirname(target), exist_ok=True)
                if kind == "file":
                    with open(target, "xb") as stream:
                        stream.write(content)
                    files.append(os.fsdecode(target))
                elif kind == "directory":
                    os.mkdir(target)
                elif kind == "symlink":
                    os.symlink(content.replace(b"\0", b"")[:50] or b"x", target)
                elif files:
                    os.link(files[-1], os.fsdecode(target))
            except (FileExistsError, FileNotFoundError, NotADirectoryError):
                continue
            if kind in ("file", "directory"):
                os.chmod(target, mode)
            if os.path.lexists(target):
                os.utime(target, ns=(0, mtime), follow_symlinks=False)
        archive = gnu_tar(source, "--format=posix")
        for _ in range(2):
            assert restore(archive, root / "out", piece).warnings == []
            assert snapshot(root / "out") == snapshot(source)


def test_one_plain_file_is_restored_with_its_mode_and_time(tmp_path: Path) -> None:
    report = ArchiveReport()
    counted: list[int] = []
    path = restore_file(
        Pieces(b"x" * 3000, 1000),
        tmp_path / "new",
        "dump.sql",
        report=report,
        mode=0o644,
        mtime_ns=1_500_000_001,
        on_bytes=counted.append,
    )
    assert path == tmp_path / "new/dump.sql"
    assert path.read_bytes() == b"x" * 3000
    assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_mtime_ns) == (0o644, 1_500_000_001)
    assert (report.files, report.bytes, counted) == (1, 3000, [1000] * 3)
    restore_file(Pieces(b""), tmp_path / "new", "dump.sql", report=report)
    assert path.read_bytes() == b""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path / "new") == ["dump.sql"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "a\0b"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafeMemberError):
        restore_file(Pieces(b"x"), tmp_path / "new", name, report=ArchiveReport())
    assert os.listdir(tmp_path) == []


def test_a_file_is_not_restored_over_a_directory_nor_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "d/in").mkdir(parents=True)
    (tmp_path / "target").write_bytes(b"kept")
    (tmp_path / "link").symlink_to("target")
    with pytest.raises(DestinationError, match=r"cannot put a file at .*it is a directory"):
        restore_file(Pieces(b"x"), tmp_path, "d", report=ArchiveReport())
    restore_file(Pieces(b"x"), tmp_path, "link", report=ArchiveReport())
    assert (tmp_path / "target").read_bytes() == b"kept"
    assert (tmp_path / "link").read_bytes() == b"x"


@pytest.mark.parametrize("comment", [b"me", b"", b"\xff\n"])
def test_an_archive_whose_comment_is_refused_leaves_nothing(tmp_path: Path, comment: bytes) -> None:
    archive = pax([(b"comment", comment)], b"g") + member(b"f", b"1") + END
    extract(Pieces(archive), tmp_path / "any", report=ArchiveReport())

    def refuse(found: bytes) -> None:
        raise CorruptArchiveError(f"found {found!r}")

    for content, found in ((archive, comment), (member(b"f") + END, b""), (END, b"")):
        with pytest.raises(CorruptArchiveError, match=re.escape(f"found {found!r}")):
            extract(Pieces(content), tmp_path / "new", report=ArchiveReport(), check_comment=refuse)
        assert not (tmp_path / "new").exists()


def test_further_interrupts_do_not_stop_the_undo_after_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    (target / "d").mkdir(parents=True)
    for number in range(40):
        (target / "d" / f"f{number:02}").write_text("old")
    before = snapshot(target)
    files = [member(b"d/f%02d" % number, b"new") for number in range(40)]
    archive = member(b"d/", kind=b"5") + b"".join(files) + END
    calls: list[bytes] = []
    real = publish._rename

    def rename(name: bytes, source: int, aim: int) -> None:
        calls.append(name)
        if len(calls) >= 20:
            os.kill(os.getpid(), signal.SIGINT)  # and again at every later move
        real(name, source, aim)

    monkeypatch.setattr(publish, "_rename", rename)
    with pytest.raises(KeyboardInterrupt):
        extract(Pieces(archive), target, report=ArchiveReport())
    assert len(calls) > 30  # some moves, and their undoing
    assert snapshot(target) == before
    assert sorted(path.name for path in target.iterdir()) == ["d"]


def test_files_that_cannot_be_put_back_are_kept_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "target"
    (target / "d").mkdir(parents=True)
    for number in range(4):
        (target / "d" / f"f{number}").write_text(f"old {number}")
    files = [member(b"d/f%d" % number, b"new") for number in range(4)]
    archive = member(b"d/", kind=b"5") + b"".join(files) + END
    calls: list[bytes] = []
    real = publish._rename

    def rename(name: bytes, source: int, aim: int) -> None:
        calls.append(name)
        if len(calls) >= 3:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(name, source, aim)

    monkeypatch.setattr(publish, "_rename", rename)
    with pytest.raises(DestinationError, match="nput/output error"):
        extract(Pieces(archive), target, report=ArchiveReport())
    (kept,) = [path for path in target.iterdir() if path.name != "d"]
    assert str(kept) in caplog.text
    contents = {path.read_text() for path in tmp_path.rglob("f?") if path.is_file()}
    assert contents >= {f"old {number}" for number in range(4)}  # wherever they are now


def forgetful(real: Callable[[int], list[str]], hidden: set[str]) -> Callable[[int], list[str]]:
    """List a directory, but not the names in *hidden*."""
    return lambda directory: [name for name in real(directory) if name not in hidden]


@pytest.mark.parametrize("hidden", [{"a", "b"}, {"b"}, {"inner"}])
def test_files_that_were_not_moved_are_an_error_and_are_kept(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    hidden: set[str],
) -> None:
    destination = tmp_path / "out"
    (destination / "d/deep").mkdir(parents=True)
    (destination / "d/deep/old").write_text("old")
    (destination / "a").write_text("old")
    before = snapshot(destination)
    archive = member(b"a", b"new") + member(b"b", b"new") + member(b"d/inner", b"new")
    archive += member(b"d/deep/old", b"new") + END
    monkeypatch.setattr(publish, "names_in", forgetful(staging.names_in, hidden))
    with pytest.raises(DestinationError, match="not everything could be moved"):
        extract(Pieces(archive), destination, report=ArchiveReport())
    [kept] = destination.glob(".bakthat-restore-*")
    assert f"could not be moved into place are in '{kept}'" in caplog.text
    tree = kept / "tree"
    for name in ("a", "b", "d/inner", "d/deep/old"):
        assert (tree / name).read_text() == "new"
    shutil.rmtree(kept)
    after = snapshot(destination)
    assert after == before


def test_a_plain_file_that_was_not_moved_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "names_in", lambda _directory: [])
    with pytest.raises(DestinationError, match="not everything could be moved"):
        restore_file(Pieces(b"dump"), tmp_path / "out", "dump.sql", report=ArchiveReport())
    [kept] = (tmp_path / "out").glob(".bakthat-restore-*")
    assert (kept / "tree/dump.sql").read_bytes() == b"dump"


def test_a_directory_that_stays_open_is_listed_by_a_new_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As btrfs does it: a descriptor lists what there was when it was opened, here nothing.
    listdir = os.listdir

    def of_old(directory: int | str) -> list[str]:
        return [] if directory == root else listdir(directory)

    root = os.open(tmp_path, os.O_RDONLY)
    monkeypatch.setattr(os, "listdir", of_old)
    try:
        (tmp_path / "directory/inner").mkdir(parents=True)
        assert staging.names_in(root) == ["directory"]
        staging.remove_content(root)
        assert listdir(tmp_path) == []
    finally:
        os.close(root)
