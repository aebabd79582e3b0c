"""Parts of age files: any part of any size, what is read for it, and every way to damage one."""

from __future__ import annotations

import io
import random
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bakthat.crypto import _age_keys
from bakthat.crypto.age import DecryptReader, EncryptWriter, FileKeys
from bakthat.crypto.age_ranges import AgeRanges
from bakthat.errors import AgeFormatError, BakthatError, DecryptionError, WrongKeyError
from tests.crypto.test_age import IDENTITY, RECIPIENT, Pieces
from tests.support.ranges import Bytes

CHUNK = 64 * 1024
SEALED = CHUNK + 16
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK, 3 * CHUNK + 7]


def encrypted(content: bytes, **keys: Any) -> bytes:
    """Return *content* as an age file for RECIPIENT, or with *keys*."""
    sink = Pieces()
    with EncryptWriter(sink, **(keys or {"recipients": [RECIPIENT]})) as writer:
        writer.write(content)
    return sink.getvalue()


@pytest.fixture(scope="module")
def content() -> bytes:
    return random.Random(5).randbytes(3 * CHUNK + 7)


def opened(stored: bytes) -> AgeRanges:
    return AgeRanges(Bytes(stored), identities=[IDENTITY])


@pytest.mark.parametrize("size", SIZES)
def test_each_part_of_a_file_is_what_was_encrypted(content: bytes, size: int) -> None:
    ranges = opened(encrypted(content[:size]))
    assert ranges.size == size
    edges = sorted({min(max(n * CHUNK + near, 0), size) for n in range(4) for near in (-1, 0, 1)})
    for start in edges:
        for end in edges:
            if start <= end:
                assert ranges.read_at(start, end - start) == content[start:end]


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_part_equals_that_of_the_whole(content: bytes, data: st.DataObject) -> None:
    size = data.draw(st.integers(0, len(content)))
    ranges = opened(encrypted(content[:size]))
    for _ in range(5):
        start = data.draw(st.integers(0, size))
        count = data.draw(st.integers(0, size - start))
        assert ranges.read_at(start, count) == content[start : start + count]


def test_a_part_outside_of_the_file_is_refused(content: bytes) -> None:
    ranges = opened(encrypted(content))
    for offset, size in ((-1, 1), (0, len(content) + 1), (len(content), 1), (0, -1)):
        with pytest.raises(ValueError, match="are not in"):
            ranges.read_at(offset, size)


def test_a_part_costs_the_header_the_last_chunk_and_its_own_chunks(content: bytes) -> None:
    stored = Bytes(encrypted(content * 20))
    ranges = AgeRanges(stored, identities=[IDENTITY])
    assert sorted(stored.sizes) == [4096, SEALED]
    stored.sizes.clear()
    assert ranges.read_at(10 * CHUNK + 5, 100) == (content * 20)[10 * CHUNK + 5 :][:100]
    assert stored.sizes == [SEALED]
    stored.sizes.clear()
    ranges.read_at(11 * CHUNK - 1, 2)
    assert stored.sizes == [2 * SEALED]
    stored.sizes.clear()
    assert ranges.read_at(ranges.size - 1, 1) == content[-1:]
    assert stored.sizes == []  # the last chunk is known


def test_a_small_file_is_read_at_once(content: bytes) -> None:
    stored = Bytes(encrypted(content[:1000]))
    assert AgeRanges(stored, identities=[IDENTITY]).read_at(0, 1000) == content[:1000]
    assert stored.sizes == [stored.size]


def test_a_header_of_many_recipients_is_read_in_several_pieces(content: bytes) -> None:
    stored = encrypted(content, recipients=[RECIPIENT] * 300)
    assert opened(stored).read_at(CHUNK, 10) == content[CHUNK : CHUNK + 10]


def test_several_threads_read_at_once(content: bytes) -> None:
    ranges = opened(encrypted(content))
    places = [random.Random(n).randrange(len(content) - 100) for n in range(200)]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda place: ranges.read_at(place, 100), places)
    assert list(found) == [content[place : place + 100] for place in places]


def test_a_passphrase_opens_it(content: bytes) -> None:
    stored = encrypted(content, passphrase="secret", work_factor=2)
    assert AgeRanges(Bytes(stored), passphrase="secret").read_at(5, 9) == content[5:14]
    with pytest.raises(WrongKeyError):
        AgeRanges(Bytes(stored), passphrase="wrong")


def damaged(whole: bytes, payload: int) -> dict[str, bytes]:
    """Return files without a valid end, by what is wrong with each."""
    chunks = [whole[at : at + SEALED] for at in range(payload, len(whole), SEALED)]
    start = whole[:payload]
    return {
        "no chunk": start,
        "half a tag": start + chunks[0][:8],
        "without the last chunk": start + b"".join(chunks[:-1]),
        "without a byte": whole[:-1],
        "one byte more": whole + b"\0",
        "a chunk more": whole + chunks[0],
        "an altered last byte": whole[:-1] + bytes([whole[-1] ^ 1]),
        "without a middle chunk": start + b"".join([chunks[0], *chunks[2:]]),
        "an empty last chunk": start + b"".join(chunks[:-1]) + bytes(16),
    }


def test_a_file_without_its_end_is_refused_before_a_part_is_read(content: bytes) -> None:
    whole = encrypted(content)
    payload = len(whole) - len(content) - 4 * 16
    for stored in damaged(whole, payload).values():
        with pytest.raises(DecryptionError):
            opened(stored)
        with pytest.raises(BakthatError):
            DecryptReader(io.BytesIO(stored), identities=[IDENTITY]).read()


def test_a_chunk_in_the_place_of_another_is_refused(content: bytes) -> None:
    whole = encrypted(content)
    payload = len(whole) - len(content) - 4 * 16
    first, second = (whole[payload + n * SEALED : payload + (n + 1) * SEALED] for n in (0, 1))
    swapped = whole[:payload] + second + first + whole[payload + 2 * SEALED :]
    ranges = opened(swapped)
    with pytest.raises(DecryptionError, match="altered or reordered at chunk 1"):
        ranges.read_at(0, 1)
    with pytest.raises(DecryptionError, match="altered or reordered at chunk 2"):
        ranges.read_at(CHUNK, 1)
    assert ranges.read_at(2 * CHUNK, 10) == content[2 * CHUNK : 2 * CHUNK + 10]


def test_each_altered_chunk_is_refused_and_the_others_are_read(content: bytes) -> None:
    whole = encrypted(content)
    payload = len(whole) - len(content) - 4 * 16
    altered = bytearray(whole)
    altered[payload + SEALED + 100] ^= 1
    ranges = opened(bytes(altered))
    assert ranges.read_at(0, CHUNK) == content[:CHUNK]
    with pytest.raises(DecryptionError, match="chunk 2, after 65536 bytes"):
        ranges.read_at(CHUNK - 1, 2)


def test_armor_and_what_is_no_age_file_are_refused(content: bytes) -> None:
    for stored, message in (
        (b"-----BEGIN AGE ENCRYPTED FILE-----\n", "armored"),
        (b"\n-----BEGIN AGE ENCRYPTED FILE-----\n", "armored"),
        (b"", "not an age file"),
        (b"x" * 200_000, "not an age file"),
        (encrypted(content)[:100], "header"),
    ):
        with pytest.raises(AgeFormatError, match=message):
            opened(stored)


def test_the_error_of_the_source_is_raised(content: bytes) -> None:
    whole = encrypted(content)
    for failing in range(3):
        stored = Bytes(whole, fail_after=failing)
        with pytest.raises(OSError, match="broken"):
            AgeRanges(stored, identities=[IDENTITY]).read_at(0, 1)


def test_files_with_one_header_cost_one_scrypt(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    derived = []
    original = _age_keys.ScryptPassphrase._wrap_key

    def wrap_key(self: _age_keys.ScryptPassphrase, salt: bytes, work_factor: int) -> bytes:
        derived.append(salt)
        return original(self, salt, work_factor)

    stored = encrypted(content, passphrase="secret", work_factor=2)
    other = encrypted(content, passphrase="secret", work_factor=2)
    monkeypatch.setattr(_age_keys.ScryptPassphrase, "_wrap_key", wrap_key)
    keys = FileKeys()
    for each in (stored, stored):
        assert AgeRanges(Bytes(each), passphrase="secret", file_keys=keys).read_at(0, 9)
        reader = DecryptReader(io.BytesIO(each), passphrase="secret", file_keys=keys)
        assert reader.read() == content
    assert len(derived) == 1
    AgeRanges(Bytes(other), passphrase="secret", file_keys=keys)
    assert len(derived) == 2
    assert keys.last is not None
    assert other.startswith(keys.last[0])
    AgeRanges(Bytes(stored), passphrase="secret", file_keys=keys)
    assert stored.startswith(keys.last[0])
    assert "secret" not in repr(keys)


def test_an_altered_header_is_never_taken_for_a_known_one(content: bytes) -> None:
    stored = encrypted(content)
    keys = FileKeys()
    AgeRanges(Bytes(stored), identities=[IDENTITY], file_keys=keys)
    at = stored.index(b"--- ") + 5
    altered = stored[:at] + (b"A" if stored[at : at + 1] != b"A" else b"B") + stored[at + 1 :]
    with pytest.raises(DecryptionError, match="header"):
        AgeRanges(Bytes(altered), identities=[IDENTITY], file_keys=keys)


def test_the_pieces_of_a_file_are_read_in_any_order(content: bytes) -> None:
    ranges = opened(encrypted(content))
    cuts = [0, 1, 100, CHUNK, CHUNK + 1, 2 * CHUNK - 1, len(content)]
    parts = list(pairwise(cuts))
    random.Random(1).shuffle(parts)
    for start, end in parts:
        assert ranges.read_at(start, end - start) == content[start:end]
