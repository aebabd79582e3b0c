"""Say which key is wrong, or which permission is missing, when AWS refuses a request."""

from __future__ import annotations

import re

_UNKNOWN_KEY = "the storage does not know the access key: check {access}"
_WRONG_SECRET = "the secret key does not fit the access key: check {secret}"
_EXPIRED = "the session token has expired: get new keys, or log in again with: aws sso login"
_KEY_HINTS = {
    "InvalidAccessKeyId": _UNKNOWN_KEY,
    "InvalidClientTokenId": _UNKNOWN_KEY,
    "UnrecognizedClientException": _UNKNOWN_KEY,
    "SignatureDoesNotMatch": _WRONG_SECRET,
    "InvalidSignatureException": _WRONG_SECRET,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidToken": "the session token is not valid: check AWS_SESSION_TOKEN",
    "AuthorizationHeaderMalformed": "check {access}, {secret} and region_name",
    "MissingAuthenticationTokenException": "check {access} and {secret}",
}
"""By the codes of S3 and Glacier for wrong keys."""

_OFF = re.compile(r"RequestTimeTooSkewed|RequestExpired|Signature (expired|not yet current)")
"""What S3 and Glacier say of a date that is too far away."""

_ACTIONS = {
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
    "HeadBucket": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "HeadObject": "s3:GetObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CopyObject": "s3:PutObject",
    "UploadPartCopy": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "DeleteObjects": "s3:DeleteObject",
    "ListObjectVersions": "s3:ListBucketVersions",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListParts": "s3:ListMultipartUploadParts",
    "GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "GetObjectLockConfiguration": "s3:GetBucketObjectLockConfiguration",
    "GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "GetBucketEncryption": "s3:GetEncryptionConfiguration",
}
"""The action of each request to S3 that is not named as the request. Those of Glacier all are."""

_NAMED = re.compile(r"\bto perform: ([a-z][a-z0-9-]*:[A-Za-z]+)")
_PARTITIONS = {"cn": "aws-cn", "us-gov": "aws-us-gov"}


def is_about_clock(code: str, message: str) -> bool:
    """Return whether a refusal says that the date of the request is wrong."""
    return _OFF.search(f"{code} {message}") is not None


def is_about_permission(code: str, message: str) -> bool:
    """Return whether a refusal says that something is not allowed for the keys.

    Otherwise the keys are wrong, or the clock.
    """
    return code not in _KEY_HINTS and not is_about_clock(code, message)


def names_action(message: str) -> bool:
    """Return whether a refusal names the action that is not allowed."""
    return _NAMED.search(message) is not None


def key_hint(code: str, *, in_profile: bool) -> str:
    """Return what to do about the keys after an error with *code*; "" when it is not about them.

    *in_profile* is whether the profile has the keys, and not what else botocore looks at.
    """
    names = ("access_key", "secret_key")
    if not in_profile:
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    return _KEY_HINTS.get(code, "").format(access=names[0], secret=names[1])


def action_of(service: str, operation: str, message: str = "", *, of_version: bool = False) -> str:
    """Return the action that must be allowed for a request, such as ``s3:PutObject``.

    *operation* is botocore's name of it. *message* is the service's refusal: it may name another
    action, such as one on the key of an encryption. *of_version* is whether a version is deleted.
    """
    named = _NAMED.search(message)
    if named is not None:
        return named[1]
    action = _ACTIONS.get(operation) or f"{service}:{operation}"
    return f"{action}Version" if of_version else action


def arn(service: str, region: str, resource: str) -> str:
    """Return the ARN of a bucket, of keys in it or of a vault, as a policy has it."""
    partition = next(
        (each for start, each in _PARTITIONS.items() if region.startswith(f"{start}-")), "aws"
    )
    if service == "s3":
        return f"arn:{partition}:s3:::{resource}"
    return f"arn:{partition}:{service}:{region}:*:vaults/{resource}"
