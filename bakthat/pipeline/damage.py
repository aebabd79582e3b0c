"""Find the entries that a damaged archive has lost: each is read alone, by the index."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence

from bakthat.archive.extract.index_check import IndexCheck
from bakthat.archive.extract.unpack import verify
from bakthat.crypto.age import FileKeys
from bakthat.errors import ArchiveError, CryptoError
from bakthat.format.entry import Entry
from bakthat.passwords import DecryptionKeys
from bakthat.pipeline.parts import Index, PartsStream, Spans
from bakthat.pipeline.ranges import TarRanges, plain_ranges, tar_ranges
from bakthat.pipeline.read import Expected
from bakthat.system.streams import RandomSource

_BATCH_BYTES = 16 * 1024 * 1024
_BATCH_ENTRIES = 1024


def damaged_entries(
    stored: RandomSource,
    expected: Expected,
    *,
    index: Index,
    keys: DecryptionKeys,
    file_keys: FileKeys,
) -> Generator[Entry]:
    """Yield the entries of an archive that cannot be restored by *index*, in their order.

    They cannot be decrypted, inflated or read, or differ from the index in their headers or their
    SHA-256. All the others can be: ``restore --only`` gets them out. *stored* holds the object, and
    is not closed. Raises ArchiveError and CryptoError when no part of it can be read, and
    StorageError.
    """
    with tar_ranges(plain_ranges(stored, expected, keys, file_keys), index) as tar:
        for batch in _batches(index.entries()):
            yield from _damaged(tar, batch)


def _batches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    for entry in entries:
        batch.append(entry)
        if len(batch) == _BATCH_ENTRIES or entry.end - batch[0].position >= _BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _damaged(tar: TarRanges, entries: Sequence[Entry]) -> Iterator[Entry]:
    """Yield those of *entries* that cannot be read: those in the halves in which reading fails."""
    different: list[Entry] = []
    try:
        spans = Spans(entries, tar.size)
        with IndexCheck(entries, parts=True, on_difference=different.append) as check:
            verify(PartsStream(tar.pieces(spans), lambda _: None), check=check)
    except (ArchiveError, CryptoError):
        if len(entries) == 1:
            yield entries[0]
            return
        middle = len(entries) // 2
        yield from _damaged(tar, entries[:middle])
        yield from _damaged(tar, entries[middle:])
    else:
        yield from different
