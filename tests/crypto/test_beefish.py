"""Reading files that beefish 0.1 encrypted."""

from __future__ import annotations

import io
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bakthat.crypto.beefish import BeefishReader
from bakthat.errors import DecryptionError, PasswordError, WrongKeyError
from bakthat.pipeline.legacy import RecognisedSource, begins_gzip, begins_tar
from tests.support.legacy import PASSWORD, beefish, tarball

# Bruce Schneier's vectors for keys of every length, of the same plaintext:
# https://www.schneier.com/wp-content/uploads/2015/12/vectors-2.txt
KEY = bytes.fromhex("F0E1D2C3B4A5968778695A4B3C2D1E0F0011223344556677")
PLAIN = bytes.fromhex("FEDCBA9876543210")
CIPHERS = {
    1: "F9AD597C49DB005E",
    2: "E91D21C1D961A6D6",
    3: "E9C2B70A1BC65CF3",
    4: "BE1E639408640F05",
    5: "B39E44481BDB1E6E",
    8: "E87A244E2CC85E82",
}


class Pieces:
    """A source that returns a few bytes at once."""

    def __init__(self, data: bytes, size: int) -> None:
        self._stream = io.BytesIO(data)
        self._size = size

    def read(self, size: int, /) -> bytes:
        return self._stream.read(min(size, self._size))


@pytest.mark.parametrize("size", CIPHERS)
def test_a_key_of_any_length_opens_what_it_encrypted(size: int) -> None:
    # An initialisation vector that makes the last byte 0x11: one byte of padding.
    sealed = bytes([0] * 7 + [1]) + bytes.fromhex(CIPHERS[size])
    password = KEY[:size].decode("utf-8", "surrogateescape")
    assert BeefishReader(io.BytesIO(sealed), password=password).read() == PLAIN[:7]


@given(
    plain=st.binary(max_size=100),
    password=st.text(min_size=1, max_size=14).filter(lambda text: 4 <= len(text.encode()) <= 56),
    piece=st.integers(1, 30),
    asked=st.integers(1, 30),
)
def test_a_file_is_decrypted_in_pieces_of_any_size(
    plain: bytes, password: str, piece: int, asked: int
) -> None:
    reader = BeefishReader(Pieces(beefish(plain, password), piece), password=password)
    taken = []
    while part := reader.read(asked):
        assert len(part) <= asked
        taken.append(part)
    assert b"".join(taken) == plain
    assert reader.read(asked) == b""


@given(padding=st.integers(0, 255))
def test_the_last_byte_is_the_length_of_the_padding_modulo_8(padding: int) -> None:
    from cryptography.hazmat.decrepit.ciphers.algorithms import Blowfish
    from cryptography.hazmat.primitives.ciphers import Cipher, modes

    plain = b"abcdefghijklmno" + bytes([padding])
    encryptor = Cipher(Blowfish(b"mypassword"), modes.CBC(bytes(8))).encryptor()
    sealed = bytes(8) + encryptor.update(plain)
    opened = BeefishReader(io.BytesIO(sealed), password="mypassword").read()
    assert opened == plain[: 16 - (padding % 8 or 8)]


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 15, 17, 23])
def test_a_truncated_file_is_refused_at_every_read(size: int) -> None:
    reader = BeefishReader(io.BytesIO(beefish(b"x" * 40)[:size]), password=PASSWORD)
    for _ in range(2):
        with pytest.raises(DecryptionError, match="truncated"):
            reader.read()


def test_an_error_of_the_source_passes_unchanged() -> None:
    class Broken:
        def read(self, _size: int, /) -> bytes:
            raise OSError("the cable")

    with pytest.raises(OSError, match="the cable"):
        BeefishReader(Broken(), password=PASSWORD).read(1)


def test_passwords_that_0_6_0_could_not_use_are_refused() -> None:
    with pytest.raises(PasswordError, match="empty"):
        BeefishReader(io.BytesIO(), password="")
    BeefishReader(io.BytesIO(), password="é" * 28)
    with pytest.raises(WrongKeyError, match="57 bytes"):
        BeefishReader(io.BytesIO(), password="é" * 28 + "x")
    with pytest.raises(WrongKeyError, match="not UTF-8 text"):
        BeefishReader(io.BytesIO(), password="\ud800")


def test_memory_does_not_grow_with_the_file() -> None:
    class Endless:
        left = 64 * 1024 * 1024

        def read(self, size: int, /) -> bytes:
            taken = min(size, self.left)
            self.left -= taken
            return bytes(taken)

    reader = BeefishReader(Endless(), password=PASSWORD)
    reader.read(1)
    tracemalloc.start()
    try:
        size = 1 + sum(map(len, iter(lambda: reader.read(1 << 20), b"")))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 64 * 1024 * 1024 - 16 <= size < 64 * 1024 * 1024
    assert peak < 2 * 1024 * 1024


def test_no_wrong_password_of_a_thousand_gives_a_gzip_header() -> None:
    sealed = beefish(tarball("mydir", {"a": b"content"}))
    right = RecognisedSource(BeefishReader(io.BytesIO(sealed), password=PASSWORD), 10, begins_gzip)
    assert right.read(2) == b"\x1f\x8b"
    for number in range(1000):
        wrong = BeefishReader(io.BytesIO(sealed), password=f"wrong{number}")
        with pytest.raises(WrongKeyError):
            RecognisedSource(wrong, 10, begins_gzip).read(1)


@given(data=st.binary(max_size=40), piece=st.integers(1, 9), asked=st.integers(1, 9))
def test_a_recognised_source_returns_all_its_bytes(data: bytes, piece: int, asked: int) -> None:
    source = RecognisedSource(Pieces(data, piece), 10, lambda first: first == data[:10])
    assert b"".join(iter(lambda: source.read(asked), b"")) == data


def test_only_a_header_or_zeros_can_begin_a_tar_archive() -> None:
    import gzip

    block = gzip.decompress(tarball("mydir", {}))[:512]
    assert begins_tar(block)
    assert begins_tar(bytes(512))
    assert not begins_tar(block[:511])
    assert not begins_tar(block[:100] + b"\xff" + block[101:])
    assert not begins_tar(b"noise" * 100 + bytes(12))


def test_only_gzips_own_flags_can_begin_a_gzip_file() -> None:
    assert begins_gzip(b"\x1f\x8b\x08\x08" + bytes(6))
    assert not begins_gzip(b"\x1f\x8b\x08\x88" + bytes(6))
    assert not begins_gzip(b"\x1f\x8b\x07\x00" + bytes(6))
    assert not begins_gzip(b"\x1f\x8b\x08")
