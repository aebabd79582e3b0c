"""Keep the bytes of one part until it was sent: in memory, or a large part in an unnamed file.

A failed request is repeated, so all of its part is kept. A part could also be sent while it is
filled, but then a producer that pauses would let the storage end the request, and what was sent
could not be sent again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from bakthat.backends.aws.part_plan import MIB
from bakthat.errors import ResourceError
from bakthat.system.text import reason_of

log = logging.getLogger(__name__)

MEMORY_PART = 64 * MIB
"""The most bytes of a part in memory. Two parts are kept at least, and a process with two of these
stays below 256 MiB."""
PIECE = MIB
"""Bytes of a piece: those of a leaf of Glacier's tree hash."""


class PartBuffer:
    """The bytes of one part, at most *size*; the owner closes it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.filled = 0
        """The bytes that were written."""
        self._memory = bytearray(min(size, MEMORY_PART))
        self._file: BinaryIO | None = None

    def write(self, data: memoryview) -> None:
        """Append *data*, which must fit. Raises ResourceError when a file cannot be written."""
        if self._file is None and self.filled + len(data) > len(self._memory):
            self._move_to_file()
        if self._file is None:
            with memoryview(self._memory) as memory:
                memory[self.filled : self.filled + len(data)] = data
        else:
            with self._errors_of_file():
                self._file.write(data)
        self.filled += len(data)

    def body(self) -> bytearray | BinaryIO:
        """Return what was written, to be sent.

        It stays valid until :meth:`empty` or :meth:`close`, and nothing can be written before.
        Raises ResourceError.
        """
        if self._file is None:
            del self._memory[self.filled :]
            return self._memory
        self._rewind(self._file)
        return self._file

    def pieces(self) -> Iterator[memoryview]:
        """Yield what was written, :data:`PIECE` bytes at a time. Raises ResourceError."""
        if self._file is None:
            with memoryview(self._memory) as memory:
                for start in range(0, self.filled, PIECE):
                    with memory[start : min(start + PIECE, self.filled)] as piece:
                        yield piece
            return
        self._rewind(self._file)
        with self._errors_of_file():
            while data := self._file.read(PIECE):
                yield memoryview(data)

    def empty(self) -> bool:
        """Prepare for another part of the same size; return False if the buffer was shortened."""
        if self.filled < self.size:
            return False
        self.filled = 0
        if self._file is not None:
            self._file.seek(0)
        return True

    def close(self) -> None:
        """Free the memory, and remove the file."""
        self._memory = bytearray()
        if self._file is not None:
            with contextlib.suppress(OSError):  # of what it has not written yet
                self._file.close()

    def _rewind(self, file: BinaryIO) -> None:
        """Go to the beginning of *file*, which ends with what was written."""
        with self._errors_of_file():
            file.truncate(self.filled)  # of the reserved room; flushes what was written, too
            file.seek(0)

    def _move_to_file(self) -> None:
        """Continue in an unnamed file; in memory, when there is no room for one."""
        try:
            file = tempfile.TemporaryFile(prefix="bakthat-part-")  # noqa: SIM115  # close() does
        except OSError as exc:
            self._stay_in_memory(exc)
            return
        try:
            if hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(file.fileno(), 0, self.size)
            with memoryview(self._memory) as memory:
                file.write(memory[: self.filled])
        except OSError as exc:
            with contextlib.suppress(OSError):
                file.close()
            self._stay_in_memory(exc)
            return
        self._file, self._memory = file, bytearray()

    def _stay_in_memory(self, exc: OSError) -> None:
        log.warning(
            "no temporary file for a part of %d MiB, which takes memory instead: %s; TMPDIR names "
            "another directory",
            self.size // MIB,
            reason_of(exc),
        )
        memory = bytearray(self.size)
        memory[: self.filled] = self._memory[: self.filled]
        self._memory = memory

    @contextlib.contextmanager
    def _errors_of_file(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise ResourceError(
                f"cannot write a temporary file for a part of {self.size // MIB} MiB: "
                f"{reason_of(exc)}",
                hint="TMPDIR names another directory for it",
            ) from exc
