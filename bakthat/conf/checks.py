"""Check a profile, make the relative paths in it absolute, and say what a text is as a value.

No message quotes a value that may be a secret.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bakthat.conf.files.yaml_text import YamlError, parse
from bakthat.conf.profile import KEYS, NEVER_EMPTY, PATHS
from bakthat.database.address import is_address
from bakthat.errors import ConfigError
from bakthat.policy.settings import SSE_C
from bakthat.system.paths import expanded
from bakthat.system.text import did_you_mean, is_text, printable, shown_key, to_native

log = logging.getLogger("bakthat")

_SSE_C = "sse_customer_"
"""What the names of SSE-C's settings begin with, as others call them."""
_NO_HOME = "there is no such home directory"

Place = Callable[[str], str]
"""Returns where a key of a profile is written, for messages: "path:3: profile 'shop'"."""


def problems_of(
    mapping: Mapping[str, Any], place: Place, directory: Path | None
) -> Iterator[ConfigError]:
    """Yield everything that is wrong with a profile.

    *directory* is what relative paths are relative to; with None they are refused.
    """
    for key, given in mapping.items():
        if str(key).startswith(_SSE_C):
            yield ConfigError(f"{place(key)}: '{shown_key(key)}': there is no SSE-C", hint=SSE_C)
        elif key not in KEYS:
            yield ConfigError(
                f"{place(key)}: unknown key '{shown_key(key)}'",
                hint=did_you_mean(str(key), KEYS)
                or "settings of your own plugins go below plugin_settings",
            )
        elif given is not None:
            problem = KEYS[key].check(given)
            if problem is not None:
                yield ConfigError(f"{place(key)}: '{key}' {problem.text}", hint=problem.hint)
            elif directory is None:
                yield from _relative_paths(key, given, place)


def empty_secrets(mapping: Mapping[str, Any], place: Place) -> Iterator[ConfigError]:
    """Yield an error for each key in a file that must have a value, and has none."""
    for key, value in mapping.items():
        if key in NEVER_EMPTY and value in (None, []):
            yield ConfigError(
                f"{place(key)}: '{key}' has no value", hint="give it a value, or remove the line"
            )


def accepted(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a profile without problems, as the fields of Profile have them."""
    return {
        key: [value] if key == "recipients" and isinstance(value, str) else value
        for key, value in mapping.items()
        if value is not None
    }


def absolute_paths(
    mapping: Mapping[str, Any], place: Place, directory: Path | None, *, level: int = logging.DEBUG
) -> dict[str, Any]:
    """Return the mapping of a file with absolute paths in place of those relative to *directory*.

    Each is logged at *level*. With None no path is relative. YAML is Unicode, so a path in a file
    gets the bytes of UTF-8.
    """
    changed = dict(mapping)
    for key in filter(mapping.__contains__, PATHS):
        given, name = _path_in(mapping, key)
        if not given:
            continue
        path = to_native(given)
        if directory is not None and _is_relative(given):
            path = os.path.abspath(directory / path)
            log.log(level, "%s: %s is %s", place(key), _shown(key), printable(path))
        changed[key] = {**mapping[key], name: path} if name else path
    return changed


def _relative_paths(key: str, value: Any, place: Place) -> Iterator[ConfigError]:
    given, _ = _path_in({key: value}, key)
    if given and _is_relative(given):
        yield ConfigError(
            f"{place(key)}: {_shown(key)} is the relative path '{printable(given)}'; only a "
            "configuration file on disk may have relative paths",
            hint="use an absolute path, or one that begins with ~/",
        )


def _path_in(mapping: Mapping[str, Any], key: str) -> tuple[str, str | None]:
    """Return the path that a key holds, or "", and the setting in its mapping that is the path."""
    name = PATHS.get(key)
    value = mapping[key].get(name) if name else mapping[key]
    is_path = key in PATHS and isinstance(value, str)
    if key == "database" and is_path and is_address(value):
        return "", name
    return (value if is_path else ""), name


def _is_relative(path: str) -> bool:
    return not path.startswith(("/", "~"))


def _shown(key: str) -> str:
    name = PATHS[key]
    return f"'{name}' below '{key}'" if name else f"'{key}'"


def value_of(key: str, text: str, place: str) -> Any:
    """Return the value that a text gives to a key: the text of a variable, a file or a program.

    *place* is where it is, for messages, such as "BAKTHAT_WEBHOOK". The text of a path has the
    bytes of the system's names. Raises ConfigError for a value that is not valid.
    """
    check = KEYS[key].check
    if not text and check(text) is not None:
        raise empty_error(place)
    value = _parsed(key, text, place)
    if value == [] and key in NEVER_EMPTY:
        raise empty_error(place)
    problem = check(value)
    if problem is not None:
        raise ConfigError(f"{place} {problem.text}", hint=_hint_on(key, problem.hint))
    name = PATHS.get(key)
    if key == "database" and is_address(value):
        return value
    if is_path(key):
        refuse_relative(value, place)
    elif name is not None and isinstance(value.get(name), str) and value[name]:
        refuse_relative(value[name], f"{place}: '{name}'")
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


def _parsed(key: str, text: str, place: str) -> Any:
    """Return what a text stands for: itself where the key takes text, and else YAML."""
    if is_path(key):
        return text
    if not is_text(text):
        raise ConfigError(f"{place} is not UTF-8 text", hint="give it the value in UTF-8")
    types = KEYS[key].check.schema["type"]
    takes_list = "array" in types
    if "string" in types and not (takes_list and text.startswith(("[", "- "))):
        return text
    try:
        return parse(text).content
    except YamlError as exc:
        line = f", line {exc.line}" if exc.line and "\n" in text else ""
        raise ConfigError(f"{place}{line}: {exc}", hint=exc.hint) from None


def is_path(key: str) -> bool:
    """Return whether the value of a key is a path."""
    return key in PATHS and PATHS[key] is None


def refuse_relative(path: str, place: str) -> None:
    """Raise ConfigError for a relative path: under cron, the working directory is another one.

    Raises ConfigError also for a path that cannot be expanded.
    """
    if not path:
        raise empty_error(place)
    if not path.startswith(("/", "~")):
        raise ConfigError(
            f"{place} is a relative path", hint="use an absolute path, or one that begins with ~/"
        )
    if not _is_expandable(path):
        problem = "a path cannot hold a NUL character" if "\0" in path else _NO_HOME
        hint = "give the whole path, which begins with a slash"
        raise ConfigError(f"{place}: {problem}", hint=hint)


def _is_expandable(path: str) -> bool:
    try:
        expanded(path)
    except ConfigError:  # its message quotes the path
        return False
    return True


def empty_error(place: str) -> ConfigError:
    """Return the error of a variable without a value."""
    return ConfigError(f"{place} is set, but empty", hint=f"give it a value, or {unset(place)}")


def unset(variable: str) -> str:
    """Return the hint to unset a variable."""
    return f"unset it: unset {variable}"
