"""A message on the desktop, by mail or by whatever else the library Apprise can."""

from __future__ import annotations

import contextlib
import importlib
import logging
import socket
from collections.abc import Iterator
from typing import Any, ClassVar

from bakthat.errors import ConfigError
from bakthat.notify.base import Notifier, choice, headline, what_failed


def _addresses(value: object) -> str:
    good = isinstance(value, list) and value and all(isinstance(each, str) for each in value)
    return "" if good else "a list of Apprise's addresses"


class Apprise(Notifier):
    """Tells of each operation; ``apprise: {urls: [mailtos://…], when: always or failure}``.

    https://github.com/caronc/apprise/wiki lists the addresses. Needs the extra ``apprise``.
    """

    section = "apprise"
    required: ClassVar = {"urls": _addresses}
    optional: ClassVar = {"when": choice("always", "failure")}

    def listen(self) -> None:
        """Load the library, check the addresses and listen. Raises ConfigError."""
        try:
            library = importlib.import_module("apprise")  # bakthat works without it
        except ModuleNotFoundError as exc:
            raise ConfigError(
                "the library apprise is not installed", hint="pip install 'bakthat[apprise]'"
            ) from exc
        self._targets: Any = library.Apprise()
        self._types = library.NotifyType
        for number, address in enumerate(self.settings["urls"], 1):
            with _silence():
                is_good = self._targets.add(address)
            if not is_good:
                raise ConfigError(
                    f"Apprise does not understand number {number} of its 'urls', "
                    "or lacks a library for it"
                )
        self.listen_to_all(self._tell_result, self._tell_error)

    def _tell_result(self, _session_id: str, operation: str, result: Any) -> None:
        if self.settings.get("when") != "failure":
            self._notify(headline(operation, result), self._types.SUCCESS)

    def _tell_error(self, _session_id: str, operation: str, exception: BaseException) -> None:
        self._notify(f"{operation} failed: {what_failed(exception)}", self._types.FAILURE)

    def _notify(self, message: str, kind: Any) -> None:
        title = f"bakthat on {socket.gethostname()}"
        with _silence():
            all_took_it = self._targets.notify(title=title, body=message, notify_type=kind)
        if not all_took_it:
            self.log.warning("apprise: could not notify every address")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the library from logging addresses, which are secrets."""
    log = logging.getLogger("apprise")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before
