"""The recipient types of age that bakthat implements: X25519 and scrypt.

A further type needs one class that wraps, one that unwraps, and a line in :mod:`bakthat.crypto.age`
that makes them from text. https://c2sp.org/age#native-recipient-types
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Protocol

from bakthat.crypto import _base64, _bech32
from bakthat.crypto._age_header import Stanza, derive_key
from bakthat.errors import AgeFormatError, CryptoError, KeyFormatError, PasswordError

FILE_KEY_SIZE = 16
MAX_WORK_FACTOR = 22
"""Base-two logarithm of the scrypt cost, the age command's limit; 22 takes 4 GiB of memory."""

_NONCE = bytes(12)  # Each wrap key encrypts one file key only, so age fixes the nonce.
_WRAPPED_SIZE = FILE_KEY_SIZE + 16
_RECIPIENT_PREFIX = "age"
_IDENTITY_PREFIX = "AGE-SECRET-KEY-"


class Recipient(Protocol):
    """A key to which a file is encrypted."""

    def wrap(self, file_key: bytes) -> Stanza:
        """Encrypt *file_key* so that only the recipient's identity decrypts it."""


_RECIPIENT_HINT = "give a recipient that age-keygen shows: age1 and 58 characters in lower case"


class Identity(Protocol):
    """A key that decrypts a file."""

    def unwrap(self, stanzas: Sequence[Stanza]) -> bytes | None:
        """Return the file key, or None when no stanza is for this identity.

        Raises AgeFormatError when a stanza of the identity's type breaks the specification.
        """


class X25519Recipient:
    """A public key, written ``age1…``."""

    type = "X25519"

    def __init__(self, text: str) -> None:
        self._text = text.strip()
        self._key = _decode_recipient(self._text)

    def __str__(self) -> str:
        return self._text

    def wrap(self, file_key: bytes) -> Stanza:
        """Encrypt *file_key* under a fresh ephemeral key. Raises KeyFormatError."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import (
            X25519PrivateKey,
            X25519PublicKey,
        )

        ephemeral = X25519PrivateKey.generate()
        share = ephemeral.public_key().public_bytes_raw()
        try:
            secret = ephemeral.exchange(X25519PublicKey.from_public_bytes(self._key))
        except ValueError as exc:
            raise KeyFormatError(
                f"{self._text!r} is not an age recipient: a point of low order",
                hint=_RECIPIENT_HINT,
            ) from exc
        body = _seal(_x25519_wrap_key(secret, share, self._key), file_key)
        return Stanza(self.type, (_base64.encode(share).decode("ascii"),), body)


class X25519Identity:
    """A private key, written ``AGE-SECRET-KEY-1…``. No message contains it."""

    type = "X25519"

    def __init__(self, text: str) -> None:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        self._key = X25519PrivateKey.from_private_bytes(_decode_identity(text.strip()))
        self._public = self._key.public_key().public_bytes_raw()

    @property
    def recipient(self) -> str:
        """The public key of this private key, as text."""
        return _bech32.encode(_RECIPIENT_PREFIX, self._public)

    def unwrap(self, stanzas: Sequence[Stanza]) -> bytes | None:
        """Try every X25519 stanza; None when none is for this identity. Raises AgeFormatError."""
        # All are checked before one is tried: an invalid stanza must be refused wherever it is.
        wrapped = [(_share(stanza), stanza.body) for stanza in stanzas if stanza.type == self.type]
        for share, body in wrapped:
            file_key = _open(_x25519_wrap_key(self._exchange(share), share, self._public), body)
            if file_key is not None:
                return file_key
        return None

    def _exchange(self, share: bytes) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(share))
        except ValueError as exc:
            raise AgeFormatError("an X25519 stanza's share is a point of low order") from exc


class ScryptPassphrase:
    """A passphrase, both recipient and identity."""

    type = "scrypt"

    def __init__(self, passphrase: str, *, work_factor: int = 18) -> None:
        if not passphrase:
            raise PasswordError("the passphrase is empty", hint="give one")
        if not 1 <= work_factor <= MAX_WORK_FACTOR:
            raise ValueError(f"work factor {work_factor} is not between 1 and {MAX_WORK_FACTOR}")
        self._passphrase = _encode_passphrase(passphrase)
        self._work_factor = work_factor

    def wrap(self, file_key: bytes) -> Stanza:
        """Encrypt *file_key* under a fresh salt; takes 2**work_factor KiB of memory."""
        salt = os.urandom(16)
        body = _seal(self._wrap_key(salt, self._work_factor), file_key)
        arguments = (_base64.encode(salt).decode("ascii"), str(self._work_factor))
        return Stanza(self.type, arguments, body)

    def unwrap(self, stanzas: Sequence[Stanza]) -> bytes | None:
        """Try the scrypt stanza, which must be the only one. Raises AgeFormatError."""
        for stanza in stanzas:
            if stanza.type == self.type:
                salt, work_factor = _scrypt_parameters(stanza)
                return _open(self._wrap_key(salt, work_factor), stanza.body)
        return None

    def _wrap_key(self, salt: bytes, work_factor: int) -> bytes:
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

        salt = b"age-encryption.org/v1/scrypt" + salt
        try:
            return Scrypt(salt, length=32, n=1 << work_factor, r=8, p=1).derive(self._passphrase)
        except MemoryError as exc:
            size = 1 << work_factor >> 10
            raise CryptoError(
                f"scrypt with work factor {work_factor} needs {size} MiB of memory",
                hint="end other programs, or try it on a machine with more memory",
            ) from exc


def generate() -> str:
    """Return a new X25519 identity as text."""
    return _bech32.encode(_IDENTITY_PREFIX.lower(), os.urandom(32)).upper()


def _decode_recipient(text: str) -> bytes:
    if _IDENTITY_PREFIX in text.upper():
        raise KeyFormatError(
            "a secret key was given where a recipient is expected",
            hint="give the public key that belongs to it: age-keygen -y shows it",
        )
    if not text:
        raise KeyFormatError("'' is not an age recipient: it is empty", hint="give a key: age1…")
    # Anything else may be a password that was written in the wrong line.
    shown = repr(text) if text.lower().startswith(("ssh-", "age1")) else "the recipient"
    _refuse_other_keys(text, shown)
    try:
        prefix, key = _bech32.decode(text)
    except _bech32.Bech32Error as exc:
        raise KeyFormatError(
            f"{shown} is not an age recipient: {exc}", hint=_RECIPIENT_HINT
        ) from exc
    if prefix != _RECIPIENT_PREFIX or len(key) != 32:
        raise KeyFormatError(
            f"{shown} is not an X25519 recipient of age",
            hint=_RECIPIENT_HINT,
        )
    return key


def _decode_identity(text: str) -> bytes:
    hint = "an identity is a line of the file that age-keygen writes: AGE-SECRET-KEY-1…"
    _refuse_other_keys(text, "the identity")
    try:
        prefix, key = _bech32.decode(text)
    except _bech32.Bech32Error as exc:
        raise KeyFormatError(f"not an age identity: {exc}", hint=hint) from exc
    if prefix != _IDENTITY_PREFIX or len(key) != 32:
        raise KeyFormatError("not an X25519 identity of age", hint=hint)
    return key


_OTHER_KEYS = {
    r"ssh-|-----BEGIN (?!AGE)": "an SSH or PEM key, which is not supported",
    r"AGE-PLUGIN-|age1[a-z0-9+._-]+1": "for a plugin of age, which is not supported",
    r"age-encryption\.org/|-----BEGIN AGE": "encrypted",
}
"""What the keys begin with that age opens and bakthat does not."""


def _refuse_other_keys(text: str, shown: str) -> None:
    for beginning, what in _OTHER_KEYS.items():
        if re.match(beginning, text):
            hint = "make a pair of keys with: age-keygen -o key.txt"
            if what == "encrypted":
                hint = "decrypt its file: age -d -o key.txt FILE"
            raise KeyFormatError(f"{shown} is {what}", hint=hint)


def _encode_passphrase(passphrase: str) -> bytes:
    # Python decodes bytes of the environment that are not UTF-8 to surrogates; undo that.
    try:
        return passphrase.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        pass
    # Raised outside the handler: the caught exception, which would be the context, holds the text.
    raise PasswordError(
        "the passphrase has a character that UTF-8 cannot hold",
        hint="write it with the characters that it was made with",
    )


def _share(stanza: Stanza) -> bytes:
    if len(stanza.arguments) != 1:
        raise AgeFormatError(f"an X25519 stanza has {len(stanza.arguments)} arguments instead of 1")
    return _fixed_size(stanza, stanza.arguments[0], 32)


def _scrypt_parameters(stanza: Stanza) -> tuple[bytes, int]:
    if len(stanza.arguments) != 2:
        raise AgeFormatError(
            f"the scrypt stanza has {len(stanza.arguments)} arguments instead of 2"
        )
    salt = _fixed_size(stanza, stanza.arguments[0], 16)
    work_factor = stanza.arguments[1]
    if not re.fullmatch(r"[1-9][0-9]*", work_factor):
        raise AgeFormatError(f"the scrypt work factor {work_factor[:20]!r} is not a decimal number")
    # Check the length first: int() raises an error of its own for thousands of digits.
    if len(work_factor) > len(str(MAX_WORK_FACTOR)) or int(work_factor) > MAX_WORK_FACTOR:
        raise AgeFormatError(
            f"the scrypt work factor {work_factor[:20]} is above {MAX_WORK_FACTOR}: too costly"
        )
    return salt, int(work_factor)


def _fixed_size(stanza: Stanza, argument: str, size: int) -> bytes:
    """Decode *argument*, and check the sizes of it and of the body before any key is tried."""
    try:
        data = _base64.decode(argument.encode("ascii"))
    except _base64.Base64Error as exc:
        raise AgeFormatError(f"a {stanza.type} stanza's argument is not base64: {exc}") from exc
    if len(data) != size:
        raise AgeFormatError(
            f"a {stanza.type} stanza's argument has {len(data)} bytes instead of {size}"
        )
    if len(stanza.body) != _WRAPPED_SIZE:
        raise AgeFormatError(
            f"a {stanza.type} stanza's body has {len(stanza.body)} bytes instead of {_WRAPPED_SIZE}"
        )
    return data


def _x25519_wrap_key(secret: bytes, share: bytes, recipient: bytes) -> bytes:
    return derive_key(secret, salt=share + recipient, info=b"age-encryption.org/v1/X25519")


def _seal(wrap_key: bytes, file_key: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    return ChaCha20Poly1305(wrap_key).encrypt(_NONCE, file_key, None)


def _open(wrap_key: bytes, body: bytes) -> bytes | None:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    try:
        return ChaCha20Poly1305(wrap_key).decrypt(_NONCE, body, None)
    except InvalidTag:
        return None
