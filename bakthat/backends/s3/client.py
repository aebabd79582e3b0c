"""Access S3: the settings of its client, and its errors translated to bakthat's."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from bakthat.backends.aws.client import AwsClient, foreign_errors, one_line
from bakthat.errors import (
    BakthatError,
    ConfigError,
    ContainerNotFoundError,
    CredentialsError,
    NotFoundError,
    NotReadyError,
    StorageError,
)

# Codes of https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html. The answer to a HEAD
# has no body, so botocore uses the status as the code.
_CREDENTIALS_CODES = frozenset(
    {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AuthorizationHeaderMalformed"}
)
_REDIRECTIONS = frozenset({301, 302, 303, 307, 308})
_UNEXPLAINED = frozenset({400, 403})
"""Statuses whose answer to a HEAD, which has no body, leaves open what is wrong."""
_RIGHTS_HINT = "check access_key and secret_key, and the rights that they have on the bucket"
_MISSING_KEY_CODES = frozenset({"NoSuchKey", "404", "NotFound", "NoSuchVersion"})


class S3Client(AwsClient):
    """One bucket."""

    service = "s3"
    container_word = "bucket"
    profile_keys = "s3_bucket, region_name, storage_class and endpoint_url"

    def head(self, key: str) -> dict[str, Any] | None:
        """Return the headers of *key*, or None when the key or the bucket does not exist."""
        try:
            return self.call("head_object", key=key)
        except NotFoundError:
            return None

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
            # The default of botocore for requests, but in some regions not for URLs.
            "signature_version": "s3v4",
        }

    def _prepare(self, client: Any) -> None:
        client.meta.events.register("before-call.s3.DeleteObjects", _add_md5)
        client.meta.events.register_first("needs-retry.s3", self._refuse_redirection)

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
                hint="check region_name and endpoint_url, and whether the network asks for a login",
            )

    def _answer_error(self, exc: Any, key: str | None) -> BakthatError:
        bucket = self.shown
        detail = exc.response.get("Error", {})
        code, message = str(detail.get("Code", "")), str(detail.get("Message", ""))
        status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        answer = f"{code} ({one_line(message)})" if message else code
        region = _region_of(exc)
        if region and region != self.settings.region and (status in _REDIRECTIONS or status == 400):
            return StorageError(
                f"bucket {self.container!r} is in the region {region}, not in "
                f"{self.settings.region}",
                hint=f"set region_name: {region}",
            )
        if status in _UNEXPLAINED and exc.operation_name in ("HeadBucket", "HeadObject"):
            return self._explained_error(status, message, key)
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
        if status in (401, 403) or code in _CREDENTIALS_CODES:
            return CredentialsError(
                f"{bucket} refused: {answer}",
                hint=_RIGHTS_HINT,
            )
        about = f"{key!r} in {bucket}" if key is not None else bucket
        if code == str(status):
            answer = f"({one_line(message)})" if message else ""
        return StorageError(f"{about}: the storage answered {status} {answer}".rstrip())

    def _explained_error(self, status: int, message: str, key: str | None) -> BakthatError:
        """Return the error for an answer without a body, such as every answer to a HEAD.

        The reason is in the body of the answer to another request.
        """
        try:
            self.call("list_objects_v2", MaxKeys=1)
        except BakthatError as exc:
            if not isinstance(exc, ContainerNotFoundError):
                return exc
        about = f"{key!r} in {self.shown}" if key is not None else self.shown
        answer = f"{status} ({one_line(message)})" if message else str(status)
        if status == 403:
            return CredentialsError(f"{self.shown} refused: {answer}", hint=_RIGHTS_HINT)
        return StorageError(
            f"{about}: the storage answered {answer}",
            hint=f"check {self.profile_keys}, and the keys",
        )


def _region_of(exc: Any) -> str:
    """Return the bucket's region that an error answer of S3 names; "" when it names none."""
    headers = exc.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    named = headers.get("x-amz-bucket-region") or exc.response.get("Error", {}).get("Region")
    return one_line(named or "")


def _add_md5(params: dict[str, Any], **_: Any) -> None:
    # The request must have a checksum. S3 accepts the CRC-32 that botocore sends; storages with an
    # older version of the API accept only this header.
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()


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
