"""Which sets are watched: those that the catalog lists, and those that jobs should make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bakthat import models
from bakthat.conf import DEFAULT_PROFILE, JobSource, LoadedJob, read_configuration
from bakthat.errors import BakthatError, NoMatchError
from bakthat.operations.sources.expected import fits, set_name
from bakthat.policy.defaults import DESTINATIONS
from bakthat.session.container import recognize_moved
from bakthat.session.session import Session
from bakthat.session.sets import BackupSet, divide
from bakthat.system.paths import PathLike
from bakthat.system.text import did_you_mean, enumerate_some, is_queryable, printable

_Place = tuple[object, str, str]
"""A container: the catalog that lists it, the backend, and its hash."""


@dataclass(frozen=True, slots=True)
class WatchedSet:
    """A set of one host in one container, or a source of a job that has no backup yet."""

    session: Session = field(repr=False)
    """That of the profile of its first job, else of the one by which it was found."""
    name: str
    """Of the set; of a server without any backup, the URL that the job has."""
    host: str
    """"" when it is not known."""
    backend: str
    source: str
    """The path or URL, without its password; "" where a name was given, or it is not known."""
    found: BackupSet | None
    """None where a job should have made it and there is no backup."""
    jobs: tuple[LoadedJob, ...]
    """The jobs that make it, in the order of the configuration."""

    @property
    def backups(self) -> tuple[models.Backups, ...]:
        """Its backups, the newest first; one dated in the future comes last."""
        return () if self.found is None else self.found.backups

    @property
    def max_age(self) -> int | None:
        """The shortest ``max_age`` of its jobs, in seconds; None where no job has one."""
        return min((each.job.max_age for each in self.jobs if each.job.max_age), default=None)

    @property
    def check_every(self) -> int | None:
        """The shortest ``every`` of ``check`` of its jobs, in seconds."""
        return min((each.job.check.every for each in self.jobs if each.job.check), default=None)

    @property
    def drill_every(self) -> int | None:
        """The shortest ``every`` of ``drill`` of its jobs, in seconds."""
        return min((each.job.drill.every for each in self.jobs if each.job.drill), default=None)


def expected_sets(
    name: str = "",
    destination: str | None = None,
    profile: str | None = None,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
    all_hosts: bool = False,
    deleted_since: int | None = None,
) -> list[WatchedSet]:
    """Return the sets of a host that are watched, by their names; without values of KeyValue.

    *profile* None means the default profile and every one that a job names; with a profile, only
    that and its jobs. *conf* is one profile as a mapping, which has no jobs. *destination*
    restricts the sets to one container of each profile, and *name* to those of that name. *host*
    None means this host; the jobs of the configuration are those of this host, so another one's
    sets have none; *all_hosts* means every host that the catalog knows, unless *host* names one.
    *deleted_since*, in epoch seconds UTC, adds the backups that were made or deleted since then and
    are marked as deleted.

    Raises NoMatchError when there is no such set, ConfigError, UsageError, CatalogError.
    """
    sessions, jobs = _sessions(destination, profile, config, conf)
    places = {
        each: _place(session, session.profile.default_destination)
        for each, session in sessions.items()
    }
    watched: list[WatchedSet] = []
    made: set[tuple[str, int]] = set()
    """The sources that have a set: the name of the job, and the number of the source."""
    listed = _all_sets(sessions, name, host, all_hosts=all_hosts, deleted_since=deleted_since)
    for session, place, found in listed:
        fitting = [
            (job, number)
            for job, number, source in _sources_of(jobs)
            if place == places[job.job.profile]
            and found.host == sessions[job.job.profile].host
            and fits(source, found)
        ]
        made.update((job.name, number) for job, number in fitting)
        makers = tuple({job.name: job for job, _ in fitting}.values())
        # Of several profiles with this container, that of a job has the rotation of its sets.
        own = sessions[makers[0].job.profile] if makers else session
        watched.append(_of_catalog(own, found, makers))
    watched += _without_backup(sessions, jobs, made, name, host)
    if not watched:
        raise _no_set_error(sessions, name, host, all_hosts=all_hosts)
    return sorted(watched, key=lambda each: (each.name, each.host, each.backend, each.source))


def _of_catalog(session: Session, found: BackupSet, jobs: tuple[LoadedJob, ...]) -> WatchedSet:
    source = next((each.set_source for each in found.backups if each.set_source), "")
    return WatchedSet(session, found.name, found.host, found.backend, source, found, jobs)


def _sessions(
    destination: str | None,
    profile: str | None,
    config: PathLike | None,
    conf: Mapping[str, Any] | None,
) -> tuple[dict[str, Session], list[LoadedJob]]:
    """Return the sessions by the names of their profiles, and the jobs of these profiles."""
    if conf is not None:
        name = profile or DEFAULT_PROFILE
        return {name: Session(name, config, conf, destination)}, []
    configuration = read_configuration(config)
    jobs = [each for each in configuration.jobs.values() if profile in (None, each.job.profile)]
    names = list(dict.fromkeys(each.job.profile for each in jobs))
    if profile is not None:
        names = [profile]
    elif not names or DEFAULT_PROFILE in configuration.profiles:
        names = list(dict.fromkeys([DEFAULT_PROFILE, *names]))
    return {each: Session(each, config, None, destination) for each in names}, jobs


def _place(session: Session, destination: str) -> _Place | None:
    pairs = session.containers(destination)
    return (session.catalog, *pairs[0]) if pairs else None


def _all_sets(
    sessions: Mapping[str, Session],
    name: str,
    host: str | None,
    *,
    all_hosts: bool,
    deleted_since: int | None,
) -> Iterator[tuple[Session, _Place, BackupSet]]:
    """Yield the sets in the catalog, each once: several profiles may have one container."""
    if not is_queryable(name):
        return  # no set has such bytes, and no database takes the query
    places: dict[_Place, list[Session]] = {}
    for session in sessions.values():
        for each in (session.named_destination,) if session.named_destination else DESTINATIONS:
            place = _place(session, each)
            if place is not None:
                places.setdefault(place, []).append(session)
        recognize_moved(session)
    for place, sharing in places.items():
        pairs = {pair for each in sharing for pair in each.containers(place[1])}
        hosts = {each.host for each in sharing} if host is None else {host}
        with models.catalog(sharing[0].catalog):
            rows = _rows(sorted(pairs), deleted_since)
            backups = list(rows.where(models.Backups.filename == name) if name else rows)
        is_any = all_hosts and host is None
        of_hosts = [
            each for each in backups if (is_any or each.host in hosts) and not each.is_key_value
        ]
        for found in divide(of_hosts):
            yield sharing[0], place, found


def _rows(pairs: Sequence[tuple[str, str]], deleted_since: int | None) -> Any:
    model = models.Backups
    if deleted_since is None:
        return model.not_deleted(pairs)
    is_recent = (model.backup_date >= deleted_since) | (model.last_updated >= deleted_since)
    return model.within(pairs).where((model.is_deleted == False) | is_recent)  # noqa: E712  # SQL


def _sources_of(jobs: Iterable[LoadedJob]) -> Iterator[tuple[LoadedJob, int, JobSource]]:
    for job in jobs:
        for number, source in enumerate(job.job.sources):
            yield job, number, source


def _without_backup(
    sessions: Mapping[str, Session],
    jobs: Sequence[LoadedJob],
    made: set[tuple[str, int]],
    name: str,
    host: str | None,
) -> list[WatchedSet]:
    """Return the sources of jobs that have no backup, those of several jobs once."""
    missing: dict[tuple[str, str, str, str], WatchedSet] = {}
    for job, number, source in _sources_of(jobs):
        session = sessions[job.job.profile]
        destination = session.profile.default_destination
        if (
            (job.name, number) in made
            or session.named_destination not in (None, destination)
            or host not in (None, session.host)
        ):
            continue
        wanted = _name_of(source)
        if name not in ("", wanted):
            continue
        shown = "" if source.name else source.text
        key = (job.job.profile, wanted, destination, shown)
        others = missing[key].jobs if key in missing else ()
        missing[key] = WatchedSet(
            session, wanted, session.host, destination, shown, None, (*others, job)
        )
    return list(missing.values())


def _name_of(source: JobSource) -> str:
    try:
        return set_name(source) or source.text
    except BakthatError:  # the URL is wrong, which the job's run says
        return source.text


def _no_set_error(
    sessions: Mapping[str, Session], name: str, host: str | None, *, all_hosts: bool
) -> NoMatchError:
    is_any = all_hosts and host is None
    of = printable(host) if host is not None else _names(each.host for each in sessions.values())
    catalogs = _names(str(each.catalog) for each in sessions.values())
    if not name and is_any:
        return NoMatchError(
            f"the catalog {catalogs} has no backup", hint="bakthat sync lists what is stored"
        )
    if not name:
        return NoMatchError(
            f"the catalog {catalogs} has no backup of {of}",
            hint="bakthat sync lists what is stored; --host names another host",
        )
    known: set[str] = set()
    for session in sessions.values():
        with models.catalog(session.catalog):
            known.update(models.Backups.set_names(session.containers()))
    missing = "there is no set" if is_any else f"{of} has no set"
    return NoMatchError(
        f"{missing} '{printable(name)}', and no job makes one",
        hint=did_you_mean(name, known - {name}, most=3) or "bakthat status lists the sets",
    )


def _names(values: Iterable[PathLike]) -> str:
    return enumerate_some(list(dict.fromkeys(map(printable, values))))
