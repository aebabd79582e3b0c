"""Bring back backups that somebody deleted or overwrote in a bucket that keeps versions.

Each comes back with its index and with all that it needs, what is needed first, so that whatever is
there can be restored. Nothing is deleted: what has overwritten a backup stays as a version.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bakthat import models
from bakthat.backends.lock import Lock
from bakthat.backends.protection import LockingStorage
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import (
    AmbiguousNameError,
    ContainerNotFoundError,
    CredentialsError,
    NoMatchError,
    StorageError,
    UnreachableError,
    UsageError,
)
from bakthat.format.names import tarball_stem
from bakthat.policy.intervals import parse_since
from bakthat.policy.object_lock.rule import COMPLIANCE
from bakthat.session.container import container_of, remember
from bakthat.session.entries import may_be_the_same, update_entry
from bakthat.session.locks.holds import add_lock, keep_reason
from bakthat.session.locks.retention import (
    as_metadata,
    extend_lock,
    lock_of_new,
    locks_of,
    rule_of,
)
from bakthat.session.session import Session, operation, result_log
from bakthat.session.sets import describe_sets, divide, newest_first, parse_source
from bakthat.session.stat import beginning_of, workers
from bakthat.session.versions.choice import PastObject, State
from bakthat.session.versions.past import UNDELETED, Past, PastBackup
from bakthat.system.paths import PathLike
from bakthat.system.streams import Progress
from bakthat.system.text import counted, printable, utc_time

log = logging.getLogger("bakthat")

_LISTED = "bakthat sync --as-of TIME lists what the bucket had at a time"


class Action(enum.StrEnum):
    """What undelete does about an object."""

    THERE = "there"
    """Nothing: it is stored as it was."""
    SHOWN = "shown"
    """It removes the delete markers that hide it."""
    COPIED = "copied"
    """It copies the version over what is there."""
    FAILED = "failed"
    """It could not be brought back."""


@dataclass(slots=True)
class Undeletion:
    """A backup, and what was done to bring it back."""

    backup: models.Backups
    action: Action
    """What was done about its archive."""
    index_action: Action | None
    """What was done about its index; None where it has none."""
    detail: str = ""
    """The problem, for people."""
    needed: bool = False
    """Whether it comes back only since another one needs it."""
    is_restorable: bool = True
    """Whether all that it needs is there."""

    @property
    def what(self) -> str:
        """What was done about the archive and its index, for people."""
        if self.action is not Action.THERE or self.index_action in (None, Action.THERE):
            return self.action.value
        return f"index {self.index_action}"

    @property
    def is_changed(self) -> bool:
        """Whether the archive or its index was brought back."""
        return bool({self.action, self.index_action} & {Action.SHOWN, Action.COPIED})

    @property
    def has_failed(self) -> bool:
        """Whether the archive is not back."""
        return self.action is Action.FAILED

    def as_dict(self) -> dict[str, Any]:
        """Return the columns of the entry, and what was done."""
        return {
            **self.backup.as_dict(),
            "action": self.action.value,
            "index_action": None if self.index_action is None else self.index_action.value,
            "needed": self.needed,
            "detail": self.detail,
        }


def undelete(
    filename: str = "",
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
    source: PathLike | None = None,
    as_of: str | float | None = None,
    everything: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> list[Undeletion]:
    """Bring back a backup that was deleted or overwritten; return what was done, in that order.

    *filename* is a stored filename, a set's name (its newest backup that is deleted or overwritten)
    or the beginning of a stored filename. *host* and *source* are as for :func:`bakthat.restore`.
    With *everything*, all that it means come back; without a *filename*, all that the bucket had at
    the time *as_of*. The catalog need not know them.

    With *as_of*, as for :func:`bakthat.stored_at`, only what was stored at that time is considered,
    as it was then. Without, the first version that fits its name counts, since bakthat writes each
    key once.

    Each comes back with its index and with all that it needs, what is needed first. Delete markers
    are removed, where that is allowed and is enough. Otherwise the version is copied over what is
    there, which stays as a version; nothing of a backup is ever deleted. The catalog lists then
    what is back. What is there already is left alone, so this can be repeated. With *dry_run*,
    nothing is changed.

    A backup that could not be brought back is in the result, and does not stop the others. Raises
    NoMatchError, AmbiguousNameError, UsageError, StorageError, ConfigError.
    """
    moment = None if as_of is None else parse_since(as_of, time.time())
    if not filename and not (everything and moment is not None):
        raise UsageError(
            "no backup was named",
            hint="name one, or bring back all of a time: --all --as-of TIME (everything=True, "
            "as_of= in Python)",
        )
    session = Session(profile, config, conf, destination)
    with operation(session, "undelete", deferred=True):
        past = Past(session, moment)
        chosen = _choose(past, filename, host, source, everything=everything)
        done = _Run(past, chosen, dry_run=dry_run, progress=progress).run()
        back = sum(each.is_changed for each in done)
        doing = "Would bring back" if dry_run else "Brought back"
        result_log.info("%s %s", doing, counted(back, "backup"))
        return done


# Which backups


def _choose(
    past: Past, name: str, host: str | None, source: PathLike | None, *, everything: bool
) -> list[PastBackup]:
    """Return the backups to bring back, and a named one also where it is there."""
    wanted = parse_source(source)
    if not name:
        keys = [key for key in past.archives() if not past.is_untouched(key)]
        return [each for each in past.look(keys) if host is None or each.backup.host == host]
    prefix = past.session.prefix_of(host)
    for fits in (_has_stored_name, _is_of_set, _begins):
        keys = [key for key in past.archives() if fits(past, key, name, prefix)]
        if not keys:
            continue
        # What is untouched is there; only of a named one it matters what it needs.
        is_whole = fits is _has_stored_name
        looked_at = keys if is_whole else [key for key in keys if not past.is_untouched(key)]
        found = [
            each
            for each in past.look(looked_at, described=True)
            if host is None or each.backup.host in (host, "")
        ]
        fitting = _of_source(found, wanted, name, everything=everything)
        if everything or is_whole:
            return fitting
        lost = [each for each in fitting if not each.is_intact]
        return [*(each for each in lost if not each.is_gone), *lost][:1]
    raise NoMatchError(f"nothing that the bucket keeps matches '{printable(name)}'", hint=_LISTED)


def _of_source(
    found: Sequence[PastBackup], wanted: str | None, name: str, *, everything: bool
) -> list[PastBackup]:
    """Return those of the *wanted* source, the newest first.

    Raises NoMatchError, and AmbiguousNameError for several sets, unless *everything* is wanted.
    """
    by_name = {each.backup.stored_filename: each for each in found}
    every = divide(each.backup for each in found)
    sets = [each for each in every if each.fits(wanted)]
    if every and not sets:
        raise NoMatchError(
            f"none of what '{printable(name)}' means is from that source",
            hint=f"choose one with --source: {describe_sets(every)}",
        )
    if len(sets) > 1 and not everything:
        raise AmbiguousNameError(
            f"'{printable(name)}' fits several sets: {describe_sets(sets)}",
            hint="name one backup in full, its host with --host or its source with --source, or "
            "bring back all of them with --all",
        )
    ordered = newest_first(backup for each in sets for backup in each.backups)
    return [by_name[each.stored_filename] for each in ordered]


def _has_stored_name(_past: Past, key: str, name: str, prefix: str) -> bool:
    return key in (name, prefix + name)


def _is_of_set(past: Past, key: str, name: str, _prefix: str) -> bool:
    return past.set_of(key) in (name, tarball_stem(name))


def _begins(_past: Past, key: str, name: str, prefix: str) -> bool:
    return key.startswith((name, prefix + name))


# What is done


class _Run:
    """Brings backups back, several at once: first those that others need."""

    def __init__(
        self,
        past: Past,
        chosen: Sequence[PastBackup],
        *,
        dry_run: bool,
        progress: Progress | None,
    ) -> None:
        """Raises StorageError, and ConfigError where the bucket lacks the locks of the profile."""
        self._past = past
        self._session = past.session
        self._backend = past.backend
        self._dry_run = dry_run
        self._progress = progress
        self._named = {each.backup.stored_filename for each in chosen}
        self._needs: dict[str, list[str]] = {}
        """The keys that each backup needs."""
        self._problems: dict[str, str] = {}
        """What a backup needs and what is not back, by its stored filename."""
        self._all = [*self._needed(chosen), *chosen]
        rule_of(self._session, self._backend)

    def run(self) -> list[Undeletion]:
        """Bring them back; return what was done, in order."""
        groups: defaultdict[int, list[PastBackup]] = defaultdict(list)
        for each in sorted(self._all, key=lambda each: each.backup.date):
            # Whatever an increment needs, needs less than it.
            groups[len(self._needs.get(each.backup.stored_filename, ()))].append(each)
        done: list[Undeletion] = []
        failed: set[str] = set()
        with workers() as pool:
            for number in sorted(groups):
                for result in pool.map(self._bring_back, groups[number]):
                    self._tell_lacking(result, failed)
                    done.append(result)
                    if self._progress is not None:
                        self._progress(len(done), len(self._all))
        if not self._dry_run:
            self._lock_alike(done)
        return done

    def _needed(self, chosen: Sequence[PastBackup]) -> list[PastBackup]:
        """Return what *chosen* need and are not themselves."""
        wide = False
        for each in chosen:
            if not each.backup.is_increment or each.is_gone:
                continue
            name = each.backup.stored_filename
            found, missing = self._past.needed_by(each.backup)
            if missing and self._session.shared_prefix and not wide:
                # They may be below a former prefix, which the keys may not be allowed to list.
                with contextlib.suppress(CredentialsError):
                    self._past.read("")
                wide = True
                found, missing = self._past.needed_by(each.backup)
            self._needs[name] = found
            if missing:
                dates = ", ".join(f"{utc_time(date)} UTC" for date in missing)
                self._problems[name] = f"no version is left of what it needs, of {dates}"
        keys = dict.fromkeys(key for found in self._needs.values() for key in found)
        others = [key for key in keys if key not in self._named]
        needed = list(self._past.look(others, described=True))
        for each in needed:
            if each.backup.is_increment:
                name = each.backup.stored_filename
                self._needs[name] = self._past.needed_by(each.backup)[0]
        return needed

    def _tell_lacking(self, result: Undeletion, failed: set[str]) -> None:
        """Add to *result* what its backup needs and is not back; *failed* has what is not back."""
        name = result.backup.stored_filename
        lacking = [key for key in self._needs.get(name, ()) if key in failed]
        if lacking:
            self._problems[name] = f"it needs {printable(lacking[0])}, which is not back"
        if result.has_failed:
            failed.add(name)
        elif name in self._problems:
            result.detail = "; ".join(filter(None, (result.detail, self._problems[name])))
            result.is_restorable = False

    def _bring_back(self, past: PastBackup) -> Undeletion:
        name = past.backup.stored_filename
        result = Undeletion(past.backup, Action.THERE, None, needed=name not in self._named)
        copies: list[str] = []
        # The index first, as a backup stores it: what is there can be restored then.
        if past.index is not None:
            result.index_action = self._tried(past, past.index, result, copies)
        result.action = self._tried(past, past.archive, result, copies)
        past.backup.is_deleted = result.has_failed
        if not (result.has_failed or self._dry_run):
            self._record(past.backup, copies)
        return result

    def _tried(
        self, past: PastBackup, what: PastObject, result: Undeletion, copies: list[str]
    ) -> Action:
        """Bring one object back, and return what was done; *copies* takes the id of a copy."""
        is_index = what is not past.archive
        if what.state is State.INTACT:
            return Action.THERE
        if what.version is None:
            result.detail = past.detail
            return Action.FAILED
        if self._dry_run:
            return Action.SHOWN if what.is_only_hidden else Action.COPIED
        try:
            stored = self._backend.bring_back(what.version, self._lock(past, what))
        except (UnreachableError, ContainerNotFoundError):
            raise
        except (StorageError, UsageError) as exc:
            of_index = "its index: " if is_index else ""
            hint = f" ({exc.hint})" if exc.hint else ""
            result.detail = f"{of_index}{exc}{hint}"
            log.warning("%s: %s", printable(past.backup.stored_filename), result.detail)
            return Action.FAILED
        if is_index:
            past.backup.metadata["index_size"] = stored.size
        else:
            past.backup.size = stored.size
            add_lock(past.backup, stored.lock)
        if stored.extra.get("version") == what.version.version_id:
            return Action.SHOWN
        copies.append(stored.extra["version"])
        return Action.COPIED

    def _lock(self, past: PastBackup, what: PastObject) -> Lock | None:
        """Return the lock of a copy: that of the version or of the profile, whichever is longer."""
        now = time.time()
        beginning = beginning_of(past.backup.stored_filename)
        dates = self._past.dates_of(beginning)
        new = lock_of_new(self._session, self._backend, past.backup.date, dates) or Lock()
        own = (what.stored and what.stored.lock) or Lock()
        ends = [each.until for each in (new, own) if each.until is not None and each.until > now]
        if not ends:
            return Lock(is_held=True) if own.is_held else None
        modes = {each.mode for each in (new, own) if each.until is not None and each.until > now}
        mode = COMPLIANCE if COMPLIANCE in modes else modes.pop()
        return Lock(max(ends), mode, own.is_held)

    def _lock_alike(self, done: Sequence[Undeletion]) -> None:
        """Let what is back be locked as long as its index, and all that it needs as long as it.

        A copy is locked as the profile demands by now, and the others were locked before.
        """
        backend = self._backend
        if not (isinstance(backend, LockingStorage) and backend.has_locks()):
            return
        wanted: defaultdict[str, list[Lock]] = defaultdict(list)
        """How what needs a backup is locked."""
        for each in reversed(done):  # what is needed comes before what needs it
            name = each.backup.stored_filename
            if each.has_failed or not (each.is_changed or wanted[name]):
                continue
            try:
                found = locks_of(backend, name)
                lock = max([*found, *wanted[name]], key=lambda lock: lock.until or 0)
                if (lock.until or 0) <= time.time():
                    continue
                if not all(one.covers(lock) for one in found):
                    extend_lock(backend, name, lock)
                    models.changed(self._session.catalog, partial(_record_lock, name, lock))
            except UnreachableError:
                raise
            except StorageError as exc:
                log.warning("%s is back, and is not locked for as long: %s", printable(name), exc)
                continue
            for key in self._needs.get(name, ()):
                wanted[key].append(lock)

    def _record(self, entry: models.Backups, copies: Sequence[str]) -> None:
        """List a backup that is back. Raises CatalogError."""
        if copies:
            entry.metadata[UNDELETED] = {"date": int(time.time()), "versions": list(copies)}
        models.changed(self._session.catalog, lambda: self._list(entry))

    def _list(self, entry: models.Backups) -> None:
        remember(self._backend)
        found = models.Backups.get_or_none(models.Backups.stored_filename == entry.stored_filename)
        if found is None:
            entry.metadata["adopted"] = int(time.time())
            models.Backups.create(**entry.as_dict())
            return
        is_here = (found.backend, found.backend_hash) in self._session.containers("s3")
        if not (is_here or found.is_deleted or may_be_the_same(found, entry)):
            log.warning(
                "%s is back, but cannot be listed: the catalog has its name in %s",
                printable(entry.stored_filename),
                printable(container_of(found) or "another container"),
            )
            return
        before = found.as_dict()
        keep_reason(found, entry)
        update_entry(found, entry, is_here=is_here)
        if found.as_dict() != before:
            found.last_updated = int(time.time())
            found.save()


def _record_lock(name: str, lock: Lock) -> None:
    listed = models.Backups.get_or_none(models.Backups.stored_filename == name)
    if listed is not None:
        models.add_metadata(listed, as_metadata(lock))
