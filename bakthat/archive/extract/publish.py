"""Move the restored files from the staging directory into the destination: all of them or none.

All conflicts are found and all moves are planned before the first change. Replaced files stay in
the staging directory until the last move is done, so that a failure or an interrupt can be undone.
Symbolic links are not followed.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from bakthat.archive.extract.metadata import DirectoryState
from bakthat.archive.extract.staging import (
    DIRECTORY_FLAGS,
    Staging,
    exists,
    folds_names,
    is_directory,
    names_in,
    open_private,
)
from bakthat.archive.extract.tree import PathSet
from bakthat.archive.report import ArchiveReport
from bakthat.errors import DestinationError
from bakthat.system.signals import held_back
from bakthat.system.text import quoted, reason_of

logger = logging.getLogger("bakthat.archive")

_MOVE_BY_HAND = "restore to an empty directory and move the files by hand"


@dataclass(slots=True)
class _Merge:
    """A directory that exists in the destination, and the entries that move into it."""

    path: list[bytes]
    before: DirectoryState
    after: DirectoryState | None
    """None for the destination itself and for directories that the archive only implies."""
    fresh: list[bytes] = field(default_factory=list)
    replacing: list[bytes] = field(default_factory=list)


def publish(staging: Staging, implied_directories: PathSet, report: ArchiveReport) -> list[Path]:
    """Move everything from the tree of *staging* into its destination.

    Directories merge, files and links replace files and links. The *implied_directories* give no
    metadata to existing ones; *report* takes warnings. Returns the paths that are now at the top
    of the destination. Raises DestinationError; after any exception, the destination is as it was.
    """
    publication = _Publication(staging, implied_directories, report)
    # A second interrupt must not stop the undo that follows the first.
    with held_back() as interrupts:
        try:
            publication.plan()
            publication.move(interrupts.check)
            publication.check_all_moved()
        except OSError as exc:
            from bakthat.system import disks  # only needed here

            failure = DestinationError(
                f"cannot write {publication.current_path}: {reason_of(exc)}",
                # A mount of the same file system, or a directory with a quota of its own.
                hint=_MOVE_BY_HAND if exc.errno == errno.EXDEV else disks.hint_of(exc),
            )
            publication.undo()
            raise failure from exc
        except BaseException:
            publication.undo()
            raise
        staging.published = True
    return [staging.destination / os.fsdecode(name) for name in publication.top]


class _Publication:
    def __init__(
        self, staging: Staging, implied_directories: PathSet, report: ArchiveReport
    ) -> None:
        self._staging = staging
        self._implied_directories = implied_directories
        self._report = report
        self._merges: list[_Merge] = []
        self._moving = False
        self.top: list[bytes] = []
        self._path: list[bytes] = []

    @property
    def current_path(self) -> str:
        """The path being processed, for error messages."""
        return quoted(os.path.join(os.fsencode(self._staging.destination), *self._path))

    def plan(self) -> None:
        """Plan all moves, without a change. Raises DestinationError if any move is impossible."""
        waiting: list[list[bytes]] = [[]]
        while waiting:
            path = waiting.pop()
            self._path = path
            staged, before = self._open_staged(path)
            try:
                target = self._open_target(path)
                try:
                    merge = self._plan_directory(path, staged, target, before)
                    waiting += self._plan_entries(merge, staged, target)
                finally:
                    os.close(target)
            finally:
                os.close(staged)
            self._merges.append(merge)
        top = self._merges[0]
        self.top = sorted({*self.top, *top.fresh, *top.replacing})

    def _plan_directory(
        self, path: list[bytes], staged: int, target: int, staged_before: os.stat_result
    ) -> _Merge:
        if os.fstat(target).st_dev != os.fstat(staged).st_dev:
            raise DestinationError(
                f"{self.current_path} is on another file system than the destination",
                hint=_MOVE_BY_HAND,
            )
        is_member = path and path not in self._implied_directories
        before = DirectoryState.of(target)
        after = DirectoryState.of(staged, staged_before) if is_member else None
        keeps_owners = self._staging.file_system.owners
        if after is not None and (os.geteuid() != 0 or not keeps_owners):
            # Everything in staging belongs to one user, so keep the existing owner.
            after = replace(after, uid=before.uid, gid=before.gid)
        return _Merge(path, before, after)

    def _plan_entries(self, merge: _Merge, staged: int, target: int) -> list[list[bytes]]:
        """Add the entries that move to *merge*; return the paths of directories that merge."""
        inner = []
        names = [os.fsencode(name) for name in names_in(staged)]
        for name in names:
            self._path = [*merge.path, name]
            new = os.stat(name, dir_fd=staged, follow_symlinks=False).st_mode
            try:
                old = os.stat(name, dir_fd=target, follow_symlinks=False).st_mode
            except FileNotFoundError:
                merge.fresh.append(name)
                continue
            if stat.S_ISDIR(new) and stat.S_ISDIR(old):
                inner.append(self._path)
            elif stat.S_ISDIR(new) and not stat.S_ISLNK(old):
                raise self._conflict(f"cannot put a directory at {self.current_path}: it is a file")
            elif stat.S_ISDIR(old) and not self._is_empty(name, target):
                problem = "it is a directory with content"
                raise self._conflict(f"cannot put a file at {self.current_path}: {problem}")
            else:
                merge.replacing.append(name)
        if not merge.path:
            self.top = [path[0] for path in inner]
        self._path = merge.path
        if merge.fresh or merge.replacing:
            self._check_rights(merge, target)
            self._check_spellings(names, target)
        return inner

    def _conflict(self, problem: str) -> DestinationError:
        hint = "restore to an empty directory, or move what is there out of the way"
        return DestinationError(problem, hint=hint)

    def _is_empty(self, name: bytes, parent: int) -> bool:
        fd = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
        try:
            return not os.listdir(fd)  # a new descriptor; see names_in
        finally:
            os.close(fd)

    def _check_rights(self, merge: _Merge, target: int) -> None:
        mine = merge.before.uid == os.geteuid()
        if not mine and not os.access(".", os.W_OK | os.X_OK, dir_fd=target, effective_ids=True):
            raise DestinationError(
                f"cannot write {self.current_path}: permission denied",
                hint="restore to another directory, or as a user who may write there",
            )

    def _check_spellings(self, names: list[bytes], target: int) -> None:
        folded = Counter(_folded(name) for name in names)
        if folded and max(folded.values()) > 1 and folds_names(target):
            alike = [name for name in names if folded[_folded(name)] > 1]
            raise DestinationError(
                f"{quoted(alike[0])} and another file for {self.current_path} differ only "
                "in case or Unicode form, which that directory does not keep apart",
                hint="restore to another directory",
            )

    def move(self, check: Callable[[], None]) -> None:
        """Carry the plan out; *check* is called between the moves and may raise."""
        self._moving = True
        for index, merge in enumerate(self._merges):
            if merge.fresh or merge.replacing:
                self._move_directory(index, merge, check)
        for merge in reversed(self._merges):
            self._path = merge.path
            check()
            self._finish_directory(merge)

    def check_all_moved(self) -> None:
        """Raise DestinationError if the staging tree is not empty after the moves.

        ``rmdir`` decides, because a listing may omit entries, and an omitted entry was not moved.
        """
        removed = []
        try:
            for merge in reversed(self._merges):  # the inner ones first
                self._remove_staged(merge.path)
                removed.append(merge.path)
        except OSError as exc:
            for path in reversed(removed):
                self._make_staged(path)  # or nothing could be moved back
            self._path = []
            self._staging.keep("the restored files that could not be moved into place")
            raise DestinationError(
                f"not everything could be moved into {self.current_path}: {reason_of(exc)}",
                hint="restore to a directory on another file system; the restored files were kept",
            ) from exc

    def _remove_staged(self, path: list[bytes]) -> None:
        if not path:
            self._staging.remove_tree()
            return
        parent, _ = self._open_staged(path[:-1])
        try:
            os.rmdir(path[-1], dir_fd=parent)
        finally:
            os.close(parent)

    def _make_staged(self, path: list[bytes]) -> None:
        parent, _ = self._open_staged(path[:-1])
        try:
            os.mkdir(path[-1], 0o700, dir_fd=parent)
        finally:
            os.close(parent)

    def _move_directory(self, index: int, merge: _Merge, check: Callable[[], None]) -> None:
        self._path = merge.path
        staged, _ = self._open_staged(merge.path)
        target = self._open_target(merge.path)
        replaced = -1
        try:
            if merge.before.mode & 0o300 != 0o300 and os.geteuid() != 0:
                os.fchmod(target, merge.before.mode | 0o300)
            if merge.replacing:
                replaced = self._open_replaced(index)
            for name in merge.replacing:
                self._path = [*merge.path, name]
                check()
                _keep_replaced(name, staged, target, replaced)
                _rename(name, staged, target)
            for name in merge.fresh:
                self._path = [*merge.path, name]
                check()
                _rename(name, staged, target)
        finally:
            for fd in (staged, target, replaced):
                if fd >= 0:
                    os.close(fd)

    def _finish_directory(self, merge: _Merge) -> None:
        target = self._open_target(merge.path)
        try:
            if merge.after is not None:
                merge.after.apply(target, self._warn, exactly=False)
            elif os.fstat(target).st_mode & 0o7777 != merge.before.mode:
                os.fchmod(target, merge.before.mode)
        finally:
            os.close(target)

    def _warn(self, what: str, error: OSError) -> None:
        if what == "time" and not self._staging.file_system.times:
            return  # the caller warned of that once
        self._report.warn(f"cannot restore the {what} of {self.current_path}: {reason_of(error)}")

    def undo(self) -> None:
        """Bring the destination back to its state before the moves.

        It checks where each file is now, and so works after an interrupt at any moment. Failures
        are logged, and the files concerned stay in the staging directory.
        """
        if not self._moving:
            return
        for index, merge in reversed(list(enumerate(self._merges))):
            self._path = merge.path
            try:
                self._undo_directory(index, merge)
            except OSError as exc:
                self._staging.keep("the files that could not be put back")
                logger.error(
                    "cannot undo the restore into %s: %s", self.current_path, reason_of(exc)
                )

    def _undo_directory(self, index: int, merge: _Merge) -> None:
        staged, _ = self._open_staged(merge.path)
        target = self._open_target(merge.path)
        replaced = -1
        try:
            if os.fstat(target).st_mode & 0o300 != 0o300 and os.geteuid() != 0:
                os.fchmod(target, merge.before.mode | 0o300)
            if merge.replacing:
                replaced = self._open_replaced(index)
            for name in (*merge.fresh, *merge.replacing):
                if not exists(name, staged):
                    _rename(name, target, staged)
            for name in merge.replacing:
                if exists(name, replaced):
                    _rename(name, replaced, target)
            merge.before.apply(target, self._warn, exactly=True)
        finally:
            for fd in (staged, target, replaced):
                if fd >= 0:
                    os.close(fd)

    def _open_staged(self, path: list[bytes]) -> tuple[int, os.stat_result]:
        fd = os.dup(self._staging.tree_fd)
        before = os.fstat(fd)
        for name in path:
            try:
                inner, before = open_private(name, fd)
            finally:
                os.close(fd)
            fd = inner
        return fd, before

    def _open_target(self, path: list[bytes]) -> int:
        fd = os.dup(self._staging.destination_fd)
        for name in path:
            try:
                inner = os.open(name, DIRECTORY_FLAGS, dir_fd=fd)
            finally:
                os.close(fd)
            fd = inner
        return fd

    def _open_replaced(self, index: int) -> int:
        name = str(index)
        if not exists(name, self._staging.replaced_fd):
            os.mkdir(name, 0o700, dir_fd=self._staging.replaced_fd)
        return open_private(name, self._staging.replaced_fd)[0]


def _keep_replaced(name: bytes, staged: int, target: int, replaced: int) -> None:
    """Save the old file. Use a hard link where possible, so that its name never disappears."""
    # A rename replaces a file with a file, but neither a directory with a file nor the reverse.
    if not (is_directory(name, staged) or is_directory(name, target)):
        try:
            os.link(name, name, src_dir_fd=target, dst_dir_fd=replaced, follow_symlinks=False)
        except OSError:
            pass  # a file system without hard links, or a file that this user may not link
        else:
            return
    try:
        _rename(name, target, replaced)
    except OSError as exc:
        if exc.errno != errno.EXDEV or not is_directory(name, target):
            raise
        _make_again(name, target, replaced)


def _make_again(name: bytes, source: int, target: int) -> None:
    """Make the empty directory *name* of *source* in *target*, and remove it from *source*.

    For an overlay, which cannot rename a directory of its lower layer.
    """
    old = os.open(name, DIRECTORY_FLAGS, dir_fd=source)
    try:
        os.mkdir(name, 0o700, dir_fd=target)
        new = os.open(name, DIRECTORY_FLAGS, dir_fd=target)
        try:
            DirectoryState.of(old).apply(new, _raise, exactly=True)
        finally:
            os.close(new)
    finally:
        os.close(old)
    os.rmdir(name, dir_fd=source)


def _raise(_what: str, error: OSError) -> None:
    raise error


def _rename(name: bytes, source: int, target: int) -> None:
    try:
        os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
    except PermissionError:
        # Moving a directory changes its "..", so the user must be able to write to it. The mode is
        # set by descriptor, because others may be able to replace an entry of *target*.
        fd = os.open(name, DIRECTORY_FLAGS, dir_fd=source)
        try:
            mode = os.fstat(fd).st_mode & 0o7777
            os.fchmod(fd, 0o700)
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
            os.fchmod(fd, mode)
        finally:
            os.close(fd)


def _folded(name: bytes) -> str:
    return unicodedata.normalize("NFD", os.fsdecode(name)).casefold()
