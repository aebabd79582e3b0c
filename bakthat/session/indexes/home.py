"""Where the index of an archive is stored."""

from __future__ import annotations

from bakthat.backends.base import Backend
from bakthat.format.names import index_key
from bakthat.session.session import Session

VAULT_INDEXES = "bakthat_glacier_indexes"
"""What the keys of the indexes of all vaults begin with in a bucket. It has no prefix, as the copy
of a vault's inventory has none."""


def home_of_index(session: Session, backend: Backend, key: str) -> tuple[Backend, str]:
    """Return the backend that stores the index of the archive *key* of *backend*, and its key.

    It is beside its archive. A vault would answer after hours, so the profile's bucket has the
    indexes of its archives or, without a bucket, a directory beside the catalog, which may be
    missing and is lost with this machine. The bucket may be missing too. Raises ConfigError.
    """
    if backend.name != "glacier":
        return backend, index_key(key)
    in_vault = f"{backend.container}/{index_key(key)}"
    if session.profile.s3_bucket is not None:
        # Readable at once, whatever the storage class of the backups is.
        return session.backend("s3", storage_class=None), f"{VAULT_INDEXES}/{in_vault}"
    return session.backend("local", local_path=directory_of_indexes(session)), in_vault


def directory_of_indexes(session: Session) -> str:
    """Return the directory that has the indexes of vaults where the profile has no bucket."""
    return f"{session.catalog_path}.indexes"
