"""Pushes to a monitor of Uptime Kuma, which alerts when a backup fails or is missing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from bakthat.notify.base import Notifier, Status, error_text, flag, status_of, web_url

if TYPE_CHECKING:
    from bakthat.hooks import JobResult
    from bakthat.models import Backups

MAX_MESSAGE = 200
"""Characters of a message, which is a part of the URL."""

_PUSH_PATH = re.compile(r".*/api/push/[^/]+/?")
_PARAMETERS = ("status", "msg", "ping")


def _push_url(value: object) -> str:
    # Uptime Kuma answers 200 to any other path, with its web page.
    wanted = "the push URL of a monitor, such as https://kuma.example.com/api/push/TOKEN"
    good = not web_url(value) and _PUSH_PATH.fullmatch(urlsplit(str(value)).path)
    return "" if good else wanted


class UptimeKuma(Notifier):
    """Pushes how a backup or a job went to a monitor of type Push; ``uptime_kuma: {url: …}``.

    A complete backup is "up", with its duration as the ping. A failed one is "down", and so is an
    incomplete one. The requests are those of
    https://github.com/louislam/uptime-kuma/wiki/Internal-API: a parameter of a copied URL is
    replaced.
    """

    section = "uptime_kuma"
    required: ClassVar = {"url": _push_url}
    optional: ClassVar = {"details": flag}

    def listen(self) -> None:
        """Add callbacks for backups and jobs; other operations do not prove that one was made."""
        self.on_backup += self._finish
        self.on_run += self._finish_job
        self.on_error += self._fail

    def _finish_job(self, _session_id: str, result: JobResult) -> None:
        with self.failures_as_warnings():
            message = self.describe_job(result)
            if status_of(result) is Status.SUCCESS:
                self._push("up", message, ping=result.seconds)
            else:
                self._push("down", message)

    def _finish(self, _session_id: str, backup: Backups) -> None:
        if self.is_in_job:
            return
        with self.failures_as_warnings():
            message = self.describe_backup(backup)
            if backup.is_complete:
                self._push("up", message, ping=float(backup.metadata.get("seconds") or 0))
            else:
                self._push("down", message)

    def _fail(self, _session_id: str, operation: str, exception: BaseException) -> None:
        if operation in ("backup", "run") and not self.is_in_job:
            with self.failures_as_warnings():
                self._push("down", error_text(exception))

    def _push(self, status: str, message: str, *, ping: float | None = None) -> None:
        """Push *status*; *ping* is a duration in seconds."""
        parts = urlsplit(str(self.settings["url"]))
        kept = [each for each in parse_qsl(parts.query) if each[0] not in _PARAMETERS]
        if len(message) > MAX_MESSAGE:
            message = f"{message[: MAX_MESSAGE - 1]}…"
        milliseconds = "" if ping is None else str(round(ping * 1000))
        pushed = dict(zip(_PARAMETERS, (status, message, milliseconds), strict=True))
        self.get(urlunsplit(parts._replace(query=urlencode([*kept, *pushed.items()]), fragment="")))
