"""Decrypt files that bakthat 0.6.0 encrypted with beefish 0.1; this version only reads them.

The format, as beefish 0.1 (https://github.com/coleifer/beefish) wrote it with PyCrypto 2.6: 8 bytes
of initialisation vector, then Blowfish in CBC mode with the password's UTF-8 bytes as key. The
last byte of the plaintext is the length of the padding: its remainder modulo 8, or 8 bytes when
that is 0. Nothing is authenticated: a wrong password, or an altered file, gives other bytes without
an error. The caller has to recognise the plaintext.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bakthat.errors import CryptoError, DecryptionError, PasswordError, WrongKeyError
from bakthat.system.streams import Source

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import CipherContext

BLOCK_BYTES = 8
MAX_KEY_BYTES = 56
"""PyCrypto refused longer keys (in its src/Blowfish.c), so no file is encrypted with one."""
_MIN_KEY_BYTES = 4
_READ_BYTES = 256 * 1024


class BeefishReader:
    """Decrypt *source*, from its next byte to its end, with the password that encrypted it.

    *source* is not closed. Memory stays under 2 MiB. Raises PasswordError
    for an empty password, WrongKeyError for one that 0.6.0 could not have used, and CryptoError
    where the system's OpenSSL has no Blowfish.
    """

    def __init__(self, source: Source, *, password: str) -> None:
        self._source = source
        self._key = _key_of(password)
        self._cipher: CipherContext | None = None
        self._sealed = b""
        self._plain = b""
        self._at = 0
        self._held = b""
        self._ended = False
        self._failure: Exception | None = None

    def read(self, size: int = -1, /) -> bytes:
        """Return between 1 and *size* bytes, all that is left with -1, or ``b""`` at the end.

        Raises DecryptionError for a file that is truncated, and what the source raises; then every
        further call raises the same.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(_READ_BYTES), b""))
        if self._failure is not None:
            raise self._failure
        try:
            while self._at == len(self._plain) and not self._ended:
                self._plain, self._at = self._next_piece(), 0
        except Exception as exc:
            self._failure = exc
            raise
        start, self._at = self._at, min(self._at + size, len(self._plain))
        return self._plain[start : self._at]

    def _next_piece(self) -> bytes:
        """Return the next plaintext, which may be empty; hold back one block, maybe the last."""
        if self._cipher is None:
            self._cipher = _decryptor(self._key, self._initialisation_vector())
        piece = self._source.read(_READ_BYTES)
        if not piece:
            self._ended = True
            return self._without_padding()
        data = self._sealed + piece
        whole = len(data) - len(data) % BLOCK_BYTES
        self._sealed = data[whole:]
        plain = self._held + self._cipher.update(data[:whole])
        self._held = plain[-BLOCK_BYTES:]
        return plain[:-BLOCK_BYTES]

    def _without_padding(self) -> bytes:
        if self._sealed or not self._held:
            raise _truncated_error()
        return self._held[: -(self._held[-1] % BLOCK_BYTES or BLOCK_BYTES)]

    def _initialisation_vector(self) -> bytes:
        vector = b""
        while len(vector) < BLOCK_BYTES:
            piece = self._source.read(BLOCK_BYTES - len(vector))
            if not piece:
                raise _truncated_error()
            vector += piece
        return vector


_HINT = (
    "set BAKTHAT_PASSWORD, or password_file in the profile, to the one that it was encrypted with"
)


def _key_of(password: str) -> bytes:
    if not password:
        raise PasswordError("the password is empty", hint=_HINT)
    try:
        # Python 2 used the bytes of the terminal, whatever their encoding. An environment variable
        # can hold them; as surrogates they become the same bytes again.
        key = password.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise WrongKeyError("the password is wrong: it is not UTF-8 text", hint=_HINT) from None
    if len(key) > MAX_KEY_BYTES:
        raise WrongKeyError(
            f"the password is wrong: it has {len(key)} bytes, and bakthat 0.6.0 accepted at most "
            f"{MAX_KEY_BYTES}",
            hint=_HINT,
        )
    # PyCrypto accepted keys that are too short for OpenSSL. Blowfish repeats the key anyway, so a
    # repeated key gives the same cipher.
    return key if len(key) >= _MIN_KEY_BYTES else key * _MIN_KEY_BYTES


def _decryptor(key: bytes, vector: bytes) -> CipherContext:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.decrepit.ciphers.algorithms import Blowfish
    from cryptography.hazmat.primitives.ciphers import Cipher, modes

    try:
        return Cipher(Blowfish(key), modes.CBC(vector)).decryptor()
    except UnsupportedAlgorithm as exc:
        raise CryptoError(
            "the OpenSSL of this machine has no Blowfish, with which bakthat 0.6.0 encrypted",
            hint="restore on a machine with OpenSSL's legacy provider and without FIPS mode",
        ) from exc


def _truncated_error() -> DecryptionError:
    return DecryptionError(
        "the file that bakthat 0.6.0 encrypted is truncated",
        hint="fetch the file again, or use another copy",
    )
