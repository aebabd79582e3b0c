"""Metrics of the last backup of each set, in a file for Prometheus' node_exporter."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bakthat.notify.base import Notifier, text
from bakthat.system.files import replace_file
from bakthat.system.paths import expanded
from bakthat.system.text import printable

if TYPE_CHECKING:
    from bakthat.models import Backups

LAST_SUCCESS = "bakthat_last_success_timestamp_seconds"
METRICS = {
    LAST_SUCCESS: "When the last complete backup of the set was recorded.",
    "bakthat_last_backup_timestamp_seconds": "When the last backup of the set was recorded.",
    "bakthat_duration_seconds": "How long the last backup of the set took.",
    "bakthat_stored_bytes": "Size of the last backup of the set, as stored.",
    "bakthat_source_bytes": "Size of the files in the last backup of the set.",
    "bakthat_warnings": "How many files of the last backup are missing or changed.",
}
_TEXT = r'"(?:[^"\\\n]|\\.)*"'
_SAMPLE = re.compile(rf'(\w+)(\{{set={_TEXT},destination="\w+"(?:,source={_TEXT})?\}}) [\d.e+-]+')


class Prometheus(Notifier):
    """Writes metrics by set; ``prometheus: {textfile: /…/bakthat.prom}``.

    The format is that of https://prometheus.io/docs/instrumenting/exposition_formats/. Several
    profiles and processes may write to the same file: the samples of other sets stay. No other
    program may write to it.
    """

    section = "prometheus"
    required: ClassVar = {"textfile": text}

    def listen(self) -> None:
        """Add callbacks for backups. Raises ConfigError."""
        self._path = str(expanded(self.settings["textfile"]))
        self._started: dict[str, float] = {}
        self.before_backup += self._begin
        self.on_backup += self._finish
        self.on_error += self._forget

    def _begin(self, session_id: str) -> None:
        self._started[session_id] = time.monotonic()

    def _forget(self, session_id: str, _operation: str, _exception: BaseException) -> None:
        self._started.pop(session_id, None)

    def _finish(self, session_id: str, backup: Backups) -> None:
        with self.failures_as_warnings():
            took = time.monotonic() - self._started.pop(session_id)
            now = int(time.time())
            values = (
                now,
                now,
                round(took, 3),
                backup.size,
                int(backup.metadata.get("bytes") or 0),
                backup.warning_count,
            )
            metrics: dict[str, float] = dict(zip(METRICS, values, strict=True))
            if not backup.is_complete:
                del metrics[LAST_SUCCESS]  # that of the last complete one stays
            _merge(self._path, _labels(backup), metrics)


def _labels(backup: Backups) -> str:
    """Return the labels of a set. Two sources of one name are two sets."""
    labels = f'set="{_escape(backup.filename)}",destination="{backup.backend}"'
    if backup.set_source:
        labels += f',source="{_escape(printable(backup.set_source))}"'
    return f"{{{labels}}}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _merge(path: str, labels: str, values: Mapping[str, float]) -> None:
    with _locked(os.path.dirname(path)):
        samples: dict[str, dict[str, float | str]] = {name: {} for name in METRICS}
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as known:
            for found in map(_SAMPLE.fullmatch, known.read().split("\n")):
                if found and found[1] in samples:
                    samples[found[1]][found[2]] = found[0].rpartition(" ")[2]
        for name, value in values.items():
            samples[name][labels] = value
        lines: list[str] = []
        for name, purpose in METRICS.items():
            lines += [f"# HELP {name} {purpose}", f"# TYPE {name} gauge"]
            lines += [f"{name}{each} {value}" for each, value in sorted(samples[name].items())]
        # Readable by the user of node_exporter, which reads *.prom; the temporary file has another
        # name.
        replace_file(Path(path), "".join(f"{line}\n" for line in lines).encode(), mode=0o644)


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Hold a lock on the directory, which leaves no lock file there."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
