"""What the stages of a pipeline ask of each other: the least that a writer or a reader must be."""

from __future__ import annotations

from typing import Protocol

Buffer = bytes | bytearray | memoryview
"""Bytes handed on; whoever takes them keeps no reference after the call returns."""


class Sink(Protocol):
    """Somewhere to push bytes to. Who made it finishes or aborts it, never who writes to it."""

    def write(self, data: Buffer, /) -> object:
        """Take all of *data*; what is returned means nothing."""


class Source(Protocol):
    """Somewhere to pull bytes from. Who opened it closes it, never who reads from it."""

    def read(self, size: int, /) -> bytes:
        """Return between 1 and *size* bytes, or ``b""`` at the end and ever after."""
