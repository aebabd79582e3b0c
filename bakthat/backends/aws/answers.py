"""What a service's answer says: its time, its details, and its words as one line."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping
from typing import Any

_USER_IN_URL = re.compile(r"//[^/@\s]*@")


def details_of(error: BaseException) -> str:
    """Return all that the service's answer says about *error*; "" without an answer."""
    answer = getattr(error.__cause__, "response", None) or {}
    return " ".join(str(each) for each in answer.get("Error", {}).values())


def time_of(answer: Mapping[str, Any]) -> float:
    """Return the time of *answer* by the clock of the service, in epoch seconds UTC.

    The clock of this machine may be wrong, so it is used only where the answer has no time.
    """
    told = told_time(answer)
    return time.time() if told is None else told


def told_time(answer: Mapping[str, Any]) -> float | None:
    """Return the time that the service says in *answer*, in epoch seconds UTC; None: it says none.

    An error answer is the ``response`` of botocore's exception.
    """
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        return email.utils.parsedate_to_datetime(str(headers["date"])).timestamp()
    except (KeyError, ValueError):
        return None


def refusal_of(error: Any) -> str:
    """Return the code and the message of botocore's ClientError."""
    detail = error.response.get("Error", {})
    if "Code" in error.response:  # as a storage answers that takes a request to STS for its own
        detail = error.response
    words = [one_line(detail.get(name) or "") for name in ("Code", "Message")]
    return ": ".join(filter(None, words)) or "refused"


def one_line(text: object) -> str:
    """Return a foreign message as one line, without the passwords in its URLs."""
    return _USER_IN_URL.sub("//", " ".join(str(text).split())).rstrip(".")
