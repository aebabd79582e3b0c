"""What an object on the storage says of itself, made an entry of the catalog that is not saved."""

from __future__ import annotations

import time

from bakthat import models
from bakthat.backends.base import Backend, StoredObject
from bakthat.format import names
from bakthat.format.description import sanitized

_OF_VALUES = ("KeyValue", "is_gzipped")


def is_value(stored: StoredObject) -> bool:
    """Tell whether an object says of itself that KeyValue stored it."""
    return (stored.metadata or {}).get("kind") == "keyvalue"


def value_entry(backend: Backend, stored: StoredObject) -> models.Backups:
    """Make a catalog entry, not saved, of what an object of KeyValue says of itself."""
    said = sanitized(stored.metadata)
    name = stored.key.rpartition("/")[2].removesuffix(names.KEY_VALUE_EXTENSION)
    # The name of the object counts more than what it says of itself.
    named = str(said.get("set") or "")
    metadata = {
        **said,
        "KeyValue": True,
        "is_enc": said.get("encryption") != "none",
        "is_gzipped": said.get("compression") == "gzip",
        "client": str(said.get("host") or ""),
    }
    if stored.extra.get("etag"):
        metadata["etag"] = stored.extra["etag"]  # by which a later listing shows a new value
    return models.Backups(
        backend=backend.name,
        backend_hash=models.backend_hash(backend.container),
        backup_date=said.get("date") or int(stored.last_modified or 0),
        filename=named if named and name.endswith(named) else name,
        metadata=metadata,
        size=stored.size,
        stored_filename=stored.key,
        tags="",
        last_updated=int(time.time()),
    )


def entry_of(backend: Backend, stored: StoredObject, parsed: names.StoredName) -> models.Backups:
    """Make a catalog entry, not saved, of what an object and its name say."""
    said = sanitized(stored.metadata)
    for key in _OF_VALUES:  # it is none by its name
        said.pop(key, None)
    if said.get("kind") not in ("archive", "file"):
        said.pop("kind", None)
    host = str(said.get("host") or "")
    # The name that was asked for counts more than what an object says of itself.
    filename = str(said.get("set") or parsed.stem)
    if parsed.stem not in (filename, names.tarball_stem(filename)):
        filename = parsed.stem
    return models.Backups(
        backend=backend.name,
        backend_hash=models.backend_hash(backend.container),
        backup_date=parsed.backup_date,
        filename=filename,
        metadata={**said, "is_enc": bool(parsed.encryption), "client": host},
        size=stored.size,
        stored_filename=stored.key,
        tags=str(said.get("tags") or ""),
        last_updated=int(time.time()),
    )
