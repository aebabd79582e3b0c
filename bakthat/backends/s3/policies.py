"""The bucket policy, and the IAM policies of three roles, with the least rights for each.

The *writer* is on the host that is backed up: whoever takes that host over has its keys. It creates
objects, and neither reads, overwrites nor deletes any. The *reader* restores and monitors. The
*keeper* rotates, and so deletes; it is best on another machine, and needs no key that decrypts.

An IAM policy allows what its role needs, and denies what no role may ever do, whatever else is
attached to its keys. The bucket policy denies what nobody may do by accident or with stolen keys,
the account's administrators included; it names no user, so one policy serves all roles and hosts.
Nobody is locked out by it: whoever may change the bucket policy may lift it first.

The actions and condition keys are those of
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html, and which
request needs which is in
https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bakthat.backends.aws.permissions import arn
from bakthat.format.names import ENCRYPTED_EXTENSION, INDEX_EXTENSION, KEY_VALUE_EXTENSION

Policy = dict[str, Any]
Statement = dict[str, Any]

MAX_IAM_CHARACTERS = 6144
"""The longest managed policy, white space not counted, by
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html."""
MAX_BUCKET_BYTES = 20 * 1024
"""The longest bucket policy, by
https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-policies.html."""

WRITTEN_ONCE = (
    "*.tgz",
    "*.tar",
    "*.gz",
    f"*{ENCRYPTED_EXTENSION}",
    "*.enc",
    f"*{INDEX_EXTENSION}",
    "*.20????????????",
)
"""How the keys of archives and indexes end; the last one is that of a file that is stored as it is,
which ends with its date. The keys of what bakthat itself overwrites end in another way: a policy
cannot say "all but these" of the keys below a prefix."""

_VERSION = "2012-10-17"
"""The language of the policy, which has variables."""
_WILD = re.compile(r"[*?$]")


class Role(enum.StrEnum):
    """Who uses the keys of a policy."""

    WRITER = "writer"
    READER = "reader"
    KEEPER = "keeper"


@dataclass(frozen=True, slots=True)
class LockLimit:
    """How objects may be locked."""

    mode: str
    """"governance" or "compliance"."""
    days: int
    """The most days from the request on."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The part of a bucket that the policies are about."""

    bucket: str
    region: str
    own_prefix: str
    """What the keys of one host begin with: the writer's."""
    shared_prefix: str
    """What the keys of all hosts begin with: the reader's and the keeper's."""
    lock: LockLimit | None = None
    """None: backups are not locked."""
    keeps_versions: bool = False
    """Whether a deletion leaves the old version, so that the keeper removes none."""
    is_cold: bool = False
    """Whether archives must be thawed before they are read."""
    is_plain: bool = False
    """Whether the storage is reached without TLS."""
    kms_key: str | None = None
    """The id, the ARN or the alias of the key that encrypts the objects; None: no such key, or the
    one of AWS, which needs no right."""
    inventory_key: str | None = None
    """The key of the copy of a vault's inventory; None without a vault."""
    vault_indexes: str | None = None
    """What the keys of a vault's indexes begin with; None without a vault."""


def iam_policy(role: Role, scope: Scope) -> Policy:
    """Return the policy to attach to the user or the role that has the keys of *role*."""
    statements = {
        Role.WRITER: _writer,
        Role.READER: _reader,
        Role.KEEPER: _keeper,
    }[role](scope)
    return _policy([*statements, _never(role, scope)])


def bucket_policy(scope: Scope) -> Policy:
    """Return the policy of the bucket, the same for each role and each host."""
    everybody = {"Effect": "Deny", "Principal": "*"}
    statements: list[Statement] = []
    if not scope.is_plain:
        statements.append(
            {
                "Sid": "OnlyEncryptedConnections",
                **everybody,
                "Action": "s3:*",
                "Resource": [_bucket(scope), _bucket(scope, "/*")],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        )
    statements.append(
        {
            # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html:
            # the parts of an upload have no condition, its completion has one. A copy has none
            # either, so it is denied.
            "Sid": "ArchivesAreWrittenOnce",
            **everybody,
            "Action": "s3:PutObject",
            "Resource": _objects(scope, scope.shared_prefix, WRITTEN_ONCE),
            "Condition": {
                "Null": {"s3:if-none-match": "true"},
                "Bool": {"s3:ObjectCreationOperation": "true"},
            },
        }
    )
    if scope.lock is not None:
        locked = _objects(scope, scope.shared_prefix)
        statements += [
            {
                # Otherwise an administrator's keys would undo what governance mode locks.
                "Sid": "LocksAreNotBypassed",
                **everybody,
                "Action": "s3:BypassGovernanceRetention",
                "Resource": locked,
            },
            {
                # What is locked for a century by mistake or malice would cost for a century.
                "Sid": "LocksEnd",
                **everybody,
                "Action": "s3:PutObjectRetention",
                "Resource": locked,
                "Condition": {
                    "NumericGreaterThan": {
                        "s3:object-lock-remaining-retention-days": str(scope.lock.days)
                    }
                },
            },
        ]
    return _policy(statements)


def size_of(policy: Mapping[str, Any]) -> int:
    """Return the characters of a policy that IAM counts."""
    return len("".join(json.dumps(policy).split()))


# The roles


def _writer(scope: Scope) -> list[Statement]:
    own = _objects(scope, scope.own_prefix)
    statements = [
        _list(scope, "s3:ListBucket", scope.own_prefix),
        _allow(
            "CreateObjects",
            "s3:PutObject",
            own,
            {"Null": {"s3:if-none-match": "false"}},
        ),
        # CreateMultipartUpload and UploadPart have no If-None-Match; CompleteMultipartUpload has.
        _allow(
            "SendParts",
            "s3:PutObject",
            own,
            {"Bool": {"s3:ObjectCreationOperation": "false"}},
        ),
        # Parts of an upload that failed would cost money.
        _allow("DiscardParts", "s3:AbortMultipartUpload", own),
        _allow(
            "OverwriteValues",
            "s3:PutObject",
            [_bucket(scope, f"/{_literal(scope.own_prefix)}*{KEY_VALUE_EXTENSION}")],
        ),
        *_inventory(scope),
    ]
    if scope.lock is not None:
        statements += [
            # Whether the bucket has object lock at all.
            _allow(
                "SeeWhetherThereAreLocks", "s3:GetBucketObjectLockConfiguration", _bucket(scope)
            ),
            # That of a new object, and longer ones of the archives that an increment needs.
            _lock(scope.lock, own),
            # It shows when a lock ends, and no content.
            _allow("SeeLocks", "s3:GetObjectRetention", own),
        ]
    # KMS decrypts the parts of an upload when it is completed:
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html#mpuAndPermissions
    return statements + _kms(scope, "kms:GenerateDataKey", "kms:Decrypt")


def _reader(scope: Scope) -> list[Statement]:
    # Old versions too: they are what is left after an attack.
    actions = ["s3:GetObject", "s3:GetObjectVersion"]
    if scope.lock is not None:
        # Without these, the answer to a HEAD hides the lock.
        actions += ["s3:GetObjectRetention", "s3:GetObjectLegalHold"]
    if scope.is_cold:
        actions.append("s3:RestoreObject")
    return [
        _list(scope, ["s3:ListBucket", "s3:ListBucketVersions"], scope.shared_prefix),
        _allow("ReadObjects", actions, _objects(scope, scope.shared_prefix)),
        *([_allow("ReadInventory", "s3:GetObject", _key(scope))] if scope.inventory_key else []),
        _examine(scope),
        *_kms(scope, "kms:Decrypt"),
    ]


def _keeper(scope: Scope) -> list[Statement]:
    objects = _objects(scope, scope.shared_prefix)
    # A HEAD, which shows what a backup is and how it is locked, needs the right to read. With a KMS
    # key, its content stays unreadable, since the keeper has no right to that.
    see = ["s3:GetObject", "s3:GetObjectVersion"]
    remove = ["s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    if not scope.keeps_versions:
        remove.insert(1, "s3:DeleteObjectVersion")
    statements = [
        _list(scope, ["s3:ListBucket", "s3:ListBucketVersions"], scope.shared_prefix),
        # This action has no condition on the prefix.
        _allow("ListUploads", "s3:ListBucketMultipartUploads", _bucket(scope)),
    ]
    if scope.lock is not None:
        see += ["s3:GetObjectRetention", "s3:GetObjectLegalHold"]
        statements += [
            _lock(scope.lock, objects),
            _allow("HoldObjects", "s3:PutObjectLegalHold", objects),
        ]
    return [
        *statements,
        _allow("SeeObjects", see, objects),
        _allow("RemoveObjects", remove, objects),
        *_inventory(scope),
        _examine(scope),
    ]


def _never(role: Role, scope: Scope) -> Statement:
    """Return what *role* may not do, whatever else allows it."""
    actions = [
        "s3:BypassGovernanceRetention",
        "s3:DeleteBucket*",
        # Policy, versioning, object lock, public access, access lists, replication's target.
        "s3:PutBucket*",
        "s3:PutEncryptionConfiguration",
        # A rule that expires everything after a day deletes everything.
        "s3:PutLifecycleConfiguration",
        "s3:PutObjectAcl",
        "s3:PutObjectVersionAcl",
        "s3:PutReplicationConfiguration",
    ]
    if role is Role.WRITER:
        actions.append("s3:DeleteObject*")
    return {
        "Sid": "Never",
        "Effect": "Deny",
        "Action": actions,
        "Resource": [_bucket(scope), _bucket(scope, "/*")],
    }


# Statements


def _list(scope: Scope, actions: str | list[str], prefix: str) -> Statement:
    prefixes = [prefix, *([scope.vault_indexes + prefix] if scope.vault_indexes else ())]
    patterns = [f"{_literal(each)}*" for each in prefixes]
    # Without the right to list it, S3 does not say that it does not exist yet.
    patterns += [scope.inventory_key] if scope.inventory_key else []
    condition = {"StringLike": {"s3:prefix": patterns}} if prefix else None
    return _allow("List", actions, _bucket(scope), condition)


def _lock(limit: LockLimit, objects: Sequence[str]) -> Statement:
    return _allow(
        "LockObjects",
        "s3:PutObjectRetention",
        objects,
        {
            "StringEquals": {"s3:object-lock-mode": limit.mode.upper()},
            "NumericLessThanEquals": {"s3:object-lock-remaining-retention-days": str(limit.days)},
        },
    )


def _inventory(scope: Scope) -> list[Statement]:
    """Return the right to merge the copy of a vault's inventory, which has no prefix."""
    if scope.inventory_key is None:
        return []
    return [_allow("MergeInventory", ["s3:GetObject", "s3:PutObject"], _key(scope))]


def _examine(scope: Scope) -> Statement:
    """Return the right to look at how the bucket is set up: ``doctor`` does, and deletions."""
    actions = [
        "s3:GetBucketAcl",
        "s3:GetBucketObjectLockConfiguration",
        "s3:GetBucketPolicyStatus",
        "s3:GetBucketPublicAccessBlock",
        "s3:GetBucketVersioning",
        "s3:GetEncryptionConfiguration",
        "s3:GetLifecycleConfiguration",
    ]
    return _allow("ExamineBucket", actions, _bucket(scope))


def _kms(scope: Scope, *actions: str) -> list[Statement]:
    if scope.kms_key is None:
        return []
    service = arn("s3", scope.region, "").split(":")[1]
    key, condition = scope.kms_key, {}
    # The account of the key is not known, and the key's own policy names who may use it.
    anywhere = f"arn:{service}:kms:{scope.region}:*:key"
    alias = re.search(r"(?:^|:)(alias/.+)", key)
    if alias is not None:
        # An alias is no resource of these actions:
        # https://docs.aws.amazon.com/kms/latest/developerguide/alias-authorization.html
        condition = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": alias[1]}}
        key = f"{anywhere}/*"
    elif not key.startswith("arn:"):
        key = f"{anywhere}/{key}"
    # S3 uses the key for its clients; nothing else may be decrypted with it.
    via = {"StringLike": {"kms:ViaService": f"s3.{scope.region}.amazonaws.com*"}}
    return [_allow("UseKey", list(actions), key, {**condition, **via})]


def _allow(
    sid: str,
    actions: str | Sequence[str],
    resources: str | Sequence[str],
    condition: Mapping[str, Any] | None = None,
) -> Statement:
    found = {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources}
    return {**found, "Condition": condition} if condition else found


def _policy(statements: Iterable[Statement]) -> Policy:
    return {"Version": _VERSION, "Statement": list(statements)}


# Resources


def _objects(scope: Scope, prefix: str, endings: Sequence[str] = ("*",)) -> list[str]:
    """Return the ARNs of the objects below a prefix, and of a vault's indexes below it."""
    found = [_bucket(scope, f"/{_literal(prefix)}{each}") for each in endings]
    if scope.vault_indexes is not None and prefix:
        found.append(_bucket(scope, f"/{_literal(scope.vault_indexes + prefix)}*"))
    return found


def _key(scope: Scope) -> str:
    return _bucket(scope, f"/{scope.inventory_key}")


def _bucket(scope: Scope, within: str = "") -> str:
    return arn("s3", scope.region, f"{scope.bucket}{within}")


def _literal(text: str) -> str:
    """Return *text* as a pattern that fits nothing else: ``${*}`` is an asterisk."""
    return _WILD.sub(lambda found: f"${{{found[0]}}}", text)
