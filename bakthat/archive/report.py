"""The result of writing or restoring an archive: counts and warnings."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from bakthat.system import file_log
from bakthat.system.text import from_native, printable

logger = logging.getLogger("bakthat.archive")

KEPT_WARNINGS = 100
"""The most warnings whose text a report and the catalog keep; more are only counted and logged."""


@dataclass
class ArchiveReport:
    """Counts of members, and warnings about those that were not stored or restored exactly."""

    files: int = 0
    """Members that are not directories: files, links, FIFOs and devices."""
    directories: int = 0
    bytes: int = 0
    """Bytes of file content that were stored or restored, without the holes of sparse files."""
    excluded_files: int = 0
    """Entries that the options of the walk left out and that are not directories."""
    excluded_directories: int = 0
    """Directories that were left out. They were not entered: what is below them is not counted."""
    sha256: str = ""
    """The SHA-256 of a file that was stored unchanged, in hex; "" for an archive."""
    warnings: list[str] = field(default_factory=list)
    """The first :data:`KEPT_WARNINGS` warnings, one line each."""
    warning_count: int = 0
    seconds: float = 0.0
    """How long the content took to store or restore, without questions and a thaw."""
    current: Callable[[], tuple[str, int]] | None = field(default=None, repr=False, compare=False)
    """Returns the path in the archive that is stored or restored now, and the bytes of content so
    far; any thread may call it at any time."""

    def copy(self) -> ArchiveReport:
        """Return a report with the same counts and warnings."""
        return replace(self, warnings=list(self.warnings))

    def go_back_to(self, earlier: ArchiveReport) -> None:
        """Take the counts and warnings of *earlier* again, before another attempt."""
        vars(self).update(vars(earlier.copy()))

    def leave_out(self, is_directory: bool) -> None:
        """Count an entry that the options of the walk leave out."""
        if is_directory:
            self.excluded_directories += 1
        else:
            self.excluded_files += 1

    def log_name(self, line: str) -> None:
        """Log a line of :class:`FileNames`."""
        file_log.log.info("%s", line)

    def warn(self, text: str) -> None:
        """Count and log the warning *text*, and keep it if it is among the first."""
        self.warning_count += 1
        if len(self.warnings) < KEPT_WARNINGS:
            self.warnings.append(text)
        logger.warning("%s", text)


class FileNames:
    """Says what is done with each file of an archive, for those who listen to the log of files.

    Where nobody does, :attr:`are_wanted` is False, which is to be asked first for every file of an
    archive, so that it costs nothing.
    """

    def __init__(self, report: ArchiveReport, top: str = "") -> None:
        """*top* is the name of the root in the archive, as Python decodes the names of files."""
        self.are_wanted = file_log.is_wanted()
        self._top = from_native(top)
        self._report = report
        self._members = report.files + report.directories

    def path(self, name: str) -> str:
        """Return the path in the archive of *name*, a path below the root; "" is the root."""
        return f"{self._top}/{from_native(name)}" if name else self._top

    def left_out(self, name: str, why: str) -> None:
        """Say why *name*, a path below the root, is left out."""
        self.say("left out", self.path(name), why.removeprefix("is "))

    def say_if_counted(self, done: str, path: str | bytes, why: str = "") -> None:
        """Do as :meth:`say` if the report counts more members than at the last call.

        So it is called after each entry, also after one that was left out.
        """
        members = self._report.files + self._report.directories
        if members > self._members:
            self._members = members
            self.say(done, path, why)

    def say(self, done: str, path: str | bytes, why: str = "") -> None:
        """Say what was *done* with *path*, a path in the archive, and why."""
        if not self.are_wanted:
            return
        if isinstance(path, bytes):
            path = path.rstrip(b"/").decode("utf-8", "surrogateescape")
        self._report.log_name(f"{done} {printable(path)}{why and f': {why}'}")


@dataclass
class PlanTotals:
    """Counts of a comparison of the tree with an earlier backup."""

    unchanged: int = 0
    """Files that are as the parent has them."""
    seen: int = 0
    """Those of them that were read for it."""
    kept: int = 0
    """Entries that stay as the parent has them, since they cannot be looked at or read."""
    removed: int = 0
    """Topmost paths that are gone."""
    stored: int = 0
    """Files that are new or changed."""
    stored_directories: int = 0
    stored_bytes: int = 0
    """Bytes of the content of the files to store, without holes."""
    tar_bytes: int = 0
    """Bytes that the tar of the increment will have, about."""
    full_tar_bytes: int = 0
    """Bytes that the tar of a full backup would have, about."""
    full_bytes: int = 0
    """Bytes of the content of all files."""
    full_directories: int = 0
    warnings: int = 0
    excluded_files: int = 0
    excluded_directories: int = 0

    @property
    def full_files(self) -> int:
        """Entries of the tree that are not directories."""
        return self.unchanged + self.stored

    @property
    def is_nothing(self) -> bool:
        """Whether nothing differs from the parent."""
        return not (self.stored or self.stored_directories or self.removed or self.warnings)
