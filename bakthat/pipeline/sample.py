"""Read a share of an archive, another part each time, and check what is in it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from bakthat.archive.extract.index_check import IndexCheck
from bakthat.archive.extract.unpack import verify
from bakthat.crypto.age import FileKeys
from bakthat.format.entry import Entry
from bakthat.passwords import DecryptionKeys
from bakthat.pipeline.parts import Index, PartsStream, Spans
from bakthat.pipeline.ranges import TarRanges, plain_ranges, tar_ranges
from bakthat.pipeline.read import Expected
from bakthat.system.streams import ByteCounter, RandomSource

_PLAIN_STEP = 1024 * 1024
"""Where parts of an archive that is not compressed begin and end; others do at gzip members."""


def verify_share(
    stored: RandomSource,
    expected: Expected,
    *,
    index: Index,
    share: float,
    keys: DecryptionKeys,
    file_keys: FileKeys,
    on_bytes: ByteCounter,
    on_difference: Callable[[Entry], None],
) -> None:
    """Read *share* of an archive from a random place on, and write nothing.

    At its end it goes on at the beginning. Everything that is read is authenticated or has its
    checksum compared; of each file that lies whole in it, the SHA-256 too. *on_difference* is
    called with the entry of a file that has another one, *on_bytes* with the bytes of the tar that
    were read. *stored* holds the object, and is not closed. Raises the errors of
    :func:`bakthat.pipeline.read.verify_object`.
    """
    with ExitStack() as stages:
        tar = stages.enter_context(
            tar_ranges(plain_ranges(stored, expected, keys, file_keys), index)
        )
        members = index.members()
        step = members.member_bytes if members is not None else _PLAIN_STEP
        for start, end in _windows(tar.size, share, step):
            if expected.is_archive:
                _verify_window(tar, index, start, end, on_bytes, on_difference)
            else:
                _read(tar, start, end, on_bytes)


def _windows(size: int, share: float, step: int) -> Iterator[tuple[int, int]]:
    """Yield where to read, in bytes: from a random multiple of *step* on."""
    count = -(-size // step)
    wanted = min(max(round(count * share), 1), count)
    first = random.randrange(count) if count else 0
    for start, end in ((first, first + wanted), (0, first + wanted - count)):
        if min(end, count) > start:
            yield start * step, min(min(end, count) * step, size)


def _verify_window(
    tar: TarRanges,
    index: Index,
    start: int,
    end: int,
    on_bytes: ByteCounter,
    on_difference: Callable[[Entry], None],
) -> None:
    def entries() -> Iterator[Entry]:
        return (each for each in index.entries() if start <= each.position and each.end <= end)

    spans = Spans(entries(), tar.size)
    first, last = spans.bounds or (end, end)
    _read(tar, start, first, on_bytes)
    with IndexCheck(entries(), parts=True, on_difference=on_difference) as check:
        verify(PartsStream(tar.pieces(spans), on_bytes), check=check)
    _read(tar, last, end, on_bytes)


def _read(tar: TarRanges, start: int, end: int, on_bytes: ByteCounter) -> None:
    for piece in tar.pieces([(start, end)] if end > start else []):
        on_bytes(len(piece))
