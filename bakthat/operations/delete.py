"""Delete one backup."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from bakthat import models
from bakthat.conf import DEFAULT_PROFILE
from bakthat.operations.changes import after_change
from bakthat.session.deletion import (
    UNMARKED,
    check_before_deleting,
    check_recordable,
    delete_indexes,
    record_deletion,
)
from bakthat.session.lookup import find_backup
from bakthat.session.session import Session, operation
from bakthat.system.paths import PathLike
from bakthat.system.signals import held_back
from bakthat.system.text import printable

log = logging.getLogger("bakthat")


def delete(
    filename: str,
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
    source: PathLike | None = None,
) -> models.Backups:
    """Delete one backup from the storage, mark it as deleted in the catalog, and return it.

    *filename* is a stored filename, a set's name (its newest backup) or the beginning of a
    stored filename that contains the set's whole name (``mydir.2013``). *host* and *source* are as
    for :func:`bakthat.restore`. A backup that is no longer on the storage is only marked. Raises
    NoMatchError, AmbiguousNameError, StorageError, and CatalogError before anything is deleted, or
    when it says that the backup was deleted.
    """
    session = Session(profile, config, conf, destination)
    with operation(session, "delete") as current:
        found = find_backup(session, filename, host=host, source=source, to_delete=True)
        backend = session.backend(found.backend)
        for unknown in check_before_deleting(backend, [found]).values():
            raise unknown
        log.info("Deleting %s", printable(found.stored_filename))
        check_recordable(session, backend, found)
        # An interrupt must not leave it in the catalog but not on the storage, nor its index.
        with held_back(
            f"finishing the deletion of {printable(found.stored_filename)}", mend=UNMARKED
        ):
            backend.delete(found.stored_filename)
            record_deletion(session, [found])
            name = printable(found.stored_filename)
            found.container = backend.container
            current.finish(found, done=f"deleted {name} from {found.where}")
            delete_indexes(session, backend, [found])
        after_change(session, found.backend)
        return found
