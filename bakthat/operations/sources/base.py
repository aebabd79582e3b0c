"""What every source of a backup tells of itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from bakthat.archive.create.walk import Scan
from bakthat.archive.report import ArchiveReport, PlanTotals

ContentCheck = Callable[[ArchiveReport, PlanTotals | None], Mapping[str, Any]]
"""Called once all content was written, before it is published: warns by the report, or raises.
Returns what the catalog keeps besides the counts."""


class Source(Protocol):
    """What is backed up, and the form in which it is stored."""

    @property
    def set_name(self) -> str:
        """The name of the set."""

    @property
    def stem(self) -> str:
        """What precedes the date in the stored name."""

    @property
    def extension(self) -> str:
        """What follows the date in the stored name: ".tgz", ".tar", ".gz" or ""."""

    @property
    def level(self) -> int:
        """The gzip level; 0 stores the source without compression."""

    @property
    def source_id(self) -> str:
        """What identifies the set besides its name: the source, or that the name was given."""

    @property
    def kind(self) -> str:
        """ARCHIVE or FILE of :mod:`bakthat.format.description`."""

    @property
    def origin(self) -> str:
        """Where the content comes from, for the catalog: a path, or a URL without a password."""

    def describe(self, counted: Scan, status: os.stat_result | None) -> Mapping[str, Any]:
        """Return what the self-description says of the source besides the fields of every object.

        *counted* is an estimate of the content; *status* is that of a file that is stored as it is.
        """
