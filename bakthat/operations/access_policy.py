"""Print what to paste into AWS: the policy of the bucket, and the policy of one role's keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bakthat.backends.s3.policies import (
    MAX_BUCKET_BYTES,
    MAX_IAM_CHARACTERS,
    LockLimit,
    Role,
    Scope,
    bucket_policy,
    iam_policy,
    size_of,
)
from bakthat.conf import DEFAULT_PROFILE, Profile
from bakthat.errors import ConfigError, UsageError
from bakthat.policy.defaults import KEEP_VERSIONS
from bakthat.policy.object_lock.rule import LockRule
from bakthat.policy.object_lock.until import check_derivable
from bakthat.policy.rotation import RotationPolicy
from bakthat.policy.storage_classes import storage_class
from bakthat.session.indexes.home import VAULT_INDEXES
from bakthat.session.session import Session
from bakthat.session.vault import INVENTORY_KEY
from bakthat.system.paths import PathLike
from bakthat.system.text import did_you_mean, printable

_MARGIN = 2
"""Days. A lock that is derived from the rotation ends a day after the rotation may delete, and what
S3 counts as the remaining days may be rounded up."""


def access_policy(
    role: str,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
) -> dict[str, Any]:
    """Return the policies with the least rights for *role*: of the bucket, and of the role's keys.

    *role* is "writer", which only makes backups; "reader", which restores and monitors; or
    "keeper", which rotates, extends locks and holds. The result has ``bucket``, which is the same
    for each role, and ``iam``; both are to be pasted into AWS as they are. They depend on the
    profile: its bucket, prefix, vault, storage class, object lock, versions, rotation and KMS key.
    A writer with ``{host}`` in the prefix writes below that of *host*, by default this one.

    Sends no request. Raises UsageError for another role, and ConfigError, also where a policy
    would be longer than AWS allows.
    """
    if role not in list(Role):
        raise UsageError(
            f"no role '{printable(str(role))}'",
            hint=did_you_mean(str(role), list(Role)) or f"use one of: {', '.join(Role)}",
        )
    session = Session(profile, config, conf, host=host)
    scope = _scope(session)
    found = {"bucket": bucket_policy(scope), "iam": iam_policy(Role(role), scope)}
    too_long = (
        len(json.dumps(found["bucket"])) > MAX_BUCKET_BYTES
        or size_of(found["iam"]) > MAX_IAM_CHARACTERS
    )
    if too_long:
        raise ConfigError(
            "the policies would be longer than AWS allows",
            hint="shorten the prefix of the profile: each statement has it",
        )
    return found


def _scope(session: Session) -> Scope:
    profile = session.profile
    if profile.s3_bucket is None:
        raise ConfigError(
            "'s3_bucket' is not set", hint="set s3_bucket: the policies are those of a bucket of S3"
        )
    if profile.s3_bucket.startswith("arn:"):
        raise ConfigError(
            "'s3_bucket' is an access point, whose policies differ",
            hint="set s3_bucket to the name of its bucket",
        )
    vault = profile.glacier_vault
    return Scope(
        bucket=profile.s3_bucket,
        region=profile.region_name,
        own_prefix=session.prefix,
        shared_prefix=session.shared_prefix,
        lock=_lock_limit(profile),
        keeps_versions=profile.versions == KEEP_VERSIONS,
        is_cold=storage_class(profile.storage_class or "").is_cold,
        is_plain=(profile.endpoint_url or "").lower().startswith("http:"),
        kms_key=profile.sse_kms_key_id,
        inventory_key=None if vault is None else INVENTORY_KEY,
        vault_indexes=None if vault is None else f"{VAULT_INDEXES}/{vault}/",
    )


def _lock_limit(profile: Profile) -> LockLimit | None:
    rule = LockRule.of(profile.object_lock)
    if rule is None:
        return None
    if rule.days is not None:
        return LockLimit(rule.mode, rule.days + _MARGIN)
    rotation = RotationPolicy.choose(profile.rotation) if profile.rotation else None
    check_derivable(rule, rotation)
    assert rotation is not None
    return LockLimit(rule.mode, rotation.longest_days + _MARGIN)
