"""List entries as GNU tar does: the lines of ``tar tv --quoting-style=literal``.

After ``simple_print_header`` and ``tartime`` in GNU tar 1.34, ``src/list.c``: the columns become
wider as the listing goes on, and never narrower again.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Iterable
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
# Python 3.11 takes longer to find a member of an enumeration than to make the rest of a line.
_FILE, _DIRECTORY = EntryType.FILE, EntryType.DIRECTORY
_SECOND = 10**9
_FIRST_OWNER_WIDTH = 19
"""The width of owner, group and size in the first line, at least."""
_FIRST_TIME_WIDTH = len("YYYY-MM-DD HH:MM")
_REMEMBERED = 10_000
"""How many beginnings of lines are remembered."""


class TarListing:
    """Makes the line of each entry; times are in the local time zone, as TZ says."""

    def __init__(self) -> None:
        self._owner_width = _FIRST_OWNER_WIDTH
        self._time_width = _FIRST_TIME_WIDTH
        self._minute = lru_cache(maxsize=4096)(_minute)  # its own, since TZ may change
        self._beginnings: dict[tuple[object, ...], tuple[str, int]] = {}
        """Mode, owner and group as they are shown, with the bytes of the latter two, by what
        makes them: few of them occur in an archive."""

    def lines(self, entries: Iterable[Entry]) -> list[str]:
        """Return the lines of *entries*, which are after those of the calls before.

        Bytes that are not UTF-8 are surrogates in them.
        """
        lines = []
        beginnings, minute = self._beginnings, self._minute
        owner_width, time_width = self._owner_width, self._time_width
        for entry in entries:
            path, kind, mode, uid, gid, mtime_ns, _, _, length, _, owner, group = entry[:12]
            key = (kind, mode, uid, gid, owner, group)
            found = beginnings.get(key)
            if found is None:
                names = f"{owner or uid}/{group or gid}"
                found = (f"{_mode(kind, mode)} {names} ", _length(names) + 1)
                if len(beginnings) < _REMEMBERED:
                    beginnings[key] = found
            beginning, width = found
            size = str(length)
            name = path
            if kind is not _FILE:
                if kind is _DIRECTORY:
                    name += "/"
                elif kind is EntryType.SYMLINK:
                    name += f" -> {entry.target}"
                elif kind is EntryType.HARDLINK:
                    name += f" link to {entry.target}"
                elif entry.device is not None:
                    size = "{},{}".format(*entry.device)
            room = owner_width - width
            if len(size) > room:
                room = len(size)
                owner_width = width + room
            # Times before 1970 are rounded up, as tar does.
            seconds = mtime_ns // _SECOND if mtime_ns >= 0 else -(-mtime_ns // _SECOND)
            moment = minute(seconds)
            if len(moment) != time_width:
                time_width = max(time_width, len(moment))
                moment = moment.ljust(time_width)
            lines.append(f"{beginning}{size.rjust(room)} {moment} {name}")
        self._owner_width, self._time_width = owner_width, time_width
        return lines


@lru_cache(maxsize=1024)
def _mode(kind: EntryType, mode: int) -> str:
    if kind is EntryType.HARDLINK:
        return "h" + stat.filemode(stat.S_IFREG | mode)[1:]
    return stat.filemode(_TYPES[kind] | mode)


def _length(text: str) -> int:
    """Return how many bytes *text* has, by which tar aligns its columns."""
    return len(text.encode("utf-8", "surrogateescape"))


def _minute(seconds: int) -> str:
    """Return the minute, or the seconds where the year is beyond what a calendar can show."""
    try:
        local = time.localtime(seconds)
    except (OverflowError, ValueError, OSError):
        return str(seconds)
    year, month, day, hour, minute = local[:5]
    return f"{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}"
