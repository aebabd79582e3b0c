"""The findings of sync, and its changes to the catalog."""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass, field
from typing import Any

from bakthat import models
from bakthat.system.text import printable

log = logging.getLogger("bakthat")


class Action(enum.StrEnum):
    """How sync changes an entry of the catalog."""

    ADOPTED = "adopted"
    """It is stored, and was not listed."""
    REVIVED = "revived"
    """It is stored, and was marked as deleted."""
    UPDATED = "updated"
    """It differs from its entry."""
    GONE = "gone"
    """It is listed, and is not stored any more."""
    NAME_TAKEN = "name taken"
    """It is stored and not listed: the catalog has its name in another container."""


@dataclass(frozen=True, slots=True)
class Change:
    """An entry of the catalog and how sync changes it."""

    action: Action
    backup: models.Backups

    @property
    def what(self) -> str:
        """What is done, for people."""
        return self.action.value

    def as_dict(self) -> dict[str, Any]:
        """Return the entry's columns and the action."""
        return {"part": "catalog", "action": self.action.value, **self.backup.as_dict()}


class IndexAction(enum.StrEnum):
    """What sync finds out about the index of a backup, and does."""

    GOOD = "good"
    """It is stored, and was read to its end."""
    MADE = "made"
    """It was missing, and was made by reading the backup."""
    REPLACED = "replaced"
    """It was damaged, and was made again by reading the backup."""
    COLD = "cold"
    """It is missing or damaged, and the backup is in cold storage."""
    FAILED = "failed"
    """It is missing or damaged, and the backup could not be read."""


@dataclass(frozen=True, slots=True)
class IndexChange:
    """A backup and what was done about its index."""

    action: IndexAction
    backup: models.Backups
    detail: str = ""
    """One line about the problem."""

    @property
    def what(self) -> str:
        """What is done, for people."""
        return f"index {self.action.value}"

    def as_dict(self) -> dict[str, Any]:
        """Return the entry's columns, the action and the problem."""
        return {
            "part": "index",
            "action": self.action.value,
            "detail": self.detail,
            **self.backup.as_dict(),
        }


@dataclass(slots=True)
class ContainerSync:
    """The findings in one container."""

    backend: str
    container: str
    changes: list[Change] = field(default_factory=list)
    unchanged: int = 0
    foreign: int = 0
    """The number of objects that are not bakthat's or have another prefix. sync ignores them."""
    unread: int = 0
    """The number of objects of which only name and size are known, as they may not be read."""
    elsewhere: set[str] = field(default_factory=set)
    """The containers in which the catalog lists objects of this one; "" for an unknown one."""
    is_pending: bool = False
    """The vault has not made its list yet; nothing was compared."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {
            "backend": self.backend,
            "container": self.container,
            "changed": len(self.changes),
            "unchanged": self.unchanged,
            "foreign": self.foreign,
            "unread": self.unread,
            "pending": self.is_pending,
        }

    def counts(self) -> str:
        """Return the container and its numbers of changes, for people."""
        counts = dict.fromkeys(Action, 0)
        for change in self.changes:
            counts[change.action] += 1
        parts = [f"{counts[each]} {each.value}" for each in Action if counts[each]]
        parts.append(f"{self.unchanged} unchanged")
        if self.foreign:
            parts.append(f"{self.foreign} foreign objects left alone")
        found = "not listed yet" if self.is_pending else ", ".join(parts)
        return f"{self.backend} {printable(self.container)}: {found}"

    def summary(self, *, dry_run: bool) -> str:
        """Return one line with the number of changes."""
        return f"{'Would sync' if dry_run else 'Synced'} {self.counts()}"


@dataclass(slots=True)
class SyncReport:
    """The findings in each container of the profile."""

    is_dry_run: bool
    containers: list[ContainerSync] = field(default_factory=list)
    indexes: list[IndexChange] | None = None
    """What was done about the index of each backup; None when that was not asked for."""

    @property
    def changes(self) -> list[Change]:
        """The changes in all containers."""
        return [change for each in self.containers for change in each.changes]

    @property
    def is_pending(self) -> bool:
        """Whether a vault has not made its list yet; sync must be run again later."""
        return any(each.is_pending for each in self.containers)

    @property
    def is_complete(self) -> bool:
        """Whether all is done: no name was taken, and each backup has an index."""
        is_listed = all(change.action is not Action.NAME_TAKEN for change in self.changes)
        return is_listed and not self._indexes_of(IndexAction.COLD, IndexAction.FAILED)

    @property
    def has_failed(self) -> bool:
        """Whether the index of a backup could not be made, although it is not in cold storage."""
        return bool(self._indexes_of(IndexAction.FAILED))

    @property
    def index_changes(self) -> list[IndexChange]:
        """What was done about the indexes that are not good."""
        return [each for each in self.indexes or () if each.action is not IndexAction.GOOD]

    def _indexes_of(self, *actions: IndexAction) -> list[IndexChange]:
        return [each for each in self.indexes or () if each.action in actions]

    def summary(self) -> str:
        """Return one line with the number of changes in each container."""
        done = "Would sync" if self.is_dry_run else "Synced"
        counts = "; ".join(each.counts() for each in self.containers)
        summary = f"{done} {counts or 'nothing: no container exists yet'}"
        if self.indexes is None:
            return summary
        found = [(action, len(self._indexes_of(action))) for action in IndexAction]
        parts = [f"{count} {action.value}" for action, count in found if count]
        return f"{summary}; indexes: {', '.join(parts) or 'none'}"

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints as the summary."""
        return {
            "dry_run": self.is_dry_run,
            "pending": self.is_pending,
            "containers": [each.as_dict() for each in self.containers],
        }


def warn_of(result: ContainerSync) -> None:
    """Warn of objects of a container that cannot be listed, and of those that cannot be used."""
    _warn_of_taken_names(result)
    _warn_of_unknown_formats(result)
    if result.unread:
        log.warning(
            "the access key may not read %d objects of %s %s: they are listed by name and size "
            "alone, until bakthat sync runs with one that may",
            result.unread,
            result.backend,
            printable(result.container),
        )


def _warn_of_taken_names(result: ContainerSync) -> None:
    taken = [each for each in result.changes if each.action is Action.NAME_TAKEN]
    if taken:
        log.warning(
            "%d objects of %s %s cannot be listed, since the catalog has their names in %s; the "
            "first is %s (to list them, give the profile a catalog of its own with the key "
            "database)",
            len(taken),
            result.backend,
            printable(result.container),
            " and ".join(map(printable, sorted(filter(None, result.elsewhere))))
            or "another container",
            printable(taken[0].backup.stored_filename),
        )


def _warn_of_unknown_formats(result: ContainerSync) -> None:
    later = [each.backup for each in result.changes if each.backup.has_unknown_format]
    if later:
        log.warning(
            "%d objects of %s %s were stored by a later version of bakthat: this one cannot read "
            "them, and deletes nothing of their sets (upgrade bakthat); the first is %s",
            len(later),
            result.backend,
            printable(result.container),
            printable(later[0].stored_filename),
        )
