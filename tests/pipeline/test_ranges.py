"""Parts of a tar: the right bytes, what is fetched for them, and archives that differ."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bakthat.archive.gzip.inflate import inflate_front
from bakthat.archive.gzip.members import HEADER_BYTES, MEMBER_BYTES, member_length
from bakthat.archive.gzip.writer import GzipWriter
from bakthat.archive.index.reader import MemberTable, StoredMember
from bakthat.crypto.age import EncryptWriter, FileKeys
from bakthat.errors import CorruptArchiveError, CorruptIndexError, WrongKeyError
from bakthat.passwords import DecryptionKeys
from bakthat.pipeline.ranges import (
    MAX_GAP,
    REQUEST_BYTES,
    REQUESTS,
    TarRanges,
    plain_ranges,
    tar_ranges,
)
from bakthat.system.streams import RandomSource
from tests.crypto.test_age import IDENTITY, RECIPIENT, Pieces
from tests.support.own_threads import own_threads
from tests.support.ranges import Bytes

MIB = 1024 * 1024
SIZE = 9 * MIB + 700


class Table(MemberTable):
    """The members of an archive, as the index has them."""

    def __init__(self, lengths: Iterable[int]) -> None:
        self.lengths = list(lengths)
        self.member_bytes = MEMBER_BYTES

    def locate(self, start: int, end: int) -> list[StoredMember]:
        found, stored = [], 0
        for number, length in enumerate(self.lengths):
            at = number * self.member_bytes
            if at < end and at + self.member_bytes > start:
                found.append(StoredMember(at, stored, stored + length))
            stored += length
        return found


def compressed(tar: bytes) -> tuple[bytes, Table]:
    """Return *tar* as bakthat compresses it, and the table of its members."""
    sink = Pieces()
    with GzipWriter(sink) as writer:
        writer.write(tar)
    stored, lengths, at = sink.getvalue(), [], 0
    while at < len(stored):
        length = member_length(stored[at : at + HEADER_BYTES])
        assert length is not None
        lengths.append(length)
        at += length
    return stored, Table(lengths)


@pytest.fixture(scope="module")
def tar() -> bytes:
    """Return bytes of which some compress and some do not, with a short last member."""
    noise = random.Random(1)
    blocks = [noise.randbytes(4096) if n % 3 else bytes(4096) for n in range(SIZE // 4096 + 1)]
    return b"".join(blocks)[:SIZE]


@pytest.fixture(scope="module")
def noise() -> bytes:
    """Return bytes that do not compress."""
    return random.Random(2).randbytes(4 * MIB)


@pytest.fixture(scope="module")
def archive(tar: bytes) -> tuple[bytes, Table]:
    return compressed(tar)


SPANS = [
    [(0, 0)],
    [(0, 1)],
    [(0, SIZE)],
    [(SIZE - 1, SIZE)],
    [(SIZE, SIZE)],
    [(MIB - 1, MIB + 1)],
    [(MIB, 2 * MIB)],
    [(5, 10), (10, 12), (100, 4096)],
    [(5, 10), (MIB + 5, MIB + 6), (2 * MIB - 5, 2 * MIB + 5), (8 * MIB, SIZE)],
    [],
]


@pytest.mark.parametrize("is_compressed", [True, False])
@pytest.mark.parametrize("spans", SPANS)
def test_the_pieces_are_the_bytes_of_the_parts(
    tar: bytes, archive: tuple[bytes, Table], spans: list[tuple[int, int]], is_compressed: bool
) -> None:
    stored, table = archive if is_compressed else (tar, None)
    with TarRanges(Bytes(stored), table, SIZE) as ranges:
        assert b"".join(ranges.pieces(spans)) == b"".join(tar[a:b] for a, b in spans)
        for start, end in spans:
            assert ranges.read_at(start, end - start) == tar[start:end]
            assert ranges.read_at(start, end - start) == tar[start:end]


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(0, SIZE), max_size=8), is_compressed=st.booleans())
def test_any_parts_in_order_are_right(
    tar: bytes, archive: tuple[bytes, Table], cuts: list[int], is_compressed: bool
) -> None:
    cuts = sorted(cuts)[: len(cuts) // 2 * 2]
    spans = list(zip(cuts[::2], cuts[1::2], strict=True))
    stored, table = archive if is_compressed else (tar, None)
    with TarRanges(Bytes(stored), table, SIZE) as ranges:
        assert b"".join(ranges.pieces(iter(spans))) == b"".join(tar[a:b] for a, b in spans)


def test_a_small_part_of_what_does_not_compress_costs_one_member_and_a_front(noise: bytes) -> None:
    stored, table = compressed(noise)
    source = Bytes(stored)
    with TarRanges(source, table, len(noise)) as ranges:
        assert b"".join(ranges.pieces([(MIB - 5000, MIB + 5000)])) == noise[MIB - 5000 :][:10000]
        assert sum(source.sizes) < 1.1 * MIB
        assert len(source.sizes) == 1
        source.sizes.clear()
        assert ranges.read_at(2 * MIB - 5000, 10000) == noise[2 * MIB - 5000 :][:10000]
        assert sum(source.sizes) < 1.1 * MIB


def test_a_part_at_the_beginning_of_a_member_costs_only_its_front(noise: bytes) -> None:
    stored, table = compressed(noise)
    source = Bytes(stored)
    with TarRanges(source, table, len(noise)) as ranges:
        assert b"".join(ranges.pieces([(MIB, MIB + 10_000)])) == noise[MIB : MIB + 10_000]
    assert sum(source.sizes) < 20_000


def test_near_parts_are_fetched_at_once_and_far_ones_apart(tar: bytes) -> None:
    source = Bytes(tar)
    with TarRanges(source, None, SIZE) as ranges:
        list(ranges.pieces([(0, 10), (MAX_GAP + 10, MAX_GAP + 20)]))
        assert source.calls == [(0, MAX_GAP + 20)]
        source.calls.clear()
        list(ranges.pieces([(0, 10), (MAX_GAP + 11, MAX_GAP + 20)]))
        assert sorted(source.calls) == [(0, 10), (MAX_GAP + 11, 9)]


def test_no_request_is_larger_than_the_limit(tar: bytes, noise: bytes) -> None:
    stored, table = compressed(noise + noise)
    for data, members in ((tar, None), (stored, table)):
        source = Bytes(data)
        size = 8 * MIB if members else SIZE
        with TarRanges(source, members, size) as ranges:
            assert sum(map(len, ranges.pieces([(0, size)]))) == size
        assert max(source.sizes) <= REQUEST_BYTES


def test_what_compresses_well_is_fetched_by_few_requests() -> None:
    zeros = bytes(64 * MIB)
    stored, table = compressed(zeros)
    source = Bytes(stored)
    with TarRanges(source, table, len(zeros)) as ranges:
        assert all(not any(piece) for piece in ranges.pieces([(0, len(zeros))]))
    assert len(source.calls) == 1


class _Waiting(Bytes):
    """A source that answers when as many requests wait as may be made at once."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.barrier = threading.Barrier(REQUESTS)

    def read_at(self, offset: int, size: int, /) -> bytes:
        self.barrier.wait(60)
        return super().read_at(offset, size)


def test_several_requests_are_made_at_once() -> None:
    data = random.Random(3).randbytes(REQUESTS * 2 * MIB + REQUESTS)
    spans = [(n * (2 * MIB + 1), n * (2 * MIB + 1) + 5) for n in range(REQUESTS)]
    with TarRanges(_Waiting(data), None, len(data)) as ranges:
        assert b"".join(ranges.pieces(spans)) == b"".join(data[a:b] for a, b in spans)


def test_parts_are_taken_as_they_are_needed() -> None:
    taken = []

    def wanted() -> Iterator[tuple[int, int]]:
        for start in range(0, 100 * 3 * MIB, 3 * MIB):
            taken.append(start)
            yield start, start + 1

    with TarRanges(Bytes(bytes(100 * 3 * MIB)), None, 100 * 3 * MIB) as ranges:
        next(ranges.pieces(wanted()))
        assert len(taken) <= REQUESTS + 2


def test_parts_out_of_order_or_outside_are_refused(tar: bytes) -> None:
    with TarRanges(Bytes(tar), None, SIZE) as ranges:
        for spans in ([(5, 4)], [(10, 20), (19, 30)], [(0, SIZE + 1)], [(-1, 5)]):
            with pytest.raises(ValueError, match="are not after"):
                list(ranges.pieces(spans))
        with pytest.raises(ValueError, match="are not in"):
            ranges.read_at(SIZE, 1)


def test_a_table_of_another_archive_is_refused(archive: tuple[bytes, Table]) -> None:
    stored, table = archive
    lengths = list(table.lengths)
    lengths[0], lengths[1] = lengths[0] + 7, lengths[1] - 7
    with (
        TarRanges(Bytes(stored), Table(lengths), SIZE) as ranges,
        pytest.raises(CorruptArchiveError, match="gzip member at byte 0 is not the one"),
    ):
        list(ranges.pieces([(0, 10)]))


def test_a_member_outside_of_the_archive_is_refused(archive: tuple[bytes, Table]) -> None:
    stored, table = archive
    with (
        TarRanges(Bytes(stored[:-1]), table, SIZE) as ranges,
        pytest.raises(CorruptIndexError, match="outside of the archive"),
    ):
        list(ranges.pieces([(SIZE - 10, SIZE)]))


@dataclass
class Index:
    """What an index says of its archive."""

    table: Table | None
    tar_bytes: int
    stored_bytes: int

    @property
    def footer(self) -> Index:
        return self

    def members(self) -> Any:
        return self.table


def test_an_archive_of_another_size_than_in_the_index_is_refused(
    tar: bytes, archive: tuple[bytes, Table]
) -> None:
    stored, table = archive
    for data, index in (
        (stored, Index(table, SIZE, len(stored))),
        (tar, Index(None, SIZE, 0)),
    ):
        with tar_ranges(Bytes(data), index) as ranges:
            assert b"".join(ranges.pieces([(5, 10)])) == tar[5:10]
        with pytest.raises(CorruptArchiveError, match="index is of an archive of"):
            tar_ranges(Bytes(data + b"x"), index)


def test_a_tar_of_another_size_is_refused(archive: tuple[bytes, Table]) -> None:
    stored, table = archive
    with (
        TarRanges(Bytes(stored), table, SIZE - 512) as ranges,
        pytest.raises(CorruptArchiveError, match="as the index says"),
    ):
        list(ranges.pieces([(9 * MIB, SIZE - 512)]))


def test_damage_in_a_whole_member_is_found(archive: tuple[bytes, Table]) -> None:
    stored, table = archive
    altered = bytearray(stored)
    altered[table.lengths[0] + table.lengths[1] // 2] ^= 16
    with (
        TarRanges(Bytes(bytes(altered)), table, SIZE) as ranges,
        pytest.raises(CorruptArchiveError, match=f"gzip member at byte {table.lengths[0]} "),
    ):
        list(ranges.pieces([(MIB, 2 * MIB)]))


def test_a_front_that_takes_more_than_expected_is_fetched_again(noise: bytes) -> None:
    stored, table = compressed(noise)
    source = Bytes(stored)
    with TarRanges(source, table, len(noise)) as ranges:

        def short(data: bytes, wanted: int, *, length: int, offset: int) -> bytes:
            return inflate_front(data, wanted, length=length, offset=offset)[:-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bakthat.pipeline.ranges.inflate_front", short)
            assert b"".join(ranges.pieces([(MIB + 3, MIB + 9)])) == noise[MIB + 3 : MIB + 9]
    assert source.sizes[-1] == table.lengths[1]


def test_the_error_of_the_source_is_raised_and_nothing_hangs(tar: bytes) -> None:
    with (
        TarRanges(Bytes(tar, fail_after=1), None, SIZE) as ranges,
        pytest.raises(OSError, match="broken"),
    ):
        list(ranges.pieces([(0, SIZE)]))
    assert own_threads() == []


def test_pieces_that_are_not_read_to_their_end_leave_no_thread(tar: bytes) -> None:
    with TarRanges(Bytes(tar), None, SIZE) as ranges:
        next(ranges.pieces([(0, SIZE)]))
    assert own_threads() == []


def test_an_encrypted_archive_is_read_in_parts(tar: bytes, archive: tuple[bytes, Table]) -> None:
    stored, table = archive
    sink = Pieces()
    with EncryptWriter(sink, recipients=[RECIPIENT]) as writer:
        writer.write(stored)
    source = Bytes(sink.getvalue())
    how = SimpleNamespace(encrypted=True, is_legacy=False)
    keys = DecryptionKeys(identities=(IDENTITY,))
    plain: RandomSource = plain_ranges(source, how, keys, FileKeys())
    assert plain.size == len(stored)
    with TarRanges(plain, table, SIZE) as ranges:
        assert b"".join(ranges.pieces([(3 * MIB, 3 * MIB + 99)])) == tar[3 * MIB :][:99]
        assert b"".join(ranges.pieces([(0, SIZE)])) == tar
    assert plain_ranges(source, SimpleNamespace(encrypted=False, is_legacy=False), keys) is source
    with pytest.raises(WrongKeyError):
        plain_ranges(source, how, DecryptionKeys("wrong"))
    with pytest.raises(ValueError, match=r"0\.6\.0"):
        plain_ranges(source, SimpleNamespace(encrypted=True, is_legacy=True), keys)
