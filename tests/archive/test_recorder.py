"""What a backup records of each entry: it equals the archive, and its hashes the files."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import stat
import subprocess
import tempfile
import tracemalloc
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bakthat.archive.content_hash import MAX_HOLE_BYTES
from bakthat.archive.create import blocks, digest, writer
from bakthat.archive.create.walk import WalkOptions
from bakthat.archive.create.writer import write_tree
from bakthat.archive.gzip.members import MEMBER_BYTES
from bakthat.archive.gzip.writer import GzipWriter
from bakthat.archive.index.reader import IndexReader
from bakthat.archive.index.scan import TarScan
from bakthat.archive.index.writer import IndexSpool, Segment
from bakthat.archive.report import ArchiveReport
from bakthat.format.entry import BLOCK, Entry, EntryType
from bakthat.format.index.layout import IndexHeader, SegmentPlace
from bakthat.format.index.parsing import parse_segment
from bakthat.format.index.values import MAX_BLOCKS
from bakthat.system.streams import Buffer
from tests.support.archives import MIB, Collector
from tests.support.examples import rest_slow
from tests.support.needs import as_root
from tests.support.trees import make_every_kind

pytestmark = pytest.mark.permissions


def recorded(root: Path, **options: object) -> tuple[list[Entry], bytes, ArchiveReport]:
    """Return the entries of an archive of *root*, the archive, and its report."""
    segments: list[Segment] = []
    sink, report = Collector(), ArchiveReport()
    size = write_tree(
        root,
        "set",
        sink,
        WalkOptions(),
        report=report,
        on_segment=segments.append,
        **options,  # type: ignore[arg-type]  # of the tests below
    )
    assert size == len(sink.data)
    return list(chain.from_iterable(map(entries_of, segments))), sink.data, report


def entries_of(segment: Segment) -> list[Entry]:
    """Return the entries of a segment."""
    place = SegmentPlace(segment.first, segment.records, segment.at, 0, 1)
    entries = parse_segment(segment.text, place, end=MAX_BLOCKS * BLOCK, is_sorted=True)
    directories = sum(each.type is EntryType.DIRECTORY for each in entries)
    stored_bytes = sum(each.stored_bytes for each in entries)
    assert segment.files == len(entries) - directories
    assert (segment.directories, segment.bytes) == (directories, stored_bytes)
    return entries


def scanned(archive: bytes) -> list[Entry]:
    """Return the entries that the archive itself has."""
    return list(TarScan(io.BytesIO(archive)))


def same_fields(entry: Entry) -> Entry:
    """Return *entry* without what an archive does not hold."""
    return entry._replace(ctime_ns=None, inode=None, is_volatile=False)


def test_every_kind_of_entry_is_recorded_as_the_archive_has_it(tmp_path: Path) -> None:
    root = make_every_kind(tmp_path / "set")
    entries, archive, report = recorded(root, comment="this one")
    assert list(map(same_fields, entries)) == scanned(archive)
    assert len(entries) == report.files + report.directories
    assert entries[0].position == 2 * BLOCK  # after the comment
    assert {each.type for each in entries} > {EntryType.HARDLINK, EntryType.SYMLINK, EntryType.FIFO}
    for each in entries:
        path = tmp_path / os.fsdecode(each.path.encode("utf-8", "surrogateescape"))
        status = path.lstat()
        assert (each.inode, each.ctime_ns) == (status.st_ino, status.st_ctime_ns)
        if each.type is EntryType.FILE:
            assert each.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_entries_equal_the_listing_of_gnu_tar(tmp_path: Path) -> None:
    root = make_every_kind(tmp_path / "set")
    entries, archive, _ = recorded(root)
    listing = subprocess.run(
        ["tar", "tRvf", "-", "--quoting-style=literal", "--numeric-owner"],
        input=archive,
        capture_output=True,
        check=True,
    ).stdout
    # A name may hold a line feed, so only the beginning of a line counts.
    lines = re.findall(rb"^block (\d+): (\S)\S+ (\d+/\d+) +(\d+) ", listing, re.MULTILINE)
    letters = {EntryType.FILE: "-", EntryType.SYMLINK: "l", EntryType.FIFO: "p"}
    assert lines == [
        (
            b"%d" % ((each.content_position - BLOCK) // BLOCK),
            letters.get(each.type, each.type.value[0]).encode(),
            b"%d/%d" % (each.uid, each.gid),
            b"%d" % each.size,
        )
        for each in entries
    ]


@as_root
def test_devices_are_recorded_with_their_numbers(tmp_path: Path) -> None:
    os.mknod(tmp_path / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(tmp_path / "loop", 0o600 | stat.S_IFBLK, os.makedev(7, 300))
    entries, archive, _ = recorded(tmp_path)
    assert [(each.type, each.device) for each in entries[1:]] == [
        (EntryType.BLOCK, (7, 300)),
        (EntryType.CHARACTER, (1, 3)),
    ]
    assert list(map(same_fields, entries)) == scanned(archive)


SIZES = st.sampled_from([0, 1, 511, 512, 513, 2048, 4095, 4096, 4097, 10_240, 70_000])


@given(sizes=st.lists(SIZES, max_size=12), seed=st.randoms(use_true_random=False))
def test_contents_are_hashed_wherever_a_piece_ends(sizes: list[int], seed: object) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patched:
        patched.setattr(blocks, "_BUFFER_BYTES", 4096)
        root = Path(name, "set")
        root.mkdir()
        for number, size in enumerate(sizes):
            (root / f"{number:02}").write_bytes(os.urandom(size))
        entries, archive, _ = recorded(root)
        assert list(map(same_fields, entries)) == scanned(archive)


@given(
    holes=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), max_size=8),
    piece=st.sampled_from([4096, 5120, MIB]),
)
def test_sparse_files_are_hashed_with_their_holes(holes: list[tuple[int, int]], piece: int) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patched:
        patched.setattr(blocks, "_BUFFER_BYTES", piece)
        path = Path(name, "sparse")
        with path.open("wb") as file:
            for hole, data in holes:
                file.seek(hole * 4096, os.SEEK_CUR)
                file.write(os.urandom(data * 4096))
            file.truncate(file.tell() + 8192)
        entries, archive, _ = recorded(path)
        assert list(map(same_fields, entries)) == scanned(archive)
        assert entries[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("hole", rest_slow([MAX_HOLE_BYTES + 4096, MAX_HOLE_BYTES]))
def test_a_file_with_huge_holes_has_no_hash(tmp_path: Path, hole: int) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.write(b"x" * 4096)
        file.seek(hole, os.SEEK_CUR)
        file.write(b"y" * 4096)
    (tmp_path / "next").write_bytes(b"next")
    if (tmp_path / "huge").stat().st_blocks * 512 >= hole:
        pytest.skip("the file system has no holes")
    entries, archive, _ = recorded(tmp_path)
    huge, after = entries[1:]
    assert bool(huge.digest) == (hole == MAX_HOLE_BYTES)
    assert huge.stored_bytes < 3 * 4096
    assert after.digest == hashlib.sha256(b"next").digest()
    assert list(map(same_fields, entries)) == scanned(archive)


def test_a_file_that_shrinks_is_hashed_as_it_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "set"
    path.write_bytes(os.urandom(5 * MIB + 1))
    [entry], archive, report = recorded(path, on_bytes=lambda _: os.truncate(path, 1000))
    assert entry.is_volatile
    assert same_fields(entry) == scanned(archive)[0]
    assert entry.size == 5 * MIB + 1
    assert report.warning_count == 1


@pytest.mark.parametrize("change", ["grows", "is touched"])
def test_a_file_that_changes_is_volatile(tmp_path: Path, change: str) -> None:
    path = tmp_path / "set"
    path.write_bytes(bytes(3 * MIB))

    def alter(_count: int) -> None:
        if change == "grows":
            os.truncate(path, 4 * MIB)
        else:
            os.utime(path, ns=(0, 0))

    [entry], archive, _ = recorded(path, on_bytes=alter)
    assert entry.is_volatile
    assert same_fields(entry) == scanned(archive)[0]


def test_what_is_not_stored_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    opened = digest.open_file

    def vanish(path: str) -> int:
        if path.endswith("/b"):
            os.unlink(path)
        return opened(path)

    monkeypatch.setattr(writer, "open_file", vanish)
    entries, archive, report = recorded(tmp_path)
    assert [each.path for each in entries] == ["set", "set/a", "set/c"]
    assert list(map(same_fields, entries)) == scanned(archive)
    assert report.warning_count == 1


def test_the_paths_of_a_tree_ascend(tmp_path: Path) -> None:
    for name in (b"a", b"a!", b"a/b", b"a-", b"\xff", "é".encode(), "\uffff".encode(), b"a/b-"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name + b"/x"))
        path.mkdir(parents=True, exist_ok=True)
    entries, _, _ = recorded(tmp_path)
    paths = [os.fsencode(each.path).split(b"/") for each in entries]
    assert paths == sorted(paths)
    assert len(paths) == 17


class Tiny:
    """A sink that forgets."""

    def write(self, data: Buffer, /) -> None:
        pass


def test_an_index_has_the_members_of_the_archive(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    for number in range(30):
        (root / f"{number}").write_bytes(os.urandom(200_000))
    stored, index = Collector(), Collector()
    with IndexSpool() as spool:
        with GzipWriter(stored, on_member=spool.add_member) as packed:
            size = write_tree(
                root,
                "set",
                packed,
                WalkOptions(),
                report=ArchiveReport(),
                on_segment=spool.add_segment,
            )
        header = IndexHeader("key", "set", "host", "", "", 0, member_bytes=MEMBER_BYTES)
        spool.write_to(index, header, tar_bytes=size)
    reader = IndexReader(Memory(index.data), key="key")
    table = reader.members()
    assert table is not None
    archive = gzip.decompress(stored.data)
    for each in reader.entries():
        found = b""
        for start, begin, end in table.locate(each.position, each.end):
            assert gzip.decompress(stored.data[begin:end]) == archive[start : start + MEMBER_BYTES]
            found += archive[start : start + MEMBER_BYTES]
        assert archive[each.position : each.end] in found


class Memory:
    """A random source in memory."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._stream = io.BytesIO(data)

    def read_at(self, offset: int, size: int, /) -> bytes:
        self._stream.seek(offset)
        return self._stream.read(size)


def test_recording_many_files_takes_little_memory(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"{number:05}").touch()

    def peak(count: int) -> int:
        for path in sorted(tmp_path.iterdir())[count:]:
            path.unlink()
        tracemalloc.start()
        write_tree(
            tmp_path,
            "set",
            Tiny(),
            WalkOptions(),
            report=ArchiveReport(),
            on_segment=lambda _: None,
        )
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    many = peak(3000)
    assert many < 4 * MIB
