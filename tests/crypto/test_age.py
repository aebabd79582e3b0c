"""The public interface of age files: round trips, who closes what, errors, memory."""

from __future__ import annotations

import gc
import gzip
import io
import subprocess
import sys
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bakthat.crypto._age_payload import Opener, Sealer
from bakthat.crypto.age import DecryptReader, EncryptWriter
from bakthat.errors import BakthatError, DecryptionError
from bakthat.system.streams import Buffer

# The example pair of https://c2sp.org/age, section "The X25519 recipient type".
IDENTITY = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"
RECIPIENT = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
CHUNK = 65536
BATCH = 16 * CHUNK
BOUNDARIES = [
    edge + near
    for edge in (CHUNK, 2 * CHUNK, BATCH, BATCH + CHUNK, 2 * BATCH)
    for near in (-1, 0, 1)
]


class Pieces:
    """A sink that keeps a copy of each piece."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, data: Buffer, /) -> None:
        self.pieces.append(bytes(data))

    def getvalue(self) -> bytes:
        return b"".join(self.pieces)


class Dribble:
    """A source that returns fewer bytes than requested."""

    def __init__(self, data: bytes, step: int) -> None:
        self._file = io.BytesIO(data)
        self._step = step

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, self._step))


class Broken:
    """A source and a sink that fail after some calls, and would work again afterwards."""

    def __init__(self, data: bytes = b"", *, working_calls: int) -> None:
        self._file = io.BytesIO(data)
        self._left = working_calls
        self.written = b""

    def _call(self) -> None:
        self._left -= 1
        if self._left == -1:
            raise OSError(5, "the disk is gone")

    def read(self, size: int, /) -> bytes:
        self._call()
        return self._file.read(min(size, 1000))

    def write(self, data: Buffer, /) -> None:
        self._call()
        self.written += bytes(data)


def encrypt(text: bytes, *splits: int) -> bytes:
    sink = Pieces()
    with EncryptWriter(sink, recipients=[RECIPIENT]) as writer:
        start = 0
        for end in (*sorted(splits), len(text)):
            writer.write(text[start:end])
            start = end
    return sink.getvalue()


def decrypt(file: bytes, identity: str = IDENTITY) -> bytes:
    return DecryptReader(io.BytesIO(file), identities=[identity]).read()


def pattern(size: int) -> bytes:
    """Bytes of which no two chunks are alike."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]


# --- round trips ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, *BOUNDARIES])
def test_a_file_of_any_size_round_trips(size: int) -> None:
    text = pattern(size)
    assert decrypt(encrypt(text)) == text


@settings(max_examples=40, deadline=None)
@given(
    size=st.sampled_from([0, 1, *BOUNDARIES]),
    splits=st.lists(st.integers(0, 2 * BATCH + 1), max_size=6),
    steps=st.lists(st.integers(1000, 3 * CHUNK), min_size=1, max_size=4),
    dribble=st.sampled_from([9999, CHUNK, CHUNK + 16, 1 << 20, 1 << 24]),
)
@pytest.mark.slow
def test_writes_and_reads_need_not_match_the_chunks(
    size: int, splits: list[int], steps: list[int], dribble: int
) -> None:
    text = pattern(size)
    file = encrypt(text, *(split for split in splits if split < size))
    reader = DecryptReader(Dribble(file, dribble), identities=[IDENTITY])
    got = bytearray()
    call = 0
    while data := reader.read(steps[call % len(steps)]):
        got += data
        call += 1
    assert got == text
    assert reader.read(1) == b""
    assert reader.read() == b""


def test_the_size_of_a_file_does_not_depend_on_the_writes() -> None:
    text = pattern(2 * CHUNK)
    sizes = {len(encrypt(text, *splits)) for splits in ([], [1], [CHUNK], [CHUNK - 1, CHUNK + 1])}
    assert len(sizes) == 1


def test_any_kind_of_buffer_is_written_and_may_be_changed_afterwards() -> None:
    sink = Pieces()
    buffer = bytearray(b"abcd")
    with EncryptWriter(sink, recipients=[RECIPIENT]) as writer:
        assert writer.write(buffer) == 4
        buffer[:] = b"resized afterwards"
        assert writer.write(memoryview(b"x1y2")[::2].tobytes()) == 2
        assert writer.write(memoryview(b"12345678").cast("I")) == 8
        assert writer.write(b"") == 0
    assert decrypt(sink.getvalue()) == b"abcdxy12345678"


def test_reading_into_a_buffer_fills_it_across_batches() -> None:
    text = pattern(BATCH + 10)
    reader = DecryptReader(io.BytesIO(encrypt(text)), identities=[IDENTITY])
    buffer = bytearray(BATCH + 100)
    assert reader.readinto(bytearray()) == 0
    assert reader.readinto(buffer) == BATCH + 10
    assert buffer[: BATCH + 10] == text
    assert reader.readinto(buffer) == 0


def test_a_reader_behaves_like_a_binary_file() -> None:
    text = b"one\ntwo\nthree"
    with DecryptReader(io.BytesIO(encrypt(text)), identities=[IDENTITY]) as reader:
        assert reader.readable()
        assert not reader.writable()
        assert not reader.seekable()
        assert reader.read(0) == b""
        assert reader.read1(2) == b"on"
        assert reader.readline() == b"e\n"
        assert reader.read1() == b"two\nthree"
        assert reader.read1() == b""
        assert reader.read(None) == b""
    assert reader.closed
    with pytest.raises(ValueError, match="closed"):
        reader.read(1)


def test_tarfile_and_gzip_read_from_it() -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:gz") as archive:
        info = tarfile.TarInfo("file")
        info.size = 300_000
        archive.addfile(info, io.BytesIO(pattern(300_000)))
    file = encrypt(tar.getvalue())
    reader = DecryptReader(io.BytesIO(file), identities=[IDENTITY])
    with tarfile.open(fileobj=reader, mode="r|gz") as archive:
        member = archive.next()
        assert member is not None
        extracted = archive.extractfile(member)
        assert extracted is not None
        assert extracted.read() == pattern(300_000)
    reader = DecryptReader(io.BytesIO(file), identities=[IDENTITY])
    with gzip.open(reader) as unzipped:
        assert len(unzipped.read()) > 300_000


def test_the_sink_gets_large_pieces() -> None:
    sink = Pieces()
    with EncryptWriter(sink, recipients=[RECIPIENT]) as writer:
        for _ in range(1000):
            writer.write(bytes(10_000))
    assert len(sink.pieces) == 10
    assert min(len(piece) for piece in sink.pieces[:-1]) > 1_000_000


def test_the_source_is_read_in_large_pieces() -> None:
    asked = []

    class Counting(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            asked.append(size)
            return super().read(size)

    reader = DecryptReader(Counting(encrypt(bytes(10 * BATCH))), identities=[IDENTITY])
    while reader.read(CHUNK):
        pass
    assert len(asked) < 30


# --- finishing, aborting, failing -------------------------------------------------------------


def test_an_aborted_file_is_no_valid_file() -> None:
    for size in (0, 1, CHUNK, BATCH + CHUNK + 1):
        sink = Pieces()
        writer = EncryptWriter(sink, recipients=[RECIPIENT])
        writer.write(bytes(size))
        writer.abort()
        writer.abort()
        with pytest.raises(BakthatError):
            decrypt(sink.getvalue())
        with pytest.raises(ValueError, match="aborted"):
            writer.write(b"more")
        with pytest.raises(ValueError, match="aborted"):
            writer.close()


def test_an_exception_in_the_with_block_aborts() -> None:
    sink = Pieces()

    def interrupted() -> None:
        with EncryptWriter(sink, recipients=[RECIPIENT]) as writer:
            writer.write(bytes(2 * BATCH))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(DecryptionError, match="truncated"):
        decrypt(sink.getvalue())


def test_an_abort_in_the_with_block_stays_an_abort() -> None:
    sink = Pieces()
    with EncryptWriter(sink, recipients=[RECIPIENT]) as writer:
        writer.abort()
    assert sink.pieces == []


def test_a_forgotten_writer_never_finishes_its_file() -> None:
    sink = Pieces()
    EncryptWriter(sink, recipients=[RECIPIENT]).write(bytes(BATCH * 2))
    gc.collect()
    with pytest.raises(DecryptionError, match="truncated"):
        decrypt(sink.getvalue())
    assert not isinstance(EncryptWriter(sink, recipients=[RECIPIENT]), io.IOBase)


def test_closing_twice_and_aborting_afterwards_change_nothing() -> None:
    sink = Pieces()
    writer = EncryptWriter(sink, recipients=[RECIPIENT])
    writer.write(b"text")
    writer.close()
    writer.close()
    writer.abort()
    assert decrypt(sink.getvalue()) == b"text"
    with pytest.raises(ValueError, match="closed"):
        writer.write(b"more")


def test_writer_and_reader_leave_sink_and_source_open() -> None:
    sink = io.BytesIO()
    with EncryptWriter(sink, recipients=[RECIPIENT]):
        pass
    assert not sink.closed
    source = io.BytesIO(sink.getvalue())
    with DecryptReader(source, identities=[IDENTITY]):
        pass
    assert not source.closed


def test_a_sink_that_fails_leaves_a_writer_that_cannot_finish() -> None:
    sink = Broken(working_calls=1)
    writer = EncryptWriter(sink, recipients=[RECIPIENT])
    with pytest.raises(OSError, match="disk is gone"):
        writer.write(bytes(3 * BATCH))
    for call in (lambda: writer.write(b"x"), writer.close):
        with pytest.raises(ValueError, match="failed"):
            call()
    with pytest.raises(DecryptionError):
        decrypt(sink.written)


def test_a_sink_that_fails_at_the_end_does_not_let_close_pass_later() -> None:
    writer = EncryptWriter(Broken(working_calls=0), recipients=[RECIPIENT])
    with pytest.raises(OSError, match="disk is gone"):
        writer.close()
    with pytest.raises(ValueError, match="failed"):
        writer.close()


def test_a_source_that_fails_once_fails_for_good() -> None:
    file = encrypt(bytes(10_000))
    reader = DecryptReader(Broken(file, working_calls=3), identities=[IDENTITY])
    for _ in range(2):
        with pytest.raises(OSError, match="disk is gone"):
            reader.read(1)
    with pytest.raises(OSError, match="disk is gone"):
        DecryptReader(Broken(file, working_calls=0), identities=[IDENTITY])


def test_an_interrupted_reader_returns_nothing_more() -> None:
    class Interrupted(io.BytesIO):
        calls = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.calls += 1
            if self.calls == 3:
                raise KeyboardInterrupt
            return super().read(2000)

    reader = DecryptReader(Interrupted(encrypt(bytes(10_000))), identities=[IDENTITY])
    with pytest.raises(KeyboardInterrupt):
        reader.read()
    with pytest.raises(ValueError, match="closed"):
        reader.read()


def test_a_bad_chunk_is_reported_by_every_kind_of_read() -> None:
    file = bytearray(encrypt(pattern(3 * CHUNK)))
    file[-CHUNK - 100] ^= 1
    reader = DecryptReader(io.BytesIO(file), identities=[IDENTITY])
    assert reader.read(3 * CHUNK) == pattern(CHUNK)
    for call in (reader.read, reader.read1, lambda: reader.readinto(bytearray(5)), reader.readline):
        with pytest.raises(DecryptionError, match="chunk 2"):
            call()


def test_a_chunk_that_does_not_authenticate_leaves_no_text_behind() -> None:
    sealed, plain = memoryview(bytearray(116)), memoryview(bytearray(b"before" * 20))
    Sealer(bytes(16), bytes(16)).seal(memoryview(b"t" * 100), sealed, final=True)
    sealed[-1] ^= 1
    assert not Opener(bytes(16), bytes(16)).open(sealed, plain, final=True)
    assert plain == bytes(100) + (b"before" * 20)[100:]


# --- cost -------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_file() -> None:
    total = 200 << 20

    class Encrypted:
        """A source that encrypts while it is read, and holds only the last write."""

        def __init__(self) -> None:
            self.held = b""
            self.left = total
            self.writer = EncryptWriter(self, recipients=[RECIPIENT])

        def write(self, data: Buffer, /) -> None:
            self.held += bytes(data)

        def read(self, size: int, /) -> bytes:
            while not self.held and self.left:
                self.left -= self.writer.write(block)
            if not self.held:
                self.writer.close()
            taken, self.held = self.held[:size], self.held[size:]
            return taken

    block = bytes(1 << 20)
    reader = DecryptReader(Encrypted(), identities=[IDENTITY])
    tracemalloc.start()
    try:
        read = 0
        while data := reader.read(1 << 20):
            read += len(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read == total
    assert peak < 8 << 20


def run(program: str) -> str:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_loads_no_heavy_library() -> None:
    check = (
        "import sys, bakthat.crypto.age; "
        "print([m for m in ('cryptography', 'boto3', 'isal') if m in sys.modules])"
    )
    assert run(check) == "[]"


def test_scrypt_without_enough_memory_says_how_much_it_needs() -> None:
    # In a process of its own, since the limit on memory cannot be lifted again.
    check = (
        "import io, resource; from bakthat.crypto.age import EncryptWriter\n"
        "from bakthat.errors import CryptoError\n"
        "resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))\n"
        "try: EncryptWriter(io.BytesIO(), passphrase='x', work_factor=20)\n"
        "except CryptoError as exc: print(exc)"
    )
    assert run(check) == "scrypt with work factor 20 needs 1024 MiB of memory"
