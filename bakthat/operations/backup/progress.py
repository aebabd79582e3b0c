"""The progress of a running backup: what its user sees, and that others see it is alive."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from bakthat import models, reservations
from bakthat.archive.report import ArchiveReport
from bakthat.database.address import Location
from bakthat.errors import CatalogError
from bakthat.system.streams import Progress, ProgressState, state_receiver
from bakthat.system.text import printable

log = logging.getLogger("bakthat")
transfer_log = logging.getLogger("bakthat.backends")

RENEWAL_SECONDS = 3600.0
"""How often a running backup renews the reservation of its name."""


def renewing(
    catalog: Location, key: str, on_bytes: Callable[[int], object]
) -> Callable[[int], None]:
    """Return *on_bytes*, which then renews the reservation of *key* too, once an hour.

    Otherwise cleanup would take a backup of several days for one whose process has died.
    """
    renewed_at = time.monotonic()

    def count(size: int) -> None:
        nonlocal renewed_at
        on_bytes(size)
        if time.monotonic() - renewed_at < RENEWAL_SECONDS:
            return
        renewed_at = time.monotonic()
        try:
            with models.catalog(catalog, write=True):
                reservations.keep_reserved(key)
        except CatalogError as exc:
            log.debug("the reservation of %s was not renewed: %s", printable(key), exc)

    return count


class UploadProgress:
    """Reports progress to a function, or else logs a line at each tenth.

    *total* is in bytes, 0 where it is not known. *report* knows what is read now; *stored* returns
    the bytes that were sent so far.
    """

    def __init__(
        self,
        total: int,
        progress: Progress | None,
        report: ArchiveReport,
        stored: Callable[[], int],
    ) -> None:
        self._total = total
        self._on_state = state_receiver(progress) if progress is not None else None
        self._report = report
        self._stored = stored
        self._done = 0
        self._logged = -1
        self.add(0)

    def add(self, size: int) -> None:
        """Report *size* more bytes."""
        self._done += size
        if self._on_state is not None:
            total = max(self._done, self._total) if self._total else 0
            self._on_state(self._state(total))
            return
        # Below 100 until the storage has confirmed: a tree may grow while it is read.
        tenth = min(self._done * 10 // self._total, 9) if self._total else 0
        if tenth > self._logged:
            self._logged = tenth
            transfer_log.info("Upload completion: %d%%", tenth * 10)

    def finish(self) -> None:
        """Report that the storage has confirmed the whole object."""
        if self._on_state is not None:
            self._on_state(self._state(self._done))
        else:
            transfer_log.info("Upload completion: 100%")

    def _state(self, total: int) -> ProgressState:
        current = self._report.current
        path = current()[0] if current is not None else ""
        return ProgressState(self._done, total, self._stored(), path)
