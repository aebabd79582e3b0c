"""``bakthat config``: check, show and schema."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # ships no types

from bakthat.conf import KEYS, json_schema, load_profile
from bakthat.conf.profile import SECRETS
from bakthat.crypto import age
from bakthat.operations.configuration import show
from tests.cli.test_json import checked_lines
from tests.support.commandline import CommandLine, untimed

SECRET = "wJalrXUtnFEMI"
RECIPIENT = age.recipient_of(age.generate_identity())


def write(user: CommandLine, text: str) -> Path:
    path = user.home / ".bakthat.yml"
    path.write_text(text)
    path.chmod(0o600)
    return path


# check


def test_a_good_configuration_prints_nothing_and_is_counted(user: CommandLine) -> None:
    path = write(user, "# mine\ndefault: {s3_bucket: b}\ndisk: {default_destination: local}\n")
    done = user.run("config", "check")
    assert (done.code, done.stdout) == (0, "")
    assert untimed(done.stderr) == f"Checked 2 profiles of {path} and the environment: 0 problems\n"
    assert user.run("config", "check", "-p", "disk", "--quiet").stderr == ""


def test_without_a_file_the_environment_is_checked(user: CommandLine) -> None:
    done = user.run("config", "check")
    assert (done.code, done.stdout) == (0, "")
    start = "Checked the environment; there is no configuration file"
    assert untimed(done.stderr) == f"{start}: 0 problems\n"
    done = user.run("config", "check", env={"BAKTHAT_TIMEOUT": "soon", "BAKTHAT_S3_BUCKT": "b"})
    assert done.code == 1
    assert done.stdout.splitlines() == [
        "BAKTHAT_TIMEOUT must be a number of seconds, not text",
        "  hint: write it without quotes and units, such as 60",
        "warning: unknown variable BAKTHAT_S3_BUCKT; did you mean BAKTHAT_S3_BUCKET?",
    ]
    error = "bakthat: error: 1 problem found\n"
    assert untimed(done.stderr) == f"{error}{start}: 1 problem, 1 warning\n"


def test_every_problem_of_every_profile_is_one_line_with_its_place(user: CommandLine) -> None:
    path = write(
        user,
        f"""\
default:
  s3_bucket: b
  timeout: 5s
  s3_buckt: {SECRET}
  rotation: {{days: 0}}
  recipients:
  - {RECIPIENT}
  - {SECRET}
  password_file: nowhere
  identity_file: missing
  plugins: [mine.Mine, bakthat.notify.Webhook, bakthat.notify.Webhok]
  webhook: {{url: {SECRET}}}
  sse: AES256
  sse_kms_key_id: alias/backups
lists: [a]
empty: {{password: , prefix: /a}}
cold:
  default_destination: glacier
""",
    )
    path.chmod(0o640)
    done = user.run("config", "check", env={"BAKTHAT_HOST": "a/b"})
    assert done.code == 1
    assert SECRET not in done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("  hint: ")]
    home = user.home
    assert lines == [
        f"warning: others can read {path} (mode 0640)",
        "BAKTHAT_HOST cannot be a part of a key",
        f"{path}:3: profile 'default': 'timeout' must be a number of seconds, not text",
        f"{path}:4: profile 'default': unknown key 's3_buckt'",
        f"{path}:5: profile 'default': 'rotation': a rotation that keeps nothing is refused",
        f"{path}:14: profile 'default': 'sse_kms_key_id' is set, but 'sse' is not aws:kms or "
        "aws:kms:dsse",
        f"{path}:6: profile 'default': 'recipients' entry 2 is no public key of age",
        f"{path}:9: profile 'default': the file of 'password_file' does not exist: {home}/nowhere",
        f"warning: {path}:10: profile 'default': the file of 'identity_file' does not exist: "
        f"{home}/missing",
        f"{path}:12: profile 'default': 'url' below 'webhook' must be an address that begins with "
        "https:// or http://, without a user name",
        f"{path}:11: profile 'default': there is no plugin 'bakthat.notify.Webhok'",
        f"warning: {path}:11: profile 'default': there is no directory of plugins: "
        f"{home}/.bakthat_plugins",
        f"{path}:15: profile 'lists' must hold keys, not a list",
        f"{path}:16: profile 'empty': 'password' has no value",
        f"{path}:16: profile 'empty': 'prefix' begins with a slash",
        f"warning: {path}: profile 'empty': backups go to s3, but no 's3_bucket' is set",
        f"warning: {path}:18: profile 'cold': backups go to glacier, but no 'glacier_vault' is set",
    ]
    assert untimed(done.stderr) == (
        "bakthat: error: 12 problems found\n"
        f"Checked 4 profiles of {path} and the environment: 12 problems, 5 warnings\n"
    )
    hints = [line for line in done.stdout.splitlines() if line.startswith("  hint: ")]
    assert f"  hint: chmod 600 {path}" in hints
    assert "  hint: did you mean s3_bucket?" in hints
    assert "  hint: did you mean bakthat.notify.Webhook?" in hints


def test_the_jobs_are_checked(user: CommandLine) -> None:
    path = write(
        user,
        """\
default: {default_destination: local}
kept: {default_destination: local, rotation: {days: 7}}
jobs:
  nightly: {sources: [/etc], rotate: true, notify: [bakthat.notify.Webhok]}
  weekly: {sources: [/etc], profile: kept, rotate: true}
""",
    )
    done = user.run("config", "check")
    assert done.code == 1
    assert done.stdout.splitlines() == [
        f"{path}:4: job 'nightly': 'rotate' is true, but its profile has no rotation",
        "  hint: say in the profile what to keep, such as rotation: {days: 7, weeks: 4}",
        f"{path}:4: job 'nightly': there is no plugin 'bakthat.notify.Webhok'",
        "  hint: did you mean bakthat.notify.Webhook?",
    ]
    assert "Checked 2 profiles and 2 jobs of" in done.stderr
    path.write_text(
        """\
default: {default_destination: local}
jobs:
  nightly:
    sources:
      - postgresql://localhost/*
      - mongodb://user:secret@db/shop
    drill: {every: 1M, into: "mysql://db?password=secret"}
"""
    )
    assert user.run("config", "check").stdout.splitlines() == [
        f"{path}:6: job 'nightly': source 2: unknown kind of database: mongodb://",
        "  hint: use one of: mariadb, mysql, postgres, postgresql, redis, rediss, sqlite",
        f"{path}:7: job 'nightly': 'into': unknown option in a database's URL",
        "  hint: the only one is ?socket=/path, of a socket; write %3F for '?' in a name or a "
        "password",
    ]
    path.write_text(
        """\
default: {default_destination: local}
jobs:
  nightly:
    sources:
      - {path: /srv, name: www/srv}
      - /
      - {command: date, name: date, tags: "a\\tb\\e"}
      - sqlite:////var/lib/shop.db
      - mysql://db/shop
    drill: {every: 1M}
"""
    )
    rename = "  hint: write the source as a mapping with another name: {path: …, name: …}"
    assert user.run("config", "check").stdout.splitlines() == [
        f"{path}:5: job 'nightly': source 1: the name of a backup cannot hold a slash: 'www/srv'",
        rename,
        f"{path}:6: job 'nightly': source 2: '' cannot be the name of a backup",
        rename,
        f"{path}:7: job 'nightly': source 3: a tag must be printable text, not 'a b\\x1b'",
        "  hint: leave out control characters and bytes that are not UTF-8",
    ]
    path.write_text("default: {default_destination: local}\njobs: {a: {sourcs: [/a]}}\n")
    done = user.run("config", "check")
    assert done.stdout.splitlines() == [
        f"{path}:2: job 'a': unknown key 'sourcs'",
        "  hint: did you mean sources?",
        f"{path}:2: job 'a': it has no 'sources'",
        "  hint: list what is backed up: sources: [/etc]",
    ]


@pytest.mark.parametrize(("words", "code"), [((), 0), (("-p", "empty"), 1)])
def test_a_bucket_that_is_missing_is_a_problem_of_the_profile_that_is_used(
    user: CommandLine, words: tuple[str, ...], code: int
) -> None:
    path = write(user, "default: {s3_bucket: b}\nempty: {}\n")
    done = user.run("config", "check", *words)
    warning = "" if code else "warning: "
    assert done.code == code
    assert done.stdout.splitlines() == [
        f"{warning}{path}: profile 'empty': backups go to s3, but no 's3_bucket' is set",
        "  hint: set s3_bucket, or default_destination",
    ]


def test_a_variable_that_is_wrong_is_named_once(user: CommandLine, tmp_path: Path) -> None:
    write(user, "a: {s3_bucket: b}\nb: {s3_bucket: b}\ndefault: {s3_bucket: b}\n")
    env = {"BAKTHAT_PASSWORD_FILE": str(tmp_path / "nowhere"), "BAKTHAT_RECIPIENTS": "age1x"}
    done = user.run("config", "check", env=env)
    assert done.stdout.splitlines() == [
        "BAKTHAT_RECIPIENTS: 'recipients' entry 1 is no public key of age",
        "  hint: give a recipient that age-keygen shows: age1 and 58 characters in lower case",
        "BAKTHAT_PASSWORD_FILE: the file of 'password_file' does not exist: "
        f"{tmp_path / 'nowhere'}",
    ]


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("default:\n  recipients: [a", (), ":2: a bracket that is not closed"),
        ("default:\n  a: 1\n  a: 2\n", (), ":3: a key that occurs twice"),
        ("- default\n", (), ": must hold profiles by name, not a list"),
        ("default: {s3_bucket: b}\n", ("-p", "defualt"), ": no profile 'defualt' (there are:"),
        ("default: {s3_bucket: b}\n", ("-c", "nowhere.yml"), "no such configuration file: "),
        (None, ("-p", "work"), "there is no profile 'work'"),
    ],
)
def test_what_cannot_be_read_at_all_is_one_problem(
    user: CommandLine, text: str | None, words: tuple[str, ...], message: str
) -> None:
    if text is not None:
        write(user, text)
    done = user.run("config", "check", *words)
    assert done.code == 1
    lines = [line for line in done.stdout.splitlines() if not line.startswith("  hint: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert ": 1 problem" in done.stderr


def test_the_problems_are_lines_of_json(user: CommandLine) -> None:
    path = write(user, "default: {timeout: 0}\nempty: {}\nother: {default_destination: local}\n")
    done = user.run("config", "check", "--json")
    assert done.code == 1
    error, *lines = checked_lines(done, "config check")
    assert (error["message_type"], error["message"]) == ("error", "2 problems found")
    assert [(line["topic"], line["verdict"]) for line in lines[:-1]] == [
        ("default", "problem"),
        ("default", "problem"),
        ("empty", "advice"),
        ("empty", "good"),
        ("other", "good"),
    ]
    assert lines[0]["detail"].startswith(f"{path}:1: profile 'default': 'timeout' must be more")
    summary = lines[-1]
    counts = {key: summary[key] for key in ("profiles", "good", "advice", "problems", "command")}
    assert counts == {"profiles": 3, "good": 2, "advice": 1, "problems": 2, "command": "config"}


def test_a_pipe_that_a_key_names_is_not_read(user: CommandLine) -> None:
    os.mkfifo(user.home / "pipe", 0o600)
    write(user, "default: {s3_bucket: b, password_file: pipe, password_command: /bin/false}\n")
    assert user.run("config", "check").code == 0


@pytest.mark.parametrize("key", SECRETS)
def test_a_file_of_a_secret_that_is_missing_is_a_problem_and_its_content_is_none(
    user: CommandLine, key: str
) -> None:
    text = f"default:\n  s3_bucket: b\n  {key}_file: secret\n"
    path = write(
        user, f"{text}  plugins: [bakthat.notify.Webhook]\n  webhook: {{url: 'https://h'}}\n"
    )
    done = user.run("config", "check")
    assert done.code == 1
    assert done.stdout.splitlines() == [
        f"{path}:3: profile 'default': the file of '{key}_file' does not exist: "
        f"{user.home / 'secret'}"
    ]
    (user.home / "secret").write_bytes(b"\xff")
    assert user.run("config", "check").code == 0


def test_a_credential_is_checked_as_a_variable_is(user: CommandLine) -> None:
    write(user, "default: {s3_bucket: b}\n")
    directory = user.home / "credentials"
    env = {"CREDENTIALS_DIRECTORY": str(directory)}
    done = user.run("config", "check", env=env)
    assert done.code == 1
    assert done.stdout.splitlines() == [
        f"cannot read the directory of credentials '{directory}': no such file or directory",
        "  hint: run it as the user of the service, or unset it: unset CREDENTIALS_DIRECTORY",
    ]
    directory.mkdir()
    (directory / "bakthat.secret_kee").write_text(SECRET)
    (directory / "bakthat.password").mkdir()
    done = user.run("config", "check", env=env)
    assert done.stdout.splitlines() == [
        "warning: unknown credential bakthat.secret_kee; did you mean bakthat.secret_key?",
        "CREDENTIALS_DIRECTORY: the file of 'password_file' is a directory: "
        f"{directory / 'bakthat.password'}",
    ]


@pytest.mark.parametrize("way", ["file", "command"])
def test_settings_that_would_have_to_be_read_are_not_checked(user: CommandLine, way: str) -> None:
    (user.home / "settings").write_text("url: 1")
    write(
        user,
        "default: {s3_bucket: b, plugins: [bakthat.notify.Webhook], "
        f"webhook_{way}: {user.home / 'settings'}}}\n",
    )
    done = user.run("config", "check")
    assert (done.code, done.stdout) == (0, "")


# show
# show

PROFILE = f"""\
default:
  access_key: AK
  secret_key: {SECRET}
  endpoint_url: http://user:{SECRET}@localhost:9000
  password: ""
  password_command: curl -H {SECRET}
  recipients: [{RECIPIENT}, {SECRET}]
  rotation: {{days: 7, weeks: 4}}
  prefix: "{{host}}/"
  local_path: store
  full_every: 1Y
  healthchecks: {{url: "https://h/{SECRET}"}}
  webhook: {{url: "https://h/{SECRET}", headers: {{Authorization: {SECRET}}}}}
  apprise: {{urls: ["mailto://{SECRET}"]}}
  prometheus: {{textfile: /a/b.prom}}
  plugin_settings: {{a: [1, {{b: {SECRET}}}], c: true, d: , e={SECRET}: 1}}
"""


def test_the_profile_in_force_is_shown_without_secrets(user: CommandLine, tmp_path: Path) -> None:
    path = write(user, PROFILE)
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    env = {
        "BAKTHAT_SECRET_KEY_FILE": str(secret),
        "BAKTHAT_HOST": "a: #b",
        "BAKTHAT_ATTEMPTS": "3",
    }
    done = user.run("config", "show", env=env)
    assert (done.code, done.stderr) == (0, "")
    assert SECRET not in done.stdout
    shown = yaml.safe_load(done.stdout)["default"]
    assert "secret_key" not in shown  # its variable is used before the file
    assert shown["secret_key_file"] == str(secret)
    assert shown["endpoint_url"] == "http://***@localhost:9000"
    assert shown["password"] == ""
    assert shown["password_command"] == "curl ***"
    assert shown["recipients"] == [RECIPIENT, "***"]
    assert shown["host"] == "a: #b"
    assert shown["healthchecks"] == {"url": "***"}
    assert shown["webhook"] == {"url": "***", "headers": {"Authorization": "***"}}
    assert shown["apprise"] == {"urls": ["***"]}
    assert shown["prometheus"] == {"textfile": "/a/b.prom"}
    assert shown["plugin_settings"] == {
        "a": ["***", {"b": "***"}],
        "c": True,
        "d": None,
        "e…": "***",
    }
    assert shown["local_path"] == str(user.home / "store")
    comments = {
        line.split(":")[0].strip(): line.rpartition("  # ")[2] for line in done.stdout.splitlines()
    }
    assert comments["access_key"] == f"{path}:2"
    assert comments["secret_key_file"] == "BAKTHAT_SECRET_KEY_FILE"
    assert comments["attempts"] == "BAKTHAT_ATTEMPTS"
    assert comments["region_name"] == "default"
    assert "  # Not set: s3_bucket, glacier_vault, " in done.stdout
    assert max(map(len, done.stdout.split("# Not set")[1].splitlines())) <= 80


def test_what_is_shown_is_a_valid_file(user: CommandLine, tmp_path: Path) -> None:
    path = write(user, "default: {s3_bucket: b, timeout: 5, plugins: [a.B]}\n")
    shown = tmp_path / "shown.yml"
    shown.write_text(user.run("config", "show").stdout)
    shown.chmod(0o600)
    assert load_profile(config=shown).profile == load_profile(config=path).profile


def test_a_password_of_the_environment_is_shown_as_the_one_in_force(user: CommandLine) -> None:
    write(user, "default: {password: a}\n")
    done = user.run("config", "show", env={"BAKTHAT_PASSWORD": SECRET})
    (line,) = (line for line in done.stdout.splitlines() if "password:" in line)
    assert line.split() == ["password:", "'***'", "#", "BAKTHAT_PASSWORD"]


def test_the_profile_in_force_as_json(user: CommandLine, tmp_path: Path) -> None:
    path = write(user, PROFILE)
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    env = {"BAKTHAT_SECRET_KEY_FILE": str(secret), "BAKTHAT_HOST": "h"}
    done = user.run("config", "show", "--json", env=env)
    assert SECRET not in done.stdout
    *settings, summary = checked_lines(done, "config show")
    found = {line.pop("key"): line for line in settings}
    assert list(found) == list(KEYS)
    for line in settings:
        line.pop("message_type")
    variable = {"source": "variable", "variable": "BAKTHAT_HOST"}
    assert found["host"] == {"value": "h", **variable}
    variable = {"source": "variable", "variable": "BAKTHAT_SECRET_KEY_FILE"}
    assert found["secret_key_file"] == {"value": str(secret), **variable}
    assert found["secret_key"] == {"value": None, "source": "default"}
    assert found["access_key"] == {"value": "AK", "source": "file", "file": str(path), "line": 2}
    assert found["timeout"] == {"value": 60, "source": "default"}
    assert found["s3_bucket"] == {"value": None, "source": "default"}
    assert summary["profile"] == "default"


@pytest.mark.parametrize("key", SECRETS)
@pytest.mark.parametrize("way", ["file", "command"])
def test_where_a_secret_comes_from_is_shown_and_not_what_it_is(
    user: CommandLine, key: str, way: str
) -> None:
    value = "secret" if way == "file" else f"curl -H {SECRET}"
    path = write(user, f"default:\n  s3_bucket: b\n  {key}_{way}: {value}\n")
    (user.home / "secret").write_text(SECRET)
    done = user.run("config", "show")
    assert (done.code, done.stderr) == (0, "")
    assert SECRET not in done.stdout
    shown = yaml.safe_load(done.stdout)["default"]
    assert key not in shown
    assert shown[f"{key}_{way}"] == (str(user.home / "secret") if way == "file" else "curl ***")
    assert f"# {path}:3\n" in done.stdout
    assert f" {key}," not in done.stdout.partition("# Not set: ")[2]


def test_a_credential_is_shown_where_it_comes_from(user: CommandLine) -> None:
    write(user, f"default: {{secret_key: {SECRET}}}\n")
    path = user.home / "credentials" / "bakthat.secret_key"
    path.parent.mkdir()
    path.write_text(SECRET)
    env = {"CREDENTIALS_DIRECTORY": str(path.parent)}
    done = user.run("config", "show", env=env)
    assert SECRET not in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if "secret_key" in line)
    assert line.split() == ["secret_key_file:", str(path), "#", "CREDENTIALS_DIRECTORY"]


@pytest.mark.parametrize(
    ("database", "shown"),
    [
        ("/srv/a:b@c?d", "/srv/a:b@c?d"),
        ("postgresql://db/bakthat", "postgresql://db/bakthat"),
        ("postgresql://me@db:5432/bakthat", "postgresql://me@db:5432/bakthat"),
        (f"postgresql://me:{SECRET}@db/bakthat", "postgresql://me:***@db/bakthat"),
        (f"mysql://:{SECRET}@db/bakthat", "mysql://:***@db/bakthat"),
        (f"mysql://me:a/{SECRET}@b@db:1/bakthat", "mysql://me:***@db:1/bakthat"),
        (f"mysql://me:a?{SECRET}@db/bakthat", "mysql://me:***?***"),
        (f"mysql://db/bakthat?password={SECRET}", "mysql://db/bakthat?***"),
        (f"mysql://me:{SECRET}@db/bakthat?password={SECRET}", "mysql://me:***@db/bakthat?***"),
    ],
)
def test_a_catalog_is_shown_without_the_password_of_its_url(database: str, shown: str) -> None:
    assert show.without_secrets("database", database) == shown


def test_a_profile_that_is_wrong_is_not_shown(user: CommandLine) -> None:
    write(user, f"default: {{timeout: {SECRET}}}\n")
    done = user.run("config", "show")
    assert (done.code, done.stdout) == (1, "")
    assert ":1: profile 'default': 'timeout' must be a number of seconds" in done.stderr
    assert SECRET not in done.stderr


# schema


def test_the_schema_is_printed_for_editors(user: CommandLine) -> None:
    done = user.run("config", "schema")
    assert (done.code, done.stderr) == (0, "")
    schema = json.loads(done.stdout)
    assert schema == json_schema()
    validator = Draft202012Validator(schema)
    assert list(validator.iter_errors(yaml.safe_load(PROFILE))) == []
    assert len(list(validator.iter_errors({"default": {"s3_buckt": "b"}}))) == 1


def test_the_schema_has_no_json_lines(user: CommandLine) -> None:
    done = user.run("config", "schema", "--json")
    assert done.code == 2
    assert "config schema takes no --json: its output is a file" in done.stderr
