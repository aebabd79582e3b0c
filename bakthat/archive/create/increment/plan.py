"""What an increment will store, as the comparison found it: kept until the archive is written."""

from __future__ import annotations

import marshal
import os
import stat
import tempfile
from array import array
from collections.abc import Collection, Iterator
from typing import IO, Any, NamedTuple

from bakthat.archive.create.extents import stored_bytes
from bakthat.archive.report import PlanTotals
from bakthat.errors import ArchiveError, BakthatError
from bakthat.format.entry import BLOCK, Entry, EntryType
from bakthat.format.index.layout import USUAL_HEADER_BYTES
from bakthat.system.files import temporary_place
from bakthat.system.text import from_native, printable, reason_of

_MEMORY_BYTES = 8 * 1024 * 1024
"""Bytes of steps that are kept in memory; more are in an unnamed temporary file."""

STORE, LINK, SEEN, REMOVE, DIRECTORY = "store", "link", "seen", "remove", "directory"
WARN, LEAVE_OUT = "warn", "leave out"
"""The kinds of steps. LEAVE_OUT is only made where somebody listens to the log of files."""


ONLY_MEMBER = "nothing else is stored"
"""Why the root is stored when nothing has changed: Python's tarfile refuses an archive without any
member."""


class Before(NamedTuple):
    """What the parent's state has at a path."""

    archive: int
    """The number of the archive with its content."""
    is_directory: bool
    target: str
    """What a hard link is another name of; "" for anything else."""


def pack_before(found: Entry | None) -> tuple[int, bool, str] | None:
    """Return the :class:`Before` of what the parent's state has, as a plain tuple."""
    if found is None:
        return None
    target = found.target if found.type is EntryType.HARDLINK else ""
    return found.archive, found.type is EntryType.DIRECTORY, target


FileKey = tuple[int, int, int, int, int]
"""Device and inode number of a file with several names, its type, size and mtime in ns."""


def file_key(status: os.stat_result) -> FileKey:
    """Return what all names of one file have in common, and no file that takes its inode number."""
    return (
        status.st_dev,
        status.st_ino,
        stat.S_IFMT(status.st_mode),
        status.st_size,
        status.st_mtime_ns,
    )


class Step(NamedTuple):
    """One step of writing an increment, of types that :mod:`marshal` supports."""

    kind: str
    name: str = ""
    """The path below the root."""
    reason: str = ""
    """Why it is stored or left out; the text of a warning."""
    before: tuple[int, bool, str] | None = None
    """A :class:`Before`; None where the parent has nothing."""
    key: FileKey = (0, 0, 0, 0, 0)
    """That of a file with several names."""
    number: int = 0
    """That of a directory, by which :meth:`Plan.directory` knows it."""
    seen: tuple[int, int, bool] | None = None
    """ctime in ns, inode number, and whether it is stale, of what was seen."""
    is_file: bool = True
    """Whether it was a regular file; anything else is looked at again before it is opened."""


class ChangedTargetError(BakthatError):
    """A name that cannot be read is a link to what this increment stores or removes.

    So its earlier content is nowhere in the new state, and a full must be made.
    """


class Plan:
    """The steps of an increment, in the order of its archive. The caller calls :meth:`close`.

    Memory does not grow with the number of files, but for those with several names.
    """

    def __init__(self) -> None:
        self.totals = PlanTotals()
        self.holders: dict[FileKey, str] = {}
        """The path in the archive that has the content of a file with several names, unchanged."""
        self.kept_targets: set[str] = set()
        """The paths in the archive that kept names are links to. Kept is what cannot be read, and a
        link that the walk meets before what it is a link to."""
        # Closed by close(), which the caller calls.
        self._steps: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES)  # noqa: SIM115
        self._listings: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES)  # noqa: SIM115
        self._places = array("q")
        self._end = 0

    def add(self, step: Step) -> None:
        """Add the next step. Raises ArchiveError when the temporary file cannot be written."""
        try:
            self._steps.write(marshal.dumps(tuple(step)))
        except OSError as exc:
            raise _cannot_keep_error(exc) from exc

    def new_directory(self) -> int:
        """Return the number of a directory, whose listing comes later."""
        self._places.append(-1)
        return len(self._places) - 1

    def store_directory(
        self, number: int, reason: str, listing: bytes | None, status: os.stat_result
    ) -> None:
        """Let a directory be stored, with a *listing* that is complete. Raises ArchiveError."""
        self._set_directory(number, (reason, listing, _pack_status(status)))

    def see_directory(self, number: int, status: os.stat_result) -> None:
        """Let a directory of which only ctime or inode changed be seen. Raises ArchiveError."""
        self._set_directory(number, ("", (status.st_ctime_ns, status.st_ino, False), ()))

    def _set_directory(self, number: int, content: tuple[Any, ...]) -> None:
        data = marshal.dumps(content)
        try:
            self._listings.write(data)
        except OSError as exc:
            raise _cannot_keep_error(exc) from exc
        self._places[number] = self._end
        self._end += len(data)

    def directory(self, number: int) -> Any:
        """Return what was decided about a directory; None if it is unchanged. Raises ArchiveError.

        It is the reason why it is stored, its listing or None, and its status for
        :func:`unpack_status`; or "", what was seen, and ().
        """
        place = self._places[number]
        if place < 0:
            return None
        try:
            self._listings.seek(place)
            return marshal.load(self._listings)
        except OSError as exc:
            raise _cannot_keep_error(exc) from exc

    def steps(self) -> Iterator[Step]:
        """Yield the steps in order; may be called again. Raises ArchiveError."""
        try:
            self._steps.seek(0)
            while True:
                try:
                    fields = marshal.load(self._steps)
                except EOFError:
                    return
                yield Step._make(fields)
        except OSError as exc:
            raise _cannot_keep_error(exc) from exc

    def check_kept_targets(self, arcname: str, left_out: Collection[str]) -> None:
        """Raise ChangedTargetError unless :attr:`kept_targets` stay as the parent has them.

        *left_out* are the paths in the archive of files that have a step and were kept too.
        """
        targets = self.kept_targets.difference(left_out)
        above = {path for target in targets for path in _above(target)}
        for step in self.steps() if targets else ():
            path = f"{arcname}/{from_native(step.name)}"
            is_change = step.kind in (STORE, LINK, REMOVE)
            if step.kind == DIRECTORY and step.before is not None:
                is_change = not Before._make(step.before).is_directory
            if is_change and (path in targets or path in above):
                raise ChangedTargetError(
                    f"a name that stays is a link to {printable(path)}, which has changed"
                )

    def close(self) -> None:
        """Remove the temporary files. May be called again."""
        self._steps.close()
        self._listings.close()


def _above(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _cannot_keep_error(error: OSError) -> ArchiveError:
    return ArchiveError(
        f"cannot keep what changed in {temporary_place()}: {reason_of(error)}",
        hint="it takes some 100 bytes for each changed file; TMPDIR names another directory",
    )


def _pack_status(status: os.stat_result) -> tuple[Any, ...]:
    """Return a status as plain numbers, which marshal supports."""
    return tuple(status[:10]), status.st_mtime_ns, status.st_ctime_ns


def unpack_status(packed: tuple[Any, ...]) -> os.stat_result:
    """Return the status of a directory that :meth:`Plan.directory` has."""
    numbers, mtime_ns, ctime_ns = packed
    return os.stat_result(numbers, {"st_mtime_ns": mtime_ns, "st_ctime_ns": ctime_ns})


def content_bytes(path: str, status: os.stat_result, found: Entry | None) -> int:
    """Return the bytes of content of a file without its holes, about; 0 of what is no file."""
    if found is not None and (status.st_size, status.st_mtime_ns) == (found.size, found.mtime_ns):
        return found.stored_bytes
    return stored_bytes(path, status)


def tar_bytes(size: int) -> int:
    """Return the bytes that a member with *size* bytes of content has in a tar, about."""
    return USUAL_HEADER_BYTES + size + -size % BLOCK
