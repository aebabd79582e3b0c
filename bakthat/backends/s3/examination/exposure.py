"""Who else may use the bucket, who owns it, and whether it encrypts what it stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from bakthat.backends.aws.answers import one_line
from bakthat.backends.aws.findings import try_request
from bakthat.backends.s3.client import S3Client
from bakthat.backends.s3.examination.usage import Usage, not_seen
from bakthat.policy.defaults import AES256
from bakthat.policy.finding import Finding, advice, good, problem

PUBLIC, ENCRYPTION, OWNER = "public access", "encryption at rest", "bucket owner"

_BLOCKS = (*("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"),)
_NOT_BLOCKED = "NoSuchPublicAccessBlockConfiguration"
_NO_POLICY = "NoSuchBucketPolicy"
_NOT_ENCRYPTED = "ServerSideEncryptionConfigurationNotFoundError"
_EVERYBODY = {
    "http://acs.amazonaws.com/groups/global/AllUsers": "everybody",
    "http://acs.amazonaws.com/groups/global/AuthenticatedUsers": "everybody with an account of AWS",
}
_NOBODYS = "000000000000"
"""The number of an account that owns no bucket."""


def public_finding(client: S3Client) -> Finding | None:
    """Return the finding about whom the bucket is open to; None where the storage does not say.

    Raises UnreachableError.
    """
    block = try_request(client, "get_public_access_block")
    blocked = block.answer.get("PublicAccessBlockConfiguration") or {}
    if all(blocked.get(each) for each in _BLOCKS):
        return good(PUBLIC, "blocked")
    status = try_request(client, "get_bucket_policy_status")
    acl = try_request(client, "get_bucket_acl")
    is_public = (status.answer.get("PolicyStatus") or {}).get("IsPublic")
    open_to = []
    if is_public and not blocked.get("RestrictPublicBuckets"):
        open_to.append("its policy lets everybody use it")
    if not blocked.get("IgnorePublicAcls"):
        open_to += _public_grants(acl.answer)
    if open_to:
        return problem(
            PUBLIC,
            f"{client.shown} is public: {', and '.join(open_to)}",
            "block public access of the bucket: aws s3api put-public-access-block --bucket "
            f"{client.container} --public-access-block-configuration "
            + ",".join(f"{each}=true" for each in _BLOCKS),
        )
    unseen = not_seen(client, PUBLIC, block, status, acl)
    if unseen is not None:
        return unseen
    is_known = blocked or block.code == _NOT_BLOCKED or acl.answer.get("Grants")
    if not (is_known or is_public is not None or status.code == _NO_POLICY):
        return None
    return good(PUBLIC, "none by the policy and the ACL of the bucket")


def _public_grants(acl: Mapping[str, Any]) -> Iterator[str]:
    for grant in acl.get("Grants") or ():
        who = _EVERYBODY.get(str((grant.get("Grantee") or {}).get("URI")))
        if who is not None:
            yield f"its ACL gives {one_line(grant.get('Permission'))} to {who}"


def encryption_finding(client: S3Client, usage: Usage) -> Finding | None:
    """Return the finding about encryption at rest; None where the storage does not say.

    Whether it does what the profile asks for is seen by an upload only. Raises UnreachableError.
    """
    asked = client.settings.sse
    tried = try_request(client, "get_bucket_encryption")
    rules = (tried.answer.get("ServerSideEncryptionConfiguration") or {}).get("Rules") or [{}]
    default = rules[0].get("ApplyServerSideEncryptionByDefault") or {}
    own = one_line(default.get("SSEAlgorithm") or "")
    if asked is not None:
        if asked == AES256 and own not in ("", AES256):
            return advice(
                ENCRYPTION,
                f"backups are stored with {asked}, and the bucket would take {own}",
                "remove sse from the profile, so that the bucket decides",
            )
        return None
    unseen = not_seen(client, ENCRYPTION, tried)
    if own or unseen is not None:
        return unseen or good(ENCRYPTION, f"the bucket encrypts with {own}")
    if tried.code != _NOT_ENCRYPTED:
        return None
    if usage.is_encrypted:
        return good(ENCRYPTION, "none by the storage; bakthat encrypts what it uploads")
    return advice(
        ENCRYPTION,
        "none, neither by the storage nor by bakthat",
        "set recipients or a password in the profile, or sse: AES256 for the storage to do it",
    )


def owner_finding(client: S3Client) -> Finding | None:
    """Return whether the storage looks at expected_bucket_owner; None where nothing is expected.

    Call it after a request that was not refused. Raises UnreachableError.
    """
    owner = client.settings.expected_bucket_owner
    if owner is None:
        return None
    tried = try_request(client, "head_bucket", ExpectedBucketOwner=_NOBODYS)
    if tried.error is None:
        return advice(
            OWNER,
            f"the storage does not look whether account {owner} owns the bucket",
            "expected_bucket_owner has no effect on this storage",
        )
    if tried.status != HTTPStatus.FORBIDDEN:
        return not_seen(client, OWNER, tried)
    return good(OWNER, f"account {owner}, as the profile says")


def other_owner_finding(client: S3Client, operation: str, **parameters: Any) -> Finding | None:
    """Return the problem that the bucket is another account's; None if that is not known.

    Call it with a request that was refused. Raises UnreachableError.
    """
    owner = client.settings.expected_bucket_owner
    if owner is None or try_request(client.of_any_owner(), operation, **parameters).error:
        return None
    return problem(
        OWNER,
        f"{client.shown} is not of account {owner}: nothing is stored there",
        "check s3_bucket and expected_bucket_owner",
    )
