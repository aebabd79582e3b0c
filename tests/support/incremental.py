"""A directory of which increments are made, and what is stored and read for them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import bakthat
from bakthat import models
from bakthat.archive.create import digest, worker
from bakthat.archive.create.increment import decision
from tests.support.profiles import Conf
from tests.support.trees import fingerprint

DAY = 86400
BALLAST = "ballast"
_RACY = (
    "bakthat.operations.backup.parent.racy_seconds",
    "bakthat.operations.backup.facts.racy_seconds",
)


class Tracked:
    """The directory *tree*, its backups, and a clock that is set."""

    def __init__(self, tree: Path, conf: Conf, *, ballast: int = 100_000) -> None:
        self.tree = tree
        self.conf = {**conf, "incremental": True}
        self.moment: float | None = None
        """What the clock says, in epoch seconds; None for the real one."""
        (tree / BALLAST).write_bytes(os.urandom(ballast))  # an increment is small beside it

    def back_up(self, **options: Any) -> models.Backups:
        """Make a backup."""
        with contextlib.ExitStack() as stack:
            if self.moment is not None:
                stack.enter_context(mock.patch.object(time, "time", return_value=self.moment))
            return bakthat.backup(self.tree, conf=self.conf, password="", **options)

    def explanation(self, name: str) -> str:
        """Return what a dry run says about a path below the tree."""
        path = str(self.tree / name)
        preview = bakthat.preview_backup(self.tree, conf=self.conf, password="", why=path)
        preview.close()
        return preview.report.explanation

    def members(self, entry: models.Backups) -> dict[str, tarfile.TarInfo]:
        """Return what the archive of a backup has but its root, by the paths below that."""
        path = Path(self.conf["local_path"], entry.stored_filename)
        with tarfile.open(path, errorlevel=2) as archive:
            found = archive.getmembers()
        return {each.name.partition("/")[2]: each for each in found if "/" in each.name}

    def restore(self, entry: models.Backups, out: Path) -> Path:
        """Restore a backup into *out*; return what was restored."""
        bakthat.restore(entry.stored_filename, conf=self.conf, output=out, password="")
        (top,) = out.iterdir()
        return top

    def state(self, entry: models.Backups) -> dict[bytes, Any]:
        """Restore a backup, and return what it is."""
        out = self.tree.parent / "restored"
        found = fingerprint(self.restore(entry, out))
        shutil.rmtree(out)
        return found

    def content(self, entry: models.Backups, name: str) -> bytes | None:
        """Restore a backup, and return the content of a file; None where there is none."""
        out = self.tree.parent / "restored"
        path = self.restore(entry, out) / name
        found = path.read_bytes() if path.is_file() else None
        shutil.rmtree(out)
        return found


@contextlib.contextmanager
def long_after() -> Iterator[None]:
    """Let the tree count as edited long before the backups, so that its times are trusted."""
    with contextlib.ExitStack() as stack:
        for name in _RACY:
            stack.enter_context(mock.patch(name, return_value=0))
        stack.enter_context(  # of a temporary directory in memory, no time would be trusted
            mock.patch("bakthat.operations.backup.parent.memory_devices", return_value=frozenset())
        )
        yield


@contextlib.contextmanager
def noting_what_is_read() -> Iterator[list[str]]:
    """Yield the names of the files that are read only to compare them, while they are."""
    read: list[str] = []
    real = digest.open_file

    def open_file(path: str) -> int:
        read.append(os.path.basename(path))
        return real(path)

    with (
        mock.patch.object(decision, "open_file", open_file),
        mock.patch.object(worker, "may_fork", return_value=False),  # so that this process reads
    ):
        yield read
