"""Sizes of streams: what is suspicious, what is an error, and how a share is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bakthat.errors import UsageError
from bakthat.operations.sources.stream_sizes import difference_of, is_below, parse_percent

SIZES = st.integers(0, 2**62)


@pytest.mark.parametrize(
    ("size", "last", "difference"),
    [
        (50, 100, ""),
        (49, 100, "49 B is less than half of the 100 B"),
        (200, 100, ""),
        (201, 100, "201 B is more than twice the 100 B"),
        (1, 3, "1 B is less than half of the 3 B"),
        (2, 3, ""),
        (0, 0, ""),
        (0, 1, "0 B is less than half of the 1 B"),
        (1, 0, "1 B is more than twice the 0 B"),
    ],
)
def test_a_size_is_suspicious_beyond_half_and_twice(size: int, last: int, difference: str) -> None:
    assert difference_of(size, last) == difference


@given(SIZES, SIZES)
def test_a_size_differs_suspiciously_in_both_directions_or_in_none(one: int, other: int) -> None:
    assert bool(difference_of(one, other)) == bool(difference_of(other, one))
    assert not difference_of(one, one)


@given(SIZES, st.integers(0, 2**62), st.integers(0, 2**62))
def test_what_is_between_two_usual_sizes_is_usual(last: int, one: int, other: int) -> None:
    low, high = sorted((one, other))
    if not difference_of(low, last) and not difference_of(high, last):
        assert not difference_of((low + high) // 2, last)


@given(SIZES, SIZES)
def test_below_half_is_what_is_suspiciously_small(size: int, last: int) -> None:
    assert is_below(size, last, 50) == ("less than half" in difference_of(size, last))


@given(SIZES, SIZES, st.integers(1, 100), st.integers(1, 100))
def test_what_is_below_a_share_is_below_each_larger_one(
    size: int, last: int, one: int, other: int
) -> None:
    low, high = sorted((one, other))
    assert not is_below(size, last, low) or is_below(size, last, high)
    assert not is_below(last, last, high)
    assert not is_below(size, 0, high)


@pytest.mark.parametrize(("size", "is_error"), [(80, False), (79, True)])
def test_the_share_itself_is_not_below_it(size: int, is_error: bool) -> None:
    assert is_below(size, 100, 80) == is_error


@given(st.integers(1, 100), st.sampled_from(["", "%", " %"]))
def test_a_share_is_read_as_it_is_written(percent: int, unit: str) -> None:
    assert parse_percent(percent) == percent
    assert parse_percent(f"{percent}{unit}") == percent
    assert parse_percent(f" {percent}{unit} ") == percent


@pytest.mark.parametrize(
    "text",
    [
        "",
        "%",
        "0",
        "0%",
        "101%",
        "-5%",
        "1000",
        "0.5",
        "50%%",
        "half",
        "5 0%",
        "\u0665\u0660%",
        "1e1",
    ],
)
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_percent(text)
    assert str(caught.value) == f"'{text}' is no share of the last size"
    assert "--fail-below 50%" in caught.value.hint


@given(st.one_of(st.text(max_size=8), st.integers()))
def test_a_share_is_1_to_100_or_an_error(value: str | int) -> None:
    try:
        percent = parse_percent(value)
    except UsageError:
        return
    assert 1 <= percent <= 100
    assert str(percent) in str(value)
