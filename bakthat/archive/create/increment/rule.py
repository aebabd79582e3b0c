"""The rule of change: when a file counts as unchanged without being read."""

from __future__ import annotations

import os
import stat
import zlib
from dataclasses import dataclass, field

from bakthat.archive.patterns import PatternRules
from bakthat.format.entry import Entry

CTIME, MTIME, HASH = "ctime", "mtime", "hash"
"""How changes are detected: by all times, without ctime and inode, or by reading each file."""
MIN_RACY_SECONDS = 60

_MEMORY_FILE_SYSTEMS = frozenset(("tmpfs", "ramfs", "devtmpfs", "hugetlbfs"))
_DIRTY = ("/proc/sys/vm/dirty_expire_centisecs", "/proc/sys/vm/dirty_writeback_centisecs")
_SLACK_SECONDS = 10


@dataclass(frozen=True, slots=True)
class ChangeRule:
    """When a path is unchanged: kind, size, mtime, ctime and inode equal those of the parent.

    The device number is never looked at. ctime moves with the mode, the owner, extended attributes
    and ACLs, so one lstat is enough.
    """

    detect: str = CTIME
    """:data:`MTIME` compares the mode and the owner too, but neither ctime nor inode."""
    ignore_inode: bool = False
    """For file systems whose inode numbers change with each mount."""
    always_read: PatternRules | None = None
    """Which files are read whatever their times say; their contents are compared by hash."""
    recheck: int = 0
    """How many percent of the unchanged files are read too, other ones in each run."""
    run: int = 0
    """A number that grows by one with each run, so that all files take turns."""
    racy_seconds: int = MIN_RACY_SECONDS
    memory_devices: frozenset[int] = field(default_factory=frozenset)
    """The devices of file systems in memory. Their pages are never written back, so a file that is
    mapped may change without another time."""

    @property
    def trusts_times(self) -> bool:
        """Whether the times of a file on a disk decide, whatever its name."""
        return (
            self.detect == CTIME
            and not self.ignore_inode
            and self.always_read is None
            and not self.recheck
        )

    def has_same_times(self, status: os.stat_result, found: Entry) -> bool:
        """Return whether ctime and inode say that nothing changed, as far as they are looked at."""
        if self.detect == MTIME:
            return True
        if status.st_ctime_ns != found.ctime_ns:
            return False
        return self.ignore_inode or status.st_ino == found.inode

    def is_racy(self, status: os.stat_result, racy_ns: int) -> bool:
        """Return whether it may have changed again without another time, after it was read.

        *racy_ns* is that of the index of the archive for which it was read.
        """
        newest = status.st_mtime_ns
        if self.detect != MTIME:
            newest = max(newest, status.st_ctime_ns)
        return newest >= racy_ns

    def must_read(self, name: str, device: int) -> bool:
        """Return whether the file *name*, its path below the root, is read whatever its times."""
        if self.detect == HASH or device in self.memory_devices:
            return True
        if self.always_read is not None and is_matched(self.always_read, name):
            return True
        return self.recheck > 0 and self._is_due(name)

    def _is_due(self, name: str) -> bool:
        place = zlib.crc32(os.fsencode(name)) % 100
        return (place - self.run * self.recheck) % 100 < self.recheck


def metadata_change(status: os.stat_result, found: Entry) -> str:
    """Return which of the metadata that an lstat shows changed; "" for none."""
    if status.st_mtime_ns != found.mtime_ns:
        return "its time changed"
    if stat.S_IMODE(status.st_mode) != found.mode:
        return "its mode changed"
    if (status.st_uid, status.st_gid) != (found.uid, found.gid):
        return "its owner changed"
    return ""


def is_matched(rules: PatternRules, name: str) -> bool:
    """Return whether *rules* match a file or one of the directories above it."""
    raw = os.fsencode(name)
    end = raw.find(b"/")
    while end >= 0:
        if rules.match(raw[:end], is_dir=True):
            return True
        end = raw.find(b"/", end + 1)
    return bool(rules.match(raw, is_dir=False))


def racy_seconds() -> int:
    """Return for how long a file may change again without another time, in seconds.

    The first write to a page that is mapped sets the times of the file, further ones do not until
    the page was written back. So a file that changed less than that before it was read is read
    again next time. It is at least MIN_RACY_SECONDS, which also covers file systems that count
    time in steps of two seconds.
    """
    total = 0
    for path in _DIRTY:
        try:
            with open(path, encoding="ascii") as stream:
                total += int(stream.read())
        except (OSError, ValueError):
            return MIN_RACY_SECONDS
    return max(MIN_RACY_SECONDS, -(-total // 100) + _SLACK_SECONDS)


def memory_devices() -> frozenset[int]:
    """Return the device numbers of the file systems that are in memory only."""
    try:
        with open("/proc/self/mountinfo", "rb") as stream:
            lines = stream.read().splitlines()
    except OSError:
        return frozenset()
    found = set()
    for line in lines:
        # proc(5): id, parent, major:minor, root, mount point, options..., "-", type, ...
        before, _, after = line.partition(b" - ")
        numbers = before.split()[2:3]
        kind = after.split()[:1]
        if numbers and kind and kind[0].decode("ascii", "replace") in _MEMORY_FILE_SYSTEMS:
            major, _, minor = numbers[0].partition(b":")
            found.add(os.makedev(int(major), int(minor)))
    return frozenset(found)
