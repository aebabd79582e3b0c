"""The options of ``configure``, by which it runs unattended."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from bakthat.cli.configure import encryption as kinds
from bakthat.cli.configure.answers import (
    Answers,
    check_of,
    is_any_given,
    likely_destination,
    with_secret_key,
)
from bakthat.cli.configure.asking import REMOVE, keeping
from bakthat.cli.configure.encryption import KEPT, Current, Encryption, KeyPair
from bakthat.cli.configure.files import absolute, check_new, path_of, warn_when_others_can_read
from bakthat.conf.secrets import read_secret_file
from bakthat.errors import KeyFormatError, UsageError
from bakthat.system.text import from_native, printable

_SETTINGS = {
    "access_key": "--access-key",
    "s3_bucket": "--bucket",
    "glacier_vault": "--vault",
    "default_destination": "--default-destination",
    "region_name": "--region",
    "endpoint_url": "--endpoint-url",
    "local_path": "--local-path",
}
"""The keys that an option gives as they are, and the options."""


@dataclass(frozen=True, slots=True)
class Options:
    """The answers that options give; None or False for those that were not given."""

    access_key: str | None = None
    secret_key_file: str | None = None
    bucket: str | None = None
    vault: str | None = None
    default_destination: str | None = None
    region: str | None = None
    endpoint_url: str | None = None
    local_path: str | None = None
    no_encryption: bool = False
    password_file: str | None = None
    new_key: str | None = None
    recipient: Sequence[str] | None = None
    identity_file: str | None = None
    key_page: str | None = None

    def __bool__(self) -> bool:
        """Whether one was given, so that nothing is to be asked."""
        return any(astuple(self))

    def answers(self, current: Current, config: Path) -> Answers:
        """Return what is to be written; what no option names keeps its value.

        *current* is what the configuration file *config* has of the profile.

        Nothing is changed, and no file is made. Raises UsageError for invalid values, and for
        options that contradict each other, and ConfigError for files.
        """
        self._refuse_contradictions()
        settings = self._settings(current)
        encryption = self._encryption(current)
        if self.identity_file is not None:
            file = self._identity_file({**current, **encryption.changes})
            changes = {**encryption.changes, "identity_file": file}
            encryption = Encryption(changes, encryption.files, encryption.new_key)
        if self.key_page is None:
            return Answers(settings, encryption)
        page = path_of(check_new(_path(self.key_page), [each.path for each in encryption.files]))
        key = encryption.new_key or _only_key({**current, **encryption.changes}, config)
        return Answers(settings, encryption, page, key)

    def _refuse_contradictions(self) -> None:
        given = [
            name
            for name, value in (
                ("--no-encryption", self.no_encryption),
                ("--password-file", self.password_file),
                ("--recipient" if self.recipient else "--new-key", self.recipient or self.new_key),
            )
            if value
        ]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} contradict each other", hint="give one")
        if self.new_key and self.identity_file:
            raise UsageError(
                "--new-key and --identity-file contradict each other",
                hint="give --new-key alone: its file becomes the identity file",
            )

    def _settings(self, current: Current) -> dict[str, Any]:
        values = {
            "access_key": self.access_key,
            "s3_bucket": self.bucket,
            "glacier_vault": self.vault,
            "default_destination": self.default_destination,
            "region_name": self.region,
            "endpoint_url": self.endpoint_url,
            "local_path": self.local_path,
        }
        settings: dict[str, Any] = {
            key: keeping(None, check_of(key, _SETTINGS[key]))(from_native(value))
            for key, value in values.items()
            if value is not None
        }
        if settings.get("local_path"):
            settings["local_path"] = absolute(settings["local_path"])
        if self.secret_key_file is not None:
            check = check_of("secret_key", "the secret key")
            settings |= with_secret_key(check(_read_secret_key(self.secret_key_file)))
        elif self.access_key == REMOVE:
            settings |= with_secret_key(None)
        after = {**current, **settings}
        if bool(after.get("access_key")) != is_any_given(after, "secret_key"):
            missing = "--secret-key-file" if after.get("access_key") else "--access-key"
            raise UsageError(
                "--access-key and --secret-key-file need each other", hint=f"give {missing} too"
            )
        if not current:
            settings.setdefault("default_destination", likely_destination(settings))
        return settings

    def _encryption(self, current: Current) -> Encryption:
        if self.no_encryption:
            return kinds.unencrypted()
        if self.password_file is not None:
            if self.password_file == REMOVE:
                raise UsageError(
                    "--password-file needs the path of a file, which the profile will name",
                    hint="give --password-file FILE, or --no-encryption to store unencrypted",
                )
            file = _path(self.password_file)
            kinds.check_password_file(path_of(file))
            return kinds.with_password_file(file)
        try:
            recipients = kinds.check_recipients(" ".join(self.recipient or ()))
        except KeyFormatError as exc:
            raise UsageError(f"--recipient: {exc}", hint=exc.hint) from exc
        if self.new_key is not None:
            return kinds.with_new_key(check_new(_path(self.new_key)), recipients, current)
        return kinds.with_recipients(recipients, current) if recipients else KEPT

    def _identity_file(self, after: Current) -> str | None:
        if self.identity_file == REMOVE or self.identity_file is None:
            return None
        return kinds.check_identity_file(_path(self.identity_file), kinds.recipients_of(after))


def _path(option: str) -> str:
    return absolute(from_native(option))


def _read_secret_key(file: str) -> str:
    """Return the secret key in a file; ``-`` is standard input.

    Raises UsageError for a standard input that is closed or not text, and ConfigError for a file.
    """
    if file == REMOVE:
        if sys.stdin is None:  # as after <&- in a shell
            raise UsageError("--secret-key-file: standard input is closed", hint="name a file")
        try:
            return sys.stdin.buffer.readline().decode().strip()
        except UnicodeDecodeError:
            # Not "from exc": that exception holds the key.
            raise UsageError(
                "--secret-key-file: the secret key is not UTF-8 text", hint="save it as UTF-8"
            ) from None
    path = path_of(_path(file))
    text = read_secret_file(path, "file with the secret key")
    warn_when_others_can_read(path)
    return text.strip()


def _only_key(after: Current, config: Path) -> KeyPair:
    """Return the private key of the profile, for a page. Raises BakthatError."""
    file = after.get("identity_file")
    if file is None:
        raise UsageError(
            "--key-page needs a private key, and the profile has no identity_file",
            hint="add --new-key FILE or --identity-file FILE",
        )
    pairs = kinds.key_pairs(str(file), config)
    recipients = kinds.recipients_of(after)
    fitting = [each for each in pairs if each.recipient in recipients] or pairs
    if len(fitting) > 1:
        raise UsageError(
            f"--key-page is for one key, and {printable(str(file))} has {len(fitting)}",
            hint="name a file with one key: --identity-file FILE",
        )
    return fitting[0]
