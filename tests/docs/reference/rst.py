"""Pieces of reStructuredText."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 100
NOTICE = ".. Written by python -m tests.docs.reference; change what it is made from."


def title(text: str, line: str = "=") -> str:
    """Return a heading."""
    return f"{text}\n{line * len(text)}"


def literal(text: str) -> str:
    """Return *text* as it stands, in the typewriter's letters."""
    return f"``{text}``"


def escaped(text: str) -> str:
    """Return *text* so that nothing in it is markup, with its options as literals."""
    plain = re.sub(r"[\\*`|]|_(?!\w)", r"\\\g<0>", text)
    return re.sub(r"(?<![\w-])--?[a-z][\w-]*", r"``\g<0>``", plain)


def prose(text: str, indent: str = "") -> str:
    """Return a paragraph in lines that fit; what is between backticks is not broken."""
    # Every space within a literal is another character while the lines are made.
    pieces = text.split("``")
    kept = "``".join(
        piece.replace(" ", "\0") if number % 2 else piece for number, piece in enumerate(pieces)
    )
    filled = textwrap.fill(
        kept,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filled.replace("\0", " ")


def block(text: str, language: str = "") -> str:
    """Return *text* as an indented block."""
    head = f".. code-block:: {language}\n\n" if language else "::\n\n"
    return head + textwrap.indent(text.rstrip("\n"), "    ")


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a list of terms, each with its paragraph."""
    return "\n".join(f"{term}\n{prose(meaning, '    ')}" for term, meaning in pairs)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], widths: Sequence[int]) -> str:
    """Return a table; *widths* are those of the columns, as parts of its whole."""
    lines = [
        ".. list-table::",
        "   :header-rows: 1",
        f"   :widths: {' '.join(map(str, widths))}",
        "",
    ]
    for row in (head, *rows):
        for number, cell in enumerate(row):
            mark = "*" if number == 0 else " "
            filled = prose(cell, " " * 7)[7:] if cell else ""
            lines.append(f"   {mark} - {filled}".rstrip())
    return "\n".join(lines)


def page(*parts: str) -> str:
    """Return the text of a file: its parts, with an empty line between them."""
    return "\n\n".join(part for part in parts if part) + "\n"
