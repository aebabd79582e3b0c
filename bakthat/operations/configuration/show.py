"""Show the profile that is in force, where each value comes from, and no secret."""

from __future__ import annotations

import os
import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bakthat.conf import DEFAULT_PROFILE, KEYS, PATHS, LoadedProfile, Source, load_profile
from bakthat.conf.files.edit import in_line
from bakthat.conf.profile import SECRET_COMMANDS, SECRET_FILES, SECRETS
from bakthat.conf.secrets import way_of
from bakthat.passwords import PASSWORD_VARIABLE
from bakthat.system.paths import PathLike
from bakthat.system.text import printable, shown_key

HIDDEN = "***"
_USER_OF_URL = re.compile(r"(?<=//)[^/\s]*(?=@)")
_COLUMN = 40
"""Where the comments begin at most, behind values that are not longer."""
_WIDTH = 80
_UNSET: tuple[object, ...] = (None, "", [], {})


@dataclass(frozen=True, slots=True)
class Setting:
    """A key of the profile that is in force."""

    key: str
    value: Any
    """Without secrets; None where it is not set and has no default."""
    source: Source

    @property
    def is_set(self) -> bool:
        """Whether it has a value: one that was given, or a default."""
        return self.source.kind != "default" or self.value not in _UNSET

    def as_dict(self) -> dict[str, Any]:
        """Return key, value and where it comes from, as JSON has it."""
        source = self.source
        found: dict[str, Any] = {"key": self.key, "value": self.value, "source": source.kind}
        if source.kind == "variable":
            found["variable"] = source.name
        file = source.name if source.kind == "file" else source.path
        if file:
            found["file"] = file
        if source.line is not None:
            found["line"] = source.line
        return found


def effective_settings(
    profile: str = DEFAULT_PROFILE, config: PathLike | None = None
) -> tuple[LoadedProfile, list[Setting]]:
    """Return the profile, and its keys in the order of the reference. Raises ConfigError."""
    loaded = load_profile(profile, config=config)
    values = loaded.profile.as_mapping()
    for key in SECRETS:
        if way_of(loaded, key) not in (None, key):
            values[key] = None  # the default is not in force
    settings = [
        Setting(key, without_secrets(key, values[key]), loaded.source_of(key)) for key in KEYS
    ]
    if PASSWORD_VARIABLE in os.environ:  # it is used before every key of the profile
        position = list(KEYS).index("password")
        settings[position] = Setting("password", HIDDEN, Source("variable", PASSWORD_VARIABLE))
    return loaded, settings


def as_yaml(loaded: LoadedProfile, settings: list[Setting]) -> Iterator[str]:
    """Yield the lines of a configuration file with the profile, and where each value is from."""
    yield f"# Profile '{printable(loaded.name)}'. Secrets are hidden."
    yield f"{in_line(loaded.name)}:"
    rows = {f"  {each.key}: {in_line(each.value)}": each for each in settings if each.is_set}
    width = min(max(map(len, rows)), _COLUMN)
    for row, setting in rows.items():
        yield f"{row:<{width}}  # {printable(str(setting.source))}"
    # A secret has three keys: where one is set, the others are not missing, and else one is enough.
    others = {*SECRET_FILES, *SECRET_COMMANDS}
    others |= {key for key in SECRETS if way_of(loaded, key) is not None}
    unset = ", ".join(each.key for each in settings if not each.is_set and each.key not in others)
    yield from textwrap.wrap(
        f"Not set: {unset}", _WIDTH, initial_indent="  # ", subsequent_indent="  # "
    )


def without_secrets(key: str, value: Any) -> Any:
    """Return the value of a key with *** for what may be a secret."""
    if key in SECRETS and key in PATHS:
        return _without_password(value) if isinstance(value, str) else value
    if key in SECRETS:
        return _hidden(value)
    if key == "recipients":  # a password may have come here by mistake
        return [each if each.startswith("age1") else HIDDEN for each in value]
    if key in SECRET_COMMANDS and value is not None:
        return _program_of(value)
    return _without_users(value)


def _hidden(value: Any) -> Any:
    """Return a value with *** for each text and number in it, and the first words of its names.

    What is empty, true or false stays.
    """
    if isinstance(value, Mapping):
        return {shown_key(name): _hidden(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_hidden(each) for each in value]
    return value if value is None or value == "" or isinstance(value, bool) else HIDDEN


def _program_of(command: str | list[str]) -> str:
    """Return the program of a command line; its arguments may have a secret."""
    try:
        words = shlex.split(command) if isinstance(command, str) else command
    except ValueError:  # a quote that is not closed
        return HIDDEN
    return " ".join([*words[:1], *([HIDDEN] if len(words) > 1 else [])])


def _without_password(address: str) -> str:
    """Return a path as it is, and a URL without its password and the parameters of its query."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    start, mark, query = rest.partition("?")
    users, at, host = start.rpartition("@")
    if not at and "@" in query:  # the mark may be one of a password that is not quoted
        users, host = start, ""
    user, colon, _ = users.partition(":")
    shown = f"{user}:{HIDDEN}" if colon else user
    return f"{scheme}://{shown}{at}{host}{f'?{HIDDEN}' if mark else ''}"


def _without_users(value: Any) -> Any:
    """Return a value without the user and the password in its URLs."""
    if isinstance(value, str):
        return _USER_OF_URL.sub(HIDDEN, value)
    if isinstance(value, list):
        return [_without_users(each) for each in value]
    if isinstance(value, Mapping):
        return {name: _without_users(each) for name, each in value.items()}
    return value
