"""Make findings of the answers and the refusals of a service."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from bakthat.backends.aws.answers import details_of, told_time
from bakthat.backends.aws.client import AwsClient, answer_of
from bakthat.backends.aws.permissions import is_about_clock
from bakthat.errors import (
    BakthatError,
    ConfigError,
    ContainerNotFoundError,
    CredentialsError,
    UnreachableError,
)
from bakthat.policy.clock import clock_finding
from bakthat.policy.finding import CONTAINER, Finding, Verdict, failed

MEND = "bakthat cleanup removes what is left behind, when it is a day old"
"""What a message says of a proof that was stopped."""


class Tried(NamedTuple):
    """The answer to a request, or the error."""

    answer: Mapping[str, Any]
    error: BakthatError | None = None

    @property
    def status(self) -> int:
        """The HTTP status of an error answer; 0 for none."""
        return 0 if self.error is None else answer_of(self.error)[0]

    @property
    def code(self) -> str:
        """The service's code of an error answer; "" for none."""
        return "" if self.error is None else answer_of(self.error)[1]

    @property
    def is_about_clock(self) -> bool:
        """Whether the service refused the request because of its date."""
        return self.error is not None and is_about_clock(
            answer_of(self.error)[1], details_of(self.error)
        )


def try_request(
    client: AwsClient, operation: str, *, key: str | None = None, **parameters: Any
) -> Tried:
    """Make one request. Raises UnreachableError, after which others would fail too."""
    try:
        return Tried(client.call(operation, key=key, **parameters))
    except UnreachableError:
        raise
    except BakthatError as exc:
        return Tried({}, exc)


def refused(
    client: AwsClient, topic: str, error: BakthatError, verdict: Verdict = Verdict.PROBLEM
) -> Finding:
    """Return the finding for an error, with the action that is not allowed, if that is it."""
    action = client.missing_action(error)
    detail = f"{action} is not allowed: {error}" if action else str(error)
    return Finding(topic, verdict, detail, error.hint)


def unusable(error: BakthatError) -> Finding:
    """Return the finding for an error after which nothing else needs to be tried."""
    return failed(_topic_of(error), error)


def _topic_of(error: BakthatError) -> str:
    if isinstance(error, ContainerNotFoundError):
        return CONTAINER
    if isinstance(error, CredentialsError):
        return "credentials"
    if isinstance(error, ConfigError):
        return "configuration"
    return "region" if "region_name:" in error.hint else "connection"


def clock_of(tried: Tried) -> Finding | None:
    """Return the finding about the clock, by the date of an answer that has just come.

    Returns None where it has no date.
    """
    answer = tried.answer
    if tried.error is not None:
        answer = getattr(tried.error.__cause__, "response", None) or {}
    told = told_time(answer)
    if told is not None:
        # It is in whole seconds, without what came after the last one.
        return clock_finding(time.time() - told - 0.5, is_refused=tried.is_about_clock)
    return failed("clock", tried.error) if tried.error and tried.is_about_clock else None
