"""The configuration in the environment: BAKTHAT_<KEY>, BAKTHAT_<KEY>_FILE and the like."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bakthat.conf import KEYS, PATHS, load_profile, machine_name
from bakthat.conf.profile import SECRET_COMMANDS, SECRET_FILES, SECRETS
from bakthat.errors import ConfigError
from bakthat.passwords import decryption_passphrase, encryption_keys
from tests.support.commandline import CommandLine

pytestmark = pytest.mark.permissions

SECRET = "wJalrXUtnFEMI/K7MDENG"


BY_THEIR_VARIABLE = [each for each in KEYS if each != "password"]
"""The keys that their variable sets; bakthat.passwords reads that of the password."""


@pytest.fixture
def config(isolated_environment: Path) -> Path:
    return isolated_environment / ".bakthat.yml"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture
def setenv(monkeypatch: pytest.MonkeyPatch) -> Any:
    def set_all(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(f"BAKTHAT_{name}", value)

    return set_all


def error_of(**arguments: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_profile(**arguments)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value) + caught.value.hint
    return caught.value


# What goes wrong.


@pytest.mark.parametrize(
    ("name", "value", "message", "hint"),
    [
        ("TIMEOUT", "", "BAKTHAT_TIMEOUT is set, but empty", "or unset it: unset BAKTHAT_TIMEOUT"),
        ("S3_BUCKET", "", "BAKTHAT_S3_BUCKET is set, but empty", "give it a value"),
        ("RECIPIENTS", "", "BAKTHAT_RECIPIENTS is set, but empty", "give it a value"),
        ("RECIPIENTS", "[]", "BAKTHAT_RECIPIENTS is set, but empty", "give it a value"),
        ("PASSWORD_COMMAND", "[]", "BAKTHAT_PASSWORD_COMMAND is set, but empty", "give it"),
        ("PASSWORD_FILE", "", "BAKTHAT_PASSWORD_FILE is set, but empty", "give it a value"),
        ("LOCAL_PATH", "", "BAKTHAT_LOCAL_PATH is set, but empty", "give it a value"),
        ("TIMEOUT", "soon", "BAKTHAT_TIMEOUT must be a number of seconds, not text", "such as 60"),
        ("TIMEOUT", "~", "BAKTHAT_TIMEOUT must be a number of seconds, not nothing", ""),
        ("TIMEOUT", "# 60", "BAKTHAT_TIMEOUT must be a number of seconds, not nothing", ""),
        ("ATTEMPTS", "0", "BAKTHAT_ATTEMPTS must be a whole number from 1 to 100, not 0", ""),
        ("INCREMENTAL", "ja", "BAKTHAT_INCREMENTAL must be true or false, not text", ""),
        ("PLUGINS", "a.B", "BAKTHAT_PLUGINS must be a list, not text", "such as [one, two]"),
        ("PLUGINS", "[1]", "BAKTHAT_PLUGINS entry 1 must be text", "such as [one, two]"),
        ("ROTATION", "7", "BAKTHAT_ROTATION must be a mapping", "such as {days: 7, weeks: 4}"),
        ("ROTATION", "{days: 7", "BAKTHAT_ROTATION: a bracket that is not closed", "close it"),
        ("ROTATION", "days: 7\n  x: y", "BAKTHAT_ROTATION, line 2: a colon within a value", ""),
        ("ROTATION", "{a: 1, a: 2}", "BAKTHAT_ROTATION: a key that occurs twice", "remove one"),
        (
            "WEBHOOK",
            SECRET,
            "BAKTHAT_WEBHOOK must be a mapping of settings, not text",
            "as YAML, in braces",
        ),
        ("WEBHOOK", f"'{SECRET}", "BAKTHAT_WEBHOOK: a quote that is not closed", "close it"),
        ("SECRET_KEY", f"{SECRET} ", "BAKTHAT_SECRET_KEY holds white space", "remove it"),
        ("DEFAULT_DESTINATION", "S3", "must be one of s3, glacier, local", "did you mean s3?"),
        ("FULL_EVERY", "90", "BAKTHAT_FULL_EVERY is no interval", "write whole numbers"),
        ("HOST", b"\xff".decode("utf-8", "surrogateescape"), "BAKTHAT_HOST is not UTF-8", ""),
        (
            "LOCAL_PATH",
            "~nobody-of-that-name/a",
            "BAKTHAT_LOCAL_PATH: there is no such home",
            "the whole",
        ),
        ("LOCAL_PATH", "store", "BAKTHAT_LOCAL_PATH is a relative path", "an absolute path"),
        ("PASSWORD_FILE", SECRET, "BAKTHAT_PASSWORD_FILE is a relative path", "absolute path"),
        (
            "PROMETHEUS",
            "{textfile: a}",
            "BAKTHAT_PROMETHEUS: 'textfile' is a relative path",
            "or one that begins with ~/",
        ),
    ],
)
def test_a_wrong_value_is_named_by_its_variable(
    setenv: Any, name: str, value: str, message: str, hint: str
) -> None:
    setenv(**{name: value})
    error = error_of()
    assert message in str(error)
    assert hint in error.hint


@pytest.mark.parametrize("key", BY_THEIR_VARIABLE)
@pytest.mark.parametrize(
    "value",
    [
        SECRET,
        f"{SECRET}: [",
        f"'{SECRET}",
        f"[{SECRET}, 1]",
        f"!!bool {SECRET}",
        f"!!int {SECRET}",
        f"!!timestamp {SECRET}",
        f"[!!bool {SECRET}]",
        "",
    ],
)
def test_no_message_quotes_a_value(setenv: Any, key: str, value: str) -> None:
    if key in ("default_destination", "compress"):  # these hold no secret
        return
    setenv(**{key.upper(): value})
    taken: Any = None
    message = ""
    try:
        taken = getattr(load_profile().profile, key)
    except ConfigError as error:
        message = f"{error} {error.hint}"
    assert SECRET not in message
    assert f"BAKTHAT_{key.upper()}" in message or taken in (value, [value])


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_two_variables_set_is_an_error(setenv: Any, tmp_path: Path, key: str) -> None:
    path = write(tmp_path / "value", SECRET)
    setenv(**{key.upper(): SECRET, f"{key.upper()}_FILE": str(path)})
    error = error_of()
    name = f"BAKTHAT_{key.upper()}"
    assert str(error) == f"{name} and {name}_FILE are both set"
    assert error.hint == f"unset it: unset {name}"


def test_a_path_within_a_value_holds_no_nul(setenv: Any) -> None:
    setenv(PROMETHEUS='{textfile: "/a\\0b"}')
    assert str(error_of()) == ("BAKTHAT_PROMETHEUS: 'textfile': a path cannot hold a NUL character")


@pytest.mark.parametrize("name", ["S3_BUCKET_FILE", "ROTATION_FILE"])
def test_a_file_that_gives_no_value_is_named_by_its_variable(
    setenv: Any, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "value"
    shown = f" '{path}'"
    setenv(**{name: str(path)})
    missing = f"BAKTHAT_{name}: cannot read the file{shown}: no such file or directory"
    assert str(error_of()) == missing
    path.mkdir()
    assert str(error_of()) == f"BAKTHAT_{name}: cannot read the file{shown}: is a directory"
    path.rmdir()
    for empty in ("", "\n", "\r\n"):
        path.write_text(empty)
        assert str(error_of()) == f"BAKTHAT_{name}: the file{shown} is empty"
    path.write_bytes(b"\xff" + SECRET.encode())
    error = error_of()
    assert str(error) == f"BAKTHAT_{name}: the file{shown} is not UTF-8 text"
    assert error.__cause__ is None
    setenv(**{name: "value"})
    assert str(error_of()) == f"BAKTHAT_{name} is a relative path"
    setenv(**{name: ""})
    assert str(error_of()) == f"BAKTHAT_{name} is set, but empty"
    setenv(**{name: "~nobody-of-that-name/value"})
    assert str(error_of()) == f"BAKTHAT_{name}: there is no such home directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_an_error(setenv: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "value", SECRET)
    path.chmod(0)
    setenv(S3_BUCKET_FILE=str(path))
    assert f"cannot read the file '{path}': permission denied" in str(error_of())


def test_the_content_of_a_file_is_checked_as_a_value(setenv: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "value", f"{SECRET}\n\n")
    setenv(S3_BUCKET_FILE=str(path))
    assert str(error_of()) == "BAKTHAT_S3_BUCKET_FILE holds white space or a control character"
    write(path, "[a")
    setenv(S3_BUCKET_FILE=str(write(tmp_path / "good", "b")), PLUGINS_FILE=str(path))
    assert str(error_of()) == "BAKTHAT_PLUGINS_FILE: a bracket that is not closed"


def test_a_named_file_or_profile_must_exist_whatever_the_variables_say(
    setenv: Any, config: Path
) -> None:
    setenv(S3_BUCKET="b")
    assert "no such configuration file" in str(error_of(config="/nowhere.yml"))
    assert "there is no profile 'work'" in str(error_of(name="work"))
    write(config, "default: {}\n")
    assert "no profile 'work'" in str(error_of(name="work"))
    write(config, "default: {timeout: 0}\n")
    setenv(TIMEOUT="5")  # the file is wrong all the same
    assert f"{config}:1: profile 'default': 'timeout' must be" in str(error_of())


# What an unknown variable is.


def test_an_unknown_variable_is_a_warning_with_the_nearest_name(
    setenv: Any, caplog: pytest.LogCaptureFixture
) -> None:
    setenv(S3_BUCKT=SECRET, SECRET_KEY_FIL=SECRET, NONSENSE_ALTOGETHER=SECRET)
    load_profile()
    assert caplog.messages == [
        "unknown variable BAKTHAT_NONSENSE_ALTOGETHER",
        "unknown variable BAKTHAT_S3_BUCKT; did you mean BAKTHAT_S3_BUCKET?",
        "unknown variable BAKTHAT_SECRET_KEY_FIL; did you mean BAKTHAT_SECRET_KEY_FILE?",
    ]


def test_known_variables_and_those_of_others_are_no_warning(
    setenv: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    setenv(PASSWORD="x", CONFIG="/a", PROFILE="b", S3_BUCKET="c")
    monkeypatch.setenv("MY_BAKTHAT_NONSENSE", "d")
    monkeypatch.setenv("bakthat_nonsense", "e")
    load_profile()
    assert caplog.messages == []


def test_conf_is_the_whole_profile(setenv: Any, caplog: pytest.LogCaptureFixture) -> None:
    setenv(S3_BUCKET="b", TIMEOUT="wrong", NONSENSE="x")
    loaded = load_profile(conf={"prefix": "a"})
    assert (loaded.profile.s3_bucket, loaded.profile.timeout) == (None, 60)
    assert str(loaded.source_of("prefix")) == "conf"
    assert caplog.messages == []


# What they mean.

VALUES: dict[str, tuple[str, Any]] = {
    "access_key": ("AK", "AK"),
    "secret_key": ("yes", "yes"),
    "region_name": ("0640", "0640"),
    "s3_bucket": ("null", "null"),
    "glacier_vault": ("1:20", "1:20"),
    "default_destination": ("local", "local"),
    "endpoint_url": ("http://localhost:9000", "http://localhost:9000"),
    "glacier_endpoint_url": ("https://h", "https://h"),
    "storage_class": ("GLACIER_IR", "GLACIER_IR"),
    "object_lock": ("{mode: governance, days: 3}", {"mode": "governance", "days": 3}),
    "versions": ("keep", "keep"),
    "role_arn": ("arn:aws:iam::123456789012:role/b", "arn:aws:iam::123456789012:role/b"),
    "expected_bucket_owner": ("012345678901", "012345678901"),
    "sse": ("aws:kms", "aws:kms"),
    "sse_kms_key_id": ("alias/backups", "alias/backups"),
    "timeout": ("2.5", 2.5),
    "attempts": ("3", 3),
    "bandwidth": ("5MiB/s", "5MiB/s"),
    "host": ("{a: b}", "{a: b}"),
    "prefix": ("", ""),
    "local_path": ("/a b #c", "/a b #c"),
    "compress": ("off", False),
    "recipients": ("age1x", ["age1x"]),
    "identity_file": ("/id", "/id"),
    "rotation": ("days: 7\nweeks: 4", {"days": 7, "weeks": 4}),
    "incremental": ("true", True),
    "full_every": ("90D", "90D"),
    "max_archives": ("5", 5),
    "detect": ("hash", "hash"),
    "ignore_inode": ("yes", True),
    "always_read": ("- '*.db'\n- a", ["*.db", "a"]),
    "recheck": ("7", 7),
    "skip_unchanged": ("on", True),
    "plugins": ("[a.B, c.D]", ["a.B", "c.D"]),
    "plugins_dir": ("/plugins", "/plugins"),
    "healthchecks": ("{url: https://h/x}", {"url": "https://h/x"}),
    "uptime_kuma": ("{url: https://h/api/push/x}", {"url": "https://h/api/push/x"}),
    "webhook": ("url: https://h/x", {"url": "https://h/x"}),
    "apprise": ("{urls: [json://h]}", {"urls": ["json://h"]}),
    "prometheus": ("{textfile: /a/b.prom}", {"textfile": "/a/b.prom"}),
    "plugin_settings": ("{}", {}),
    "database_password": ("yes", "yes"),
    "database": ("/db", "/db"),
    **dict.fromkeys(SECRET_FILES, ("~/secret", "~/secret")),
    **dict.fromkeys(SECRET_COMMANDS, ("sh -c 'a: \"b\"'", "sh -c 'a: \"b\"'")),
}


@pytest.mark.parametrize(
    ("key", "end"),
    [
        *((key, None) for key in BY_THEIR_VARIABLE),
        # The file of a secret is read when the secret is needed.
        *((key, end) for key in KEYS if key not in SECRETS for end in ("", "\n", "\r\n")),
    ],
)
def test_every_key_has_a_variable_and_a_file(
    setenv: Any, tmp_path: Path, config: Path, key: str, end: str | None
) -> None:
    write(config, "default: {local_path: /of-the-file, timeout: 1, rotation: {last: 1}}\n")
    text, value = VALUES[key]
    variable, path = f"BAKTHAT_{key.upper()}", ""
    if end is None:
        setenv(**{key.upper(): text})
    elif not text:
        return  # an empty file is an error
    else:
        path = str(tmp_path / "value")
        Path(path).write_bytes(f"{text}{end}".encode())
        variable += "_FILE"
        setenv(**{f"{key.upper()}_FILE": path})
    loaded = load_profile()
    assert getattr(loaded.profile, key) == value
    assert loaded.mapping[key] == (text if key == "recipients" else value)
    source = loaded.source_of(key)
    assert (source.kind, source.name, source.path) == ("variable", variable, path)
    assert loaded.place(key) == variable
    other = "timeout" if key != "timeout" else "local_path"
    assert str(loaded.source_of(other)) == f"{config}:1"
    assert str(loaded.source_of("detect")) == ("default" if key != "detect" else str(source))


def test_a_list_of_recipients_or_arguments_is_yaml(setenv: Any) -> None:
    setenv(RECIPIENTS="[age1x, age1y]", PASSWORD_COMMAND="- pass\n- show")
    loaded = load_profile()
    assert loaded.profile.recipients == ["age1x", "age1y"]
    assert loaded["password_command"] == ["pass", "show"]


def test_a_path_may_have_bytes_that_are_no_text(setenv: Any, tmp_path: Path) -> None:
    path = os.fsdecode(b"/a/\xff")
    setenv(LOCAL_PATH=path)
    assert load_profile().profile.local_path == path


@pytest.mark.parametrize(
    ("variables", "destination", "is_unconfigured"),
    [
        ({}, "local", True),
        ({"REGION_NAME": "eu-west-1"}, "local", True),
        ({"LOCAL_PATH": "/a"}, "local", False),
        ({"GLACIER_VAULT": "v"}, "glacier", False),
        ({"GLACIER_VAULT": "v", "S3_BUCKET": "b"}, "s3", False),
        ({"S3_BUCKET": "b", "DEFAULT_DESTINATION": "local"}, "local", False),
    ],
)
def test_without_a_file_the_variables_say_the_destination(
    setenv: Any,
    config: Path,
    variables: dict[str, str],
    destination: str,
    is_unconfigured: bool,
) -> None:
    setenv(**variables)
    loaded = load_profile()
    assert loaded.profile.default_destination == destination
    assert loaded.is_unconfigured == is_unconfigured
    write(config, "default:\n")
    loaded = load_profile()
    assert loaded.profile.default_destination == variables.get("DEFAULT_DESTINATION", "s3")
    assert not loaded.is_unconfigured


def test_the_secrets_of_the_environment_are_not_in_the_repr(setenv: Any) -> None:
    setenv(SECRET_KEY=SECRET, WEBHOOK=f"{{url: {SECRET}}}")
    loaded = load_profile()
    assert loaded.profile.secret_key == SECRET
    assert SECRET not in repr(loaded) + repr(loaded.profile)


# Encryption: what a variable sets is used before what the file has.

FILE = "recipients: [age1x]\n  password: of-the-file"


@pytest.mark.parametrize(
    ("file", "variables", "passphrase", "recipients"),
    [
        (FILE, {}, None, ("age1x",)),
        (FILE, {"PASSWORD_FILE": "/pw"}, "of-the-variable", ()),
        (FILE, {"PASSWORD_COMMAND": "cat /pw"}, "of-the-variable", ()),
        (FILE, {"PASSWORD": "direct"}, "direct", ()),
        (FILE, {"RECIPIENTS": "age1y"}, None, ("age1y",)),
        ("password_file: /nowhere", {"PASSWORD_COMMAND": "cat /pw"}, "of-the-variable", ()),
        ("password_command: 'false'", {"PASSWORD_FILE": "/pw"}, "of-the-variable", ()),
        (FILE, {"PASSWORD_FILE": "/pw", "RECIPIENTS": "age1y"}, None, ("age1y",)),
    ],
)
def test_a_variable_decides_how_a_backup_is_encrypted(
    setenv: Any,
    config: Path,
    tmp_path: Path,
    file: str,
    variables: dict[str, str],
    passphrase: str | None,
    recipients: tuple[str, ...],
) -> None:
    write(config, f"default:\n  {file}\n")
    secret = write(tmp_path / "pw", "of-the-variable\n")
    setenv(**{name: value.replace("/pw", str(secret)) for name, value in variables.items()})
    keys = encryption_keys(load_profile().profile.as_mapping(), prompt=False)
    assert (keys.passphrase, keys.recipients) == (passphrase, recipients)


def test_a_variable_decides_what_opens_a_backup(setenv: Any, config: Path, tmp_path: Path) -> None:
    write(config, f"default:\n  {FILE}\n")
    setenv(RECIPIENTS="age1y")
    profile = load_profile().profile.as_mapping()
    assert decryption_passphrase(profile, prompt=False) == "of-the-file"
    setenv(PASSWORD_FILE=str(write(tmp_path / "pw", "of-the-variable")))
    profile = load_profile().profile.as_mapping()
    assert decryption_passphrase(profile, prompt=False) == "of-the-variable"


def test_every_path_is_one_in_the_environment() -> None:
    assert set(PATHS) - {"prometheus"} == {
        key for key, (text, _) in VALUES.items() if text.startswith(("/", "~"))
    }


# The command line.


def test_variables_are_the_defaults_of_c_and_p(user: CommandLine, tmp_path: Path) -> None:
    for name in ("one", "two"):
        path = write(tmp_path / f"{name}.yml", "")
        path.write_text(
            "\n".join(
                f"{profile}: {{default_destination: local, local_path: {name}-{profile}}}"
                for profile in ("default", "work")
            )
        )
    (tmp_path / "mydir").mkdir()
    (tmp_path / "mydir" / "a").write_text("hello")
    one = {"BAKTHAT_CONFIG": str(tmp_path / "one.yml")}
    work = {"BAKTHAT_PROFILE": "work"}
    backup = ("backup", "mydir", "--prompt", "no")
    for arguments, env, store in (
        ((), one, "one-default"),
        ((), {**one, **work}, "one-work"),
        (("-p", "default"), {**one, **work}, "one-default"),
        (("-c", str(tmp_path / "two.yml")), {**one, **work}, "two-work"),
    ):
        done = user.run(*backup, *arguments, env=env)
        assert done.code == 0, done.stderr
        assert f" in {tmp_path / store}" in done.stderr or f" {tmp_path / store}" in done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("CONFIG", "", "BAKTHAT_CONFIG is set, but empty"),
        ("CONFIG", "bakthat.yml", "BAKTHAT_CONFIG is a relative path"),
        ("CONFIG", "/nowhere.yml", "no such configuration file: '/nowhere.yml'"),
        ("PROFILE", "", "BAKTHAT_PROFILE is set, but empty"),
        ("PROFILE", "work", "there is no profile 'work'"),
    ],
)
def test_a_wrong_default_of_c_or_p_is_one_line(
    user: CommandLine, variable: str, value: str, message: str
) -> None:
    done = user.run("show", env={f"BAKTHAT_{variable}": value})
    assert done.code == 1
    assert f"bakthat: error: {message}" in done.stderr
    assert "bakthat: hint: " in done.stderr or variable == "CONFIG"
    assert done.stdout == ""


def test_a_backup_and_a_restore_by_the_environment_alone(user: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "mydir").mkdir()
    (tmp_path / "mydir" / "a").write_text("hello")
    secret = write(tmp_path / "pw", "correct horse\n")
    env = {
        "BAKTHAT_LOCAL_PATH": str(tmp_path / "store"),
        "BAKTHAT_DATABASE": str(tmp_path / "catalog.sqlite"),
        "BAKTHAT_PASSWORD_FILE": str(secret),
        "BAKTHAT_COMPRESS": "9",
        "BAKTHAT_HOST": "shop",
        "BAKTHAT_XYZ": "x",
    }
    made = user.run("backup", "mydir", env=env)
    assert made.code == 0, made.stderr
    assert made.stderr.count("bakthat: warning: unknown variable BAKTHAT_XYZ\n") == 1
    assert "No configuration" not in made.stderr
    (stored,) = (tmp_path / "store").glob("mydir.*.tgz.age")
    assert "shop" in user.run("show", env=env).stdout
    assert machine_name() not in user.run("show", env=env).stdout
    back = user.run("restore", stored.name, "-o", "out", env=env)
    assert back.code == 0, back.stderr
    assert (tmp_path / "out" / "mydir" / "a").read_text() == "hello"
    assert not (user.home / ".bakthat.sqlite").exists()


def test_the_example_of_a_rotation_is_shown_for_no_other_mapping(setenv: Any) -> None:
    setenv(WEBHOOK="text")
    assert error_of().hint == "write it as YAML, in braces"
