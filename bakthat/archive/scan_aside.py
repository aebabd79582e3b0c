"""Scan a tree in a process of its own, while this one gets ready to back it up."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from bakthat.archive.walk import Scan, WalkOptions, check_root, scan
from bakthat.interrupts import SIGNALS, held_back

_ORPHAN_SECONDS = 1.0
"""How often the process looks whether anybody still waits for it."""


@contextlib.contextmanager
def scan_aside(root: Path, options: WalkOptions) -> Iterator[Callable[[], Scan]]:
    """Begin what :func:`~bakthat.archive.walk.scan` does; the function that is yielded waits for
    the result and returns it.

    The scan goes on in a forked process, which uses a core that loading boto3 leaves idle. Only
    where this process has a single thread, since a fork would take along whatever lock another
    one holds; anywhere else, and when anything goes wrong, the function scans by itself. No
    process is left when the block ends. Raises SourceError, here and from the function.
    """
    check_root(root)
    child = _fork(root, options) if _is_single_threaded() else None
    if child is None:
        yield lambda: scan(root, options)
        return
    try:
        yield lambda: child.result() or scan(root, options)
    finally:
        with held_back():
            child.end()


def _is_single_threaded() -> bool:
    try:
        # All threads, those of libraries too, which Python does not know.
        return sys.platform == "linux" and len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


class _Child:
    """The process that scans."""

    def __init__(self, process: int, results: int) -> None:
        self._process = process
        self._results = results

    def result(self) -> Scan | None:
        """Wait for what it counted; None when it ended without."""
        text = b"".join(iter(lambda: os.read(self._results, 4096), b""))
        try:
            return Scan(**json.loads(text))
        except (TypeError, ValueError):
            return None

    def end(self) -> None:
        """End it, whether or not it is done."""
        os.close(self._results)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGKILL)
        # Somebody else may wait for all children of this process.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._process, 0)


def _fork(root: Path, options: WalkOptions) -> _Child | None:
    parent = os.getpid()
    results, target = os.pipe()
    try:
        with held_back():
            process = os.fork()
            if not process:
                _scan_and_exit(root, options, target, parent)
    except OSError:  # no memory, or too many processes
        os.close(results)
        return None
    finally:
        os.close(target)
    return _Child(process, results)


def _scan_and_exit(root: Path, options: WalkOptions, target: int, parent: int) -> NoReturn:
    """Do the work of the forked process, and never return into what was forked."""
    try:
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)

        def look(*_: object) -> None:
            if os.getppid() != parent:
                os._exit(1)

        signal.signal(signal.SIGALRM, look)
        signal.setitimer(signal.ITIMER_REAL, _ORPHAN_SECONDS, _ORPHAN_SECONDS)
        os.write(target, json.dumps(asdict(scan(root, options))).encode())
    finally:
        os._exit(0)
