"""What is wrong with a set. Everything here is pure: no clock, no disk."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bakthat.operations.facts import CheckRecord, Verdict
from bakthat.operations.status.set_status import SetStatus
from bakthat.policy.clock import is_overdue
from bakthat.policy.finding import Finding, problem
from bakthat.policy.newest import is_in_the_future
from bakthat.system.text import counted, human_size, printable, utc_time

AGE, SIZE, WARNINGS, CHECK, DRILL, DATE = "age", "size", "warnings", "check", "drill", "date"
"""The topics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What the findings about a set need besides its status."""

    now: int
    check_every: int | None = None
    """Seconds; None where no job checks it."""
    drill_every: int | None = None
    future: Sequence[str] = ()
    """The stored filenames of the backups dated in the future, the newest first."""
    failed: Sequence[tuple[str, CheckRecord]] = ()
    """Stored filename and record of each backup whose last check has found a problem."""
    stored_size: int | None = None
    """The size that the newest backup had when it was stored, where the storage knows it."""
    first_warning: str = ""
    lacks: Sequence[int] = ()
    """The dates of the backups that the newest one, an increment, needs and that are not there."""
    skips_unchanged: bool = False
    """Whether no backup is made where nothing has changed."""
    options: str = ""
    """Those by which a command of a hint finds the set, such as "-p second"; "" for none."""
    config: str = ""
    """The option that names the configuration; "" for the default one."""

    def command(self, name: str, status: SetStatus) -> str:
        """Return a command about a set as it is typed."""
        words = ("bakthat", name, self.options, self.config, _word(status.name))
        return " ".join(filter(None, words))


def findings_of(status: SetStatus, looked: Looked) -> tuple[Finding, ...]:
    """Return what is wrong with a set, what matters most first."""
    return tuple(finding for each in _RULES for finding in each(status, looked))


def lost_finding(stored_filename: str) -> Finding:
    """Return the finding about a set of whose newest backups the storage has none that it lists."""
    return problem(
        SIZE,
        f"the storage lists {printable(stored_filename)}, but does not have it, nor the others of "
        "the newest",
        "the storage has lost them: look at its own log, and back up again",
    )


def describe_age(seconds: int) -> str:
    """Return an age for people, in its two largest units: ``26 h``, ``3 d 4 h``, ``12 min``."""
    minutes = max(seconds, 0) // 60
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    if hours < 48:
        return f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days < 14 and hours else f"{days} d"


def _word(name: str) -> str:
    """Return a name as a word for a shell."""
    return shlex.quote(printable(name))


_SKIP_HINT = (
    "its profile has skip_unchanged, so there is no newer one while nothing changes: leave that "
    "out, or max_age"
)


def _run_hint(status: SetStatus, looked: Looked) -> str:
    if not status.jobs:
        return ""
    command = " ".join(filter(None, ("bakthat run", looked.config, _word(status.jobs[0]))))
    return f"{command} makes the next one, or says what fails"


def _too_old(status: SetStatus, looked: Looked) -> Iterator[Finding]:
    if status.last_backup is None:
        job = printable(status.jobs[0]) if status.jobs else ""
        made_by = f": the job {job} should make it" if job else ""
        yield problem(AGE, f"never backed up{made_by}", _run_hint(status, looked))
    elif (
        status.max_age is not None
        and status.age is not None
        and status.age > status.max_age
        and not is_in_the_future(status.last_backup, looked.now)
    ):
        yield problem(
            AGE,
            f"too old: the newest backup is {describe_age(status.age)} old, more than "
            f"{describe_age(status.max_age)}",
            _SKIP_HINT if looked.skips_unchanged else _run_hint(status, looked),
        )


def _dated_in_the_future(status: SetStatus, looked: Looked) -> Iterator[Finding]:
    if looked.future:
        first = printable(looked.future[0])
        count = counted(len(looked.future), "backup")
        are = "is" if len(looked.future) == 1 else "are"
        yield problem(
            DATE,
            f"{count} {are} dated in the future, since a clock is or was wrong: {first}",
            "set the clock of that host; rotation keeps such a backup until bakthat delete",
        )


def _size(status: SetStatus, looked: Looked) -> Iterator[Finding]:
    if status.is_suspicious:
        usual = f", and {human_size(status.usual_size)} are usual" if status.usual_size else ""
        size = "an unknown size" if status.size is None else human_size(status.size)
        yield problem(
            SIZE,
            f"suspicious: the newest backup has {size}{usual}",
            "look at what makes it; rotation keeps the newest of a usual size",
        )
    if looked.stored_size not in (None, status.size):
        yield problem(
            SIZE,
            f"{printable(status.stored_filename)} has {status.size} bytes, but "
            f"{looked.stored_size} were stored: it was replaced or truncated",
            "restore another backup: bakthat show lists them",
        )


def _incomplete(status: SetStatus, looked: Looked) -> Iterator[Finding]:
    count = (status.warnings or 0) - status.is_suspicious
    if count > 0:
        first = f", the first is: {printable(looked.first_warning)}" if looked.first_warning else ""
        yield problem(
            WARNINGS,
            f"incomplete: the newest backup has {counted(count, 'warning')}{first}",
            "each is about a file that is missing, or not as it was",
        )


def _broken(status: SetStatus, looked: Looked) -> Iterator[Finding]:
    if looked.lacks:
        are = "is" if len(looked.lacks) == 1 else "are"
        yield problem(
            CHECK,
            f"the newest backup cannot be restored as a whole: it is an increment, and "
            f"{counted(len(looked.lacks), 'backup')} that it needs {are} not there, the first of "
            f"{utc_time(looked.lacks[0])} UTC",
            f"{looked.command(CHECK, status)} says which can be restored; a backup with --full "
            "needs no other",
        )


def _check(status: SetStatus, looked: Looked) -> Iterator[Finding]:
    if looked.failed:
        stored, record = looked.failed[0]
        detail = f": {printable(record.detail)}" if record.detail else ""
        count = counted(len(looked.failed), "backup")
        command = "check --read-data" if record.verdict is Verdict.DAMAGED else "check"
        yield problem(
            CHECK,
            f"{count} failed the last check, the first is {printable(stored)}: "
            f"{record.verdict.value}{detail}",
            f"{looked.command(command, status)} looks again",
        )
    if looked.check_every is not None:
        last = None if status.check is None else status.check.date
        command = looked.command(CHECK, status)
        yield from _overdue(CHECK, "checked", last, looked.check_every, looked.now, command)


def _drill(status: SetStatus, looked: Looked) -> Iterator[Finding]:
    command = looked.command(DRILL, status)
    if status.drill is not None and not status.drill.passed:
        why = f": {printable(status.drill.problem)}" if status.drill.problem else ""
        yield problem(DRILL, f"the last drill failed{why}", f"{command} tries again")
    if looked.drill_every is not None:
        last = None if status.drill is None else status.drill.date
        yield from _overdue(DRILL, "drilled", last, looked.drill_every, looked.now, command)


def _overdue(
    topic: str, done: str, last: int | None, every: int, now: int, command: str
) -> Iterator[Finding]:
    """Yield the finding that a check or a drill was never done, or too long ago."""
    if not is_overdue(last, every, now):
        return
    detail = f"never {done}" if last is None else f"last {done} {describe_age(now - last)} ago"
    said = f"{detail}, and its job says each {describe_age(every)}"
    yield problem(topic, said, f"{command} does it now")


_RULES: Sequence[Callable[[SetStatus, Looked], Iterator[Finding]]] = (
    _too_old,
    _dated_in_the_future,
    _size,
    _incomplete,
    _broken,
    _check,
    _drill,
)
