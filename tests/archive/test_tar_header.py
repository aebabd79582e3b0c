"""Tar headers: tarfile and GNU tar read every field back."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bakthat.archive.create.xattrs import attribute_record
from bakthat.archive.tar import header as tar_header
from bakthat.archive.tar.fields import MAX_ID, MAX_TIME_NS
from bakthat.archive.tar.header import (
    HeaderError,
    MemberHeader,
    decimal_seconds,
    pack_member_header,
    pack_record,
)
from bakthat.archive.tar.member import Member
from bakthat.archive.tar.reader import TarReader
from bakthat.archive.tar.sparse import pack_pax_1_0
from tests.support.tar_bytes import Pieces

END = bytes(tar_header.RECORD_BYTES)


def read(member: MemberHeader, mode: str = "r|") -> tarfile.TarInfo:
    archive = io.BytesIO(pack_member_header(member) + END)
    with tarfile.open(fileobj=archive, mode=mode) as tar:  # type: ignore[call-overload]  # the mode is a parameter
        found = tar.next()
    assert isinstance(found, tarfile.TarInfo)
    return found


def link(name: bytes, target: bytes = b"t", mtime_ns: int = 0) -> MemberHeader:
    return MemberHeader(name, tar_header.SYMBOLIC_LINK, 0o777, 0, 0, mtime_ns, link=target)


_components = st.binary(min_size=1, max_size=255).map(
    lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_")
)
_printable = st.text(st.characters(min_codepoint=33, max_codepoint=1000), min_size=1, max_size=100)
_text = _printable.map(lambda text: text.replace("/", "_").encode())
_paths = st.lists(_components | _text, min_size=1, max_size=20).map(b"/".join)
_paths = _paths.map(lambda path: path[:4096].strip(b"/")).filter(bool)


@settings(max_examples=150, deadline=None)
@given(name=_paths, target=_paths)
def test_tarfile_reads_any_name_and_target(name: bytes, target: bytes) -> None:
    for mode in ("r|", "r:"):
        found = read(link(name, target), mode)
        assert found.name.encode("utf-8", "surrogateescape") == name
        assert found.linkname.encode("utf-8", "surrogateescape") == target


@settings(max_examples=30, deadline=None)
@given(names=st.lists(_paths, min_size=1, max_size=20, unique=True))
def test_gnu_tar_reads_any_name(names: list[bytes]) -> None:
    archive = b"".join(pack_member_header(link(name)) for name in names) + END
    command = ["tar", "-t", "--quoting-style=literal", "--null", "-f", "-"]
    done = subprocess.run(command, input=archive, capture_output=True, check=True)
    assert done.stdout == b"".join(name + b"\n" for name in names)
    if not any(b".." in name.split(b"/") for name in names):  # it says that it would remove these
        assert done.stderr == b""


@settings(max_examples=200, deadline=None)
@given(length=st.integers(1, 400), cut=st.integers(0, 400), slash=st.booleans())
@example(length=100, cut=0, slash=True)
@example(length=256, cut=155, slash=False)
@example(length=257, cut=156, slash=False)
def test_names_around_the_limits_of_the_fields_survive(length: int, cut: int, slash: bool) -> None:
    name = bytearray(b"n" * length)
    if 0 < cut < length - 1:
        name[cut : cut + 1] = b"/"
    kind = tar_header.DIRECTORY if slash else tar_header.FIFO
    member = MemberHeader(bytes(name) + b"/" * slash, kind, 0o700, 0, 0, 0)
    assert read(member).name == name.decode()


def test_a_plain_member_takes_one_block() -> None:
    name = b"a" * 155 + b"/" + b"b" * 99 + b"/"
    member = MemberHeader(name, tar_header.DIRECTORY, 0o40755, 2097151, 2097151, 10**9)
    member.owner = b"o" * 31
    assert len(pack_member_header(member)) == 512
    found = read(member)
    assert (found.name, found.uid, found.gid, found.uname, found.mtime, found.mode) == (
        name[:-1].decode(), 2097151, 2097151, "o" * 31, 1, 0o755,
    )  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    uid=st.integers(0, MAX_ID),
    gid=st.integers(0, MAX_ID),
    size=st.integers(0, 2**63 - 1),
    owner=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60),
    mode=st.integers(0, 0o177777),
)
@example(uid=2097152, gid=2097152, size=8 * 1024**3, owner="o" * 32, mode=0o104755)
@example(uid=2097151, gid=0, size=8 * 1024**3 - 1, owner="é", mode=0)
def test_large_numbers_and_long_owners_survive(
    uid: int, gid: int, size: int, owner: str, mode: int
) -> None:
    member = MemberHeader(b"f", tar_header.REGULAR, mode, uid, gid, 0, size=size)
    member.owner = member.group = owner.encode()
    found = read(member)
    assert (found.uid, found.gid, found.size) == (uid, gid, size)
    assert (found.uname, found.gname) == (owner, owner)
    assert found.mode == mode & 0o7777


_times = st.integers(-(2**63), 2**63 - 1)


@given(nanoseconds=_times)
@example(nanoseconds=-1)
@example(nanoseconds=-1_500_000_000)
@example(nanoseconds=-1_000_000_000)
@example(nanoseconds=0)
@example(nanoseconds=1_000_000_001)
@example(nanoseconds=8**11 * 10**9)
def test_times_are_exact(nanoseconds: int) -> None:
    assert Decimal(decimal_seconds(nanoseconds).decode()) * 10**9 == nanoseconds
    found = read(link(b"f", mtime_ns=nanoseconds))
    if "mtime" in found.pax_headers:
        assert Decimal(found.pax_headers["mtime"]) * 10**9 == nanoseconds
    else:
        assert found.mtime * 10**9 == nanoseconds


@pytest.mark.parametrize(
    ("nanoseconds", "shown"),
    [
        (-2_000_000_000, "1969-12-31 23:59:58"),
        (1, "1970-01-01 00:00:00.000000001"),
        (1_700_000_000_120_000_000, "2023-11-14 22:13:20.12"),
    ],
)
def test_gnu_tar_reads_times_before_the_epoch_and_fractions(nanoseconds: int, shown: str) -> None:
    archive = pack_member_header(link(b"f", mtime_ns=nanoseconds)) + END
    command = ["tar", "-tvf", "-", "--utc", "--full-time"]
    done = subprocess.run(command, input=archive, capture_output=True, check=True)
    assert shown in done.stdout.decode()


@pytest.mark.parametrize("nanoseconds", [-1_500_000_000, -250_000_000, -1, 1])
def test_fractions_before_the_epoch_are_written_as_gnu_tar_writes_them(
    tmp_path: Path, nanoseconds: int
) -> None:
    # Only written: GNU tar 1.34 gets the sign of such a fraction wrong when it reads its own.
    path = tmp_path / "f"
    path.touch()
    os.utime(path, ns=(nanoseconds, nanoseconds))
    archive = subprocess.run(
        ["tar", "--format=posix", "-C", tmp_path, "-c", "f"], capture_output=True, check=True
    ).stdout
    assert pack_record(b"mtime", decimal_seconds(nanoseconds)) in archive


@given(key=st.binary(min_size=1, max_size=30), value=st.binary(max_size=1100))
def test_a_record_carries_its_own_length(key: bytes, value: bytes) -> None:
    record = pack_record(key, value)
    assert int(record.partition(b" ")[0]) == len(record)


@settings(deadline=None)
@given(value=st.binary(max_size=2000))
def test_a_record_holds_any_bytes(value: bytes) -> None:
    member = link(b"f")
    member.records = [(b"SCHILY.xattr.user.x", value)]
    found = read(member).pax_headers["SCHILY.xattr.user.x"]
    assert found.encode("utf-8", "surrogateescape") == value


@pytest.mark.parametrize(
    ("extents", "size", "expected"),
    [
        ([(512, 1024)], 4096, b"2\n512\n1024\n4096\n0\n"),
        ([(0, 10), (90, 10)], 100, b"2\n0\n10\n90\n10\n"),
        ([], 7, b"1\n7\n0\n"),
    ],
)
def test_the_map_of_a_sparse_file(
    extents: list[tuple[int, int]], size: int, expected: bytes
) -> None:
    assert pack_pax_1_0(extents, size) == expected.ljust(512, b"\0")


def test_gnu_tar_reads_a_size_above_8_gib(tmp_path: Path) -> None:
    member = MemberHeader(b"big", tar_header.REGULAR, 0o600, 0, 0, 0, size=9 * 1024**3)
    archive = tmp_path / "big.tar"
    with archive.open("wb") as file:
        header = pack_member_header(member)
        file.write(header)
        # The data and the end of the archive are a hole.
        file.truncate(len(header) + member.size + tar_header.RECORD_BYTES)
    done = subprocess.run(["tar", "-tvf", archive], capture_output=True, check=True)
    assert str(9 * 1024**3).encode() in done.stdout
    assert done.stderr == b""


_bytes = st.binary(min_size=1, max_size=120)


@settings(max_examples=500, deadline=None)
@given(
    name=st.one_of(st.text("ab/.", min_size=1, max_size=130).map(str.encode), _bytes),
    kind=st.sampled_from([tar_header.REGULAR, tar_header.DIRECTORY]),
    mode=st.integers(0, 0o177777),
    owner=st.tuples(
        st.sampled_from([0, 1000, 1 << 21, 1 << 31]), st.sampled_from([b"", b"r" * 40])
    ),
    size=st.one_of(st.integers(0, 1 << 20), st.integers(0, 1 << 40)),
    mtime_ns=st.one_of(
        st.integers(-(10**10), 10**20), st.integers(10**18, 2 * 10**18).map(lambda n: n // 10 * 10)
    ),
)
def test_the_fast_header_equals_the_general_one(
    name: bytes, kind: bytes, mode: int, owner: tuple[int, bytes], size: int, mtime_ns: int
) -> None:
    member = MemberHeader(
        name, kind, mode, owner[0], 7, mtime_ns, size, owner=owner[1], group=b"staff"
    )
    shared = tar_header.shared_pieces(member)
    if shared is None:
        return
    usual = tar_header.pack_usual_header(name, shared, size, mtime_ns)
    assert usual is None or usual == tar_header.pack_member_header(member)


def test_most_headers_take_the_fast_path() -> None:
    member = MemberHeader(b"a/b", tar_header.REGULAR, 0o644, 0, 0, 1_700_000_000_123_456_789, 5)
    shared = tar_header.shared_pieces(member)
    assert shared is not None
    usual = tar_header.pack_usual_header(b"a/b", shared, 5, member.mtime_ns)
    assert usual == tar_header.pack_member_header(member)


def limits(*numbers: int) -> st.SearchStrategy[int]:
    """Return numbers around those at which a header changes its form."""
    near = [number + step for number in numbers for step in (-1, 0, 1)]
    return st.sampled_from([number for number in near if min(numbers) <= number <= max(numbers)])


_seconds = limits(-(2**63), -(2**31), -1, 0, 10**9, 2**33, 10**10, 2**34, 10**17, 2**63 - 1)
_any_seconds = _seconds | st.integers(-(2**63), 2**63 - 1) | st.integers(0, 2**34)
_fractions = st.sampled_from([0, 1, 500_000_000, 854_775_807, 999_999_999])
_ids = limits(0, 0o7777777, 2**31, MAX_ID) | st.integers(0, MAX_ID)
_sizes = limits(0, 0o77777777777, 2**33, 2**63 - 1) | st.integers(0, 2**63 - 1)
# Linux keeps the numbers of a device in 12 and 20 bits.
_devices = st.tuples(limits(0, 2**12 - 1), limits(0, 0o777777, 2**20 - 1))
_KINDS = [
    tar_header.REGULAR,
    tar_header.DIRECTORY,
    tar_header.SYMBOLIC_LINK,
    tar_header.FIFO,
    tar_header.CHARACTER_DEVICE,
]


def written(member: MemberHeader) -> list[bytes]:
    """Return the header of *member* from every function that packs it."""
    headers = [pack_member_header(member)]
    shared = tar_header.shared_pieces(member)
    if shared is not None:
        usual = tar_header.pack_usual_header(member.name, shared, member.size, member.mtime_ns)
        headers += [usual] if usual is not None else []
    return headers


def ours(archive: bytes) -> Member:
    return next(iter(TarReader(Pieces(archive, 1 << 20))))


@settings(max_examples=500, deadline=None)
@given(
    kind=st.sampled_from(_KINDS),
    mode=st.integers(0, 0o177777),
    ids=st.tuples(_ids, _ids),
    seconds=_any_seconds,
    fraction=_fractions,
    size=_sizes,
    device=_devices,
)
@example(tar_header.REGULAR, 0o644, (0, 0), 9_223_372_036, 854_775_807, 1, (0, 0))
@example(tar_header.REGULAR, 0o644, (0, 0), 2**33, 999_999_999, 1, (0, 0))
@example(tar_header.REGULAR, 0o644, (0, 0), 2**62, 0, 1, (0, 0))
@example(tar_header.DIRECTORY, 0o755, (0, 0), -(2**63), 0, 0, (0, 0))
def test_any_metadata_of_a_file_system_round_trips(
    kind: bytes,
    mode: int,
    ids: tuple[int, int],
    seconds: int,
    fraction: int,
    size: int,
    device: tuple[int, int],
) -> None:
    mtime_ns = seconds * 10**9 + fraction
    name = b"d/f/" if kind == tar_header.DIRECTORY else b"d/f"
    member = MemberHeader(name, kind, mode, *ids, mtime_ns)
    if kind == tar_header.REGULAR:
        member.size = size
    elif kind == tar_header.SYMBOLIC_LINK:
        member.link = b"target"
    elif kind == tar_header.CHARACTER_DEVICE:
        member.device = device
    for header in written(member):
        assert len(header) % 512 == 0
        # Twice, so that the second comes to the reader's own fast path.
        again = b"" if kind == tar_header.REGULAR and size else header
        found = [ours(header + END)]
        if again:
            found += list(TarReader(Pieces(header + again + END, 1 << 20)))
        for one in found:
            assert (one.name, one.mode, one.uid, one.gid, one.mtime_ns, one.size) == (
                name, mode & 0o7777, *ids, mtime_ns, member.size,
            )  # fmt: skip
            assert (one.major, one.minor) == member.device
        with tarfile.open(fileobj=io.BytesIO(header + END), mode="r|") as tar:
            other = tar.next()
        assert other is not None
        assert (other.mode, other.uid, other.gid, other.size) == (mode & 0o7777, *ids, member.size)
        exact = other.pax_headers.get("mtime")
        assert Decimal(exact or int(other.mtime)) * 10**9 == mtime_ns
        if kind == tar_header.CHARACTER_DEVICE:
            assert (other.devmajor, other.devminor) == device


_owners = st.binary(max_size=70).map(lambda raw: raw.replace(b"\0", b"_"))
_attributes = st.dictionaries(
    st.binary(min_size=1, max_size=255).map(lambda raw: raw.replace(b"\0", b"_")),
    st.binary(max_size=1100),
    max_size=3,
)


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from([*_KINDS, tar_header.HARD_LINK, tar_header.BLOCK_DEVICE]),
    name=_paths,
    target=_paths,
    owner=_owners,
    group=_owners,
    ids=st.tuples(_ids, _ids),
    seconds=_any_seconds,
    attributes=_attributes,
)
def test_what_the_writer_writes_the_reader_reads(
    kind: bytes,
    name: bytes,
    target: bytes,
    owner: bytes,
    group: bytes,
    ids: tuple[int, int],
    seconds: int,
    attributes: dict[bytes, bytes],
) -> None:
    name += b"/" * (kind == tar_header.DIRECTORY)
    link = target if kind in (tar_header.HARD_LINK, tar_header.SYMBOLIC_LINK) else b""
    member = MemberHeader(
        name, kind, 0o640, *ids, seconds * 10**9, link=link, owner=owner, group=group
    )
    member.records = [attribute_record(key, value) for key, value in attributes.items()]
    for header in written(member):
        for found in TarReader(Pieces(header * 2 + END)):
            assert (found.name, found.linkname) == (name, link)
            assert (found.uname, found.gname) == (owner, group)
            assert (found.uid, found.gid, found.mtime_ns) == (*ids, seconds * 10**9)
            assert found.xattrs == attributes


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": -1},
        {"size": 2**63},
        {"uid": -1},
        {"gid": MAX_ID + 1},
        {"mtime_ns": MAX_TIME_NS + 1},
        {"device": (0o10000000, 0)},
        {"device": (0, -1)},
    ],
)
def test_values_that_no_reader_accepts_are_not_written(wrong: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"mode": 0o644, "uid": 0, "gid": 0, "mtime_ns": 1}
    member = MemberHeader(b"f", tar_header.REGULAR, **(fields | wrong))
    with pytest.raises(HeaderError):
        pack_member_header(member)


def test_no_header_of_another_length_is_written() -> None:
    member = MemberHeader(b"f", tar_header.REGULAR, 0o644, 0, 0, 1_700_000_000_123_456_789)
    shared = tar_header.shared_pieces(member)
    assert shared is not None
    wrong = shared._replace(ids=shared.ids + b"\0")  # any piece of a wrong length
    with pytest.raises(HeaderError, match="1537 bytes"):
        tar_header.pack_usual_header(b"f", wrong, 0, member.mtime_ns)
    with pytest.raises(HeaderError, match="513 bytes"):
        tar_header._block(b"f", shared.ids, 8**11, 0, tar_header._Rest(shared.rest, 0))
