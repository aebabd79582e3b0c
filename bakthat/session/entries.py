"""Make catalog entries from the self-descriptions of stored objects."""

from __future__ import annotations

import time
from typing import Any

from bakthat import models
from bakthat.backends.base import Backend, StoredObject
from bakthat.format import names
from bakthat.format.description import ARCHIVE, FILE, KEY_VALUE, sanitized
from bakthat.policy.outcome import DELETED, SUSPICIOUS

_VALUE_KEYS = ("KeyValue", "is_gzipped")
_INDEX_FACTS = (
    "files",
    "directories",
    "bytes",
    "warning_count",
    "seconds",
    "sha256",
    SUSPICIOUS,
)
"""What the self-description of an index knows better than that of its archive, which was written
before the archive was made."""


_NEEDS_FACTS = ("needs", "level", "id", "host", "source_id")
"""What the self-description of an index says as that of its archive does: to which set the archive
belongs, and what it needs."""

UNREAD = "unread"
"""The key of the metadata of an entry that was adopted from a listing, since the access keys may
not read the object. It is looked up again by each sync, until its description is known."""


def is_value(stored: StoredObject) -> bool:
    """Return whether an object is a value of KeyValue, by its self-description."""
    return (stored.metadata or {}).get("kind") == KEY_VALUE


def value_entry(backend: Backend, stored: StoredObject) -> models.Backups:
    """Return an unsaved catalog entry for a value, made from its self-description."""
    description = sanitized(stored.metadata)
    name = stored.key.rpartition("/")[2].removesuffix(names.KEY_VALUE_EXTENSION)
    # The name of the object wins over its self-description.
    set_name = str(description.get("set") or "")
    metadata = {
        **description,
        "KeyValue": True,
        "is_enc": description.get("encryption") != "none",
        "is_gzipped": description.get("compression") == "gzip",
        "client": str(description.get("host") or ""),
    }
    if stored.extra.get("etag"):
        metadata["etag"] = stored.extra["etag"]  # sync sees by it that the value was replaced
    return models.Backups(
        backend=backend.name,
        backend_hash=models.backend_hash(backend.identity),
        backup_date=description.get("date") or int(stored.last_modified or 0),
        filename=set_name if set_name and name.endswith(set_name) else name,
        metadata=metadata,
        size=stored.size,
        stored_filename=stored.key,
        tags="",
        last_updated=int(time.time()),
    )


def entry_of(backend: Backend, stored: StoredObject, parsed: names.StoredName) -> models.Backups:
    """Return an unsaved catalog entry, made from an object's self-description and name."""
    description = sanitized(stored.metadata)
    for key in _VALUE_KEYS:  # by its name it is no value
        description.pop(key, None)
    if description.get("kind") not in (ARCHIVE, FILE):
        description.pop("kind", None)
    host = str(description.get("host") or "")
    # The name of the object wins over its self-description.
    filename = str(description.get("set") or parsed.stem)
    if parsed.stem not in (filename, names.tarball_stem(filename)):
        filename = parsed.stem
    return models.Backups(
        backend=backend.name,
        backend_hash=models.backend_hash(backend.identity),
        backup_date=parsed.backup_date,
        filename=filename,
        metadata={**description, "is_enc": bool(parsed.encryption), "client": host},
        size=stored.size,
        stored_filename=stored.key,
        tags=str(description.get("tags") or ""),
        last_updated=int(time.time()),
    )


def update_entry(found: models.Backups, entry: models.Backups, *, is_here: bool) -> None:
    """Update the entry *found* from *entry*, which describes the stored object."""
    if not (is_here or may_be_the_same(found, entry)):
        for column, value in entry.as_dict().items():
            setattr(found, column, value)
        found.metadata["adopted"] = int(time.time())
        return
    found.is_deleted = False
    outdated = {DELETED} if UNREAD in entry.metadata else {DELETED, UNREAD}
    found.metadata = {key: each for key, each in found.metadata.items() if key not in outdated}
    if not is_here:
        found.backend_hash = entry.backend_hash
    if entry.size >= 0:
        found.size = entry.size
    if entry.is_key_value:
        kept = {"adopted": found.metadata["adopted"]} if "adopted" in found.metadata else {}
        found.metadata = {**entry.metadata, **kept}
        found.filename, found.backup_date = entry.filename, entry.backup_date
    elif "format" in entry.metadata or not found.metadata:
        found.metadata = _merged_metadata(found, entry)


def may_be_the_same(found: models.Backups, entry: models.Backups) -> bool:
    """Return whether an entry of another container may belong to this container after all.

    0.6.0 put the access key into the hash of the container. After a change of keys the hashes of
    its entries no longer match.
    """
    is_legacy = not {"format", "adopted"} & set(found.metadata)
    return is_legacy and found.backend == entry.backend and found.size == entry.size


def _merged_metadata(found: models.Backups, entry: models.Backups) -> dict[str, Any]:
    """Return the metadata of *found*, updated from *entry*, which describes the stored object.

    What the machine that made the backup counted is kept: others may have written the description.
    Only that machine has recorded the path of the source.
    """
    kept = _INDEX_FACTS if "source" in found.metadata else ()
    described = {key: value for key, value in entry.metadata.items() if key not in kept}
    return {**found.metadata, **described}


def add_index_facts(entry: models.Backups, index: StoredObject) -> None:
    """Add to *entry* what only the self-description of its index knows. Nobody vouches for it.

    For an increment whose own self-description was lost, that says what it needs.
    """
    found = sanitized(index.metadata)
    entry.metadata |= {key: found[key] for key in _INDEX_FACTS if key in found}
    entry.metadata["index_size"] = index.size
    if lacks_needs(entry):
        missing = {key: found[key] for key in _NEEDS_FACTS if key in found}
        entry.metadata = {**missing, **entry.metadata}
        entry.metadata["client"] = entry.host or str(found.get("host") or "")


def lacks_needs(entry: models.Backups) -> bool:
    """Return whether *entry* is that of an increment that does not say what it needs."""
    return entry.is_increment and not entry.needs
