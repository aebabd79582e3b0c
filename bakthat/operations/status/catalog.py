"""How the sets are by the catalog."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from bakthat import models
from bakthat.conf import DEFAULT_PROFILE
from bakthat.operations.facts import CheckRecord, DrillRecord
from bakthat.operations.needed import keep_within
from bakthat.operations.status.findings import Looked, findings_of
from bakthat.operations.status.set_status import MOST_SIZES, SetStatus, usual
from bakthat.operations.status.sets import WatchedSet
from bakthat.policy.newest import is_in_the_future
from bakthat.policy.rotation import (
    NEWEST_OF_SOURCE,
    Decision,
    RotationPolicy,
    decide,
    keep_also,
)
from bakthat.session.chains import of_one_set
from bakthat.session.sets import id_of_source
from bakthat.system.paths import PathLike
from bakthat.system.text import printable

_A_DAY = 86400
_LARGEST = 2**62
_LATEST = 8
"""From how many backups it is taken when the next one is made."""


def status_of(
    watched: WatchedSet, config: PathLike | None, *, max_age: int | None, now: int
) -> SetStatus:
    """Return how a set is; *max_age*, in seconds, wins over that of its jobs. Raises ConfigError.

    *config* is the configuration that was named, for the hints; *now* is in epoch seconds UTC.
    """
    backups, profile = watched.backups, watched.session.profile
    status = SetStatus(
        name=watched.name,
        host=watched.host,
        backend=watched.backend,
        source=watched.source,
        profile=watched.session.loaded.name,
        jobs=tuple(each.name for each in watched.jobs),
        max_age=watched.max_age if max_age is None else max_age,
        backups=len(backups),
    )
    looked = Looked(
        now=now,
        check_every=watched.check_every if backups else None,
        drill_every=watched.drill_every if backups else None,
        skips_unchanged=profile.incremental and profile.skip_unchanged,
        options=_options(watched),
        config="" if config is None else _shown("-c", os.fspath(config)),
    )
    if backups:
        checks = [(each, CheckRecord.of(each.metadata)) for each in backups]
        drills = (DrillRecord.of(each.metadata) for each in backups)
        known = [each for _, each in checks if each is not None and each.date <= now]
        increments = [each.is_increment for each in backups]
        status = replace(
            with_newest(status, backups[0], now),
            last_success=next((each.date for each in backups if is_success(each, now)), None),
            next_to_go=next_to_go(watched, has_increments=any(increments)),
            check=max(known, key=lambda each: each.date, default=None),
            drill=max(
                (each for each in drills if each is not None and each.date <= now),
                key=lambda each: each.date,
                default=None,
            ),
        )
        status = with_sizes(
            status,
            [
                each.size
                for each, kind in zip(backups, increments, strict=True)
                if kind is increments[0]
            ],
        )
        looked = replace(
            looked,
            future=[each.stored_filename for each in backups if is_in_the_future(each.date, now)],
            failed=[
                (each.stored_filename, record)
                for each, record in checks
                if record is not None and not record.verdict.is_good
            ],
            first_warning=_first_warning(backups[0]),
            lacks=_lacks(watched),
        )
    return replace(status, findings=findings_of(status, looked))


def with_newest(status: SetStatus, newest: models.Backups, now: int) -> SetStatus:
    """Return *status* with what the entry of the newest backup says."""
    metadata = newest.metadata
    return replace(
        status,
        stored_filename=newest.stored_filename,
        last_backup=newest.date,
        age=now - newest.date,
        size=newest.size if newest.size >= 0 else None,
        files=_number(metadata.get("files")),
        content=_number(metadata.get("bytes")),
        seconds=_number(metadata.get("seconds")),
        warnings=newest.warning_count,
        is_suspicious=newest.is_suspicious,
        is_increment=newest.is_increment,
    )


def with_sizes(status: SetStatus, sizes: Sequence[int]) -> SetStatus:
    """Return *status* with the *sizes* of the latest backups of its kind, the newest first."""
    known = tuple(reversed([each for each in sizes if each >= 0][:MOST_SIZES]))
    return replace(status, sizes=known, usual_size=usual(known))


def is_success(backup: models.Backups, now: int) -> bool:
    """Return whether a backup has no warnings, and is not dated in the future."""
    return backup.is_complete and not is_in_the_future(backup.date, now)


def next_to_go(watched: WatchedSet, *, has_increments: bool) -> str:
    """Return what a rotation after the next backup deletes first; "" for nothing.

    The next backup is expected after the shortest time between the latest ones: rotation has made
    the others longer.
    """
    rotation = watched.session.profile.rotation
    backups = watched.backups
    if not rotation:
        return ""
    dates = [each.date for each in backups]
    gaps = [after - before for after, before in pairwise(dates[:_LATEST]) if after > before]
    then = dates[0] + min(gaps, default=_A_DAY)
    policy = RotationPolicy.from_mapping(rotation)
    decisions = decide([then, *dates], policy, then)[1:]
    # The rules for what is deleted, with the next backup: it is the newest, recorded last, and of
    # a usual size. An increment may need what the newest needs.
    is_known = [bool(id_of_source(each)) for each in backups]
    if not all(is_known):
        decisions = keep_also(decisions, is_known.index(False), NEWEST_OF_SOURCE)
    if has_increments:
        decisions = keep_within(backups, [Decision(True, ("newest",)), *decisions[1:]], ())
    going = [each for each, decision in zip(backups, decisions, strict=True) if not decision.keep]
    return going[-1].stored_filename if going else ""


def _lacks(watched: WatchedSet) -> list[int]:
    """Return the dates of the backups that the newest one needs and the catalog does not list."""
    newest = watched.backups[0]
    lacks = set(newest.needs).difference(each.date for each in watched.backups)
    if lacks:  # one whose description was lost is listed as that of another set
        lacks.difference_update(each.date for each in of_one_set(watched.session, newest))
    return sorted(lacks)


def _options(watched: WatchedSet) -> str:
    """Return the options by which a command finds a set, where it does not by its name alone."""
    session = watched.session
    words = []
    if session.loaded.name != DEFAULT_PROFILE:
        words += ["-p", session.loaded.name]
    if watched.backend != session.profile.default_destination:
        words += ["-d", watched.backend]
    if watched.host not in ("", session.host):
        words += ["--host", watched.host]
    return _shown(*words)


def _shown(*words: str) -> str:
    return shlex.join(map(printable, words))


def _first_warning(backup: models.Backups) -> str:
    kept = backup.metadata.get("warnings")
    return str(kept[0]) if isinstance(kept, list) and kept else ""


def _number(value: Any) -> Any:
    """Return a value of an entry if it is a number; those of a damaged one may be anything."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and 0 <= value <= _LARGEST else None
