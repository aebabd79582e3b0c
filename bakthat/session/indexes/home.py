"""Where the index of an archive is stored."""

from __future__ import annotations

from bakthat.backends.base import Backend
from bakthat.errors import ContainerNotFoundError
from bakthat.format.names import INDEX_EXTENSION, index_key
from bakthat.session.session import Session

VAULT_INDEXES = "bakthat_glacier_indexes"
"""What the keys of the indexes of all vaults begin with in a bucket. It has no prefix, as the copy
of a vault's inventory has none."""


def home_of_index(session: Session, backend: Backend, key: str) -> tuple[Backend, str]:
    """Return the backend that stores the index of the archive *key* of *backend*, and its key.

    See :func:`home_of_indexes`.
    """
    home, within = home_of_indexes(session, backend)
    return home, within + index_key(key)


def home_of_indexes(session: Session, backend: Backend) -> tuple[Backend, str]:
    """Return the backend that stores the indexes of *backend*, and what their keys begin with.

    They are beside their archives. A vault would answer after hours, so the profile's bucket has
    the indexes of its archives or, without a bucket, a directory beside the catalog, which may be
    missing and is lost with this machine. The bucket may be missing too. Raises ConfigError.
    """
    if backend.name != "glacier":
        return backend, ""
    if session.profile.s3_bucket is not None:
        return session.backend("s3"), f"{VAULT_INDEXES}/{backend.container}/"
    home = session.backend("local", local_path=directory_of_indexes(session))
    return home, f"{backend.container}/"


def keys_with_index(session: Session, backend: Backend) -> set[str]:
    """Return the keys of *backend* that have an index, by a listing. Raises StorageError."""
    home, within = home_of_indexes(session, backend)
    try:
        listed = [each.key for each in home.ls(within + session.shared_prefix, indexes=True)]
    except ContainerNotFoundError:
        if home is backend:
            raise
        return set()
    return {key for each in listed if (key := archive_key(each, within)) is not None}


def archive_key(key: str, within: str) -> str | None:
    """Return the key of the archive whose index is *key*; None when it is elsewhere.

    *within* is what the keys of the indexes begin with.
    """
    if not within and key.startswith(f"{VAULT_INDEXES}/"):
        return None
    return key.removeprefix(within).removesuffix(INDEX_EXTENSION)


def directory_of_indexes(session: Session) -> str:
    """Return the directory that has the indexes of vaults where the profile has no bucket."""
    return str(session.beside_catalog("indexes"))
