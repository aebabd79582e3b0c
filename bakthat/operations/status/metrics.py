"""How the sets are, as metrics for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from bakthat.notify import exposition
from bakthat.operations.status.set_status import SetStatus


def as_metrics(statuses: Iterable[SetStatus]) -> str:
    """Return *statuses* in the text format of Prometheus. What is not known has no sample.

    Of two sets that differ only in their container, the label ``profile`` tells them apart.
    """
    statuses = list(statuses)
    counts = Counter(map(_labels, statuses))
    samples: dict[str, dict[str, float | str]] = {name: {} for name in exposition.HELP}
    for each in statuses:
        labels = _labels(each)
        if counts[labels] > 1:
            labels = _labels(each, each.profile)
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
            exposition.PROBLEMS: sum(finding.is_problem for finding in each.findings),
        }
        for name, value in values.items():
            if value is not None:
                samples[name][labels] = value
    return exposition.exposition(samples)


def _labels(status: SetStatus, profile: str = "") -> str:
    return exposition.labels(
        status.name, status.host, status.backend, status.source, profile=profile
    )
