"""Restore on btrfs, where a descriptor lists no entries that were made after it was opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bakthat.archive.extract.staging import names_in, remove_content
from tests.support.file_systems import mounted_file_system

pytestmark = pytest.mark.slow


@pytest.fixture
def btrfs() -> Iterator[Path]:
    """Mount a new btrfs."""
    with mounted_file_system("btrfs") as made:
        yield made.path


def test_a_directory_that_is_open_is_listed_as_it_is_now(btrfs: Path) -> None:
    (btrfs / "listed").mkdir()
    fd = os.open(btrfs / "listed", os.O_RDONLY)
    try:
        (btrfs / "listed/directory/inner").mkdir(parents=True)
        (btrfs / "listed/file").touch()
        assert sorted(names_in(fd)) == ["directory", "file"]
        remove_content(fd)
        assert names_in(fd) == os.listdir(btrfs / "listed") == []
    finally:
        os.close(fd)
