"""A client that tries every call of S3 on every object and version of a bucket, to destroy them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from bakthat.backends.aws.client import foreign_errors

NOT_ON_BUCKETS = frozenset({"ListBuckets", "ListDirectoryBuckets", "WriteGetObjectResponse"})
"""The calls that name no bucket."""
SLOW = frozenset({"SelectObjectContent", "CreateSession"})
"""Calls that only read: the answer of one is a stream, that of the other keys for a zone."""


@dataclass
class Attack:
    """What was tried, and what the storage let through."""

    tried: set[str] = field(default_factory=set)
    allowed: Counter[str] = field(default_factory=Counter)


def attack(client: Any, bucket: str) -> Attack:
    """Try every call of S3 that names the bucket, on each version of each key in it."""
    done = Attack()
    model = client.meta.service_model
    for name in model.operation_names:
        if name in NOT_ON_BUCKETS | SLOW:
            continue
        shape = model.operation_model(name).input_shape
        members = shape.members
        if "Bucket" not in members:
            continue
        done.tried.add(name)
        for target in _targets(client, bucket, with_keys="Key" in members or name.endswith("ts")):
            for request in _requests(name, shape, target):
                if "CopySource" in request:
                    request["CopySource"]["Bucket"] = bucket
                if _try(client, name, {**request, "Bucket": bucket}):
                    done.allowed[name] += 1
    return done


def _try(client: Any, name: str, request: Mapping[str, Any]) -> bool:
    from botocore import xform_name

    try:
        getattr(client, xform_name(name))(**request)
    except foreign_errors():
        return False
    return True


def _targets(client: Any, bucket: str, *, with_keys: bool) -> Iterator[dict[str, str]]:
    if not with_keys:
        yield {}
        return
    # Listed anew for each call: the calls before it have made versions of their own.
    listed: list[dict[str, Any]] = []
    with contextlib.suppress(*foreign_errors()):
        listed = client.list_object_versions(Bucket=bucket).get("Versions", [])
    for key in sorted({each["Key"] for each in listed}):
        yield {"Key": key}
    for each in listed:
        yield {"Key": each["Key"], "VersionId": each["VersionId"]}


def _requests(name: str, shape: Any, target: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield requests with what the call requires, and with all that makes it destructive."""
    required = {
        member: _value(member, shape.members[member], target)
        for member in shape.required_members
        if member != "Bucket"
    }
    if name == "DeleteObjects" and not target:
        return
    yield required
    known = {
        member: _value(member, shape.members[member], target)
        for member in shape.members
        if member in _known(target)
    }
    if known:
        yield {**required, **known}


def _known(target: Mapping[str, str]) -> dict[str, Any]:
    soon = datetime.now(UTC) + timedelta(seconds=60)
    lock = {"Mode": "GOVERNANCE", "Days": 1}
    return {
        **target,
        "BypassGovernanceRetention": True,
        "Body": b"destroyed",
        "CopySource": dict(target),
        "Delete": {"Objects": [dict(target)], "Quiet": False},
        "LegalHold": {"Status": "OFF"},
        "Retention": {"Mode": "GOVERNANCE", "RetainUntilDate": soon},
        "ObjectLockConfiguration": {
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": lock},
        },
        "VersioningConfiguration": {"Status": "Suspended"},
        "LifecycleConfiguration": {
            "Rules": [
                {
                    "ID": "all",
                    "Status": "Enabled",
                    "Filter": {"Prefix": ""},
                    "Expiration": {"Date": datetime(2020, 1, 1, tzinfo=UTC)},
                    "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
                }
            ]
        },
        "Policy": '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*",'
        '"Action":"s3:*","Resource":"arn:aws:s3:::*"}]}',
        "Tagging": {"TagSet": [{"Key": "destroyed", "Value": "yes"}]},
        "MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": "x"}]},
        "StorageClass": "STANDARD",
        "ACL": "public-read-write",
    }


def _value(member: str, shape: Any, target: Mapping[str, str]) -> Any:
    """Return a value for a member: the destructive one where there is one, else a plain one."""
    known = _known(target)
    if member in known:
        return known[member]
    if shape.type_name == "structure":
        return {each: _value(each, shape.members[each], target) for each in shape.required_members}
    if shape.type_name == "list":
        return [_value("", shape.member, target)]
    if shape.type_name == "map":
        return {}
    if shape.type_name == "timestamp":
        return datetime.now(UTC)
    if shape.type_name in ("integer", "long"):
        return 1
    if shape.type_name == "boolean":
        return True
    if shape.type_name == "blob":
        return b"destroyed"
    return shape.enum[0] if getattr(shape, "enum", None) else "destroyed"
