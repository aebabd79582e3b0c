"""Cold storage: ask for what a restore needs, say how far it is, and wait for it.

A thaw costs money and takes hours, so it is asked for by ``restore`` alone, and looked for first:
any number of calls, processes and machines share one.
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
"""Whether to wait until something is thawed: True, or what is called with each pause in seconds."""

SHORT_PAUSE, LONG_PAUSE = 30.0, 600.0
"""Seconds between two looks, for a thaw that takes minutes and for one that takes hours."""

_REMEMBERED = "thaw "
"""What the keys of remembered thaws begin with in the table ``config``."""


@dataclass(frozen=True, slots=True)
class ThawOptions:
    """How the caller wants a backup to be thawed."""

    tier: str = STANDARD
    days: int = DEFAULT_DAYS
    """For how long it stays readable, where that can be chosen."""
    wait: Wait = False
    arguments: Sequence[str] = ()
    """What else the command that is to be run again must be given, such as where to restore to."""

    def check(self) -> None:
        """Raise UsageError when this cannot be meant."""
        if self.tier not in TIERS:
            raise UsageError(f"unknown tier '{self.tier}'", hint=f"use one of: {', '.join(TIERS)}")
        if isinstance(self.days, bool) or not isinstance(self.days, int) or self.days < 1:
            raise UsageError(f"days must be a whole number from 1 on, not {self.days!r}")


def thaw_status(session: Session, backup: models.Backups) -> ThawStatus:
    """Look how far a backup is from being readable, and ask for nothing."""
    backend = session.backend(backup.backend)
    if not isinstance(backend, ColdStorage):
        return ThawStatus(backup.stored_filename, ThawState.WARM)
    memory = _Memory(session, backup.backend)
    return memory.complete(backend.thaw_status(backup.stored_filename))


def make_readable(session: Session, backup: models.Backups, options: ThawOptions) -> bool:
    """Ask for a backup to be thawed if it is frozen, say so, and return whether it can be read.

    With ``options.wait``, return only when it can. Raises StorageError when the thaw failed.
    """
    backend = session.backend(backup.backend)
    if not isinstance(backend, ColdStorage):
        return True
    memory = _Memory(session, backup.backend)

    def look() -> ThawStatus:
        return memory.complete(backend.thaw_status(backup.stored_filename))

    state, is_new = look(), False
    if state.state is ThawState.FROZEN:
        with _one_at_a_time(session.catalog_path):
            state = look()
            is_new = state.state is ThawState.FROZEN
            if is_new:
                state = backend.thaw(backup.stored_filename, tier=options.tier, days=options.days)
                memory.keep(state)
    if is_new and not state.is_readable:
        _tell_asked(session, backup, state, options.arguments)
    elif not state.is_readable:
        log.info("%s", describe(state))
    while options.wait and not state.is_readable:
        pause(options.wait, _pause_between(state))
        state = look_again(look, state)
        if state.state is ThawState.FROZEN:
            raise StorageError(
                f"the thaw of {printable(backup.stored_filename)} ended without a result",
                hint="bakthat restore asks for it again",
            )
        if not state.is_readable:
            log.info("%s", describe(state))
    if state.state is ThawState.READY:
        log.info("%s", describe(state))
    return state.is_readable


def look_again(look: Callable[[], ThawStatus], before: ThawStatus) -> ThawStatus:
    """Return what *look* finds, or *before* while the storage cannot be reached.

    A wait of hours outlives an outage of the network.
    """
    try:
        return look()
    except UnreachableError as exc:
        log.warning("%s; still waiting", exc)
        return before


@contextlib.contextmanager
def _one_at_a_time(catalog: Path) -> Iterator[None]:
    """Let no two processes of this machine both find nothing asked for, and both ask, and pay.

    The lock is on the catalog's directory, so no file is left behind; where the file system has
    no such locks, it is done without.
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


def forget_expired(session: Session, destination: str, *, dry_run: bool = False) -> list[str]:
    """Forget the remembered thaws that are over; return their stored names."""
    backend = session.backend(destination)
    memory = _Memory(session, destination)
    if not isinstance(backend, ColdStorage):
        return []
    names = memory.names()
    if destination == "glacier":
        # A look at one forgets its job as well, which a dry run must not.
        expired = sorted(names - {thaw.key for thaw in backend.thaws()}) if names else []
    else:
        over = (ThawState.FROZEN, ThawState.WARM)
        expired = [key for key in sorted(names) if _look_again(backend, key).state in over]
    for key in expired if not dry_run else ():
        memory.forget(key)
    return expired


def _look_again(backend: ColdStorage, key: str) -> ThawStatus:
    try:
        return backend.thaw_status(key)
    except NotFoundError:
        return ThawStatus(key, ThawState.FROZEN)


class _Memory:
    """When a thaw was asked for and by which tier, which S3 does not tell; for one container."""

    def __init__(self, session: Session, destination: str) -> None:
        container = "".join(digest[:16] for _, digest in session.containers(destination)[:1])
        self._kept: CatalogMapping[Mapping[str, Any]] = CatalogMapping(
            session.catalog_path, "Config", "key", "value", beginning=f"{_REMEMBERED}{container} "
        )

    def keep(self, thaw: ThawStatus) -> None:
        """Remember a thaw that was just asked for."""
        if thaw.requested_at is not None:
            self._kept[thaw.key] = {"tier": thaw.tier, "requested_at": thaw.requested_at}

    def complete(self, thaw: ThawStatus) -> ThawStatus:
        """Return *thaw* with what the storage does not tell; forget one that is over."""
        if thaw.requested_at is not None or thaw.key not in self._kept:
            return thaw
        if thaw.state in (ThawState.FROZEN, ThawState.WARM):
            self.forget(thaw.key)
            return thaw
        kept = self._kept[thaw.key]
        return dataclasses.replace(
            thaw,
            tier=thaw.tier or str(kept.get("tier", "")),
            requested_at=kept.get("requested_at"),
        )

    def forget(self, key: str) -> None:
        """Forget the thaw of *key*."""
        self._kept.pop(key, None)

    def names(self) -> set[str]:
        """Return the stored names whose thaw is remembered."""
        return set(self._kept)


def expected_seconds(thaw: ThawStatus) -> tuple[int, int]:
    """Return from when until when after it was asked for a thaw usually ends."""
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


def _tell_asked(
    session: Session, backup: models.Backups, thaw: ThawStatus, arguments: Sequence[str]
) -> None:
    low, high = expected_seconds(thaw)
    log.info(
        "Asked for %s to be thawed (%s, tier %s): it usually takes %s, until %s",
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
        return (
            f"{name} is frozen ({thaw.storage_class}), and nobody has asked for it; "
            "bakthat restore does"
        )
    if thaw.state is ThawState.READY:
        until = f" until {show_moment(thaw.ready_until)}" if thaw.ready_until else ""
        return f"{name} is thawed{until}"
    _, high = expected_seconds(thaw)
    if thaw.requested_at is None:
        return f"{name} is thawing ({how}): it takes {show_duration(high)} at most"
    ago = show_duration(max(0, time.time() - thaw.requested_at))
    until = show_moment(thaw.requested_at + high)
    return f"{name} is thawing ({how}): asked for {ago} ago, expected until {until}"


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
    """Let *seconds* pass until the next look, in the way that the caller wants."""
    if callable(wait):
        wait(seconds)
    else:
        time.sleep(seconds)
