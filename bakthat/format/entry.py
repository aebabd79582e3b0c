"""One entry of a backup: a file, a directory or another node, as its index describes it."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

BLOCK = 512
"""A tar archive is made of blocks of so many bytes."""


class EntryType(enum.StrEnum):
    """What kind of node an entry is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"
    CHARACTER = "character"
    BLOCK = "block"
    FIFO = "fifo"
    REMOVED = "removed"
    """Only in the index of an increment: what was at the path and below it is gone."""
    SEEN = "seen"
    """Only in the index of an increment: the content was read, and is that of an older archive."""

    @property
    def is_member(self) -> bool:
        """Whether an archive has a member for such an entry."""
        return self not in (EntryType.REMOVED, EntryType.SEEN)


class Entry(NamedTuple):
    """One entry of a backup."""

    path: str
    """The path in the archive, without a slash at its end. Bytes that are not UTF-8 are surrogates,
    as :func:`os.fsdecode` makes them in UTF-8 mode."""
    type: EntryType
    mode: int
    """The twelve permission bits."""
    uid: int
    gid: int
    mtime_ns: int
    """Nanoseconds since 1970 UTC."""
    ctime_ns: int | None = None
    """Nanoseconds since 1970 UTC; None when the index was made by reading the archive."""
    inode: int | None = None
    """The inode number on the source; None when the index was made by reading the archive."""
    size: int = 0
    """Bytes of a file's content, holes included; 0 for all but files."""
    digest: bytes = b""
    """The SHA-256 of a file's content, holes as zeros; b"" where there is none."""
    owner: str = ""
    group: str = ""
    target: str = ""
    """Where a symbolic link points; the path of the entry that a hard link is another name of."""
    device: tuple[int, int] | None = None
    """Major and minor number of a device."""
    attributes: str = ""
    """The first 16 hexadecimal digits of a SHA-256 over the extended attributes and ACLs; "" when
    there are none."""
    is_volatile: bool = False
    """Whether the file changed, or could not be read whole, while it was stored."""
    is_stale: bool = False
    """Whether a later backup could not read the file, so that this is its earlier content."""
    position: int = 0
    """Where the entry's headers begin in the tar archive, in bytes."""
    header_bytes: int = 3 * BLOCK
    """Bytes of its headers in the tar archive; 0 for a file that is stored as it is."""
    stored_bytes: int = 0
    """Bytes of its content in the tar archive, without padding; of a sparse file, its map and its
    data."""
    archive: int = 0
    """Which of the archives that the backup needs has the content, by its number: 0 is the full."""
    read: int = 0
    """The number of the backup, among these, that read the content last."""

    @property
    def sha256(self) -> str:
        """The SHA-256 of a file's content in hex; "" where there is none."""
        return self.digest.hex()

    @property
    def mtime(self) -> float:
        """Epoch seconds, UTC."""
        return self.mtime_ns / 10**9

    @property
    def content_position(self) -> int:
        """Where its content begins in the tar archive, in bytes."""
        return self.position + self.header_bytes

    @property
    def end(self) -> int:
        """Where the next entry begins in the tar archive, in bytes."""
        return self.content_position + self.stored_bytes + -self.stored_bytes % BLOCK

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints of an entry; "" stands for what it does not have.

        Only an entry that is stale says that.
        """
        return {
            "path": self.path,
            "type": self.type.value,
            "size": self.size,
            "mode": self.mode,
            "uid": self.uid,
            "gid": self.gid,
            "owner": self.owner,
            "group": self.group,
            "mtime": self.mtime,
            "sha256": self.sha256,
            "target": self.target,
            **({"stale": True} if self.is_stale else {}),
        }
