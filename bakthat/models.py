"""The catalog: which backups exist, in a database that users may query themselves.

It is a file of SQLite, or on a server that several hosts share (:mod:`bakthat.database`).

The tables are those of bakthat 0.6.0, so an existing catalog opens without conversion; this version
adds the table ``reservations`` and an index. The catalog is a cache of what the storages hold.

Every access goes through :func:`catalog`, which opens the database for the duration of a block. The
model classes are looked up in this module when they are needed, so a plugin may replace them.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import operator
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Self, TypeVar

import peewee

from bakthat.columns import JsonField, NamesField, json_value
from bakthat.database.address import DatabaseAddress, location_of
from bakthat.database.base import CatalogDatabase, is_away
from bakthat.database.opening import current, opened
from bakthat.database.sqlite import is_full as is_full
from bakthat.errors import CatalogError
from bakthat.format.description import (
    FORMAT,
    INCREMENT_FORMAT,
    KEY_VALUE,
    MAX_LEVEL,
    NAMED,
    sanitized,
)
from bakthat.format.names import INCREMENT_EXTENSION, KEY_VALUE_EXTENSION, parse_any_name
from bakthat.policy.outcome import Outcome, with_deletion

log = logging.getLogger("bakthat")

Result = TypeVar("Result")

SCHEMA_VERSION = 2
"""The user_version of the SQLite database; 0.6.0 left it at 0, and 1 had no needs of reservations.
An earlier bakthat refuses a later one: it would delete what running backups need."""

BUSY_TIMEOUT = 60
"""Seconds that a statement waits for other processes' transactions. SQLite does not queue them: of
twenty jobs that start in the same minute on a slow disk, some wait 8 seconds several times."""

RECORD_PATIENCE = 300
"""Seconds to wait after an upload, which may have taken hours, for a catalog that is locked or on a
server that does not answer."""

AWAY_PAUSE = 5.0
"""Seconds between two attempts to reach a server that does not answer."""

_PLAIN_HOST = re.compile(r"[A-Za-z0-9._-]+")
"""Hosts that every JSON encoder writes without escapes."""


def _table_name(_model: type[peewee.Model]) -> str:
    """Return the table's name, whatever the name of a plugin's subclass is."""
    return "backups"


class _Model(peewee.Model):
    class Meta:
        database = current


class Backups(Outcome, _Model):
    """One backup that was stored; a deleted one is marked and stays."""

    backend = peewee.CharField()
    backend_hash = peewee.CharField(null=True)
    backup_date = peewee.IntegerField()
    """Epoch seconds, UTC."""
    filename = peewee.TextField()
    """The name of the set."""
    is_deleted = peewee.BooleanField(default=False)
    last_updated = peewee.IntegerField()
    """Epoch seconds, UTC."""
    metadata = JsonField(default=dict)
    size = peewee.IntegerField()
    """Bytes, as stored."""
    stored_filename = peewee.TextField(unique=True)
    """The key in the container."""
    tags = peewee.CharField(default="")
    """Separated by spaces."""

    class Meta:
        table_function = _table_name
        legacy_table_names = False

    def __str__(self) -> str:
        return f"<Backup: {self.stored_filename}>"

    __repr__ = __str__

    def __getitem__(self, key: str) -> Any:
        if key not in self._meta.fields:
            raise KeyError(key)
        return getattr(self, key)

    def as_dict(self) -> dict[str, Any]:
        """Return the columns as plain values, without ``id``."""
        return {name: getattr(self, name) for name in self._meta.sorted_field_names if name != "id"}

    @property
    def host(self) -> str:
        """The host that made the backup; "" when it is not known."""
        return str(self.metadata.get("client") or "")

    @property
    def source(self) -> str:
        """The path that was backed up, on its host; "" when only the storage describes it."""
        return str(self.metadata.get("source") or "")

    @property
    def source_id(self) -> str:
        """The id of that path; "named" if a name was given; "" for a value, or one of 0.6.0."""
        return str(self.metadata.get("source_id") or "")

    @property
    def set_source(self) -> str:
        """What tells its set apart from others of the same name: its source's path, else the id.

        It is "" when the backup was given a name or its source is not known.
        """
        return "" if self.source_id in ("", NAMED) else self.source or self.source_id

    @property
    def date(self) -> int:
        """When it was made, in epoch seconds UTC. 0.6.0's ``backup_date`` is off by a time zone."""
        if "format" in self.metadata or self.is_key_value:
            return self.backup_date
        parsed = parse_any_name(self.stored_filename)
        return self.backup_date if parsed is None else parsed.backup_date

    @property
    def is_encrypted(self) -> bool:
        """Whether a restore needs a password or a private key.

        The stored filename says it; the metadata, which may be damaged, only of a value and of an
        object with another name.
        """
        parsed = None if self.is_key_value else parse_any_name(self.stored_filename)
        return bool(parsed.encryption if parsed is not None else self.metadata.get("is_enc"))

    @property
    def is_increment(self) -> bool:
        """Whether it is the difference to another backup only, as its stored filename says."""
        parsed = None if self.is_key_value else parse_any_name(self.stored_filename)
        return parsed is not None and parsed.is_increment

    @property
    def needs(self) -> tuple[int, ...]:
        """The dates (epoch seconds, UTC) of the backups of its set that it is applied to, the full
        first. Empty for a full, and for an increment whose description was lost."""
        value = self.metadata.get("needs") if self.is_increment else None
        return tuple(sanitized({"needs": value}).get("needs", ()))

    @property
    def has_unknown_format(self) -> bool:
        """Whether a later bakthat stored it, so that it is not known what it needs."""
        return bool(sanitized(self.metadata).get("format", FORMAT) > INCREMENT_FORMAT)

    @property
    def level(self) -> int:
        """Its level (:mod:`bakthat.policy.levels`); 0 for a full."""
        found = sanitized(self.metadata).get("level", MAX_LEVEL) if self.is_increment else 0
        return int(found)

    @property
    def archive_id(self) -> str:
        """What tells its archive from any other; "" in those of earlier versions."""
        return str(sanitized(self.metadata).get("id", ""))

    @property
    def is_key_value(self) -> bool:
        """Whether KeyValue stored it, this version's or 0.6.0's. A value belongs to no set."""
        if not self.metadata:  # damaged
            return self.stored_filename.endswith(KEY_VALUE_EXTENSION)
        return bool(self.metadata.get("KeyValue")) or self.metadata.get("kind") == KEY_VALUE

    @classmethod
    def of_set(
        cls, name: str, containers: Iterable[tuple[str, str]], *, host: str | None = None
    ) -> list[Self]:
        """Return the backups of the sets called *name*, the newest first.

        *containers* are pairs of backend and backend_hash; *host* None means every host.
        """
        rows = (
            cls.not_deleted(containers).where(cls.filename == name).order_by(*cls._newest_first())
        )
        if host and _PLAIN_HOST.fullmatch(host):
            # The catalog may have one name of hundreds of hosts, and SQL filters faster.
            rows = rows.where(current.holds(cls.metadata, host))
        return [row for row in rows if host is None or row.host == host]

    @classmethod
    def increments(cls, containers: Iterable[tuple[str, str]], name: str = "") -> list[Self]:
        """Return the increments of every host, of the sets called *name* or by default of all."""
        rows = cls.not_deleted(containers)
        rows = rows.where(current.holds(cls.stored_filename, INCREMENT_EXTENSION))
        rows = rows.where(cls.filename == name) if name else rows
        return [row for row in rows if row.is_increment]

    @classmethod
    def beginning_with(
        cls, beginnings: Collection[str], containers: Iterable[tuple[str, str]]
    ) -> list[Self]:
        """Return the backups whose stored filename begins with one of *beginnings*."""
        ranges = [
            (cls.stored_filename >= beginning) & (cls.stored_filename < beginning + chr(0x10FFFF))
            for beginning in beginnings
        ]
        rows = cls.not_deleted(containers).where(functools.reduce(operator.or_, ranges))
        return list(rows.order_by(*cls._newest_first()))

    @classmethod
    def search(
        cls,
        query: str = "",
        containers: Iterable[tuple[str, str]] = (),
        tags: Collection[str] = (),
    ) -> list[Self]:
        """Return the backups whose set or stored filename contains *query*, the newest first.

        With *tags*, only those with at least one of the tags.
        """
        rows = cls.not_deleted(containers).order_by(*cls._newest_first())
        if query:
            rows = rows.where(
                current.holds(cls.stored_filename, query) | current.holds(cls.filename, query)
            )
        wanted = set(tags)
        return [row for row in rows if not wanted or wanted & set(row.tags.split())]

    @classmethod
    def set_names(cls, containers: Iterable[tuple[str, str]]) -> list[str]:
        """Return the names of all sets. This reads a whole index: use it for messages only."""
        rows = cls.not_deleted(containers).select(cls.filename).distinct().order_by(cls.filename)
        return [row.filename for row in rows]

    @classmethod
    def hosts_of(cls, name: str, containers: Iterable[tuple[str, str]]) -> set[str]:
        """Return the hosts that have backups of the sets called *name*; "" for an unknown one."""
        rows = cls.not_deleted(containers).where(cls.filename == name)
        if not current.reads_json:
            return {row.host for row in rows if not row.is_key_value}
        # SQLite is faster where the catalog has one name of hundreds of hosts.
        found = rows.select(
            *(json_value(cls.metadata, each) for each in ("client", "KeyValue", "kind"))
        )
        return {
            str(client or "")
            for client, is_value, kind in found.distinct().tuples()
            if not is_value and kind != KEY_VALUE
        }

    @classmethod
    def not_deleted(cls, containers: Iterable[tuple[str, str]]) -> Any:
        """Select the backups in *containers* that are not deleted."""
        return cls.within(containers).where(cls.is_deleted == False)  # noqa: E712  # SQL

    @classmethod
    def within(cls, containers: Iterable[tuple[str, str]]) -> Any:
        """Select the backups in *containers*, deleted ones included."""
        matches = [
            (cls.backend == backend) & (cls.backend_hash == digest)
            for backend, digest in containers
        ]
        is_within = functools.reduce(operator.or_, matches) if matches else False
        return cls.select().where(is_within)

    @classmethod
    def _newest_first(cls) -> tuple[Any, ...]:
        return cls.backup_date.desc(), cls.stored_filename.desc()


ORIGINAL_BACKUPS = Backups
"""The model of this module; a plugin may replace :class:`Backups` by a subclass of it."""


class Reservations(_Model):
    """The stored names of running backups, so that no two backups use the same name."""

    stored_filename = peewee.TextField(primary_key=True)
    reserved_at = peewee.IntegerField()
    needs = NamesField(default=())
    """The stored filenames of the backups that the running one needs, which must stay meanwhile."""

    class Meta:
        table_name = "reservations"


class Inventory(_Model):
    """Which Glacier archive holds which stored name."""

    archive_id = peewee.TextField(unique=True)
    filename = peewee.TextField(index=True, unique=True)

    class Meta:
        table_name = "inventory"


class Jobs(_Model):
    """The Glacier retrieval job of each stored name."""

    filename = peewee.TextField(index=True, unique=True)
    job_id = peewee.TextField(unique=True)

    class Meta:
        table_name = "jobs"


class Config(_Model):
    """Small values that are kept between runs."""

    key = peewee.TextField(index=True, unique=True)
    value = JsonField()

    class Meta:
        table_name = "config"


_TABLES: tuple[type[peewee.Model], ...] = (Backups, Reservations, Inventory, Jobs, Config)
"""The models that create the tables; never those of a plugin."""


def backend_hash(container: str) -> str:
    """Return the backend_hash that new rows have for a bucket, a vault or a directory."""
    return hashlib.sha512(os.fsencode(container)).hexdigest()


def legacy_backend_hash(access_key: str, container: str) -> str:
    """Return the backend_hash that rows of 0.6.0 have for a bucket or a vault."""
    return hashlib.sha512((access_key + container).encode()).hexdigest()


@contextlib.contextmanager
def catalog(
    location: str | os.PathLike[str] | DatabaseAddress,
    *,
    write: bool = False,
    patience: int | None = None,
) -> Iterator[None]:
    """Open the catalog at *location* for the block; create or upgrade it first where necessary.

    *location* is a path, or the address of a server. With *write*, the block is one transaction.
    Threads of one process take turns. A statement waits for other processes up to *patience*
    seconds, by default :data:`BUSY_TIMEOUT`. A catalog in a file that cannot be written, since its
    disk is full or the user may not, can still be read.

    Blocks may be nested. An inner block for the same catalog uses the connection of the outer one;
    its changes are undone when it fails, and kept only when the outer block keeps its own.

    An error of the catalog is raised as CatalogError; any other exception of the block stays what
    it is.
    """
    timeout = BUSY_TIMEOUT if patience is None else patience
    with opened(location_of(location), timeout, _prepare, write=write):
        yield


def changed(
    location: str | os.PathLike[str] | DatabaseAddress, change: Callable[[], Result]
) -> Result:
    """Return what *change* returns in a transaction, for a change that must not be lost.

    It waits up to :data:`RECORD_PATIENCE` seconds for other processes, and for a server that does
    not answer: then *change* is called again. Raises CatalogError.
    """
    until = time.monotonic() + RECORD_PATIENCE
    while True:
        try:
            with catalog(location, write=True, patience=RECORD_PATIENCE):
                return change()
        except CatalogError as exc:
            if not is_away(exc) or time.monotonic() > until:
                raise
            log.warning("%s; trying again for up to %d minutes", exc, RECORD_PATIENCE // 60)
            time.sleep(AWAY_PAUSE)


def schema_version() -> int:
    """Return the version of the open catalog's tables, which may be old where it is only read."""
    return int(current.schema_version())


def put(model: Any, **values: Any) -> None:
    """Add a row in the place of each one with the same value in a unique column.

    Call this within ``catalog(..., write=True)``.
    """
    same = [
        getattr(model, name) == value
        for name, value in values.items()
        if model._meta.fields[name].unique
    ]
    model.delete().where(functools.reduce(operator.or_, same)).execute()
    model.create(**values)


def record(row: Mapping[str, Any]) -> Backups:
    """Add a backup to the catalog and end the reservation of its name."""
    name = row["stored_filename"]
    Reservations.delete().where(Reservations.stored_filename == name).execute()
    values = {"is_deleted": False, **row, "last_updated": int(time.time())}
    # sync may have added the object between its upload and now, with less in the entry.
    found = Backups.get_or_none(Backups.stored_filename == name)
    if found is None:
        return Backups.create(**values)
    for column, value in values.items():
        setattr(found, column, value)
    found.save()
    return found


def check_may_write() -> None:
    """Fail where the tables may only be read; change nothing. A server says that of each table."""
    never = peewee.SQL("1 = 0")
    for table in _TABLES:
        fields = table._meta.sorted_fields
        table.insert_from(table.select(*fields).where(never), fields).execute()
        table.update({fields[-1]: fields[-1]}).where(never).execute()
        table.delete().where(never).execute()


def check_writable(backup: Backups) -> None:
    """Write the entry of *backup* unchanged, to fail before a deletion if that is impossible."""
    backup.save(only=["last_updated"])


def mark_deleted(backup: Backups, why: str) -> None:
    """Mark a backup as deleted, and keep why. A check may have recorded its result meanwhile."""
    current = Backups.get_or_none(Backups.stored_filename == backup.stored_filename) or backup
    backup.is_deleted, backup.last_updated = True, int(time.time())
    backup.metadata = with_deletion(current.metadata, backup.last_updated, why)
    backup.save(only=["is_deleted", "last_updated", *(["metadata"] * bool(backup.metadata))])


def add_metadata(backup: Backups, values: Mapping[str, Any]) -> None:
    """Add to the metadata of a recorded backup what another process may not know yet.

    Metadata that could not be read is empty and stays so, as others are told by that.
    """
    current = Backups.get_or_none(Backups.stored_filename == backup.stored_filename) or backup
    if current.metadata:
        backup.metadata = {**current.metadata, **values}
        backup.save(only=["metadata"])


def drop_metadata(backup: Backups, key: str) -> None:
    """Remove *key* from the metadata of a recorded backup."""
    current = Backups.get_or_none(Backups.stored_filename == backup.stored_filename) or backup
    backup.metadata = {name: value for name, value in current.metadata.items() if name != key}
    backup.save(only=["metadata"])


def _prepare(database: CatalogDatabase) -> None:
    """Refuse a newer catalog; create or upgrade the tables of one that can be written."""
    version = database.schema_version()
    if version > SCHEMA_VERSION:
        raise CatalogError(
            f"the catalog {database.location} was written by a newer bakthat (schema {version}, "
            f"this one knows {SCHEMA_VERSION})",
            hint="upgrade bakthat, or name another catalog as database in the profile",
        )
    if version < SCHEMA_VERSION and not database.is_read_only:
        database.upgrade(_TABLES, SCHEMA_VERSION)
