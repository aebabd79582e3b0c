"""One file of an archive: what is read of it, holes, seeking, and archives that differ."""

from __future__ import annotations

import hashlib
import io
import os
import random
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bakthat.archive.tar.reader import TarReader
from bakthat.errors import CorruptArchiveError, DestinationError
from bakthat.format.entry import Entry, EntryType
from bakthat.pipeline.one_file import (
    BUFFER_BYTES,
    PieceSource,
    content_of,
    parts_of_stream,
    seekable,
    temporary_copy,
)
from bakthat.pipeline.ranges import TarRanges
from tests.support.ranges import Bytes
from tests.support.tar_bytes import Pieces

MIB = 1024 * 1024
LARGE = 12 * MIB + 77


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return files of every size that matters, some with holes, by their names."""
    noise = random.Random(4)
    gap = bytes(3 * MIB)
    return {
        "empty": b"",
        "small": noise.randbytes(10_000),
        "buffer": noise.randbytes(BUFFER_BYTES),
        "large": noise.randbytes(LARGE),
        "hole only": gap,
        "holes": gap + noise.randbytes(4096) + gap + noise.randbytes(2 * MIB) + gap,
        "data first": noise.randbytes(8192) + gap + noise.randbytes(100),
        "many holes": b"".join(noise.randbytes(4096) + bytes(65536) for _ in range(200)),
    }


FORMATS = {
    "bakthat's": ("--format=pax", "--sparse"),
    "old sparse": ("--format=gnu", "--sparse"),
    "sparse 0.1": ("--format=pax", "--sparse", "--sparse-version=0.1"),
    "sparse 0.0": ("--format=pax", "--sparse", "--sparse-version=0.0"),
}


@pytest.fixture(scope="module", params=FORMATS)
def archive(
    request: pytest.FixtureRequest,
    contents: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[bytes, dict[str, Entry]]:
    """Return a tar of the files, and their entries in its index."""
    root = tmp_path_factory.mktemp("tree")
    for name, content in contents.items():
        with (root / name).open("wb") as file:
            for at in range(0, len(content), 4096):
                piece = content[at : at + 4096]
                if any(piece):
                    file.seek(at)
                    file.write(piece)
            file.truncate(len(content))
    made = subprocess.run(
        ["tar", *FORMATS[request.param], "-cf", "-", *contents],
        cwd=root,
        capture_output=True,
        check=True,
    )
    return made.stdout, entries_of(made.stdout, contents)


def entries_of(tar: bytes, contents: dict[str, bytes]) -> dict[str, Entry]:
    reader = TarReader(io.BytesIO(tar))
    entries, position = {}, 0
    for member in reader:
        name = member.name.decode()
        content = position + headers_at(tar, position)
        end = reader.end
        stored = sum(member.sparse[1::2]) if member.sparse is not None else member.size
        if member.sparse is not None:
            stored = end - content - (-stored % 512)
        entries[name] = Entry(
            name,
            EntryType.FILE,
            member.mode,
            member.uid,
            member.gid,
            member.mtime_ns,
            size=member.size,
            digest=hashlib.sha256(contents[name]).digest(),
            position=position,
            header_bytes=content - position,
            stored_bytes=stored,
        )
        assert entries[name].end == end
        position = end
    return entries


def headers_at(tar: bytes, at: int) -> int:
    """Return how many bytes of headers begin at *at*."""
    start = at
    while tar[at + 156 : at + 157] in (b"x", b"g", b"L", b"K"):
        size = int(tar[at + 124 : at + 135], 8)
        at += 512 + size + -size % 512
    more = tar[at + 156 : at + 157] == b"S" and tar[at + 482]
    at += 512
    while more:
        more = tar[at + 504]
        at += 512
    return at - start


def source_of(tar: bytes, entry: Entry) -> PieceSource:
    return PieceSource(iter([tar[entry.position : entry.end]]))


def opened(tar: bytes, entry: Entry) -> io.BufferedReader:
    ranges = TarRanges(Bytes(tar), None, len(tar))
    file = seekable(ranges, entry, ranges.close)
    assert isinstance(file, io.BufferedReader)
    return file


def joined(pieces: Iterable[tuple[int, memoryview]], size: int) -> bytes:
    data = bytearray(size)
    for offset, piece in pieces:
        data[offset : offset + len(piece)] = piece
    return bytes(data)


def test_the_content_is_that_of_the_file(
    archive: tuple[bytes, dict[str, Entry]], contents: dict[str, bytes]
) -> None:
    tar, entries = archive
    assert entries.keys() == contents.keys()
    for name, content in contents.items():
        entry = entries[name]
        assert joined(content_of(source_of(tar, entry), entry), entry.size) == content
        with opened(tar, entry) as file:
            assert file.read() == content
            assert file.read() == b""
        with temporary_copy(source_of(tar, entry), entry) as copy:
            assert copy.read() == content
            assert not copy.writable()


def test_a_copy_has_holes(archive: tuple[bytes, dict[str, Entry]]) -> None:
    tar, entries = archive
    with temporary_copy(source_of(tar, entries["hole only"]), entries["hole only"]) as copy:
        facts = os.fstat(copy.fileno())
        assert facts.st_size == 3 * MIB
        assert facts.st_blocks * 512 < MIB


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_file_seeks_as_one_on_disk_does(
    archive: tuple[bytes, dict[str, Entry]], contents: dict[str, bytes], data: st.DataObject
) -> None:
    tar, entries = archive
    name = data.draw(st.sampled_from(sorted(contents)))
    size = len(contents[name])
    with opened(tar, entries[name]) as file, io.BytesIO(contents[name]) as model:
        for _ in range(data.draw(st.integers(1, 8))):
            if data.draw(st.booleans()):
                at = data.draw(st.integers(0, size + 10))
                assert file.seek(at) == model.seek(at)
            count = data.draw(st.sampled_from([0, 1, 100, 5000, BUFFER_BYTES + 1, 3 * MIB]))
            assert file.read(count) == model.read(count)
            assert file.tell() == model.tell()


def test_seeking_is_relative_to_the_end_and_to_the_position(
    archive: tuple[bytes, dict[str, Entry]], contents: dict[str, bytes]
) -> None:
    tar, entries = archive
    with opened(tar, entries["large"]) as file:
        assert file.seekable()
        assert file.readable()
        assert not file.writable()
        assert file.name == "large"
        assert file.seek(-10, os.SEEK_END) == LARGE - 10
        assert file.read() == contents["large"][-10:]
        assert file.seek(-20, os.SEEK_CUR) == LARGE - 20
        assert file.read(5) == contents["large"][-20:-15]
        with pytest.raises(ValueError, match="negative"):
            file.seek(-1)
    with pytest.raises(ValueError, match="closed"):
        file.read(1)


def test_only_what_is_needed_is_read(
    archive: tuple[bytes, dict[str, Entry]], contents: dict[str, bytes]
) -> None:
    tar, entries = archive
    source = Bytes(tar)
    with TarRanges(source, None, len(tar)) as ranges:
        file = seekable(ranges, entries["large"], lambda: None)
        assert sum(source.sizes) <= BUFFER_BYTES
        file.seek(6 * MIB)
        assert file.read(10) == contents["large"][6 * MIB :][:10]
        assert sum(source.sizes) <= 2 * BUFFER_BYTES
        source.sizes.clear()
        seekable(ranges, entries["small"], lambda: None).read()
        assert len(source.sizes) == 1


def test_closing_is_passed_on_once(archive: tuple[bytes, dict[str, Entry]]) -> None:
    tar, entries = archive
    closed = []
    file = seekable(
        TarRanges(Bytes(tar), None, len(tar)), entries["small"], lambda: closed.append(1)
    )
    file.close()
    file.close()
    assert closed == [1]
    broken = Bytes(tar, fail_after=0)
    with pytest.raises(OSError, match="broken"):
        seekable(TarRanges(broken, None, len(tar)), entries["small"], lambda: closed.append(2))
    assert closed == [1, 2]


def changed(entry: Entry, tar: bytes) -> Iterator[tuple[bytes, Entry]]:
    """Yield archives and entries that disagree."""
    yield tar, entry._replace(path="other")
    yield tar, entry._replace(size=entry.size - 1)
    yield tar, entry._replace(mode=entry.mode ^ 1)
    yield tar, entry._replace(mtime_ns=entry.mtime_ns + 1)
    yield tar, entry._replace(position=entry.position + 512)
    yield tar[: entry.position] + bytes(entry.end - entry.position) + tar[entry.end :], entry
    at = entry.position + entry.header_bytes - 512
    yield tar[:at] + bytes([tar[at] ^ 1]) + tar[at + 1 :], entry


@pytest.mark.parametrize("name", ["small", "large", "holes"])
def test_headers_that_disagree_with_the_index_are_refused(
    archive: tuple[bytes, dict[str, Entry]], name: str
) -> None:
    tar, entries = archive
    for altered, entry in changed(entries[name], tar):
        with pytest.raises(CorruptArchiveError):
            joined(content_of(source_of(altered, entry), entry), entry.size + 1)
        with pytest.raises(CorruptArchiveError):
            opened(altered, entry)


@pytest.mark.parametrize("name", ["small", "large", "holes", "many holes"])
def test_another_content_is_an_error_at_its_end(
    archive: tuple[bytes, dict[str, Entry]], contents: dict[str, bytes], name: str
) -> None:
    tar, entries = archive
    entry = entries[name]
    at = entry.content_position + entry.stored_bytes - 1
    altered = tar[:at] + bytes([tar[at] ^ 1]) + tar[at + 1 :]
    with pytest.raises(CorruptArchiveError, match="differs from its SHA-256"):
        joined(content_of(source_of(altered, entry), entry), entry.size)
    with pytest.raises(CorruptArchiveError, match="differs from its SHA-256"):
        temporary_copy(source_of(altered, entry), entry)
    file = opened(altered, entry)
    with pytest.raises(CorruptArchiveError, match="differs from its SHA-256"):
        file.read()
    file.close()


def test_what_failed_its_hash_is_not_returned_by_another_read(
    archive: tuple[bytes, dict[str, Entry]],
) -> None:
    tar, entries = archive
    entry = entries["small"]
    at = entry.content_position
    with opened(tar[:at] + bytes([tar[at] ^ 1]) + tar[at + 1 :], entry) as file:
        for _ in range(2):
            with pytest.raises(CorruptArchiveError, match="differs from its SHA-256"):
                file.read()


def test_an_archive_that_ends_early_is_refused(archive: tuple[bytes, dict[str, Entry]]) -> None:
    tar, entries = archive
    entry = entries["large"]
    source = PieceSource(iter([tar[entry.position : entry.end - 1000]]))
    with pytest.raises(CorruptArchiveError):
        joined(content_of(source, entry), entry.size)


def plain_entry(content: bytes) -> Entry:
    digest = hashlib.sha256(content).digest()
    return Entry(
        "a.iso", EntryType.FILE, 0o644, 0, 0, 0, size=len(content), digest=digest, header_bytes=0,
        stored_bytes=len(content),
    )  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 100_000, 5 * MIB])
def test_a_file_that_is_stored_as_it_is(size: int) -> None:
    content = random.Random(size).randbytes(size)
    entry = plain_entry(content)
    assert joined(content_of(io.BytesIO(content), entry), size) == content
    with opened(content, entry) as file:
        assert file.read() == content
        assert file.seek(size // 2) == size // 2
        assert file.read(10) == content[size // 2 :][:10]
    for other in (content + b"x", content[:-1]):
        if other != content:
            with pytest.raises(CorruptArchiveError):
                joined(content_of(io.BytesIO(other), entry), size + 1)


def test_parts_of_a_stream_that_cannot_seek() -> None:
    data = random.Random(9).randbytes(3 * MIB + 5)
    for start, end in ((0, 0), (0, 5), (MIB - 1, MIB + 1), (2 * MIB, len(data)), (0, len(data))):
        source = Pieces(data, 70_000)
        assert b"".join(parts_of_stream(source, start, end)) == data[start:end]
        assert source.drained  # so that the checks at its end are made
    with pytest.raises(CorruptArchiveError, match="truncated"):
        list(parts_of_stream(Pieces(data), 0, len(data) + 1))


def test_a_temporary_directory_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(DestinationError, match="temporary file") as raised:
        temporary_copy(io.BytesIO(b"x"), plain_entry(b"x"))
    assert "TMPDIR" in raised.value.hint
