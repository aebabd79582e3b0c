"""What a job would do, without storing anything and without running its commands."""

from __future__ import annotations

from bakthat.conf import Job, JobSource, LoadedProfile
from bakthat.format.description import join_tags
from bakthat.format.names import check_set_name
from bakthat.jobs.backup import check_rotation, rotate_set_of
from bakthat.jobs.report import JobReport, SourceReport
from bakthat.jobs.telling import error_of, named
from bakthat.jobs.upkeep import check_due, due, sets_of
from bakthat.operations.backup.request import (
    BackupRequest,
    keys_of_backup,
    refuse_source_in_store,
)
from bakthat.operations.backup.stream import seconds_of
from bakthat.operations.facts import DRILL
from bakthat.operations.retention.operation import RetentionReport
from bakthat.operations.sources.expected import set_name
from bakthat.operations.sources.files import BackupSource
from bakthat.operations.sources.servers import open_server
from bakthat.session.locks.retention import check_rule
from bakthat.session.session import Session
from bakthat.session.sets import BackupSet


def preview(session: Session, loaded: LoadedProfile, job: Job, report: JobReport) -> None:
    """Fill *report* with what the job would do now. What cannot be found out is a problem in it.

    A database is asked whether it could be dumped; a command is not run.
    """
    for each in report.sources:
        try:
            _look_at(session, job, each.source)
            each.is_stored = True
            _foresee(session, loaded, job, report, each)
        except Exception as exc:  # noqa: BLE001  # the other sources are looked at too
            each.problems.append(named(error_of(exc), report.job, each.source.text))


def _look_at(session: Session, job: Job, source: JobSource) -> None:
    """Raise what a backup of the source would raise at its beginning."""
    join_tags((*job.tags, *source.tags))
    check_rule(session)
    backend = session.backend(session.destination)
    if source.path and not source.is_url:
        found = BackupSource.find(source.path, source.name, compress=session.profile.compress)
        refuse_source_in_store(session, found.path)
        BackupRequest.make(
            session,
            found,
            backend=backend,
            exclude_file=source.exclude_file,
            ignore_files=True,
            exclude_caches=source.exclude_caches,
            one_file_system=source.one_file_system,
            password=None,
            recipients=(),
            prompt="no",
            make_store=False,
        )
        return
    if source.name is not None:
        check_set_name(source.name)
    keys_of_backup(session, None, (), "no")
    if source.is_url:
        server, name = open_server(
            session, source.path, via=source.via, timeout=seconds_of(source.timeout)
        )
        for each in [server.database(name)] if name is not None else server.databases():
            each.check()


def _foresee(
    session: Session, loaded: LoadedProfile, job: Job, report: JobReport, of_source: SourceReport
) -> None:
    source = of_source.source
    sets = sets_of(session, [source])
    if job.rotate:
        check_rotation(loaded)
        for each in sets:
            rotation = RetentionReport()
            rotate_set_of(loaded, each.backups[0], rotation, dry_run=True)
            of_source.add_rotation(rotation)
    if job.check is not None:
        report.check_due += _names(source, sets, check_due(sets, job.check))
    if job.drill is not None:
        report.drill_due += _names(source, sets, due(sets, DRILL, job.drill.every))


def _names(source: JobSource, sets: list[BackupSet], due_sets: list[BackupSet]) -> list[str]:
    """Return the names of the sets that are due: also of one that the run would make first."""
    if not sets:
        return [set_name(source) or source.text]
    return [each.name for each in due_sets]
