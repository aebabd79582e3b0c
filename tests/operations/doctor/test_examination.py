"""What doctor says about the settings of a bucket, and about the keys."""

from __future__ import annotations

import json
from typing import Any

import pytest

import bakthat
from bakthat.backends.s3.client import S3Client, S3Settings
from bakthat.backends.s3.examination.exposure import owner_finding
from bakthat.policy.finding import Finding, Verdict
from tests.support.fault_proxy import Answer, FaultProxy, fault_proxy, refusal
from tests.support.findings import finding, problems
from tests.support.iam import CheckedServer
from tests.support.profiles import Conf
from tests.support.servers import S3Server, plain

MINIMAL = (
    "s3:ListBucket",
    "s3:PutObject",
    "s3:GetObject",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
    "s3:ListBucketMultipartUploads",
    "s3:ListMultipartUploadParts",
)
LOOKING = {
    "s3:GetBucketVersioning": "versioning",
    "s3:GetLifecycleConfiguration": "lifecycle rules",
}


@pytest.fixture
def conf(moto_conf: Conf, local: Conf) -> Conf:
    """Return a profile with a bucket."""
    plain(moto_conf).create_bucket(Bucket=moto_conf["s3_bucket"])
    return {**moto_conf, "database": local["database"]}


def doctor(conf: Conf) -> list[Finding]:
    return bakthat.doctor(conf=conf)


def set_rules(conf: Conf, *rules: dict[str, Any]) -> None:
    plain(conf).put_bucket_lifecycle_configuration(
        Bucket=conf["s3_bucket"],
        LifecycleConfiguration={"Rules": [{"Status": "Enabled", **each} for each in rules]},
    )


def test_a_new_bucket_is_good(conf: Conf) -> None:
    findings = doctor(conf)
    assert problems(findings) == []
    good = {each.topic for each in findings if each.verdict is Verdict.GOOD}
    assert good >= {"credentials", "region", "versioning", "lifecycle rules", "object lock"}
    assert "ends in -key" in finding(findings, "credentials").detail
    assert conf["secret_key"] not in repr(findings)


@pytest.mark.parametrize("name", ["rclone", "seaweedfs"])
def test_storages_without_such_settings_are_good(
    name: str, request: pytest.FixtureRequest, local: Conf
) -> None:
    conf: Conf = request.getfixturevalue(f"{name}_conf")
    plain(conf).create_bucket(Bucket=conf["s3_bucket"])
    findings = doctor({**conf, "database": local["database"]})
    for topic in ("versioning", "lifecycle rules", "object lock"):
        assert finding(findings, topic).verdict is Verdict.GOOD


@pytest.mark.parametrize("code", [403, 500])
@pytest.mark.parametrize(
    ("part", "topic"),
    [("?lifecycle", "lifecycle rules"), ("?versioning", "versioning")],
)
def test_what_cannot_be_looked_at_is_advice(
    conf: Conf, moto_proxy: FaultProxy, code: int, part: str, topic: str
) -> None:
    moto_proxy.on("GET", part, refusal(code, "AccessDenied" if code == 403 else "InternalError"))
    findings = doctor({**conf, "endpoint_url": moto_proxy.endpoint_url})
    assert problems(findings) == []
    found = finding(findings, topic)
    assert found.verdict is Verdict.ADVICE
    assert found.detail.startswith("could not look: ")


@pytest.mark.parametrize("code", [404, 405, 501])
def test_a_storage_that_does_not_know_a_setting_has_none(
    conf: Conf, moto_proxy: FaultProxy, code: int
) -> None:
    for part in ("?lifecycle", "?versioning", "?object-lock"):
        moto_proxy.on("GET", part, refusal(code, "NotImplemented"))
    findings = doctor({**conf, "endpoint_url": moto_proxy.endpoint_url})
    for topic in ("lifecycle rules", "versioning", "object lock"):
        assert finding(findings, topic).verdict is Verdict.GOOD


def test_a_bucket_in_another_region_is_advice(moto_endpoint: S3Server, local: Conf) -> None:
    conf = {**moto_endpoint.conf(), "database": local["database"], "region_name": "eu-west-3"}
    plain(conf).create_bucket(
        Bucket=conf["s3_bucket"], CreateBucketConfiguration={"LocationConstraint": "eu-north-1"}
    )
    region = finding(doctor(conf), "region")
    assert region.verdict is Verdict.ADVICE
    assert region.hint == "set region_name: eu-north-1"


def keep_versions(conf: Conf, status: str = "Enabled") -> None:
    plain(conf).put_bucket_versioning(
        Bucket=conf["s3_bucket"], VersioningConfiguration={"Status": status}
    )


EXPIRING_VERSIONS = {
    "ID": "old",
    "Filter": {"Prefix": ""},
    "NoncurrentVersionExpiration": {"NoncurrentDays": 9},
}


def test_versions_that_bakthat_removes_are_good(conf: Conf) -> None:
    keep_versions(conf)
    found = finding(doctor(conf), "versioning")
    assert found.verdict is Verdict.GOOD
    assert found.detail == "enabled: bakthat removes the versions of what it deletes"
    set_rules(conf, EXPIRING_VERSIONS)
    found = finding(doctor(conf), "versioning")
    assert found.verdict is Verdict.GOOD
    assert "after 9 days" in found.detail
    assert plain(conf).list_object_versions(Bucket=conf["s3_bucket"]).get("DeleteMarkers") is None


@pytest.mark.parametrize("status", ["Enabled", "Suspended"])
@pytest.mark.parametrize("name", ["moto", "seaweedfs"])
def test_looking_at_versions_leaves_none(
    name: str, status: str, request: pytest.FixtureRequest, local: Conf
) -> None:
    conf = {**request.getfixturevalue(f"{name}_conf"), "database": local["database"]}
    plain(conf).create_bucket(Bucket=conf["s3_bucket"])
    keep_versions(conf, status)
    assert finding(doctor(conf), "versioning").verdict is Verdict.GOOD
    listed = plain(conf).list_object_versions(Bucket=conf["s3_bucket"])
    assert listed.get("Versions", []) + listed.get("DeleteMarkers", []) == []


def test_versions_that_are_kept_are_advice_until_a_rule_removes_the_old_ones(conf: Conf) -> None:
    conf = {**conf, "versions": "keep"}
    found = finding(doctor(conf), "versioning")
    assert found.verdict is Verdict.ADVICE
    assert found.detail.startswith("off, so that versions: keep keeps nothing")
    keep_versions(conf, "Suspended")
    set_rules(conf, EXPIRING_VERSIONS)
    found = finding(doctor(conf), "versioning")
    assert found.verdict is Verdict.ADVICE
    assert found.detail.startswith("suspended, so that versions: keep keeps nothing of what is")
    assert "enable the versioning of the bucket" in found.hint
    plain(conf).delete_bucket_lifecycle(Bucket=conf["s3_bucket"])
    keep_versions(conf)
    found = finding(doctor(conf), "versioning")
    assert found.verdict is Verdict.ADVICE
    assert "costs money" in found.detail
    assert "expire noncurrent versions" in found.hint
    set_rules(conf, EXPIRING_VERSIONS)
    found = finding(doctor(conf), "versioning")
    assert found.verdict is Verdict.GOOD
    assert "after 9 days" in found.detail


@pytest.mark.parametrize(
    ("verb", "part", "action"),
    [
        ("GET", "?versions", "s3:ListBucketVersions"),
        ("DELETE", "versionId=null", "s3:DeleteObjectVersion"),
    ],
)
def test_versions_that_the_keys_may_not_remove_are_advice_until_a_rule_does(
    conf: Conf, moto_proxy: FaultProxy, verb: str, part: str, action: str
) -> None:
    keep_versions(conf)
    moto_proxy.on(verb, part, refusal(403, "AccessDenied"))
    conf = {**conf, "endpoint_url": moto_proxy.endpoint_url}
    found = finding(doctor(conf), "versioning")
    assert found.verdict is Verdict.ADVICE
    assert found.detail.startswith(f"enabled: {action} is not allowed, so what is deleted stays")
    assert found.hint.startswith(f"allow {action} ")
    set_rules(conf, EXPIRING_VERSIONS)
    assert finding(doctor(conf), "versioning").verdict is Verdict.GOOD


def test_versions_that_the_keys_may_not_remove_with_object_lock_stop_rotation(
    moto_conf: Conf, moto_proxy: FaultProxy, local: Conf
) -> None:
    conf = {**moto_conf, "database": local["database"]}
    plain(conf).create_bucket(Bucket=conf["s3_bucket"], ObjectLockEnabledForBucket=True)
    moto_proxy.on("DELETE", "versionId=null", refusal(403, "AccessDenied"))
    conf["endpoint_url"] = moto_proxy.endpoint_url
    found = finding(doctor(conf), "versioning")
    assert found.verdict is Verdict.ADVICE
    assert "s3:DeleteObjectVersion is not allowed, so that bakthat deletes nothing" in found.detail
    found = finding(doctor({**conf, "rotation": {"days": 7}}), "versioning")
    assert found.verdict is Verdict.PROBLEM


def test_object_lock_that_holds_longer_than_rotation_is_advice(
    moto_conf: Conf, local: Conf
) -> None:
    conf = {**moto_conf, "database": local["database"]}
    client, bucket = plain(conf), conf["s3_bucket"]
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    assert finding(doctor(conf), "object lock").detail == "on, without a default retention"
    for retention, days in (({"Days": 30}, 30), ({"Years": 1}, 365)):
        rule = {"DefaultRetention": {"Mode": "GOVERNANCE", **retention}}
        client.put_object_lock_configuration(
            Bucket=bucket,
            ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule},
        )
        assert finding(doctor(conf), "object lock").verdict is Verdict.GOOD
        found = finding(doctor({**conf, "rotation": {"days": 7}}), "object lock")
        assert found.verdict is Verdict.ADVICE
        assert f"kept for {days} days (GOVERNANCE)" in found.detail
        assert "keeps backups for 7 days" in found.detail
    assert client.list_object_versions(Bucket=bucket).get("Versions") is None


LOCKED = {"object_lock": {"mode": "governance", "days": 30}}


@pytest.mark.parametrize("name", ["moto", "seaweedfs"])
def test_a_bucket_without_object_lock_is_a_problem_where_backups_are_to_be_locked(
    name: str, request: pytest.FixtureRequest, local: Conf
) -> None:
    conf = {**request.getfixturevalue(f"{name}_conf"), "database": local["database"], **LOCKED}
    plain(conf).create_bucket(Bucket=conf["s3_bucket"])
    found = finding(doctor(conf), "object lock")
    assert found.verdict is Verdict.PROBLEM
    assert found.detail.endswith("has it off, and object_lock is set: backups are refused")
    assert "put-object-lock-configuration" in found.hint


def test_a_storage_without_object_lock_is_a_problem_where_backups_are_to_be_locked(
    conf: Conf, moto_proxy: FaultProxy
) -> None:
    moto_proxy.on("GET", "?object-lock", refusal(501, "NotImplemented"))
    found = finding(
        doctor({**conf, **LOCKED, "endpoint_url": moto_proxy.endpoint_url}), "object lock"
    )
    assert found.verdict is Verdict.PROBLEM
    assert "has none, and object_lock is set" in found.detail
    assert "use a storage with object lock" in found.hint


def test_a_lock_that_cannot_be_looked_at_is_a_problem_where_backups_are_to_be_locked(
    conf: Conf, moto_proxy: FaultProxy
) -> None:
    moto_proxy.on("GET", "?object-lock", refusal(403, "AccessDenied"))
    conf = {**conf, "endpoint_url": moto_proxy.endpoint_url}
    assert "object lock" not in {each.topic for each in doctor(conf)}
    found = finding(doctor({**conf, **LOCKED}), "object lock")
    assert found.verdict is Verdict.PROBLEM
    assert "s3:GetBucketObjectLockConfiguration is not allowed" in found.detail
    assert found.hint.startswith("allow s3:GetBucketObjectLockConfiguration")


@pytest.fixture(params=["moto", "seaweedfs"])
def locking(request: pytest.FixtureRequest, local: Conf) -> Conf:
    """Return a profile with a bucket that has object lock, in which backups are locked."""
    conf = {**request.getfixturevalue(f"{request.param}_conf"), "database": local["database"]}
    plain(conf).create_bucket(Bucket=conf["s3_bucket"], ObjectLockEnabledForBucket=True)
    return {**conf, **LOCKED}


def set_default_retention(conf: Conf, mode: str, days: int) -> None:
    rule = {"DefaultRetention": {"Mode": mode, "Days": days}}
    plain(conf).put_object_lock_configuration(
        Bucket=conf["s3_bucket"],
        ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule},
    )


def test_a_bucket_whose_backups_are_locked_is_good(locking: Conf) -> None:
    findings = doctor(locking)
    assert problems(findings) == []
    found = finding(findings, "object lock")
    assert found.verdict is Verdict.GOOD
    assert found.detail == "on: backups are locked for 30 days (governance)"
    listed = plain(locking).list_object_versions(Bucket=locking["s3_bucket"])
    assert listed.get("Versions", []) + listed.get("DeleteMarkers", []) == []
    kept = {"rotation": {"days": 7}, "object_lock": {"mode": "governance", "days": "retention"}}
    found = finding(doctor({**locking, **kept}), "object lock")
    assert found.detail == "on: backups are locked as long as rotation keeps them (governance)"


@pytest.mark.parametrize(
    ("mode", "days", "why"),
    [
        ("GOVERNANCE", 30, ""),
        ("GOVERNANCE", 3, ""),
        ("GOVERNANCE", 31, "31 days (GOVERNANCE), which is longer"),
        ("COMPLIANCE", 3, "3 days (COMPLIANCE), in another mode"),
    ],
)
def test_a_default_retention_that_is_not_as_the_profile_s_is_advice(
    locking: Conf, mode: str, days: int, why: str
) -> None:
    set_default_retention(locking, mode, days)
    found = finding(doctor(locking), "object lock")
    assert found.verdict is (Verdict.ADVICE if why else Verdict.GOOD)
    assert why in found.detail
    assert not why or found.hint.startswith("remove the default retention")


def test_a_default_retention_that_is_longer_than_rotation_is_advice_for_locks_as_long_as_it(
    locking: Conf,
) -> None:
    set_default_retention(locking, "GOVERNANCE", 20)
    conf = {**locking, "object_lock": {"mode": "governance", "days": "retention"}}
    assert finding(doctor({**conf, "rotation": {"days": 30}}), "object lock").hint == ""
    found = finding(doctor({**conf, "rotation": {"days": 7}}), "object lock")
    assert "20 days (GOVERNANCE), which is longer" in found.detail


def test_a_lock_that_is_longer_than_rotation_is_advice(locking: Conf) -> None:
    found = finding(doctor({**locking, "rotation": {"days": 7}}), "object lock")
    assert found.verdict is Verdict.ADVICE
    assert "rotation keeps them for 7 days at most" in found.detail
    assert "days: retention" in found.hint


def test_keys_that_may_not_lock_are_a_problem_where_backups_are_to_be_locked(
    moto_conf: Conf, moto_proxy: FaultProxy, local: Conf
) -> None:
    conf = {**moto_conf, "database": local["database"]}
    plain(conf).create_bucket(Bucket=conf["s3_bucket"], ObjectLockEnabledForBucket=True)
    conf["endpoint_url"] = moto_proxy.endpoint_url
    moto_proxy.on("PUT", "?retention", refusal(403, "AccessDenied"))
    assert finding(doctor(conf), "object lock").verdict is Verdict.GOOD
    assert moto_proxy.seen("PUT", "?retention") == 0
    found = finding(doctor({**conf, **LOCKED}), "object lock")
    assert found.verdict is Verdict.PROBLEM
    assert found.detail == "s3:PutObjectRetention is not allowed: backups cannot be locked"


def test_a_request_that_locks_is_sent_to_no_bucket_without_object_lock(
    rclone_endpoint: S3Server, local: Conf
) -> None:
    # It would store an object there.
    with fault_proxy(rclone_endpoint.endpoint_url) as proxy:
        conf = {**rclone_endpoint.conf(), "database": local["database"], **LOCKED}
        plain(conf).create_bucket(Bucket=conf["s3_bucket"])
        assert problems(doctor({**conf, "endpoint_url": proxy.endpoint_url}))
        assert proxy.seen("PUT", "retention") == 0
    assert plain(conf).list_objects_v2(Bucket=conf["s3_bucket"]).get("Contents") is None


def test_the_rules_of_the_bucket_are_read_as_they_are(conf: Conf) -> None:
    set_rules(
        conf,
        {"ID": "by-filter", "Filter": {"Prefix": "web1/"}, "Expiration": {"Days": 3}},
        {"ID": "old-style", "Prefix": "web1/", "Expiration": {"Days": 4}},
        {
            "ID": "and",
            "Filter": {"And": {"Prefix": "web1/", "ObjectSizeLessThan": 4096}},
            "Expiration": {"Days": 5},
        },
        {
            "ID": "tagged",
            "Filter": {"Tag": {"Key": "a", "Value": "b"}},
            "Expiration": {"Days": 6},
        },
        {"ID": "off", "Status": "Disabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 7}},
        {
            "ID": "moving",
            "Filter": {"Prefix": ""},
            "Transitions": [{"Days": 8, "StorageClass": "GLACIER"}],
        },
        {
            "ID": "aborting",
            "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
        },
        {"ID": "elsewhere", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 9}},
    )
    findings = doctor({**conf, "prefix": "{host}/", "host": "web1", "rotation": {"days": 30}})
    told = [each for each in findings if each.topic == "lifecycle rules"]
    assert [each.detail.split("'")[1] for each in told if each.verdict is Verdict.PROBLEM] == [
        "by-filter",
        "old-style",
        "and",
    ]
    assert [each.detail.split("'")[1] for each in told if each.verdict is Verdict.ADVICE] == [
        "moving",
        "aborting",
    ]


@pytest.mark.slow
def test_the_least_rights_are_enough_but_to_look(checked: CheckedServer, local: Conf) -> None:
    conf = {**checked.allowing(MINIMAL), "database": local["database"]}
    findings = doctor(conf)
    assert problems(findings) == []
    for action, topic in LOOKING.items():
        found = finding(findings, topic)
        assert found.verdict is Verdict.ADVICE
        assert found.detail == f"could not look: {action} is not allowed"
    conf = {**checked.allowing([*MINIMAL, *LOOKING]), "database": local["database"]}
    findings = doctor(conf)
    for topic in LOOKING.values():
        assert finding(findings, topic).verdict is Verdict.GOOD


BLOCKED = dict.fromkeys(
    ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
)


def test_a_bucket_that_is_blocked_is_good(conf: Conf) -> None:
    assert finding(doctor(conf), "public access").detail == (
        "none by the policy and the ACL of the bucket"
    )
    plain(conf).put_public_access_block(
        Bucket=conf["s3_bucket"], PublicAccessBlockConfiguration=BLOCKED
    )
    found = finding(doctor(conf), "public access")
    assert (found.verdict, found.detail) == (Verdict.GOOD, "blocked")


def open_by_policy(conf: Conf) -> None:
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject"}
    statement["Resource"] = f"arn:aws:s3:::{conf['s3_bucket']}/*"
    plain(conf).put_bucket_policy(
        Bucket=conf["s3_bucket"],
        Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
    )


def open_by_acl(conf: Conf) -> None:
    plain(conf).put_bucket_acl(Bucket=conf["s3_bucket"], ACL="public-read")


@pytest.mark.parametrize(
    ("open_bucket", "setting", "words"),
    [
        (open_by_policy, "RestrictPublicBuckets", "its policy lets everybody use it"),
        (open_by_acl, "IgnorePublicAcls", "its ACL gives READ to everybody"),
    ],
)
@pytest.mark.parametrize("name", ["moto", "seaweedfs"])
def test_a_public_bucket_is_a_problem(
    name: str, open_bucket: Any, setting: str, words: str, request: Any, local: Conf
) -> None:
    conf = {**request.getfixturevalue(f"{name}_conf"), "database": local["database"]}
    plain(conf).create_bucket(Bucket=conf["s3_bucket"])
    open_bucket(conf)
    found = finding(doctor(conf), "public access")
    assert found.verdict is Verdict.PROBLEM
    assert found.detail.endswith(f"is public: {words}")
    assert "put-public-access-block" in found.hint
    if name == "moto":  # the other has no such block
        plain(conf).put_public_access_block(
            Bucket=conf["s3_bucket"], PublicAccessBlockConfiguration={setting: True}
        )
        assert finding(doctor(conf), "public access").verdict is Verdict.GOOD


def test_a_bucket_that_encrypts_is_good_and_none_is_advice(conf: Conf) -> None:
    conf = {**conf, "password": None}
    found = finding(doctor(conf), "encryption at rest")
    assert found.verdict is Verdict.ADVICE
    assert "sse: AES256" in found.hint
    found = finding(doctor({**conf, "password": "secret"}), "encryption at rest")
    assert found.verdict is Verdict.GOOD
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
    plain(conf).put_bucket_encryption(
        Bucket=conf["s3_bucket"], ServerSideEncryptionConfiguration={"Rules": [rule]}
    )
    found = finding(doctor(conf), "encryption at rest")
    assert (found.verdict, found.detail) == (Verdict.GOOD, "the bucket encrypts with aws:kms")
    found = finding(doctor({**conf, "sse": "aws:kms"}), "encryption at rest")
    assert found.detail == "objects are stored with aws:kms, as the profile says"
    findings = [each for each in doctor({**conf, "sse": "AES256"}) if "at rest" in each.topic]
    assert [each.verdict for each in findings] == [Verdict.GOOD, Verdict.ADVICE]
    assert "the bucket would take aws:kms" in findings[1].detail


@pytest.mark.parametrize("has_versions", [False, True])
def test_a_storage_that_ignores_sse_is_a_problem(
    rclone_conf: Conf, seaweedfs_conf: Conf, local: Conf, has_versions: bool
) -> None:
    conf = seaweedfs_conf if has_versions else rclone_conf
    conf = {**conf, "database": local["database"], "sse": "aws:kms:dsse"}
    plain(conf).create_bucket(Bucket=conf["s3_bucket"])
    if has_versions:
        keep_versions(conf, "Suspended")  # so that only an upload in parts is tried
    found = finding(doctor(conf), "encryption at rest")
    assert found.verdict is Verdict.PROBLEM
    assert "does not encrypt it with aws:kms:dsse" in found.detail
    assert plain(conf).list_objects_v2(Bucket=conf["s3_bucket"]).get("Contents") is None


OWNER = "123456789012"


@pytest.mark.parametrize("name", ["moto", "rclone", "seaweedfs"])
def test_a_storage_that_ignores_the_owner_is_advice(
    name: str, request: pytest.FixtureRequest, local: Conf
) -> None:
    conf = {**request.getfixturevalue(f"{name}_conf"), "database": local["database"]}
    plain(conf).create_bucket(Bucket=conf["s3_bucket"])
    found = finding(doctor({**conf, "expected_bucket_owner": OWNER}), "bucket owner")
    assert found.verdict is Verdict.ADVICE
    assert f"does not look whether account {OWNER} owns the bucket" in found.detail


def test_a_storage_that_looks_at_the_owner_is_good(conf: Conf, moto_proxy: FaultProxy) -> None:
    conf = {**conf, "endpoint_url": moto_proxy.endpoint_url, "expected_bucket_owner": OWNER}
    client = S3Client(S3Settings.of_profile(conf))
    moto_proxy.on("HEAD", conf["s3_bucket"], Answer(403))
    found = owner_finding(client)
    assert found is not None
    assert (found.verdict, found.detail) == (Verdict.GOOD, f"account {OWNER}, as the profile says")
    assert [each[2]["x-amz-expected-bucket-owner"] for each in moto_proxy.requests] == [
        "000000000000",
        OWNER,  # the reason is asked for
    ]
    assert owner_finding(client.of_any_owner()) is None


def test_a_bucket_of_another_account_is_a_problem(conf: Conf, moto_proxy: FaultProxy) -> None:
    # As S3 does: whatever is asked for on the condition of a wrong owner is refused.
    moto_proxy.on("*", "", refusal(403, "AccessDenied"), header="x-amz-expected-bucket-owner")
    conf = {**conf, "endpoint_url": moto_proxy.endpoint_url, "expected_bucket_owner": OWNER}
    (found,) = problems(doctor(conf))
    assert found.topic == "bucket owner"
    assert f"is not of account {OWNER}: nothing is stored there" in found.detail
    assert moto_proxy.seen("PUT") == 0


def test_a_refusal_that_may_be_about_the_owner_names_both(
    conf: Conf, moto_proxy: FaultProxy
) -> None:
    moto_proxy.on("GET", "list-type", refusal(403, "AccessDenied"))
    conf = {**conf, "endpoint_url": moto_proxy.endpoint_url, "expected_bucket_owner": OWNER}
    found = finding(doctor(conf), "listing")
    assert found.verdict is Verdict.PROBLEM
    assert found.detail.startswith("s3:ListBucket is not allowed: ")
    assert found.hint.endswith("check expected_bucket_owner")


@pytest.mark.parametrize(
    ("part", "topic", "action"),
    [
        ("?publicAccessBlock", "public access", "s3:GetBucketPublicAccessBlock"),
        ("?policyStatus", "public access", "s3:GetBucketPolicyStatus"),
        ("?acl", "public access", "s3:GetBucketAcl"),
        ("?encryption", "encryption at rest", "s3:GetEncryptionConfiguration"),
    ],
)
def test_a_setting_that_may_not_be_looked_at_is_advice_with_the_right(
    conf: Conf, moto_proxy: FaultProxy, part: str, topic: str, action: str
) -> None:
    moto_proxy.on("GET", part, refusal(403, "AccessDenied"))
    found = finding(doctor({**conf, "endpoint_url": moto_proxy.endpoint_url}), topic)
    assert found.verdict is Verdict.ADVICE
    assert found.detail == f"could not look: {action} is not allowed"
    assert found.hint.startswith(f"allow {action} on ")


@pytest.fixture
def aws(conf: Conf, moto_endpoint: S3Server, monkeypatch: pytest.MonkeyPatch) -> Conf:
    """Return a profile without an endpoint and keys: all services of AWS are moto."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_endpoint.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    # The name of a bucket is not part of moto's host name.
    named = {key: value for key, value in conf.items() if not key.endswith("_key")}
    return {key: value for key, value in named.items() if key != "endpoint_url"}


def test_aws_says_whose_the_keys_are(aws: Conf) -> None:
    found = finding(doctor(aws), "credentials")
    assert found.verdict is Verdict.GOOD
    assert "from the environment (AWS_ACCESS_KEY_ID), of arn:aws:sts::" in found.detail


def test_where_aws_does_not_say_whose_they_are_the_source_is_enough(
    aws: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fault_proxy("http://127.0.0.1:9") as proxy:
        proxy.on("*", "", Answer(503))
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", proxy.endpoint_url)
        found = finding(doctor(aws), "credentials")
        assert len(proxy.requests) == 1
    assert found.detail == "from the environment (AWS_ACCESS_KEY_ID)"
