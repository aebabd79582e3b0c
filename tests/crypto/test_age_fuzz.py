"""Damaged age files: no altered plaintext is returned, and only bakthat's errors are raised."""

from __future__ import annotations

import base64
import io

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bakthat.crypto import _bech32, age
from bakthat.crypto.age import DecryptReader, EncryptWriter
from bakthat.errors import BakthatError, DecryptionError, KeyFormatError

IDENTITY = age.generate_identity()
CHUNK = 65536
SEALED = CHUNK + 16


def encrypt(text: bytes) -> bytes:
    sink = io.BytesIO()
    with EncryptWriter(sink, recipients=[age.recipient_of(IDENTITY)]) as writer:
        writer.write(text)
    return sink.getvalue()


def numbered(chunks: int, tail: bytes = b"") -> bytes:
    return b"".join(bytes([number]) * CHUNK for number in range(chunks)) + tail


SHORT = b"the only copy"
SHORT_FILE = encrypt(SHORT)
LONG = numbered(4, b"the end")
LONG_FILE = encrypt(LONG)
HEAD_SIZE = SHORT_FILE.index(b"\n---") + 49 + 16
ARMORED = (
    b"-----BEGIN AGE ENCRYPTED FILE-----\n"
    + base64.encodebytes(SHORT_FILE).replace(b"\n", b"")
    + b"\n-----END AGE ENCRYPTED FILE-----\n"
)


def outcome(file: bytes, passphrase: str | None = None) -> tuple[bytes, bool]:
    """Return the plaintext, and whether the file was accepted to its end."""
    got = b""
    message = ""
    try:
        reader = DecryptReader(io.BytesIO(file), identities=[IDENTITY], passphrase=passphrase)
        while data := reader.read(5000):
            got += data
    except BakthatError as exc:
        message = str(exc)
    assert IDENTITY not in message
    return got, not message


def assert_refused(file: bytes, text: bytes) -> None:
    got, accepted = outcome(file)
    assert not accepted
    assert text.startswith(got)


def test_every_flipped_byte_is_noticed() -> None:
    for at in range(len(SHORT_FILE)):
        for bit in (0, 3, 7):
            altered = bytearray(SHORT_FILE)
            altered[at] ^= 1 << bit
            assert_refused(bytes(altered), SHORT)


def test_every_byte_removed_or_repeated_is_noticed() -> None:
    for at in range(len(SHORT_FILE)):
        assert_refused(SHORT_FILE[:at] + SHORT_FILE[at + 1 :], SHORT)
        assert_refused(SHORT_FILE[:at] + SHORT_FILE[at : at + 1] + SHORT_FILE[at:], SHORT)
        assert_refused(SHORT_FILE[:at], SHORT)
    assert_refused(SHORT_FILE + b"\n", SHORT)


@settings(max_examples=150, deadline=None)
@given(order=st.lists(st.integers(0, 4), max_size=7))
@example(order=[0, 1, 2, 3])
@example(order=[0, 1, 2, 4])
@example(order=[0, 1, 2, 3, 4, 4])
@example(order=[0, 1, 2, 3, 4, 0])
def test_chunks_removed_repeated_or_swapped_are_noticed(order: list[int]) -> None:
    head = LONG_FILE[:HEAD_SIZE]
    chunks = [LONG_FILE[at : at + SEALED] for at in range(HEAD_SIZE, len(LONG_FILE), SEALED)]
    file = head + b"".join(chunks[number] for number in order)
    if order == [0, 1, 2, 3, 4]:
        assert outcome(file) == (LONG, True)
    else:
        assert_refused(file, LONG)


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, len(LONG_FILE) - 1), flip=st.integers(1, 255))
def test_a_flipped_byte_releases_only_the_chunks_before_it(at: int, flip: int) -> None:
    altered = bytearray(LONG_FILE)
    altered[at] ^= flip
    got, accepted = outcome(bytes(altered))
    assert not accepted
    assert got == LONG[: max(0, at - HEAD_SIZE) // SEALED * CHUNK]


@settings(max_examples=100, deadline=None)
@given(size=st.integers(0, len(LONG_FILE) - 1))
@example(size=HEAD_SIZE + SEALED)
@example(size=HEAD_SIZE + 4 * SEALED)
def test_a_cut_file_is_never_complete(size: int) -> None:
    assert_refused(LONG_FILE[:size], LONG)


HEADER_ALPHABET = st.sampled_from(
    [bytes([byte]) for byte in range(256)] + [b"\n", b" ", b"-> "] * 9
)


@settings(max_examples=400, deadline=None)
@given(
    start=st.integers(0, HEAD_SIZE),
    size=st.integers(0, 80),
    inserted=st.lists(HEADER_ALPHABET, max_size=12).map(b"".join),
)
def test_a_header_that_is_spliced_raises_documented_errors_only(
    start: int, size: int, inserted: bytes
) -> None:
    file = SHORT_FILE[:start] + inserted + SHORT_FILE[start + size :]
    got, accepted = outcome(file, passphrase="x")
    assert accepted == (file == SHORT_FILE)
    assert got in (b"", SHORT)


STANZA_LINES = st.sampled_from(
    [b"-> X25519 ", b"-> scrypt ", b"-> x\n", b"AAAA", b"A" * 43, b"A" * 64, b"\n", b" 1", b"--- "]
)


@settings(max_examples=400, deadline=None)
@given(parts=st.lists(st.one_of(STANZA_LINES, st.binary(max_size=3)), max_size=14))
def test_any_text_after_the_version_line_raises_documented_errors_only(parts: list[bytes]) -> None:
    got, accepted = outcome(b"age-encryption.org/v1\n" + b"".join(parts), passphrase="x")
    assert not accepted
    assert got == b""


@settings(max_examples=400, deadline=None)
@given(
    start=st.integers(0, len(ARMORED)),
    size=st.integers(0, 70),
    inserted=st.one_of(st.binary(max_size=6), st.text("A=\n\r -", max_size=6).map(str.encode)),
)
def test_armor_that_is_spliced_raises_documented_errors_only(
    start: int, size: int, inserted: bytes
) -> None:
    got, accepted = outcome(ARMORED[:start] + inserted + ARMORED[start + size :], passphrase="x")
    assert got == SHORT or (got == b"" and not accepted)


@settings(max_examples=300, deadline=None)
@given(file=st.binary(max_size=200))
def test_any_bytes_raise_documented_errors_only(file: bytes) -> None:
    assert outcome(file, passphrase="x") == (b"", False)


@settings(max_examples=500, deadline=None)
@given(text=st.one_of(st.text(max_size=80), st.text("age1AGE-SECRETKY-1qpzry9x8", max_size=80)))
def test_any_text_as_a_key_raises_documented_errors_only(text: str) -> None:
    for parse in (age.parse_recipient, age.parse_identity, age.parse_identities):
        with pytest.raises(KeyFormatError):
            parse(text)


@settings(max_examples=50, deadline=None)
@given(data=st.binary(min_size=32, max_size=32))
def test_any_32_bytes_are_an_identity(data: bytes) -> None:
    identity = _bech32.encode("age-secret-key-", data).upper()
    assert _bech32.decode(identity) == ("AGE-SECRET-KEY-", data)
    assert age.parse_recipient(age.recipient_of(identity)).startswith("age1")


def test_an_error_is_raised_again_and_no_data_follows_it() -> None:
    altered = bytearray(LONG_FILE)
    altered[HEAD_SIZE + SEALED] ^= 1
    reader = DecryptReader(io.BytesIO(altered), identities=[IDENTITY])
    assert reader.read(len(LONG)) == LONG[:CHUNK]
    for size in (1, 100, -1):
        with pytest.raises(DecryptionError, match="chunk 2"):
            reader.read(size)
