"""Run jobs: everything that a night needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import bakthat
from bakthat.cli import output
from bakthat.cli.app import CONFIGURATION, DAILY, command, option
from bakthat.cli.exit_codes import ExitCode
from bakthat.cli.output import Line, Summary, print_error, print_result, summary_of_backup
from bakthat.cli.process import keep_freed_memory
from bakthat.cli.progress import progress_bar
from bakthat.system import terminal
from bakthat.system.text import counted, enumerate_some, printable

if TYPE_CHECKING:
    from bakthat.errors import BakthatError
    from bakthat.jobs.report import JobReport, SourceReport
    from bakthat.models import Backups


@command(
    "run",
    "run jobs of the configuration, by default all",
    group=DAILY,
    example="bakthat run nightly",
    exits={
        ExitCode.FAILED: "something failed: a line says what",
        ExitCode.INCOMPLETE: "stored, but a warning says what is missing, or that a size is "
        "suspicious",
        ExitCode.LOCKED: "another run was still going on a source; the others are stored",
    },
)
@option("names", metavar="JOB", nargs="*", help="name of a job (default: all jobs)")
@option(
    "--wait",
    action="store_true",
    help="wait for the end of another run on the same sources",
)
@option(
    "--dry-run",
    action="store_true",
    help="store nothing and run no command; print what would be done",
)
@option(
    "-c",
    "--config",
    section=CONFIGURATION,
    metavar="FILE",
    help="configuration file (default: $BAKTHAT_CONFIG, or ~/.bakthat.yml)",
)
def run(*, names: list[str], wait: bool, dry_run: bool, config: str | None) -> int | None:
    """Run ``bakthat run``."""
    from bakthat import conf  # --help needs none

    started = time.monotonic()
    keep_freed_memory()
    said = _Said()
    with progress_bar("Uploading", moved="stored") as progress:
        reports = bakthat.run_jobs(
            names,
            config or conf.default_config(),
            wait=wait,
            dry_run=dry_run,
            on_source=lambda report: said.say(lambda: _say_source(report)),
            on_job=lambda report: said.say(lambda: _say_job(report, dry_run=dry_run)),
            progress=progress,
        )
    seconds = time.monotonic() - started
    print_result(_summary_of(reports, seconds, dry_run=dry_run))
    if said.problem is not None:
        raise said.problem
    return _exit_code(reports)


class _Said:
    """Prints what a job has done. A job goes on when its output cannot be written."""

    def __init__(self) -> None:
        self.problem: terminal.OutputError | None = None

    def say(self, print_it: Callable[[], None]) -> None:
        try:
            print_it()
        except terminal.OutputError as exc:
            self.problem = self.problem or exc


def _say_source(report: SourceReport) -> None:
    for each in report.backups:
        print_result(
            _summary_of_backup(report.job, each), lines=[("backup", each.as_dict())], is_last=False
        )
    _print_problems(report.problems)


def _summary_of_backup(job: str, entry: Backups) -> Summary:
    if entry.is_skipped:
        done = f"{job}: nothing has changed since {entry.stored_filename}"
        return Summary(done, 0, where=f"on {entry.where}")
    return summary_of_backup(f"{job}: stored as {entry.stored_filename}", entry)


def _say_job(report: JobReport, *, dry_run: bool) -> None:
    lines: list[Line] = [("job", report.as_dict())]
    if dry_run:
        for source in report.sources:
            _print_problems(source.problems)
    _print_problems(report.problems)
    lacking = [each for each in report.backups if not each.is_complete or each.is_suspicious]
    if lacking:
        print_error(
            f"{printable(report.job)}: stored, but incomplete or of a suspicious size: "
            f"{enumerate_some([printable(each.stored_filename) for each in lacking])}"
        )
    if report.not_locked:
        print_error(
            f"{printable(report.job)}: the lock could not be extended of: "
            f"{enumerate_some([printable(each.stored_filename) for each in report.not_locked])}"
        )
    _print_lines(lines, _lines_of_preview(report) if dry_run else ())


def _print_lines(lines: Sequence[Line], text: Sequence[str]) -> None:
    if output.is_json():
        for message_type, value in lines:
            output.print_lines(message_type, [value])
    for line in () if output.is_json() else text:
        terminal.print_line(line)
    terminal.flush()


def _lines_of_preview(report: JobReport) -> list[str]:
    commands = ", ".join(f"{count} {moment}" for moment, count in report.commands.items() if count)
    lines = [f"{printable(report.job)}:{f' commands: {commands}' if commands else ''}"]
    for each in report.sources:
        said = "cannot be stored" if each.problems else "would be stored"
        if each.rotated:
            names = enumerate_some([printable(one.stored_filename) for one in each.rotated])
            said += f"; rotation would delete {names}"
        if each.protected:
            kept = [f"{printable(x.backup.stored_filename)} ({x.why})" for x in each.protected]
            said += f"; rotation would have to leave {enumerate_some(kept)}"
        lines.append(f"  {each.source.text}: {said}")
    for what, due in (("check", report.check_due), ("drill", report.drill_due)):
        if due:
            lines.append(f"  {what} is due: {enumerate_some([printable(each) for each in due])}")
    return lines


def _print_problems(problems: Sequence[BakthatError]) -> None:
    for each in problems:
        notes = getattr(each, "__notes__", ())
        print_error(str(each), each.hint, *notes, kind=_name_of(each))


def _name_of(problem: BakthatError) -> str:
    """Return the name of the first class of an error that is in :mod:`bakthat.errors`."""
    module = bakthat.BakthatError.__module__
    return next(each.__name__ for each in type(problem).__mro__ if each.__module__ == module)


def _summary_of(reports: Sequence[JobReport], seconds: float, *, dry_run: bool) -> Summary:
    from bakthat.jobs.report import JobOutcome

    backups = [each for report in reports for each in report.backups]
    sources = [each for report in reports for each in report.sources]
    failed = sum(each.outcome is JobOutcome.FAILED for each in sources)
    locked = sum(each.outcome is JobOutcome.LOCKED for each in sources)
    rotated = sum(len(each.rotated) for each in sources)
    protected = sum(len(each.protected) for each in sources)
    jobs_failed = sum(each.outcome is JobOutcome.FAILED for each in reports)
    stored = sum(each.is_stored for each in sources)
    would = "would be " if dry_run else ""
    done = [f"{stored} of {counted(len(sources), 'source')} {would}stored"]
    if locked:
        done.append(f"{locked} left to another run")
    if rotated:
        done.append(f"{counted(rotated, 'backup')} {would}rotated away")
    if protected:
        done.append(f"{counted(protected, 'backup')} locked or on hold")
    said = f"{'Looked at' if dry_run else 'Ran'} {counted(len(reports), 'job')}"
    if jobs_failed:
        said += f", {jobs_failed} {'would fail' if dry_run else 'failed'}"
    said += f": {', '.join(done)}"
    return Summary(
        said,
        seconds,
        files=None if dry_run else sum(each.metadata.get("files", 0) for each in backups),
        bytes=sum(each.metadata.get("bytes", 0) for each in backups),
        stored=None if dry_run else sum(each.size for each in backups),
        warnings=sum(each.warning_count for each in backups),
        facts={
            "jobs": len(reports),
            "jobs_failed": jobs_failed,
            "sources": len(sources),
            "failed": failed,
            "locked": locked,
            "rotated": rotated,
            "protected": protected,
        },
    )


def _exit_code(reports: Sequence[JobReport]) -> ExitCode:
    from bakthat.jobs.report import JobOutcome

    codes = {
        JobOutcome.FAILED: ExitCode.FAILED,
        JobOutcome.LOCKED: ExitCode.LOCKED,
        JobOutcome.INCOMPLETE: ExitCode.INCOMPLETE,
    }
    outcomes = {report.outcome for report in reports}
    return next((codes[each] for each in codes if each in outcomes), ExitCode.DONE)
