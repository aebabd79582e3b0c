"""The contract of storages that can keep what somebody deletes: by locks and by versions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from bakthat.backends.base import Backend, StoredObject
from bakthat.backends.lock import Lock
from bakthat.errors import LockedObjectError
from bakthat.format.description import ARCHIVE, FILE, INDEX, sanitized
from bakthat.format.names import (
    INDEX_EXTENSION,
    is_index_key,
    parse_stored_name,
    tarball_stem,
)

NULL_VERSION = "null"
"""The id of what was written while the container kept no versions. The next such object of the key
replaces it and has the same id."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object in a container that keeps versions."""

    key: str
    version_id: str
    size: int
    """In bytes; 0 for a delete marker."""
    last_modified: float
    """When it was written, in epoch seconds UTC."""
    is_latest: bool
    """Whether it is what the storage answers for its key."""
    is_marker: bool
    """Whether it is a delete marker, which hides the versions before it."""
    etag: str = ""


@runtime_checkable
class LockingStorage(Backend, Protocol):
    """A backend whose container may have locks, so that nobody can delete its objects for a time.

    Ask :meth:`has_locks` first. A container without locks has none to look at, and to some storages
    a request that sets one is a request that overwrites the object.

    Of a key that somebody overwrote, what counts is the version that bakthat stored, and a copy of
    it that brought it back.
    """

    def has_locks(self) -> bool:
        """Return whether objects of the container can be locked.

        One request, once. Raises StorageError; CredentialsError when that may not be looked at.
        """

    def lock_of(self, key: str) -> Lock:
        """Return the lock of *key*, as far as the storage tells it. Raises NotFoundError."""

    def locked(self, keys: Collection[str]) -> Mapping[str, LockedObjectError]:
        """Return an error for each of *keys* that cannot be deleted now, as far as that is seen.

        A key is locked when any version of it is. One that is not stored is not locked; neither is
        any where the container has no locks. By the clock of the storage. Raises StorageError.
        """

    def extend_lock(self, key: str, lock: Lock) -> None:
        """Let the retention of *key* last at least as long as that of *lock*, in its mode.

        A retention is never made shorter, nor its mode weaker. The hold stays as it is. Raises
        NotFoundError, and LockedObjectError when the storage refuses the change. For a key that was
        overwritten it raises StorageError, and NotFoundError for one that a delete marker hides,
        after the lock of the version from before was extended.
        """

    def set_hold(self, key: str, *, is_held: bool) -> None:
        """Put *key* on hold, or release all versions of it. Raises NotFoundError."""


@runtime_checkable
class VersionedStorage(Backend, Protocol):
    """A backend whose container may keep the versions of an object that was overwritten or deleted.

    :meth:`Backend.delete` removes all versions of a key, where the profile says so.
    """

    def has_versions(self) -> bool:
        """Return whether the container keeps versions, or has kept them.

        One request, once. Raises StorageError; CredentialsError when that may not be looked at.
        """

    def versions(self, prefix: str = "") -> Iterator[Version]:
        """Yield the versions and delete markers of all keys that begin with *prefix*.

        Those of one key follow one another, the newest first. Indexes are included.
        """

    def stat_version(self, version: Version) -> StoredObject:
        """Return a version with its self-description. Raises NotFoundError."""

    def bring_back(self, version: Version, lock: Lock | None = None) -> StoredObject:
        """Let the storage answer *version* for its key again; return what it answers then.

        Where only delete markers hide it, they are removed, if that is allowed. Otherwise it is
        copied over itself with all that describes it; *lock* is that of the copy. What overwrote it
        stays as a version. A version that nothing hides is left as it is. ``extra["version"]`` of
        the result is the id of the version that is there now.

        Raises NotFoundError when the version is gone, NotReadyError when it must be copied and is
        frozen, and StorageError.
        """


def fits_key(stored: StoredObject) -> bool | None:
    """Return whether the self-description of an object fits its key; None where it has none."""
    description = sanitized(stored.metadata)
    if not {"set", "date"} <= description.keys():
        return None
    is_index = is_index_key(stored.key)
    name = stored.key.removesuffix(INDEX_EXTENSION) if is_index else stored.key
    parsed = parse_stored_name(name.rpartition("/")[2])
    kinds = (INDEX,) if is_index else (ARCHIVE, FILE)
    if parsed is None or description.get("kind") not in kinds:
        return False
    set_name = str(description["set"])
    return (
        parsed.stem.endswith((set_name, tarball_stem(set_name)))
        and parsed.backup_date == description["date"]
        and bool(parsed.encryption) == (description.get("encryption") != "none")
        and parsed.is_increment == ("needs" in description)
    )
