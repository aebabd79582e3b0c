"""The result of writing or restoring an archive: counts and warnings."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

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

    def warn(self, text: str) -> None:
        """Count and log the warning *text*, and keep it if it is among the first."""
        self.warning_count += 1
        if len(self.warnings) < KEPT_WARNINGS:
            self.warnings.append(text)
        logger.warning("%s", text)


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
