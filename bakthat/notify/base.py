"""The base class of notification plugins: settings, messages, and failures as warnings."""

from __future__ import annotations

import contextlib
import enum
import http.client
import urllib.error
import urllib.request
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from bakthat.conf import machine_name
from bakthat.errors import BakthatError, ConfigError
from bakthat.hooks import OPERATIONS, RUN, EventSlot, JobResult
from bakthat.plugin import Plugin
from bakthat.system.text import counted, did_you_mean, human_size, printable, reason_of, shown_key

if TYPE_CHECKING:
    from bakthat.models import Backups

TIMEOUT = 5.0
"""Seconds that each network operation may take. A backup must not wait for a notification."""

Check = Callable[[object], str]
"""Takes the value of a setting; returns what it must be, or "" when it is valid."""


class Notifier(Plugin):
    """A plugin whose failures are warnings, with settings below one key of the profile."""

    section: str
    """The key of the profile."""
    required: ClassVar[Mapping[str, Check]] = {}
    optional: ClassVar[Mapping[str, Check]] = {}

    def activate(self) -> None:
        """Check the settings and add the callbacks. Raises ConfigError."""
        self.settings = self.settings_in(self.conf)
        self.is_in_job = False
        self.before_run += self._begin_job
        self.on_run += self._end_job
        self.listen()

    def _begin_job(self, _session_id: str) -> None:
        self.is_in_job = True

    def _end_job(self, _session_id: str, _result: JobResult) -> None:
        self.is_in_job = False

    @property
    def host(self) -> str:
        """The name of this host: the profile's, or else the machine's."""
        return str(self.conf.get("host") or machine_name())

    @abstractmethod
    def listen(self) -> None:
        """Add callbacks to events."""

    def listen_to_all(
        self,
        on_result: Callable[[str, str, Any], None],
        on_error: Callable[[str, str, BaseException], None],
    ) -> None:
        """Call *on_result* or *on_error* after each operation; log their exceptions as warnings.

        Of a job, *on_result* is called once, after its end. Both get the session id and the
        operation's name. Then *on_result* gets the result, and *on_error* the exception.
        """

        def guarded(function: Callable[..., None], *first: Any) -> Callable[..., None]:
            def callback(session_id: str, *more: Any) -> None:
                if not self.is_in_job:
                    with self.failures_as_warnings():
                        function(session_id, *first, *more)

            return callback

        for operation in (*OPERATIONS, RUN):
            slot: EventSlot[...] = getattr(self, f"on_{operation}")
            slot += guarded(on_result, operation)
        self.on_error += guarded(on_error)

    @classmethod
    def settings_in(cls, conf: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of the plugin in a profile. Raises ConfigError."""
        given = conf.get(cls.section) or {}
        checks = {**cls.required, **cls.optional}
        for key, value in given.items():
            if key not in checks:
                known = ", ".join(checks)
                raise ConfigError(
                    f"unknown key '{shown_key(key)}' below '{cls.section}'",
                    hint=did_you_mean(str(key), checks) or f"use one of: {known}",
                )
            expected = checks[key](value)
            if expected:  # the value is not shown: it may be a secret
                raise ConfigError(f"'{key}' below '{cls.section}' must be {expected}")
        for key in cls.required:
            if key not in given:
                raise ConfigError(
                    f"the profile has no '{key}' below '{cls.section}'",
                    hint=f"add it on an indented line below {cls.section}",
                )
        return dict(given)

    @contextlib.contextmanager
    def failures_as_warnings(self) -> Iterator[None]:
        """Log an exception of the block as a warning, without secrets."""
        try:
            yield
        except Exception as exc:  # noqa: BLE001  # a notification must not fail a backup
            self.log.warning("%s: could not notify: %s", self.section, _describe(exc))

    @property
    def has_details(self) -> bool:
        """Whether texts of the log may be sent: warnings, which name files, and what programs said.

        Only with ``details: true``.
        """
        return bool(self.settings.get("details"))

    def summary_line(self, operation: str, result: Backups | Sequence[Backups] | JobResult) -> str:
        """Return one line about the result of an operation."""
        if isinstance(result, Sequence):
            return f"{operation}: {len(result)} deleted"
        job = job_of(result)
        if job is not None:
            return self.describe_job(job)
        backup: Any = result
        name = printable(backup.stored_filename)
        if backup.is_complete:
            return f"{operation}: {name}"
        return f"{operation} incomplete: {name}, with {self.describe_warnings(backup)}"

    def describe_job(self, result: JobResult) -> str:
        """Return one line about a job that has ended: how it went, and its first problem."""
        stored = sum(each.size for each in result.backups)
        number = counted(len(result.backups), "backup")
        line = f"job {printable(result.job)} {result.outcome}: {number} ({human_size(stored)})"
        problems = result.all_problems
        return f"{line}; {error_text(problems[0])}" if problems else line

    def describe_backup(self, backup: Backups) -> str:
        """Return one line about a backup that was made."""
        stored = f"stored {printable(backup.stored_filename)} ({human_size(backup.size)})"
        if backup.is_complete:
            return stored
        return f"incomplete: {stored}, with {self.describe_warnings(backup)}"

    def describe_warnings(self, backup: Backups) -> str:
        """Return the number of an entry's warnings; with details, the first of a backup's too."""
        number = counted(backup.warning_count, "warning")
        kept = backup.metadata.get("warnings") if backup.restore_warning_count is None else None
        first = str(kept[0]) if self.has_details and isinstance(kept, list) and kept else ""
        return f"{number}: {printable(first)}" if first else number

    def get(self, url: str) -> None:
        """Send a GET request. Raises as :meth:`post` does."""
        self._send(urllib.request.Request(url))

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a POST request. Raises OSError, also for any status but 2xx, or HTTPException.

        Redirects are not followed: the POST would become a GET that sends its headers elsewhere.
        """
        self._send(urllib.request.Request(url, data=body, headers=dict(headers), method="POST"))

    def _send(self, request: urllib.request.Request) -> None:
        request.add_header("User-Agent", "bakthat")
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=TIMEOUT):
            return


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: Any) -> None:
        """Return None, so that a redirect is an error as every status but 2xx is."""


def text(value: object) -> str:
    """Check that a setting is text."""
    return "" if isinstance(value, str) and value else "text"


def web_url(value: object) -> str:
    """Check that a setting is a URL of http or https without a user name or password."""
    wanted = "an address that begins with https:// or http://, without a user name"
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
        good = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
    except ValueError:
        good = False
    return "" if good and str(value).isascii() and " " not in str(value) else wanted


def flag(value: object) -> str:
    """Check that a setting is true or false."""
    return "" if isinstance(value, bool) else "true or false"


def choice(*allowed: str) -> Check:
    """Check that a setting is one of a few words."""
    return lambda value: "" if value in allowed else f"one of {', '.join(allowed)}"


def error_text(exception: BaseException) -> str:
    """Return one line about an exception; of a foreign one its type, as it may quote a secret."""
    if isinstance(exception, BakthatError) and not exception.is_unexpected:
        return printable(str(exception))
    is_wrapped = isinstance(exception, BakthatError) and exception.__cause__ is not None
    return type(exception.__cause__ if is_wrapped else exception).__name__


class Status(enum.StrEnum):
    """How an operation ended."""

    SUCCESS = "success"
    INCOMPLETE = "incomplete"
    """It was done, but files are missing or not as they were: exit code 3."""
    FAILURE = "failure"


def job_of(result: object) -> JobResult | None:
    """Return the result of an operation if it is that of a job, else None."""
    found: Any = result
    return found if hasattr(result, "all_problems") else None


def status_of(result: object) -> Status:
    """Return the status of an operation that returned *result*."""
    job = job_of(result)
    if job is not None:
        whole = {"done": Status.SUCCESS, "incomplete": Status.INCOMPLETE}
        return whole.get(job.outcome, Status.FAILURE)
    is_complete = isinstance(result, Sequence) or getattr(result, "is_complete", True)
    return Status.SUCCESS if is_complete else Status.INCOMPLETE


def _describe(exc: Exception) -> str:
    """Return what failed, without the URL: URLs of notifications are secrets."""
    if isinstance(exc, urllib.error.HTTPError):
        exc.close()
        return f"the server answered {exc.code}"
    if isinstance(exc, urllib.error.URLError) and isinstance(exc.reason, OSError):
        return _describe(exc.reason)
    if isinstance(exc, TimeoutError):
        return f"no answer within {TIMEOUT:g} seconds"
    if isinstance(exc, OSError) and not isinstance(exc, urllib.error.URLError):
        # Without the text of the system, str(exc) could be the URL.
        reason = reason_of(exc) if exc.strerror else type(exc).__name__
        return f"{reason}: {printable(str(exc.filename))}" if exc.filename else reason
    if isinstance(exc, http.client.HTTPException):
        return f"the server ended the connection ({type(exc).__name__})"
    return error_text(exc)
