"""The progress bar."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bakthat.cli import output

if TYPE_CHECKING:
    from bakthat.system.streams import Progress


@contextmanager
def progress_bar(label: str, *, counts_bytes: bool = True) -> Iterator[Progress | None]:
    """Show a progress bar on a terminal; elsewhere yield None, so that percentages are logged.

    The bar counts bytes or, with *counts_bytes* False, objects.
    """
    if output.is_quiet() or not sys.stderr.isatty():
        yield None
        return
    # Imported here: it takes a tenth of a second, and only a terminal needs it.
    from rich import progress
    from rich.console import Console

    counting = (
        (progress.DownloadColumn(), progress.TransferSpeedColumn())
        if counts_bytes
        else (progress.MofNCompleteColumn(),)
    )
    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        *counting,
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(label, total=None)

    def show(done: int, total: int) -> None:
        bar.start()  # not earlier, since a password may be asked for first
        bar.update(task, completed=min(done, total), total=total)

    try:
        yield show
    finally:
        bar.stop()
