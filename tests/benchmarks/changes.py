"""A tree of which 1 % of the files changes, in the same way each time, and that can be put back."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.datasets import SEED, Tree
from tests.benchmarks.measuring import tree_bytes

SHARE = 100
"""One file in so many changes, and so large a part of its bytes."""
LEAST_BYTES = 64
RACY_SECONDS = 61
"""For how long bakthat reads a file that changed once more (docs/explanation/incremental.rst),
and a bit. The runs stand for backups of several days, when this is over."""


class ChangingTree:
    """A copy of *original* in *directory*, which changes; the bytes of *original* stay."""

    def __init__(self, original: Tree, directory: Path) -> None:
        self._original = original
        path = directory / original.path.name
        shutil.copytree(original.path, path, symlinks=True)
        self.tree = replace(original, path=path)
        self._names = sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())
        self.changed: set[Path] = set()
        """The files that differ from the original, below the tree."""
        self._touched_at = time.monotonic()

    def reset(self) -> None:
        """Make all files as they were at first."""
        for name in self.changed:
            shutil.copy2(self._original.path / name, self.tree.path / name)
            self._touched_at = time.monotonic()
        self.changed.clear()

    def settle(self) -> None:
        """Wait until no file counts as just changed."""
        time.sleep(max(0.0, self._touched_at + RACY_SECONDS - time.monotonic()))

    def change(self, number: int) -> None:
        """Make the change *number*: append to half of the chosen files, rewrite parts of others."""
        source = random.Random(f"{SEED} {number}")
        for place, name in enumerate(source.sample(self._names, max(1, len(self._names) // SHARE))):
            path = self.tree.path / name
            size = path.stat().st_size
            data = source.randbytes(max(LEAST_BYTES, size // SHARE))
            with path.open("r+b") as stream:
                # An empty file has nothing to rewrite.
                if (number + place) % 2 or size < len(data):
                    stream.seek(0, os.SEEK_END)
                else:
                    stream.seek(source.randrange(size - len(data) + 1))
                stream.write(data)
            self.changed.add(name)
        self._touched_at = time.monotonic()

    def described(self) -> Tree:
        """Return the tree with the bytes that it has now."""
        return replace(self.tree, bytes=tree_bytes(self.tree.path))


@contextlib.contextmanager
def changing(original: Tree, workspace: Path) -> Iterator[ChangingTree]:
    """Make a copy of *original* that changes; it is gone when the block ends."""
    directory = workspace / "changing"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    try:
        yield ChangingTree(original, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
