"""Programs that produce what is backed up, or take what is restored."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field

SECRET_FILE = "{secret-file}"
"""In the arguments and the environment of a program, the path of its secret file."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program to run."""

    name: str
    """For messages: "pg_dump", "the command"."""
    arguments: tuple[str, ...]
    """Its command line; the program is looked up on PATH."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What is added to the environment of this process."""
    secret: str = field(default="", repr=False)
    """The content of a file that only the program can read: :data:`SECRET_FILE` is its path."""


def find_program(*names: str) -> str | None:
    """Return the first of *names* that is on PATH, None for none."""
    return next((name for name in names if shutil.which(name)), None)
