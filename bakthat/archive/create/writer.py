"""Write a file or a tree as a tar archive."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from bakthat.archive.attributes import attributes_digest
from bakthat.archive.create.blocks import BlockBuffer
from bakthat.archive.create.digest import open_file
from bakthat.archive.create.extents import data_extents, looks_sparse
from bakthat.archive.create.hard_links import HardLinks
from bakthat.archive.create.owners import OwnerNames
from bakthat.archive.create.recorder import EntryRecorder
from bakthat.archive.create.walk import DirectoryCache, Entry, WalkOptions, walk
from bakthat.archive.create.xattrs import AttributeReader
from bakthat.archive.index.writer import Segment
from bakthat.archive.report import ArchiveReport, FileNames
from bakthat.archive.tar import header as tar_header
from bakthat.archive.tar.fields import BLOCK_BYTES
from bakthat.archive.tar.header import (
    HeaderError,
    MemberHeader,
    SharedPieces,
    pack_comment,
    pack_member_header,
    pack_usual_header,
    shared_pieces,
)
from bakthat.archive.tar.sparse import Extents, pack_pax_1_0
from bakthat.errors import SourceError
from bakthat.format.entry import Entry as IndexEntry
from bakthat.format.entry import EntryType
from bakthat.format.index.layout import USUAL_HEADER_BYTES
from bakthat.system.linux import read_at
from bakthat.system.streams import LendingSink, Sink
from bakthat.system.text import printable, reason_of

_MAX_ATTRIBUTES = 4 * 1024 * 1024
"""Bytes of extended attributes of one member; half of what the reader accepts as a header."""
_DEVICES = (EntryType.CHARACTER, EntryType.BLOCK)


def write_tree(
    root: Path,
    arcname: str,
    sink: Sink | LendingSink,
    options: WalkOptions,
    *,
    report: ArchiveReport,
    on_bytes: Callable[[int], None] | None = None,
    on_segment: Callable[[Segment], object] | None = None,
    comment: str = "",
    cache: DirectoryCache | None = None,
) -> int:
    """Write *root* and all entries below it to *sink* as one whole PAX archive; return its bytes.

    The members are called *arcname* and ``arcname/…``. An entry that cannot be read, or changes
    while it is read, becomes a warning in *report*, which also counts the members; the archive
    stays valid. *on_bytes* gets the number of bytes of file content read since its last call, at
    least every MiB. Names and attributes follow GNU tar's use of the PAX format: bytes that are
    not UTF-8 are written as they are, attributes as ``SCHILY.xattr.*``, sparse files in the
    format 1.0. *comment*, when not empty, is written to a global header before the members.
    *on_segment* is called with each segment of the archive's index, in order.
    *cache* is the one that a scan just before has filled.

    Raises SourceError when the root itself cannot be read, and whatever *sink* and *on_bytes*
    raise; the archive is incomplete then and its end is not written. *sink* stays open.
    """
    writer = TreeWriter(arcname, sink, report, on_bytes, on_segment)
    if comment:
        writer.add_comment(comment)
    names, entry = writer.names, Entry("", "", None)
    report.current = lambda: (names.path(entry.name), report.bytes)
    on_left_out = names.left_out if names.are_wanted else None
    for entry in walk(root, options, report, cache, on_left_out=on_left_out):
        try:
            writer.add(entry)
        except HeaderError as exc:  # no byte of the member was written
            writer.leave_out(entry, str(exc))
        if names.are_wanted:
            names.say_if_counted("stored", names.path(entry.name))
    return writer.finish()


def _ignore(*_: object) -> None:
    pass


class TreeWriter:
    """Write entries as the members of one archive.

    The arguments are those of :func:`write_tree`. Call :meth:`finish` after the last entry.
    """

    def __init__(
        self,
        arcname: str,
        sink: Sink | LendingSink,
        report: ArchiveReport,
        on_bytes: Callable[[int], None] | None = None,
        on_segment: Callable[[Segment], object] | None = None,
    ) -> None:
        self.names = FileNames(report, arcname)
        self._arcname = os.fsencode(arcname)
        self._blocks = BlockBuffer(sink, self._end_piece)
        self._report = report
        self._on_bytes = on_bytes or _ignore
        self._read_bytes = 0
        """Bytes that were read since the last call of *on_bytes*."""
        self._links = HardLinks()
        self._attributes = AttributeReader()
        self._owners = OwnerNames()
        self._shared = lru_cache(maxsize=1024)(self._shared_pieces)
        self._recorder = EntryRecorder(self._owners.texts, on_segment or _ignore)

    def add_comment(self, comment: str) -> None:
        """Write a comment that applies to the whole archive."""
        self._blocks.put(pack_comment(comment.encode("utf-8", "surrogateescape")))

    def add(self, entry: Entry) -> None:
        """Write the member of *entry*, or warn that it is not stored. Raises HeaderError."""
        name = self._name(entry)
        status = entry.stat
        if status is None:
            self._add_file(entry, name)
            return
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            self._add_file(entry, name)
        elif kind == stat.S_IFDIR:
            self._add_directory(entry, name, status)
        elif self._add_hard_link(name, status):
            pass
        elif kind == stat.S_IFLNK:
            self._add_symbolic_link(entry, name, status)
        elif kind == stat.S_IFIFO:
            self._add_node(
                entry, self._member(name, tar_header.FIFO, status), EntryType.FIFO, status
            )
        elif kind == stat.S_IFCHR:
            self._add_device(entry, name, tar_header.CHARACTER_DEVICE, EntryType.CHARACTER, status)
        elif kind == stat.S_IFBLK:
            self._add_device(entry, name, tar_header.BLOCK_DEVICE, EntryType.BLOCK, status)
        else:
            what = "a socket" if kind == stat.S_IFSOCK else "of an unknown kind"
            self.leave_out(entry, f"is {what}")

    def leave_out(self, entry: Entry, why: str) -> None:
        """Warn that *entry* is not stored."""
        self._warn(entry, f"{why}; it is not stored")
        self.names.left_out(entry.name, why)

    def _name(self, entry: Entry) -> bytes:
        if entry.name:
            return b"%b/%b" % (self._arcname, os.fsencode(entry.name))
        return self._arcname

    def _add_directory(
        self,
        entry: Entry,
        name: bytes,
        status: os.stat_result,
        more: Sequence[tuple[bytes, bytes]] = (),
        *,
        is_there: bool = True,
    ) -> None:
        """Write the member of a directory, with *more* records in its header.

        Where it *is_there* no more, no attributes are read: they would be those of something else.
        """
        begin = self._blocks.position
        records = self._records(entry, entry.path, status.st_dev) if is_there else ()
        header_bytes = self._put_header(
            name + b"/", tar_header.DIRECTORY, status, 0, [*records, *more] if more else records
        )
        if header_bytes == USUAL_HEADER_BYTES and not records:
            self._recorder.add_usual(name, status, begin)
        else:
            self._record(begin, name, EntryType.DIRECTORY, status, records)
        self._report.directories += 1

    def _end_piece(self, piece: memoryview, start: int) -> None:
        self._recorder.end_piece(piece, start)
        if self._read_bytes:
            self._report.bytes += self._read_bytes
            self._on_bytes(self._read_bytes)
            self._read_bytes = 0

    def finish(self) -> int:
        """Write the end of the archive: two zero blocks, and padding to a whole record.

        Return the length of the archive in bytes.
        """
        self._blocks.zeros(2 * BLOCK_BYTES)
        self._blocks.pad(tar_header.RECORD_BYTES)
        self._blocks.flush()
        self._recorder.finish()
        return self._blocks.position

    def _warn(self, entry: Entry, text: str) -> None:
        self._report.warn(f"{printable(entry.path)}: {text}")

    def _member(self, name: bytes, kind: bytes, status: os.stat_result) -> MemberHeader:
        return MemberHeader(
            name,
            kind,
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            owner=self._owners.user(status.st_uid),
            group=self._owners.group(status.st_gid),
        )

    def _add_node(
        self, entry: Entry, member: MemberHeader, kind: EntryType, status: os.stat_result
    ) -> None:
        """Write a member without data, with the attributes of *entry*."""
        begin = self._blocks.position
        records = member.records = self._records(entry, entry.path, status.st_dev)
        self._blocks.put(pack_member_header(member))
        device = member.device if kind in _DEVICES else None
        self._record(begin, member.name, kind, status, records, member.link, device)
        self._links.add(member.name, status)
        self._report.files += 1

    def _record(
        self,
        begin: int,
        name: bytes,
        kind: EntryType,
        status: os.stat_result,
        records: Sequence[tuple[bytes, bytes]] = (),
        link: bytes = b"",
        device: tuple[int, int] | None = None,
    ) -> None:
        """Record the member without data whose headers begin at *begin* and end here."""
        self._recorder.add(
            IndexEntry(
                _text(name),
                kind,
                status.st_mode & 0o7777,
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns,
                status.st_ctime_ns,
                status.st_ino,
                0,
                b"",
                *self._owners.texts(status.st_uid, status.st_gid),
                _text(link),
                device,
                attributes_digest(records),
                position=begin,
                header_bytes=self._blocks.position - begin,
            )
        )

    def _records(
        self, entry: Entry, target: int | str, device: int
    ) -> Sequence[tuple[bytes, bytes]]:
        records = self._attributes.records(target, device)
        if records and sum(len(key) + len(value) for key, value in records) > _MAX_ATTRIBUTES:
            self._warn(entry, "its extended attributes are too large; they are not stored")
            return ()
        return records

    def _add_hard_link(self, name: bytes, status: os.stat_result) -> bool:
        """Write another name of the file with *status*; return False if it has no member yet."""
        first = self._links.find(status)
        if first is None:
            return False
        self._put_hard_link(name, status, first)
        return True

    def _put_hard_link(self, name: bytes, status: os.stat_result, first: bytes) -> None:
        member = self._member(name, tar_header.HARD_LINK, status)
        member.link = first
        begin = self._blocks.position
        self._blocks.put(pack_member_header(member))
        self._record(begin, name, EntryType.HARDLINK, status, link=first)
        self._report.files += 1

    def _add_device(
        self, entry: Entry, name: bytes, flag: bytes, kind: EntryType, status: os.stat_result
    ) -> None:
        member = self._member(name, flag, status)
        member.device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        self._add_node(entry, member, kind, status)

    def _add_symbolic_link(self, entry: Entry, name: bytes, status: os.stat_result) -> None:
        try:
            target = os.readlink(entry.path)
        except OSError as exc:
            self.leave_out(entry, why_unread(exc))
            return
        member = self._member(name, tar_header.SYMBOLIC_LINK, status)
        member.link = os.fsencode(target)
        self._add_node(entry, member, EntryType.SYMLINK, status)

    def _add_file(self, entry: Entry, name: bytes) -> None:
        try:
            fd = open_file(entry.path)
        except OSError as exc:
            if not entry.name:
                raise SourceError(
                    f"cannot back up {printable(entry.path)}: {reason_of(exc)}",
                    hint="check that this user may read it",
                ) from exc
            if entry.stat is None and exc.errno in (errno.ELOOP, errno.ENXIO):
                self._add_other(entry)  # it has become a symbolic link, a socket or a device
                return
            self.leave_out(entry, why_unread(exc))
            return
        try:
            self._add_open_file(entry, name, fd)
        finally:
            os.close(fd)

    def _add_other(self, entry: Entry) -> None:
        """Write an entry that was listed as a regular file and has become another type."""
        try:
            status = os.lstat(entry.path)
        except OSError as exc:
            self.leave_out(entry, why_unread(exc))
            return
        self.add(entry._replace(stat=status))

    def _add_open_file(self, entry: Entry, name: bytes, fd: int) -> None:
        try:
            # The opened file may differ from the one that the directory listed.
            status = os.fstat(fd)
        except OSError as exc:
            self.leave_out(entry, why_unread(exc))
            return
        if not stat.S_ISREG(status.st_mode):
            if entry.stat is None and not stat.S_ISDIR(status.st_mode):
                self._add_other(entry)
            else:
                self.leave_out(entry, "was replaced by something other than a file")
            return
        if status.st_nlink > 1 and self._add_hard_link(name, status):
            return
        records = self._records(entry, fd, status.st_dev)
        size = status.st_size
        begin = self._blocks.position
        extents = data_extents(fd, size) if looks_sparse(status) else None
        if extents is None:
            map_bytes = 0
            header_bytes = self._put_header(name, tar_header.REGULAR, status, size, records)
        else:
            member = self._member(name, tar_header.REGULAR, status)
            member.records = records
            map_bytes = self._put_sparse_header(member, extents, size)
            header_bytes = self._blocks.position - begin - map_bytes
        self._recorder.begin_content(self._blocks.position, size, extents)
        if status.st_nlink > 1:
            self._links.add(name, status)
        self._report.files += 1
        problem = ""
        for offset, length in extents if extents is not None else ((0, size),):
            problem = self._copy(fd, offset, length) or problem
        stored_bytes = self._blocks.position - begin - header_bytes
        self._blocks.pad(BLOCK_BYTES)
        problem = problem or _change(status, fd)
        if problem:
            self._warn(entry, problem)
        elif header_bytes == USUAL_HEADER_BYTES and extents is None and not records:
            self._recorder.add_usual(name, status, begin)
            return
        self._recorder.add(
            IndexEntry(
                _text(name),
                EntryType.FILE,
                status.st_mode & 0o7777,
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns,
                status.st_ctime_ns,
                status.st_ino,
                size,
                b"",
                *self._owners.texts(status.st_uid, status.st_gid),
                "",
                None,
                attributes_digest(records),
                bool(problem),
                position=begin,
                header_bytes=header_bytes,
                stored_bytes=stored_bytes,
            )
        )

    def _put_header(
        self,
        name: bytes,
        kind: bytes,
        status: os.stat_result,
        size: int,
        records: Iterable[tuple[bytes, bytes]],
    ) -> int:
        """Write the header of a file or a directory; return its bytes."""
        header = None
        if not records:
            shared = self._shared(kind, status.st_mode, status.st_uid, status.st_gid)
            if shared is not None:
                header = pack_usual_header(name, shared, size, status.st_mtime_ns)
        if header is None:
            member = self._member(name, kind, status)
            member.size = size
            member.records = records
            header = pack_member_header(member)
        self._blocks.put(header)
        return len(header)

    def _shared_pieces(self, kind: bytes, mode: int, uid: int, gid: int) -> SharedPieces | None:
        owner, group = self._owners.user(uid), self._owners.group(gid)
        return shared_pieces(MemberHeader(b"", kind, mode, uid, gid, 0, owner=owner, group=group))

    def _put_sparse_header(self, member: MemberHeader, extents: Extents, size: int) -> int:
        """Write the header and the map of a sparse file; return the bytes of the map."""
        sparse_map = pack_pax_1_0(extents, size)
        directory, slash, leaf = member.name.rpartition(b"/")
        member.records = [
            *member.records,
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.realsize", b"%d" % size),
            # This must follow the "path" that the header may need: readers keep the last name.
            (b"GNU.sparse.name", member.name),
        ]
        # A reader without sparse support extracts map and data under this name.
        member.name = directory + slash + b"GNUSparseFile.0/" + leaf
        member.size = len(sparse_map) + sum(length for _, length in extents)
        self._blocks.put(pack_member_header(member))
        self._blocks.put(sparse_map)
        return len(sparse_map)

    def _copy(self, fd: int, offset: int, length: int) -> str:
        """Write *length* bytes of *fd* from *offset* on, zeros for those that are missing.

        Return the text of a warning, or "".
        """
        left = length
        problem = ""
        while left:
            space = self._blocks.space(left)
            # Catch read errors only; sink errors must propagate.
            try:
                count = read_at(fd, space, offset + length - left)
            except OSError as exc:
                problem = f"could not be read whole: {reason_of(exc)}"
                break
            if not count:
                problem = "shrank while it was read"
                break
            self._blocks.fill(count)
            left -= count
            self._read_bytes += count
        if problem:
            self._blocks.zeros(left)
            problem += f"; {left} bytes from {offset + length - left} on are stored as zeros"
        return problem


def _change(before: os.stat_result, fd: int) -> str:
    """Return a warning if the open file *fd* changed since its status *before*, else ""."""
    try:
        after = os.fstat(fd)
    except OSError as exc:
        return f"cannot be checked for changes: {reason_of(exc)}"
    if after.st_size > before.st_size:
        return f"grew while it was read; its first {before.st_size} bytes are stored"
    if (after.st_size, after.st_mtime_ns, after.st_ctime_ns) != (
        before.st_size,
        before.st_mtime_ns,
        before.st_ctime_ns,
    ):
        return "changed while it was read; what is stored may mix old and new"
    return ""


def _text(name: bytes) -> str:
    # Not os.fsdecode, which decodes as the locale says: an index means the same on each host.
    return name.decode("utf-8", "surrogateescape")


def why_unread(error: OSError) -> str:
    """Return why an entry could not be read."""
    if isinstance(error, FileNotFoundError):
        return "vanished before it was read"
    return reason_of(error)
