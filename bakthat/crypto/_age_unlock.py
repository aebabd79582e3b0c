"""Find the file key in the header of an age file, with the keys of the caller."""

from __future__ import annotations

from collections.abc import Sequence

from bakthat.crypto import _age_keys as keys
from bakthat.crypto._age_header import Header, Stanza, read_header
from bakthat.crypto._age_payload import NONCE_SIZE
from bakthat.crypto._lookahead import LookaheadReader
from bakthat.errors import AgeFormatError, PasswordError, WrongKeyError


class FileKeys:
    """The file keys of the age headers that were opened with the same keys of the caller.

    An archive and its index have the same header, so the second of them costs no scrypt. It holds
    secrets; the caller keeps it for one operation.
    """

    def __init__(self) -> None:
        self._found: dict[bytes, bytes] = {}
        self.last: tuple[bytes, bytes] | None = None
        """The header that was opened last, whole, and its file key; another file for the same
        readers may have them too."""

    def get(self, header: Header) -> bytes | None:
        """Return the file key of *header*, whose MAC was verified with it; None if unknown."""
        encoded = header.encoded
        file_key = self._found.get(encoded)
        if file_key is not None:
            self.last = encoded, file_key
        return file_key

    def add(self, header: Header, file_key: bytes) -> None:
        """Remember the file key of *header*, which it verifies."""
        self.last = header.encoded, file_key
        self._found[header.encoded] = file_key


def known_identities(
    passphrase: str | None, identities: Sequence[str]
) -> list[keys.X25519Identity | keys.ScryptPassphrase]:
    """Return the keys in what the caller gave.

    Raises KeyFormatError for an invalid identity, PasswordError for an empty passphrase or without
    any key, and TypeError for one text instead of a list.
    """
    refuse_bare_text("identities", identities)
    known: list[keys.X25519Identity | keys.ScryptPassphrase] = [
        keys.X25519Identity(identity) for identity in identities
    ]
    if passphrase is not None:
        known.append(keys.ScryptPassphrase(passphrase))
    if not known:
        raise PasswordError(
            "neither a passphrase nor an identity to decrypt with", hint=_ANY_KEY_HINT
        )
    return known


def refuse_bare_text(name: str, value: Sequence[str]) -> None:
    """Raise TypeError when the argument *name*, a list of texts, is one text."""
    if isinstance(value, str):
        raise TypeError(f"{name} must be a list of texts, not one text")


def read_start(
    source: LookaheadReader, identities: Sequence[keys.Identity], file_keys: FileKeys | None
) -> tuple[Header, bytes, bytes]:
    """Read the header and the nonce; return the header, the file key and the nonce.

    A header in *file_keys* is not opened again, and one that is opened is added to it. Raises
    AgeFormatError, WrongKeyError and DecryptionError.
    """
    header = read_header(source)
    file_key = file_keys.get(header) if file_keys is not None else None
    if file_key is None:
        file_key = _unwrap(header, identities)
        header.verify(file_key)
        if file_keys is not None:
            file_keys.add(header, file_key)
    nonce = bytearray(NONCE_SIZE)
    if source.readinto(memoryview(nonce)) < NONCE_SIZE:
        raise AgeFormatError("the age file is truncated: it ends after its header")
    return header, file_key, bytes(nonce)


def _unwrap(header: Header, identities: Sequence[keys.Identity]) -> bytes:
    scrypt = keys.ScryptPassphrase.type
    if len(header.stanzas) > 1 and any(stanza.type == scrypt for stanza in header.stanzas):
        raise AgeFormatError("a scrypt stanza is not the only one in the age header")
    for identity in identities:
        file_key = identity.unwrap(header.stanzas)
        if file_key is not None:
            return file_key
    raise _wrong_key_error(header.stanzas, identities)


_ANY_KEY_HINT = "set BAKTHAT_PASSWORD, or name the file of a private key with --identity-file"
_IDENTITY_HINT = (
    "name the file of a private key that opens it with --identity-file, or as identity_file in the "
    "profile"
)


def _wrong_key_error(
    stanzas: Sequence[Stanza], identities: Sequence[keys.Identity]
) -> WrongKeyError:
    by_passphrase = stanzas[0].type == keys.ScryptPassphrase.type
    given = {type(identity) for identity in identities}
    if by_passphrase and keys.ScryptPassphrase not in given:
        return WrongKeyError(
            "the age file is encrypted with a passphrase, and only identities were given",
            hint="set BAKTHAT_PASSWORD, or password_file in the profile, to the passphrase",
        )
    if by_passphrase:
        return WrongKeyError(
            "the passphrase does not open the age file",
            hint="set BAKTHAT_PASSWORD, or password_file in the profile, to the one that it was "
            "encrypted with",
        )
    count = f"{len(stanzas)} recipient{'s' if len(stanzas) > 1 else ''}"
    if keys.X25519Identity not in given:
        return WrongKeyError(
            f"the age file is encrypted to {count}, and only a passphrase was given",
            hint=_IDENTITY_HINT,
        )
    return WrongKeyError(
        f"the age file is encrypted to {count}, and to none of the identities given",
        hint=_IDENTITY_HINT,
    )
