"""Find passwords and keys: in arguments, the environment, the profile, or at the terminal."""

from __future__ import annotations

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
from bakthat.system.text import reason_of

PASSWORD_VARIABLE = "BAKTHAT_PASSWORD"


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
) -> EncryptionKeys:
    """Return the keys for a new backup.

    The first of these that is set is used: *password* ("" means unencrypted); *recipients*;
    BAKTHAT_PASSWORD; the profile's recipients, password, password_file, password_command; the
    answer at the terminal. With ``prompt=False`` nothing is asked, and the backup is unencrypted.
    Raises PasswordError when nothing is set and there is no terminal, and ConfigError when the
    profile's password cannot be read.
    """
    if password is not None:
        return EncryptionKeys(passphrase=password or None)
    if recipients:
        return EncryptionKeys(recipients=tuple(recipients))
    if os.environ.get(PASSWORD_VARIABLE):
        return EncryptionKeys(passphrase=os.environ[PASSWORD_VARIABLE])
    if profile.get("recipients"):
        return EncryptionKeys(recipients=tuple(profile["recipients"]))
    configured = _configured_password(profile)
    if configured is not None:
        return EncryptionKeys(passphrase=configured or None)
    if not prompt:
        return EncryptionKeys()
    if terminal.is_interactive():
        return EncryptionKeys(passphrase=terminal.ask_new_password() or None)
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
    PasswordError when there is none, or when *password* is empty, and ConfigError.
    """
    if password:
        return password
    if password is None:
        found = os.environ.get(PASSWORD_VARIABLE) or _configured_password(profile)
        if found:
            return found
        if prompt and terminal.is_interactive():
            answer = terminal.ask_password()
            if answer:
                return answer
    raise PasswordError(
        "the backup is encrypted with a password, and none was given",
        hint=f"set {PASSWORD_VARIABLE}, or password_file in the profile",
    )


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
    return _read_secret_file(expanded(named), "identity file")


def may_ask(prompt: str | bool) -> bool:
    """Return whether an operation's argument *prompt* allows a question for a password."""
    return prompt if isinstance(prompt, bool) else prompt.lower() not in ("no", "false", "0")


def _configured_password(profile: Mapping[str, Any]) -> str | None:
    """Return the profile's password; "" when it sets an empty one, None when it sets none."""
    if profile.get("password") is not None:
        return str(profile["password"])
    if profile.get("password_file") is not None:
        path = expanded(profile["password_file"])
        return _not_empty(_read_secret_file(path, "password file"), f"password file '{path}'")
    if profile.get("password_command") is not None:
        return _not_empty(_run(profile["password_command"]), "output of password_command")
    return None


def _not_empty(text: str, what: str) -> str:
    """Return the password in *text*. Raises ConfigError when it is empty.

    A broken script must not switch encryption off.
    """
    password = text.rstrip("\r\n")
    if not password:
        raise ConfigError(f"the {what} is empty")
    return password


def _read_secret_file(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"cannot read the {what} '{path}': {reason_of(exc)}") from exc
    except UnicodeDecodeError:
        # Not "from exc": that exception holds the secret.
        raise ConfigError(f"the {what} '{path}' is not UTF-8 text") from None


def _run(command: str | list[str]) -> str:
    """Run password_command without a shell; return its output, the password."""
    try:
        arguments = shlex.split(command) if isinstance(command, str) else command
        if not arguments:
            raise ValueError("it is empty")
        done = subprocess.run(arguments, stdout=subprocess.PIPE, check=True)
    except (OSError, ValueError) as exc:
        raise ConfigError(f"cannot run password_command: {exc}") from exc
    except subprocess.CalledProcessError as exc:
        raise ConfigError(f"password_command failed with status {exc.returncode}") from exc
    try:
        return done.stdout.decode()
    except UnicodeDecodeError:
        # Not "from exc": that exception holds the secret.
        raise ConfigError("the output of password_command is not UTF-8 text") from None
