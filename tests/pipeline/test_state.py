"""Restoring a state from several archives, some read front to back and some in parts."""

from __future__ import annotations

import random

import pytest

from bakthat.errors import CorruptArchiveError
from bakthat.pipeline.parts import Spans
from bakthat.pipeline.state import wanted_pieces
from tests.support.tar_bytes import Pieces


@pytest.mark.parametrize("seed", range(20))
def test_what_is_wanted_of_a_stream_is_cut_out(seed: int) -> None:
    noise = random.Random(seed)
    data = noise.randbytes(noise.randrange(1, 5000))
    bounds = sorted(
        noise.sample(range(len(data) + 1), 2 * noise.randrange(min(20, len(data)) // 2))
    )
    spans = Spans((), len(data))
    for start, end in zip(bounds[::2], bounds[1::2], strict=True):
        spans.add(start, end)
    source = Pieces(data, noise.choice([1, 7, 100, 10_000]))
    found = b"".join(wanted_pieces(source, spans, len(data)))
    assert found == b"".join(data[start:end] for start, end in spans)
    assert source.drained


@pytest.mark.parametrize("size", [9, 11])
def test_a_stream_of_another_size_is_an_error(size: int) -> None:
    with pytest.raises(CorruptArchiveError, match=f"it has 10 bytes of tar, and {size} in its"):
        list(wanted_pieces(Pieces(bytes(10)), Spans((), size), size))
