"""The questions of ``configure``: those of 0.6.0 in their words, then those that came since."""

from __future__ import annotations

import os
from collections.abc import Callable
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
from bakthat.cli.configure.asking import REMOVE, Parse, ask, ask_until_valid, keeping
from bakthat.cli.configure.encryption import KEPT, Current, Encryption
from bakthat.cli.configure.files import absolute, check_new, free_name, path_of
from bakthat.errors import PasswordError, UsageError
from bakthat.policy.defaults import DEFAULT_LOCAL_PATH, DEFAULT_REGION, DESTINATIONS
from bakthat.system import terminal
from bakthat.system.text import from_native, printable

_NONE = "none: whoever can read the storage can read the backups"
_NEW_KEY = "with a new pair of age keys: a public one encrypts, a private one restores"


class Questions:
    """The questions about one profile. Each raises EOFError when the input ends."""

    def __init__(self, profile: str, config: Path, current: Current) -> None:
        """*config* is the file that will be written, *current* what it has of the profile."""
        self._profile = profile
        self._config = config
        self._current = current

    def ask_all(self) -> Answers:
        """Ask everything. Nothing is changed, and no file is made."""
        if terminal.is_interactive():
            terminal.say(
                f"This sets up the profile '{self._profile}' in {self._config}.\n"
                "Enter keeps what is in parentheses, - removes it. Nothing is written before\n"
                "the last answer: Ctrl-C leaves everything as it is.\n"
            )
        settings = self._ask_settings()
        encryption, page = self._ask_encryption()
        return Answers(settings, encryption, page, encryption.new_key if page else None)

    def _ask_settings(self) -> dict[str, Any]:
        current = self._current
        access_key = self._ask_setting("AWS Access Key", "access_key")
        settings: dict[str, Any] = {
            "access_key": access_key,
            **self._ask_secret_key(access_key),
            "s3_bucket": self._ask_setting("S3 Bucket Name", "s3_bucket"),
            "glacier_vault": self._ask_setting("Glacier Vault Name", "glacier_vault"),
        }
        destination = current.get("default_destination") or likely_destination(settings)
        settings["default_destination"] = _ask_destination(destination)
        settings["region_name"] = self._ask_setting("Region Name", "region_name", DEFAULT_REGION)
        settings["endpoint_url"] = self._ask_setting(
            "Endpoint URL, of S3-compatible storage only", "endpoint_url"
        )
        settings["local_path"] = ask(
            "Local Path", current.get("local_path") or DEFAULT_LOCAL_PATH, absolute
        )
        return settings

    def _ask_setting(self, question: str, key: str, default: str | None = None) -> Any:
        return ask(question, self._current.get(key) or default, check_of(key, "it"))

    def _ask_secret_key(self, access_key: object) -> dict[str, Any]:
        """Return what the answer changes: nothing where it keeps a file or a program."""
        is_given = is_any_given(self._current, "secret_key")
        default = self._current.get("secret_key") or None
        check = keeping(default, check_of("secret_key", "it"))

        def parse(answer: str) -> dict[str, Any]:
            secret_key = check(answer)
            if access_key and not secret_key and (answer or not is_given):
                raise UsageError(
                    "the access key needs its secret key",
                )
            if answer and secret_key and not access_key:
                raise UsageError("there is no access key that it belongs to", hint="press Enter")
            is_kept = access_key and not answer
            return {} if is_kept else with_secret_key(secret_key if access_key else None)

        shown = " (unchanged)" if is_given else ""
        return ask_until_valid(f"AWS Secret Key{shown}: ", parse, hidden=True)

    def _ask_encryption(self) -> tuple[Encryption, Path | None]:
        """Return the choice, and the file for a page of a new key."""
        choices: dict[str, Callable[[], tuple[Encryption, Path | None]]] = {
            "as now": lambda: (KEPT, None),
            _NONE: lambda: (kinds.unencrypted(), None),
            "with a password in a file": lambda: (self._ask_password_file(), None),
            _NEW_KEY: self._ask_new_key,
            "with age public keys that you have": lambda: (self._ask_recipients(), None),
        }
        lines = [f"  {number}  {what}" for number, what in enumerate(choices, 1)]
        now = f"Encryption of new backups. Now: {kinds.describe(self._current)}."
        terminal.say("\n".join(["", now, *lines]))
        numbers = {str(number): each for number, each in enumerate(choices.values(), 1)}

        def parse(answer: str) -> Callable[[], tuple[Encryption, Path | None]]:
            if (answer or "1") not in numbers:
                raise UsageError(f"it must be a number from 1 to {len(numbers)}")
            return numbers[answer or "1"]

        return ask_until_valid("Encryption (1): ", parse)()

    def _ask_password_file(self) -> Encryption:
        def check(value: str) -> str:
            path = path_of(value, self._config)
            if not os.path.lexists(path):
                return check_new(value)
            kinds.check_password_file(path)
            return value

        file = _ask_file("File with the password", self._password_file(), check)
        if os.path.lexists(path_of(file, self._config)):
            return kinds.with_password_file(file)
        terminal.say(f"{printable(file)} is new, and gets the password that you type now.")
        return kinds.with_password_file(file, _ask_new_password())

    def _ask_new_key(self) -> tuple[Encryption, Path | None]:
        file = _ask_file("File for the private key", self._free_name("identity"), check_new)

        def check_page(answer: str) -> Path | None:
            if answer in ("", REMOVE):
                return None
            return path_of(check_new(absolute(answer), [path_of(file)]))

        question = "File for an HTML page of the private key, to print (blank for none): "
        page = ask_until_valid(question, check_page)
        return kinds.with_new_key(file, [], self._current), page

    def _ask_recipients(self) -> Encryption:
        known = kinds.recipients_of(self._current)
        shown = f" ({' '.join(known)})" if known else ""

        def parse(answer: str) -> list[str]:
            if not answer and known:
                return known
            recipients = kinds.check_recipients(answer)
            if not recipients:
                raise UsageError("a public key is needed", hint="give one: age1…")
            return recipients

        recipients = ask_until_valid(f"Public keys, separated by spaces{shown}: ", parse)
        identity_file = ask(
            "File of the private key, only to restore here",
            self._current.get("identity_file"),
            lambda answer: kinds.check_identity_file(absolute(answer), recipients),
        )
        changes = kinds.with_recipients(recipients, self._current).changes
        return Encryption({**changes, "identity_file": identity_file})

    def _password_file(self) -> str:
        """Return the profile's file, as it names it where it exists, or a new one."""
        named = self._current.get("password_file")
        if not named:
            return self._free_name("password")
        path = path_of(str(named), self._config)
        return str(named) if os.path.lexists(path) else from_native(str(path))

    def _free_name(self, what: str) -> str:
        return free_name(self._config, self._profile, what)


def _ask_destination(default: str) -> str | None:
    """Ask until the answer is a destination, also of a script, as 0.6.0 did."""
    while True:
        answer = ask("Default destination", default, str)
        if answer is None or answer in DESTINATIONS:
            return answer
        terminal.say(f"it must be one of {', '.join(DESTINATIONS)}")


def _ask_file(question: str, default: str, check: Parse[str]) -> str:
    """Ask for a file that is needed."""

    def parse(answer: str) -> str:
        if answer == REMOVE:
            raise UsageError("a file is needed", hint="press Ctrl-C to end without a change")
        return check(absolute(answer) if answer else default)

    return ask_until_valid(f"{question} ({printable(default)}): ", parse)


def _ask_new_password() -> str:
    def parse(answer: str) -> str:
        kinds.check_passphrase(answer)
        if terminal.ask_secret("Password confirmation: ") != answer:
            raise PasswordError("the password and its confirmation differ")
        return answer

    return ask_until_valid("Password: ", parse, hidden=True)
