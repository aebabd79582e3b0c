"""Load a profile: from the file and the environment, or from a mapping."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bakthat.conf import checks
from bakthat.conf.configuration import Configuration, read_configuration
from bakthat.conf.environment import CREDENTIALS_VARIABLE, Environment, read_environment
from bakthat.conf.files.config_file import (
    JOBS,
    ConfigFile,
    as_mapping,
    directory_of,
    readable_by_others,
)
from bakthat.conf.profile import DEFAULT_PROFILE, KEYS, SECRETS, Profile
from bakthat.errors import ConfigError
from bakthat.system.text import did_you_mean

log = logging.getLogger("bakthat")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the value of a key comes from."""

    kind: str
    """ "file", "variable", "conf" or "default"."""
    name: str = ""
    """The path of the configuration file, or the name of the variable."""
    line: int | None = None
    """The line of the file, where it is known."""
    path: str = ""
    """The file that the variable names, if it names one."""

    def __str__(self) -> str:
        if self.kind == "file":
            return self.name if self.line is None else f"{self.name}:{self.line}"
        if self.kind == "variable":
            return f"{self.name} ({self.path})" if self.path else self.name
        return self.kind


_DEFAULT = Source("default")


@dataclass(frozen=True)
class LoadedProfile(Mapping[str, Any]):
    """A profile and where it comes from. As a mapping it has the keys that were set.

    It can be passed as ``conf=``: messages then go on to name the file that it comes from.
    """

    profile: Profile
    name: str
    origin: str
    """The path of the file, or "conf"; messages begin with it."""
    mapping: Mapping[str, Any] = field(repr=False)
    """The keys as the user set them, with absolute paths in place of relative ones; without a file
    also the destination."""
    is_unconfigured: bool = False
    """Whether neither a file nor a variable says where to store, so that it is done locally."""
    sources: Mapping[str, Source] = field(default_factory=dict)
    """Where the values come from, by their keys; those of other keys are defaults."""
    job: str = ""
    """The job that uses it, which its backups name; "" for none."""

    def __getitem__(self, key: str) -> Any:
        return self.mapping[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.mapping)

    def __len__(self) -> int:
        return len(self.mapping)

    def with_plugins(self, names: Sequence[str]) -> LoadedProfile:
        """Return the profile with these plugins, dotted names, in place of its own."""
        return replace(
            self,
            profile=replace(self.profile, plugins=list(names)),
            mapping={**self.mapping, "plugins": list(names)},
        )

    def source_of(self, key: str) -> Source:
        """Return where the value of a key comes from."""
        return self.sources.get(key, _DEFAULT)

    def place(self, key: str) -> str:
        """Return where the value of a key is set, for the beginning of a message."""
        source = self.source_of(key)
        if source.kind == "variable":
            return source.name
        origin = str(source) if source.kind == "file" else self.origin
        return f"{origin}: profile '{self.name}'"


def load_profile(
    name: str = DEFAULT_PROFILE,
    *,
    config: str | os.PathLike[str] | None = None,
    conf: Mapping[str, Any] | None = None,
) -> LoadedProfile:
    """Read and check one profile.

    *conf*, one profile as a flat dict, wins over any file and over the environment, with one
    exception: BAKTHAT_PASSWORD, which is no key of a profile, wins over the keys of encryption in
    either (:func:`bakthat.passwords.encryption_keys`). *config* is the path of a configuration
    file, which must exist. The default is ``~/.bakthat.yml``; without it, the environment decides,
    and else the profile stores locally. Variables of the environment win over the file. Raises
    ConfigError.

    Relative paths in a file are relative to the file's directory, so that they mean the same under
    cron, in a shell and in a helper's temporary directory. In *conf* and in variables they are
    refused.
    """
    if isinstance(conf, LoadedProfile):
        return conf
    if conf is not None:
        return _from_mapping(conf, name)
    return profile_in(read_configuration(config), name)


def profile_in(configuration: Configuration, name: str) -> LoadedProfile:
    """Check one profile of a configuration that was read, as :func:`load_profile` does."""
    missing = problem_of_name(name, configuration)
    if missing is not None:
        raise missing
    file = configuration.profiles.get(name)
    if file is not None:
        _raise_first(problems_in(file, name))
    _warn(filter(None, [readable_by_others(each.path) for each in configuration.files]))
    environment = read_environment()
    _raise_first(environment.problems)
    _warn(environment.unknown)
    return combined(name, configuration.path if file is None else file.path, file, environment)


def destination_without_file() -> str:
    """Return the default destination where no file says one. Raises ConfigError.

    Variables of the environment say it by the destination or its container; without them, it is
    local.
    """
    environment = read_environment()
    _raise_first(environment.problems)
    given = {key: setting.value for key, setting in environment.settings.items()}
    return str(given.get("default_destination") or _destination_without_file(given))


def problem_of_name(name: str, configuration: Configuration) -> ConfigError | None:
    """Return the error for a profile that the configuration does not have; None where it has it.

    Without any file, there is the default profile, unless the command named a file.
    """
    path, is_named = configuration.path, configuration.is_named
    if not configuration.files and is_named:
        return ConfigError(
            f"no such configuration file: '{path}'",
            hint=f"make it with: bakthat configure --config {shlex.quote(str(path))}",
        )
    profiles = configuration.profiles
    if name in profiles:
        return None
    words = ["-p", name, *(["-c", str(path)] if is_named else [])]
    create = f"create it with: bakthat configure {shlex.join(words)}"
    if name == JOBS:
        return ConfigError(
            f"a profile cannot be called '{JOBS}': the jobs are there", hint="choose another name"
        )
    if not configuration.files:
        message = f"there is no profile '{name}': the configuration file {path} does not exist"
        return None if name == DEFAULT_PROFILE else ConfigError(message, hint=create)
    known = ", ".join(profiles) or "none"
    hint = did_you_mean(name, profiles)
    if not hint and KEYS.keys() & profiles.keys():
        hint = f"begin with a line '{name}:' and indent the keys below it"
    shown = (
        path
        if path in {each.path for each in configuration.files}
        else (configuration.files[0].path)
    )
    message = f"{shown}: no profile '{name}' (there are: {known})"
    return ConfigError(message, hint=hint or create)


def problems_in(file: ConfigFile, name: str) -> Iterator[ConfigError]:
    """Yield everything that is wrong with the profile *name* of a file."""
    try:
        mapping = file.mapping(name)
    except ConfigError as exc:
        yield exc
        return
    place = _place_in(file, name)
    yield from checks.empty_secrets(mapping, place)
    yield from checks.problems_of(mapping, place, directory_of(file.path))


def faulty_keys(file: ConfigFile, name: str) -> frozenset[str]:
    """Return the keys of the profile *name*, which is a mapping, that have a problem."""
    place, directory = _place_in(file, name), directory_of(file.path)
    return frozenset(
        key
        for key, value in file.mapping(name).items()
        if any(checks.problems_of({key: value}, place, directory))
    )


def combined(
    name: str,
    path: Path,
    file: ConfigFile | None,
    environment: Environment,
    *,
    without: Collection[str] = (),
) -> LoadedProfile:
    """Return a profile of *file*, or of none, with what the variables say in its place.

    Nothing is wrong with the keys of the profile, but those in *without*, which are left out.
    """
    mapping: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    if file is not None:
        place, directory = _place_in(file, name), directory_of(path)
        sound = {key: value for key, value in file.mapping(name).items() if key not in without}
        mapping = checks.absolute_paths(sound, place, directory)
        for key in [key for key, value in mapping.items() if value is not None]:
            sources[key] = Source("file", str(path), file.line_of(name, key))
    given = {key: setting.value for key, setting in environment.settings.items()}
    for key in _superseded(environment):
        mapping.pop(key, None)
        sources.pop(key, None)
    for key, setting in environment.settings.items():
        sources[key] = Source("variable", setting.variable, path=setting.path)
    mapping |= given
    if file is None:
        mapping.setdefault("default_destination", _destination_without_file(given))
    says_where = {"default_destination", "s3_bucket", "glacier_vault", "local_path"}
    return LoadedProfile(
        Profile(**checks.accepted(mapping)),
        name,
        str(path),
        mapping,
        is_unconfigured=file is None and not says_where & given.keys(),
        sources=sources,
    )


def _place_in(file: ConfigFile, name: str) -> checks.Place:
    return lambda key: f"{file.place(name, str(key))}: profile '{name}'"


def _superseded(environment: Environment) -> set[str]:
    """Return the keys of a file that are not used, since the environment gives the same."""
    given = environment.settings
    found = {key for ways in SECRETS.values() if given.keys() & set(ways) for key in ways}
    # Recipients are used before a password. A credential alone changes no way of encryption: the
    # unit of a job has it for what the profile needs anyway, such as to restore older backups.
    password = [given[key] for key in SECRETS["password"] if key in given]
    if any(setting.variable != CREDENTIALS_VARIABLE for setting in password):
        found.add("recipients")
    return found


def _destination_without_file(given: Mapping[str, Any]) -> str:
    if "s3_bucket" in given:
        return "s3"
    return "glacier" if "glacier_vault" in given else "local"


def _warn(warnings: Iterable[str]) -> None:
    """Log warnings that a command shows once, however often it loads the profile."""
    for warning in warnings:
        log.warning("%s", warning, extra={"once": True})


def _from_mapping(conf: Mapping[str, Any], name: str) -> LoadedProfile:
    mapping = as_mapping(conf, f"conf: profile '{name}'")
    _raise_first(checks.problems_of(mapping, lambda _: f"conf: profile '{name}'", None))
    sources = {key: Source("conf") for key, value in mapping.items() if value is not None}
    profile = Profile(**checks.accepted(mapping))
    return LoadedProfile(profile, name, "conf", mapping, sources=sources)


def _raise_first(problems: Iterable[ConfigError]) -> None:
    for problem in problems:
        raise problem
