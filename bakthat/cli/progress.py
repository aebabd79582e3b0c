"""The progress bar."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(
    label: str, *, counts_bytes: bool = True
) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar on a terminal; elsewhere give None, so that the percentages are logged.

    It counts bytes, or else things.
    """
    visible = logging.getLogger("bakthat").isEnabledFor(logging.INFO)
    if not (visible and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    counting = (
        (DownloadColumn(), TransferSpeedColumn()) if counts_bytes else (MofNCompleteColumn(),)
    )
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *counting,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(label, total=None)

    def show(done: int, total: int) -> None:
        bar.start()  # not before there is something to show: a password may be asked for first
        bar.update(task, completed=min(done, total), total=total)

    try:
        yield show
    finally:
        bar.stop()
