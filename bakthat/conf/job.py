"""Jobs: what a night backs up, and what it does around that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bakthat.conf.profile import DEFAULT_PROFILE
from bakthat.policy.intervals import parse_interval
from bakthat.system.paths import expanded
from bakthat.system.text import printable, to_native

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_URL_PASSWORD = re.compile(r"(?<=://)([^:/@]*):.*@", re.DOTALL)
_URL_OPTIONS = re.compile(r"\?(?!host=[^&;]*\Z).*", re.DOTALL)
"""All but the only option that there is. A password is often given as another one."""


@dataclass(frozen=True, slots=True)
class JobSource:
    """What one backup, or one server of databases, is made from. Either path or command is set."""

    path: str = field(default="", repr=False)
    """An absolute path, as Python decodes the names of files; or the URL of a database."""
    command: str = field(default="", repr=False)
    """A line for the shell, whose output is backed up."""
    name: str | None = None
    exclude_file: str | None = None
    """An absolute path."""
    tags: tuple[str, ...] = ()
    """Those of the job are used too."""
    via: str | None = field(default=None, repr=False)
    timeout: str | float | None = None
    fail_below: str | int | None = None
    exclude_caches: bool = False
    one_file_system: bool = False
    allow_empty: bool = False

    @property
    def is_url(self) -> bool:
        """Whether it is the URL of a database."""
        return _URL.match(self.path) is not None

    @property
    def text(self) -> str:
        """What a message calls it: its path, its URL without the password, or its name."""
        if self.command:
            return f"the command for {printable(self.name or '')}"
        if not self.is_url:
            return printable(self.path)
        return printable(_URL_OPTIONS.sub("?…", _URL_PASSWORD.sub(r"\1@", self.path)))


@dataclass(frozen=True, slots=True)
class JobCheck:
    """When the sets of a job are checked, and how."""

    every: int
    """Seconds."""
    sample: int | str | None = None
    """As the argument of :func:`bakthat.check`: without it, nothing is read."""

    @property
    def reads(self) -> bool:
        """Whether it reads a share of the data."""
        return isinstance(self.sample, str) and self.sample.endswith("%")


@dataclass(frozen=True, slots=True)
class JobDrill:
    """When the newest backups of a job are drilled, and how: the arguments of bakthat.drill."""

    every: int
    """Seconds."""
    into: str | None = field(default=None, repr=False)
    via: str | None = field(default=None, repr=False)
    check: tuple[str, ...] = field(default=(), repr=False)
    check_command: str | None = field(default=None, repr=False)
    scratch: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A checked job with its defaults."""

    sources: tuple[JobSource, ...]
    profile: str = DEFAULT_PROFILE
    tags: tuple[str, ...] = ()
    before: tuple[str, ...] = field(default=(), repr=False)
    after: tuple[str, ...] = field(default=(), repr=False)
    on_error: tuple[str, ...] = field(default=(), repr=False)
    rotate: bool = False
    check: JobCheck | None = None
    drill: JobDrill | None = None
    max_age: int | None = None
    """Seconds."""
    notify: tuple[str, ...] | None = None
    """The dotted names of plugins, in place of the profile's; None for those."""


def job_of(value: Mapping[str, Any], directory: Path | None) -> Job:
    """Return the job that a mapping without problems describes.

    Relative paths in it start at *directory*.
    """
    given = {key: each for key, each in value.items() if each is not None}
    check, drill = given.get("check"), given.get("drill")
    return Job(
        sources=tuple(source_of(each, directory) for each in given["sources"]),
        profile=given.get("profile", DEFAULT_PROFILE),
        tags=_texts(given.get("tags")),
        before=_texts(given.get("before")),
        after=_texts(given.get("after")),
        on_error=_texts(given.get("on_error")),
        rotate=given.get("rotate", False),
        check=JobCheck(parse_interval(check["every"]), check.get("sample")) if check else None,
        drill=_drill_of(drill, directory) if drill else None,
        max_age=parse_interval(given["max_age"]) if "max_age" in given else None,
        notify=tuple(given["notify"]) if "notify" in given else None,
    )


def _drill_of(value: Mapping[str, Any], directory: Path | None) -> JobDrill:
    scratch = value.get("scratch")
    return JobDrill(
        parse_interval(value["every"]),
        into=value.get("into"),
        via=value.get("via"),
        check=_texts(value.get("check")),
        check_command=value.get("check_command"),
        scratch=_absolute(scratch, directory) if scratch else None,
    )


def is_relative(path: str) -> bool:
    """Return whether a path in a file starts at the directory of the file."""
    return not path.startswith(("/", "~"))


def source_of(given: Any, directory: Path | None) -> JobSource:
    """Return the source that an entry of ``sources`` without problems describes."""
    if isinstance(given, str):
        given = {"path": given}
    values = {key: each for key, each in given.items() if each is not None}
    path, exclude_file = values.get("path", ""), values.get("exclude_file")
    if path and not _URL.match(path):
        path = _absolute(path, directory)
    return JobSource(
        **{
            **values,
            "path": path,
            "exclude_file": _absolute(exclude_file, directory) if exclude_file else None,
            "tags": _texts(values.get("tags")),
        }
    )


def _absolute(path: str, directory: Path | None) -> str:
    """Return an absolute path. YAML is Unicode, so a path in a file gets the bytes of UTF-8."""
    native = to_native(path)
    joined = directory / native if directory is not None and is_relative(path) else native
    return str(expanded(joined))


def _texts(value: str | list[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())
