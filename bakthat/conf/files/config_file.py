"""The configuration file: find it, read it, and say which line a profile or a key is in."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bakthat.conf.files.content import content_of
from bakthat.conf.files.yaml_text import Document, YamlError, decoded, parse
from bakthat.conf.profile import DEFAULT_CONFIG
from bakthat.errors import ConfigError
from bakthat.policy import settings
from bakthat.system.paths import expanded
from bakthat.system.text import reason_of

log = logging.getLogger("bakthat")

JOBS = "jobs"
"""The key beside the profiles that has the jobs; no profile has this name."""


@dataclass(frozen=True)
class ConfigFile:
    """A configuration file that was read."""

    path: Path
    text: str = field(repr=False)
    encoding: str
    profiles: Mapping[str, Any] = field(repr=False)
    """The profiles by their names, unchecked: a profile may be anything but a mapping."""
    jobs: object = field(repr=False)
    """What the file has as ``jobs``, unchecked; None without that."""
    _document: Document = field(repr=False)

    def place(self, *keys: str | int) -> str:
        """Return where a profile, or one key of it, is, for messages: the path and the line.

        A number is that of an entry of a list, from 0 on.

        Of what the file does not have it is the path alone.
        """
        line = self._document.line_of(*keys)
        return str(self.path) if line is None else f"{self.path}:{line}"

    def line_of(self, name: str, key: str) -> int | None:
        """Return the number of the line with a key of the profile *name*; None without one."""
        return self._document.line_of(name, key)

    def mapping(self, name: str) -> dict[str, Any]:
        """Return the profile *name*, which may be missing, unchecked. Raises ConfigError."""
        return as_mapping(self.profiles.get(name), f"{self.place(name)}: profile '{name}'")


def path_of(config: str | os.PathLike[str] | None) -> Path:
    """Return the path of the configuration file, which is *config* or the default."""
    return expanded(config if config is not None else DEFAULT_CONFIG)


def directory_of(path: Path) -> Path | None:
    """Return the directory that relative paths in the file start from; None for a pipe.

    For a symbolic link it is the directory of the link, since the target may change with every
    deployment. A descriptor such as /dev/stdin counts as a pipe.
    """
    is_descriptor = path.is_relative_to("/dev") or path.is_relative_to("/proc")
    is_missing = not os.path.exists(path)  # it is about to be created
    return path.parent if not is_descriptor and (is_missing or os.path.isfile(path)) else None


def read_file(path: Path) -> ConfigFile | None:
    """Read the configuration file *path*; None when there is none. Raises ConfigError."""
    try:
        data = content_of(path)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise ConfigError(
            f"cannot read {path}: {reason_of(exc)}",
            hint="check the name and that this user may read it",
        ) from exc
    return file_of(path, data)


def file_of(path: Path, data: bytes) -> ConfigFile:
    """Return the configuration file *path* with the content *data*. Raises ConfigError."""
    try:
        text, encoding = decoded(data)
        document = parse(text)
        profiles = _profiles_of(document, path)
        jobs = profiles.pop(JOBS, None)
        if isinstance(jobs, Mapping):
            jobs = document.items(JOBS)
    except YamlError as exc:
        where = str(path) if exc.line is None else f"{path}:{exc.line}"
        raise ConfigError(f"{where}: {exc}", hint=exc.hint) from exc
    return ConfigFile(path, text, encoding, profiles, jobs, document)


def _profiles_of(document: Document, path: Path) -> dict[str, Any]:
    if document.content is None:
        return {}
    if not isinstance(document.content, dict):
        raise ConfigError(
            f"{path}: must hold profiles by name, not {settings.kind(document.content)}",
            hint="begin with a line 'default:' and indent the keys below it",
        )
    return document.items()


def as_mapping(value: object, where: str) -> dict[str, Any]:
    """Return a profile as a dict; that of an empty one is empty. Raises ConfigError."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{where} must hold keys, not {settings.kind(value)}",
            hint="write each key on an indented line of its own, as key: value",
        )
    return dict(value)


def readable_by_others(path: Path) -> str:
    """Return the warning about a file that other users can read, or ""."""
    try:
        mode = path.stat().st_mode
    except OSError:  # it was removed since it was read
        return ""
    if mode & 0o077 and stat.S_ISREG(mode):
        return f"others can read {path} (mode {stat.S_IMODE(mode):04o}): chmod 600 {path}"
    return ""
