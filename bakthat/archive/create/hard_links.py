"""Find the names of a tree that are hard links to one file."""

from __future__ import annotations

import os
import stat


class HardLinks:
    """Remember the files with several names, until all of their names were seen.

    Symbolic links, FIFOs and devices can have several names, too.
    """

    def __init__(self) -> None:
        self._first: dict[tuple[int, int], tuple[bytes, int, tuple[int, int, int]]] = {}

    def add(self, name: bytes, status: os.stat_result) -> None:
        """Remember that the member *name* holds the content of this file."""
        if status.st_nlink > 1:
            key = (status.st_dev, status.st_ino)
            self._first[key] = (name, status.st_nlink - 1, _version(status))

    def find(self, status: os.stat_result) -> bytes | None:
        """Return the name of the member that holds this file's content already."""
        key = (status.st_dev, status.st_ino)
        if status.st_nlink < 2 or key not in self._first:
            return None
        name, left, version = self._first[key]
        if version != _version(status):
            # The file has changed since, or a new file has the inode number of a removed one.
            del self._first[key]
            return None
        if left > 1:
            self._first[key] = (name, left - 1, version)
        else:
            del self._first[key]
        return name


def _version(status: os.stat_result) -> tuple[int, int, int]:
    """Return values that tell a file from its older versions and from others with its inode."""
    return stat.S_IFMT(status.st_mode), status.st_size, status.st_mtime_ns
