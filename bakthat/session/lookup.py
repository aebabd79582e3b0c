"""Find the backup that a name means: by stored filename, by set, or by a name's beginning."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from bakthat import models
from bakthat.errors import AmbiguousNameError, NoMatchError, UsageError
from bakthat.format.names import parse_stored_name
from bakthat.policy.defaults import DESTINATIONS
from bakthat.policy.newest import is_in_the_future
from bakthat.session.container import recognize_moved
from bakthat.session.session import Session
from bakthat.session.sets import BackupSet, describe_sets, divide, newest_first, parse_source
from bakthat.system.paths import PathLike
from bakthat.system.text import did_you_mean, enumerate_some, is_queryable, printable, utc_time

log = logging.getLogger("bakthat")

_SOURCE_HINT = "its source with --source; backups with --name are one set, whatever their source"
_NAME_CHANGES = "set host in the profile where the name of one machine changes"

_NO_BACKUP = "bakthat backup makes the first one; bakthat sync lists what is stored already"


def find_backup(
    session: Session,
    name: str,
    *,
    host: str | None = None,
    source: PathLike | None = None,
    to_delete: bool = False,
) -> models.Backups:
    """Return the backup that *name* means, among those that are not deleted.

    A name is, in this order: a stored filename; a set's name (its newest backup); the beginning
    of a stored filename that fits one set only (its newest). Each is looked for on the named
    destination, or else on the profile's default one and then on the others. *host* narrows the
    search to one host's backups, and *source* to those of one path (see
    :func:`bakthat.session.sets.parse_source`).

    *to_delete* makes the search stricter. On a destination that is neither named nor the default,
    only a whole stored filename matches. A beginning must contain the whole name of the set and
    the dot after it, and a whole stored filename is never a beginning: ``my`` must not match
    ``mysql``, nor ``my.….tgz`` match ``my.….tgz.age``. Raises NoMatchError, AmbiguousNameError,
    UsageError.
    """
    sets = _fitting(session, name, host=host, source=source, to_delete=to_delete)
    if len(sets) > 1:
        raise AmbiguousNameError(
            f"'{printable(name)}' fits several sets: {describe_sets(sets)}",
            hint=_ambiguity_hint(sets),
        )
    newest = sets[0].backups[0]
    if newest.stored_filename not in (name, session.prefix_of(host) + name):
        _warn_of_future(sets[0].backups)
    return newest


def find_backups(session: Session, name: str, *, host: str | None = None) -> list[models.Backups]:
    """Return every backup that *name* means, the newest first, among those not deleted.

    A name means what it means for :func:`find_backup`, but a set's name means all of its backups,
    and a beginning means all backups that fit, even of several sets. Raises NoMatchError,
    UsageError.
    """
    sets = _fitting(session, name, host=host)
    return newest_first(backup for each in sets for backup in each.backups)


def find_set(
    session: Session, filename: str, *, host: str | None = None, source: PathLike | None = None
) -> BackupSet:
    """Return one set in one container, without values of KeyValue.

    *host* None means this host. *source* selects one of several sets of that name. Raises
    NoMatchError, AmbiguousNameError, UsageError, ConfigError.
    """
    if not filename:
        raise UsageError("no backup set was named", hint="bakthat show lists them")
    session.backend(session.destination)  # raises ConfigError for a missing setting
    host = session.host if host is None else host
    wanted = parse_source(source)
    recognize_moved(session)
    with models.catalog(session.catalog):
        backups = _set_without_values(filename, session.containers(session.destination), host)
        if not backups:
            raise NoMatchError(
                f"{printable(host) or 'an unknown host'} has no backups of "
                f"'{printable(filename)}' on {session.destination}",
                hint=_same_name_elsewhere(session, filename) or _set_hint(session, filename),
            )
    sets = divide(backups)
    fitting = [each for each in sets if each.fits(wanted)]
    if not fitting:
        raise _source_error(filename, source, sets)
    if len(fitting) > 1:
        raise AmbiguousNameError(
            f"'{printable(filename)}' fits several sets: {describe_sets(fitting)}",
            hint=f"select {_SOURCE_HINT}",  # one host's, in one container
        )
    return fitting[0]


def other_hosts(session: Session, filename: str, host: str) -> list[str]:
    """Return the hosts but *host* that have backups of that name in the same container."""
    with models.catalog(session.catalog):
        hosts = models.Backups.hosts_of(filename, session.containers(session.destination))
    return sorted(hosts - {host})


def _fitting(
    session: Session,
    name: str,
    *,
    host: str | None,
    source: PathLike | None = None,
    to_delete: bool = False,
) -> list[BackupSet]:
    """Return the backups that fit, by their sets. Raises NoMatchError when none does."""
    if not name:
        raise UsageError("no backup was named", hint="bakthat show lists them")
    wanted = parse_source(source)
    prefix = session.prefix_of(host)
    of_other_sources: list[BackupSet] = []
    recognize_moved(session)
    with models.catalog(session.catalog):
        if not is_queryable(name):
            raise NoMatchError(
                f"no backup matches '{printable(name)}'", hint="bakthat show lists the backups"
            )
        for candidates in (_by_stored_name, _by_set, _by_beginning):
            for number, destinations in enumerate(_search_order(session)):
                if to_delete and number > 0 and candidates is not _by_stored_name:
                    continue
                fitting = [
                    each
                    for each in candidates(prefix, name, session.containers(*destinations))
                    if (host is None or each.host == host)
                    and (not to_delete or _has_whole_set_name(prefix, name, each))
                ]
                sets = _by_sets(session, fitting)
                if any(each.fits(wanted) for each in sets):
                    return [each for each in sets if each.fits(wanted)]
                of_other_sources += [each for each in sets if each not in of_other_sources]
        if of_other_sources:
            raise _source_error(name, source, of_other_sources)
        raise NoMatchError(
            f"no backup matches '{printable(name)}'", hint=_hint(session, name, host)
        )


def _by_sets(session: Session, backups: Sequence[models.Backups]) -> list[BackupSet]:
    """Return the sets of *backups*, with no other backups in them."""
    wanted = {each.stored_filename for each in backups}
    # Which set a backup of an unknown source belongs to depends on all backups of its name.
    everything = {
        each.stored_filename: each
        for name in {each.filename for each in backups}
        for each in models.Backups.of_set(name, session.containers())
    } | {each.stored_filename: each for each in backups}
    return [part for each in divide(everything.values()) if (part := each.only(wanted)).backups]


def _source_error(name: str, source: PathLike | None, sets: Sequence[BackupSet]) -> NoMatchError:
    found = enumerate_some([f"{each.describe()} {each.describe_source()}" for each in sets])
    return NoMatchError(
        f"no backup of '{printable(name)}' is from {printable(source or '') or 'no source'}",
        hint=f"choose one with --source: {found}",
    )


def _ambiguity_hint(sets: Sequence[BackupSet]) -> str:
    hints = ["name one backup as bakthat show lists it"]
    if len({each.host for each in sets}) > 1:
        hints.append(f"or its host with --host, or {_NAME_CHANGES}")
    places = [each.describe() for each in sets]
    if len(set(places)) < len(places):
        hints.append(f"or {_SOURCE_HINT}")
    if len(hints) == 1:
        hints.append("or its host with --host")
    return ", ".join(hints)


def _warn_of_future(backups: Sequence[models.Backups]) -> None:
    """Warn of a backup that is dated in the future; *backups* are those of a set, newest first."""
    now = time.time()
    for each in backups:
        if is_in_the_future(each.date, now):
            log.warning(
                "%s is dated in the future (%s UTC), since a clock is or was wrong; %s",
                printable(each.stored_filename),
                utc_time(each.date),
                "it is used, since all are"
                if each is backups[0]
                else "it does not count as the newest: name it in full to select it",
            )
            return


def _search_order(session: Session) -> list[tuple[str, ...]]:
    if session.named_destination:
        return [(session.named_destination,)]
    others = tuple(each for each in DESTINATIONS if each != session.destination)
    return [(session.destination,), others]


Containers = list[tuple[str, str]]
"""Pairs of backend and backend_hash."""


def _by_stored_name(prefix: str, name: str, containers: Containers) -> list[models.Backups]:
    names = (name, prefix + name)
    beginning = models.Backups.beginning_with(names, containers)
    return [each for each in beginning if each.stored_filename in names]


def _by_set(_prefix: str, name: str, containers: Containers) -> list[models.Backups]:
    return models.Backups.of_set(name, containers)


def _by_beginning(prefix: str, name: str, containers: Containers) -> list[models.Backups]:
    return models.Backups.beginning_with((name, prefix + name), containers)


def _has_whole_set_name(prefix: str, name: str, backup: models.Backups) -> bool:
    if parse_stored_name(name.removeprefix(prefix)) is not None:
        return backup.stored_filename in (name, prefix + name)
    stored = backup.stored_filename.removeprefix(prefix)
    parsed = parse_stored_name(stored)
    stem = parsed.stem if parsed is not None else stored
    given = name.removeprefix(prefix)
    return given in (backup.filename, stored) or given.startswith(f"{stem}.")


def _hint(session: Session, name: str, host: str | None) -> str:
    elsewhere = models.Backups.of_set(name, session.containers())
    if elsewhere and host is not None and all(each.host != host for each in elsewhere):
        return _same_name_elsewhere(session, name)
    if elsewhere:
        return f"{printable(name)} is on {elsewhere[0].backend}: name that with --destination"
    known = {
        text
        for each in models.Backups.search("", session.containers())
        for text in (each.filename, each.stored_filename)
    }
    return did_you_mean(name, known, most=3) or (
        "bakthat show lists the backups" if known else _NO_BACKUP
    )


def _set_without_values(
    filename: str, containers: Containers, host: str | None
) -> list[models.Backups]:
    if not is_queryable(filename):
        return []  # no row has such a name
    return [
        each
        for each in models.Backups.of_set(filename, containers, host=host)
        # An entry without readable metadata may be a value.
        if each.metadata and not each.is_key_value
    ]


def _same_name_elsewhere(session: Session, filename: str) -> str:
    """Return a hint that names the sets of the same name elsewhere; "" when there is none."""
    found = _set_without_values(filename, session.containers(), None)
    places = sorted({(each.host or "an unknown host", each.backend) for each in found})
    if not places:
        return ""
    listed = enumerate_some([f"{printable(host)} on {backend}" for host, backend in places])
    hint = f"that set exists for {listed}; select it with --host and --destination"
    is_elsewhere = all(host != session.host for host, _backend in places)
    return f"{hint}, or {_NAME_CHANGES}" if is_elsewhere else hint


def _set_hint(session: Session, filename: str) -> str:
    containers = session.containers(session.destination)
    found = models.Backups.of_set(filename, containers) if is_queryable(filename) else []
    if any(each.is_key_value for each in found):
        return "delete it with KeyValue.delete_key: rotation and expiry leave its keys alone"
    if found and not any(each.metadata for each in found):
        return "its entries are damaged; bakthat sync repairs them"
    known = models.Backups.set_names(containers)
    base = filename.rstrip("/").rpartition("/")[2]
    parsed = parse_stored_name(base)
    stem = parsed.stem if parsed else base
    return did_you_mean(stem, [stem] if stem in known else known, most=3) or (
        "bakthat show lists the backups" if known else _NO_BACKUP
    )
