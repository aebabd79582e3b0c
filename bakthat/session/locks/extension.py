"""Let the locks of what a rotation keeps last as long as the rotation will keep it.

A lock ends when the rotation may drop the backup (:mod:`bakthat.policy.object_lock.until`), and
that moment moves: a coarser rule takes a backup over, days pass without one, the rotation of the
profile changes. A backup from before ``object_lock`` was set gets its first lock the same way.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from bakthat import models
from bakthat.backends.lock import Lock
from bakthat.backends.protection import LockingStorage
from bakthat.errors import BakthatError, StorageError, UnreachableError
from bakthat.policy.newest import is_in_the_future
from bakthat.policy.object_lock.rule import COMPLIANCE, GOVERNANCE, LockRule
from bakthat.policy.object_lock.until import DAY, locked_until
from bakthat.session.locks.retention import (
    as_metadata,
    extend_lock,
    known_lock,
    rotation_of,
    rule_of,
)
from bakthat.session.session import Session
from bakthat.session.stat import workers
from bakthat.system.text import printable, utc_time

log = logging.getLogger("bakthat")


@dataclass(slots=True)
class Extension:
    """A lock that is to last longer, or the first one of a backup."""

    backup: models.Backups
    lock: Lock
    """What it is to be."""
    problem: BakthatError | None = None
    """Why it could not be extended."""


@dataclass(slots=True)
class Extensions:
    """The locks that a rotation extends."""

    planned: list[Extension] = field(default_factory=list)
    """The oldest backup first."""
    problem: BakthatError | None = None
    """Why it is not known which ones these are."""

    def lock_of(self, backup: models.Backups) -> Lock | None:
        """Return what the lock of *backup* is to be; None if it is not extended."""
        name = backup.stored_filename
        return next((x.lock for x in self.planned if x.backup.stored_filename == name), None)

    @property
    def problems(self) -> list[BakthatError]:
        """Why some locks, or all, are not extended."""
        found = [each.problem for each in self.planned if each.problem is not None]
        return found if self.problem is None else [self.problem]


def plan_extensions(
    session: Session, backups: Sequence[models.Backups], kept: Collection[models.Backups]
) -> Extensions:
    """Return which locks of the backups of one set are to be extended.

    *backups* are all that the catalog lists of the set, and *kept* are those of them that rotation
    keeps. There is one request to the storage, where ``object_lock`` is set.
    """
    if not session.profile.object_lock:
        return Extensions()
    backend = session.backend(session.destination)
    try:
        rule = rule_of(session, backend)
        if rule is None:
            return Extensions()
        now = int(time.time())
        ends = locked_until([each.date for each in backups], rule, rotation_of(session), now)
    except BakthatError as exc:
        return Extensions(problem=exc)
    names = {each.stored_filename for each in kept}
    wanted = {
        each.stored_filename: end
        for each, end in zip(backups, ends, strict=True)
        # A lock from a wrong date may last for decades.
        if each.stored_filename in names and not is_in_the_future(each.date, now) and end > now
    }
    return Extensions(_longer(backups, wanted, rule, now))


def _longer(
    backups: Sequence[models.Backups], wanted: Mapping[str, int], rule: LockRule, now: int
) -> list[Extension]:
    """Return the extensions by the *wanted* ends, in epoch seconds UTC, and by what needs what."""
    by_date: defaultdict[int, list[models.Backups]] = defaultdict(list)
    for each in backups:
        by_date[each.date].append(each)
    needed_until: defaultdict[str, float] = defaultdict(float)
    """Until when what needs a backup is locked."""
    found = []
    for each in sorted(backups, key=lambda each: (each.date, each.is_increment), reverse=True):
        name, known = each.stored_filename, known_lock(each)
        if not known.holds_at(now):
            known = Lock()
        lock = _extended(known, wanted.get(name), needed_until[name], rule, now)
        if lock is not None:
            found.append(Extension(each, lock))
        until = (lock or known).until
        if until is None or not each.is_increment:
            continue
        dates = each.needs or [date for date in by_date if date < each.date]
        for one in (one for date in dates for one in by_date.get(date, ())):
            needed_until[one.stored_filename] = max(until, needed_until[one.stored_filename])
    return found[::-1]


def _extended(
    known: Lock, wanted: int | None, needed_until: float, rule: LockRule, now: int
) -> Lock | None:
    """Return the lock that a backup with the *known* one is to have; None when that is enough.

    It is left as it is while it lasts for half a day and *wanted* is not a day later: the newest
    backup is to be locked for a day from each rotation on, which would change it each time.
    """
    if wanted is None and not needed_until:
        return None
    end = known.until or 0
    until = max(end, needed_until)
    if wanted is not None and (end < now + DAY // 2 or wanted >= end + DAY):
        until = max(until, wanted)
    mode = COMPLIANCE if COMPLIANCE in (known.mode, rule.mode) else rule.mode
    lock = Lock(until, mode)
    return None if known.covers(lock) else lock


def carry_out_extensions(session: Session, extensions: Extensions) -> None:
    """Extend the locks on the storage, several at once, and record what was extended.

    What fails is a warning, and the problem of its extension. Raises CatalogError.
    """
    if extensions.problem is not None:
        log.warning("No lock is extended: %s", extensions.problem)
    if not extensions.planned:
        return
    found = session.backend(session.destination)
    assert isinstance(found, LockingStorage)
    backend = found
    is_away = threading.Event()

    def extend(each: Extension) -> None:
        try:
            if is_away.is_set():
                raise UnreachableError(
                    f"{printable(backend.container)} did not answer the requests before",
                    hint="rotate again later",
                )
            each.lock = _extend(backend, each.backup.stored_filename, each.lock)
        except UnreachableError as exc:
            is_away.set()
            each.problem = exc
        except BakthatError as exc:
            each.problem = exc

    with workers() as pool:
        for each, _ in zip(extensions.planned, pool.map(extend, extensions.planned), strict=True):
            name, until = printable(each.backup.stored_filename), utc_time(each.lock.until or 0)
            if each.problem is None:
                log.info("Locked %s until %s UTC", name, until)
            else:
                log.warning("%s is not locked until %s UTC: %s", name, until, each.problem)
    done = [each for each in extensions.planned if each.problem is None]
    if done:
        models.changed(session.catalog, lambda: _record(done))


def _extend(backend: LockingStorage, key: str, lock: Lock) -> Lock:
    """Extend a lock, if need be in the mode that it has; return the lock that is there now."""
    try:
        extend_lock(backend, key, lock)
    except UnreachableError:
        raise
    except StorageError:
        # Some storages make a lock stricter only for who may lift it. It must not end for that.
        as_it_is = Lock(lock.until, GOVERNANCE)
        if lock.mode != COMPLIANCE or backend.lock_of(key).mode != GOVERNANCE:
            raise
        extend_lock(backend, key, as_it_is)
        log.info("%s stays in governance mode: its storage makes no lock stricter", printable(key))
        return as_it_is
    return lock


def _record(done: Sequence[Extension]) -> None:
    for each in done:
        models.add_metadata(each.backup, as_metadata(each.lock))
