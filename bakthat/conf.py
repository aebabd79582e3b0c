"""The configuration: the YAML file, its profiles, their defaults and their checks."""

from __future__ import annotations

import codecs
import functools
import logging
import os
import re
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bakthat.errors import ConfigError
from bakthat.hooks import events as events  # bakthat.conf.events is their public name too
from bakthat.policy import settings
from bakthat.policy.defaults import (
    DEFAULT_ATTEMPTS,
    DEFAULT_DESTINATION,
    DEFAULT_LOCAL_PATH,
    DEFAULT_REGION,
    DEFAULT_TIMEOUT,
)
from bakthat.system.files import replace_file
from bakthat.system.paths import expanded
from bakthat.system.text import did_you_mean, from_native, printable, reason_of, to_native

log = logging.getLogger("bakthat")

DEFAULT_CONFIG = "~/.bakthat.yml"
DEFAULT_DATABASE = "~/.bakthat.sqlite"
DEFAULT_PROFILE = "default"
PATHS = {
    "local_path": None,
    "password_file": None,
    "identity_file": None,
    "plugins_dir": None,
    "prometheus": "textfile",
    "database": None,
}
"""The keys that hold a path. For a key that holds a mapping, the setting in it that is a path."""

_ENCRYPTION_KEYS = ("password", "password_file", "password_command", "recipients")


def _key(check: settings.Check, default: object = None, *, secret: bool = False) -> Any:
    """Return the dataclass field for a key of the profile, with its default and its check."""
    metadata = {"check": check}
    if isinstance(default, (list, dict)):
        return field(default_factory=default.copy, repr=not secret, metadata=metadata)
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True)
class Profile:
    """A checked profile with its defaults. The fields are the keys of the YAML file."""

    access_key: str | None = _key(settings.word)
    secret_key: str | None = _key(settings.word, secret=True)
    region_name: str = _key(settings.word, DEFAULT_REGION)
    s3_bucket: str | None = _key(settings.bucket)
    glacier_vault: str | None = _key(settings.word)
    default_destination: str = _key(settings.destination, DEFAULT_DESTINATION)
    endpoint_url: str | None = _key(settings.address)
    glacier_endpoint_url: str | None = _key(settings.address)
    storage_class: str | None = _key(settings.storage_class)
    timeout: int | float = _key(settings.timeout, DEFAULT_TIMEOUT)
    attempts: int = _key(settings.attempts, DEFAULT_ATTEMPTS)
    host: str | None = _key(settings.host)
    prefix: str = _key(settings.prefix, "")
    local_path: str = _key(settings.text, DEFAULT_LOCAL_PATH)
    compress: bool | int = _key(settings.compress, True)
    password: str | None = _key(settings.any_text, secret=True)
    password_file: str | None = _key(settings.text)
    password_command: str | list[str] | None = _key(settings.text_or_texts)
    recipients: list[str] = _key(settings.text_or_texts, [])
    identity_file: str | None = _key(settings.text)
    rotation: dict[str, Any] = _key(settings.rotation, {})
    incremental: bool = _key(settings.boolean, False)
    full_every: str | None = _key(settings.interval)
    max_archives: int | None = _key(settings.archives)
    detect: str = _key(settings.detect, "ctime")
    ignore_inode: bool = _key(settings.boolean, False)
    always_read: list[str] = _key(settings.texts, [])
    recheck: int = _key(settings.percent, 0)
    skip_unchanged: bool = _key(settings.boolean, False)
    plugins: list[str] = _key(settings.texts, [])
    plugins_dir: str = _key(settings.text, "~/.bakthat_plugins")
    healthchecks: dict[str, Any] = _key(settings.mapping, {}, secret=True)
    webhook: dict[str, Any] = _key(settings.mapping, {}, secret=True)
    apprise: dict[str, Any] = _key(settings.mapping, {}, secret=True)
    prometheus: dict[str, Any] = _key(settings.mapping, {}, secret=True)
    plugin_settings: dict[str, Any] = _key(settings.mapping, {}, secret=True)
    """The settings of users' own plugins."""
    database: str = _key(settings.text, DEFAULT_DATABASE)

    def as_mapping(self) -> dict[str, Any]:
        """Return the profile as the flat dict that ``conf=`` takes."""
        return {key.name: getattr(self, key.name) for key in fields(self)}


_CHECKS: dict[str, settings.Check] = {key.name: key.metadata["check"] for key in fields(Profile)}


@dataclass(frozen=True)
class LoadedProfile:
    """A profile and where it comes from."""

    profile: Profile
    name: str
    origin: str
    """The path of the file, or "conf"; messages begin with it."""
    mapping: Mapping[str, Any] = field(repr=False)
    """The mapping as the user wrote it, with absolute paths in place of relative ones."""
    is_unconfigured: bool = False
    """Whether there is no configuration file, so that everything is stored locally."""


def load_profile(
    name: str = DEFAULT_PROFILE,
    *,
    config: str | os.PathLike[str] | None = None,
    conf: Mapping[str, Any] | None = None,
) -> LoadedProfile:
    """Read and check one profile.

    *conf*, one profile as a flat dict, wins over any file. *config* is the path of a
    configuration file, which must exist. The default is ``~/.bakthat.yml``; if that is missing,
    the profile stores locally. Raises ConfigError.

    Relative paths in a file are relative to the file's directory, so that they mean the same under
    cron, in a shell and in a helper's temporary directory. In *conf* they are refused.
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
                f"there is no profile '{name}': the configuration file {path} does not exist",
                hint=f"create it with: bakthat configure -p {name}",
            )
        return LoadedProfile(
            Profile(default_destination="local"), name, str(path), {}, is_unconfigured=True
        )
    if name not in profiles:
        known = ", ".join(map(str, profiles)) or "none"
        raise ConfigError(
            f"{path}: no profile '{name}' (there are: {known})",
            hint=did_you_mean(name, profiles) or _profile_hint(name, profiles),
        )
    _warn_when_others_can_read(path)
    _refuse_empty_secrets(profiles[name], f"{path}: profile '{name}'")
    return _checked(profiles[name], name, str(path), _directory_of(path))


def save_profile(
    changes: Mapping[str, Any],
    *,
    name: str = DEFAULT_PROFILE,
    config: str | os.PathLike[str] | None = None,
) -> Path:
    """Set keys of one profile in the configuration file; a value of None removes its key.

    Other profiles and keys stay as they are. The file is replaced atomically, with mode 0600. Of a
    symbolic link, the target is replaced. Returns the path. Raises ConfigError.
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
        raise ConfigError(f"cannot write {path}: {reason_of(exc)}") from exc
    return path


def read_raw_profile(
    name: str = DEFAULT_PROFILE, *, config: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Return a profile as the file has it, unchecked; {} if the file has no such profile.

    Raises ConfigError.
    """
    path = _path_of(config)
    profiles = _read_profiles(path) or {}
    return _mapping(profiles.get(name) or {}, name, str(path))


def _path_of(config: str | os.PathLike[str] | None) -> Path:
    return expanded(config if config is not None else DEFAULT_CONFIG)


def _directory_of(path: Path) -> Path | None:
    """Return the directory that relative paths in the file start from; None for a pipe.

    For a symbolic link it is the directory of the link, since the target may change with every
    deployment. A descriptor such as /dev/stdin counts as a pipe.
    """
    is_descriptor = path.is_relative_to("/dev") or path.is_relative_to("/proc")
    is_missing = not os.path.exists(path)  # it is about to be created
    return path.parent if not is_descriptor and (is_missing or os.path.isfile(path)) else None


def _read_profiles(path: Path) -> dict[str, Any] | None:
    import yaml

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {reason_of(exc)}") from exc
    text = _decode_yaml(path, data)
    try:
        content = yaml.load(text, Loader=_unique_keys_loader())
    except yaml.YAMLError as exc:
        raise _yaml_error(path, text, exc) from exc
    except (ValueError, RecursionError) as exc:  # an impossible date, or endless nesting
        raise ConfigError(f"{path}: not valid YAML: {str(exc).splitlines()[0]}") from exc
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: must hold profiles by name, not {settings.kind(content)}",
            hint="begin with a line 'default:' and indent the keys below it",
        )
    return {str(name): profile for name, profile in content.items()}


@functools.cache
def _unique_keys_loader() -> Any:
    """Return yaml's safe loader, made to refuse a key that occurs twice in one mapping."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if key.value in seen:
                        raise yaml.constructor.ConstructorError(
                            problem="a key that occurs twice", problem_mark=key.start_mark
                        )
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

    return Loader


def _decode_yaml(path: Path, data: bytes) -> str:
    """Decode *data* as YAML requires: as UTF-8, or as UTF-16 after its byte order mark.

    Raises ConfigError with the line of the first byte that cannot be decoded.
    """
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if is_utf16 else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as exc:
        # The codec has removed the byte order mark of UTF-8 from exc.object, but not from data.
        line = exc.object[: exc.start].decode(encoding, "ignore").count("\n") + 1
        raise ConfigError(f"{path}:{line}: {_NOT_TEXT}") from exc


_NOT_TEXT = "not valid YAML: a byte that is not UTF-8, or a control character"


_QUOTE_IT = "put the whole value in quotes"
_YAML_PROBLEMS = (
    (r"found character '\\t'", "a tab", "indent with spaces"),
    (r"found character '(.)'", "a value that begins with {}", _QUOTE_IT),
    (r"found undefined alias|while scanning an alias", "a value that begins with *", _QUOTE_IT),
    (r"could not determine a constructor", "a value that begins with !", _QUOTE_IT),
    (
        r"mapping values are not allowed",
        "a colon within a value, or a wrong indentation",
        f"{_QUOTE_IT}, or align the keys",
    ),
    (r"unexpected end of stream", "a quote that is not closed", "close it"),
    (r"but got '<stream end>'", "a bracket that is not closed", "close it"),
    (r"could not find expected ':'", "a line without a colon", "write it as key: value"),
    (r"expected <block end>, but found '<block mapping", "a wrong indentation", "align the keys"),
    (r"expected (<block end>|'[,}\]]|[,}\]])", "text after the end of a value", _QUOTE_IT),
    (r"a key that occurs twice", "a key that occurs twice", "remove one of the two"),
)
"""Beginnings of the messages of yaml, what they mean, and what to do."""


def _yaml_error(path: Path, text: str, exc: Exception) -> ConfigError:
    """Return the error with the line's number. It does not quote the line: that may be a secret."""
    position = getattr(exc, "position", None)
    if position is not None:  # the reader failed, not the parser
        line = text.count("\n", 0, position) + 1
        return ConfigError(f"{path}:{line}: {_NOT_TEXT}")
    mark = getattr(exc, "problem_mark", None)
    problem = str(getattr(exc, "problem", None) or "")
    for pattern, meaning, hint in _YAML_PROBLEMS:
        found = re.search(pattern, problem)
        if found:
            if hint == "close it":  # the end of the file is not where it is missing
                mark = getattr(exc, "context_mark", None) or mark
            where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
            return ConfigError(f"{where}: {meaning.format(*found.groups())}", hint=hint)
    where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
    return ConfigError(
        f"{where}: not valid YAML", hint="values with special characters need quotes"
    )


def _warn_when_others_can_read(path: Path) -> None:
    _warn_of_mode(path, stat.S_IMODE(path.stat().st_mode))


@functools.cache  # a command may read the file more than once
def _warn_of_mode(path: Path, mode: int) -> None:
    if mode & 0o077:
        log.warning("others can read %s (mode %04o): chmod 600 %s", path, mode, path)


def _refuse_empty_secrets(profile: object, where: str) -> None:
    """Raise ConfigError for a key of encryption without a value.

    A template or a script that failed to fill it in must not switch encryption off. An explicit
    ``password: ""`` is accepted: it means unencrypted.
    """
    for key in _ENCRYPTION_KEYS:
        if isinstance(profile, Mapping) and key in profile and profile[key] in (None, []):
            raise ConfigError(
                f"{where}: '{key}' has no value", hint="give it a value, or remove the line"
            )


def _profile_hint(name: str, profiles: Mapping[str, Any]) -> str:
    if _CHECKS.keys() & profiles.keys():
        return f"begin with a line '{name}:' and indent the keys below it"
    return f"create it with: bakthat configure -p {name}"


def _mapping(value: object, name: str, origin: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{origin}: profile '{name}' must hold keys, not {settings.kind(value)}",
            hint="write each key on an indented line of its own, as key: value",
        )
    return dict(value)


def _checked(
    value: object, name: str, origin: str, directory: Path | None, *, level: int = logging.DEBUG
) -> LoadedProfile:
    """Check a profile. Make its relative paths absolute from *directory*; log them at *level*."""
    mapping = _mapping(value if value is not None else {}, name, origin)
    where = f"{origin}: profile '{name}'"
    accepted: dict[str, Any] = {}
    for key, given in mapping.items():
        check = _CHECKS.get(key)
        if check is None:
            raise ConfigError(
                f"{where}: unknown key '{key}'",
                hint=did_you_mean(str(key), _CHECKS)
                or "settings of your own plugins go below plugin_settings",
            )
        if given is None:
            continue
        problem = check(given)
        if problem is not None:
            raise ConfigError(f"{where}: '{key}' {problem.text}", hint=problem.hint)
        accepted[key] = [given] if key == "recipients" and isinstance(given, str) else given
    absolute = _absolute_paths(accepted, where, directory, level)
    return LoadedProfile(Profile(**{**accepted, **absolute}), name, origin, {**mapping, **absolute})


def _absolute_paths(
    accepted: Mapping[str, Any], where: str, directory: Path | None, level: int
) -> dict[str, Any]:
    """Return the paths that change: relative ones become absolute, below *directory*.

    YAML is Unicode, so a path in a file of configuration gets the bytes of UTF-8.
    """
    changed: dict[str, Any] = {}
    for key in filter(accepted.__contains__, PATHS):
        value, setting = accepted[key], PATHS[key]
        given = value.get(setting) if setting else value
        if not isinstance(given, str) or not given:
            continue  # invalid, which the plugin reports
        path = given if directory is None else to_native(given)
        if not given.startswith(("/", "~")):
            shown = f"'{setting}' below '{key}'" if setting else f"'{key}'"
            if directory is None:
                raise ConfigError(
                    f"{where}: {shown} is the relative path '{printable(given)}'; only a "
                    "configuration file on disk may have relative paths",
                    hint="use an absolute path, or one that begins with ~/",
                )
            path = os.path.abspath(directory / path)
            log.log(level, "%s: %s is %s", where, shown, printable(path))
        if path != given:
            changed[key] = {**value, setting: path} if setting else path
    return changed


def machine_name() -> str:
    """Return the name of this machine, changed where it cannot be the name of a host.

    An empty one becomes "localhost": the backups of an unknown host are not this machine's.
    """
    name = from_native(socket.gethostname())
    if settings.host(name) is not None:
        name = printable(name).replace("/", "-").strip(". ")
        name = name.encode()[: settings.MAX_HOST_BYTES].decode(errors="ignore")
    return name if settings.host(name) is None else "localhost"
