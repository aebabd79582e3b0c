"""List the backups that a bucket had at a time, and what became of each since then."""

from __future__ import annotations

import logging
import time as clock
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bakthat.conf import DEFAULT_PROFILE
from bakthat.policy.intervals import parse_since
from bakthat.session.session import Session, operation
from bakthat.session.sets import newest_first
from bakthat.session.versions.past import Past, PastBackup
from bakthat.system.paths import PathLike
from bakthat.system.streams import Progress
from bakthat.system.text import counted, printable, shown_time, shown_zone

log = logging.getLogger("bakthat")


@dataclass(frozen=True, slots=True)
class StoredAt:
    """The backups that a bucket had at a time."""

    time: float
    """Epoch seconds UTC."""
    container: str
    backups: list[PastBackup]
    """The newest first."""

    @property
    def hidden(self) -> list[PastBackup]:
        """Those that are not intact, and that undelete brings back."""
        return [each for each in self.backups if not (each.is_intact or each.is_gone)]

    @property
    def gone(self) -> list[PastBackup]:
        """Those whose archive has no version any more: nothing brings them back."""
        return [each for each in self.backups if each.is_gone]

    def summary(self) -> str:
        """Return one line with the number of backups by what became of them."""
        counts: dict[str, int] = {}
        for each in self.backups:
            counts[each.what] = counts.get(each.what, 0) + 1
        found = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
        stored = f"{counted(len(self.backups), 'backup')} of {shown_time(self.time)}"
        return f"Found {stored} {shown_zone()} on s3 {printable(self.container)}: {found or 'none'}"

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints as the summary."""
        intact = sum(each.is_intact for each in self.backups)
        return {
            "as_of": self.time,
            "backups": len(self.backups),
            "intact": intact,
            "hidden": len(self.hidden),
            "gone": len(self.gone),
        }


def stored_at(
    time: str | float,
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> StoredAt:
    """Return the backups that the profile's bucket had at *time*, and what became of each.

    *time* is a date such as ``2026-07-01 12:00``, in UTC unless it names a zone, an age such as
    ``2D``, or epoch seconds. The bucket must keep versions: those behind delete markers and below
    what has overwritten them are found, also with an empty catalog. Nothing is changed, neither on
    the storage nor in the catalog; :func:`bakthat.undelete` brings the backups back.

    The versions are listed once. What is intact by that takes no other request; of everything else
    the self-descriptions of the versions are read, to find the one that bakthat wrote. *progress*
    is called with the number of backups, done and in all.

    Raises UsageError, also for a bucket that keeps no versions, StorageError and ConfigError.
    """
    moment = parse_since(time, clock.time())
    session = Session(profile, config, conf, destination)
    with operation(session, "stored_at", deferred=True):
        past = Past(session, moment)
        found = {each.backup.stored_filename: each for each in past.look(past.archives(), progress)}
        ordered = newest_first(each.backup for each in found.values())
        backups = [found[each.stored_filename] for each in ordered]
        return StoredAt(moment, past.backend.container, backups)
