from __future__ import annotations

import gzip
import io
import os
import random
import subprocess
import threading
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bakthat.archive.gzip.members import (
    HEADER_BYTES,
    MAX_MEMBER_BYTES,
    MEMBER_BYTES,
    TRAILER_BYTES,
    pack_member,
)
from bakthat.archive.gzip.reader import GzipReader
from bakthat.errors import CorruptArchiveError
from tests.support.needs import program
from tests.support.tar_bytes import Pieces

RANDOM = random.Random(7)
NOISE = RANDOM.randbytes(3 * 1024 * 1024)


def deflate(data: bytes, level: int = 1) -> bytes:
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
    return compressor.compress(data) + compressor.flush()


def own_member(data: bytes) -> bytes:
    return pack_member(deflate(data), zlib.crc32(data), len(data))


def own_file(data: bytes, size: int = MEMBER_BYTES) -> bytes:
    return b"".join(own_member(data[at : at + size]) for at in range(0, len(data) or 1, size))


def gunzip(data: bytes, *, piece: int = 1 << 20, threads: int = 2) -> bytes:
    with GzipReader(Pieces(data, piece), threads=threads) as reader:
        return reader.read(-1)


def gunzip_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("bakthat-gunzip")]


@pytest.mark.parametrize("piece", [1 << 20, 4093])
@pytest.mark.parametrize(
    "size",
    [0, 1, 511, 65535, MEMBER_BYTES - 1, MEMBER_BYTES, MEMBER_BYTES + 1, 2 * MEMBER_BYTES + 5],
)
def test_the_output_of_every_gzip_tool_is_read(size: int, piece: int) -> None:
    data = NOISE[: size // 2] + bytes(size - size // 2)
    files = {
        "own": own_file(data),
        "python": gzip.compress(data),
        "multi": gzip.compress(data[:1000]) + gzip.compress(b"") + gzip.compress(data[1000:]),
        "mixed": own_file(data[:1000])
        + gzip.compress(data[1000:2000])
        + own_member(b"")
        + own_file(data[2000:], 65536),
        "padded": own_file(data) + bytes(70000),
    }
    for tool in ("gzip", "pigz"):
        done = subprocess.run([program(tool), "-c"], input=data, capture_output=True, check=True)
        files[tool] = done.stdout
    for name, file in files.items():
        assert gunzip(file, piece=piece) == data, name


def test_gzip_with_a_name_a_comment_and_a_header_checksum_is_read() -> None:
    name = b"\x1f\x8b\x08\x1a" + bytes(6) + b"n" * 2000 + b"\0" + b"comment\0"
    name += (zlib.crc32(name) & 0xFFFF).to_bytes(2, "little")
    assert gunzip(name + gzip.compress(b"content")[10:], piece=100) == b"content"


@given(
    parts=st.lists(
        st.tuples(st.binary(max_size=3000), st.sampled_from(["own", "other", "stored"])),
        min_size=1,
        max_size=12,
    ),
    piece=st.integers(1, 5000),
    asked=st.integers(1, 5000),
)
@settings(max_examples=60, deadline=None)
def test_any_mixture_of_members_is_read_in_pieces_of_any_size(
    parts: list[tuple[bytes, str]], piece: int, asked: int
) -> None:
    levels = {"other": 6, "stored": 0}
    file = b"".join(
        own_member(data) if kind == "own" else gzip.compress(data, levels[kind])
        for data, kind in parts
    )
    with GzipReader(Pieces(file, piece), threads=2) as reader:
        read = []
        while data := reader.read(asked):
            assert len(data) <= asked
            read.append(data)
        assert reader.read(1) == b""
    assert b"".join(read) == b"".join(data for data, _ in parts)


MIXED = own_member(b"first" * 20) + gzip.compress(b"second" * 20) + own_member(b"third" * 20)
BOUNDARIES = {
    len(own_member(b"first" * 20)),
    len(own_member(b"first" * 20) + gzip.compress(b"second" * 20)),
}


def test_a_file_cut_at_any_byte_is_corrupt_except_between_members() -> None:
    for length in range(len(MIXED)):
        if length in BOUNDARIES:
            # Nothing in the gzip format tells that members are missing; the tar inside does.
            assert gunzip(MIXED[:length])
            continue
        with pytest.raises(CorruptArchiveError):
            gunzip(MIXED[:length])


@pytest.mark.parametrize("bit", [0, 5, 7])
def test_a_flipped_bit_never_changes_what_is_read(bit: int) -> None:
    whole = gunzip(MIXED)
    refused = 0
    for at in range(len(MIXED)):
        altered = bytearray(MIXED)
        altered[at] ^= 1 << bit
        try:
            # Harmless ones (a time, an operating system) may pass.
            assert gunzip(bytes(altered)) == whole
        except CorruptArchiveError:
            refused += 1
    assert refused > len(MIXED) // 2


@pytest.mark.parametrize(
    "garbage",
    [b"x", b"\x1f", b"\x1f\x8c" * 9, bytes(600) + b"x", bytes(300000) + b"\x1f\x8b"],
    ids=["letter", "half magic", "nearly magic", "zeros and a letter", "zeros and magic"],
)
@pytest.mark.parametrize(
    "file", [own_member(b"data"), gzip.compress(b"data")], ids=["own", "foreign"]
)
def test_only_zeros_may_follow_the_last_member(file: bytes, garbage: bytes) -> None:
    with pytest.raises(CorruptArchiveError, match="follows the last gzip member"):
        gunzip(file + garbage)


@pytest.mark.parametrize(
    ("file", "message"),
    [(b"", "the file is empty"), (b"PK\x03\x04" * 50, "not a gzip file"), (bytes(99), "not a gz")],
    ids=["empty", "zip", "zeros"],
)
def test_a_file_that_is_not_gzip_is_refused_as_such(file: bytes, message: str) -> None:
    with pytest.raises(CorruptArchiveError, match=message):
        gunzip(file)


def test_a_member_that_holds_more_than_it_declares_is_refused() -> None:
    bomb = pack_member(deflate(bytes(50_000_000)), 0, 1000)
    with pytest.raises(CorruptArchiveError, match="as many bytes as it declares"):
        gunzip(bomb)


def test_a_member_that_declares_too_much_content_is_refused_unread() -> None:
    bomb = pack_member(deflate(bytes(50_000_000)), 0, 50_000_000)
    with pytest.raises(CorruptArchiveError, match="declares 50000000 bytes"):
        gunzip(bomb)


def test_a_member_that_declares_too_great_a_length_is_refused_unread() -> None:
    header = pack_member(b"", 0, 0)[: HEADER_BYTES - 4] + (2**32 - 1).to_bytes(4, "little")
    source = Pieces(header + NOISE)
    with (
        GzipReader(source) as reader,
        pytest.raises(CorruptArchiveError, match="declares 4294967295 bytes"),
    ):
        reader.read(1)
    assert not source.drained


def test_the_largest_member_is_read_also_when_it_does_not_compress() -> None:
    data = RANDOM.randbytes(MAX_MEMBER_BYTES)
    raw = b""
    for at in range(0, len(data), 32768):  # shorter blocks than any encoder's
        block = data[at : at + 32768]
        size = len(block).to_bytes(2, "little") + (len(block) ^ 0xFFFF).to_bytes(2, "little")
        raw += (b"\x01" if at + 32768 >= len(data) else b"\0") + size + block
    assert gunzip(pack_member(raw, zlib.crc32(data), len(data))) == data


def test_members_hidden_in_the_slack_of_another_are_refused() -> None:
    data = b"seen"
    smuggled = pack_member(deflate(data) + b"unseen", zlib.crc32(data), len(data))
    with pytest.raises(CorruptArchiveError):
        gunzip(smuggled)
    assert len(smuggled) > HEADER_BYTES + TRAILER_BYTES


@pytest.mark.parametrize(
    "file", [own_file(NOISE, 65536), gzip.compress(NOISE, 1)], ids=["own", "other"]
)
@pytest.mark.parametrize("failure", [OSError("gone"), KeyboardInterrupt(), ValueError("odd")])
def test_an_error_of_the_source_passes_unchanged_and_stays(
    file: bytes, failure: BaseException
) -> None:
    with GzipReader(Pieces(file[:1_000_000], 65536, failure), threads=2) as reader:
        for _ in range(3):
            with pytest.raises(type(failure)) as caught:
                reader.read(-1)
            assert caught.value is failure
    assert gunzip_threads() == []


def test_a_damaged_member_fails_every_later_read() -> None:
    file = bytearray(own_file(NOISE, 65536))
    file[200_000] ^= 1
    with GzipReader(Pieces(bytes(file)), threads=2) as reader:
        for _ in range(3):
            with pytest.raises(CorruptArchiveError):
                reader.read(-1)


def test_closing_in_the_middle_ends_the_threads_and_not_the_source() -> None:
    source = io.BytesIO(own_file(NOISE, 65536))
    reader = GzipReader(source, threads=2)
    assert reader.read(10) == NOISE[:10]
    assert gunzip_threads()
    reader.close()
    reader.close()
    assert gunzip_threads() == []
    assert not source.closed
    with pytest.raises(ValueError, match="closed"):
        reader.read(1)


def test_no_thread_starts_for_another_tools_gzip() -> None:
    with GzipReader(Pieces(gzip.compress(NOISE, 1))) as reader:
        assert reader.read(10) == NOISE[:10]
        assert gunzip_threads() == []


def test_only_a_few_members_are_read_ahead() -> None:
    file = own_file(os.urandom(65536) * 400, 65536)
    source = Pieces(file, 65536)
    with GzipReader(source, threads=2) as reader:
        reader.read(1)
        assert len(source._data) > len(file) * 9 // 10


def test_the_members_that_are_read_are_told() -> None:
    data = NOISE[: MEMBER_BYTES + 5]
    file = own_file(data) + gzip.compress(b"foreign") + own_member(b"")
    found: list[tuple[int, int]] = []
    with GzipReader(
        Pieces(file), on_member=lambda length, size: found.append((length, size))
    ) as reader:
        assert reader.read() == data + b"foreign"
    assert [size for _, size in found] == [MEMBER_BYTES, 5, 0, 0]
    assert [length > 0 for length, _ in found] == [True, True, False, True]
    assert sum(length for length, _ in found) == len(file) - len(gzip.compress(b"foreign"))
