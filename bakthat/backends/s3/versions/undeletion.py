"""Bring back a version of an object that was deleted or overwritten.

Nothing of an object is deleted for that. A delete marker is removed by its version id, which shows
the version below it again. A version below another one is copied over it, and the overwriting one
stays as a version. By https://docs.aws.amazon.com/AmazonS3/latest/userguide/DeleteMarker.html and
https://docs.aws.amazon.com/AmazonS3/latest/userguide/RestoringPreviousVersions.html.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from bakthat.backends.aws.client import answer_of
from bakthat.backends.aws.permissions import arn
from bakthat.backends.base import StoredObject
from bakthat.backends.lock import Lock
from bakthat.backends.protection import NULL_VERSION, Version
from bakthat.backends.s3.client import S3Client
from bakthat.backends.s3.locks import BucketLocks
from bakthat.backends.s3.thaw import thaw_status_of
from bakthat.backends.s3.upload import describe, etag_of
from bakthat.backends.s3.versions.listing import list_versions_of
from bakthat.errors import (
    BakthatError,
    CredentialsError,
    NotFoundError,
    NotReadyError,
    StorageError,
    UnreachableError,
)
from bakthat.system.threads import ThreadPool

log = logging.getLogger(__name__)

MAX_COPY_BYTES = 5 * 1024**3
"""The largest object that one request copies, and the largest part, by
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html."""
COPIED_PART_BYTES = 512 * 1024**2
"""The size of the parts of a copy where those of the original are not known."""
WORKERS = 8
"""How many parts are looked at or copied at once: their bytes do not pass through this machine."""
_KEPT_HEADERS = ("ContentType", "ContentEncoding", "ContentDisposition", "CacheControl", "Metadata")
"""What describes an object, and has to be given again to an upload in parts."""


def headers_of_version(client: S3Client, key: str, version_id: str) -> dict[str, Any]:
    """Return the headers of one version of *key*. Raises NotFoundError."""
    try:
        return client.call("head_object", key=key, VersionId=version_id)
    except CredentialsError as exc:
        _name_action(client, exc, "s3:GetObjectVersion", key)
        raise


def _name_action(client: S3Client, error: StorageError, action: str, key: str) -> None:
    """Let the hint of *error* name the *action* on a version, if a permission is missing."""
    if client.missing_action(error):
        within = f"{client.container}/{key[: key.rfind('/') + 1]}*"
        where = arn("s3", client.settings.region, within)
        error.hint = f"allow {action} on {where}, in the policy of the access keys"


class Undeletion:
    """Brings one version back. *locks* are those of the bucket, *page_size* is of its listings."""

    def __init__(
        self,
        client: S3Client,
        locks: BucketLocks,
        version: Version,
        *,
        page_size: int,
        lock: Lock | None,
    ) -> None:
        self._client = client
        self._locks = locks
        self._version = version
        self._key = version.key
        self._page_size = page_size
        self._lock = lock

    def run(self) -> StoredObject:
        """Bring it back; see :class:`~bakthat.backends.protection.VersionedStorage`."""
        above = self._above()
        refusal = None
        if all(each.is_marker for each in above):
            refusal = self._remove_markers(above)
            if refusal is None:
                return self._current(self._version.version_id)
        try:
            return self._copied()
        except CredentialsError as exc:
            # The removal of the markers would do as well, and needs no right to write.
            if refusal is not None:
                exc.hint = "; or ".join(filter(None, (refusal.hint, exc.hint)))
            raise

    def _above(self) -> list[Version]:
        """Return what hides the version now, the newest first."""
        of_key = list(list_versions_of(self._client, self._key, page_size=self._page_size))
        ids = [each.version_id for each in of_key]
        if self._version.version_id not in ids:
            raise NotFoundError(
                f"{self._client.shown} has no version {self._version.version_id} of {self._key!r} "
                "any more",
                hint="it was removed meanwhile: bakthat sync --as-of lists what is left",
            )
        place = ids.index(self._version.version_id)
        # Markers are listed apart from objects, with times of whole seconds: those of the same
        # second may hide it too.
        same_second = [
            each
            for each in of_key[place + 1 :]
            if each.is_marker and each.last_modified >= of_key[place].last_modified
        ]
        return of_key[:place] + (same_second if place else [])

    def _remove_markers(self, markers: Sequence[Version]) -> StorageError | None:
        """Remove the delete *markers*; return why one cannot be removed."""
        for each in markers:
            try:
                self._client.call("delete_object", key=self._key, VersionId=each.version_id)
            except UnreachableError:
                raise
            except StorageError as exc:
                if not 400 <= answer_of(exc)[0] < 500:
                    raise
                log.info(
                    "a delete marker of %s cannot be removed, so the version is copied: %s",
                    self._key,
                    exc,
                )
                _name_action(self._client, exc, "s3:DeleteObjectVersion", self._key)
                return exc
        return None

    def _copied(self) -> StoredObject:
        """Copy the version over whatever hides it."""
        found = headers_of_version(self._client, self._key, self._version.version_id)
        status = thaw_status_of(self._key, found)
        if not status.is_readable:
            raise NotReadyError(
                f"the version of {self._key!r} to bring back must be copied, and is frozen in "
                f"{status.storage_class}",
                hint="thaw that version, then run this again: aws s3api restore-object --bucket "
                f"{self._client.container} --key '{self._key}' --version-id "
                f"{self._version.version_id} --restore-request Days=3",
            )
        headers: dict[str, Any] = {}
        # A copy is in the class STANDARD otherwise.
        if found.get("StorageClass"):
            headers["StorageClass"] = found["StorageClass"]
        if self._client.settings.sse is None:
            headers |= _encryption_of(found)
        sizes = self._part_sizes(found)
        if sizes is None:
            answer = self._copy_whole(found, headers)
        else:
            described = {name: found[name] for name in _KEPT_HEADERS if found.get(name)}
            answer = self._copy_parts(found, sizes, headers | described)
        copy = self._current(str(answer.get("VersionId") or NULL_VERSION), found)
        return replace(copy, lock=self._locked(copy.lock))

    def _source(self, found: Mapping[str, Any]) -> dict[str, Any]:
        version_id = self._version.version_id
        source = {"Bucket": self._client.container, "Key": self._key, "VersionId": version_id}
        return {"CopySource": source, "CopySourceIfMatch": found["ETag"]}

    def _copy_whole(self, found: Mapping[str, Any], headers: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._client.call("copy_object", key=self._key, **headers, **self._source(found))
        self._client.check_encryption(self._key, answer)
        return answer

    def _part_sizes(self, found: Mapping[str, Any]) -> list[int] | None:
        """Return the sizes of the parts to copy; None to copy the object in one request.

        An object in parts has an ETag that depends on where they begin. A copy in the same parts
        has the same one, by which anybody sees that it is the same.
        """
        count = etag_of(found).rpartition("-")[2]
        size = int(found["ContentLength"])
        if "-" in etag_of(found) and count.isdecimal():
            sizes = self._original_parts(int(count))
            if sum(sizes) == size:
                return sizes
        if size <= MAX_COPY_BYTES:
            return None
        whole, rest = divmod(size, COPIED_PART_BYTES)
        return [COPIED_PART_BYTES] * whole + [rest] * bool(rest)

    def _original_parts(self, count: int) -> list[int]:
        """Return the sizes of the parts of the version; nothing where the storage says none."""

        def size_of(number: int) -> int:
            found = self._client.call(
                "head_object",
                key=self._key,
                VersionId=self._version.version_id,
                PartNumber=number,
            )
            return int(found["ContentLength"]) if found.get("PartsCount") == count else 0

        try:
            if not size_of(1):
                return []
            pool = ThreadPool(WORKERS, thread_name_prefix="bakthat-parts")
            try:
                return list(pool.map(size_of, range(1, count + 1)))
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        except StorageError as exc:
            if exc.may_pass:
                raise
            log.debug("the parts of %s are not known: %s", self._key, exc)
            return []

    def _copy_parts(
        self, found: Mapping[str, Any], sizes: Sequence[int], headers: Mapping[str, Any]
    ) -> dict[str, Any]:
        begun = self._client.call("create_multipart_upload", key=self._key, **headers)
        upload_id = self._client.answer_member(begun, "UploadId")
        self._check_encryption(upload_id, begun)
        source = self._source(found)

        def copy(number: int, start: int, size: int) -> dict[str, Any]:
            answer = self._client.call(
                "upload_part_copy",
                key=self._key,
                UploadId=upload_id,
                PartNumber=number,
                CopySourceRange=f"bytes={start}-{start + size - 1}",
                **source,
            )
            result = answer.get("CopyPartResult") or {}
            return {"PartNumber": number, "ETag": self._client.answer_member(result, "ETag")}

        try:
            starts = accumulate(sizes[:-1], initial=0)
            pool = ThreadPool(WORKERS, thread_name_prefix="bakthat-parts")
            try:
                parts = list(pool.map(copy, range(1, len(sizes) + 1), starts, sizes))
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
            return self._client.call(
                "complete_multipart_upload",
                key=self._key,
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
            )
        except BaseException:
            self._abort(upload_id)
            raise

    def _check_encryption(self, upload_id: str, begun: Mapping[str, Any]) -> None:
        try:
            self._client.check_encryption(self._key, begun)
        except StorageError:
            self._abort(upload_id)
            raise

    def _abort(self, upload_id: str) -> None:
        try:
            self._client.call("abort_multipart_upload", key=self._key, UploadId=upload_id)
        except BakthatError as exc:
            if answer_of(exc)[1] != "NoSuchUpload":
                log.warning(
                    "parts of %s may remain in bucket %s: %s; bakthat cleanup removes them",
                    self._key,
                    self._client.container,
                    exc,
                )

    def _current(self, version_id: str, original: Mapping[str, Any] | None = None) -> StoredObject:
        """Return what the storage answers for the key, if that is the version or its copy.

        Raises StorageError otherwise: somebody deletes or overwrites it again.
        """
        found = self._client.head(self._key)
        current = str((found or {}).get("VersionId") or version_id)
        if found is None or current != version_id:
            raise StorageError(
                f"{self._key!r} was brought back, and is hidden again",
                hint="change the access keys first: somebody else deletes or overwrites it",
            )
        if original is not None and _difference(original, found):
            raise StorageError(
                f"the copy of {self._key!r} has another {_difference(original, found)} than the "
                "version that was copied",
                hint="try again; both stay as versions",
            )
        stored = describe(self._key, found)
        return replace(stored, extra={**stored.extra, "version": current})

    def _locked(self, found: Lock | None) -> Lock | None:
        """Lock the copy; return its lock, as far as it is known.

        That may wait until it is there: the version that was copied keeps its own lock.
        """
        wanted = self._lock
        if wanted is None:
            return found
        try:
            if wanted.until is not None:
                self._locks.extend(self._key, wanted)
            if wanted.is_held:
                self._locks.hold(self._key)
            return self._locks.look(self._key)
        except StorageError as exc:
            log.warning("%s is back, but is not locked: %s", self._key, exc)
            return found


def _encryption_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what asks for the encryption that a version has, if it is by a key of KMS."""
    if not str(found.get("ServerSideEncryption") or "").startswith("aws:kms"):
        return {}  # that of the bucket is as good
    names = ("ServerSideEncryption", "SSEKMSKeyId", "BucketKeyEnabled")
    return {name: found[name] for name in names if found.get(name)}


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return in what a copy differs from its original; "" for nothing."""
    if one["ContentLength"] != other["ContentLength"]:
        return "size"
    if describe("", one).metadata != describe("", other).metadata:
        return "self-description"
    return ""
