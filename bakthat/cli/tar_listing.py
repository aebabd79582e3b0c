"""List entries as GNU tar does: the lines of ``tar tv --quoting-style=literal``.

After ``simple_print_header`` and ``tartime`` in GNU tar 1.34, ``src/list.c``: the columns become
wider as the listing goes on, and never narrower again.
"""

from __future__ import annotations

import stat
import time
from functools import lru_cache

from bakthat.format.entry import Entry, EntryType

_TYPES = {
    EntryType.FILE: stat.S_IFREG,
    EntryType.DIRECTORY: stat.S_IFDIR,
    EntryType.SYMLINK: stat.S_IFLNK,
    EntryType.CHARACTER: stat.S_IFCHR,
    EntryType.BLOCK: stat.S_IFBLK,
    EntryType.FIFO: stat.S_IFIFO,
}
_SECOND = 10**9
_FIRST_OWNER_WIDTH = 19
"""The width of owner, group and size in the first line, at least."""
_FIRST_TIME_WIDTH = len("YYYY-MM-DD HH:MM")


class TarListing:
    """Makes the line of each entry; times are in the local time zone, as TZ says."""

    def __init__(self) -> None:
        self._owner_width = _FIRST_OWNER_WIDTH
        self._time_width = _FIRST_TIME_WIDTH
        self._minute = lru_cache(maxsize=4096)(_minute)  # its own, since TZ may change

    def line(self, entry: Entry) -> str:
        """Return the line of *entry*, which is after those that were asked for before it.

        Bytes that are not UTF-8 are surrogates in it.
        """
        kind = entry.type
        owner = f"{entry.owner or entry.uid}/{entry.group or entry.gid}"
        size = str(entry.size) if entry.device is None else "{},{}".format(*entry.device)
        length = len(owner) if owner.isascii() else _length(owner)
        width = length + 1 + len(size)
        if width > self._owner_width:
            self._owner_width = width
        moment = self._minute(_seconds(entry.mtime_ns))
        if len(moment) > self._time_width:
            self._time_width = len(moment)
        name = f"{entry.path}/" if kind is EntryType.DIRECTORY else entry.path
        if kind is EntryType.SYMLINK:
            name += f" -> {entry.target}"
        elif kind is EntryType.HARDLINK:
            name += f" link to {entry.target}"
        return (
            f"{_mode(kind, entry.mode)} {owner} {size:>{self._owner_width - length - 1}} "
            f"{moment:<{self._time_width}} {name}"
        )


@lru_cache(maxsize=1024)
def _mode(kind: EntryType, mode: int) -> str:
    if kind is EntryType.HARDLINK:
        return "h" + stat.filemode(stat.S_IFREG | mode)[1:]
    return stat.filemode(_TYPES[kind] | mode)


def _length(text: str) -> int:
    """Return how many bytes *text* has, by which tar aligns its columns."""
    return len(text.encode("utf-8", "surrogateescape"))


def _seconds(mtime_ns: int) -> int:
    """Return the seconds since 1970, rounded down; before 1970 they are rounded up."""
    seconds, fraction = divmod(mtime_ns, _SECOND)
    return seconds + 1 if seconds < 0 and fraction else seconds


def _minute(seconds: int) -> str:
    """Return the minute, or the seconds where the year is beyond what a calendar can show."""
    try:
        local = time.localtime(seconds)
    except (OverflowError, ValueError, OSError):
        return str(seconds)
    year, month, day, hour, minute = local[:5]
    return f"{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}"
