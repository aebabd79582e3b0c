"""Read any part of an age file without what comes before it (https://c2sp.org/age#payload).

Each chunk of 64 KiB of the payload is encrypted on its own, under its number, so a part of the file
is decrypted from the chunks that hold it. The chunk that marks the end is always read too: without
it, a file that was cut off between two chunks would look complete.
"""

from __future__ import annotations

from collections.abc import Sequence

from bakthat.crypto._age_keys import Identity
from bakthat.crypto._age_payload import (
    CHUNK_SIZE,
    NONCE_SIZE,
    SEALED_SIZE,
    TAG_SIZE,
    Opener,
    chunk_error,
)
from bakthat.crypto._age_unlock import FileKeys, known_identities, read_start
from bakthat.crypto._lookahead import LookaheadReader
from bakthat.errors import AgeFormatError, DecryptionError
from bakthat.system.streams import RandomSource
from bakthat.system.threads import ThreadPool

_HEAD_BYTES = 4096
"""The first request: the header of some 30 recipients. Longer ones take further requests."""


class AgeRanges:
    """The decrypted bytes of the age file that *stored* holds; a :class:`.RandomSource`.

    *passphrase*, *identities* and *file_keys* are as for :class:`bakthat.crypto.age.DecryptReader`.
    The constructor reads the header and the last chunk, at once. What :meth:`read_at` returns is
    authenticated. *stored* is never closed; the caller closes it.

    Raises what DecryptReader raises, and AgeFormatError for an armored file.
    """

    def __init__(
        self,
        stored: RandomSource,
        *,
        passphrase: str | None = None,
        identities: Sequence[str] = (),
        file_keys: FileKeys | None = None,
    ) -> None:
        known = known_identities(passphrase, identities)
        self._stored = stored
        if stored.size <= _HEAD_BYTES + SEALED_SIZE:
            end = stored.read_at(0, stored.size)
            self._begin(LookaheadReader(_Head(stored, end).read), known, file_keys)
        else:
            # Beside each other: each takes as long as the network, and a scrypt may lie between.
            with ThreadPool(1, thread_name_prefix="bakthat-age") as pool:
                reading = pool.submit(stored.read_at, stored.size - SEALED_SIZE, SEALED_SIZE)
                self._begin(LookaheadReader(_Head(stored).read), known, file_keys)
                end = reading.result()
        self._last = self._open_last(memoryview(end))

    def read_at(self, offset: int, size: int, /) -> bytes:
        """Return *size* bytes of content from *offset* on, which both lie within it.

        Several threads may call it at once. Raises DecryptionError for a chunk that was altered,
        reordered or cut off, ValueError for a part outside, and what the source raises.
        """
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(f"bytes {offset} to {offset + size} are not in {self.size} bytes")
        if not size:
            return b""
        first, last = offset // CHUNK_SIZE, (offset + size - 1) // CHUNK_SIZE
        plain = memoryview(bytearray((last - first + 1) * CHUNK_SIZE))
        stop = min(last + 1, self._last_number)
        if first < stop:
            start = self._payload + first * SEALED_SIZE
            sealed = memoryview(self._stored.read_at(start, (stop - first) * SEALED_SIZE))
            for number in range(first, stop):
                at = number - first
                chunk = sealed[at * SEALED_SIZE : (at + 1) * SEALED_SIZE]
                if not self._opener.open_at(number, chunk, plain[at * CHUNK_SIZE :], final=False):
                    raise chunk_error(number, "altered or reordered")
        if last == self._last_number:
            at = (last - first) * CHUNK_SIZE
            plain[at : at + len(self._last)] = self._last
        at = offset - first * CHUNK_SIZE
        return bytes(plain[at : at + size])

    def _begin(
        self,
        source: LookaheadReader,
        known: Sequence[Identity],
        file_keys: FileKeys | None,
    ) -> None:
        start = source.peek(len(b"-----"))
        if start == b"-----" or start[:1].isspace():
            raise AgeFormatError(
                "the age file is armored, so it cannot be read in parts",
                hint="bakthat writes no armor: another program has changed the file",
            )
        header, file_key, nonce = read_start(source, known, file_keys)
        self._payload = len(header.encoded) + NONCE_SIZE
        self._opener = Opener(file_key, nonce)
        sealed = self._stored.size - self._payload
        self._last_number = max(sealed - 1, 0) // SEALED_SIZE
        self._last_size = sealed - self._last_number * SEALED_SIZE
        if self._last_size < TAG_SIZE:
            raise chunk_error(self._last_number, "truncated")
        if self._last_size == TAG_SIZE and self._last_number:
            raise DecryptionError("the final chunk of the age file is empty")
        self.size = sealed - (self._last_number + 1) * TAG_SIZE

    def _open_last(self, end: memoryview) -> bytes:
        sealed = end[len(end) - self._last_size :]
        plain = memoryview(bytearray(self._last_size - TAG_SIZE))
        if not self._opener.open_at(self._last_number, sealed, plain, final=True):
            raise chunk_error(self._last_number, "altered or truncated")
        return bytes(plain)


class _Head:
    """The file from its beginning, in small pieces; *known* bytes of it are not read again."""

    def __init__(self, stored: RandomSource, known: bytes = b"") -> None:
        self._stored = stored
        self._known = known
        self._at = 0

    def read(self, size: int) -> bytes:
        if self._known:
            piece, self._known = self._known, b""
        else:
            limit = SEALED_SIZE if self._at else _HEAD_BYTES
            size = min(size, limit, self._stored.size - self._at)
            piece = self._stored.read_at(self._at, size) if size > 0 else b""
        self._at += len(piece)
        return piece
