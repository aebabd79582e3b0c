"""Walk the tree that is backed up, and count in advance what the backup will store."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bakthat.archive.create.excludes import ExcludeRules
from bakthat.archive.create.extents import stored_bytes
from bakthat.archive.create.hard_links import HardLinks
from bakthat.archive.report import ArchiveReport
from bakthat.errors import SourceError
from bakthat.format.entry import EntryType
from bakthat.system.text import printable, reason_of

CACHE_TAG = "CACHEDIR.TAG"
ENTRY_TYPES = {
    stat.S_IFREG: EntryType.FILE,
    stat.S_IFDIR: EntryType.DIRECTORY,
    stat.S_IFLNK: EntryType.SYMLINK,
    stat.S_IFCHR: EntryType.CHARACTER,
    stat.S_IFBLK: EntryType.BLOCK,
    stat.S_IFIFO: EntryType.FIFO,
}
"""The types of files that an archive can hold, by the file type in a mode."""
CACHE_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"
"""The first bytes of the tag file of a cache directory (https://bford.info/cachedir/)."""


@dataclass(frozen=True)
class WalkOptions:
    """What a walk leaves out."""

    rules: ExcludeRules | None = None
    one_file_system: bool = False
    """Keep a directory where another file system is mounted, but nothing below it."""
    skip_caches: bool = False
    """Keep a tagged cache directory and its tag, but nothing else in it, like GNU tar's
    ``--exclude-caches``."""
    unvisited: Mapping[tuple[int, int], str] = field(default_factory=dict)
    """Device and inode numbers of directories to keep, but nothing below them, because this
    backup is being written there, and what each is."""


class Entry(NamedTuple):
    """One file, directory or other node of the tree."""

    path: str
    name: str
    """The path below the root, separated by "/"; "" for the root itself."""
    stat: os.stat_result | None
    """The status of the entry itself; a symbolic link is followed only at the root. None for an
    entry that its directory lists as a regular file: the writer opens the file and calls fstat, so
    an lstat before it would only cost time."""


class Unread(NamedTuple):
    """An entry that the walk could not read."""

    path: str
    name: str
    """As that of an :class:`Entry`."""
    why: str
    lost: str
    """What is lost, with its verb: "it is", or "its contents are"."""
    is_listing: bool = False
    """Whether it is a directory that could not be listed to its end."""
    is_gone: bool = False
    """Whether it vanished since its directory was listed."""

    def text(self, done: str) -> str:
        """Return one line that says what could not be *done*: "stored", "compared"."""
        return f"{printable(self.path)}: {self.why}; {self.lost} not {done}"


LeftOutReceiver = Callable[[str, str], object]
"""Called with a path below the root and why it was left out. A path that ends with ``/*`` stands
for all that is in a directory; what is below a directory is not named again."""


class DirectoryCache:
    """The directory listings of a scan, so that the walk right after it need not list again.

    A listing is valid while the times of its directory are unchanged. That of a directory that
    has just changed is not kept: it may change again without another time, since file systems
    count time in steps. The number of cached names is bounded; directories beyond it are listed
    again.
    """

    _MAX_NAMES = 100_000
    _STEP_NS = 2 * 10**9
    """The longest step of a file system's clock: that of FAT."""

    def __init__(self) -> None:
        self._listings: dict[
            tuple[int, int], tuple[tuple[int, int], list[str], dict[str, bool]]
        ] = {}
        self._names_left = self._MAX_NAMES

    def keep(self, status: os.stat_result, names: list[str], others: dict[str, bool]) -> None:
        """Keep the listing of a directory that had *status* before it was listed.

        *others* are those of *names* that are not regular files, and whether it is a directory.
        """
        times = status.st_mtime_ns, status.st_ctime_ns
        if len(names) <= self._names_left and time.time_ns() - max(times) > self._STEP_NS:
            self._names_left -= len(names)
            self._listings[status.st_dev, status.st_ino] = (times, names.copy(), others)

    def take(self, status: os.stat_result) -> tuple[list[str], dict[str, bool]] | None:
        """Remove and return the listing of the directory with *status*; None if none is valid."""
        listing = self._listings.pop((status.st_dev, status.st_ino), None)
        if listing is None:
            return None
        times, names, others = listing
        self._names_left += len(names)
        return (names, others) if times == (status.st_mtime_ns, status.st_ctime_ns) else None


@dataclass
class Scan:
    """Counts of what a backup of a tree will store, as far as they are known in advance.

    Nothing may depend on them: the counts of what was stored are those of the ArchiveReport.
    """

    files: int = 0
    """Entries that are neither directories nor sockets, which no archive holds."""
    directories: int = 0
    bytes: int = 0
    """Bytes of file content, without holes; all hard links of a file count once."""


def walk(
    root: Path,
    options: WalkOptions,
    report: ArchiveReport,
    cache: DirectoryCache | None = None,
    *,
    purpose: str = "back up",
    on_unread: Callable[[Unread], object] | None = None,
    on_left_out: LeftOutReceiver | None = None,
) -> Iterator[Entry]:
    """Yield *root* and everything below it that *options* do not leave out.

    Depth first: a directory, then its contents, sorted by the bytes of their names. A *root*
    that is a symbolic link is followed, no other link is. Entries below the root that cannot be
    read or vanish become warnings in *report*, which also counts the entries that are left out.
    Those are neither opened nor looked at. Directories in *cache* are not listed again. *on_unread*
    is called in place of each warning, before the next entry. *on_left_out* is called for each
    entry that is left out or cannot be read.

    Raises SourceError, before the first entry, when the root is missing, cannot be read, or is
    neither a file nor a directory; its message says that the *purpose* cannot be met.
    """
    path, status = check_root(root, purpose)

    def warn(problem: Unread) -> None:
        report.warn(problem.text("stored"))

    walker = _Walk(
        options,
        status.st_dev,
        on_unread=on_unread or warn,
        left_out=report.leave_out,
        cache=cache,
        on_left_out=on_left_out,
    )
    return walker.entries(Entry(path, "", status))


def scan(
    root: Path,
    options: WalkOptions,
    cache: DirectoryCache | None = None,
    *,
    on_left_out: LeftOutReceiver | None = None,
) -> Scan:
    """Count the entries that :func:`walk` yields for *root*.

    The tree may change before it is read, so these are estimates. Entries that cannot be read cause
    no warning. Directory listings are kept in *cache*. *on_left_out* and what is raised are those
    of :func:`walk`.
    """
    result = Scan()
    links = HardLinks()
    path, status = check_root(root)
    walker = _Walk(options, status.st_dev, cache=cache, on_left_out=on_left_out)
    files = total = 0
    for entry_path, name, entry_status in walker.entries(Entry(path, "", status)):
        if entry_status is None:
            files += 1
            total += _listed_bytes(entry_path, links)
        elif stat.S_ISSOCK(entry_status.st_mode):
            if on_left_out is not None:
                on_left_out(name, "a socket")
        elif not stat.S_ISDIR(entry_status.st_mode):
            files += 1
            total += _first_bytes(entry_path, entry_status, links)
        else:
            result.directories += 1
    result.files, result.bytes = files, total
    return result


def _ignore(_: object) -> None:
    pass


def _listed_bytes(path: str, links: HardLinks) -> int:
    try:
        status = os.lstat(path)
    except OSError:
        return 0
    if status.st_nlink == 1 and status.st_blocks * 512 >= status.st_size:
        return status.st_size  # the usual case: neither linked nor sparse
    return _first_bytes(path, status, links)


def _first_bytes(path: str, status: os.stat_result, links: HardLinks) -> int:
    """Return the bytes of a file's content, or 0 for another link to one that was counted."""
    if status.st_nlink > 1:
        if links.find(status) is not None:
            return 0
        links.add(b"", status)
    return stored_bytes(path, status)


def check_root(root: Path, purpose: str = "back up") -> tuple[str, os.stat_result]:
    """Return the real path and the status of *root*. Raises SourceError as :func:`walk` does."""
    try:
        path = os.path.realpath(root, strict=True)
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            os.close(_open_directory(path))
        elif stat.S_ISREG(status.st_mode):
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as exc:
        raise SourceError(
            f"cannot {purpose} {printable(root)}: {reason_of(exc)}",
            hint="check the name and that this user may read it",
        ) from exc
    if not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
        raise SourceError(
            f"cannot {purpose} {printable(root)}: it is neither a file nor a directory",
            hint="name a file or a directory that contains it",
        )
    return path, status


@dataclass(slots=True)
class _Level:
    """A directory whose entries are being yielded."""

    path: str
    """The path, with a slash at its end."""
    name: str
    """The path below the root, with a slash at its end; "" for the root."""
    leaves: list[str]
    """Names of the entries still to come, the next one last."""
    others: dict[str, bool]
    """Those of the names that are not listed as regular files, and whether it is a directory."""


class _Walk:
    """One walk, with its callbacks for entries that cannot be read or are left out."""

    def __init__(
        self,
        options: WalkOptions,
        device: int,
        *,
        on_unread: Callable[[Unread], object] = _ignore,
        left_out: Callable[[bool], None] = _ignore,
        cache: DirectoryCache | None = None,
        on_left_out: LeftOutReceiver | None = None,
    ) -> None:
        """*device* is that of the root. *left_out* is called for each entry that is left out, with
        whether it is a directory."""
        self._options = options
        self._device = device
        self._on_unread = on_unread
        self._left_out = left_out
        self._on_left_out = on_left_out
        self._cache = cache

    def entries(self, top: Entry) -> Iterator[Entry]:
        """Yield *top* and all entries below it."""
        rules = self._options.rules
        yield top
        levels = [self._enter(top)]
        while levels:
            level = levels[-1]
            if not level.leaves:
                levels.pop()
                continue
            leaf = level.leaves.pop()
            path = level.path + leaf
            name = level.name + leaf
            # Decided by the listing alone: an lstat of a mount that does not answer would hang,
            # whether it is excluded or not.
            is_dir = level.others.get(leaf)
            if rules is not None and rules.excludes(name, is_dir=is_dir is True):
                self._leave_out(rules, name, is_dir=is_dir is True)
                continue
            status = None
            if is_dir is not None:
                status = self._lstat(path, name)
                if status is None:
                    continue
                replaced = is_dir != stat.S_ISDIR(status.st_mode)
                is_dir ^= replaced
                if replaced and rules is not None and rules.excludes(name, is_dir=is_dir):
                    self._leave_out(rules, name, is_dir=is_dir)
                    continue
            entry = Entry(path, name, status)
            yield entry
            if is_dir:
                levels.append(self._enter(entry))

    def _lstat(self, path: str, name: str) -> os.stat_result | None:
        """Return the status of *path*; None, and call back, where there is none."""
        try:
            return os.lstat(path)
        except FileNotFoundError:
            problem = Unread(path, name, "vanished before it was read", "it is", is_gone=True)
        except OSError as exc:
            problem = Unread(path, name, reason_of(exc), "it is")
        self._report_unread(problem)
        return None

    def _leave_out(self, rules: ExcludeRules, name: str, *, is_dir: bool) -> None:
        self._left_out(is_dir)
        if self._on_left_out is not None:
            self._on_left_out(name, rules.why(name, is_dir=is_dir))

    def _leave_out_content(self, level: _Level, why: str) -> None:
        if self._on_left_out is not None:
            self._on_left_out(f"{level.name}*", why)

    def _report_unread(self, problem: Unread) -> None:
        self._on_unread(problem)
        if self._on_left_out is not None:
            below = "/*" if problem.name else "*"
            name = f"{problem.name}{below if problem.is_listing else ''}"
            self._on_left_out(name, problem.why)

    def _enter(self, entry: Entry) -> _Level:
        """Return the level of *entry*, without leaves if nothing below *entry* is to be yielded."""
        name = f"{entry.name}/" if entry.name else ""
        level = _Level(os.path.join(entry.path, ""), name, [], {})
        status = entry.stat
        if status is None or not stat.S_ISDIR(status.st_mode):
            return level
        if self._options.one_file_system and status.st_dev != self._device:
            self._leave_out_content(level, "another file system")
            return level
        what = self._options.unvisited.get((status.st_dev, status.st_ino))
        if what is not None:
            self._leave_out_content(level, what)
            return level
        known = self._cache.take(status) if self._cache is not None else None
        leaves, level.others = known or self._list(entry, status)
        if self._options.skip_caches and CACHE_TAG in leaves and _is_tagged(level.path + CACHE_TAG):
            for leaf in leaves:
                if leaf != CACHE_TAG:
                    self._left_out(level.others.get(leaf) is True)
            if len(leaves) > 1:
                self._leave_out_content(level, f"its {CACHE_TAG} says that it is a cache")
            leaves = [CACHE_TAG]
        level.leaves = leaves
        return level

    def _list(self, directory: Entry, status: os.stat_result) -> tuple[list[str], dict[str, bool]]:
        """Return the names in reverse order, and for those that are not regular files, whether
        they are directories.

        After an error, return the names read so far.
        """
        names: list[str] = []
        others: dict[str, bool] = {}
        problem = None
        try:
            fd = _open_directory(directory.path)
            try:
                with os.scandir(fd) as entries:
                    for entry in entries:
                        names.append(entry.name)
                        if not _is_listed_as_file(entry):
                            others[entry.name] = _is_listed_as_directory(entry)
            finally:
                os.close(fd)
        except OSError as exc:
            problem = exc
        names.sort(key=None if "".join(names).isascii() else os.fsencode, reverse=True)
        if problem is None:
            if self._cache is not None:
                self._cache.keep(status, names, others)
        else:
            why = f"cannot list this directory: {reason_of(problem)}"
            lost = "some of its contents are" if names else "its contents are"
            self._report_unread(Unread(directory.path, directory.name, why, lost, is_listing=True))
        return names, others


def _open_directory(path: str) -> int:
    # Directories are listed by descriptor, so that a symbolic link that replaced one since its
    # lstat is not followed.
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _is_listed_as_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file(follow_symlinks=False)
    except OSError:
        # The type is unknown and lstat failed. The walk reports it.
        return False


def _is_listed_as_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False  # as above


def _is_tagged(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        regular = stat.S_ISREG(os.fstat(fd).st_mode)
        return regular and os.read(fd, len(CACHE_SIGNATURE)) == CACHE_SIGNATURE
    except OSError:
        return False
    finally:
        os.close(fd)
