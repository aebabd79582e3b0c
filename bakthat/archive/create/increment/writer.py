"""Write the archive of an increment by its plan."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from bakthat.archive.create.increment.later import LaterContent
from bakthat.archive.create.increment.plan import (
    DIRECTORY,
    LEAVE_OUT,
    LINK,
    REMOVE,
    SEEN,
    STORE,
    WARN,
    Before,
    Plan,
    Step,
    file_key,
    unpack_status,
)
from bakthat.archive.create.walk import Entry
from bakthat.archive.create.writer import TreeWriter, why_unread
from bakthat.archive.index.writer import Segment
from bakthat.archive.report import ArchiveReport
from bakthat.archive.tar.header import HeaderError
from bakthat.format.entry import Entry as IndexEntry
from bakthat.format.entry import EntryType
from bakthat.system.streams import LendingSink, Sink

DUMPDIR = b"GNU.dumpdir"
"""The keyword of the pax record by which GNU tar knows what a directory of an increment holds: of
each name a letter (``Y`` it is in this archive, ``N`` it is not, ``D`` a directory), the name and a
NUL; and a NUL at the end (GNU tar's manual, "Dumpdir")."""
MAX_DUMPDIR_BYTES = 512 * 1024
"""The longest such record: libarchive refuses archives with much longer headers."""


def write_increment(
    plan: Plan,
    root: Path,
    arcname: str,
    sink: Sink | LendingSink,
    *,
    report: ArchiveReport,
    later: LaterContent,
    on_bytes: Callable[[int], None] | None = None,
    on_segment: Callable[[Segment], object] | None = None,
    comment: str = "",
) -> int:
    """Write what *plan* says to *sink* as one whole PAX archive; return its bytes.

    A file that vanished or cannot be read any more keeps its earlier content in the state, and is a
    warning in *report*. If *later* has newer content of it, NewerContentError is raised, and if it
    was a link to what has changed, ChangedTargetError. The other arguments, and what else is
    raised, are those of :func:`~bakthat.archive.create.writer.write_tree`.
    """
    top = os.path.realpath(root)
    writer = _IncrementWriter(plan, top, arcname, sink, report, later, on_bytes, on_segment)
    if comment:
        writer.add_comment(comment)
    names, step = writer.names, Step("")
    report.current = lambda: (names.path(step.name), report.bytes)
    for step in plan.steps():
        writer.take(step)
        if names.are_wanted:
            writer.name(step)
    report.excluded_files = plan.totals.excluded_files
    report.excluded_directories = plan.totals.excluded_directories
    return writer.finish()


class _IncrementWriter(TreeWriter):
    """Writes the steps of a plan as the members of an archive, and the records of its index."""

    def __init__(
        self,
        plan: Plan,
        top: str,
        arcname: str,
        sink: Sink | LendingSink,
        report: ArchiveReport,
        later: LaterContent,
        on_bytes: Callable[[int], None] | None,
        on_segment: Callable[[Segment], object] | None,
    ) -> None:
        super().__init__(arcname, sink, report, on_bytes, on_segment)
        self._plan = plan
        self._top = top
        self._later = later
        self._left_out: set[str] = set()
        """The paths of files that have a step, and keep their earlier content all the same."""
        self._replaced: str | None = None
        """The last directory that vanished or is none any more, with a slash; None for none."""
        self._before: Before | None = None
        """What the parent's state has of the entry that is being written."""

    def take(self, step: Step) -> None:
        """Do one step."""
        if step.kind == LEAVE_OUT:
            return
        if step.kind == WARN:
            self._report.warn(step.reason)
            return
        path = os.path.join(self._top, step.name) if step.name else self._top
        entry = Entry(path, step.name, None)
        self._before = Before._make(step.before) if step.before is not None else None
        if step.kind == REMOVE:
            self._record_change(entry, EntryType.REMOVED)
        elif step.kind == SEEN:
            self._record_seen(entry, step.seen)
        else:
            try:
                self._write(step, entry)
            except HeaderError as exc:  # no byte of the member was written
                self.leave_out(entry, str(exc))

    def name(self, step: Step) -> None:
        """Say what was done by *step*."""
        if step.kind == LEAVE_OUT:
            self.names.left_out(step.name, step.reason)
        elif step.kind == REMOVE:
            self.names.say("removed", self.names.path(step.name))
        elif step.kind in (STORE, LINK, DIRECTORY):
            reason = step.reason
            if step.kind == DIRECTORY:
                reason, *_ = self._plan.directory(step.number) or ("",)
            done, why = ("new", "") if reason == "new" else ("changed", reason)
            self.names.say_if_counted(done, self.names.path(step.name), why)

    def add(self, entry: Entry) -> None:
        """Write the member of what was no directory, or warn that it is not stored."""
        if entry.stat is not None and stat.S_ISDIR(entry.stat.st_mode):
            self.leave_out(entry, "was replaced by a directory")
            return
        super().add(entry)

    def leave_out(self, entry: Entry, why: str) -> None:
        """Warn that *entry* is not stored; what the parent's state has of it stays, if it fits."""
        self._later.check(self._path(entry))
        before = self._before
        if before is None or before.is_directory:
            super().leave_out(entry, why)
            if before is not None:
                # By the listing of the directory above, tar removes the directory that was there.
                self._record_change(entry, EntryType.REMOVED)
            return
        self._warn(entry, f"{why}; its earlier content stays in the backup")
        self.names.left_out(entry.name, why)
        if before.target:
            self._plan.kept_targets.add(before.target)
            return
        self._left_out.add(self._path(entry))
        self._record_seen(entry, (0, 0, True))

    def finish(self) -> int:
        """Write the end of the archive. Raises ChangedTargetError."""
        arcname = self._arcname.decode("utf-8", "surrogateescape")
        self._plan.check_kept_targets(arcname, self._left_out)
        return super().finish()

    def _write(self, step: Step, entry: Entry) -> None:
        if step.kind == DIRECTORY:
            self._take_directory(step, entry)
            return
        if self._is_in_replaced(step.name):
            # By its path, something outside of the tree might be opened.
            self.leave_out(entry, "is in a directory that was replaced")
            return
        if step.kind == STORE and step.is_file:
            self.add(entry)
            return
        try:
            status = os.lstat(entry.path)
        except OSError as exc:
            self.leave_out(entry, why_unread(exc))
            return
        if step.kind == LINK and file_key(status) == step.key:
            holder = self._plan.holders.get(step.key)
            if holder is not None:
                self._take_link(entry, status, holder)
                return
        self.add(entry._replace(stat=status))

    def _take_link(self, entry: Entry, status: os.stat_result, holder: str) -> None:
        """Write another name of a file whose content an earlier archive has, unchanged."""
        if self._before is not None and self._before.target == holder:
            self._record_seen(entry, (status.st_ctime_ns, status.st_ino, False))
            return
        first = holder.encode("utf-8", "surrogateescape")
        self._put_hard_link(self._name(entry), status, first)

    def _take_directory(self, step: Step, entry: Entry) -> None:
        content = self._plan.directory(step.number)
        if content is None:
            return
        reason, listing, packed = content
        if not reason:
            self._record_seen(entry, listing)
            return
        try:
            status = os.lstat(entry.path)
            why = "" if stat.S_ISDIR(status.st_mode) else "is no directory any more"
        except OSError as exc:
            why = why_unread(exc)
        if self._is_in_replaced(step.name):
            why = "is in a directory that was replaced"
        elif why:
            self._replaced = f"{step.name}/" if step.name else ""
        if why:
            # What was removed of it is in its listing, so it must be there.
            status = unpack_status(packed)
            self._warn(entry, f"{why}; what of it could not be stored is as it was before")
        more = []
        if listing is not None and len(listing) <= MAX_DUMPDIR_BYTES:
            more.append((DUMPDIR, listing))
        self._add_directory(entry, self._name(entry), status, more, is_there=not why)

    def _is_in_replaced(self, name: str) -> bool:
        """Return whether a directory above *name* is another one than the one that was compared.

        Every directory with something to store has a step before that.
        """
        return self._replaced is not None and name.startswith(self._replaced)

    def _record_change(self, entry: Entry, type_: EntryType) -> None:
        self._recorder.add(
            IndexEntry(
                self._path(entry), type_, 0, 0, 0, 0, position=self._blocks.position, header_bytes=0
            )
        )

    def _record_seen(self, entry: Entry, seen: tuple[int, int, bool] | None) -> None:
        assert seen is not None
        assert self._before is not None
        ctime_ns, inode, is_stale = seen
        self._recorder.add(
            IndexEntry(
                self._path(entry),
                EntryType.SEEN,
                0,
                0,
                0,
                0,
                ctime_ns,
                inode,
                is_stale=is_stale,
                position=self._blocks.position,
                header_bytes=0,
                archive=self._before.archive,
            )
        )

    def _path(self, entry: Entry) -> str:
        return self._name(entry).decode("utf-8", "surrogateescape")
