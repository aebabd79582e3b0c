"""Look at how a bucket is set up: region, versions, object lock, lifecycle rules.

Each needs a permission that nothing else needs, so a refusal is an advice and no problem.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from bakthat.backends.aws.findings import Tried, try_request
from bakthat.backends.s3.client import S3Client
from bakthat.policy.finding import Finding, advice, good
from bakthat.policy.lifecycle import (
    TOPIC,
    LifecycleRule,
    days_of_versions,
    lifecycle_findings,
)
from bakthat.system.text import counted

UNKNOWN_THERE = frozenset(
    {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}
)
"""The statuses by which storages say that a bucket has no such setting."""
_DAYS_OF_YEAR = 365


def look_at_bucket(
    client: S3Client, prefix: str, *, kept_days: int, is_incremental: bool
) -> list[Finding]:
    """Return the findings about the bucket, for backups whose keys begin with *prefix*.

    *kept_days* and *is_incremental* are as for :func:`.lifecycle_findings`. Raises
    UnreachableError.
    """
    findings = [_region(client)]
    lifecycle = try_request(client, "get_bucket_lifecycle_configuration")
    rules = [
        rule_of(each)
        for each in lifecycle.answer.get("Rules", ())
        if each.get("Status") == "Enabled"
    ]
    not_seen = _not_seen(client, TOPIC, lifecycle)
    versioning = try_request(client, "get_bucket_versioning")
    has_versions = versioning.answer.get("Status") in ("Enabled", "Suspended")
    findings.append(
        _not_seen(client, "versioning", versioning)
        or _versioning(str(versioning.answer.get("Status", "")), rules, prefix)
    )
    lock = try_request(client, "get_object_lock_configuration")
    not_locked = _not_seen(client, "object lock", lock)
    # A bucket with object lock has versions.
    if not_locked is None or has_versions:
        findings.append(not_locked or _object_lock(lock.answer, kept_days))
    if not_seen is not None:
        findings.append(not_seen)
    else:
        findings += lifecycle_findings(
            rules, prefix, kept_days=kept_days, is_incremental=is_incremental
        )
    return [each for each in findings if each is not None]


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


def _versioning(status: str, rules: list[LifecycleRule], prefix: str) -> Finding:
    topic = "versioning"
    if not status:
        return good(topic, "off: what is deleted is gone, and costs nothing")
    days = days_of_versions(rules, prefix)
    if days is not None:
        old = f"a lifecycle rule removes old versions after {counted(days, 'day')}"
        return good(topic, f"{status.lower()}: {old}")
    return advice(
        topic,
        f"{status.lower()}: what is deleted stays as an old version, and costs money",
        "let a lifecycle rule of the bucket expire noncurrent versions",
    )


def _object_lock(answer: Mapping[str, Any], kept_days: int) -> Finding:
    topic = "object lock"
    configuration = answer.get("ObjectLockConfiguration") or {}
    if configuration.get("ObjectLockEnabled") != "Enabled":
        return good(topic, "off")
    retention = (configuration.get("Rule") or {}).get("DefaultRetention") or {}
    days = int(retention.get("Days") or 0) + _DAYS_OF_YEAR * int(retention.get("Years") or 0)
    if not days:
        return good(topic, "on, without a default retention")
    detail = f"on: each object is kept for {counted(days, 'day')} ({retention.get('Mode')})"
    if 0 < kept_days < days:
        return advice(
            topic,
            f"{detail}, but rotation keeps backups for {counted(kept_days, 'day')}: what it "
            "deletes still costs money until then",
            "shorten the bucket's default retention, or let rotation keep backups for longer",
        )
    return good(topic, detail)


def _not_seen(client: S3Client, topic: str, tried: Tried) -> Finding | None:
    """Return the finding that a setting was not looked at; None when it was, or there is none."""
    if tried.error is None or tried.status in UNKNOWN_THERE:
        return None
    action = client.missing_action(tried.error)
    reason = f"{action} is not allowed" if action else str(tried.error)
    return advice(topic, f"could not look: {reason}", tried.error.hint)
