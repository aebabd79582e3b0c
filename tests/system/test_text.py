"""Hints for misspelt names, sizes for people, and names that are safe for a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bakthat.system.text import did_you_mean, human_size, printable, reason_of, utc_time


@pytest.mark.parametrize(
    ("word", "most", "hint"),
    [
        ("mydri", 1, "did you mean mydir?"),
        ("mydir", 3, "did you mean mydir or mydir2?"),
        ("mydir", 1, "did you mean mydir?"),
        ("zzzzz", 3, ""),
        ("", 3, ""),
    ],
)
def test_a_hint_names_the_most_similar_words(word: str, most: int, hint: str) -> None:
    assert did_you_mean(word, iter(["mydir", "mydir2", "photos"]), most=most) == hint


def test_a_hint_is_safe_for_a_terminal() -> None:
    assert did_you_mean("mydir", ["my\x1bdir"]) == r"did you mean my\x1bdir?"


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (1_234_567, "1.2 MB")]
)
def test_sizes_are_in_powers_of_a_thousand(size: int, text: str) -> None:
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1370373055, "2013-06-04 19:10:55"),
        (-1.5, "1969-12-31 23:59:58"),
        (10**17, "100000000000000000"),
        (-(2.0**63), "-9223372036854775808"),
    ],
)
def test_a_time_beyond_the_calendar_is_shown_in_seconds(seconds: float, text: str) -> None:
    assert utc_time(seconds) == text


def test_bytes_that_are_not_utf8_and_control_characters_are_escaped() -> None:
    assert printable("a\udcffb\n\u202e") == r"a\xffb\n\u202e"


@given(st.text(st.characters(exclude_categories=())))
def test_printable_text_has_one_line_and_no_control_characters(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown.encode().decode() == shown


@given(st.text().filter(str.isprintable))
def test_printable_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(28, "No space left on device", "/some/path"), "no space left on device"),
        (OSError("Odd"), "odd"),
        (ValueError("UNIQUE constraint failed"), "UNIQUE constraint failed"),
        (ValueError(), "ValueError"),
    ],
)
def test_a_reason_begins_in_lower_case_and_has_no_path(error: Exception, text: str) -> None:
    assert reason_of(error) == text
