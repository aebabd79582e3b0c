"""Back up one source of a job, and rotate the sets of what was stored."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bakthat import models
from bakthat.conf import DEFAULT_PROFILE, Job, JobSource, LoadedProfile
from bakthat.errors import BakthatError, ConfigError
from bakthat.format.description import NAMED, source_id
from bakthat.operations.backup.databases import backup_databases
from bakthat.operations.backup.operation import backup
from bakthat.operations.retention.operation import RetentionReport, delete_by_plan, foresee
from bakthat.operations.retention.plan import Plan, plan_rotation
from bakthat.operations.sources.expected import set_name
from bakthat.session.session import Session
from bakthat.session.sets import NO_SOURCE, id_of_source
from bakthat.system.streams import Progress


def lock_path(session: Session, source: JobSource) -> Path:
    """Return the file of the lock on the set of a source; of a server, on all of its databases."""
    try:
        name = set_name(source)
    except BakthatError:  # the URL is wrong, which the backup says
        name = None
    origin = source.text if source.is_url else source.path  # without a password
    what = origin if name is None else f"{name} {NAMED if source.name else source_id(origin)}"
    containers = session.containers(session.destination)
    place = containers[0] if containers else ("", "")  # a setting is missing, see above
    identity = "\0".join((*place, session.host, what))
    digest = hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()
    return session.beside_catalog("locks") / digest[:24]


def back_up(loaded: LoadedProfile, job: Job, source: JobSource, progress: Progress | None) -> None:
    """Make the backup of a source, or one of each of its databases; nobody is asked for a password.

    Raises what :func:`bakthat.backup` and :func:`bakthat.backup_databases` raise.
    """
    tags = (*job.tags, *source.tags)
    if source.is_url:
        backup_databases(
            source.path,
            conf=loaded,
            custom_filename=source.name,
            via=source.via,
            timeout=source.timeout,
            fail_below=source.fail_below,
            prompt="no",
            tags=tags,
            progress=progress,
        )
    elif source.command:
        backup(
            conf=loaded,
            prompt="no",
            tags=tags,
            custom_filename=source.name,
            command=source.command,
            timeout=source.timeout,
            fail_below=source.fail_below,
            allow_empty=source.allow_empty,
            progress=progress,
        )
    else:
        backup(
            source.path,
            conf=loaded,
            prompt="no",
            tags=tags,
            exclude_file=source.exclude_file,
            custom_filename=source.name,
            exclude_caches=source.exclude_caches,
            one_file_system=source.one_file_system,
            allow_empty=source.allow_empty,
            progress=progress,
        )


def check_rotation(loaded: LoadedProfile) -> None:
    """Raise ConfigError when the profile of a job that rotates has no rotation."""
    if not loaded.profile.rotation:
        raise ConfigError(
            f"{loaded.place('rotation')}: it has no rotation, and 'rotate' of the job is true",
            hint="say in the profile what to keep, such as rotation: {days: 7, weeks: 4}",
        )


def rotate_set_of(
    loaded: LoadedProfile,
    entry: models.Backups,
    report: RetentionReport,
    *,
    dry_run: bool = False,
) -> None:
    """Rotate the set of a backup as the profile says; fill *report*, also when this raises.

    With *dry_run*, do nothing, and report what would be done. Raises what
    :func:`bakthat.rotate_backups` raises.
    """
    check_rotation(loaded)
    own = id_of_source(entry)
    source = NO_SOURCE if own in ("", NAMED) else own
    session = Session(DEFAULT_PROFILE, None, loaded)

    def make_plan() -> Plan:
        return plan_rotation(session, entry.filename, source=source)

    if dry_run:
        foreseen = foresee(session, make_plan())
        if foreseen.plan is not None and foreseen.plan.obstacle is not None:
            raise foreseen.plan.obstacle
        report.plan, report.deleted, report.left = foreseen.plan, foreseen.deleted, foreseen.left
    else:
        delete_by_plan(session, "rotate_backups", make_plan, report)


def why_not_rotated(entry: models.Backups) -> str:
    """Return why the set of a new backup is not rotated; "" where it is.

    A backup that may be worth nothing must not take the place of a good one.
    """
    if entry.is_suspicious:
        return "the size of the new backup is suspicious"
    content = entry.metadata.get("bytes", 0), entry.metadata.get("unchanged", 0)
    if not entry.is_complete and not any(content):
        return "there is nothing in the new backup"
    return ""
