"""Cold storage: request the thaw of a backup, report its status, and wait for it.

A thaw costs money and takes hours. Only ``restore`` requests one, and only after it found none:
any number of calls, processes and machines share a thaw.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from bakthat import models
from bakthat.backends.base import ColdStorage, ThawState, ThawStatus
from bakthat.conf import DEFAULT_CONFIG, DEFAULT_PROFILE
from bakthat.errors import NotFoundError, StorageError, UsageError
from bakthat.policy.storage_classes import (
    DEFAULT_DAYS,
    STANDARD,
    TIERS,
    check_tier,
    storage_class,
    thaw_price,
)
from bakthat.session.records import CatalogMapping
from bakthat.session.session import Session
from bakthat.system.text import counted, human_size, printable, shown_minute

log = logging.getLogger("bakthat")

Wait = bool | Callable[[float], object]
"""Whether to wait for a thaw: False, True, or a function that is called instead of each pause, with
the seconds of the pause."""

SHORT_PAUSE, LONG_PAUSE = 30.0, 600.0
"""Seconds between two status requests, for a thaw that takes minutes and for one of hours."""

MAX_OUTAGE = 24 * 3600.0
"""Seconds for which a wait goes on while the storage fails. A vault keeps a thawed archive for a
day: after a longer outage the thaw must be requested again anyway."""

_THAW_PREFIX = "thaw "
"""What the keys of recorded thaws in the table ``config`` begin with."""


Status = TypeVar("Status")
"""What :class:`Polling` asks for: the status of one thaw, or those of several."""


@dataclass(frozen=True, slots=True)
class ThawOptions:
    """The options of a thaw."""

    tier: str = STANDARD
    days: int = DEFAULT_DAYS
    """Days for which S3 keeps the thawed copy; a vault ignores it."""
    wait: Wait = False
    may_request: bool = True
    """Whether a frozen backup is thawed, which is charged."""
    arguments: Sequence[str] = ()
    """Arguments to add to the command that the log says to run again."""

    def check(self) -> None:
        """Raise UsageError when an option is invalid."""
        if self.tier not in TIERS:
            raise UsageError(
                f"there is no tier '{self.tier}'", hint=f"use one of: {', '.join(TIERS)}"
            )
        if isinstance(self.days, bool) or not isinstance(self.days, int) or self.days < 1:
            raise UsageError(
                f"the days of a thaw must be a whole number from 1 on, not {self.days!r}",
                hint="a thawed copy costs by the day: --days 2 keeps it for two",
            )


def thaw_status(session: Session, backup: models.Backups) -> ThawStatus:
    """Return the status of a backup's thaw; request nothing. Raises StorageError."""
    backend = session.backend(backup.backend)
    if not isinstance(backend, ColdStorage):
        return ThawStatus(backup.stored_filename, ThawState.WARM)
    return _ThawRequests(session, backup.backend).complete(
        backend.thaw_status(backup.stored_filename)
    )


def make_readable(
    session: Session,
    backups: Sequence[models.Backups],
    options: ThawOptions,
    *,
    tell_price: bool = False,
) -> bool:
    """Request the thaw of those *backups* that are frozen; return whether all can be read now.

    They are in one container. The last one is the one to restore, which needs the others. With
    ``options.wait``, return only once all can be read; without ``options.may_request``, request
    nothing. With *tell_price*, a line before the request
    says how much is thawed and what that costs. Raises StorageError when a thaw failed.
    """
    if not backups:
        return True
    backend = session.backend(backups[-1].backend)
    if not isinstance(backend, ColdStorage):
        return True
    requests = _ThawRequests(session, backend.name)

    def status_of(backup: models.Backups) -> ThawStatus:
        return requests.complete(backend.thaw_status(backup.stored_filename))

    def check() -> list[ThawStatus]:
        return [status_of(each) for each in backups]

    def request(frozen: Sequence[ThawStatus]) -> list[ThawStatus]:
        for each in frozen:
            check_tier(each.storage_class, options.tier)  # before any is paid for
        if frozen and tell_price:
            _log_price(backups, frozen, options.tier)
        asked = []
        for each in frozen:
            asked.append(backend.thaw(each.key, tier=options.tier, days=options.days))
            requests.record(asked[-1])
        return asked

    statuses, asked, again = check(), list[ThawStatus](), set[str]()
    ready = {each.key for each in statuses if each.state is ThawState.READY}
    if options.may_request and any(each.state is ThawState.FROZEN for each in statuses):
        with _thaw_lock(session):
            statuses = check()
            asked = request([each for each in statuses if each.state is ThawState.FROZEN])
        new = {each.key: each for each in asked}
        statuses = [new.get(each.key, each) for each in statuses]
    asked = [each for each in asked if not each.is_readable]
    if asked:
        _log_request(session, backups[-1], asked, options.arguments)
    elif not least_ready(statuses).is_readable:
        _log_statuses(statuses)
    polling = Polling(options.wait, check)
    while options.wait and not least_ready(statuses).is_readable:
        ready |= {each.key for each in statuses if each.state is ThawState.READY} - again
        statuses = polling.next_status(statuses, _pause_between(least_ready(statuses)))
        frozen = [each for each in statuses if each.state is ThawState.FROZEN]
        for each in frozen:
            if each.key not in ready:
                raise StorageError(
                    f"the thaw of {printable(each.key)} failed or expired",
                    hint="bakthat restore requests it again",
                )
        if frozen:  # they were ready, and have expired while the others went on
            with _thaw_lock(session):
                request(frozen)
            again |= {each.key for each in frozen}  # once is enough
            ready -= again
            statuses = check()
        if not least_ready(statuses).is_readable:
            _log_statuses(statuses)
    if least_ready(statuses).state is ThawState.READY:
        _log_statuses(statuses)
    return least_ready(statuses).is_readable


_READINESS = (ThawState.FROZEN, ThawState.ASKED, ThawState.READY, ThawState.WARM)


def least_ready(statuses: Iterable[ThawStatus]) -> ThawStatus:
    """Return the status of what can be read last; of what is thawed, of what expires first."""

    def order(status: ThawStatus) -> tuple[int, float]:
        if status.state is ThawState.ASKED:
            begun = status.requested_at or 0.0
            return _READINESS.index(status.state), -begun - expected_seconds(status)[1]
        return _READINESS.index(status.state), status.ready_until or float("inf")

    return min(statuses, key=order)


class Polling(Generic[Status]):
    """Asks for a status again and again, with pauses.

    A wait of hours or days must survive an outage of the network or of the storage.
    """

    def __init__(self, wait: Wait, check: Callable[[], Status]) -> None:
        self._wait = wait
        self._check = check
        self._outage = 0.0

    def next_status(self, last: Status, seconds: float) -> Status:
        """Pause for *seconds*; return the status then, or *last* while there is an outage.

        Raises StorageError when the error does not pass by itself, such as wrong credentials, and
        when the outage is longer than :data:`MAX_OUTAGE`.
        """
        pause(self._wait, seconds)
        try:
            status = self._check()
        except StorageError as exc:
            self._outage += seconds
            if not exc.may_pass:
                raise
            if self._outage > MAX_OUTAGE:
                exc.hint = (
                    f"it was tried for {format_duration(self._outage)}; run this again when the "
                    "storage can be reached: a thaw that was requested goes on meanwhile"
                )
                raise
            log.warning("%s; still waiting", exc)
            return last
        self._outage = 0.0
        return status


@contextlib.contextmanager
def _thaw_lock(session: Session) -> Iterator[None]:
    """Hold a lock while a process looks for a thaw and requests it.

    Two processes of this machine would otherwise both find none, and both pay. The lock is on the
    catalog's directory, so no file is left behind. Does nothing on a file system without locks.
    """
    directory: int | None = None
    try:
        with contextlib.suppress(OSError):
            directory = os.open(session.catalog_directory, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        if directory is not None:
            os.close(directory)


def current_thaws(session: Session, destination: str) -> Iterator[ThawStatus]:
    """Yield the status of each object at a destination that is thawing or thawed.

    Thaws that another machine requested are included if the storage lists them. Raises
    StorageError.
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
    """Remove the records of ended thaws from the catalog; return their stored names.

    With *dry_run*, nothing is removed. Raises StorageError.
    """
    backend = session.backend(destination)
    requests = _ThawRequests(session, destination)
    if not isinstance(backend, ColdStorage):
        return []
    names = requests.names()
    if destination == "glacier":
        # Looking one up would also remove its job from the catalog, which a dry run must not do.
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
    """The thaws of one container that the catalog records: their times of request and tiers.

    S3 reports neither.
    """

    def __init__(self, session: Session, destination: str) -> None:
        container = "".join(digest[:16] for _, digest in session.containers(destination)[:1])
        self._recorded: CatalogMapping[Mapping[str, Any]] = CatalogMapping(
            session.catalog, "Config", "key", "value", prefix=f"{_THAW_PREFIX}{container} "
        )

    def record(self, thaw: ThawStatus) -> None:
        """Record a thaw that has just been requested."""
        if thaw.requested_at is not None:
            self._recorded[thaw.key] = {"tier": thaw.tier, "requested_at": thaw.requested_at}

    def complete(self, thaw: ThawStatus) -> ThawStatus:
        """Return *thaw* with the recorded tier and time; remove the record of an ended thaw."""
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
    """Return the usual shortest and longest duration of a thaw, in seconds."""
    offered = storage_class(thaw.storage_class).thaw_seconds
    return offered.get(thaw.tier) or max(offered.values(), default=(0, 0))


def format_duration(seconds: float) -> str:
    """Return a duration as text, such as ``5 minutes`` or ``3 h 20 min``."""
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} minute{'s' if minutes != 1 else ''}"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} hours" if hours > 1 else "1 hour"


def _log_request(
    session: Session, backup: models.Backups, asked: Sequence[ThawStatus], arguments: Sequence[str]
) -> None:
    thaw = max(asked, key=lambda each: expected_seconds(each)[1])
    low, high = expected_seconds(thaw)
    shortest, longest = format_duration(low), format_duration(high)
    log.info(
        "Requested the thaw of %s (%s, tier %s): it usually takes %s, until %s",
        printable(thaw.key) if len(asked) == 1 else f"{len(asked)} archives",
        thaw.storage_class,
        thaw.tier or "unknown",
        f"{shortest} to {longest}" if low else f"up to {longest}",
        shown_minute((thaw.requested_at or time.time()) + high),
    )
    log.info("When it is ready, run this again: %s", _command(session, backup, arguments))


def _log_statuses(statuses: Sequence[ThawStatus]) -> None:
    """Log the status that decides, and how many of several can be read."""
    if len(statuses) > 1:
        ready = sum(each.is_readable for each in statuses)
        log.info("%d of %d archives can be read", ready, len(statuses))
    log.info("%s", describe(least_ready(statuses)))


def _log_price(backups: Sequence[models.Backups], frozen: Sequence[ThawStatus], tier: str) -> None:
    """Log how much is about to be thawed, and what that costs."""
    sizes = {each.stored_filename: each.size for each in backups}
    what = counted(len(frozen), "archive")
    if any(sizes[each.key] < 0 for each in frozen):  # all that an inventory tells are names
        log.info("Requesting the thaw of %s, whose size is not known here", what)
        return
    prices = [thaw_price(each.storage_class, tier, sizes[each.key]) for each in frozen]
    known = [each for each in prices if each is not None]
    total = sum(known)
    cost = f"some ${max(total, 0.01):.2f}" if total else "free"
    log.info(
        "Requesting the thaw of %s, %s in all%s",
        what,
        human_size(sum(sizes[each.key] for each in frozen)),
        f": {cost} by the list price of AWS in us-east-1" if len(known) == len(prices) else "",
    )


def describe(thaw: ThawStatus) -> str:
    """Return one line about the status of a thaw."""
    name = printable(thaw.key)
    how = f"{thaw.storage_class}, tier {thaw.tier or 'unknown'}"
    if thaw.state is ThawState.WARM:
        return f"{name} can be read at once"
    if thaw.state is ThawState.FROZEN:
        return f"{name} is frozen ({thaw.storage_class}); bakthat restore requests its thaw"
    if thaw.state is ThawState.READY:
        until = f" until {shown_minute(thaw.ready_until)}" if thaw.ready_until else ""
        return f"{name} is thawed{until}"
    _, high = expected_seconds(thaw)
    if thaw.requested_at is None:
        return f"{name} is thawing ({how}): it takes up to {format_duration(high)}"
    ago = format_duration(max(0, time.time() - thaw.requested_at))
    until = shown_minute(thaw.requested_at + high)
    return f"{name} is thawing ({how}): requested {ago} ago, expected by {until}"


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
    """Wait for *seconds*, by calling *wait* if it is a function."""
    if callable(wait):
        wait(seconds)
    else:
        time.sleep(seconds)
