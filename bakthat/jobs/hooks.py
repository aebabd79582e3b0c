"""The commands that a job runs before it, after it, and when something has failed."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from bakthat.conf import LoadedJob
from bakthat.errors import HookError
from bakthat.jobs.report import JobOutcome, JobReport
from bakthat.system.programs import RunningProgram, shell_program
from bakthat.system.text import printable, reason_of, shortage_error

log = logging.getLogger("bakthat")

BEFORE, AFTER, ON_ERROR = "before", "after", "on_error"

_RUN = "BAKTHAT_RUN"
_MOST_BYTES = 64 * 1024
"""Of the lines of one variable. The system takes no variable above 128 KiB, and the later lines of
a list are missed less than the command."""


class OuterRun(NamedTuple):
    """A run in one of whose commands this process is."""

    process: int
    job: str
    """What :func:`id_of_job` returned."""


def outer_runs() -> tuple[OuterRun, ...]:
    """Return the runs in whose commands this process is, the outermost first.

    A program that a command has left running keeps the variable: a run that has ended is none.
    """
    found = (each.partition(":") for each in os.environ.get(_RUN, "").split())
    runs = (OuterRun(int(process), job) for process, _, job in found if process.isdecimal())
    return tuple(each for each in runs if _is_running(each.process))


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user, by sudo
        return True
    return True


def id_of_job(job: LoadedJob) -> str:
    """Return what identifies a job for the commands of its run."""
    file = job.place.rpartition(":")[0]
    return hashlib.sha256(f"{file}\0{job.name}".encode(errors="surrogateescape")).hexdigest()[:12]


def variables(moment: str, report: JobReport, job: str) -> dict[str, str]:
    """Return what the commands of a *moment* of the *job*, an id, get in their environment.

    :data:`bakthat.conf.HOOK_VARIABLES` describes it.
    """
    runs = (*outer_runs(), OuterRun(os.getpid(), job))
    found = {
        "BAKTHAT_JOB": printable(report.job),
        "BAKTHAT_HOOK": moment,
        _RUN: " ".join(f"{each.process}:{each.job}" for each in runs),
        "BAKTHAT_SOURCES": _lines(each.source.text for each in report.sources),
    }
    if moment == BEFORE:
        return found
    failed = report.sources_that(JobOutcome.FAILED, JobOutcome.LOCKED)
    error = next((str(each) for each in report.all_problems), "")
    return found | {
        "BAKTHAT_RESULT": report.outcome.value,
        "BAKTHAT_ERROR": _lines([printable(error)]),
        "BAKTHAT_FAILED_SOURCES": _lines(each.text for each in failed),
        "BAKTHAT_SETS": _lines(printable(each.filename) for each in report.backups),
        "BAKTHAT_STORED_FILENAMES": _lines(
            printable(each.stored_filename) for each in report.backups
        ),
        "BAKTHAT_SIZES": _lines(str(each.size) for each in report.backups),
    }


def run_hook(
    moment: str, lines: Sequence[str], number: int, environment: Mapping[str, str]
) -> None:
    """Run one of the *lines* of a *moment*, by its *number* from 0 on, in a shell.

    Its output is logged as that of every program, and what it leaves in the background is ended
    with it. Raises HookError when it fails; the line, which may hold a secret, is not quoted.
    """
    job = environment["BAKTHAT_JOB"]
    which = f"command {number + 1} of '{moment}'" if len(lines) > 1 else f"the command '{moment}'"
    try:
        program = replace(shell_program(lines[number]), name=moment, environment=environment)
        with RunningProgram(program) as running:
            ended = running.wait()
            if running.has_left():
                log.warning(
                    "%s: %s has left a program running, which is ended now: start a service by its "
                    "manager, or by setsid with its output in a file",
                    job,
                    which,
                )
    except OSError as exc:
        shortage = shortage_error(exc)
        raise HookError(
            f"{job}: {which} cannot be run: {reason_of(exc)}",
            hint="write a long line into a file, and let the job run that"
            if shortage is None
            else shortage.hint,
        ) from exc
    if not ended.succeeded:
        raise HookError(
            f"{job}: {which} {ended.problem()}",
            hint="run it in a shell to see what is wrong"
            if moment != BEFORE
            else "nothing was stored; run it in a shell to see what is wrong",
        )


def _lines(values: Iterable[str]) -> str:
    """Return lines without the end of the last one, as many as a variable can hold."""
    lines, size = [], 0
    for each in values:
        size += len(each.encode(errors="replace")) + 1
        if size > _MOST_BYTES:
            break
        lines.append(each)
    return "\n".join(lines)
