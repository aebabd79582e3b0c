"""Back up what has changed since an earlier backup, or find out why a full is made instead."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager
from typing import Protocol

from bakthat import models
from bakthat.archive.create.content import BackupContent
from bakthat.archive.create.increment.archive import Basis
from bakthat.archive.create.increment.later import NewerContentError
from bakthat.archive.create.increment.plan import ChangedTargetError
from bakthat.archive.create.walk import Scan
from bakthat.archive.create.worker import open_content
from bakthat.errors import CorruptIndexError
from bakthat.operations.backup.parent import (
    ASKED_FOR,
    IncrementSettings,
    NoParentError,
    Parent,
    count_run,
    find_parent,
)
from bakthat.operations.backup.request import BackupRequest
from bakthat.operations.backup.store import NeededGoneError
from bakthat.reservations import NeededDeletedError
from bakthat.session.container import make_container
from bakthat.system.text import printable

log = logging.getLogger("bakthat")


class Store(Protocol):
    """Stores content as a new backup: as an increment of *parent*, or as a full."""

    def __call__(
        self,
        content: BackupContent,
        parent: Parent | None = None,
        counted: Scan | None = None,
        started: float | None = None,
    ) -> models.Backups:
        """Return the entry of the new backup, which *started* by :func:`time.monotonic`."""


def back_up_changes(
    request: BackupRequest,
    increments: IncrementSettings,
    store: Store,
    *,
    full: bool,
    create: bool,
) -> models.Backups | None:
    """Store an increment, and return its entry; None, after the reason was logged, for a full.

    Where nothing has changed, the entry may be that of the newest backup (``is_skipped``). Where a
    comparison shows that a full is better, that is stored at once. *store* makes the backup.
    *create* is as for :func:`bakthat.backup`, which also says what is raised.
    """
    attempt = _Attempt(request, increments, store, create)
    try:
        if full:
            raise NoParentError(ASKED_FOR)
        try:
            entry = attempt.run(from_newest=False)
        except NewerContentError as exc:
            # So that what cannot be read now stays as the newest backup has it.
            log.info("The increment is made from the newest backup: %s", exc)
            entry = attempt.run(from_newest=True)
        if increments.recheck:
            count_run(request.session, request.source)
        return entry
    except (NoParentError, NeededGoneError, NeededDeletedError, ChangedTargetError) as exc:
        _log_full(str(exc))
        return None
    except CorruptIndexError as exc:  # the records of an index are read while the tree is compared
        _log_full(f"the index of an earlier backup cannot be used: {exc}")
        return None


class _Attempt:
    def __init__(
        self, request: BackupRequest, increments: IncrementSettings, store: Store, create: bool
    ) -> None:
        self._request = request
        self._increments = increments
        self._store = store
        self._create = create

    def run(self, *, from_newest: bool) -> models.Backups:
        """Return the entry of the new backup, or of the newest one if nothing has changed since.

        Raises NoParentError, NeededGoneError and the errors of a comparison.
        """
        request, started = self._request, time.monotonic()
        with find_parent(
            request.session,
            request.source,
            request.keys,
            self._increments,
            from_newest=from_newest,
        ) as parent:
            if self._increments.skip_unchanged and parent.basis.newest is not None:
                newest = Basis(parent.basis.newest, parent.basis.rule)
                with self._opened(newest) as content:
                    make_container(request.session, request.backend, create=self._create)
                    problem = parent.problem_of_newest(
                        request.session
                    ) or parent.key_problem_of_newest(request.session, request.keys)
                    content.count()
                    if not problem and _is_unchanged(content):
                        return self._skip(parent)
            with self._opened(parent.basis) as content:
                # The worker process compares, while this one connects.
                make_container(request.session, request.backend, create=self._create)
                problem = parent.problem(request.session) or parent.key_problem(
                    request.session, request.keys
                )
                if problem:
                    raise NeededGoneError(problem)
                counted = content.count()
                if self._increments.skip_unchanged and parent.is_newest and _is_unchanged(content):
                    return self._skip(parent)
                assert content.totals is not None
                why = parent.why_full(content.totals)
                if why:
                    _log_full(why)
                    return self._store(content, None, counted, started)
                name = printable(parent.backups[-1].stored_filename)
                log.info("Storing what has changed since %s", name)
                return self._store(content, parent, counted, started)

    def _opened(self, basis: Basis) -> AbstractContextManager[BackupContent]:
        source = self._request.source
        return open_content(source.path, self._request.options, arcname=source.arcname, basis=basis)

    def _skip(self, parent: Parent) -> models.Backups:
        newest = parent.newest
        newest.container = self._request.backend.container
        newest.is_skipped = True
        newest.restore_warning_count = 0  # this run had none
        name = printable(newest.stored_filename)
        log.info("Nothing has changed since %s, so no backup is made", name)
        return newest


def _is_unchanged(content: BackupContent) -> bool:
    return content.totals is not None and content.totals.is_nothing


def _log_full(why: str) -> None:
    log.info("Making a full backup: %s", why)
