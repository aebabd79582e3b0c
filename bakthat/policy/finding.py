"""What ``doctor`` finds out about one topic, and how bad it is."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from bakthat.errors import BakthatError


class Verdict(enum.StrEnum):
    """How bad a finding is."""

    GOOD = "good"
    """It was tried, and it works."""
    ADVICE = "advice"
    """Backups work. Something could be better, or could not be looked at."""
    PROBLEM = "problem"
    """A backup, a restore or a deletion fails, or will lose data."""


CONTAINER = "container"
"""The topic of findings about whether the bucket, the vault or the directory exists."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried, and how it went."""

    topic: str
    """One or two words, such as "writing" or "object lock"."""
    verdict: Verdict
    detail: str
    """One line: what was found."""
    hint: str = ""
    """One line: what to do about it; "" where nothing is to be done."""

    @property
    def is_problem(self) -> bool:
        """Whether something fails."""
        return self.verdict is Verdict.PROBLEM

    def as_dict(self) -> dict[str, str]:
        """Return the fields as text."""
        return {
            "topic": self.topic,
            "verdict": self.verdict.value,
            "detail": self.detail,
            "hint": self.hint,
        }


def good(topic: str, detail: str) -> Finding:
    """Return the finding that something works."""
    return Finding(topic, Verdict.GOOD, detail)


def advice(topic: str, detail: str, hint: str = "") -> Finding:
    """Return the finding that something could be better."""
    return Finding(topic, Verdict.ADVICE, detail, hint)


def problem(topic: str, detail: str, hint: str = "") -> Finding:
    """Return the finding that something fails."""
    return Finding(topic, Verdict.PROBLEM, detail, hint)


def failed(topic: str, error: BakthatError, verdict: Verdict = Verdict.PROBLEM) -> Finding:
    """Return the finding for an error."""
    return Finding(topic, verdict, str(error), error.hint)
