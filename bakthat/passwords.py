"""Find passwords and keys: in arguments, the environment, the profile, or at the terminal."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bakthat.conf.secrets import read_secret, read_secret_file, secret_text
from bakthat.errors import PasswordError
from bakthat.system import terminal
from bakthat.system.paths import expanded
from bakthat.system.text import from_native

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
    password: str | None = read_secret(profile, "database_password")
    return password


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
    given = secret_text({"password_file": path}, "password")
    if given is not None:
        check_new_passphrase(given.text, given.origin)


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
    profile: Mapping[str, Any], timeout: float | None = None
) -> _ConfiguredPassword | None:
    """Return the profile's password; None when it sets none. Raises ConfigError."""
    if profile.get("password") is not None:
        return _ConfiguredPassword(str(profile["password"]), "'password' of the profile")
    given = secret_text(profile, "password", timeout=timeout)
    return None if given is None else _ConfiguredPassword(given.text, given.origin)


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
