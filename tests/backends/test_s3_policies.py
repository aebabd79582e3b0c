"""The printed policies: what each role may do, by the rules of AWS, and how long they are."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bakthat.backends.s3.policies import (
    MAX_BUCKET_BYTES,
    MAX_IAM_CHARACTERS,
    WRITTEN_ONCE,
    LockLimit,
    Role,
    Scope,
    bucket_policy,
    iam_policy,
    size_of,
)
from bakthat.format import names
from tests.support.policy_proxy import Context, Need, PolicyProxy, _is_like, checked_policy

BUCKET = "arn:aws:s3:::my-backups"
PLAIN = Scope("my-backups", "us-east-1", "", "")
SHARED = replace(PLAIN, own_prefix="hosts/web1/", shared_prefix="hosts/")
LOCKED = replace(PLAIN, lock=LockLimit("governance", 32))
VAULT = replace(
    SHARED,
    inventory_key="bakthat_glacier_inventory",
    vault_indexes="bakthat_glacier_indexes/vault/",
)
FULL = replace(VAULT, lock=LOCKED.lock, is_cold=True, kms_key="alias/backups")
CREATION = {"s3:ObjectCreationOperation": "true"}
NEW = {**CREATION, "s3:if-none-match": "*"}
PART = {"s3:ObjectCreationOperation": "false"}
LOCK = {"s3:object-lock-mode": "GOVERNANCE", "s3:object-lock-remaining-retention-days": "30"}


def may(
    role: Role,
    scope: Scope,
    action: str,
    key: str = "a.20130604191055.tgz",
    context: Context | None = None,
    *,
    is_encrypted: bool = True,
) -> bool:
    """Return whether the keys of a role may do something; *key* "" is the bucket itself."""
    proxy = PolicyProxy("", is_encrypted=is_encrypted)
    proxy.allow("user", iam_policy(role, scope))
    proxy.protect(scope.bucket, bucket_policy(scope))
    resource = f"{BUCKET}/{key}" if key else BUCKET
    return proxy.is_allowed("user", Need(f"s3:{action}", resource, context or {}))


def may_all(
    scope: Scope, action: str, key: str = "a.tgz", context: Context | None = None
) -> list[str]:
    """Return the roles that may do something."""
    return [each.value for each in Role if may(each, scope, action, key, context)]


@pytest.mark.parametrize("scope", [PLAIN, SHARED, LOCKED, VAULT, FULL])
@pytest.mark.parametrize("role", list(Role))
def test_policies_have_nothing_that_is_not_known(role: Role, scope: Scope) -> None:
    checked_policy(iam_policy(role, scope))
    checked_policy(bucket_policy(scope))


def test_only_the_writer_creates() -> None:
    assert may_all(PLAIN, "PutObject", "a.tgz", NEW) == ["writer"]
    assert may_all(PLAIN, "PutObject", "a.tgz", PART) == ["writer"]
    assert may_all(PLAIN, "AbortMultipartUpload") == ["writer", "keeper"]


def test_nobody_overwrites() -> None:
    assert may_all(PLAIN, "PutObject", "a.tgz", CREATION) == []
    assert may_all(PLAIN, "PutObject", "a.tgz", CREATION | {"s3:if-match": "abc"}) == []
    assert may_all(PLAIN, "PutObject", "a.tgz", CREATION | {"s3:x-amz-copy-source": "b/a"}) == []


def test_other_keys_of_the_bucket_do_not_overwrite_archives_either() -> None:
    proxy = PolicyProxy("")
    everything = {
        "Version": "2012-10-17",
        "Statement": [
            {"Sid": "All", "Effect": "Allow", "Action": "s3:*", "Resource": f"{BUCKET}/*"}
        ],
    }
    proxy.allow("admin", everything)
    proxy.protect("my-backups", bucket_policy(SHARED))

    def may_put(key: str, context: Context) -> bool:
        return proxy.is_allowed("admin", Need("s3:PutObject", f"{BUCKET}/{key}", context))

    assert not may_put("hosts/db1/a.20130604191055.tgz", CREATION)
    assert may_put("hosts/db1/a.20130604191055.tgz", NEW)
    assert may_put("other/a.tgz", CREATION)  # it is not bakthat's
    assert may_put("hosts/db1/a.keyvalue", CREATION)


def test_the_writer_overwrites_values_and_the_inventory_of_its_vault() -> None:
    assert may(Role.WRITER, VAULT, "PutObject", "hosts/web1/state.keyvalue", CREATION)
    assert may(Role.WRITER, VAULT, "PutObject", "bakthat_glacier_inventory", CREATION)
    assert may(Role.WRITER, VAULT, "GetObject", "bakthat_glacier_inventory")
    index = "bakthat_glacier_indexes/vault/hosts/web1/a.20130604191055.tgz.index"
    assert may(Role.WRITER, VAULT, "PutObject", index, NEW)
    assert not may(Role.WRITER, VAULT, "PutObject", index, CREATION)
    assert not may(Role.WRITER, PLAIN, "GetObject", "bakthat_glacier_inventory")


def test_the_writer_neither_reads_nor_deletes() -> None:
    for action in ("GetObject", "GetObjectVersion", "DeleteObject", "DeleteObjectVersion"):
        assert not may(Role.WRITER, FULL, action, "hosts/web1/a.tgz")
    assert not may(Role.WRITER, FULL, "ListBucketVersions", "", {"s3:prefix": "hosts/web1/"})
    assert not may(Role.WRITER, FULL, "PutObjectLegalHold", "hosts/web1/a.tgz")


def test_the_writer_is_confined_to_its_host() -> None:
    assert may(Role.WRITER, SHARED, "PutObject", "hosts/web1/a.tgz", NEW)
    assert not may(Role.WRITER, SHARED, "PutObject", "hosts/web10/a.tgz", NEW)
    assert not may(Role.WRITER, SHARED, "PutObject", "hosts/db1/a.keyvalue", CREATION)
    assert may(Role.WRITER, SHARED, "ListBucket", "", {"s3:prefix": "hosts/web1/a"})
    assert not may(Role.WRITER, SHARED, "ListBucket", "", {"s3:prefix": "hosts/"})
    assert not may(Role.WRITER, SHARED, "ListBucket", "")


def test_reader_and_keeper_see_all_hosts() -> None:
    prefix = {"s3:prefix": "hosts/"}
    assert may_all(SHARED, "ListBucket", "", prefix) == ["reader", "keeper"]
    assert may_all(SHARED, "ListBucketVersions", "", prefix) == ["reader", "keeper"]
    assert may_all(SHARED, "GetObject", "hosts/db1/a.tgz") == ["reader", "keeper"]
    assert may_all(SHARED, "GetObject", "elsewhere/a.tgz") == []


def test_only_the_keeper_deletes() -> None:
    assert may_all(PLAIN, "DeleteObject") == ["keeper"]
    assert may_all(PLAIN, "DeleteObjectVersion") == ["keeper"]
    assert may_all(replace(PLAIN, keeps_versions=True), "DeleteObjectVersion") == []


def test_locks_are_set_up_to_a_limit_and_in_the_mode_of_the_profile() -> None:
    assert may_all(LOCKED, "PutObjectRetention", "a.tgz", LOCK) == ["writer", "keeper"]
    longer = {**LOCK, "s3:object-lock-remaining-retention-days": "33"}
    assert may_all(LOCKED, "PutObjectRetention", "a.tgz", longer) == []
    compliance = {**LOCK, "s3:object-lock-mode": "COMPLIANCE"}
    assert may_all(LOCKED, "PutObjectRetention", "a.tgz", compliance) == []
    assert may_all(PLAIN, "PutObjectRetention", "a.tgz", LOCK) == []
    assert may_all(LOCKED, "PutObjectLegalHold") == ["keeper"]
    assert may_all(LOCKED, "BypassGovernanceRetention") == []


def test_the_lock_is_seen_by_all_and_the_bucket_is_changed_by_none() -> None:
    assert may_all(LOCKED, "GetObjectRetention") == ["writer", "reader", "keeper"]
    assert may_all(LOCKED, "GetBucketObjectLockConfiguration", "") == [*Role]
    for action in (
        "DeleteBucket",
        "DeleteBucketPolicy",
        "PutBucketAcl",
        "PutBucketObjectLockConfiguration",
        "PutBucketOwnershipControls",
        "PutBucketPolicy",
        "PutBucketPublicAccessBlock",
        "PutBucketVersioning",
        "PutEncryptionConfiguration",
        "PutLifecycleConfiguration",
        "PutReplicationConfiguration",
    ):
        assert may_all(LOCKED, action, "") == []


def test_what_no_role_may_do_stays_forbidden_whatever_else_is_attached() -> None:
    scope, proxy = LOCKED, PolicyProxy("")
    everything = {"Sid": "All", "Effect": "Allow", "Action": "s3:*", "Resource": f"{BUCKET}/*"}
    found = iam_policy(Role.WRITER, scope)
    proxy.allow("user", {**found, "Statement": [*found["Statement"], everything]})
    for action in ("DeleteObject", "DeleteObjectVersion", "BypassGovernanceRetention"):
        assert not proxy.is_allowed("user", Need(f"s3:{action}", f"{BUCKET}/a.tgz", {}))


def test_a_connection_without_tls_is_refused_unless_the_storage_has_none() -> None:
    assert not may(Role.READER, PLAIN, "GetObject", is_encrypted=False)
    assert may(Role.READER, replace(PLAIN, is_plain=True), "GetObject", is_encrypted=False)


def test_cold_archives_are_thawed_by_the_reader() -> None:
    assert may_all(replace(PLAIN, is_cold=True), "RestoreObject") == ["reader"]
    assert may_all(PLAIN, "RestoreObject") == []


@pytest.mark.parametrize(
    ("key", "resource", "is_alias"),
    [
        ("1234abcd-12ab", "arn:aws:kms:us-east-1:*:key/1234abcd-12ab", False),
        ("arn:aws:kms:us-east-1:111122223333:key/1", "arn:aws:kms:us-east-1:111122223333:key/1", 0),
        ("alias/backups", "arn:aws:kms:us-east-1:*:key/*", True),
        ("arn:aws:kms:us-east-1:111122223333:alias/backups", "arn:aws:kms:us-east-1:*:key/*", True),
    ],
)
def test_a_kms_key_is_used_through_s3_only(key: str, resource: str, is_alias: bool) -> None:
    scope = replace(PLAIN, kms_key=key)
    used = {
        role: [each for each in iam_policy(role, scope)["Statement"] if each["Sid"] == "UseKey"]
        for role in Role
    }
    assert used[Role.KEEPER] == []  # so it sees what backups are, and reads none
    assert used[Role.READER][0]["Action"] == ["kms:Decrypt"]
    (writer,) = used[Role.WRITER]
    assert writer["Action"] == ["kms:GenerateDataKey", "kms:Decrypt"]
    assert writer["Resource"] == resource
    condition = writer["Condition"]
    assert condition["StringLike"] == {"kms:ViaService": "s3.us-east-1.amazonaws.com*"}
    alias = {"kms:ResourceAliases": "alias/backups"}
    assert condition.get("ForAnyValue:StringEquals") == (alias if is_alias else None)


def test_the_partition_of_china_is_in_each_resource() -> None:
    scope = replace(FULL, region="cn-north-1")
    text = json.dumps([iam_policy(Role.WRITER, scope), bucket_policy(scope)])
    assert "arn:aws:" not in text
    assert "arn:aws-cn:s3:::my-backups/" in text
    assert "arn:aws-cn:kms:cn-north-1:*:key/*" in text


@pytest.mark.parametrize("character", ["*", "?", "$"])
def test_a_wildcard_in_a_prefix_stands_for_itself(character: str) -> None:
    prefix = f"a{character}b/"
    scope = replace(PLAIN, own_prefix=prefix, shared_prefix=prefix)
    assert may(Role.WRITER, scope, "PutObject", f"{prefix}x.tgz", NEW)
    assert not may(Role.WRITER, scope, "PutObject", "axxb/x.tgz", NEW)
    assert not may(Role.WRITER, scope, "ListBucket", "", {"s3:prefix": "axxb/"})
    assert may(Role.WRITER, scope, "ListBucket", "", {"s3:prefix": prefix})


def test_the_policies_fit_into_what_aws_allows() -> None:
    bucket = "b" * 63
    prefix = f"{'p' * 100}/{'h' * 64}/"
    scope = replace(FULL, bucket=bucket, own_prefix=prefix, shared_prefix=prefix)
    assert all(size_of(iam_policy(each, scope)) <= MAX_IAM_CHARACTERS for each in Role)
    assert len(json.dumps(bucket_policy(scope))) <= MAX_BUCKET_BYTES
    # So that one of an ordinary profile can be the inline policy of a user.
    assert all(size_of(iam_policy(each, LOCKED)) <= 2048 for each in Role)


@settings(max_examples=60, deadline=None)
@given(
    stem=st.text(min_size=1, max_size=40).filter(lambda each: "/" not in each),
    date=st.integers(0, 4102444799).map(lambda date: max(date, 946684800)),
    extension=st.sampled_from([".tgz", ".tar", ".gz", ""]),
    encrypted=st.booleans(),
    increment=st.booleans(),
)
def test_each_archive_and_index_is_written_once(
    stem: str, date: int, extension: str, encrypted: bool, increment: bool
) -> None:
    is_increment = increment and extension in (".tgz", ".tar")
    name = names.stored_name(stem, date, extension, encrypted=encrypted, increment=is_increment)
    for key in (name, names.index_key(name)):
        assert any(_is_like(pattern, key) for pattern in WRITTEN_ONCE)


@pytest.mark.parametrize("name", ["state", "app.state", "a.b.c", "x.2013", "backup.tgz", "a.index"])
def test_no_value_is_written_once(name: str) -> None:
    key = f"{name}{names.KEY_VALUE_EXTENSION}"
    assert not any(_is_like(pattern, key) for pattern in WRITTEN_ONCE)
