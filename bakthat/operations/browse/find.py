"""Search all backups for files: which backups have them, in which versions."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bakthat import models
from bakthat.archive.extract.selection import Selection
from bakthat.archive.index.state import State
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import (
    BakthatError,
    ContainerNotFoundError,
    CredentialsError,
    UnreachableError,
    UsageError,
)
from bakthat.format.description import join_tags
from bakthat.format.entry import Entry, EntryType
from bakthat.format.index.values import sort_key
from bakthat.passwords import may_ask
from bakthat.policy.intervals import parse_since
from bakthat.session.container import recognize_moved
from bakthat.session.indexes.home import keys_with_index
from bakthat.session.indexes.opening import open_cached_state, open_state
from bakthat.session.reading import KeyFinder
from bakthat.session.session import Session
from bakthat.session.sets import id_of_source, newest_first
from bakthat.system.paths import PathLike
from bakthat.system.streams import Progress
from bakthat.system.text import counted, is_queryable, printable

log = logging.getLogger("bakthat")

MAX_SINGLE_REQUESTS = 20
"""The most indexes that are looked for one by one; for more, the container is listed."""
_REMEMBERED_PATHS = 250_000
"""How many paths are remembered with whether they match: backups of one set have the same ones."""


class Match(NamedTuple):
    """One version of a file or of another entry, and the backups of its set that have it."""

    entry: Entry
    """As the newest of these backups has it; a hard link with the size and the SHA-256 of the file
    that it is another name of."""
    backups: tuple[models.Backups, ...]
    """The newest first."""

    @property
    def newest(self) -> models.Backups:
        """The newest backup that has this version."""
        return self.backups[0]

    @property
    def oldest(self) -> models.Backups:
        """The oldest backup that has this version."""
        return self.backups[-1]

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints of a match."""
        newest = self.newest
        return {
            **self.entry.as_dict(),
            "set": newest.filename,
            "host": newest.host,
            "source": newest.set_source,
            "backend": newest.backend,
            "count": len(self.backups),
            "newest": _named(newest),
            "oldest": _named(self.oldest),
            "backups": [each.stored_filename for each in self.backups],
        }


class Unsearched(NamedTuple):
    """A backup that was left out of a search."""

    backup: models.Backups
    reason: str
    """Why; "" when it has no index."""


@dataclass(slots=True)
class FindReport:
    """What a search found; iterates over the matches."""

    matches: list[Match] = field(default_factory=list)
    """By their paths; of the versions of one, the newest first."""
    searched: int = 0
    """How many backups were searched."""
    unsearched: list[Unsearched] = field(default_factory=list)
    """The backups that were left out."""

    def __iter__(self) -> Iterator[Match]:
        return iter(self.matches)

    def __len__(self) -> int:
        return len(self.matches)

    @property
    def is_complete(self) -> bool:
        """Whether no backup was left out."""
        return not self.unsearched

    def as_dict(self) -> dict[str, Any]:
        """Return the counts and the backups that were left out, for JSON."""
        return {
            "matches": len(self.matches),
            "searched": self.searched,
            "unsearched": [
                {"stored_filename": each.backup.stored_filename, "reason": each.reason}
                for each in self.unsearched
            ],
        }


def find(
    patterns: str | Sequence[str],
    destination: str | None = None,
    tags: str | Sequence[str] = "",
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
    set_name: str | None = None,
    since: str | float | None = None,
    read_archives: bool = False,
    password: str | None = None,
    identity_file: PathLike | None = None,
    prompt: str | bool = "yes",
    progress: Progress | None = None,
) -> FindReport:
    """Search the backups in the catalog for entries, and return each version of what was found.

    *patterns* are paths, from the top of a backup or from just below the directory at its top, or
    else patterns as in .gitignore; what is below a directory that matches is found only if it
    matches itself. A version is the path, type, size, time, content and target of an entry in one
    set of backups.

    By default all backups of the profile's containers are searched. *destination* restricts the
    search to one container, *tags* to backups with at least one of the tags, *host* to one host,
    *set_name* to the sets of that name, and *since* to backups made since then: an interval before
    now such as ``2W``, a date in UTC such as ``2026-09-01`` or ``2026-09-01 03:00``, or epoch
    seconds.

    Indexes are fetched once, and kept in a cache. A backup without one is left out, unless
    *read_archives* is true; the report says which were. *password*, *identity_file* and *prompt*
    are as for :func:`bakthat.restore`; a password is asked for once. *progress* is called with the
    numbers of backups searched and to search.

    A backup that cannot be searched is in the report, and does not stop the search of the others.
    If none can be searched, this raises what the first one raised: StorageError, CryptoError,
    ArchiveError. Raises UsageError, ConfigError.
    """
    texts = [patterns] if isinstance(patterns, str) else list(patterns)
    if not texts:
        raise UsageError(
            "nothing to search for was named",
            hint="give a path or a pattern, such as bakthat find '*.txt'",
        )
    selection = Selection(texts)
    session = Session(profile, config, conf, destination)
    moment = None if since is None else parse_since(since, time.time())
    backups = _backups(session, join_tags(tags).split(), host, set_name, moment)
    keys = KeyFinder(session, password, identity_file, may_ask(prompt))
    search = _Search(session, selection, keys, backups, read_archives=read_archives)
    for number, backup in enumerate(backups, 1):
        search.look_into(backup)
        if progress is not None:
            progress(number, len(backups))
    return search.finish()


def _named(backup: models.Backups) -> dict[str, Any]:
    return {"stored_filename": backup.stored_filename, "backup_date": backup.date}


def _backups(
    session: Session,
    tags: Sequence[str],
    host: str | None,
    set_name: str | None,
    since: float | None,
) -> list[models.Backups]:
    """Return the backups to search, the newest first."""
    named = [session.named_destination] if session.named_destination else []
    recognize_moved(session)
    if set_name is not None and not is_queryable(set_name):
        return []  # no set has such a name, and SQLite refuses the query
    with models.catalog(session.catalog):
        containers = session.containers(*named)
        found = models.Backups.search(set_name or "", containers, tags)
    return newest_first(
        each
        for each in found
        if not each.is_key_value
        and (set_name is None or each.filename == set_name)
        and (host is None or each.host == host)
        and (since is None or each.date >= since)
    )


class _Search:
    """Looks into one backup after the other, the newest first."""

    def __init__(
        self,
        session: Session,
        selection: Selection,
        keys: KeyFinder,
        backups: Sequence[models.Backups],
        *,
        read_archives: bool,
    ) -> None:
        self._session = session
        self._unknown = Counter(each.backend for each in backups if not _has_index(each))
        """How many backups of each destination may have an index or not."""
        self._with_index: dict[str, set[str]] = {}
        self._selection = selection
        self._keys = keys
        self._read_archives = read_archives
        self._report = FindReport()
        self._found: dict[tuple[Any, ...], tuple[Entry, list[models.Backups]]] = {}
        self._failure: BakthatError | None = None
        self._unreachable: dict[str, BakthatError] = {}
        """The destinations that do not answer: only what is in the cache is searched there."""
        self._present: set[str] = set()
        """The destinations that are there, although an index is not."""
        self._names = _KnownNames(selection)

    def look_into(self, backup: models.Backups) -> None:
        """Search one backup."""
        try:
            if not self._search(backup):
                self._report.unsearched.append(Unsearched(backup, ""))
            return
        except UsageError:
            raise
        except BakthatError as exc:
            failure = exc
        if self._unreachable.get(backup.backend) is not failure:  # else it was said already
            log.warning("%s was not searched: %s", printable(backup.stored_filename), failure)
        if isinstance(failure, (UnreachableError, CredentialsError, ContainerNotFoundError)):
            self._unreachable[backup.backend] = failure
        self._failure = self._failure or failure
        self._report.unsearched.append(Unsearched(backup, str(failure)))

    def finish(self) -> FindReport:
        """Return the report. Raises the first failure if nothing could be searched."""
        report = self._report
        if not report.searched and self._failure is not None:
            raise self._failure
        missing = [each.backup for each in report.unsearched if not each.reason]
        if missing:
            count = len(missing)
            log.warning(
                "%s no index and %s left out, the first is %s: bakthat sync --indexes makes "
                "indexes, and --read-archives reads such backups",
                f"{counted(count, 'backup')} {'has' if count == 1 else 'have'}",
                "was" if count == 1 else "were",
                printable(missing[0].stored_filename),
            )
        matches = [Match(entry, tuple(backups)) for entry, backups in self._found.values()]
        report.matches = sorted(matches, key=_order)
        return report

    def _search(self, backup: models.Backups) -> bool:
        """Search one backup; return False when it has no index."""
        with open_cached_state(self._session, backup) as state:
            if state is not None:
                self._add(backup, state)
                return True
        unreachable = self._unreachable.get(backup.backend)
        if unreachable is not None:
            raise unreachable
        if not (self._read_archives or self._may_have_index(backup)):
            return False
        with open_state(
            self._session,
            backup,
            self._keys,
            whole=True,
            may_read_archive=self._read_archives,
            is_quiet=True,
        ) as state:
            if state is not None:
                self._add(backup, state)
                return True
        if _has_index(backup) and backup.backend not in self._present:
            # Perhaps the disk of a local store is not mounted.
            self._session.backend(backup.backend).check_container()
            self._present.add(backup.backend)
        return False

    def _may_have_index(self, backup: models.Backups) -> bool:
        """Return whether a request for the index is worth it; for many, one listing says so."""
        where = backup.backend
        if _has_index(backup) or self._unknown[where] <= MAX_SINGLE_REQUESTS:
            return True
        if where not in self._with_index:
            self._with_index[where] = keys_with_index(self._session, self._session.backend(where))
        return backup.stored_filename in self._with_index[where]

    def _add(self, backup: models.Backups, state: State) -> None:
        owner = (backup.filename, backup.host, backup.backend, id_of_source(backup))
        # Nothing of it counts if it is damaged.
        found = _with_content(list(self._names.entries(state)), state)
        for entry in found:
            version = (
                *owner,
                entry.path,
                entry.type,
                entry.size,
                entry.mtime_ns,
                entry.digest,
                entry.target,
                entry.device,
            )
            known = self._found.get(version)
            if known is None:
                self._found[version] = (entry, [backup])
            elif known[1][-1] is not backup:  # not twice in one archive
                known[1].append(backup)
        self._report.searched += 1


def _with_content(entries: list[Entry], state: State) -> list[Entry]:
    """Return *entries*; the hard links with the size and the hash of what they link to."""
    targets = {each.target for each in entries if each.type is EntryType.HARDLINK}
    if not targets:
        return entries
    known = {each.path: each for each in state.entries(targets) if each.path in targets}
    return [
        each._replace(size=known[each.target].size, digest=known[each.target].digest)
        if each.type is EntryType.HARDLINK and each.target in known
        else each
        for each in entries
    ]


def _has_index(backup: models.Backups) -> bool:
    """Return whether the catalog knows that a backup has an index. Earlier versions made none."""
    return "index_size" in backup.metadata


class _KnownNames(dict[str, bool]):
    """Remembers which paths a selection matches, since one set has the same ones many times."""

    def __init__(self, selection: Selection) -> None:
        super().__init__()
        self._selection = selection
        self._meaning: object = None

    def __missing__(self, path: str) -> bool:
        found = self._selection.matches_name(path)
        if len(self) < _REMEMBERED_PATHS:
            self[path] = found
        return found

    def entries(self, state: State) -> Iterable[Entry]:
        """Yield the entries of *state* that match themselves, not only a directory above them."""
        selection = self._selection
        selection.resolve(state)
        paths = selection.literal_paths()
        meaning = (state.top, None if paths is None else tuple(paths))
        if meaning != self._meaning:
            self.clear()
            self._meaning = meaning
        for entry in state.entries(paths, where=self.__getitem__):
            if selection.matches(entry.path, is_directory=entry.type is EntryType.DIRECTORY):
                yield entry


def _order(match: Match) -> tuple[bytes, float]:
    return sort_key(match.entry.path), -match.newest.date
