"""Say how the backups are: what there is, how old it is, and what is wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from bakthat.conf import DEFAULT_PROFILE
from bakthat.operations.status.catalog import status_of
from bakthat.operations.status.set_status import SetStatus
from bakthat.operations.status.sets import expected_sets
from bakthat.operations.status.storage import status_of_hosts
from bakthat.policy.intervals import parse_interval
from bakthat.session.session import Session
from bakthat.system.paths import PathLike
from bakthat.system.streams import Progress


def status(
    filename: str = "",
    destination: str | None = None,
    profile: str | None = None,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
    max_age: str | None = None,
    all_hosts: bool = False,
    progress: Progress | None = None,
) -> list[SetStatus]:
    """Return how each set is, by its name; ``findings`` of each say what is wrong.

    By default the catalog is asked about the sets of this host, or of *host*, and about the sources
    of the jobs in the configuration, also about those without a backup. *filename* is the name of
    one set, and *destination* restricts this to one container. *profile* None means the default
    profile and every one that a job names; with a profile, only that and its jobs.

    *max_age* is an interval such as ``26h``, which wins over ``max_age`` of the jobs: an older set
    is too old.

    With *all_hosts*, the storage of one profile is asked instead: one listing, and the
    descriptions of the newest objects. That needs neither a catalog nor a password, writes nothing,
    and knows no jobs, checks or drills. *progress* is called with the descriptions that were read
    and those to read.

    Raises NoMatchError when there is nothing of which to say anything, StorageError, ConfigError,
    UsageError, CatalogError.
    """
    seconds = None if max_age is None else parse_interval(max_age)
    now = int(time.time())
    if all_hosts:
        session = Session(profile or DEFAULT_PROFILE, config, conf, destination)
        return status_of_hosts(session, filename, host, max_age=seconds, now=now, progress=progress)
    watched = expected_sets(filename, destination, profile, config, conf=conf, host=host)
    return [status_of(each, config, max_age=seconds, now=now) for each in watched]
