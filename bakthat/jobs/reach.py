"""Storages that cannot be reached: the attempts of one source are enough to know that."""

from __future__ import annotations

from collections.abc import Iterable

from bakthat.errors import BakthatError, UnreachableError
from bakthat.session.session import Session

_PROBE = "bakthat-probe"
"""A key that no backup has."""


class Reach:
    """Remembers which storages a run could not reach.

    A request is tried for some minutes before it fails. A storage that is down would cost that for
    each source, and for all that time ``before`` may have stopped what is backed up.
    """

    def __init__(self) -> None:
        self._lost: set[tuple[str, str]] = set()

    def check(self, session: Session) -> None:
        """Try a storage once that could not be reached before; raise UnreachableError again."""
        place = _place(session)
        if place not in self._lost:
            return
        try:
            session.backend(session.destination, attempts=1).stat(_PROBE)
        except UnreachableError:
            raise
        except BakthatError:
            pass  # it answers
        self._lost.discard(place)

    def note(self, session: Session, problems: Iterable[BakthatError]) -> None:
        """Remember the storage if a problem is that it cannot be reached."""
        if any(isinstance(each, UnreachableError) for each in problems):
            self._lost.add(_place(session))


def _place(session: Session) -> tuple[str, str]:
    return next(iter(session.containers(session.destination)), ("", ""))
