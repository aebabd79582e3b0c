"""The catalog: which backups exist, in a SQLite database that users may query themselves.

The tables are those of bakthat 0.6.0, so an existing catalog opens without conversion; this version
adds the table ``reservations`` and an index. The catalog is a cache of what the storages hold.

Every access goes through :func:`catalog`, which opens the database for the duration of a block. The
model classes are looked up in this module when they are needed, so a plugin may replace them.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import operator
import os
import re
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import peewee

from bakthat.columns import JsonField, NamesField, json_value
from bakthat.database import CatalogDatabase, opened, run_sql, use_log
from bakthat.database import is_full as is_full
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
from bakthat.system.paths import expanded

SCHEMA_VERSION = 2
"""The user_version of the SQLite database; 0.6.0 left it at 0, and 1 had no needs of reservations.
An earlier bakthat refuses a later one: it would delete what running backups need."""

BUSY_TIMEOUT = 60
"""Seconds that a statement waits for other processes' transactions. SQLite does not queue them: of
twenty jobs that start in the same minute on a slow disk, some wait 8 seconds several times."""

RECORD_PATIENCE = 300
"""Seconds to wait for a locked catalog after an upload, which may have taken hours."""

RESERVATION_SECONDS = 7 * 24 * 3600
"""The age at which a reservation is removed, since its process must have died."""

_PLAIN_HOST = re.compile(r"[A-Za-z0-9._-]+")
"""Hosts that every JSON encoder writes without escapes."""

_lock = threading.RLock()
_database = peewee.DatabaseProxy()
"""The database of the innermost block of :func:`catalog`; only the thread with the lock uses it."""


def _table_name(_model: type[peewee.Model]) -> str:
    """Return the table's name, whatever the name of a plugin's subclass is."""
    return "backups"


class NeededDeletedError(CatalogError):
    """A backup that an increment needs was deleted before the increment could pin it."""


class _Model(peewee.Model):
    class Meta:
        database = _database


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
            # The catalog may have one name of hundreds of hosts, and SQLite filters faster.
            rows = rows.where(peewee.fn.INSTR(cls.metadata, host) > 0)
        return [row for row in rows if host is None or row.host == host]

    @classmethod
    def increments(cls, containers: Iterable[tuple[str, str]], name: str = "") -> list[Self]:
        """Return the increments of every host, of the sets called *name* or by default of all."""
        rows = cls.not_deleted(containers)
        rows = rows.where(peewee.fn.INSTR(cls.stored_filename, INCREMENT_EXTENSION) > 0)
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
                (peewee.fn.INSTR(cls.stored_filename, query) > 0)
                | (peewee.fn.INSTR(cls.filename, query) > 0)
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
    path: str | os.PathLike[str], *, write: bool = False, patience: int | None = None
) -> Iterator[None]:
    """Open the catalog at *path* for the block; create or upgrade it first where necessary.

    With *write*, the block is one transaction. Threads of one process take turns. A statement waits
    for other processes up to *patience* seconds, by default :data:`BUSY_TIMEOUT`. A catalog that
    cannot be written, since its disk is full or the user may not, can still be read.

    Blocks may be nested. An inner block for the same catalog uses the connection of the outer one;
    its changes are undone when it fails, and kept only when the outer block keeps its own.

    An error of the catalog is raised as CatalogError; any other exception of the block stays what
    it is.
    """
    file = expanded(path)
    timeout = BUSY_TIMEOUT if patience is None else patience
    with _lock, contextlib.ExitStack() as stack:
        if not _is_open(file, write=write):
            database = stack.enter_context(opened(file, timeout, _prepare, write=write))
            stack.callback(_database.initialize, _database.obj)
            _database.initialize(database)
        if write:
            stack.enter_context(_database.atomic("IMMEDIATE"))
        yield


def _is_open(file: Path, *, write: bool) -> bool:
    """Return whether an outer block of this thread has the catalog open, and open to write it."""
    database: CatalogDatabase | None = _database.obj
    if database is None or (write and database.is_read_only):
        return False
    return os.path.realpath(database.file) == os.path.realpath(file)


def reserve(names: Iterable[tuple[str, int]], needs: Collection[str] = ()) -> tuple[str, int]:
    """Reserve the first of *names* that no backup has or has reserved, and return it.

    *names* are pairs of stored name and date (epoch seconds, UTC). *needs* are the stored filenames
    of the backups that the new one needs: while the name is reserved, nobody with this catalog
    deletes them. Call this within ``catalog(..., write=True)``; :func:`record` or :func:`release`
    ends the reservation. Raises NeededDeletedError when one of *needs* was deleted before that.
    """
    now = int(time.time())
    Reservations.delete().where(reserved_long_ago(now, RESERVATION_SECONDS)).execute()
    gone = Backups.select().where(Backups.stored_filename.in_(list(needs)), Backups.is_deleted)
    for each in gone if needs else ():
        raise NeededDeletedError(
            f"{each.stored_filename}, which the backup would need, was deleted meanwhile",
            hint="run it again",
        )
    for name, date in names:
        exists = Backups.select().where(Backups.stored_filename == name).exists()
        if not exists and not Reservations.select().where(Reservations.stored_filename == name):
            Reservations.create(stored_filename=name, reserved_at=now, needs=needs)
            return name, date
    raise AssertionError("the names of a backup never end")


def pinned() -> set[str]:
    """Return the stored filenames that running backups need, which must not be deleted.

    They are those of the reservations that have not expired.
    """
    if _database.pragma("user_version") < SCHEMA_VERSION:  # it can only be read
        return set()
    old = reserved_long_ago(int(time.time()), RESERVATION_SECONDS)
    rows = Reservations.select(Reservations.needs).where(~old)
    return {name for row in rows for name in row.needs}


def keep_reserved(name: str) -> None:
    """Renew the reservation of a name, whose backup is still running."""
    Reservations.update(reserved_at=int(time.time())).where(
        Reservations.stored_filename == name
    ).execute()


def reserved_long_ago(now: int, seconds: int) -> Any:
    """Return the condition that selects reservations older than *seconds* at *now*.

    It also selects reservations that are as far in the future, since a clock was wrong.
    """
    return (Reservations.reserved_at < now - seconds) | (Reservations.reserved_at > now + seconds)


def release(name: str) -> None:
    """End the reservation of a name."""
    Reservations.delete().where(Reservations.stored_filename == name).execute()


def record(row: Mapping[str, Any]) -> Backups:
    """Add a backup to the catalog and end the reservation of its name."""
    release(row["stored_filename"])
    values = {"is_deleted": False, **row, "last_updated": int(time.time())}
    # sync may have added the object between its upload and now, with less in the entry.
    found = Backups.get_or_none(Backups.stored_filename == row["stored_filename"])
    if found is None:
        return Backups.create(**values)
    for column, value in values.items():
        setattr(found, column, value)
    found.save()
    return found


def check_writable(backup: Backups) -> None:
    """Write the entry of *backup* unchanged, to fail before a deletion if that is impossible."""
    backup.save(only=["last_updated"])


def mark_deleted(backup: Backups, why: str) -> None:
    """Mark a backup as deleted, and keep why. A check may have recorded its result meanwhile."""
    current = Backups.get_or_none(Backups.stored_filename == backup.stored_filename) or backup
    backup.is_deleted, backup.last_updated = True, int(time.time())
    backup.metadata = with_deletion(current.metadata, backup.last_updated, why)
    backup.save(only=["is_deleted", "last_updated", *(["metadata"] * bool(backup.metadata))])


def _prepare(database: CatalogDatabase) -> None:
    """Refuse a newer catalog; create or upgrade the tables of one that can be written."""
    version = int(database.pragma("user_version"))
    if version > SCHEMA_VERSION:
        raise CatalogError(
            f"the catalog {database.file} was written by a newer bakthat (schema {version}, "
            f"this one knows {SCHEMA_VERSION})",
            hint="upgrade bakthat, or name another catalog as database in the profile",
        )
    if database.is_read_only:
        return
    run_sql(database, "PRAGMA synchronous = full")
    if version == SCHEMA_VERSION:
        return
    use_log(database, BUSY_TIMEOUT)
    with database.atomic("IMMEDIATE"):
        if database.pragma("user_version") < SCHEMA_VERSION:  # no other process did it meanwhile
            _migrate(database)


def _migrate(database: CatalogDatabase) -> None:
    with database.bind_ctx(_TABLES, bind_refs=False, bind_backrefs=False):
        for table in _TABLES:
            table.create_table(safe=True)
    # A table of schema 1 lacks the column.
    if "needs" not in {column.name for column in database.get_columns("reservations")}:
        run_sql(database, "ALTER TABLE reservations ADD COLUMN needs TEXT NOT NULL DEFAULT '[]'")
    run_sql(
        database,
        "CREATE INDEX IF NOT EXISTS backups_of_set "
        "ON backups (filename, backend, backend_hash, is_deleted, backup_date)",
    )
    run_sql(database, f"PRAGMA user_version = {SCHEMA_VERSION}")
