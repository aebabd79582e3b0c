"""Prepare to read a backup: find its entry and its keys, and decide how to read its object."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bakthat import models
from bakthat.archive.report import ArchiveReport
from bakthat.archive.tar.member import Owner
from bakthat.backends.base import Backend
from bakthat.crypto import age
from bakthat.errors import (
    ArchiveError,
    ConfigError,
    ContainerNotFoundError,
    CorruptArchiveError,
    KeyFormatError,
    NoMatchError,
    NotFoundError,
    PasswordError,
    UsageError,
)
from bakthat.format import names
from bakthat.format.description import FORMAT, INCREMENT_FORMAT, archive_identity, sanitized
from bakthat.passwords import DecryptionKeys, decryption_passphrase, identity_text
from bakthat.pipeline import read
from bakthat.session.entries import entry_of, is_value, value_entry
from bakthat.session.lookup import find_backup
from bakthat.session.session import Session
from bakthat.session.sets import divide, parse_source
from bakthat.system.paths import PathLike
from bakthat.system.streams import ByteCounter, Progress, ProgressState, state_receiver
from bakthat.system.text import human_size, printable, to_native

log = logging.getLogger("bakthat")

MAX_VALUE_BYTES = 256 * 1024 * 1024
"""The largest size of a value's JSON, which is held in memory."""

HEADER_PEEK_BYTES = 256
"""How many bytes of an age file show whether a passphrase or an identity opens it."""

SLACK_BYTES = 64 * 1024 * 1024
SLACK_FACTOR = 2
"""The limit of the unpacked size is SLACK_FACTOR times the size of the content plus SLACK_BYTES."""
MEMBER_BYTES = 4096
"""Added to the size of the content for the headers and extended attributes of each member."""
UNANNOUNCED_FACTOR = 200
UNANNOUNCED_BYTES = 1024 * 1024 * 1024
"""The limit where the size of the content is not known is UNANNOUNCED_FACTOR times the stored size
plus UNANNOUNCED_BYTES. A size that was only announced does not lower it."""

_ANY_SIZE = "where you trust it, --any-size restores it (any_size=True in Python)"
_REPLACED = f"the object was replaced on the storage; {_ANY_SIZE}"
_GREW_OR_REPLACED = (
    "the tree grew while it was read, or the object was replaced on the storage; " + _ANY_SIZE
)


def find_to_restore(
    session: Session, name: str, host: str | None, source: PathLike | None = None
) -> models.Backups:
    """Find a backup in the catalog or, by its whole stored filename, on the storage.

    Raises NoMatchError, AmbiguousNameError, UsageError.
    """
    try:
        found = find_backup(session, name, host=host, source=source)
    except NoMatchError:
        stored = _find_on_storage(session, name, host) or _find_value(session, name, host)
        if stored is None or (host is not None and stored.host != host):
            raise
        if not divide([stored])[0].fits(parse_source(source)):
            raise
        log.info("%s is not in the catalog, but on the storage", printable(name))
        return stored
    refresh_entry(session, found)
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
) -> DecryptionKeys:
    """Return the keys that open *backup*; none if it is unencrypted.

    Raises PasswordError, KeyFormatError, ConfigError.
    """
    if not expected.encrypted:
        return DecryptionKeys()
    profile = session.profile.as_mapping()
    if not expected.is_legacy and _encryption_kind(backend, backup) == "recipients":
        text = identity_text(profile, identity_file=identity_file)
        try:
            return DecryptionKeys(identities=tuple(age.parse_identities(text)))
        except KeyFormatError as exc:
            path = printable(identity_file or profile["identity_file"])
            raise KeyFormatError(f"'{path}': {exc}", hint=exc.hint) from exc
    return DecryptionKeys(decryption_passphrase(profile, password=password, prompt=prompt))


class KeyFinder:
    """Finds the keys of backups for one operation. A password is asked for once."""

    def __init__(
        self,
        session: Session,
        password: str | None = None,
        identity_file: PathLike | None = None,
        prompt: bool = True,
    ) -> None:
        self._session = session
        self._password = password
        self._identity_file = identity_file
        self._prompt = prompt
        self._found: dict[str, DecryptionKeys] = {}
        self.file_keys = age.FileKeys()
        """The file keys of what was opened: an archive and its index have the same."""

    def of(
        self, backend: Backend, backup: models.Backups, expected: read.Expected
    ) -> DecryptionKeys:
        """Return the keys of *backup*; see :func:`find_keys`."""
        known = self._found.get(backup.stored_filename)
        if known is not None:
            return known
        try:
            keys = find_keys(
                self._session,
                backend,
                backup,
                expected,
                password=self._password,
                identity_file=self._identity_file,
                prompt=self._prompt,
            )
        except PasswordError:
            if backup.metadata.get("encryption") != "recipients":
                self._prompt = False  # the answer was empty: do not ask again
            raise
        if keys.passphrase is not None:
            self._password = keys.passphrase
        self._found[backup.stored_filename] = keys
        return keys


def expected_of(backup: models.Backups, *, any_size: bool = False) -> read.Expected:
    """Return how to read the object, by its entry or else by its stored name.

    *any_size* lifts the limit of the unpacked size, except for a value, which is held in memory.
    Where nothing is written, none is needed. Raises ArchiveError for a format of later versions.
    """
    check_format(backup)
    if backup.is_key_value:
        return _expected_value(backup)
    description = sanitized(backup.metadata)
    extension, encryption = _extensions(backup.stored_filename)
    usual_kind = "archive" if extension in (".tgz", ".tar") else "file"
    is_archive = description.get("kind", usual_kind) == "archive"
    compressed = extension == ".gz" or (is_archive and extension == ".tgz")
    return read.Expected(
        is_archive=is_archive,
        compressed=compressed,
        encrypted=backup.is_encrypted,
        name=_safe_name(str(description.get("name") or backup.filename)),
        check_identity=functools.partial(_check_identity, backup) if is_archive else None,
        sha256=str(backup.metadata.get("sha256") or ""),
        mode=description.get("mode"),
        mtime_ns=description.get("mtime_ns"),
        owner=_owner(description),
        is_legacy=encryption == ".enc",
        limit=None if any_size else unpacked_limit(backup),
    )


def check_format(backup: models.Backups) -> None:
    """Raise ArchiveError when a later version stored the object, in a format of its own."""
    found = sanitized(backup.metadata).get("format", FORMAT)
    if found > INCREMENT_FORMAT:
        raise ArchiveError(
            f"{printable(backup.stored_filename)} has format {found}, and this version of bakthat "
            f"reads up to {INCREMENT_FORMAT}",
            hint="upgrade bakthat",
        )


def unpacked_limit(backup: models.Backups) -> read.SizeLimit:
    """Return how much an object may unpack to; more is refused, since it could fill a disk.

    The machine that made a backup knows what it stored. The description on the storage was written
    before the tree was read, which may have grown since, so its counts are hints: they raise the
    limit, and never lower it.
    """
    description = sanitized(backup.metadata)
    unannounced = max(backup.size, 0) * UNANNOUNCED_FACTOR + UNANNOUNCED_BYTES
    if "bytes" not in description:
        return read.SizeLimit(unannounced, "how much was backed up is not known", _ANY_SIZE)
    members = description.get("files", 0) + description.get("directories", 0)
    # The listings of an increment's directories may be longer than what is in its files.
    content = max(
        int(description["bytes"] + members * MEMBER_BYTES), int(description.get("tar_bytes", 0))
    )
    limit = content * SLACK_FACTOR + SLACK_BYTES
    size = human_size(description["bytes"])
    # Only the machine that made the backup knows the path of its source. To others, sync tells what
    # the storage says.
    if "source" in backup.metadata and "seconds" in backup.metadata:
        return read.SizeLimit(limit, f"{size} were backed up", _REPLACED)
    known = f"{size} were counted before the backup was made"
    return read.SizeLimit(max(limit, unannounced), known, _GREW_OR_REPLACED)


def with_size(expected: read.Expected, size: int) -> read.Expected:
    """Return *expected* with a limit that lets *size* bytes of content pass, as the index says.

    Of a stream, only the index says on the storage how long it is. As any announced size, it raises
    the limit, and never lowers it.
    """
    found = expected.limit
    if found is None or found.bytes >= size * SLACK_FACTOR + SLACK_BYTES:
        return expected
    limit = replace(found, bytes=size * SLACK_FACTOR + SLACK_BYTES)
    return replace(expected, limit=limit)


def byte_counter(
    progress: Progress | None, total: int, report: ArchiveReport | None = None
) -> ByteCounter:
    """Return a function that adds up bytes and calls *progress* with their sum and *total*.

    A *total* that turns out too low grows with the sum. *report* is that of a restore, and knows
    what is written.
    """
    if progress is None:
        return _count_nothing
    on_state = state_receiver(progress)
    done = 0

    def add(size: int) -> None:
        nonlocal done
        done += size
        path, written = "", None
        if report is not None and report.current is not None:
            path, written = report.current()
        on_state(ProgressState(done, max(done, total), written, path))

    return add


def _count_nothing(_size: int) -> None:
    pass


def _extensions(stored_filename: str) -> tuple[str, str]:
    """Return the extensions of the archive and of the encryption; "" for none."""
    parsed = names.parse_any_name(stored_filename)
    return (parsed.extension, parsed.encryption) if parsed is not None else ("", "")


def _expected_value(backup: models.Backups) -> read.Expected:
    description: dict[str, Any] = backup.metadata
    name = backup.filename.rpartition("/")[2]  # 0.6.0 let keys hold slashes
    return read.Expected(
        is_archive=False,
        compressed=bool(description.get("is_gzipped")),
        encrypted=bool(description.get("is_enc")),
        name=_safe_name(name if name.endswith(".json") else f"{name}.json"),
        check_identity=None,
        sha256="",
        mode=None,
        mtime_ns=None,
        is_legacy="format" not in description,
        is_value=True,
        limit=read.SizeLimit(MAX_VALUE_BYTES, "no value is larger", "the object was replaced"),
    )


def _owner(description: Mapping[str, Any]) -> Owner | None:
    if "uid" not in description or "gid" not in description:
        return None
    user, group = str(description.get("owner", "")), str(description.get("group", ""))
    return Owner(description["uid"], description["gid"], user.encode(), group.encode())


def _check_identity(backup: models.Backups, comment: bytes) -> None:
    """Raise CorruptArchiveError when the archive's identity differs from its entry.

    For an object without a self-description, which somebody may have renamed, log a warning only.
    """
    expected = archive_identity(backup.filename, backup.backup_date, backup.host, backup.source_id)
    is_described = "format" in backup.metadata
    if not (is_described or backup.host) and comment.startswith(expected.encode()):
        return  # only the name is known: an inventory has no hosts
    if comment == expected.encode() or (not comment and not is_described):
        return
    found = printable(os.fsdecode(comment)) or "nothing"
    if not is_described:
        log.warning("the archive says that it is '%s', not '%s'", found, printable(expected))
        return
    raise CorruptArchiveError(
        f"the archive says that it is '{found}', not '{printable(expected)}'",
        hint="restore another backup: another object was put in its place on the storage",
    )


def _safe_name(name: str) -> str:
    """Return *name* as that of a file.

    Raises CorruptArchiveError when it could leave the destination.
    """
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise CorruptArchiveError(
            f"the file is stored under the name '{printable(name)}', which no file can have"
        )
    return to_native(name)


def _encryption_kind(backend: Backend, backup: models.Backups) -> str:
    """Return "passphrase" or "recipients", by the entry or else by the object's first bytes."""
    description = backup.metadata.get("encryption")
    if description in ("passphrase", "recipients"):
        return str(description)
    return peek_at_encryption(backend, backup.stored_filename)


def peek_at_encryption(backend: Backend, key: str) -> str:
    """Return "passphrase" or "recipients", by the first bytes of an object. Raises StorageError."""
    with backend.download(key, end=HEADER_PEEK_BYTES) as stream:
        return "passphrase" if b"\n-> scrypt " in stream.read(HEADER_PEEK_BYTES) else "recipients"


def _find_on_storage(session: Session, name: str, host: str | None) -> models.Backups | None:
    """Return an unsaved entry for an object that the catalog does not list."""
    prefix = session.prefix_of(host)
    # The prefix may be another host's. No set has a slash in its name.
    parsed = names.parse_stored_name(name.removeprefix(prefix).rpartition("/")[2])
    if parsed is None:
        return None
    backend = session.backend(session.destination)
    keys = list(dict.fromkeys((name, prefix + name)))
    for key in keys:
        try:
            return entry_of(backend, backend.stat(key), parsed)
        except NotFoundError:
            # The vault may still hold it; the error says how to find out.
            if backend.name == "glacier" and key == keys[-1]:
                raise
    return None


def _find_value(session: Session, name: str, host: str | None) -> models.Backups | None:
    """Return an unsaved entry for a value that the catalog does not list."""
    if session.destination == "glacier":
        return None
    is_whole = name.endswith(names.KEY_VALUE_EXTENSION)
    try:
        backend = session.backend(session.destination)
        stored = backend.stat(
            name if is_whole else f"{session.prefix_of(host)}{name}{names.KEY_VALUE_EXTENSION}"
        )
    except (ConfigError, ContainerNotFoundError, NotFoundError, UsageError) as exc:
        log.debug("no value has that name: %s", exc)
        return None
    return value_entry(backend, stored) if is_value(stored) else None


def refresh_entry(session: Session, backup: models.Backups) -> None:
    """Update an entry from the storage, if the catalog alone cannot say how to read the object.

    That is a value, which another machine may have replaced, and an entry whose metadata are
    damaged.
    """
    if backup.metadata and not (backup.is_key_value and "format" in backup.metadata):
        return  # 0.6.0's objects do not describe themselves
    backend = session.backend(backup.backend)
    with contextlib.suppress(NotFoundError):  # the download raises it
        stored = backend.stat(backup.stored_filename)
        if backup.is_key_value:
            found = value_entry(backend, stored)
            backup.metadata, backup.size = found.metadata, found.size
            backup.backup_date = found.backup_date
            return
        parsed = names.parse_any_name(backup.stored_filename.rpartition("/")[2])
        if parsed is not None:
            backup.metadata = entry_of(backend, stored, parsed).metadata
