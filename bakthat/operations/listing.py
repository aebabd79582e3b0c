"""List the backups in the catalog."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bakthat import models
from bakthat.conf import DEFAULT_PROFILE
from bakthat.format.description import join_tags
from bakthat.session.chains import is_needed_by, may_be_of_one_set
from bakthat.session.container import recognize_moved
from bakthat.session.locks.holds import hold_of
from bakthat.session.locks.retention import known_lock
from bakthat.session.session import Session
from bakthat.session.sets import divide, newest_first
from bakthat.system import terminal, text
from bakthat.system.paths import PathLike


def ls(
    query: str = "",
    destination: str | None = "",
    tags: str | Sequence[str] = "",
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
) -> list[models.Backups]:
    """Return the backups of the profile's containers that the catalog lists, the newest first.

    *query* is any part of a set's name or of a stored filename. *destination* restricts the list to
    one container, *tags* to backups with at least one of the tags, and *host* to one host. A backup
    dated in the future comes last.
    """
    session = Session(profile, config, conf, destination)
    named = [session.named_destination] if session.named_destination else []
    recognize_moved(session)
    with models.catalog(session.catalog):
        if not text.is_queryable(query):
            return []  # no name has such bytes, and SQLite refuses the query
        found = models.Backups.search(query, session.containers(*named), join_tags(tags).split())
    return newest_first(each for each in found if host is None or each.host == host)


@dataclass(frozen=True, slots=True)
class Relations:
    """What a listed backup needs besides itself, what needs it, and what its deletion frees."""

    needs: tuple[str, ...]
    """Stored filenames, the full first; of one that is not listed, its date as in such a name."""
    needed_by: tuple[str, ...]
    """Stored filenames, the newest first."""
    frees: int
    """Bytes; 0 while others need it, and -1 where its size is not known."""
    held_by: tuple[str, ...] = ()
    """Those of :attr:`needed_by` that are on hold, so that it is too."""

    def as_dict(self, backup: models.Backups) -> dict[str, Any]:
        """Return the fields as plain values, and whether *backup*, whose they are, is one."""
        return {
            "increment": backup.is_increment,
            "needs": list(self.needs),
            "needed_by": list(self.needed_by),
            "frees": self.frees,
            "held_by": list(self.held_by),
        }


def relations(
    backups: Sequence[models.Backups],
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
) -> list[Relations]:
    """Return for each of *backups*, as :func:`ls` returns them, which others it belongs to.

    These are looked for among all that the catalog lists.
    """
    session = Session(profile, config, conf)
    with models.catalog(session.catalog):
        increments = models.Backups.increments(session.containers())
        # What they need is of the same names.
        names = {each.filename for each in backups if each.is_increment}
        of_names = [
            each for name in names for each in models.Backups.of_set(name, session.containers())
        ]
    dependents: defaultdict[_Place, list[models.Backups]] = defaultdict(list)
    for each in increments:
        for date in each.needs or (None,):  # None: it may need any
            dependents[each.filename, each.backend, date].append(each)
    needed: defaultdict[_Place, list[models.Backups]] = defaultdict(list)
    for each in of_names:
        needed[each.filename, each.backend, each.date].append(each)
    return [_relations(each, dependents, needed) for each in backups]


_Place = tuple[str, str, int | None]
"""The name, the backend and the date of a backup."""


def _relations(
    backup: models.Backups,
    dependents: Mapping[_Place, list[models.Backups]],
    needed: Mapping[_Place, list[models.Backups]],
) -> Relations:
    name, backend = backup.filename, backup.backend
    needing = {
        each.stored_filename: each
        for date in (backup.date, None)
        for each in dependents.get((name, backend, date), ())
        if may_be_of_one_set(backup, each) and is_needed_by(backup, each)
    }
    needs = []
    for date in backup.needs:
        found = needed.get((name, backend, date), ())
        names = [each.stored_filename for each in found if may_be_of_one_set(backup, each)]
        needs += names or [time.strftime("%Y%m%d%H%M%S", time.gmtime(date))]
    by_date = sorted(needing, key=lambda each: (needing[each].date, each), reverse=True)
    held_by = tuple(each for each in by_date if hold_of(needing[each]) is not None)
    return Relations(tuple(needs), tuple(by_date), 0 if needing else backup.size, held_by)


def show(
    query: str = "",
    destination: str | None = "",
    tags: str | Sequence[str] = "",
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
) -> None:
    """Print what :func:`ls` returns, as a table on standard output.

    The table has a column with the sources when a name has several, one with the locks when one
    is locked, and one with notes when a backup is on hold, is incomplete or has a suspicious size.
    When an increment is among them, it has columns
    with the kind of each, how many archives a restore of it needs besides it, and what its deletion
    would free.
    """
    found = ls(query, destination, tags, profile, config, conf=conf, host=host)
    has_increments = any(each.is_increment for each in found)
    related = relations(found, profile, config, conf=conf) if has_increments else ()
    sets = divide(found)
    notes = [
        _note_of(each, related[number].held_by if related else ())
        for number, each in enumerate(found)
    ]
    locks = [_lock_of(each) for each in found]
    has_notes, has_locks = any(notes), any(locks)
    has_sources = len({(each.name, each.host, each.backend) for each in sets}) < len(sets)
    rows = [
        (
            text.shown_time(each.date),
            each.backend,
            each.host,
            text.human_size(each.size),
            *(_needs_of(each, related[number]) if related else ()),
            *((locks[number],) if has_locks else ()),
            *((notes[number],) if has_notes else ()),
            each.stored_filename,
            *((each.set_source,) if has_sources else ()),
            each.tags,
        )
        for number, each in enumerate(found)
    ]
    needs = ("KIND", "NEEDS", "FREES") if related else ()
    lock = ("LOCKED UNTIL",) if has_locks else ()
    note = ("NOTE",) if has_notes else ()
    source = ("SOURCE",) if has_sources else ()
    header = (
        f"DATE ({text.shown_zone()})",
        "WHERE",
        "HOST",
        "SIZE",
        *needs,
        *lock,
        *note,
        "NAME",
        *source,
        "TAGS",
    )
    terminal.print_table(header, rows, right=frozenset({3, 5} if related else {3}))


def _note_of(backup: models.Backups, held_by: Sequence[str]) -> str:
    """Return why *backup* may not be what is wanted back, and why it stays; "" for nothing."""
    # One of its warnings is about the suspicious size.
    is_incomplete = backup.warning_count > backup.is_suspicious
    hold = hold_of(backup)
    notes = {
        "suspicious size": backup.is_suspicious,
        "incomplete": is_incomplete,
        str(hold): hold is not None,
        f"on hold: {text.enumerate_some(held_by, most=1)} needs it": hold is None and held_by,
    }
    return ", ".join(note for note, is_true in notes.items() if is_true)


def _lock_of(backup: models.Backups) -> str:
    """Return until when *backup* is locked, as far as the catalog knows, and how; "" for not."""
    lock = known_lock(backup)
    if lock.until is None or not lock.holds_at(time.time()):
        return ""
    return f"{text.shown_minute(lock.until)} {lock.mode}".rstrip()


def _needs_of(backup: models.Backups, related: Relations) -> tuple[str, str, str]:
    """Return the cells of a backup's kind, of what it needs, and of what its deletion frees."""
    if backup.is_key_value:
        return "value", "", text.human_size(backup.size)
    if not backup.is_increment:
        kind, count = "full", "0"
    else:  # its description may be lost
        kind, count = "increment", str(len(backup.needs) or "?")
    frees = text.human_size(related.frees)
    if related.needed_by:
        others = len(related.needed_by)
        frees += f" ({others} need{'s' if others == 1 else ''} it)"
    return kind, count, frees
