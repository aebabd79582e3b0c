"""A storage with the backups of many hosts, whose listing has no descriptions, as that of S3."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from bakthat.backends.base import BakthatBackend, StoredObject
from bakthat.errors import NotFoundError
from bakthat.format.description import ARCHIVE, INDEX, describe, source_id
from bakthat.format.names import index_key, is_index_key, stored_name

DAY = 86400
ETC = source_id("/etc")


def description(
    name: str, date: int, host: str, *, source: str = ETC, **more: Any
) -> dict[str, Any]:
    """Return the description of an archive."""
    described = describe(
        ARCHIVE, name, date, host, encryption="recipients", compressed=True, source_id=source
    )
    return {**described, "index": 1, "files": 10, "bytes": 900, **more}


def index_description(
    name: str, date: int, host: str, *, source: str = ETC, **more: Any
) -> dict[str, Any]:
    """Return the description of its index."""
    described = describe(
        INDEX, name, date, host, encryption="recipients", compressed=True, source_id=source
    )
    facts = {"files": 11, "directories": 2, "bytes": 1000, "warning_count": 0, "seconds": 1.5}
    return {**described, **facts, "stored": 100, **more}


class Fleet(BakthatBackend):
    """Objects by their keys, and the requests for them."""

    name = "s3"
    container = "fleet"

    def __init__(self) -> None:
        super().__init__({})
        self.sizes: dict[str, int] = {}
        self.descriptions: dict[str, dict[str, Any]] = {}
        self.gone: set[str] = set()
        """Keys that are listed first and were deleted since."""
        self.lost: set[str] = set()
        """Keys that are listed, and are not there."""
        self.listings: list[str] = []
        self.requested: list[str] = []
        self._lock = threading.Lock()

    def add(
        self,
        name: str,
        date: int,
        host: str,
        *,
        prefix: str = "{host}/",
        size: int = 100,
        index: bool = True,
        source: str = ETC,
        **more: Any,
    ) -> str:
        """Add a backup with its index; *more* is for the description that says it last."""
        key = prefix.replace("{host}", host) + stored_name(name, date, ".tgz", encrypted=True)
        self.sizes[key] = size
        own = {} if index else more
        self.descriptions[key] = description(name, date, host, source=source, **own)
        if index:
            self.descriptions[index_key(key)] = index_description(
                name, date, host, source=source, **{"stored": size, **more}
            )
        return key

    def ls(self, prefix: str = "", *, indexes: bool = False) -> Iterator[StoredObject]:
        """Yield the archives, without their descriptions."""
        deleted = self.gone if self.listings else ()
        self.listings.append(prefix)
        for key in sorted(self.sizes):
            if key.startswith(prefix) and not indexes and key not in deleted:
                yield StoredObject(key, self.sizes[key])

    def stat(self, key: str) -> StoredObject:
        """Return an object with its description."""
        with self._lock:
            self.requested.append(key)
        if key not in self.descriptions or key.removesuffix(".index") in self.gone | self.lost:
            raise NotFoundError(f"no object {key}")
        size = 5 if is_index_key(key) else self.sizes[key]
        return StoredObject(key, size, metadata=self.descriptions[key])

    def delete(self, key: str) -> None:
        """Fail: a status deletes nothing."""
        raise AssertionError(key)
