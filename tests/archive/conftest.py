"""Fixtures of the tests of archives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.tar_bytes import NOBODY, reachable_directory


@pytest.fixture
def shared() -> Iterator[Path]:
    """Make a directory of another user that every user can reach; without root, of our own."""
    with reachable_directory(NOBODY if os.geteuid() == 0 else 0) as path:
        yield path
