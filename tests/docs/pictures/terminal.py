"""A terminal as SVG: what commands print on a real one, as pyte, an emulator, reads it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from itertools import groupby
from xml.sax.saxutils import escape

import pyte

from tests.docs import svg
from tests.support.commandline import CommandLine

COLUMNS = 80
LETTER, LINE, SIZE = 7.83, 18.0, 13
PAD, BAR = 18, 34
MOST_LINES = 300
HOME = "/home/you"
"""What pictures show in the place of the home directory."""

STYLE = (
    # Dark on light pages too, as most terminals are.
    ".screen{fill:#16191d;stroke:@edge}\n"
    f"text{{font-family:{svg.MONOSPACE};font-size:{SIZE}px;fill:#d7dce2;white-space:pre}}\n"
    ".bold{font-weight:bold}\n"
    ".black{fill:#6b747e}\n"
    ".red{fill:#f2777a}\n"
    ".green{fill:#8fce73}\n"
    ".brown{fill:#e5c07b}\n"
    ".blue{fill:#6cb6ff}\n"
    ".magenta{fill:#d98ce0}\n"
    ".cyan{fill:#62c6d4}\n"
    ".white{fill:#ffffff}\n"
    ".prompt{fill:#62c6d4;font-weight:bold}\n"
    ".typed{fill:#ffffff;font-weight:bold}\n"
)
BUTTONS = ("#f2777a", "#e5c07b", "#8fce73")

Answers = Sequence[tuple[str, str]]
"""Pairs: a text to wait for, and what is typed then, with its line end."""
Row = list[tuple[str, str]]
"""The pieces of a line: their text and their classes."""


class Terminal:
    """A user in front of a terminal with a screen that is as high as it must be."""

    def __init__(self, user: CommandLine, columns: int = COLUMNS) -> None:
        self._user = user
        self._screen = pyte.Screen(columns, MOST_LINES)
        self._stream = pyte.Stream(self._screen)
        self._typed: list[int] = []
        """The rows of the command lines."""

    def run(self, line: str, answers: Answers = (), *, code: int = 0) -> None:
        """Type a command line and its answers; its exit code must be *code*."""
        self._typed.append(self._screen.cursor.y)
        self._stream.feed(f"$ {line}\r\n")
        environment = {
            "COLUMNS": str(self._screen.columns),
            "NO_COLOR": "",  # with colours, which other tests switch off
            "TERM": "xterm-256color",
        }
        command = shlex.split(line)
        assert command[0] == "bakthat", line
        ended, printed = self._user.converse(*command[1:], answers=answers, env=environment)
        assert ended == code, printed
        self._stream.feed(printed.replace(str(self._user.home), HOME))

    def draw(self, title: str) -> str:
        """Return a picture of the screen, up to its last line that is not empty."""
        rows = [list(self._row(number)) for number in range(MOST_LINES)]
        while rows and not rows[-1]:
            rows.pop()
        return _draw(title, rows, self._screen.columns)

    def _row(self, number: int) -> Iterator[tuple[str, str]]:
        cells = [self._screen.buffer[number][column] for column in range(self._screen.columns)]
        last = max((place for place, cell in enumerate(cells) if cell.data.strip()), default=-1)
        if number in self._typed:
            text = "".join(cell.data for cell in cells[: last + 1])
            yield from ((text[:2], "prompt"), (text[2:], "typed"))
            return
        for classes, group in groupby(cells[: last + 1], _classes):
            yield "".join(cell.data for cell in group), classes


def _classes(cell: pyte.screens.Char) -> str:
    colour = cell.fg.removeprefix("bright")
    names = [colour] if f".{colour}{{" in STYLE else []
    return " ".join([*names, *(["bold"] if cell.bold else [])])


def _draw(title: str, rows: Sequence[Row], columns: int) -> str:
    width = round(columns * LETTER + 2 * PAD)
    height = round(BAR + len(rows) * LINE + PAD)
    body = [svg.box(0.5, 0.5, width - 1, height - 1, "screen", rx=8)]
    body += [
        svg.element("circle", cx=PAD + 5 + 18 * place, cy=18, r=5, fill=colour)
        for place, colour in enumerate(BUTTONS)
    ]
    for number, row in enumerate(rows):
        if row:
            body.append(_line(row, BAR + 14 + number * LINE))
    said = "\n".join("".join(text for text, _ in row) for row in rows)
    return svg.document(width, height, title, said, STYLE, body)


def _line(row: Row, y: float) -> str:
    pieces = [
        svg.element("tspan", escape(text), class_=classes) if classes else escape(text)
        for text, classes in row
    ]
    length = sum(len(text) for text, _ in row) * LETTER
    # The columns of a table stay where they are in any font.
    return svg.element(
        "text", "".join(pieces), x=PAD, y=y, textLength=round(length, 1), xml__space="preserve"
    )


def changeless(picture: str) -> str:
    """Return the text of a picture with 0 for each number, and one space between words."""
    return re.sub(r"[^\S\n]+", " ", re.sub(r"\d+(\.\d+)?", "0", picture))
