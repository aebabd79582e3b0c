"""The default level: the higher one for plain text, none for data that does not compress."""

from __future__ import annotations

import functools
import gzip
import os
import random
import subprocess
from pathlib import Path

import pytest

from bakthat.archive.gzip.level import DEFAULT_LEVEL, choose_level
from bakthat.archive.gzip.members import MEMBER_BYTES
from bakthat.archive.gzip.writer import GzipWriter, compress_member
from tests.support.archives import Collector


@functools.cache
def text() -> bytes:
    """One member of Python."""
    library = os.path.dirname(os.__file__)
    found = bytearray()
    for name in sorted(name for name in os.listdir(library) if name.endswith(".py")):
        with open(os.path.join(library, name), "rb") as file:
            found += file.read()
        if len(found) >= MEMBER_BYTES:
            break
    return bytes(found[:MEMBER_BYTES])


@functools.cache
def code() -> bytes:
    """One member of small numbers, as programs and compiled Python hold them."""
    generator = random.Random(7)
    return bytes(generator.choice((0, 0, 1, 2, 3, 9, 83, 100, 116)) for _ in range(MEMBER_BYTES))


def test_plain_text_gets_the_higher_level() -> None:
    assert choose_level(text()) == 3


@pytest.mark.parametrize(
    "member",
    [
        ("Jalapeños, κόσμος, мир, 世界\n" * 20_000).encode(),
        b"\x1b[31mred\x1b[0m\ttabs\r\n\f" * 20_000,
        (b"def x(): pass\n" * 100 + bytes(1000)) * 200,  # tar pads with zeros
    ],
)
def test_any_text_is_text(member: bytes) -> None:
    assert choose_level(member) == 3


def test_data_that_is_not_text_gets_the_lower_level() -> None:
    assert choose_level(code()) == 2
    assert choose_level(bytes(range(1, 6)) * 100_000) == 2


def test_text_that_compresses_less_gets_the_lower_level() -> None:
    """As dumps of databases do, on which level 3 takes twice the time and gains little."""
    generator = random.Random(5)
    dump = "".join(f"({generator.getrandbits(64):x},'paid'),\n" for _ in range(45_000))
    assert choose_level(dump.encode()) == 2


def test_data_that_does_not_compress_is_stored() -> None:
    assert choose_level(random.Random(1).randbytes(MEMBER_BYTES)) == 0


def test_photos_between_texts_are_no_reason_to_store_a_member() -> None:
    noise = random.Random(1).randbytes(MEMBER_BYTES // 8)
    assert choose_level((noise + text()[: len(noise)]) * 4) == 2


@pytest.mark.parametrize("member", [b"", b"x", bytes(3), b"x" * 5000])
def test_a_short_member_at_the_end_of_a_stream_is_valid(member: bytes) -> None:
    assert choose_level(member) in (0, 2, 3)
    assert gzip.decompress(compress_member(member, DEFAULT_LEVEL)) == member


@pytest.mark.needs("gzip")
@pytest.mark.slow
def test_source_text_stays_within_the_promised_size() -> None:
    """The docs promise at most 1.15 times the output of gzip -6."""
    library = Path(os.__file__).parent
    left_out = {"site-packages", "test"}
    files = [each for each in sorted(library.rglob("*.py")) if not left_out & {*each.parts}]
    stream = b"".join(file.read_bytes() for file in files)
    expected = subprocess.run(["gzip", "-6"], input=stream, capture_output=True, check=True)
    sink = Collector()
    with GzipWriter(sink) as writer:
        writer.write(stream)
    assert len(sink.data) <= 1.15 * len(expected.stdout)


def test_any_number_of_threads_gives_the_same_output() -> None:
    written = []
    for threads in (1, 2, 7):
        sink = Collector()
        with GzipWriter(sink, threads=threads) as writer:
            for number in range(20):
                writer.write(code() if number % 3 else text())
        written.append(sink.data)
    assert written[0] == written[1] == written[2]
