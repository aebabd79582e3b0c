"""The SHA-256 of a file's content, from the pieces that are not holes."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bakthat.archive import content_hash
from bakthat.archive.content_hash import MAX_HOLE_BYTES, ContentHash


@given(st.lists(st.tuples(st.integers(0, 3000), st.binary(max_size=2000))), st.integers(0, 3000))
def test_the_hash_is_that_of_the_content_with_its_holes_as_zeros(
    pieces: list[tuple[int, bytes]], tail: int
) -> None:
    made, content = ContentHash(), b""
    for hole, piece in pieces:
        content += bytes(hole)
        made.update_at(len(content), memoryview(piece))
        content += piece
    content += bytes(tail)
    assert made.digest(len(content)) == hashlib.sha256(content).digest()


def test_an_empty_file_has_the_hash_of_nothing() -> None:
    assert ContentHash().digest(0) == hashlib.sha256().digest()


def test_holes_are_hashed_piece_by_piece() -> None:
    size = 3 * 1024 * 1024 + 5
    assert ContentHash().digest(size) == hashlib.sha256(bytes(size)).digest()


def test_a_file_with_more_holes_than_the_limit_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_hash, "MAX_HOLE_BYTES", 5000)
    made = ContentHash()
    made.update_at(5000, b"data")
    assert made.digest(5004) == hashlib.sha256(bytes(5000) + b"data").digest()
    made = ContentHash()
    made.update_at(3000, b"data")
    assert made.digest(3004 + 2001) == b""


def test_holes_beyond_the_limit_cost_no_time() -> None:
    made = ContentHash()
    made.update_at(2**60, b"data")
    assert made.digest(2**61) == b""
    assert MAX_HOLE_BYTES == 2**30


def test_pieces_do_not_overlap() -> None:
    made = ContentHash()
    made.update_at(0, b"data")
    with pytest.raises(ValueError, match="before the last one ends"):
        made.update_at(3, b"more")
