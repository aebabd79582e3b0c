"""Find the entries that a damaged archive has lost: each is read alone, by the index."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing

from bakthat.archive.extract.index_check import IndexCheck
from bakthat.archive.extract.unpack import verify
from bakthat.crypto.age import FileKeys
from bakthat.errors import ArchiveError, CryptoError
from bakthat.format.entry import Entry, EntryType
from bakthat.passwords import DecryptionKeys
from bakthat.pipeline.parts import Index, PartsStream, Spans
from bakthat.pipeline.ranges import TarRanges, plain_ranges, tar_ranges
from bakthat.pipeline.read import Expected
from bakthat.system.streams import ByteCounter, RandomSource

_BATCH_BYTES = 16 * 1024 * 1024
_BATCH_ENTRIES = 1024


def damaged_entries(
    stored: RandomSource,
    expected: Expected,
    *,
    index: Index,
    keys: DecryptionKeys,
    file_keys: FileKeys,
    on_bytes: ByteCounter,
    cancel: Callable[[], object] | None = None,
) -> Generator[Entry]:
    """Yield the entries of an archive that cannot be restored by *index*, in their order.

    They cannot be decrypted, inflated or read, or differ from the index in their headers or their
    SHA-256; or they are hard links to such a file. All the others can be: ``restore --only`` gets
    them out. *stored* holds the object, and is not closed; *cancel* lets its calls that are under
    way fail. *on_bytes* is called with the bytes of the tar that were read. Raises ArchiveError and
    CryptoError when no part of it can be read alone, and StorageError.
    """
    plain = plain_ranges(stored, expected, keys, file_keys)
    lost: set[str] = set()
    with tar_ranges(plain, index, cancel=cancel) as tar:
        for batch in _batches(index.entries()):
            damaged = {each.path for each in _damaged(tar, batch, on_bytes)}
            for entry in batch:
                is_link = entry.type is EntryType.HARDLINK and entry.target in lost
                if entry.path in damaged or is_link:
                    lost.add(entry.path)
                    yield entry


def _batches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    for entry in entries:
        batch.append(entry)
        if len(batch) == _BATCH_ENTRIES or entry.end - batch[0].position >= _BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _damaged(tar: TarRanges, entries: Sequence[Entry], on_bytes: ByteCounter) -> list[Entry]:
    """Return those of *entries* that cannot be read: those in the halves in which reading fails."""
    different = _different(tar, entries, on_bytes)
    if different is not None:
        return different
    if len(entries) == 1:
        return [entries[0]]
    middle = len(entries) // 2
    return [
        *_damaged(tar, entries[:middle], on_bytes),
        *_damaged(tar, entries[middle:], on_bytes),
    ]


def _different(
    tar: TarRanges, entries: Sequence[Entry], on_bytes: ByteCounter
) -> list[Entry] | None:
    """Return those of *entries* whose content has another SHA-256; None if reading fails."""
    different: list[Entry] = []
    with closing(tar.pieces(Spans(entries, tar.size))) as pieces:
        try:
            with IndexCheck(entries, parts=True, on_difference=different.append) as check:
                verify(PartsStream(pieces, on_bytes), check=check)
        except (ArchiveError, CryptoError):
            return None
    return different
