"""The configuration of a user: the profiles and jobs of all its files together."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bakthat.conf.files.config_file import (
    JOBS,
    ConfigFile,
    directory_of,
    path_of,
    read_file,
)
from bakthat.conf.job import Job, job_of
from bakthat.conf.job_checks import KeyPath, Place, problem_of_job_name, problems_of_job
from bakthat.conf.profile import DEFAULT_PROFILE
from bakthat.errors import ConfigError
from bakthat.policy import settings
from bakthat.system.paths import expanded
from bakthat.system.text import did_you_mean, printable, reason_of

log = logging.getLogger("bakthat")

USER_DIRECTORY = "~/.bakthat.d"
SYSTEM_DIRECTORY = "/etc/bakthat"
"""The directories whose files ``*.yml`` belong to the configuration; the second is root's."""
_SUFFIX = ".yml"
_OTHER_SUFFIX = ".yaml"


@dataclass(frozen=True)
class LoadedJob:
    """A checked job and where it comes from."""

    name: str
    job: Job
    place: str
    """The file and the line, for messages: "path:3"."""


@dataclass(frozen=True)
class Configuration:
    """All files of a configuration, in their order. Their names are unique among them."""

    path: Path
    """The file that the command names, or the default one, which need not exist."""
    is_named: bool
    """Whether it was named. Then it is the only one."""
    files: tuple[ConfigFile, ...] = field(repr=False)

    @property
    def profiles(self) -> Mapping[str, ConfigFile]:
        """The names of the profiles, and the file that each is in."""
        return {name: file for file in self.files for name in file.profiles}

    @property
    def unchecked_jobs(self) -> Mapping[str, ConfigFile]:
        """The names of the jobs, and the file that each is in."""
        return {name: file for file in self.files for name in _jobs_in(file)}

    @property
    def jobs(self) -> dict[str, LoadedJob]:
        """The jobs by their names, in their order. Raises ConfigError for the first problem."""
        for problem in self.problems_of_jobs():
            raise problem
        return {name: self._loaded(name) for name in self.unchecked_jobs}

    def job(self, name: str) -> LoadedJob:
        """Return the job *name*; what is wrong with others does not matter.

        Raises ConfigError, also when there is no job of that name.
        """
        known = self.unchecked_jobs
        if name not in known:
            names = ", ".join(map(printable, known)) or "none"
            raise ConfigError(
                f"{self.path}: no job '{printable(name)}' (there are: {names})",
                hint=did_you_mean(name, known) or "write it below 'jobs' in the configuration",
            )
        for problem in self._problems_of(known[name], name):
            raise problem
        return self._loaded(name)

    def _loaded(self, name: str) -> LoadedJob:
        file = self.unchecked_jobs[name]
        job = job_of(_jobs_in(file)[name], directory_of(file.path))
        return LoadedJob(name, job, file.place(JOBS, name))

    def problems_of_jobs(self) -> Iterator[ConfigError]:
        """Yield everything that is wrong with the jobs."""
        for file in self.files:
            yield from _problems_of_shape(file)
            for name in _jobs_in(file):
                yield from self._problems_of(file, name)

    def check_shape(self) -> None:
        """Raise ConfigError for a file of which it is not known which jobs it has."""
        for file in self.files:
            for problem in _problems_of_shape(file):
                raise problem

    def _problems_of(self, file: ConfigFile, name: str) -> Iterator[ConfigError]:
        problem = problem_of_job_name(name, file.place(JOBS, name))
        if problem is not None:
            yield problem
            return
        given = _jobs_in(file)[name]
        yield from problems_of_job(given, _place_in(file, name), directory_of(file.path))
        profile = given.get("profile") if isinstance(given, Mapping) else None
        known = ", ".join(map(printable, self.profiles)) or "none"
        if profile is None and DEFAULT_PROFILE not in self.profiles:
            yield ConfigError(
                f"{file.place(JOBS, name)}: job '{printable(name)}': it names no profile, and "
                f"there is no profile '{DEFAULT_PROFILE}' (there are: {known})",
                hint=f"name one, such as profile: {printable(next(iter(self.profiles)))}"
                if self.profiles
                else "write one that says where to, or create it with: bakthat configure",
            )
        elif isinstance(profile, str) and profile not in self.profiles:
            yield ConfigError(
                f"{file.place(JOBS, name, 'profile')}: job '{printable(name)}': no profile "
                f"'{printable(profile)}' (there are: {known})",
                hint=did_you_mean(profile, self.profiles),
            )


def read_configuration(config: str | os.PathLike[str] | None = None) -> Configuration:
    """Read all files; what is in them is not checked yet.

    *config* is the path of the only file, by default ``~/.bakthat.yml``; beside the default are the
    files ``*.yml`` of ``~/.bakthat.d``, and for root those of ``/etc/bakthat``, in the order of
    their names. Raises ConfigError, also when two files have a profile or a job of one name.
    """
    path = path_of(config)
    paths = [path] if config is not None else [*_system_files(), path, *_files_in(USER_DIRECTORY)]
    files = tuple(file for each in paths if (file := read_file(each)) is not None)
    _check_unique(files)
    return Configuration(path, config is not None, files)


def load_jobs(config: str | os.PathLike[str] | None = None) -> dict[str, LoadedJob]:
    """Read and check all jobs; return them by their names, in their order. Raises ConfigError."""
    return read_configuration(config).jobs


def _system_files() -> list[Path]:
    return _files_in(SYSTEM_DIRECTORY) if os.geteuid() == 0 else []


def _files_in(directory: str) -> list[Path]:
    where = expanded(directory)
    try:
        names = sorted(os.listdir(where))
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise ConfigError(
            f"cannot read {where}: {reason_of(exc)}",
            hint="check that it is a directory of files, and that this user may read it",
        ) from exc
    for name in names:
        if name.endswith(_OTHER_SUFFIX) and name[0] != ".":
            shown = printable(str(where / name))
            text = f"{shown} is not read: its name does not end in {_SUFFIX}"
            log.warning("%s", text, extra={"once": True})
    paths = [where / name for name in names if name.endswith(_SUFFIX) and name[0] != "."]
    return [each for each in paths if _is_there(each)]


def _is_there(path: Path) -> bool:
    """Return whether a file that was listed is still there. Raises ConfigError when it is none."""
    try:
        mode = os.stat(path).st_mode
    except OSError as exc:
        if not os.path.lexists(path):
            return False
        raise _not_readable(path, reason_of(exc)) from exc
    if not stat.S_ISREG(mode):
        raise _not_readable(path, "it is not a file")
    return True


def _not_readable(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"cannot read {printable(str(path))}: {why}",
        hint=f"remove it, or give it a name that does not end in {_SUFFIX}",
    )


def _check_unique(files: tuple[ConfigFile, ...]) -> None:
    places: dict[tuple[str, str], str] = {}
    for file in files:
        named = [("profile", name, file.place(name)) for name in file.profiles]
        named += [("job", name, file.place(JOBS, name)) for name in _jobs_in(file)]
        for kind, name, place in named:
            other = places.setdefault((kind, name), place)
            if other is not place:
                raise ConfigError(
                    f"{place}: the {kind} '{printable(name)}' is in {other} too",
                    hint="give one of them another name, or remove it",
                )


def _problems_of_shape(file: ConfigFile) -> Iterator[ConfigError]:
    if file.jobs is not None and not isinstance(file.jobs, Mapping):
        yield ConfigError(
            f"{file.place(JOBS)}: '{JOBS}' must hold jobs by name, not {settings.kind(file.jobs)}",
            hint="write the name of a job on an indented line, and its keys below it",
        )


def _jobs_in(file: ConfigFile) -> dict[str, Any]:
    return dict(file.jobs) if isinstance(file.jobs, Mapping) else {}


def _place_in(file: ConfigFile, name: str) -> Place:
    def written_at(path: KeyPath) -> str:
        where = file.place(JOBS, name, *path)
        if ":" not in where.removeprefix(str(file.path)):  # a key that was merged
            where = file.place(JOBS, name)
        return f"{where}: job '{printable(name)}'"

    return written_at
