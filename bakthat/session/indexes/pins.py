"""Find the increments that the catalog does not list, by their indexes: what they need must stay.

Another machine may have made them since the last sync, or may be making one now: its index is
stored before its archive. Reservations pin what a backup with this catalog needs while it runs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from bakthat import models
from bakthat.backends.base import Backend, StoredObject
from bakthat.errors import (
    ContainerNotFoundError,
    CredentialsError,
    NotFoundError,
    UnreachableError,
)
from bakthat.format.description import FILE
from bakthat.format.names import StoredName, index_key, parse_stored_name, tarball_stem
from bakthat.session.chains import may_be_of_one_set
from bakthat.session.entries import entry_of
from bakthat.session.indexes.home import archive_key, home_of_indexes
from bakthat.session.session import Session
from bakthat.session.stat import batches, beginning_of, workers
from bakthat.system.text import printable

log = logging.getLogger("bakthat")


def may_be_needed(backup: models.Backups) -> bool:
    """Return whether an increment may be made from a backup: only from one that has an index.

    An entry that sync made may be that of an object whose description was lost.
    """
    if backup.is_key_value or backup.metadata.get("kind") == FILE:
        return False
    known = backup.metadata
    return (
        backup.is_increment or not known or not {"index", "index_size", "adopted"}.isdisjoint(known)
    )


def unlisted_increments(
    session: Session, backend: Backend, backups: Sequence[models.Backups]
) -> list[models.Backups]:
    """Return the increments of one set whose index is stored, and which the catalog does not list.

    *backups* are those of the set that are listed. The result has unsaved entries, made from what
    the indexes say of themselves; that of a lost description may be of this set. The indexes of the
    set are listed, and each that is not known costs a request.

    Increments that this catalog does not know may need any backup of the set, whatever the catalog
    has: two machines may make backups of one set. So retention and deletion look for them when they
    would delete a backup that has an index. That is one request for each thousand objects of the
    set; a backup of an earlier version, or of a file, costs none. Raises StorageError. Credentials
    that may not list are enough as long as the catalog has no increment of the set, and so is a
    vault whose bucket with the indexes cannot be reached.
    """
    home, within = home_of_indexes(session, backend)
    try:
        stored = _increments(session, home, within, backups)
    except ContainerNotFoundError as exc:
        log.debug("there are no indexes: %s", exc)  # nor is there anything to delete
        return []
    except (CredentialsError, UnreachableError) as exc:
        # A vault has its indexes in a bucket, which may be gone for good while the vault is there.
        is_store_unreachable = isinstance(exc, UnreachableError) and home is backend
        if is_store_unreachable or any(each.is_increment for each in backups):
            raise
        level = logging.WARNING if isinstance(exc, UnreachableError) else logging.DEBUG
        log.log(level, "cannot look for increments that the catalog does not list: %s", exc)
        return []
    unlisted = []
    with workers() as pool:
        for batch in batches(_unlisted(session, backend, sorted(stored))):
            for name, index in zip(
                batch, pool.map(partial(_index_of, home, within), batch), strict=True
            ):
                if index is None:
                    continue
                entry = entry_of(
                    backend, StoredObject(name, -1, metadata=index.metadata), stored[name]
                )
                if any(may_be_of_one_set(entry, each) for each in backups):
                    unlisted.append(entry)
    for each in unlisted:
        log.info(
            "%s is not in the catalog, and what it needs stays: bakthat sync lists it, or it is "
            "running, or it was stopped and bakthat cleanup removes its index after a day",
            printable(each.stored_filename),
        )
    return unlisted


def _increments(
    session: Session, home: Backend, within: str, backups: Sequence[models.Backups]
) -> dict[str, StoredName]:
    """Return the keys of the increments of a set whose index is stored, and their parts."""
    names = {each.filename for each in backups}
    beginnings = {beginning_of(each.stored_filename) for each in backups}
    # The prefix of the profile may have changed since these were stored.
    beginnings |= {session.prefix_of(backups[0].host) + tarball_stem(name) for name in names}
    found = {}
    for beginning in sorted(beginnings):
        for index in home.ls(f"{within}{beginning}.", indexes=True):
            name = archive_key(index.key, within)
            parsed = parse_stored_name((name or "").rpartition("/")[2])
            if name and parsed and parsed.is_increment and beginning_of(name) == beginning:
                found[name] = parsed
    return found


def _unlisted(session: Session, backend: Backend, names: Sequence[str]) -> list[str]:
    """Return which increments the catalog does not list, nor knows as deleted."""
    deleted: dict[str, bool] = {}
    with models.catalog(session.catalog):
        rows = models.Backups.within(session.containers(backend.name))
        for batch in batches(names):
            found = rows.where(models.Backups.stored_filename.in_(batch))
            deleted |= {each.stored_filename: each.is_deleted for each in found}
    return [
        each
        for each in names
        # The index of one that was deleted may have been left behind.
        if each not in deleted or (deleted[each] and _is_stored(backend, each))
    ]


def _is_stored(backend: Backend, name: str) -> bool:
    if backend.name == "glacier":  # which knows only what this machine stored and deleted
        return False
    try:
        backend.stat(name)
    except NotFoundError:
        return False
    return True


def _index_of(home: Backend, within: str, name: str) -> StoredObject | None:
    try:
        return home.stat(index_key(within + name))
    except NotFoundError:
        return None
