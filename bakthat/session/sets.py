"""Backup sets: which backups belong together, in which order, and how messages name them.

A set is the backups of one container, one host, one name and one source, the path that was backed
up. A backup that was given a name (``--name``) belongs to the set without a source: there the name
says what belongs together. Entries of bakthat 0.6.0 do not say what their source was.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from bakthat import models
from bakthat.format.description import NAMED, is_source_id, source_id
from bakthat.policy.newest import newest_key
from bakthat.system.paths import PathLike, expanded
from bakthat.system.text import enumerate_some, printable, to_native

NO_SOURCE = "none"
"""The word by which a command selects the set without a source. An empty value is refused there,
since it may be that of a variable which is not set. A path of that name is ``./none``."""


@dataclass(frozen=True, slots=True)
class BackupSet:
    """The backups of one set, or those of them that were searched for."""

    name: str
    host: str
    """"" when it is not known."""
    backend: str
    is_value: bool
    """Whether it is a value of KeyValue, which is a set of its own."""
    source_id: str
    """"" for the set without a source."""
    fits_any_source: bool
    """Whether the source of no backup of this name is known."""
    backups: tuple[models.Backups, ...]
    """The newest first."""

    @property
    def source(self) -> str:
        """The path of its source on its host; "" when the catalog does not know it."""
        return next(
            (each.source for each in self.backups if id_of_source(each) and each.source), ""
        )

    def fits(self, source: str | None) -> bool:
        """Return whether this is the set that *source*, of :func:`parse_source`, selects."""
        return source is None or source == self.source_id or self.fits_any_source

    def only(self, stored_filenames: Collection[str]) -> Self:
        """Return the set with these backups alone."""
        chosen = (each for each in self.backups if each.stored_filename in stored_filenames)
        return replace(self, backups=tuple(chosen))

    def describe(self) -> str:
        """Return the name, host and container for a message."""
        return (
            f"{'the key ' if self.is_value else ''}{printable(self.name)} of "
            f"{printable(self.host) or 'an unknown host'} on {self.backend}"
        )

    def describe_source(self) -> str:
        """Return the source for a message, so that ``--source`` can name it."""
        newest = printable(self.backups[0].stored_filename)
        if not self.source_id:
            return f"without a source (--source {NO_SOURCE}, newest {newest})"
        if self.source:
            return f"from {printable(self.source)}"
        return f"from the source {self.source_id} (newest {newest})"


def divide(backups: Iterable[models.Backups]) -> list[BackupSet]:
    """Divide all backups of some names into sets.

    A backup of an unknown source belongs to the only source of its name. Where the name has
    several, or was given, it belongs to the set without a source: it must not be deleted for the
    sake of a backup of something else.
    """
    groups: defaultdict[tuple[str, str, str, bool], list[models.Backups]] = defaultdict(list)
    for each in newest_first(backups):
        groups[each.filename, each.host, each.backend, each.is_key_value].append(each)
    sets = []
    for key, members in sorted(groups.items()):
        known = {id_of_source(each) for each in members} - {""}
        only = "".join(known) if len(known) == 1 else ""
        of_source: defaultdict[str, list[models.Backups]] = defaultdict(list)
        for each in members:
            own = id_of_source(each) or only
            of_source["" if own == NAMED else own].append(each)
        sets += [
            BackupSet(*key, source, not known, tuple(of_source[source]))
            for source in sorted(of_source)
        ]
    return sets


def id_of_source(backup: models.Backups) -> str:
    """Return the id of a backup's source, :data:`NAMED`, or "" when its source is not known.

    An entry from before there were ids has the path. Its base name is the name of the set, unless
    the backup was given a name.
    """
    if backup.source_id or not backup.source:
        return backup.source_id
    is_named = os.path.basename(backup.source) != backup.filename
    return NAMED if is_named else source_id(to_native(backup.source))


def newest_first(backups: Iterable[models.Backups]) -> list[models.Backups]:
    """Return *backups* in their order for every command, the newest first.

    One dated in the future comes last (:mod:`bakthat.policy.newest`).
    """
    now = time.time()
    return sorted(
        backups,
        key=lambda each: (newest_key(each.date, now), each.stored_filename),
        reverse=True,
    )


def parse_source(source: PathLike | None) -> str | None:
    """Return the id that *source* selects, "" for the set without a source; None for None.

    *source* is a path on this or another host, the URL of a database, an id of 16 hexadecimal
    digits, or :data:`NO_SOURCE` or "" for the set without a source.
    """
    if source is None:
        return None
    text = os.fspath(source)
    if text in ("", NO_SOURCE):
        return ""
    if is_source_id(text):
        return text
    # A database's source is its URL.
    return source_id(text if isinstance(text, str) and "://" in text else expanded(text))


def describe_sets(sets: Sequence[BackupSet]) -> str:
    """Return *sets* as a list for a message; sources are named only where they tell sets apart."""
    places = [each.describe() for each in sets]
    return enumerate_some(
        [
            f"{place} {each.describe_source()}" if places.count(place) > 1 else place
            for place, each in zip(places, sets, strict=True)
        ]
    )
