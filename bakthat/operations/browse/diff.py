"""Compare a backup with another one, or with what is on the disk now."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from bakthat import models
from bakthat.archive.create.excludes import find_rules
from bakthat.archive.create.walk import WalkOptions
from bakthat.archive.index.state import State
from bakthat.archive.report import ArchiveReport
from bakthat.conf import DEFAULT_PROFILE
from bakthat.errors import UsageError
from bakthat.format.entry import Entry, EntryType
from bakthat.operations.browse.comparison import EntryChange, Totals, compare
from bakthat.operations.browse.disk import DiskTree
from bakthat.operations.browse.order import in_order
from bakthat.passwords import may_ask
from bakthat.session.indexes.opening import open_state
from bakthat.session.reading import KeyFinder, find_to_restore
from bakthat.session.session import Session
from bakthat.system.paths import PathLike, expanded
from bakthat.system.streams import Progress
from bakthat.system.text import printable, to_native


@dataclass
class DiffReport:
    """What was compared, and what was counted."""

    before: str
    """The stored filename of the first backup."""
    after: str = ""
    """The stored filename of the second backup, or the path on the disk."""
    totals: Totals = field(default_factory=Totals)
    disk: ArchiveReport = field(default_factory=ArchiveReport)
    """The warnings about what could not be read on the disk."""

    @property
    def warning_count(self) -> int:
        """How many entries on the disk could not be read."""
        return self.disk.warning_count

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints as the summary."""
        return {
            "before": self.before,
            "after": self.after,
            **self.totals.as_dict(),
        }


class Differences(Iterator[EntryChange]):
    """What two trees do not have alike, in the order of an archive."""

    def __init__(self, report: DiffReport, changes: Generator[EntryChange, None, None]) -> None:
        self.report = report
        """It is complete at the end of the iteration."""
        self._changes = changes

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> EntryChange:
        return next(self._changes)

    def close(self) -> None:
        """Close the indexes, as the end of the iteration does."""
        self._changes.close()


def diff(
    filename: str,
    other: str | None = None,
    destination: str | None = None,
    profile: str = DEFAULT_PROFILE,
    config: PathLike | None = None,
    *,
    conf: Mapping[str, Any] | None = None,
    host: str | None = None,
    source: PathLike | None = None,
    path: PathLike | None = None,
    read_files: bool = False,
    exclude_file: PathLike | None = None,
    ignore_files: bool = True,
    exclude_caches: bool = False,
    one_file_system: bool = False,
    password: str | None = None,
    identity_file: PathLike | None = None,
    prompt: str | bool = "yes",
    progress: Progress | None = None,
) -> Differences:
    """Compare the backup *filename* with the later one *other*, or with the disk.

    The result is an iterator over what changed; its ``report`` has the counts. The names of the two
    top directories are not compared. Owners are the same when their names are, or their numbers
    where one has no name. A hard link changes with the file that it is another name of.

    Without *other* the backup is compared with the file or directory *path*, by default with the
    one that was backed up, if that was on this host. *exclude_file*, *ignore_files*,
    *exclude_caches* and *one_file_system* leave out there what a backup with these options leaves
    out. A file has changed when its size or its time has. With *read_files*, files of the same size
    are read, and their SHA-256 decides. What cannot be read is a warning in the report, and counts
    as neither changed nor removed.

    *filename*, *other*, *destination*, *host* and *source* select the backups, and *password*,
    *identity_file* and *prompt* open them, as for :func:`bakthat.restore`. The archives are not
    touched: their indexes say what they hold. *progress* is called while an archive is read
    instead, since it has no index.

    Raises NoMatchError, AmbiguousNameError and UsageError at once; while it is iterated,
    SourceError for a path that is not there, StorageError, CryptoError and ArchiveError.
    """
    if other is not None and (
        path is not None
        or read_files
        or exclude_file is not None
        or not ignore_files
        or exclude_caches
        or one_file_system
    ):
        raise UsageError(
            f"--path, --hash and what leaves files out are for a comparison with the disk, not of "
            f"'{printable(filename)}' with '{printable(other)}'",
            hint="name one backup to compare it with the disk, or leave these options out",
        )
    if path is not None and not os.fspath(path):
        raise UsageError("the path to compare with is empty", hint=_PATH_HINT)
    session = Session(profile, config, conf, destination)
    first = _find(session, filename, host, source)
    second = None if other is None else _find(session, other, host, source)
    if second is None and path is None:
        _refuse_other_host(session, first)
    comparison = _Comparison(
        session,
        KeyFinder(session, password, identity_file, may_ask(prompt)),
        progress,
        DiffReport(first.stored_filename),
    )
    if second is not None:
        comparison.report.after = second.stored_filename
        return Differences(comparison.report, comparison.with_backup(first, second))
    disk = _Disk(
        None if path is None else expanded(path),
        exclude_file,
        ignore_files,
        exclude_caches,
        one_file_system,
        read_files,
    )
    return Differences(comparison.report, comparison.with_disk(first, disk))


@dataclass(frozen=True, slots=True)
class _Disk:
    """What to compare with on the disk, and how."""

    path: Path | None
    exclude_file: PathLike | None
    ignore_files: bool
    exclude_caches: bool
    one_file_system: bool
    reads: bool


@dataclass(frozen=True, slots=True)
class _Comparison:
    session: Session
    keys: KeyFinder
    progress: Progress | None
    report: DiffReport

    def with_backup(
        self, first: models.Backups, second: models.Backups
    ) -> Generator[EntryChange, None, None]:
        """Yield what changed from one backup to another."""
        with ExitStack() as stack:
            before, after = (self._open(stack, each) for each in (first, second))
            yield from compare(before, after, self.report.totals)

    def with_disk(self, backup: models.Backups, disk: _Disk) -> Generator[EntryChange, None, None]:
        """Yield what changed since a backup."""
        with ExitStack() as stack:
            before = self._open(stack, backup)
            root = disk.path or _place(backup, before)
            self.report.after = str(root)
            options = WalkOptions(
                rules=find_rules(
                    root,
                    exclude_file=None
                    if disk.exclude_file is None
                    else os.fspath(disk.exclude_file),
                    automatic=disk.ignore_files,
                ),
                one_file_system=disk.one_file_system,
                skip_caches=disk.exclude_caches,
                unvisited=self.session.unvisited(backup.backend, root),
            )
            after = DiskTree(root, before.top, options, self.report.disk, reads=disk.reads)
            yield from compare(before, after, self.report.totals)

    def _open(self, stack: ExitStack, backup: models.Backups) -> StateTree:
        opened = open_state(self.session, backup, self.keys, whole=True, progress=self.progress)
        state = stack.enter_context(opened)
        assert state is not None  # made by reading the archive, if need be
        return StateTree(state, has_whole_seconds="format" not in backup.metadata)


class StateTree:
    """The entries of a backup, from its indexes, which the caller closes."""

    first_names: Collection[str] = ()
    has_attributes = True

    def __init__(self, state: State, *, has_whole_seconds: bool) -> None:
        """*has_whole_seconds*: the archives of bakthat 0.6.0 have times without fractions."""
        self._state = state
        self.has_whole_seconds = has_whole_seconds

    @cached_property
    def top(self) -> str:
        """The top directory, or the only file; "" where there are several entries at the top."""
        top = self._state.top
        # This version's archives have one. An index that was made later may be of any archive.
        if any(entry.ctime_ns is None for entry in itertools.islice(self._state.entries(), 1)):
            for entry in self._state.entries():
                if entry.path != top and not entry.path.startswith(f"{top}/"):
                    return ""
        return top

    @property
    def source(self) -> str:
        """The path that was backed up, on its host; "" when it is not known."""
        return self._state.header.source

    def entries(self) -> Iterator[Entry]:
        """Yield the entries in order. Raises CorruptIndexError."""
        entries = self._state.entries()
        return entries if self._state.header.is_sorted else in_order(entries)

    def link_targets(self) -> Collection[str]:
        """Return the targets of all hard links."""
        return {each.target for each in self._state.entries() if each.type is EntryType.HARDLINK}

    def find(self, paths: Collection[str]) -> Mapping[str, Entry]:
        """Return the entries at those of *paths* that the backup has."""
        return {each.path: each for each in self._state.entries(where=paths.__contains__)}

    def resolve(self, _link: Entry) -> Entry | None:
        """Return None: the archive has no entry at the target of the hard link."""
        return None

    def with_digest(self, entry: Entry) -> Entry | None:
        """Return *entry*: what has no hash in the index has none."""
        return entry

    def is_unread(self, _path: str) -> bool:
        """Return False: an index is read as a whole, or an error."""
        return False


def _find(session: Session, name: str, host: str | None, source: PathLike | None) -> models.Backups:
    backup = find_to_restore(session, name, host, source)
    if backup.is_key_value:
        raise UsageError(
            f"{printable(backup.stored_filename)} is a value of KeyValue, which holds no files",
            hint="bakthat restore restores it, as a JSON file",
        )
    return backup


_PATH_HINT = "name the file or directory to compare with: --path DIR (path= in Python)"


def _refuse_other_host(session: Session, backup: models.Backups) -> None:
    if backup.host and backup.host != session.host:
        raise UsageError(
            f"{printable(backup.stored_filename)} was made on another host, "
            f"{printable(backup.host)}",
            hint=_PATH_HINT,
        )


def _place(backup: models.Backups, tree: StateTree) -> Path:
    """Return the path that was backed up. Raises UsageError when it is not known."""
    source = backup.source or tree.source
    if not source:
        raise UsageError(
            f"it is not known which file or directory {printable(backup.stored_filename)} "
            "is a backup of",
            hint=_PATH_HINT,
        )
    if not os.path.isabs(source):
        raise UsageError(
            f"{printable(backup.stored_filename)} is a backup of {printable(source)}, "
            "which is no file or directory",
            hint=_PATH_HINT,
        )
    return Path(to_native(source))
