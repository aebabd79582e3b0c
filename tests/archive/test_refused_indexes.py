"""What a reader says of an index that was altered: of each part of it, and of each line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bakthat.archive.index.framing import TAIL_BYTES, pack_tail
from bakthat.archive.index.reader import IndexReader
from bakthat.archive.index.state import State
from bakthat.errors import CorruptIndexError
from bakthat.format.entry import Entry, EntryType
from bakthat.format.index.layout import IndexHeader, NeededArchive
from tests.archive.test_index import HEADER, Bytes, tree, written
from tests.support.changed_indexes import RawIndex

FILE, LINK, DEVICE, SEEN, REMOVED = "set/a", "set/b", "set/c", "set/d", "set/e"
NEEDED = NeededArchive("set.20231114221320.tgz", HEADER.date - 1, 1000, "")
INCREMENT = replace(HEADER, key="set.20231114221321.inc.tgz", needs=(NEEDED,), level=1)

Edit = Callable[[RawIndex], object]


def entries(*, removes: bool) -> list[Entry]:
    top = next(iter(tree(0)))
    file = Entry(FILE, EntryType.FILE, 0o644, 0, 0, 1, 1, 2, 5, b"x" * 32, stored_bytes=5)
    link = Entry(LINK, EntryType.SYMLINK, 0o777, 0, 0, 1, target="a")
    device = Entry(DEVICE, EntryType.CHARACTER, 0o600, 0, 0, 1, device=(1, 3))
    found = [top]
    for each in (file, link, device):
        found.append(each._replace(position=found[-1].end))
    if removes:
        at = found[-1].end
        seen = Entry(SEEN, EntryType.SEEN, 0o644, 0, 0, 1, position=at, header_bytes=0, archive=0)
        found += [seen, seen._replace(path=REMOVED, type=EntryType.REMOVED, archive=1)]
    return found


def raw_index(header: IndexHeader = HEADER) -> RawIndex:
    return RawIndex.parse(written(entries(removes=header.is_increment), header).data)


def header(name: str, value: object) -> Edit:
    return lambda raw: raw.header.__setitem__(name, value)


def footer(name: str, value: object) -> Edit:
    return lambda raw: raw.footer.__setitem__(name, value)


def place(column: int, value: object) -> Edit:
    return lambda raw: raw.places[0].__setitem__(column, value)


def head(name: str, value: object) -> Edit:
    return lambda raw: raw.segments[0][0].__setitem__(name, value)


def column(path: str, number: int, value: object) -> Edit:
    return lambda raw: record(raw, path).__setitem__(number, value)


def more(path: str, **values: object) -> Edit:
    def edit(raw: RawIndex) -> None:
        line = record(raw, path)
        line += [0] * (9 - len(line)) + [""] * (len(line) < 10)
        line[10:] = [{**(line[10] if len(line) > 10 else {}), **values}]

    return edit


def without_more(path: str, name: str) -> Edit:
    return lambda raw: record(raw, path)[10].pop(name)


def record(raw: RawIndex, path: str) -> list[Any]:
    return next(line for line in raw.segments[0] if isinstance(line, list) and line[0] == path)


def text(number: int, value: bytes) -> Edit:
    return lambda raw: raw.texts.__setitem__(number, value)


def table(value: object) -> Edit:
    return lambda raw: raw.tables.__setitem__(0, value)


def needs(*values: object) -> Edit:
    return header("needs", list(values))


def read_all(data: bytes, key: str) -> None:
    reader = IndexReader(Bytes(data), key=key)
    for _ in reader.segments():
        pass
    members = reader.members()
    assert members is not None
    members.locate(0, reader.footer.tar_bytes)


def problem_of(data: bytes, key: str) -> str:
    """Return what reading all of an index says."""
    with pytest.raises(CorruptIndexError) as caught:
        read_all(data, key)
    return str(caught.value).removeprefix(f"the index of {key} is damaged: ")


NO_NUMBER = "a number in the index is missing or out of its range"
NO_TEXT = "the index has no text where one must be"

HEADERS: dict[str, tuple[Edit, str]] = {
    "of another program": (header("bakthat", "log"), "it is not an index of bakthat"),
    "of an unknown object": (
        header("kind", "a"),
        "the index describes an object of an unknown kind",
    ),
    "tiny members": (
        header("member", 1),
        "the index has gzip members of a size that is never used",
    ),
    "rule": (header("rule", []), "the index has no mapping where the rule of change must be"),
    "no list": (header("needs", {}), "the index has no list where one must be"),
    "needs": (needs(NEEDED), "the index does not say which archives it needs"),
    "no text": (header("set", 5), NO_TEXT),
    "no base64": (header("set", {"b64": "!"}), "the index has text that cannot be decoded"),
    "half a character": (header("set", "\ud800"), "the index has text that is not Unicode"),
    "no date": (header("date", None), NO_NUMBER),
    "not JSON": (text(0, b"{"), "the header of the index is not JSON"),
    "no object": (text(0, b"[]"), "the header of the index is not an object"),
}

NEEDS: dict[str, tuple[Edit, str]] = {
    "short": (needs([]), "the index has something else where a needed archive must be"),
    "no stored filename": (
        needs(["set.tgz", 1, 1, ""]),
        "the index needs an archive whose name is no stored filename",
    ),
    "of one time": (
        needs(NEEDED, NEEDED),
        "the archives that the index needs are not in the order of time",
    ),
}

FOOTERS: dict[str, tuple[Edit, str]] = {
    "none": (footer("footer", 2), "the index has no footer"),
    "records": (footer("records", 1), "the index has not as many records as its footer says"),
    "files": (footer("files", 1), "it has not as many files or bytes as its footer says"),
    "not JSON": (text(3, b"{"), "the footer of the index is not JSON"),
    "no object": (text(3, b"[]"), "the footer of the index is not an object"),
    "segment": (
        lambda raw: raw.places[0].append(0),
        "the index has a segment without its place",
    ),
    "absolute path": (place(0, "/set"), "the index has a path that no file has: '/set'"),
    "table": (
        lambda raw: raw.table_places[0].append(0),
        "the index has a table without its place",
    ),
    "members": (
        lambda raw: raw.table_places[0].__setitem__(0, 2),
        "the index has not as many gzip members as the archive",
    ),
    "member behind the end": (
        lambda raw: raw.table_places[0].__setitem__(1, 2**40),
        "a gzip member in the index is outside of the archive",
    ),
    "member before the first": (
        lambda raw: raw.table_places[0].__setitem__(1, 1),
        "the gzip members in the index do not begin at the beginning",
    ),
    "position": (place(2, 2**40), "a position in the index is outside of the archive"),
}

SEGMENTS: dict[str, tuple[Edit, str]] = {
    "not JSON": (
        lambda raw: raw.texts.__setitem__(1, b'{"segment":4,"at":1024}\n{\n{\n{\n{\n'),
        "the segment of the index is not JSON",
    ),
    "no object": (text(1, b"[]"), "the segment of the index is not an object"),
    "cut": (text(1, b'{"segment":4}\n['), "a segment of the index is truncated"),
    "two on a line": (text(1, b'{"segment":4}\n1,2\n'), "a segment of the index has no records"),
    "count": (head("segment", 9), "a segment of the index has another number of records"),
    "position": (head("at", 512), "a segment of the index has another position"),
    "first path": (place(0, "s"), "a segment of the index begins with another path"),
    "no list": (
        lambda raw: raw.segments[0].__setitem__(2, {}),
        "a record of the index is not a list",
    ),
    "path": (column(FILE, 0, "set//a"), "the index has a path that no file has: 'set//a'"),
    "long path": (column(FILE, 0, "set/" + "a" * 70_000), "the index has a path that is too long"),
    "order": (
        column(FILE, 0, "set/z"),
        "the paths in the index are not in order, or one is there twice",
    ),
    "columns": (
        lambda raw: record(raw, FILE).__delitem__(slice(3, None)),
        "a record of the index has not as many columns as it must",
    ),
    "no size": (column(FILE, 8, None), "a record of the index has no value where one must be"),
    "kind": (column(FILE, 1, "?"), "the index has an entry of an unknown kind"),
    "content": (column(FILE, 1, "d"), "the index gives content to an entry that can have none"),
    "mode": (column(FILE, 2, 0o10000), NO_NUMBER),
    "no hash": (column(FILE, 9, 5), "the index has something else where a SHA-256 must be"),
    "owners": (head("owners", []), "a segment of the index has no names of owners"),
    "owner": (
        head("owners", {"root": "root"}),
        "the index has the name of an owner without a number",
    ),
    "more": (column(LINK, 10, 5), "a record of the index has no mapping where one must be"),
    "no target": (without_more(LINK, "t"), "the index has a link without a target"),
    "target": (more(LINK, t="a\0"), "the index has a target that no link has: 'a\\x00'"),
    "half a device": (more(DEVICE, d=[1]), "the index has a device without its two numbers"),
    "no device": (
        without_more(DEVICE, "d"),
        "the index has a device without numbers, or numbers without a device",
    ),
    "attributes": (more(FILE, x="y"), "the index has something else where a hash must be"),
    "content of a link": (
        more(LINK, k=5),
        "the index gives content to an entry that can have none",
    ),
    "no headers": (more(FILE, n=0), "the index has an entry with another kind of headers"),
    "long content": (more(FILE, k=2**40), "a position in the index is outside of the archive"),
    "removed": (column(FILE, 1, "x"), "the index gives content to an entry that can have none"),
    "removed directory": (
        column("set", 1, "x"),
        "the index of a full backup removes something",
    ),
    "table": (table({"members": []}), "a table of the index has another number of gzip members"),
    "table of others": (table([]), "the table of the index is not an object"),
    "table not JSON": (text(2, b"{"), "the table of the index is not JSON"),
    "lengths": (table({"members": [7]}), "the lengths of gzip members in the index do not add up"),
}


@pytest.mark.parametrize(("edit", "problem"), HEADERS.values(), ids=HEADERS)
def test_a_header_that_was_altered_is_refused(edit: Edit, problem: str) -> None:
    raw = raw_index()
    edit(raw)
    assert problem_of(raw.packed(), "key") == problem


@pytest.mark.parametrize(("edit", "problem"), NEEDS.values(), ids=NEEDS)
def test_needed_archives_that_were_altered_are_refused(edit: Edit, problem: str) -> None:
    raw = raw_index(INCREMENT)
    edit(raw)
    assert problem_of(raw.packed(), INCREMENT.key) == problem


@pytest.mark.parametrize(("edit", "problem"), FOOTERS.values(), ids=FOOTERS)
def test_a_footer_that_was_altered_is_refused(edit: Edit, problem: str) -> None:
    raw = raw_index()
    edit(raw)
    assert problem_of(raw.packed(), "key") == problem


@pytest.mark.parametrize(("edit", "problem"), SEGMENTS.values(), ids=SEGMENTS)
def test_a_segment_or_a_table_that_was_altered_is_refused(edit: Edit, problem: str) -> None:
    raw = raw_index()
    edit(raw)
    assert problem_of(raw.packed(), "key") == problem


INCREMENTS: dict[str, tuple[Edit, str]] = {
    "unknown archive": (more(SEEN, a=9), "the index names an archive that it does not need"),
    "no headers": (more(FILE, n=0), "the index has an entry with another kind of headers"),
}


@pytest.mark.parametrize(("edit", "problem"), INCREMENTS.values(), ids=INCREMENTS)
def test_records_of_an_increment_that_were_altered_are_refused(edit: Edit, problem: str) -> None:
    raw = raw_index(INCREMENT)
    edit(raw)
    assert problem_of(raw.packed(), INCREMENT.key) == problem


@pytest.mark.parametrize(
    ("part", "number", "problem"),
    [
        ("segments", 3, "the parts of the index do not follow each other"),
        ("members", 3, "the parts of the index do not fill it"),
    ],
)
def test_parts_that_leave_a_gap_are_refused(part: str, number: int, problem: str) -> None:
    raw = raw_index()
    changed = RawIndex.parse(raw.packed()).footer
    changed[part][0][number] += 1
    raw.texts[3] = json.dumps(changed).encode()
    assert problem_of(raw.packed(), "key") == problem


def test_segments_that_do_not_ascend_are_refused() -> None:
    raw = raw_index()
    raw.segments *= 2
    raw.places *= 2
    raw.footer["records"] *= 2
    assert problem_of(raw.packed(), "key") == "the segments of the index are not in order"


def test_a_footer_that_is_too_far_from_the_end_is_refused() -> None:
    data = raw_index().packed()
    far = data[:-TAIL_BYTES] + bytes(2**26) + pack_tail(len(data) - TAIL_BYTES - 1)
    assert problem_of(far, "key") == "the footer of the index is too long"


def test_a_position_behind_the_last_member_is_refused() -> None:
    members = IndexReader(Bytes(raw_index().packed()), key="key").members()
    assert members is not None
    with pytest.raises(CorruptIndexError, match=r"^the index of key is damaged: it has no"):
        members.locate(0, 2**40)


def state_of(*headers: IndexHeader) -> State:
    indexes = [Bytes(raw_index(each).packed()) for each in headers]
    return State(
        [IndexReader(each, key=header.key) for each, header in zip(indexes, headers, strict=True)]
    )


FULL = replace(HEADER, key=NEEDED.key, date=NEEDED.date, archive_id="0123456789abcdef")


@pytest.mark.parametrize(
    ("headers", "problem"),
    {
        "another full": (
            (replace(FULL, key="set.20231114221300.tgz"), INCREMENT),
            f"the index of {INCREMENT.key} is not that of an increment of set.20231114221300.tgz",
        ),
        "an increment alone": (
            (INCREMENT,),
            f"the index of {INCREMENT.key} is not that of an increment of nothing",
        ),
        "replaced": (
            (FULL, replace(INCREMENT, needs=(NEEDED._replace(archive_id="f" * 16),))),
            f"{INCREMENT.key} needs another archive than the one that is {FULL.key} now",
        ),
        "unsorted": (
            (replace(FULL, archive_id="", is_sorted=False), INCREMENT),
            f"the index of {INCREMENT.key} is damaged: its paths are not in order",
        ),
    }.values(),
)
def test_indexes_that_make_no_chain_are_refused(
    headers: tuple[IndexHeader, ...], problem: str
) -> None:
    with pytest.raises(CorruptIndexError) as caught:
        state_of(*headers)
    assert str(caught.value) == problem
