"""What a service has to know of a job: its command, what it reads and writes, its secrets."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bakthat.conf import PATHS, Configuration, LoadedJob, LoadedProfile
from bakthat.conf.environment import CONFIG_VARIABLE, PROFILE_VARIABLE
from bakthat.conf.profile import SECRETS
from bakthat.conf.secrets import read_secret, way_of
from bakthat.operations.sources.databases import url
from bakthat.system.paths import cache_directory, expanded

CACHE_VARIABLE = "XDG_CACHE_HOME"
_OWN_PLUGINS = "bakthat.notify."


@dataclass(frozen=True, slots=True)
class Service:
    """What runs a job."""

    job: str
    words: tuple[str, ...]
    """The command that runs bakthat itself; what it does with the job is not in it."""
    config: str
    """The file that ``-c`` names; "" for the default ones."""
    environment: tuple[tuple[str, str], ...]
    """The variables by which it finds the same files as here."""
    reads: tuple[str, ...]
    """Paths of sources and of files that it needs, and where symbolic links lead."""
    writes: tuple[str, ...]
    """The directories that bakthat writes to, which may be missing."""
    secrets: tuple[tuple[str, str], ...]
    """The keys of secrets that are read from a file, and the files."""
    commands: tuple[str, ...]
    """What runs commands or code of the user: "before", "source 2", "password_command"."""
    has_databases: bool
    """Whether a source or the catalog is a database on a server."""
    restores: bool
    """Whether a drill restores files, with their owners and modes."""

    def run(self, *options: str) -> tuple[str, ...]:
        """Return the whole command, with *options* of ``bakthat run``."""
        config = ("-c", self.config) if self.config else ()
        return (*self.words, "run", *options, *config, self.job)


def service_of(configuration: Configuration, job: LoadedJob, loaded: LoadedProfile) -> Service:
    """Return what runs *job*, whose profile is *loaded*. Raises ConfigError and UsageError."""
    words = own_words()
    profile = loaded.profile
    settings = {key: value for key, value in profile.as_mapping().items() if value}
    sources = [each for each in job.job.sources if each.path and not each.is_url]
    urls = [url.parts(each.path) for each in job.job.sources if each.is_url]
    files = [each.name for each in urls if each.kind == "sqlite" and each.name]
    drill = job.job.drill
    scratch = drill.scratch if drill is not None else None
    places = [*_paths_in(settings), *([scratch] if scratch else [])]
    reads = [
        words[0],
        *(str(each.path) for each in configuration.files),
        *(each.path for each in sources),
        *(each.exclude_file for each in sources if each.exclude_file),
        *files,
        *places,
    ]
    catalog = read_secret(loaded, "database")
    is_on_server = "://" in catalog
    cache = cache_directory()
    textfile = settings.get("prometheus", {}).get("textfile")
    writes = [
        # What belongs to a catalog on a server is in the home directory.
        str(expanded("~" if is_on_server else os.path.dirname(expanded(catalog)))),
        *([str(cache)] if cache is not None else []),
        *([profile.local_path] if profile.default_destination == "local" else []),
        *([os.path.dirname(expanded(textfile))] if isinstance(textfile, str) else []),
        *([scratch] if scratch else []),
        # SQLite makes files beside a database to read it, where it has a write-ahead log.
        *(os.path.dirname(expanded(each)) for each in files),
    ]
    return Service(
        job=job.name,
        words=words,
        config=str(configuration.path) if configuration.is_named else "",
        environment=tuple(_environment()),
        reads=tuple(dict.fromkeys(_with_targets(reads))),
        writes=tuple(dict.fromkeys(os.path.realpath(expanded(each)) for each in writes)),
        secrets=tuple(_secrets(loaded)),
        commands=tuple(_commands(job, settings)),
        has_databases=is_on_server or any(each.kind != "sqlite" for each in urls),
        restores=drill is not None,
    )


def _with_targets(paths: Iterable[str]) -> Iterator[str]:
    for each in map(expanded, paths):
        yield str(each)
        yield os.path.realpath(each)


def own_words() -> tuple[str, ...]:
    """Return the command that starts this bakthat from any directory."""
    started = os.path.abspath(sys.argv[0])
    beside = os.path.join(os.path.dirname(sys.executable), "bakthat")
    for each in (started, beside):
        is_script = os.path.basename(each) == "bakthat" and os.path.isfile(each)
        if is_script and os.access(each, os.X_OK):
            return (each,)
    # -P, or a directory bakthat where it is started would be taken for the package.
    return (sys.executable, "-P", "-m", "bakthat")


def foreign_variables() -> list[str]:
    """Return the names of bakthat's variables that are set here, and not in the service.

    Those that name the configuration and a profile are left out: the service has its own.
    """
    own = {CONFIG_VARIABLE, PROFILE_VARIABLE}
    return sorted(each for each in os.environ.keys() - own if each.startswith("BAKTHAT_"))


def _environment() -> Iterator[tuple[str, str]]:
    yield "HOME", str(expanded("~"))
    cache = os.environ.get(CACHE_VARIABLE, "")
    if os.path.isabs(cache):
        yield CACHE_VARIABLE, cache


def home_of_user() -> str:
    """Return the home directory of the user as systemd and cron know it; "" for none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return ""


def _paths_in(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the paths of a profile."""
    for key, name in PATHS.items():
        value = settings.get(key)
        if name is not None and isinstance(value, Mapping):
            value = value.get(name)
        if isinstance(value, str) and "://" not in value:
            yield value


def _secrets(loaded: LoadedProfile) -> Iterator[tuple[str, str]]:
    """Yield the secrets that a file of the profile holds, and that file.

    A credential wins over all keys of the profile, so there is none for a secret that the profile
    takes from elsewhere.
    """
    for key, ways in SECRETS.items():
        is_used = way_of(loaded, key) == ways.file
        if key == "password" and loaded.profile.recipients:
            is_used = False
        if is_used and loaded.source_of(ways.file).kind == "file":
            yield key, str(expanded(loaded[ways.file]))


def _commands(job: LoadedJob, settings: Mapping[str, Any]) -> Iterator[str]:
    for name in ("before", "after", "on_error"):
        if getattr(job.job, name):
            yield name
    for number, source in enumerate(job.job.sources, 1):
        if source.command or source.via:
            yield f"source {number}"
    drill = job.job.drill
    if drill is not None and (drill.via or drill.check_command):
        yield "drill"
    yield from (key for key in settings if key.endswith("_command"))
    plugins = job.job.notify if job.job.notify is not None else settings.get("plugins", ())
    yield from (each for each in plugins if not each.startswith(_OWN_PLUGINS))
