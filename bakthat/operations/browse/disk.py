"""The entries of a directory on the disk, as a backup of it would have them."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from bakthat.archive.attributes import attributes_digest
from bakthat.archive.create.digest import content_digest, open_file
from bakthat.archive.create.hard_links import HardLinks
from bakthat.archive.create.walk import ENTRY_TYPES, Unread, WalkOptions, walk
from bakthat.archive.create.xattrs import AttributeReader
from bakthat.archive.report import ArchiveReport
from bakthat.format.entry import Entry, EntryType
from bakthat.system.text import from_native, printable, reason_of, to_native


class DiskTree:
    """A file or a directory on the disk, walked as a backup walks it.

    Files are only looked at, unless *reads* says that they are read for their SHA-256. What cannot
    be read is a warning in *report*.
    """

    has_whole_seconds = False
    has_attributes = True

    def __init__(
        self, root: Path, top: str, options: WalkOptions, report: ArchiveReport, *, reads: bool
    ) -> None:
        """*top* is the name that the entries get for *root*; "" leaves *root* itself out."""
        self._root = Path(os.path.realpath(root))
        self.top = top
        self._options = options
        self._report = report
        self._reads = reads
        self._unread: set[str] = set()
        self._first_names: set[str] = set()
        self._digests: dict[tuple[int, int], bytes] = {}
        """Those of files with several names, by device and inode number."""
        self._attributes = AttributeReader()
        self._user = lru_cache(maxsize=4096)(_user_name)
        self._group = lru_cache(maxsize=4096)(_group_name)

    @property
    def first_names(self) -> Collection[str]:
        """The files with several names that were found so far, by their first name."""
        return self._first_names

    def entries(self) -> Iterator[Entry]:
        """Walk the tree and yield its entries. Raises SourceError when it is missing."""
        links = HardLinks()
        for found in walk(
            self._root,
            self._options,
            self._report,
            purpose="compare with",
            on_unread=self._warn,
        ):
            if not (found.name or self.top):
                continue
            status = found.stat
            if status is None:
                try:
                    status = os.lstat(found.path)
                except FileNotFoundError:
                    continue  # it was just removed
                except OSError as exc:
                    self._warn(Unread(found.path, found.name, reason_of(exc), "it is"))
                    continue
            path = self._path_in_tree(found.name)
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                first = links.find(status)
                if first is not None:
                    target = first.decode("utf-8", "surrogateescape")
                    yield self._entry(path, status, EntryType.HARDLINK, target=target)
                    continue
                links.add(path.encode("utf-8", "surrogateescape"), status)
                self._first_names.add(path)
            entry = self._node(path, found.path, status)
            if entry is not None:
                yield entry

    def link_targets(self) -> Collection[str]:
        """Return nothing: :attr:`first_names` has them while the tree is walked."""
        return ()

    def find(self, paths: Collection[str]) -> Mapping[str, Entry]:
        """Return the entries at *paths*, as far as they exist."""
        found = {}
        for path in paths:
            entry = self._look(path)
            if entry is not None:
                found[path] = entry
        return found

    def resolve(self, link: Entry) -> Entry | None:
        """Return the file that a hard link names."""
        return self._look(link.path)

    def with_digest(self, entry: Entry) -> Entry | None:
        """Return *entry* with the SHA-256 of the file's content, where files are read."""
        if not self._reads:
            return entry
        path = self._path_on_disk(entry.path)
        try:
            return entry._replace(digest=self._digest(path))
        except OSError as exc:
            if isinstance(exc, FileNotFoundError):
                why = "vanished before it was read"
            else:
                why = reason_of(exc)
            self._report.warn(f"{printable(path)}: {why}; its content is not compared")
            return None

    def is_unread(self, path: str) -> bool:
        """Return whether *path* is at or below what could not be read."""
        while self._unread and path:
            if path in self._unread:
                return True
            path = path.rpartition("/")[0]
        return False

    def _warn(self, problem: Unread) -> None:
        self._report.warn(problem.text("compared"))
        self._unread.add(self._path_in_tree(problem.name))

    def _path_in_tree(self, name: str) -> str:
        if not (name and self.top):
            return from_native(name) or self.top
        return f"{self.top}/{from_native(name)}"

    def _path_on_disk(self, path: str) -> str:
        name = path.removeprefix(self.top).removeprefix("/")
        return os.path.join(self._root, to_native(name)) if name else str(self._root)

    def _look(self, path: str) -> Entry | None:
        where = self._path_on_disk(path)
        try:
            status = os.lstat(where)
        except OSError:
            return None
        return self._node(path, where, status)

    def _node(self, path: str, where: str, status: os.stat_result) -> Entry | None:
        """Return the entry of a file that is no hard link; None for what no archive can hold."""
        kind = ENTRY_TYPES.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return None
        target = ""
        if kind is EntryType.SYMLINK:
            try:
                target = from_native(os.readlink(where))
            except OSError:
                return None  # it was just removed or replaced
        entry = self._entry(path, status, kind, target=target)
        records = self._attributes.records(where, status.st_dev)
        return entry._replace(attributes=attributes_digest(records)) if records else entry

    def _entry(
        self, path: str, status: os.stat_result, kind: EntryType, *, target: str = ""
    ) -> Entry:
        has_device = kind in (EntryType.CHARACTER, EntryType.BLOCK)
        return Entry(
            path,
            kind,
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_ino,
            size=status.st_size if kind is EntryType.FILE else 0,
            owner=self._user(status.st_uid),
            group=self._group(status.st_gid),
            target=target,
            device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if has_device else None,
        )

    def _digest(self, path: str) -> bytes:
        """Return the SHA-256 of a file's content; b"" for one with too large holes."""
        fd = open_file(path)
        try:
            status = os.fstat(fd)
            key = status.st_dev, status.st_ino
            if key in self._digests:
                return self._digests[key]
            found = content_digest(fd, status)
            if status.st_nlink > 1:
                self._digests[key] = found
            return found
        finally:
            os.close(fd)


def _user_name(uid: int) -> str:
    try:
        return from_native(pwd.getpwuid(uid).pw_name)
    except (KeyError, OverflowError):
        return ""


def _group_name(gid: int) -> str:
    try:
        return from_native(grp.getgrgid(gid).gr_name)
    except (KeyError, OverflowError):
        return ""
