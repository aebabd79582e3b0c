"""Intervals: parsing, errors, and the description in words."""

from __future__ import annotations

import calendar
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bakthat.errors import UsageError
from bakthat.policy.intervals import GRAMMAR, LONGEST, UNITS, describe_interval, parse_interval

NOW = calendar.timegm((2026, 11, 23, 20, 20, 5))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("1m", 60),
        ("1h", 3600),
        ("1D", 86400),
        ("1W", 604800),
        ("1M", 2592000),
        ("1Y", 31536000),
        ("3M2D8h20m5s", 3 * 2592000 + 2 * 86400 + 8 * 3600 + 20 * 60 + 5),
        ("1M3W4h2s", 2592000 + 3 * 604800 + 4 * 3600 + 2),
        ("2D1h", 86400 * 2 + 3600),
        ("3M", 3 * 30 * 86400),
        ("1h2D", 86400 * 2 + 3600),
        ("007D", 7 * 86400),
        ("0D5h", 5 * 3600),
        ("1000Y", LONGEST),
    ],
)
def test_units_mean_what_they_meant_in_0_6_0(text: str, seconds: int) -> None:
    assert parse_interval(text) == seconds


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the interval is empty"),
        ("0s", "is zero"),
        ("0Y0M", "is zero"),
        ("3", "no unit after 3"),
        ("2D3", "no unit after 3"),
        ("D", "no number before 'D'"),
        ("2DM", "no number before 'M'"),
        ("1d", "unknown unit 'd'"),
        ("1y", "unknown unit 'y'"),
        ("3S", "unknown unit 'S'"),
        ("3 D", "unknown unit ' '"),
        ("1.5D", "unknown unit '.'"),
        ("2days", "unknown unit 'd'"),
        ("3D or so", "unexpected ' '"),
        (" 3D", "unexpected ' '"),
        ("3D\n", r"unexpected '\n'"),
        ("-3D", "unexpected '-'"),
        ("+3D", "unexpected '+'"),
        ("3D-1h", "unexpected '-'"),
        ("٣D", "unexpected '٣'"),
        ("3²D", "unknown unit '²'"),
        ("1m1m", "the unit 'm' twice"),
        ("1D2h3D", "the unit 'D' twice"),
        ("1001Y", "longer than 1000 years"),
        ("1000Y1s", "longer than 1000 years"),
        ("9" * 99 + "s", "longer than 1000 years"),
        ("9" * 10_000 + "s", "10001 characters"),
    ],
)
def test_an_invalid_interval_is_refused_with_its_reason_and_the_grammar(
    text: str, complaint: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(complaint)) as caught:
        parse_interval(text)
    assert caught.value.hint == GRAMMAR
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


def test_the_grammar_names_every_unit() -> None:
    assert set(re.findall(r"\b([A-Za-z]) [a-z]+", GRAMMAR)) == set(UNITS)


amounts = st.dictionaries(
    st.sampled_from(sorted(UNITS)), st.integers(0, 140), min_size=1, max_size=7
).filter(lambda parts: any(parts.values()))


@given(parts=amounts, data=st.data())
def test_units_add_up_in_any_order(parts: dict[str, int], data: st.DataObject) -> None:
    order = data.draw(st.permutations(sorted(parts)))
    text = "".join(f"{parts[unit]}{unit}" for unit in order)
    assert parse_interval(text) == sum(number * UNITS[unit] for unit, number in parts.items())


@given(st.text(alphabet="0123456789smhDWMYdy -+.٣\n", max_size=12))
def test_any_other_text_is_refused_and_none_is_parsed_as_zero(text: str) -> None:
    parts = re.findall("([0-9]+)([smhDWMY])", text)
    meant = sum(int(number) * UNITS[unit] for number, unit in parts)
    whole = "".join(number + unit for number, unit in parts) == text
    once = len({unit for _, unit in parts}) == len(parts)
    if whole and once and 0 < meant <= LONGEST:
        assert parse_interval(text) == meant
    else:
        with pytest.raises(UsageError):
            parse_interval(text)


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("3M2D8h20m5s", "older than 92 days 8:20:05, before 2026-08-23 12:00:00 UTC"),
        ("1m", "older than 0 days 0:01:00, before 2026-11-23 20:19:05 UTC"),
        ("1M", "older than 30 days 0:00:00, before 2026-10-24 20:20:05 UTC"),
        ("1D", "older than 1 day 0:00:00, before 2026-11-22 20:20:05 UTC"),
        ("1000Y", "older than 365000 days 0:00:00, before 1027-07-24 20:20:05 UTC"),
    ],
)
def test_an_interval_is_described_in_words(text: str, reading: str) -> None:
    assert describe_interval(parse_interval(text), NOW) == reading


def test_the_documentation_reads_an_interval_as_the_code_does() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "retention.rst").read_text("utf-8")
    assert describe_interval(parse_interval("3M2D8h20m5s"), NOW) in page
    assert re.findall(r"^([smhDWMY]) {5}", page, re.MULTILINE) == list(UNITS)


@given(seconds=st.integers(1, LONGEST), now=st.integers(0, 253402300799))
def test_the_description_has_the_same_length_and_moment(seconds: int, now: int) -> None:
    found = re.fullmatch(
        r"older than (\d+) days? (\d+):(\d\d):(\d\d), "
        r"before (\d+)-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d) UTC",
        describe_interval(seconds, now),
    )
    assert found is not None
    days, hours, minutes, rest, *moment = (int(group) for group in found.groups())
    assert days * 86400 + hours * 3600 + minutes * 60 + rest == seconds
    assert calendar.timegm((*moment,)) == now - seconds
