"""Pings for Healthchecks, which alerts when a backup fails or is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bakthat.notify.base import Notifier, Status, error_text, flag, status_of, web_url

if TYPE_CHECKING:
    from bakthat.hooks import JobResult
    from bakthat.models import Backups


class Healthchecks(Notifier):
    """Pings a check when a backup or a job starts, succeeds and fails; ``healthchecks: {url: …}``.

    An incomplete backup counts as failed. The pings are those of
    https://healthchecks.io/docs/http_api/. ``rid`` is the session id, by which the server tells
    overlapping runs apart and measures the duration of each.
    """

    section = "healthchecks"
    required: ClassVar = {"url": web_url}
    optional: ClassVar = {"details": flag}

    def listen(self) -> None:
        """Add callbacks for backups and jobs; other operations do not prove that one was made."""
        self.before_backup += self._start
        self.on_backup += self._finish
        self.before_run += self._start_job
        self.on_run += self._finish_job
        self.on_error += self._fail

    def _start(self, session_id: str) -> None:
        if not self.is_in_job:
            self._ping("/start", session_id, "")

    def _start_job(self, session_id: str) -> None:
        self._ping("/start", session_id, "")

    def _finish_job(self, session_id: str, result: JobResult) -> None:
        suffix = "" if status_of(result) is Status.SUCCESS else "/fail"
        self._ping(suffix, session_id, self.describe_job(result))

    def _finish(self, session_id: str, backup: Backups) -> None:
        if self.is_in_job:
            return
        suffix = "" if backup.is_complete else "/fail"
        self._ping(suffix, session_id, self.describe_backup(backup))

    def _fail(self, session_id: str, operation: str, exception: BaseException) -> None:
        if operation in ("backup", "run") and not self.is_in_job:
            self._ping("/fail", session_id, error_text(exception))

    def _ping(self, suffix: str, session_id: str, message: str) -> None:
        address, _, query = str(self.settings["url"]).partition("?")
        parameters = "&".join(filter(None, (query, f"rid={session_id}")))
        with self.failures_as_warnings():
            url = f"{address.rstrip('/')}{suffix}?{parameters}"
            self.post(url, message.encode(), {"Content-Type": "text/plain; charset=utf-8"})
