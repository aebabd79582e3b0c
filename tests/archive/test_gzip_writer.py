"""The gzip writer: output for every gzip tool, bounded memory, no output after an error."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bakthat.archive.gzip import writer as gzip_writer
from bakthat.archive.gzip.members import HEADER_BYTES, MEMBER_BYTES, member_length
from bakthat.archive.gzip.writer import GzipWriter
from bakthat.errors import StorageError, UsageError
from bakthat.system.streams import Buffer
from tests.support.needs import program


class Collector:
    """A sink that keeps a copy, and may fail at its n-th write."""

    def __init__(self, fail_at: int | None = None, error: Exception | None = None) -> None:
        self.parts: list[bytes] = []
        self.fail_at = fail_at
        self.error = error or StorageError("full")
        self.threads: set[int] = set()

    def write(self, data: Buffer, /) -> None:
        self.threads.add(threading.get_ident())
        if self.fail_at == len(self.parts):
            raise self.error
        self.parts.append(bytes(data))

    @property
    def data(self) -> bytes:
        return b"".join(self.parts)


def compressors() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("bakthat-gzip")]


def members(data: bytes) -> list[bytes]:
    found = []
    while data:
        length = member_length(data[:HEADER_BYTES])
        assert length is not None
        found.append(data[:length])
        data = data[length:]
    return found


def sample(size: int) -> bytes:
    """Return *size* bytes, some of which compress."""
    generator = random.Random(size)
    words = [generator.randbytes(generator.randrange(20, 60)) for _ in range(500)]
    return b"".join(generator.choices(words, k=size // 20 + 1))[:size]


def write_all(writer: GzipWriter, *pieces: bytes) -> None:
    for piece in pieces:
        writer.write(piece)
    writer.close()


_AROUND = [n * MEMBER_BYTES + d for n in (1, 2) for d in (-1, 0, 1)]


@pytest.mark.parametrize("size", [0, 1, *_AROUND])
@pytest.mark.parametrize(
    "command", [["gzip", "-dc"], ["pigz", "-dc"], [sys.executable, "-m", "gzip", "-d"]]
)
def test_every_gzip_tool_reads_the_output(command: list[str], size: int) -> None:
    program(command[0])
    data = sample(size)
    sink = Collector()
    with GzipWriter(sink, threads=2) as writer:
        writer.write(data)
    done = subprocess.run(command, input=sink.data, capture_output=True, check=True)
    assert done.stdout == data
    assert done.stderr == b""
    subprocess.run(["gzip", "-t"], input=sink.data, check=True)


@pytest.mark.parametrize("size", [0, 1, *_AROUND])
def test_members_hold_a_fixed_amount_and_carry_their_length(size: int) -> None:
    data = sample(size)
    sink = Collector()
    with GzipWriter(sink, threads=2) as writer:
        writer.write(data)
    pieces = [gzip.decompress(member) for member in members(sink.data)]
    assert pieces == [data[i : i + MEMBER_BYTES] for i in range(0, size, MEMBER_BYTES) or [0]]


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 3 * MEMBER_BYTES // 2), max_size=5),
    level=st.sampled_from([1, 2, 3, 4]),
    threads=st.integers(1, 3),
)
def test_writes_of_any_size_round_trip(sizes: list[int], level: int, threads: int) -> None:
    data = sample(sum(sizes))
    sink = Collector()
    buffer = bytearray(3 * MEMBER_BYTES // 2)
    with GzipWriter(sink, level=level, threads=threads) as writer:
        start = 0
        for size in sizes:
            buffer[:size] = data[start : start + size]
            writer.write(memoryview(buffer)[:size])
            start += size
            # The writer keeps no reference, so the buffer may be used again.
            buffer[:] = bytes(len(buffer))
    assert gzip.decompress(sink.data) == data
    assert {len(gzip.decompress(m)) for m in members(sink.data)[:-1]} <= {MEMBER_BYTES}


@pytest.mark.parametrize("level", range(1, 10))
def test_each_level_is_read_by_gzip(level: int) -> None:
    data = sample(MEMBER_BYTES + 1000)
    sink = Collector()
    with GzipWriter(sink, level=level, threads=1) as writer:
        writer.write(data)
    assert subprocess.run(["gzip", "-dc"], input=sink.data, capture_output=True).stdout == data


@pytest.mark.parametrize("level", [1, 3, 6])
def test_data_that_does_not_compress_hardly_grows(level: int) -> None:
    data = random.Random(1).randbytes(2 * MEMBER_BYTES + 17)
    sink = Collector()
    with GzipWriter(sink, level=level) as writer:
        writer.write(data)
    assert gzip.decompress(sink.data) == data
    assert len(sink.data) < len(data) * 1.001


def test_the_default_level_stores_at_most_15_percent_more_than_gzip() -> None:
    library = os.path.dirname(os.__file__)
    sources = sorted(name for name in os.listdir(library) if name.endswith(".py"))
    text = bytearray()
    for name in sources:
        with open(os.path.join(library, name), "rb") as file:
            text += file.read()
    sink = Collector()
    with GzipWriter(sink) as writer:
        writer.write(text)
    theirs = subprocess.run(["gzip", "-6"], input=text, capture_output=True, check=True).stdout
    assert len(sink.data) <= 1.15 * len(theirs)


def test_the_sink_is_written_by_the_callers_thread_only() -> None:
    sink = Collector()
    with GzipWriter(sink, threads=3) as writer:
        writer.write(sample(5 * MEMBER_BYTES))
    assert sink.threads == {threading.get_ident()}


def test_a_bounded_number_of_members_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = 2
    bound = 2 * threads + 4
    several_wait = threading.Event()
    real = gzip_writer.compress_member

    def held(data: bytes, level: int) -> bytes:
        assert several_wait.wait(60)
        return real(data, level)

    monkeypatch.setattr(gzip_writer, "compress_member", held)
    sink = Collector()
    waiting: list[int] = []
    with GzipWriter(sink, threads=threads) as writer:
        for number in range(1, 13):
            writer.write(bytes(MEMBER_BYTES))
            waiting.append(number - len(sink.parts))
            if number == 2 * threads:
                several_wait.set()
    assert max(waiting) == bound
    assert len(members(sink.data)) == 12


@pytest.mark.parametrize("fail_at", range(6))
@pytest.mark.parametrize("error", [StorageError("full"), OSError("broken pipe")])
def test_an_error_of_the_sink_is_raised_and_ends_the_writing(
    fail_at: int, error: Exception
) -> None:
    sink = Collector(fail_at, error)
    writer = GzipWriter(sink, threads=2)
    with pytest.raises(type(error)) as caught:
        write_all(writer, *[sample(MEMBER_BYTES)] * 6)
    assert caught.value is error
    assert compressors() == []
    # Once broken it stays so: nothing may look like a finished file.
    for again in (writer.close, lambda: writer.write(b"more")):
        with pytest.raises(type(error)) as caught:
            again()
        assert caught.value is error
    writer.abort()
    assert len(sink.parts) == fail_at


@pytest.mark.parametrize("fail_at", range(4))
def test_an_error_of_a_compressor_is_raised_unchanged(
    fail_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = MemoryError("no room")
    real = gzip_writer.compress_member

    def failing(data: bytes, level: int) -> bytes:
        if data[:1] == b"!":
            raise error
        return real(data, level)

    monkeypatch.setattr(gzip_writer, "compress_member", failing)
    sink = Collector()
    writer = GzipWriter(sink, threads=2)
    pieces = [b"." + bytes(MEMBER_BYTES - 1)] * 4
    pieces[fail_at] = b"!" + bytes(MEMBER_BYTES - 1)
    with pytest.raises(MemoryError) as caught:
        write_all(writer, *pieces)
    assert caught.value is error
    assert len(members(sink.data)) <= fail_at
    assert compressors() == []


def abort_early(writer: GzipWriter) -> None:
    writer.abort()


def abort_twice(writer: GzipWriter) -> None:
    writer.write(sample(3 * MEMBER_BYTES))
    writer.abort()
    writer.abort()


@pytest.mark.parametrize("end", [abort_early, abort_twice])
def test_abort_writes_no_more_and_leaves_no_thread(end: Callable[[GzipWriter], None]) -> None:
    sink = Collector()
    writer = GzipWriter(sink, threads=2)
    writer.write(sample(MEMBER_BYTES // 2))
    end(writer)
    stored = sink.data
    assert compressors() == []
    with pytest.raises(ValueError, match="aborted"):
        writer.close()
    with pytest.raises(ValueError, match="aborted"):
        writer.write(b"more")
    assert sink.data == stored


def test_after_close_abort_and_close_do_nothing() -> None:
    sink = Collector()
    writer = GzipWriter(sink, threads=2)
    writer.write(b"data")
    writer.close()
    stored = sink.data
    writer.abort()
    writer.close()
    assert sink.data == stored
    assert gzip.decompress(stored) == b"data"
    assert compressors() == []
    with pytest.raises(ValueError, match="closed"):
        writer.write(b"more")


def test_an_exception_in_the_block_leaves_the_file_unfinished() -> None:
    sink = Collector()

    def interrupted() -> None:
        with GzipWriter(sink, threads=2) as writer:
            writer.write(b"half a member")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert sink.data == b""
    assert compressors() == []


@pytest.mark.parametrize("level", [-1, 0, 10])
def test_an_invalid_level_is_refused(level: int) -> None:
    with pytest.raises(UsageError, match=f"there is no compression level {level}"):
        GzipWriter(Collector(), level=level)


def test_no_threads_are_refused() -> None:
    with pytest.raises(UsageError, match="0 threads"):
        GzipWriter(Collector(), threads=0)


def test_importing_the_writer_loads_no_compressor() -> None:
    code = "import sys, bakthat.archive.gzip.writer; print('isal' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"False"
