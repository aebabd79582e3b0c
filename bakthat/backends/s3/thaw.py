"""Parse the thaw status of an object from S3's headers, and request a thaw.

The headers are those of https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html.
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bakthat.backends.aws.client import answer_of
from bakthat.backends.base import ThawState, ThawStatus
from bakthat.backends.s3.client import S3Client, class_of
from bakthat.errors import StorageError, UnreachableError
from bakthat.policy.storage_classes import check_tier, storage_class

_RESTORE = re.compile(r'ongoing-request="(true|false)"(?:,\s*expiry-date="([^"]*)")?')
_INTELLIGENT_TIERS = ("ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS")


def thaw_status_of(key: str, found: Mapping[str, Any]) -> ThawStatus:
    """Return the thaw status of *key* from *found*, the answer to a HEAD request."""
    name = class_of(found)
    if not storage_class(name).is_cold:
        return ThawStatus(key, ThawState.WARM)
    match = _RESTORE.search(str(found.get("Restore") or ""))
    if match is None:
        return ThawStatus(key, ThawState.FROZEN, name)
    if match[1] == "true":
        return ThawStatus(key, ThawState.ASKED, name)
    return _copy_until(key, name, _epoch_seconds(match[2]))


def listed_status_of(entry: Mapping[str, Any]) -> ThawStatus | None:
    """Return the thaw status of an object from its *entry* in a listing; None without a thaw."""
    name, status = str(entry.get("StorageClass", "")), entry.get("RestoreStatus")
    if not status or not storage_class(name).is_cold:
        return None
    if status.get("IsRestoreInProgress"):
        return ThawStatus(entry["Key"], ThawState.ASKED, name)
    expires = status.get("RestoreExpiryDate")
    if expires is None:
        return None
    thaw = _copy_until(entry["Key"], name, expires.timestamp())
    return thaw if thaw.is_readable else None


def request_thaw(
    client: S3Client, frozen: ThawStatus, *, tier: str, days: int
) -> ThawStatus | None:
    """Request the thaw of an object that is frozen; return its status.

    Returns None when the answer was lost, so that the status must be looked up. S3 refuses
    a second request while the object thaws, so it is never charged twice.
    """
    check_tier(frozen.storage_class, tier)
    request: dict[str, Any] = {"GlacierJobParameters": {"Tier": tier.capitalize()}}
    # Intelligent tiering moves the object itself, so no copy expires.
    if frozen.storage_class not in _INTELLIGENT_TIERS:
        request["Days"] = days
    requested = replace(frozen, state=ThawState.ASKED)
    try:
        # Without capacity for an expedited thaw, botocore would repeat the request for a minute.
        answer = client.call("restore_object", key=frozen.key, once=True, RestoreRequest=request)
    except StorageError as exc:
        status, code = answer_of(exc)
        if code == "RestoreAlreadyInProgress":
            return requested
        if isinstance(exc, UnreachableError) or code in ("InternalError", "500"):
            return None
        if code == "GlacierExpeditedRetrievalNotAvailable":
            exc.hint = "try again later, or use --tier standard"
        elif status in (501, 405):
            exc.hint = "this storage cannot thaw objects of an archive class"
        raise
    if answer.get("ResponseMetadata", {}).get("HTTPStatusCode") == 200:
        # The copy existed already, and stays for longer now.
        return replace(frozen, state=ThawState.READY, ready_until=time.time() + days * 86400)
    return replace(requested, tier=tier, requested_at=time.time())


def _copy_until(key: str, name: str, expires: float | None) -> ThawStatus:
    # S3 removes an expired copy some time later; until then the header still names it.
    if expires is not None and expires <= time.time():
        return ThawStatus(key, ThawState.FROZEN, name)
    return ThawStatus(key, ThawState.READY, name, ready_until=expires)


def _epoch_seconds(date: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() if date else None
    except ValueError:
        return None
