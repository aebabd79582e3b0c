"""The settings of a profile: what is wrong with a value, and what to write instead.

No message quotes a value that may be a secret, be it one below the wrong key. Each check has a JSON
schema, by which an editor finds most of what is wrong, and nothing that is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from bakthat.database.address import is_address, is_broken_address, parse_address
from bakthat.errors import ConfigError, UsageError
from bakthat.policy.defaults import DESTINATIONS, DETECT, KMS, MAX_NEEDED, SSE, VERSIONS
from bakthat.policy.intervals import UNITS, parse_interval
from bakthat.policy.object_lock.rule import MAX_DAYS, MODES, RETENTION
from bakthat.policy.storage_classes import NAMES
from bakthat.system import bandwidth as bandwidths
from bakthat.system.text import did_you_mean

MAX_TIMEOUT = 24 * 3600
"""Seconds. A longer timeout is probably a typing error."""
MAX_ATTEMPTS = 100
MAX_HOST_BYTES = 64
"""The longest name of a host: that of a machine under Linux."""
HOST_PLACEHOLDER = "{host}"
"""What stands for the name of the host in a prefix."""
ROTATION_RULES = ("last", "minutes", "hours", "days", "weeks", "months", "years")
"""The rules of a rotation. :mod:`bakthat.policy.rotation`, which has them too, loads slowly."""
SSE_C = (
    "its key would have to be sent with each request, and nothing can be read once it is lost; "
    "bakthat encrypts before it uploads, with recipients or a password"
)
"""Why there is no SSE-C."""


_PLACEHOLDER = re.compile(r"\{[^{}]*\}?|\}")
"""What looks like a placeholder, or like a part of one."""


class Problem(NamedTuple):
    """What is wrong with a value, as the end of a sentence that begins with its key."""

    text: str
    hint: str = ""


class Check:
    """Takes the value of a key, and returns None when it is valid."""

    def __init__(self, function: Callable[[object], Problem | None], schema: Mapping[str, Any]):
        self._function = function
        self.schema = schema
        """The JSON schema (draft 2020-12) of the values that are valid; it always has a type."""
        self.__doc__ = function.__doc__

    def __call__(self, value: object) -> Problem | None:
        """Return what is wrong with *value*; None when it is valid."""
        return self._function(value)


def _check(**schema: Any) -> Callable[[Callable[[object], Problem | None]], Check]:
    """Make a check of a function; *schema* describes the values that it accepts."""
    return lambda function: Check(function, schema)


_WORD = r"^\S+$"
_ROLE = r"^(?=.{20})arn:\S*:role/\S+$"
_ACCOUNT = re.compile(r"[0-9]{12}")
_RULE = {"type": "integer", "minimum": 0}
_WEEK_DAY = {"type": "integer", "minimum": 0, "maximum": 6}
_EMPTY = Problem("is empty", "give it a value, or remove the line")
_BANDWIDTH = (
    f"write it like 5MiB/s or 500kB/s, with one of {', '.join(bandwidths.UNITS)}; 1MB/s is 8 Mbit/s"
)
_ADDRESS = re.compile(r"(?:localhost|\[[0-9a-fA-F:]+\]|[\w-]+(?:\.[\w-]+)+|[\w-]+(?=:))(?::\d+)?/?")
"""A host without a scheme. A word without a dot and a port may be a secret, so it is none."""


@_check(type="string", minLength=1)
def text(value: object) -> Problem | None:
    """Check that a value is text that is not empty."""
    if not isinstance(value, str):
        # In YAML, {host} without quotes is a mapping.
        hint = "" if isinstance(value, list) else "put the value in quotes"
        return Problem(f"must be text, not {kind(value)}", hint)
    if "\0" in value:
        return Problem("holds a NUL character", "remove it")
    return None if value else _EMPTY


@_check(type="string", minLength=1)
def catalog(value: object) -> Problem | None:
    """Check that a value is a path, or the address of a database's server."""
    problem = text(value)
    if problem is not None:
        return problem
    if not is_address(str(value)):
        hint = "write a whole one, such as postgresql://bakthat@db.example.com/bakthat"
        return Problem("is no whole address", hint) if is_broken_address(str(value)) else None
    try:
        parse_address(str(value))
    except ConfigError as exc:
        return Problem(f"is no valid address: {exc}", exc.hint)
    return None


@_check(type="string")
def any_text(value: object) -> Problem | None:
    """Check that a value is text, which may be empty."""
    return None if value == "" else text(value)


@_check(type="string", pattern=_WORD)
def word(value: object) -> Problem | None:
    """Check that a value is text without white space and control characters."""
    problem = text(value)
    if problem is None and (not str(value).isprintable() or " " in str(value)):
        problem = Problem("holds white space or a control character", "remove it")
    return problem


@_check(type="string", pattern=r"^(arn:\S+|[^\s/]+)$")
def bucket(value: object) -> Problem | None:
    """Check that a value is the name of a bucket, or the ARN of an access point."""
    problem = word(value)
    if problem is None and "/" in str(value) and not str(value).startswith("arn:"):
        hint = "write only the name of the bucket; for a path within it, set prefix"
        problem = Problem("holds a slash", hint)
    return problem


@_check(type="string", pattern=r"^https?://\S+$")
def address(value: object) -> Problem | None:
    """Check that a value is an address of http or https."""
    problem = word(value)
    if problem is not None:
        return problem
    given = str(value)
    if not given.startswith(("https://", "http://")):
        hint = "write a whole address, such as https://s3.example.com or http://localhost:9000"
        if _ADDRESS.fullmatch(given):
            hint = f"write https://{given}, or http://{given} for a storage without TLS"
        return Problem("must begin with https:// or http://", hint)
    try:
        parts = urlsplit(given)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        has_host = False
    if not has_host:
        hint = "write it like https://s3.example.com or http://localhost:9000"
        return Problem("has no valid host and port", hint)
    return None


@_check(type="array", items=text.schema)
def texts(value: object) -> Problem | None:
    """Check that a value is a list of texts that are not empty."""
    if not isinstance(value, list):
        hint = "write each entry on a line of its own, after a dash"
        return Problem(f"must be a list, not {kind(value)}", hint)
    for number, entry in enumerate(value, 1):
        problem = text(entry)
        if problem is not None:
            hint = problem.hint.replace("the line", "it")
            return Problem(f"entry {number} {problem.text}", hint)
    return None


@_check(type=["string", "array"], minLength=1, items=text.schema)
def text_or_texts(value: object) -> Problem | None:
    """Check that a value is text, or a list of texts."""
    if isinstance(value, list):
        return texts(value)
    problem = text(value)
    if problem is None or isinstance(value, str):
        return problem
    return Problem(f"must be text or a list of texts, not {kind(value)}", problem.hint)


@_check(enum=list(DESTINATIONS), type="string")
def destination(value: object) -> Problem | None:
    """Check that a value is one of the destinations."""
    if value in DESTINATIONS:
        return None
    hint = did_you_mean(value.lower(), DESTINATIONS) if isinstance(value, str) else ""
    return Problem(f"must be one of {', '.join(DESTINATIONS)}, not {_shown(value)}", hint)


@_check(type="string", pattern=_WORD, examples=sorted(NAMES))
def storage_class(value: object) -> Problem | None:
    """Check that a value is a storage class, perhaps one that only some other storage knows."""
    problem = word(value)
    if problem is None and value not in NAMES and str(value).upper() in NAMES:
        problem = Problem(f"must be in upper case, not '{value}'", f"write {str(value).upper()}")
    return problem


@_check(enum=list(SSE), type="string")
def sse(value: object) -> Problem | None:
    """Check that a value is an encryption that S3 can do with keys that it has."""
    if value in SSE:
        return None
    given = value.lower() if isinstance(value, str) else ""
    if given in ("sse-c", "ssec"):
        return Problem("cannot be SSE-C", SSE_C)
    hint = did_you_mean(given, SSE) or "for SSE-S3 write AES256, and for SSE-KMS aws:kms"
    number = "" if isinstance(value, str) else f", not {_number_or_kind(value)}"
    return Problem(f"must be one of {', '.join(SSE)}{number}", hint)


def kms_key_problem(conf: Mapping[str, Any]) -> Problem | None:
    """Return what is wrong with sse_kms_key_id beside the other keys of a profile."""
    if not conf.get("sse_kms_key_id") or conf.get("sse") in KMS:
        return None
    return Problem(f"is set, but 'sse' is not {' or '.join(KMS)}", f"set sse: {KMS[0]}")


@_check(type="string", pattern=r"^[0-9]{12}$")
def account(value: object) -> Problem | None:
    """Check that a value is the number of an account of AWS."""
    if isinstance(value, str) and _ACCOUNT.fullmatch(value):
        return None
    hint = "write it without hyphens" if isinstance(value, str) else "write it in quotes"
    return Problem("must be the 12 digits of an account, as text", hint)


@_check(type="string", pattern=_ROLE)
def role_arn(value: object) -> Problem | None:
    """Check that a value is the ARN of a role."""
    problem = word(value)
    if problem is None and not re.match(_ROLE, str(value)):
        hint = "write it like arn:aws:iam::123456789012:role/backup"
        problem = Problem("is not the ARN of a role", hint)
    return problem


@_check(type=["boolean", "integer"], minimum=0, maximum=9)
def compress(value: object) -> Problem | None:
    """Check that a value is a boolean, or a level of gzip."""
    if isinstance(value, int) and 0 <= value <= 9:
        return None
    hint = "write it without quotes" if isinstance(value, str) and value.isdecimal() else ""
    return Problem(f"must be true, false or a level from 0 to 9, not {_shown(value)}", hint)


@_check(type="boolean")
def boolean(value: object) -> Problem | None:
    """Check that a value is true or false."""
    if isinstance(value, bool):
        return None
    return Problem(f"must be true or false, not {_number_or_kind(value)}", _unquoted(value))


@_check(type="string", pattern=f"^([0-9]+[{''.join(UNITS)}])+$")
def interval(value: object) -> Problem | None:
    """Check that a value is an interval."""
    problem = text(value)
    if problem is not None:
        return Problem(problem.text, "write it like 90D") if isinstance(value, int) else problem
    try:
        parse_interval(str(value))
    except UsageError as exc:
        return Problem("is no interval", exc.hint)
    return None


@_check(type="integer", minimum=2, maximum=MAX_NEEDED)
def archives(value: object) -> Problem | None:
    """Check that a value is a usable number of archives for a restore."""
    if isinstance(value, int) and not isinstance(value, bool) and 2 <= value <= MAX_NEEDED:
        return None
    wanted = f"must be a whole number from 2 to {MAX_NEEDED}"
    return Problem(f"{wanted}, not {_number_or_kind(value)}", _unquoted(value))


@_check(type="integer", minimum=0, maximum=100)
def percent(value: object) -> Problem | None:
    """Check that a value is a whole number of percent."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 100:
        return None
    wanted = "must be a whole number of percent from 0 to 100"
    return Problem(f"{wanted}, not {_number_or_kind(value)}", _unquoted(value))


@_check(enum=list(DETECT), type="string")
def detect(value: object) -> Problem | None:
    """Check that a value is one of the ways to detect changes."""
    return _one_of(DETECT, value)


@_check(type="number", exclusiveMinimum=0, maximum=MAX_TIMEOUT)
def timeout(value: object) -> Problem | None:
    """Check that a value is a usable number of seconds."""
    if not _is_number(value):
        return _not_a_number(value, "a number of seconds", "60")
    if not 0 < value <= MAX_TIMEOUT:  # type: ignore[operator]  # just checked
        return Problem(f"must be more than 0 and at most {MAX_TIMEOUT} seconds, not {value}")
    return None


@_check(type="string", pattern=bandwidths.PATTERN)
def bandwidth(value: object) -> Problem | None:
    """Check that a value is a number of bytes per second with its unit."""
    problem = text(value)
    if problem is not None:
        return Problem(problem.text, _BANDWIDTH) if isinstance(value, int | float) else problem
    try:
        given = bandwidths.bytes_per_second(str(value))
    except ValueError:
        return Problem("is no bandwidth", _BANDWIDTH)
    if given < bandwidths.LOWEST:
        lowest = f"{bandwidths.LOWEST // 1000}kB/s"
        return Problem(f"is too low: it must be at least {lowest}", _BANDWIDTH)
    return None


@_check(type="integer", minimum=1, maximum=MAX_ATTEMPTS)
def attempts(value: object) -> Problem | None:
    """Check that a value is a usable number of attempts."""
    if not _is_number(value):
        return _not_a_number(value, "a number", "8")
    if not isinstance(value, int) or not 1 <= value <= MAX_ATTEMPTS:
        return Problem(f"must be a whole number from 1 to {MAX_ATTEMPTS}, not {value}")
    return None


@_check(type="string", minLength=1, maxLength=MAX_HOST_BYTES, pattern=r"^[^/]+$")
def host(value: object) -> Problem | None:
    """Check that a value can be the name of a host, which may be a part of keys."""
    problem = text(value)
    if problem is not None or not isinstance(value, str):
        return problem
    if not value.isprintable() or value != value.strip():
        return Problem("holds a control character, or white space at an end", "remove it")
    if "/" in value or value in (".", ".."):
        return Problem("cannot be a part of a key", "write it without slashes")
    if len(value.encode()) > MAX_HOST_BYTES:
        return Problem(f"is too long: it may have {MAX_HOST_BYTES} bytes")
    return None


@_check(type="string", pattern=r"^(?!/)(?!.*//)")
def prefix(value: object) -> Problem | None:
    """Check that a value can begin the keys of objects."""
    problem = any_text(value)
    if problem is not None or not isinstance(value, str):
        return problem
    if not value.isprintable():
        return Problem("holds a control character", "remove it")
    if value.startswith("/"):
        return Problem("begins with a slash", "remove it; keys begin with a name")
    if "//" in value:
        return Problem("holds two slashes in a row", "remove one")
    if ".." in value.split("/"):
        return Problem("holds '..'", "write the path without it")
    unknown = _PLACEHOLDER.search(value.replace(HOST_PLACEHOLDER, ""))
    if unknown is not None:
        return Problem(
            f"holds the unknown placeholder '{unknown[0]}'", f"did you mean {HOST_PLACEHOLDER}?"
        )
    return None


@_check(
    type="object",
    properties={**dict.fromkeys(ROTATION_RULES, _RULE), "first_week_day": _WEEK_DAY},
    additionalProperties=False,
)
def rotation(value: object) -> Problem | None:
    """Check that a value is a mapping; its rules are checked where they are used."""
    if isinstance(value, Mapping):
        return None
    return Problem(f"must be a mapping such as {{days: 7, weeks: 4}}, not {kind(value)}")


@_check(
    type="object",
    properties={
        "mode": {"type": "string", "enum": list(MODES)},
        "days": {"type": ["integer", "string"], "minimum": 1, "maximum": MAX_DAYS},
    },
    additionalProperties=False,
)
def object_lock(value: object) -> Problem | None:
    """Check that a value says how, and for how long, backups are locked; empty for not at all."""
    hint = "write it like {mode: governance, days: 30}, or with days: retention"
    if not isinstance(value, Mapping):
        return Problem(f"must be a mapping of mode and days, not {kind(value)}", hint)
    for key in value:
        if key not in ("mode", "days"):
            guess = did_you_mean(str(key), ("mode", "days"))
            return Problem("has an unknown key", guess or hint)
    if not value:
        return None
    for key in ("mode", "days"):
        if value.get(key) is None:
            return Problem(f"has no {key}", hint)
    mode, days = value["mode"], value["days"]
    if mode not in MODES:
        guess = did_you_mean(mode.lower(), MODES) if isinstance(mode, str) else ""
        return Problem(f"has a mode that is not one of {', '.join(MODES)}", guess or hint)
    is_number = isinstance(days, int) and not isinstance(days, bool)
    if days != RETENTION and not (is_number and 1 <= days <= MAX_DAYS):
        wanted = f"neither a whole number from 1 to {MAX_DAYS} nor {RETENTION}"
        return Problem(f"has days that are {wanted}", _unquoted(days) or hint)
    return None


@_check(enum=list(VERSIONS), type="string")
def versions(value: object) -> Problem | None:
    """Check that a value says what a deletion does with the versions of a bucket."""
    return _one_of(VERSIONS, value)


@_check(type="object")
def mapping(value: object) -> Problem | None:
    """Check that a value is a mapping of settings."""
    if isinstance(value, Mapping):
        return None
    hint = "write each setting on an indented line of its own below it"
    return Problem(f"must be a mapping of settings, not {kind(value)}", hint)


def _one_of(words: Sequence[str], value: object) -> Problem | None:
    """Return what is wrong with the value of a key that takes one of *words*; never the value."""
    if value in words:
        return None
    hint = did_you_mean(value.lower(), words) if isinstance(value, str) else ""
    given = "" if isinstance(value, str) else f", not {_number_or_kind(value)}"
    return Problem(f"must be one of {', '.join(words)}{given}", hint)


def kind(value: object) -> str:
    """Return the type of a value as users of YAML call it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    names = {str: "text", dict: "a mapping", list: "a list", int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _not_a_number(value: object, wanted: str, example: str) -> Problem:
    hint = f"write it without quotes and units, such as {example}" if isinstance(value, str) else ""
    return Problem(f"must be {wanted}, not {kind(value)}", hint)


def _number_or_kind(value: object) -> str:
    """Return a number as it is, and of anything else, which may be a secret, its type."""
    return repr(value) if isinstance(value, (int, float)) else kind(value)


def _unquoted(value: object) -> str:
    return "write it without quotes" if isinstance(value, str) else ""


def _shown(value: object) -> str:
    """Return a value of a key that holds no secret; of a list or a mapping, its type."""
    is_plain = isinstance(value, (str, int, float))
    return repr(value) if is_plain else kind(value)
