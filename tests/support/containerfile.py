"""Read the Containerfile that the documentation gives away."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

# From no other module of the tests: tests.package has none of their libraries.
FILES = Path(__file__).parents[2] / "docs" / "how-to" / "containers"


class Instruction(NamedTuple):
    """An instruction, such as RUN, and what follows it."""

    word: str
    rest: str


def stages() -> list[list[Instruction]]:
    """Return the instructions of each stage; the first of each is FROM."""
    text = re.sub(r"^#.*\n", "", (FILES / "Containerfile").read_text(), flags=re.MULTILINE)
    found: list[list[Instruction]] = []
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        if word:
            found[-1].append(Instruction(word, rest.strip()))
    return found
