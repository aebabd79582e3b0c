"""Names for the completion of a shell, quick enough for somebody who is typing.

Names come from the catalog, and so from storage that others may write to. The script of each shell
quotes them. Names that no quoting makes safe are not offered: those with control characters, which
a terminal obeys, and those that a command takes for an option.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from bakthat.conf import default_config, default_profile, load_profile, read_configuration
from bakthat.conf.files.config_file import path_of
from bakthat.conf.profile import SECRETS
from bakthat.conf.secrets import way_of
from bakthat.database.address import is_address
from bakthat.errors import BakthatError
from bakthat.system.paths import expanded

NAMES = ("sets", "backups", "profiles", "jobs")
"""What the scripts ask for by ``bakthat completion --names``."""

_SETS = "SELECT DISTINCT filename AS name, 0 AS place FROM backups WHERE NOT is_deleted"
_QUERIES = {
    "sets": _SETS,
    "backups": f"{_SETS} UNION SELECT stored_filename, 1 FROM backups WHERE NOT is_deleted",
}
_LIMIT = 500
"""More names are of no use in a list to choose from, and take time to read."""
_BUSY_SECONDS = 0.05
_OPTIONS = {"-p": "profile", "--profile": "profile", "-c": "config", "--config": "config"}


def names(kind: str, beginning: str, words: Sequence[str]) -> Iterator[str]:
    """Yield the names of *kind*, one of :data:`NAMES`, for the profile that a command line means.

    *beginning* is what is typed of the name; names that begin so come first. *words* are those of
    the command line, as typed. Nothing is made, locked or asked for, and whatever fails yields no
    names: somebody is typing.
    """
    if kind not in NAMES:
        return
    logging.disable()  # warnings would stand in the middle of a command
    with contextlib.suppress(BakthatError, OSError, sqlite3.Error):
        given = _given(words)
        config = given.get("config") or default_config()
        path = path_of(config)
        if path.exists() and not path.is_file():  # a pipe would wait, and could be read only once
            return
        if kind == "profiles":
            found: Iterator[object] = iter(read_configuration(config).profiles)
        elif kind == "jobs":
            found = iter(read_configuration(config).unchecked_jobs)
        else:
            loaded = load_profile(given.get("profile") or default_profile(), config=config)
            if way_of(loaded, "database") in SECRETS["database"][1:]:
                return  # a program may take long, or ask, and a file may be a pipe
            if is_address(loaded.profile.database):  # a server may take long to answer
                return
            catalog = expanded(loaded.profile.database)
            found = _from_catalog(catalog, kind, _unquoted(beginning))
        yield from (name for name in found if isinstance(name, str) and _is_safe(name))


def _from_catalog(path: Path, kind: str, typed: str) -> Iterator[object]:
    query = (
        f"SELECT name FROM ({_QUERIES[kind]}) ORDER BY"
        f" substr(name, 1, length(:typed)) = :typed DESC, place, name DESC LIMIT {_LIMIT}"
    )
    with contextlib.closing(
        sqlite3.connect(_address_of(path), uri=True, timeout=_BUSY_SECONDS)
    ) as catalog:
        yield from (name for (name,) in catalog.execute(query, {"typed": typed}))


def _address_of(catalog: Path) -> str:
    """Return the URI that opens a catalog read-only."""
    # Not by urllib, which takes longer to load than the catalog to read.
    path = str(catalog).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    # SQLite would make the files of a write-ahead log, even read-only, and leave them. Without
    # one, nobody writes to the catalog.
    is_used = Path(f"{catalog}-wal").exists()
    return f"file:{path}?mode=ro" if is_used else f"file:{path}?mode=ro&immutable=1"


def _is_safe(name: str) -> bool:
    return name.isprintable() and name[:1] not in ("", "-", "~")


def _given(words: Sequence[str]) -> dict[str, str]:
    """Return the profile and the configuration file that *words* name."""
    given = {}
    remaining = iter(words)
    for word in remaining:
        flag, is_joined, value = word.partition("=")
        if flag in _OPTIONS:
            if not is_joined:
                value = next(remaining, "")
            if value == "=":  # bash makes three words of --profile=NAME
                value = next(remaining, "")
            if value:
                given[_OPTIONS[flag]] = _unquoted(value)
    return given


def _unquoted(word: str) -> str:
    """Return what a shell makes of a word, as far as quotes go."""
    with contextlib.suppress(ValueError):  # a quote that is still open
        if len(found := shlex.split(word)) == 1:
            return found[0]
    return word
