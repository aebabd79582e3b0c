"""Scan a tree in a process of its own, while this one gets ready to back it up."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from bakthat.archive.forked import Forked, may_fork
from bakthat.archive.walk import Scan, WalkOptions, check_root, scan


@contextlib.contextmanager
def scan_aside(root: Path, options: WalkOptions) -> Iterator[Callable[[], Scan]]:
    """Begin what :func:`~bakthat.archive.walk.scan` does; the function that is yielded waits for
    the result and returns it.

    The scan goes on in a forked process, which uses a core that loading boto3 leaves idle. Where
    this process may not fork, and when anything goes wrong, the function scans by itself. No
    process is left when the block ends. Raises SourceError, here and from the function.
    """
    check_root(root)
    results, target = os.pipe()
    child = None
    try:
        if may_fork():
            with contextlib.suppress(OSError):  # no memory, or too many processes
                child = Forked(lambda: _report(target, scan(root, options)))
        os.close(target)
        target = -1
        yield lambda: _read(results) or scan(root, options)
    finally:
        if child is not None:
            child.end()
        os.close(results)
        if target >= 0:
            os.close(target)


def _report(target: int, counted: Scan) -> None:
    os.write(target, json.dumps(asdict(counted)).encode())


def _read(results: int) -> Scan | None:
    """Wait for what was counted; None when the process ended without, or there is none."""
    text = b"".join(iter(lambda: os.read(results, 4096), b""))
    try:
        return Scan(**json.loads(text))
    except (TypeError, ValueError):
        return None
