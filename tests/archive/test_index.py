"""An index in gzip members: written by segments, and read whole or in parts."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import time
import tracemalloc
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain

import pytest

from bakthat.archive.gzip.writer import compress_member
from bakthat.archive.index.framing import pack_tail
from bakthat.archive.index.reader import IndexReader, StoredMember
from bakthat.archive.index.writer import IndexSpool, SegmentWriter
from bakthat.errors import CorruptIndexError
from bakthat.format.entry import Entry, EntryType
from bakthat.format.index.layout import IndexHeader, NeededArchive

HEADER = IndexHeader("key", "set", "host", "/srv/set", "named", 1_700_000_000, member_bytes=1 << 20)


class Bytes:
    """A RandomSource that counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.read = 0

    def read_at(self, offset: int, size: int, /) -> bytes:
        assert 0 <= offset <= offset + size <= self.size
        self.read += size
        return self.data[offset : offset + size]


class Collected(bytearray):
    """A sink in memory."""

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        self.extend(data)


def tree(count: int) -> Iterable[Entry]:
    """Yield the entries of a tree with *count* files, in order."""
    at = 1024
    top = Entry("set", EntryType.DIRECTORY, 0o755, 0, 0, 10**18, 10**18 + 5, 2, position=at)
    yield top
    at = top.end
    for number in range(count):
        size = number % 5000
        digest = hashlib.sha256(b"%d" % number).digest()
        entry = Entry(
            f"set/directory-{number // 100:05}-file-{number:07}.txt",
            EntryType.FILE,
            0o644,
            1000,
            100,
            10**18 + number * 1_234_567_891,
            10**18 + number * 1_234_567_891 + 1_000,
            10_000 + number,
            size,
            digest,
            "user",
            "users",
            position=at,
            stored_bytes=size,
        )
        yield entry
        at = entry.end


def written(entries: Iterable[Entry], header: IndexHeader = HEADER) -> Bytes:
    with IndexSpool() as spool:
        writer = SegmentWriter(spool.add_segment)
        last = 0
        for entry in entries:
            writer.add(entry)
            last = entry.end
        writer.close()
        members = -(-(last + 1024) // (1 << 20))
        for number in range(members):
            spool.add_member(1000 + number)
        sink = Collected()
        spool.write_to(sink, header, tar_bytes=last + 1024)
        again = Collected()
        spool.write_to(again, header, tar_bytes=last + 1024)
        assert sink == again
    return Bytes(bytes(sink))


def test_what_is_written_is_read() -> None:
    expected = list(tree(10_000))
    reader = IndexReader(written(expected), key="key")
    assert list(reader.entries()) == expected
    assert (reader.top, reader.header) == ("set", HEADER)
    footer = reader.footer
    assert (footer.records, footer.files, footer.directories) == (10_001, 10_000, 1)
    assert footer.content_bytes == sum(entry.size for entry in expected)


def test_gzip_and_jq_need_no_bakthat() -> None:
    expected = list(tree(3000))
    text = subprocess.run(
        ["gzip", "-dc"], input=written(expected).data, capture_output=True, check=True
    )
    lines = [json.loads(line) for line in text.stdout.splitlines()]
    assert lines[0]["bakthat"] == "index"
    assert [line[0] for line in lines if isinstance(line, list)] == [each.path for each in expected]
    assert lines[-1]["records"] == 3001


def test_one_file_costs_its_segment_and_the_end() -> None:
    source = written(tree(60_000))
    reader = IndexReader(source, key="key")
    path = "set/directory-00300-file-0030000.txt"
    (found,) = reader.entries([path])
    assert found.path == path
    assert source.read < 300_000 < source.size


def test_a_directory_has_all_that_is_below_it() -> None:
    names = ["set", "set/a", "set/a!", "set/a/b", "set/a/c", "set/a/c/d", "set/ab", "set/b"]
    names.sort(key=lambda name: name.split("/"))
    at = 0
    entries = []
    for name in names:
        entries.append(Entry(name, EntryType.DIRECTORY, 0o755, 0, 0, 0, position=at))
        at = entries[-1].end
    reader = IndexReader(written(entries), key="key")
    found = [entry.path for entry in reader.entries(["set/a"])]
    assert found == ["set/a", "set/a/b", "set/a/c", "set/a/c/d"]
    assert [entry.path for entry in reader.entries(["set/a/c", "set/b"])] == [
        "set/a/c",
        "set/a/c/d",
        "set/b",
    ]
    assert [entry.path for entry in reader.entries(["a"])] == []


def test_nested_paths_yield_each_entry_once() -> None:
    expected = list(tree(10))
    reader = IndexReader(written(expected), key="key")
    found = list(reader.entries([expected[3].path, "set", expected[3].path]))
    assert found == expected


def chained(paths: Iterable[str], at: int = 0) -> list[Entry]:
    entries = []
    for path in paths:
        entries.append(Entry(path, EntryType.FILE, 0o644, 0, 0, 0, position=at))
        at = entries[-1].end
    return entries


def test_deep_paths_take_no_longer_than_flat_ones() -> None:
    """To look at each directory above would be 32,000 copies of 64 KB for each path."""
    entries = chained(f"{number:03}/" + "a/" * 32_000 + "b" for number in range(100))
    reader = IndexReader(written(entries), key="key")
    begun = time.process_time()
    found = list(reader.entries(["050/a/a", "nowhere"]))
    assert time.process_time() - begun < 3
    assert found == entries[50:51]


def test_an_index_of_long_names_beyond_ascii_is_read() -> None:
    """A segment is bounded in bytes, not in letters, of which one can have four bytes."""
    name = "/".join(["\U0001f4be" * 63] * 15)
    entries = chained(f"{number:04}/{name}" for number in range(1500))
    reader = IndexReader(written(entries), key="key")
    assert list(reader.entries()) == entries
    assert len(reader.footer.segments) > 4


@pytest.mark.parametrize("second", ["a0", "b"])
def test_segments_that_overlap_are_refused(second: str) -> None:
    """The first path of each ascends, but not all of them do, or one is there twice."""
    entries = chained(["a", "b"]) + chained([second, "c"], at=8192)
    reader = IndexReader(written(entries), key="key")
    assert len(reader.footer.segments) == 2
    for paths in (None, ["a"]):
        with pytest.raises(CorruptIndexError, match="not in order"):
            list(reader.entries(paths))


@pytest.mark.parametrize("name", ["files", "directories", "bytes"])
def test_counts_that_differ_from_the_footer_are_refused(name: str) -> None:
    expected = list(tree(100))
    sink = Collected()
    with IndexSpool() as spool:
        writer = SegmentWriter(spool.add_segment)
        for entry in expected:
            writer.add(entry)
        writer.close()
        setattr(spool, name, getattr(spool, name) - 1)
        spool.write_to(sink, replace(HEADER, member_bytes=0), tar_bytes=expected[-1].end)
    reader = IndexReader(Bytes(bytes(sink)), key="key")
    with pytest.raises(CorruptIndexError, match="as its footer says"):
        list(reader.entries())


def test_where_is_asked_before_an_entry_is_made() -> None:
    reader = IndexReader(written(tree(5000)), key="key")
    found = list(reader.entries(where=lambda path: path.endswith("4321.txt")))
    assert [entry.path for entry in found] == ["set/directory-00043-file-0004321.txt"]
    assert found == [entry for entry in tree(5000) if entry.path.endswith("4321.txt")]


def test_members_are_located_by_their_lengths() -> None:
    members = IndexReader(written(tree(20_000)), key="key").members()
    assert members is not None
    mib = 1 << 20
    assert members.locate(0, 1) == [StoredMember(0, 0, 1000)]
    assert members.locate(mib - 1, 2 * mib + 1) == [
        StoredMember(0, 0, 1000),
        StoredMember(mib, 1000, 2001),
        StoredMember(2 * mib, 2001, 3003),
    ]
    with pytest.raises(CorruptIndexError):
        members.locate(1 << 50, (1 << 50) + 1)


def test_an_index_of_another_object_is_refused() -> None:
    with pytest.raises(CorruptIndexError, match="of key, not of other"):
        IndexReader(written(tree(1)), key="other")


def test_an_index_that_is_cut_or_altered_anywhere_is_refused() -> None:
    data = written(tree(50)).data
    for size in range(len(data)):
        with pytest.raises(CorruptIndexError):
            list(IndexReader(Bytes(data[:size]), key="key").entries())
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 0x55
        try:
            reader = IndexReader(Bytes(bytes(altered)), key="key")
            found = list(reader.entries())
            members = reader.members()
            assert members is not None
            members.locate(0, 1)
        except CorruptIndexError:
            continue
        pytest.fail(f"byte {position} was altered, and {len(found)} entries were read")


def test_an_entry_takes_at_most_seventy_bytes() -> None:
    count = 60_000
    assert written(tree(count)).size / count < 70


@pytest.mark.parametrize("filler", ["[]", "{}"])
def test_a_footer_that_would_cost_memory_is_refused_before_it_is_parsed(filler: str) -> None:
    header = compress_member(HEADER.pack(), 3)
    text = '{"footer":1,"segments":[' + ",".join([filler] * 1_000_000) + "]}\n"
    footer = compress_member(text.encode(), 3)
    data = header + footer + pack_tail(len(header))
    tracemalloc.start()
    try:
        with pytest.raises(CorruptIndexError, match="footer"):
            IndexReader(Bytes(data), key="key")
        assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_records_of_what_was_seen_or_removed_do_not_divide_a_segment() -> None:
    """They have no owner, and those around them have owners with names."""
    needs = (NeededArchive("my.20200913122640.tgz", 1_600_000_000, 10, ""),)
    entries: list[Entry] = []
    for number, entry in enumerate(tree(1000)):
        position = entries[-1].end if entries else 1024
        entry = entry._replace(uid=0, gid=0, owner="root", group="root", position=position)
        if number % 3:
            kind = EntryType.SEEN if number % 3 == 1 else EntryType.REMOVED
            entry = Entry(entry.path, kind, 0, 0, 0, 0, position=position, header_bytes=0)
        entries.append(entry)
    reader = IndexReader(written(entries, replace(HEADER, needs=needs)), key="key")
    assert [each.records for each in reader.footer.segments] == [1001]
    found = list(chain.from_iterable(reader.segments()))
    assert [each.path for each in found] == [each.path for each in entries]
    members = [each._replace(archive=0, read=0) for each in found if each.type.is_member]
    assert members == entries[::3]


def test_the_entries_in_parts_of_the_archive_are_found() -> None:
    """Of an increment, what was removed or seen has no part, wherever it is."""
    needs = (NeededArchive("my.20200913122640.tgz", 1_600_000_000, 10, ""),)
    entries: list[Entry] = []
    for number, entry in enumerate(tree(9000)):
        position = entries[-1].end if entries else 1024
        entry = entry._replace(position=position)
        if number % 7 == 3:
            entry = Entry(entry.path, EntryType.REMOVED, 0, 0, 0, 0, position=position)
            entry = entry._replace(header_bytes=0)
        entries.append(entry)
    source = written(entries, replace(HEADER, needs=needs))
    reader = IndexReader(source, key="key")
    members = [each for each in entries if each.type.is_member]
    noise = random.Random(1)
    for _ in range(30):
        wanted = sorted(noise.sample(range(len(members)), noise.choice([1, 2, 40, 5000])))
        parts = [(members[number].position, members[number].end) for number in wanted]
        if noise.random() < 0.5:  # neighbours as one part
            joined = [parts[0]]
            for start, end in parts[1:]:
                if start == joined[-1][1]:
                    joined[-1] = joined[-1][0], end
                else:
                    joined.append((start, end))
            parts = joined
        found = [each.path for each in reader.within(parts)]
        assert found == [members[number].path for number in wanted]
    assert list(reader.within([])) == []
    source.read = 0
    assert len(list(reader.within([(members[-1].position, members[-1].end)]))) == 1
    assert source.read < source.size / 3


def test_an_index_without_entries_has_none_in_any_part() -> None:
    assert list(IndexReader(written([]), key="key").within([(0, 512)])) == []
