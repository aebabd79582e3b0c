"""The proof of a vault says what is missing, and leaves nothing that it charges for."""

from __future__ import annotations

import json

import pytest

from bakthat.policy.finding import Verdict
from tests.support.fault_proxy import Answer, fault_proxy
from tests.support.findings import finding, problems, prove, topics
from tests.support.glacier_server import GlacierServer


def test_a_vault_is_proved_by_an_upload_that_is_aborted(glacier: GlacierServer) -> None:
    conf = {**glacier.conf(), "default_destination": "glacier"}
    (missing,) = problems(prove(conf))
    assert missing.topic == "container"
    findings = prove(conf, create=True)
    assert problems(findings) == []
    assert {"container", "writing"} <= {*topics(findings, Verdict.GOOD)}
    assert "glacier:DeleteArchive" in finding(findings, "reading").detail
    assert glacier.uploads_under_way(conf["glacier_vault"]) == []
    assert glacier.archives(conf["glacier_vault"]) == {}


def test_wrong_keys_of_a_vault(glacier: GlacierServer) -> None:
    conf = {**glacier.conf(), "default_destination": "glacier", "access_key": "another-key"}
    (wrong,) = problems(prove(conf))
    assert wrong.topic == "credentials"
    assert "check access_key" in wrong.hint


@pytest.mark.parametrize(
    ("method", "part", "action", "topic", "verdict"),
    [
        ("POST", "multipart-uploads", "InitiateMultipartUpload", "writing", Verdict.PROBLEM),
        ("DELETE", "multipart-uploads", "AbortMultipartUpload", "writing", Verdict.ADVICE),
        ("GET", "jobs", "ListJobs", "reading", Verdict.PROBLEM),
    ],
)
def test_the_right_on_a_vault_that_is_missing_is_named(
    glacier: GlacierServer, method: str, part: str, action: str, topic: str, verdict: Verdict
) -> None:
    conf = {**glacier.conf(), "default_destination": "glacier"}
    prove(conf, create=True)
    vault = conf["glacier_vault"]
    words = json.dumps({"code": "AccessDeniedException", "message": "not authorized"}).encode()
    with fault_proxy(conf["glacier_endpoint_url"]) as proxy:
        proxy.on(method, part, Answer(403, words, {"Content-Type": "application/json"}))
        findings = prove({**conf, "glacier_endpoint_url": proxy.endpoint_url})
    told = [each for each in findings if f"glacier:{action} is not allowed" in each.detail]
    assert [(each.topic, each.verdict) for each in told] == [(topic, verdict)]
    assert f"arn:aws:glacier:us-east-1:*:vaults/{vault}" in told[0].hint
    assert glacier.uploads_under_way(vault) == []
