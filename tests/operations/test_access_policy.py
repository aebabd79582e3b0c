"""The policies that belong to a profile."""

from __future__ import annotations

import json
from typing import Any

import pytest

import bakthat
from bakthat.errors import ConfigError, UsageError
from tests.support.commandline import CommandLine
from tests.support.policy_proxy import checked_policy
from tests.support.profiles import Conf, write_config

CONF: Conf = {"s3_bucket": "my-backups", "host": "web1"}


def statement(policy: dict[str, Any], sid: str) -> dict[str, Any]:
    """Return the statement with this Sid; {} when there is none."""
    return next((each for each in policy["Statement"] if each["Sid"] == sid), {})


def printed(role: str = "writer", **more: Any) -> dict[str, Any]:
    return bakthat.access_policy(role, conf={**CONF, **more})


@pytest.mark.parametrize("role", ["writer", "reader", "keeper"])
def test_policies_are_valid_and_that_of_the_bucket_is_always_the_same(role: str) -> None:
    found = printed(role, prefix="{host}/", storage_class="DEEP_ARCHIVE", glacier_vault="vault")
    assert set(found) == {"bucket", "iam"}
    checked_policy(found["bucket"])
    checked_policy(found["iam"])
    others = {"prefix": "{host}/", "storage_class": "DEEP_ARCHIVE", "glacier_vault": "vault"}
    assert found["bucket"] == printed("writer", host="another", **others)["bucket"]


def test_the_writer_is_that_of_the_host() -> None:
    conf = {**CONF, "prefix": "hosts/{host}/"}
    for host in (None, "db1"):
        iam = bakthat.access_policy("writer", conf=conf, host=host)["iam"]
        prefix = f"hosts/{host or 'web1'}/"
        assert statement(iam, "List")["Condition"] == {"StringLike": {"s3:prefix": [f"{prefix}*"]}}
    reader = bakthat.access_policy("reader", conf=conf, host="db1")["iam"]
    assert statement(reader, "ReadObjects")["Resource"] == ["arn:aws:s3:::my-backups/hosts/*"]


def limit(**more: Any) -> str:
    iam = printed(**more)["iam"]
    condition: dict[str, Any] = statement(iam, "LockObjects")["Condition"]
    return str(condition["NumericLessThanEquals"]["s3:object-lock-remaining-retention-days"])


def test_the_limit_of_locks_is_that_of_the_profile() -> None:
    lock = {"mode": "compliance", "days": 30}
    assert limit(object_lock=lock) == "32"
    assert statement(printed(object_lock=lock)["iam"], "LockObjects")["Condition"][
        "StringEquals"
    ] == {"s3:object-lock-mode": "COMPLIANCE"}
    derived = {"mode": "governance", "days": "retention"}
    assert limit(object_lock=derived, rotation={"days": 7, "months": 6}) == "188"
    with pytest.raises(ConfigError, match="a rule of time"):
        printed(object_lock=derived, rotation={"last": 3})
    assert statement(printed()["iam"], "LockObjects") == {}


def test_versions_that_are_kept_are_not_deleted_by_the_keeper() -> None:
    def removes(**more: Any) -> bool:
        actions = statement(printed("keeper", **more)["iam"], "RemoveObjects")["Action"]
        return "s3:DeleteObjectVersion" in actions

    assert removes()
    assert not removes(versions="keep")


def test_storage_without_tls_is_not_locked_out() -> None:
    found = printed(endpoint_url="http://nas.example.com:9000")
    assert statement(found["bucket"], "OnlyEncryptedConnections") == {}
    assert statement(printed()["bucket"], "OnlyEncryptedConnections") != {}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"s3_bucket": None}, "'s3_bucket' is not set"),
        ({"s3_bucket": "arn:aws:s3:us-east-1:111122223333:accesspoint/backups"}, "access point"),
        (
            {"prefix": "p" * 900, "object_lock": {"mode": "governance", "days": 1}},
            "longer than AWS allows",
        ),
    ],
)
def test_what_has_no_policies_is_refused(more: Conf, message: str) -> None:
    conf = {key: value for key, value in {**CONF, **more}.items() if value is not None}
    with pytest.raises(ConfigError, match=message):
        bakthat.access_policy("writer", conf=conf)


def test_another_role_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError) as refused:
        bakthat.access_policy("writter", conf=CONF)
    assert refused.value.hint == "did you mean writer?"
    with pytest.raises(UsageError) as refused:
        bakthat.access_policy("admin", conf=CONF)
    assert "writer, reader, keeper" in refused.value.hint


def test_command_prints_one_json_object(user: CommandLine) -> None:
    write_config(user.home / ".bakthat.yml", default={**CONF, "prefix": "{host}/"})
    done = user.run("policy", "writer", "--host", "db1")
    assert json.loads(done.stdout) == bakthat.access_policy(
        "writer", conf={**CONF, "prefix": "{host}/"}, host="db1"
    )
    assert done.stderr == ""
    assert user.run("policy", "admin").code == 2
