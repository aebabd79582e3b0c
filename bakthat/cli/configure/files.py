"""Files of keys and passphrases: those that are there, and those that are about to be made."""

from __future__ import annotations

import itertools
import logging
import os
import re
import stat
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from bakthat.errors import ConfigError
from bakthat.system.disks import hint_of
from bakthat.system.files import create_file
from bakthat.system.paths import expanded
from bakthat.system.text import from_native, printable, reason_of, to_native

log = logging.getLogger("bakthat")


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file that only its owner may read, and that does not exist yet."""

    path: Path
    text: str = field(repr=False)

    def write(self) -> None:
        """Write it. Raises ConfigError, also when there is a file of this name now."""
        try:
            create_file(self.path, self.text.encode())
        except OSError as exc:
            raise ConfigError(
                f"cannot write '{printable(self.path)}': {reason_of(exc)}", hint=hint_of(exc)
            ) from exc
        warn_when_others_can_read(self.path)


def absolute(answer: str) -> str:
    """Return a path as a profile holds it: absolute, or one that begins with ``~``.

    A relative path is relative to the working directory, as a shell has it. In a configuration file
    it would be relative to the directory of that file. Raises ConfigError for ``~`` of nobody.
    """
    path = path_of(answer)
    if answer.startswith(("/", "~")):
        return answer
    return from_native(str(path))


def path_of(value: str, config: Path | None = None) -> Path:
    """Return the file that a path of a profile means. Raises ConfigError.

    A relative path that the profile had already is relative to the directory of *config*, the
    configuration file.
    """
    native = to_native(value)
    if config is not None and not native.startswith(("/", "~")):
        native = os.path.join(config.parent, native)
    return expanded(native)


def check_new(value: str, others: Collection[Path] = ()) -> str:
    """Return the path of a profile if a file can be made there. Raises ConfigError.

    It must not exist, nor be one of the *others*, which are about to be made.
    """
    path = path_of(value)
    shown = printable(path)
    if os.path.lexists(path) or path in others:
        raise ConfigError(f"'{shown}' exists, and is not overwritten", hint="name another file")
    directory = printable(path.parent)
    if not path.parent.is_dir():
        raise ConfigError(f"there is no directory '{directory}'", hint=f"mkdir -p '{directory}'")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigError(f"'{directory}' cannot be written to", hint="name another directory")
    return value


def free_name(config: Path, profile: str, what: str) -> str:
    """Return a path for a new file beside the configuration file, as a profile holds it.

    Beside ``~/.bakthat.yml`` it is ``~/.bakthat_identity.txt`` for "identity" of the default
    profile, and ``~/.bakthat_shop_identity.txt`` for that of another one.
    """
    stem = config.name.removesuffix(".yml").removesuffix(".yaml")
    safe = re.sub(r"[^\w.-]", "_", "" if profile == "default" else profile)
    parts = "_".join(filter(None, (stem, safe, what)))
    names = itertools.chain([""], (f"_{number}" for number in itertools.count(2)))
    path = next(
        each
        for each in (config.with_name(f"{parts}{number}.txt") for number in names)
        if not os.path.lexists(each)
    )
    home = os.path.expanduser("~")
    shown = from_native(str(path))
    return f"~/{shown.removeprefix(f'{home}/')}" if shown.startswith(f"{home}/") else shown


def warn_when_others_can_read(path: Path) -> None:
    """Log a warning when not only its owner may read a file. Raises ConfigError."""
    try:
        mode = path.stat().st_mode
    except OSError as exc:
        raise ConfigError(
            f"cannot read '{printable(path)}': {reason_of(exc)}",
            hint="check the name and that this user may read it",
        ) from exc
    if mode & 0o077 and stat.S_ISREG(mode):
        shown, bits = printable(path), stat.S_IMODE(mode)
        log.warning("others can read %s (mode %04o): chmod 600 %s", shown, bits, shown)
