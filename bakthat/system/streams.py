"""What the stages of a pipeline ask of each other: the least that a writer or a reader must be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

Buffer = bytes | bytearray | memoryview
"""Bytes handed on; whoever takes them keeps no reference after the call returns."""

Progress = Callable[[int, int], None]
"""Called often with what is done and what there is to do, in bytes or in things; the second number
may be an estimate."""

ByteCounter = Callable[[int], None]
"""Called with the number of bytes that were just read or written."""


class Sink(Protocol):
    """Somewhere to push bytes to. Who made it finishes or aborts it, never who writes to it."""

    def write(self, data: Buffer, /) -> object:
        """Take all of *data*; what is returned means nothing."""


class Source(Protocol):
    """Somewhere to pull bytes from. Who opened it closes it, never who reads from it."""

    def read(self, size: int, /) -> bytes:
        """Return between 1 and *size* bytes, or ``b""`` at the end and ever after."""


@runtime_checkable
class LendingSink(Protocol):
    """A sink that lends its own memory, so that what fills it need not be copied."""

    def lend(self) -> memoryview:
        """Return memory to fill from its start, and to give back by :meth:`take`."""

    def take(self, lent: memoryview, size: int, /) -> None:
        """Take the first *size* bytes of *lent*, which the caller must not touch any more."""


@runtime_checkable
class BorrowingSink(Sink, Protocol):
    """A sink that can work with another's memory for a while, instead of copying it at once."""

    def borrow(self, data: memoryview, give_back: Callable[[], None], /) -> None:
        """Take all of *data*, and call *give_back* once it is not needed any more.

        That happens in a later call of the sink's methods, in this one at the earliest; after an
        error it may never happen.
        """

    def wait(self) -> None:
        """Give back at least one piece, if any is borrowed."""
