"""Choose the version of a key that bakthat wrote, among all that a bucket keeps of it.

bakthat writes a key once and never changes it. So whatever else was written there was written by
somebody else, and later: nobody can date a version back, since the clock is the storage's. The
first version that fits is the right one. Who knows a time at which all was well names it, and gets
the version of that time, if it fits.

A version of an archive fits when its self-description has the set, the date and the encryption that
its key has, and a version of its index has its id and its size. Everything here is pure.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from bakthat.backends.base import StoredObject
from bakthat.backends.protection import Version, fits_key
from bakthat.format.description import sanitized

MAX_LOOKED_AT = 10
"""The most versions of a key that are looked at, each by a request. Of somebody else's there may
be thousands, and the one that is sought is the first or that of the time."""


class State(enum.StrEnum):
    """What became of an object."""

    INTACT = "intact"
    """It is stored as it was."""
    DELETED = "deleted"
    """A delete marker hides it."""
    OVERWRITTEN = "overwritten"
    """Another object has its key now."""
    GONE = "gone"
    """None of its versions is left."""


@dataclass(frozen=True, slots=True)
class PastObject:
    """An archive or an index, as it was, and what became of it."""

    key: str
    state: State
    version: Version | None = None
    """The version to bring back; None where none is left."""
    stored: StoredObject | None = None
    """The version as the storage describes it; None where it was not looked at."""
    changed_at: float | None = None
    """When it was deleted or overwritten first, in epoch seconds UTC."""
    overwritten: int = 0
    """How many other objects were written to its key later."""
    is_only_hidden: bool = False
    """Whether only delete markers hide it, so that nothing has to be copied."""


def candidates(versions: Sequence[Version], time: float | None) -> list[Version]:
    """Return the versions to look at in this order; *versions* are those of a key, newest first.

    *time* is in epoch seconds UTC; None for the first version that fits. Of versions with the same
    content, the first one is enough, but for that of the time: they may describe themselves
    differently.
    """
    written = [each for each in versions if not each.is_marker]
    if time is not None:
        written = [each for each in written if each.last_modified <= time]
    different: dict[object, Version] = {}
    for each in reversed(written):
        different.setdefault(_content(each), each)
    of_time = written[:1] if time is not None else []
    others = [each for each in different.values() if each not in of_time]
    return [*of_time, *others][:MAX_LOOKED_AT]


def was_stored(versions: Sequence[Version], time: float | None) -> bool:
    """Return whether the bucket had an object at *time*; with None, at any time."""
    if time is None:
        return any(not each.is_marker for each in versions)
    newest = next((each for each in versions if each.last_modified <= time), None)
    return newest is not None and not newest.is_marker


def is_untouched(versions: Sequence[Version]) -> bool:
    """Return whether a key was written once, and is there."""
    return len(versions) == 1 and not versions[0].is_marker


def seeming_copy(versions: Sequence[Version], right: Version) -> Version | None:
    """Return the newest object of *versions*, if it is another one with the content of *right*."""
    newest = next(each for each in versions if not each.is_marker)
    return newest if newest != right and _content(newest) == _content(right) else None


def judged(
    versions: Sequence[Version],
    right: Version,
    stored: StoredObject | None,
    copies: Collection[str],
    altered: Version | None = None,
) -> PastObject:
    """Return what became of the version *right*, one of *versions*, those of its key.

    *copies* are the ids of versions that are known to be copies of it. Another one is recognized by
    its size and its ETag. *altered* has the same content and another self-description.
    """

    def is_same(other: Version) -> bool:
        return (
            not other.is_marker
            and other != altered
            and (other.version_id in copies or _content(other) == _content(right))
        )

    place = versions.index(right)
    others = [each for each in versions[:place] if not is_same(each)]
    written = [each for each in versions if not each.is_marker]
    # A copy that was deleted again is brought back rather than copied once more.
    nearest = written[0] if is_same(written[0]) else right
    state = State.INTACT
    if nearest is not versions[0]:
        state = State.DELETED if versions[0].is_marker else State.OVERWRITTEN
    return PastObject(
        right.key,
        state,
        nearest,
        stored,
        others[-1].last_modified if others and state is not State.INTACT else None,
        sum(not each.is_marker for each in others),
        nearest is written[0],
    )


def agrees(archive: StoredObject, index: StoredObject) -> bool:
    """Return whether an index, by its self-description, is that of an archive."""
    own, found = sanitized(archive.metadata), sanitized(index.metadata)
    if found.get("stored", archive.size) != archive.size:
        return False
    # A description that was lost says nothing.
    return not own or all(own.get(name) == found.get(name) for name in ("id", "needs"))


def in_order_of_fit(looked_at: Iterator[StoredObject]) -> Iterator[StoredObject]:
    """Yield the objects that fit their key, then those that have no self-description."""
    undescribed = []
    for each in looked_at:
        fits = fits_key(each)
        if fits:
            yield each
        elif fits is None:
            undescribed.append(each)
    yield from undescribed


def _content(version: Version) -> object:
    """Return what two versions of the same content have in common."""
    return (version.size, version.etag) if version.etag else version.version_id
