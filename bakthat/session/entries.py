"""Make catalog entries from the self-descriptions of stored objects."""

from __future__ import annotations

import time

from bakthat import models
from bakthat.backends.base import Backend, StoredObject
from bakthat.format import names
from bakthat.format.description import sanitized

_OF_VALUES = ("KeyValue", "is_gzipped")


def is_value(stored: StoredObject) -> bool:
    """Return whether KeyValue stored an object, by its self-description."""
    return (stored.metadata or {}).get("kind") == "keyvalue"


def value_entry(backend: Backend, stored: StoredObject) -> models.Backups:
    """Return a catalog entry, not saved, made from the self-description of a value."""
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
        metadata["etag"] = stored.extra["etag"]  # shows sync that another value was stored
    return models.Backups(
        backend=backend.name,
        backend_hash=models.backend_hash(backend.container),
        backup_date=description.get("date") or int(stored.last_modified or 0),
        filename=set_name if set_name and name.endswith(set_name) else name,
        metadata=metadata,
        size=stored.size,
        stored_filename=stored.key,
        tags="",
        last_updated=int(time.time()),
    )


def entry_of(backend: Backend, stored: StoredObject, parsed: names.StoredName) -> models.Backups:
    """Return a catalog entry, not saved, made from an object's self-description and its name."""
    description = sanitized(stored.metadata)
    for key in _OF_VALUES:  # its name is not that of a value
        description.pop(key, None)
    if description.get("kind") not in ("archive", "file"):
        description.pop("kind", None)
    host = str(description.get("host") or "")
    # The name of the object wins over its self-description.
    filename = str(description.get("set") or parsed.stem)
    if parsed.stem not in (filename, names.tarball_stem(filename)):
        filename = parsed.stem
    return models.Backups(
        backend=backend.name,
        backend_hash=models.backend_hash(backend.container),
        backup_date=parsed.backup_date,
        filename=filename,
        metadata={**description, "is_enc": bool(parsed.encryption), "client": host},
        size=stored.size,
        stored_filename=stored.key,
        tags=str(description.get("tags") or ""),
        last_updated=int(time.time()),
    )
