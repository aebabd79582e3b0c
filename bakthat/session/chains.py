"""Which backups need which others: an increment is applied to the state of an earlier backup."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from bakthat import models
from bakthat.backends.base import Backend, StoredObject
from bakthat.errors import CorruptArchiveError, NotFoundError, UsageError
from bakthat.format.index.layout import NeededArchive
from bakthat.format.names import parse_stored_name, stored_name
from bakthat.session.entries import entry_of
from bakthat.session.session import Session
from bakthat.session.sets import BackupSet, id_of_source
from bakthat.session.stat import beginning_of, stat_or_listed, workers
from bakthat.system.text import printable, utc_time


def of_one_set(session: Session, backup: models.Backups) -> list[models.Backups]:
    """Return the backups of the set of *backup*, itself included if it is listed, oldest first.

    One whose host or source is not known may belong to any set of that name, so it is among them:
    what it needs is pinned rather than lost.
    """
    with models.catalog(session.catalog):
        found = models.Backups.of_set(backup.filename, session.containers(backup.backend))
    return [each for each in reversed(found) if may_be_of_one_set(backup, each)]


def increments_beside(session: Session, found: BackupSet) -> list[models.Backups]:
    """Return the listed increments that are not in the set *found*, and may be of it all the same.

    Their host or source is not known, or that of some backup of the set.
    """
    known = {each.stored_filename for each in found.backups}
    with models.catalog(session.catalog):
        others = models.Backups.increments(session.containers(found.backend), found.name)
    return [
        each
        for each in others
        if each.stored_filename not in known
        and any(may_be_of_one_set(each, member) for member in found.backups)
    ]


def may_be_of_one_set(one: models.Backups, other: models.Backups) -> bool:
    """Return whether two backups of one name and one container may be of one set.

    A host or a source that is not known may be any.
    """
    return (
        not (one.is_key_value or other.is_key_value)
        and _may_equal(one.host, other.host)
        and _may_equal(id_of_source(one), id_of_source(other))
    )


def _may_equal(one: str, other: str) -> bool:
    return one == other or not (one and other)


def is_needed_by(backup: models.Backups, other: models.Backups) -> bool:
    """Return whether *other*, a backup of the same set, needs *backup*.

    An increment whose description was lost may need all that are older.
    """
    if not other.is_increment or backup.date >= other.date:
        return False
    return not other.needs or backup.date in other.needs


class NeededKeys:
    """The keys of the archives that *increments*, all of one container, need.

    That is told by the dates and the names alone, so a key of another set of the same name may be
    among them. It takes one look at each increment, however many keys are asked for.
    """

    def __init__(self, increments: Iterable[models.Backups]) -> None:
        self._dates: defaultdict[str, set[int]] = defaultdict(set)
        self._before: dict[str, int] = {}
        """An increment whose description was lost may need all that are older."""
        for each in increments:
            beginning = beginning_of(each.stored_filename)
            self._dates[beginning].update(each.needs)
            if not each.needs:
                self._before[beginning] = max(each.date, self._before.get(beginning, 0))

    def __contains__(self, key: str) -> bool:
        parsed = parse_stored_name(key.rpartition("/")[2])
        if parsed is None:
            return False
        date, beginning = parsed.backup_date, beginning_of(key)
        return date in self._dates.get(beginning, ()) or date < self._before.get(beginning, 0)


def needs_within(backup: models.Backups, backups: Iterable[models.Backups]) -> list[models.Backups]:
    """Return which of *backups*, those of its set, a backup needs, the oldest first; not itself.

    Of an increment whose description was lost, these are all that are older.
    """
    needed = [each for each in backups if is_needed_by(each, backup)]
    return sorted(needed, key=lambda each: (each.date, each.stored_filename))


def dependents_within(
    chosen: Collection[models.Backups], backups: Collection[models.Backups]
) -> list[models.Backups]:
    """Return which of *backups*, those of one set, need one of *chosen*; the newest first.

    Those that need one of these are returned too.
    """
    names = {each.stored_filename for each in chosen}
    dates = {each.date for each in chosen}
    oldest = min(dates, default=math.inf)
    found = []
    for each in sorted(backups, key=lambda each: (each.date, each.stored_filename)):
        if each.stored_filename in names or not each.is_increment:
            continue
        if not dates.isdisjoint(each.needs) if each.needs else oldest < each.date:
            found.append(each)
            dates.add(each.date)
    return found[::-1]


def dependents_first(backups: Iterable[models.Backups]) -> list[list[models.Backups]]:
    """Divide backups of one set to delete into groups, in the order of their deletion.

    Nothing in a group is needed by anything of the same or a later group. Fulls that nothing needs
    are in the first one. Each group has the oldest first.
    """
    groups: defaultdict[int, list[models.Backups]] = defaultdict(list)
    after: defaultdict[int, int] = defaultdict(int)
    """The number of the first group that a backup of a date may be in."""
    after_all = 0
    newest_first = sorted(backups, key=lambda each: (each.date, each.is_increment), reverse=True)
    for each in newest_first:
        group = max(after[each.date], after_all)
        groups[group].append(each)
        for date in each.needs:
            after[date] = max(after[date], group + 1)
        if each.is_increment and not each.needs:
            after_all = group + 1
    return [groups[number][::-1] for number in sorted(groups)]


def check_formats(backups: Iterable[models.Backups]) -> None:
    """Raise UsageError when a later bakthat stored one of *backups*: it may need any other."""
    for each in backups:
        if each.has_unknown_format:
            raise unknown_format_error(each.stored_filename)


def unknown_format_error(name: str) -> UsageError:
    """Return the error for a deletion that what a later bakthat stored forbids."""
    return UsageError(
        f"nothing is deleted of the set of {printable(name)}: it has a format that this version of "
        "bakthat does not know, so it may need any of them",
        hint="upgrade bakthat",
    )


def needed_backup(
    session: Session, backup: models.Backups, needed: NeededArchive
) -> models.Backups:
    """Return the entry of an archive that *backup* needs, from the catalog or the storage.

    Raises NotFoundError when it is not there, and CorruptArchiveError when it is another one.
    """
    with models.catalog(session.catalog):
        found = models.Backups.get_or_none(
            (models.Backups.stored_filename == needed.key) & (models.Backups.is_deleted == False)  # noqa: E712  # SQL
        )
    if found is None or found.backend_hash != backup.backend_hash:
        found = _stored(session.backend(backup.backend), backup, needed)
    check_needed(backup, needed, size=found.size, archive_id=found.archive_id)
    return found


def needed_backups(session: Session, backup: models.Backups) -> list[models.Backups]:
    """Return the entries of the archives that *backup* needs by its description, the full first.

    They come from the catalog or the storage, where only their dates are known. Raises
    NotFoundError for one that is missing, and CorruptArchiveError where the description of *backup*
    was lost, or where several archives have a date.
    """
    name = printable(backup.stored_filename)
    if backup.is_increment and not backup.needs:
        raise CorruptArchiveError(
            f"it is not known what {name} needs, since its description was lost",
            hint="restore it by hand with tar, after all older backups of its set",
        )
    listed = of_one_set(session, backup) if backup.needs else []
    found = []
    for number, date in enumerate(backup.needs):
        fitting = [
            each for each in listed if each.date == date and each.is_increment == (number > 0)
        ] or _stored_at(session, backup, date)
        if not fitting:
            raise missing_needed_error(backup, f"the backup of {utc_time(date)} UTC")
        if len(fitting) > 1:
            raise CorruptArchiveError(
                f"{name} needs one of several archives of {utc_time(date)} UTC",
                hint="restore it by hand with tar: bakthat show --by-hand prints how",
            )
        found += fitting
    return found


def all_needed(session: Session, backup: models.Backups) -> tuple[list[models.Backups], list[int]]:
    """Return every stored backup that *backup* may need, and the dates of those that are missing.

    The backups come from the catalog or the storage, the oldest first; the dates are in epoch
    seconds UTC. Of an increment whose description was lost, these are all that are older. Raises
    StorageError.
    """
    if not backup.is_increment:
        return [], []
    found = needs_within(backup, of_one_set(session, backup))
    unlisted = sorted(set(backup.needs) - {each.date for each in found})
    stored = {date: _stored_at(session, backup, date) for date in unlisted}
    found += [each for of_date in stored.values() for each in of_date]
    missing = [date for date, of_date in stored.items() if not of_date]
    return sorted(found, key=lambda each: (each.date, each.stored_filename)), missing


def _stored_at(session: Session, backup: models.Backups, date: int) -> list[models.Backups]:
    """Return the entries of the stored archives of the set of *backup* that have this date."""
    backend = session.backend(backup.backend)
    beginning = beginning_of(backup.stored_filename)
    found = []
    for each in backend.ls(stored_name(beginning, date, "", encrypted=False)):
        parsed = parse_stored_name(each.key.rpartition("/")[2])
        if parsed is not None and beginning_of(each.key) == beginning:
            found.append(entry_of(backend, backend.stat(each.key), parsed))
    return [each for each in found if may_be_of_one_set(backup, each)]


def check_needed(
    backup: models.Backups, needed: NeededArchive, *, size: int, archive_id: str
) -> None:
    """Raise CorruptArchiveError unless what is stored is the archive that *backup* needs.

    *size* is -1 and *archive_id* "" where they are not known.
    """
    what = _difference(needed, size=size, archive_id=archive_id)
    if what:
        raise CorruptArchiveError(
            f"{printable(backup.stored_filename)} needs {printable(needed.key)}, which {what}",
            hint="restore an older backup; bakthat check shows which can be restored",
        )


def _difference(needed: NeededArchive, *, size: int, archive_id: str) -> str:
    """Return in what an archive differs from the one that is *needed*; "" for nothing."""
    if size not in (needed.size, -1):
        return f"has {size} bytes, and had {needed.size}"
    if archive_id not in (needed.archive_id, "") and needed.archive_id:
        return "is another archive than it was"
    return ""


def missing_needed_error(backup: models.Backups, missing: str) -> NotFoundError:
    """Return the error for an archive that a backup needs and that is not stored any more."""
    return NotFoundError(
        f"{printable(backup.stored_filename)} needs {printable(missing)}, "
        "which is not stored any more",
        hint="another program or a rule of the bucket deleted it; "
        "bakthat check shows which backups can be restored",
    )


class NeededObject(NamedTuple):
    """An archive that an increment needs, as it is stored now."""

    backup: models.Backups
    """Its entry; one that was made up where nothing has one any more."""
    storage_class: str = ""
    problem: str = ""
    """What is wrong with it, as "is not stored any more"; "" for nothing."""
    is_missing: bool = False
    """Whether nothing is stored under its key."""


def look_up_needed(
    session: Session, backup: models.Backups, needs: Sequence[NeededArchive]
) -> list[NeededObject]:
    """Look up the archives that *backup* needs on the storage, several at once.

    Raises StorageError; what is missing or was replaced is only described.
    """
    backend = session.backend(backup.backend)

    def stat(needed: NeededArchive) -> StoredObject | None:
        try:
            # Without the right to read, the name and the size have to do.
            return stat_or_listed(backend, needed.key)
        except (NotFoundError, UsageError):  # or it can be no key of this storage
            return None

    with workers() as pool:
        stored = list(pool.map(stat, needs))
    keys = [each.key for each in needs]
    with models.catalog(session.catalog):
        rows = {
            row.stored_filename: row
            for row in models.Backups.select().where(models.Backups.stored_filename.in_(keys))
            if row.backend_hash == backup.backend_hash
        }
    return [
        _needed_object(backend, backup, needed, found, rows.get(needed.key))
        for needed, found in zip(needs, stored, strict=True)
    ]


def _needed_object(
    backend: Backend,
    backup: models.Backups,
    needed: NeededArchive,
    stored: StoredObject | None,
    row: models.Backups | None,
) -> NeededObject:
    parsed = parse_stored_name(needed.key.rpartition("/")[2])
    if stored is None or parsed is None:
        entry = row or _lost(backup, needed)
        return NeededObject(entry, problem="is not stored any more", is_missing=True)
    found = entry_of(backend, stored, parsed)
    problem = _difference(needed, size=stored.size, archive_id=found.archive_id)
    return NeededObject(row or found, stored.storage_class, problem)


def _lost(backup: models.Backups, needed: NeededArchive) -> models.Backups:
    """Return an unsaved entry for an archive of which only what needs it is known."""
    known = ("format", "host", "client", "source_id", "encryption", "is_enc")
    return models.Backups(
        backend=backup.backend,
        backend_hash=backup.backend_hash,
        backup_date=needed.date,
        filename=backup.filename,
        metadata={key: backup.metadata[key] for key in known if key in backup.metadata},
        size=needed.size,
        stored_filename=needed.key,
        tags="",
        last_updated=0,
    )


def _stored(backend: Backend, backup: models.Backups, needed: NeededArchive) -> models.Backups:
    parsed = parse_stored_name(needed.key.rpartition("/")[2])
    if parsed is None:
        raise missing_needed_error(backup, needed.key)
    try:
        return entry_of(backend, backend.stat(needed.key), parsed)
    except (NotFoundError, UsageError) as exc:  # or it can be no key of this storage
        raise missing_needed_error(backup, needed.key) from exc
