"""Lay out all members of an archive below one private directory."""

from __future__ import annotations

from collections.abc import Callable

from bakthat.archive.extract.selection import Choice
from bakthat.archive.extract.tree import PathSet, StagedTree
from bakthat.archive.report import ArchiveReport
from bakthat.archive.tar.reader import TarReader
from bakthat.system.streams import LendingSource


class CannotMakeError(Exception):
    """The file system refused something about the member at *path*, which *error* tells."""

    def __init__(self, path: bytes, error: OSError) -> None:
        super().__init__(path, error)
        self.path = path
        self.error = error


def lay_out(
    source: LendingSource,
    root: int,
    report: ArchiveReport,
    *,
    check_comment: Callable[[bytes], None] | None = None,
    choice: Choice | None = None,
    umask: int | None = None,
) -> PathSet:
    """Make the tree of the tar archive in *source* below the open private directory *root*.

    *check_comment* is called with the comment of a global pax header, ``b""`` where there is none,
    before the first member and at the end, and may raise. With *choice*, only the members that it
    takes. *report* takes the counts and warnings. *umask* is what this process's
    own was, where that is 0 now. Returns the paths of directories that are no members and were
    needed.

    *source* is read to its end. Raises CorruptArchiveError, UnsafeMemberError, DestinationError,
    CannotMakeError, what *check_comment* raises, and whatever *source* raises.
    """
    watched = WatchedSource(source)
    reader = TarReader(watched)
    path, first = b"", True
    try:
        with StagedTree(root, report, umask=umask) as tree:
            for member in reader:
                path = member.name
                if first and check_comment is not None:
                    check_comment(reader.comment)  # not after all of a wrong archive
                first = False
                if choice is None or choice.takes(member):
                    tree.add(member, reader.read_content(member))
            if check_comment is not None:
                check_comment(reader.comment)
            if choice is not None:
                choice.check()
    except OSError as exc:
        if exc is watched.failure:
            raise
        raise CannotMakeError(path, exc) from exc
    report.bytes += reader.content_bytes
    return tree.implicit


class WatchedSource:
    """A source that remembers an OSError of its own, to tell it from one of the destination."""

    def __init__(self, source: LendingSource) -> None:
        self._source = source
        self.failure: OSError | None = None

    def read(self, size: int, /) -> bytes | memoryview:
        """Do what the source does."""
        try:
            return self._source.read(size)
        except OSError as exc:
            self.failure = exc
            raise
