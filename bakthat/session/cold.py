"""Cold storage: request the thaw of what a restore needs, say how far it is, and wait for it.

A thaw costs money and takes hours, so only ``restore`` requests one, and looks for one first: any
number of calls, processes and machines share it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bakthat import models
from bakthat.backends.base import ColdStorage, ThawState, ThawStatus
from bakthat.conf import DEFAULT_CONFIG, DEFAULT_PROFILE
from bakthat.errors import NotFoundError, StorageError, UnreachableError, UsageError
from bakthat.policy.storage_classes import DEFAULT_DAYS, STANDARD, TIERS, storage_class
from bakthat.session.records import CatalogMapping
from bakthat.session.session import Session
from bakthat.system.text import printable

log = logging.getLogger("bakthat")

Wait = bool | Callable[[float], object]
"""Whether to wait until something is thawed: True, or a function that is called with the seconds
of each pause."""

SHORT_PAUSE, LONG_PAUSE = 30.0, 600.0
"""Seconds between two requests of the status, for a thaw of minutes and for one of hours."""

_RECORDED = "thaw "
"""The prefix of the keys of recorded thaws in the table ``config``."""


@dataclass(frozen=True, slots=True)
class ThawOptions:
    """How the caller wants a backup to be thawed."""

    tier: str = STANDARD
    days: int = DEFAULT_DAYS
    """For how long it stays readable, where that can be chosen."""
    wait: Wait = False
    arguments: Sequence[str] = ()
    """Further arguments of the command that the log says to run again, such as the destination."""

    def check(self) -> None:
        """Raise UsageError when an option is invalid."""
        if self.tier not in TIERS:
            raise UsageError(f"unknown tier '{self.tier}'", hint=f"use one of: {', '.join(TIERS)}")
        if isinstance(self.days, bool) or not isinstance(self.days, int) or self.days < 1:
            raise UsageError(f"days must be a whole number from 1 on, not {self.days!r}")


def thaw_status(session: Session, backup: models.Backups) -> ThawStatus:
    """Return how far a backup is from being readable; request nothing."""
    backend = session.backend(backup.backend)
    if not isinstance(backend, ColdStorage):
        return ThawStatus(backup.stored_filename, ThawState.WARM)
    return _ThawRequests(session, backup.backend).complete(
        backend.thaw_status(backup.stored_filename)
    )


def make_readable(session: Session, backup: models.Backups, options: ThawOptions) -> bool:
    """Request the thaw of a backup that is frozen, and return whether the backup can be read.

    With ``options.wait``, return only when it can. Raises StorageError when the thaw failed.
    """
    backend = session.backend(backup.backend)
    if not isinstance(backend, ColdStorage):
        return True
    requests = _ThawRequests(session, backup.backend)

    def check() -> ThawStatus:
        return requests.complete(backend.thaw_status(backup.stored_filename))

    status, is_new = check(), False
    if status.state is ThawState.FROZEN:
        with _one_at_a_time(session.catalog_path):
            status = check()
            is_new = status.state is ThawState.FROZEN
            if is_new:
                status = backend.thaw(backup.stored_filename, tier=options.tier, days=options.days)
                requests.record(status)
    if is_new and not status.is_readable:
        _log_request(session, backup, status, options.arguments)
    elif not status.is_readable:
        log.info("%s", describe(status))
    while options.wait and not status.is_readable:
        pause(options.wait, _pause_between(status))
        status = status_or_last(check, status)
        if status.state is ThawState.FROZEN:
            raise StorageError(
                f"the thaw of {printable(backup.stored_filename)} failed or expired",
                hint="bakthat restore requests it again",
            )
        if not status.is_readable:
            log.info("%s", describe(status))
    if status.state is ThawState.READY:
        log.info("%s", describe(status))
    return status.is_readable


def status_or_last(check: Callable[[], ThawStatus], last: ThawStatus) -> ThawStatus:
    """Return what *check* returns, or *last* while the storage cannot be reached.

    A wait of hours outlives an outage of the network.
    """
    try:
        return check()
    except UnreachableError as exc:
        log.warning("%s; still waiting", exc)
        return last


@contextlib.contextmanager
def _one_at_a_time(catalog: Path) -> Iterator[None]:
    """Let one process of this machine at a time look for a thaw and request it.

    Two would both find none, and both would pay. The lock is on the catalog's directory, so no file
    is left behind; a file system without such locks is used without.
    """
    directory: int | None = None
    try:
        with contextlib.suppress(OSError):
            directory = os.open(catalog.parent, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        if directory is not None:
            os.close(directory)


def current_thaws(session: Session, destination: str) -> Iterator[ThawStatus]:
    """Yield the objects that are being thawed or are thawed at a destination. Raises StorageError.

    Also what another machine requested, as far as the storage lists it.
    """
    backend = session.backend(destination)
    if not isinstance(backend, ColdStorage):
        return
    requests = _ThawRequests(session, destination)
    listed: set[str] = set()
    for thaw in backend.thaws(session.shared_prefix):
        listed.add(thaw.key)
        yield requests.complete(thaw)
    for key in requests.names() - listed:
        thaw = requests.complete(_status_if_stored(backend, key))
        if thaw.state in (ThawState.ASKED, ThawState.READY):
            yield thaw


def forget_expired(session: Session, destination: str, *, dry_run: bool = False) -> list[str]:
    """Remove the recorded thaws that are over from the catalog; return their stored names."""
    backend = session.backend(destination)
    requests = _ThawRequests(session, destination)
    if not isinstance(backend, ColdStorage):
        return []
    names = requests.names()
    if destination == "glacier":
        # To look up one would remove its job from the catalog as well, which a dry run must not.
        expired = sorted(names - {thaw.key for thaw in backend.thaws()}) if names else []
    else:
        over = (ThawState.FROZEN, ThawState.WARM)
        expired = [key for key in sorted(names) if _status_if_stored(backend, key).state in over]
    for key in expired if not dry_run else ():
        requests.forget(key)
    return expired


def _status_if_stored(backend: ColdStorage, key: str) -> ThawStatus:
    try:
        return backend.thaw_status(key)
    except NotFoundError:
        return ThawStatus(key, ThawState.FROZEN)


class _ThawRequests:
    """The catalog's record of thaws in one container: when each was requested, and by which tier.

    S3 returns neither.
    """

    def __init__(self, session: Session, destination: str) -> None:
        container = "".join(digest[:16] for _, digest in session.containers(destination)[:1])
        self._recorded: CatalogMapping[Mapping[str, Any]] = CatalogMapping(
            session.catalog_path, "Config", "key", "value", beginning=f"{_RECORDED}{container} "
        )

    def record(self, thaw: ThawStatus) -> None:
        """Record a thaw that was just requested."""
        if thaw.requested_at is not None:
            self._recorded[thaw.key] = {"tier": thaw.tier, "requested_at": thaw.requested_at}

    def complete(self, thaw: ThawStatus) -> ThawStatus:
        """Return *thaw* with the record of its request; remove the record of one that is over."""
        if thaw.requested_at is not None or thaw.key not in self._recorded:
            return thaw
        if thaw.state in (ThawState.FROZEN, ThawState.WARM):
            self.forget(thaw.key)
            return thaw
        recorded = self._recorded[thaw.key]
        return dataclasses.replace(
            thaw,
            tier=thaw.tier or str(recorded.get("tier", "")),
            requested_at=recorded.get("requested_at"),
        )

    def forget(self, key: str) -> None:
        """Remove the record of *key*."""
        self._recorded.pop(key, None)

    def names(self) -> set[str]:
        """Return the stored names whose thaw is recorded."""
        return set(self._recorded)


def expected_seconds(thaw: ThawStatus) -> tuple[int, int]:
    """Return how many seconds a thaw usually takes, at least and at most."""
    offered = storage_class(thaw.storage_class).thaw_seconds
    return offered.get(thaw.tier) or max(offered.values(), default=(0, 0))


def show_duration(seconds: float) -> str:
    """Return a duration as people say it: ``5 minutes``, ``3 h 20 min``."""
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} minute{'s' if minutes != 1 else ''}"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} hours" if hours > 1 else "1 hour"


def show_moment(when: float | None) -> str:
    """Return a moment in epoch seconds as a date in UTC; "" when it is not known."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(when)) if when is not None else ""


def _log_request(
    session: Session, backup: models.Backups, thaw: ThawStatus, arguments: Sequence[str]
) -> None:
    low, high = expected_seconds(thaw)
    log.info(
        "Requested the thaw of %s (%s, tier %s): it usually takes %s, until %s",
        printable(backup.stored_filename),
        thaw.storage_class,
        thaw.tier or "unknown",
        f"{show_duration(low)} to {show_duration(high)}" if low else f"up to {show_duration(high)}",
        show_moment((thaw.requested_at or time.time()) + high),
    )
    log.info("When it is ready, run this again: %s", _command(session, backup, arguments))


def describe(thaw: ThawStatus) -> str:
    """Return in a line how far an object is thawed."""
    name = printable(thaw.key)
    how = f"{thaw.storage_class}, tier {thaw.tier or 'unknown'}"
    if thaw.state is ThawState.WARM:
        return f"{name} can be read at once"
    if thaw.state is ThawState.FROZEN:
        return f"{name} is frozen ({thaw.storage_class}); bakthat restore requests its thaw"
    if thaw.state is ThawState.READY:
        until = f" until {show_moment(thaw.ready_until)}" if thaw.ready_until else ""
        return f"{name} is thawed{until}"
    _, high = expected_seconds(thaw)
    if thaw.requested_at is None:
        return f"{name} is thawing ({how}): it takes {show_duration(high)} at most"
    ago = show_duration(max(0, time.time() - thaw.requested_at))
    until = show_moment(thaw.requested_at + high)
    return f"{name} is thawing ({how}): requested {ago} ago, expected until {until}"


def _command(session: Session, backup: models.Backups, arguments: Sequence[str]) -> str:
    words = ["bakthat", "restore", printable(backup.stored_filename), "-d", backup.backend]
    if session.loaded.name != DEFAULT_PROFILE:
        words += ["-p", session.loaded.name]
    if session.loaded.origin not in ("conf", str(Path(DEFAULT_CONFIG).expanduser())):
        words += ["-c", session.loaded.origin]
    words += arguments
    return shlex.join(words)


def _pause_between(thaw: ThawStatus) -> float:
    return SHORT_PAUSE if expected_seconds(thaw)[1] <= LONG_PAUSE else LONG_PAUSE


def pause(wait: Wait, seconds: float) -> None:
    """Wait for *seconds*, in the way that the caller wants."""
    if callable(wait):
        wait(seconds)
    else:
        time.sleep(seconds)
