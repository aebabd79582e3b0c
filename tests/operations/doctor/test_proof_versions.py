"""The proof of a bucket that keeps, or could keep, versions of what is deleted."""

from __future__ import annotations

import pytest

from bakthat.policy.finding import Verdict
from tests.operations.doctor.test_proof import LOOKING, RIGHTS, assert_empty, interrupted
from tests.support.fault_proxy import FaultProxy, Hold, LoseAnswer, fault_proxy, refusal
from tests.support.findings import finding, problems, prove
from tests.support.iam import CheckedServer
from tests.support.profiles import Conf
from tests.support.servers import plain


@pytest.mark.parametrize("name", ["moto", "seaweedfs"])
def test_a_bucket_with_versions_keeps_none(name: str, request: pytest.FixtureRequest) -> None:
    conf: Conf = request.getfixturevalue(f"{name}_conf")
    client, bucket = plain(conf), conf["s3_bucket"]
    client.create_bucket(Bucket=bucket)
    for status, detail in (("Enabled", "was deleted"), ("Suspended", "versions are suspended")):
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})
        findings = prove(conf)
        assert problems(findings) == []
        assert detail in finding(findings, "deleting").detail
        assert_empty(conf)


@pytest.mark.parametrize("name", ["moto", "seaweedfs"])
def test_a_bucket_with_object_lock_keeps_none(name: str, request: pytest.FixtureRequest) -> None:
    conf: Conf = request.getfixturevalue(f"{name}_conf")
    plain(conf).create_bucket(Bucket=conf["s3_bucket"], ObjectLockEnabledForBucket=True)
    findings = prove(conf)
    assert problems(findings) == []
    assert finding(findings, "deleting").detail == "the object was deleted"
    assert_empty(conf)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("name", ["moto", "seaweedfs"])
def test_a_version_whose_answer_was_lost_is_removed_too(
    name: str, method: str, request: pytest.FixtureRequest
) -> None:
    """The repeated request says nothing of the version that the first one has made."""
    conf: Conf = request.getfixturevalue(f"{name}_conf")
    client, bucket = plain(conf), conf["s3_bucket"]
    client.create_bucket(Bucket=bucket)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    with fault_proxy(conf["endpoint_url"]) as proxy:
        # Of the deletions, the first one names a version.
        proxy.on(method, ".probe", LoseAnswer(), times=1, after=0 if method == "PUT" else 1)
        findings = prove({**conf, "endpoint_url": proxy.endpoint_url})
    assert problems(findings) == []
    assert_empty(conf)


@pytest.mark.slow
def test_where_versions_could_not_be_removed_no_object_is_stored(checked: CheckedServer) -> None:
    conf = checked.allowing([*RIGHTS, LOOKING])
    with checked.unchecked():
        checked.s3().put_bucket_versioning(
            Bucket=conf["s3_bucket"], VersioningConfiguration={"Status": "Enabled"}
        )
    findings = prove(conf)
    assert problems(findings) == []
    assert "s3:DeleteObjectVersion is not allowed" in finding(findings, "deleting").detail
    assert "a part was written" in finding(findings, "writing").detail
    with checked.unchecked():
        assert_empty(conf, checked.s3())


def test_nothing_is_marked_as_deleted_where_versions_may_not_be_asked_for(
    checked: CheckedServer,
) -> None:
    conf = checked.allowing([*RIGHTS, "s3:GetBucketObjectLockConfiguration"])
    with checked.unchecked():
        checked.s3().put_bucket_versioning(
            Bucket=conf["s3_bucket"], VersioningConfiguration={"Status": "Enabled"}
        )
    findings = prove(conf)
    assert problems(findings) == []
    deleting = finding(findings, "deleting")
    assert deleting.verdict is Verdict.ADVICE
    assert "s3:GetBucketVersioning is not allowed" in deleting.detail
    assert f"allow s3:GetBucketVersioning on arn:aws:s3:::{conf['s3_bucket']}" in deleting.hint
    assert "a part was written" in finding(findings, "writing").detail
    with checked.unchecked():
        assert_empty(conf, checked.s3())


@pytest.mark.parametrize("is_told", [True, False])
def test_no_object_is_stored_that_object_lock_would_keep(
    moto_proxy: FaultProxy, moto_conf: Conf, is_told: bool
) -> None:
    if not is_told:
        moto_proxy.on("GET", "versioning", refusal(403, "AccessDenied"))
    client, bucket = plain(moto_conf), moto_conf["s3_bucket"]
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    retention = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 30}}
    client.put_object_lock_configuration(
        Bucket=bucket,
        ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": retention},
    )
    findings = prove({**moto_conf, "endpoint_url": moto_proxy.endpoint_url})
    assert problems(findings) == []
    assert "object lock would keep" in finding(findings, "writing").detail
    assert_empty(moto_conf)


def test_a_signal_leaves_no_mark_of_a_deletion(seaweedfs_conf: Conf) -> None:
    client, bucket = plain(seaweedfs_conf), seaweedfs_conf["s3_bucket"]
    client.create_bucket(Bucket=bucket)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    with fault_proxy(seaweedfs_conf["endpoint_url"]) as proxy:
        conf = {**seaweedfs_conf, "endpoint_url": proxy.endpoint_url}
        hold = Hold()
        proxy.on("DELETE", ".probe", hold, times=1, after=1)  # the first names a version
        interrupted(conf, hold)
    assert_empty(seaweedfs_conf)
