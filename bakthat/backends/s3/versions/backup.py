"""Find out which versions of a key are the backup that bakthat stored there.

bakthat writes a key once, so of several versions the first one that fits the key is the backup, as
is a copy of it that brought it back. What somebody stored before or over it is another object. Only
an index may have been made again, from its archive.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bakthat.backends.protection import Version, fits_key
from bakthat.backends.s3.client import S3Client
from bakthat.backends.s3.upload import describe
from bakthat.backends.s3.versions.listing import list_versions_of
from bakthat.errors import CredentialsError, NotFoundError, StorageError
from bakthat.format.names import is_index_key
from bakthat.system.text import utc_time

log = logging.getLogger(__name__)

_MAX_LOOKED_AT = 10
"""The most versions of a key that are looked at, each by a request."""


@dataclass(frozen=True, slots=True)
class BackupVersions:
    """The versions of a key that are the backup, and what became of it."""

    ids: Sequence[str | None]
    """The newest first; what the key shows is the first one, unless there is a *change*. One None
    for what the key shows, where versions may not be listed."""
    change: StorageError | None = None
    """What the key shows instead; a NotFoundError when a delete marker hides it."""


def versions_of_backup(client: S3Client, key: str, *, page_size: int) -> BackupVersions:
    """Return which versions of *key* are the backup: one request, where it was written once.

    Raises NotFoundError when there is no version.
    """
    try:
        versions = list(list_versions_of(client, key, page_size=page_size))
    except CredentialsError as exc:
        if not client.missing_action(exc):
            raise
        log.debug("the versions of %r cannot be listed: %s", key, exc)
        return BackupVersions([None])
    written = [each for each in versions if not each.is_marker]
    if not written:
        raise NotFoundError(f"{client.shown} has no {key!r}")
    shown = versions[0]
    first = written[0] if len(written) == 1 else _first_that_fits(client, written)
    if shown == first:
        return BackupVersions([first.version_id])
    if not shown.is_marker and (
        _is_copy(client, shown, first) or (is_index_key(key) and _fits(client, shown))
    ):
        return BackupVersions([shown.version_id, first.version_id])
    return BackupVersions([first.version_id], _change(client, shown))


def _change(client: S3Client, shown: Version) -> StorageError:
    name, when = f"{shown.key!r} in {client.shown}", utc_time(shown.last_modified)
    hint = "bakthat undelete brings it back"
    if shown.is_marker:
        return NotFoundError(
            f"{name} was deleted on {when} UTC, and the storage has its version from before",
            hint=hint,
        )
    return StorageError(
        f"{name} was overwritten on {when} UTC, and the storage has its version from before",
        hint=hint,
    )


def _first_that_fits(client: S3Client, written: Sequence[Version]) -> Version:
    """Return the first of the versions *written*, newest first, that describes itself as its key.

    The first one of all, if none does.
    """
    different: dict[object, Version] = {}
    for each in reversed(written):
        different.setdefault((each.size, each.etag) if each.etag else each.version_id, each)
    looked_at = list(different.values())[:_MAX_LOOKED_AT]
    try:
        for each, found in _headers(client, looked_at):
            if fits_key(describe(each.key, found)):
                return each
    except CredentialsError as exc:
        log.debug("the versions of %r cannot be looked at: %s", written[0].key, exc)
    return written[-1]


def _fits(client: S3Client, version: Version) -> bool:
    """Return whether a version describes itself as its key, as far as that is seen."""
    try:
        ((_, found),) = _headers(client, [version])
    except CredentialsError:
        return False
    return bool(fits_key(describe(version.key, found)))


def _is_copy(client: S3Client, one: Version, first: Version) -> bool:
    """Return whether a version has the content of *first*, as far as that is seen."""
    if one.size != first.size:
        return False
    if one.etag and one.etag == first.etag:
        return True
    # With a key of KMS, the ETag is not a checksum of the content.
    try:
        (_, copy), (_, original) = _headers(client, (one, first))
    except CredentialsError:
        return False
    encryption = str(original.get("ServerSideEncryption") or "")
    return (
        encryption.startswith("aws:kms")
        and describe(one.key, copy).metadata == describe(one.key, original).metadata
    )


def _headers(
    client: S3Client, versions: Sequence[Version]
) -> Iterator[tuple[Version, Mapping[str, Any]]]:
    for each in versions:
        yield each, client.call("head_object", key=each.key, VersionId=each.version_id)
