"""Entries of an index, made by reading a tar archive."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from bakthat.archive.attributes import attribute_records, attributes_digest
from bakthat.archive.content_hash import ContentHash
from bakthat.archive.extract.tree import split_name
from bakthat.archive.tar.member import Member, MemberType
from bakthat.archive.tar.reader import TarReader
from bakthat.format.entry import BLOCK, Entry, EntryType
from tests.support.tar_bytes import Pieces

TYPES = {
    MemberType.FILE: EntryType.FILE,
    MemberType.DIRECTORY: EntryType.DIRECTORY,
    MemberType.SYMLINK: EntryType.SYMLINK,
    MemberType.HARDLINK: EntryType.HARDLINK,
    MemberType.CHARDEV: EntryType.CHARACTER,
    MemberType.BLOCKDEV: EntryType.BLOCK,
    MemberType.FIFO: EntryType.FIFO,
}


class EntryList:
    """An index in memory, for what needs only its entries."""

    def __init__(self, entries: list[Entry]) -> None:
        self.all = entries
        self.top = entries[0].path.partition("/")[0] if entries else ""

    def entries(
        self,
        paths: Collection[str] | None = None,
        *,
        where: Callable[[str], bool] | None = None,
    ) -> Iterator[Entry]:
        wanted = None if paths is None else set(paths)
        for entry in self.all:
            parts = entry.path.split("/")
            above = {"/".join(parts[:end]) for end in range(1, len(parts) + 1)}
            if (wanted is None or above & wanted) and (where is None or where(entry.path)):
                yield entry


def entries_of(archive: bytes) -> list[Entry]:
    """Return the entries of the tar *archive*, in its order."""
    reader = TarReader(Pieces(archive))
    found = []
    position = 0
    for member in reader:
        end = reader.end
        path = split_name(member.name, member.name)
        hashing = ContentHash()
        stored = 0
        for offset, piece in reader.read_content(member):
            hashing.update_at(offset, piece)
            stored += len(piece)
        digest = hashing.digest(member.size) if member.type is MemberType.FILE else b""
        header = end - position - stored - -stored % BLOCK
        if path:  # not the directory that the archive is relative to
            found.append(_entry(member, digest, position, header, stored))
        position = end
    return found


def _entry(member: Member, digest: bytes, position: int, header: int, stored: int) -> Entry:
    target = member.linkname
    if member.type is MemberType.HARDLINK:
        target = b"/".join(split_name(target, member.name))
    is_device = member.type in (MemberType.CHARDEV, MemberType.BLOCKDEV)
    return Entry(
        path=_text(b"/".join(split_name(member.name, member.name))),
        type=TYPES[member.type],
        mode=member.mode,
        uid=member.uid,
        gid=member.gid,
        mtime_ns=member.mtime_ns,
        size=member.size,
        digest=digest,
        owner=_text(member.uname),
        group=_text(member.gname),
        target=_text(target) if member.type in (MemberType.SYMLINK, MemberType.HARDLINK) else "",
        attributes=attributes_digest(attribute_records(member.xattrs, member.acls)),
        device=(member.major, member.minor) if is_device else None,
        position=position,
        header_bytes=header,
        stored_bytes=stored,
    )


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
