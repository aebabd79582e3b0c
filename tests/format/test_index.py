"""The lines of an index: records go in and come out the same, and nothing invalid comes out."""

from __future__ import annotations

import functools
import json
import os
import stat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bakthat.errors import CorruptIndexError
from bakthat.format.entry import BLOCK, Entry, EntryType
from bakthat.format.index.layout import (
    USUAL_HEADER_BYTES,
    IndexFooter,
    IndexHeader,
    NeededArchive,
    SegmentPlace,
    TablePlace,
    pack_table,
    parse_table,
)
from bakthat.format.index.packing import SegmentPacker
from bakthat.format.index.parsing import parse_segment
from bakthat.format.index.values import sort_key

NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(
    lambda parts: b"/".join(parts).decode("utf-8", "surrogateescape")
)
NUMBERS = st.integers(0, 2**62)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    type_ = draw(st.sampled_from([each for each in EntryType if each.is_member]))
    is_file = type_ is EntryType.FILE
    size = draw(st.integers(0, 2**50)) if is_file else 0
    is_link = type_ in (EntryType.SYMLINK, EntryType.HARDLINK)
    is_device = type_ in (EntryType.CHARACTER, EntryType.BLOCK)
    return Entry(
        path=draw(PATHS),
        type=type_,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(st.integers(0, 3)),
        gid=draw(st.integers(0, 3)),
        mtime_ns=draw(st.integers(-(2**62), 2**62)),
        ctime_ns=draw(st.none() | NUMBERS),
        inode=draw(st.none() | NUMBERS),
        size=size,
        digest=draw(st.just(b"") | st.binary(min_size=32, max_size=32)) if is_file else b"",
        owner=draw(st.sampled_from(["", "root", "\udcff", "käse"])),
        target=draw(PATHS) if is_link else "",
        device=draw(st.tuples(st.integers(0, 255), st.integers(0, 255))) if is_device else None,
        attributes=draw(st.sampled_from(["", "0123456789abcdef"])),
        is_volatile=draw(st.booleans()),
        header_bytes=draw(st.integers(1, 9)) * BLOCK,
        stored_bytes=draw(st.sampled_from([size, size // 2])),
    )


@given(st.lists(entries(), min_size=1, max_size=20))
def test_what_is_packed_is_parsed(given_entries: list[Entry]) -> None:
    """A segment ends where the next entry does not fit; each is read alone."""
    segments: list[tuple[list[Entry], SegmentPacker]] = [([], SegmentPacker())]
    at = 0
    for each in given_entries:
        entry = each._replace(position=at)
        at = entry.end
        if not segments[-1][1].add(entry):
            segments.append(([], SegmentPacker()))
            assert segments[-1][1].add(entry)
        segments[-1][0].append(entry)
    for added, packer in segments:
        assert packer.files == sum(each.type is not EntryType.DIRECTORY for each in added)
        place = SegmentPlace(packer.first, len(packer), packer.at, 0, 1)
        assert parse_segment(packer.pack(), place, end=at, is_sorted=False) == added


@st.composite
def usual_entries(draw: st.DrawFn) -> Entry:
    """Return a file or a directory; many have the mode and the owner of another one."""
    is_file = draw(st.booleans())
    size = draw(st.integers(0, 1 << 40)) if is_file else 0
    uid, gid = draw(st.integers(0, 1)), draw(st.integers(0, 1))
    return Entry(
        draw(PATHS),
        EntryType.FILE if is_file else EntryType.DIRECTORY,
        draw(st.sampled_from([0o644, 0o4755])),
        uid,
        gid,
        draw(st.integers(-(1 << 62), 1 << 62)),
        draw(st.integers(-(1 << 62), 1 << 62)),
        draw(st.integers(0, (1 << 64) - 1)),
        size,
        draw(st.binary(min_size=32, max_size=32)) if is_file else b"",
        draw(st.sampled_from([f"user{uid}"] * 9 + ["another"])),
        draw(st.sampled_from([f"group{gid}"] * 9 + ["another"])),
        stored_bytes=size,
    )


@given(st.lists(st.tuples(usual_entries(), st.booleans(), st.integers(0, 9)), max_size=20))
def test_a_usual_entry_is_packed_as_any_other(steps: list[tuple[Entry, bool, int]]) -> None:
    one, other = SegmentPacker(), SegmentPacker()
    at = 0
    for each, is_added_as_usual, gap in steps:
        entry = each._replace(position=at + (BLOCK if not gap else 0))
        at = entry.end
        add = functools.partial(add_usual, other) if is_added_as_usual else other.add
        is_added = one.add(entry)
        assert add(entry) == is_added
        if not is_added:
            assert one.pack() == other.pack()
            one, other = SegmentPacker(), SegmentPacker()
            assert one.add(entry)
            add = functools.partial(add_usual, other) if is_added_as_usual else other.add
            assert add(entry)
    assert one.pack() == other.pack()
    assert (one.first, one.at, one.files) == (other.first, other.at, other.files)
    assert one.content_bytes == other.content_bytes


@pytest.mark.parametrize(
    ("change", "is_added"),
    [
        ({}, True),
        ({"owner": "another"}, False),
        ({"group": "another"}, False),
        ({"uid": 5}, True),
        ({"gid": 5}, True),
        ({"mode": 0o600}, True),
        ({"type": EntryType.DIRECTORY, "size": 0, "digest": b"", "stored_bytes": 0}, True),
        ({"position": 3 * USUAL_HEADER_BYTES}, False),
    ],
)
def test_a_usual_entry_that_differs_from_the_one_before_it(
    change: dict[str, Any], is_added: bool
) -> None:
    usual = Entry("a", EntryType.FILE, 0o644, 1, 1, 7, 8, 9, owner="one", group="two")
    usual = usual._replace(digest=bytes(32))
    packer, general = SegmentPacker(), SegmentPacker()
    for entry, expected in [
        (usual, True),
        (usual._replace(path="b", position=USUAL_HEADER_BYTES), True),
        (usual._replace(path="c", position=2 * USUAL_HEADER_BYTES)._replace(**change), is_added),
    ]:
        assert add_usual(packer, entry) == general.add(entry) == expected
    assert packer.pack() == general.pack()


def add_usual(packer: SegmentPacker, entry: Entry) -> bool:
    kind = stat.S_IFDIR if entry.type is EntryType.DIRECTORY else stat.S_IFREG
    status = os.stat_result(
        (kind | entry.mode, entry.inode or 0, 1, 1, entry.uid, entry.gid, entry.size, 0, 0, 0),
        {"st_mtime_ns": entry.mtime_ns, "st_ctime_ns": entry.ctime_ns},
    )
    return packer.add_usual(
        entry.path, status, entry.size, entry.digest, entry.owner, entry.group, entry.position
    )


@given(PATHS, PATHS)
def test_paths_sort_by_their_components(one: str, other: str) -> None:
    def components(path: str) -> list[bytes]:
        return path.encode("utf-8", "surrogateescape").split(b"/")

    assert (sort_key(one) < sort_key(other)) == (components(one) < components(other))


def segment(*records: object, at: int = 0, **head: object) -> tuple[bytes, SegmentPlace]:
    lines = [{"segment": len(records), "at": at, "owners": {}, "groups": {}, **head}, *records]
    first = records[0][0] if records and isinstance(records[0], list) else "a"
    place = SegmentPlace(str(first), len(records), at, 0, 1)
    return "".join(json.dumps(line) + "\n" for line in lines).encode(), place


FILE = ["a", "f", 420, 0, 0, 0, 0, 1, 5, "A" * 43]


def test_a_usual_record_is_read() -> None:
    text, place = segment(FILE)
    (found,) = parse_segment(text, place, end=4 * BLOCK, is_sorted=True)
    assert (found.path, found.size, found.sha256, found.end) == ("a", 5, "00" * 32, 4 * BLOCK)


@pytest.mark.parametrize(
    "record",
    [
        ["/a", "f", 420, 0, 0, 0],
        ["a", "f", 420, 0, 0, 0, 0, 1, None],
        ["a", "f", 420, 0, 0, 0, 0, 1, None, "A" * 43],
        ["a", "f", 420, 0, 0, 0, 0, 1, 5, None],
        ["a/../b", "f", 420, 0, 0, 0],
        ["..", "d", 420, 0, 0, 0],
        ["a/./b", "f", 420, 0, 0, 0],
        ["a//b", "f", 420, 0, 0, 0],
        ["a/", "d", 420, 0, 0, 0],
        ["", "d", 420, 0, 0, 0],
        ["a\0b", "f", 420, 0, 0, 0],
        ["\udcff", "f", 420, 0, 0, 0],
        [{"b64": "?"}, "f", 420, 0, 0, 0],
        [{"b64": 3}, "f", 420, 0, 0, 0],
        [3, "f", 420, 0, 0, 0],
        ["a" * 70_000, "f", 420, 0, 0, 0],
        ["a", "x", 420, 0, 0, 0],
        ["a", ["f"], 420, 0, 0, 0],
        ["a", "f", -1, 0, 0, 0],
        ["a", "f", 0o10000, 0, 0, 0],
        ["a", "f", True, 0, 0, 0],
        ["a", "f", 420, 2**32, 0, 0],
        ["a", "f", 420, 0, 0.5, 0],
        ["a", "f", 420, 0, 0, 2**99],
        ["a", "f", 420, 0, 0, "now"],
        ["a", "f", 420, 0, 0],
        [*FILE, {}, 1],
        ["a", "f", 420, 0, 0, 0, 0, 0, -5],
        ["a", "f", 420, 0, 0, 0, 0, 0, 2**63],
        ["a", "d", 420, 0, 0, 0, 0, 0, 5],
        ["a", "f", 420, 0, 0, 0, 0, 0, 5, "A" * 42],
        ["a", "f", 420, 0, 0, 0, 0, 0, 5, "A" * 42 + "*"],
        ["a", "f", 420, 0, 0, 0, 0, 0, 5, 7],
        ["a", "f", 420, 0, 0, 0, 0, 0, 5, "", []],
        ["a", "l", 511, 0, 0, 0, 0, 0, 0, "", {}],
        ["a", "f", 420, 0, 0, 0, 0, 0, 0, "", {"t": "b"}],
        ["a", "h", 420, 0, 0, 0, 0, 0, 0, "", {"t": "../b"}],
        ["a", "c", 420, 0, 0, 0, 0, 0, 0, "", {"d": [1]}],
        ["a", "c", 420, 0, 0, 0],
        ["a", "f", 420, 0, 0, 0, 0, 0, 0, "", {"d": [1, 1]}],
        ["\U0001f4be" * 20_000, "f", 420, 0, 0, 0],
        ["a", "l", 511, 0, 0, 0, 0, 0, 0, "", {"t": "\U0001f4be" * 20_000}],
        ["a", "c", 420, 0, 0, 0, 0, 0, 0, "", {"d": [1, -1]}],
        ["a", "f", 420, 0, 0, 0, 0, 0, 0, "", {"n": 0}],
        ["a", "f", 420, 0, 0, 0, 0, 0, 0, "", {"n": -3}],
        ["a", "d", 420, 0, 0, 0, 0, 0, 0, "", {"k": 512}],
        ["a", "f", 420, 0, 0, 0, 0, 0, 0, "", {"x": "nothing"}],
        {"path": "a"},
        None,
    ],
    ids=str,
)
def test_an_invalid_record_is_refused(record: object) -> None:
    text, place = segment(record)
    with pytest.raises(CorruptIndexError):
        parse_segment(text, place, end=2**40, is_sorted=True)


@pytest.mark.parametrize("second", ["a", "A", "a\0"])
def test_paths_that_do_not_ascend_are_refused(second: str) -> None:
    text, place = segment(FILE, [second, *FILE[1:]])
    with pytest.raises(CorruptIndexError):
        parse_segment(text, place, end=2**40, is_sorted=True)


def test_a_position_behind_the_end_is_refused() -> None:
    text, place = segment(FILE)
    with pytest.raises(CorruptIndexError, match="outside of the archive"):
        parse_segment(text, place, end=3 * BLOCK, is_sorted=True)


def test_the_next_segment_begins_behind_the_last_path() -> None:
    text, place = segment(FILE, ["c", *FILE[1:]])
    assert len(parse_segment(text, place, end=2**40, is_sorted=True, before="c/d")) == 2
    for before in ("b", "c"):
        with pytest.raises(CorruptIndexError, match="not in order"):
            parse_segment(text, place, end=2**40, is_sorted=True, before=before)
        assert len(parse_segment(text, place, end=2**40, is_sorted=False, before=before)) == 2


def test_another_encoding_than_utf_8_is_refused() -> None:
    line = IndexHeader("key", "set", "host", "/set", "named", 1).pack()
    for encoding in ("utf-16", "utf-16-le", "utf-32", "utf-8-sig"):
        with pytest.raises(CorruptIndexError):
            IndexHeader.parse(line.decode().encode(encoding))


@pytest.mark.parametrize(
    ("key", "is_right"),
    [
        ("my.20200913122640.tgz", True),
        ("hosts/a/my.20200913122640.inc.tar.age", True),
        ("../my.20200913122640.tgz", False),
        ("a/../my.20200913122640.tgz", False),
        ("a//my.20200913122640.tgz", False),
        ("/my.20200913122640.tgz", False),
        ("a\0/my.20200913122640.tgz", False),
        ("m\udcffy.20200913122640.tgz", False),
        ("my", False),
        ("", False),
    ],
)
def test_a_needed_archive_has_a_stored_filename(key: str, is_right: bool) -> None:
    """It is looked up by it, in the catalog and on the storage."""
    needs = (NeededArchive(key, 1_600_000_000, 10, ""),)
    header = IndexHeader("key", "set", "host", "/set", "archive", 1_700_000_000, needs=needs)
    if is_right:
        assert IndexHeader.parse(header.pack()).needs == needs
        return
    with pytest.raises(CorruptIndexError, match="is no stored filename"):
        IndexHeader.parse(header.pack())


@pytest.mark.parametrize("size", [-1, 1, 4096, 1 << 25, 1 << 70])
def test_gzip_members_of_a_size_that_costs_memory_are_refused(size: int) -> None:
    line = IndexHeader("key", "set", "host", "/set", "named", 1, member_bytes=size).pack()
    with pytest.raises(CorruptIndexError):
        IndexHeader.parse(line)


def test_long_gzip_members_which_would_be_read_at_once_are_refused() -> None:
    header = IndexHeader("key", "set", "host", "/set", "named", 1, member_bytes=1 << 20)
    place = TablePlace(1, 0, 0, 1)
    assert parse_table(pack_table([(1 << 24) + 4096]), place) == [(1 << 24) + 4096]
    with pytest.raises(CorruptIndexError, match="out of its range"):
        parse_table(pack_table([1 << 30]), place)
    for length, is_right in ((1 << 20, True), (1 << 30, False)):
        segments = [SegmentPlace("a", 1, 0, 100, length)]
        line = IndexFooter(1, 1, 0, 0, 0, 0, segments, []).pack()
        if is_right:
            IndexFooter.parse(line, header, begin=100, end=100 + length)
            continue
        with pytest.raises(CorruptIndexError, match="out of its range"):
            IndexFooter.parse(line, header, begin=100, end=100 + length)


def test_another_format_is_refused_with_what_to_do() -> None:
    line = IndexHeader("key", "set", "host", "/set", "named", 1).pack()
    newer = line.replace(b'"format":1', b'"format":3')
    with pytest.raises(CorruptIndexError, match="format 3") as caught:
        IndexHeader.parse(newer)
    assert caught.value.hint == "upgrade bakthat"
