"""Find the backup that a name means: by stored filename, by set, or by a name's beginning."""

from __future__ import annotations

from bakthat import models
from bakthat.errors import AmbiguousNameError, NoMatchError, UsageError
from bakthat.format.names import parse_stored_name
from bakthat.policy.defaults import DESTINATIONS
from bakthat.session.session import Session
from bakthat.system.text import did_you_mean, enumerate_some, is_text, printable


def find_backup(
    session: Session, name: str, *, host: str | None = None, to_delete: bool = False
) -> models.Backups:
    """Return the backup that *name* means, among those that are not deleted.

    A name is, in this order: a stored filename; a set's name (its newest backup); the beginning
    of a stored filename that fits one set only (its newest). Each is looked for on the named
    destination, or else on the profile's default one and then on the others. *host* narrows the
    search to one host's backups.

    *to_delete* makes the search stricter. On a destination that is neither named nor the default,
    only a whole stored filename matches. A beginning must contain the whole name of the set and
    the dot after it, and a whole stored filename is never a beginning: ``my`` must not match
    ``mysql``, nor ``my.….tgz`` match ``my.….tgz.age``. Raises NoMatchError, AmbiguousNameError,
    UsageError.
    """
    found = _fitting(session, name, host=host, to_delete=to_delete)
    return _only_newest(name, found)


def find_backups(session: Session, name: str, *, host: str | None = None) -> list[models.Backups]:
    """Return every backup that *name* means, the newest first, among those not deleted.

    A name means what it means for :func:`find_backup`, but a set's name means all of its backups,
    and a beginning means all backups that fit, even of several sets. Raises NoMatchError,
    UsageError.
    """
    return _fitting(session, name, host=host)


def find_set(session: Session, filename: str, *, host: str | None = None) -> list[models.Backups]:
    """Return the backups of one set in one container, without values of KeyValue.

    *host* None means this host. Raises NoMatchError, UsageError, ConfigError.
    """
    if not filename:
        raise UsageError("no backup set was named", hint="bakthat show lists them")
    session.backend(session.destination)  # raises ConfigError for a missing setting
    host = session.host if host is None else host
    with models.catalog(session.catalog_path):
        backups = _set_without_values(filename, session.containers(session.destination), host)
        if not backups:
            raise NoMatchError(
                f"{printable(host) or 'an unknown host'} has no backups of "
                f"'{printable(filename)}' on {session.destination}",
                hint=_same_name_elsewhere(session, filename) or _set_hint(session, filename),
            )
    return backups


def _fitting(
    session: Session, name: str, *, host: str | None, to_delete: bool = False
) -> list[models.Backups]:
    if not name:
        raise UsageError("no backup was named", hint="bakthat show lists them")
    with models.catalog(session.catalog_path):
        if not is_text(name):
            raise NoMatchError(f"no backup matches '{printable(name)}'")
        for candidates in (_by_stored_name, _by_set, _by_beginning):
            for number, destinations in enumerate(_search_order(session)):
                if to_delete and number > 0 and candidates is not _by_stored_name:
                    continue
                fitting = [
                    each
                    for each in candidates(session, name, session.containers(*destinations))
                    if (host is None or each.host == host)
                    and (not to_delete or _has_whole_set_name(session, name, each))
                ]
                if fitting:
                    return fitting
        raise NoMatchError(f"no backup matches '{printable(name)}'", hint=_hint(session, name))


def _search_order(session: Session) -> list[tuple[str, ...]]:
    if session.named_destination:
        return [(session.named_destination,)]
    others = tuple(each for each in DESTINATIONS if each != session.destination)
    return [(session.destination,), others]


Containers = list[tuple[str, str]]
"""Pairs of backend and backend_hash."""


def _by_stored_name(session: Session, name: str, containers: Containers) -> list[models.Backups]:
    names = (name, session.prefix + name)
    beginning = models.Backups.beginning_with(names, containers)
    return [each for each in beginning if each.stored_filename in names]


def _by_set(_session: Session, name: str, containers: Containers) -> list[models.Backups]:
    return models.Backups.of_set(name, containers)


def _by_beginning(session: Session, name: str, containers: Containers) -> list[models.Backups]:
    return models.Backups.beginning_with((name, session.prefix + name), containers)


def _has_whole_set_name(session: Session, name: str, backup: models.Backups) -> bool:
    if parse_stored_name(name.removeprefix(session.prefix)) is not None:
        return backup.stored_filename in (name, session.prefix + name)
    stored = backup.stored_filename.removeprefix(session.prefix)
    parsed = parse_stored_name(stored)
    stem = parsed.stem if parsed is not None else stored
    given = name.removeprefix(session.prefix)
    return given in (backup.filename, stored) or given.startswith(f"{stem}.")


def _only_newest(name: str, candidates: list[models.Backups]) -> models.Backups:
    """Return the newest of *candidates* (newest first), which must be of one set."""
    # Not by backend_hash: rows of 0.6.0 and of this version name one container differently.
    sets = {(each.filename, each.host, each.backend, each.is_key_value) for each in candidates}
    if len(sets) > 1:
        described = [
            f"{'the key ' if is_value else ''}{printable(filename)} of "
            f"{printable(host) or 'an unknown host'} on {backend}"
            for filename, host, backend, is_value in sorted(sets)
        ]
        raise AmbiguousNameError(
            f"'{printable(name)}' fits several sets: {enumerate_some(described)}",
            hint="name one backup as bakthat show lists it, or its host with --host",
        )
    return candidates[0]


def _hint(session: Session, name: str) -> str:
    elsewhere = models.Backups.of_set(name, session.containers())
    if elsewhere:
        return f"{printable(name)} is on {elsewhere[0].backend}: name that with --destination"
    known = {
        text
        for each in models.Backups.search("", session.containers())
        for text in (each.filename, each.stored_filename)
    }
    return did_you_mean(name, known, most=3) or (
        "bakthat show lists the backups" if known else "the catalog lists no backup yet"
    )


def _set_without_values(
    filename: str, containers: Containers, host: str | None
) -> list[models.Backups]:
    if not is_text(filename):
        return []  # no row has such a name, and SQLite refuses the query
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
    return f"that set exists for {listed}; select it with --host and --destination"


def _set_hint(session: Session, filename: str) -> str:
    containers = session.containers(session.destination)
    found = models.Backups.of_set(filename, containers) if is_text(filename) else []
    if any(each.is_key_value for each in found):
        return "it is a key of KeyValue, which rotation and expiry leave alone"
    known = models.Backups.set_names(containers)
    base = filename.rstrip("/").rpartition("/")[2]
    parsed = parse_stored_name(base)
    stem = parsed.stem if parsed else base
    return did_you_mean(stem, [stem] if stem in known else known, most=3) or (
        "bakthat show lists the backups" if known else "the catalog lists no backup there yet"
    )
