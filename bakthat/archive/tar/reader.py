"""Read a tar stream member by member: v7, ustar, GNU and pax, sparse files included.

Formats: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; the GNU tar
manual, "Basic Tar Format" and "Storing Sparse Files".

An archive must end with two blocks of zeros, as POSIX says; without them it counts as truncated.
Only zeros may follow them: otherwise zeros in the middle of a damaged archive would hide all
members after them.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Iterator
from functools import lru_cache

from bakthat.archive.tar.fields import (
    BLOCK_BYTES,
    MAX_DEVICE,
    MAX_ID,
    MAX_NAME_BYTES,
    MAX_SIZE,
    MAX_TIME_NS,
    has_valid_checksum,
    only_mtime,
    parse_decimal,
    parse_number,
    parse_pax_records,
    parse_seconds,
)
from bakthat.archive.tar.member import Member, MemberType
from bakthat.archive.tar.sparse import (
    check_sparse_map,
    parse_gnu_entries,
    parse_pax_0_0,
    parse_pax_0_1,
    parse_pax_1_0,
)
from bakthat.errors import CorruptArchiveError
from bakthat.system.streams import Source
from bakthat.system.text import quoted

MAX_EXTENDED_BYTES = 8 * 1024 * 1024
"""The largest pax header that is read; Linux allows 64 KiB in one extended attribute."""

MAX_GLOBAL_RECORDS = 1000
"""The most records of global pax headers; each is applied to every member."""

_READ_BYTES = 1024 * 1024
_ZEROS = bytes(BLOCK_BYTES)
# Name; mode, uid and gid; size; time; type; link; magic to device numbers; prefix.
_FIELDS = struct.Struct("<100s24s12s12s8xc100s88s155s12x")
_OWNER_FIELDS = struct.Struct("<8s32s32s8s8s")

_KEYWORDS = frozenset((b"path", b"linkpath", b"mtime", b"size", b"uid", b"gid", b"uname", b"gname"))
_XATTR = b"SCHILY.xattr."
_ACL = b"SCHILY.acl."
_SPARSE = b"GNU.sparse."
_LISTING = b"GNU.dumpdir"


# Any other type is a file, as POSIX says; D is GNU's directory that lists its entries.
_TYPES = {
    b"1": MemberType.HARDLINK,
    b"2": MemberType.SYMLINK,
    b"3": MemberType.CHARDEV,
    b"4": MemberType.BLOCKDEV,
    b"5": MemberType.DIRECTORY,
    b"6": MemberType.FIFO,
    b"D": MemberType.DIRECTORY,
}
_EXTENSIONS = b"xgXLKVM"
_SIZE = slice(124, 136)
_USUAL_TYPES = {b"0": MemberType.FILE, b"5": MemberType.DIRECTORY}
_SIZE_AND_TIME = re.compile(rb"[0-7]{11}\0[0-7]{11}\0")
_TIME_RECORD = re.compile(rb"([0-9]{2}) mtime=([0-9]{1,19})\.([0-9]{1,9})\n")
"""A record of a pax header: its length, seconds, and their fraction."""
_TIME_ONLY_LIMIT = 40
"""A pax header that holds a time and nothing else has fewer bytes."""
_SLASH = 0x2F
_WITHOUT_EFFECT = {b"comment"}
"""Keywords of global headers that change no member."""


class TarReader:
    """Iterate over the members of the tar archive that *source* holds.

    Reads *source* from its next byte to its end, so that the layers below check all of their data
    too, and does not close it. Content that the caller does not read is skipped. Raises
    CorruptArchiveError, also for an archive without its end mark, and whatever *source* raises.
    Memory is bounded: pax headers to 8 MiB, sparse maps to 64 MiB, names to 64 KiB.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._buffer = memoryview(b"")
        self._at = 0
        self._offset = 0
        self._content_left = 0
        self._content_read = 0
        """Bytes of the content that were read as a sparse map."""
        self._padding = 0
        self._current: Member | None = None
        self._globals: dict[bytes, bytes] = {}
        self._usual: dict[bytes, tuple[bytes, int]] = {}
        """The first block of pax headers with only a time, and the end of their record, by their
        size field: most of them have the same block."""
        self.content_bytes = 0
        """Bytes of content that :meth:`read_content` has yielded."""
        self.position = 0
        """Where the headers of the current member begin, in bytes; global headers are before it."""
        self.content_position = 0
        """Where its content begins, in bytes; that of a sparse file may begin with its map."""
        self.stored_bytes = 0
        """Bytes of its content, without padding; of a sparse file, its map and its data."""

    def __iter__(self) -> Iterator[Member]:
        while True:
            self.position = self._offset + self._at
            member = self._usual_member() or self._next_member()
            if member is None:
                break
            self._current = member
            self.content_position = self._offset + self._at - self._content_read
            self.stored_bytes = self._content_read + self._content_left
            yield member
            self._current = None
            self._skip(self._content_left + self._padding)
        self._drain()

    @property
    def comment(self) -> bytes:
        """The comment in the global pax headers that were read so far, or ``b""``."""
        return self._globals.get(b"comment", b"")

    @property
    def end(self) -> int:
        """Where the current member ends in the archive, in bytes, with its padding."""
        return self._offset + self._at + self._content_left + self._padding

    def read_content(self, member: Member) -> Iterator[tuple[int, memoryview]]:
        """Yield the offset and the bytes of each piece of *member*'s content, without its holes.

        Call it once, and before the iteration goes on to the next member. A piece is valid until
        the next one is read. Raises ValueError when *member* is not the current one.
        """
        if member is not self._current:
            raise ValueError("only the content of the current member can be read")
        if member.sparse is None:
            offset = 0
            while self._content_left:
                piece = self._content(self._content_left)
                self.content_bytes += len(piece)
                yield offset, piece
                offset += len(piece)
            return
        extents = iter(member.sparse)
        for offset, length in zip(extents, extents, strict=True):
            end = offset + length
            while offset < end:
                piece = self._content(end - offset)
                self.content_bytes += len(piece)
                yield offset, piece
                offset += len(piece)

    def _usual_member(self) -> Member | None:
        """Return the next member if it is a usual one, in half the time of :meth:`_next_member`.

        A usual member is a file or a directory with one extended record, its exact time. For any
        other member, return None and consume nothing.
        """
        end = self._at + 3 * BLOCK_BYTES
        if end > len(self._buffer):
            return None
        blocks = bytes(self._buffer[self._at : end])
        usual = self._usual.get(blocks[_SIZE])
        if usual is None or not blocks.startswith(usual[0]):
            return None
        record = _TIME_RECORD.fullmatch(blocks, BLOCK_BYTES, usual[1])
        block = blocks[2 * BLOCK_BYTES :]
        if record is None or not has_valid_checksum(block):
            return None
        name, numbers, size, _, kind, linkname, owner, prefix = _FIELDS.unpack(block)
        type_ = _USUAL_TYPES.get(kind)
        if type_ is None or linkname[0] or _SIZE_AND_TIME.fullmatch(block, 124, 148) is None:
            return None
        name = name.partition(b"\0")[0]
        if prefix[0] and owner[:6] == b"ustar\0":
            name = prefix.partition(b"\0")[0] + b"/" + name
        length, seconds, fraction = record.groups()
        if int(length) != usual[1] - BLOCK_BYTES:  # the extended header is read before the other
            return None
        stored = int(size[:11], 8) if type_ is MemberType.FILE else 0
        identity = _identity(numbers, owner)
        mtime_ns = int(seconds) * 10**9 + int(fraction.ljust(9, b"0"))
        if (
            not name
            or (type_ is MemberType.FILE and name[-1] == _SLASH)
            or not (0 <= identity[1] <= MAX_ID and 0 <= identity[2] <= MAX_ID)
            or mtime_ns > MAX_TIME_NS
        ):
            return None
        self._at = end
        self._content_left, self._content_read = stored, 0
        self._padding = -stored % BLOCK_BYTES
        return Member(name, type_, *identity, stored, mtime_ns)

    def _next_member(self) -> Member | None:
        long_name = long_link = None
        pax: list[tuple[bytes, bytes]] = []
        while True:
            block = self._header()
            if block is None:
                if long_name or long_link or pax:
                    raise self._corrupt("an extended header without its member")
                return None
            kind = block[156:157]
            if kind not in _EXTENSIONS:
                break
            if kind == b"M":
                raise self._corrupt("the rest of a file that began in another volume")
            payload = self._extended(block)
            if (
                kind == b"x"
                and len(payload) < _TIME_ONLY_LIMIT
                and self._globals.keys() <= _WITHOUT_EFFECT
            ):
                self._usual[block[_SIZE]] = block, BLOCK_BYTES + len(payload)
            if kind in b"xX":
                pax = [only] if (only := only_mtime(payload)) else parse_pax_records(payload)
            elif kind == b"g":
                self._update_globals(parse_pax_records(payload))
                if not (pax or long_name or long_link):
                    self.position = self._offset + self._at
            elif kind == b"L":
                long_name = payload.partition(b"\0")[0]
            elif kind == b"K":
                long_link = payload.partition(b"\0")[0]
        member = self._member(block)
        if long_name is not None:
            member.name = long_name
        if long_link is not None:
            member.linkname = long_link
        if kind == b"S":
            member.sparse = self._gnu_sparse_map(block)
            member.size = parse_number(block[483:495])
        if self._globals or pax:
            self._apply_pax(member, [*self._globals.items(), *pax] if self._globals else pax)
        self._check(member)
        return member

    def _header(self) -> bytes | None:
        """Return the next header block, with its checksum verified; None at the end mark."""
        block = self._block()
        if block[0] == 0 and block == _ZEROS:
            if self._block() != _ZEROS:
                raise self._corrupt("a single block of zeros in the middle")
            return None
        if not has_valid_checksum(block):
            if self._offset + self._at == BLOCK_BYTES:
                raise CorruptArchiveError("not a tar archive")
            raise self._corrupt("a header that fails its checksum")
        return block

    def _member(self, block: bytes) -> Member:
        """Return the member that a header *block* describes, and prepare to read its content."""
        name, numbers, size, mtime, kind, linkname, owner, prefix = _FIELDS.unpack(block)
        name = name.partition(b"\0")[0]
        type_ = _TYPES.get(kind, MemberType.FILE)
        if prefix[0] and owner[:6] == b"ustar\0":
            name = prefix.partition(b"\0")[0] + b"/" + name
        stored = parse_number(size)
        member = Member(
            name,
            type_,
            *_identity(numbers, owner),
            stored,
            parse_number(mtime) * 10**9,
            linkname.partition(b"\0")[0],
        )
        if type_ is MemberType.CHARDEV or type_ is MemberType.BLOCKDEV:
            member.major, member.minor = parse_number(owner[72:80]), parse_number(owner[80:])
        # Links, devices and FIFOs have no content, whatever their size field says, as in GNU tar.
        self._expect_content(stored if type_ is MemberType.FILE or kind == b"D" else 0)
        return member

    def _expect_content(self, size: int) -> None:
        if not 0 <= size <= MAX_SIZE:
            raise self._corrupt(f"a member of {size} bytes")
        self._content_left, self._content_read = size, 0
        self._padding = -size % BLOCK_BYTES

    def _check(self, member: Member) -> None:
        """Normalise *member* and check the range of its fields. Raises CorruptArchiveError."""
        type_, name, linkname = member.type, member.name, member.linkname
        if type_ is MemberType.FILE and name.endswith(b"/"):
            # Archives older than POSIX have no type for directories.
            type_ = member.type = MemberType.DIRECTORY
        if type_ is not MemberType.FILE:
            member.size, member.sparse = 0, None
        if b"\0" in name or b"\0" in linkname or len(name) + len(linkname) > MAX_NAME_BYTES:
            for each in name, linkname:
                if b"\0" in each or len(each) > MAX_NAME_BYTES:
                    raise self._corrupt(f"an invalid name: {quoted(each)}")
        if not name:
            raise self._corrupt("a member without a name")
        if not linkname and (type_ is MemberType.HARDLINK or type_ is MemberType.SYMLINK):
            raise self._corrupt(f"the link {quoted(name)} without a target")
        if not (
            0 <= member.uid <= MAX_ID
            and 0 <= member.gid <= MAX_ID
            and 0 <= member.major <= MAX_DEVICE
            and 0 <= member.minor <= MAX_DEVICE
            and 0 <= member.size <= MAX_SIZE
            and abs(member.mtime_ns) <= MAX_TIME_NS
        ):
            raise self._corrupt(f"a number out of its range for {quoted(member.name)}")
        if member.sparse is not None:
            check_sparse_map(member.sparse, size=member.size, stored=self._content_left)

    def _apply_pax(self, member: Member, records: list[tuple[bytes, bytes]]) -> None:
        sparse: list[tuple[bytes, bytes]] = []
        for keyword, value in records:
            if keyword in _KEYWORDS:
                if value:  # an empty value leaves that of the header block
                    self._apply_keyword(member, keyword, value)
            elif keyword.startswith(_XATTR):
                # GNU tar writes "=" and "%" in the names of attributes as %3D and %25.
                name = keyword[len(_XATTR) :].replace(b"%3D", b"=").replace(b"%25", b"%")
                if not name or b"\0" in name:
                    raise self._corrupt("an extended attribute with an invalid name")
                member.xattrs[name] = value
            elif keyword.startswith(_ACL):
                member.acls[keyword[len(_ACL) :]] = value
            elif keyword.startswith(_SPARSE):
                sparse.append((keyword[len(_SPARSE) :], value))
            elif keyword == _LISTING and member.type is MemberType.DIRECTORY:
                member.listing = value
        if sparse and member.type is MemberType.FILE:
            self._apply_sparse(member, sparse)

    def _apply_keyword(self, member: Member, keyword: bytes, value: bytes) -> None:
        if keyword == b"mtime":
            member.mtime_ns = parse_seconds(value)
        elif keyword == b"path":
            member.name = value
        elif keyword == b"linkpath":
            member.linkname = value
        elif keyword == b"size":
            member.size = parse_decimal(value)
            if member.type is MemberType.FILE:
                self._expect_content(member.size)
        elif keyword == b"uid":
            member.uid = parse_decimal(value)
        elif keyword == b"gid":
            member.gid = parse_decimal(value)
        elif keyword == b"uname":
            member.uname = value
        elif keyword == b"gname":
            member.gname = value

    def _apply_sparse(self, member: Member, records: list[tuple[bytes, bytes]]) -> None:
        values = dict(records)
        version = (values.get(b"major"), values.get(b"minor"))
        member.name = values.get(b"name", member.name)
        if version == (b"1", b"0"):
            member.size = parse_decimal(values.get(b"realsize", b""))
            member.sparse = parse_pax_1_0(lambda: self._content_exactly(BLOCK_BYTES))
        elif version not in ((None, None), (b"0", b"0"), (b"0", b"1")):
            raise self._corrupt(f"a sparse file of an unknown format: {quoted(member.name)}")
        else:
            member.size = parse_decimal(values.get(b"size", values.get(b"realsize", b"")))
            if b"map" in values:
                member.sparse = parse_pax_0_1(values[b"map"])
            else:
                member.sparse = parse_pax_0_0(records)

    def _gnu_sparse_map(self, header: bytes) -> array[int]:
        extents: array[int] = array("Q")
        parse_gnu_entries(header[386:482], extents)
        more = header[482]
        while more:
            block = self._block()
            parse_gnu_entries(block[:504], extents)
            more = block[504]
        return extents

    def _update_globals(self, records: list[tuple[bytes, bytes]]) -> None:
        self._usual.clear()
        self._globals.update(records)
        too_many = len(self._globals) > MAX_GLOBAL_RECORDS
        if too_many or sum(map(len, self._globals.values())) > MAX_EXTENDED_BYTES:
            raise self._corrupt("more global pax headers than any tar writes")

    def _extended(self, header: bytes) -> bytes:
        size = parse_number(header[124:136])
        if not 0 <= size <= MAX_EXTENDED_BYTES:
            raise self._corrupt(f"an extended header of {size} bytes")
        if size <= len(self._buffer) - self._at:  # the usual case: a few records
            payload = bytes(self._buffer[self._at : self._at + size])
            self._at += size
            self._content_left = 0
            self._skip(-size % BLOCK_BYTES)
            return payload
        self._expect_content(size)
        payload = self._content_exactly(size)
        self._skip(self._padding)
        return payload

    def _content_exactly(self, count: int) -> bytes:
        pieces = []
        while count:
            if not self._content_left:
                raise self._corrupt("a sparse map that is longer than its member")
            pieces.append(bytes(self._content(count)))
            count -= len(pieces[-1])
            self._content_read += len(pieces[-1])
        return b"".join(pieces)

    def _content(self, limit: int) -> memoryview:
        """Return between 1 and *limit* bytes of the content."""
        if self._at == len(self._buffer):
            self._fill()
        end = min(len(self._buffer), self._at + min(limit, self._content_left))
        piece = self._buffer[self._at : end]
        self._content_left -= len(piece)
        self._at = end
        return piece

    def _block(self) -> bytes:
        start, self._at = self._at, self._at + BLOCK_BYTES
        block = bytes(self._buffer[start : self._at])
        while len(block) < BLOCK_BYTES:  # some of it is in the next buffer
            self._at = len(self._buffer)
            self._fill()
            self._at = BLOCK_BYTES - len(block)
            block += self._buffer[: self._at]
        return block

    def _skip(self, count: int) -> None:
        while count > len(self._buffer) - self._at:
            count -= len(self._buffer) - self._at
            self._at = len(self._buffer)
            self._fill()
        self._at += count

    def _fill(self) -> None:
        """Read the next buffer; the current one must be used up."""
        self._offset += self._at
        self._at = 0
        self._buffer = memoryview(self._source.read(_READ_BYTES))
        if not self._buffer:
            raise CorruptArchiveError(
                f"the tar archive is truncated: it ends at byte {self._offset}"
            )

    def _drain(self) -> None:
        rest = bytes(self._buffer[self._at :])
        while True:
            if rest.count(0) != len(rest):
                raise self._corrupt("data after the end mark")
            rest = self._source.read(_READ_BYTES)
            if not rest:
                return

    def _corrupt(self, what: str) -> CorruptArchiveError:
        return CorruptArchiveError(
            f"the tar archive has {what}, before byte {self._offset + self._at}"
        )


@lru_cache(maxsize=1024)
def _identity(numbers: bytes, owner: bytes) -> tuple[int, int, int, bytes, bytes]:
    """Return mode, ids and names of the owner, cached because few of them occur in an archive.

    *numbers* are the three fields after the name in a header, *owner* those from the magic on.
    """
    mode, uid, gid = (parse_number(numbers[start : start + 8]) for start in (0, 8, 16))
    magic, uname, gname, _, _ = _OWNER_FIELDS.unpack(owner)
    if magic[:5] != b"ustar":
        uname = gname = b""
    return mode & 0o7777, uid, gid, uname.partition(b"\0")[0], gname.partition(b"\0")[0]
