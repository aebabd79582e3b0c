"""Jobs in the configuration: their values, and everything that can be wrong with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator  # type: ignore[import-untyped]  # ships no types

from bakthat.conf import Job, JobSource, json_schema, load_jobs
from bakthat.conf.job_keys import CHECK_KEYS, DRILL_KEYS, JOB_KEYS, SOURCE_KEYS
from bakthat.errors import ConfigError

VALIDATOR = Draft202012Validator(json_schema())
PROFILE = "default: {default_destination: local}\n"

EXAMPLE = """\
default: {default_destination: local}
jobs:
  nightly:
    profile: default
    sources:
      - /etc
      - srv/www
      - ~/notes
      - postgresql://backup:secret@db1/*
      - {command: ldapsearch -x, name: ldap.ldif, timeout: 2h, fail_below: 50%}
      - {path: /home, name: homes, exclude_file: homes.ignore, tags: [people], one_file_system: yes}
      - {path: "mysql://db2/shop", via: docker exec -i db2, timeout: 90}
    tags: nightly
    before: [systemctl stop app]
    after: systemctl start app
    on_error: ["mail -s 'backup failed' root"]
    rotate: true
    check: {every: 1W, sample: 5%}
    drill:
      every: 1M
      into: "postgresql://drill:secret@localhost"
      via: docker exec -i scratch
      check: SELECT 1
      check_command: curl -u secret localhost
      scratch: scratch
    max_age: 26h
    notify: [bakthat.notify.Webhook]
  small: {sources: [/etc], tags: , check: , max_age: }
"""


def write(directory: Path, text: str) -> Path:
    path = directory / "bakthat.yml"
    path.write_text(text)
    path.chmod(0o600)
    return path


def jobs_in(directory: Path, text: str) -> dict[str, Job]:
    return {name: each.job for name, each in load_jobs(write(directory, text)).items()}


def test_a_job_has_its_values(tmp_path: Path, isolated_environment: Path) -> None:
    job = jobs_in(tmp_path, EXAMPLE)["nightly"]
    files, url, command = job.sources[:3], job.sources[3], job.sources[4]
    assert [each.path for each in files] == [
        "/etc",
        str(tmp_path / "srv/www"),
        str(isolated_environment / "notes"),
    ]
    assert url.is_url
    assert url.text == "postgresql://backup@db1/*"
    assert command == JobSource(
        command="ldapsearch -x", name="ldap.ldif", timeout="2h", fail_below="50%"
    )
    assert command.text == "the command for ldap.ldif"
    assert job.sources[5] == JobSource(
        path="/home",
        name="homes",
        exclude_file=str(tmp_path / "homes.ignore"),
        tags=("people",),
        one_file_system=True,
    )
    assert job.sources[6].via == "docker exec -i db2"
    assert (job.tags, job.before, job.after) == (
        ("nightly",),
        ("systemctl stop app",),
        ("systemctl start app",),
    )
    assert job.rotate is True
    assert job.check is not None
    assert (job.check.every, job.check.sample) == (7 * 86400, "5%")
    assert job.drill is not None
    assert (job.drill.every, job.drill.check) == (30 * 86400, ("SELECT 1",))
    assert job.drill.scratch == str(tmp_path / "scratch")
    assert (job.max_age, job.notify) == (26 * 3600, ("bakthat.notify.Webhook",))


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    assert jobs_in(tmp_path, EXAMPLE)["small"] == Job(sources=(JobSource(path="/etc"),))


def test_a_job_says_where_it_is(tmp_path: Path) -> None:
    path = write(tmp_path, EXAMPLE)
    assert load_jobs(path)["small"].place == f"{path}:28"


def test_nothing_that_may_be_secret_is_in_the_representation(tmp_path: Path) -> None:
    text = repr(jobs_in(tmp_path, EXAMPLE)["nightly"])
    for hidden in ("secret", "ldapsearch", "systemctl", "mail", "docker", "SELECT"):
        assert hidden not in text


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("postgresql://backup:secret@db1/*", "postgresql://backup@db1/*"),
        ("mysql://backup:sec/r@t@db1/shop", "mysql://backup@db1/shop"),
        ("redis://:secret@db1", "redis://@db1"),
        ("postgresql:///shop?host=/run/postgresql", "postgresql:///shop?host=/run/postgresql"),
        ("postgresql://db1/shop?password=secret&user=backup", "postgresql://db1/shop?…"),
        ("postgresql://db1/shop?host=/run&password=secret", "postgresql://db1/shop?…"),
        ("mysql://backup:sec?r#t@db1/shop", "mysql://backup@db1/shop"),
        ("mysql://backup:sec\nret@db1/shop", "mysql://backup@db1/shop"),
        ("mysql://db1/shop?password=sec\nret", "mysql://db1/shop?…"),
    ],
)
def test_no_message_calls_a_source_by_its_password(url: str, text: str) -> None:
    assert JobSource(path=url).text == text


@pytest.mark.parametrize(
    ("job", "line", "problem", "hint"),
    [
        ("[a]", 3, "must hold keys, not a list", "key: value"),
        ("{tags: a}", 3, "it has no 'sources'", "sources: [/etc]"),
        ("{sources: }", 3, "it has no 'sources'", "sources: [/etc]"),
        ("{sources: []}", 3, "'sources' is empty", "after a dash"),
        ("{sources: /etc}", 3, "'sources' must be a list, not text", "after a dash"),
        ("{source: [/etc], sources: [/a]}", 3, "unknown key 'source'", "did you mean sources?"),
        ("\n    sources: [/a]\n    rotat: true", 5, "unknown key 'rotat'", "did you mean rotate?"),
        (
            "\n    sources: [/a]\n    before=SECRET: x",
            5,
            "unknown key 'before…'",
            "did you mean before?",
        ),
        ("\n    sources: [/a]\n    rotate: 'yes'", 5, "'rotate' must be true or false", "quotes"),
        ("\n    sources: [/a]\n    max_age: 26", 5, "'max_age' must be text, not a number", "90D"),
        ("\n    sources: [/a]\n    max_age: 2 days", 5, "'max_age' is no interval", "3M2D8h20m5s"),
        ("\n    sources: [/a]\n    notify: a.B", 5, "'notify' must be a list, not text", "dash"),
        ("\n    sources: [/a]\n    check: 1W", 5, "'check' must be a mapping, not text", "every"),
        ("\n    sources: [/a]\n    check: {sample: 5%}", 5, "'check' has no 'every'", "every: 1W"),
        ("\n    sources: [/a]\n    check: {every: x}", 5, "'every' is no interval", "M months"),
        ("\n    sources: [/a]\n    check: {every: 1W, sample: 0%}", 5, "'sample' must be", "5%"),
        (
            "\n    sources: [/a]\n    check: {every: 1W, sampl: 1}",
            5,
            "unknown key 'sampl'",
            "sample",
        ),
        ("\n    sources: [/a]\n    drill: {into: x}", 5, "'drill' has no 'every'", "every"),
        ("\n    sources: [/a]\n    drill: {every: 1M, of: x}", 5, "unknown key 'of'", "use one of"),
        ("\n    sources: [/a]\n    before: [1]", 5, "'before' entry 1 must be text", "quotes"),
        (
            "\n    sources: [/a]\n    profile: defult",
            5,
            "no profile 'defult'",
            "did you mean default?",
        ),
        ("\n    sources:\n      - /a\n      - 3", 6, "source 2 must be text or a mapping", "{path"),
        ("\n    sources:\n      - /a\n      - {}", 6, "source 2 has neither 'path' nor", "one of"),
        ("\n    sources:\n      - {path: /a, command: b}", 5, "source 1 has both", "one of them"),
        (
            "\n    sources:\n      - {command: b}",
            5,
            "source 1 is a command without a 'name'",
            "name",
        ),
        ("\n    sources:\n      - '-'", 5, "source 1 is standard input", "as command"),
        ("\n    sources:\n      - {pth: /a}", 5, "unknown key 'pth'", "did you mean path?"),
        ("\n    sources:\n      - {path: /a, name: 3}", 5, "'name' must be text", "quotes"),
        ("\n    sources:\n      - {path: /a, via: b}", 5, "'via' is only for a database", "remove"),
        ("\n    sources:\n      - {path: /a, timeout: 2h}", 5, "'timeout' is only for", "remove"),
        (
            "\n    sources:\n      - {path: 'mysql://h/a', one_file_system: true}",
            5,
            "'one_file_system' is only for a file or directory",
            "remove",
        ),
        (
            "\n    sources:\n      - {path: 'mysql://h/a', allow_empty: true}",
            5,
            "'allow_empty' is only for a file, a directory or a command",
            "remove",
        ),
        (
            "\n    sources:\n      - {command: a, name: b, exclude_file: c}",
            5,
            "'exclude_file' is only for a file or directory",
            "remove",
        ),
        (
            "\n    sources:\n      - {path: 'mysql://h/a', fail_below: 0%}",
            5,
            "'fail_below' must be a whole percentage",
            "50%",
        ),
        (
            "\n    sources:\n      - {path: 'mysql://h/a', timeout: []}",
            5,
            "'timeout' must be an interval or a number of seconds",
            "2h",
        ),
        ("\n    sources:\n      - /a\n      - /a/", 6, "has the path of source 1", "another name"),
        (
            "\n    sources:\n      - {path: /a, name: x}\n      - {command: b, name: x}",
            6,
            "has the name of source 1",
            "another name",
        ),
        ("\n    sources: [~nobody-here/a]", 4, "source 1: cannot expand", "whole path"),
        (
            "\n    sources: [/a]\n    drill: {every: 1M, scratch: ~nobody-here/a}",
            5,
            "job 'mine': cannot expand",
            "whole path",
        ),
        (
            "\n    sources:\n      - {command: a, name: b, fail_below: 500}",
            5,
            "'fail_below' must be a whole percentage",
            "50%",
        ),
        (
            "\n    sources:\n      - {command: a, name: b, fail_below: 12.5%}",
            5,
            "'fail_below' must be a whole percentage",
            "50%",
        ),
    ],
)
def test_each_problem_is_named_with_its_line(
    tmp_path: Path, job: str, line: int, problem: str, hint: str
) -> None:
    path = write(tmp_path, f"{PROFILE}jobs:\n  mine: {job}\n")
    with pytest.raises(ConfigError) as raised:
        load_jobs(path)
    assert str(raised.value).startswith(f"{path}:{line}: job 'mine'")
    assert problem in str(raised.value)
    assert hint in raised.value.hint


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("jobs: [a]\n", "'jobs' must hold jobs by name, not a list"),
        ("jobs:\n  sources: [/a]\n", "a job cannot be called 'sources', which is a key of jobs"),
        ("jobs:\n  host: {sources: [/a]}\n", "a job cannot be called 'host', which is a key of p"),
        ("jobs:\n  a/b: {sources: [/a]}\n", "a job has no usable name"),
        ("jobs:\n  -a: {sources: [/a]}\n", "a job has no usable name"),
        ('jobs:\n  "": {sources: [/a]}\n', "a job has no usable name"),
    ],
)
def test_a_name_that_no_job_can_have_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path, PROFILE + text)
    with pytest.raises(ConfigError, match=problem) as raised:
        load_jobs(path)
    assert str(raised.value).startswith(f"{path}:")
    assert raised.value.hint


def test_a_relative_path_from_a_pipe_is_refused(tmp_path: Path) -> None:
    for job, key in (
        ("{sources: [a]}", "path"),
        ("{sources: [{path: /a, exclude_file: b}]}", "exclude_file"),
        ("{sources: [/a], drill: {every: 1M, scratch: c}}", "scratch"),
    ):
        reading, writing = os.pipe()
        os.write(writing, f"{PROFILE}jobs: {{mine: {job}}}\n".encode())
        os.close(writing)
        try:
            with pytest.raises(ConfigError, match=f"'{key}' is a relative path"):
                load_jobs(f"/dev/fd/{reading}")
        finally:
            os.close(reading)


def test_a_profile_that_no_file_has_is_named_without_any(tmp_path: Path) -> None:
    path = write(tmp_path, "jobs: {mine: {sources: [/a], profile: other}}\n")
    with pytest.raises(ConfigError, match=r"no profile 'other' \(there are: none\)"):
        load_jobs(path)


# The schema


def problems(text: str) -> list[str]:
    content = yaml.safe_load(text)
    by_this, by_draft_7 = (
        ["/".join(map(str, each.path)) for each in validator.iter_errors(content)]
        for validator in (VALIDATOR, Draft7Validator(json_schema()))
    )
    assert by_this == by_draft_7  # which is all that some editors know
    return by_this


def test_the_schema_accepts_the_example() -> None:
    assert problems(EXAMPLE) == []


@pytest.mark.parametrize(
    ("job", "place"),
    [
        ("[a]", ""),
        ("{}", ""),
        ("{sources: []}", "/sources"),
        ("{sources: /a}", "/sources"),
        ("{sources: [{pth: /a}]}", "/sources/0"),
        ("{sources: [3]}", "/sources/0"),
        ("{sources: [/a], check: {}}", "/check"),
        ("{sources: [/a], check: {every: 1 week}}", "/check/every"),
        ("{sources: [/a], check: {every: 1W, sample: 5 %}}", "/check/sample"),
        ("{sources: [/a], drill: {every: 1M, of: x}}", "/drill"),
        ("{sources: [/a], rotate: 1}", "/rotate"),
        ("{sources: [/a], notify: a}", "/notify"),
    ],
)
def test_the_schema_refuses_what_is_wrong(job: str, place: str) -> None:
    assert problems(f"{PROFILE}jobs: {{mine: {job}}}\n") == [f"jobs/mine{place}"]


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "5%", "1W", "/a", "mysql://h/a", "100.5%", "2h", "a b"])
    | st.text(max_size=20)
)
SOURCE = st.dictionaries(st.sampled_from([*SOURCE_KEYS]), PLAIN, max_size=3)
VALUES = {
    "sources": st.lists(PLAIN | SOURCE, max_size=3),
    "check": st.dictionaries(st.sampled_from([*CHECK_KEYS]), PLAIN, max_size=2),
    "drill": st.dictionaries(st.sampled_from([*DRILL_KEYS]), PLAIN, max_size=3),
}


@settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), key=st.sampled_from([each for each in JOB_KEYS if each != "profile"]))
def test_the_schema_refuses_nothing_that_is_accepted(
    tmp_path: Path, data: st.DataObject, key: str
) -> None:
    value: Any = data.draw(VALUES.get(key, PLAIN | st.lists(PLAIN, max_size=2)))
    content = {
        "default": {"default_destination": "local"},
        "jobs": {"mine": {"sources": ["/a"], key: value}},
    }
    path = write(tmp_path, yaml.safe_dump(content))
    try:
        load_jobs(path)
    except ConfigError:
        return
    assert not list(VALIDATOR.iter_errors(content))


def test_every_key_is_described_by_one_sentence() -> None:
    for keys in (JOB_KEYS, SOURCE_KEYS, CHECK_KEYS, DRILL_KEYS):
        for name, key in keys.items():
            assert key.about[0].isupper(), name
            assert not key.about.endswith("."), name
            assert ". " not in key.about, name
