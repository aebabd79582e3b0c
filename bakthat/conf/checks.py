"""Check a profile, and make the relative paths in it absolute."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bakthat.conf.profile import ENCRYPTION_KEYS, KEYS, PATHS
from bakthat.errors import ConfigError
from bakthat.system.text import did_you_mean, printable, to_native

log = logging.getLogger("bakthat")

Place = Callable[[str], str]
"""Returns where a key of a profile is written, for messages: "path:3: profile 'shop'"."""


def problems_of(
    mapping: Mapping[str, Any], place: Place, directory: Path | None
) -> Iterator[ConfigError]:
    """Yield everything that is wrong with a profile.

    *directory* is what relative paths are relative to; with None they are refused.
    """
    for key, given in mapping.items():
        if key not in KEYS:
            yield ConfigError(
                f"{place(key)}: unknown key '{key}'",
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
    """Yield an error for each key of encryption in a file that has no value.

    A template or a script that failed to fill it in must not switch encryption off. An explicit
    ``password: ""`` is accepted: it means unencrypted.
    """
    for key in ENCRYPTION_KEYS:
        if key in mapping and mapping[key] in (None, []):
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
    return (value if key in PATHS and isinstance(value, str) else ""), name


def _is_relative(path: str) -> bool:
    return not path.startswith(("/", "~"))


def _shown(key: str) -> str:
    name = PATHS[key]
    return f"'{name}' below '{key}'" if name else f"'{key}'"
