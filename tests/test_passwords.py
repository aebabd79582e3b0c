"""Where passwords come from, and in which order."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bakthat import passwords
from bakthat.errors import ConfigError, PasswordError
from bakthat.passwords import check_password_file
from bakthat.system import terminal
from tests.support.commandline import CommandLine
from tests.support.profiles import write_config


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Simulate a user at a terminal who gives these answers."""
    given: list[str] = []
    monkeypatch.setattr(terminal, "is_interactive", lambda: True)
    monkeypatch.setattr(terminal, "ask_hidden", lambda _question: given.pop(0))
    return given


EVERYTHING: dict[str, Any] = {"recipients": ["age1profile"], "password": "profile"}


def test_the_argument_wins_over_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAKTHAT_PASSWORD", "environment")
    keys = passwords.encryption_keys(EVERYTHING, password="argument")
    assert keys.passphrase == "argument"
    assert not keys.recipients


def test_an_empty_argument_means_unencrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAKTHAT_PASSWORD", "environment")
    assert not passwords.encryption_keys(EVERYTHING, password="")


def test_the_environment_wins_over_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAKTHAT_PASSWORD", "environment")
    assert passwords.encryption_keys(EVERYTHING).passphrase == "environment"


@pytest.mark.parametrize("profile", [{}, {"password": "profile"}, EVERYTHING])
@pytest.mark.parametrize("prompt", [True, False])
def test_an_empty_environment_variable_is_an_error(
    profile: dict[str, Any], prompt: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAKTHAT_PASSWORD", "")
    with pytest.raises(PasswordError, match="BAKTHAT_PASSWORD is set, but empty"):
        passwords.encryption_keys(profile, prompt=prompt)
    with pytest.raises(PasswordError, match="BAKTHAT_PASSWORD is set, but empty"):
        passwords.decryption_passphrase(profile, prompt=prompt)


def test_an_argument_wins_over_an_empty_environment_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BAKTHAT_PASSWORD", "")
    assert not passwords.encryption_keys({}, password="")
    assert passwords.encryption_keys({}, recipients=["age1key"]).recipients == ("age1key",)


NOT_ONE_LINE = {
    "secret\nnotes": "several lines",
    "secret\n\nlogin: me": "several lines",
    "secret\rnotes": "several lines",
    "secret\r\nnotes": "several lines",
    "\ufeffsecret": "a byte order mark",
    "sec\0ret": "a NUL character",
}


def _given(origin: str, text: str, directory: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Give *text* as a password in one of the ways; return the arguments of encryption_keys."""
    path = directory / "secret"
    path.write_text(text, newline="")
    if origin == "environment":
        patch.setenv("BAKTHAT_PASSWORD", text)
    if origin == "argument":
        return {"profile": {}, "password": text}
    setting = {
        "password": text,
        "password_file": str(path),
        "password_command": ["cat", str(path)],
    }
    return {"profile": {origin: setting[origin]} if origin in setting else {}}


@pytest.mark.parametrize("text", NOT_ONE_LINE)
@pytest.mark.parametrize(
    "origin", ["argument", "environment", "password", "password_file", "password_command"]
)
def test_a_new_passphrase_is_one_line_of_text(
    origin: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if origin == "environment" and "\0" in text:
        return  # no environment holds a NUL
    given = _given(origin, text, tmp_path, monkeypatch)
    with pytest.raises(PasswordError, match=NOT_ONE_LINE[text]) as caught:
        passwords.encryption_keys(**given)
    assert text not in str(caught.value)
    assert "head -n 1" in caught.value.hint


@pytest.mark.parametrize("origin", ["environment", "password_file", "password_command"])
def test_several_lines_still_open_what_they_once_encrypted(
    origin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = _given(origin, "secret\nnotes", tmp_path, monkeypatch)
    assert passwords.decryption_passphrase(given["profile"]) == "secret\nnotes"


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_line_ends_after_a_single_line_are_no_part_of_it(end: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"secret{end}", newline="")
    profile = {"password_file": str(tmp_path / "secret")}
    assert passwords.encryption_keys(profile).passphrase == "secret"
    assert passwords.decryption_passphrase(profile) == "secret"


def test_recipients_win_over_the_profiles_password() -> None:
    keys = passwords.encryption_keys(EVERYTHING)
    assert keys.recipients == ("age1profile",)
    assert keys.passphrase is None
    assert keys.kind == "recipients"


def test_a_password_file_loses_only_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(" two words \n")
    keys = passwords.encryption_keys({"password_file": str(tmp_path / "secret")})
    assert keys.passphrase == " two words "


def test_a_password_command_is_run_without_a_shell() -> None:
    command = [sys.executable, "-c", "print('from; command')"]
    assert passwords.encryption_keys({"password_command": command}).passphrase == "from; command"


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"password_file": "/nonexistent/secret"}, "cannot read the password file"),
        ({"password_command": "/nonexistent/program"}, "cannot run '/nonexistent/program'"),
        ({"password_command": [sys.executable, "-c", "exit(3)"]}, "failed with status 3"),
        ({"password_command": [sys.executable, "-c", ""]}, "password_command is empty"),
        ({"password_command": ["sh", "-c", "kill -9 $$"]}, "was ended by signal 9"),
        ({"password_command": "'unfinished"}, "password_command cannot be read: no closing quot"),
        ({"password_command": " "}, "password_command is empty"),
        ({"password_command": "pass show x | head -n 1"}, "runs without a shell"),
        ({"password_command": ["printf", "\\377"]}, "not UTF-8"),
        ({"password_file": "~no-such-user/secret"}, "no such user"),
    ],
)
def test_a_broken_source_never_means_unencrypted(profile: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        passwords.encryption_keys(profile, prompt=False)


def test_an_empty_password_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        passwords.encryption_keys({"password_file": str(tmp_path / "secret")})


def test_an_empty_password_of_a_database_is_an_error() -> None:
    profile = {"database_password_command": [sys.executable, "-c", ""]}
    with pytest.raises(ConfigError, match=r"^the output of database_password_command is empty$"):
        passwords.database_password(profile)


def test_without_a_terminal_an_error_says_what_to_set() -> None:
    with pytest.raises(PasswordError) as caught:
        passwords.encryption_keys({})
    assert "BAKTHAT_PASSWORD" in caught.value.hint
    assert "--prompt no" in caught.value.hint


def test_not_prompting_means_unencrypted(answers: list[str]) -> None:
    assert not passwords.encryption_keys({}, prompt=False)
    assert answers == []


def test_a_terminal_is_asked_twice(answers: list[str]) -> None:
    answers += ["secret", "secret"]
    assert passwords.encryption_keys({}).passphrase == "secret"
    assert answers == []


def test_a_blank_answer_means_unencrypted_and_is_not_confirmed(answers: list[str]) -> None:
    answers += [""]
    assert not passwords.encryption_keys({})


def test_answers_that_differ_are_an_error(answers: list[str]) -> None:
    answers += ["secret", "secrte"]
    with pytest.raises(PasswordError, match="differ"):
        passwords.encryption_keys({})


def test_decrypting_asks_once(answers: list[str]) -> None:
    answers += ["secret"]
    assert passwords.decryption_passphrase({}) == "secret"


def test_decrypting_without_any_password_says_what_to_set() -> None:
    with pytest.raises(PasswordError, match="encrypted with a password") as caught:
        passwords.decryption_passphrase({}, password="")
    assert "BAKTHAT_PASSWORD" in caught.value.hint


def test_an_identity_is_needed_for_recipients() -> None:
    with pytest.raises(PasswordError, match="no private key"):
        passwords.identity_text({})
    with pytest.raises(ConfigError, match="cannot read the identity file"):
        passwords.identity_text({}, identity_file="/nonexistent/key")


def test_no_secret_is_in_the_repr() -> None:
    assert "secret" not in repr(passwords.EncryptionKeys(passphrase="secret"))
    assert "secret" not in repr(passwords.DecryptionKeys("secret", ("secret",)))


BROKEN_COMMAND = {"password_command": ["sh", "-c", "echo half; exit 1"]}


def test_a_program_that_ignores_sigchld_hears_of_a_command_that_failed() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(ConfigError, match="password_command failed with status 1"):
            passwords.encryption_keys(BROKEN_COMMAND)
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
        with (
            ThreadPoolExecutor(1) as pool,
            pytest.raises(ConfigError, match="this program ignores SIGCHLD"),
        ):
            pool.submit(passwords.encryption_keys, BROKEN_COMMAND).result()
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_command_line_whose_parent_ignores_sigchld_works(user: CommandLine) -> None:
    (user.directory / "file").write_text("content")
    write_config(
        user.home / ".bakthat.yml",
        default={"default_destination": "local"},
        broken={"default_destination": "local", **BROKEN_COMMAND},
    )
    bakthat = f"{shlex.quote(sys.executable)} -m bakthat"
    script = f"{bakthat} backup file --prompt no; echo $?; {bakthat} backup file -p broken; echo $?"
    done = subprocess.run(
        [sys.executable, "-c", IGNORING_SIGCHLD, script],
        env=user.environment,
        cwd=user.directory,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0\n1\n", done.stderr


# Not the shell's trap: bash and dash reset SIGCHLD for their children.
IGNORING_SIGCHLD = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execvp("sh", ["sh", "-c", sys.argv[1]])
"""


def test_a_file_with_a_passphrase_for_new_backups_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("pass wörd\n", encoding="utf-8")
    check_password_file(path)


@pytest.mark.parametrize("text", [b"", b"\n", b" \n", b"two\nlines\n", b"\xff\n", b"a\0b"])
def test_a_file_without_a_passphrase_for_new_backups_is_refused(
    text: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "password"
    path.write_bytes(text)
    with pytest.raises((ConfigError, PasswordError), match=str(path)):
        check_password_file(path)


def test_a_file_of_a_passphrase_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"'{tmp_path}/none': no such file"):
        check_password_file(tmp_path / "none")


def test_a_file_of_private_keys_is_text(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"the identity file '.*/key' is not UTF-8 text"):
        passwords.identity_text({"identity_file": str(tmp_path / "key")})


@pytest.mark.parametrize(
    ("password", "origin", "problem"),
    [
        (" \t", "the password", "the password holds only white space"),
        ("", "the answer", "the answer is empty"),
    ],
)
def test_a_new_passphrase_of_nothing_is_refused(password: str, origin: str, problem: str) -> None:
    with pytest.raises(PasswordError, match=problem):
        passwords.check_new_passphrase(password, origin)
