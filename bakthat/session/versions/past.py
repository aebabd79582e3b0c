"""The backups that a bucket had at a time, by one listing of its versions.

Only what is not intact is looked at by requests of its own. Values of KeyValue and the inventory of
a vault are left out: bakthat itself overwrites them.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bakthat import models
from bakthat.backends.base import StoredObject
from bakthat.backends.protection import NULL_VERSION, Version, VersionedStorage, fits_key
from bakthat.errors import CatalogError, CredentialsError, NotFoundError, UsageError
from bakthat.format import names
from bakthat.format.description import sanitized
from bakthat.session.entries import add_index_facts, entry_of
from bakthat.session.indexes.home import archive_key
from bakthat.session.session import Session
from bakthat.session.stat import batches, beginning_of, workers
from bakthat.session.versions.choice import (
    PastObject,
    State,
    agrees,
    candidates,
    in_order_of_fit,
    is_untouched,
    judged,
    seeming_copy,
    was_stored,
)
from bakthat.system.streams import Progress
from bakthat.system.text import counted, printable, utc_time

log = logging.getLogger("bakthat")

UNDELETED = "undeleted"
"""The key of the metadata of a backup that was brought back: when, and the ids of the versions that
are there now. On a storage whose ETags do not depend on the content alone, nothing else tells a
copy from an object that somebody else wrote."""


@dataclass(slots=True)
class PastBackup:
    """A backup that the bucket had, and what became of it."""

    backup: models.Backups
    """An unsaved entry; where nothing was looked at, it has only what the name says."""
    archive: PastObject
    index: PastObject | None = None
    """None where there was none."""
    detail: str = ""
    """What else is known, for people."""

    @property
    def is_intact(self) -> bool:
        """Whether the archive and its index are stored as they were."""
        return self.state is State.INTACT

    @property
    def is_gone(self) -> bool:
        """Whether no version of its archive is left: nothing brings it back."""
        return self.archive.state is State.GONE

    @property
    def state(self) -> State:
        """What became of its archive, or where that is intact of its index."""
        if self.archive.state is State.INTACT and self.index is not None:
            return self.index.state
        return self.archive.state

    @property
    def what(self) -> str:
        """What became of it, for people."""
        is_index = self.archive.state is State.INTACT and self.state is not State.INTACT
        return f"index {self.state.value}" if is_index else self.state.value

    @property
    def changed_at(self) -> float | None:
        """When the first of both was deleted or overwritten, in epoch seconds UTC; or None."""
        both = [self.archive, *([self.index] if self.index is not None else [])]
        return min((each.changed_at for each in both if each.changed_at is not None), default=None)

    def as_dict(self) -> dict[str, Any]:
        """Return the columns of the entry and what became of the backup."""
        index, version = self.index, self.archive.version
        return {
            **self.backup.as_dict(),
            "state": self.archive.state.value,
            "index_state": None if index is None else index.state.value,
            "changed_at": self.changed_at,
            "version": None if version is None else version.version_id,
            "detail": self.detail,
        }


@dataclass(slots=True)
class _Versions:
    """The versions of an archive and of its index, the newest first."""

    archive: list[Version] = field(default_factory=list)
    index: list[Version] = field(default_factory=list)

    @property
    def are_untouched(self) -> bool:
        return is_untouched(self.archive) and (not self.index or is_untouched(self.index))


class Past:
    """The backups that a bucket had at *time*, in epoch seconds UTC; with None, at any time."""

    def __init__(self, session: Session, time: float | None) -> None:
        """Raises UsageError when the container keeps no versions, StorageError, ConfigError."""
        self.session = session
        self.backend = versioned_backend(session)
        self.time = time
        self._versions: dict[str, _Versions] = {}
        self._dates: defaultdict[str, defaultdict[int, list[str]]] = defaultdict(
            lambda: defaultdict(list)
        )
        """The keys of each date, by what precedes the date in their last part."""
        self._copies = _known_copies(session)
        self.read(session.shared_prefix)

    def read(self, prefix: str) -> None:
        """List the versions of all keys that begin with *prefix*. Raises StorageError."""
        found: dict[str, _Versions] = {}
        for each in self.backend.versions(prefix):
            is_index = names.is_index_key(each.key)
            key = archive_key(each.key, "") if is_index else each.key
            if key is None or names.parse_any_name(key.rpartition("/")[2]) is None:
                continue
            of_key = found.setdefault(key, _Versions())
            (of_key.index if is_index else of_key.archive).append(each)
        for key in found.keys() - self._versions.keys():
            self._add_date(key, found[key])
        self._versions |= found

    def _add_date(self, key: str, versions: _Versions) -> None:
        parsed = names.parse_any_name(key.rpartition("/")[2])
        if parsed is not None and was_stored(versions.archive, None):
            self._dates[beginning_of(key).rpartition("/")[2]][parsed.backup_date].append(key)

    def archives(self) -> list[str]:
        """Return the keys of the archives that were stored, also of those that are gone."""
        return [key for key, each in self._versions.items() if self._was_there(each)]

    def set_of(self, key: str) -> str:
        """Return the name of the set of an archive, by its key alone."""
        name = names.without_prefix(key, self.session.profile.prefix) or key
        parsed = names.parse_any_name(name.rpartition("/")[2])
        return "" if parsed is None else parsed.stem

    def needed_by(self, backup: models.Backups) -> tuple[list[str], list[int]]:
        """Return the keys of the archives that an increment needs, the full first.

        Also returned are the dates of which there is none, at no time. Of an increment whose
        description was lost, all that are older may be needed.
        """
        beginning = beginning_of(backup.stored_filename).rpartition("/")[2]
        of_set = self._dates[beginning]
        if not backup.needs:
            older = [date for date in of_set if date < backup.date]
            return [key for date in sorted(older) for key in of_set[date]], []
        keys: list[str] = []
        missing = []
        for number, date in enumerate(backup.needs):
            found = [key for key in of_set.get(date, ()) if _is_increment(key) == (number > 0)]
            keys += found
            missing += [] if found else [date]
        return keys, missing

    def dates_of(self, beginning: str) -> list[int]:
        """Return the dates of the archives whose keys begin so, and of which a version is left.

        That of what is hidden counts too: without it, a rule would keep others for longer.
        """
        dated = self._dates[beginning.rpartition("/")[2]]
        return [
            date
            for date, keys in dated.items()
            for key in keys
            if beginning_of(key) == beginning and was_stored(self._versions[key].archive, None)
        ]

    def is_untouched(self, key: str) -> bool:
        """Return whether nothing was deleted or overwritten since; it takes no request."""
        return self._versions[key].are_untouched

    def look(
        self,
        keys: Sequence[str],
        progress: Progress | None = None,
        *,
        described: bool = False,
    ) -> Iterator[PastBackup]:
        """Yield what became of the archives *keys*; objects that are no backups are left out.

        With *described*, what is intact is looked at too, so that it is known what it needs.
        *progress* is called with the number of keys, done and in all. Raises StorageError.
        """
        done = 0
        look = partial(self._look, described=described)
        with workers() as pool:
            for batch in batches(keys):
                for found in pool.map(look, batch):
                    done += 1
                    if progress is not None:
                        progress(done, len(keys))
                    if found is not None:
                        yield found

    def _was_there(self, versions: _Versions) -> bool:
        if was_stored(versions.archive, self.time):
            return True
        # Of one that is gone for good, a version of its index may be left.
        return not versions.archive and was_stored(versions.index, self.time)

    def _look(self, key: str, *, described: bool) -> PastBackup | None:
        versions = self._versions[key]
        if versions.are_untouched and not described:
            return self._untouched(key, versions)
        stored: dict[Version, StoredObject] = {}
        archive, index = self._choose(versions, stored)
        if archive is None:
            return self._gone(key, versions)
        entry = self._entry(stored[archive])
        if entry is None:
            return None
        past = self._judged(versions.archive, archive, stored)
        of_index = None
        if index is not None:
            of_index = self._judged(versions.index, index, stored)
            add_index_facts(entry, stored[index])
        elif was_stored(versions.index, self.time):
            of_index = PastObject(names.index_key(key), State.GONE)
        entry.is_deleted = past.state is not State.INTACT
        details = list(self._details(past, of_index))
        return PastBackup(entry, past, of_index, "; ".join(details))

    def _judged(
        self, versions: Sequence[Version], right: Version, stored: Mapping[Version, StoredObject]
    ) -> PastObject:
        """Return what became of *right*; *stored* has what was looked at."""
        copy = seeming_copy(versions, right)
        if copy is not None:
            # Somebody may have written it again without what describes it.
            found = stored.get(copy) or self._stat(copy)
            if found is not None and sanitized(found.metadata) == sanitized(stored[right].metadata):
                copy = None
        return judged(versions, right, stored[right], self._copies, altered=copy)

    def _untouched(self, key: str, versions: _Versions) -> PastBackup | None:
        only = versions.archive[0]
        stored = StoredObject(key, only.size, last_modified=only.last_modified)
        entry = self._entry(stored)
        if entry is None:  # by its name alone, it may be anything
            found = self._stat(only)
            entry = None if found is None or not fits_key(found) else self._entry(found)
        if entry is None:
            return None
        index = None
        if versions.index:
            index = PastObject(names.index_key(key), State.INTACT, versions.index[0])
        return PastBackup(entry, PastObject(key, State.INTACT, only), index)

    def _gone(self, key: str, versions: _Versions) -> PastBackup | None:
        entry = self._entry(StoredObject(key, -1))
        if entry is None:
            return None
        entry.is_deleted = True
        why = "none of its versions fits"
        if not versions.archive:
            why = "only its index is left"
        return PastBackup(entry, PastObject(key, State.GONE), None, why)

    def _choose(
        self, versions: _Versions, stored: dict[Version, StoredObject]
    ) -> tuple[Version | None, Version | None]:
        """Return the right version of the archive and that of its index; None for none.

        *stored* takes what was looked at.
        """
        first = None
        has_index = was_stored(versions.index, self.time)
        for archive in self._fitting(versions.archive, stored):
            if first is None and (stored[archive].metadata or not has_index):
                first = archive
            if not has_index:
                break
            for index in self._fitting(versions.index, stored):
                if agrees(stored[archive], stored[index]):
                    return archive, index
        return first, None

    def _fitting(
        self, versions: Sequence[Version], stored: dict[Version, StoredObject]
    ) -> Iterator[Version]:
        by_object: dict[int, Version] = {}

        def looked_at() -> Iterator[StoredObject]:
            for each in candidates(versions, self.time):
                found = stored.get(each) or self._stat(each)
                if found is not None:
                    stored[each] = found
                    by_object[id(found)] = each
                    yield found

        for found in in_order_of_fit(looked_at()):
            yield by_object[id(found)]

    def _stat(self, version: Version) -> StoredObject | None:
        try:
            return self.backend.stat_version(version)
        except NotFoundError:
            return None  # somebody removed it since it was listed

    def _entry(self, stored: StoredObject) -> models.Backups | None:
        """Return an unsaved entry; None when the object is not bakthat's."""
        set_name = sanitized(stored.metadata).get("set")
        parsed = names.parse_key(stored.key, self.session.profile.prefix, set_name)
        return None if parsed is None else entry_of(self.backend, stored, parsed)

    def _details(self, archive: PastObject, index: PastObject | None) -> Iterator[str]:
        for what, each in (("", archive), ("its index was ", index)):
            if each is None or each.state is State.INTACT:
                continue
            if each.state is State.GONE:
                yield "none of the versions of its index fits it"
                continue
            if what:
                when = f" on {utc_time(each.changed_at)} UTC" if each.changed_at is not None else ""
                yield f"{what}{each.state.value}{when}"
            if each.overwritten:
                yield f"{counted(each.overwritten, 'other version')} above it"
        assert archive.stored is not None
        if not archive.stored.metadata:
            yield "it does not describe itself"


def versioned_backend(session: Session) -> VersionedStorage:
    """Return the backend of the bucket. Raises UsageError when it keeps no versions."""
    destination = session.named_destination or "s3"
    backend = None
    if destination == "s3" and (session.named_destination or session.profile.s3_bucket):
        backend = session.backend("s3")
    if not isinstance(backend, VersionedStorage):
        raise UsageError(
            f"'{destination}': what was deleted or overwritten is known only of a bucket of S3",
            hint="name a profile with s3_bucket",
        )
    try:
        has_versions = backend.has_versions()
    except CredentialsError as exc:
        log.debug("whether the bucket keeps versions is not known: %s", exc)
        has_versions = True
    if not has_versions:
        raise UsageError(
            f"bucket '{printable(backend.container)}' keeps no versions: what was deleted or "
            "overwritten there is gone",
            hint="enable versions of the bucket, so that it keeps them from then on",
        )
    return backend


def _known_copies(session: Session) -> Collection[str]:
    """Return the ids of the versions that undelete has made, as far as the catalog knows them."""
    if not session.may_have_catalog:
        return frozenset()
    try:
        with models.catalog(session.catalog):
            rows = models.Backups.within(session.containers("s3"))
            found = [each.metadata.get(UNDELETED) for each in rows.iterator()]
    except CatalogError as exc:  # it may have been attacked too
        log.warning("the catalog is not read: %s", exc)
        return frozenset()
    return frozenset(
        str(version)
        for each in found
        if isinstance(each, dict)
        for version in each.get("versions", ())
        if version != NULL_VERSION  # which what has overwritten the copy may have too
    )


def _is_increment(key: str) -> bool:
    parsed = names.parse_stored_name(key.rpartition("/")[2])
    return parsed is not None and parsed.is_increment
