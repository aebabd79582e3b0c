"""The processes that a test has started: those of tests that run beside it are left out."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def own_processes() -> list[Path]:
    """Return the directories in Linux's /proc of all processes below this one.

    Each may be gone when it is looked at.
    """
    parents = {}
    for each in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[each.parent] = int(each.read_text().rpartition(")")[2].split()[1])
    below, found = {os.getpid()}, list[Path]()
    while new := [each for each, parent in parents.items() if parent in below]:
        found += new
        below = {int(each.name) for each in new}
    return found
