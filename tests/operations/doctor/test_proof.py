"""The proof of a container says exactly what is missing, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import bakthat
from bakthat.operations.cleanup import CleanupItem
from bakthat.policy.finding import Verdict
from tests.support.commandline import PATIENCE, unmeasured
from tests.support.fault_proxy import (
    Alter,
    Answer,
    FaultProxy,
    Hold,
    LoseAnswer,
    Reset,
    Stall,
    fault_proxy,
    refusal,
)
from tests.support.findings import finding, problems, prove, topics
from tests.support.foreign_answers import answering, make_certificate
from tests.support.iam import CheckedServer
from tests.support.profiles import Conf
from tests.support.servers import free_port, parts_under_way, plain

RIGHTS = (
    "s3:ListBucket",
    "s3:PutObject",
    "s3:GetObject",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
    "s3:ListBucketMultipartUploads",
    "s3:ListMultipartUploadParts",
)
LOOKING = "s3:GetBucketVersioning"
"""What the proof needs so that it dares to store an object."""


def assert_empty(conf: Conf, client: Any = None) -> None:
    """Assert that a bucket has no object, no version and no part."""
    client = client or plain(conf)
    bucket = conf["s3_bucket"]
    assert client.list_objects_v2(Bucket=bucket).get("Contents") is None
    if "rclone" in conf["access_key"]:  # it has no versions
        assert parts_under_way(conf) == []
        return
    versions = client.list_object_versions(Bucket=bucket)
    assert versions.get("Versions") is None
    assert versions.get("DeleteMarkers") is None
    assert client.list_multipart_uploads(Bucket=bucket).get("Uploads") is None


def test_each_storage_is_proved_and_left_empty(s3_conf: Conf) -> None:
    plain(s3_conf).create_bucket(Bucket=s3_conf["s3_bucket"])
    findings = prove({**s3_conf, "prefix": "hosts/{host}/"})
    assert problems(findings) == []
    good = {*topics(findings, Verdict.GOOD)}
    assert good >= {"clock", "listing", "writing", "reading", "deleting", "multipart upload"}
    # rclone serve s3 ignores If-None-Match.
    expected = Verdict.ADVICE if "rclone" in s3_conf["access_key"] else Verdict.GOOD
    assert finding(findings, "conditional writes").verdict is expected
    assert_empty(s3_conf)


def test_a_missing_bucket_is_made_only_when_that_is_asked_for(rclone_conf: Conf) -> None:
    (missing,) = problems(prove(rclone_conf))
    assert missing.topic == "container"
    assert rclone_conf["s3_bucket"] in missing.detail
    assert "s3_bucket" in missing.hint
    buckets = plain(rclone_conf).list_buckets()["Buckets"]
    assert rclone_conf["s3_bucket"] not in {each["Name"] for each in buckets}
    findings = prove(rclone_conf, create=True)
    assert problems(findings) == []
    assert "was made" in finding(findings, "container").detail
    assert_empty(rclone_conf)


def test_a_bucket_that_the_catalog_lists_backups_in_is_not_made_anew(
    rclone_conf: Conf, seaweedfs_conf: Conf, local: Conf, tree: Path
) -> None:
    conf = {**rclone_conf, "database": local["database"]}
    bakthat.backup(tree, conf=conf, password="")
    access = ("endpoint_url", "access_key", "secret_key")
    elsewhere = {**conf, **{key: seaweedfs_conf[key] for key in access}}
    (missing,) = problems(prove(elsewhere, create=True))
    assert missing.topic == "container"
    assert "the catalog lists backups in it" in missing.detail
    assert "check the profile" in missing.hint
    buckets = plain(seaweedfs_conf).list_buckets()["Buckets"]
    assert conf["s3_bucket"] not in {each["Name"] for each in buckets}


@pytest.mark.parametrize("missing", RIGHTS)
def test_the_right_that_is_missing_is_named(checked: CheckedServer, missing: str) -> None:
    conf = checked.allowing([LOOKING, *(each for each in RIGHTS if each != missing)])
    findings = prove(conf)
    told = [each for each in findings if each.verdict is not Verdict.GOOD]
    assert told
    for each in told:
        assert f"{missing} is not allowed" in each.detail
        assert f"allow {missing} on arn:aws:s3:::{conf['s3_bucket']}" in each.hint
    needed = missing in ("s3:ListBucket", "s3:PutObject", "s3:GetObject")
    assert bool(problems(findings)) is needed
    with checked.unchecked():
        assert_empty(conf, checked.s3())


def test_the_rights_of_keys_for_one_prefix_suffice(checked: CheckedServer) -> None:
    objects = {
        "Effect": "Allow",
        "Action": [each for each in RIGHTS if "Bucket" not in each],
        "Resource": "arn:aws:s3:::{bucket}/web1/*",
    }
    bucket = {
        "Effect": "Allow",
        "Action": [LOOKING, *(each for each in RIGHTS if "Bucket" in each)],
        "Resource": "arn:aws:s3:::{bucket}",
    }
    conf = checked.conf(objects, bucket, prefix="{host}/", host="web1")
    assert problems(prove(conf)) == []
    refused = problems(prove({**conf, "host": "web2"}))
    assert {each.topic for each in refused} == {"writing", "reading"}
    for each in refused:
        assert f"arn:aws:s3:::{conf['s3_bucket']}/web2/*" in each.hint


def test_the_listing_is_that_of_sync(moto_proxy: FaultProxy, proxied_conf: Conf) -> None:
    prove({**proxied_conf, "prefix": "hosts/{host}/"})
    listings = [path for _, path, _ in moto_proxy.requests if "list-type=2" in path]
    assert [each for each in listings if "prefix=hosts%2F&" in f"{each}&"] == listings != []


def test_a_deletion_that_rotation_needs_is_a_problem(checked: CheckedServer) -> None:
    conf = checked.allowing([LOOKING, *(each for each in RIGHTS if each != "s3:DeleteObject")])
    assert problems(prove(conf)) == []
    (deleting,) = problems(prove({**conf, "rotation": {"days": 7}}))
    assert deleting.topic == "deleting"


def test_keys_that_can_only_append_leave_nothing(rclone_conf: Conf) -> None:
    plain(rclone_conf).create_bucket(Bucket=rclone_conf["s3_bucket"])
    with fault_proxy(rclone_conf["endpoint_url"]) as proxy:
        proxy.on("DELETE", "", refusal(403, "AccessDenied"))
        findings = prove({**rclone_conf, "endpoint_url": proxy.endpoint_url})
    assert problems(findings) == []
    assert topics(findings, Verdict.ADVICE) == ["deleting", "multipart upload"]
    assert finding(findings, "writing").detail.startswith("writing is allowed")
    assert finding(findings, "reading").detail.startswith("reading is allowed")
    assert_empty(rclone_conf)


@pytest.mark.parametrize("name", ["rclone", "seaweedfs"])
def test_wrong_keys_are_told_apart(name: str, request: pytest.FixtureRequest) -> None:
    conf: Conf = request.getfixturevalue(f"{name}_conf")
    plain(conf).create_bucket(Bucket=conf["s3_bucket"])
    for key, hint in (
        ("access_key", "does not know the access key: check access_key"),
        ("secret_key", "does not fit the access key: check secret_key"),
    ):
        (wrong,) = problems(prove({**conf, key: "another-key-of-this"}))
        assert wrong.topic == "credentials"
        assert hint in wrong.hint
        assert "another-key" not in f"{wrong.detail}{wrong.hint}"


def test_keys_of_the_environment_are_named_as_such(
    rclone_conf: Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = {key: value for key, value in rclone_conf.items() if not key.endswith("_key")}
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", rclone_conf["access_key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    (wrong,) = problems(prove(conf))
    assert "check AWS_SECRET_ACCESS_KEY" in wrong.hint


def test_no_keys_at_all(moto_conf: Conf) -> None:
    conf = {key: value for key, value in moto_conf.items() if not key.endswith("_key")}
    (missing,) = prove(conf)
    assert missing.topic == "credentials"
    assert "AWS_ACCESS_KEY_ID" in missing.hint


def test_a_half_of_the_keys_is_a_problem_of_the_configuration(moto_conf: Conf) -> None:
    conf = {key: value for key, value in moto_conf.items() if key != "secret_key"}
    (missing,) = prove(conf)
    assert (missing.topic, missing.verdict) == ("configuration", Verdict.PROBLEM)
    assert "secret_key" in missing.detail


REGION = Answer(
    301,
    b"<Error><Code>PermanentRedirect</Code><Message>elsewhere</Message></Error>",
    {"x-amz-bucket-region": "eu-west-3"},
)
SKEWED = b"<Error><Code>RequestTimeTooSkewed</Code><Message>too large</Message></Error>"


def test_the_region_of_the_bucket_is_named(moto_proxy: FaultProxy, proxied_conf: Conf) -> None:
    moto_proxy.on("*", "", REGION)
    (wrong,) = problems(prove(proxied_conf))
    assert wrong.topic == "region"
    assert wrong.hint == "set region_name: eu-west-3"


@pytest.mark.parametrize(
    ("date", "words"),
    [
        ("Fri, 01 Jan 2100 00:00:00 GMT", "behind the storage's, and the storage refuses"),
        ("Thu, 01 Jan 2015 00:00:00 GMT", "ahead of the storage's, and the storage refuses"),
        ("", "RequestTimeTooSkewed"),
    ],
)
def test_a_clock_that_the_storage_refuses(
    moto_proxy: FaultProxy, proxied_conf: Conf, date: str, words: str
) -> None:
    moto_proxy.on("*", "", Answer(403, SKEWED, {"Date": date} if date else {}))
    (wrong,) = prove(proxied_conf)
    assert (wrong.topic, wrong.verdict) == ("clock", Verdict.PROBLEM)
    assert words in wrong.detail
    assert "clock" in wrong.hint


def test_a_clock_that_is_off_is_an_advice_where_the_storage_does_not_mind(
    moto_proxy: FaultProxy, proxied_conf: Conf
) -> None:
    moto_proxy.on("GET", "list-type=2", Alter({"date": "Thu, 01 Jan 2015 00:00:00 GMT"}))
    findings = prove(proxied_conf)
    assert problems(findings) == []
    clock = finding(findings, "clock")
    assert clock.verdict is Verdict.ADVICE
    assert "timedatectl" in clock.hint


def test_nothing_listens(moto_conf: Conf) -> None:
    (wrong,) = prove({**moto_conf, "endpoint_url": f"http://127.0.0.1:{free_port()}"})
    assert (wrong.topic, wrong.verdict) == ("connection", Verdict.PROBLEM)
    assert "nothing accepts connections there" in wrong.detail
    assert "endpoint_url" in wrong.hint


def test_what_answers_is_no_storage(moto_conf: Conf) -> None:
    page = b"<!DOCTYPE html><html><body>Welcome to this hotel</body></html>"
    with answering(200, page, {"Content-Type": "text/html"}) as address:
        (wrong,) = problems(prove({**moto_conf, "endpoint_url": f"http://{address}"}))
    assert wrong.topic == "connection"
    assert "does not come from the storage" in wrong.detail


def test_a_certificate_that_is_not_trusted(moto_conf: Conf, tmp_path: Path) -> None:
    with answering(200, certificate=make_certificate(tmp_path / "key.pem")) as address:
        (wrong,) = problems(prove({**moto_conf, "endpoint_url": f"https://{address}"}))
    assert wrong.topic == "connection"
    assert "certificate is not valid" in wrong.detail
    assert "AWS_CA_BUNDLE" in wrong.hint


@pytest.mark.slow
def test_a_storage_that_does_not_answer_takes_two_attempts(
    moto_proxy: FaultProxy, proxied_conf: Conf
) -> None:
    moto_proxy.on("*", "", Stall())
    (wrong,) = prove({**proxied_conf, "timeout": 1, "attempts": 20})
    assert "does not answer in time" in wrong.detail
    assert len(moto_proxy.requests) == 2


def test_another_action_that_the_storage_names_is_the_missing_one(
    moto_proxy: FaultProxy, proxied_conf: Conf
) -> None:
    words = "User: arn:aws:iam::1:user/a is not authorized to perform: kms:GenerateDataKey on it"
    moto_proxy.on("PUT", ".probe", refusal(403, "AccessDenied", words))
    (writing,) = problems(prove(proxied_conf))
    assert "kms:GenerateDataKey is not allowed" in writing.detail
    assert_empty(proxied_conf)


def test_an_object_that_comes_back_altered(moto_proxy: FaultProxy, proxied_conf: Conf) -> None:
    moto_proxy.on("GET", ".probe", Alter(flip=3))
    (reading,) = problems(prove(proxied_conf))
    assert (reading.topic, reading.detail) == ("reading", "the object came back altered")
    assert_empty(proxied_conf)


def test_a_storage_that_drops_metadata(moto_proxy: FaultProxy, proxied_conf: Conf) -> None:
    moto_proxy.on("HEAD", ".probe", Alter({"x-amz-meta-bakthat": ""}))
    (reading,) = problems(prove(proxied_conf))
    assert "without its metadata" in reading.detail
    assert_empty(proxied_conf)


def test_a_storage_class_that_the_storage_lacks(moto_proxy: FaultProxy, proxied_conf: Conf) -> None:
    moto_proxy.on("POST", "uploads", refusal(400, "InvalidStorageClass", "not valid"))
    findings = prove({**proxied_conf, "storage_class": "GLACIER_IR"})
    (wrong,) = problems(findings)
    assert wrong.topic == "storage class"
    assert "not valid" in wrong.detail
    headers = [each for verb, path, each in moto_proxy.requests if verb == "POST"]
    assert headers[0]["x-amz-storage-class"] == "GLACIER_IR"
    assert_empty(proxied_conf)


def test_a_storage_that_refuses_the_condition(moto_proxy: FaultProxy, proxied_conf: Conf) -> None:
    words = "A header you provided implies functionality that is not implemented: If-None-Match"
    moto_proxy.on("PUT", ".probe", refusal(501, "NotImplemented", words), header="if-none-match")
    findings = prove(proxied_conf)
    assert problems(findings) == []
    assert finding(findings, "conditional writes").verdict is Verdict.ADVICE
    assert_empty(proxied_conf)


def test_uploads_that_are_not_listed(moto_proxy: FaultProxy, proxied_conf: Conf) -> None:
    empty = b"<ListMultipartUploadsResult></ListMultipartUploadsResult>"
    moto_proxy.on("GET", "uploads", Answer(200, empty))
    findings = prove(proxied_conf)
    assert problems(findings) == []
    assert "lifecycle rule" in finding(findings, "unfinished uploads").hint
    assert_empty(proxied_conf)


def test_an_upload_of_another_key_is_not_aborted(
    moto_proxy: FaultProxy, proxied_conf: Conf
) -> None:
    client = plain({**proxied_conf, "endpoint_url": moto_proxy.upstream})
    where = {"Bucket": proxied_conf["s3_bucket"], "Key": "mydir.20260101000000.tgz"}
    upload_id = client.create_multipart_upload(**where)["UploadId"]
    upload = f"<Upload><Key>{where['Key']}</Key><UploadId>{upload_id}</UploadId></Upload>"
    listing = f"<ListMultipartUploadsResult>{upload}</ListMultipartUploadsResult>"
    moto_proxy.on("GET", "uploads", Answer(200, listing.encode()))  # whatever the prefix is
    assert problems(prove(proxied_conf)) == []
    (running,) = client.list_multipart_uploads(Bucket=where["Bucket"])["Uploads"]
    assert running["UploadId"] == upload_id


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "part", "fault"),
    [
        ("PUT", ".probe", LoseAnswer()),
        ("PUT", ".probe", refusal(500, "InternalError")),
        ("GET", ".probe", Reset()),
        ("GET", ".probe", refusal(500, "InternalError")),
        ("HEAD", ".probe", Reset()),
        ("DELETE", ".probe", LoseAnswer()),
        ("POST", "uploads", LoseAnswer()),
        ("PUT", "partNumber", Reset()),
        ("PUT", "partNumber", refusal(400, "EntityTooSmall")),
        ("GET", "uploads", Reset()),
        ("DELETE", "uploadId", LoseAnswer()),
    ],
)
@pytest.mark.parametrize("times", [1, 4])
def test_nothing_stays_behind_after_a_failure(
    rclone_conf: Conf, method: str, part: str, fault: Any, times: int
) -> None:
    plain(rclone_conf).create_bucket(Bucket=rclone_conf["s3_bucket"])
    with fault_proxy(rclone_conf["endpoint_url"]) as proxy:
        proxy.on(method, part, fault, times=times)
        findings = prove({**rclone_conf, "endpoint_url": proxy.endpoint_url})
        assert proxy.seen(method, part)
    passes = times == 1 and fault != refusal(400, "EntityTooSmall")
    assert bool(problems(findings)) is not passes, findings
    assert_empty(rclone_conf)


@pytest.mark.parametrize(
    ("method", "part"),
    [
        ("GET", "list-type"),
        ("PUT", ".probe"),
        ("GET", ".probe"),
        ("DELETE", ".probe"),
        ("POST", "uploads"),
        ("PUT", "partNumber"),
        ("DELETE", "uploadId"),
    ],
)
def test_a_signal_leaves_nothing_behind(
    moto_proxy: FaultProxy, proxied_conf: Conf, method: str, part: str
) -> None:
    hold = Hold()
    moto_proxy.on(method, part, hold, times=1)
    interrupted(proxied_conf, hold)
    assert_empty(proxied_conf)


def interrupted(conf: Conf, hold: Hold) -> None:
    """Prove the container of a profile, and interrupt it while a request is held."""

    def interrupt() -> None:
        assert hold.done.wait(PATIENCE)
        os.kill(os.getpid(), signal.SIGINT)
        hold.go.set()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            prove(conf)
    finally:
        thread.join()


KILLED = """
import json, sys
from bakthat.operations.doctor import proof
from bakthat.session import session
proof.prove_container(session.Session("default", None, json.loads(sys.argv[1])))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("method", "part"), [("HEAD", ".probe"), ("PUT", "partNumber")])
def test_cleanup_removes_what_a_killed_process_left(
    rclone_conf: Conf, local: Conf, tree: Path, method: str, part: str
) -> None:
    conf = {**rclone_conf, "database": local["database"], "prefix": "{host}/"}
    bakthat.backup(tree, conf=conf, password="")
    (backup,) = bakthat.ls(conf=conf)
    stored = keys(conf)
    stall = Stall()
    with fault_proxy(conf["endpoint_url"]) as proxy:
        proxy.on(method, part, stall)
        there = json.dumps({**conf, "endpoint_url": proxy.endpoint_url})
        process = subprocess.Popen([sys.executable, "-c", KILLED, there], env=unmeasured())
        try:
            assert stall.reached.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()
    left = [*(keys(conf) - stored), *parts_under_way(conf)]
    assert len(left) == 1
    assert left[0].endswith(".probe")
    # Nothing takes it for a backup.
    assert bakthat.ls(conf=conf) == [backup]
    assert len(bakthat.check(conf=conf)) == 1
    report = bakthat.sync("s3", conf=conf)
    assert [each for each in report.containers if each.changes] == []
    assert bakthat.cleanup(conf=conf) == []  # it is too young
    deadline = time.monotonic() + PATIENCE
    removed: list[CleanupItem] = []
    while not removed and time.monotonic() < deadline:  # until it is a second old
        removed = bakthat.cleanup(conf=conf, older_than="1s")
    assert [each.name for each in removed] == left
    assert keys(conf) == stored
    assert parts_under_way(conf) == []


def keys(conf: Conf) -> set[str]:
    found = plain(conf).list_objects_v2(Bucket=conf["s3_bucket"])
    return {each["Key"] for each in found.get("Contents", [])}
