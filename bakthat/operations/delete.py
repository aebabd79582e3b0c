"""Delete one backup, and on request those that need it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from bakthat import models
from bakthat.backends.base import Backend
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import UsageError
from bakthat.operations.changes import after_change
from bakthat.operations.needed import needed_now
from bakthat.policy.outcome import BY_NAME
from bakthat.policy.rotation import RUNNING
from bakthat.session.chains import check_formats, dependents_first, dependents_within, of_one_set
from bakthat.session.deletion import (
    UNMARKED,
    check_before_deleting,
    check_recordable,
    delete_indexes,
    record_deletion,
)
from bakthat.session.indexes.pins import may_be_needed, unlisted_increments
from bakthat.session.lookup import find_backup
from bakthat.session.session import Session, operation
from bakthat.system.paths import PathLike
from bakthat.system.signals import held_back
from bakthat.system.text import enumerate_some, printable

log = logging.getLogger("bakthat")

_MOST_NAMED = 3
"""The most backups that a message names."""
_WITH_DEPENDENTS = "--with-dependents (with_dependents=True in Python) deletes these too"


def delete(
    filename: str,
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
    source: PathLike | None = None,
    with_dependents: bool = False,
) -> models.Backups:
    """Delete one backup from the storage, mark it as deleted in the catalog, and return it.

    *filename* is a stored filename, a set's name (its newest backup) or the beginning of a
    stored filename that contains the set's whole name (``mydir.2013``). *host* and *source* are as
    for :func:`bakthat.restore`. A backup that is no longer on the storage is only marked.

    A backup that increments need is not deleted, unless *with_dependents*: then these are deleted
    before it. What a running backup needs is never deleted, nor what an increment needs that the
    catalog does not list. Raises UsageError in these cases, NoMatchError, AmbiguousNameError,
    StorageError, and CatalogError before anything is deleted, or when it says what was deleted.
    """
    session = Session(profile, config, conf, destination)
    with operation(session, "delete") as current:
        found = find_backup(session, filename, host=host, source=source, to_delete=True)
        backend = session.backend(found.backend)
        dependents = _dependents(session, backend, found)
        if dependents and not with_dependents:
            raise _needed_error(found, dependents)
        to_delete = [each for group in dependents_first([*dependents, found]) for each in group]
        for unknown in check_before_deleting(backend, to_delete).values():
            raise unknown
        is_changed = False
        try:
            for each in to_delete:
                why = BY_NAME if each is found else f"it needs {printable(found.stored_filename)}"
                name = printable(each.stored_filename)
                log.info("Deleting %s", name)
                _check_unneeded(session, to_delete)
                check_recordable(session, backend, each)
                # An interrupt must not leave it in the catalog but not on the storage, nor its
                # index.
                with held_back(f"finishing the deletion of {name}", mend=UNMARKED):
                    backend.delete(each.stored_filename)
                    is_changed = True
                    record_deletion(session, [each], why)
                    each.container = backend.container
                    current.done = f"deleted {name} from {each.where}"
                    if each is found:
                        current.finish(found, done=current.done)
                    delete_indexes(session, backend, [each])
        finally:
            if is_changed:
                after_change(session, found.backend)
        return found


def _dependents(session: Session, backend: Backend, found: models.Backups) -> list[models.Backups]:
    """Return the listed backups that need *found*, the newest first.

    Raises UsageError when what needs it can be deleted by no command now.
    """
    if found.is_key_value:
        return []
    of_set = of_one_set(session, found)
    others = [each for each in of_set if each.stored_filename != found.stored_filename]
    check_formats(others)
    dependents = dependents_within([found], others)
    to_delete = [found, *dependents]
    _check_unneeded(session, to_delete)
    if may_be_needed(found):
        unlisted = unlisted_increments(session, backend, [found, *others])
        check_formats(unlisted)
        needing = dependents_within(to_delete, unlisted)
        if needing:
            raise UsageError(
                f"{_needed(found, needing)}, which the catalog does not list",
                hint="bakthat sync lists it; where it was stopped, bakthat cleanup removes its "
                "index after a day",
            )
    return dependents


def _check_unneeded(session: Session, to_delete: Sequence[models.Backups]) -> None:
    """Raise UsageError when something needs one of *to_delete*, backups of one set, by now."""
    for name, reason in needed_now(session, to_delete).items():
        raise UsageError(
            f"{printable(name)} is {reason}, so it is not deleted",
            hint="try again when that has ended; bakthat cleanup forgets one that was killed, "
            "a day after"
            if reason == RUNNING
            else _WITH_DEPENDENTS,
        )


def _needed_error(found: models.Backups, dependents: Sequence[models.Backups]) -> UsageError:
    return UsageError(
        f"{_needed(found, dependents)}, so it is not deleted",
        hint=_WITH_DEPENDENTS,
    )


def _needed(found: models.Backups, dependents: Sequence[models.Backups]) -> str:
    names = [printable(each.stored_filename) for each in dependents]
    some = enumerate_some(names, most=_MOST_NAMED)
    return f"{printable(found.stored_filename)} is needed by {some}"
