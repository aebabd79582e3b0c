"""Change one profile in the configuration file."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bakthat.conf import checks
from bakthat.conf.configuration import read_configuration
from bakthat.conf.files.config_file import (
    JOBS,
    ConfigFile,
    directory_of,
    file_of,
    path_of,
    read_file,
)
from bakthat.conf.files.edit import REMOVED, EditError, edited, is_same
from bakthat.conf.files.yaml_text import encoded
from bakthat.conf.profile import DEFAULT_PROFILE, ENCRYPTION_KEYS
from bakthat.errors import ConfigError
from bakthat.system.files import replace_file
from bakthat.system.text import printable, reason_of

_BY_HAND = "make the change by hand, or write each key of the profile on a line of its own"


def save_profile(
    changes: Mapping[str, Any],
    *,
    name: str = DEFAULT_PROFILE,
    config: str | os.PathLike[str] | None = None,
) -> Path:
    """Set keys of one profile in the configuration file; a value of None removes its key.

    Everything else keeps its text: other profiles and keys, their order, comments, quotes. The file
    is replaced atomically, with mode 0600, and no change of another such call is lost.
    Of a symbolic link, the target is replaced. Without *config*, it is the file that has the
    profile, else ``~/.bakthat.yml``. Returns the path. Raises ConfigError, also where a
    change would have to change more than that.
    """
    if name == JOBS or not name.isprintable():  # nor is what is not text
        raise ConfigError(
            f"a profile cannot have the name '{printable(name)}'",
            hint="use letters and digits",
        )
    path = path_with(name, config)
    target = Path(os.path.realpath(path))
    with _locked(target.parent):
        file = read_file(path) or file_of(path, b"")
        current = file.mapping(name)
        _check(file, name, current, changes)
        changed = _with_changes(file, name, current, changes)
        try:
            replace_file(target, encoded(changed.text, changed.encoding))
        except OSError as exc:
            raise ConfigError(
                f"cannot write {path}: {reason_of(exc)}",
                hint="check the space, the owner and the mode of its directory",
            ) from exc
    return path


def path_with(name: str, config: str | os.PathLike[str] | None) -> Path:
    """Return the path of the file that has the profile *name*, or else is to have it.

    Raises ConfigError.
    """
    if config is not None:
        return path_of(config)
    configuration = read_configuration()
    file = configuration.profiles.get(name)
    return configuration.path if file is None else file.path


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Let one process at a time change a file in *directory*.

    The directory is locked, not the file: the file is replaced, and a file of the lock would stay.
    """
    with contextlib.ExitStack() as stack:
        # It may be unreadable, or on a file system without locks: the change is made all the same.
        with contextlib.suppress(OSError):
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def read_raw_profile(
    name: str = DEFAULT_PROFILE, *, config: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Return a profile as the file has it, unchecked; {} if the file has no such profile.

    Raises ConfigError.
    """
    file = read_file(path_with(name, config))
    return {} if file is None else file.mapping(name)


def _check(
    file: ConfigFile, name: str, current: Mapping[str, Any], changes: Mapping[str, Any]
) -> None:
    """Raise ConfigError unless the profile is valid with *changes*. Log its absolute paths."""

    def place(key: str) -> str:
        where = str(file.path) if key in changes else file.place(name, str(key))
        return f"{where}: profile '{name}'"

    unchanged = {key: value for key, value in current.items() if key not in changes}
    wanted = {**unchanged, **_valued(changes)}
    directory = directory_of(file.path)
    for problem in checks.problems_of(wanted, place, directory):
        raise problem
    for problem in checks.empty_secrets(wanted, place):
        raise problem
    checks.absolute_paths(wanted, place, directory, level=logging.INFO)


def _with_changes(
    file: ConfigFile, name: str, current: Mapping[str, Any], changes: Mapping[str, Any]
) -> ConfigFile:
    """Return *file* with other text. Raises ConfigError if that says anything but what it should.

    The file is the user's. What the editor does not foresee must not change it.
    """
    where = f"{file.path}: profile '{name}'"
    try:
        edits = {
            key: REMOVED if value is None else value
            for key, value in changes.items()
            if (key in current if value is None else not is_same(value, current.get(key)))
        }
        text = edited(file.text, name, current, edits)
        changed = file_of(file.path, encoded(text, file.encoding))
    except (EditError, ConfigError) as exc:  # such as that an alias has lost its anchor
        raise ConfigError(f"{where}: it cannot be changed automatically", hint=_BY_HAND) from exc
    new = changed.mapping(name)
    for key in ENCRYPTION_KEYS:
        if edits.get(key) is REMOVED and key in new:
            raise ConfigError(
                f"{where}: '{key}' comes from a mapping that is merged", hint="remove it there"
            )
    others = {key: value for key, value in changed.profiles.items() if key != name}
    if not is_same(changed.jobs, file.jobs):
        raise ConfigError(f"{where}: the jobs would change with it", hint=_BY_HAND)
    if not is_same(others, {key: file.profiles[key] for key in file.profiles if key != name}):
        raise ConfigError(f"{where}: other profiles would change with it", hint=_BY_HAND)
    wanted = _valued({**current, **changes})
    if not is_same(_valued(new), wanted):
        raise ConfigError(f"{where}: it cannot be changed automatically", hint=_BY_HAND)
    return changed


def _valued(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys with a value: without one, a key has its default."""
    return {key: value for key, value in mapping.items() if value is not None}
