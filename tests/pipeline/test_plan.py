"""Which parts of which archives the restore of a state needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest

from bakthat.archive.extract.selection import Selection
from bakthat.errors import CorruptIndexError, NoMatchError
from bakthat.format.entry import Entry, EntryType
from bakthat.pipeline.plan import Lost, Plan, plan_restore
from tests.support.entries import EntryList

SIZE = 10 * 2048


@dataclass
class Footer:
    tar_bytes: int = SIZE
    stored_bytes: int = 0


class Index:
    """The index of one archive, of which nothing but its size is asked."""

    footer = Footer()

    def members(self) -> None:
        return None

    def within(self, _parts: Iterable[tuple[int, int]]) -> Iterator[Entry]:
        return iter(())


class State(EntryList):
    """A state in memory."""

    def __init__(self, *entries: Entry, archives: int = 3) -> None:
        super().__init__(sorted(entries, key=lambda each: each.path.encode().replace(b"/", b"\0")))
        self.indexes = [Index() for _ in range(archives)]


def file(path: str, archive: int, number: int) -> Entry:
    """Return a file that takes 2048 bytes of an archive, the *number*th there."""
    return Entry(
        path,
        EntryType.FILE,
        0o644,
        0,
        0,
        0,
        size=10,
        position=number * 2048,
        stored_bytes=10,
        archive=archive,
    )


def link(path: str, archive: int, number: int, target: str) -> Entry:
    return file(path, archive, number)._replace(
        type=EntryType.HARDLINK, size=0, stored_bytes=512, target=target
    )


def directory(path: str, archive: int, number: int) -> Entry:
    return file(path, archive, number)._replace(type=EntryType.DIRECTORY, size=0, stored_bytes=512)


STATE = State(
    directory("top", 2, 0),
    file("top/a", 0, 1),
    file("top/b", 0, 2),
    link("top/c", 1, 3, "top/a"),
    file("top/d", 2, 5),
    link("top/e", 2, 6, "top/d"),
    file("top/f", 0, 8),
)


def spans(plan: Plan) -> list[list[tuple[int, int]]]:
    return [[(start // 2048, end // 2048) for start, end in each] for each in plan.spans]


def test_each_path_is_read_from_one_archive() -> None:
    plan = plan_restore(STATE, None)
    assert spans(plan) == [[(1, 3), (8, 9)], [(3, 4)], [(0, 1), (5, 7)]]
    assert list(plan.archives) == [0, 1, 2]
    assert plan.lost == {}


def test_the_archive_of_an_unchosen_target_is_read_too() -> None:
    plan = plan_restore(STATE, Selection(["c"]))
    assert spans(plan) == [[], [(3, 4)], []]
    assert list(plan.archives) == [0, 1]
    plan = plan_restore(STATE, Selection(["e", "d"]))
    assert list(plan.archives) == [2]


def test_a_selection_without_a_match_is_an_error() -> None:
    with pytest.raises(NoMatchError):
        plan_restore(STATE, Selection(["nothing"]))


def test_what_is_missing_is_counted_and_named() -> None:
    plan = plan_restore(STATE, None, [0])
    assert spans(plan) == [[], [], [(0, 1), (5, 7)]]
    assert plan.lost == {0: Lost(4, 0, ["top/a", "top/b", "top/c"])}
    plan = plan_restore(STATE, None, [2])
    assert plan.lost == {2: Lost(2, 1, ["top", "top/d", "top/e"])}
    plan = plan_restore(STATE, None, [1, 2])
    assert plan.lost == {1: Lost(1, 0, ["top/c"]), 2: Lost(2, 1, ["top", "top/d", "top/e"])}


def test_a_link_is_lost_with_its_target_also_where_that_is_not_chosen() -> None:
    plan = plan_restore(STATE, Selection(["c"]), [0])
    assert plan.lost == {0: Lost(1, 0, ["top/c"])}
    assert list(plan.archives) == []


def test_nothing_is_lost_of_what_is_not_wanted() -> None:
    plan = plan_restore(STATE, Selection(["d", "b"]), [1])
    assert plan.lost == {}
    assert list(plan.archives) == [0, 2]


def test_a_place_outside_of_its_archive_is_refused() -> None:
    with pytest.raises(CorruptIndexError):
        plan_restore(State(file("top", 1, 10)), None)
    with pytest.raises(CorruptIndexError):
        plan_restore(State(file("top/a", 1, 2), file("top/b", 1, 1)), None)
