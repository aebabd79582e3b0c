"""Ask for the settings of a profile, in the words of 0.6.0, and write them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bakthat import conf
from bakthat.errors import ConfigError, UsageError
from bakthat.policy.defaults import (
    DEFAULT_DESTINATION,
    DEFAULT_LOCAL_PATH,
    DEFAULT_REGION,
    DESTINATIONS,
)
from bakthat.policy.rotation import RotationPolicy
from bakthat.policy.week_days import SATURDAY, WEEK_DAYS, parse_week_day
from bakthat.system import terminal

REMOVE = "-"
"""The answer that removes a value. An empty answer keeps it."""


def configure(profile: str, config: str | os.PathLike[str] | None) -> Path:
    """Ask for keys and containers, write them as one profile, and return the path of the file.

    The profile's present values are the defaults. The file is written after the last answer, so an
    interrupt changes nothing. Raises ConfigError.
    """
    current = conf.read_raw_profile(profile, config=config)
    try:
        answers = {
            "access_key": _ask("AWS Access Key", current.get("access_key")),
            "secret_key": _ask_secret("AWS Secret Key", current.get("secret_key")),
            "s3_bucket": _ask("S3 Bucket Name", current.get("s3_bucket")),
            "glacier_vault": _ask("Glacier Vault Name", current.get("glacier_vault")),
            "default_destination": _ask_destination(
                current.get("default_destination") or DEFAULT_DESTINATION
            ),
            "region_name": _ask("Region Name", current.get("region_name") or DEFAULT_REGION),
            "endpoint_url": _ask(
                "Endpoint URL, of S3-compatible storage only", current.get("endpoint_url")
            ),
            "local_path": _ask("Local Path", current.get("local_path") or DEFAULT_LOCAL_PATH),
        }
    except EOFError as exc:
        raise ConfigError("the input ended before the last answer; nothing was changed") from exc
    return conf.save_profile(answers, name=profile, config=config)


def configure_rotation(profile: str, config: str | os.PathLike[str] | None) -> Path:
    """Ask how many backups rotation keeps, write the profile, and return the path of the file.

    The profile's present values are the defaults, and its other rules stay. The file is written
    after the last answer. On a terminal the question is asked again after an invalid answer. Raises
    UsageError for an invalid answer without a terminal, and ConfigError.
    """
    loaded = conf.load_profile(profile, config=config)
    current = loaded.profile.rotation
    try:
        answers = {
            rule: _ask_number(rule, current.get(rule)) for rule in ("days", "weeks", "months")
        }
        answers["first_week_day"] = _ask_week_day(current.get("first_week_day"))
    except EOFError as exc:
        raise ConfigError("the input ended before the last answer; nothing was changed") from exc
    rotation = {key: value for key, value in {**current, **answers}.items() if value is not None}
    RotationPolicy.from_mapping(rotation)
    changes: dict[str, Any] = {"rotation": rotation}
    if loaded.is_unconfigured:
        # Without a file the destination is local; with one, a profile that names none uses S3.
        changes["default_destination"] = loaded.profile.default_destination
    return conf.save_profile(changes, name=profile, config=config)


def _ask_week_day(default: Any) -> int | None:
    known = default in range(len(WEEK_DAYS))
    day = WEEK_DAYS[default if known else SATURDAY]
    shown = day if known else f"{day} by default"
    question = f"First week day (to calculate which weekly backup keep, {shown}): "
    return _ask_until_valid(question, default if known else SATURDAY, parse_week_day)


def _ask_number(rule: str, default: Any) -> int | None:
    question = f"Number of {rule} to keep"
    return _ask_until_valid(
        f"{question} ({default}): " if default else f"{question}: ", default, _parse_number
    )


def _parse_number(answer: str) -> int:
    if not (answer.isascii() and answer.isdigit()):
        raise UsageError(f"{answer!r} is not a whole number from 0 on")
    return int(answer)


def _ask_until_valid(question: str, default: Any, parse: Callable[[str], int]) -> int | None:
    while True:
        answer = terminal.ask(question)
        if not answer or answer == REMOVE:
            return None if answer else default
        try:
            return parse(answer)
        except UsageError as exc:
            if not terminal.is_interactive():
                raise
            terminal.print_line(f"{exc}; {exc.hint}" if exc.hint else str(exc))


def _ask(question: str, default: Any) -> str | None:
    answer = terminal.ask(f"{question} ({default}): " if default else f"{question}: ")
    return _kept(answer, default)


def _ask_secret(question: str, default: Any) -> str | None:
    answer = terminal.ask_secret(f"{question} (unchanged): " if default else f"{question}: ")
    return _kept(answer, default)


def _kept(answer: str, default: Any) -> str | None:
    if answer == REMOVE:
        return None
    return answer or default or None


def _ask_destination(default: str) -> str | None:
    while True:
        answer = _ask("Default destination", default)
        if answer is None or answer in DESTINATIONS:
            return answer
        terminal.print_line(f"it must be one of {', '.join(DESTINATIONS)}")
