"""The interfaces between the stages of a pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

Buffer = bytes | bytearray | memoryview
"""Bytes that are passed to a call, which keeps no reference to them after it returns."""

Progress = Callable[[int, int], None]
"""Called often with the amount that is done and the total, in bytes or in items; the total may be
an estimate. One with a method ``on_state`` is not called: the method gets a :class:`ProgressState`
each time."""


class ProgressState(NamedTuple):
    """How far a backup or a restore is."""

    done: int
    """Bytes that were read from the source, or received from the storage."""
    total: int
    """Bytes to read or receive, as far as is known now; 0 when that is not known."""
    moved: int | None = None
    """Bytes that were sent to the storage, or of the content of files that were written."""
    path: str = ""
    """The path in the archive that is stored or restored now, not escaped; "" for none."""


def state_receiver(progress: Progress) -> Callable[[ProgressState], object]:
    """Return what to call with each state, so that *progress* gets what it wants of it."""
    on_state: Callable[[ProgressState], object] | None = getattr(progress, "on_state", None)
    if on_state is not None:
        return on_state
    return lambda state: progress(state.done, state.total)


ByteCounter = Callable[[int], None]
"""Called with the number of bytes that were just read or written."""


class Sink(Protocol):
    """A destination of bytes. Its creator finishes or aborts it, never the stage that writes."""

    def write(self, data: Buffer, /) -> object:
        """Write all of *data*; the result means nothing."""


class Source(Protocol):
    """A source of bytes. Its opener closes it, never the stage that reads."""

    def read(self, size: int, /) -> bytes:
        """Return between 1 and *size* bytes, or ``b""`` at the end and ever after."""


class RandomSource(Protocol):
    """Bytes that can be read in any order, by several threads at once. Its opener closes it."""

    size: int
    """How many bytes it has."""

    def read_at(self, offset: int, size: int, /) -> bytes:
        """Return exactly *size* bytes from *offset* on; both must lie within the source."""


class CountedSource:
    """A source that counts the bytes that are read from another one, which it does not close."""

    def __init__(self, source: Source, on_bytes: ByteCounter | None = None) -> None:
        """*on_bytes* is called for each read."""
        self._source = source
        self._on_bytes = on_bytes
        self.bytes = 0
        """How many bytes were read so far."""

    def read(self, size: int, /) -> bytes:
        """Read from the source, as :class:`Source` says."""
        data = self._source.read(size)
        self.bytes += len(data)
        if self._on_bytes is not None:
            self._on_bytes(len(data))
        return data


@runtime_checkable
class LendingSink(Protocol):
    """A sink that lends its memory, so that data can be read into it without a copy."""

    def lend(self) -> memoryview:
        """Return memory to fill from its start, and to give back by :meth:`take`."""

    def take(self, lent: memoryview, size: int, /) -> None:
        """Take the first *size* bytes of *lent*.

        The caller must not change *lent* any more, and may read it until it calls :meth:`lend`.
        """


@runtime_checkable
class BorrowingSink(Sink, Protocol):
    """A sink that can use the caller's memory after a call, instead of copying it."""

    def borrow(self, data: memoryview, give_back: Callable[[], None], /) -> None:
        """Take all of *data*, and call *give_back* once it is not needed any more.

        The sink calls *give_back* during this or a later call of its methods; after an error,
        perhaps never.
        """

    def wait(self) -> None:
        """Give back at least one piece, if any is borrowed."""
