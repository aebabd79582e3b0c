"""The keys of a job, their checks and their schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bakthat.conf.profile import DEFAULT_PROFILE, Key
from bakthat.policy import settings
from bakthat.policy.settings import Check, Problem

_PERCENT = re.compile(r"[0-9]{1,3}(\.[0-9]+)?%")
_WHOLE_PERCENT = re.compile(r"[0-9]{1,3}%")


def _sample(value: object) -> Problem | None:
    """Check that a value is a percentage such as 5%, or a number of backups."""
    is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    is_share = isinstance(value, str) and _PERCENT.fullmatch(value) is not None
    if is_number or (is_share and 0 < float(str(value)[:-1]) <= 100):
        return None
    return Problem("must be a percentage such as 5%, or a number of backups", "write it like 5%")


def _whole_percent(value: object) -> Problem | None:
    """Check that a value is a whole percentage from 1% to 100%, or the number of one."""
    is_text = isinstance(value, str) and _WHOLE_PERCENT.fullmatch(value) is not None
    number = int(str(value)[:-1]) if is_text else value
    if isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= 100:
        return None
    return Problem("must be a whole percentage from 1% to 100%, or its number", "write it like 50%")


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
        Check(
            _whole_percent,
            {
                "type": ["string", "integer"],
                "pattern": "^[0-9]{1,3}%$",
                "minimum": 1,
                "maximum": 100,
            },
        ),
        "The part of the last size below which a stream is not stored, such as 50%",
    ),
}
"""The keys of a source that is a mapping."""

CHECK_KEYS: Mapping[str, Key] = {
    "every": _key(settings.interval, "How often each set is checked, such as 1W"),
    "sample": _key(
        Check(_sample, {"type": ["string", "integer"], "pattern": "^[0-9.]+%$", "minimum": 1}),
        "The share of each backup's data that is read, such as 5%; or a number of backups, of "
        "which nothing is read",
    ),
}
DRILL_KEYS: Mapping[str, Key] = {
    "every": _key(settings.interval, "How often the newest backup of each set is drilled"),
    "into": _key(
        settings.text,
        "The server for the scratch database of a dump; without it, the one that the dump is of",
    ),
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

    return Check(check, schema_of(keys, required))


def schema_of(keys: Mapping[str, Key], *required: str) -> dict[str, Any]:
    """Return the JSON schema of a mapping with these keys; without a value they have defaults."""
    return {
        "type": "object",
        "properties": {
            name: _described(key) if name in required else _or_null(_described(key))
            for name, key in keys.items()
        },
        "additionalProperties": False,
        **({"required": list(required)} if required else {}),
    }


def _described(key: Key) -> dict[str, Any]:
    return {"description": key.about, **key.check.schema}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    types = schema["type"]
    return {**schema, "type": [*([types] if isinstance(types, str) else types), "null"]}


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
