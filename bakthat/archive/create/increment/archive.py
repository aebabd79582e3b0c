"""The archive of a tree that is compared with an earlier backup: an increment, or a full.

It is a module of its own, since a backup without increments does not load it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bakthat.archive.create.content import SegmentReceiver, TreeArchive
from bakthat.archive.create.increment.compare import Comparison
from bakthat.archive.create.increment.later import LaterContent
from bakthat.archive.create.increment.plan import Plan
from bakthat.archive.create.increment.rule import ChangeRule
from bakthat.archive.create.increment.writer import write_increment
from bakthat.archive.create.walk import Scan, WalkOptions
from bakthat.archive.index.state import State
from bakthat.archive.report import ArchiveReport
from bakthat.system.streams import ByteCounter, LendingSink, Sink


@dataclass(frozen=True, slots=True)
class Basis:
    """What a tree is compared with."""

    state: State
    """The state of the parent, which the caller closes."""
    rule: ChangeRule
    newest: State | None = None
    """The state of the newest backup, unless that is the parent; the caller closes it."""


class ComparedArchive(TreeArchive):
    """The archive of a tree that is compared with *basis*: an increment, or a full all the same."""

    def __init__(self, root: Path, arcname: str, options: WalkOptions, basis: Basis) -> None:
        super().__init__(root, arcname, options)
        self._basis = basis
        self._plan: Plan | None = None
        self._is_increment = False

    def count(self) -> Scan:
        """Compare the tree; see :meth:`BackupContent.count`."""
        basis = self._basis
        comparison = Comparison(
            self.root, self.arcname, self.options, basis.state, basis.rule, newest=basis.newest
        )
        self._plan = comparison.run()
        self.totals = totals = self._plan.totals
        return Scan(totals.full_files, totals.full_directories, totals.full_bytes)

    def begin(self, identity: str, *, increment: bool = False, is_followed: bool = False) -> None:
        """Keep *identity* and what to write for :meth:`write`."""
        super().begin(identity)
        self._is_increment = increment

    def write(
        self,
        sink: Sink | LendingSink,
        *,
        report: ArchiveReport,
        on_bytes: ByteCounter,
        on_segment: SegmentReceiver,
    ) -> int:
        """Write the archive to *sink*. Raises NewerContentError too."""
        if not (self._is_increment and self._plan is not None):
            return super().write(sink, report=report, on_bytes=on_bytes, on_segment=on_segment)
        return write_increment(
            self._plan,
            self.root,
            self.arcname,
            sink,
            report=report,
            later=LaterContent(self._basis.newest, len(self._basis.state.indexes)),
            on_bytes=on_bytes,
            on_segment=on_segment,
            comment=self._identity,
        )

    def close(self) -> None:
        """Remove the temporary files of the plan."""
        if self._plan is not None:
            self._plan.close()
