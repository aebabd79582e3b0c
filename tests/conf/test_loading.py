"""The configuration file: reading, checking and writing it."""

from __future__ import annotations

import os
import re
import stat
import traceback
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from bakthat.conf import PATHS, Profile, load_profile, read_raw_profile, save_profile
from bakthat.conf.profile import SECRET_COMMANDS, SECRET_FILES, SECRETS
from bakthat.errors import ConfigError

pytestmark = pytest.mark.permissions


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture
def config(isolated_environment: Path) -> Path:
    return isolated_environment / ".bakthat.yml"


def test_without_any_file_everything_stays_local() -> None:
    loaded = load_profile()
    assert loaded.is_unconfigured
    assert loaded.profile.default_destination == "local"


def test_a_profile_of_060_is_read_with_its_defaults(config: Path) -> None:
    write(
        config,
        "default:\n  access_key: AK\n  secret_key: SK\n  s3_bucket: bucket\n"
        "  glacier_vault: vault\n  rotation: {days: 7, first_week_day: 5, months: 6, weeks: 6}\n"
        "  plugins: [test_plugin.TestPlugin]\n",
    )
    profile = load_profile().profile
    assert (profile.access_key, profile.s3_bucket) == ("AK", "bucket")
    assert profile.default_destination == "s3"
    assert profile.region_name == "us-east-1"
    assert profile.rotation["first_week_day"] == 5
    assert profile.plugins == ["test_plugin.TestPlugin"]
    assert profile.compress is True


def test_the_secrets_are_not_in_the_repr(config: Path) -> None:
    write(config, "default: {secret_key: hidden-one, password: hidden-two}\n")
    loaded = load_profile()
    assert "hidden" not in repr(loaded) + repr(loaded.profile)


def test_a_flat_dict_wins_over_the_file(config: Path) -> None:
    write(config, "default: {s3_bucket: from-file}\n")
    assert load_profile(conf={"s3_bucket": "from-dict"}).profile.s3_bucket == "from-dict"


def test_a_single_recipient_may_be_text() -> None:
    assert load_profile(conf={"recipients": "age1x"}).profile.recipients == ["age1x"]


def test_a_key_without_a_value_has_its_default(config: Path) -> None:
    write(config, "default:\n  region_name:\n  s3_bucket: x\n")
    assert load_profile().profile.region_name == "us-east-1"


def test_another_profile_is_found_by_name(config: Path) -> None:
    write(config, "default: {s3_bucket: one}\nwork: {s3_bucket: two}\n")
    assert load_profile("work").profile.s3_bucket == "two"


def expect_error(profile: str = "default", **arguments: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_profile(profile, **arguments)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_configuration_file_that_was_named_must_exist(tmp_path: Path) -> None:
    assert "nowhere.yml" in str(expect_error(config=tmp_path / "nowhere.yml"))


def test_a_profile_that_was_named_needs_a_file() -> None:
    error = expect_error("work")
    assert "'work'" in str(error)
    assert "bakthat configure -p work" in error.hint


def test_the_hint_names_the_file_and_can_be_typed(tmp_path: Path) -> None:
    path = tmp_path / "my shop.yml"
    write(path, "default: {}\n")
    error = expect_error("a $b", config=path)
    assert error.hint == f"create it with: bakthat configure -p 'a $b' -c '{path}'"
    path.unlink()
    error = expect_error(config=path)
    assert error.hint == f"make it with: bakthat configure --config '{path}'"


def test_an_unknown_profile_is_named_with_the_known_ones(config: Path) -> None:
    write(config, "default: {}\nworks: {}\n")
    error = expect_error("work")
    assert "no profile 'work' (there are: default, works)" in str(error)
    assert error.hint == "did you mean works?"


def test_broken_yaml_is_named_with_file_and_line_and_without_its_text(config: Path) -> None:
    write(config, "default:\n  password: 'SECRET\n  s3_bucket: x\n")
    error = expect_error()
    assert f"{config}:" in str(error)
    assert "SECRET" not in str(error)


IN_QUOTES = "put the whole value in quotes"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("default:\n\ts3_bucket: x", ":2: a tab", "indent with spaces"),
        ("default:\n  password: @SECRET", ":2: a value that begins with @", IN_QUOTES),
        ("default:\n  password: '%SECRET", ":2: a quote that is not closed", "close it"),
        ("default:\n  password: *SECRET", ":2: a value that begins with *", IN_QUOTES),
        ("default:\n  password: !SECRET", ":2: a value that begins with !", IN_QUOTES),
        ("default:\n  password: SEC: RET", ":2: a colon within a value", IN_QUOTES),
        ("default:\n  password: !!bool SECRET", ":2: a value that is impossible", IN_QUOTES),
        ("default:\n  password: !!int SECRET", ":2: a value that is impossible", IN_QUOTES),
        ("default:\n  password: !!float SECRET", ":2: a value that is impossible", IN_QUOTES),
        ("default:\n  password: !!timestamp SECRET", ":2: a value that is impossible", IN_QUOTES),
        ("default:\n  password: !!int ''", ":2: a value that is impossible", IN_QUOTES),
        ("default:\n  password: 2013-13-01", ":2: a value that is impossible", IN_QUOTES),
        (f"default:\n  timeout: 1{':1' * 200}.5", ":2: a value that is impossible", IN_QUOTES),
        (f"default: {'[' * 9999}", "not valid YAML: nested too deeply", ""),
        ("default:\n  recipients: [a", ":2: a bracket that is not closed", "close it"),
        ("default:\n  prefix: {host}/", ":2: text after the end of a value", IN_QUOTES),
        ("default:\n  prefix: {host}", "'prefix' must be text, not a mapping", "in quotes"),
        ("default:\n  s3_bucket: x\nyes", ":4: a line without a colon", "as key: value"),
        (
            "default:\n  {s3_bucket: x, password:SECRET}",
            ":2: a colon without a space",
            "key: value",
        ),
        ("default: {webhook: {url:https://SECRET}}", ":1: a colon without a space", "key: value"),
        ("default:\n  webhook: &a {b: [*a]}", ":2: a value that contains itself", "the alias"),
        ("jobs: {a: {sources: [{path:SECRET}]}}", ":1: a colon without a space", "key: value"),
        ("default:\n  timeout: 3\n   attempts: 3", ":3: a colon within a value", IN_QUOTES),
        ("default:\n    timeout: 3\n  attempts: 3", ":3: a wrong indentation", "align the keys"),
        ("default:\n  s3_bucket x", "must hold keys, not text", "as key: value"),
        ("s3_bucket: x", "no profile 'default'", "begin with a line 'default:'"),
        ("", "no profile 'default'", "bakthat configure -p default"),
    ],
)
def test_a_mistake_in_the_file_is_named_without_its_text(
    config: Path, text: str, message: str, hint: str
) -> None:
    write(config, text + "\n")
    error = expect_error()
    assert message in str(error)
    assert hint in error.hint
    assert "SEC" not in "".join(traceback.format_exception(error))  # which --debug shows


@pytest.mark.parametrize("wrong", [b"\xff", b"\x01", "é\x01".encode()])
def test_a_character_that_yaml_does_not_have_is_named_with_its_line(
    config: Path, wrong: bytes
) -> None:
    config.write_bytes(b"default:\n  prefix: \xc3\xa9\n  s3_bucket: " + wrong + b"\n")
    assert str(expect_error()).startswith(f"{config}:3: not valid YAML: ")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_encoding_of_yaml_is_read_and_its_errors_have_their_line(
    config: Path, encoding: str
) -> None:
    config.write_bytes("default:\n  prefix: é\n".encode(encoding))
    assert load_profile().profile.prefix == "é"
    config.write_bytes("default:\n  prefix: é\n  s3_bucket: \x01\n".encode(encoding))
    assert str(expect_error()).startswith(f"{config}:3: not valid YAML: ")
    lone_surrogate = b"\x00\xd8" if encoding == "utf-16" else b"\xff"
    for third_line in ("  s3_bucket: ", ""):
        text = f"default:\n  prefix: é\n{third_line}"
        config.write_bytes(text.encode(encoding) + lone_surrogate)
        assert str(expect_error()).startswith(f"{config}:3: not valid YAML: ")


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text\n", "42\n"])
def test_a_file_without_profiles_is_refused(config: Path, text: str) -> None:
    write(config, text)
    error = expect_error()
    assert "must hold profiles by name" in str(error)
    assert "default:" in error.hint


def test_a_profile_that_is_no_mapping_is_refused(config: Path) -> None:
    write(config, "default: [a]\n")
    assert "profile 'default' must hold keys, not a list" in str(expect_error())
    with pytest.raises(ConfigError, match=r"^conf: profile 'default' must hold keys"):
        load_profile(conf=["a"])  # type: ignore[arg-type]  # that is the test


def test_an_unknown_key_is_named_with_the_nearest(config: Path) -> None:
    write(config, "default: {s3_buckt: x}\n")
    error = expect_error()
    assert str(config) in str(error)
    assert "profile 'default': unknown key 's3_buckt'" in str(error)
    assert error.hint == "did you mean s3_bucket?"


def test_an_unknown_key_like_no_other_is_an_error_that_names_plugin_settings() -> None:
    assert expect_error(conf={"zzz": 1}).hint == (
        "settings of your own plugins go below plugin_settings"
    )
    assert load_profile(conf={"plugin_settings": {"zzz": 1}}).mapping["plugin_settings"]["zzz"] == 1


def test_the_addresses_of_notifications_are_not_in_the_repr() -> None:
    settings = {"url": "https://hc-ping.com/hidden"}
    loaded = load_profile(conf={"healthchecks": settings, "webhook": settings})
    assert "hidden" not in repr(loaded)


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"s3_bucket": ["a"]}, "'s3_bucket' must be text, not a list"),
        ({"s3_bucket": ""}, "'s3_bucket' is empty"),
        ({"password": 12345}, "'password' must be text, not a number"),
        ({"default_destination": "tape"}, "must be one of s3, glacier, local, not 'tape'"),
        ({"compress": "yes"}, "'compress' must be true, false or a level from 0 to 9, not 'yes'"),
        ({"compress": 10}, "'compress' must be true, false or a level from 0 to 9, not 10"),
        ({"recipients": [1]}, "'recipients' entry 1 must be text, not a number"),
        ({"rotation": [7]}, "'rotation' must be a mapping"),
        ({"plugins": "a.B"}, "'plugins' must be a list, not text"),
        ({"plugin_settings": "x"}, "'plugin_settings' must be a mapping of settings, not text"),
        ({"healthchecks": "https://hc-ping.com/x"}, "'healthchecks' must be a mapping of settings"),
        ({"prefix": "../x"}, "'prefix' holds '..'"),
        ({"prefix": "/x"}, "'prefix' begins with a slash"),
        ({"prefix": "a//b"}, "'prefix' holds two slashes in a row"),
        ({"prefix": "a\nb"}, "'prefix' holds a control character"),
        ({"timeout": 0}, "'timeout' must be more than 0 and at most 86400 seconds, not 0"),
        ({"timeout": float("nan")}, "'timeout' must be more than 0"),
        ({"timeout": True}, "'timeout' must be a number of seconds"),
        ({"attempts": 0}, "'attempts' must be a whole number from 1 to 100, not 0"),
        ({"attempts": 1.5}, "'attempts' must be a whole number from 1 to 100, not 1.5"),
        ({"bandwidth": "5M"}, "'bandwidth' is no bandwidth"),
        ({"bandwidth": "9kB/s"}, "'bandwidth' is too low: it must be at least 10kB/s"),
        ({"bandwidth": 500_000}, "'bandwidth' must be text, not a number"),
        ({"local_path": "a\0b"}, "'local_path' holds a NUL character"),
        ({"access_key": "AKIA "}, "'access_key' holds white space"),
        ({"s3_bucket": "s3://bucket/path"}, "'s3_bucket' holds a slash"),
        ({"endpoint_url": "localhost:9000"}, "'endpoint_url' must begin with https:// or http://"),
        ({"endpoint_url": "https://"}, "'endpoint_url' has no valid host and port"),
        ({"endpoint_url": "http://h:port"}, "'endpoint_url' has no valid host and port"),
        ({"storage_class": "standard_ia"}, "'storage_class' must be in upper case"),
        ({"object_lock": {"mode": "strict", "days": 3}}, "has a mode that is not one of"),
        ({"object_lock": {"mode": "governance", "days": 0}}, "has days that are neither"),
        ({"sse": "KMS"}, "'sse' must be one of AES256, aws:kms, aws:kms:dsse"),
        ({"sse": "SSE-C"}, "'sse' cannot be SSE-C"),
        ({"sse_customer_key": "SECRET"}, "'sse_customer_key': there is no SSE-C"),
        ({"expected_bucket_owner": 123456789012}, "must be the 12 digits of an account, as text"),
        ({"expected_bucket_owner": "1234"}, "must be the 12 digits of an account, as text"),
        ({"expected_bucket_owner": "١٢٣٤٥٦٧٨٩٠١٢"}, "must be the 12 digits of an account"),
        ({"role_arn": "backup"}, "'role_arn' is not the ARN of a role"),
        ({"role_arn": "arn:aws:iam::123456789012:user/a"}, "'role_arn' is not the ARN of a role"),
        ({"role_arn": "arn:aws:sts::1:assumed-role/a/b"}, "'role_arn' is not the ARN of a role"),
        ({"role_arn": "arn:a:role/b"}, "'role_arn' is not the ARN of a role"),
        ({1: "x"}, "unknown key '1'"),
        ({"password=SECRET": "x"}, "unknown key 'password…'"),
    ],
)
def test_a_wrong_type_is_one_line_with_the_key(conf: dict[Any, Any], message: str) -> None:
    error = expect_error(conf=conf)
    assert "conf: profile 'default'" in str(error)
    assert message in str(error)


@pytest.mark.parametrize(
    ("conf", "hint"),
    [
        ({"password": 12345}, "put the value in quotes"),
        ({"access_key": ""}, "give it a value, or remove the line"),
        ({"recipients": [""]}, "give it a value, or remove it"),
        ({"bandwidth": "8Mbit/s"}, "write it like 5MiB/s or 500kB/s, with one of kB, KiB, MB, "),
        ({"bandwidth": 5}, "write it like 5MiB/s"),
        ({"timeout": "60"}, "write it without quotes and units, such as 60"),
        ({"compress": "6"}, "write it without quotes"),
        ({"default_destination": "S3"}, "did you mean s3?"),
        ({"s3_bucket": "s3://bucket/path"}, "for a path within it, set prefix"),
        ({"storage_class": "glacier_ir"}, "write GLACIER_IR"),
        ({"endpoint_url": "localhost:9000"}, "http://localhost:9000 for a storage without TLS"),
        ({"glacier_endpoint_url": "s3.example.com"}, "write https://s3.example.com, or"),
        ({"plugins": "a.B"}, "after a dash"),
        ({"sse": "aes256"}, "did you mean AES256?"),
        ({"sse": "SSE-KMS"}, "did you mean aws:kms?"),
        ({"sse": "on"}, "for SSE-KMS aws:kms"),
        ({"sse": "sse-c"}, "bakthat encrypts before it uploads"),
        ({"sse_customer_key": "SECRET"}, "bakthat encrypts before it uploads"),
        ({"expected_bucket_owner": 123456789012}, "write it in quotes"),
        ({"expected_bucket_owner": "1234-5678-9012"}, "write it without hyphens"),
        ({"role_arn": "backup"}, "write it like arn:aws:iam::123456789012:role/backup"),
    ],
)
def test_a_wrong_value_has_a_hint_that_says_what_to_write(conf: dict[str, Any], hint: str) -> None:
    assert hint in expect_error(conf=conf).hint


def message_about(conf: dict[str, Any]) -> str:
    """Return the message and the hint of a wrong setting; "" when it is accepted."""
    try:
        load_profile(conf=conf)
    except ConfigError as error:
        return f"{error} ({error.hint})"
    return ""


@pytest.mark.parametrize("key", [key.name for key in fields(Profile)])
@pytest.mark.parametrize("value", ["", "a\0b", "/ /", 0, -1, 1.5, True, [], [0], [""], {}, {0: 0}])
def test_no_message_about_a_wrong_value_contradicts_itself(key: str, value: Any) -> None:
    message = message_about({key: value})
    assert not message or f"'{key}' " in message
    stated = re.search(r"must be (.+), not (.+) \(", message)
    assert stated is None or not stated[1].startswith(stated[2])


@pytest.mark.parametrize("key", sorted({key.name for key in fields(Profile)} - PATHS.keys()))
@pytest.mark.parametrize("secret", ["wJalrXUtnFEMI/K7MDENG", "hidden secret", "hidden\0"])
def test_a_secret_below_the_wrong_key_is_not_repeated(key: str, secret: str) -> None:
    shows_words = key in ("default_destination", "compress")  # one of a few, or a mistyped one
    assert shows_words or secret not in message_about({key: secret})


def test_the_value_of_a_wrong_secret_is_not_repeated() -> None:
    assert "31337" not in str(expect_error(conf={"secret_key": 31337}))


def test_a_file_that_others_can_read_is_warned_of(
    config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(config, "default: {}\n").chmod(0o644)
    load_profile()
    assert f"chmod 600 {config}" in caplog.text


def test_a_key_that_occurs_twice_is_refused(config: Path) -> None:
    write(config, "default: {s3_bucket: a}\ndefault: {s3_bucket: b}\n")
    assert f"{config}:2: a key that occurs twice" in str(expect_error())


def test_a_key_with_a_colon_may_have_an_empty_value(config: Path) -> None:
    write(config, "default: {plugin_settings: {a:b: '', c:d: [], e:f: {}}}\n")
    expected = {"a:b": "", "c:d": [], "e:f": {}}
    assert load_profile().mapping["plugin_settings"] == expected


def test_a_profile_may_be_named_by_a_number(config: Path) -> None:
    write(config, "1: {s3_bucket: a}\n")
    assert load_profile("1").profile.s3_bucket == "a"


def test_an_unreadable_file_is_an_error(config: Path) -> None:
    config.mkdir()
    assert f"cannot read {config}" in str(expect_error())


def test_saving_keeps_other_profiles_and_keys(config: Path) -> None:
    write(config, "default: {s3_bucket: old, prefix: p/, password: ä}\nwork: {s3_bucket: other}\n")
    save_profile({"s3_bucket": "new", "password": None, "region_name": "eu-west-1"})
    assert yaml.safe_load(config.read_text()) == {
        "default": {"s3_bucket": "new", "prefix": "p/", "region_name": "eu-west-1"},
        "work": {"s3_bucket": "other"},
    }


def test_a_saved_file_is_private_and_leaves_no_temporary_file(config: Path) -> None:
    save_profile({"secret_key": "x"}, name="work")
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert os.listdir(config.parent) == [config.name]
    assert read_raw_profile("work") == {"secret_key": "x"}


def test_a_linked_configuration_stays_a_link(config: Path, tmp_path: Path) -> None:
    target = write(tmp_path / "dotfiles.yml", "default: {s3_bucket: old}\n")
    config.symlink_to(target)
    save_profile({"s3_bucket": "new"})
    assert config.is_symlink()
    assert yaml.safe_load(target.read_text())["default"]["s3_bucket"] == "new"


def test_a_wrong_value_is_not_saved(config: Path) -> None:
    write(config, "default: {s3_bucket: old}\n")
    with pytest.raises(ConfigError, match="default_destination"):
        save_profile({"default_destination": "tape"})
    assert config.read_text() == "default: {s3_bucket: old}\n"


def test_a_failed_write_leaves_the_old_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(config, "default: {s3_bucket: old}\n")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="no space left"):
        save_profile({"s3_bucket": "new"})
    assert config.read_text() == "default: {s3_bucket: old}\n"
    assert os.listdir(config.parent) == [config.name]


def test_every_key_of_a_profile_can_be_given_as_conf() -> None:
    given = {key: value for key, value in Profile().as_mapping().items() if value}
    assert load_profile(conf=given).profile == Profile()


# Paths.

PATH_KEYS = [
    *("local_path", "identity_file", "plugins_dir", "database", "textfile"),
    *(f"{key}_file" for key in SECRETS),
]
NO_PATHS = {
    *("access_key", "secret_key", "region_name", "s3_bucket", "glacier_vault", "endpoint_url"),
    *("glacier_endpoint_url", "default_destination", "storage_class", "timeout", "attempts"),
    *("object_lock", "versions", "bandwidth"),
    *("role_arn", "expected_bucket_owner", "sse", "sse_kms_key_id"),
    *("host", "prefix", "compress", "password", "recipients", "rotation"),
    *("incremental", "full_every", "max_archives", "detect", "ignore_inode", "always_read"),
    *("recheck", "skip_unchanged", "plugins", "database_password"),
    *("healthchecks", "uptime_kuma", "webhook", "apprise", "plugin_settings"),
    *(f"{key}_command" for key in SECRETS),
}


def with_path(key: str, path: str) -> dict[str, Any]:
    return {"prometheus": {"textfile": path}} if key == "textfile" else {key: path}


def path_in(profile: Mapping[str, Any], key: str) -> str:
    return str(profile["prometheus"][key] if key == "textfile" else profile[key])


def test_every_key_is_listed_as_a_path_or_not() -> None:
    # A new key that is a path belongs into conf.PATHS, any other into NO_PATHS.
    assert set(PATHS) | NO_PATHS == set(Profile().as_mapping())
    assert not set(PATHS) & NO_PATHS
    assert sorted(setting or key for key, setting in PATHS.items()) == sorted(PATH_KEYS)


@pytest.mark.parametrize("named", ["absolute", "relative", "default"])
@pytest.mark.parametrize("key", PATH_KEYS)
def test_a_relative_path_is_relative_to_the_directory_of_the_file(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, named: str
) -> None:
    write(config, yaml.safe_dump({"default": with_path(key, "some/../place")}))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    names = {"absolute": str(config), "relative": os.path.relpath(config), "default": None}
    loaded = load_profile(config=names[named])
    monkeypatch.chdir(tmp_path)
    expected = str(config.parent / "place")
    assert path_in(loaded.profile.as_mapping(), key) == expected
    assert path_in(loaded.mapping, key) == expected  # plugins have this one


@pytest.mark.parametrize("path", ["/some/where", "~/some/where", "~"])
@pytest.mark.parametrize("key", PATH_KEYS)
def test_an_absolute_path_stays_as_it_is(config: Path, key: str, path: str) -> None:
    write(config, yaml.safe_dump({"default": with_path(key, path)}))
    for loaded in (load_profile(), load_profile(conf=with_path(key, path))):
        assert path_in(loaded.profile.as_mapping(), key) == path
        assert path_in(loaded.mapping, key) == path


@pytest.mark.parametrize("path", ["place", "./place", "../place", "."])
@pytest.mark.parametrize("key", PATH_KEYS)
def test_a_relative_path_without_a_file_is_refused(key: str, path: str) -> None:
    error = expect_error(conf=with_path(key, path))
    assert str(error).startswith(f"conf: profile 'default': '{key}' ")
    assert f"is the relative path '{path}'; only a configuration file on disk may" in str(error)
    assert error.hint == "use an absolute path, or one that begins with ~/"


def test_a_relative_path_from_a_pipe_is_refused(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"default: {local_path: store}\n")
    os.close(theirs)
    try:
        assert "'local_path' is the relative path" in str(expect_error(config=f"/dev/fd/{ours}"))
    finally:
        os.close(ours)
    with write(tmp_path / "file.yml", "default: {local_path: store}\n").open() as stream:
        assert "relative path" in str(expect_error(config=f"/dev/fd/{stream.fileno()}"))


def test_a_relative_path_in_a_linked_file_is_relative_to_the_link(
    config: Path, tmp_path: Path
) -> None:
    config.symlink_to(write(tmp_path / "dotfiles.yml", "default: {local_path: store}\n"))
    assert load_profile().profile.local_path == str(config.parent / "store")


def test_the_absolute_path_of_a_relative_one_is_logged(
    config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(config, "default: {local_path: store}\n")
    with caplog.at_level("INFO", "bakthat"):
        load_profile()
        assert caplog.messages == []
        save_profile({"local_path": "another"})
    message = f"profile 'default': 'local_path' is {config.parent / 'another'}"
    assert caplog.messages == [f"{config}: {message}"]
    assert read_raw_profile() == {"local_path": "another"}  # the file keeps what was written
    with caplog.at_level("DEBUG", "bakthat"):
        load_profile()
    assert caplog.messages == [f"{config}: {message}", f"{config}:1: {message}"]


def test_a_new_file_behind_a_link_may_hold_a_relative_path(config: Path, tmp_path: Path) -> None:
    config.symlink_to(tmp_path / "dotfiles.yml")
    save_profile({"local_path": "store"})
    assert load_profile().profile.local_path == str(config.parent / "store")


@pytest.mark.parametrize("key", ["password", "recipients", *SECRET_FILES, *SECRET_COMMANDS])
@pytest.mark.parametrize("value", ["", "[]", "~"])
def test_a_key_of_encryption_or_of_a_secret_without_a_value_is_an_error(
    key: str, value: str, tmp_path: Path
) -> None:
    path = tmp_path / "bakthat.yml"
    path.write_text(f"default:\n  {key}: {value}\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=f"'{key}' has no value"):
        load_profile(config=path)


def test_a_defaulted_profile_is_a_valid_conf() -> None:
    profile = load_profile(conf={"password": None}).profile
    assert load_profile(conf=profile.as_mapping()).profile == profile
