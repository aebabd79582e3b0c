"""What a listing tells of the backups of one set or of one name, in little memory."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from bakthat.backends.base import StoredObject
from bakthat.operations.status.set_status import MOST_SIZES
from bakthat.policy.newest import is_in_the_future, newest_key

_MOST_SPACED = 8
"""Of more than that, each second stays."""


@dataclass(slots=True)
class Tally:
    """The backups of one set, or of one name as long as it is not known whose they are."""

    now: int
    count: int = 0
    future: list[str] = field(default_factory=list)
    """The keys of some backups that are dated in the future."""
    _newest: list[tuple[tuple[bool, int], str, StoredObject]] = field(default_factory=list)
    """A heap."""
    _oldest: tuple[tuple[bool, int], str, StoredObject] | None = None
    _spaced: list[list[StoredObject]] = field(default_factory=list)
    """Each with the one after it."""
    _stride: int = 1

    def add(self, stored: StoredObject, date: int) -> None:
        """Count a backup and its *date*, epoch seconds UTC."""
        item = (newest_key(date, self.now), stored.key, stored)
        if self._spaced and len(self._spaced[-1]) == 1:
            self._spaced[-1].append(stored)
        if self.count % self._stride == 0:
            self._spaced.append([stored])
            if len(self._spaced) > _MOST_SPACED:
                self._spaced = self._spaced[::2]
                self._stride *= 2
        self.count += 1
        if len(self._newest) < MOST_SIZES:
            heapq.heappush(self._newest, item)
        else:
            heapq.heappushpop(self._newest, item)
        if self._oldest is None or item < self._oldest:
            self._oldest = item
        if is_in_the_future(date, self.now) and len(self.future) < MOST_SIZES:
            self.future.append(stored.key)

    def merge(self, other: Tally) -> None:
        """Add another tally of the same set."""
        self.count += other.count
        self.future = [*self.future, *other.future][:MOST_SIZES]
        self._newest = heapq.nlargest(MOST_SIZES, [*self._newest, *other._newest])
        heapq.heapify(self._newest)

    @property
    def newest(self) -> list[StoredObject]:
        """The latest backups, the newest first; one dated in the future comes last."""
        return [stored for _, _, stored in sorted(self._newest, reverse=True)]

    @property
    def probes(self) -> list[StoredObject]:
        """The two newest backups, the oldest, and two from the middle of the listing, each once.

        Of two sets whose backups alternate, both are among the newest two; where one of them has
        stopped, among the two from the middle, which follow each other.
        """
        oldest = [] if self._oldest is None else [self._oldest[2]]
        middle = self._spaced[len(self._spaced) // 2] if self._spaced else []
        found = {each.key: each for each in (*self.newest[:2], *oldest, *middle)}
        return list(found.values())
