"""What doctor says about the settings of a bucket, and about the keys."""

from __future__ import annotations

from typing import Any

import pytest

import bakthat
from bakthat.policy.finding import Finding, Verdict
from tests.support.fault_proxy import Answer, FaultProxy, fault_proxy, refusal
from tests.support.findings import finding, problems
from tests.support.iam import CheckedServer
from tests.support.profiles import Conf
from tests.support.servers import S3Server, plain, share_service_models

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
    share_service_models()
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


def test_versions_are_advice_until_a_rule_removes_the_old_ones(conf: Conf) -> None:
    plain(conf).put_bucket_versioning(
        Bucket=conf["s3_bucket"], VersioningConfiguration={"Status": "Enabled"}
    )
    found = finding(doctor(conf), "versioning")
    assert found.verdict is Verdict.ADVICE
    assert "costs money" in found.detail
    set_rules(
        conf,
        {
            "ID": "old",
            "Filter": {"Prefix": ""},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 9},
        },
    )
    found = finding(doctor(conf), "versioning")
    assert found.verdict is Verdict.GOOD
    assert "after 9 days" in found.detail


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
