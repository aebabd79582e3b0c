"""Which backup a name means: a stored filename, a set, or the beginning of a stored filename."""

from __future__ import annotations

from bakthat import models
from bakthat.errors import AmbiguousNameError, NoMatchError, UsageError
from bakthat.format.names import parse_stored_name
from bakthat.policy.defaults import DESTINATIONS
from bakthat.session.session import Session
from bakthat.system.text import did_you_mean, is_text, printable

_LISTED = 10
"""How many candidates an error names."""


def find_backup(
    session: Session, name: str, *, host: str | None = None, to_delete: bool = False
) -> models.Backups:
    """Return the backup that *name* means, among those that are not deleted.

    In this order: a stored filename; a set's name (its newest backup); the beginning of a
    stored filename that fits one set only (its newest). In each order the destination that was
    named is searched, or else the profile's default one and, when nothing there fits, the
    others. *host* keeps to one host's backups.

    *to_delete* is stricter: only a whole stored filename reaches another destination than the
    named or the default one, and a beginning must spell the set's name out and its dot, and not
    be a whole stored filename: ``my`` must not reach ``mysql``, nor ``my.….tgz`` what is left of
    its second, ``my.….tgz.age``. Raises NoMatchError, AmbiguousNameError, UsageError.
    """
    found = _fitting(session, name, host=host, to_delete=to_delete)
    return _only_newest(name, found)


def find_backups(session: Session, name: str, *, host: str | None = None) -> list[models.Backups]:
    """Return every backup that *name* means, the newest first, among those not deleted.

    The orders are those of :func:`find_backup`, but a set's name means all of its backups, and so
    does a beginning, also of several sets. Raises NoMatchError, UsageError.
    """
    return _fitting(session, name, host=host)


def _fitting(
    session: Session, name: str, *, host: str | None, to_delete: bool = False
) -> list[models.Backups]:
    if not name:
        raise UsageError("no backup was named", hint="bakthat show lists them")
    with models.catalog(session.catalog_path):
        if not is_text(name):
            raise NoMatchError(f"no backup matches '{printable(name)}'")
        for reading in (_whole, _set, _beginning):
            for number, destinations in enumerate(_search_order(session)):
                if to_delete and number > 0 and reading is not _whole:
                    continue
                fitting = [
                    each
                    for each in reading(session, name, session.containers(*destinations))
                    if (host is None or each.host == host)
                    and (not to_delete or _spells_set(session, name, each))
                ]
                if fitting:
                    return fitting
        raise NoMatchError(f"no backup matches '{printable(name)}'", hint=_nearest(session, name))


def _search_order(session: Session) -> list[tuple[str, ...]]:
    if session.named_destination:
        return [(session.named_destination,)]
    others = tuple(each for each in DESTINATIONS if each != session.destination)
    return [(session.destination,), others]


Containers = list[tuple[str, str]]


def _whole(session: Session, name: str, containers: Containers) -> list[models.Backups]:
    names = (name, session.prefix + name)
    beginning = models.Backups.beginning_with(names, containers)
    return [each for each in beginning if each.stored_filename in names]


def _set(_session: Session, name: str, containers: Containers) -> list[models.Backups]:
    return models.Backups.of_set(name, containers)


def _beginning(session: Session, name: str, containers: Containers) -> list[models.Backups]:
    return models.Backups.beginning_with((name, session.prefix + name), containers)


def _spells_set(session: Session, name: str, backup: models.Backups) -> bool:
    if parse_stored_name(name.removeprefix(session.prefix)) is not None:
        return backup.stored_filename in (name, session.prefix + name)
    stored = backup.stored_filename.removeprefix(session.prefix)
    parsed = parse_stored_name(stored)
    stem = parsed.stem if parsed is not None else stored
    spelled = name.removeprefix(session.prefix)
    return spelled in (backup.filename, stored) or spelled.startswith(f"{stem}.")


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
        more = f" and {len(described) - _LISTED} more" if len(described) > _LISTED else ""
        raise AmbiguousNameError(
            f"'{printable(name)}' fits several sets: {', '.join(described[:_LISTED])}{more}",
            hint="name one backup as bakthat show lists it, or its host with --host",
        )
    return candidates[0]


def _nearest(session: Session, name: str) -> str:
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
