"""The configuration in the environment: BAKTHAT_<KEY>, BAKTHAT_<KEY>_FILE, and their checks.

No message quotes a value, which may be a secret: the name of its variable says what it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bakthat.conf.files.content import content_of
from bakthat.conf.files.yaml_text import YamlError, parse
from bakthat.conf.profile import DEFAULT_PROFILE, ENCRYPTION_KEYS, KEYS, PATHS
from bakthat.errors import ConfigError
from bakthat.system.paths import expanded
from bakthat.system.text import (
    did_you_mean,
    from_native,
    is_text,
    printable,
    reason_of,
    to_native,
)

PREFIX = "BAKTHAT_"
FILE_SUFFIX = "_FILE"
CONFIG_VARIABLE = "BAKTHAT_CONFIG"
"""The configuration file of a command without ``-c``."""
PROFILE_VARIABLE = "BAKTHAT_PROFILE"
"""The profile of a command without ``-p``."""

_NO_HOME = "there is no such home directory"


@dataclass(frozen=True)
class Setting:
    """The value of a key that a variable sets."""

    value: Any = field(repr=False)
    variable: str
    path: str = ""
    """The file that the variable names, if it names one."""


class Environment(NamedTuple):
    """What the variables say."""

    settings: Mapping[str, Setting]
    """The valid ones, by their keys."""
    problems: tuple[ConfigError, ...]
    """What is wrong with the others."""
    unknown: tuple[str, ...]
    """A warning about each variable that means nothing."""


def default_config() -> str | None:
    """Return the configuration file that BAKTHAT_CONFIG names, or None. Raises ConfigError."""
    given = os.environ.get(CONFIG_VARIABLE)
    if given is not None:
        _refuse_relative(given, CONFIG_VARIABLE)
    return given


def default_profile() -> str:
    """Return the profile that BAKTHAT_PROFILE names, or the default one. Raises ConfigError."""
    given = os.environ.get(PROFILE_VARIABLE, DEFAULT_PROFILE)
    if not given:
        raise _empty(PROFILE_VARIABLE)
    return from_native(given)


def read_environment() -> Environment:
    """Read and check the variables."""
    found: dict[str, Setting] = {}
    problems = []
    for key in KEYS:
        try:
            setting = _setting_of(key)
        except ConfigError as exc:
            problems.append(exc)
        else:
            if setting is not None:
                found[key] = setting
    return Environment(found, tuple(problems), tuple(_unknown()))


def variable_of(key: str) -> str:
    """Return the variable that sets a key."""
    return f"{PREFIX}{key.upper()}"


def _setting_of(key: str) -> Setting | None:
    variable = variable_of(key)
    file_variable = f"{variable}{FILE_SUFFIX}"
    if variable in os.environ and file_variable in os.environ:
        raise ConfigError(f"{variable} and {file_variable} are both set", hint=_unset(variable))
    if key == "password":
        return None  # bakthat.passwords reads BAKTHAT_PASSWORD; the other sets password_file
    if variable in os.environ:
        given = os.environ[variable]
        text = given if _is_path(key) else from_native(given)  # the bytes of a path may be any
        return Setting(_checked(key, text, variable), variable)
    # Where the file has a key of its own, the variable sets that one.
    if file_variable in os.environ and f"{key}_file" not in KEYS:
        path = os.environ[file_variable]
        text = _content_of(path, file_variable, is_secret=KEYS[key].is_secret)
        text = to_native(text) if _is_path(key) else text
        return Setting(_checked(key, text, file_variable), file_variable, path)
    return None


def _is_path(key: str) -> bool:
    return key in PATHS and PATHS[key] is None


def _content_of(given: str, variable: str, *, is_secret: bool) -> str:
    """Return the text of a file without the newline at its end."""
    _refuse_relative(given, variable)
    shown = "" if is_secret else f" '{printable(given)}'"  # it may be the secret itself
    try:
        text = content_of(expanded(given)).decode()
    except OSError as exc:
        raise ConfigError(
            f"{variable}: cannot read the file{shown}: {reason_of(exc)}",
            hint="check the name and that this user may read it",
        ) from None
    except UnicodeDecodeError:
        # Not "from exc": that exception holds the content.
        raise ConfigError(
            f"{variable}: the file{shown} is not UTF-8 text", hint="save it as UTF-8"
        ) from None
    if text.endswith("\n"):
        text = text[:-1].removesuffix("\r")
    if not text:
        raise ConfigError(
            f"{variable}: the file{shown} is empty",
            hint=f"write the value into it, or {_unset(variable)}",
        )
    return text


def _checked(key: str, text: str, variable: str) -> Any:
    """Return the value of a key. Raises ConfigError."""
    check = KEYS[key].check
    if not text and check(text) is not None:
        raise _empty(variable)
    value = _value_of(key, text, variable)
    if value == [] and key in ENCRYPTION_KEYS:  # a broken script must not switch encryption off
        raise _empty(variable)
    problem = check(value)
    if problem is not None:
        raise ConfigError(f"{variable} {problem.text}", hint=_hint_on(key, problem.hint))
    name = PATHS.get(key)
    if _is_path(key):
        _refuse_relative(value, variable)
    elif name is not None and isinstance(value.get(name), str) and value[name]:
        _refuse_relative(value[name], f"{variable}: '{name}'")
        value = {**value, name: to_native(value[name])}
    return value


def _hint_on(key: str, hint: str) -> str:
    """Return how to write the value of a key, or *hint* where it takes no YAML."""
    kind = KEYS[key].check.schema["type"]
    if kind == "array":
        return "write it as YAML, such as [one, two]"
    if kind != "object":
        return hint
    example = ", such as {days: 7, weeks: 4}" if key == "rotation" else ""
    return f"write it as YAML, in braces{example}"


def _value_of(key: str, text: str, variable: str) -> Any:
    """Return what a text stands for: itself where the key takes text, and else YAML."""
    if _is_path(key):
        return text
    if not is_text(text):
        raise ConfigError(f"{variable} is not UTF-8 text", hint="give it the value in UTF-8")
    types = KEYS[key].check.schema["type"]
    takes_list = "array" in types
    if "string" in types and not (takes_list and text.startswith(("[", "- "))):
        return text
    try:
        return parse(text).content
    except YamlError as exc:
        line = f", line {exc.line}" if exc.line and "\n" in text else ""
        raise ConfigError(f"{variable}{line}: {exc}", hint=exc.hint) from None


def _refuse_relative(path: str, place: str) -> None:
    """Raise ConfigError for a relative path: under cron, the working directory is another one.

    Raises ConfigError also for a path that cannot be expanded.
    """
    if not path:
        raise _empty(place)
    if not path.startswith(("/", "~")):
        raise ConfigError(
            f"{place} is a relative path", hint="use an absolute path, or one that begins with ~/"
        )
    try:
        expanded(path)
    except ConfigError:  # its message quotes the path
        problem = "a path cannot hold a NUL character" if "\0" in path else _NO_HOME
        hint = "give the whole path, which begins with a slash"
        raise ConfigError(f"{place}: {problem}", hint=hint) from None


def _empty(variable: str) -> ConfigError:
    return ConfigError(
        f"{variable} is set, but empty", hint=f"give it a value, or {_unset(variable)}"
    )


def _unset(variable: str) -> str:
    return f"unset it: unset {variable}"


def _unknown() -> Iterator[str]:
    """Yield a warning about each variable that looks like one of bakthat's and is none."""
    known = {"CONFIG", "PROFILE"}
    known |= {f"{key.upper()}{suffix}" for key in KEYS for suffix in ("", FILE_SUFFIX)}
    for variable in sorted(os.environ):
        name = variable.removeprefix(PREFIX)
        if variable.startswith(PREFIX) and name not in known:
            hint = did_you_mean(name, known).replace("did you mean ", f"did you mean {PREFIX}")
            yield f"unknown variable {printable(variable)}{f'; {hint}' if hint else ''}"
