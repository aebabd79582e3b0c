"""Look up whether backups and their indexes are stored, without reading them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from bakthat import models
from bakthat.backends.base import Backend, StoredObject, UnreadableError
from bakthat.errors import (
    ConfigError,
    ContainerNotFoundError,
    NotFoundError,
    StorageError,
    UsageError,
)
from bakthat.format.description import INDEX, sanitized
from bakthat.format.names import index_key
from bakthat.operations.check.result import CheckResult, Verdict, should_have_index
from bakthat.policy.storage_classes import VAULT, storage_class
from bakthat.session.chains import NeededKeys
from bakthat.session.indexes.home import home_of_indexes
from bakthat.session.session import Session
from bakthat.session.stat import batches, stat_by_listing, stat_or_listed, workers
from bakthat.system.streams import Progress

log = logging.getLogger("bakthat")

MAX_SINGLE_REQUESTS = 20
"""The most backups that are looked up one by one; for more, the container is listed."""
REMEDY = "bakthat sync --indexes makes it again"
NO_INDEX = f"its index is missing; {REMEDY}"
_WRONG_INDEX = f"its index says that it is that of another archive; {REMEDY}"


def stat_all(
    session: Session, backups: Sequence[models.Backups], progress: Progress | None
) -> list[CheckResult]:
    """Look up existence and size of *backups*; those deleted meanwhile have no result.

    *progress* is called with the number of backups, done and in all.
    """
    verdicts: dict[str, CheckResult] = {}
    for destination in dict.fromkeys(each.backend for each in backups):
        of_it = [each for each in backups if each.backend == destination]
        for checked in _stat_in(session, destination, of_it):
            verdicts[checked.backup.stored_filename] = checked
            if progress is not None:
                progress(len(verdicts), len(backups))
    listed = _still_listed(session, verdicts.values())
    return [verdicts[each.stored_filename] for each in backups if each.stored_filename in listed]


def _stat_in(
    session: Session, destination: str, backups: Sequence[models.Backups]
) -> Iterator[CheckResult]:
    try:
        backend = session.backend(destination)
        listed: dict[str, StoredObject] = {}
        if len(backups) > MAX_SINGLE_REQUESTS:
            listed = stat_by_listing(backend, [each.stored_filename for each in backups])
            if any(each.metadata is None for each in listed.values()):
                # Only the description has the id, by which increments know what they need.
                with models.catalog(session.catalog):
                    containers = session.containers(destination)
                    needed = NeededKeys(models.Backups.increments(containers))
                listed = {
                    key: each
                    for key, each in listed.items()
                    if each.metadata is not None or key not in needed
                }
    except (StorageError, ConfigError) as exc:
        yield from (CheckResult(each, Verdict.UNKNOWN, str(exc)) for each in backups)
        return
    with workers() as pool:
        for batch in batches(backups):
            yield from pool.map(
                lambda each: _stat(backend, each, listed.get(each.stored_filename)), batch
            )


def _stat(backend: Backend, backup: models.Backups, stored: StoredObject | None) -> CheckResult:
    """Compare an entry with its object; *stored* None means that it must be requested."""
    try:
        is_unread = False
        if stored is None:
            stored = stat_or_listed(backend, backup.stored_filename)
            is_unread = stored.metadata is None
    except NotFoundError as exc:
        return CheckResult(backup, Verdict.MISSING, str(exc))
    except (StorageError, UsageError) as exc:
        return CheckResult(backup, Verdict.UNKNOWN, str(exc))
    # Another machine may have replaced a value without this catalog.
    may_change = backup.is_key_value and "format" in backup.metadata
    if stored.size != backup.size and not may_change and -1 not in (stored.size, backup.size):
        detail = f"{stored.size} bytes on the storage, {backup.size} in the catalog"
        return CheckResult(backup, Verdict.WRONG_SIZE, detail)
    if backup.has_unknown_format:
        detail = f"it has the format {backup.metadata['format']}: upgrade bakthat"
        return CheckResult(backup, Verdict.UNKNOWN, detail)
    found_id = sanitized(stored.metadata).get("id", backup.archive_id)
    if backup.archive_id not in ("", found_id):
        return CheckResult(backup, Verdict.DAMAGED, "another archive was put in its place")
    if storage_class(stored.storage_class).is_cold:
        where = "a vault" if stored.storage_class == VAULT else stored.storage_class
        return CheckResult(backup, Verdict.COLD, f"in {where}")
    detail = "the access key may not read it: only its size was compared" if is_unread else ""
    return CheckResult(backup, Verdict.STORED, detail)


def with_index_problems(session: Session, found: Sequence[CheckResult]) -> Iterator[CheckResult]:
    """Yield the results, with the problem of an index that should be stored and is not."""
    expected = [each.backup for each in found if each.is_good and should_have_index(each.backup)]
    problems: dict[str, str] = {}
    for destination in dict.fromkeys(each.backend for each in expected):
        backups = [each for each in expected if each.backend == destination]
        try:
            problems |= _index_problems(session, session.backend(destination), backups)
        except (StorageError, ConfigError) as exc:
            log.warning("the indexes on %s cannot be looked up: %s", destination, exc)
    for each in found:
        problem = problems.get(each.backup.stored_filename, "")
        yield replace(each, index_problem=problem) if problem else each


def _index_problems(
    session: Session, backend: Backend, backups: Sequence[models.Backups]
) -> dict[str, str]:
    """Return the problem of each index that is missing, or is that of another archive."""
    home, within = home_of_indexes(session, backend)
    if len(backups) > MAX_SINGLE_REQUESTS:
        # A listing tells those whose size is known; another size may have a reason.
        prefix = within + session.shared_prefix
        try:
            sizes = {each.key: each.size for each in home.ls(prefix, indexes=True)}
        except ContainerNotFoundError:
            sizes = {}
        backups = [
            each
            for each in backups
            if sizes.get(index_key(within + each.stored_filename), -1)
            != each.metadata.get("index_size")
        ]
    with workers() as pool:
        problems = pool.map(lambda each: _index_problem(home, within, each), backups)
        return {
            each.stored_filename: problem
            for each, problem in zip(backups, problems, strict=True)
            if problem
        }


def _index_problem(home: Backend, within: str, backup: models.Backups) -> str:
    """Return what is wrong with an index by its self-description; "" if it seems right."""
    try:
        stored = home.stat(index_key(within + backup.stored_filename))
    except (NotFoundError, ContainerNotFoundError):
        return NO_INDEX
    except UnreadableError:
        return ""  # it is there, and the access keys may not read it
    except UsageError as exc:
        return f"it can have no index: {exc}"
    description = sanitized(stored.metadata)
    right = {"kind": INDEX, "date": backup.backup_date}
    if backup.size >= 0:
        right["stored"] = backup.size
    is_another = any(description.get(key, value) != value for key, value in right.items())
    return _WRONG_INDEX if is_another else ""


def _still_listed(session: Session, checked: Iterable[CheckResult]) -> set[str]:
    """Return the stored filenames, without backups deleted since the catalog was read."""
    names = {each.backup.stored_filename for each in checked}
    missing = {each.backup.stored_filename for each in checked if each.verdict is Verdict.MISSING}
    if not missing:
        return names
    with models.catalog(session.catalog):
        listed = {row.stored_filename for row in models.Backups.not_deleted(session.containers())}
    return names - (missing - listed)
