"""How the sets of all hosts are by what the storage knows: keys, sizes, and descriptions.

One listing gives the keys and sizes of all backups. A listing of S3 has no descriptions, which say
whose a backup is; each costs a request. Where the prefix has the host, as ``prefix: "{host}/"``,
the backups whose keys begin alike up to the date are of one host, and nearly always of one set. So
five of their descriptions are read: of the newest two, of the oldest, and of two between. Where
these are of several sets, two directories of one name, all are read. Without the host in the
prefix, all are read: a host that makes no backups any more must be seen beside those that do. The
description of an index has everything that is needed, so it is the only request for a backup that
has one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple, TypeVar

from bakthat import models
from bakthat.backends.base import Backend, StoredObject, check_key
from bakthat.errors import CredentialsError, NoMatchError, NotFoundError, UsageError
from bakthat.format import names
from bakthat.format.description import INDEX, KEY_VALUE, NAMED, sanitized
from bakthat.operations.status.catalog import is_success, with_newest, with_sizes
from bakthat.operations.status.findings import Looked, findings_of, lost_finding
from bakthat.operations.status.set_status import SetStatus
from bakthat.operations.status.tally import Tally
from bakthat.policy.finding import Finding, advice
from bakthat.policy.settings import HOST_PLACEHOLDER
from bakthat.session.chains import may_be_of_one_set
from bakthat.session.entries import add_index_facts, entry_of
from bakthat.session.session import Session
from bakthat.session.stat import BATCH, beginning_of, workers
from bakthat.system.streams import Progress
from bakthat.system.text import printable
from bakthat.system.threads import ThreadPool

Item = TypeVar("Item")


class _Identity(NamedTuple):
    """Whose a backup is."""

    host: str
    name: str
    source_id: str
    """"" for a set without a source."""
    misplaced: str
    """The host of the description, where the key says another one; else ""."""


class _Seen(NamedTuple):
    """A set, and its newest backup with what it shows; None where the storage has lost that."""

    status: SetStatus
    newest: tuple[models.Backups, Looked] | None = None


@dataclass(frozen=True, slots=True)
class _Described:
    """An object with a description: that of its index, if it has one, else its own."""

    stored: StoredObject
    index: StoredObject | None


def status_of_hosts(
    session: Session,
    filename: str,
    host: str | None,
    *,
    max_age: int | None,
    now: int,
    progress: Progress | None,
) -> list[SetStatus]:
    """Return how each set is that the storage has, by host and name.

    *filename* and *host* select sets; *max_age* is in seconds, *now* in epoch seconds UTC. Raises
    NoMatchError when there is none, UsageError for a vault, StorageError, ConfigError.
    """
    if session.destination == "glacier":
        raise UsageError(
            "a vault tells what it holds after hours only, so --all-hosts cannot ask it",
            hint="name another destination with -d, or ask the catalog: bakthat sync -d glacier, "
            "then bakthat status -d glacier --host HOST",
        )
    backend = session.backend(session.destination)
    look = _Look(session, backend, filename, now, progress)
    with workers() as pool:
        look.list_all(pool)
        sets = [
            (identity, tally)
            for identity, tally in look.sets()
            if filename in ("", identity.name) and host in (None, identity.host)
        ]
        found = pool.map(lambda each: look.see(each[0], each[1], max_age), sets)
        seen = [each for each in found if each is not None]
    statuses = look.statuses_of(seen)
    if not statuses:
        raise NoMatchError(
            f"there are no backups of {_wanted(filename, host)} in {printable(backend.container)}",
            hint="check the profile's prefix and container; bakthat show lists the catalog",
        )
    return sorted(statuses, key=lambda each: (each.host, each.name, each.source))


@dataclass(slots=True)
class _Look:
    """What is known so far. Memory is needed by set and by name, not by backup."""

    session: Session
    backend: Backend
    filename: str
    now: int
    progress: Progress | None
    tallies: dict[_Identity, Tally] = field(default_factory=dict)
    unknown: dict[str, Tally] = field(default_factory=dict)
    """The backups without a usable description, by the beginnings of their keys."""
    known_beginnings: set[str] = field(default_factory=set)
    """What keys begin with of which a description was usable."""
    described: dict[str, _Described] = field(default_factory=dict)
    """By their keys: of some of the newest."""
    steps: int = 0
    total: int = 0

    def list_all(self, pool: ThreadPool) -> None:
        """Find out which sets there are."""
        by_name: dict[str, Tally] = {}
        for stored in self.backend.ls(self.session.shared_prefix):
            parsed = self._parsed(stored)
            if parsed is None:
                continue
            if stored.metadata is not None:
                self._count(stored, parsed.backup_date)
            else:
                tally = by_name.setdefault(beginning_of(stored.key), Tally(self.now))
                tally.add(stored, parsed.backup_date)
        shared: list[str] = list(by_name)
        if HOST_PLACEHOLDER in self.session.profile.prefix:
            self.total = sum(len(each.probes) for each in by_name.values())
            shared = [
                each
                for batch in _batches(by_name.items())
                for each in self._probe(pool, dict(batch))
            ]
        self.total += sum(by_name[each].count for each in shared)
        for beginning in shared:
            self._read_all(pool, beginning, by_name[beginning])

    def sets(self) -> Iterator[tuple[_Identity, Tally]]:
        """Yield the sets, and what belongs to none because no description is usable.

        A backup of a known name whose description is lost is one of the set of that name.
        """
        yield from self.tallies.items()
        for beginning, tally in self.unknown.items():
            if beginning not in self.known_beginnings:
                name = beginning.rpartition("/")[2]
                yield _Identity(self._host_of(beginning), name, "", ""), tally

    def see(self, identity: _Identity, tally: Tally, max_age: int | None) -> _Seen | None:
        """Look at a set; return None when all of it was deleted meanwhile, or is not bakthat's."""
        found = self._entry_of_newest(tally)
        lost = "" if found is not None else self._lost(tally)
        if found is None and not lost:
            return None
        status = SetStatus(
            name=identity.name,
            host=identity.host,
            backend=self.backend.name,
            source=identity.source_id,
            profile=self.session.loaded.name,
            max_age=max_age,
            backups=tally.count,
            findings=tuple(_misplaced(identity)),
        )
        if found is None:
            return _Seen(replace(status, stored_filename=lost, findings=(lost_finding(lost),)))
        entry, index = found
        status = with_newest(status, entry, self.now)
        status = replace(
            status,
            last_success=self._last_success(tally, entry, is_known=index is not None),
            warnings=status.warnings if index is not None else None,
            is_estimate=index is None,
        )
        sizes = [each.size for each in tally.newest if _is_increment(each) == status.is_increment]
        looked = Looked(
            now=self.now,
            future=sorted(tally.future, reverse=True),
            lacks=[date for date in entry.needs if not self._has(entry, date)],
            stored_size=sanitized(index.metadata).get("stored") if index is not None else None,
        )
        return _Seen(with_sizes(status, sizes), (entry, looked))

    def statuses_of(self, seen: Sequence[_Seen]) -> list[SetStatus]:
        """Return how the sets are, with what is wrong with them."""
        elsewhere = self._elsewhere([each.newest for each in seen if each.newest is not None])
        statuses = []
        for status, newest in seen:
            if newest is not None:
                backup, looked = newest
                there = elsewhere[backup.stored_filename]
                lacks = [date for date in looked.lacks if date not in there]
                findings = findings_of(status, replace(looked, lacks=lacks))
                status = replace(status, findings=(*findings, *status.findings))
            statuses.append(status)
        return statuses

    # Listing

    def _parsed(self, stored: StoredObject) -> names.StoredName | None:
        """Return the parts of a key that may be that of a backup."""
        base = stored.key.rpartition("/")[2]
        parsed = names.parse_any_name(base)
        if parsed is None or (self.filename and not _may_be_of(parsed.stem, self.filename)):
            return None
        try:
            check_key(stored.key)
        except UsageError:
            return None  # no backend accepts such a key
        return parsed

    def _count(self, stored: StoredObject, date: int) -> None:
        """Count an object that has its description."""
        beginning = beginning_of(stored.key)
        identity = self._identity(stored)
        if identity is None:
            tally = self.unknown.setdefault(beginning, Tally(self.now))
        else:
            self.known_beginnings.add(beginning)
            tally = self.tallies.setdefault(identity, Tally(self.now))
        tally.add(stored, date)

    def _probe(self, pool: ThreadPool, by_name: Mapping[str, Tally]) -> list[str]:
        """Find out whose the backups of some names are; return the names that several sets have."""
        probes = [(name, each) for name, tally in by_name.items() for each in tally.probes]
        identities: dict[str, set[_Identity]] = {}
        for (name, probe), found in zip(
            probes, pool.map(self._describe, [each for _, each in probes]), strict=True
        ):
            self._step()
            if found is not None:
                self.described[probe.key] = found
                identity = self._identity(found.stored)
                identities.setdefault(name, set()).update({identity} if identity else ())
        shared = []
        for name, tally in by_name.items():
            of_name = identities.get(name, set())
            if len(of_name) > 1:
                shared.append(name)
                continue
            for identity in of_name:
                self.known_beginnings.add(name)
                self.tallies.setdefault(identity, Tally(self.now)).merge(tally)
            if not of_name:
                self.unknown[name] = tally
        return shared

    def _read_all(self, pool: ThreadPool, beginning: str, tally: Tally) -> None:
        """Read the descriptions of all backups whose keys begin like this, up to their dates."""
        of_name: Iterable[StoredObject] = tally.newest
        if tally.count > len(tally.newest):
            of_name = (
                each
                for each in self.backend.ls(beginning)
                if self._parsed(each) is not None and beginning_of(each.key) == beginning
            )
        for batch in _batches(of_name):
            for stored, found in zip(batch, pool.map(self._describe, batch), strict=True):
                self._step()
                parsed = self._parsed(stored)
                if parsed is None:
                    continue
                if found is None:
                    unknown = self.unknown.setdefault(beginning, Tally(self.now))
                    unknown.add(stored, parsed.backup_date)
                else:
                    self._count(found.stored, parsed.backup_date)

    # Descriptions

    def _describe(self, stored: StoredObject) -> _Described | None:
        """Return an object with its description; None when it was deleted meanwhile."""
        index = self._index_of(stored)
        if index is not None:
            return _Described(replace(stored, metadata=index.metadata), index)
        if stored.metadata is not None:
            return _Described(stored, None)
        try:
            return _Described(self.backend.stat(stored.key), None)
        except NotFoundError:
            return None

    def _index_of(self, stored: StoredObject) -> StoredObject | None:
        """Return the index of an object; None where it has none, or one of another archive."""
        try:
            index = self.backend.stat(names.index_key(stored.key))
        except (NotFoundError, UsageError):  # the key may be too long for one
            return None
        parsed = names.parse_any_name(stored.key.rpartition("/")[2])
        described = sanitized(index.metadata)
        date = parsed.backup_date if parsed is not None else None
        is_right = (described.get("kind"), described.get("date")) == (INDEX, date)
        return index if is_right else None

    def _identity(self, stored: StoredObject) -> _Identity | None:
        """Return whose an object is, by its description; None where that does not say it."""
        described = sanitized(stored.metadata)
        host, source = described.get("host"), described.get("source_id")
        if not host or not source or described.get("kind") == KEY_VALUE:
            return None
        parsed = names.parse_key(
            stored.key, self.session.profile.prefix, described.get("set") or None
        )
        if parsed is None:
            return None
        name = str(described.get("set") or parsed.stem)
        if parsed.stem not in (name, names.tarball_stem(name)):
            name = parsed.stem
        source = "" if source == NAMED else source
        # Others may write to the storage, but not always to the keys of every host.
        if not self._may_be_of_host(stored.key, host, parsed.stem):
            return _Identity(stored.key.rpartition("/")[0], name, source, host)
        return _Identity(host, name, source, "")

    def _may_be_of_host(self, key: str, host: str, stem: str) -> bool:
        """Return whether a key, of a set with this *stem*, is below the prefix of a host."""
        _, placeholder, after = self.session.profile.prefix.partition(HOST_PLACEHOLDER)
        if not placeholder:
            return True
        prefix = self.session.prefix_of(host)
        if "/" in after:
            return key.startswith(prefix)
        # Without a slash, the prefix of "web" is the beginning of that of "web-1".
        return beginning_of(key) == prefix + stem

    def _host_of(self, beginning: str) -> str:
        """Return the host that a key without a usable description is of, if the prefix has it."""
        before, placeholder, after = self.session.profile.prefix.partition(HOST_PLACEHOLDER)
        if not placeholder or not after.startswith("/"):
            return ""
        return beginning.removeprefix(before).partition("/")[0]

    # The newest

    def _entry_of_newest(self, tally: Tally) -> tuple[models.Backups, StoredObject | None] | None:
        """Return the newest backup that is still there, and its index."""
        for stored in tally.newest:
            entry = self._entry(stored)
            if entry is not None:
                return entry
        return None

    def _lost(self, tally: Tally) -> str:
        """Return the key of a backup that is still listed, though it is not there; "" for none."""
        for stored in tally.newest:
            if self._describe(stored) is None and any(
                each.key == stored.key for each in self.backend.ls(stored.key)
            ):
                return stored.key
        return ""

    def _elsewhere(self, newest: Sequence[tuple[models.Backups, Looked]]) -> Mapping[str, set[int]]:
        """Look in the whole container, once, for what is lacking: the prefix may have changed.

        Return the dates of what is there, by the stored filename of the backup that needs it.
        """
        needing: defaultdict[int, list[models.Backups]] = defaultdict(list)
        for backup, looked in newest:
            for date in looked.lacks:
                needing[date].append(backup)
        there: defaultdict[str, set[int]] = defaultdict(set)
        # The key may perhaps list only what is below the present prefix.
        with suppress(CredentialsError):
            for stored in self.backend.ls() if needing else ():
                parsed = names.parse_stored_name(stored.key.rpartition("/")[2])
                if parsed is None or parsed.backup_date not in needing:
                    continue
                found = self._describe(stored)
                if found is None:
                    continue
                for backup in needing[parsed.backup_date]:
                    if self._is_of_set(found.stored, parsed, backup):
                        there[backup.stored_filename].add(parsed.backup_date)
        return there

    def _has(self, backup: models.Backups, date: int) -> bool:
        """Return whether *backup* has one with this *date* beside it."""
        beginning = beginning_of(backup.stored_filename)
        listed = self.backend.ls(names.stored_name(beginning, date, "", encrypted=False))
        return any(beginning_of(each.key) == beginning for each in listed)

    def _is_of_set(
        self, stored: StoredObject, parsed: names.StoredName, backup: models.Backups
    ) -> bool:
        """Return whether an object, with its description, may be of the set of *backup*."""
        # A prefix may end without a slash, so its key does not tell its name.
        name = sanitized(stored.metadata).get("set") or parsed.stem
        entry = entry_of(self.backend, stored, parsed)
        return name == backup.filename and may_be_of_one_set(backup, entry)

    def _entry(self, stored: StoredObject) -> tuple[models.Backups, StoredObject | None] | None:
        found = self.described.get(stored.key) or self._describe(stored)
        if found is None:
            return None
        described = sanitized(found.stored.metadata)
        parsed = names.parse_key(
            stored.key, self.session.profile.prefix, described.get("set") or None
        )
        if parsed is None:
            return None
        entry = entry_of(self.backend, found.stored, parsed)
        if found.index is not None:
            add_index_facts(entry, found.index)
        return entry, found.index

    def _last_success(self, tally: Tally, newest: models.Backups, *, is_known: bool) -> int | None:
        """Return the date of the newest backup without warnings among the latest.

        Without an index it is not known whether there were any.
        """
        if not is_known or is_success(newest, self.now):
            return newest.date if is_success(newest, self.now) else None
        for stored in tally.newest:
            found = self._entry(stored)
            if found is not None and found[1] is not None and is_success(found[0], self.now):
                return found[0].date
        return None

    def _step(self) -> None:
        self.steps += 1
        if self.progress is not None:
            self.progress(self.steps, max(self.total, self.steps))


def _wanted(filename: str, host: str | None) -> str:
    of = f" of {printable(host)}" if host is not None else ""
    name = f"'{printable(filename)}'" if filename else "any set"
    return f"{name}{of}"


def _may_be_of(stem: str, filename: str) -> bool:
    """Return whether a key with this *stem* may be of a set; a prefix may end without a slash."""
    return stem.endswith((filename, names.tarball_stem(filename)))


def _is_increment(stored: StoredObject) -> bool:
    parsed = names.parse_any_name(stored.key.rpartition("/")[2])
    return parsed is not None and parsed.is_increment


def _misplaced(identity: _Identity) -> tuple[Finding, ...]:
    if not identity.misplaced:
        return ()
    return (
        advice(
            "host",
            f"the description names the host {printable(identity.misplaced)}, but the key is not "
            "below its prefix",
            "another prefix was set when it was stored, or it was not that host",
        ),
    )


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Yield *items* in batches for the workers."""
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH)):
        yield batch
