"""The options of a restore."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bakthat.session import cold
from bakthat.system.paths import PathLike
from bakthat.system.streams import Progress


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """The options of a restore."""

    target: Path
    password: str | None
    identity_file: PathLike | None
    prompt: bool
    thaw: cold.ThawOptions
    any_size: bool
    """Whether the unpacked size is unlimited."""
    only: Sequence[str]
    """Paths and patterns of the wanted members of an archive; empty for all."""
    use_index: bool
    """Whether the index of an archive is read and compared with it."""
    keep_going: bool
    """Whether members that the file system cannot hold are left out."""
    partial: bool
    """Whether the files of archives that are missing are left out."""
    progress: Progress | None

    def into(self, directory: Path) -> RestoreOptions:
        """Return the same options for another directory."""
        return replace(self, target=directory)
