"""Find passwords and keys: in arguments, the environment, the profile, or at the terminal."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bakthat.errors import ConfigError, PasswordError
from bakthat.system import terminal
from bakthat.system.paths import expanded
from bakthat.system.signals import child_status
from bakthat.system.text import from_native, printable, reason_of, to_native

PASSWORD_VARIABLE = "BAKTHAT_PASSWORD"
_UNENCRYPTED_HINT = "to store unencrypted, set password: '' in the profile"


@dataclass(frozen=True, slots=True)
class EncryptionKeys:
    """The keys for a new backup: a passphrase or recipients. With neither, it is unencrypted."""

    passphrase: str | None = field(default=None, repr=False)
    recipients: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.passphrase or self.recipients)

    @property
    def kind(self) -> str:
        """How the self-description names it: "passphrase", "recipients" or "none"."""
        if self.passphrase:
            return "passphrase"
        return "recipients" if self.recipients else "none"

    @property
    def recipients_id(self) -> str:
        """16 hexadecimal digits that change with the recipients; "" without any."""
        if not self.recipients:
            return ""
        return hashlib.sha256("\n".join(sorted(self.recipients)).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class DecryptionKeys:
    """The keys that open a backup: a passphrase or identities. With neither, it is unencrypted."""

    passphrase: str | None = field(default=None, repr=False)
    identities: tuple[str, ...] = field(default=(), repr=False)
    """Private keys of age."""


def encryption_keys(
    profile: Mapping[str, Any],
    *,
    password: str | None = None,
    recipients: Sequence[str] = (),
    prompt: bool = True,
    timeout: float | None = None,
) -> EncryptionKeys:
    """Return the keys for a new backup.

    The first of these that is set is used: *password* ("" means unencrypted); *recipients*;
    BAKTHAT_PASSWORD; the profile's recipients, password, password_file, password_command; the
    answer at the terminal. With ``prompt=False`` nothing is asked, and the backup is unencrypted.

    A new passphrase must be one line of text, since no other tool can be given more. *timeout* is
    how many seconds password_command may take; None is for ever. Raises PasswordError when it is
    not one line, when BAKTHAT_PASSWORD is set but empty, and when nothing is set
    and there is no terminal; ConfigError when the profile's password cannot be read.
    """
    if password is not None:
        return _by_passphrase(password, "the password")
    if recipients:
        return EncryptionKeys(recipients=tuple(recipients))
    from_environment = _environment_password()
    if from_environment is not None:
        return _by_passphrase(from_environment, PASSWORD_VARIABLE)
    if profile.get("recipients"):
        return EncryptionKeys(recipients=tuple(profile["recipients"]))
    configured = _configured_password(profile, timeout)
    if configured is not None:
        return _by_passphrase(configured.text, configured.origin)
    if not prompt:
        return EncryptionKeys()
    if terminal.is_interactive():
        return _by_passphrase(terminal.ask_new_password(), "the password")
    raise PasswordError(
        "no password is set, and there is no terminal to ask for one",
        hint=f"set {PASSWORD_VARIABLE}, or recipients or password_file in the profile; "
        "to store unencrypted, use --prompt no (password='' in Python)",
    )


def decryption_passphrase(
    profile: Mapping[str, Any], *, password: str | None = None, prompt: bool = True
) -> str:
    """Return the passphrase that opens a backup.

    The first of these that is set is used: *password*; BAKTHAT_PASSWORD; the profile's password,
    password_file or password_command; the answer at the terminal, if *prompt* is true. Raises
    PasswordError when there is none, or when *password* or BAKTHAT_PASSWORD is empty, and
    ConfigError.

    A passphrase of several lines is accepted here, because earlier versions encrypted with it.
    """
    if password:
        return password
    if password is None:
        from_environment = _environment_password()
        if from_environment is not None:
            return from_environment
        configured = _configured_password(profile)
        if configured is not None and configured.text:
            return configured.text
        if prompt and terminal.is_interactive():
            answer = terminal.ask_password()
            if answer:
                return answer
    raise PasswordError(
        "the backup is encrypted with a password, and none was given",
        hint=f"set {PASSWORD_VARIABLE}, or password_file in the profile",
    )


def database_password(profile: Mapping[str, Any]) -> str | None:
    """Return the password of the profile's database servers; None when it sets none.

    Raises ConfigError when it cannot be read, or is empty.
    """
    configured = _configured_password(profile, prefix="database_")
    return configured.text if configured is not None else None


def identity_text(
    profile: Mapping[str, Any], *, identity_file: str | os.PathLike[str] | None = None
) -> str:
    """Return the text of the file of private keys: *identity_file*, or else the profile's.

    Raises PasswordError when neither is set, and ConfigError when the file cannot be read.
    """
    named = identity_file if identity_file is not None else profile.get("identity_file")
    if named is None:
        raise PasswordError(
            "the backup is encrypted to public keys, and no private key was given",
            hint="name its file with --identity-file, or as identity_file in the profile",
        )
    return read_secret_file(expanded(named), "identity file")


def check_new_passphrase(passphrase: str, origin: str) -> None:
    """Check that new backups can be encrypted with a passphrase, which is named by its *origin*.

    Raises PasswordError.
    """
    if not _by_passphrase(passphrase, origin):
        raise PasswordError(f"{origin} is empty")


def check_password_file(path: Path) -> None:
    """Check that a file holds a passphrase for new backups. Raises ConfigError, PasswordError."""
    text = read_secret_file(path, "password file")
    configured = _not_empty(text, f"the password file '{path}'", _UNENCRYPTED_HINT)
    check_new_passphrase(configured.text, configured.origin)


def read_secret_file(path: Path, what: str) -> str:
    """Return the text of a file. Raises ConfigError, which calls the file *what*."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigError(
            f"cannot read the {what} '{path}': {reason_of(exc)}",
            hint="check the name and that this user may read it",
        ) from exc
    except UnicodeDecodeError:
        # Not "from exc": that exception holds the secret.
        raise ConfigError(
            f"the {what} '{path}' is not UTF-8 text", hint="save it as UTF-8"
        ) from None


def may_ask(prompt: str | bool) -> bool:
    """Return whether an operation's argument *prompt* allows a question for a password."""
    return prompt if isinstance(prompt, bool) else prompt.lower() not in ("no", "false", "0")


@dataclass(frozen=True, slots=True)
class _ConfiguredPassword:
    text: str = field(repr=False)
    """The password; "" when the profile says that backups are unencrypted."""
    origin: str
    """Where it comes from, for messages."""


def _environment_password() -> str | None:
    """Return the value of BAKTHAT_PASSWORD; None when it is not set.

    Raises PasswordError when it is empty: a script that failed to read the password must neither
    switch encryption off nor encrypt with another key.
    """
    value = os.environ.get(PASSWORD_VARIABLE)
    if value == "":
        raise PasswordError(
            f"{PASSWORD_VARIABLE} is set, but empty",
            hint=f"give it a value, or unset it: unset {PASSWORD_VARIABLE}",
        )
    return value if value is None else from_native(value)


def _configured_password(
    profile: Mapping[str, Any], timeout: float | None = None, *, prefix: str = ""
) -> _ConfiguredPassword | None:
    """Return the profile's password; None when it sets none. *prefix* is that of its three keys."""
    key = f"{prefix}password"
    hint = "" if prefix else _UNENCRYPTED_HINT
    if profile.get(key) is not None:
        return _ConfiguredPassword(str(profile[key]), f"'{key}' of the profile")
    if profile.get(f"{key}_file") is not None:
        path = expanded(profile[f"{key}_file"])
        what = f"{prefix.replace('_', ' ')}password file"
        return _not_empty(read_secret_file(path, what), f"the {what} '{path}'", hint)
    if profile.get(f"{key}_command") is not None:
        output = _run(profile[f"{key}_command"], f"{key}_command", timeout)
        return _not_empty(output, f"the output of {key}_command", hint)
    return None


def _not_empty(text: str, origin: str, hint: str) -> _ConfiguredPassword:
    """Return the password in *text*. Raises ConfigError when it is empty.

    A broken script must not switch encryption off.
    """
    password = text.rstrip("\r\n")
    if not password:
        raise ConfigError(f"{origin} is empty", hint=hint)
    return _ConfiguredPassword(password, origin)


def _by_passphrase(passphrase: str, origin: str) -> EncryptionKeys:
    """Return the keys for a new passphrase; "" means unencrypted. Raises PasswordError."""
    for characters, what in _NOT_IN_A_LINE.items():
        if any(each in passphrase for each in characters):
            raise PasswordError(
                f"{origin} holds {what}, so it cannot be a passphrase",
                hint="write the passphrase alone, as one line; a program that prints more needs "
                "something like: sh -c 'pass show backup | head -n 1'",
            )
    if passphrase and not passphrase.strip():
        raise PasswordError(
            f"{origin} holds only white space, so it cannot be a passphrase",
            hint="check the file or the variable that it is read from",
        )
    return EncryptionKeys(passphrase=passphrase or None)


_NOT_IN_A_LINE = {
    "\r\n": "several lines",
    "\0": "a NUL character",
    "\ufeff": "a byte order mark",
}
"""Characters that no prompt of another tool accepts, and what a message calls them."""


_SHELL_SYNTAX = frozenset(("|", "||", "&&", ";", ">", "<", "2>/dev/null", "2>&1"))


def _run(command: str | list[str], key: str, timeout: float | None) -> str:
    """Run the program of *key* without a shell; return its output, the password.

    It is ended after *timeout* seconds.
    """
    try:
        arguments = shlex.split(command) if isinstance(command, str) else command
    except ValueError as exc:
        raise ConfigError(
            f"{key} cannot be read: {reason_of(exc)}",
            hint="write it as a list, an entry for each argument",
        ) from exc
    if not arguments:
        raise ConfigError(f"{key} is empty", hint="name a program, or remove the line")
    if isinstance(command, str) and not _SHELL_SYNTAX.isdisjoint(arguments):
        raise ConfigError(
            f"{key} runs without a shell, and holds what only a shell understands",
            hint="write sh -c '…', or a list of arguments if it is meant",
        )
    native = [to_native(each) for each in arguments]
    try:
        with child_status():
            status, output = _output_of(native, timeout)
    except OSError as exc:
        hint = ""
        if isinstance(exc, FileNotFoundError) and "/" not in arguments[0]:
            hint = "write the whole path of the program; under cron, PATH is short"
        program = printable(arguments[0])
        raise ConfigError(f"cannot run '{program}' for {key}: {reason_of(exc)}", hint=hint) from exc
    except ValueError as exc:
        raise ConfigError(
            f"cannot run {key}: {reason_of(exc)}", hint="remove the NUL character"
        ) from exc
    except subprocess.TimeoutExpired:
        # Not "from exc": that exception may hold the secret.
        raise ConfigError(
            f"{key} did not end within {timeout:g} seconds",
            hint="run it in a shell: it may wait for an answer, or for a server",
        ) from None
    if status:
        by_signal = f"was ended by signal {-status}"
        how = by_signal if status < 0 else f"failed with status {status}"
        raise ConfigError(f"{key} {how}", hint="run it in a shell to see why")
    try:
        return output.decode()
    except UnicodeDecodeError:
        # Not "from exc": that exception holds the secret.
        raise ConfigError(
            f"the output of {key} is not UTF-8 text",
            hint="let it print the password as UTF-8",
        ) from None


def _output_of(arguments: list[str], timeout: float | None) -> tuple[int, bytes]:
    """Return the exit status and the output of a program. Raises TimeoutExpired."""
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except BaseException:
            # Unlike subprocess.run, this does not wait for what the program has started.
            process.kill()
            raise
        return process.returncode, output
