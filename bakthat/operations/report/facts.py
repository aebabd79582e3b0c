"""The facts of a report: what the catalog says of each backup, and what follows for its set.

Everything here is pure: no clock, no disk. Times are epoch seconds UTC, sizes bytes.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from bakthat import models
from bakthat.format.names import parse_any_name
from bakthat.operations.facts import CheckRecord, DrillRecord
from bakthat.policy.clock import is_overdue
from bakthat.policy.newest import CLOCK_TOLERANCE, is_in_the_future
from bakthat.policy.outcome import DELETED, GONE
from bakthat.system.text import counted

NOT_RECORDED = "not recorded"
"""Why an entry is marked as deleted that an earlier version marked."""
_Record = TypeVar("_Record", CheckRecord, DrillRecord)
_SHOWN_WARNINGS = 3
_LAST_DATE = 253402300799  # the end of the year 9999


@dataclass(frozen=True, slots=True)
class Deletion:
    """When a backup was deleted, and why."""

    date: int
    why: str
    """Such as "older than 30D"; :data:`NOT_RECORDED` where the entry does not say it."""


@dataclass(frozen=True, slots=True)
class BackupFacts:
    """What the catalog knows of one backup."""

    stored_filename: str
    date: int
    size: int
    """Bytes that were stored; -1 where that is not known."""
    files: int | None
    content: int | None
    """Bytes in the files that were backed up."""
    seconds: float | None
    """How long the backup took."""
    is_increment: bool
    encryption: str
    """Such as "age, public keys"; "none" for none."""
    warning_count: int
    warnings: tuple[str, ...]
    """The first warnings."""
    is_suspicious: bool
    deletion: Deletion | None
    check: CheckRecord | None
    drill: DrillRecord | None

    @property
    def stored(self) -> int:
        """The bytes that it takes, 0 where that is not known."""
        return max(self.size, 0)

    @property
    def is_incomplete(self) -> bool:
        """Whether a file is missing or not as it was. One warning is about a suspicious size."""
        return self.warning_count > self.is_suspicious

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {
            "stored_filename": self.stored_filename,
            "backup_date": self.date,
            "size": self.size,
            "files": self.files,
            "bytes": self.content,
            "seconds": self.seconds,
            "increment": self.is_increment,
            "encryption": self.encryption,
            "warning_count": self.warning_count,
            "warnings": list(self.warnings),
            "suspicious": self.is_suspicious,
            "deleted": None
            if self.deletion is None
            else {"date": self.deletion.date, "why": self.deletion.why},
            "check": None
            if self.check is None
            else {**self.check.as_dict(), "good": self.check.verdict.is_good},
            "drill": None
            if self.drill is None
            else {
                "date": self.drill.date,
                "passed": self.drill.passed,
                "problem": self.drill.problem,
            },
        }


@dataclass(frozen=True, slots=True)
class Gap:
    """A time between two backups that is longer than it may be."""

    begin: int
    """The date of the backup before it."""
    end: int | None
    """The date of the backup after it; None where there is none."""
    overdue: int
    """From when on a backup was overdue."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {"begin": self.begin, "end": self.end, "overdue": self.overdue}


class Problem(enum.StrEnum):
    """What is wrong with a set; the worst first."""

    NEVER = "never backed up"
    OVERDUE = "overdue"
    MISSED = "missed"
    DRILL_FAILED = "drill failed"
    CHECK_FAILED = "check failed"
    GONE = "gone"
    INCOMPLETE = "incomplete"
    SUSPICIOUS = "suspicious size"
    NOT_DRILLED = "not drilled"
    NOT_CHECKED = "not checked"
    FUTURE = "in the future"


@dataclass(frozen=True, slots=True)
class Period:
    """The period of a report."""

    begin: int
    end: int
    now: int
    """When the report was made; not before the end."""

    @property
    def last(self) -> int:
        """The last date of a backup in it: the clock of another host may be ahead of this one."""
        return self.end + CLOCK_TOLERANCE if self.end == self.now else self.end

    def __contains__(self, date: int) -> bool:
        return self.begin <= date <= self.last


@dataclass(frozen=True, slots=True)
class Expectations:
    """What a set is measured by. None is for what nothing is known of."""

    max_age: int | None = None
    """Seconds."""
    check_every: int | None = None
    drill_every: int | None = None
    is_expected: bool = False
    """Whether a job makes it."""


@dataclass(frozen=True)
class SetFacts:
    """What a report says about one set."""

    name: str
    host: str
    """"" when it is not known."""
    source: str
    """The path or URL that was backed up; "" where a name was given, or it is not known."""
    backend: str
    container: str
    jobs: tuple[str, ...]
    rotation: str
    """The rule in force, such as "7 daily"; "" for none."""
    is_rotated: bool
    """Whether a job rotates it."""
    expected: Expectations
    period: Period
    known: tuple[BackupFacts, ...] = field(repr=False)
    """All backups that the catalog knows, of any date, deleted ones too; the oldest first."""

    @cached_property
    def backups(self) -> list[BackupFacts]:
        """The backups of the period, the oldest first; those dated in the future come last."""
        return [each for each in self.known if each.date in self.period or self._is_future(each)]

    @cached_property
    def future(self) -> list[BackupFacts]:
        """The backups dated in the future, which show that a clock is or was wrong."""
        return [each for each in self.known if self._is_future(each)]

    @cached_property
    def deleted(self) -> list[BackupFacts]:
        """The backups that were deleted in the period, in that order."""
        found = [each for each in self.known if each.deletion and each.deletion.date in self.period]
        return sorted(found, key=lambda each: each.deletion.date if each.deletion else 0)

    @cached_property
    def checked(self) -> list[tuple[BackupFacts, CheckRecord]]:
        """The backups that were last checked in the period, in that order."""
        found = [(each, each.check) for each in self.known if each.check is not None]
        within = [(each, check) for each, check in found if check.date in self.period]
        return sorted(within, key=lambda pair: pair[1].date)

    @cached_property
    def drilled(self) -> list[tuple[BackupFacts, DrillRecord]]:
        """The backups that were last drilled in the period, in that order."""
        found = [(each, each.drill) for each in self.known if each.drill is not None]
        within = [(each, drill) for each, drill in found if drill.date in self.period]
        return sorted(within, key=lambda pair: pair[1].date)

    @cached_property
    def stored(self) -> list[BackupFacts]:
        """The backups that are stored at the end of the period."""
        return [
            each
            for each in self.known
            if (each.date <= self.period.last or self._is_future(each))
            and (each.deletion is None or each.deletion.date > self.period.end)
        ]

    @property
    def newest(self) -> int | None:
        """The date of the newest backup up to the end of the period."""
        return max(
            (each.date for each in self.known if each.date <= self.period.last), default=None
        )

    @cached_property
    def missed(self) -> list[Gap]:
        """The gaps that are longer than a backup may be old."""
        if self.expected.max_age is None:
            return []
        dates = [each.date for each in self.known if not self._is_future(each)]
        found = gaps(dates, self.expected.max_age, self.period)
        is_over = not (self.expected.is_expected or self.stored)
        return [each for each in found if not (is_over and each.end is None)]

    @property
    def longest_gap(self) -> int | None:
        """The longest time between two backups of which one is in the period; None without two."""
        dates = sorted(each.date for each in self.known if not self._is_future(each))
        return max(
            (b - a for a, b in itertools.pairwise(dates) if b >= self.period.begin), default=None
        )

    @cached_property
    def problems(self) -> dict[Problem, str]:
        """What is wrong, the worst first, each with a sentence for people."""
        return dict(sorted(_problems(self), key=lambda pair: list(Problem).index(pair[0])))

    def curve(self) -> list[tuple[int, int]]:
        """Return the bytes that are stored from each date on, from the beginning of the period."""
        begin, end = self.period.begin, self.period.end
        changes: list[tuple[int, int]] = []
        for each in self.known:
            made = min(each.date, self.period.now)
            changes.append((made, each.stored))
            if each.deletion is not None:
                changes.append((max(each.deletion.date, made), -each.stored))
        level = sum(change for date, change in changes if date < begin)
        points = [(begin, level)]
        # What is made comes before what is deleted in the same second.
        for date, change in sorted(changes, key=lambda each: (each[0], -each[1])):
            if begin <= date <= end:
                level += change
                points.append((date, level))
        return [*points, (end, level)]

    def _is_future(self, backup: BackupFacts) -> bool:
        return is_in_the_future(backup.date, self.period.now)

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as plain values."""
        return {
            "filename": self.name,
            "host": self.host,
            "source": self.source,
            "backend": self.backend,
            "container": self.container,
            "jobs": list(self.jobs),
            "max_age": self.expected.max_age,
            "rotation": self.rotation,
            "rotated_by_job": self.is_rotated,
            "good": not self.problems,
            "problems": [each.value for each in self.problems],
            "newest": self.newest,
            "stored_backups": len(self.stored),
            "stored": sum(each.stored for each in self.stored),
            "backups": [each.as_dict() for each in self.backups],
            "missed": [each.as_dict() for each in self.missed],
            "deleted": [each.as_dict() for each in self.deleted],
            "checked": [each.as_dict() for each, _ in self.checked],
            "drilled": [each.as_dict() for each, _ in self.drilled],
        }


@dataclass(frozen=True, slots=True)
class Report:
    """A report: its period, how it was made, and its sets by their names."""

    period: Period
    version: str
    """That of bakthat."""
    host: str
    """The host that made it."""
    catalogs: tuple[str, ...]
    profiles: tuple[str, ...]
    sets: tuple[SetFacts, ...]

    @property
    def good(self) -> int:
        """How many sets have no problem."""
        return sum(not each.problems for each in self.sets)


def facts_of(backup: models.Backups) -> BackupFacts:
    """Return the facts of an entry of the catalog. What is damaged in it is left out."""
    metadata = backup.metadata
    warnings = metadata.get("warnings")
    return BackupFacts(
        stored_filename=backup.stored_filename,
        date=_shown_date(backup.date),
        size=backup.size,
        files=_number(metadata, "files"),
        content=_number(metadata, "bytes"),
        seconds=_seconds(metadata.get("seconds")),
        is_increment=backup.is_increment,
        encryption=_encryption(backup),
        warning_count=backup.warning_count,
        warnings=tuple(map(str, warnings[:_SHOWN_WARNINGS])) if isinstance(warnings, list) else (),
        is_suspicious=backup.is_suspicious,
        deletion=_deletion(backup),
        check=_with_date(CheckRecord.of(metadata)),
        drill=_with_date(DrillRecord.of(metadata)),
    )


def gaps(dates: Iterable[int], max_age: int, period: Period) -> list[Gap]:
    """Return the gaps that are longer than *max_age* and overdue in the period, the oldest first.

    The last backup and the end of the period have a gap between them too. The time before the first
    backup is none: nothing says that there should have been one.
    """
    found = []
    ordered = sorted(set(dates))
    for begin, end in itertools.zip_longest(ordered, ordered[1:]):
        overdue = begin + max_age
        until = period.now if end is None else end
        if overdue < until and overdue < period.end and until >= period.begin:
            found.append(Gap(begin, end, overdue))
    return found


def _problems(found: SetFacts) -> Iterator[tuple[Problem, str]]:
    expected, period, backups = found.expected, found.period, found.backups
    if any(each.end is None or each.end > period.end for each in found.missed):
        yield Problem.OVERDUE, "the newest backup is older than it may be"
    elif expected.is_expected and not found.stored:
        never = "it was never backed up" if found.newest is None else "no backup of it is stored"
        yield Problem.NEVER, never
    closed = [each for each in found.missed if each.end is not None and each.end <= period.end]
    counts = {
        Problem.MISSED: (len(closed), "gap", "longer than a backup may be old"),
        Problem.DRILL_FAILED: (sum(not d.passed for _, d in found.drilled), "drill", "failed"),
        Problem.CHECK_FAILED: (
            sum(not c.verdict.is_good for _, c in found.checked),
            "check",
            "failed",
        ),
        Problem.GONE: (sum(_is_gone(each) for each in found.deleted), "backup", GONE),
        Problem.INCOMPLETE: (
            sum(each.is_incomplete for each in backups),
            "backup",
            "with missing or changed files",
        ),
        Problem.SUSPICIOUS: (
            sum(each.is_suspicious for each in backups),
            "backup",
            "of suspicious size",
        ),
        Problem.FUTURE: (len(found.future), "backup", "dated in the future"),
    }
    yield from (
        (problem, f"{counted(count, noun)} {rest}")
        for problem, (count, noun, rest) in counts.items()
        if count
    )
    if found.newest is None:
        return
    checks = [each.check.date for each in found.known if each.check]
    drills = [each.drill.date for each in found.known if each.drill]
    if _is_late(checks, expected.check_every, period):
        yield Problem.NOT_CHECKED, "no check in the interval that its job has"
    if _is_late(drills, expected.drill_every, period):
        yield Problem.NOT_DRILLED, "no drill in the interval that its job has"


def _is_gone(backup: BackupFacts) -> bool:
    return backup.deletion is not None and backup.deletion.why == GONE


def _is_late(dates: Iterable[int], every: int | None, period: Period) -> bool:
    if every is None:
        return False
    last = max((each for each in dates if each <= period.end), default=None)
    return is_overdue(last, every, period.end)


def _deletion(backup: models.Backups) -> Deletion | None:
    if not backup.is_deleted:
        return None
    recorded = _mapping(backup.metadata, DELETED)
    date = _number(recorded, "date")
    if date is None:
        return Deletion(_shown_date(backup.last_updated), NOT_RECORDED)
    return Deletion(date, str(recorded.get("why") or NOT_RECORDED))


def _shown_date(date: int) -> int:
    """Return the date of an entry, or the nearest that a calendar can show."""
    return min(max(date, 0), _LAST_DATE)


def _with_date(record: _Record | None) -> _Record | None:
    """Return a record of the catalog, None for one whose date no calendar can show."""
    return record if record is not None and 0 <= record.date <= _LAST_DATE else None


_ENCRYPTIONS = {"passphrase": "age, passphrase", "recipients": "age, public keys"}


def _encryption(backup: models.Backups) -> str:
    """Return how a backup is encrypted. Its name says whether, its description with what."""
    if not backup.is_encrypted:
        return "none"
    parsed = parse_any_name(backup.stored_filename)
    if parsed is not None and parsed.encryption == ".enc":
        return "Blowfish (0.6.0)"
    return _ENCRYPTIONS.get(str(backup.metadata.get("encryption")), "age")


def _mapping(metadata: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = metadata.get(key)
    return value if isinstance(value, dict) else {}


def _number(mapping: Mapping[str, Any], key: str) -> int | None:
    value = mapping.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= _LAST_DATE else None


def _seconds(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value <= _LAST_DATE else None
