"""Select the members of an archive that a partial restore includes."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bakthat.archive.extract.tree import split_name
from bakthat.archive.tar.member import Member
from bakthat.errors import NoMatchError, UsageError
from bakthat.system.text import quoted


class Selection:
    """The members at *paths*, and everything below them.

    A path begins at the top of the archive, or just below the one directory that is at its top:
    ``mydir/etc/hosts`` or ``etc/hosts``. Patterns are not supported. Raises UsageError
    for a path that no member can have.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = [_parts(path) for path in paths]
        self._unseen = set(range(len(paths)))

    def includes(self, member: Member) -> bool:
        """Return whether the selection includes *member*.

        Raises UnsafeMemberError for a name that leads out of the archive.
        """
        found = self._find(split_name(member.name, member.name))
        self._unseen.difference_update(found)
        return bool(found)

    def includes_path(self, path: list[bytes]) -> bool:
        """Return whether the selection includes a member at *path*."""
        return bool(self._find(path))

    def check(self) -> None:
        """Raise NoMatchError unless every path has matched a member."""
        for number in sorted(self._unseen):
            raise NoMatchError(
                f"the backup holds no {quoted(b'/'.join(self._paths[number]))}",
                hint="give paths as they are inside of the backup; patterns are not supported",
            )

    def _find(self, member: list[bytes]) -> list[int]:
        return [
            number
            for number, path in enumerate(self._paths)
            if path in (member[: len(path)], member[1 : len(path) + 1])
        ]


def _parts(path: str) -> list[bytes]:
    parts = [part for part in os.fsencode(path).split(b"/") if part not in (b"", b".")]
    if not parts or b".." in parts or b"\0" in os.fsencode(path):
        raise UsageError(f"invalid path inside of a backup: {quoted(os.fsencode(path))}")
    return parts
