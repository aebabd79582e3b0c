"""Make histories in a process of their own."""

from __future__ import annotations

import os
import tempfile
import traceback
import warnings
from collections import Counter

from hypothesis.stateful import run_state_machine_as_test

from tests.increment_histories.machine import Histories, figures, settings_for

AT_ONCE = 20
"""Histories that are made before they are reported."""


def make_some() -> tuple[Counter[str], str]:
    """Make some histories; return what was done, and the smallest one that went wrong."""
    warnings.filterwarnings("ignore", "This process .* is multi-threaded")
    figures.clear()
    problem = ""
    with tempfile.TemporaryDirectory() as home:
        os.environ["HOME"] = home
        os.environ.pop("XDG_CACHE_HOME", None)
        try:
            run_state_machine_as_test(Histories, settings=settings_for(AT_ONCE, database=None))
        except Exception as exc:  # noqa: BLE001  # the parent prints it
            problem = "".join(traceback.format_exception(exc))
    return figures, problem
