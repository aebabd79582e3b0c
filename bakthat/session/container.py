"""What the catalog knows of a container: whether it is new, not mounted, or was moved.

The catalog records the name of each container in the table ``config``; its entries have a hash.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

from bakthat import models
from bakthat.backends.base import Backend, container_identity
from bakthat.errors import CatalogError, ContainerNotFoundError
from bakthat.session.session import Session
from bakthat.system.text import counted, printable, to_native

log = logging.getLogger("bakthat")

_PREFIX = "container "
"""What the keys of recorded containers in the table ``config`` begin with."""

_BEGIN_ANEW = "bakthat backup --create begins with a new one (create=True in Python)"
_LISTED = 20
"""How many of the newest backups are looked for in a local directory. If another program removed
all of them, the user has to say so."""


def make_container(session: Session, backend: Backend, *, create: bool = False) -> None:
    """Make the container of *backend* if it is missing, unless :func:`has_container` raises.

    *create* means that a new one is wanted in any case. Raises ContainerNotFoundError,
    StorageError.
    """
    if not has_container(session, backend, is_new=create):
        backend.create_container()


def has_container(session: Session, backend: Backend, *, is_new: bool = False) -> bool:
    """Return whether the container of *backend* exists.

    Raises ContainerNotFoundError where it is missing and the catalog lists backups in it: their
    disk is probably not mounted, or the profile has the wrong endpoint. A new container would hide
    that, and the backup would be alone. *is_new* means that the catalog does not count.
    """
    listed = [] if is_new else _newest(session, backend)
    check_mounted(session, backend, len(listed))
    try:
        backend.check_container(listed)
    except ContainerNotFoundError as exc:
        if listed and not _is_on_its_disk(session, backend):
            local = backend.name == "local"
            raise ContainerNotFoundError(
                f"{exc}, but the catalog lists backups in it",
                hint=f"check {'that its disk is mounted, and ' if local else ''}the profile; "
                f"{_BEGIN_ANEW}",
            ) from exc
        if listed:
            log.warning("%s; it begins anew", exc)
        return False
    return True


def _newest(session: Session, backend: Backend) -> list[str]:
    """Return the stored filenames of the newest backups that the catalog lists there."""
    with models.catalog(session.catalog):
        rows = models.Backups.not_deleted(session.containers(backend.name))
        newest = rows.order_by(models.Backups.backup_date.desc()).limit(_LISTED)
        return [each.stored_filename for each in newest]


def check_mounted(session: Session, backend: Backend, count: int) -> None:
    """Raise ContainerNotFoundError for a local store whose disk is not mounted.

    It was below a mount point when it was recorded, nothing is mounted there now, and not all of
    its newest backups are there, as they would be if it was copied to this disk. *count* is how
    many listed backups should be in it; with 0, nothing is checked.
    """
    if backend.name != "local" or not count:
        return
    value = _recorded(session, backend)
    if _is_unmounted(value) and not all(
        os.path.lexists(os.path.join(backend.container, to_native(name)))
        for name in _newest(session, backend)
    ):
        raise ContainerNotFoundError(
            f"the disk of {printable(backend.container)} is not mounted on "
            f"{printable(str(value['mount']))}",
            hint=f"check that its disk is mounted, and local_path; {_BEGIN_ANEW}",
        )


def _recorded(session: Session, backend: Backend) -> Mapping[str, Any]:
    """Return what the catalog has recorded of the container; {} for nothing."""
    with models.catalog(session.catalog):
        key = _key_of(backend.name, models.backend_hash(backend.identity))
        found = models.Config.get_or_none(models.Config.key == key)
    return {} if found is None else found.value


def _is_on_its_disk(session: Session, backend: Backend) -> bool:
    """Return whether a local store is on the disk on which it was recorded.

    Then it was emptied or removed on purpose.
    """
    mount = _recorded(session, backend).get("mount")
    return bool(mount) and mount == _mount_of(os.path.realpath(backend.container))


def _mount_of(path: str) -> str:
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def _is_unmounted(value: Mapping[str, Any]) -> bool:
    """Return whether the disk of a recorded local store is not mounted where it was."""
    mount = str(value.get("mount", ""))
    return bool(mount) and not os.path.ismount(mount)


def remember(backend: Backend) -> None:
    """Record the name of a container, and where the disk of a local one is mounted.

    Call this within ``catalog(..., write=True)``.
    """
    key = _key_of(backend.name, models.backend_hash(backend.identity))
    value = {"container": backend.container}
    if backend.host:
        value["host"] = backend.host
    if backend.name == "local":
        value["mount"] = _mount_of(os.path.realpath(backend.container))
    found = models.Config.get_or_none(models.Config.key == key)
    if found is None or found.value != value:
        models.put(models.Config, key=key, value=value)


def container_of(backup: models.Backups) -> str:
    """Return the recorded container of an entry; "" when it is not recorded.

    Call this within ``catalog()``.
    """
    key = _key_of(backup.backend, str(backup.backend_hash))
    found = models.Config.get_or_none(models.Config.key == key)
    return "" if found is None else str(found.value.get("container", ""))


def recognize_moved(session: Session, *, dry_run: bool = False) -> None:
    """List the backups of a local store under its present path, after the store was moved there.

    That are those of another recorded path which are at the present one and not at the other. A
    copy of a store, whose original is still there, changes nothing.
    """
    if session.named_destination not in (None, "local"):
        return
    own = session.backend("local")
    with models.catalog(session.catalog):
        moved = {other: list(_moved(other, own)) for other in _other_stores(own)}
    for other, backups in moved.items():
        if not backups:
            continue
        log.info(
            "%s that were in %s are in %s now, and are listed there",
            counted(len(backups), "backup"),
            printable(other),
            printable(own.container),
        )
        if not dry_run:
            try:
                _list_here(session, own, other, backups)
            except CatalogError as exc:
                log.warning("the catalog still lists them in %s: %s", printable(other), exc)


def _other_stores(own: Backend) -> list[str]:
    """Return the recorded local stores of this host but *own*, without those whose disk is not
    mounted.

    Those have not moved: they are not there at the moment.
    """
    first = _key_of("local", "")
    # Not LIKE, which would scan the table.
    rows = models.Config.select().where(
        (models.Config.key >= first) & (models.Config.key < first + chr(0x10FFFF))
    )
    stores = [
        str(row.value.get("container", ""))
        for row in rows
        if not _is_unmounted(row.value) and row.value.get("host", "") == own.host
    ]
    return [each for each in stores if each and each != own.container]


def _moved(former: str, own: Backend) -> Iterator[models.Backups]:
    present = own.container
    if not os.path.isdir(present):
        return
    former_hash = models.backend_hash(container_identity(former, own.host))
    is_same = os.path.isdir(former) and os.path.samefile(former, present)
    for each in models.Backups.not_deleted([("local", former_hash)]):
        if _has(present, each) and (is_same or not _has(former, each)):
            yield each


def _has(store: str, backup: models.Backups) -> bool:
    try:
        path = os.path.join(store, to_native(backup.stored_filename))
        return os.lstat(path).st_size == backup.size
    except OSError:
        return False


def _list_here(session: Session, own: Backend, former: str, backups: list[models.Backups]) -> None:
    former_hash = models.backend_hash(container_identity(former, own.host))
    with models.catalog(session.catalog, write=True):
        for each in backups:
            models.Backups.update(backend_hash=models.backend_hash(own.identity)).where(
                (models.Backups.stored_filename == each.stored_filename)
                & (models.Backups.backend_hash == former_hash)
            ).execute()
        if not models.Backups.not_deleted([("local", former_hash)]).exists():
            models.Config.delete().where(
                models.Config.key == _key_of("local", former_hash)
            ).execute()
        remember(own)


def _key_of(backend: str, digest: str) -> str:
    return f"{_PREFIX}{backend} {digest}"
