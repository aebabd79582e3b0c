"""What ``configure`` was told, be it by questions or by options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bakthat import conf
from bakthat.cli.configure.asking import Parse
from bakthat.cli.configure.encryption import Encryption, KeyPair
from bakthat.conf.profile import SECRETS
from bakthat.errors import UsageError


@dataclass(frozen=True, slots=True)
class Answers:
    """What is to be written."""

    settings: Mapping[str, Any]
    """Keys of the profile; None removes one."""
    encryption: Encryption
    page: Path | None = None
    """The file for a page of a private key, to print."""
    page_key: KeyPair | None = None
    """The key on it."""

    @property
    def changes(self) -> dict[str, Any]:
        """All keys of the profile that are set, or removed by None."""
        return {**self.settings, **self.encryption.changes}


def check_of(key: str, name: str) -> Parse[str]:
    """Return the check of a key's values. It raises UsageError, which calls the value *name*."""

    def check(answer: str) -> str:
        problem = conf.KEYS[key].check(answer)
        if problem is not None:
            raise UsageError(f"{name} {problem.text}", hint=problem.hint)
        return answer

    return check


def is_any_given(profile: Mapping[str, Any], secret: str) -> bool:
    """Return whether a profile, unchecked, has one of the keys that give a secret."""
    return any(profile.get(key) for key in SECRETS[secret])


def with_secret_key(value: str | None) -> dict[str, Any]:
    """Return the keys that give the secret key of AWS: itself, which replaces the others."""
    return {**dict.fromkeys(SECRETS["secret_key"]), "secret_key": value}


def likely_destination(settings: Mapping[str, Any]) -> str:
    """Return the default destination of a profile that names none: where it has a container.

    One without any stores where it would without a file, such as in the bucket that a variable of
    the environment names. Raises ConfigError for an invalid variable.
    """
    containers = {"s3_bucket": "s3", "glacier_vault": "glacier", "local_path": "local"}
    named = [destination for key, destination in containers.items() if settings.get(key)]
    return named[0] if named else conf.destination_without_file()
