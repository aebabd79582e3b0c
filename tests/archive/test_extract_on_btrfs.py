"""Restore on btrfs, where a descriptor lists no entries that were made after it was opened."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bakthat.archive.extract.staging import names_in, remove_content
from bakthat.archive.extract.unpack import extract
from bakthat.archive.report import ArchiveReport
from tests.support.archives import grow, store
from tests.support.needs import mounted, program
from tests.support.tar_bytes import Pieces, reachable_directory, snapshot

pytestmark = pytest.mark.slow

SUITE = [
    "archive/test_extract.py",
    "archive/test_extract_hostile.py",
    "operations/test_restore_only.py",
]
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def btrfs() -> Iterator[Path]:
    """Mount a new btrfs where every user can reach it, or skip where that is not possible."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    mkfs = program("mkfs.btrfs")
    with reachable_directory() as base:
        image, place = base / "image", base / "mounted"
        place.mkdir()
        with image.open("wb") as stream:
            stream.truncate(300 * MIB)
        subprocess.run([mkfs, "-q", image], check=True, capture_output=True)
        with mounted(place, "-o", "loop", str(image)):
            place.chmod(0o755)
            yield place


@pytest.fixture
def overlay(btrfs: Path) -> Iterator[Path]:
    """Mount an overlay whose upper layer is on btrfs."""
    layers = btrfs / "layers"
    for name in ("lower", "upper", "work", "merged"):
        (layers / name).mkdir(parents=True)
    options = ",".join(f"{name}dir={layers / name}" for name in ("lower", "upper", "work"))
    with mounted(layers / "merged", "-t", "overlay", "overlay", "-o", options):
        yield layers / "merged"


def comes_back(tmp_path: Path, destination: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    grow(source)
    archive, _ = store(source)
    for _ in range(2):  # into nothing, and over itself
        extract(Pieces(archive, MIB), destination, report=ArchiveReport())
        assert os.listdir(destination) == ["set"]
        assert snapshot(destination / "set") == snapshot(source)


def test_a_tree_is_restored_on_btrfs(tmp_path: Path, btrfs: Path) -> None:
    comes_back(tmp_path, btrfs / "out")


def test_a_tree_is_restored_on_an_overlay_of_btrfs(tmp_path: Path, overlay: Path) -> None:
    comes_back(tmp_path, overlay / "out")


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
