"""The JSON schema of the file: it finds what is wrong, and nothing that bakthat accepts."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator  # type: ignore[import-untyped]  # ships no types

from bakthat.conf import KEYS, json_schema, load_profile
from bakthat.policy.rotation import RotationPolicy
from bakthat.policy.settings import ROTATION_RULES

VALIDATOR = Draft202012Validator(json_schema())

VALID = """\
# yaml-language-server: $schema=bakthat.schema.json
default: &default
  access_key: AK
  secret_key: SK
  region_name:
  s3_bucket: arn:aws:s3:eu-west-1:123456789012:accesspoint/mine
  default_destination: s3
  endpoint_url: http://localhost:9000
  role_arn: arn:aws:iam::123456789012:role/backup
  expected_bucket_owner: "123456789012"
  sse: aws:kms
  sse_kms_key_id: alias/backups
  storage_class: ICE
  timeout: 0.5
  attempts: 100
  bandwidth: 1.5MiB/s
  host: ä
  prefix: backups/{host}/
  compress: 9
  password_command: [pass, show, backup]
  recipients: age1x
  rotation: {days: 7, weeks: 4, first_week_day: 6}
  incremental: yes
  full_every: 1Y3M
  max_archives: 64
  detect: hash
  always_read: []
  plugins: [bakthat.notify.Webhook, mine.Mine]
  webhook: {url: "https://example.com", headers: {a: b}}
  plugin_settings: {anything: [1, {}]}
disk:
  <<: *default
  compress: false
  recipients: [age1x, age1y]
  password: ""
empty:
"""


def problems(text: str) -> list[str]:
    """Return where the file with *text* is wrong, by its schema."""
    content = yaml.safe_load(text)
    by_this, by_draft_7 = (
        ["/".join(map(str, each.path)) for each in validator.iter_errors(content)]
        for validator in (VALIDATOR, Draft7Validator(json_schema()))
    )
    assert by_this == by_draft_7  # which is all that some editors know
    return by_this


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(json_schema())
    Draft7Validator.check_schema(json_schema())
    assert json.loads(json.dumps(json_schema())) == json_schema()
    assert set(json_schema()["$defs"]["profile"]["properties"]) == set(KEYS)


@pytest.mark.parametrize("text", [VALID, "", "# only a comment\n", "default:\n", "{}\n"])
def test_a_valid_file_is_valid(text: str, tmp_path: Path) -> None:
    assert problems(text) == []
    path = tmp_path / "bakthat.yml"
    path.write_text(text)
    path.chmod(0o600)
    for name in yaml.safe_load(text) or ():
        assert load_profile(name, config=path).name == name


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("- default", ""),
        ("default: [a]", "default"),
        ("default: {s3_buckt: a}", "default"),
        ("s3_bucket: a", "s3_bucket"),
        ("default: {s3_bucket: s3://a/b}", "default/s3_bucket"),
        ("default: {s3_bucket: ''}", "default/s3_bucket"),
        ("default: {access_key: 'a b'}", "default/access_key"),
        ("default: {endpoint_url: localhost}", "default/endpoint_url"),
        ("default: {default_destination: tape}", "default/default_destination"),
        ("default: {timeout: 0}", "default/timeout"),
        ("default: {timeout: '60'}", "default/timeout"),
        ("default: {attempts: 1.5}", "default/attempts"),
        ("default: {bandwidth: 5M}", "default/bandwidth"),
        ("default: {bandwidth: 5000000}", "default/bandwidth"),
        ("default: {compress: 10}", "default/compress"),
        ("default: {compress: fast}", "default/compress"),
        ("default: {host: a/b}", "default/host"),
        ("default: {prefix: /a}", "default/prefix"),
        ("default: {prefix: a//b}", "default/prefix"),
        ("default: {password: 1234}", "default/password"),
        ("default: {password: }", "default/password"),
        ("default: {recipients: []}", "default/recipients"),
        ("default: {recipients: [1]}", "default/recipients/0"),
        ("default: {password_command: ''}", "default/password_command"),
        ("default: {rotation: {day: 1}}", "default/rotation"),
        ("default: {rotation: {days: -1}}", "default/rotation/days"),
        ("default: {rotation: {first_week_day: 7}}", "default/rotation/first_week_day"),
        ("default: {full_every: 90 days}", "default/full_every"),
        ("default: {max_archives: 1}", "default/max_archives"),
        ("default: {detect: size}", "default/detect"),
        ("default: {recheck: 101}", "default/recheck"),
        ("default: {incremental: 1}", "default/incremental"),
        ("default: {plugins: a.B}", "default/plugins"),
        ("default: {webhook: https://example.com}", "default/webhook"),
        ("default: {sse: SSE-C}", "default/sse"),
        ("default: {expected_bucket_owner: 123456789012}", "default/expected_bucket_owner"),
        ("default: {expected_bucket_owner: '1234'}", "default/expected_bucket_owner"),
        ("default: {role_arn: backup}", "default/role_arn"),
    ],
)
def test_an_invalid_file_is_invalid_where_it_is_wrong(text: str, place: str) -> None:
    assert problems(text) == [place]


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(
        ["", "s3", "https://h", "5MB/s", "a/b", "{host}", "90D", "ctime", "/a", "GLACIER"]
    )
    | st.text(max_size=20)
)
ANY = PLAIN | st.lists(PLAIN, max_size=2) | st.dictionaries(st.text(max_size=5), PLAIN, max_size=2)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(key=st.sampled_from([each for each in KEYS if each != "rotation"]), value=ANY)
def test_nothing_that_is_accepted_is_invalid(key: str, value: Any) -> None:
    is_accepted = KEYS[key].check(value) is None
    if is_accepted and value != []:  # of a file, a key of encryption without a value is refused
        assert not list(VALIDATOR.iter_errors({"default": {key: value}}))


def test_the_rules_of_a_rotation_are_those_of_the_policy() -> None:
    rules = {each.name for each in fields(RotationPolicy)}
    assert {*ROTATION_RULES, "first_week_day"} == rules


def test_every_key_is_described_by_one_sentence() -> None:
    for name, key in KEYS.items():
        assert key.about[0].isupper(), name
        assert not key.about.endswith("."), name
        assert ". " not in key.about, name
