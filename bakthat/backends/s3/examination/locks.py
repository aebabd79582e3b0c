"""Whether the bucket has object lock, and whether its default retention fits the profile's lock."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from bakthat.backends.aws.findings import Tried, try_request
from bakthat.backends.s3.client import S3Client
from bakthat.backends.s3.examination.usage import (
    UNKNOWN_THERE,
    Usage,
    not_seen,
    unused_key,
    why_not_seen,
)
from bakthat.policy.finding import Finding, advice, good, problem
from bakthat.policy.object_lock.rule import LockRule
from bakthat.system.text import counted

TOPIC = "object lock"
_NOT_CONFIGURED = "ObjectLockConfigurationNotFoundError"
_DAYS_OF_YEAR = 365
_DEFAULT_HINT = (
    "remove the default retention of the bucket; bakthat locks backups by object_lock itself"
)


def has_lock(tried: Tried) -> bool:
    """Return whether the bucket has object lock, by the answer to the request for it."""
    return bool(_configuration(tried.answer).get("ObjectLockEnabled") == "Enabled")


def lock_finding(client: S3Client, tried: Tried, usage: Usage) -> Finding:
    """Return the finding about object lock, for the answer to the request for its settings."""
    unseen = not_seen(client, TOPIC, tried)
    if unseen is not None:
        if usage.lock is None:
            return unseen
        reason = why_not_seen(client, tried)
        return problem(TOPIC, f"could not look, so no backup can be locked: {reason}", unseen.hint)
    if not has_lock(tried):
        return _without_lock(client, tried, usage)
    retention = (_configuration(tried.answer).get("Rule") or {}).get("DefaultRetention") or {}
    days = int(retention.get("Days") or 0) + _DAYS_OF_YEAR * int(retention.get("Years") or 0)
    mode = str(retention.get("Mode") or "")
    if usage.lock is not None:
        return _refusal(client, usage.lock, usage.prefix) or _beside_own(
            usage.lock, usage, days, mode
        )
    if not days:
        return good(TOPIC, "on, without a default retention")
    detail = f"on: each object is kept for {counted(days, 'day')} ({mode})"
    if 0 < usage.kept_days < days:
        return advice(
            TOPIC,
            f"{detail}, but rotation keeps backups for {counted(usage.kept_days, 'day')}: what it "
            "would delete stays, and costs money, until then",
            "shorten the bucket's default retention, or let rotation keep backups for longer",
        )
    return good(TOPIC, detail)


def _without_lock(client: S3Client, tried: Tried, usage: Usage) -> Finding:
    if usage.lock is None:
        return good(TOPIC, "off")
    if tried.status in UNKNOWN_THERE and tried.code != _NOT_CONFIGURED:
        return problem(
            TOPIC,
            f"{client.shown} has none, and object_lock is set: backups are refused",
            "use a storage with object lock, or remove object_lock from the profile",
        )
    return problem(
        TOPIC,
        f"{client.shown} has it off, and object_lock is set: backups are refused",
        "set s3_bucket to a new name: the first backup makes that bucket with object lock; or let "
        "its administrator enable versioning and object lock for this one: aws s3api "
        f"put-object-lock-configuration --bucket {client.container} --object-lock-configuration "
        "ObjectLockEnabled=Enabled",
    )


def _refusal(client: S3Client, rule: LockRule, prefix: str) -> Finding | None:
    """Return the problem that the keys may lock nothing; None if they may.

    The lock of an object that does not exist is asked for. A storage without object lock would take
    that for an upload, but the bucket has it.
    """
    until = datetime.now(UTC) + timedelta(days=1)
    retention = {"Mode": rule.mode.upper(), "RetainUntilDate": until}
    tried = try_request(
        client, "put_object_retention", key=unused_key(prefix), once=True, Retention=retention
    )
    action = client.missing_action(tried.error) if tried.error is not None else ""
    if tried.error is None or not action:
        return None
    return problem(TOPIC, f"{action} is not allowed: backups cannot be locked", tried.error.hint)


def _beside_own(rule: LockRule, usage: Usage, days: int, mode: str) -> Finding:
    """Return the finding about a bucket with object lock whose backups the profile locks."""
    own_days = usage.kept_days if rule.days is None else rule.days
    long = "as long as rotation keeps them" if rule.days is None else f"for {_days(rule.days)}"
    detail = f"on: backups are locked {long} ({rule.mode})"
    default = f"the bucket's default retention is {_days(days)} ({mode})"
    stays = "what is stored without a lock of its own, such as values, stays that long"
    if days and mode.lower() != rule.mode:
        return advice(TOPIC, f"{detail}, but {default}, in another mode: {stays}", _DEFAULT_HINT)
    if days and 0 < own_days < days:
        return advice(TOPIC, f"{detail}, but {default}, which is longer: {stays}", _DEFAULT_HINT)
    if rule.days is not None and 0 < usage.kept_days < rule.days:
        return advice(
            TOPIC,
            f"{detail}, but rotation keeps them for {_days(usage.kept_days)} at most: what it "
            "would delete stays, and costs money, until then",
            "set fewer days in object_lock, or days: retention",
        )
    return good(TOPIC, detail)


def _configuration(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    return answer.get("ObjectLockConfiguration") or {}


def _days(days: int) -> str:
    return counted(days, "day")
