"""Check a job as strictly as a profile.

Each problem is said with its line, and no message quotes a value, since a command or a URL may hold
a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bakthat.conf.job import JobSource, is_relative, source_of
from bakthat.conf.job_keys import CHECK_KEYS, DRILL_KEYS, JOB_KEYS, SOURCE_KEYS
from bakthat.conf.profile import KEYS, Key
from bakthat.errors import ConfigError
from bakthat.policy import settings
from bakthat.system.paths import expanded
from bakthat.system.text import did_you_mean, shown_key

KeyPath = tuple[str | int, ...]
"""The keys and the numbers of entries, from 0 on, that lead from a job to one of its values."""
Place = Callable[[KeyPath], str]
"""Returns where a value of a job is written, for messages: "path:3: job 'nightly'"."""

_ONLY_FOR = {
    "exclude_file": "a file or directory",
    "exclude_caches": "a file or directory",
    "one_file_system": "a file or directory",
    "via": "a database",
    "timeout": "a command or a database",
    "fail_below": "a command or a database",
    "allow_empty": "a file, a directory or a command",
}
"""What a key of a source is for, where not for each."""


def problem_of_job_name(name: str, where: str) -> ConfigError | None:
    """Return what is wrong with the name of a job, which is written at *where*."""
    for keys, what in ((KEYS, "profiles"), (JOB_KEYS, "jobs")):
        if name in keys:
            return ConfigError(
                f"{where}: a job cannot be called '{name}', which is a key of {what}",
                hint="write the name of the job on a line above, and indent its keys below it",
            )
    if not name.isprintable() or not name.strip() or name.startswith("-") or "/" in name:
        return ConfigError(
            f"{where}: a job has no usable name", hint="use letters, digits and hyphens"
        )
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
    if isinstance(scratch, str):
        where = place(("drill", "scratch"))
        if directory is None and is_relative(scratch):
            yield _relative(where, "scratch")
        else:
            yield from _not_expanded(scratch, where)


def _by_key(
    mapping: Mapping[Any, Any], keys: Mapping[str, Key], place: Place, path: KeyPath
) -> Iterator[tuple[str, list[ConfigError]]]:
    for key, given in mapping.items():
        where = place((*path, key))
        if key not in keys:
            hint = did_you_mean(str(key), keys) or f"use one of: {', '.join(keys)}"
            shown = shown_key(key)
            yield key, [ConfigError(f"{where}: unknown key '{shown}'", hint=hint)]
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
            f"{place((name,))}: '{name}' has no 'every'", hint="write how often: every: 1W"
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
        found = source_of(given, directory)
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
        if isinstance(text, str) and not source.is_url:
            if directory is None and is_relative(text):
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
