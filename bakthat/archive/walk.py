"""Walk the tree that is backed up, and count ahead what a backup of it will store."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bakthat.archive.excludes import ExcludeRules
from bakthat.archive.report import ArchiveReport, reason
from bakthat.archive.sparse import stored_bytes
from bakthat.errors import SourceError
from bakthat.naming import printable

CACHE_TAG = "CACHEDIR.TAG"
CACHE_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"
"""How the file begins that tags a cache directory (https://bford.info/cachedir/)."""


@dataclass
class WalkOptions:
    """What a walk leaves out."""

    rules: ExcludeRules | None = None
    one_file_system: bool = False
    """Keep a directory where another file system is mounted, but nothing below it."""
    skip_caches: bool = False
    """Keep of a tagged cache directory only itself and its tag, as GNU tar's
    ``--exclude-caches`` does."""
    unvisited: frozenset[tuple[int, int]] = frozenset()
    """Device and inode numbers of directories to keep, but nothing below them: where this very
    backup is being written."""


class Entry(NamedTuple):
    """One file, directory or other node of the tree."""

    path: str
    name: str
    """The path below the root, separated by "/"; "" for the root itself."""
    stat: os.stat_result | None
    """Of the entry itself, never of what a symbolic link points to, save at the root. None for
    what its directory lists as a regular file: whoever opens it learns more than a look would
    tell, and for many small files every system call counts."""


@dataclass
class Scan:
    """What a backup of a tree will store, as far as it can be known ahead."""

    files: int = 0
    """Entries that are not directories."""
    directories: int = 0
    bytes: int = 0
    """Of file content: without holes, and once for all hard links of a file."""
    excluded_files: int = 0
    """Entries that are left out and are not directories."""
    excluded_bytes: int = 0


def walk(root: Path, options: WalkOptions, report: ArchiveReport) -> Iterator[Entry]:
    """Yield *root* and everything below it that *options* do not leave out.

    Depth first: a directory, then its contents, sorted by the bytes of their names. A *root*
    that is a symbolic link is followed, no other link is. What cannot be read or vanishes below
    the root becomes a warning in *report*. Raises SourceError, before the first entry, when the
    root is missing, cannot be read, or is neither a file nor a directory.
    """
    return _walk(root, options, report.warn, _ignore)


def scan(root: Path, options: WalkOptions) -> Scan:
    """Count what :func:`walk` yields for *root*, and what it leaves out, without a warning.

    Excluded directories are counted into. Raises SourceError as :func:`walk` does.
    """
    result = Scan()
    links: set[tuple[int, int]] = set()
    device = -1

    def leave_out(path: str) -> None:
        _count_excluded(path, device, options.one_file_system, links, result)

    files = total = 0
    for path, name, status in _walk(root, options, _ignore, leave_out):
        if status is None:
            files += 1
            total += _listed_bytes(path, links)
        elif not stat.S_ISDIR(status.st_mode):
            files += 1
            total += _first_bytes(path, status, links)
        else:
            result.directories += 1
            if not name:
                device = status.st_dev
    result.files, result.bytes = files, total
    return result


def _ignore(_text: str) -> None:
    pass


def _listed_bytes(path: str, links: set[tuple[int, int]]) -> int:
    try:
        status = os.lstat(path)
    except OSError:
        return 0
    if status.st_nlink == 1 and status.st_blocks * 512 >= status.st_size:
        return status.st_size  # as nearly always: neither linked nor sparse
    return _first_bytes(path, status, links)


def _first_bytes(path: str, status: os.stat_result, links: set[tuple[int, int]]) -> int:
    """Return the bytes of a file's content, or 0 for another link to one that was counted."""
    if status.st_nlink > 1:
        key = (status.st_dev, status.st_ino)
        if key in links:
            return 0
        links.add(key)
    return stored_bytes(path, status)


def _count_excluded(
    path: str, device: int, one_file_system: bool, links: set[tuple[int, int]], result: Scan
) -> None:
    try:
        status = os.lstat(path)
    except OSError:
        return
    options = WalkOptions(one_file_system=one_file_system)
    top = Entry(path, "", status)
    for entry in _from(top, device, options, _ignore, _ignore):
        if entry.stat is None or not stat.S_ISDIR(entry.stat.st_mode):
            result.excluded_files += 1
            result.excluded_bytes += _listed_bytes(entry.path, links)


def check_root(root: Path) -> tuple[str, os.stat_result]:
    """Return the real path of *root* and what it is. Raises SourceError as :func:`walk` does."""
    try:
        path = os.path.realpath(root, strict=True)
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            os.close(_open_directory(path))
        elif stat.S_ISREG(status.st_mode):
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as exc:
        raise SourceError(
            f"cannot back up {printable(root)}: {reason(exc)}",
            hint="check the name and that this user may read it",
        ) from exc
    if not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
        raise SourceError(
            f"cannot back up {printable(root)}: it is neither a file nor a directory",
            hint="name a file or a directory that contains it",
        )
    return path, status


def _walk(
    root: Path,
    options: WalkOptions,
    warn: Callable[[str], None],
    left_out: Callable[[str], None],
) -> Iterator[Entry]:
    """Walk as :func:`walk` does; *left_out* gets the path of each entry that is not yielded."""
    path, status = check_root(root)
    return _from(Entry(path, "", status), status.st_dev, options, warn, left_out)


@dataclass(slots=True)
class _Level:
    """A directory whose entries are being yielded."""

    path: str
    """With a slash at its end, as *name*."""
    name: str
    leaves: list[str]
    """Names of the entries still to come, the next one last."""
    others: set[str]
    """Those of them that are not listed as regular files."""


def _from(
    top: Entry,
    device: int,
    options: WalkOptions,
    warn: Callable[[str], None],
    left_out: Callable[[str], None],
) -> Iterator[Entry]:
    """Yield *top* and what is below it; *device* is the one of the root."""
    rules = options.rules
    yield top
    levels = [_enter(top, device, options, warn, left_out)]
    while levels:
        level = levels[-1]
        if not level.leaves:
            levels.pop()
            continue
        leaf = level.leaves.pop()
        path = level.path + leaf
        name = level.name + leaf
        status = None
        if leaf in level.others:
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                warn(f"{printable(path)}: vanished before it was read; it is not stored")
                continue
            except OSError as exc:
                warn(f"{printable(path)}: {reason(exc)}; it is not stored")
                continue
        is_dir = status is not None and stat.S_ISDIR(status.st_mode)
        if rules is not None and rules.excludes(name, is_dir=is_dir):
            left_out(path)
            continue
        entry = Entry(path, name, status)
        yield entry
        if is_dir:
            levels.append(_enter(entry, device, options, warn, left_out))


def _enter(
    entry: Entry,
    device: int,
    options: WalkOptions,
    warn: Callable[[str], None],
    left_out: Callable[[str], None],
) -> _Level:
    """List the directory *entry*, or nothing when it is none or its contents stay out."""
    name = f"{entry.name}/" if entry.name else ""
    level = _Level(os.path.join(entry.path, ""), name, [], set())
    status = entry.stat
    if status is None or not stat.S_ISDIR(status.st_mode):
        return level
    if options.one_file_system and status.st_dev != device:
        return level
    if (status.st_dev, status.st_ino) in options.unvisited:
        return level
    leaves, level.others = _list(entry.path, warn)
    if options.skip_caches and CACHE_TAG in leaves and _is_tagged(level.path + CACHE_TAG):
        for leaf in leaves:
            if leaf != CACHE_TAG:
                left_out(level.path + leaf)
        leaves = [CACHE_TAG]
    leaves.sort(key=os.fsencode, reverse=True)
    level.leaves = leaves
    return level


def _open_directory(path: str) -> int:
    # Opened first and listed by the descriptor, so that a directory that was swapped for a
    # symbolic link since its lstat is not followed.
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _list(path: str, warn: Callable[[str], None]) -> tuple[list[str], set[str]]:
    """Return the names in a directory, and those of them that are no regular files.

    When that fails half-way, those that were read.
    """
    names: list[str] = []
    others: set[str] = set()
    try:
        fd = _open_directory(path)
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    names.append(entry.name)
                    if not _is_listed_as_file(entry):
                        others.add(entry.name)
        finally:
            os.close(fd)
    except OSError as exc:
        lost = "some of its contents are" if names else "its contents are"
        warn(f"{printable(path)}: cannot list this directory: {reason(exc)}; {lost} not stored")
    return names, others


def _is_listed_as_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file(follow_symlinks=False)
    except OSError:
        # The file system does not tell, and whoever asks for more finds it gone or locked; the
        # walk will say which.
        return False


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
