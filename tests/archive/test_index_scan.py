"""Find the entries of an archive by reading it."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
from pathlib import Path

import pytest

from bakthat.archive.attributes import attributes_digest
from bakthat.archive.create.xattrs import AttributeReader
from bakthat.archive.index.scan import TarScan
from bakthat.errors import CorruptArchiveError, UnsafeMemberError
from bakthat.format.entry import Entry, EntryType
from tests.support.archives import store
from tests.support.tar_bytes import END, Pieces, member, pax
from tests.support.trees import make_every_kind


def scan(archive: bytes) -> tuple[list[Entry], TarScan]:
    found = TarScan(Pieces(archive))
    return list(found), found


def check_places(entries: list[Entry], archive: bytes) -> None:
    position = entries[0].position
    for entry in entries:
        assert entry.position == position
        assert entry.header_bytes >= 512
        position = entry.end
    assert archive[position:].strip(b"\0") == b""


@pytest.mark.parametrize("sparse_format", ["own", "gnu", "0.0", "0.1", "1.0"])
@pytest.mark.needs("GNU tar")
def test_every_kind_of_entry_is_found(tmp_path: Path, sparse_format: str) -> None:
    root = make_every_kind(tmp_path / "set")
    if sparse_format == "own":
        archive, _ = store(root)
    else:
        kind = ["--format=pax", "--xattrs", f"--sparse-version={sparse_format}"]
        kind = ["--format=gnu"] if sparse_format == "gnu" else kind
        command = ["tar", "-c", "-S", "--sort=name", *kind, "-C", str(tmp_path), "set"]
        archive = subprocess.run(command, capture_output=True, check=True).stdout
    entries, found = scan(archive)
    check_places(entries, archive)
    assert found.is_sorted
    assert found.tar_bytes == len(archive)
    places = {os.fsencode(entry.path): entry for entry in entries}
    on_disk = [root, *root.rglob("*")]
    assert sorted(places) == sorted(os.fsencode(path.relative_to(tmp_path)) for path in on_disk)
    reader = AttributeReader()
    for path in on_disk:
        entry = places[os.fsencode(path.relative_to(tmp_path))]
        status = path.lstat()
        assert entry.type is EntryType.HARDLINK or (
            (entry.mode, entry.uid, entry.gid, entry.mtime_ns // 10**9)
            == (
                status.st_mode & 0o7777,
                status.st_uid,
                status.st_gid,
                int(status.st_mtime_ns // 10**9),
            )
        )
        if entry.type is EntryType.FILE:
            content = path.read_bytes()
            assert (entry.size, entry.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        elif entry.type is EntryType.SYMLINK:
            assert entry.target == os.readlink(path)
        elif entry.type is EntryType.HARDLINK:
            assert places[os.fsencode(entry.target)].type in (
                EntryType.FILE,
                EntryType.SYMLINK,
                EntryType.FIFO,
            )
        if sparse_format == "own":
            records = reader.records(str(path), status.st_dev)
            assert (
                entry.attributes == attributes_digest(records) or entry.type is EntryType.HARDLINK
            )
    assert places[b"set/sparse"].stored_bytes < places[b"set/sparse"].size


def test_names_lose_needless_parts_and_the_order_is_told() -> None:
    archive = member(b"./", kind=b"5") + member(b"./a//b/./c", b"1") + member(b"a/")
    entries, found = scan(archive + END)
    assert [(entry.path, entry.type) for entry in entries] == [
        ("a/b/c", EntryType.FILE),
        ("a", EntryType.DIRECTORY),
    ]
    assert not found.is_sorted
    check_places(entries, archive)


@pytest.mark.parametrize(
    ("names", "is_sorted"),
    [
        ([b"a", b"a/b", b"a.b", b"b"], True),
        ([b"a", b"a.b", b"a/b"], False),
        ([b"a", b"a"], False),
        ([], True),
    ],
)
def test_the_order_is_component_by_component(names: list[bytes], is_sorted: bool) -> None:
    _, found = scan(b"".join(map(member, names)) + END)
    assert found.is_sorted is is_sorted


def test_a_global_header_in_the_middle_belongs_to_the_member_after_it() -> None:
    comment = pax([(b"comment", b"c")], kind=b"g")
    archive = comment + member(b"a", b"1") + comment + member(b"b", b"2")
    entries, found = scan(archive + END)
    check_places(entries, archive)
    assert [entry.header_bytes for entry in entries] == [512, 1536]
    assert found.comment == b"c"


@pytest.mark.parametrize("name", [b"/etc/passwd", b"../up", b"a/../../up"])
def test_a_path_that_leaves_the_archive_is_refused(name: bytes) -> None:
    with pytest.raises(UnsafeMemberError, match="would leave the directory"):
        scan(member(name) + END)
    link = member(b"link", kind=b"1", linkname=name)
    with pytest.raises(UnsafeMemberError, match="would leave the directory"):
        scan(link + END)


def test_a_truncated_archive_is_refused() -> None:
    with pytest.raises(CorruptArchiveError, match="truncated"):
        list(TarScan(io.BytesIO(member(b"a", b"1" * 5000)[:2000])))


def test_the_list_in_a_directory_of_gnu_tar_counts_as_its_header(tmp_path: Path) -> None:
    archive = member(b"d/", b"Ya\0\0", kind=b"D") + member(b"d/a", b"1")
    entries, _ = scan(archive + END)
    check_places(entries, archive)
    assert [(entry.header_bytes, entry.stored_bytes) for entry in entries] == [(1024, 0), (512, 1)]


def test_a_directory_without_a_name_between_others_is_left_out() -> None:
    archive = member(b"a", b"1") + member(b"./", kind=b"5") + member(b"b", b"2")
    entries, _ = scan(archive + END)
    assert [(entry.position, entry.header_bytes) for entry in entries] == [(0, 512), (1536, 512)]
    with pytest.raises(CorruptArchiveError, match="has no name"):
        scan(member(b"./", b"1") + member(b".", b"1") + END)
    with pytest.raises(CorruptArchiveError, match="links to no name"):
        scan(member(b"a", kind=b"1", linkname=b".") + END)
