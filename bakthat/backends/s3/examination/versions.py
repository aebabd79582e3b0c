"""Whether the bucket keeps versions, and what becomes of those that nothing needs."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from bakthat.backends.aws.findings import try_request
from bakthat.backends.protection import NULL_VERSION
from bakthat.backends.s3.client import S3Client
from bakthat.backends.s3.examination.usage import Usage, unused_key, worst_of
from bakthat.policy.finding import Finding, advice, good
from bakthat.policy.lifecycle import LifecycleRule, days_of_versions
from bakthat.system.text import counted

TOPIC = "versioning"
_EXPIRE = "let a lifecycle rule of the bucket expire noncurrent versions"


def versioning_finding(
    client: S3Client, status: str, rules: Sequence[LifecycleRule], usage: Usage, *, has_lock: bool
) -> Finding:
    """Return the finding about versions, for the *status* of the bucket's versioning, "" for none.

    *rules* are those of the bucket's lifecycle, and *has_lock* whether it has object lock. Raises
    UnreachableError.
    """
    if usage.keeps_versions and status != "Enabled":
        nothing = "nothing of what is stored now" if status else "nothing"
        return advice(
            TOPIC,
            f"{status.lower() or 'off'}, so that versions: keep keeps {nothing}: what is deleted "
            "is gone",
            "enable the versioning of the bucket, or remove versions from the profile",
        )
    if not status:
        return good(TOPIC, "off: what is deleted is gone, and costs nothing")
    days = days_of_versions(rules, usage.prefix)
    is_on = status.lower()
    by_rule = "" if days is None else f"a lifecycle rule removes old ones after {_days(days)}"
    if usage.keeps_versions:
        if by_rule:
            return good(TOPIC, f"{is_on}, and kept by versions: keep; {by_rule}")
        costs = "what is deleted stays as an old version, and costs money"
        return advice(TOPIC, f"{is_on}, and kept by versions: keep: {costs}", _EXPIRE)
    refused, hint = _refused(client, usage.prefix)
    if not refused:
        removed = f"{is_on}: bakthat removes the versions of what it deletes"
        return good(TOPIC, f"{removed}; {by_rule}" if by_rule else removed)
    if has_lock:
        return Finding(
            TOPIC,
            worst_of(usage.deletes),
            f"{is_on}: {refused}, so that bakthat deletes nothing in this bucket with object lock",
            hint,
        )
    if by_rule:
        return good(TOPIC, f"{is_on}: {by_rule}; {refused} to the keys")
    costs = "what is deleted stays as an old version, and costs money"
    return advice(TOPIC, f"{is_on}: {refused}, so {costs}", f"{hint or _EXPIRE}, or {_EXPIRE}")


def _refused(client: S3Client, prefix: str) -> tuple[str, str]:
    """Return what does not let bakthat remove versions, and the hint; "" when it may."""
    key = unused_key(prefix)
    # A new key has no version "null", so its deletion changes nothing.
    tries = {
        "s3:ListBucketVersions": try_request(client, "list_object_versions", Prefix=key, MaxKeys=1),
        "s3:DeleteObjectVersion": try_request(
            client, "delete_object", key=key, VersionId=NULL_VERSION
        ),
    }
    for action, tried in tries.items():
        error = tried.error
        if error is not None and tried.status != HTTPStatus.NOT_FOUND:
            if client.missing_action(error):
                return f"{action} is not allowed", f"allow {action} in the policy of the keys"
            return str(error), error.hint
    return "", ""


def _days(days: int) -> str:
    return counted(days, "day")
