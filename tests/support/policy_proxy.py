"""A proxy before an S3 server that enforces printed policies, request by request, as AWS does.

Each request needs one action or several, each on a resource: an explicit denial by the bucket
policy or by that of the user wins, and what neither allows is denied
(https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html). The
user is told by the access key in the signature, which the server behind may check too. Of a policy
with anything that is not known here, :func:`checked_policy` fails.
"""

from __future__ import annotations

import functools
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.support.fault_proxy import (
    Answer,
    Fault,
    FaultProxy,
    Judge,
    _Handler,
    refusal,
    serving,
)

Policy = Mapping[str, Any]
Context = dict[str, str]

_OF_BUCKET = {
    # By the method and the subresource: the names of actions differ from those of requests, see
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html.
    ("GET", ""): "s3:ListBucket",
    ("HEAD", ""): "s3:ListBucket",
    ("GET", "versions"): "s3:ListBucketVersions",
    ("GET", "uploads"): "s3:ListBucketMultipartUploads",
    ("GET", "acl"): "s3:GetBucketAcl",
    ("GET", "encryption"): "s3:GetEncryptionConfiguration",
    ("GET", "lifecycle"): "s3:GetLifecycleConfiguration",
    ("GET", "location"): "s3:GetBucketLocation",
    ("GET", "object-lock"): "s3:GetBucketObjectLockConfiguration",
    ("GET", "policy"): "s3:GetBucketPolicy",
    ("GET", "policyStatus"): "s3:GetBucketPolicyStatus",
    ("GET", "publicAccessBlock"): "s3:GetBucketPublicAccessBlock",
    ("GET", "replication"): "s3:GetReplicationConfiguration",
    ("GET", "versioning"): "s3:GetBucketVersioning",
    ("PUT", ""): "s3:CreateBucket",
    ("PUT", "acl"): "s3:PutBucketAcl",
    ("PUT", "encryption"): "s3:PutEncryptionConfiguration",
    ("PUT", "lifecycle"): "s3:PutLifecycleConfiguration",
    ("PUT", "object-lock"): "s3:PutBucketObjectLockConfiguration",
    ("PUT", "ownershipControls"): "s3:PutBucketOwnershipControls",
    ("PUT", "policy"): "s3:PutBucketPolicy",
    ("PUT", "publicAccessBlock"): "s3:PutBucketPublicAccessBlock",
    ("PUT", "replication"): "s3:PutReplicationConfiguration",
    ("PUT", "versioning"): "s3:PutBucketVersioning",
    ("DELETE", ""): "s3:DeleteBucket",
    ("DELETE", "encryption"): "s3:PutEncryptionConfiguration",
    ("DELETE", "lifecycle"): "s3:PutLifecycleConfiguration",
    ("DELETE", "ownershipControls"): "s3:PutBucketOwnershipControls",
    ("DELETE", "policy"): "s3:DeleteBucketPolicy",
    ("DELETE", "publicAccessBlock"): "s3:PutBucketPublicAccessBlock",
    ("DELETE", "replication"): "s3:PutReplicationConfiguration",
}
_OF_OBJECT = {
    ("GET", ""): "s3:GetObject",
    ("HEAD", ""): "s3:GetObject",
    ("GET", "acl"): "s3:GetObjectAcl",
    ("GET", "attributes"): "s3:GetObjectAttributes",
    ("GET", "legal-hold"): "s3:GetObjectLegalHold",
    ("GET", "retention"): "s3:GetObjectRetention",
    ("GET", "tagging"): "s3:GetObjectTagging",
    ("GET", "uploadId"): "s3:ListMultipartUploadParts",
    ("PUT", ""): "s3:PutObject",
    ("PUT", "acl"): "s3:PutObjectAcl",
    ("PUT", "legal-hold"): "s3:PutObjectLegalHold",
    ("PUT", "retention"): "s3:PutObjectRetention",
    ("PUT", "tagging"): "s3:PutObjectTagging",
    ("PUT", "uploadId"): "s3:PutObject",
    ("POST", "uploads"): "s3:PutObject",
    ("POST", "uploadId"): "s3:PutObject",
    ("POST", "restore"): "s3:RestoreObject",
    ("POST", "select"): "s3:GetObject",
    ("DELETE", ""): "s3:DeleteObject",
    ("DELETE", "tagging"): "s3:DeleteObjectTagging",
    ("DELETE", "uploadId"): "s3:AbortMultipartUpload",
}
_OF_VERSION = {
    "s3:DeleteObject": "s3:DeleteObjectVersion",
    "s3:DeleteObjectTagging": "s3:DeleteObjectVersionTagging",
    "s3:GetObject": "s3:GetObjectVersion",
    "s3:GetObjectAcl": "s3:GetObjectVersionAcl",
    "s3:GetObjectAttributes": "s3:GetObjectVersionAttributes",
    "s3:GetObjectTagging": "s3:GetObjectVersionTagging",
    "s3:PutObjectAcl": "s3:PutObjectVersionAcl",
    "s3:PutObjectTagging": "s3:PutObjectVersionTagging",
}
ACTIONS = frozenset(
    {
        *_OF_BUCKET.values(),
        *_OF_OBJECT.values(),
        *_OF_VERSION.values(),
        "s3:BypassGovernanceRetention",
        "s3:ListAllMyBuckets",
    }
)
"""All actions that a request may need here."""
CONDITION_KEYS = frozenset(
    {
        "aws:SecureTransport",
        "s3:ObjectCreationOperation",
        "s3:if-match",
        "s3:if-none-match",
        "s3:object-lock-legal-hold",
        "s3:object-lock-mode",
        "s3:object-lock-remaining-retention-days",
        "s3:prefix",
        "s3:x-amz-copy-source",
    }
)
"""All keys that a request is given here, where it has them."""
_NOT_S3 = ("kms:",)
"""What the actions of other services begin with; no request here needs one."""
_XML = "{http://s3.amazonaws.com/doc/2006-03-01/}"
_SUBRESOURCES = {name for _, name in (*_OF_BUCKET, *_OF_OBJECT)} - {""}
_PARAMETERS = frozenset(
    {"versionId", "partNumber", "delete", "list-type", "prefix", "delimiter", "max-keys", "marker"}
    | {"continuation-token", "start-after", "encoding-type", "fetch-owner", "key-marker"}
    | {"version-id-marker", "upload-id-marker", "max-uploads", "max-parts", "x-id"}
    | {"part-number-marker", "select-type"}
)
"""Parameters of a request that do not change which action it needs, but for ``versionId``."""


class Need(NamedTuple):
    """An action on a resource that a request needs."""

    action: str
    resource: str
    context: Context


# The language of policies


def checked_policy(policy: Policy) -> Policy:
    """Return *policy*. Raises AssertionError for anything in it that is not known here."""
    assert set(policy) == {"Version", "Statement"}, policy
    assert policy["Version"] == "2012-10-17"
    sids = [each.get("Sid", "") for each in policy["Statement"]]
    assert len(set(sids)) == len(sids), "a Sid is there twice"
    for each in policy["Statement"]:
        known = {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}
        assert set(each) <= known, each
        assert re.fullmatch(r"[A-Za-z0-9]+", each["Sid"])
        assert each["Effect"] in ("Allow", "Deny")
        assert each.get("Principal") in (None, "*")
        actions = _listed(each["Action"])
        if all(action.startswith(_NOT_S3) for action in actions):
            continue
        for action in actions:
            fits = [known for known in ACTIONS if _is_like(action, known, variables=False)]
            assert fits, f"no action is {action}"
        for resource in _listed(each["Resource"]):
            assert re.match(r"arn:aws(-cn|-us-gov)?:s3:::[a-z0-9.-]+(/|$)", resource), resource
        for operator, tests in each.get("Condition", {}).items():
            assert operator in _OPERATORS, f"the operator {operator} is not known"
            for key, values in tests.items():
                assert key in CONDITION_KEYS, f"the condition key {key} is not known"
                assert all(isinstance(value, str) for value in _listed(values))
    return policy


def _any_like(actual: str, patterns: Sequence[str]) -> bool:
    return any(_is_like(pattern, actual) for pattern in patterns)


_OPERATORS: dict[str, Callable[[str | None, Sequence[str]], bool]] = {
    # An operator on a key that the request lacks is false; its negation is true.
    "Null": lambda actual, values: [str(actual is None).lower()] == list(values),
    "Bool": lambda actual, values: actual is not None and actual in values,
    "StringEquals": lambda actual, values: actual is not None and actual in values,
    "StringNotEquals": lambda actual, values: actual is None or actual not in values,
    "StringLike": lambda actual, values: actual is not None and _any_like(actual, values),
    "StringNotLike": lambda actual, values: actual is None or not _any_like(actual, values),
    "NumericLessThanEquals": lambda actual, values: (
        actual is not None and any(float(actual) <= float(value) for value in values)
    ),
    "NumericGreaterThan": lambda actual, values: (
        actual is not None and any(float(actual) > float(value) for value in values)
    ),
}


def _fits(statement: Mapping[str, Any], need: Need) -> bool:
    """Return whether a statement is about what a request needs."""
    return (
        any(
            _is_like(each, need.action, variables=False)
            for each in _listed(statement["Action"])
            if not each.startswith(_NOT_S3)
        )
        and any(_is_like(each, need.resource) for each in _listed(statement["Resource"]))
        and all(
            _OPERATORS[operator](need.context.get(key), _listed(values))
            for operator, tests in statement.get("Condition", {}).items()
            for key, values in tests.items()
        )
    )


def _listed(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _is_like(pattern: str, text: str, *, variables: bool = True) -> bool:
    return _compiled(pattern, variables).fullmatch(text) is not None


@functools.cache
def _compiled(pattern: str, variables: bool) -> re.Pattern[str]:
    """Compile a pattern, in which ``${*}`` is an asterisk."""
    found = ""
    for part in re.split(r"(\$\{[^}]*\}|\*|\?)", pattern):
        if part.startswith("${"):
            assert variables
            assert part in ("${*}", "${?}", "${$}"), f"{part} is not known"
            found += re.escape(part[2])
        else:
            found += {"*": ".*", "?": "."}.get(part) or re.escape(part)
    return re.compile(found, re.DOTALL)


# What a request needs


def needs_of(method: str, path: str, headers: Mapping[str, str], body: bytes) -> list[Need]:
    """Return what a request needs. Raises AssertionError for one that is not known here."""
    parts = urlsplit(path)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    query = {name: value for name, value in query.items() if not name.startswith("X-Amz-")}
    unknown = query.keys() - _SUBRESOURCES - _PARAMETERS
    assert not unknown, f"{method} {path}: {unknown} is not known"
    if not bucket:
        return [Need("s3:ListAllMyBuckets", "*", {})]
    if not key:
        return _needs_of_bucket(method, bucket, query, headers, body)
    return _needs_of_object(method, f"arn:aws:s3:::{bucket}/{key}", query, headers, body)


def _subresource(query: Mapping[str, str]) -> str:
    found = _SUBRESOURCES & query.keys()
    assert len(found) < 2, f"{found} are two"
    return next(iter(found), "")


def _needs_of_bucket(
    method: str, bucket: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
) -> list[Need]:
    resource = f"arn:aws:s3:::{bucket}"
    if method == "POST" and "delete" in query:
        return [
            need
            for key, version in deleted_keys(body)
            for need in _deletion(f"{resource}/{key}", version, headers)
        ]
    action = _OF_BUCKET[method, _subresource(query)]
    context = {}
    if action in ("s3:ListBucket", "s3:ListBucketVersions") and "prefix" in query:
        context["s3:prefix"] = query["prefix"]
    return [Need(action, resource, context)]


def deleted_keys(body: bytes) -> list[tuple[str, str | None]]:
    """Return the keys of a DeleteObjects request, each with the version if it names one."""
    root = ET.fromstring(body)
    found = []
    for each in root:
        if each.tag.removeprefix(_XML) == "Object":
            values = {child.tag.removeprefix(_XML): child.text or "" for child in each}
            found.append((values["Key"], values.get("VersionId")))
    return found


def _deletion(resource: str, version: str | None, headers: Mapping[str, str]) -> list[Need]:
    found = [Need("s3:DeleteObjectVersion" if version else "s3:DeleteObject", resource, {})]
    return found + _bypass(resource, headers)


def _bypass(resource: str, headers: Mapping[str, str]) -> list[Need]:
    if headers.get("x-amz-bypass-governance-retention", "").lower() == "true":
        return [Need("s3:BypassGovernanceRetention", resource, {})]
    return []


def _needs_of_object(
    method: str,
    resource: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    body: bytes,
) -> list[Need]:
    subresource = _subresource(query)
    if (method, subresource) == ("DELETE", ""):
        return _deletion(resource, query.get("versionId"), headers)
    action = _OF_OBJECT[method, subresource]
    if "versionId" in query:
        action = _OF_VERSION.get(action, action)
    if action == "s3:PutObjectRetention":
        root = ET.fromstring(body)
        values = {each.tag.removeprefix(_XML): each.text or "" for each in root}
        context = _lock_context(values.get("Mode"), values.get("RetainUntilDate"))
        return [Need(action, resource, context), *_bypass(resource, headers)]
    if action == "s3:PutObjectLegalHold":
        status = ET.fromstring(body).findtext(f"{_XML}Status") or ""
        return [Need(action, resource, {"s3:object-lock-legal-hold": status})]
    if action == "s3:GetObjectAttributes":
        return [Need(action, resource, {}), Need("s3:GetObject", resource, {})]
    if action != "s3:PutObject":
        return [Need(action, resource, {})]
    return _needs_of_upload(method, resource, subresource, query, headers)


def _needs_of_upload(
    method: str,
    resource: str,
    subresource: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
) -> list[Need]:
    is_created = subresource == "" or (method == "POST" and subresource == "uploadId")
    context = {"s3:ObjectCreationOperation": str(is_created).lower()}
    for header in ("if-match", "if-none-match"):
        if header in headers and is_created:
            context[f"s3:{header}"] = headers[header]
    needs = []
    source = headers.get("x-amz-copy-source")
    if source is not None:
        context["s3:x-amz-copy-source"] = source
        path, _, version = unquote(source).lstrip("/").partition("?versionId=")
        read = "s3:GetObjectVersion" if version else "s3:GetObject"
        needs.append(Need(read, f"arn:aws:s3:::{path}", {}))
    if "if-match" in headers and is_created:
        # It tells which object is there.
        needs.append(Need("s3:GetObject", resource, {}))
    lock = _lock_context(
        headers.get("x-amz-object-lock-mode"),
        headers.get("x-amz-object-lock-retain-until-date"),
        headers.get("x-amz-object-lock-legal-hold"),
    )
    if "s3:object-lock-mode" in lock:
        needs.append(Need("s3:PutObjectRetention", resource, lock))
    if "s3:object-lock-legal-hold" in lock:
        needs.append(Need("s3:PutObjectLegalHold", resource, lock))
    for header, action in (("x-amz-tagging", "PutObjectTagging"), ("x-amz-acl", "PutObjectAcl")):
        if header in headers:
            needs.append(Need(f"s3:{action}", resource, {}))
    return [Need("s3:PutObject", resource, context | lock), *needs]


def _lock_context(mode: str | None, until: str | None, hold: str | None = None) -> Context:
    found: Context = {}
    if mode:
        found["s3:object-lock-mode"] = mode
    if until:
        left = datetime.fromisoformat(until) - datetime.now(UTC)
        found["s3:object-lock-remaining-retention-days"] = str(left.total_seconds() / 86400)
    if hold:
        found["s3:object-lock-legal-hold"] = hold
    return found


# The proxy


@dataclass
class PolicyProxy(FaultProxy):
    """The policies by the access keys of users, and by buckets."""

    users: dict[str, Policy] = field(default_factory=dict)
    buckets: dict[str, Policy] = field(default_factory=dict)
    is_encrypted: bool = True
    """Whether clients would have come with TLS; they come without, from this machine."""
    denied: list[tuple[str, str, str]] = field(default_factory=list)
    """User, action and resource of each that was denied."""
    problems: list[str] = field(default_factory=list)
    """Requests that are not known here. The fixture that runs the proxy fails for any."""

    def allow(self, access_key: str, policy: Policy) -> None:
        """Let the user with *access_key* do what *policy* says."""
        self.users[access_key] = checked_policy(policy)

    def protect(self, bucket: str, policy: Policy) -> None:
        """Give *bucket* its policy."""
        self.buckets[bucket] = checked_policy(policy)

    def is_allowed(self, user: str, need: Need) -> bool:
        """Return whether a user may do what a request needs."""
        bucket = need.resource.removeprefix("arn:aws:s3:::").partition("/")[0]
        context = {**need.context, "aws:SecureTransport": str(self.is_encrypted).lower()}
        needed = need._replace(context=context)
        policies = [self.users.get(user), self.buckets.get(bucket)]
        effects = {
            statement["Effect"]
            for policy in policies
            if policy is not None
            for statement in policy["Statement"]
            if _fits(statement, needed)
        }
        return effects == {"Allow"}

    def fault_for(
        self, method: str, path: str, headers: dict[str, str], body: bytes = b""
    ) -> Fault | None:
        """Record a request; return its refusal, or what must be hidden of the answer."""
        fault = super().fault_for(method, path, headers, body)
        if fault is not None:
            return fault
        user = _user_of(path, headers)
        try:
            needs = needs_of(method, path, headers, body)
        except Exception as exc:
            self.problems.append(f"{method} {path}: {exc!r}")
            raise
        denied = [each for each in needs if not self.is_allowed(user, each)]
        with self.lock:
            self.denied += [(user, each.action, each.resource) for each in denied]
        if denied and method == "POST" and needs[0].action.startswith("s3:DeleteObject"):
            return self._refused_deletions(path, needs, denied)
        if denied:
            action, resource, _ = denied[0]
            refused = refusal(
                403,
                "AccessDenied",
                f"User: arn:aws:iam::123456789012:user/{user} is not authorized to perform: "
                f"{action} on resource: {resource}",
            )
            return Answer(403) if method == "HEAD" else refused
        if method in ("GET", "HEAD") and needs[0].action.startswith("s3:GetObject"):
            return self._hiding(user, needs[0].resource)
        return None

    def _refused_deletions(
        self, path: str, needs: Sequence[Need], denied: Sequence[Need]
    ) -> Answer:
        """Answer that each key was refused: S3 does not refuse the whole request."""
        if {each.resource for each in needs} != {each.resource for each in denied}:
            self.problems.append(f"POST {path}: a deletion of which only a part is allowed")
        errors = "".join(
            f"<Error><Key>{each.resource.partition('/')[2]}</Key><Code>AccessDenied</Code>"
            f"<Message>not authorized to perform: {each.action}</Message></Error>"
            for each in denied
        )
        return Answer(200, f"<DeleteResult>{errors}</DeleteResult>".encode())

    def _hiding(self, user: str, resource: str) -> Judge:
        """Hide the lock of an object, and that there is none, from whom it does not concern."""
        bucket = f"arn:aws:s3:::{resource.removeprefix('arn:aws:s3:::').partition('/')[0]}"
        hidden = set()
        if not self.is_allowed(user, Need("s3:GetObjectRetention", resource, {})):
            hidden |= {"x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date"}
        if not self.is_allowed(user, Need("s3:GetObjectLegalHold", resource, {})):
            hidden.add("x-amz-object-lock-legal-hold")
        may_list = self.is_allowed(user, Need("s3:ListBucket", bucket, {}))

        def judge(
            status: int, headers: dict[str, str], body: bytes
        ) -> tuple[int, dict[str, str], bytes]:
            if status == 404 and not may_list:
                refused = refusal(403, "AccessDenied", "Access Denied").body if body else b""
                return 403, {"Content-Length": str(len(refused))}, refused
            kept = {name: value for name, value in headers.items() if name.lower() not in hidden}
            return status, kept, body

        return Judge(judge)


def _user_of(path: str, headers: Mapping[str, str]) -> str:
    """Return the access key of a signed request, or of a signed URL."""
    signed = headers.get("authorization", "") + unquote(urlsplit(path).query)
    found = re.search(r"Credential=([^/,&\s]+)/", signed)
    return found[1] if found else ""


@contextmanager
def policy_proxy(upstream: str) -> Iterator[PolicyProxy]:
    """Run a proxy before the server at the URL *upstream* until the block ends.

    Fails at the end when a request came that is not known here.
    """
    proxy = PolicyProxy(upstream)
    with serving(proxy, _Handler):
        yield proxy
    assert proxy.problems == []
