"""A POST request to a web server after each operation, in JSON of its own or of ntfy."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, ClassVar

from bakthat.errors import ConfigError
from bakthat.notify.base import (
    Notifier,
    Status,
    choice,
    error_text,
    flag,
    job_of,
    status_of,
    web_url,
)

if TYPE_CHECKING:
    from bakthat.models import Backups

NTFY_HIGH_PRIORITY = 4
"""The priority of messages about failures and incomplete backups."""

_TEXTS = {"producer": "stderr", "drill": "problem", "check": "detail"}
"""The facts in an entry's metadata that hold a text, which may name files or quote programs."""

_NTFY = re.compile(r"https?://[^/]+(/.*)?/[-_A-Za-z0-9]{1,64}/?")


def _headers(value: object) -> str:
    good = isinstance(value, dict) and all(
        isinstance(each, str) and each.isascii() and each.isprintable()
        for pair in value.items()
        for each in pair
    )
    return "" if good else "a mapping of text to text"


class Webhook(Notifier):
    """Posts each result; ``webhook: {url: …, format: json or ntfy, when: …, headers: …}``.

    With ``when: failure``, nothing is sent about a success. With ``format: json`` (the default) the
    body has operation, status ("success", "incomplete" or "failure"), session_id, host, message,
    and backups, the catalog entries unless it failed; these have the texts of warnings and programs
    only with ``details: true``. With ``format: ntfy`` the url ends with the
    topic, and the body is that of https://docs.ntfy.sh/publish/#publish-as-json.
    """

    section = "webhook"
    required: ClassVar = {"url": web_url}
    optional: ClassVar = {
        "format": choice("json", "ntfy"),
        "when": choice("always", "failure"),
        "headers": _headers,
        "details": flag,
    }

    def listen(self) -> None:
        """Add callbacks for all operations. Raises ConfigError."""
        if self.settings.get("format") == "ntfy" and not _NTFY.fullmatch(self.settings["url"]):
            raise ConfigError(
                "'url' below 'webhook' must end with a topic of ntfy",
                hint="write it as https://ntfy.example.com/topic",
            )
        self.listen_to_all(self._send_result, self._send_error)

    def _send_result(self, session_id: str, operation: str, result: Any) -> None:
        status = status_of(result)
        if self.settings.get("when") != "failure" or status is not Status.SUCCESS:
            job = job_of(result)
            made = result if job is None else job.backups
            backups: list[Any] = made if isinstance(made, list) else [made]
            entries = [self._entry(each) for each in backups]
            message = self.summary_line(operation, result)
            self._post(session_id, operation, status, message, entries)

    def _send_error(self, session_id: str, operation: str, exception: BaseException) -> None:
        message = f"{operation} failed: {error_text(exception)}"
        self._post(session_id, operation, Status.FAILURE, message, [])

    def _entry(self, backup: Backups) -> dict[str, Any]:
        """Return an entry of the catalog; without details, without the texts of the log in it."""
        entry = backup.as_dict()
        if not self.has_details:
            metadata = {**entry["metadata"]}
            metadata.pop("warnings", None)
            for fact, text in _TEXTS.items():
                if isinstance(metadata.get(fact), dict):
                    metadata[fact] = {**metadata[fact]}
                    metadata[fact].pop(text, None)
            entry["metadata"] = metadata
        return entry

    def _post(
        self, session_id: str, operation: str, status: Status, message: str, entries: list[Any]
    ) -> None:
        url, host = str(self.settings["url"]), self.host
        body: dict[str, Any] = {
            "operation": operation,
            "status": status.value,
            "session_id": session_id,
            "host": host,
            "message": message,
            "backups": entries,
        }
        if self.settings.get("format") == "ntfy":
            url, _, topic = url.rstrip("/").rpartition("/")
            body = {"topic": topic, "title": f"bakthat on {host}", "message": message}
            is_good = status is Status.SUCCESS
            body["tags"] = ["white_check_mark" if is_good else "warning"]
            if not is_good:
                body["priority"] = NTFY_HIGH_PRIORITY
        headers = {"Content-Type": "application/json", **self.settings.get("headers", {})}
        self.post(url, json.dumps(body).encode(), headers)
