"""The base64 of age: RFC 4648, section 4, only in its canonical form (section 3.5)."""

from __future__ import annotations

import binascii
import re

_UNPADDED = re.compile(rb"[A-Za-z0-9+/]*")


class Base64Error(ValueError):
    """A text is not canonical base64."""


def encode(data: bytes) -> bytes:
    """Return *data* as base64 without padding."""
    return binascii.b2a_base64(data, newline=False).rstrip(b"=")


def decode(text: bytes) -> bytes:
    """Return the bytes of canonical base64 without padding. Raises Base64Error."""
    if not _UNPADDED.fullmatch(text):
        raise Base64Error("a character that unpadded base64 does not use")
    if len(text) % 4 == 1:
        raise Base64Error("a length that base64 never has")
    data = binascii.a2b_base64(text + b"=" * (-len(text) % 4))
    if encode(data) != text:
        raise Base64Error("stray bits at the end")
    return data


def decode_padded(text: bytes) -> bytes:
    """Return the bytes of canonical base64, padded with ``=`` to groups of four.

    Raises Base64Error.
    """
    unpadded = text.rstrip(b"=")
    if len(text) % 4 or len(text) - len(unpadded) > 2:
        raise Base64Error("padding that is missing or too long")
    return decode(unpadded)
