"""Restore on btrfs, where a descriptor lists no entries that were made after it was opened."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bakthat.archive.extract.staging import names_in, remove_content
from tests.support.file_systems import mounted_file_system

pytestmark = pytest.mark.slow

SUITE = [
    "archive/test_extract.py",
    "archive/test_extract_hostile.py",
    "operations/test_restore_only.py",
]


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


def test_the_suite_of_restores_passes_on_btrfs(btrfs: Path) -> None:
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--basetemp={btrfs / 'base'}", *(tests / name for name in SUITE)],
        cwd=tests.parent,
        env={**os.environ, "TMPDIR": str(btrfs)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]
