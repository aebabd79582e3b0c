"""Notifications on the desktop, by mail and through the other services of the library Apprise."""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Iterator
from typing import Any, ClassVar

from bakthat.errors import ConfigError
from bakthat.notify.base import Notifier, Status, choice, error_text, flag, status_of


def _addresses(value: object) -> str:
    good = isinstance(value, list) and value and all(isinstance(each, str) for each in value)
    return "" if good else "a list of Apprise's addresses"


class Apprise(Notifier):
    """Notifies after each operation; ``apprise: {urls: [mailtos://…], when: always or failure}``.

    https://github.com/caronc/apprise/wiki lists the addresses. Needs the extra ``apprise``.
    """

    section = "apprise"
    required: ClassVar = {"urls": _addresses}
    optional: ClassVar = {"when": choice("always", "failure"), "details": flag}

    def listen(self) -> None:
        """Load the library, check the addresses and add the callbacks. Raises ConfigError."""
        try:
            library = importlib.import_module("apprise")  # bakthat works without it
        except ModuleNotFoundError as exc:
            raise ConfigError(
                "the library 'apprise' is not installed",
                hint="pip install apprise, or with pipx: pipx inject bakthat apprise",
            ) from exc
        self._targets: Any = library.Apprise()
        self._types = library.NotifyType
        for number, address in enumerate(self.settings["urls"], 1):
            with _silence():
                is_good = self._targets.add(address)
            if not is_good:
                raise ConfigError(
                    f"Apprise does not know the address number {number} of 'urls', "
                    "or lacks a library for it",
                    hint="write it as Apprise documents it, such as ntfy://ntfy.example.com/topic",
                )
        self.listen_to_all(self._send_result, self._send_error)

    def _send_result(self, _session_id: str, operation: str, result: Any) -> None:
        status = status_of(result)
        if self.settings.get("when") != "failure" or status is not Status.SUCCESS:
            kinds = {Status.SUCCESS: self._types.SUCCESS, Status.FAILURE: self._types.FAILURE}
            kind = kinds.get(status, self._types.WARNING)
            self._notify(self.summary_line(operation, result), kind)

    def _send_error(self, _session_id: str, operation: str, exception: BaseException) -> None:
        self._notify(f"{operation} failed: {error_text(exception)}", self._types.FAILURE)

    def _notify(self, message: str, kind: Any) -> None:
        title = f"bakthat on {self.host}"
        with _silence():
            is_complete = self._targets.notify(title=title, body=message, notify_type=kind)
        if not is_complete:
            self.log.warning("apprise: could not notify every address")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Disable the library's log: it has addresses, which are secrets."""
    log = logging.getLogger("apprise")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before
