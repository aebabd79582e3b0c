"""What is backed up, in which form, and with which tags."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bakthat import naming
from bakthat.archive.gzip_effort import DEFAULT_LEVEL
from bakthat.archive.report import reason
from bakthat.errors import SourceError, UsageError
from bakthat.naming import printable

MAX_TAGS_BYTES = 400
"""What the self-description has room for, on the storage with the least."""


@dataclass(frozen=True, slots=True)
class BackupSource:
    """What is backed up, and in which form it is stored."""

    path: Path
    set_name: str
    stem: str
    extension: str
    is_archive: bool
    level: int
    """gzip's; 0 for what is not compressed here."""
    root_name: str
    """What the file or directory is called inside of the archive."""

    @classmethod
    def find(
        cls,
        filename: str | os.PathLike[str] | None,
        custom_filename: str | None,
        *,
        compress: bool | int,
        root_name: str | None = None,
    ) -> BackupSource:
        """Look at *filename* (None: the current directory). Raises SourceError, UsageError."""
        if filename is not None and not os.fspath(filename):
            raise UsageError("nothing was named to back up")
        path = Path(os.path.abspath(os.path.expanduser(filename or os.curdir)))
        shown = printable(str(path))
        try:
            is_file, is_directory = path.is_file(), path.is_dir()
            exists = is_file or is_directory or path.exists()
        except (OSError, ValueError) as exc:  # too long a name, a NUL in it
            why = reason(exc) if isinstance(exc, OSError) else str(exc)
            raise SourceError(f"cannot read '{shown}': {why}") from exc
        if not exists:
            raise SourceError(f"no such file or directory: '{shown}'")
        if not (is_file or is_directory):
            raise SourceError(f"neither a file nor a directory: '{shown}'")
        if not path.name and custom_filename is None:
            raise UsageError(
                f"'{shown}' has no name of its own", hint="name the backup with --name"
            )
        set_name = naming.check_set_name(path.name if custom_filename is None else custom_filename)
        root_name = naming.check_set_name(root_name) if root_name else path.name or set_name
        if is_file and naming.is_tarball(path.name):
            stem = naming.tarball_stem(set_name)
            return cls(path, set_name, stem, ".tgz", False, 0, root_name)
        level = DEFAULT_LEVEL if compress is True else int(compress)
        if level:
            return cls(path, set_name, set_name, ".tgz", True, level, root_name)
        extension = "" if is_file else ".tar"
        return cls(path, set_name, set_name, extension, not is_file, 0, root_name)


def join_tags(tags: str | Sequence[str]) -> str:
    """Return tags as the catalog keeps them: separated by single spaces, in their order.

    A text may hold several, separated by commas or white space. Raises UsageError.
    """
    words = [
        word
        for each in ([tags] if isinstance(tags, str) else tags)
        for word in re.split(r"[\s,]+", each)
        if word
    ]
    joined = " ".join(dict.fromkeys(words))
    if printable(joined) != joined:
        raise UsageError(f"a tag must be text that prints: '{printable(joined)}'")
    if len(joined.encode()) > MAX_TAGS_BYTES:
        raise UsageError(f"the tags are too long: {len(joined.encode())} bytes in all")
    return joined
