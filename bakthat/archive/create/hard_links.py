"""Find the names of a tree that are hard links to one file."""

from __future__ import annotations

import os
import stat
import struct

_RECORD = struct.Struct("<QHqqI")
"""Names that were not seen yet, file type, size, and the seconds and nanoseconds of the mtime."""


class HardLinks:
    """Remember the files with several names, until all of their names were seen.

    Symbolic links, FIFOs and devices can have several names, too. A snapshot of a whole tree by
    links (rsnapshot, BackupPC) has millions of such files, all of them seen once before the first
    is seen again. So each takes one integer and one bytes object: some 150 bytes and its name.
    """

    def __init__(self) -> None:
        self._first: dict[int, bytes] = {}
        self._device: int | None = None

    def add(self, name: bytes, status: os.stat_result) -> None:
        """Remember that the member *name* holds the content of this file."""
        if status.st_nlink > 1:
            self._first[self._key(status)] = _record(status, status.st_nlink - 1) + name

    def find(self, status: os.stat_result) -> bytes | None:
        """Return the name of the member that holds this file's content already."""
        if status.st_nlink < 2:
            return None
        key = self._key(status)
        first = self._first.get(key)
        if first is None:
            return None
        left = int.from_bytes(first[:8], "little")
        name = first[_RECORD.size :]
        if first[: _RECORD.size] != _record(status, left):
            # The file has changed since, or a new file has the inode number of a removed one.
            del self._first[key]
            return None
        if left > 1:
            self._first[key] = _record(status, left - 1) + name
        else:
            del self._first[key]
        return name

    def _key(self, status: os.stat_result) -> int:
        """Return a number for the file; most trees have one device, and so short numbers."""
        if self._device is None:
            self._device = status.st_dev
        if status.st_dev == self._device:
            return status.st_ino
        return (status.st_dev + 1) << 64 | status.st_ino


def _record(status: os.stat_result, left: int) -> bytes:
    """Return values that tell a file from its older versions and from others with its inode."""
    seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)
    kind = stat.S_IFMT(status.st_mode)
    return _RECORD.pack(left, kind, status.st_size, seconds, nanoseconds)
