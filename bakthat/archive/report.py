"""The result of writing or restoring an archive: counts and warnings."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

logger = logging.getLogger("bakthat.archive")

KEPT_WARNINGS = 100
"""Warnings whose text a report keeps, and the catalog with it; the rest are counted and logged."""


@dataclass
class ArchiveReport:
    """Counts of the stored members, and warnings of those not stored as they were."""

    files: int = 0
    """Members that are not directories: files, links, FIFOs and devices."""
    directories: int = 0
    bytes: int = 0
    """Bytes of file content that were read and stored, the holes of sparse files left out."""
    sha256: str = ""
    """The SHA-256 of a file that was stored unchanged, in hex; "" for an archive."""
    warnings: list[str] = field(default_factory=list)
    """The first :data:`KEPT_WARNINGS` warnings, one line each."""
    warning_count: int = 0

    def warn(self, text: str) -> None:
        """Count the warning *text*, keep it while there is room, and log it."""
        self.warning_count += 1
        if len(self.warnings) < KEPT_WARNINGS:
            self.warnings.append(text)
        logger.warning("%s", text)


def reason(error: OSError) -> str:
    """Return what the system says about *error*, without the path, beginning in lower case."""
    text = error.strerror or str(error) or type(error).__name__
    return text[:1].lower() + text[1:]
