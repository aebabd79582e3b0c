"""The tar writer: GNU tar and tarfile read its archives back."""

from __future__ import annotations

import errno
import io
import os
import socket
import stat
import subprocess
import sys
import tarfile
import tempfile
import tracemalloc
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bakthat.archive.acl import acl_text
from bakthat.archive.create import extents, writer
from bakthat.archive.create.excludes import find_rules
from bakthat.archive.create.hard_links import HardLinks
from bakthat.archive.create.walk import WalkOptions, scan
from bakthat.archive.create.writer import write_tree
from bakthat.archive.create.xattrs import AttributeReader
from bakthat.archive.extract.unpack import extract as unpack
from bakthat.archive.report import ArchiveReport
from bakthat.archive.tar import header
from bakthat.archive.tar.header import HeaderError, SharedPieces
from tests.support.archives import (
    MIB,
    Collector,
    content,
    extract,
    extract_all,
    gnu_tar,
    grow,
    members,
    store,
)
from tests.support.needs import as_root, missing

pytestmark = pytest.mark.permissions


def test_gnu_tar_finds_no_difference(tmp_path: Path) -> None:
    data, report = store(grow(tmp_path / "set"))
    gnu_tar(data, "--diff", "-C", tmp_path)
    assert report.warnings == []


def test_gnu_tar_extracts_every_kind_of_entry(tmp_path: Path) -> None:
    root = grow(tmp_path / "set")
    data, report = store(root)
    out = extract(data, tmp_path / "out")
    gnu_tar(data, "--diff", "-C", tmp_path / "out")
    assert (out / "d/small").stat().st_nlink == 3
    assert stat.S_ISFIFO((out / "fifo").stat().st_mode)
    assert (out / "d/tool").stat().st_mtime_ns == 1_700_000_000_123_456_789
    assert (out / "d/small").stat().st_mtime_ns == -2_000_000_000
    assert (out / "empty").stat().st_mode == (root / "empty").stat().st_mode
    counted = scan(root, WalkOptions())
    assert (report.files, report.directories) == (counted.files, counted.directories)
    assert report.bytes == counted.bytes


@pytest.mark.parametrize("mode", ["r|", "r:"])
def test_tarfile_extracts_the_same_tree(tmp_path: Path, mode: str) -> None:
    root = grow(tmp_path / "set")
    data, _ = store(root)
    with tarfile.open(fileobj=io.BytesIO(data), mode=mode) as tar:  # type: ignore[call-overload]  # the mode is a parameter
        extract_all(tar, tmp_path / "out")
    done = subprocess.run(
        ["diff", "-r", "--no-dereference", root, tmp_path / "out/set"], capture_output=True
    )
    same = f"File {root}/fifo is a fifo while file {tmp_path}/out/set/fifo is a fifo\n"
    assert done.stdout.decode() == same


def test_a_single_file_is_one_member(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    data, report = store(tmp_path / "file")
    assert list(members(data)) == ["set"]
    assert content(data, "set") == b"content"
    assert (report.files, report.directories, report.bytes) == (1, 0, 7)


def test_an_empty_directory_makes_one_record(tmp_path: Path) -> None:
    data, report = store(tmp_path)
    assert list(members(data)) == ["set"]
    assert len(data) == 10_240
    assert (report.files, report.directories, report.bytes) == (0, 1, 0)


def test_a_comment_is_skipped_by_tar_tools(tmp_path: Path) -> None:
    root = grow(tmp_path / "set")
    sink = Collector()
    comment = "set of \udcff é " * 100
    write_tree(root, "set", sink, WalkOptions(), report=ArchiveReport(), comment=comment)
    gnu_tar(sink.data, "--diff", "-C", tmp_path)
    with tarfile.open(fileobj=io.BytesIO(sink.data), mode="r|") as tar:
        assert [member.name for member in tar] == list(members(store(root)[0]))
        assert tar.pax_headers == {"comment": comment}


def test_excluded_files_are_not_stored(tmp_path: Path) -> None:
    (tmp_path / "keep").touch()
    (tmp_path / "drop.o").touch()
    (tmp_path / ".bakthatexclude").write_text("*.o\n")
    data, _ = store(tmp_path, WalkOptions(rules=find_rules(tmp_path)))
    assert list(members(data)) == ["set", "set/.bakthatexclude", "set/keep"]


_names = st.binary(min_size=1, max_size=40).map(
    lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_")
)
_names = _names.filter(lambda name: name not in (b".", b".."))
_trees = st.dictionaries(
    _names,
    st.tuples(st.integers(0, 5000), st.integers(0, 0o7777), st.integers(0, 2**33 * 10**9)),
    max_size=8,
)


@settings(max_examples=25, deadline=None)
@given(tree=_trees)
def test_any_tree_round_trips(tree: dict[bytes, tuple[int, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory, "set")
        root.mkdir()
        for name, (size, mode, mtime_ns) in tree.items():
            path = os.path.join(os.fsencode(root), name)
            with open(path, "wb") as file:
                file.write(name[:1] * size)
            # Readable at least: the tests need not run as root.
            os.chmod(path, mode | 0o400)
            os.utime(path, ns=(mtime_ns, mtime_ns))
        data, report = store(root)
        assert report.warnings == []
        gnu_tar(data, "--diff", "-C", directory)
        found = members(data)
        for name, (size, mode, mtime_ns) in tree.items():
            member = found["set/" + os.fsdecode(name)]
            assert (member.size, member.mode) == (size, mode | 0o400)
            # As text, since tarfile's own number is a float.
            seconds = Decimal(member.pax_headers.get("mtime", member.mtime))
            assert seconds * 10**9 == mtime_ns


@as_root
def test_devices_keep_their_numbers(tmp_path: Path) -> None:
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(tmp_path / "disk", stat.S_IFBLK | 0o660, os.makedev(4095, 1048575))
    found = members(store(tmp_path)[0])
    null, disk = found["set/null"], found["set/disk"]
    assert (null.type, null.devmajor, null.devminor) == (tarfile.CHRTYPE, 1, 3)
    assert (disk.type, disk.devmajor, disk.devminor) == (tarfile.BLKTYPE, 4095, 1048575)


def test_a_socket_is_a_warning(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{tmp_path}/s")
        data, report = store(tmp_path)
    assert list(members(data)) == ["set"]
    assert report.warnings == [f"{tmp_path}/s: is a socket; it is not stored"]


def sparse_file(path: Path, size: int, *runs: tuple[int, bytes]) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in runs:
            file.seek(offset)
            file.write(data)
    return path


@pytest.mark.parametrize(
    ("size", "runs"),
    [
        (10 * MIB, []),
        (10 * MIB, [(0, b"start" * 1000)]),
        (10 * MIB, [(4 * MIB, b"middle" * 1000)]),
        (10 * MIB, [(10 * MIB - 5000, b"e" * 5000)]),
        (10 * MIB + 1, [(MIB, b"a" * 4096), (3 * MIB, b"b" * (2 * MIB))]),
    ],
)
@pytest.mark.parametrize("name", ["sparse", "spärs" * 30])
def test_a_sparse_file_comes_back_without_its_holes(
    tmp_path: Path, name: str, size: int, runs: list[tuple[int, bytes]]
) -> None:
    root = tmp_path / "set"
    root.mkdir()
    (root / "before").write_bytes(b"before")
    path = sparse_file(root / name, size, *runs)
    (root / "z after").write_bytes(b"after")
    if not extents.looks_sparse(path.stat()):
        missing("the file system here has no sparse files")
    consumed: list[int] = []
    data, report = store(root, on_bytes=consumed.append)
    assert len(data) < size // 3
    assert report.bytes == sum(consumed) == scan(root, WalkOptions()).bytes < size // 3
    gnu_tar(data, "--diff", "-C", tmp_path)
    out = extract(data, tmp_path / "out")
    assert (out / name).read_bytes() == path.read_bytes()
    assert (out / name).stat().st_blocks <= path.stat().st_blocks + 16
    for mode in ("r|", "r:"):
        with tarfile.open(fileobj=io.BytesIO(data), mode=mode) as tar:
            extract_all(tar, tmp_path / mode)
        assert (tmp_path / mode / "set" / name).read_bytes() == path.read_bytes()
        assert (tmp_path / mode / "set/z after").read_bytes() == b"after"


def test_a_sparse_file_above_8_gib_is_quick_and_small(tmp_path: Path) -> None:
    size = 20 * 1024**3
    path = sparse_file(tmp_path / "big", size, (9 * 1024**3, b"data"))
    if not extents.looks_sparse(path.stat()):
        missing("the file system here has no sparse files")
    data, _ = store(tmp_path)
    assert len(data) < 100_000
    listed = subprocess.run(["tar", "-tvf", "-"], input=data, capture_output=True, check=True)
    assert f" {size} ".encode() in listed.stdout
    assert members(data)["set/big"].size == size


def test_a_sparse_file_with_too_many_holes_is_stored_with_the_last_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [(n * MIB, b"x" * 4096) for n in range(1, 6)]
    path = sparse_file(tmp_path / "many", 8 * MIB, *runs)
    if not extents.looks_sparse(path.stat()):
        missing("the file system here has no sparse files")
    monkeypatch.setattr(extents, "MAX_WRITTEN_EXTENTS", 3)
    data, _ = store(tmp_path)
    assert content(data, "set/many") == path.read_bytes()


def test_files_of_a_file_system_without_holes_are_stored_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sparse_file(tmp_path / "f", MIB, (0, b"data"))

    def lseek(_fd: int, _position: int, _how: int) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr("bakthat.archive.create.extents.os.lseek", lseek)
    data, report = store(tmp_path)
    assert content(data, "set/f") == path.read_bytes()
    assert report.bytes == scan(tmp_path, WalkOptions()).bytes == MIB


def set_attribute(path: Path, name: str, value: bytes) -> None:
    try:
        os.setxattr(path, name, value)
    except OSError as exc:
        missing(f"the file system here refuses {name}: {exc.strerror}")


def test_extended_attributes_come_back_through_gnu_tar(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    (root / "file").touch()
    values = {"user.bytes": bytes(range(256)), "user.a=b%": b"", "user.line": b"a\nb=c\n"}
    for name, value in values.items():
        set_attribute(root / "file", name, value)
        set_attribute(root, name, value)
    data, _ = store(root)
    out = extract(data, tmp_path / "out", "--xattrs")
    for path in (out, out / "file"):
        assert {name: os.getxattr(path, name) for name in os.listxattr(path)} == values
    record = members(data)["set/file"].pax_headers["SCHILY.xattr.user.bytes"]
    assert record.encode("utf-8", "surrogateescape") == bytes(range(256))


@pytest.mark.parametrize(
    "options", [["--acls"], ["--xattrs", "--acls"], ["--xattrs", "--xattrs-include=*"]]
)
@pytest.mark.needs("setfacl", "getfacl")
def test_acls_come_back_through_gnu_tar(tmp_path: Path, options: list[str]) -> None:
    root = tmp_path / "set"
    (root / "d").mkdir(parents=True)
    (root / "file").touch()
    subprocess.run(["setfacl", "-m", "u:12345:rw,g:54321:r,m:rwx", root / "file"], check=True)
    subprocess.run(["setfacl", "-m", "u:7:x,d:u:12345:rwx,d:o:-", root / "d"], check=True)
    data, _ = store(root)
    out = extract(data, tmp_path / "out", *options)
    for name in ("file", "d"):
        shown = ["getfacl", "--numeric", "--omit-header", "--absolute-names"]
        before = subprocess.run([*shown, root / name], capture_output=True, check=True)
        after = subprocess.run([*shown, out / name], capture_output=True, check=True)
        assert b"user:12345:rw" in after.stdout
        assert after.stdout == before.stdout
    assert "SCHILY.xattr.system.posix_acl_default" in members(data)["set/d"].pax_headers


@pytest.mark.parametrize(
    "value", [b"", b"\x02\0\0\0\x01", b"\x03\0\0\0", b"\x02\0\0\0" + b"\x03" * 8]
)
def test_an_acl_of_an_unknown_form_has_no_text(value: bytes) -> None:
    assert acl_text(value) is None


@as_root
def test_capabilities_are_stored(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    capability = bytes.fromhex("0100000200240000000000000000000000000000")
    set_attribute(tmp_path / "file", "security.capability", capability)
    record = members(store(tmp_path)[0])["set/file"].pax_headers["SCHILY.xattr.security.capability"]
    assert record.encode("utf-8", "surrogateescape") == capability


def test_attributes_that_cannot_be_read_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    set_attribute(tmp_path / "file", "user.a", b"a")
    set_attribute(tmp_path / "file", "user.b", b"b")
    real = os.getxattr

    def getxattr(path: int | str, name: str, *, follow_symlinks: bool) -> bytes:
        if name == "user.a":
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return real(path, name, follow_symlinks=follow_symlinks)

    monkeypatch.setattr("bakthat.system.linux.getxattr", getxattr)
    found = AttributeReader().records(str(tmp_path / "file"), 1)
    assert found == [(b"SCHILY.xattr.user.b", b"b")]


def test_attributes_that_no_reader_accepts_are_left_out_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("content")
    huge = [(b"SCHILY.xattr.user.%d" % number, bytes(65536)) for number in range(70)]
    monkeypatch.setattr(AttributeReader, "records", lambda *_arguments: huge)
    data, report = store(tmp_path)
    assert content(data, "set/file") == b"content"
    assert len(data) < 65536
    assert report.warning_count == 2
    assert "extended attributes are too large" in report.warnings[1]


def test_a_file_system_without_attributes_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def listxattr(path: str, *, follow_symlinks: bool) -> list[str]:
        assert not follow_symlinks
        asked.append(path)
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr("bakthat.system.linux.listxattr", listxattr)
    reader = AttributeReader()
    assert [reader.records(path, device) for path, device in (("a", 1), ("b", 1), ("c", 2))] == [
        [], [], [],
    ]  # fmt: skip
    assert asked == ["a", "c"]


def test_hard_links_outside_the_tree_are_no_members(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    (tmp_path / "outside").write_bytes(b"same")
    os.link(tmp_path / "outside", root / "a")
    os.link(tmp_path / "outside", root / "b")
    data, report = store(root)
    found = members(data)
    assert content(data, "set/a") == b"same"
    assert (found["set/b"].type, found["set/b"].linkname) == (tarfile.LNKTYPE, "set/a")
    assert (report.files, report.bytes) == (2, 4)


def test_other_names_of_links_and_fifos_are_hard_links_too(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("nowhere")
    os.mkfifo(tmp_path / "f")
    os.link(tmp_path / "a", tmp_path / "b", follow_symlinks=False)
    os.link(tmp_path / "f", tmp_path / "g")
    data, report = store(tmp_path)
    found = members(data)
    assert (found["set/a"].type, found["set/f"].type) == (tarfile.SYMTYPE, tarfile.FIFOTYPE)
    for name, first in (("b", "a"), ("g", "f")):
        member = found[f"set/{name}"]
        assert (member.type, member.linkname) == (tarfile.LNKTYPE, f"set/{first}")
    assert report.files == 4


def linked(
    inode: int,
    *,
    device: int = 64769,
    size: int = 3,
    mtime_ns: int = 10**18,
    kind: int = stat.S_IFREG,
) -> os.stat_result:
    """Return the status of a file with two names."""
    numbers = (kind | 0o644, inode, device, 2, 0, 0, size, 0, mtime_ns // 10**9, 0)
    return os.stat_result(numbers, {"st_mtime_ns": mtime_ns})


@pytest.mark.parametrize(
    "other",
    [
        linked(1, size=99),
        linked(1, mtime_ns=10**18 + 1),
        linked(1, kind=stat.S_IFIFO),
        linked(1, device=64770),
        linked(2),
    ],
    ids=["size", "time", "type", "device", "inode"],
)
def test_a_file_that_differs_in_anything_is_no_hard_link(other: os.stat_result) -> None:
    links = HardLinks()
    links.add(b"set/a", linked(1))
    assert links.find(other) is None


@pytest.mark.parametrize("mtime_ns", [-(2**63) * 10**9, -1, 0, (2**63 - 1) * 10**9 + 999_999_999])
def test_any_time_of_a_file_system_is_remembered(mtime_ns: int) -> None:
    status = linked(2**64 - 1, device=2**63, size=2**63 - 1, mtime_ns=mtime_ns)
    links = HardLinks()
    links.add(b"set/a", status)
    assert links.find(status) == b"set/a"


def test_a_file_whose_other_names_are_to_come_takes_little_memory() -> None:
    # A tree of snapshots by hard links has a million of them.
    count, name = 50_000, b"snapshots/daily.0/home/user/src/module"
    links = HardLinks()
    tracemalloc.start()
    try:
        for inode in range(10**7, 10**7 + count):
            links.add(name, linked(inode, mtime_ns=10**18 + inode))
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken / count < 160 + len(name)
    assert all(links.find(linked(i, mtime_ns=10**18 + i)) for i in range(10**7, 10**7 + count))
    assert not links._first


def test_hard_links_are_forgotten_once_all_were_seen(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    os.link(tmp_path / "a", tmp_path / "b")
    status = (tmp_path / "a").stat()
    links = HardLinks()
    links.add(b"first", status)
    assert links.find(status) == b"first"
    assert links.find(status) is None


def test_progress_is_reported_at_least_every_mib_and_to_the_last_byte(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 5 * MIB)
    for number in range(10):
        (tmp_path / f"b{number}").write_bytes(b"x" * number)
    consumed: list[int] = []
    _, report = store(tmp_path, on_bytes=consumed.append)
    assert sum(consumed) == report.bytes == 5 * MIB + 45
    assert max(consumed) <= MIB
    assert len(consumed) >= 6


def test_unknown_owners_are_stored_as_numbers_only(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    if os.geteuid() == 0:
        os.chown(tmp_path / "a", 4_000_000_001, 4_000_000_002)
    member = members(store(tmp_path)[0])["set/a"]
    status = (tmp_path / "a").stat()
    assert (member.uid, member.gid) == (status.st_uid, status.st_gid)
    if os.geteuid() == 0:
        assert (member.uname, member.gname) == ("", "")


def test_importing_the_writer_loads_no_heavy_library() -> None:
    code = (
        "import sys, bakthat.archive.create.writer as w; "
        "print(sorted({'boto3', 'cryptography', 'isal'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"


SECONDS = [9_223_372_036, 2**33, 2**33 - 1, 10**10, 2**62, 2**63 - 1, -1, -(2**31) - 1, -(2**62)]


@pytest.fixture
def many_times(tmp_path: Path) -> Iterator[Path]:
    """A directory where every time is kept, if there is a tmpfs."""
    base = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=base if base.is_dir() else tmp_path) as directory:
        yield Path(directory)


def test_every_time_that_the_file_system_keeps_is_restored(many_times: Path) -> None:
    source = many_times / "source"
    source.mkdir()
    kept = {}
    for number, seconds in enumerate(SECONDS):
        for path in (source / f"file{number}", source / f"directory{number}"):
            path.touch() if path.name[0] == "f" else path.mkdir()
            os.utime(path, ns=(0, seconds * 10**9 + 854_775_807))
            kept[path.name] = path.stat().st_mtime_ns  # another one, where it cannot keep it
    data, report = store(source)
    restored = ArchiveReport()
    unpack(io.BytesIO(data), many_times / "restored", report=restored)
    assert report.warnings == restored.warnings == []
    found = {path.name: path.stat().st_mtime_ns for path in (many_times / "restored/set").iterdir()}
    assert found == kept


def test_a_member_that_fits_no_header_is_left_out_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        (tmp_path / name).write_text(name)
    packed = header.pack_usual_header

    def refuse(name: bytes, shared: SharedPieces, size: int, mtime_ns: int) -> bytes | None:
        if name == b"set/b":
            raise HeaderError("its size -1 does not fit into a tar header")
        return packed(name, shared, size, mtime_ns)

    for name in "abc":
        os.utime(tmp_path / name, ns=(1, 1_700_000_000_123_456_789))
    monkeypatch.setattr(writer, "pack_usual_header", refuse)
    data, report = store(tmp_path)
    assert list(members(data)) == ["set", "set/a", "set/c"]
    assert content(data, "set/c") == b"c"
    assert report.files == 2
    assert report.warnings == [
        f"{tmp_path}/b: its size -1 does not fit into a tar header; it is not stored"
    ]
