"""The overlay of the indexes that a backup needs: compared with a plain model, and case by case."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bakthat.format.entry import Entry, EntryType
from bakthat.format.index.overlay import overlay
from bakthat.format.index.values import sort_key

FILE, DIRECTORY = EntryType.FILE, EntryType.DIRECTORY
REMOVED, SEEN = EntryType.REMOVED, EntryType.SEEN


def entry(path: str, type_: EntryType = FILE, number: int = 0, *, of: int | None = None) -> Entry:
    """Return an entry of the archive *number*; one that was seen is *of* an earlier archive."""
    return Entry(
        path,
        type_,
        0o644,
        0,
        0,
        number,
        ctime_ns=number,
        inode=number,
        archive=number if of is None else of,
        read=number,
    )


def state(full: Sequence[Entry], *increments: Sequence[Entry], at_once: int = 3) -> list[Entry]:
    """Return the overlay of sorted entries, of which the full's come some at once."""
    pieces = iter(full)
    lists: Iterator[list[Entry]] = iter(lambda: list(itertools.islice(pieces, at_once)), [])
    return list(itertools.chain.from_iterable(overlay(lists, increments)))


def paths(entries: Sequence[Entry]) -> list[str]:
    return [each.path for each in entries]


TREE = [
    entry("t", DIRECTORY),
    entry("t/a", DIRECTORY),
    entry("t/a/1"),
    entry("t/a/2"),
    entry("t/a-b"),
    entry("t/b"),
]


def test_a_full_alone_is_its_state() -> None:
    assert state(TREE) == TREE
    assert state([]) == []


def test_a_later_entry_replaces_an_earlier_one_and_new_ones_come_between() -> None:
    found = state(TREE, [entry("t/a/1", number=1), entry("t/a/15", number=1)])
    assert paths(found) == ["t", "t/a", "t/a/1", "t/a/15", "t/a/2", "t/a-b", "t/b"]
    assert [each.archive for each in found] == [0, 0, 1, 1, 0, 0, 0]


def test_what_is_removed_is_gone_with_all_below_and_nothing_beside_it() -> None:
    assert paths(state(TREE, [entry("t/a", REMOVED, 1)])) == ["t", "t/a-b", "t/b"]


def test_what_comes_back_after_a_removal_is_only_what_is_new() -> None:
    found = state(
        TREE,
        [entry("t/a", REMOVED, 1)],
        [entry("t/a", DIRECTORY, 2), entry("t/a/2", number=2)],
    )
    assert [(each.path, each.archive) for each in found] == [
        ("t", 0),
        ("t/a", 2),
        ("t/a/2", 2),
        ("t/a-b", 0),
        ("t/b", 0),
    ]


def test_a_file_in_place_of_a_directory_removes_what_was_below() -> None:
    found = state(TREE, [entry("t/a", FILE, 1)])
    assert [(each.path, each.type) for each in found][1] == ("t/a", FILE)
    assert paths(found) == ["t", "t/a", "t/a-b", "t/b"]


def test_a_directory_in_place_of_a_file_has_what_is_new_below() -> None:
    found = state(TREE, [entry("t/b", DIRECTORY, 1), entry("t/b/x", number=1)])
    assert paths(found)[-2:] == ["t/b", "t/b/x"]


def test_a_removal_below_another_one_of_a_later_increment_changes_nothing() -> None:
    found = state(
        TREE,
        [entry("t/a/1", REMOVED, 1)],
        [entry("t/a", REMOVED, 2)],
        [entry("t/a", DIRECTORY, 3), entry("t/a/1", number=3)],
    )
    assert [(each.path, each.archive) for each in found][1:3] == [("t/a", 3), ("t/a/1", 3)]
    assert "t/a/2" not in paths(found)


def test_what_was_seen_keeps_its_content_and_gets_another_ctime() -> None:
    found = {each.path: each for each in state(TREE, [entry("t/b", SEEN, 1, of=0)])}
    assert (found["t/b"].archive, found["t/b"].read) == (0, 1)
    assert (found["t/b"].ctime_ns, found["t/b"].inode, found["t/b"].mtime_ns) == (1, 1, 0)


def test_what_was_seen_of_another_content_is_void() -> None:
    changes = [entry("t/b", number=1)], [entry("t/b", SEEN, 2, of=0)]
    assert state(TREE, *changes)[-1] == entry("t/b", number=1)
    assert "t/new" not in paths(state(TREE, [entry("t/new", SEEN, 1, of=0)]))


def test_a_stale_entry_keeps_its_times_so_that_it_is_compared_again() -> None:
    stale = entry("t/b", SEEN, 1, of=0)._replace(is_stale=True)
    found = state(TREE, [stale])[-1]
    assert found == entry("t/b")._replace(is_stale=True)
    again = state(TREE, [stale], [entry("t/b", SEEN, 2, of=0)])[-1]
    assert (again.is_stale, again.read) == (False, 2)


NAMES = st.sampled_from(["a", "b", "a-b", "a/a", "a/b", "a/a/a", "b/a", "b/b", "a-b/c", "c"])


def test_removals_within_each_other_take_no_memory() -> None:
    """An index with so many levels has some kilobytes when compressed."""
    levels = 3000
    removed = [entry("/".join(["t"] * level), REMOVED, 1) for level in range(1, levels)]
    tracemalloc.start()
    try:
        assert state([entry("t", DIRECTORY)], removed) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


@st.composite
def changes(draw: st.DrawFn, number: int) -> list[Entry]:
    """Return what one archive says, sorted, each path once; a full removes nothing."""
    types = [FILE, DIRECTORY] if number == 0 else [FILE, DIRECTORY, REMOVED, SEEN]
    found = draw(st.dictionaries(NAMES, st.sampled_from(types), max_size=8))
    return [
        entry(path, found[path], number, of=draw(st.integers(0, number - 1)))
        if found[path] is SEEN
        else entry(path, found[path], number)
        for path in sorted(found, key=sort_key)
    ]


def applied(before: dict[str, Entry], increment: Sequence[Entry]) -> dict[str, Entry]:
    """Apply one increment to a whole state, one rule after the other."""
    after = dict(before)
    replaced = [each.path for each in increment if each.type not in (DIRECTORY, SEEN)]
    for path in list(after):
        if any(path.startswith(f"{each}/") for each in replaced):
            del after[path]
    for each in increment:
        if each.type is REMOVED:
            after.pop(each.path, None)
        elif each.type is SEEN:
            known = after.get(each.path)
            if known is not None and known.archive == each.archive:
                after[each.path] = known._replace(
                    ctime_ns=each.ctime_ns, inode=each.inode, read=each.read
                )
        else:
            after[each.path] = each
    return after


@settings(max_examples=300)
@given(st.data(), st.integers(0, 4), st.integers(1, 4))
@pytest.mark.slow
def test_the_overlay_is_one_increment_applied_after_the_other(
    data: st.DataObject, count: int, at_once: int
) -> None:
    archives = [data.draw(changes(number)) for number in range(count + 1)]
    expected = {each.path: each for each in archives[0]}
    for increment in archives[1:]:
        expected = applied(expected, increment)
    found = state(archives[0], *archives[1:], at_once=at_once)
    assert found == sorted(expected.values(), key=lambda each: sort_key(each.path))
