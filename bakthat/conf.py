"""The configuration: the YAML file, its profiles, their defaults and what is wrong with them."""

from __future__ import annotations

import functools
import logging
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bakthat.errors import ConfigError
from bakthat.hooks import events as events  # bakthat.conf.events is their public name too
from bakthat.policy.defaults import (
    DEFAULT_ATTEMPTS,
    DEFAULT_DESTINATION,
    DEFAULT_LOCAL_PATH,
    DEFAULT_REGION,
    DEFAULT_TIMEOUT,
    DESTINATIONS,
)
from bakthat.system.files import replace_file
from bakthat.system.paths import expanded
from bakthat.system.text import did_you_mean, printable

log = logging.getLogger("bakthat")

DEFAULT_CONFIG = "~/.bakthat.yml"
DEFAULT_DATABASE = "~/.bakthat.sqlite"
DEFAULT_PROFILE = "default"
MAX_TIMEOUT = 24 * 3600
"""Seconds; beyond that, waiting for a storage is no timeout."""
MAX_ATTEMPTS = 100
PATHS = {
    "local_path": None,
    "password_file": None,
    "identity_file": None,
    "plugins_dir": None,
    "prometheus": "textfile",
    "database": None,
}
"""The keys that hold a path, those of a mapping with the setting that does."""


@dataclass(frozen=True)
class Profile:
    """One profile, checked and with its defaults; the keys are those of the YAML file."""

    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    region_name: str = DEFAULT_REGION
    s3_bucket: str | None = None
    glacier_vault: str | None = None
    default_destination: str = DEFAULT_DESTINATION
    endpoint_url: str | None = None
    glacier_endpoint_url: str | None = None
    storage_class: str | None = None
    timeout: int | float = DEFAULT_TIMEOUT
    attempts: int = DEFAULT_ATTEMPTS
    prefix: str = ""
    local_path: str = DEFAULT_LOCAL_PATH
    compress: bool | int = True
    password: str | None = field(default=None, repr=False)
    password_file: str | None = None
    password_command: str | list[str] | None = None
    recipients: list[str] = field(default_factory=list)
    identity_file: str | None = None
    rotation: dict[str, Any] = field(default_factory=dict)
    plugins: list[str] = field(default_factory=list)
    plugins_dir: str = "~/.bakthat_plugins"
    healthchecks: dict[str, Any] = field(default_factory=dict, repr=False)
    webhook: dict[str, Any] = field(default_factory=dict, repr=False)
    apprise: dict[str, Any] = field(default_factory=dict, repr=False)
    prometheus: dict[str, Any] = field(default_factory=dict, repr=False)
    plugin_settings: dict[str, Any] = field(default_factory=dict, repr=False)
    """Whatever users' own plugins want to know."""
    database: str = DEFAULT_DATABASE

    def as_mapping(self) -> dict[str, Any]:
        """Return the profile as the flat dict that ``conf=`` takes."""
        return {key.name: getattr(self, key.name) for key in fields(self)}


@dataclass(frozen=True)
class LoadedProfile:
    """A profile together with where it came from."""

    profile: Profile
    name: str
    origin: str
    """What messages call it: the file's path, or "conf"."""
    raw: Mapping[str, Any] = field(repr=False)
    """The mapping as the user wrote it, but for relative paths: they are made absolute."""
    is_fallback: bool = False
    """True when there is no configuration at all, so that everything stays local."""


def load_profile(
    name: str = DEFAULT_PROFILE,
    *,
    config: str | os.PathLike[str] | None = None,
    conf: Mapping[str, Any] | None = None,
) -> LoadedProfile:
    """Read and check one profile.

    *conf*, one profile as a flat dict, wins over any file. *config* is the path of a
    configuration file, which then must exist; by default ``~/.bakthat.yml``, and when that is
    missing, a profile that stores locally. Raises ConfigError.

    Relative paths in a file count from the file's directory: cron, a shell and a helper's
    temporary directory must not be three stores. In *conf* they are refused.
    """
    if conf is not None:
        return _checked(conf, name, "conf", None)
    path = _path_of(config)
    profiles = _read_profiles(path)
    if profiles is None:
        if config is not None:
            raise ConfigError(f"no such configuration file: '{path}'")
        if name != DEFAULT_PROFILE:
            raise ConfigError(
                f"there is no profile '{name}', since there is no configuration file {path}",
                hint=f"make it with: bakthat configure -p {name}",
            )
        return LoadedProfile(
            Profile(default_destination="local"), name, str(path), {}, is_fallback=True
        )
    if name not in profiles:
        known = ", ".join(map(str, profiles)) or "none"
        raise ConfigError(
            f"{path}: no profile '{name}' (there are: {known})",
            hint=did_you_mean(name, profiles),
        )
    _warn_when_others_can_read(path)
    return _checked(profiles[name], name, str(path), _directory_of(path))


def save_profile(
    changes: Mapping[str, Any],
    *,
    name: str = DEFAULT_PROFILE,
    config: str | os.PathLike[str] | None = None,
) -> Path:
    """Set keys of one profile in the configuration file; a value of None removes its key.

    Other profiles and keys stay. The file is replaced atomically, with mode 0600; a symbolic
    link is followed, so that it stays one. Returns the path. Raises ConfigError.
    """
    import yaml

    path = _path_of(config)
    profiles = _read_profiles(path) or {}
    merged = {**_mapping(profiles.get(name) or {}, name, str(path)), **changes}
    profile = {key: value for key, value in merged.items() if value is not None}
    _checked(profile, name, str(path), _directory_of(path), level=logging.INFO)
    text = yaml.safe_dump(
        {**profiles, name: profile}, default_flow_style=False, allow_unicode=True, sort_keys=False
    )
    target = Path(os.path.realpath(path))
    try:
        replace_file(target, text.encode())
    except OSError as exc:
        raise ConfigError(f"cannot write {path}: {exc.strerror or exc}") from exc
    return path


def read_raw_profile(
    name: str = DEFAULT_PROFILE, *, config: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Return what the file says of a profile, unchecked; {} when it says nothing."""
    path = _path_of(config)
    profiles = _read_profiles(path) or {}
    return _mapping(profiles.get(name) or {}, name, str(path))


def _path_of(config: str | os.PathLike[str] | None) -> Path:
    return expanded(config if config is not None else DEFAULT_CONFIG)


def _directory_of(path: Path) -> Path | None:
    """Return what relative paths in the file count from: the directory in its name.

    Not that of a link's target, which may have another name after every deployment. A pipe and a
    descriptor, such as /dev/stdin, have none.
    """
    is_passing = path.is_relative_to("/dev") or path.is_relative_to("/proc")
    is_missing = not os.path.exists(path)  # it is about to be made
    return path.parent if not is_passing and (is_missing or os.path.isfile(path)) else None


def _read_profiles(path: Path) -> dict[str, Any] | None:
    import yaml

    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror or exc}") from exc
    try:
        content = yaml.load(text, Loader=_unique_keys_loader())
    except yaml.YAMLError as exc:
        raise ConfigError(_yaml_problem(path, text, exc)) from exc
    except (ValueError, RecursionError) as exc:  # an impossible date, or nesting without end
        raise ConfigError(f"{path}: not valid YAML: {str(exc).splitlines()[0]}") from exc
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: must hold profiles by name, not {_kind(content)}",
            hint="begin with a line 'default:' and indent the keys below it",
        )
    return {str(name): profile for name, profile in content.items()}


@functools.cache
def _unique_keys_loader() -> Any:
    """Return yaml's safe loader, made to refuse a key that stands twice in one mapping."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if key.value in seen:
                        raise yaml.constructor.ConstructorError(
                            problem="a key that stands there twice", problem_mark=key.start_mark
                        )
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

    return Loader


def _yaml_problem(path: Path, text: bytes, exc: Exception) -> str:
    """Say what is wrong without quoting the line: it may hold a secret."""
    mark = getattr(exc, "problem_mark", None)
    problem = getattr(exc, "problem", None) or "not valid YAML"
    line = mark.line + 1 if mark is not None else None
    position = getattr(exc, "position", None)
    if position is not None:  # a character that YAML, or a byte that UTF-8, does not have
        problem = "not valid YAML: a byte that is not UTF-8, or a control character"
        in_bytes = getattr(exc, "encoding", "") != "unicode"
        before = text[:position] if in_bytes else text.decode()[:position].encode()
        line = before.count(b"\n") + 1
    where = f"{path}:{line}" if line is not None else str(path)
    return f"{where}: {' '.join(str(problem).split())}"


def _warn_when_others_can_read(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        log.warning("others can read %s (mode %04o): chmod 600 %s", path, mode, path)


def _mapping(value: object, name: str, origin: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{origin}: profile '{name}' must hold keys, not {_kind(value)}")
    return dict(value)


def _checked(
    value: object, name: str, origin: str, directory: Path | None, *, level: int = logging.DEBUG
) -> LoadedProfile:
    """Check a profile whose relative paths count from *directory*; they are told at *level*."""
    raw = _mapping(value if value is not None else {}, name, origin)
    where = f"{origin}: profile '{name}'"
    accepted: dict[str, Any] = {}
    for key, given in raw.items():
        check = _CHECKS.get(key)
        if check is None:
            raise ConfigError(
                f"{where}: unknown key '{key}'",
                hint=did_you_mean(str(key), _CHECKS)
                or "settings of your own plugins go below plugin_settings",
            )
        if given is None:
            continue
        expected = check(given)
        if expected:
            # The value of a secret is never repeated.
            shown = repr(given) if _is_shown(key, given) else _kind(given)
            raise ConfigError(f"{where}: '{key}' must be {expected}, not {shown}")
        accepted[key] = [given] if key == "recipients" and isinstance(given, str) else given
    absolute = _absolute_paths(accepted, where, directory, level)
    return LoadedProfile(Profile(**{**accepted, **absolute}), name, origin, {**raw, **absolute})


def _absolute_paths(
    accepted: Mapping[str, Any], where: str, directory: Path | None, level: int
) -> dict[str, Any]:
    """Return the keys that hold a relative path, with paths from *directory* on in their place."""
    changed: dict[str, Any] = {}
    for key in filter(accepted.__contains__, PATHS):
        value, setting = accepted[key], PATHS[key]
        given = value.get(setting) if setting else value
        if not isinstance(given, str) or not given or given.startswith(("/", "~")):
            continue  # absolute, from a home directory, or wrong, as the plugin will say
        shown = f"'{setting}' below '{key}'" if setting else f"'{key}'"
        if directory is None:
            raise ConfigError(
                f"{where}: {shown} is the relative path '{printable(given)}', "
                "and there is no configuration file from whose directory it could count",
                hint="write the whole path, or one that begins with ~/",
            )
        path = os.path.abspath(directory / given)
        log.log(level, "%s: %s is %s", where, shown, printable(path))
        changed[key] = {**value, setting: path} if setting else path
    return changed


def _is_shown(key: str, value: object) -> bool:
    return key in ("default_destination", "compress") and isinstance(value, (str, int, float))


def _kind(value: object) -> str:
    """Name a value's type in YAML's words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    names = {str: "text", dict: "a mapping", list: "a list", int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")


def _text(value: object) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "text (put it in quotes)"
    if isinstance(value, str):
        return "" if value and "\0" not in value else "text that is not empty"
    return "text"


def _texts(value: object) -> str:
    good = isinstance(value, list) and all(isinstance(each, str) and each for each in value)
    return "" if good else "a list of texts"


def _text_or_texts(value: object) -> str:
    return _text(value) and _texts(value) and "text or a list of texts"


def _destination(value: object) -> str:
    return "" if value in DESTINATIONS else f"one of {', '.join(DESTINATIONS)}"


def _compress(value: object) -> str:
    good = isinstance(value, bool) or (isinstance(value, int) and 0 <= value <= 9)
    return "" if good else "true, false or a level from 0 to 9"


def _timeout(value: object) -> str:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    good = is_number and 0 < value <= MAX_TIMEOUT  # type: ignore[operator]  # just checked
    return "" if good else f"a number of seconds, up to {MAX_TIMEOUT}"


def _attempts(value: object) -> str:
    good = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_ATTEMPTS
    return "" if good else f"a number from 1 to {MAX_ATTEMPTS}"


def _prefix(value: object) -> str:
    if not isinstance(value, str):
        return "text"
    bad = value.startswith("/") or "//" in value or ".." in value.split("/")
    if bad or not value.isprintable():
        return "a beginning of keys without '..', '//', a leading '/' or control characters"
    return ""


def _rotation(value: object) -> str:
    return "" if isinstance(value, Mapping) else "a mapping such as {days: 7, weeks: 4}"


def _settings(value: object) -> str:
    return "" if isinstance(value, Mapping) else "a mapping of settings"


def _password(value: object) -> str:
    return "" if isinstance(value, str) else _text(value)


_CHECKS: dict[str, Callable[[object], str]] = {
    # Each returns what the key must be, or "" when the value is good.
    "access_key": _text,
    "secret_key": _text,
    "region_name": _text,
    "s3_bucket": _text,
    "glacier_vault": _text,
    "default_destination": _destination,
    "endpoint_url": _text,
    "glacier_endpoint_url": _text,
    "storage_class": _text,
    "timeout": _timeout,
    "attempts": _attempts,
    "prefix": _prefix,
    "local_path": _text,
    "compress": _compress,
    "password": _password,
    "password_file": _text,
    "password_command": _text_or_texts,
    "recipients": _text_or_texts,
    "identity_file": _text,
    "rotation": _rotation,
    "plugins": _texts,
    "plugins_dir": _text,
    "healthchecks": _settings,
    "webhook": _settings,
    "apprise": _settings,
    "prometheus": _settings,
    "plugin_settings": _settings,
    "database": _text,
}
