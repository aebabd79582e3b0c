"""Bech32 as in BIP 173, without its limit of 90 characters, as the age specification requires.

https://github.com/bitcoin/bips/blob/master/bip-0173.mediawiki
"""

from __future__ import annotations

from collections.abc import Iterable

_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUES = {char: value for value, char in enumerate(_ALPHABET)}
_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM_LENGTH = 6


class Bech32Error(ValueError):
    """A text is not Bech32. The message never quotes the text, which may be secret."""


def encode(prefix: str, data: bytes) -> str:
    """Return *prefix*, the human-readable part in lower case, and *data* as Bech32."""
    values = _regroup(data, 8, 5, pad=True)
    checksum = _polymod([*_expand(prefix), *values, *[0] * _CHECKSUM_LENGTH]) ^ 1
    values += [checksum >> 5 * (5 - i) & 31 for i in range(_CHECKSUM_LENGTH)]
    return f"{prefix}1{''.join(_ALPHABET[value] for value in values)}"


def decode(text: str) -> tuple[str, bytes]:
    """Return the human-readable part, in the case it is written in, and the data.

    Raises Bech32Error.
    """
    # Check this before the case: outside ASCII, a change of case may change the letter.
    if not (text.isascii() and text.isprintable()):
        raise Bech32Error("it has a character that is not printable ASCII")
    lower = text.lower()
    if text not in (lower, text.upper()):
        raise Bech32Error("upper and lower case are mixed")
    prefix, separator, encoded = lower.rpartition("1")
    if not separator or not prefix:
        raise Bech32Error("it has no prefix that ends with 1")
    if len(encoded) < _CHECKSUM_LENGTH:
        raise Bech32Error("it is too short")
    if not _VALUES.keys() >= set(encoded):
        raise Bech32Error("it has a character that Bech32 does not use")
    values = [_VALUES[char] for char in encoded]
    if _polymod([*_expand(prefix), *values]) != 1:
        raise Bech32Error("its checksum does not match")
    return text[: len(prefix)], bytes(_regroup(values[:-_CHECKSUM_LENGTH], 5, 8, pad=False))


def _expand(prefix: str) -> list[int]:
    return [*(ord(char) >> 5 for char in prefix), 0, *(ord(char) & 31 for char in prefix)]


def _polymod(values: Iterable[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATORS):
            if top >> bit & 1:
                checksum ^= generator
    return checksum


def _regroup(values: Iterable[int], width: int, new_width: int, *, pad: bool) -> list[int]:
    """Regroup the bits of *values*, *width* each, into numbers of *new_width* bits."""
    pending = 0
    bits = 0
    regrouped = []
    for value in values:
        pending = pending << width | value
        bits += width
        while bits >= new_width:
            bits -= new_width
            regrouped.append(pending >> bits)
            pending &= (1 << bits) - 1
    if pad and bits:
        regrouped.append(pending << (new_width - bits))
    elif not pad and (bits >= width or pending):
        raise Bech32Error("its data ends with stray bits")
    return regrouped
