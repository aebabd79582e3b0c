"""Jobs: what a night backs up, and what it does around that; the keys, their checks, their values.

A job is checked as strictly as a profile. Each problem is said with its line, and no message quotes
a value, since a command or a URL may hold a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bakthat.conf.profile import DEFAULT_PROFILE, KEYS, Key
from bakthat.errors import ConfigError
from bakthat.policy import settings
from bakthat.policy.intervals import parse_interval
from bakthat.policy.settings import Check, Problem
from bakthat.system.paths import expanded
from bakthat.system.text import did_you_mean, printable, to_native

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_URL_PASSWORD = re.compile(r"(?<=://)([^:/@]*):.*@")
_PERCENT = re.compile(r"[0-9]{1,3}(\.[0-9]+)?%")

KeyPath = tuple[str | int, ...]
"""The keys and the numbers of entries, from 0 on, that lead from a job to one of its values."""
Place = Callable[[KeyPath], str]
"""Returns where a value of a job is written, for messages: "path:3: job 'nightly'"."""


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
        shown = _URL_PASSWORD.sub(r"\1@", self.path) if self.is_url else self.path
        return printable(shown)


@dataclass(frozen=True, slots=True)
class JobCheck:
    """When the sets of a job are checked, and how."""

    every: int
    """Seconds."""
    sample: int | str | None = None
    """As the argument of :func:`bakthat.check`: without it, nothing is read."""


@dataclass(frozen=True, slots=True)
class JobDrill:
    """When the newest backups of a job are drilled, and how: the arguments of bakthat.drill."""

    every: int
    """Seconds."""
    into: str | None = None
    via: str | None = None
    check: tuple[str, ...] = ()
    check_command: str | None = None
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


def _percent_or_number(number: str) -> Check:
    def check(value: object) -> Problem | None:
        """Check that a value is a percentage such as 5%, or a whole number."""
        is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        is_share = isinstance(value, str) and _PERCENT.fullmatch(value) is not None
        if is_number or (is_share and 0 < float(str(value)[:-1]) <= 100):
            return None
        return Problem(f"must be a percentage such as 5%, or {number}", "write it like 5%")

    return Check(check, {"type": ["string", "integer"], "pattern": "^[0-9.]+%$", "minimum": 1})


def _seconds_or_interval(value: object) -> Problem | None:
    """Check that a value is an interval such as 2h, or a number of seconds."""
    is_text = isinstance(value, str)
    problem = settings.interval(value) if is_text else settings.timeout(value)
    if problem is None or is_text:
        return problem
    return Problem("must be an interval or a number of seconds", "write it like 2h")


_INTERVAL_OR_SECONDS = Check(
    _seconds_or_interval, {**settings.interval.schema, "type": ["string", "number"]}
)


def _key(check: Check, about: str, default: Any = None) -> Key:
    return Key(check, about, default, is_secret=False)


SOURCE_KEYS: Mapping[str, Key] = {
    "path": _key(settings.text, "A file, a directory, or the URL of a database"),
    "command": _key(
        settings.text,
        "A line for the shell, whose output is backed up; it needs a name",
    ),
    "name": _key(settings.text, "The name of the set, by default the base name of the path"),
    "exclude_file": _key(
        settings.text, "The path of a file with .gitignore patterns of what is left out"
    ),
    "tags": _key(settings.text_or_texts, "Tags besides those of the job", ()),
    "exclude_caches": _key(
        settings.boolean, "Whether the contents of directories with a CACHEDIR.TAG stay out", False
    ),
    "one_file_system": _key(
        settings.boolean, "Whether file systems that are mounted below stay out", False
    ),
    "allow_empty": _key(
        settings.boolean, "Whether it is meant when there is nothing to store", False
    ),
    "via": _key(
        settings.text,
        "Words before each program of a database's server, such as docker exec -i db",
    ),
    "timeout": _key(
        _INTERVAL_OR_SECONDS, "How long the command or a dump may take, such as 2h or seconds"
    ),
    "fail_below": _key(
        _percent_or_number("its number"),
        "The part of the last size below which a stream is not stored, such as 50%",
    ),
}
"""The keys of a source that is a mapping."""

_ONLY_FOR = {
    "exclude_file": "a file or directory",
    "exclude_caches": "a file or directory",
    "one_file_system": "a file or directory",
    "via": "a database",
    "timeout": "a command or a database",
    "fail_below": "a command or a database",
    "allow_empty": "a file, a directory or a command",
}

CHECK_KEYS: Mapping[str, Key] = {
    "every": _key(settings.interval, "How often each set is checked, such as 1W"),
    "sample": _key(
        _percent_or_number("a number of backups"),
        "The share of each backup's data that is read, such as 5%; without it nothing is read",
    ),
}
DRILL_KEYS: Mapping[str, Key] = {
    "every": _key(settings.interval, "How often the newest backup of each set is drilled"),
    "into": _key(settings.text, "The server for the scratch database of a dump"),
    "via": _key(settings.text, "Words before each program of that server"),
    "check": _key(settings.text_or_texts, "SQL queries that must give a row and no zero", ()),
    "check_command": _key(settings.text, "A line for the shell that checks what was restored"),
    "scratch": _key(settings.text, "The directory for what is restored"),
}


def _mapping_of(keys: Mapping[str, Key], required: str, example: str) -> Check:
    def check(value: object) -> Problem | None:
        """Check that a value is a mapping; what is in it is checked key by key."""
        if isinstance(value, Mapping):
            return None
        return Problem(f"must be a mapping, not {settings.kind(value)}", f"write {example}")

    return Check(check, {**schema_of(keys), "required": [required]})


def schema_of(keys: Mapping[str, Key]) -> dict[str, Any]:
    """Return the JSON schema of a mapping with these keys."""
    properties = {
        name: {"description": key.about, **key.check.schema} for name, key in keys.items()
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _sources(value: object) -> Problem | None:
    """Check that a value is a list that is not empty; its entries are checked one by one."""
    if isinstance(value, list) and value:
        return None
    hint = "write each source on a line of its own, after a dash"
    if value == []:
        return Problem("is empty", hint)
    return Problem(f"must be a list, not {settings.kind(value)}", hint)


JOB_KEYS: Mapping[str, Key] = {
    "profile": _key(settings.text, "The profile: where to, encryption, rotation", DEFAULT_PROFILE),
    "sources": _key(
        Check(
            _sources,
            {
                "type": "array",
                "minItems": 1,
                "items": {"anyOf": [settings.text.schema, schema_of(SOURCE_KEYS)]},
            },
        ),
        "What is backed up: paths, URLs of databases, and mappings",
    ),
    "tags": _key(settings.text_or_texts, "The tags of its backups", ()),
    "before": _key(
        settings.text_or_texts,
        "Lines for the shell that run first; a failing one stops the job",
        (),
    ),
    "after": _key(
        settings.text_or_texts,
        "Lines for the shell that run at the end, whatever has failed, once before has begun",
        (),
    ),
    "on_error": _key(
        settings.text_or_texts, "Lines for the shell that run once when something has failed", ()
    ),
    "rotate": _key(
        settings.boolean,
        "Whether each set is rotated, as the profile says, after its new backup has succeeded",
        False,
    ),
    "check": _key(
        _mapping_of(CHECK_KEYS, "every", "it like {every: 1W, sample: 5%}"),
        "When the sets are checked: every, and sample",
    ),
    "drill": _key(
        _mapping_of(DRILL_KEYS, "every", "it like {every: 1M}"),
        "When the newest backups are drilled: every, and what a drill needs",
    ),
    "max_age": _key(
        settings.interval,
        "The age from which on the newest backup of a set is too old, such as 26h",
    ),
    "notify": _key(
        settings.texts, "The dotted names of the plugins that are told, in place of the profile's"
    ),
}
"""The keys of a job, in the order of the reference."""


def problem_of_job_name(name: str) -> Problem | None:
    """Return what is wrong with the name of a job."""
    if name in KEYS:
        return Problem(
            f"cannot be called '{name}', which is a key of profiles",
            "write the name of the job on a line above, and indent its keys below it",
        )
    if name in JOB_KEYS:
        return Problem(
            f"cannot be called '{name}', which is a key of jobs",
            "write the name of the job on a line above, and indent its keys below it",
        )
    if not name.isprintable() or not name.strip() or name.startswith("-") or "/" in name:
        return Problem("has no usable name", "use letters, digits and hyphens")
    return None


def problems_of_job(value: object, place: Place, directory: Path | None) -> Iterator[ConfigError]:
    """Yield everything that is wrong with a job.

    *directory* is what relative paths are relative to; with None they are refused.
    """
    if not isinstance(value, Mapping):
        yield ConfigError(
            f"{place(())} must hold keys, not {settings.kind(value)}",
            hint="write each key on an indented line of its own, as key: value",
        )
        return
    sound = set()
    for key, problems in _by_key(value, JOB_KEYS, place, ()):
        yield from problems
        sound |= set() if problems else {key}
    if value.get("sources") is None:
        yield ConfigError(
            f"{place(())}: it has no 'sources'", hint="list what is backed up: sources: [/etc]"
        )
    elif "sources" in sound:
        yield from _problems_of_sources(value["sources"], place, directory)
    for name, keys in (("check", CHECK_KEYS), ("drill", DRILL_KEYS)):
        if name in sound and value[name] is not None:
            yield from _problems_below(value[name], keys, place, name)
    scratch = (value.get("drill") or {}).get("scratch") if "drill" in sound else None
    if isinstance(scratch, str) and directory is None and _is_relative(scratch):
        yield _relative(place(("drill", "scratch")), "scratch")


def _by_key(
    mapping: Mapping[Any, Any], keys: Mapping[str, Key], place: Place, path: KeyPath
) -> Iterator[tuple[str, list[ConfigError]]]:
    for key, given in mapping.items():
        where = place((*path, key))
        if key not in keys:
            hint = did_you_mean(str(key), keys) or f"use one of: {', '.join(keys)}"
            yield key, [ConfigError(f"{where}: unknown key '{printable(str(key))}'", hint=hint)]
            continue
        problem = keys[key].check(given) if given is not None else None
        if problem is None:
            yield key, []
        else:
            yield key, [ConfigError(f"{where}: '{key}' {problem.text}", hint=problem.hint)]


def _problems_below(
    value: Mapping[str, Any], keys: Mapping[str, Key], place: Place, name: str
) -> Iterator[ConfigError]:
    for _, problems in _by_key(value, keys, place, (name,)):
        yield from problems
    if value.get("every") is None:
        yield ConfigError(
            f"{place((name,))}: '{name}' has no 'every'", hint="say how often: every: 1W"
        )


def _problems_of_sources(
    sources: list[Any], place: Place, directory: Path | None
) -> Iterator[ConfigError]:
    seen: dict[object, int] = {}
    for number, given in enumerate(sources, 1):
        path: KeyPath = ("sources", number - 1)
        where = f"{place(path)}: source {number}"
        problems = list(_problems_of_source(given, place, path, where, directory))
        yield from problems
        if problems:
            continue
        found = _source_of(given, directory)
        same = seen.setdefault(found.name or found.path, number)
        if same != number:
            what = "name" if found.name else "path"
            yield ConfigError(
                f"{where} has the {what} of source {same}",
                hint="give one of them another name, or remove it",
            )


def _problems_of_source(
    given: object, place: Place, path: KeyPath, where: str, directory: Path | None
) -> Iterator[ConfigError]:
    if isinstance(given, str):
        given = {"path": given}
    if not isinstance(given, Mapping):
        yield ConfigError(
            f"{where} must be text or a mapping, not {settings.kind(given)}",
            hint="write a path, a URL, or a mapping such as {path: /srv, name: srv}",
        )
        return
    problems = [each for _, found in _by_key(given, SOURCE_KEYS, place, path) for each in found]
    yield from problems
    if problems:
        return
    source = JobSource(path=given.get("path") or "", command=given.get("command") or "")
    if bool(source.path) == bool(source.command):
        which = "both 'path' and 'command'" if source.path else "neither 'path' nor 'command'"
        yield ConfigError(f"{where} has {which}", hint="give it one of them")
        return
    if source.command and not given.get("name"):
        yield ConfigError(
            f"{where} is a command without a 'name'", hint="name its set: name: ldap.ldif"
        )
    if source.path == "-":
        yield ConfigError(
            f"{where} is standard input, which a job does not have",
            hint="back up the output of a program as command",
        )
    kind = "a command" if source.command else "a database" if source.is_url else "a file"
    for key in _ONLY_FOR:
        if given.get(key) is not None and kind.removeprefix("a ") not in _ONLY_FOR[key]:
            yield ConfigError(
                f"{place((*path, key))}: source {path[1] + 1}: '{key}' is only for "  # type: ignore[operator]  # the number
                f"{_ONLY_FOR[key]}",
                hint="remove it",
            )
    for key in ("path", "exclude_file"):
        text = given.get(key)
        if isinstance(text, str) and not _URL.match(text):
            if directory is None and _is_relative(text):
                yield _relative(place((*path, key)), key)
            else:
                yield from _not_expanded(text, where)


def _not_expanded(text: str, where: str) -> Iterator[ConfigError]:
    try:
        expanded(text)
    except ConfigError as exc:
        yield ConfigError(f"{where}: {exc}", hint=exc.hint)


def _relative(where: str, key: str) -> ConfigError:
    return ConfigError(
        f"{where}: '{key}' is a relative path; only a configuration file on disk may have them",
        hint="use an absolute path, or one that begins with ~/",
    )


def _is_relative(path: str) -> bool:
    return not path.startswith(("/", "~"))


def job_of(value: Mapping[str, Any], directory: Path | None) -> Job:
    """Return the job that a mapping without problems describes.

    Relative paths in it start at *directory*.
    """
    given = {key: each for key, each in value.items() if each is not None}
    check, drill = given.get("check"), given.get("drill")
    return Job(
        sources=tuple(_source_of(each, directory) for each in given["sources"]),
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


def _source_of(given: Any, directory: Path | None) -> JobSource:
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
    joined = directory / native if directory is not None and _is_relative(path) else native
    return str(expanded(joined))


def _texts(value: str | list[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())
