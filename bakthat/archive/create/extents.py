"""Find the data and the holes of sparse files."""

from __future__ import annotations

import errno
import os
import stat

from bakthat.archive.tar.sparse import MAX_WRITTEN_EXTENTS, Extents


def looks_sparse(status: os.stat_result) -> bool:
    """Return whether a regular file occupies fewer bytes than its size, and so may have holes.

    File systems that compress files or pack small ones report the same without any hole, so
    :func:`data_extents` decides.
    """
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_size > 4096
        and status.st_blocks * 512 < status.st_size
    )


def data_extents(fd: int, size: int) -> Extents | None:
    """Return the extents of the data in the first *size* bytes of the open file *fd*.

    None when they have no hole, or the file system cannot tell.
    """
    extents: Extents = []
    position = 0
    while position < size:
        try:
            begin = os.lseek(fd, position, os.SEEK_DATA)
            if begin >= size:
                break
            position = min(os.lseek(fd, begin, os.SEEK_HOLE), size)
        except OSError as exc:
            # ENXIO: no data from here to the end of the file.
            if exc.errno == errno.ENXIO:
                break
            return None
        if len(extents) + 1 == MAX_WRITTEN_EXTENTS:
            position = size
        extents.append((begin, position - begin))
    return None if extents == [(0, size)] else extents


def stored_bytes(path: str, status: os.stat_result) -> int:
    """Return the number of bytes of content that an archive stores for the file *path*.

    Holes do not count. For a file that cannot be opened, this is its size.
    """
    if not stat.S_ISREG(status.st_mode):
        return 0
    if not looks_sparse(status):
        return status.st_size
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return status.st_size
    try:
        extents = data_extents(fd, status.st_size)
    finally:
        os.close(fd)
    return status.st_size if extents is None else sum(length for _, length in extents)
