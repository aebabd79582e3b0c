"""Find the entries of an archive by reading it, whichever tar wrote it."""

from __future__ import annotations

from collections.abc import Iterator

from bakthat.archive.attributes import attribute_records, attributes_digest
from bakthat.archive.content_hash import ContentHash
from bakthat.archive.tar.member import Member, MemberType
from bakthat.archive.tar.reader import TarReader
from bakthat.errors import CorruptArchiveError, UnsafeMemberError
from bakthat.format.entry import BLOCK, Entry, EntryType
from bakthat.format.index.values import sort_key
from bakthat.system.streams import CountedSource, Source
from bakthat.system.text import quoted

_TYPES = {
    MemberType.FILE: EntryType.FILE,
    MemberType.DIRECTORY: EntryType.DIRECTORY,
    MemberType.SYMLINK: EntryType.SYMLINK,
    MemberType.HARDLINK: EntryType.HARDLINK,
    MemberType.CHARDEV: EntryType.CHARACTER,
    MemberType.BLOCKDEV: EntryType.BLOCK,
    MemberType.FIFO: EntryType.FIFO,
}


class TarScan:
    """Iterates over the entries of the tar archive that *source* holds; hashes their content.

    They have neither ctime nor inode, which an archive does not say. The directory that the archive
    is relative to is left out. *source* is read to its end,
    and not closed. Raises CorruptArchiveError, UnsafeMemberError for a path that is absolute or has
    "..", and whatever *source* raises.
    """

    def __init__(self, source: Source) -> None:
        self._source = CountedSource(source)
        self._reader = TarReader(self._source)
        self.listing: bytes | None = None
        """What the archive says of the names in the last entry; see :attr:`Member.listing`."""
        self.is_sorted = True
        """Whether the entries so far are in the order of this version, and no path occurs twice."""

    @property
    def tar_bytes(self) -> int:
        """How many bytes were read; after the iteration, those of the whole archive."""
        return self._source.bytes

    @property
    def comment(self) -> bytes:
        """The comment of the archive; see :attr:`TarReader.comment`."""
        return self._reader.comment

    def __iter__(self) -> Iterator[Entry]:
        reader = self._reader
        end: int | None = None
        last = b""
        for member in reader:
            # A global header between two members belongs to the second one.
            position = reader.position if end is None else end
            header_bytes = reader.content_position - position
            stored_bytes = reader.stored_bytes
            path = _text(entry_path(member.name))
            if not path:  # the directory that the archive is relative to
                _check_directory(member)
                end = None
                continue
            if member.type is not MemberType.FILE:  # such as GNU's list of a directory
                header_bytes += stored_bytes + -stored_bytes % BLOCK
                stored_bytes = 0
            entry = Entry(
                path,
                _TYPES[member.type],
                member.mode,
                member.uid,
                member.gid,
                member.mtime_ns,
                size=member.size,
                digest=self._digest(member) if member.type is MemberType.FILE else b"",
                owner=_text(member.uname),
                group=_text(member.gname),
                target=_target(member),
                device=_device(member),
                attributes=attributes_digest(attribute_records(member.xattrs, member.acls)),
                position=position,
                header_bytes=header_bytes,
                stored_bytes=stored_bytes,
            )
            key = sort_key(path)
            self.is_sorted = self.is_sorted and last < key
            self.listing = member.listing
            last, end = key, entry.end
            yield entry

    def _digest(self, member: Member) -> bytes:
        digest = ContentHash()
        for offset, piece in self._reader.read_content(member):
            digest.update_at(offset, piece)
        return digest.digest(member.size)


def entry_path(name: bytes) -> bytes:
    """Return the path of the entry for a member called *name*, without needless parts.

    It is empty for the directory that the archive is relative to. Raises UnsafeMemberError for an
    absolute path and for one with "..".
    """
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if name.startswith(b"/") or b".." in parts:
        raise UnsafeMemberError(
            f"the member {quoted(name)} would leave the directory that it is restored into",
            hint="bakthat stores no such names; inspect the archive with tar tzf",
        )
    return b"/".join(parts)


def _check_directory(member: Member) -> None:
    if member.type is not MemberType.DIRECTORY:
        raise CorruptArchiveError(f"the member {quoted(member.name)} has no name")


def _target(member: Member) -> str:
    if member.type is MemberType.HARDLINK:
        target = entry_path(member.linkname)
        if not target:
            raise CorruptArchiveError(f"the member {quoted(member.name)} links to no name")
        return _text(target)
    return _text(member.linkname) if member.type is MemberType.SYMLINK else ""


def _device(member: Member) -> tuple[int, int] | None:
    is_device = member.type in (MemberType.CHARDEV, MemberType.BLOCKDEV)
    return (member.major, member.minor) if is_device else None


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
