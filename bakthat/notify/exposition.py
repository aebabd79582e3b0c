"""Metrics in the text format of Prometheus: their names and labels, and how they are written.

The format is that of https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from __future__ import annotations

from collections.abc import Mapping

from bakthat.system.text import printable

LAST_SUCCESS = "bakthat_last_success_timestamp_seconds"
LAST_BACKUP = "bakthat_last_backup_timestamp_seconds"
DURATION = "bakthat_duration_seconds"
STORED_BYTES = "bakthat_stored_bytes"
SOURCE_BYTES = "bakthat_source_bytes"
WARNINGS = "bakthat_warnings"
BACKUPS = "bakthat_backups"
MAX_AGE = "bakthat_max_age_seconds"
LAST_CHECK = "bakthat_last_check_timestamp_seconds"
LAST_DRILL = "bakthat_last_drill_timestamp_seconds"
DRILL_PASSED = "bakthat_last_drill_passed"
PROBLEMS = "bakthat_problems"

HELP = {
    LAST_SUCCESS: "When the last complete backup of the set was made.",
    LAST_BACKUP: "When the last backup of the set was made.",
    DURATION: "How long the last backup of the set took.",
    STORED_BYTES: "Size of the last backup of the set, as stored.",
    SOURCE_BYTES: "Size of the files in the last backup of the set.",
    WARNINGS: "How many files of the last backup are missing or changed.",
    BACKUPS: "How many backups the set has.",
    MAX_AGE: "The age from which on the last backup of the set is too old.",
    LAST_CHECK: "When a backup of the set was last checked.",
    LAST_DRILL: "When a backup of the set was last drilled.",
    DRILL_PASSED: "Whether the last drill of the set has passed.",
    PROBLEMS: "How many things are wrong with the set.",
}
"""What each metric means. All are gauges."""

Samples = Mapping[str, Mapping[str, float | str]]
"""For each metric, the value by the labels of a set."""


def labels(name: str, host: str, destination: str, source: str, *, profile: str = "") -> str:
    """Return the labels of a set; *source* and *profile* may be "".

    Two sources of one name are two sets.
    """
    pairs = {"set": name, "host": host, "destination": destination}
    pairs |= {key: value for key, value in (("source", source), ("profile", profile)) if value}
    inside = ",".join(f'{key}="{_escape(value)}"' for key, value in pairs.items())
    return f"{{{inside}}}"


def exposition(samples: Samples) -> str:
    """Return metrics as text; those without a sample are left out."""
    lines: list[str] = []
    for name, by_labels in samples.items():
        if by_labels:
            lines += [f"# HELP {name} {HELP[name]}", f"# TYPE {name} gauge"]
            lines += [f"{name}{each} {value}" for each, value in sorted(by_labels.items())]
    return "".join(f"{line}\n" for line in lines)


def _escape(value: str) -> str:
    value = printable(value)  # the words of a stored name may be anybody's
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
