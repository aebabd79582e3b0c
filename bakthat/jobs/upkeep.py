"""The checks and drills of a job's sets, where they are due."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from typing import Any

from bakthat import models
from bakthat.conf import DEFAULT_PROFILE, JobSource, LoadedProfile
from bakthat.conf.job import JobCheck, JobDrill
from bakthat.drills import drill, is_loaded, needs_server
from bakthat.errors import StorageError, UsageError
from bakthat.operations.check.operation import check
from bakthat.operations.check.result import CheckResult
from bakthat.operations.facts import CHECK
from bakthat.operations.restore.stream import dump_kind_of
from bakthat.operations.sources.expected import fits
from bakthat.operations.sources.servers import check_kind
from bakthat.policy.clock import is_due
from bakthat.session.session import Session
from bakthat.session.sets import BackupSet, divide
from bakthat.system.paths import PathLike
from bakthat.system.text import counted, printable


def sets_of(session: Session, sources: Sequence[JobSource]) -> list[BackupSet]:
    """Return this host's sets that the sources of a job make. Raises CatalogError."""
    if not session.may_have_catalog:
        return []  # to open it would make it, also in a dry run
    with models.catalog(session.catalog):
        rows = models.Backups.search("", session.containers(session.destination))
    sets = divide(each for each in rows if each.host == session.host)
    return [found for found in sets if any(fits(each, found) for each in sources)]


def check_due(sets: Sequence[BackupSet], how: JobCheck) -> list[BackupSet]:
    """Return the sets whose check is due. One that reads is due when nothing was read."""
    return due(sets, CHECK, how.every, "read" if how.reads else "date")


def due(sets: Sequence[BackupSet], what: str, every: int, date: str = "date") -> list[BackupSet]:
    """Return the sets of which no backup has had a check or drill, *what*, for *every* seconds.

    *date* is the key of its result that says when that was.
    """
    now = int(time.time())
    found = []
    for each in sets:
        dates = [_date_of(backup.metadata.get(what), date) for backup in each.backups]
        # Of a clock that was wrong once, no later check would be seen.
        last = max((date for date in dates if date is not None and date <= now), default=None)
        if is_due(last, every, now):
            found.append(each)
    return found


def _date_of(result: Any, key: str) -> int | None:
    date = result.get(key) if isinstance(result, dict) else None
    return date if isinstance(date, int) else None


def check_set(loaded: LoadedProfile, found: BackupSet, how: JobCheck) -> list[CheckResult]:
    """Check the backups of a set; return what :func:`bakthat.check` does."""
    return check(found.name, conf=loaded, host=found.host, sample=how.sample, prompt="no")


def problem_of(
    results: Sequence[CheckResult], found: BackupSet, profile: str, config: PathLike | None
) -> StorageError | None:
    """Return the error of a check that has found something, else None.

    *profile* and *config* are those of the job, for the hint.
    """
    bad = [each for each in results if not each.is_good]
    if not bad:
        return None
    first, name = bad[0], printable(found.name)
    detail = f": {first.detail}" if first.detail else ""
    words = ["bakthat", "check", name]
    words += ["-p", profile] if profile != DEFAULT_PROFILE else []
    words += ["-c", os.fspath(config)] if config is not None else []
    return StorageError(
        f"{len(bad)} of {counted(len(results), 'backup')} of {name} failed the check, the first is "
        f"{printable(first.backup.stored_filename)}: {first.verdict.value}{detail}",
        hint=f"look at all of them: {shlex.join(words)}",
    )


def drill_newest(
    loaded: LoadedProfile, found: BackupSet, how: JobDrill, sources: Sequence[JobSource]
) -> models.Backups:
    """Drill the newest backup of a set, and return it; raises what :func:`bakthat.drill` raises.

    *sources* are those of the job, which may be of several kinds. What is for a database is left
    out where the backup is no dump. A dump that is not of the kind of the drill's server is loaded
    into a scratch database on the server that it is of.
    """
    newest = found.backups[0]
    kind = dump_kind_of(newest)
    of_database: dict[str, Any] = {}
    if is_loaded(kind):
        of_database["check"] = how.check
        if how.into is not None and _is_for(how.into, kind):
            of_database |= {"into": how.into, "via": how.via}
        else:
            source = next((each for each in sources if each.is_url and fits(each, found)), None)
            if source is not None and needs_server(kind):
                own = how.via if how.into is None else None
                of_database |= {"into": source.path, "via": own or source.via}
    return drill(
        newest.stored_filename,
        conf=loaded,
        host=found.host,
        check_command=how.check_command,
        scratch=how.scratch,
        prompt="no",
        **of_database,
    )


def _is_for(url: str, kind: str) -> bool:
    try:
        check_kind(url, kind)
    except UsageError:
        return False
    return True
