"""What the newest backup has, where an increment is made from an older one."""

from __future__ import annotations

from bakthat.archive.index.state import State
from bakthat.errors import BakthatError
from bakthat.system.text import printable


class NewerContentError(BakthatError):
    """A file that cannot be read has newer content in a later backup than in the parent's state.

    So that this content stays, the increment must be made from that later backup.
    """


class LaterContent:
    """Knows what *newest*, the state of the newest backup, has and its parent's state has not.

    *newest* is None where the newest backup is the parent. Else it begins with the *archives* that
    the parent needs.
    """

    def __init__(self, newest: State | None, archives: int) -> None:
        self._newest = newest
        self._archives = archives

    def check(self, path: str) -> None:
        """Raise NewerContentError if the newest backup has newer content at *path*."""
        self._check(path, is_below_too=False)

    def check_all(self, path: str) -> None:
        """Raise NewerContentError if the newest backup has anything newer at *path* or below it.

        What it has no more is newer too: the directory that it was in was stored again then.
        """
        self._check(path, is_below_too=True)

    def _check(self, path: str, *, is_below_too: bool) -> None:
        if self._newest is None:
            return
        for entry in self._newest.entries([path]):
            if entry.archive >= self._archives and (is_below_too or entry.path == path):
                raise NewerContentError(f"a later backup has newer content of {printable(path)}")
