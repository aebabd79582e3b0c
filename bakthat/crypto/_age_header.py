"""The textual header of an age file: recipient stanzas and their MAC (https://c2sp.org/age#header)."""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

from bakthat.crypto import _base64
from bakthat.crypto._lookahead import LookaheadReader
from bakthat.errors import AgeFormatError, DecryptionError

MAX_HEADER_SIZE = 1 << 20
"""In bytes: enough for some 10,000 X25519 recipients; the specification has no limit."""

_FAMILY = b"age-encryption.org/"
_VERSION_LINE = _FAMILY + b"v1"
_STANZA_MARK = b"-> "
_MAC_MARK = b"---"
_COLUMNS = 64
_MAC_SIZE = 32
_ARGUMENT = re.compile(rb"[!-~]+")


@dataclass(frozen=True, slots=True)
class Stanza:
    """The file key, wrapped for one recipient by the scheme of the stanza's type."""

    type: str
    arguments: tuple[str, ...]
    """The arguments after the type."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """A header with a valid grammar; :meth:`verify` checks whether it is authentic."""

    stanzas: tuple[Stanza, ...]
    signed: bytes
    """The bytes that the MAC covers: everything up to and including its ``---``."""
    mac: bytes

    @property
    def encoded(self) -> bytes:
        """The whole header; the payload's nonce follows it."""
        return self.signed + b" " + _base64.encode(self.mac) + b"\n"

    def verify(self, file_key: bytes) -> None:
        """Raise DecryptionError unless the header was made with *file_key*."""
        if not hmac.compare_digest(self.mac, _mac(self.signed, file_key)):
            raise DecryptionError(
                "the age header does not authenticate: it was altered",
                hint="fetch the file again, or use another copy",
            )


def derive_key(secret: bytes, *, salt: bytes, info: bytes) -> bytes:
    """Derive 32 bytes with HKDF-SHA-256 (RFC 5869)."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)


def encode_header(stanzas: Sequence[Stanza], file_key: bytes) -> bytes:
    """Return the header as bytes, with its MAC and final line feed."""
    lines = [_VERSION_LINE]
    for stanza in stanzas:
        lines.append(_STANZA_MARK + " ".join((stanza.type, *stanza.arguments)).encode("ascii"))
        body = _base64.encode(stanza.body)
        # One more slice than full lines: the body ends with a short line, which may be empty.
        lines += [body[at : at + _COLUMNS] for at in range(0, len(body) + 1, _COLUMNS)]
    signed = b"\n".join([*lines, _MAC_MARK])
    return signed + b" " + _base64.encode(_mac(signed, file_key)) + b"\n"


def read_header(source: LookaheadReader) -> Header:
    """Read the header from *source*, up to the payload. Raises AgeFormatError."""
    if source.peek(len(_FAMILY)) != _FAMILY:
        raise AgeFormatError(
            f"not an age file: it does not begin with {_FAMILY.decode()!r} or with age's armor"
        )
    lines = _Lines(source)
    _check_version(lines.next())
    stanzas = []
    line = lines.next()
    while not line.startswith(_MAC_MARK):
        stanzas.append(_read_stanza(line, lines))
        line = lines.next()
    if not stanzas:
        raise AgeFormatError("the age header has no recipient stanza")
    if line[: len(_MAC_MARK) + 1] != _MAC_MARK + b" ":
        raise AgeFormatError(f"the age header's MAC line is malformed: {_quote(line)}")
    mac = _decode(line[len(_MAC_MARK) + 1 :])
    if len(mac) != _MAC_SIZE:
        raise AgeFormatError(f"the age header's MAC has {len(mac)} bytes instead of {_MAC_SIZE}")
    unsigned_size = len(line) + 1 - len(_MAC_MARK)
    return Header(tuple(stanzas), bytes(lines.read[:-unsigned_size]), mac)


class _Lines:
    """The lines of a header, and the bytes read so far."""

    def __init__(self, source: LookaheadReader) -> None:
        self._source = source
        self.read = bytearray()

    def next(self) -> bytes:
        """Return the next line without its line feed."""
        line = self._source.readline(MAX_HEADER_SIZE - len(self.read))
        self.read += line
        if line.endswith(b"\n"):
            return line[:-1]
        if len(self.read) == MAX_HEADER_SIZE:
            raise AgeFormatError(f"the age header is longer than {MAX_HEADER_SIZE} bytes")
        raise AgeFormatError("the age header is truncated")


def _check_version(line: bytes) -> None:
    if line == _VERSION_LINE:
        return
    if line == _VERSION_LINE + b"\r":
        raise AgeFormatError(
            "the age header's lines end with CR LF",
            hint="transfer the file again, in binary mode",
        )
    raise AgeFormatError(
        f"age format {_quote(line)} is not supported, only {_VERSION_LINE.decode()!r}"
    )


def _read_stanza(first: bytes, lines: _Lines) -> Stanza:
    if not first.startswith(_STANZA_MARK):
        raise AgeFormatError(f"neither a recipient stanza nor a MAC in the header: {_quote(first)}")
    arguments = first[len(_STANZA_MARK) :].split(b" ")
    if not all(_ARGUMENT.fullmatch(argument) for argument in arguments):
        raise AgeFormatError(f"a recipient stanza has a malformed argument: {_quote(first)}")
    body = []
    while True:
        line = lines.next()
        if len(line) > _COLUMNS:
            raise AgeFormatError(f"a line of a recipient stanza is too long: {_quote(line)}")
        body.append(_decode(line))
        if len(line) < _COLUMNS:
            break
    kind, *others = (argument.decode("ascii") for argument in arguments)
    return Stanza(kind, tuple(others), b"".join(body))


def _mac(signed: bytes, file_key: bytes) -> bytes:
    return hmac.digest(derive_key(file_key, salt=b"", info=b"header"), signed, "sha256")


def _decode(text: bytes) -> bytes:
    try:
        return _base64.decode(text)
    except _base64.Base64Error as exc:
        raise AgeFormatError(f"not canonical base64 in the age header: {_quote(text)}") from exc


def _quote(line: bytes) -> str:
    shown = line[:_COLUMNS]
    return repr(shown)[1:] + ("…" if shown != line else "")
