"""Lock objects of a bucket with object lock, look at their locks, and put them on hold.

By https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html. Requests that set a lock
are sent only to a bucket that says it has object lock: a storage that does not know them takes them
for uploads, and overwrites the object.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from bakthat.backends.aws.answers import time_of
from bakthat.backends.aws.client import answer_of
from bakthat.backends.lock import Lock
from bakthat.backends.s3.client import S3Client
from bakthat.errors import (
    CredentialsError,
    NotFoundError,
    StorageError,
    UnreachableError,
)
from bakthat.policy.object_lock.rule import COMPLIANCE

log = logging.getLogger(__name__)

_UNKNOWN_THERE = frozenset(
    {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}
)
"""S3 answers 404 with the code ObjectLockConfigurationNotFoundError; others have codes of their
own for it."""
_MISSING_BUCKET = frozenset({"NoSuchBucket", "404"})


class BucketLocks:
    """The locks of the objects of one bucket."""

    def __init__(self, client: S3Client) -> None:
        self._client = client
        self._are_enabled: bool | None = None

    def are_enabled(self) -> bool:
        """Return whether the bucket has object lock; see :class:`~.protection.LockingStorage`."""
        if self._are_enabled is None:
            self._are_enabled = self._look_at_bucket()
        return self._are_enabled

    def forget(self) -> None:
        """Look again the next time: the bucket was just made."""
        self._are_enabled = None

    def _look_at_bucket(self) -> bool:
        try:
            answer = self._client.call("get_object_lock_configuration")
        except StorageError as exc:
            status, code = answer_of(exc)
            if status in _UNKNOWN_THERE and code not in _MISSING_BUCKET:
                return False
            raise
        configuration = answer.get("ObjectLockConfiguration") or {}
        return bool(configuration.get("ObjectLockEnabled") == "Enabled")

    def look(self, key: str, version_id: str | None = None) -> Lock | None:
        """Return the lock of *key*, or of one version of it; None when it may not be looked at.

        Raises NotFoundError.
        """
        return self.look_at(key, version_id)[0]

    def look_at(self, key: str, version_id: str | None = None) -> tuple[Lock | None, float]:
        """Return what :meth:`look` does, and the time by the clock of the storage.

        The time is in epoch seconds UTC; it is this machine's where the storage does not say it.
        """
        which = _parameter(version_id)
        found, now, is_readable = None, time.time(), True
        try:
            answer = self._client.call("head_object", key=key, **which)
            found, now = lock_in(answer), time_of(answer)
        except CredentialsError:
            is_readable = False
        if found is not None and found.until is not None:
            return found, now
        # S3 leaves each header out for access keys that may not see it.
        retention = self._retention_of(key, which, is_readable=is_readable)
        if found is None or not found.is_held:
            return retention, now
        return replace(retention or Lock(), is_held=True), now

    def may_be_held(self, key: str, version_id: str | None = None) -> bool:
        """Return whether *key*, or one version of it, is on hold, or that may not be looked at.

        Where it is not, :meth:`look` may not have seen that either. Raises StorageError.
        """
        try:
            answer = self._client.call("get_object_legal_hold", key=key, **_parameter(version_id))
        except CredentialsError:
            return True
        except StorageError as exc:
            if exc.may_pass:
                raise
            return False  # how S3 says that there is none
        return str((answer.get("LegalHold") or {}).get("Status")).upper() == "ON"

    def _retention_of(
        self, key: str, which: Mapping[str, Any], *, is_readable: bool
    ) -> Lock | None:
        try:
            # Once: moto answers 500 for whatever has no lock, and nobody decides by this alone.
            answer = self._client.call("get_object_retention", key=key, once=True, **which)
        except CredentialsError:
            return None
        except (NotFoundError, UnreachableError):
            raise
        except StorageError as exc:
            # A refusal is how S3 says that there is none; a failure says nothing.
            return None if exc.may_pass and not is_readable else Lock()
        retention = answer.get("Retention") or {}
        return _lock(retention.get("Mode"), retention.get("RetainUntilDate"), "")

    def discard(self, key: str, version_id: str) -> None:
        """Remove one version of *key*, the latest; hide it where that is not allowed.

        Nothing is hidden in a bucket with object lock. Raises StorageError.
        """
        try:
            self._client.call("delete_object", key=key, VersionId=version_id)
        except CredentialsError:
            if self.are_enabled():
                raise
            self._client.call("delete_object", key=key)

    def extend(self, key: str, lock: Lock, version_id: str | None = None) -> None:
        """Let the lock of *key*, or of one version, last longer; see :class:`.LockingStorage`."""
        assert lock.until is not None
        current = self.look(key, version_id) or Lock()
        if current.covers(lock):
            return
        until = max(lock.until, current.until or 0)
        mode = COMPLIANCE if COMPLIANCE in (lock.mode, current.mode) else lock.mode
        retention = {"Mode": mode.upper(), "RetainUntilDate": datetime.fromtimestamp(until, UTC)}
        which = _parameter(version_id)
        self._client.call("put_object_retention", key=key, Retention=retention, **which)

    def hold(self, key: str, version_id: str | None = None) -> None:
        """Put *key*, or one version of it, on hold. Raises NotFoundError."""
        # Of a key that is not stored, some storages answer 500 to the request below, and others
        # put a hold on its delete marker.
        if not self._is_held(key, version_id, unseen=False):
            self._set_hold(key, version_id, "ON")

    def release(self, key: str, version_id: str | None = None) -> None:
        """Release *key*, or one version of it. Raises NotFoundError."""
        if self._is_held(key, version_id, unseen=True):
            self._set_hold(key, version_id, "OFF")

    def _is_held(self, key: str, version_id: str | None, *, unseen: bool) -> bool:
        """Return whether *key* is on hold; *unseen* where the access key may not see that."""
        try:
            found = self._client.call("head_object", key=key, **_parameter(version_id))
        except CredentialsError:
            return unseen
        status = found.get("ObjectLockLegalHoldStatus")
        return unseen if status is None else str(status).upper() == "ON"

    def _set_hold(self, key: str, version_id: str | None, status: str) -> None:
        hold, which = {"Status": status}, _parameter(version_id)
        self._client.call("put_object_legal_hold", key=key, LegalHold=hold, **which)


def _parameter(version_id: str | None) -> dict[str, Any]:
    """Return botocore's parameter for a version; none for what the key shows."""
    return {} if version_id is None else {"VersionId": version_id}


def lock_headers(lock: Lock) -> dict[str, Any]:
    """Return botocore's parameters for an upload that is locked by *lock*, which has a time."""
    assert lock.until is not None
    until = datetime.fromtimestamp(lock.until, UTC)
    return {"ObjectLockMode": lock.mode.upper(), "ObjectLockRetainUntilDate": until}


def lock_in(found: Mapping[str, Any]) -> Lock | None:
    """Return the lock in the headers *found*, of a HEAD request; None when they have none."""
    hold = str(found.get("ObjectLockLegalHoldStatus") or "")
    until = found.get("ObjectLockRetainUntilDate")
    if until is None and not hold:
        return None
    return _lock(found.get("ObjectLockMode"), until, hold)


def _lock(mode: object, until: datetime | None, hold: str) -> Lock:
    return Lock(
        until.timestamp() if until is not None else None,
        str(mode or "").lower() if until is not None else "",
        hold.upper() == "ON",
    )
