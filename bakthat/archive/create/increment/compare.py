"""Compare the tree with the state of an earlier backup, and plan what an increment stores."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bakthat.archive.create.increment.decision import GONE, STALE, Decider
from bakthat.archive.create.increment.directory import ComparedDirectory
from bakthat.archive.create.increment.later import LaterContent
from bakthat.archive.create.increment.links import is_link_to_later
from bakthat.archive.create.increment.plan import (
    DIRECTORY,
    LEAVE_OUT,
    LINK,
    ONLY_MEMBER,
    REMOVE,
    SEEN,
    STORE,
    WARN,
    FileKey,
    Plan,
    Step,
    content_bytes,
    file_key,
    pack_before,
    tar_bytes,
)
from bakthat.archive.create.increment.rule import ChangeRule, metadata_change
from bakthat.archive.create.walk import (
    ENTRY_TYPES,
    Entry,
    Unread,
    WalkOptions,
    check_root,
    walk,
)
from bakthat.archive.create.writer import why_unread
from bakthat.archive.index.state import State
from bakthat.archive.report import ArchiveReport
from bakthat.format.entry import BLOCK, EntryType
from bakthat.format.entry import Entry as StateEntry
from bakthat.format.index.layout import USUAL_HEADER_BYTES
from bakthat.format.index.values import sort_key
from bakthat.system import file_log
from bakthat.system.text import from_native, printable, to_native

_FILE, _DIRECTORY, _HARDLINK = EntryType.FILE, EntryType.DIRECTORY, EntryType.HARDLINK
UNCHANGED, KEPT = "unchanged", "kept"
"""What :attr:`Comparison.explanation` says of what is not stored."""


class Comparison:
    """One comparison of a tree with *state*, which the caller closes.

    *newest* is the state of the newest backup where *state* is that of an older one.
    *explain* is a path below the root; :attr:`explanation` then says what was decided about it.
    """

    def __init__(
        self,
        root: Path,
        arcname: str,
        options: WalkOptions,
        state: State,
        rule: ChangeRule,
        *,
        newest: State | None = None,
        explain: str | None = None,
    ) -> None:
        self._root = root
        self._arcname = from_native(arcname)
        self._options = options
        self._state = state
        self._rule = rule
        self._later = LaterContent(newest, len(state.indexes))
        self._explain = explain
        self.explanation = ""
        self._plan = Plan()
        self._totals = self._plan.totals
        self._racy = [each.header.racy_ns for each in state.indexes]
        self._decider = Decider(rule, self._racy)
        self._levels: list[ComparedDirectory] = []
        self._kept: dict[str, list[str]] = {}
        """Names that could not be looked at, by the directory that they are in."""
        self._kept_paths: set[str] = set()
        """The paths in the archive of those, and of directories that could not be listed."""
        self._gone = ""
        """The path that was removed last, with a slash: what lies below it is gone with it."""
        self._undecided: dict[FileKey, int] = {}
        """Bytes of files with several names whose content may have to be stored."""

    def run(self) -> Plan:
        """Compare, and return the plan, which the caller closes.

        Raises SourceError when the root cannot be read, NewerContentError, CorruptIndexError and
        ArchiveError.
        """
        try:
            self._compare()
        except BaseException:
            self._plan.close()
            raise
        return self._plan

    def _compare(self) -> None:
        report = ArchiveReport()
        previous = self._state.entries()
        before = next(previous, None)
        arcname, levels, trusts_times = self._arcname, self._levels, self._rule.trusts_times
        device = self._trusted_device() if trusts_times else None
        racy, totals, lstat, is_regular = self._racy, self._totals, os.lstat, stat.S_ISREG
        unchanged = full_bytes = full_tar_bytes = 0
        on_left_out = self._leave_out if file_log.is_wanted() else None
        for entry in walk(
            self._root, self._options, report, on_unread=self._unread, on_left_out=on_left_out
        ):
            path, name, status = entry
            full = f"{arcname}/{from_native(name)}" if name else arcname
            while before is not None and before.path != full:
                if sort_key(before.path) > sort_key(full):
                    break
                self._missing(before)
                before = next(previous, None)
            found = None
            if before is not None and before.path == full:
                found, before = before, next(previous, None)
            parent, _, leaf = name.rpartition("/")
            while levels and levels[-1].name != parent:
                self._leave()
            if status is None:
                try:
                    status = lstat(path)
                except OSError as exc:
                    self._cannot_look(entry, exc)
                    if found is not None:
                        self._missing(found)
                    continue
            # This is for nearly every file, so it comes first, and looks up as little as it can.
            if (
                found is not None
                and found.type is _FILE
                and status.st_dev == device
                and status.st_ctime_ns == found.ctime_ns
                and status.st_mtime_ns == found.mtime_ns
                and status.st_size == found.size
                and status.st_ino == found.inode
                and status.st_nlink == 1
                and is_regular(status.st_mode)
                and status.st_ctime_ns < racy[found.read]
                and status.st_mtime_ns < racy[found.read]
                and not found.is_volatile
                and not found.is_stale
                and name != self._explain
            ):
                if levels:
                    levels[-1].names.append(leaf)
                unchanged += 1
                stored = found.stored_bytes
                full_bytes += stored
                full_tar_bytes += found.header_bytes + stored + -stored % BLOCK
                continue
            self._entry(entry, status, full, leaf, found)
        while before is not None:
            self._missing(before)
            before = next(previous, None)
        while levels:
            self._leave()
        totals.unchanged += unchanged
        totals.full_bytes += full_bytes
        totals.full_tar_bytes += full_tar_bytes
        for key, size in self._undecided.items():
            if key not in self._plan.holders:
                self._count_stored(size)
        totals.excluded_files = report.excluded_files
        totals.excluded_directories = report.excluded_directories

    def _trusted_device(self) -> int | None:
        """Return the device of the root; None if that is in memory. Others are looked at later."""
        _, status = check_root(self._root)
        return None if status.st_dev in self._rule.memory_devices else status.st_dev

    def _entry(
        self,
        entry: Entry,
        status: os.stat_result,
        full: str,
        leaf: str,
        found: StateEntry | None,
    ) -> None:
        """Decide about any entry, and add its steps to the plan."""
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            self._directory(entry, status, full, leaf, found)
            return
        type_ = ENTRY_TYPES.get(kind)
        if type_ is None:
            what = "a socket" if kind == stat.S_IFSOCK else "of an unknown kind"
            self._warn(f"{printable(entry.path)}: is {what}; it is not stored")
            if file_log.is_wanted():
                self._leave_out(entry.name, what)
            if found is not None:
                self._remove(full)
            return
        if found is not None and found.type is _DIRECTORY:
            self._gone = f"{full}/"  # what this entry replaces goes with it
        size = content_bytes(entry.path, status, found)
        key = file_key(status)
        is_counted = key in self._plan.holders or key in self._undecided
        self._totals.full_tar_bytes += tar_bytes(0 if is_counted else size)
        self._totals.full_bytes += 0 if is_counted else size
        if self._levels:
            self._levels[-1].names.append(leaf)
        decision, seen, problem = self._decider.decide(entry, status, type_, found)
        if problem:
            self._keep(entry, full, problem)
        if decision == GONE:  # it vanished
            if self._levels:
                self._levels[-1].names.pop()
            if found is not None:
                self._remove(full)
            return
        if decision == STALE:
            self._totals.kept += 1
        else:
            if status.st_nlink > 1:
                if not self._is_alone(full, key, found, decision):
                    self._link(entry, status, leaf, found, decision)
                    return
            elif found is not None and found.type is _HARDLINK:
                decision = decision or "it has only one name now"
        self._say(entry.name, KEPT if decision == STALE else decision or UNCHANGED)
        if not decision or decision == STALE:
            self._totals.unchanged += 1
            if seen is not None and found is not None:
                self._see(entry.name, found, seen)
            return
        self._store(entry, leaf, decision, found, is_file=type_ is _FILE)
        self._count_stored(size)

    def _is_alone(self, full: str, key: FileKey, found: StateEntry | None, decision: str) -> bool:
        """Return whether a name of a file with several needs nothing: not even a link.

        The first name that has the content unchanged holds it, and other names are links to it.
        """
        if decision or found is None:
            return False
        holder = self._plan.holders.get(key)
        if found.type is _HARDLINK and holder is None:
            known = self._root, self._state, self._rule, self._racy
            is_link = is_link_to_later(full, found.target, key, *known)
            if is_link:
                self._plan.kept_targets.add(found.target)
            return is_link
        if found.type is _HARDLINK:
            return holder == found.target
        if holder is None:
            self._plan.holders[key] = full
        return holder is None

    def _link(
        self,
        entry: Entry,
        status: os.stat_result,
        leaf: str,
        found: StateEntry | None,
        decision: str,
    ) -> None:
        """Plan a name of a file with several, as a link to the name that holds the content.

        That one may still come. Without it, the first name gets the content.
        """
        key = file_key(status)
        reason = decision or "its links changed"
        self._say(entry.name, reason)
        self._plan.add(
            Step(
                LINK,
                entry.name,
                reason,
                pack_before(found),
                key,
                is_file=stat.S_ISREG(status.st_mode),
            )
        )
        if self._levels:
            level = self._levels[-1]
            level.stored.add(leaf)
            level.changed = level.changed or "an entry in it is stored"
        if key not in self._plan.holders:
            self._undecided[key] = content_bytes(entry.path, status, found)
        self._totals.stored += 1
        self._totals.tar_bytes += USUAL_HEADER_BYTES

    def _directory(
        self,
        entry: Entry,
        status: os.stat_result,
        full: str,
        leaf: str,
        found: StateEntry | None,
    ) -> None:
        if self._levels:
            self._levels[-1].names.append(leaf)
            self._levels[-1].directories.add(leaf)
        number = self._plan.new_directory()
        level = ComparedDirectory(entry.name, status, number)
        if found is None or found.type is not _DIRECTORY:
            level.reason = "new" if found is None else "another type"
        else:
            level.reason = metadata_change(status, found)
            if not level.reason and not self._rule.has_same_times(status, found):
                if self._decider.attributes_digest(entry, status) != found.attributes:
                    level.reason = "its attributes changed"
                level.is_seen = not level.reason
        self._levels.append(level)
        self._plan.add(Step(DIRECTORY, entry.name, "", pack_before(found), number=number))
        self._totals.full_tar_bytes += USUAL_HEADER_BYTES
        self._totals.full_directories += 1

    def _leave(self) -> None:
        """Decide about a directory when all of its entries were compared."""
        level = self._levels.pop()
        kept = self._kept.pop(level.name, [])
        reason = level.reason or level.changed
        self._say(level.name, reason or UNCHANGED)
        is_only_member = not (reason or self._levels)
        if reason or is_only_member:
            listing = level.listing(kept) if level.is_complete else None
            why = reason or ONLY_MEMBER
            self._plan.store_directory(level.number, why, listing, level.status)
            self._totals.stored_directories += bool(reason)
            self._totals.tar_bytes += USUAL_HEADER_BYTES + len(listing or b"") + BLOCK
            if self._levels:
                above = self._levels[-1]
                above.changed = above.changed or "an entry in it is stored"
        elif level.is_seen:
            self._plan.see_directory(level.number, level.status)

    def _missing(self, found: StateEntry) -> None:
        """Decide about what the parent's state has and the tree has not."""
        path = found.path
        if self._gone and path.startswith(self._gone):
            return
        if self._kept_paths and self._is_kept(path):
            self._count_kept(found)
            self._say(to_native(path.partition("/")[2]), KEPT)
            if found.type is _FILE:
                self._see(to_native(path.partition("/")[2]), found, (0, 0, True))
            elif found.type is _HARDLINK:
                self._plan.kept_targets.add(found.target)
            return
        self._remove(path)

    def _remove(self, path: str) -> None:
        self._gone = f"{path}/"
        self._plan.add(Step(REMOVE, to_native(path.partition("/")[2]), "removed"))
        self._totals.removed += 1
        parent = path.partition("/")[2].rpartition("/")[0]
        for level in reversed(self._levels):
            if from_native(level.name) == parent:
                level.changed = level.changed or "an entry of it was removed"
                break
        self._say(to_native(path.partition("/")[2]), "removed")

    def _is_kept(self, path: str) -> bool:
        while path:
            if path in self._kept_paths:
                return True
            path = path.rpartition("/")[0]
        return False

    def _unread(self, problem: Unread) -> None:
        """Keep what could not be looked at as the parent has it."""
        if problem.is_gone:
            return
        full = f"{self._arcname}/{from_native(problem.name)}" if problem.name else self._arcname
        self._later.check_all(full)
        self._kept_paths.add(full)
        if problem.is_listing:
            self._levels[-1].is_complete = False
        else:
            parent, _, leaf = problem.name.rpartition("/")
            self._kept.setdefault(parent, []).append(leaf)
        what = f"{problem.why}; what it had before stays in the backup"
        self._warn(f"{printable(problem.path)}: {what}")

    def _cannot_look(self, entry: Entry, error: OSError) -> None:
        gone = isinstance(error, FileNotFoundError)
        self._unread(Unread(entry.path, entry.name, why_unread(error), "it is", is_gone=gone))
        if file_log.is_wanted():
            self._leave_out(entry.name, why_unread(error))

    def _keep(self, entry: Entry, full: str, why: str) -> None:
        """Keep the earlier content of a file that cannot be read now."""
        self._later.check(full)
        self._warn(f"{printable(entry.path)}: {why}; its earlier content stays in the backup")
        if file_log.is_wanted():
            self._leave_out(entry.name, why)

    def _see(self, name: str, found: StateEntry, seen: tuple[int, int, bool]) -> None:
        self._totals.seen += 1
        self._plan.add(Step(SEEN, name, before=pack_before(found), seen=seen))

    def _store(
        self, entry: Entry, leaf: str, reason: str, found: StateEntry | None, *, is_file: bool
    ) -> None:
        self._plan.add(Step(STORE, entry.name, reason, pack_before(found), is_file=is_file))
        if self._levels:
            level = self._levels[-1]
            level.stored.add(leaf)
            level.changed = level.changed or "an entry in it is stored"
        self._totals.stored += 1

    def _count_kept(self, found: StateEntry) -> None:
        """Count what stays as the parent has it, though it cannot be looked at."""
        totals = self._totals
        totals.kept += 1
        if found.type is _DIRECTORY:
            totals.full_directories += 1
        else:
            totals.unchanged += 1
        stored = found.stored_bytes
        totals.full_bytes += stored
        totals.full_tar_bytes += found.header_bytes + stored + -stored % BLOCK

    def _count_stored(self, size: int) -> None:
        self._totals.stored_bytes += size
        self._totals.tar_bytes += tar_bytes(size)

    def _leave_out(self, name: str, why: str) -> None:
        self._plan.add(Step(LEAVE_OUT, name, why))

    def _warn(self, text: str) -> None:
        self._totals.warnings += 1
        self._plan.add(Step(WARN, reason=text))

    def _say(self, name: str, decision: str) -> None:
        if name == self._explain:
            self.explanation = decision
