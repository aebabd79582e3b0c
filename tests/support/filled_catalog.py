"""A catalog to fill for the tests of retention, and storages that only remember their keys."""

from __future__ import annotations

import calendar
import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import peewee
import pytest

from bakthat import models
from bakthat.backends.base import BakthatBackend, StoredObject, container_identity
from bakthat.database.address import location_of
from bakthat.errors import BakthatError, NotFoundError, StorageError
from bakthat.format.names import INDEX_EXTENSION, index_key, is_index_key, stored_name
from bakthat.session import session

DAY = 86400
HOST = "box"
CONTAINERS = {"s3": "bucket", "glacier": "vault", "local": "/store"}


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    """Return a moment of UTC in epoch seconds."""
    return calendar.timegm((year, month, day, hour, minute, second))


NOW = at(2026, 12, 16, 12)


def increment_key(name: str, date: int) -> str:
    """Return the stored filename of an increment."""
    return stored_name(name, date, ".tgz", encrypted=False, increment=True)


class FakeStorage(BakthatBackend):
    """Holds keys without contents, and does not delete the keys in *refused*.

    *indexes* are the self-descriptions of the indexes, by the keys of their archives, and
    *requests* are the listings of them and the requests for one.
    """

    def __init__(self, name: str, batch_size: int) -> None:
        super().__init__({})
        self.name = name
        self.container = CONTAINERS[name]
        self.batch_size = batch_size
        self.keys: set[str] = set()
        self.batches: list[list[str]] = []
        self.refused: set[str] = set()
        self.indexes: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.before_batch: Callable[[int], None] = lambda number: None

    def stat(self, key: str) -> StoredObject:
        """Return *key*, if it exists."""
        if is_index_key(key):
            self.requests.append(f"stat {key}")
            archive = key.removesuffix(INDEX_EXTENSION)
            if archive not in self.indexes:
                raise NotFoundError(f"no object {key}")
            return StoredObject(key, 5, metadata=self.indexes[archive])
        if key not in self.keys:
            raise NotFoundError(f"no object {key}")
        return StoredObject(key, 10)

    def ls(self, prefix: str = "", *, indexes: bool = False) -> Iterator[StoredObject]:
        """Yield the keys, or with *indexes* those of the indexes."""
        self.requests.append(f"list {prefix}")
        keys = [index_key(each) for each in self.indexes] if indexes else self.keys
        return (StoredObject(each, 5) for each in sorted(keys) if each.startswith(prefix))

    def delete(self, key: str) -> None:
        """Forget *key*, unless it is refused."""
        for error in self.delete_many([key]).values():
            raise error

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, BakthatError]:
        """Forget *keys*, except those that are refused."""
        if all(is_index_key(key) for key in keys):
            for key in keys:
                self.indexes.pop(key.removesuffix(INDEX_EXTENSION), None)
            return {}
        self.batches.append(list(keys))
        self.before_batch(len(self.batches))
        self.keys -= set(keys) - self.refused
        return {key: StorageError(f"{key} is locked") for key in keys if key in self.refused}


class FilledCatalog:
    """A catalog, its profile, and the storages of its backups."""

    def __init__(self, path: Path | str, *, batch_size: int = 1000, **conf: Any) -> None:
        self.path = path
        self.conf: dict[str, Any] = {
            "database": str(path),
            "s3_bucket": CONTAINERS["s3"],
            "glacier_vault": CONTAINERS["glacier"],
            "local_path": CONTAINERS["local"],
            "access_key": "AK",
            "secret_key": "SK",
            **conf,
        }
        self.storages = {name: FakeStorage(name, batch_size) for name in CONTAINERS}
        if not isinstance(location_of(path), Path):  # which several hosts share
            self.storages["local"].host = HOST
        with models.catalog(path):
            pass

    def add(
        self,
        date: int,
        name: str = "my",
        *,
        stored: str | None = None,
        host: str = HOST,
        backend: str = "s3",
        container: str | None = None,
        legacy: bool = False,
        **more: Any,
    ) -> str:
        """Add a backup to the catalog and to its storage; return its stored filename."""
        key = stored or f"{name}.{time.strftime('%Y%m%d%H%M%S', time.gmtime(date))}.tgz"
        where = container or CONTAINERS[backend]
        digest = (
            models.legacy_backend_hash(self.conf["access_key"], where)
            if legacy
            else models.backend_hash(container_identity(where, self.storages[backend].host))
        )
        row = {
            "backend": backend,
            "backend_hash": digest,
            "backup_date": date,
            "filename": name,
            "metadata": {"client": host, "is_enc": False},
            "size": 10,
            "stored_filename": key,
            "tags": "",
            **more,
        }
        with models.catalog(self.path, write=True):
            models.record(row)
        if where == CONTAINERS[backend]:
            self.storages[backend].keys.add(key)
        return key

    def add_increment(self, date: int, needs: Sequence[int], name: str = "my", **more: Any) -> str:
        """Add an increment that needs the backups of *needs*; return its stored filename.

        An increment without *needs* is one whose description was lost.
        """
        metadata = {"client": HOST, "is_enc": False, "index_size": 5}
        if needs:
            metadata |= {"format": 2, "needs": list(needs), "level": 3}
        more = {"metadata": metadata, "stored": increment_key(name, date), **more}
        return self.add(date, name, **more)

    def add_days(self, count: int, name: str = "my", **more: Any) -> list[str]:
        """Add a backup a day at 03:00, the last one today; return them, the oldest first."""
        first = NOW - NOW % DAY + 3 * 3600 - (count - 1) * DAY
        with models.catalog(self.path, write=True):
            return [self.add(first + number * DAY, name, **more) for number in range(count)]

    def rows(self) -> dict[str, tuple[Any, ...]]:
        """Return every row of the table, by its stored filename."""
        with models.catalog(self.path):
            rows: list[Any] = list(models.ORIGINAL_BACKUPS.select())
        return {row.stored_filename: (row.id, row.as_dict()) for row in rows}

    def living(self) -> set[str]:
        """Return the stored filenames that are not marked as deleted."""
        backups = models.ORIGINAL_BACKUPS
        with models.catalog(self.path):
            rows = list(backups.select(backups.stored_filename).where(~backups.is_deleted))
        return {row.stored_filename for row in rows}

    def damage(self, stored: str) -> None:
        """Make the metadata of an entry unreadable."""
        backups = models.ORIGINAL_BACKUPS
        with models.catalog(self.path, write=True):
            damaged = backups.update({backups.metadata: peewee.SQL("'x'")})
            damaged.where(backups.stored_filename == stored).execute()


@contextlib.contextmanager
def using_catalog(filled: FilledCatalog, now: int = NOW) -> Iterator[None]:
    """Let this process be :data:`HOST` at *now*, with the storages of *filled*."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: HOST)
        patch.setattr(
            session.Session, "backend", lambda _self, destination, **_: filled.storages[destination]
        )
        patch.setattr(time, "time", lambda: float(now))
        yield
