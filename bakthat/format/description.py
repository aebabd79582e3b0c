"""Self-descriptions of stored objects: composed when they are stored, checked when they are read.

Others may write to the storage, so no field of a self-description is used unchecked.
"""

from __future__ import annotations

import hashlib
import operator
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bakthat import __version__
from bakthat.errors import UsageError
from bakthat.system.text import is_text, printable

FORMAT, INCREMENT_FORMAT = 1, 2
"""The versions of the stored format: that of an object that is complete in itself, and that of an
increment, which needs others."""

ARCHIVE, FILE, KEY_VALUE = "archive", "file", "keyvalue"
"""The kinds of objects: a tar archive, one file or stream, and a value of KeyValue."""

INDEX = "index"
"""The kind of the index of an archive or a file."""

INDEX_FORMAT = 1
"""The version of the format of an index, which its archive's self-description has as ``index``: so
it is known that there must be one. That of an increment is INCREMENT_FORMAT."""

MAX_NEEDS = 64
"""The most archives that an increment may need, so that their dates fit into its description."""
MAX_LEVEL = 9

NAMED = "named"
"""The source id of a backup that was given a name: its source makes no difference."""

MAX_TEXT = 1024
"""The most characters of a text in a self-description; a longer text is left out."""

_LAST_DATE = 253402300799  # the end of the year 9999
_TIMES_NS = 2**63 * 10**9
"""The limit before and after 1970: some file systems store 64 bits of seconds."""


def source_id(path: str | os.PathLike[str]) -> str:
    """Return the id of a source by its absolute path: 16 hexadecimal digits.

    They are the first ones of the SHA-256 of the path's bytes.
    """
    text = os.fsencode(path)
    if text.startswith(b"//"):  # which POSIX lets a system tell from "/", and none does
        text = b"/" + text.lstrip(b"/")
    return hashlib.sha256(text).hexdigest()[:16]


def is_source_id(text: str) -> bool:
    """Return whether *text* has the form of what :func:`source_id` returns."""
    return re.fullmatch("[0-9a-f]{16}", text) is not None


def describe(
    kind: str,
    set_name: str,
    date: int,
    host: str,
    *,
    encryption: str,
    compressed: bool,
    source_id: str = "",
    archive_id: str = "",
    needs: Sequence[int] = (),
    level: int = 0,
) -> dict[str, Any]:
    """Return the fields of every self-description; the caller adds those of its *kind*.

    *date* is in epoch seconds, *encryption* is "passphrase", "recipients" or "none". *source_id*
    is that of :func:`source_id` or :data:`NAMED`; a value of KeyValue has none. *archive_id* is
    that of the archive. *needs* are the dates of the archives that an increment is applied to, and
    *level* is its level (:mod:`bakthat.policy.levels`). See docs/explanation/format.rst.
    """
    return {
        "bakthat": __version__,
        "format": INCREMENT_FORMAT if needs else FORMAT,
        "set": set_name,
        "date": date,
        "host": host,
        **({"source_id": source_id} if source_id else {}),
        **({"id": archive_id} if archive_id else {}),
        **({"needs": list(needs), "level": level} if needs else {}),
        "kind": kind,
        "encryption": encryption,
        "compression": "gzip" if compressed else "none",
    }


def archive_identity(set_name: str, date: int, host: str, source_id: str = "") -> str:
    """Return the comment in an archive that names its set, date, host and source.

    Every tar tool skips the comment. In an encrypted archive it is authenticated, so it shows that
    an object was replaced by another one. A backup that was given a name has no source there.
    """
    source = f" source={source_id}" if source_id not in ("", NAMED) else ""
    return f"bakthat set={set_name} date={date} host={host}{source}"


def sanitized(description: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the valid fields of *description*.

    Fields that this version does not know are left out, and so are invalid ones: a wrong type, a
    number out of range, a text with control characters or characters that are not Unicode.
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


def _source_id(value: object) -> bool:
    return value == NAMED or (isinstance(value, str) and is_source_id(value))


def is_archive_id(text: str) -> bool:
    """Return whether *text* has the form of the id of an archive."""
    return is_source_id(text)


def _archive_id(value: object) -> bool:
    return isinstance(value, str) and is_archive_id(value)


def _needs(value: object) -> bool:
    """Return whether *value* is a list of dates that ascend."""
    fits = _number(0, _LAST_DATE)
    return (
        isinstance(value, list)
        and 0 < len(value) <= MAX_NEEDS
        and all(map(fits, value))
        and all(map(operator.lt, value, value[1:]))
    )


def _seconds(value: object) -> bool:
    return isinstance(value, float) and 0 <= value < _LAST_DATE


def _sha256(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _boolean(value: object) -> bool:
    return isinstance(value, bool)


_FIELDS: dict[str, Callable[[object], bool]] = {
    "bakthat": _text,
    "format": _number(1, 2**31),
    "set": _name,
    "host": _text,
    "source_id": _source_id,
    "id": _archive_id,
    "needs": _needs,
    "level": _number(0, MAX_LEVEL),
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
    "tar_bytes": _number(0, 2**62),
    "files": _number(0, 2**40),
    "directories": _number(0, 2**40),
    "owner": _text,
    "group": _text,
    "index": _number(1, 2**31),
    "warning_count": _number(0, 2**40),
    "seconds": _seconds,
    "stored": _number(0, 2**62),
    "sha256": _sha256,
    "dump": _text,
    "suspicious": _boolean,
    "KeyValue": _boolean,
    "is_gzipped": _boolean,
    "is_enc": _boolean,
}


MAX_TAGS_BYTES = 400
"""The most bytes of tags; the storage with the shortest self-description sets this limit."""


def join_tags(tags: str | Sequence[str]) -> str:
    """Return tags as the catalog stores them: each once, in order, separated by single spaces.

    A text may contain several, separated by commas or white space. Raises UsageError.
    """
    words = [
        word
        for each in ([tags] if isinstance(tags, str) else tags)
        for word in re.split(r"[\s,]+", each)
        if word
    ]
    joined = " ".join(dict.fromkeys(words))
    if printable(joined) != joined:
        raise UsageError(
            f"a tag must be printable text, not '{printable(joined)}'",
            hint="leave out control characters and bytes that are not UTF-8",
        )
    if len(joined.encode()) > MAX_TAGS_BYTES:
        raise UsageError(
            f"the tags are too long: {len(joined.encode())} bytes, more than {MAX_TAGS_BYTES}",
            hint="give fewer or shorter ones to --tags (tags= in Python)",
        )
    return joined
