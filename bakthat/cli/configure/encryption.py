"""How new backups are encrypted: what each choice changes in a profile, and the files it makes."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bakthat import passwords
from bakthat.cli.configure.files import NewFile, path_of, warn_when_others_can_read
from bakthat.conf.profile import ENCRYPTION_KEYS, SECRETS
from bakthat.conf.secrets import read_secret_file
from bakthat.crypto import age
from bakthat.system.text import counted, printable

log = logging.getLogger("bakthat")

Current = Mapping[str, Any]
"""A profile as the file has it, unchecked."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key, its public key, and the path of its file as a profile holds it."""

    identity: str = field(repr=False)
    recipient: str
    file: str


@dataclass(frozen=True, slots=True)
class Encryption:
    """What a choice changes."""

    changes: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the profile; None removes one."""
    files: tuple[NewFile, ...] = ()
    """What the changes refer to and is to be made before the profile is written."""
    new_key: KeyPair | None = None


KEPT = Encryption()


def describe(current: Current) -> str:
    """Return how new backups are encrypted with this profile, in the order of precedence."""
    recipients = recipients_of(current)
    if recipients:
        return f"with {counted(len(recipients), 'public key')}"
    if current.get("password") is not None:
        return "with the password in the profile" if current["password"] else "none"
    if current.get("password_file") is not None:
        return f"with the password in {printable(str(current['password_file']))}"
    if current.get("password_command") is not None:
        return "with the password that password_command prints"
    return "with a password that is asked for each time"


def recipients_of(current: Current) -> list[str]:
    """Return the public keys of a profile; none where its value is not text or a list of text."""
    given = current.get("recipients") or []
    keys = [given] if isinstance(given, str) else given
    is_valid = isinstance(keys, list) and all(isinstance(each, str) for each in keys)
    return list(keys) if is_valid else []


def unencrypted() -> Encryption:
    """Store new backups as they are."""
    return Encryption({**_NOTHING, "password": ""})


def with_password_file(file: str, passphrase: str | None = None) -> Encryption:
    """Encrypt with the passphrase in a file, which is made where *passphrase* is given."""
    files = () if passphrase is None else (NewFile(path_of(file), f"{passphrase}\n"),)
    return Encryption({**_NOTHING, "password_file": file}, files)


_NOTHING = dict.fromkeys(ENCRYPTION_KEYS)


def with_new_key(file: str, others: Sequence[str], current: Current) -> Encryption:
    """Encrypt to a new pair of keys, and to the public keys of *others*."""
    identity = age.generate_identity()
    pair = KeyPair(identity, age.recipient_of(identity), file)
    text = age.identity_file(identity, created=time.time())
    changes = with_recipients([pair.recipient, *others], current).changes
    return Encryption(
        {**changes, "identity_file": file}, (NewFile(path_of(file), text),), new_key=pair
    )


def with_recipients(recipients: Sequence[str], current: Current) -> Encryption:
    """Encrypt to public keys.

    A password stays in the profile, where it opens the backups that it encrypted. The public keys
    take precedence for new ones.
    """
    changes: dict[str, Any] = {"recipients": list(recipients)}
    if current.get("password") == "":
        changes["password"] = None
    return Encryption(changes)


def notes_on(current: Current, changes: Mapping[str, Any]) -> Iterator[str]:
    """Yield what follows for the backups that are there, each as a warning."""
    after = {**current, **changes}
    if any(current.get(key) and after[key] != current[key] for key in SECRETS["password"]):
        yield "earlier backups open with the former password only: do not lose it"
    file, now = current.get("identity_file"), after.get("identity_file")
    is_lost = not set(recipients_of(current)) <= set(recipients_of(after))
    if file is None and is_lost:
        yield "earlier backups open with the former private keys only: do not lose them"
    elif file not in (None, now) and (now is not None or is_lost):
        shown = printable(str(file))
        yield f"earlier backups open with the keys in {shown} (restore --identity-file)"


def check_recipients(text: str) -> list[str]:
    """Return the public keys in a text, which are separated by spaces. Raises KeyFormatError."""
    recipients = [age.parse_recipient(each) for each in text.replace(",", " ").split()]
    return list(dict.fromkeys(recipients))


def check_passphrase(text: str) -> str:
    """Return the passphrase for a new file. Raises PasswordError."""
    passwords.check_new_passphrase(text, "the password")
    return text


def check_password_file(path: Path) -> None:
    """Check that a file holds a passphrase, and warn when others can read it.

    Raises ConfigError, PasswordError.
    """
    passwords.check_password_file(path)
    warn_when_others_can_read(path)


def key_pairs(value: str, config: Path) -> list[KeyPair]:
    """Return the keys in a file, by its path in a profile of the configuration file *config*.

    Raises ConfigError, KeyFormatError.
    """
    text = read_secret_file(path_of(value, config), "identity file")
    return [
        KeyPair(identity, age.recipient_of(identity), value)
        for identity in age.parse_identities(text)
    ]


def check_identity_file(value: str, recipients: Sequence[str]) -> str:
    """Return an absolute path if the file holds private keys. Raises ConfigError, KeyFormatError.

    Warns when none of them belongs to *recipients*, and when others can read it.
    """
    path = path_of(value)
    found = {each.recipient for each in key_pairs(value, path)}
    warn_when_others_can_read(path)
    if recipients and found.isdisjoint(recipients):
        log.warning(
            "no key in %s belongs to the public keys of the profile, so it opens no new backup",
            printable(path),
        )
    return value
