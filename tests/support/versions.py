"""Buckets with versions and locks, as boto3 makes them, independent of bakthat."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tests.support.profiles import Conf
from tests.support.servers import plain


def make_bucket(conf: Conf, *, status: str = "Enabled", locks: bool = False) -> Any:
    """Make the bucket of a profile, with versions; return a client of boto3."""
    client = plain(conf)
    client.create_bucket(Bucket=conf["s3_bucket"], ObjectLockEnabledForBucket=locks)
    if not locks:
        set_versions(conf, status)
    return client


def set_versions(conf: Conf, status: str) -> None:
    """Let the bucket keep versions ("Enabled") or no new ones ("Suspended")."""
    plain(conf).put_bucket_versioning(
        Bucket=conf["s3_bucket"], VersioningConfiguration={"Status": status}
    )


def put_version(
    conf: Conf,
    key: str,
    body: bytes = b"x",
    *,
    until: float | None = None,
    mode: str = "GOVERNANCE",
) -> str:
    """Store *body* under *key*, locked *until* a time; return the id of the version."""
    lock: dict[str, Any] = {}
    if until is not None:
        lock = {
            "ObjectLockMode": mode,
            "ObjectLockRetainUntilDate": datetime.fromtimestamp(until, UTC),
        }
    answer = plain(conf).put_object(
        Bucket=conf["s3_bucket"], Key=key, Body=body, ChecksumAlgorithm="CRC32", **lock
    )
    return str(answer.get("VersionId") or "null")


def mark(conf: Conf, key: str) -> None:
    """Hide *key* behind a delete marker."""
    plain(conf).delete_object(Bucket=conf["s3_bucket"], Key=key)


def versions_in(conf: Conf, client: Any = None) -> dict[str, int]:
    """Return how many versions and delete markers each key of the bucket has."""
    pages = (client or plain(conf)).get_paginator("list_object_versions")
    found: dict[str, int] = {}
    for page in pages.paginate(Bucket=conf["s3_bucket"]):
        for each in [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]:
            found[each["Key"]] = found.get(each["Key"], 0) + 1
    return found


def markers_in(conf: Conf, client: Any = None) -> set[str]:
    """Return the keys that have delete markers."""
    pages = (client or plain(conf)).get_paginator("list_object_versions")
    found: set[str] = set()
    for page in pages.paginate(Bucket=conf["s3_bucket"]):
        found |= {each["Key"] for each in page.get("DeleteMarkers", ())}
    return found


def lock(conf: Conf, key: str, until: float, mode: str = "GOVERNANCE") -> None:
    """Lock the latest version of *key* until a time."""
    plain(conf).put_object_retention(
        Bucket=conf["s3_bucket"],
        Key=key,
        Retention={"Mode": mode, "RetainUntilDate": datetime.fromtimestamp(until, UTC)},
    )


def hold(conf: Conf, key: str, *, is_held: bool = True) -> None:
    """Put the latest version of *key* on hold, or release it."""
    plain(conf).put_object_legal_hold(
        Bucket=conf["s3_bucket"], Key=key, LegalHold={"Status": "ON" if is_held else "OFF"}
    )
