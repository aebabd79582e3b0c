"""Set how many backups rotation keeps: by the questions of 0.6.0, or by options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bakthat import conf
from bakthat.cli.configure.asking import all_or_nothing, ask_until_valid, keeping
from bakthat.errors import UsageError
from bakthat.policy.rotation import RotationPolicy
from bakthat.policy.week_days import SATURDAY, WEEK_DAYS, parse_week_day

RULES = ("days", "weeks", "months")
FIRST_WEEK_DAY = "first_week_day"


def configure_rotation(
    profile: str, config: str | os.PathLike[str] | None, given: Mapping[str, str | None]
) -> Path:
    """Set how many backups rotation keeps, write the profile, and return the path of the file.

    *given* are the answers of options, by their rule; a rule without one keeps its value. When
    there are none, the questions are asked: an empty answer keeps the present value, and the file
    is written after the last one. Other rules of the profile stay. Raises UsageError for an invalid
    answer, and ConfigError.
    """
    loaded = conf.load_profile(profile, config=config)
    # What a variable of the environment says is not for the file.
    current = conf.read_raw_profile(profile, config=config).get("rotation") or {}
    if any(answer is not None for answer in given.values()):
        answers = _parsed(given)
    else:
        with all_or_nothing():
            answers = _asked(current)
    rotation = {key: value for key, value in {**current, **answers}.items() if value is not None}
    RotationPolicy.from_mapping(rotation)
    changes: dict[str, Any] = {"rotation": rotation}
    if not Path(loaded.origin).exists():
        # Without a file the destination is local; with one, a profile that names none uses S3.
        changes["default_destination"] = loaded.profile.default_destination
    return conf.save_profile(changes, name=profile, config=config)


def _asked(current: Mapping[str, Any]) -> dict[str, Any]:
    answers = {rule: _ask_number(rule, current.get(rule)) for rule in RULES}
    return {**answers, FIRST_WEEK_DAY: _ask_week_day(current.get(FIRST_WEEK_DAY))}


def _parsed(given: Mapping[str, str | None]) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for rule, answer in given.items():
        if answer is not None:
            parse = parse_week_day if rule == FIRST_WEEK_DAY else _parse_number
            try:
                answers[rule] = keeping(None, parse)(answer)
            except UsageError as exc:
                raise UsageError(f"--{rule.replace('_', '-')}: {exc}", hint=exc.hint) from None
    return answers


def _ask_number(rule: str, default: Any) -> int | None:
    shown = f" ({default})" if default else ""
    question = f"Number of {rule} to keep{shown}: "
    return ask_until_valid(question, keeping(default, _parse_number))


def _ask_week_day(default: Any) -> int | None:
    known = default in range(len(WEEK_DAYS))
    day = WEEK_DAYS[default if known else SATURDAY]
    shown = day if known else f"{day} by default"
    question = f"First week day (to calculate which weekly backup keep, {shown}): "
    return ask_until_valid(question, keeping(default if known else SATURDAY, parse_week_day))


def _parse_number(answer: str) -> int:
    if not (answer.isascii() and answer.isdigit()):
        raise UsageError(f"{answer!r} is not a whole number from 0 on")
    return int(answer)
