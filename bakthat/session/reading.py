"""Bringing a backup back: what its entry says of the object, its keys, and where it goes."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Mapping
from typing import Any

from bakthat import models
from bakthat.archive.tar.member import Owner
from bakthat.backends.base import Backend
from bakthat.crypto import age
from bakthat.errors import (
    ConfigError,
    ContainerNotFoundError,
    CorruptArchiveError,
    NoMatchError,
    NotFoundError,
    UsageError,
)
from bakthat.format import names as naming
from bakthat.format.description import archive_identity, sanitized
from bakthat.passwords import decryption_passphrase, identity_text
from bakthat.pipeline import read
from bakthat.session.entries import entry_of, is_value, value_entry
from bakthat.session.lookup import find_backup
from bakthat.session.session import Session
from bakthat.system.streams import ByteCounter, Progress
from bakthat.system.text import printable

log = logging.getLogger("bakthat")

MAX_VALUE_BYTES = 256 * 1024 * 1024
"""The longest JSON of a value: it is held in memory."""

HEADER_PEEK_BYTES = 256
"""Enough of an age file to tell a passphrase from recipients."""

SLACK_BYTES = 64 * 1024 * 1024
SLACK_FACTOR = 2
"""What may be unpacked is this many times what was announced, and the slack on top: a tree may
have grown between the counting and the reading."""
MEMBER_BYTES = 4096
"""Of each announced member: its headers, its extended attributes among them."""
UNANNOUNCED_FACTOR = 200
UNANNOUNCED_BYTES = 1024 * 1024 * 1024
"""Where nothing was announced: this many times what is stored, and as much on top."""


def find_to_restore(session: Session, name: str, host: str | None) -> models.Backups:
    """Find a backup in the catalog or, by its whole stored filename, on the storage itself."""
    try:
        found = find_backup(session, name, host=host)
    except NoMatchError:
        stored = _find_on_storage(session, name) or _find_value(session, name)
        if stored is None or (host is not None and stored.host != host):
            raise
        log.info("%s is not in the catalog, but on the storage", printable(name))
        return stored
    if found.is_key_value:
        refresh_value(session, found)
    return found


def find_keys(
    session: Session,
    backend: Backend,
    backup: models.Backups,
    expected: read.Expected,
    *,
    password: str | None,
    identity_file: str | os.PathLike[str] | None = None,
    prompt: bool,
) -> tuple[str | None, list[str]]:
    """Return the passphrase or the identities that open *backup*; neither for what is in clear.

    Raises PasswordError, KeyFormatError, ConfigError.
    """
    if not expected.encrypted:
        return None, []
    profile = session.profile.as_mapping()
    if not expected.is_legacy and _encryption_kind(backend, backup) == "recipients":
        return None, age.parse_identities(identity_text(profile, identity_file=identity_file))
    return decryption_passphrase(profile, password=password, prompt=prompt), []


def expected_of(backup: models.Backups) -> read.Expected:
    """Tell from the entry, and where it is silent from the name, how to read the object."""
    if backup.is_key_value:
        return _expected_value(backup)
    said = sanitized(backup.metadata)
    extension, encryption = _endings(backup.stored_filename)
    is_archive = said.get("kind", "archive" if extension else "file") == "archive"
    compressed = is_archive and extension == ".tgz"
    return read.Expected(
        is_archive=is_archive,
        compressed=compressed,
        encrypted=bool(said.get("is_enc")) or encryption == ".enc",
        name=_safe_name(str(said.get("name") or backup.filename)),
        check_identity=functools.partial(_check_identity, backup) if is_archive else None,
        sha256=str(backup.metadata.get("sha256") or ""),
        mode=said.get("mode"),
        mtime_ns=said.get("mtime_ns"),
        owner=_owner(said),
        is_legacy=encryption == ".enc",
        limit=unpacked_limit(backup),
    )


def unpacked_limit(backup: models.Backups) -> int:
    """Return how many bytes may come out of an object's gzip before it is refused as a bomb."""
    said = sanitized(backup.metadata)
    if "bytes" not in said:
        return max(backup.size, 0) * UNANNOUNCED_FACTOR + UNANNOUNCED_BYTES
    members = said.get("files", 0) + said.get("directories", 0)
    announced: int = said["bytes"] + members * MEMBER_BYTES
    return announced * SLACK_FACTOR + SLACK_BYTES


def byte_counter(progress: Progress | None, total: int) -> ByteCounter:
    """Return a function that adds up bytes and calls *progress* with their sum and *total*."""
    done = 0

    def add(size: int) -> None:
        nonlocal done
        done += size
        if progress is not None:
            progress(done, total)

    return add


def _endings(stored_filename: str) -> tuple[str, str]:
    """Return what a stored name says of the archive and of the encryption, each "" if nothing."""
    parsed = naming.parse_stored_name(stored_filename)
    parsed = parsed or naming.parse_undotted_name(stored_filename)
    return (parsed.extension, parsed.encryption) if parsed is not None else ("", "")


def _expected_value(backup: models.Backups) -> read.Expected:
    said: dict[str, Any] = backup.metadata
    name = backup.filename.rpartition("/")[2]  # 0.6.0 let keys hold slashes
    return read.Expected(
        is_archive=False,
        compressed=bool(said.get("is_gzipped")),
        encrypted=bool(said.get("is_enc")),
        name=_safe_name(name if name.endswith(".json") else f"{name}.json"),
        check_identity=None,
        sha256="",
        mode=None,
        mtime_ns=None,
        is_legacy="format" not in said,
        is_value=True,
        limit=MAX_VALUE_BYTES,
    )


def _owner(said: Mapping[str, Any]) -> Owner | None:
    if "uid" not in said or "gid" not in said:
        return None
    names = (str(said.get("owner", "")), str(said.get("group", "")))
    return Owner(said["uid"], said["gid"], names[0].encode(), names[1].encode())


def _check_identity(backup: models.Backups, comment: bytes) -> None:
    """Refuse an archive that says it is another one than its entry or its name say.

    An object without a description may have been made or renamed by hand: a warning is enough.
    """
    expected = archive_identity(backup.filename, backup.backup_date, backup.host)
    is_described = "format" in backup.metadata
    if not (is_described or backup.host) and comment.startswith(expected.encode()):
        return  # nothing but the name is known of it: an inventory has no hosts
    if comment == expected.encode() or (not comment and not is_described):
        return
    found = printable(os.fsdecode(comment)) or "nothing of itself"
    if not is_described:
        log.warning("the archive says that it is '%s', not '%s'", found, printable(expected))
        return
    raise CorruptArchiveError(
        f"the archive says '{found}', but should say '{printable(expected)}'",
        hint="another object was put in its place on the storage",
    )


def _safe_name(name: str) -> str:
    """Refuse a name from a self-description that would leave the destination."""
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise CorruptArchiveError(f"the stored name of the file is unusable: '{printable(name)}'")
    return name


def _encryption_kind(backend: Backend, backup: models.Backups) -> str:
    """Tell a passphrase from recipients, by the entry or else by the object's first bytes."""
    said = backup.metadata.get("encryption")
    if said in ("passphrase", "recipients"):
        return str(said)
    with backend.download(backup.stored_filename, end=HEADER_PEEK_BYTES) as stream:
        return "passphrase" if b"\n-> scrypt " in stream.read(HEADER_PEEK_BYTES) else "recipients"


def _find_on_storage(session: Session, name: str) -> models.Backups | None:
    """Describe an object that the catalog does not list, without recording it."""
    # Another host's prefix is none of this one's; and no set has a slash in its name.
    parsed = naming.parse_stored_name(name.removeprefix(session.prefix).rpartition("/")[2])
    if parsed is None:
        return None
    backend = session.backend(session.destination)
    keys = list(dict.fromkeys((name, session.prefix + name)))
    for key in keys:
        try:
            return entry_of(backend, backend.stat(key), parsed)
        except NotFoundError:
            # A vault may well hold it: what it raises says how to find out.
            if backend.name == "glacier" and key == keys[-1]:
                raise
    return None


def _find_value(session: Session, name: str) -> models.Backups | None:
    """Describe a value that the catalog does not list, by its key or its stored filename."""
    if session.destination == "glacier":
        return None
    is_whole = name.endswith(naming.KEY_VALUE_EXTENSION)
    try:
        backend = session.backend(session.destination)
        stored = backend.stat(
            name if is_whole else f"{session.prefix}{name}{naming.KEY_VALUE_EXTENSION}"
        )
    except (ConfigError, ContainerNotFoundError, NotFoundError, UsageError) as exc:
        log.debug("no value has that name: %s", exc)
        return None
    return value_entry(backend, stored) if is_value(stored) else None


def refresh_value(session: Session, backup: models.Backups) -> None:
    """Bring the entry of a value to what the storage says: any machine may have replaced it."""
    if "format" not in backup.metadata:
        return  # 0.6.0's objects do not describe themselves
    backend = session.backend(backup.backend)
    with contextlib.suppress(NotFoundError):  # of which fetch says more
        found = value_entry(backend, backend.stat(backup.stored_filename))
        backup.metadata, backup.size = found.metadata, found.size
        backup.backup_date = found.backup_date
