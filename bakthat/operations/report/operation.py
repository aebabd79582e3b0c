"""Make a report from the catalog, and write it as a page."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bakthat import __version__
from bakthat.conf import Profile, load_profile, machine_name
from bakthat.errors import ConfigError, DestinationError, UsageError
from bakthat.operations.report.facts import (
    Expectations,
    Period,
    Report,
    SetFacts,
    facts_of,
)
from bakthat.operations.report.page import page
from bakthat.operations.status.sets import WatchedSet, expected_sets
from bakthat.policy.intervals import parse_interval, parse_since
from bakthat.policy.rotation import RotationPolicy
from bakthat.session.session import Session
from bakthat.system.files import replace_file
from bakthat.system.paths import PathLike, expanded
from bakthat.system.text import printable, reason_of

DEFAULT_SINCE = "90D"
_BEFORE = 31 * 86400
"""How many seconds before the period deleted backups are read, which may be where a gap begins."""


def report(
    filename: str = "",
    destination: str | None = None,
    profile: str | None = None,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
    since: str | float = DEFAULT_SINCE,
    until: str | float | None = None,
    max_age: str | None = None,
    output: PathLike | None = None,
) -> Report:
    """Return what the catalog knows of a period: backups, gaps, deletions, checks and drills.

    *filename* is the name of a set, by default all sets. *profile* None means the default profile
    and every one that a job names. *host* names the host whose sets are reported, by default all
    that the catalog knows. *since* and *until* are a date in UTC such as ``2026-07-01``, an age
    such as ``90D``, or epoch seconds; *until* is now by default. *max_age*, such as ``26h``, is how
    old a backup may be where no job says it; without either, gaps are not judged.

    With *output*, the report is also written there as a page of HTML, which needs no other file. A
    file that is there is replaced. Nothing else is changed, and no storage is asked.

    Raises UsageError, NoMatchError when there is no such set, ConfigError, CatalogError, and
    DestinationError when the page cannot be written.
    """
    now = int(time.time())
    period = _period(since, until, now)
    limit = None if max_age is None else parse_interval(max_age)
    path = None if output is None else _writable(output)
    watched = expected_sets(
        filename,
        destination,
        profile,
        config,
        conf=conf,
        host=host,
        all_hosts=True,
        deleted_since=period.begin - _BEFORE,
    )
    made = Report(
        period,
        __version__,
        machine_name(),
        _unique(str(each.session.catalog) for each in watched),
        _unique(each.session.loaded.name for each in watched),
        tuple(_facts_of_sets(watched, period, limit, config)),
    )
    if path is not None:
        write_page(made, path)
    return made


def write_page(report: Report, path: Path) -> None:
    """Write a report as a page of HTML, at once. Raises DestinationError."""
    try:
        # A name that is no Unicode text was made printable.
        replace_file(path, "".join(page(report)).encode(), mode=0o666 & ~_umask())
    except OSError as exc:
        raise DestinationError(
            f"cannot write the report {printable(path)}: {reason_of(exc)}",
            hint="name another file: -o report.html (output= in Python)",
        ) from exc


def _period(since: str | float, until: str | float | None, now: int) -> Period:
    begin = int(parse_since(since, now))
    end = now if until is None else int(parse_since(until, now))
    if end > now:
        end = now
    if begin >= end:
        raise UsageError(
            "--since is not before --until, so there is no period to report",
            hint="give --since and --until as dates such as 2026-07-01, or ages such as 90D",
        )
    return Period(begin, end, now)


def _writable(output: PathLike) -> Path:
    """Return the path of the page, of a link that to which it leads. Raises DestinationError."""
    path = Path(os.path.realpath(expanded(output)))
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        is_file = True
    except OSError as exc:
        raise DestinationError(
            f"cannot write the report {printable(path)}: {reason_of(exc)}",
            hint="name another file: -o report.html (output= in Python)",
        ) from exc
    if not is_file or not path.parent.is_dir():
        what = "is no file" if not is_file else "is in a directory that does not exist"
        raise DestinationError(
            f"cannot write the report: {printable(path)} {what}",
            hint="name a file in a directory that exists: -o report.html (output= in Python)",
        )
    return path


def _umask() -> int:
    """Return the umask of this process, without changing it: other threads may make files."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0o077
    return next(
        (int(line.split()[1], 8) for line in status.splitlines() if line.startswith("Umask:")),
        0o077,
    )


def _facts_of_sets(
    watched: list[WatchedSet], period: Period, max_age: int | None, config: PathLike | None
) -> Iterator[SetFacts]:
    rotations: dict[str, str] = {}
    """What the rotation of each profile keeps."""
    watched.reverse()
    while watched:  # an entry of the catalog takes ten times the memory of its facts
        found = watched.pop()
        # A container may be that of several profiles, and the job says whose rotation it is.
        own = found.session.loaded
        names = dict.fromkeys([each.job.profile for each in found.jobs] or [own.name])
        for name in names:
            if name not in rotations:
                loaded = own if name == own.name else load_profile(name, config=config)
                rotations[name] = _rotation(loaded.profile)
        rotation = "; ".join(dict.fromkeys(filter(None, map(rotations.get, names))))
        yield _facts_of_set(found, rotation, period, max_age)


def _facts_of_set(
    watched: WatchedSet, rotation: str, period: Period, max_age: int | None
) -> SetFacts:
    known = sorted(
        map(facts_of, watched.backups), key=lambda each: (each.date, each.stored_filename)
    )
    return SetFacts(
        name=watched.name,
        host=watched.host,
        source=watched.source,
        backend=watched.backend,
        container=_container(watched.session, watched.backend),
        jobs=tuple(each.name for each in watched.jobs),
        rotation=rotation,
        is_rotated=any(each.job.rotate for each in watched.jobs),
        expected=Expectations(
            watched.max_age if watched.max_age is not None else max_age,
            watched.check_every,
            watched.drill_every,
            bool(watched.jobs),
        ),
        period=period,
        known=tuple(known),
    )


def _container(session: Session, backend: str) -> str:
    """Return the name of a container, without making a client for it."""
    profile = session.profile
    local = str(expanded(profile.local_path)) if profile.local_path else ""
    names = {"s3": profile.s3_bucket, "glacier": profile.glacier_vault, "local": local}
    return names.get(backend) or ""


def _rotation(profile: Profile) -> str:
    if not profile.rotation:
        return ""
    try:
        return str(RotationPolicy.from_mapping(profile.rotation))
    except ConfigError:
        return ""  # only the first day of a week is set


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
