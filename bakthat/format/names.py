"""Stored names: make the key of a backup from its set, date and kind, and parse keys.

A key is ``<prefix><stem>.<YYYYmmddHHMMSS in UTC><extension>``, and that of an increment has
``.inc`` before the extension. The stem is the name of the set,
without ``.tgz`` or ``.tar.gz`` when the source is already a tarball.
Everything here is pure: no clock, no disk.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from bakthat.errors import UsageError
from bakthat.system.text import is_text, printable

INCREMENT_EXTENSION = ".inc"
"""What precedes the extension of an increment, so that nobody takes it for everything."""
ENCRYPTED_EXTENSION = ".age"
KEY_VALUE_EXTENSION = ".keyvalue"
"""The end of the keys of KeyValue; those of backups end with their date and extensions."""
INDEX_EXTENSION = ".index"
"""The end of the key of an index; the rest is the key of its archive."""
PROBE_EXTENSION = ".probe"
"""The end of the key of an object that doctor writes to try a storage, and removes again."""
MAX_SET_BYTES = 255
"""The longest name of a set, in bytes: that of a file in most file systems."""


_DATE_FORMAT = "%Y%m%d%H%M%S"
_TARBALL = re.compile(r"\.(?:tgz|tar\.gz)$", re.IGNORECASE)
_STORED = re.compile(
    r"(?P<stem>.+)\.(?P<date>\d{14})(?P<increment>\.inc(?=\.tgz|\.tar)|)"
    r"(?P<extension>\.tgz|\.tar|\.gz|)(?P<encryption>\.age|\.enc|)",
    re.DOTALL,
)

PROBE_PREFIX = "bakthat-"
"""The beginning of the name of a probe."""
_PROBE = re.compile(rf"{PROBE_PREFIX}[0-9a-f]{{32}}{re.escape(PROBE_EXTENSION)}")

_UNDOTTED = re.compile(
    r"(?P<stem>.+)(?P<date>\d{14})(?P<extension>\.tgz)(?P<encryption>\.enc|)", re.DOTALL
)
"""Names from before bakthat 0.4, which have no dot before the date."""


class StoredName(NamedTuple):
    """The parts of a stored name."""

    stem: str
    backup_date: int
    """Epoch seconds, UTC."""
    extension: str
    """".tgz", ".tar", ".gz" (a stream) or ""."""
    encryption: str
    """".age", ".enc" (0.6.0's) or ""."""
    is_increment: bool = False
    """Whether it is the difference to another backup only."""


def check_set_name(name: str) -> str:
    """Return *name* if it is a valid name of a backup set. Raises UsageError."""
    shown = printable(name)
    hint = "choose another name for the backup with --name (custom_filename= in Python)"
    if not name or name in (".", ".."):
        raise UsageError(f"'{shown}' cannot be the name of a backup", hint=hint)
    if "/" in name:
        raise UsageError(f"the name of a backup cannot hold a slash: '{shown}'", hint=hint)
    if not is_text(name):
        raise UsageError(f"'{shown}' is not UTF-8, so it cannot be the name of a backup", hint=hint)
    if not name.isprintable():
        raise UsageError(
            f"the name of a backup cannot hold control characters: '{shown}'", hint=hint
        )
    size = len(name.encode())
    if size > MAX_SET_BYTES:
        raise UsageError(f"the name of a backup is too long ({size} bytes): '{shown}'", hint=hint)
    return name


def is_tarball(name: str) -> bool:
    """Return whether a file of this name is already a compressed tar file."""
    return bool(_TARBALL.search(name)) and bool(_TARBALL.sub("", name))


def tarball_stem(set_name: str) -> str:
    """Return the part before the date in the keys of a set of tarballs."""
    return _TARBALL.sub("", set_name) or set_name


def stored_name(
    stem: str, backup_date: int, extension: str, *, encrypted: bool, increment: bool = False
) -> str:
    """Return a stored name without prefix. *backup_date* is in epoch seconds UTC."""
    date = time.strftime(_DATE_FORMAT, time.gmtime(backup_date))
    kind = INCREMENT_EXTENSION if increment else ""
    return f"{stem}.{date}{kind}{extension}{ENCRYPTED_EXTENSION if encrypted else ''}"


def stored_names(
    stem: str, backup_date: int, extension: str, *, encrypted: bool, increment: bool = False
) -> Iterator[tuple[str, int]]:
    """Yield candidate names with their dates: *backup_date*, then each following second."""
    while True:
        name = stored_name(stem, backup_date, extension, encrypted=encrypted, increment=increment)
        yield name, backup_date
        backup_date += 1


def parse_stored_name(name: str) -> StoredName | None:
    """Parse a stored name without prefix; None when it is not one of bakthat.

    The encryption extension of 0.6.0, ``.enc``, is parsed too.
    """
    return _parsed(_STORED.fullmatch(name))


def parse_undotted_name(name: str) -> StoredName | None:
    """Parse a stored name from before bakthat 0.4; None when it is not one."""
    return _parsed(_UNDOTTED.fullmatch(name))


def parse_any_name(name: str) -> StoredName | None:
    """Parse a stored name of any version; None when it is not one of bakthat."""
    return parse_stored_name(name) or parse_undotted_name(name)


def without_prefix(key: str, prefix: str) -> str | None:
    """Return *key* without *prefix*; None when *key* does not begin with it.

    ``{host}`` in the prefix stands for any host.
    """
    pattern = "[^/]+".join(re.escape(part) for part in prefix.split("{host}"))
    before = re.match(pattern, key)
    return key[before.end() :] if before is not None else None


def parse_key(key: str, prefix: str, set_name: str | None = None) -> StoredName | None:
    """Parse a key of this profile, or of another profile with the same container.

    *prefix* is the profile's, and may contain ``{host}``. *set_name* is the set in the object's
    self-description, None without one. With *set_name*, the prefix is whatever precedes it in the
    key. Without it, the key must begin with *prefix* and have an extension, be it that of the
    encryption. Returns None when the key is not one of bakthat.
    """
    if set_name is not None:
        parsed = parse_stored_name(key.rpartition("/")[2])
        for stem in (set_name, tarball_stem(set_name)):
            if parsed is not None and parsed.stem.endswith(stem):
                return parsed._replace(stem=stem)
    name = without_prefix(key, prefix) or ""
    parsed = parse_any_name(name)
    if parsed is None or "/" in name:
        return None
    is_recognisable = parsed.extension or parsed.encryption or set_name is not None
    return parsed if is_recognisable else None


def _parsed(match: re.Match[str] | None) -> StoredName | None:
    if match is None:
        return None
    date = match["date"]
    clock = int(date[8:10]), int(date[10:12]), int(date[12:])
    try:
        # Ten times as fast as strptime, and a list parses the name of each backup.
        moment = datetime(int(date[:4]), int(date[4:6]), int(date[6:8]), *clock, tzinfo=UTC)
    except ValueError:
        return None
    return StoredName(
        match["stem"],
        calendar.timegm(moment.utctimetuple()),
        match["extension"],
        match["encryption"],
        bool(match.groupdict().get("increment")),
    )


def index_key(key: str) -> str:
    """Return the key of the index of the archive *key*."""
    return key + INDEX_EXTENSION


def is_index_key(key: str) -> bool:
    """Return whether *key* is that of an index, by the stored name of an archive in it."""
    name = key.rpartition("/")[2]
    return (
        name.endswith(INDEX_EXTENSION)
        and parse_any_name(name.removesuffix(INDEX_EXTENSION)) is not None
    )


def probe_name(token: str) -> str:
    """Return the name of a probe. *token* is 32 random hexadecimal digits.

    No backup has such a name, since it has no date.
    """
    return f"{PROBE_PREFIX}{token}{PROBE_EXTENSION}"


def is_probe_name(name: str) -> bool:
    """Return whether *name*, a key without its prefix, is that of a probe."""
    return _PROBE.fullmatch(name) is not None
