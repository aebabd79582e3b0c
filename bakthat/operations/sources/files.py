"""The file or directory that is backed up, and the form in which it is stored."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bakthat.archive.create.content import owner_names
from bakthat.archive.create.walk import CACHE_TAG, Scan, WalkOptions
from bakthat.archive.gzip.level import DEFAULT_LEVEL
from bakthat.archive.report import ArchiveReport
from bakthat.errors import SourceError, UsageError
from bakthat.format import names
from bakthat.format.description import ARCHIVE, FILE, NAMED, source_id
from bakthat.system.text import (
    did_you_mean,
    from_native,
    is_text,
    printable,
    reason_of,
    to_native,
)

_MOST_SIBLINGS = 1000


@dataclass(frozen=True, slots=True)
class BackupSource:
    """A file or directory to back up, and the form in which it is stored."""

    path: Path
    set_name: str
    stem: str
    extension: str
    is_archive: bool
    level: int
    """The gzip level; 0 stores the source without compression."""
    root_name: str
    """The name of the file or directory in the archive, as Python decodes the names of files."""
    source_id: str
    """What identifies the set besides its name: the source, or that the name was given."""

    @property
    def kind(self) -> str:
        """The kind of the object."""
        return ARCHIVE if self.is_archive else FILE

    @property
    def origin(self) -> str:
        """The path, for the catalog."""
        return from_native(str(self.path))

    def describe(self, counted: Scan, status: os.stat_result | None) -> dict[str, Any]:
        """Return what :class:`.base.Source` says."""
        if status is None:
            # Estimates: the tree may change before it is read. The catalog gets the exact counts.
            return {
                "bytes": counted.bytes,
                "files": counted.files,
                "directories": counted.directories,
            }
        owner, group = owner_names(status)
        return {
            "mode": status.st_mode & 0o7777,
            "mtime_ns": status.st_mtime_ns,
            "uid": status.st_uid,
            "gid": status.st_gid,
            **({"owner": owner} if owner else {}),
            **({"group": group} if group else {}),
            **({"name": self.arcname} if self.arcname != self.set_name else {}),
        }

    @property
    def arcname(self) -> str:
        """The name of the root of the archive; of a file that is stored as it is, its name when it
        is restored, which is that of the set where its own is no printable text."""
        if self.is_archive:
            return self.root_name
        name = from_native(self.path.name)
        return name if is_text(name) and name.isprintable() else self.set_name

    @classmethod
    def find(
        cls,
        filename: str | os.PathLike[str] | None,
        custom_filename: str | None,
        *,
        compress: bool | int,
        root_name: str | None = None,
    ) -> BackupSource:
        """Return the source *filename*, or the current directory if it is None.

        Raises SourceError, UsageError.
        """
        if filename is not None and not os.fspath(filename):
            raise UsageError(
                "no file or directory was named to back up", hint="name one: bakthat backup PATH"
            )
        path = Path(os.path.abspath(os.path.expanduser(filename or os.curdir)))
        shown = printable(str(path))
        try:
            is_file, is_directory = path.is_file(), path.is_dir()
            exists = is_file or is_directory or path.exists()
        except (OSError, ValueError) as exc:  # a name that is too long or has a NUL
            why = reason_of(exc)
            raise SourceError(
                f"cannot read '{shown}': {why}",
                hint="check the name, and that its disk is mounted",
            ) from exc
        if not exists:
            raise SourceError(f"no such file or directory: '{shown}'", hint=_hint_of_missing(path))
        if not (is_file or is_directory):
            raise SourceError(
                f"neither a file nor a directory: '{shown}'",
                hint="name a file, or a directory that contains it",
            )
        if not path.name and custom_filename is None:
            raise UsageError(
                f"'{shown}' has no name of its own", hint="name the backup with --name"
            )
        set_name = names.check_set_name(
            from_native(path.name) if custom_filename is None else custom_filename
        )
        root_name = names.check_set_name(root_name) if root_name else ""
        root_name = to_native(root_name) or path.name or to_native(set_name)
        identity = source_id(path) if custom_filename is None else NAMED
        if is_file and names.is_tarball(path.name):
            stem = names.tarball_stem(set_name)
            return cls(path, set_name, stem, ".tgz", False, 0, root_name, identity)
        level = DEFAULT_LEVEL if compress is True else int(compress)
        if level:
            return cls(path, set_name, set_name, ".tgz", True, level, root_name, identity)
        extension = "" if is_file else ".tar"
        return cls(path, set_name, set_name, extension, not is_file, 0, root_name, identity)

    def why_empty(self, report: ArchiveReport, options: WalkOptions) -> str:
        """Return why nothing but the source itself was stored; "" when there was more.

        It is seldom meant: a dump wrote nothing, a disk is not mounted, or a pattern fits too much.
        """
        if report.directories > 1 or report.files > 2:
            return ""
        try:
            if not report.directories:
                return "" if self.path.stat().st_size else "the file is empty"
            present = set(os.listdir(self.path))
        except OSError:
            return ""  # it vanished or changed
        # A file that only says what to leave out is no content.
        markers = {CACHE_TAG} if options.skip_caches else set()
        rules = options.rules
        if rules is not None and rules.path.parent.resolve() == self.path.resolve():
            markers.add(rules.path.name)
        if rules is not None:
            markers = {name for name in markers if not rules.excludes(name, is_dir=False)}
        markers &= present
        if report.files > len(markers):
            return ""
        if present and not present - markers:
            return f"the directory has {' and '.join(sorted(markers))} only"
        if not present:
            return "the directory is empty, or its disk is not mounted"
        if rules is not None:
            return f"{printable(rules.path)} leaves out everything"
        if markers:
            return "--exclude-caches leaves out everything"
        return ""  # nothing could be read, and each entry has its warning


def _hint_of_missing(path: Path) -> str:
    """Return a hint for *path*, which does not exist: the name beside it that is most like it."""
    parent = path.parent
    try:
        siblings = [each.name for each in itertools.islice(os.scandir(parent), _MOST_SIBLINGS)]
    except OSError:
        return f"check the name: there is no directory '{printable(str(parent))}' either"
    return did_you_mean(path.name, siblings) or "check the name, and that its disk is mounted"
