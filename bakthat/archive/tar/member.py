"""The description of one member of an archive, whichever tar wrote it."""

from __future__ import annotations

import enum
from array import array
from dataclasses import dataclass, field
from typing import NamedTuple


class MemberType(enum.Enum):
    """What kind of file a member is."""

    FILE = "file"
    HARDLINK = "hard link"
    SYMLINK = "symbolic link"
    CHARDEV = "character device"
    BLOCKDEV = "block device"
    DIRECTORY = "directory"
    FIFO = "fifo"


class Owner(NamedTuple):
    """The owner of a file; a name that exists on this machine takes precedence over its id."""

    uid: int
    gid: int
    uname: bytes
    gname: bytes


@dataclass(slots=True)
class Member:
    """One member of an archive, as its headers describe it."""

    name: bytes
    """The path as stored, neither normalised nor checked."""
    type: MemberType
    mode: int
    """The twelve permission bits."""
    uid: int
    gid: int
    uname: bytes
    gname: bytes
    size: int
    """Bytes of the file's content, holes included; 0 for all but files."""
    mtime_ns: int
    """Nanoseconds since 1970 UTC."""
    linkname: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    acls: dict[bytes, bytes] = field(default_factory=dict)
    """``access`` and ``default`` in the text form of GNU tar and star."""
    sparse: array[int] | None = None
    """Offset, length, offset, length of the parts that are not holes; None when not sparse."""
    listing: bytes | None = None
    """What GNU tar's incremental archives say of a directory: its names, as stored; None where it
    is no directory, or has none."""
