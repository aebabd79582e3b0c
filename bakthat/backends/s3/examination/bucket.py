"""Look at how a bucket is set up: region, versions, object lock, lifecycle rules, who may use it.

Each needs a permission that nothing else needs, so a refusal is an advice and no problem.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bakthat.backends.aws.findings import Tried, try_request
from bakthat.backends.s3.client import S3Client
from bakthat.backends.s3.examination.exposure import (
    encryption_finding,
    owner_finding,
    public_finding,
)
from bakthat.backends.s3.examination.locks import has_lock, lock_finding
from bakthat.backends.s3.examination.usage import Usage, not_seen, why_not_seen
from bakthat.backends.s3.examination.versions import TOPIC as VERSIONS
from bakthat.backends.s3.examination.versions import versioning_finding
from bakthat.policy.finding import Finding, advice, good
from bakthat.policy.lifecycle import TOPIC, LifecycleRule, lifecycle_findings


def look_at_bucket(client: S3Client, usage: Usage) -> list[Finding]:
    """Return the findings about the bucket, as a profile uses it. Raises UnreachableError."""
    lifecycle = try_request(client, "get_bucket_lifecycle_configuration")
    rules = [
        rule_of(each)
        for each in lifecycle.answer.get("Rules", ())
        if each.get("Status") == "Enabled"
    ]
    versioning = try_request(client, "get_bucket_versioning")
    status = str(versioning.answer.get("Status") or "")
    lock = try_request(client, "get_object_lock_configuration")
    findings: list[Finding | None] = [
        _region(client),
        owner_finding(client),
        not_seen(client, VERSIONS, versioning)
        or versioning_finding(client, status, rules, usage, has_lock=has_lock(lock)),
        _lock(client, lock, usage, has_versions=bool(status)),
        public_finding(client),
        encryption_finding(client, usage),
    ]
    unseen = not_seen(client, TOPIC, lifecycle)
    if unseen is not None:
        findings.append(unseen)
    else:
        findings += lifecycle_findings(
            rules,
            usage.prefix,
            kept_days=usage.kept_days,
            is_incremental=usage.is_incremental,
        )
    return [each for each in findings if each is not None]


def _lock(client: S3Client, lock: Tried, usage: Usage, *, has_versions: bool) -> Finding | None:
    # A bucket with object lock has versions.
    is_silent = usage.lock is None and not has_versions and why_not_seen(client, lock)
    return None if is_silent else lock_finding(client, lock, usage)


def rule_of(rule: Mapping[str, Any]) -> LifecycleRule:
    """Return a rule as botocore describes it."""
    given = rule.get("Filter") or {}
    conditions = {**given, **given.get("And", {})}
    expiry = rule.get("Expiration") or {}
    expires_after = expiry.get("Days")
    if expires_after is None and "Date" in expiry:
        expires_after = 0
    return LifecycleRule(
        name=str(rule.get("ID") or "without an ID"),
        # Old rules have it beside the filter.
        prefix=str(rule.get("Prefix") or conditions.get("Prefix") or ""),
        more_than=int(conditions.get("ObjectSizeGreaterThan") or 0),
        less_than=conditions.get("ObjectSizeLessThan"),
        needs_tags=bool(conditions.get("Tag") or conditions.get("Tags")),
        expires_after=expires_after,
        expires_versions_after=(rule.get("NoncurrentVersionExpiration") or {}).get(
            "NoncurrentDays"
        ),
        aborts_after=(rule.get("AbortIncompleteMultipartUpload") or {}).get("DaysAfterInitiation"),
        moves=tuple(
            (int(each.get("Days") or 0), str(each.get("StorageClass")))
            for each in rule.get("Transitions", ())
        ),
    )


def _region(client: S3Client) -> Finding | None:
    region, own = try_request(client, "head_bucket").answer.get("BucketRegion"), client.settings
    if not region:
        return None
    if region == own.region:
        return good("region", f"the bucket is in {region}, as the profile says")
    detail = f"the bucket is in {region}, and the profile says {own.region}"
    if own.endpoint_url is None:
        detail += ": each command is sent to two regions"
    return advice("region", detail, f"set region_name: {region}")
