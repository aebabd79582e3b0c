"""The payload of an age file: chunks of 64 KiB, each authenticated (https://c2sp.org/age#payload)."""

from __future__ import annotations

from bakthat.crypto._age_header import derive_key
from bakthat.errors import DecryptionError

NONCE_SIZE = 16
CHUNK_SIZE = 64 * 1024
TAG_SIZE = 16
SEALED_SIZE = CHUNK_SIZE + TAG_SIZE
"""A chunk with its tag."""


class Sealer:
    """Encrypt the chunks of a payload in order."""

    def __init__(self, file_key: bytes, nonce: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        self._cipher = ChaCha20Poly1305(_payload_key(file_key, nonce))
        self._counter = 0

    def seal(self, chunk: memoryview, target: memoryview, *, final: bool) -> int:
        """Encrypt *chunk* to the beginning of *target*; return the bytes written, tag included."""
        size = len(chunk) + TAG_SIZE
        self._cipher.encrypt_into(_nonce(self._counter, final), chunk, None, target[:size])
        self._counter += 1
        return size


class Opener:
    """Decrypt the chunks of a payload."""

    def __init__(self, file_key: bytes, nonce: bytes) -> None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        self._cipher = ChaCha20Poly1305(_payload_key(file_key, nonce))
        self._invalid_tag = InvalidTag
        self.counter = 0

    def open(self, sealed: memoryview, target: memoryview, *, final: bool) -> bool:
        """Decrypt *sealed*, at least a tag long, to the beginning of *target*.

        Returns False when authentication fails; *target* is then zeroed, and the same chunk may be
        tried again.
        """
        authentic = self.open_at(self.counter, sealed, target, final=final)
        self.counter += authentic
        return authentic

    def open_at(self, number: int, sealed: memoryview, target: memoryview, *, final: bool) -> bool:
        """Decrypt chunk *number*, counted from 0, as :meth:`open` does the next one.

        Several threads may call it at once.
        """
        size = len(sealed) - TAG_SIZE
        try:
            self._cipher.decrypt_into(_nonce(number, final), sealed, None, target[:size])
        except self._invalid_tag:
            # The cipher decrypts before it compares tags; what it wrote must never be read.
            target[:size] = bytes(size)
            return False
        return True


def chunk_error(number: int, how: str) -> DecryptionError:
    """Return the error for chunk *number*, counted from 0, which is *how*, such as "truncated"."""
    return DecryptionError(
        f"the age file is {how} at chunk {number + 1}, "
        f"after {number * CHUNK_SIZE} bytes of content",
        hint="fetch the file again, or use another copy",
    )


def _payload_key(file_key: bytes, nonce: bytes) -> bytes:
    return derive_key(file_key, salt=nonce, info=b"payload")


def _nonce(counter: int, final: bool) -> bytes:
    return (counter << 8 | final).to_bytes(12, "big")
