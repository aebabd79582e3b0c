"""Secrets: every key that may hold one, every way to give it, and all that goes wrong.

The tables are made from :data:`SECRETS`, so that a new secret key is covered by itself.
"""

from __future__ import annotations

import os
import shlex
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from bakthat.conf import KEYS, PATHS, LoadedProfile, load_profile
from bakthat.conf.profile import SECRETS
from bakthat.conf.secrets import read_secret
from bakthat.errors import BakthatError, ConfigError
from bakthat.passwords import (
    database_password,
    decryption_passphrase,
    encryption_keys,
)

SECRET = "wJalrXUtnFEMI"
WAYS = ("variable", "variable of a file", "credential", "value", "file", "command")
"""In their order."""


def text_of(key: str, number: int = 1) -> str:
    """Return a text that a file or a variable may hold for a key."""
    secret = f"{SECRET}{number}"
    if KEYS[key].check.schema["type"] == "object":
        return f"token: {secret}\nmore: [1, two]"
    return f"/catalogs/{secret}" if key in PATHS else secret


def value_of(key: str, number: int = 1) -> Any:
    text = text_of(key, number)
    return yaml.safe_load(text) if KEYS[key].check.schema["type"] == "object" else text


def read(key: str, loaded: LoadedProfile | None = None, timeout: float | None = None) -> Any:
    """Read a secret as what needs it does."""
    loaded = loaded or load_profile()
    if key == "password":
        encryption_keys(loaded.profile.as_mapping(), prompt=False, timeout=timeout)
        return decryption_passphrase(loaded.profile.as_mapping(), prompt=False)
    if key == "database_password" and timeout is None:
        return database_password(loaded.profile.as_mapping())
    return read_secret(loaded, key, timeout=timeout)


class World:
    """A user's home, in which secrets are given."""

    def __init__(self, home: Path, patch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.credentials = home / "credentials"
        self.profile: dict[str, Any] = {}
        self._patch = patch

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.home / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(0o600)
        return path

    def setenv(self, name: str, value: str | Path) -> None:
        self._patch.setenv(name, str(value))

    def credential(self, name: str, content: str | bytes) -> None:
        self.setenv("CREDENTIALS_DIRECTORY", self.credentials)
        self.file(f"credentials/{name}", content)

    def set(self, **keys: Any) -> None:
        """Set keys in the profile of the file."""
        self.profile |= keys
        self.file(".bakthat.yml", yaml.safe_dump({"default": self.profile}))

    def give(self, key: str, way: str, number: int) -> None:
        """Give the secret *key* in one of the ways; the number tells it from others."""
        text, ways = text_of(key, number), SECRETS[key]
        match way:
            case "variable":
                self.setenv(f"BAKTHAT_{key.upper()}", text)
            case "variable of a file":
                path = self.file(f"secret-{number}", f"{text}\n")
                self.setenv(f"BAKTHAT_{key.upper()}_FILE", path)
            case "credential":
                self.credential(f"bakthat.{key}", f"{text}\n")
            case "value":
                self.set(**{ways.value: value_of(key, number)})
            case "file":
                self.file(f"secret-{number}", f"{text}\n")
                self.set(**{ways.file: f"secret-{number}"})  # relative to the file's directory
            case _:
                path = self.file(f"secret-{number}", f"{text}\n")
                self.set(**{ways.command: ["cat", str(path)]})

    def break_it(self, key: str, way: str) -> None:
        """Give the secret in one of the ways, so that reading it fails."""
        ways = SECRETS[key]
        match way:
            case "variable of a file":
                self.setenv(f"BAKTHAT_{key.upper()}_FILE", "/nowhere")
            case "credential":
                self.credential(f"bakthat.{key}", "")
            case "file":
                self.set(**{ways.file: "nowhere"})
            case "command":
                self.set(**{ways.command: "false"})
            case _:
                self.give(key, way, 99)


@pytest.fixture
def world(isolated_environment: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(isolated_environment, monkeypatch)


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it came from, also where a traceback does not show it."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def error_of(key: str, caplog: pytest.LogCaptureFixture, timeout: float | None = None) -> Any:
    """Return the error of reading a secret, in nothing of which the secret is."""
    caplog.set_level("DEBUG")
    loaded = load_profile()
    with pytest.raises(BakthatError) as caught:
        read(key, loaded, timeout)
    error = caught.value
    assert "\n" not in str(error)
    shown = "".join(traceback.format_exception(error)) + error.hint + caplog.text + repr(loaded)
    for each in chain_of(error):
        shown += repr(each) + repr(vars(each)) + repr(each.args)
    assert SECRET not in shown
    return error


# Ways to give one.


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("key", SECRETS)
def test_each_secret_can_be_given_in_each_way(world: World, key: str, way: str) -> None:
    world.give(key, way, 1)
    if key == "password" and way == "variable":
        assert decryption_passphrase({}, prompt=False) == text_of(key)
        return
    loaded = load_profile()
    assert read(key, loaded) == value_of(key)
    given = {each for each in SECRETS[key] if each in loaded}
    wanted = {"variable": 0, "value": 0, "command": 2}.get(way, 1)
    assert given == {SECRETS[key][wanted]}
    assert SECRET not in repr(loaded) + repr(loaded.profile)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (first, second)
        for number, first in enumerate(WAYS)
        for second in WAYS[number + 1 :]
        if (first, second) != ("variable", "variable of a file")  # which is an error
    ],
)
@pytest.mark.parametrize("key", SECRETS)
def test_of_two_ways_the_first_is_used_and_the_other_not_even_read(
    world: World, key: str, first: str, second: str
) -> None:
    world.break_it(key, second)
    world.give(key, first, 1)
    if (key, first) == ("password", "variable"):
        keys = encryption_keys(load_profile().profile.as_mapping(), prompt=False)
        assert keys.passphrase == text_of(key)
    else:
        assert read(key) == value_of(key)


@pytest.mark.parametrize("way", WAYS[:3])
@pytest.mark.parametrize("key", SECRETS)
def test_the_environment_replaces_all_that_the_file_has_of_a_secret(
    world: World, key: str, way: str
) -> None:
    for each in ("value", "file", "command"):
        world.give(key, each, 2)
    world.give(key, way, 1)
    given = set(SECRETS[key]) & set(load_profile())
    if (key, way) == ("password", "variable"):  # no key of a profile
        assert given == set(SECRETS[key])
    else:
        assert given == {SECRETS[key].value if way == "variable" else SECRETS[key].file}


@pytest.mark.parametrize("key", SECRETS)
def test_without_a_way_a_secret_has_its_default(key: str) -> None:
    loaded = load_profile()
    if key != "password":
        assert read(key, loaded) == KEYS[key].default
        assert read_secret(loaded, key) is not KEYS[key].default or not isinstance(
            KEYS[key].default, dict
        )


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("way", ["file", "command"])
@pytest.mark.parametrize("key", SECRETS)
def test_line_ends_at_the_end_are_no_part_of_a_secret(
    world: World, key: str, way: str, end: str
) -> None:
    world.give(key, way, 1)
    world.file("secret-1", f"{text_of(key)}{end}")
    assert read(key) == value_of(key)


def test_a_key_that_says_where_a_secret_is_has_a_variable_itself(world: World) -> None:
    world.set(secret_key_file="nowhere")
    world.setenv("BAKTHAT_SECRET_KEY_COMMAND", f"echo {SECRET}")
    loaded = load_profile()
    assert read("secret_key", loaded) == SECRET
    assert loaded.place("secret_key_command") == "BAKTHAT_SECRET_KEY_COMMAND"


# When it is read.


@pytest.mark.parametrize("key", SECRETS)
def test_a_secret_is_not_read_before_it_is_needed(world: World, key: str) -> None:
    ran = world.home / "ran"
    world.set(**{SECRETS[key].command: ["sh", "-c", f"touch {ran}; echo /a"]})
    load_profile()
    assert not ran.exists()


@pytest.mark.parametrize("key", SECRETS)
def test_a_program_runs_once_in_a_process(world: World, key: str) -> None:
    runs = world.home / "runs"
    script = f"echo >> {runs}; cat {world.file('secret-1', text_of(key))}"
    world.set(**{SECRETS[key].command: ["sh", "-c", script]})
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: read(key), range(8)))
    assert found == [value_of(key)] * 8
    assert runs.read_text() == "\n"


def test_a_program_that_failed_runs_again(world: World) -> None:
    world.set(secret_key_command=["cat", str(world.home / "later")])
    with pytest.raises(ConfigError):
        read("secret_key")
    world.file("later", SECRET)
    assert read("secret_key") == SECRET


def test_a_file_is_read_again(world: World) -> None:
    world.set(secret_key_file=str(world.file("secret", "old")))
    loaded = load_profile()
    assert read("secret_key", loaded) == "old"
    world.file("secret", "new")
    assert read("secret_key", loaded) == "new"


def test_a_settings_mapping_of_its_own_is_returned_each_time(world: World) -> None:
    world.set(webhook_command=["echo", "{a: 1}"])
    loaded = load_profile()
    read("webhook", loaded)["a"] = 2
    assert read("webhook", loaded) == {"a": 1}


# What goes wrong.

CONTENTS = {
    b"": "is empty",
    b"\n": "is empty",
    b"\r\n\n": "is empty",
    f"{SECRET}\0\n".encode(): "NUL character|a control character|not valid YAML",
    f"{SECRET}: \xff".encode("latin-1"): "is not UTF-8 text",
    f"\ufeff{SECRET}\n".encode(): "holds a byte order mark",
    f"{SECRET}\n".encode("utf-16"): "is not UTF-8 text",
}


def assert_is_one_of(message: str, endings: str) -> None:
    assert any(each in message for each in endings.split("|")), message


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("way", ["variable of a file", "credential", "file"])
@pytest.mark.parametrize("key", SECRETS)
def test_a_file_that_gives_no_secret_is_named(
    world: World, key: str, way: str, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    world.give(key, way, 1)
    path = world.file(f"credentials/bakthat.{key}" if way == "credential" else "secret-1", content)
    error = error_of(key, caplog)
    assert_is_one_of(str(error), CONTENTS[content])
    assert f"the {key.replace('_', ' ')} file '{path}'" in str(error)
    assert error.hint


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("key", SECRETS)
def test_a_program_that_prints_no_secret_is_named_by_its_key(
    world: World, key: str, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    world.give(key, "command", 1)
    world.file("secret-1", content)
    error = error_of(key, caplog)
    assert_is_one_of(str(error), CONTENTS[content])
    assert f"the output of {key}_command" in str(error)
    assert error.hint


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere", "no such file or directory"),
        ("", "is a directory"),
        ("/proc/self/mem", "input/output error"),  # what even root cannot read
        ("secret-1/below", "not a directory"),
        ("/dev/zero", "file too large"),
    ],
)
@pytest.mark.parametrize("key", SECRETS)
def test_a_file_that_cannot_be_read_is_named(
    world: World, key: str, name: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.give(key, "file", 1)
    path = world.home / name
    world.set(**{SECRETS[key].file: str(path)})
    error = error_of(key, caplog)
    what = f"the {key.replace('_', ' ')} file"
    assert str(error) == f"cannot read {what} '{path}': {reason}"
    assert error.hint == "check the name and that this user may read it"


@pytest.mark.permissions
@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
@pytest.mark.parametrize("key", SECRETS)
def test_a_file_that_may_not_be_read_is_named(
    world: World, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.give(key, "file", 1)
    (world.home / "secret-1").chmod(0)
    assert "permission denied" in str(error_of(key, caplog))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["sh", "-c", f"echo {SECRET}; exit 3"], "{} failed with status 3"),
        (["sh", "-c", f"echo {SECRET}; kill -9 $$"], "{} was ended by signal 9"),
        (["sh", "-c", f"echo {SECRET}; sleep 60"], "{} did not end within 0.2 seconds"),
        ("no-such-program-of-bakthat", "cannot run 'no-such-program-of-bakthat' for {}: no such"),
        (f"pass {SECRET} | head", "{} runs without a shell, and holds what only a shell"),
        (f"pass '{SECRET}", "{} cannot be read: no closing quotation"),
        (" ", "{} is empty"),
    ],
)
@pytest.mark.parametrize("key", SECRETS)
def test_a_program_that_fails_is_named_by_its_key(
    world: World,
    key: str,
    command: str | list[str],
    message: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    world.set(**{SECRETS[key].command: command})
    error = error_of(key, caplog, timeout=0.2)
    assert str(error).startswith(message.format(f"{key}_command"))
    assert error.hint


@pytest.mark.parametrize("timeout", [None, 60])
def test_a_program_that_prints_without_end_is_ended(
    world: World, timeout: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    world.set(secret_key_command=["yes", SECRET])
    error = error_of("secret_key", caplog, timeout)
    assert str(error) == "the output of secret_key_command is too large"
    assert error.hint == "let it print the secret alone"


@pytest.mark.parametrize("way", ["variable of a file", "file", "command"])
@pytest.mark.parametrize(
    ("key", "text", "problem"),
    [
        ("secret_key", f"{SECRET} x", " holds white space or a control character"),
        ("secret_key", f"{SECRET}\nx", " holds white space or a control character"),
        ("webhook", SECRET, " must be a mapping of settings, not text"),
        ("webhook", "# only a comment", " must be a mapping of settings, not nothing"),
        ("webhook", f"url: {SECRET}\n- x", ", line 2: text after the end of a value"),
        ("webhook", f"a: {SECRET}\na: {SECRET}", ", line 2: a key that occurs twice"),
        ("webhook", f"a: '{SECRET}", ": a quote that is not closed"),
        ("database", SECRET, " is a relative path"),
        ("database", f"~no-such-user/{SECRET}", ": there is no such home directory"),
        (
            "database",
            f"postgresql://me:{SECRET} x@db/bakthat",
            " is no valid address: an address has no white space and no control character",
        ),
    ],
)
def test_a_value_that_is_not_valid_is_named_without_its_text(
    world: World,
    key: str,
    way: str,
    text: str,
    problem: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    world.give(key, way, 1)
    path = world.file("secret-1", text)
    error = error_of(key, caplog)
    origin = "the output of {}_command" if way == "command" else "the {} file '{}'"
    start = origin.format(key if way == "command" else key.replace("_", " "), path)
    assert str(error) == f"{'the location in ' if key == 'database' else ''}{start}{problem}"
    assert error.hint


@pytest.mark.parametrize("key", SECRETS)
def test_a_program_cannot_have_an_argument_with_a_nul(
    world: World, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.set(**{SECRETS[key].command: ["echo", "a"]})
    loaded = load_profile()
    with pytest.raises(ConfigError, match=f"cannot run {key}_command: ") as caught:
        read_secret({**loaded, SECRETS[key].command: ["echo", f"{SECRET}\0"]}, key)
    assert SECRET not in str(caught.value) + caught.value.hint + caplog.text


def test_what_bakthat_reads_is_not_given_to_a_program(world: World) -> None:
    world.file("input", "the stream of bakthat backup -")
    standard_input = os.dup(0)
    try:
        with (world.home / "input").open("rb") as file:
            os.dup2(file.fileno(), 0)
            world.set(secret_key_command=["sh", "-c", f"cat; echo {SECRET}"])
            assert read("secret_key") == SECRET
            assert file.read() == b"the stream of bakthat backup -"
    finally:
        os.dup2(standard_input, 0)
        os.close(standard_input)


def test_an_empty_secret_says_how_to_store_unencrypted_only_of_the_password(world: World) -> None:
    world.set(password_command="true", secret_key_command="true")
    with pytest.raises(ConfigError) as caught:
        read("password")
    assert caught.value.hint == "to store unencrypted, set password: '' in the profile"
    with pytest.raises(ConfigError) as caught:
        read("secret_key")
    assert caught.value.hint == "let it give the value of secret_key, or remove its line"


# The credentials of systemd.


def test_a_credential_that_means_nothing_is_a_warning(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("bakthat.secret_kee", "bakthat.PASSWORD", "bakthat.zzz", "other.password"):
        world.credential(name, SECRET)
    world.credential("bakthat.s3_bucket", "b")
    loaded = load_profile()
    assert caplog.messages == [
        "unknown credential bakthat.PASSWORD; did you mean bakthat.password?",
        "unknown credential bakthat.s3_bucket",
        "unknown credential bakthat.secret_kee; did you mean bakthat.secret_key?",
        "unknown credential bakthat.zzz",
    ]
    assert not set(loaded) - {"default_destination"}


@pytest.mark.parametrize(
    ("directory", "message"),
    [
        (
            "/nowhere",
            "cannot read the directory of credentials '/nowhere': no such file or directory",
        ),
        ("/etc/passwd", "cannot read the directory of credentials '/etc/passwd': not a directory"),
        ("credentials", "CREDENTIALS_DIRECTORY is a relative path"),
    ],
)
def test_a_directory_of_credentials_that_cannot_be_read_is_an_error(
    world: World, directory: str, message: str
) -> None:
    world.setenv("CREDENTIALS_DIRECTORY", directory)
    with pytest.raises(ConfigError) as caught:
        load_profile()
    assert message in str(caught.value)
    assert caught.value.hint


def test_an_empty_variable_of_the_directory_counts_as_none(world: World) -> None:
    world.setenv("CREDENTIALS_DIRECTORY", "")
    assert read("secret_key") is None


def test_conf_is_the_whole_profile_also_besides_credentials(world: World) -> None:
    world.credential("bakthat.secret_key", SECRET)
    assert read("secret_key", load_profile(conf={"prefix": "a"})) is None


def test_a_credential_does_not_replace_recipients_but_an_unencrypted_profile(world: World) -> None:
    world.credential("bakthat.password", "of-the-unit\n")
    world.set(recipients="age1x", password="of-the-file")
    profile = load_profile().profile.as_mapping()
    assert encryption_keys(profile).recipients == ("age1x",)
    assert decryption_passphrase(profile) == "of-the-unit"
    world.profile.clear()
    world.set(password="")
    assert encryption_keys(load_profile().profile.as_mapping()).passphrase == "of-the-unit"
    world.setenv("BAKTHAT_PASSWORD", "direct")
    assert encryption_keys(load_profile().profile.as_mapping()).passphrase == "direct"


def test_a_credential_is_named_where_it_comes_from(world: World) -> None:
    world.credential("bakthat.secret_key", SECRET)
    loaded = load_profile()
    assert loaded.place("secret_key_file") == "CREDENTIALS_DIRECTORY"
    assert loaded["secret_key_file"] == str(world.credentials / "bakthat.secret_key")


def test_a_relative_path_of_a_secret_in_conf_is_refused() -> None:
    for ways in SECRETS.values():
        with pytest.raises(ConfigError, match=f"'{ways.file}' is the relative path"):
            load_profile(conf={ways.file: "secret"})


@pytest.mark.parametrize("way", WAYS)
def test_the_address_of_a_catalog_with_its_password_is_a_secret(world: World, way: str) -> None:
    address = f"postgresql://me:{SECRET}@db/bakthat"
    if way in ("variable", "value"):
        world.set(**({"database": address} if way == "value" else {"prefix": "a"}))
        if way == "variable":
            world.setenv("BAKTHAT_DATABASE", address)
    else:
        world.give("database", way, 1)
        name = "credentials/bakthat.database" if way == "credential" else "secret-1"
        world.file(name, f"{address}\n")
    loaded = load_profile()
    assert read("database", loaded) == address
    assert SECRET not in repr(loaded) + repr(loaded.profile)


def test_a_command_line_is_split_as_a_shell_does(world: World) -> None:
    path = world.file("a secret", SECRET)
    world.set(secret_key_command=f"cat {shlex.quote(str(path))}")
    assert read("secret_key") == SECRET
