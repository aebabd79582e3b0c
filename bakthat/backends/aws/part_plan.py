"""Plan the parts of an upload before its size is known.

An upload has at most 10,000 parts, and each is kept until the storage has confirmed it, since only
a part that was kept can be sent again. Small parts need little room, but hold no large object, and
the hint about its size may be wrong. There are three plans:

- :func:`growing_plan`, for storages whose parts may differ, as those of S3 may: equal parts as long
  as the hint is right, then larger ones. It always holds :data:`LARGEST_OBJECT`.
- :func:`equal_plan`, for storages that insist on equal parts. They cannot be made larger
  afterwards, so they hold a multiple of the hint.
- :func:`doubled_plan`, the same for Glacier.

The limits are those of https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html and
https://docs.aws.amazon.com/amazonglacier/latest/dev/uploading-archive-mpu.html.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

MIB = 1024 * 1024
MAX_PARTS = 10_000
"""The most parts of one upload, on S3 and on Glacier."""
MIN_PART_SIZE = 8 * MIB
UNKNOWN_SIZE_PART = 16 * MIB
"""Bytes of the first parts of a growing plan when nothing is known about the size."""
MAX_PART_SIZE = 5 * 1024 * MIB
"""By S3; Glacier's limit is :data:`MAX_DOUBLED_PART_SIZE`."""
MAX_DOUBLED_PART_SIZE = 4 * 1024 * MIB
LARGEST_OBJECT = 5 * 1024 * 1024 * MIB
"""Bytes that every growing plan holds, and every other plan without a hint."""

FEWEST_EQUAL_PARTS = 2_000
"""A growing plan begins with at least this many equal parts. After 8,000, only 2,000 would be left
for an object that outgrows them, of up to 4.5 GiB each instead of 900 MiB."""
MOST_EQUAL_PARTS = 8_000
"""They hold an object of the size in the hint and a twentieth more."""
EQUAL_ROOM = 2
"""Up to this multiple of the hint, the parts of a growing plan are equal, unless more than
:data:`MOST_EQUAL_PARTS` are needed. A stream that grew more is reported as suspicious."""
OUTGROWN_ROOM = 4
"""The multiple of the hint that an equal plan holds. An object that does not fit cannot be stored,
and the next run has the same hint."""
DOUBLINGS = 18
"""The part size can double this often between the equal parts and the last one, which is enough to
hold :data:`LARGEST_OBJECT` from every beginning."""


@dataclass(frozen=True, slots=True)
class PartPlan:
    """The sizes of the parts of one upload; the last part may be smaller."""

    part_size: int
    """Bytes of each of the equal parts."""
    equal_parts: int = MAX_PARTS
    """How many parts have this size."""
    largest: int = MAX_PART_SIZE
    """Bytes that no larger part passes."""

    def size_of(self, number: int) -> int:
        """Return the bytes of part *number*, counted from 1."""
        if number <= self.equal_parts:
            return self.part_size
        return self._size_after((number - self.equal_parts - 1) // self._step + 1)

    @property
    def capacity(self) -> int:
        """The bytes of the largest object that the parts hold."""
        total, rest, doublings = self.equal_parts * self.part_size, MAX_PARTS - self.equal_parts, 0
        while rest > 0:
            doublings += 1
            count = min(self._step, rest)
            total, rest = total + count * self._size_after(doublings), rest - count
        return total

    @property
    def _step(self) -> int:
        """After how many parts the size doubles."""
        return max(1, (MAX_PARTS - self.equal_parts) // DOUBLINGS)

    def _size_after(self, doublings: int) -> int:
        return max(self.part_size, min(self.part_size << doublings, self.largest))


def growing_plan(size_hint: int | None, smallest: int | None = None) -> PartPlan:
    """Return the plan for an object of about *size_hint* bytes; None: not known.

    An object of at most 21/20 of the hint has equal parts, and every object of up to
    :data:`LARGEST_OBJECT` fits. *smallest*, in bytes, replaces :data:`MIN_PART_SIZE` and
    :data:`UNKNOWN_SIZE_PART`.
    """
    if size_hint is None:
        size, equal, room = smallest or UNKNOWN_SIZE_PART, FEWEST_EQUAL_PARTS, LARGEST_OBJECT
    else:
        needed = _whole_mib(-(-size_hint * 21 // (20 * MOST_EQUAL_PARTS)))
        size = min(max(needed, smallest or MIN_PART_SIZE), MAX_PART_SIZE)
        wished = -(-EQUAL_ROOM * size_hint // size)
        equal = min(max(wished, FEWEST_EQUAL_PARTS), MOST_EQUAL_PARTS)
        room = max(LARGEST_OBJECT, size_hint)
    # The smallest parts that hold it, since two of them are kept at a time.
    largest = bisect_left(
        range(MAX_PART_SIZE // MIB),
        room,
        key=lambda count: PartPlan(size, equal, count * MIB).capacity,
    )
    return PartPlan(size, equal, max(size, largest * MIB))


def equal_plan(size_hint: int | None, smallest: int | None = None) -> PartPlan:
    """Return the plan of equal parts for an object of about *size_hint* bytes; None: not known.

    It holds :data:`OUTGROWN_ROOM` times the hint, but not more than :data:`LARGEST_OBJECT` for the
    sake of this margin; beyond, a quarter more than the hint. Without a hint, it holds
    :data:`LARGEST_OBJECT`. *smallest*, in bytes, replaces :data:`MIN_PART_SIZE`, and what is
    needed without a hint.
    """
    if size_hint is None:
        return PartPlan(smallest or _whole_mib(-(-LARGEST_OBJECT // MAX_PARTS)))
    room = max(min(size_hint * OUTGROWN_ROOM, LARGEST_OBJECT), size_hint * 5 // 4)
    needed = _whole_mib(-(-room // MAX_PARTS))
    return PartPlan(min(max(needed, smallest or MIN_PART_SIZE), MAX_PART_SIZE))


def doubled_plan(size_hint: int | None, smallest: int | None = None) -> PartPlan:
    """Return the equal plan whose part size is a power of two in MiB, as Glacier requires.

    *smallest* is one, too.
    """
    needed = equal_plan(size_hint, smallest).part_size
    size = MIB << (-(-needed // MIB) - 1).bit_length()
    return PartPlan(min(size, MAX_DOUBLED_PART_SIZE))


def _whole_mib(size: int) -> int:
    """Return *size*, in bytes, rounded up to a whole MiB."""
    return -(-size // MIB) * MIB
