"""Write one object to S3: in one request, or in parts that are sent in parallel."""

from __future__ import annotations

import base64
import logging
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from bakthat.backends.aws.client import answer_of
from bakthat.backends.aws.part_buffer import PartBuffer
from bakthat.backends.aws.part_plan import PartPlan
from bakthat.backends.aws.part_upload import PartUpload
from bakthat.backends.base import (
    VERIFIED_BY,
    StoredObject,
    UnreadableError,
    decode_metadata,
)
from bakthat.backends.lock import Lock
from bakthat.backends.s3.client import S3Client, class_of, user_metadata
from bakthat.backends.s3.locks import BucketLocks, lock_headers, lock_in
from bakthat.errors import (
    BakthatError,
    CredentialsError,
    KeyExistsError,
    NotFoundError,
    StorageError,
)
from bakthat.system.streams import Buffer

log = logging.getLogger(__name__)

METADATA_KEY = "bakthat"
TOKEN_KEY = "bakthat-upload"
"""User metadata by which an upload recognises its own object when an answer was lost."""


class S3Upload(PartUpload):
    """An upload to S3; see :class:`~bakthat.backends.base.Upload`.

    *headers* are botocore's parameters that describe the object, its user metadata among them.
    With *lock*, the bucket has the *locks* of its objects.
    """

    def __init__(
        self,
        client: S3Client,
        key: str,
        *,
        headers: Mapping[str, Any],
        plan: PartPlan,
        workers: int,
        replace: bool,
        replaces: str | None = None,
        lock: Lock | None = None,
        locks: BucketLocks | None = None,
    ) -> None:
        super().__init__(key, plan=plan, workers=workers)
        self._client = client
        self._token = uuid.uuid4().hex
        user_metadata = {**headers.get("Metadata", {}), TOKEN_KEY: self._token}
        self._headers = {**headers, "Metadata": user_metadata}
        self._lock, self._locks = lock, locks
        self._replace = replace
        self._replaces = replaces if replace else None

    def _begin(self) -> str:
        if not self._replace:
            self._check_key_is_free()  # fail before gigabytes are sent; _publish checks again
        answer = self._client.call(
            "create_multipart_upload",
            key=self._key,
            ChecksumAlgorithm="CRC32",
            **self._headers_now(),
        )
        upload_id = self._client.answer_member(answer, "UploadId")
        try:
            self._client.check_encryption(self._key, answer)
        except StorageError:
            self._abort_parts(upload_id)
            raise
        return upload_id

    def _headers_now(self) -> dict[str, Any]:
        """Return the headers, with the lock unless it is over: content may be slow to come."""
        if self._lock is None or self._lock.is_over_at(time.time()):
            return self._headers
        return self._headers | lock_headers(self._lock)

    def _upload_part(self, number: int, start: int, part: PartBuffer) -> dict[str, Any]:
        checksum = crc32(part.pieces())
        answer = self._client.call(
            "upload_part",
            key=self._key,
            cancelled=self._cancelled,
            UploadId=self._upload_id,
            PartNumber=number,
            Body=part.body(),
            **checksum_headers(checksum),
        )
        confirmed = answer.get("ChecksumCRC32", checksum)
        if confirmed != checksum or not answer.get("ETag"):
            raise StorageError(
                f"part {number} of {self._key!r} was altered in transit",
                hint="try again; if it happens again, check the memory of this machine and the "
                "network",
            )
        self._spare.append(part)
        entry = {"PartNumber": number, "ETag": answer["ETag"]}
        # S3 requires the checksums that it returned; a storage that returned none may know none.
        return {**entry, "ChecksumCRC32": checksum} if "ChecksumCRC32" in answer else entry

    def _abort_parts(self, upload_id: str) -> None:
        try:
            self._client.call("abort_multipart_upload", key=self._key, UploadId=upload_id)
        except BakthatError as exc:
            if answer_of(exc)[1] != "NoSuchUpload":
                log.warning(
                    "parts of %s may remain in bucket %s, upload %s: %s",
                    self._key,
                    self._client.container,
                    upload_id,
                    exc,
                )

    # Publishing

    def _publish_whole(self, part: PartBuffer) -> StoredObject:
        checksum = crc32(part.pieces())
        request = {"Body": part.body(), **checksum_headers(checksum), **self._headers_now()}
        return self._publish("put_object", request)

    def _publish_parts(self) -> StoredObject:
        self._parts.sort(key=lambda entry: int(entry["PartNumber"]))
        request = {
            "UploadId": self._upload_id,
            "MultipartUpload": {"Parts": self._parts},
            "MpuObjectSize": self._sent,
        }
        return self._publish("complete_multipart_upload", request)

    def _publish(self, operation: str, request: dict[str, Any]) -> StoredObject:
        if not self._replace:
            # For storages that ignore the condition, check just before the request.
            self._check_key_is_free()
            request["IfNoneMatch"] = "*"
            request["before_unconditional"] = self._check_key_is_free
        elif self._replaces is not None:
            self._check_is_unchanged()
            request["IfMatch"] = f'"{self._replaces}"'
            request["before_unconditional"] = self._check_is_unchanged
        try:
            answer = self._client.call(operation, key=self._key, **request)
        except KeyExistsError:
            raise
        except StorageError as error:
            answer = self._accept_if_stored(error)
        if operation == "put_object":
            self._check_encryption(answer)
        return self._verify()

    def _check_encryption(self, answer: Mapping[str, Any]) -> None:
        """Raise StorageError, and remove the object, unless it is encrypted as was asked for."""
        try:
            self._client.check_encryption(self._key, answer)
        except StorageError:
            if not self._replace:  # otherwise nothing would be left of a value that was replaced
                self._discard_wrong_object(self._client.head(self._key) or {})
            raise

    def _check_key_is_free(self) -> None:
        try:
            found = self._client.head(self._key)
        except UnreadableError as exc:
            raise self._key_exists_error() from exc
        except CredentialsError:
            # The access keys may not read; the condition of the request still protects the object.
            log.debug("no right to read %s", self._key)
            return
        if found is not None and not self._is_own(found):
            raise self._key_exists_error()

    def _check_is_unchanged(self) -> None:
        found = self._client.head(self._key)
        if found is None or (etag_of(found) != self._replaces and not self._is_own(found)):
            raise self._key_exists_error()

    def _key_exists_error(self) -> KeyExistsError:
        if self._replace:
            return KeyExistsError(
                f"{self._key!r} in bucket {self._client.container!r} was changed meanwhile",
                hint="try again",
            )
        return KeyExistsError(
            f"bucket {self._client.container!r} has {self._key!r} already; it was left as it is",
            hint="run it again: a later second makes another name",
        )

    def _is_own(self, found: Mapping[str, Any]) -> bool:
        return user_metadata(found).get(TOKEN_KEY) == self._token

    def _accept_if_stored(self, error: StorageError) -> dict[str, Any]:
        """Return the object's headers if it was stored although its request ended with *error*.

        Otherwise raise *error*. An answer may be lost after S3 has published the object. The
        repeated request is then refused, since our own object has the key (412) or has ended the
        upload (404).
        """
        status, _ = answer_of(error)
        if 400 <= status < 500 and status not in (404, 408, 409, 412):
            raise error
        try:
            found = self._client.head(self._key)
        except UnreadableError:
            # It may be our own all the same; then it stays, and this backup gets another name.
            if status in (409, 412) and not self._replace:
                raise self._key_exists_error() from error
            raise error from error.__cause__
        except BakthatError:
            raise error from error.__cause__
        if found is not None and self._is_own(found):
            log.info("%s was stored although its answer was lost", self._key)
            return found
        if found is not None and status in (409, 412):
            raise self._key_exists_error() from error
        if self._replaces is not None and found is None and status in (404, 412):
            raise self._key_exists_error() from error  # it was deleted
        raise error

    def _verify(self) -> StoredObject:
        """Return the object as S3 describes it. Raises StorageError unless it is complete."""
        try:
            found = self._client.call("head_object", key=self._key)
        except NotFoundError as exc:
            raise StorageError(
                f"{self._key!r} was confirmed by the storage, but does not exist there",
                hint="back up again, and check endpoint_url and the rules of the bucket",
            ) from exc
        except CredentialsError as exc:
            return self._unread(exc)
        except StorageError as exc:
            raise type(exc)(
                f"{self._key!r} was confirmed by the storage, but could not be checked: {exc}",
                hint="once the storage answers again, bakthat sync lists the backup if it is "
                "whole, and bakthat cleanup removes what is left of it otherwise",
            ) from exc.__cause__
        if TOKEN_KEY in user_metadata(found) and not self._is_own(found):
            if not self._replace:
                raise self._key_exists_error()
            # Another writer has replaced the object after it was stored.
            return StoredObject(self._key, self._sent, metadata=self._self_description())
        if found["ContentLength"] != self._sent:
            self._discard_wrong_object(found)
            raise self._wrong_size_error(found["ContentLength"])
        return replace(describe(self._key, found), lock=self._verified_lock(lock_in(found)))

    def _unread(self, refused: CredentialsError) -> StoredObject:
        """Return the object, which the access keys may not read. Raises StorageError.

        S3 has checked the checksum of each part and the number of bytes before it answered.
        """
        log.debug("no right to read %s; its upload was confirmed", self._key)
        extra = {VERIFIED_BY: "answer"}
        if isinstance(refused, UnreadableError) and not self._replace:
            if refused.stored.size != self._sent:
                raise self._wrong_size_error(refused.stored.size) from refused
            extra = {**refused.stored.extra, VERIFIED_BY: "listing"}
        return StoredObject(
            self._key,
            self._sent,
            metadata=self._self_description(),
            extra=extra,
            lock=self._verified_lock(None),
        )

    def _wrong_size_error(self, size: int) -> StorageError:
        return StorageError(
            f"{self._key!r} was stored with {size} bytes instead of {self._sent}",
            hint="back up again; check that nothing between here and endpoint_url changes data",
        )

    def _verified_lock(self, found: Lock | None) -> Lock | None:
        """Return the lock of the object; None when it has none, or when that cannot be seen.

        Some storages ignore a lock that is asked for with an upload in parts, so it is set again.
        """
        if self._lock is None or self._locks is None:
            return found
        if found is not None and found.covers(self._lock):
            return found
        if self._lock.is_over_at(time.time()):
            return found
        try:
            self._locks.extend(self._key, self._lock)
            return self._locks.look(self._key)
        except StorageError as exc:  # the object is stored; the caller says what its lock is
            log.debug("the lock of %s cannot be set again: %s", self._key, exc)
            return found

    def _discard_wrong_object(self, found: Mapping[str, Any]) -> None:
        if not self._is_own(found):
            return
        version_id = found.get("VersionId")
        try:
            if version_id is None or self._locks is None:
                self._client.call("delete_object", key=self._key)
            else:
                self._locks.discard(self._key, version_id)
        except BakthatError as exc:
            log.warning("incomplete %s could not be removed: %s", self._key, exc)

    def _self_description(self) -> Mapping[str, Any]:
        return decode_metadata(self._headers["Metadata"].get(METADATA_KEY, ""))


def describe(key: str, found: Mapping[str, Any]) -> StoredObject:
    """Return the object that the headers *found*, of a HEAD request, describe."""
    extra = {"etag": etag_of(found)}
    if "Restore" in found:
        extra["restore"] = str(found["Restore"])
    modified = found.get("LastModified")
    return StoredObject(
        key,
        int(found["ContentLength"]),
        last_modified=modified.timestamp() if modified is not None else None,
        metadata=decode_metadata(user_metadata(found).get(METADATA_KEY, "")),
        storage_class=class_of(found),
        extra=extra,
        lock=lock_in(found),
    )


def etag_of(found: Mapping[str, Any]) -> str:
    """Return the ETag in the headers *found*, without quotes."""
    return str(found.get("ETag", "")).strip('"')


def crc32(pieces: Iterable[Buffer]) -> str:
    """Return the CRC-32 of *pieces* as S3 writes it."""
    # Imported here, so that this module loads no library. It is ten times as fast as zlib's.
    from isal import isal_zlib

    checksum = 0
    for piece in pieces:
        checksum = isal_zlib.crc32(piece, checksum)
    return base64.b64encode(checksum.to_bytes(4, "big")).decode()


def checksum_headers(checksum: str) -> dict[str, Any]:
    """Return botocore's parameters for a body with this CRC-32."""
    # A bucket with object lock requires the name of the algorithm besides the checksum.
    return {"ChecksumAlgorithm": "CRC32", "ChecksumCRC32": checksum}
