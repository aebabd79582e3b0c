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
from bakthat.notify.exposition import (
    DURATION,
    LAST_BACKUP,
    LAST_SUCCESS,
    SOURCE_BYTES,
    STORED_BYTES,
    WARNINGS,
    exposition,
    labels,
)
from bakthat.system.files import replace_file
from bakthat.system.paths import expanded

if TYPE_CHECKING:
    from bakthat.models import Backups

METRICS = (LAST_SUCCESS, LAST_BACKUP, DURATION, STORED_BYTES, SOURCE_BYTES, WARNINGS)
"""What is known when a backup ends."""
_TEXT = r'"(?:[^"\\\n]|\\.)*"'
_SAMPLE = re.compile(
    rf'(\w+)(\{{set={_TEXT},host={_TEXT},destination="\w+"(?:,source={_TEXT})?\}}) [\d.e+-]+'
)


class Prometheus(Notifier):
    """Writes metrics by set; ``prometheus: {textfile: /…/bakthat.prom}``.

    Several profiles and processes may write to the same file: the samples of other sets stay. No
    other program may write to it.
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
            _merge(
                self._path,
                labels(backup.filename, self.host, backup.backend, backup.set_source),
                metrics,
            )


def _merge(path: str, of_set: str, values: Mapping[str, float]) -> None:
    with _locked(os.path.dirname(path)):
        samples: dict[str, dict[str, float | str]] = {name: {} for name in METRICS}
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as known:
            for found in map(_SAMPLE.fullmatch, known.read().split("\n")):
                if found and found[1] in samples:
                    samples[found[1]][found[2]] = found[0].rpartition(" ")[2]
        for name, value in values.items():
            samples[name][of_set] = value
        # Readable by the user of node_exporter, which reads *.prom; the temporary file has another
        # name.
        replace_file(Path(path), exposition(samples).encode(), mode=0o644)


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
