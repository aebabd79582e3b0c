"""Store backups in a bucket of Amazon S3, or of another storage with the API of S3."""

from __future__ import annotations

import io
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any, BinaryIO

from bakthat.backends.aws.answers import time_of
from bakthat.backends.aws.client import answer_of
from bakthat.backends.aws.part_plan import equal_plan, growing_plan
from bakthat.backends.base import (
    UNKNOWN_PROGRESS,
    BakthatBackend,
    Leftover,
    Metadata,
    StoredObject,
    ThawState,
    ThawStatus,
    check_key,
    encode_metadata,
)
from bakthat.backends.lock import Lock
from bakthat.backends.protection import Version
from bakthat.backends.s3.client import S3Client, S3Settings, listed_object
from bakthat.backends.s3.download import open_object
from bakthat.backends.s3.features import has_equal_parts
from bakthat.backends.s3.locks import BucketLocks
from bakthat.backends.s3.thaw import listed_status_of, request_thaw, thaw_status_of
from bakthat.backends.s3.upload import METADATA_KEY, S3Upload, describe
from bakthat.backends.s3.versions.backup import BackupVersions, versions_of_backup
from bakthat.backends.s3.versions.deletion import BATCH_SIZE, BucketDeletion
from bakthat.backends.s3.versions.listing import list_versions, list_versions_of
from bakthat.backends.s3.versions.undeletion import Undeletion, headers_of_version
from bakthat.errors import (
    BakthatError,
    CredentialsError,
    LockedObjectError,
    NotFoundError,
    StorageError,
    UnreachableError,
    UsageError,
)
from bakthat.format.names import is_index_key
from bakthat.policy.defaults import KEEP_VERSIONS

log = logging.getLogger(__name__)

USER_METADATA_LIMIT = 2048
"""The most bytes of all names and values, by
https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html."""
FIRST_REGION = "us-east-1"
"""The region that S3 does not accept by name when a bucket is created."""
MAX_URL_SECONDS = 7 * 24 * 3600
"""By https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html."""
_OF_LISTING = ("IsTruncated", "KeyCount", "MaxKeys", "Contents")
"""Members of which a page of a listing has one at least, whatever the service leaves out."""
_DESCRIPTION_LIMIT = USER_METADATA_LIMIT - 64
"""The most bytes of a self-description; the rest is for the names and the upload's token."""


class S3Backend(BakthatBackend):
    """One bucket; ``conf`` is a flat profile.

    It reads access_key and secret_key (both absent: botocore looks for keys), region_name,
    s3_bucket, endpoint_url, timeout, attempts, storage_class and s3_reduced_redundancy (true:
    REDUCED_REDUNDANCY, unless a storage class is named). botocore is imported, and the storage
    contacted, by the first request.

    Memory: an upload holds up to 64 MiB of parts, or two parts of up to 64 MiB; larger ones are in
    unnamed temporary files (see part_plan.py and part_buffer.py). A download holds
    ``read_ahead + 1`` ranges of ``range_size`` bytes, 32 MiB.

    *settings* replaces the access keys, container, region, endpoint, attempts and timeouts of the
    profile; its ``part_size``, of the smallest part, is by default 8 MiB. When the size is not
    known, it is 16 MiB, or 525 MiB where all parts must be equal. Raises ConfigError when
    s3_bucket, or one of the two access keys, is missing.
    """

    name = "s3"
    batch_size = BATCH_SIZE

    def __init__(self, conf: Mapping[str, Any], *, settings: S3Settings | None = None) -> None:
        super().__init__(conf)
        self._settings = settings or self.settings_of(conf)
        self.container = self._settings.container
        self.page_size = self._settings.page_size
        self._client = S3Client(self._settings)
        self._locks = BucketLocks(self._client)
        self._deletion = BucketDeletion(
            self._client,
            self._locks,
            keeps_versions=conf.get("versions") == KEEP_VERSIONS,
            page_size=self.page_size,
        )

    @staticmethod
    def settings_of(conf: Mapping[str, Any]) -> S3Settings:
        """Return the settings in the flat profile *conf*. Raises ConfigError."""
        return S3Settings.of_profile(conf)

    def check_container(self, keys: Collection[str] = ()) -> None:
        """Raise ContainerNotFoundError when the bucket does not exist; *keys* are not looked for.

        With access keys that may not read, the bucket is assumed to exist; the upload shows it.
        """
        try:
            self._client.call("head_bucket")
        except CredentialsError as exc:
            if answer_of(exc)[0] != HTTPStatus.FORBIDDEN:
                raise

    def create_container(self) -> None:
        """Create the bucket in the profile's region; one of this account's is no error."""
        where: dict[str, Any] = {}
        if self._settings.region != FIRST_REGION:
            where["CreateBucketConfiguration"] = {"LocationConstraint": self._settings.region}
        if self.conf.get("object_lock"):
            where["ObjectLockEnabledForBucket"] = True
        self._locks.forget()
        self._deletion.forget()
        try:
            self._client.call("create_bucket", **where)
        except StorageError as exc:
            code = answer_of(exc)[1]
            if code == "BucketAlreadyOwnedByYou":
                return
            if code not in {"BucketAlreadyExists", "OperationAborted"}:
                raise
            # Another process may have created the bucket, or may be creating it now.
            try:
                self._client.call("head_bucket")
            except StorageError:
                raise StorageError(
                    f"bucket {self.container!r} cannot be created: its name is in use",
                    hint="choose another s3_bucket: its names are shared by all of S3",
                ) from exc

    def upload(
        self,
        key: str,
        *,
        metadata: Metadata,
        size_hint: int | None = None,
        replace: bool = False,
        content_type: str | None = None,
        content_encoding: str | None = None,
        lock: Lock | None = None,
        replaces: str | None = None,
    ) -> S3Upload:
        """Begin to write *key*; see :class:`~bakthat.backends.base.Backend`.

        With *replace*, *replaces* is the ETag of the object that may be replaced: ``commit`` raises
        KeyExistsError when the key has another object by then, or none. A storage that ignores
        ``If-Match`` leaves a gap between a last look and the write.
        """
        check_key(key)
        make_plan = equal_plan if has_equal_parts(self._settings.endpoint_url) else growing_plan
        headers: dict[str, Any] = {
            "Metadata": {METADATA_KEY: encode_metadata(metadata, limit=_DESCRIPTION_LIMIT)}
        }
        if content_type:
            headers["ContentType"] = content_type
        if content_encoding:
            headers["ContentEncoding"] = content_encoding
        # An index is read when its backup still is in cold storage.
        if self._storage_class and not is_index_key(key):
            headers["StorageClass"] = self._storage_class
        return S3Upload(
            self._client,
            key,
            headers=headers,
            plan=make_plan(size_hint, self._settings.part_size),
            workers=self._settings.upload_workers,
            replace=replace,
            replaces=replaces,
            lock=lock,
            locks=self._locks,
        )

    def download(self, key: str, *, start: int = 0, end: int | None = None) -> BinaryIO:
        """Open bytes *start* to *end* of *key*; see :class:`~bakthat.backends.base.Backend`."""
        check_key(key)
        if start < 0:
            raise UsageError(f"a download cannot start at byte {start}")
        if end is not None and end <= start:
            self.stat(key)
            return io.BytesIO()
        return open_object(
            self._client,
            key,
            start,
            end,
            range_size=self._settings.range_size,
            ahead=self._settings.read_ahead,
        )

    def stat(self, key: str) -> StoredObject:
        """Return *key* with its self-description. Raises NotFoundError."""
        return describe(key, self._headers_of(key))

    def url(self, key: str, seconds: int) -> str:
        """Return a URL by which anyone can read *key* for *seconds*, at most a week.

        Whether the key exists is not checked. Raises UsageError, CredentialsError.
        """
        check_key(key)
        if not 1 <= seconds <= MAX_URL_SECONDS:
            raise UsageError(
                f"a URL cannot be valid for {seconds} seconds",
                hint=f"use 1 to {MAX_URL_SECONDS} seconds, which is a week",
            )
        return self._client.signed_url(key, seconds)

    def thaw_status(self, key: str) -> ThawStatus:
        """Return the thaw status of *key*; see :class:`~bakthat.backends.base.ColdStorage`."""
        return thaw_status_of(key, self._headers_of(key))

    def thaw(self, key: str, *, tier: str, days: int) -> ThawStatus:
        """Request a readable copy of *key*; see :class:`~bakthat.backends.base.ColdStorage`."""
        status = self.thaw_status(key)
        if status.state is not ThawState.FROZEN:
            return status
        requested = request_thaw(self._client, status, tier=tier, days=days)
        if requested is not None:
            return requested
        status = self.thaw_status(key)
        if status.state is ThawState.FROZEN:
            raise UnreachableError(
                f"{key!r} in {self._client.shown}: the answer to the thaw request was lost",
                hint="try again",
            )
        return status

    def thaws(self, prefix: str = "") -> Iterator[ThawStatus]:
        """Yield the objects that S3 lists as being thawed or thawed.

        Some storages with the API of S3 list no thaws, and none lists those of intelligent tiering.
        """
        listing = self._client.pages(
            "list_objects_v2",
            Prefix=prefix,
            OptionalObjectAttributes=["RestoreStatus"],
            PaginationConfig={"PageSize": self._settings.page_size},
        )
        for page in listing:
            for entry in page.get("Contents", ()):
                thaw = listed_status_of(entry)
                if thaw is not None:
                    yield thaw

    def has_locks(self) -> bool:
        """Return whether the bucket has object lock; see :class:`~.protection.LockingStorage`."""
        return self._locks.are_enabled()

    def lock_of(self, key: str) -> Lock:
        """Return the lock of *key*; see :class:`~.protection.LockingStorage`."""
        check_key(key)
        return self._locks.look(key, self._versions_of_backup(key).ids[0]) or Lock()

    def locked(self, keys: Collection[str]) -> Mapping[str, LockedObjectError]:
        """Return an error for each locked key; see :class:`~.protection.LockingStorage`."""
        return self._deletion.locked(keys)

    def extend_lock(self, key: str, lock: Lock) -> None:
        """Let the retention of *key* last longer; see :class:`~.protection.LockingStorage`."""
        check_key(key)
        found = self._versions_of_backup(key)
        for version_id in found.ids:
            self._locks.extend(key, lock, version_id)
        if found.change is not None:
            raise found.change

    def set_hold(self, key: str, *, is_held: bool) -> None:
        """Put *key* on hold, or release it; see :class:`~.protection.LockingStorage`."""
        check_key(key)
        if is_held:
            found = self._versions_of_backup(key)
            if isinstance(found.change, NotFoundError):
                raise found.change
            if found.change is not None:
                log.warning("%s; that version is put on hold", found.change)
            for version_id in found.ids:
                self._locks.hold(key, version_id)
            return
        try:
            page_size = self._settings.page_size
            versions = list(list_versions_of(self._client, key, page_size=page_size))
        except CredentialsError as exc:
            log.debug("the versions of %s cannot be listed: %s", key, exc)
            self._locks.release(key)
            return
        stored = [each.version_id for each in versions if not each.is_marker]
        if not stored:
            raise NotFoundError(f"{self._client.shown} has no {key!r}")
        for version_id in stored:
            self._locks.release(key, version_id)

    def _versions_of_backup(self, key: str) -> BackupVersions:
        return versions_of_backup(self._client, key, page_size=self._settings.page_size)

    def has_versions(self) -> bool:
        """Return whether the bucket keeps versions; see :class:`~.protection.VersionedStorage`."""
        return self._deletion.has_versions()

    def versions(self, prefix: str = "") -> Iterator[Version]:
        """Yield versions and delete markers; see :class:`~.protection.VersionedStorage`."""
        return list_versions(self._client, prefix, page_size=self._settings.page_size)

    def stat_version(self, version: Version) -> StoredObject:
        """Return a version with its self-description. Raises NotFoundError."""
        check_key(version.key)
        found = headers_of_version(self._client, version.key, version.version_id)
        return describe(version.key, found)

    def bring_back(self, version: Version, lock: Lock | None = None) -> StoredObject:
        """Bring a version back; see :class:`~.protection.VersionedStorage`."""
        check_key(version.key)
        undeletion = Undeletion(
            self._client, self._locks, version, page_size=self.page_size, lock=lock
        )
        return undeletion.run()

    def _headers_of(self, key: str) -> dict[str, Any]:
        check_key(key)
        found = self._client.head(key)
        if found is None:
            # The answer to a HEAD does not say whether the key or the bucket is missing.
            self.check_container()
            raise NotFoundError(f"{self._client.shown} has no {key!r}")
        return found

    def ls(self, prefix: str = "", *, indexes: bool = False) -> Iterator[StoredObject]:
        """Yield objects, a request for each page; see :class:`~bakthat.backends.base.Backend`."""
        listing = self._client.pages(
            "list_objects_v2",
            Prefix=prefix,
            PaginationConfig={"PageSize": self._settings.page_size},
        )
        for page in listing:
            if page.keys().isdisjoint(_OF_LISTING):
                # To botocore, an empty body is an empty page and the end of the listing.
                self._client.answer_member(page, "Name")
            for found in page.get("Contents", ()):
                if is_index_key(found["Key"]) is not indexes:
                    continue
                yield listed_object(found)

    def delete(self, key: str) -> None:
        """Remove *key* with all its versions. A missing key is not an error.

        Raises LockedObjectError when one of them is locked; then all of them stay.
        """
        check_key(key)
        for error in self._deletion.delete([key], one_by_one=True).values():
            raise error from error.__cause__

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, BakthatError]:
        """Remove *keys*, a thousand in one request; see :class:`.base.Backend`.

        Raises also CredentialsError, when the storage refuses a whole request.
        """
        return self._deletion.delete(keys)

    def leftovers(self, prefix: str = "") -> Iterator[Leftover]:
        """Yield every multipart upload that was neither completed nor aborted."""
        try:
            for page in self._client.pages("list_multipart_uploads", Prefix=prefix):
                now = time_of(page)
                for found in page.get("Uploads", ()):
                    key, upload_id = found["Key"], found["UploadId"]
                    # An upload of a terabyte may take days, so the time of its latest part counts.
                    parts = self._times_of_parts(key, upload_id)
                    when = max([found["Initiated"], *(parts or ())]).timestamp()
                    progress = UNKNOWN_PROGRESS if parts is None else ""
                    yield Leftover(
                        "upload", key, when, now - when, handle=upload_id, progress=progress
                    )
        except StorageError as exc:
            # rclone answers this when there are no uploads.
            if answer_of(exc)[1] != "NoSuchUpload":
                raise

    def _times_of_parts(self, key: str, upload_id: str) -> list[datetime] | None:
        """Return when each part was written; None when the storage does not say."""
        try:
            pages = self._client.pages("list_parts", Key=key, UploadId=upload_id)
            return [part["LastModified"] for page in pages for part in page.get("Parts", ())]
        except StorageError as exc:
            if exc.may_pass:
                raise
            log.debug("the parts of %r are not known: %s", key, exc)
            return None

    def remove_leftover(self, leftover: Leftover) -> bool:
        """Abort a multipart upload, which removes its parts."""
        try:
            self._client.call("abort_multipart_upload", key=leftover.key, UploadId=leftover.handle)
        except StorageError as exc:
            if answer_of(exc)[1] != "NoSuchUpload":
                raise
            return False
        return True

    @property
    def _storage_class(self) -> str | None:
        if self.conf.get("storage_class"):
            return str(self.conf["storage_class"])
        return "REDUCED_REDUNDANCY" if self.conf.get("s3_reduced_redundancy") else None
