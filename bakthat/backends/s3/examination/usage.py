"""How a profile uses a bucket, and what a bucket's answer says when a setting cannot be seen."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Self

from bakthat.backends.aws.findings import Tried
from bakthat.backends.s3.client import S3Client
from bakthat.format.names import probe_name
from bakthat.policy.defaults import KEEP_VERSIONS
from bakthat.policy.finding import Finding, Verdict, advice
from bakthat.policy.object_lock.rule import LockRule

UNKNOWN_THERE = frozenset(
    {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}
)
"""The statuses by which storages say that a bucket has no such setting."""
_ENCRYPTION = ("recipients", "password", "password_file", "password_command")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a profile does with its bucket."""

    prefix: str
    """What the keys of backups begin with."""
    kept_days: int
    """For how long rotation keeps a backup; 0 without one."""
    is_incremental: bool
    """Whether backups need earlier ones."""
    deletes: bool
    """Whether something that bakthat is configured for deletes backups."""
    keeps_versions: bool
    """Whether a deletion leaves the versions of what it deletes."""
    lock: LockRule | None
    """How backups are locked; None: they are not."""
    is_encrypted: bool
    """Whether bakthat encrypts what it uploads."""

    @classmethod
    def of(cls, conf: Mapping[str, Any], prefix: str, *, kept_days: int) -> Self:
        """Return what the flat profile *conf* does."""
        return cls(
            prefix,
            kept_days,
            is_incremental=bool(conf.get("incremental")),
            deletes=bool(conf.get("rotation")),
            keeps_versions=conf.get("versions") == KEEP_VERSIONS,
            lock=LockRule.of(conf.get("object_lock") or {}),
            is_encrypted=any(conf.get(key) for key in _ENCRYPTION),
        )


def unused_key(prefix: str) -> str:
    """Return a key that no object has, beside those of backups."""
    return prefix + probe_name(uuid.uuid4().hex)


def why_not_seen(client: S3Client, tried: Tried) -> str:
    """Return why a setting was not seen; "" when it was, or the bucket has no such setting."""
    if tried.error is None or tried.status in UNKNOWN_THERE:
        return ""
    action = client.missing_action(tried.error)
    return f"{action} is not allowed" if action else str(tried.error)


def not_seen(client: S3Client, topic: str, *tries: Tried) -> Finding | None:
    """Return the finding that a setting was not looked at; None when it was, or there is none."""
    for tried in tries:
        reason = why_not_seen(client, tried)
        if reason and tried.error is not None:
            return advice(topic, f"could not look: {reason}", tried.error.hint)
    return None


def worst_of(is_bad: bool) -> Verdict:
    """Return the verdict on what is a problem if it *is_bad*, and an advice otherwise."""
    return Verdict.PROBLEM if is_bad else Verdict.ADVICE
