"""Tables, colors and times as people see them."""

from __future__ import annotations

import io
import sys
import time

import pytest

from bakthat.system import terminal, text

HEADER = ("DATE (UTC)", "SIZE", "NAME", "TAGS")
ROWS = [
    ("2026-11-27 01:00:00", "1.2 MB", "documents.20261127010000.tgz.age", ""),
    ("2026-11-26 01:00:00", "900 B", "documents.20261126010000.tgz.age", ""),
]


class Screen(io.StringIO):
    """Standard output that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Each test puts it in the place of standard output, since pytest puts its own there first."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    return Screen()


def test_a_file_gets_every_column_in_one_line_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    terminal.print_table(HEADER, ROWS, frozenset({1}))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "DATE (UTC)             SIZE  NAME                              TAGS"
    assert lines[2] == "2026-11-26 01:00:00   900 B  documents.20261126010000.tgz.age"


def test_a_terminal_gets_no_column_without_text(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "80")
    terminal.print_table(HEADER, ROWS, frozenset({1}))
    assert screen.getvalue().splitlines()[0] == "DATE (UTC)             SIZE  NAME"


@pytest.mark.parametrize("width", range(45, 140, 5))
def test_what_is_too_wide_stands_below_and_nothing_is_cut_off(
    screen: Screen, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", str(width))
    rows = [(*row[:3], "daily") for row in ROWS]
    terminal.print_table(HEADER, rows, frozenset({1}))
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert " ".join(screen.getvalue().split()) == " ".join(
        word for row in (HEADER, *rows) for cell in row for word in cell.split()
    )
    assert len(lines) in (3, 6)


def test_a_table_without_rows_is_its_header(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", screen)
    terminal.print_table(HEADER, [], frozenset({1}))
    assert screen.getvalue() == "DATE (UTC)  SIZE  NAME  TAGS\n"


@pytest.mark.parametrize(
    ("variables", "has_colors"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "0"}, False),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_colors_are_for_terminals_that_have_them_and_people_who_want_them(
    screen: Screen,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    has_colors: bool,
) -> None:
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", screen)
    assert terminal.has_colors(sys.stdout) is has_colors
    assert not terminal.has_colors(io.StringIO())
    assert not terminal.has_colors(None)
    expected = "\x1b[31mx\x1b[0m" if has_colors else "x"
    assert terminal.styled(sys.stdout, "x", "red") == expected


def test_times_are_utc_unless_local_ones_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        assert text.shown_time(1370373000) == "2013-06-04 19:10:00"
        assert text.shown_minute(1370373000) == "2013-06-04 19:10 UTC"
        assert text.shown_zone() == "UTC"
        text.show_local_time(True)
        assert text.shown_time(1370373000) == "2013-06-04 21:10:00"
        assert text.shown_minute(1370373000) == "2013-06-04 21:10 +0200"
        assert text.shown_zone() == "local"
        assert text.utc_time(1370373000) == "2013-06-04 19:10:00"
        assert text.shown_time(1e20) == str(10**20)
    finally:
        text.show_local_time(False)
        monkeypatch.undo()
        time.tzset()
    assert text.shown_minute(None) == ""
