"""Access S3: the settings of its client, and its errors translated to bakthat's."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Self

from bakthat.backends.aws.answers import one_line
from bakthat.backends.aws.client import AwsClient, foreign_errors
from bakthat.backends.aws.network import PORTAL_HINT, not_the_service
from bakthat.backends.aws.permissions import is_about_permission, names_action
from bakthat.backends.aws.session import AwsSettings
from bakthat.backends.base import StoredObject, UnreadableError
from bakthat.backends.s3.features import (
    Feature,
    demands_md5,
    guesses,
    is_refusal,
    named_features,
)
from bakthat.errors import (
    BakthatError,
    ConfigError,
    ContainerNotFoundError,
    CredentialsError,
    LockedObjectError,
    NotFoundError,
    NotReadyError,
    StorageError,
)
from bakthat.policy.settings import kms_key_problem

log = logging.getLogger(__name__)

# Codes of https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html. The answer to a HEAD
# has no body, so botocore uses the status as the code.
_CREDENTIALS_CODES = frozenset(
    {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AuthorizationHeaderMalformed"}
)
_REDIRECTIONS = frozenset({301, 302, 303, 307, 308})
_UNEXPLAINED = frozenset({400, 403})
"""Statuses whose answer to a HEAD, which has no body, leaves open what is wrong."""
_FULL = re.compile(
    r"quota ?exceeded|insufficient ?storage|storage ?full|no space left|disk full", re.IGNORECASE
)
_LOCKED = re.compile(r"object ?lock|\bWORM\b|retention|legal ?hold", re.IGNORECASE)
_LISTED_WITH_KEY = 100
_PIECE = 1024 * 1024
_MISSING_KEY_CODES = frozenset({"NoSuchKey", "404", "NotFound", "NoSuchVersion"})


_ENCRYPTED = frozenset({"put_object", "create_multipart_upload", "copy_object"})
"""The requests that say how an object is encrypted at rest."""
_OF_UPLOADS = frozenset({"PutObject", "CreateMultipartUpload", "UploadPart", "CopyObject"})
_SSE_HINT = (
    "check sse and sse_kms_key_id: this storage may not know that encryption, or not have its keys"
)
_COPIES = frozenset({"copy_object", "upload_part_copy"})


@dataclass(frozen=True, slots=True)
class S3Settings(AwsSettings):
    """How to reach one bucket, and how to transfer objects."""

    expected_bucket_owner: str | None = None
    """The account that must own the bucket; None: any may."""
    sse: str | None = None
    """The encryption at rest that each upload asks for; None: the bucket's."""
    sse_kms_key_id: str | None = None
    """The key of KMS for it; None: the account's own for S3."""

    @classmethod
    def of_profile(cls, conf: Mapping[str, Any]) -> Self:
        """Return the settings in the flat profile *conf*. Raises ConfigError."""
        problem = kms_key_problem(conf)
        if problem is not None:
            raise ConfigError(f"'sse_kms_key_id' {problem.text}", hint=problem.hint)
        names = ("expected_bucket_owner", "sse", "sse_kms_key_id")
        return cls.from_profile(
            conf,
            container="s3_bucket",
            endpoint_url="endpoint_url",
            **{name: conf.get(name) or None for name in names},
        )


class S3Client(AwsClient):
    """One bucket."""

    settings: S3Settings

    service = "s3"
    container_word = "bucket"
    profile_keys = "s3_bucket, region_name, storage_class and endpoint_url"

    def __init__(self, settings: S3Settings) -> None:
        super().__init__(settings)
        self._refused: frozenset[Feature] = frozenset()
        self._wants_md5 = False
        self._request = threading.local()

    def call(
        self,
        operation: str,
        *,
        key: str | None = None,
        cancelled: threading.Event | None = None,
        once: bool = False,
        before_unconditional: Callable[[], object] | None = None,
        **parameters: Any,
    ) -> dict[str, Any]:
        """Make one request; see :meth:`.AwsClient.call`.

        It has what the settings ask for: the owner of the bucket, and the encryption at rest.
        When the storage refuses an optional header, the request is repeated without it, and later
        ones do not have it. *before_unconditional* is called before a request is repeated without
        its condition.
        """
        left_out: frozenset[Feature] = frozenset()
        guess: frozenset[Feature] = frozenset()
        possible: Iterator[frozenset[Feature]] | None = None
        refusal: StorageError | None = None
        parameters = {**self._demands(operation), **parameters}
        has_added_md5 = False
        while True:
            trial = left_out | guess
            if before_unconditional is not None and any(each.is_condition for each in trial):
                before_unconditional()
            self._request.left_out, self._request.carried = trial, frozenset[str]()
            self._request.of_version = "VersionId" in parameters
            if hasattr(parameters.get("Body"), "seek"):
                parameters["Body"].seek(0)  # the refused request has read it
            try:
                answer = super().call(
                    operation, key=key, cancelled=cancelled, once=once, **parameters
                )
            except StorageError as exc:
                refusal = refusal or exc
                named = named_features(exc, self._request.carried)
                if named:
                    left_out |= named
                elif (
                    demands_md5(exc)
                    and "content-md5" not in self._request.carried
                    and not has_added_md5  # a request without a body gets none
                ):
                    self._wants_md5 = has_added_md5 = True
                else:
                    possible = possible or guesses(exc, self._request.carried)
                    found = next(possible, None) if is_refusal(exc) else None
                    if found is None:
                        meant = refusal if is_refusal(exc) else exc
                        raise meant from meant.__cause__
                    guess = found
            else:
                break
            finally:
                self._request.left_out = frozenset[Feature]()
        if trial:
            log.debug("%s refuses %s", self.place, ", ".join(each.name for each in trial))
            self._refused |= trial
        return answer

    def of_any_owner(self) -> S3Client:
        """Return a client whose requests do not say who must own the bucket."""
        return S3Client(replace(self.settings, expected_bucket_owner=None))

    def pages(self, operation: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Yield every page of a listing; see :meth:`.AwsClient.pages`."""
        return super().pages(operation, **self._demands(operation), **parameters)

    def _demands(self, operation: str) -> dict[str, Any]:
        """Return botocore's parameters by which the settings apply to a request."""
        owner, sse, key_id = (
            self.settings.expected_bucket_owner,
            self.settings.sse,
            self.settings.sse_kms_key_id,
        )
        demands: dict[str, Any] = {}
        if owner is not None and operation != "create_bucket":  # which belongs to nobody yet
            demands["ExpectedBucketOwner"] = owner
            if operation in _COPIES:
                demands["ExpectedSourceBucketOwner"] = owner
        if sse is not None and operation in _ENCRYPTED:
            demands["ServerSideEncryption"] = sse
            if key_id is not None:
                demands["SSEKMSKeyId"] = key_id
        return demands

    def check_encryption(self, key: str, answer: Mapping[str, Any]) -> None:
        """Raise StorageError unless *answer* confirms the encryption that the settings ask for.

        It is the answer to an upload, or to the beginning of one in parts. Headers of the object
        prove nothing: some storages only store what they were asked for.
        """
        asked, done = self.settings.sse, answer.get("ServerSideEncryption")
        if asked is not None and done != asked:
            instead = f", but with {one_line(done)}" if done else ""
            raise StorageError(
                f"{key!r} in {self.shown}: the storage does not encrypt it with {asked}{instead}",
                hint=_SSE_HINT,
            )

    def head(self, key: str) -> dict[str, Any] | None:
        """Return the headers of *key*, or None when the key or the bucket does not exist."""
        try:
            return self.call("head_object", key=key)
        except NotFoundError:
            return None

    def listed(self, key: str) -> StoredObject | None:
        """Return *key* as it is listed, or None when it is not. It need not be readable."""
        # S3 lists it before whatever else begins with it, such as its index. SeaweedFS does not.
        answer = self.call("list_objects_v2", Prefix=key, MaxKeys=_LISTED_WITH_KEY)
        found = [each for each in answer.get("Contents", ()) if each["Key"] == key]
        return listed_object(found[0]) if found else None

    def signed_url(self, key: str, seconds: int) -> str:
        """Return a URL that reads *key* for *seconds*; nothing is sent to the storage."""
        try:
            url: str = self._client().generate_presigned_url(
                "get_object", Params=self._in_container(key), ExpiresIn=seconds
            )
        except foreign_errors() as exc:
            raise self.translated_error(exc, key) from exc
        return url

    def _in_container(self, key: str | None) -> dict[str, Any]:
        return {"Bucket": self.container} | ({} if key is None else {"Key": key})

    def _client_config(self, shared: dict[str, Any]) -> dict[str, Any]:
        # The certificate of a virtual host does not match a name with dots, and few S3-compatible
        # storages have virtual hosts.
        endpoint_url = self.settings.endpoint_url
        path_style = endpoint_url is not None or "." in self.container
        s3_settings: Any = {"addressing_style": "path" if path_style else "auto"}
        if not (endpoint_url or "https:").lower().startswith("http:"):
            # TLS and the checksum of each part protect the bytes already. A SHA-256 of all of them
            # costs as much as encryption.
            s3_settings["payload_signing_enabled"] = False
        # "when_required": rclone sends the checksum of the whole object with a range of it.
        return {
            **shared,
            "s3": s3_settings,
            "response_checksum_validation": "when_required",
            # Each body has a checksum of bakthat's, unless the storage refuses it.
            "request_checksum_calculation": "when_required",
            # The default of botocore for requests, but in some regions not for URLs.
            "signature_version": "s3v4",
        }

    def _prepare(self, client: Any) -> None:
        client.meta.events.register("before-call.s3", self._add_md5)
        # Before the signature, which is made by another handler of this event.
        client.meta.events.register_first("request-created.s3", self._leave_out)
        client.meta.events.register_first("needs-retry.s3", self._refuse_redirection)

    def _check_answer(self, response_dict: dict[str, Any], **more: Any) -> None:
        super()._check_answer(response_dict, **more)
        # Each object has an ETag. A portal answers 200 to every request.
        headers, operation = response_dict["headers"], more["operation_model"].name
        if (
            operation == "HeadObject"
            and response_dict["status_code"] == HTTPStatus.OK
            and not {"etag", "last-modified"}.intersection(map(str.lower, headers))
        ):
            raise not_the_service(self.shown, "one without ETag")

    def _add_md5(self, model: Any, params: dict[str, Any], **_: Any) -> None:
        # A deletion of many must have a checksum. S3 accepts the CRC-32 that botocore sends;
        # storages with an older version of the API accept only this header.
        body = params["body"]
        if body and (model.name == "DeleteObjects" or self._wants_md5):
            digest = hashlib.md5(usedforsecurity=False)
            if isinstance(body, bytes | bytearray):
                digest.update(body)
            else:  # a large part; or botocore has made a file of it
                while piece := body.read(_PIECE):
                    digest.update(piece)
                body.seek(0)
            params["headers"]["Content-MD5"] = base64.b64encode(digest.digest()).decode()

    def _leave_out(self, request: Any, **_: Any) -> None:
        # botocore calls this in the thread of the request.
        for feature in self._refused | getattr(self._request, "left_out", frozenset()):
            for header in feature.value:
                del request.headers[header]
        self._request.carried = frozenset(map(str.lower, request.headers.keys()))

    def _refuse_redirection(self, *, response: Any, **_: Any) -> None:
        """Raise StorageError for a redirection that names no region of S3.

        Otherwise botocore would ask for the region again and again, until Python's recursion limit.
        """
        if response is None:
            return
        http, parsed = response
        names_region = "x-amz-bucket-region" in http.headers or "Region" in parsed.get("Error", {})
        if http.status_code in _REDIRECTIONS and not names_region:
            where = one_line(http.headers.get("location") or "")
            raise StorageError(
                f"{self.shown}: the storage answered {http.status_code}, a redirection"
                + (f" to {where}" if where else ""),
                hint=f"check region_name; {PORTAL_HINT}",
            )

    def _answer_error(self, exc: Any, key: str | None) -> BakthatError:
        bucket = self.shown
        detail = exc.response.get("Error", {})
        code, message = str(detail.get("Code", "")), str(detail.get("Message", ""))
        status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        answer = f"{code} ({one_line(message)})" if message else code
        # botocore takes the status for the code of an answer without a body.
        numbered = answer if code == str(status) else f"{status} {answer}"
        region = _region_of(exc)
        if region and region != self.settings.region and (status in _REDIRECTIONS or status == 400):
            return StorageError(
                f"bucket {self.container!r} is in the region {region}, not in "
                f"{self.settings.region}",
                hint=f"set region_name: {region}",
            )
        if status in _UNEXPLAINED and exc.operation_name in ("HeadBucket", "HeadObject"):
            return self._explained_error(exc, status, message, key)
        if code == "NoSuchBucket" or (key is None and status == 404):
            return ContainerNotFoundError(
                f"{bucket} does not exist",
                hint="check s3_bucket, region_name and endpoint_url; "
                "the first backup makes the bucket",
            )
        if code in _MISSING_KEY_CODES:
            return NotFoundError(f"{bucket} has no {key!r}")
        if code == "InvalidObjectState":
            return NotReadyError(
                f"{key!r} in {bucket} is in cold storage",
                hint="bakthat restore requests its thaw",
            )
        if code == "InvalidBucketName":
            return ConfigError(f"invalid {bucket}: {answer}", hint="choose another s3_bucket")
        if code == "RequestTimeTooSkewed":
            return CredentialsError(
                f"{bucket} refused: {answer}", hint="set the clock of this machine"
            )
        if _LOCKED.search(f"{code} {message}") and exc.operation_name.startswith("Delete"):
            return LockedObjectError(
                f"{key!r} in {bucket} is locked: {answer}",
                hint="wait until its retention ends, or release its hold with bakthat release",
            )
        if status == 507 or _FULL.search(f"{code} {message}"):
            return StorageError(
                f"{bucket} is full: {numbered}",
                hint="make room there, with bakthat rotate_backups or bakthat cleanup, or raise "
                "the quota",
            )
        if status in (401, 403) or code in _CREDENTIALS_CODES:
            return CredentialsError(
                f"{bucket} refused: {answer}",
                hint=self._refusal_hint(exc, key),
            )
        about = f"{key!r} in {bucket}" if key is not None else bucket
        may_be_sse = self.settings.sse is not None and exc.operation_name in _OF_UPLOADS
        return StorageError(
            f"{about}: the storage answered {numbered}", hint=_SSE_HINT if may_be_sse else ""
        )

    def _refusal_hint(self, exc: Any, key: str | None) -> str:
        hint, owner = super()._refusal_hint(exc, key), self.settings.expected_bucket_owner
        detail = exc.response.get("Error", {})
        code, message = str(detail.get("Code", "")), str(detail.get("Message", ""))
        # S3 says no more of another owner than that access is denied.
        if owner is None or names_action(message) or not is_about_permission(code, message):
            return hint
        return f"{hint}; or the bucket is not of account {owner}: check expected_bucket_owner"

    def _explained_error(
        self, refused: Any, status: int, message: str, key: str | None
    ) -> BakthatError:
        """Return the error for an answer without a body, such as every answer to a HEAD.

        The reason is in the body of the answer to another request. Whether a key exists is told by
        a listing, which access keys may be allowed that may read nothing.
        """
        of_object = key is not None and not getattr(self._request, "of_version", False)
        stored: StoredObject | None = None
        try:
            if key is not None and of_object:
                stored = self.listed(key)
            else:
                self.call("list_objects_v2", MaxKeys=1)
        except BakthatError as exc:
            if not isinstance(exc, ContainerNotFoundError):
                return exc
        about = f"{key!r} in {self.shown}" if key is not None else self.shown
        answer = f"{status} ({one_line(message)})" if message else str(status)
        if status == 403:  # and the bucket is of its owner, since it was listed
            text, hint = f"{self.shown} refused: {answer}", super()._refusal_hint(refused, key)
            if stored is not None:
                unreadable = UnreadableError(text, hint=hint)
                unreadable.stored = stored
                return unreadable
            if of_object:
                return NotFoundError(f"{self.shown} has no {key!r}")
            return CredentialsError(text, hint=hint)
        return StorageError(
            f"{about}: the storage answered {answer}",
            hint=f"check {self.profile_keys}, and the keys",
        )


def _region_of(exc: Any) -> str:
    """Return the bucket's region that an error answer of S3 names; "" when it names none."""
    headers = exc.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    named = headers.get("x-amz-bucket-region") or exc.response.get("Error", {}).get("Region")
    return one_line(named or "")


def listed_object(entry: Mapping[str, Any]) -> StoredObject:
    """Return the object that an *entry* of a listing describes."""
    return StoredObject(
        entry["Key"],
        int(entry["Size"]),
        last_modified=entry["LastModified"].timestamp(),
        storage_class=entry.get("StorageClass", "STANDARD"),
        extra={"etag": entry.get("ETag", "").strip('"')},
    )


def user_metadata(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the user metadata in the headers *found*, its names in lower case.

    The names are those of HTTP headers, which some servers (all of Go's) capitalise.
    """
    return {name.lower(): value for name, value in found.get("Metadata", {}).items()}


def class_of(found: Mapping[str, Any]) -> str:
    """Return the storage class in the headers *found*.

    For an object in an archive tier of intelligent tiering, this is that tier.
    """
    return str(found.get("ArchiveStatus") or found.get("StorageClass") or "STANDARD")
