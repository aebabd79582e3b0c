"""The configuration in the environment: BAKTHAT_<KEY>, BAKTHAT_<KEY>_FILE, and the credentials of
systemd, with their checks.

No message quotes a value, which may be a secret: the name of its variable says what it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bakthat.conf.checks import empty_error, is_path, refuse_relative, unset, value_of
from bakthat.conf.files.content import content_of
from bakthat.conf.profile import DEFAULT_PROFILE, KEYS, SECRETS
from bakthat.errors import ConfigError
from bakthat.system.paths import expanded
from bakthat.system.text import did_you_mean, from_native, printable, reason_of, to_native

PREFIX = "BAKTHAT_"
FILE_SUFFIX = "_FILE"
CONFIG_VARIABLE = "BAKTHAT_CONFIG"
"""The configuration file of a command without ``-c``."""
PROFILE_VARIABLE = "BAKTHAT_PROFILE"
"""The profile of a command without ``-p``."""
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"
"""The directory with the credentials of a service, which systemd makes and sets."""
_CREDENTIAL_PREFIX = "bakthat."

HOOK_VARIABLES: Mapping[str, str] = {
    "BAKTHAT_JOB": "The name of the job",
    "BAKTHAT_HOOK": "``before``, ``after`` or ``on_error``",
    "BAKTHAT_RUN": "For bakthat itself: to which runs of jobs the command belongs",
    "BAKTHAT_SOURCES": "The sources of the job: paths, URLs without a password, names of commands",
    "BAKTHAT_RESULT": "Not for ``before``: ``done``, ``incomplete``, ``failed`` or ``locked``",
    "BAKTHAT_ERROR": "Not for ``before``: the first error, in one line; or empty",
    "BAKTHAT_FAILED_SOURCES": "Not for ``before``: the sources that failed or that another run "
    "holds",
    "BAKTHAT_SETS": "Not for ``before``: the set of each backup that was stored",
    "BAKTHAT_STORED_FILENAMES": "Not for ``before``: the stored filename of each of them",
    "BAKTHAT_SIZES": "Not for ``before``: the bytes that each of them takes in the storage",
}
"""What the commands of a job get in their environment. A bakthat command among them ignores it."""
DRILL_VARIABLE = "BAKTHAT_DRILL"
"""What a command that checks a drill gets: the directory, or the URL of the scratch database."""


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
    """A warning about each variable and each credential that means nothing."""


def default_config() -> str | None:
    """Return the configuration file that BAKTHAT_CONFIG names, or None. Raises ConfigError."""
    given = os.environ.get(CONFIG_VARIABLE)
    if given is not None:
        refuse_relative(given, CONFIG_VARIABLE)
    return given


def default_profile() -> str:
    """Return the profile that BAKTHAT_PROFILE names, or the default one. Raises ConfigError."""
    return named_profile() or DEFAULT_PROFILE


def named_profile() -> str | None:
    """Return the profile that BAKTHAT_PROFILE names, or None. Raises ConfigError."""
    given = os.environ.get(PROFILE_VARIABLE)
    if given is None:
        return None
    if not given:
        raise empty_error(PROFILE_VARIABLE)
    return from_native(given)


def read_environment() -> Environment:
    """Read and check the variables, and look for credentials. No file of a secret is read."""
    found: dict[str, Setting] = {}
    problems = []
    unknown = list(_unknown())
    for key in KEYS:
        try:
            setting = _setting_of(key)
        except ConfigError as exc:
            problems.append(exc)
        else:
            if setting is not None:
                found[key] = setting
    try:
        credentials = _credentials()
    except ConfigError as exc:
        problems.append(exc)
    else:
        for name in sorted(credentials.keys() - SECRETS.keys()):
            hint = did_you_mean(name.lower(), SECRETS)
            unknown.append(_unknown_warning("credential", _CREDENTIAL_PREFIX, name, hint))
        for name in credentials.keys() & SECRETS.keys():
            ways = SECRETS[name]
            if not any(variable_of(each) in os.environ for each in ways):
                found[ways.file] = Setting(credentials[name], CREDENTIALS_VARIABLE)
    return Environment(found, tuple(problems), tuple(unknown))


def _credentials() -> dict[str, str]:
    """Return the paths of bakthat's credentials, by their names, which should be keys.

    Raises ConfigError when the directory cannot be read: a secret may be in it, without which
    backups would be stored unencrypted.
    """
    directory = os.environ.get(CREDENTIALS_VARIABLE)
    if not directory:
        return {}
    refuse_relative(directory, CREDENTIALS_VARIABLE)
    try:
        names = os.listdir(directory)
    except OSError as exc:
        raise ConfigError(
            f"cannot read the directory of credentials '{printable(directory)}': {reason_of(exc)}",
            hint=f"run it as the user of the service, or {unset(CREDENTIALS_VARIABLE)}",
        ) from exc
    return {
        name.removeprefix(_CREDENTIAL_PREFIX): os.path.join(directory, name)
        for name in names
        if name.startswith(_CREDENTIAL_PREFIX)
    }


def variable_of(key: str) -> str:
    """Return the variable that sets a key."""
    return f"{PREFIX}{key.upper()}"


def _setting_of(key: str) -> Setting | None:
    variable = variable_of(key)
    file_variable = f"{variable}{FILE_SUFFIX}"
    if variable in os.environ and file_variable in os.environ:
        raise ConfigError(f"{variable} and {file_variable} are both set", hint=unset(variable))
    if key == "password":
        return None  # bakthat.passwords reads BAKTHAT_PASSWORD; the other sets password_file
    if variable in os.environ:
        given = os.environ[variable]
        text = given if is_path(key) else from_native(given)  # the bytes of a path may be any
        return Setting(value_of(key, text, variable), variable)
    # Where the file has a key of its own, the variable sets that one.
    if file_variable in os.environ and key not in SECRETS:
        path = os.environ[file_variable]
        text = _content_of(path, file_variable)
        text = to_native(text) if is_path(key) else text
        return Setting(value_of(key, text, file_variable), file_variable, path)
    return None


def _content_of(given: str, variable: str) -> str:
    """Return the text of a file without the newline at its end."""
    refuse_relative(given, variable)
    shown = f"'{printable(given)}'"
    try:
        text = content_of(expanded(given)).decode()
    except OSError as exc:
        raise ConfigError(
            f"{variable}: cannot read the file {shown}: {reason_of(exc)}",
            hint="check the name and that this user may read it",
        ) from None
    except UnicodeDecodeError:
        # Not "from exc": that exception holds the content.
        raise ConfigError(
            f"{variable}: the file {shown} is not UTF-8 text", hint="save it as UTF-8"
        ) from None
    if text.endswith("\n"):
        text = text[:-1].removesuffix("\r")
    if not text:
        raise ConfigError(
            f"{variable}: the file {shown} is empty",
            hint=f"write the value into it, or {unset(variable)}",
        )
    return text


def _unknown() -> Iterator[str]:
    """Yield a warning about each variable that looks like one of bakthat's and is none."""
    given = (CONFIG_VARIABLE, PROFILE_VARIABLE, DRILL_VARIABLE, *HOOK_VARIABLES)
    known = {each.removeprefix(PREFIX) for each in given}
    known |= {f"{key.upper()}{suffix}" for key in KEYS for suffix in ("", FILE_SUFFIX)}
    for variable in sorted(os.environ):
        name = variable.removeprefix(PREFIX)
        if variable.startswith(PREFIX) and name not in known:
            yield _unknown_warning("variable", PREFIX, name, did_you_mean(name, known))


def _unknown_warning(what: str, prefix: str, name: str, hint: str) -> str:
    hint = hint.replace("did you mean ", f"did you mean {prefix}")
    return f"unknown {what} {prefix}{printable(name)}{f'; {hint}' if hint else ''}"
