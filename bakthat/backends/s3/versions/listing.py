"""The versions that a bucket keeps of objects that were overwritten or deleted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import merge
from http import HTTPStatus
from itertools import groupby
from operator import attrgetter
from typing import Any

from bakthat.backends.aws.client import answer_of
from bakthat.backends.protection import NULL_VERSION, Version
from bakthat.backends.s3.client import S3Client
from bakthat.errors import ContainerNotFoundError, StorageError

_UNKNOWN_THERE = frozenset(
    {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}
)
_OF_LISTING = ("IsTruncated", "MaxKeys", "Versions", "DeleteMarkers")
"""Members of which a page of a listing has one at least, whatever the service leaves out."""


def has_versions(client: S3Client) -> bool:
    """Return whether the bucket keeps versions, or has kept them. Raises StorageError."""
    try:
        answer = client.call("get_bucket_versioning")
    except StorageError as exc:
        status, code = answer_of(exc)
        is_missing = isinstance(exc, ContainerNotFoundError) and code in ("NoSuchBucket", "404")
        if status in _UNKNOWN_THERE and not is_missing:
            return False
        raise
    return answer.get("Status") in ("Enabled", "Suspended")


def list_versions(client: S3Client, prefix: str, *, page_size: int) -> Iterator[Version]:
    """Yield the versions and delete markers below *prefix*; see :class:`~.VersionedStorage`."""
    found = _listed(client, prefix, page_size)
    for _, group in groupby(found, attrgetter("key")):
        of_key = list(group)
        # Versions and markers are listed apart from each other, each the newest first. That stays:
        # to some storages, a version is as new as the last change of its lock.
        ordered = merge(
            (each for each in of_key if not each.is_marker),
            (each for each in of_key if each.is_marker),
            key=lambda each: (not each.is_latest, -each.last_modified),
        )
        # SeaweedFS lists the version "null" behind others of its second.
        yield from sorted(ordered, key=lambda each: not each.is_latest)


def list_versions_of(client: S3Client, key: str, *, page_size: int) -> Iterator[Version]:
    """Yield the versions and delete markers of one key, the newest first."""
    for each in list_versions(client, key, page_size=page_size):
        if each.key.encode() > key.encode():
            return  # by the order of the listing, the others are behind it
        if each.key == key:
            yield each


def _listed(client: S3Client, prefix: str, page_size: int) -> Iterator[Version]:
    """Yield versions and markers ordered by key, as far as the storage orders each page."""
    pages = client.pages(
        "list_object_versions", Prefix=prefix, PaginationConfig={"PageSize": page_size}
    )
    for page in pages:
        if page.keys().isdisjoint(_OF_LISTING):
            # To botocore, an empty body is an empty page and the end of the listing.
            client.answer_member(page, "Name")
        found = [_version(each, is_marker=False) for each in page.get("Versions", ())]
        found += [_version(each, is_marker=True) for each in page.get("DeleteMarkers", ())]
        yield from sorted(found, key=attrgetter("key"))


def _version(found: Mapping[str, Any], *, is_marker: bool) -> Version:
    return Version(
        found["Key"],
        str(found.get("VersionId") or NULL_VERSION),
        int(found.get("Size") or 0),
        found["LastModified"].timestamp(),
        bool(found.get("IsLatest")),
        is_marker,
        str(found.get("ETag") or "").strip('"'),
    )
