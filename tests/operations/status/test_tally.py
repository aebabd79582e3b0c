"""What a listing tells of a set, in little memory."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from bakthat.backends.base import StoredObject
from bakthat.operations.status.set_status import MOST_SIZES
from bakthat.operations.status.tally import Tally

NOW = 1_795_000_000
DAY = 86400


def filled(dates: list[int]) -> Tally:
    """Return a tally of backups with these dates."""
    tally = Tally(NOW)
    for number, date in enumerate(dates):
        tally.add(StoredObject(f"{date:012}.{number}", number), date)
    return tally


def dates_of(found: list[StoredObject]) -> list[int]:
    """Return the dates of backups of :func:`filled`."""
    return [int(each.key.partition(".")[0]) for each in found]


@given(st.lists(st.integers(NOW - 10**8, NOW), max_size=60))
def test_the_newest_are_kept_in_any_order(dates: list[int]) -> None:
    tally = filled(dates)
    assert dates_of(tally.newest) == sorted(dates, reverse=True)[:MOST_SIZES]
    assert tally.count == len(dates)


@given(st.lists(st.integers(NOW - 10**8, NOW), max_size=40), st.integers(0, 40))
def test_two_tallies_of_one_set_are_as_one(dates: list[int], cut: int) -> None:
    both = filled(dates[:cut])
    both.merge(filled(dates[cut:]))
    whole = filled(dates)
    assert (both.count, dates_of(both.newest)) == (whole.count, dates_of(whole.newest))


def test_one_dated_in_the_future_is_not_the_newest() -> None:
    tally = filled([NOW - DAY, NOW + DAY, NOW - 2 * DAY])
    assert dates_of(tally.newest) == [NOW - DAY, NOW - 2 * DAY, NOW + DAY]
    assert [key.partition(".")[0] for key in tally.future] == [f"{NOW + DAY:012}"]


def test_the_probes_are_few_and_from_everywhere() -> None:
    for count in range(1, 2000, 7):
        dates = [NOW - DAY * number for number in range(count)]
        random.Random(count).shuffle(dates)
        probes = dates_of(filled(dates).probes)
        assert len(set(probes)) == len(probes) <= 5
        assert set(probes) >= {*sorted(dates)[-2:], min(dates)}
        if count <= 3:
            assert sorted(probes) == sorted(dates)


def test_two_probes_that_follow_each_other_are_from_the_middle() -> None:
    for count in range(20, 2000, 7):
        dates = [NOW - DAY * (count - number) for number in range(count)]
        between = set(dates_of(filled(dates).probes)) - {dates[0], *dates[-2:]}
        first, second = sorted(map(dates.index, between))
        assert second == first + 1
        assert count / 4 <= first <= 3 * count / 4


def test_both_of_two_sets_that_alternate_are_among_the_probes() -> None:
    for count in range(4, 500):
        dates = sorted(NOW - DAY * number for number in range(count))
        probes = dates_of(filled(dates).probes)
        assert {dates.index(each) % 2 for each in probes} == {0, 1}


def test_memory_is_bounded_whatever_the_number() -> None:
    tally = filled([NOW - number for number in range(20_000)])
    held = {each.key for each in (*tally.newest, *tally.probes)}
    assert len(held) <= MOST_SIZES + 5
    assert len(filled([NOW + DAY * 2 + each for each in range(100)]).future) == MOST_SIZES
