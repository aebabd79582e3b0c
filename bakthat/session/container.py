"""Make the container of a profile for its first backup, and only then."""

from __future__ import annotations

from bakthat import models
from bakthat.backends.base import Backend
from bakthat.errors import ContainerNotFoundError
from bakthat.session.session import Session

_LISTED = 20
"""How many of the newest backups are looked for in a local directory. If another program removed
all of them, the user has to say so."""


def make_container(session: Session, backend: Backend, *, create: bool = False) -> None:
    """Make the container of *backend* if it is missing and the catalog lists nothing in it.

    If the catalog does list backups there, their disk is probably not mounted, or the profile has
    the wrong endpoint: a new container would hide that, and the backup would be alone. *create*
    means that a new one is wanted all the same. Raises ContainerNotFoundError, StorageError.
    """
    listed = [] if create else _newest(session, backend)
    try:
        backend.check_container(listed)
    except ContainerNotFoundError as exc:
        if listed:
            raise ContainerNotFoundError(
                f"{exc}, but the catalog lists backups in it",
                hint="is its disk mounted, and is the profile right? to begin with a new one, use "
                "bakthat backup --create (create=True in Python)",
            ) from exc
        backend.create_container()


def _newest(session: Session, backend: Backend) -> list[str]:
    """Return the stored filenames of the newest backups that the catalog lists there."""
    with models.catalog(session.catalog_path):
        rows = models.Backups.not_deleted(session.containers(backend.name))
        newest = rows.order_by(models.Backups.backup_date.desc()).limit(_LISTED)
        return [each.stored_filename for each in newest]
