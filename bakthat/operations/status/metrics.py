"""How the sets are, as metrics for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from bakthat.notify import exposition
from bakthat.operations.status.set_status import SetStatus


def as_metrics(statuses: Iterable[SetStatus]) -> str:
    """Return *statuses* in the text format of Prometheus. What is not known has no sample.

    Of two sets that differ only in their container, the label ``profile`` tells them apart. Where
    nothing does, the samples are those of the worst: a good one must not hide it.
    """
    statuses = sorted(statuses, key=_badness)
    counts = Counter(map(_labels, statuses))
    by_labels = {
        _labels(each, each.profile if counts[_labels(each)] > 1 else ""): each for each in statuses
    }
    samples: dict[str, dict[str, float | str]] = {name: {} for name in exposition.HELP}
    for labels, each in by_labels.items():
        values = {
            exposition.LAST_SUCCESS: each.last_success,
            exposition.LAST_BACKUP: each.last_backup,
            exposition.DURATION: each.seconds,
            exposition.STORED_BYTES: each.size,
            exposition.SOURCE_BYTES: each.content,
            exposition.WARNINGS: each.warnings,
            exposition.BACKUPS: each.backups,
            exposition.MAX_AGE: each.max_age,
            exposition.LAST_CHECK: None if each.check is None else each.check.date,
            exposition.LAST_DRILL: None if each.drill is None else each.drill.date,
            exposition.DRILL_PASSED: None if each.drill is None else int(each.drill.passed),
            exposition.PROBLEMS: _problems(each),
        }
        for name, value in values.items():
            if value is not None:
                samples[name][labels] = value
    return exposition.exposition(samples)


def _badness(status: SetStatus) -> tuple[int, int]:
    """Return the key by which sets are ordered, the worst last."""
    return _problems(status), -(status.last_success or 0)


def _problems(status: SetStatus) -> int:
    return sum(each.is_problem for each in status.findings)


def _labels(status: SetStatus, profile: str = "") -> str:
    return exposition.labels(
        status.name, status.host, status.backend, status.source, profile=profile
    )
