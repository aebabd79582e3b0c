"""Comparing two trees of entries."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bakthat.format.entry import Entry, EntryType
from bakthat.operations.browse.comparison import Aspect, ChangeKind, EntryChange, Totals, compare
from bakthat.operations.browse.order import in_order

FILE, DIRECTORY, LINK = EntryType.FILE, EntryType.DIRECTORY, EntryType.HARDLINK


class ListedTree:
    """A tree of the entries of a list, in any order."""

    has_attributes = True
    first_names: Collection[str] = ()

    def __init__(self, entries: Sequence[Entry], *, has_whole_seconds: bool = False) -> None:
        self.listed = list(in_order(entries))
        self.has_whole_seconds = has_whole_seconds
        self.unread: set[str] = set()
        self.unreadable: set[str] = set()
        self.walks = 0

    @property
    def top(self) -> str:
        return self.listed[0].path.partition("/")[0] if self.listed else ""

    def entries(self) -> Iterator[Entry]:
        self.walks += 1
        return iter(self.listed)

    def link_targets(self) -> Collection[str]:
        self.walks += 1
        return {each.target for each in self.listed if each.type is LINK}

    def find(self, paths: Collection[str]) -> Mapping[str, Entry]:
        return {each.path: each for each in self.listed if each.path in paths}

    def resolve(self, link: Entry) -> Entry | None:
        return None

    def with_digest(self, entry: Entry) -> Entry | None:
        return None if entry.path in self.unreadable else entry

    def is_unread(self, path: str) -> bool:
        return any(path == each or path.startswith(f"{each}/") for each in self.unread)


class DiskLikeTree(ListedTree):
    """One that knows hard links only as far as it was walked."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        super().__init__(entries)
        targets = super().link_targets()
        self.first_names = {each.path for each in self.listed if each.path in targets}

    def link_targets(self) -> Collection[str]:
        return ()

    def resolve(self, link: Entry) -> Entry | None:
        (found,) = (each for each in self.listed if each.path == link.target)
        return found._replace(path=link.path)


def directory(path: str, **values: Any) -> Entry:
    return entry(path, type=DIRECTORY, mode=0o755, size=0, digest=b"", **values)


def entry(path: str, **values: Any) -> Entry:
    usual: dict[str, Any] = {
        "type": FILE,
        "mode": 0o644,
        "uid": 1000,
        "gid": 1000,
        "mtime_ns": 5,
        "size": 3,
        "digest": b"x" * 32,
        "owner": "you",
        "group": "you",
    }
    return Entry(path, **{**usual, **values})


def link(path: str, target: str, **values: object) -> Entry:
    return entry(path, type=LINK, size=0, digest=b"", target=target, **values)


def changes(before: Sequence[Entry], after: Sequence[Entry]) -> list[EntryChange]:
    return list(compare(ListedTree(before), ListedTree(after), Totals()))


def described(before: Sequence[Entry], after: Sequence[Entry]) -> list[tuple[str, str]]:
    """Return the path and what changed of each change."""
    return [
        (each.path, " ".join(each.aspects) or each.kind.value) for each in changes(before, after)
    ]


def test_what_one_tree_lacks_was_added_or_removed() -> None:
    before = [directory("d"), entry("d/both"), entry("d/old")]
    after = [directory("d"), entry("d/both"), entry("d/new")]
    totals = Totals()
    found = list(compare(ListedTree(before), ListedTree(after), totals))
    assert found == [
        EntryChange("d/new", ChangeKind.ADDED, (), None, after[2]),
        EntryChange("d/old", ChangeKind.REMOVED, (), before[2], None),
    ]
    assert totals.as_dict() == {
        "added": 1,
        "removed": 1,
        "changed": 0,
        "unchanged": 2,
        "bytes_added": 3,
        "bytes_removed": 3,
        "unknown": 0,
    }
    assert totals.differs


def test_equal_trees_have_no_changes() -> None:
    tree = [directory("d"), entry("d/a"), link("d/b", "d/a")]
    totals = Totals()
    assert list(compare(ListedTree(tree), ListedTree(tree), totals)) == []
    assert not totals.differs
    assert totals.unchanged == 3


@pytest.mark.parametrize(
    ("values", "aspects"),
    [
        ({"digest": b"y" * 32}, "content"),
        ({"size": 4}, "content"),
        ({"size": 4, "digest": b"y" * 32, "mtime_ns": 6}, "content times"),
        ({"mtime_ns": 6}, "times"),
        ({"mode": 0o600}, "mode"),
        ({"owner": "me"}, "owner"),
        ({"group": "me"}, "owner"),
        ({"attributes": "0123456789abcdef"}, "attributes"),
        ({"type": EntryType.SYMLINK, "target": "t", "size": 0, "digest": b""}, "type"),
        ({"mode": 0o600, "owner": "me", "mtime_ns": 6}, "mode owner times"),
        # Names go before numbers.
        ({"uid": 0, "gid": 0}, ""),
        ({"uid": 0, "gid": 0, "owner": ""}, "owner"),
        # These are not restored.
        ({"ctime_ns": 7, "inode": 8, "is_volatile": True, "position": 512}, ""),
    ],
)
def test_a_change_says_what_changed(values: dict[str, object], aspects: str) -> None:
    found = described([entry("f")], [entry("f", **values)])
    assert found == ([("f", aspects)] if aspects else [])


def test_links_and_devices_are_compared_by_what_they_are() -> None:
    before = [
        directory("d"),
        entry("d/block", type=EntryType.BLOCK, device=(8, 0), size=0, digest=b""),
        entry("d/link", type=EntryType.SYMLINK, target="a", size=0, digest=b""),
    ]
    after = [
        directory("d"),
        before[1]._replace(device=(8, 1)),
        before[2]._replace(target="b"),
    ]
    assert described(before, after) == [("d/block", "device"), ("d/link", "target")]


def test_without_a_hash_the_time_decides_about_the_content() -> None:
    hashed, other = entry("f"), entry("f", digest=b"")
    assert described([hashed], [other]) == []
    assert described([hashed], [other._replace(mtime_ns=6)]) == [("f", "content times")]


def test_times_without_fractions_are_compared_without_them() -> None:
    before = ListedTree([entry("f", mtime_ns=5 * 10**9)], has_whole_seconds=True)
    for time, expected in ((5 * 10**9 + 123, 0), (6 * 10**9, 1)):
        after = ListedTree([entry("f", mtime_ns=time)])
        assert len(list(compare(before, after, Totals()))) == expected


def test_the_names_of_the_top_directories_may_differ() -> None:
    before = [directory("old"), entry("old/a"), entry("old/b"), link("old/c", "old/a")]
    after = [directory("new"), entry("new/a"), entry("new/b", mode=0), link("new/c", "new/a")]
    assert described(before, after) == [("new/b", "mode")]
    assert described([entry("a.txt")], [entry("b.txt", mode=0)]) == [("b.txt", "mode")]
    assert described([directory("d"), entry("d/x")], [entry("d")]) == [
        ("d", "type mode"),
        ("d/x", "removed"),
    ]


def test_a_tree_without_entries_is_compared_too() -> None:
    assert described([], [entry("f")]) == [("f", "added")]
    assert described([entry("f")], []) == [("f", "removed")]
    assert changes([], []) == []


class TestHardLinks:
    def test_one_changes_with_the_file_that_it_names(self) -> None:
        before = [directory("d"), entry("d/a"), link("d/b", "d/a")]
        after = [directory("d"), entry("d/a", digest=b"y" * 32), link("d/b", "d/a")]
        assert described(before, after) == [("d/a", "content"), ("d/b", "content")]

    @pytest.mark.parametrize("kind", [ListedTree, DiskLikeTree])
    def test_a_link_that_became_a_copy_has_another_target(self, kind: type[ListedTree]) -> None:
        before = [directory("d"), entry("d/a"), link("d/b", "d/a")]
        after = [directory("d"), entry("d/a"), entry("d/b")]
        for one, other in ((before, after), (after, before)):
            found = list(compare(ListedTree(one), kind(other), Totals()))
            assert [(each.path, each.aspects) for each in found] == [("d/b", (Aspect.TARGET,))]

    @pytest.mark.parametrize("kind", [ListedTree, DiskLikeTree])
    def test_a_first_name_that_comes_or_goes_is_no_change_of_the_others(
        self, kind: type[ListedTree]
    ) -> None:
        before = [directory("d"), entry("d/a"), link("d/b", "d/a"), link("d/c", "d/a")]
        after = [directory("d"), entry("d/b"), link("d/c", "d/b")]
        for one, other, kinds in ((before, after, ["removed"]), (after, before, ["added"])):
            found = list(compare(ListedTree(one), kind(other), Totals()))
            assert [each.kind for each in found] == kinds

    @pytest.mark.parametrize("kind", [ListedTree, DiskLikeTree])
    def test_two_files_that_were_one_are_told_from_two_names_of_another(
        self, kind: type[ListedTree]
    ) -> None:
        before = [directory("d"), entry("d/a"), entry("d/b"), link("d/c", "d/a")]
        after = [directory("d"), entry("d/a"), entry("d/b"), link("d/c", "d/b")]
        found = list(compare(ListedTree(before), kind(after), Totals()))
        assert [(each.path, each.aspects) for each in found] == [("d/c", (Aspect.TARGET,))]

    @pytest.mark.parametrize("kind", [ListedTree, DiskLikeTree])
    def test_the_content_of_a_file_that_became_a_link_is_compared(
        self, kind: type[ListedTree]
    ) -> None:
        before = [directory("d"), entry("d/b")]
        after = [directory("d"), entry("d/a", digest=b"y" * 32), link("d/b", "d/a")]
        found = list(compare(ListedTree(before), kind(after), Totals()))
        assert [each.aspects for each in found] == [(), (Aspect.CONTENT,)]

    def test_one_to_another_one_has_the_content_of_its_target(self) -> None:
        before = [directory("d"), entry("d/a"), link("d/b", "d/a"), link("d/c", "d/b")]
        after = [directory("d"), entry("d/a"), link("d/b", "d/a"), entry("d/c", digest=b"y" * 32)]
        assert described(before, after) == [("d/c", "content target")]
        before[1] = link("d/a", "d/c")
        assert described(before, after)[-1] == ("d/c", "target")

    def test_without_a_target_in_the_archive_it_has_another_target(self) -> None:
        before = [directory("d"), link("d/b", "d/nowhere")]
        after = [directory("d"), entry("d/b")]
        assert described(before, after) == [("d/b", "target")]

    def test_the_entries_are_read_once_where_the_links_are_the_same(self) -> None:
        tree = ListedTree([directory("d"), entry("d/a"), link("d/b", "d/a"), link("d/c", "d/a")])
        other = ListedTree(tree.listed)
        assert list(compare(tree, other, Totals())) == []
        assert (tree.walks, other.walks) == (1, 1)


def test_what_the_second_tree_could_not_read_is_neither_removed_nor_changed() -> None:
    before = [directory("d"), directory("d/e"), entry("d/e/f"), entry("d/g"), entry("d/h")]
    after = ListedTree([directory("d"), directory("d/e"), entry("d/g", digest=b"")])
    after.unread = {"d/e"}
    after.unreadable = {"d/g"}
    totals = Totals()
    found = list(compare(ListedTree(before), after, totals))
    assert [(each.path, each.kind) for each in found] == [("d/h", ChangeKind.REMOVED)]
    assert totals.unknown == 2


def test_a_change_as_a_dict_has_both_sides() -> None:
    (change,) = changes([entry("f")], [entry("f", mode=0)])
    found = change.as_dict()
    assert {key: found[key] for key in ("path", "change", "aspects")} == {
        "path": "f",
        "change": "changed",
        "aspects": ["mode"],
    }
    assert found["before"]["mode"] == 0o644
    assert found["after"]["mode"] == 0
    (change,) = changes([], [entry("f")])
    assert change.as_dict()["before"] is None


NAMES = st.sampled_from(["a", "a.b", "a-", "b", "é", "\udcff", "\U0001f600", "Z", "c"])


@st.composite
def trees(draw: st.DrawFn) -> list[Entry]:
    """Make a tree whose files are few, so that two trees have some of them in common."""
    made: dict[tuple[str, ...], Entry] = {("t",): directory("t")}
    for _ in range(draw(st.integers(0, 12))):
        parent = draw(st.sampled_from([key for key, e in made.items() if e.type is DIRECTORY]))
        key = (*parent, draw(NAMES))
        if key in made:
            continue
        path = "/".join(key)
        made[key] = (
            directory(path)
            if draw(st.booleans())
            else entry(path, digest=draw(st.sampled_from([b"x", b"y"])) * 32)
        )
    first: dict[bytes, str] = {}
    listed = []
    for each in in_order(made.values()):
        if each.type is FILE and each.digest in first and draw(st.booleans()):
            listed.append(link(each.path, first[each.digest]))
        else:
            if each.type is FILE:
                first.setdefault(each.digest, each.path)
            listed.append(each)
    return listed


def contents(tree: list[Entry]) -> dict[str, object]:
    known = {each.path: each for each in tree}
    return {
        each.path: (node.type, node.digest)
        for each in tree
        for node in [known[each.target] if each.type is LINK else each]
    }


@given(trees(), trees(), st.booleans())
def test_the_changes_are_the_differences(
    before: list[Entry], after: list[Entry], like_disk: bool
) -> None:
    second = DiskLikeTree(after) if like_disk else ListedTree(after)
    totals = Totals()
    found = list(compare(ListedTree(before), second, totals))
    old, new = contents(before), contents(after)
    by_kind = {
        kind: {each.path for each in found if each.kind is kind}
        for kind in (ChangeKind.ADDED, ChangeKind.REMOVED)
    }
    assert by_kind[ChangeKind.ADDED] == new.keys() - old.keys()
    assert by_kind[ChangeKind.REMOVED] == old.keys() - new.keys()
    changed = {each.path for each in found if {Aspect.CONTENT, Aspect.TYPE} & set(each.aspects)}
    assert changed == {path for path in old.keys() & new.keys() if old[path] != new[path]}
    order = [each.path.encode("utf-8", "surrogateescape").split(b"/") for each in found]
    assert order == sorted(order)
    assert totals.added + totals.removed + totals.changed == len(found)
    assert totals.unchanged + totals.changed == len(old.keys() & new.keys())


@given(trees())
def test_a_tree_does_not_differ_from_itself(tree: list[Entry]) -> None:
    assert changes(tree, tree) == []
    assert list(compare(ListedTree(tree), DiskLikeTree(tree), Totals())) == []


def groups(tree: list[Entry], common: set[str]) -> dict[str, frozenset[str]]:
    """Return the names of a file that both trees have, by each of them."""
    sets: dict[str, set[str]] = {}
    for each in tree:
        sets.setdefault(each.target if each.type is LINK else each.path, set()).add(each.path)
    return {path: frozenset(names & common) for names in sets.values() for path in names & common}


@given(trees(), trees(), st.booleans())
def test_links_differ_where_the_names_of_a_file_in_both_trees_differ(
    before: list[Entry], after: list[Entry], like_disk: bool
) -> None:
    second = DiskLikeTree(after) if like_disk else ListedTree(after)
    found = list(compare(ListedTree(before), second, Totals()))
    common = {each.path for each in before} & {each.path for each in after}
    old, new = groups(before, common), groups(after, common)
    expected = {path for path in common if min_of(old[path]) != min_of(new[path])}
    assert {each.path for each in found if Aspect.TARGET in each.aspects} == expected


def min_of(names: frozenset[str]) -> list[bytes]:
    return min(name.encode("utf-8", "surrogateescape").split(b"/") for name in names)
