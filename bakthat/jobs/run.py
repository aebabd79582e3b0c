"""Run jobs.

A job takes the locks of its sources, runs ``before``, backs each source up and rotates its sets,
checks and drills where that is due, runs ``after`` and, when something has failed, ``on_error``.

The locks are held until ``after`` has ended, and taken before ``before``: else a second run of a
job would start what the first one has stopped for its backups, and a run that waits would have
stopped it for all that time.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

from bakthat import models
from bakthat.conf import (
    Configuration,
    Job,
    JobSource,
    LoadedProfile,
    profile_in,
    read_configuration,
)
from bakthat.conf.job import JobCheck, JobDrill
from bakthat.errors import BakthatError, ConfigError, LockedError
from bakthat.hooks import Events
from bakthat.jobs.backup import back_up, lock_path, rotate_set_of, why_not_rotated
from bakthat.jobs.hooks import AFTER, BEFORE, ON_ERROR, id_of_job, outer_runs, run_hook, variables
from bakthat.jobs.preview import preview
from bakthat.jobs.reach import Reach
from bakthat.jobs.report import JobOutcome, JobReport, SourceReport
from bakthat.jobs.telling import error_of, named, tell, tell_error, telling
from bakthat.jobs.upkeep import check_due, check_set, drill_newest, due, problem_of, sets_of
from bakthat.operations.facts import CHECK, DRILL
from bakthat.operations.retention.operation import RetentionReport
from bakthat.session.session import Session
from bakthat.session.sets import BackupSet
from bakthat.system.locks import held
from bakthat.system.paths import PathLike
from bakthat.system.signals import held_back
from bakthat.system.streams import Progress
from bakthat.system.text import printable

log = logging.getLogger("bakthat")


def run_jobs(
    names: str | Sequence[str] = (),
    config: PathLike | None = None,
    *,
    wait: bool = False,
    dry_run: bool = False,
    on_source: Callable[[SourceReport], object] | None = None,
    on_job: Callable[[JobReport], object] | None = None,
    progress: Progress | None = None,
) -> list[JobReport]:
    """Run the jobs *names* of the configuration, by default all; return the report of each.

    The jobs run one after the other, in the order in which they are named, or written. *config* is
    the path of the only configuration file, by default those of this user. What fails stops neither
    the other sources of its job nor the other jobs: it is in the reports, in their ``problems``,
    and their ``outcome`` says how each job went. Nobody is asked for a password.

    A source on which another run is still going is left to it, and its outcome is "locked"; with
    *wait*, the job first waits for the end of that run. It does not wait for one in a command of
    which it is, and in a command of its own a job does not run. With *dry_run*, the reports say
    what would be done, no command runs, and nothing is stored. *on_source* is called with each
    source's report as soon as it is complete, *on_job* with that of each job. *progress* is as for
    :func:`bakthat.backup`.

    The commands ``after`` and ``on_error`` of a job run also when it is stopped by an exception
    such as KeyboardInterrupt, which is raised after that. Raises ConfigError when the configuration
    cannot be read, or has no such job.
    """
    configuration = read_configuration(config)
    reports = []
    reach = Reach()
    for name in _chosen(configuration, [names] if isinstance(names, str) else names):
        run = _JobRun(name, config, reach, wait=wait, on_source=on_source, progress=progress)
        stopped = None
        if dry_run:
            run.preview(configuration)
        else:
            stopped = run.run(configuration)
        reports.append(run.report)
        if on_job is not None:
            on_job(run.report)
        if stopped is not None:
            raise stopped
    return reports


def _chosen(configuration: Configuration, names: Sequence[str]) -> list[str]:
    """Return the names of the jobs to run, each once. Raises ConfigError."""
    if names:
        known = configuration.unchecked_jobs
        for name in names:
            if name not in known:
                configuration.job(name)  # raises ConfigError
        return list(dict.fromkeys(names))
    configuration.check_shape()
    if not configuration.unchecked_jobs:
        raise ConfigError(
            f"{printable(configuration.path)}: there are no jobs",
            hint="write them below 'jobs': a name, and its sources below that",
        )
    return list(configuration.unchecked_jobs)


class _JobRun:
    """One run of one job."""

    def __init__(
        self,
        name: str,
        config: PathLike | None,
        reach: Reach,
        *,
        wait: bool,
        on_source: Callable[[SourceReport], object] | None,
        progress: Progress | None,
    ) -> None:
        self.report = JobReport(name)
        self._config = config
        self._reach = reach
        self._wait = wait
        self._on_source = on_source
        self._progress = progress
        self._job: Job | None = None
        self._id = ""
        self._plugins: Sequence[Events] = ()
        self._session_id = str(uuid.uuid4())
        self._has_begun = False
        self._is_finishing = False
        self._has_run_on_error = False

    def run(self, configuration: Configuration) -> BaseException | None:
        """Run the job; return the exception that has stopped it, or None."""
        started = time.monotonic()
        stopped: BaseException | None = None
        with ExitStack() as locks:
            try:
                self._work(configuration, locks)
                stopped = self._finish(None, AFTER, ON_ERROR)
            except BaseException as exc:  # noqa: BLE001  # raised by the caller, after the rest
                stopped = exc
                self.report.problems.append(_error_of_stop(exc, self.report.job))
            # Not in the block above: there, the next signal would be taken for the second one.
            if not self._is_finishing:
                stopped = self._finish(stopped, AFTER, ON_ERROR)
        self.report.seconds = time.monotonic() - started
        if self._has_begun:
            try:
                with self._step("run", self.report.problems):
                    tell("on_run", self._plugins, self._session_id, self.report)
            except BaseException as exc:  # noqa: BLE001  # raised by the caller, as above
                stopped = stopped or exc
            stopped = self._finish(stopped, ON_ERROR)  # perhaps for a callback of on_run
        return stopped

    def preview(self, configuration: Configuration) -> None:
        """Find out what the job would do."""
        started = time.monotonic()
        try:
            job, loaded, session = self._prepare(configuration)
        except Exception as exc:  # noqa: BLE001  # the other jobs are looked at too
            self.report.problems.append(named(error_of(exc), self.report.job))
        else:
            preview(session, loaded, job, self.report)
        self.report.seconds = time.monotonic() - started

    def _prepare(self, configuration: Configuration) -> tuple[Job, LoadedProfile, Session]:
        name = self.report.job
        loaded_job = configuration.job(name)
        job, self._id = loaded_job.job, id_of_job(loaded_job)
        self._job = job
        self.report.sources = [SourceReport(name, each) for each in job.sources]
        lines = {BEFORE: job.before, AFTER: job.after, ON_ERROR: job.on_error}
        self.report.commands = {moment: len(each) for moment, each in lines.items()}
        loaded = profile_in(configuration, job.profile)
        if job.notify is not None:
            loaded = loaded.with_plugins(job.notify)
        loaded = replace(loaded, job=name)
        session = Session(job.profile, self._config, None, loaded=loaded)
        self._plugins = session.plugins
        return job, loaded, session

    def _refuse_own_command(self, configuration: Configuration) -> None:
        """Raise LockedError in a command of this job.

        As its command on_error, perhaps to try again, it would run on_error again, without end.
        """
        name = self.report.job
        own = id_of_job(configuration.job(name))
        process = next((each.process for each in outer_runs() if each.job == own), None)
        if process is not None:
            said = f"a run of this job, process {process}, has started this command"
            raise LockedError(
                f"{printable(name)}: {said}",
                hint="run the job after that",
            )

    def _work(self, configuration: Configuration, locks: ExitStack) -> None:
        problems = self.report.problems
        with self._step("run", problems):
            self._refuse_own_command(configuration)
            job, loaded, session = self._prepare(configuration)
        if problems:
            return
        with self._step("run", problems), ExitStack() as beginning:
            # Else two runs of a job that begin at once could each get some of its locks, and the
            # first to end would start what the other has stopped. One that waits gets all.
            if not self._wait:
                with suppress(BakthatError):  # which the locks of the sources say too
                    path = session.beside_catalog("locks") / "begin"
                    beginning.enter_context(held(path, wait=True, about="the beginning of a job"))
            self._take_locks(session, locks)
        if problems:
            return
        ready = [each for each in self.report.sources if not each.problems]
        locked = [each.problems[0] for each in self.report.sources if each.problems]
        if not ready:
            tell_error("run", self._plugins, locked[0])  # once, as of a job that has begun
            return
        self._has_begun = True
        with self._step("run", problems):
            tell("before_run", self._plugins, self._session_id)
        # Only now, since monitors are told of the whole job at its end, and of nothing in it.
        for problem in locked:
            tell_error("backup", self._plugins, problem)
        if problems:
            return
        with self._step("run", problems):
            for number in range(len(job.before)):
                self._run_hook(BEFORE, job.before, number)
        if problems:
            return
        for each in ready:
            self._back_up(job, session, each)
        sources = [each.source for each in ready if each.backups]
        if job.check is not None and sources:
            self._check(session, loaded, job.check, sources)
        if job.drill is not None and sources:
            self._drill(session, loaded, job.drill, sources)

    def _take_locks(self, session: Session, locks: ExitStack) -> None:
        """Take the locks of all sources that are free, or wait for all of them.

        Each run takes them in one order, so that no two of them wait for each other. Nobody is told
        yet of those that are locked.
        """
        outer = {each.process for each in outer_runs()}
        reports: dict[Path, list[SourceReport]] = {}
        for each in self.report.sources:
            reports.setdefault(lock_path(session, each.source), []).append(each)
        for path, of_path in sorted(reports.items()):
            for number, each in enumerate(of_path):
                with self._step("backup", each.problems, about=each.source.text, is_told=False):
                    if number and of_path[0].problems:
                        raise of_path[0].problems[0]
                    if not number:
                        about = each.source.text
                        lock = held(path, wait=self._wait, about=about, outer=outer)
                        locks.enter_context(lock)
                if each.problems:
                    self._say(each)

    def _back_up(self, job: Job, session: Session, report: SourceReport) -> None:
        about, loaded = report.source.text, session.loaded
        with self._step("backup", report.problems, report.backups, about=about):
            self._reach.check(session)
            back_up(loaded, job, report.source, self._progress)
        self._reach.note(session, report.problems)
        report.is_stored = bool(report.backups) and not report.problems
        for entry in report.backups if job.rotate else ():
            why = why_not_rotated(entry)
            if why:
                log.warning("%s is not rotated: %s", printable(entry.filename), why)
                continue
            rotation = RetentionReport()
            with self._step("rotate_backups", report.problems, about=about):
                rotate_set_of(loaded, entry, rotation)
            report.add_rotation(rotation)
        self._say(report)

    def _check(
        self, session: Session, loaded: LoadedProfile, how: JobCheck, sources: Sequence[JobSource]
    ) -> None:
        found: list[BackupSet] = []
        with self._step(CHECK, self.report.problems):
            found = check_due(sets_of(session, sources), how)
        # A check is of all sets of one name.
        for each in {each.name: each for each in found}.values():
            self.report.check_due.append(each.name)
            with self._step(CHECK, self.report.problems, about=printable(each.name)):
                results = check_set(loaded, each, how)
                self.report.checked += results
                problem = problem_of(results, each, loaded.name, self._config)
                if problem is not None:
                    raise problem

    def _drill(
        self, session: Session, loaded: LoadedProfile, how: JobDrill, sources: Sequence[JobSource]
    ) -> None:
        found: list[BackupSet] = []
        with self._step(DRILL, self.report.problems):
            found = due(sets_of(session, sources), DRILL, how.every)
        for each in found:
            self.report.drill_due.append(each.name)
            about = f"the drill of {printable(each.name)}"
            with self._step(DRILL, self.report.problems, about=about):
                self.report.drilled.append(drill_newest(loaded, each, how, sources))

    def _finish(self, stopped: BaseException | None, *moments: str) -> BaseException | None:
        """Run what belongs to the end of the job; return what has stopped it.

        Raises only a signal that arrives before it holds signals back for the first time.
        """
        job = self._job
        if job is None:
            return stopped
        step = held_back(
            f"finishing job '{printable(self.report.job)}'", mend="its last commands are ended then"
        )
        try:
            with step:
                self._is_finishing = True
                if AFTER in moments and self._has_begun:
                    self._run_all(AFTER, job.after)
                has_failed = self.report.outcome in (JobOutcome.FAILED, JobOutcome.LOCKED)
                if ON_ERROR in moments and has_failed and not self._has_run_on_error:
                    self._has_run_on_error = True
                    self._run_all(ON_ERROR, job.on_error)
        except BaseException as exc:  # raised by the caller: a held back signal
            if not self._is_finishing:
                raise
            if step.is_stopped:  # what ends one of its commands ends all
                self._has_run_on_error = True
            return stopped or exc
        return stopped

    def _run_all(self, moment: str, lines: Sequence[str]) -> None:
        """Run all commands of a moment, whatever one of them does."""
        for number in range(len(lines)):
            with self._step("run", self.report.problems):
                self._run_hook(moment, lines, number)

    def _run_hook(self, moment: str, lines: Sequence[str], number: int) -> None:
        run_hook(moment, lines, number, variables(moment, self.report, self._id))

    @contextmanager
    def _step(
        self,
        name: str,
        problems: list[BakthatError],
        made: list[models.Backups] | None = None,
        *,
        about: str = "",
        is_told: bool = True,
    ) -> Iterator[None]:
        """Add an exception of the block to *problems*, once it was told; let go on what follows.

        Its message there begins with the job, and with what it is *about* unless it names that.
        With *is_told* False, the caller tells it.
        """
        try:
            with telling(name, self._plugins, made) if is_told else nullcontext():
                yield
        except Exception as exc:  # noqa: BLE001  # one source must not stop the others
            problems.append(named(error_of(exc), self.report.job, about))

    def _say(self, report: SourceReport) -> None:
        if self._on_source is not None:
            self._on_source(report)


def _error_of_stop(exc: BaseException, job: str) -> BakthatError:
    what = "a signal" if isinstance(exc, KeyboardInterrupt) else type(exc).__name__
    return BakthatError(
        f"{printable(job)}: stopped by {what} before its end",
        hint="run it again for what is missing",
    )
