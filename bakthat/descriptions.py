"""Self-descriptions of stored objects, taken with care: others may write to the storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bakthat.naming import is_text

MAX_TEXT = 1024
"""Characters of any text in a self-description; longer ones are not believed."""

_LAST_DATE = 253402300799  # the end of the year 9999
_TIMES_NS = 2**63 * 10**9
"""Before and after 1970: seconds have 64 bits, and some file systems keep every one of them."""


def believable(description: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what of *description* has the type and the range that it should have.

    What is unknown to this version is left out, and so is what cannot be meant: a wrong type,
    a number out of range, a text with control characters or broken characters.
    """
    return {
        key: value
        for key, value in (description or {}).items()
        if key in _FIELDS and _FIELDS[key](value)
    }


def _number(lowest: int, highest: int) -> Callable[[object], bool]:
    def fits(value: object) -> bool:
        is_number = isinstance(value, int) and not isinstance(value, bool)
        return is_number and lowest <= value <= highest  # type: ignore[operator]  # just checked

    return fits


def _text(value: object) -> bool:
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_TEXT
        and is_text(value)
        and value.isprintable()
    )


def _name(value: object) -> bool:
    return _text(value) and "/" not in str(value) and value not in (".", "..")


def _truth(value: object) -> bool:
    return isinstance(value, bool)


_FIELDS: dict[str, Callable[[object], bool]] = {
    "bakthat": _text,
    "format": _number(1, 2**31),
    "set": _name,
    "host": _text,
    "date": _number(0, _LAST_DATE),
    "kind": _text,
    "encryption": _text,
    "compression": _text,
    "tags": _text,
    "name": _name,
    "mode": _number(0, 0o7777),
    "mtime_ns": _number(-_TIMES_NS, _TIMES_NS - 1),
    "uid": _number(0, 2**32 - 2),
    "gid": _number(0, 2**32 - 2),
    "bytes": _number(0, 2**62),
    "files": _number(0, 2**40),
    "directories": _number(0, 2**40),
    "owner": _text,
    "group": _text,
    "KeyValue": _truth,
    "is_gzipped": _truth,
    "is_enc": _truth,
}
