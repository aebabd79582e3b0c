"""Where the default level of gzip takes trouble: with text, unless that is a small part."""

from __future__ import annotations

import functools
import os
import random

import pytest

from bakthat.archive.gzip.effort import Effort, fitting_level
from bakthat.archive.gzip.members import MEMBER_BYTES
from bakthat.archive.gzip.writer import GzipWriter
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


def test_with_text_alone_trouble_is_taken_but_for_a_fifth() -> None:
    effort = Effort()
    told = [effort.is_worthwhile(text()) for _ in range(100)]
    assert told[:4] == [True] * 4
    assert told.count(False) == 20


def test_text_that_is_a_small_part_is_spared() -> None:
    effort = Effort()
    told = [effort.is_worthwhile(text() if n % 8 == 7 else code()) for n in range(80)]
    assert not any(told)


def test_of_more_text_a_fifth_of_all_is_spared() -> None:
    effort = Effort()
    told = [effort.is_worthwhile(text() if n % 2 else code()) for n in range(200)]
    texts = told[1::2]
    assert not any(told[::2])
    assert texts.count(False) == 40


@pytest.mark.parametrize(
    "member",
    [
        "Jalapeños, κόσμος, мир, 世界\n".encode() * 20_000,
        b"\x1b[31mred\x1b[0m\ttabs\r\n\f" * 20_000,
        (b"def x(): pass\n" * 100 + bytes(1000)) * 200,  # tar pads with zeros
    ],
)
def test_any_text_is_text(member: bytes) -> None:
    assert Effort().is_worthwhile(member)


@pytest.mark.parametrize("member", [b"", b"x"])
def test_the_end_of_a_stream_may_be_short(member: bytes) -> None:
    assert fitting_level(member, worthwhile=True) == 3


@pytest.mark.parametrize("worthwhile", [True, False])
def test_what_does_not_compress_is_stored(worthwhile: bool) -> None:
    noise = random.Random(1).randbytes(MEMBER_BYTES)
    assert fitting_level(noise, worthwhile=worthwhile) == 0
    assert fitting_level(text(), worthwhile=worthwhile) == (3 if worthwhile else 2)


def test_the_same_stream_comes_out_the_same_from_any_number_of_threads() -> None:
    written = []
    for threads in (1, 2, 7):
        sink = Collector()
        with GzipWriter(sink, threads=threads) as writer:
            for number in range(20):
                writer.write(code() if number % 3 else text())
        written.append(sink.data)
    assert written[0] == written[1] == written[2]
